//! The status of the module in the words of marsd; pure.

use std::path::Path;

use mars_core::control::{Counters, LogStatus, ShimState, ShimStatus};
use mars_core::{LogName, Stamp};
use mars_kmod_core::abi::{self, Failure, Status, flag, log_flag, operation, state};
use nix::errno::Errno;

/// What marsd is told; `device` is the path of the device node.
pub(super) fn shim_status(status: &Status, device: &Path) -> ShimStatus {
    let count = usize::try_from(status.log_count).unwrap_or(0);
    let logs = status.logs.get(..count).unwrap_or_default();
    ShimStatus {
        state: shim_state(status),
        device: (status.flags & flag::DEVICE != 0).then(|| device.display().to_string()),
        size_bytes: status.size_bytes,
        logs: logs.iter().filter_map(log_status).collect(),
        error: failure(&status.disk_failure).or_else(|| failure(&status.log_failure)),
        counters: counters(status),
    }
}

fn shim_state(status: &Status) -> ShimState {
    match status.state {
        state::ATTACHED => ShimState::Attached,
        state::LOGGING => ShimState::Logging,
        state::PASS_THROUGH => ShimState::PassThrough,
        state::FAILED => ShimState::Failed,
        _ => ShimState::Draining,
    }
}

fn log_status(log: &abi::LogStatus) -> Option<LogStatus> {
    Some(LogStatus {
        log: LogName::parse(abi::text(&log.name)?).ok()?,
        logged: log.logged,
        durable: log.durable,
        written_back: log.written_back,
        written_back_stamp: Stamp::new(log.stamp_secs, log.stamp_nanos),
        complete: log.flags & log_flag::COMPLETE != 0,
    })
}

fn counters(status: &Status) -> Counters {
    let from = &status.counters;
    Counters {
        reads: from.reads,
        writes: from.writes,
        flushes: from.flushes,
        logged_bytes: from.logged_bytes,
        written_back_bytes: from.written_back_bytes,
        dirty_bytes: from.dirty_bytes,
    }
}

fn failure(failure: &Failure) -> Option<String> {
    let what = match failure.operation {
        operation::NONE => return None,
        operation::LOG_WRITE => "write to the log",
        operation::LOG_FLUSH => "flush the log",
        operation::MARK => "store the mark before pass-through",
        operation::DISK_WRITE => "write to the disk",
        operation::DISK_FLUSH => "flush the disk",
        _ => "an operation",
    };
    let errno = Errno::from_raw(i32::try_from(failure.errno).unwrap_or(0));
    Some(format!(
        "{what} at byte {}: {}",
        failure.offset,
        errno.desc()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        // SAFETY: all fields are numbers or arrays of numbers, for which 0 is a value.
        let mut status: Status = unsafe { std::mem::zeroed() };
        status.state = state::LOGGING;
        status.flags = flag::DEVICE;
        status.size_bytes = 1 << 20;
        status.log_count = 1;
        status.logs[0].name = abi::field("log-000000003-a").unwrap();
        status.logs[0].logged = 300;
        status.logs[0].durable = 200;
        status.logs[0].written_back = 100;
        status.logs[0].stamp_secs = 7;
        status
    }

    #[test]
    fn positions_and_state_are_told() {
        let told = shim_status(&status(), Path::new("/dev/mars/r"));
        assert_eq!(told.state, ShimState::Logging);
        assert_eq!(told.device.as_deref(), Some("/dev/mars/r"));
        assert_eq!(told.error, None);
        let log = &told.logs[0];
        assert_eq!(log.log.to_string(), "log-000000003-a");
        assert_eq!((log.logged, log.durable, log.written_back), (300, 200, 100));
        assert_eq!(log.written_back_stamp, Stamp::new(7, 0));
    }

    #[test]
    fn the_disk_is_the_worse_failure() {
        let mut status = status();
        status.state = state::FAILED;
        status.flags = 0;
        status.log_failure = Failure {
            operation: operation::LOG_WRITE,
            errno: 28,
            offset: 9,
        };
        let told = shim_status(&status, Path::new("/dev/mars/r"));
        assert_eq!(told.device, None);
        assert_eq!(
            told.error.as_deref(),
            Some("write to the log at byte 9: No space left on device")
        );
        status.disk_failure = Failure {
            operation: operation::DISK_FLUSH,
            errno: 5,
            offset: 0,
        };
        let told = shim_status(&status, Path::new("/dev/mars/r"));
        assert!(told.error.unwrap().starts_with("flush the disk"));
    }
}
