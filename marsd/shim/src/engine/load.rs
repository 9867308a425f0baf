//! Takes the records of a log that may be newer than the disk into the map, before requests are served.

use std::collections::VecDeque;

use mars_core::LogName;
use mars_core::log_format::{CODE_NEW_DATA, Parsed, chunk_len, parse};

use super::write::Content;
use super::{Engine, Mode, Reply};
use crate::error::ShimError;
use crate::log_file::{LogReader, OpenedLog, stamp_of};
use crate::map::{PAGE, SECTOR, split_pages};
use crate::requests::KeptWrite;
use crate::stage::LOG_ALIGN;
use crate::stage_area;

/// Records taken at once.
const AT_ONCE: usize = 1024;
/// Slots that a record may need.
const SLOTS: usize = 3;

/// Logs being loaded.
#[derive(Debug)]
pub(super) struct Loader {
    /// For each log: its reader, and the stream position of its first byte.
    readers: VecDeque<(LogReader, u64)>,
    /// Bytes of the log that a predecessor had staged and not written, and how many of them are staged again.
    leftover: (Vec<u8>, usize),
    /// The write that it had acknowledged and not staged, and how many of its bytes are staged.
    kept: Option<(KeptWrite, usize)>,
    reply: Reply,
}

impl Engine {
    /// Takes the order to log to the last one of `logs`; the records of the first one from `pos` on, and those of
    /// the others, are newer than the disk.
    pub(super) fn start_log(&mut self, logs: Vec<(LogName, OpenedLog)>, pos: u64, reply: Reply) {
        if !matches!(self.mode, Mode::Idle | Mode::PassThrough) || self.drain.is_some() {
            return self.refuse(&reply, "starting a log");
        }
        let mut readers = VecDeque::new();
        let (mut base, mut from) = (self.log.staged, pos);
        for (_, log) in &logs {
            match LogReader::new(&log.file, &log.path, from, log.end) {
                Ok(reader) => readers.push_back((reader, base)),
                Err(e) => return self.answer(&reply, Err(e)),
            }
            base += log.end;
            from = 0;
        }
        let tail = match logs.last().map(|(_, log)| tail_of(log)) {
            Some(Ok(tail)) => tail,
            Some(Err(e)) => return self.answer(&reply, Err(e)),
            None => return self.refuse(&reply, "starting no log"),
        };
        let (leftover, kept) = match logs.last() {
            Some((name, log)) if matches!(self.mode, Mode::Idle) => {
                let identity = stage_area::identity(&log.file);
                let area = &self.log.area;
                let kept = area.kept_write(name, identity);
                (area.leftover(name, identity, log.end), kept)
            }
            _ => (Vec::new(), None),
        };
        let begin = self.log.staged;
        self.log.logs.clear();
        for (name, log) in logs {
            self.log.close();
            self.log.last_stamp = log.stamp;
            let base = self.log.staged;
            self.log.open(name, log, base, &tail);
        }
        let stamp = self.log.logs[0].span.last_stamp;
        self.log.last_stamp = stamp;
        let end = self.log.staged;
        self.log.staged = begin + pos;
        let marks = &mut self.log.marks;
        marks.logged = end;
        marks.durable = end;
        marks.written_back = begin + pos;
        marks.written_back_stamp = stamp;
        self.error = None;
        self.mode = Mode::Loading(Box::new(Loader {
            readers,
            leftover: (leftover, 0),
            kept: kept.map(|write| (write, 0)),
            reply,
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
        match self.load_some(&mut loader) {
            Ok(false) => self.mode = Mode::Loading(loader),
            Ok(true)
                if !self.stage_leftover(&mut loader.leftover)
                    || !self.stage_kept(&mut loader.kept) =>
            {
                self.mode = Mode::Loading(loader);
            }
            Ok(true) => {
                self.log.area.forget_leftover();
                self.log.clock.observe(self.log.last_stamp);
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
            let Some((reader, base)) = loader.readers.front_mut() else {
                return Ok(true);
            };
            let at = *base + reader.position();
            let Some((record, payload)) = reader.next_record()? else {
                self.loaded_one(at);
                loader.readers.pop_front();
                continue;
            };
            let (start, end) = (at, at + record.total_len() as u64);
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

    /// Stages again what a predecessor had acknowledged; false if there is no room for all of it now.
    fn stage_leftover(&mut self, (bytes, done): &mut (Vec<u8>, usize)) -> bool {
        loop {
            let (record, payload) = match parse(&bytes[*done..], crc_fast::crc32_iscsi) {
                Ok(Parsed::Record(record, payload)) => (record, payload),
                Ok(Parsed::End) => return true,
                other => {
                    // Complete records stand there, or none.
                    tracing::error!(
                        "the stage of the predecessor is damaged at byte {done}: {other:?}"
                    );
                    return true;
                }
            };
            let len = u64::from(record.len);
            let inside = record
                .pos
                .checked_add(len)
                .is_some_and(|end| end <= self.size_bytes);
            if inside && record.pos % SECTOR == 0 && len % SECTOR == 0 {
                let content = Content::Bytes(payload);
                if !self.stage_record(record.pos, len, content, stamp_of(&record)) {
                    return false;
                }
            }
            *done += record.total_len();
        }
    }

    /// Stages what a predecessor had acknowledged before it staged it; false if there is no room for all of it now.
    fn stage_kept(&mut self, kept: &mut Option<(KeptWrite, usize)>) -> bool {
        let Some((write, done)) = kept else {
            return true;
        };
        let len = write.bytes.len() as u64;
        let end = write.offset.checked_add(len);
        if end.is_none_or(|end| end > self.size_bytes)
            || write.offset % SECTOR != 0
            || !len.is_multiple_of(SECTOR)
        {
            tracing::error!("the write that the predecessor kept is damaged");
            return true;
        }
        while *done < write.bytes.len() {
            let rest = &write.bytes[*done..];
            let pos = write.offset + *done as u64;
            let len = chunk_len(pos, rest.len() as u64);
            let size = usize::try_from(len).unwrap_or(0);
            if !self.stage_record(pos, len, Content::Bytes(&rest[..size]), write.stamp) {
                return false;
            }
            *done += size;
        }
        true
    }

    /// All of the log that ends at stream position `end` is in the map.
    fn loaded_one(&mut self, end: u64) {
        let stamp = self.log.last_stamp;
        let log = self.log.logs.iter_mut().find(|l| l.span.end == Some(end));
        if let Some(log) = log {
            log.span.last_stamp = stamp;
        }
    }
}

/// The bytes of the partial block at the end of a log.
fn tail_of(log: &OpenedLog) -> Result<Vec<u8>, ShimError> {
    let from = log.end - log.end % LOG_ALIGN;
    LogReader::new(&log.file, &log.path, from, log.end)?.bytes_to_end()
}
