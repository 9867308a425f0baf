//! Takes the records of a log that may be newer than the disk into the map, before requests are served.

use mars_core::LogName;
use mars_core::log_format::CODE_NEW_DATA;

use super::{Engine, Mode, Reply};
use crate::error::ShimError;
use crate::log_file::{LogReader, OpenedLog, stamp_of};
use crate::map::{PAGE, split_pages};

/// Records taken at once.
const AT_ONCE: usize = 1024;
/// Slots that a record may need.
const SLOTS: usize = 3;

/// A log being loaded.
#[derive(Debug)]
pub(super) struct Loader {
    reader: LogReader,
    /// Stream position of the first byte of the log.
    base: u64,
    reply: Reply,
    begun: bool,
}

impl Engine {
    /// Takes the order to log to `log`; its records from `pos` on are newer than the disk.
    pub(super) fn start_log(&mut self, name: LogName, log: OpenedLog, pos: u64, reply: Reply) {
        if !matches!(self.mode, Mode::Idle | Mode::PassThrough) || self.drain.is_some() {
            return self.refuse(&reply, "starting a log");
        }
        let base = self.log.staged;
        let made = LogReader::new(&log.file, &log.path, pos, log.end).and_then(|reader| {
            let from = log.end - log.end % 4096;
            let mut tail = LogReader::new(&log.file, &log.path, from, log.end)?;
            Ok((reader, tail.bytes_to_end()?))
        });
        let (reader, tail) = match made {
            Ok(made) => made,
            Err(e) => return self.answer(&reply, Err(e)),
        };
        let (end, stamp) = (log.end, log.stamp);
        self.log.logs.clear();
        self.log.open(name, log, base, &tail);
        self.log.staged = base + pos;
        self.log.last_stamp = stamp;
        let marks = &mut self.log.marks;
        marks.logged = base + end;
        marks.durable = base + end;
        marks.written_back = base + pos;
        marks.written_back_stamp = stamp;
        self.error = None;
        self.mode = Mode::Loading(Box::new(Loader {
            reader,
            base,
            reply,
            begun: false,
        }));
    }

    /// Whether loading can go on now.
    pub(super) fn loading_ready(&self) -> bool {
        matches!(self.mode, Mode::Loading(_)) && self.pass.quiet() && self.map.free_slots() >= SLOTS
    }

    /// Goes on loading as far as memory permits.
    pub(super) fn pump_loading(&mut self) {
        if !self.loading_ready() {
            return;
        }
        let Mode::Loading(mut loader) = std::mem::replace(&mut self.mode, Mode::Idle) else {
            return;
        };
        loader.begun = true;
        match self.load_some(&mut loader) {
            Ok(false) => self.mode = Mode::Loading(loader),
            Ok(true) => {
                self.log.clock.observe(self.log.last_stamp);
                if let Some(log) = self.log.logs.last_mut() {
                    log.span.last_stamp = self.log.last_stamp;
                }
                self.mode = Mode::Logging;
                self.update_written_back();
                self.answer(&loader.reply, Ok(()));
            }
            Err(e) => {
                // What is in memory is not to be written: without the rest it is no state the disk ever had.
                self.error = Some(e.to_string());
                self.mode = Mode::Failed;
                self.log.give_up();
                self.answer(&loader.reply, Err(e));
            }
        }
    }

    /// True when the end is reached.
    fn load_some(&mut self, loader: &mut Loader) -> Result<bool, ShimError> {
        for _ in 0..AT_ONCE {
            if self.map.free_slots() < SLOTS {
                self.starved = true;
                return Ok(false);
            }
            let at = loader.reader.position();
            let Some((record, payload)) = loader.reader.next_record()? else {
                return Ok(true);
            };
            let (start, end) = (
                loader.base + at,
                loader.base + at + record.total_len() as u64,
            );
            if record.code == CODE_NEW_DATA {
                let before = self.log.last_stamp;
                for (page, mask, range) in split_pages(record.pos, u64::from(record.len)) {
                    let Some(slot) = self.map.place(page, mask, (start, end), before) else {
                        return Err(ShimError::Invalid("no memory for a record".into()));
                    };
                    let in_page = (record.pos + range.start) % PAGE;
                    let to = usize::try_from(u64::from(slot) * PAGE + in_page).unwrap_or(0);
                    let from = usize::try_from(range.start).unwrap_or(0);
                    let size = usize::try_from(range.end - range.start).unwrap_or(0);
                    self.slots
                        .bytes_mut(to, size)
                        .copy_from_slice(&payload[from..from + size]);
                }
                self.dirty_since.get_or_insert(self.now);
            }
            self.log.staged = end;
            self.log.last_stamp = stamp_of(&record);
        }
        Ok(false)
    }
}
