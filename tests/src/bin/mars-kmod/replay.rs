//! Replays a log onto a disk, as marsd does before it makes a node primary; on its own, as the tests compare the two.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use mars_core::log_format::{CODE_NEW_DATA, Parsed, parse};
use mars_tests::{Context, Result};

/// Applies the valid records, flushes the disk, cuts the log behind them, and returns its length.
pub(crate) fn replay(log: &Path, disk: &Path) -> Result<u64> {
    let bytes = std::fs::read(log).context(format!("read {}", log.display()))?;
    let device = File::options()
        .write(true)
        .open(disk)
        .context(format!("open {}", disk.display()))?;
    let mut len = 0;
    while let Ok(Parsed::Record(record, payload)) =
        parse(bytes.get(len..).unwrap_or_default(), crc_fast::crc32_iscsi)
    {
        if record.code == CODE_NEW_DATA {
            device
                .write_all_at(payload, record.pos)
                .context(format!("write to {}", disk.display()))?;
        }
        len += record.total_len();
    }
    device
        .sync_all()
        .context(format!("flush {}", disk.display()))?;
    let len = u64::try_from(len).context("length of the log")?;
    let file = File::options()
        .write(true)
        .open(log)
        .context(format!("open {}", log.display()))?;
    file.set_len(len)
        .and_then(|()| file.sync_all())
        .context(format!("cut {}", log.display()))?;
    Ok(len)
}
