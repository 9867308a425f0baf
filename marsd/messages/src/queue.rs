//! A bounded queue with a thread that writes: whoever puts a message into it never waits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Messages that may wait.
const QUEUE: usize = 1024;
/// Messages written at once, at most.
const BATCH: usize = 256;
/// How often a place without messages is looked after.
const IDLE: Duration = Duration::from_secs(5);
/// How long the end of a process may be held up by one place.
const FLUSH: Duration = Duration::from_secs(1);
/// Stack of the thread in bytes.
const STACK: usize = 128 * 1024;

/// One message, with the newline at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) text: String,
}

/// Where a queue leads to.
pub(crate) trait Place: Send + 'static {
    /// Writes messages; returns how many of them had to be left out.
    fn write(&mut self, lines: &[Line]) -> u64;

    /// So many messages did not get here since the last time; a message of its own, or nothing.
    fn missing(&self, count: u64) -> Option<Line>;

    /// Called when nothing has come for some seconds.
    fn idle(&mut self) {}
}

enum Item {
    Line(Line),
    Flush(SyncSender<()>),
}

/// The writing end.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    items: SyncSender<Item>,
    missing: Arc<AtomicU64>,
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Item")
    }
}

impl Queue {
    /// Starts the thread `name` that writes to `place` until all writing ends are gone.
    pub(crate) fn start(name: &str, place: impl Place) -> io::Result<Self> {
        let (items, received) = sync_channel(QUEUE);
        let missing = Arc::new(AtomicU64::new(0));
        let queue = Self {
            items,
            missing: missing.clone(),
        };
        std::thread::Builder::new()
            .name(name.into())
            .stack_size(STACK)
            .spawn(move || work(place, &received, &missing))?;
        Ok(queue)
    }

    fn put(&self, line: Line) {
        if self.items.try_send(Item::Line(line)).is_err() {
            self.missing.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits a moment until all that was put in before is written.
    pub(crate) fn flush(&self) {
        let deadline = Instant::now() + FLUSH;
        let (done, written) = sync_channel(1);
        let mut item = Item::Flush(done);
        while let Err(TrySendError::Full(back)) = self.items.try_send(item) {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
            item = back;
        }
        // Late or never: the process ends all the same.
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn work(mut place: impl Place, items: &Receiver<Item>, missing: &AtomicU64) {
    loop {
        let first = match items.recv_timeout(IDLE) {
            Ok(item) => item,
            Err(RecvTimeoutError::Timeout) => {
                place.idle();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut lines = Vec::new();
        let count = missing.swap(0, Ordering::Relaxed);
        if count > 0 {
            lines.extend(place.missing(count));
        }
        let mut flushed = None;
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                Item::Line(line) => lines.push(line),
                Item::Flush(done) => flushed = Some(done),
            }
            let more = lines.len() < BATCH && flushed.is_none();
            next = if more { items.try_recv().ok() } else { None };
        }
        if !lines.is_empty() {
            missing.fetch_add(place.write(&lines), Ordering::Relaxed);
        }
        if let Some(done) = flushed {
            // Who asked may have given up.
            let _ = done.send(());
        }
    }
}

/// Takes one message.
#[derive(Debug)]
pub(crate) struct Pen<'a> {
    queue: &'a Queue,
    level: Level,
}

impl io::Write for Pen<'_> {
    /// A whole message each time. Only its end is a newline.
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(message);
        let mut text = text.trim_end().replace(['\n', '\r'], " ");
        text.push('\n');
        self.queue.put(Line {
            level: self.level,
            text,
        });
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Pen<'a>;

    fn make_writer(&'a self) -> Pen<'a> {
        Pen {
            queue: self,
            level: Level::INFO,
        }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Pen<'a> {
        Pen {
            queue: self,
            level: *meta.level(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc::Sender;
    use std::sync::mpsc::channel;

    use super::*;

    struct Slow {
        gate: Receiver<()>,
        seen: Sender<String>,
        failing: u64,
    }

    impl Place for Slow {
        fn write(&mut self, lines: &[Line]) -> u64 {
            self.gate.recv().unwrap();
            for line in lines {
                self.seen.send(line.text.clone()).unwrap();
            }
            std::mem::take(&mut self.failing)
        }

        fn missing(&self, count: u64) -> Option<Line> {
            let text = format!("{count} missing\n");
            Some(Line {
                level: Level::WARN,
                text,
            })
        }
    }

    fn slow(failing: u64) -> (Queue, Sender<()>, Receiver<String>) {
        let (open, gate) = channel();
        let (seen, out) = channel();
        let place = Slow {
            gate,
            seen,
            failing,
        };
        (Queue::start("slow", place).unwrap(), open, out)
    }

    #[test]
    fn a_place_that_hangs_stops_nobody_and_what_is_missing_is_told() {
        let (queue, open, out) = slow(0);
        let put = |number: usize| {
            queue
                .make_writer()
                .write_all(format!("{number}\n").as_bytes())
        };
        let sent = 2 * QUEUE + BATCH;
        (0..sent).for_each(|number| put(number).unwrap());
        drop((0..100).map(|_| open.send(())).collect::<Vec<_>>());
        queue.flush();
        put(sent).unwrap();
        drop(queue);
        let texts: Vec<String> = out.iter().collect();
        let lost: Vec<usize> = texts
            .iter()
            .filter_map(|t| t.strip_suffix(" missing\n")?.parse().ok())
            .collect();
        let written = texts.len() - lost.len();
        assert!(written >= QUEUE && lost.iter().sum::<usize>() >= QUEUE);
        assert_eq!(written + lost.iter().sum::<usize>(), sent + 1);
        assert_eq!(texts.last().unwrap(), &format!("{sent}\n"));
    }

    #[test]
    fn what_a_place_could_not_write_is_counted_and_flush_waits_for_the_rest() {
        let (queue, open, out) = slow(3);
        (0..3).for_each(|_| open.send(()).unwrap());
        let put = |text: &str| queue.make_writer().write_all(text.as_bytes()).unwrap();
        put("one\ntwo\n\n");
        queue.flush();
        assert_eq!(out.try_recv().unwrap(), "one two\n");
        put("three");
        queue.flush();
        assert_eq!(out.try_recv().unwrap(), "3 missing\n");
        assert_eq!(out.try_recv().unwrap(), "three\n");
    }
}
