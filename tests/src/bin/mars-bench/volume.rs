//! The primary's `/mars` is a volume of its own, as the documentation asks for.
//!
//! Its medium was written before, like that of the devices that are compared: on a thinly provisioned disk, or one that
//! is told of every deleted file, the first write of a block costs twice, which says nothing of MARS.

use std::time::Duration;

use mars_tests::{Node, Result};

const VOLUME: &str = "/dev/vg/mars";
/// Logs of the longest measurement, and what the secondary has not fetched yet.
const BYTES: u64 = 10 << 30;

/// Makes the volume and mounts it in a node that has no tree yet; the mount ends with the node.
pub(crate) fn mount(node: &Node) -> Result {
    node.add_disk(VOLUME, BYTES)?;
    let fill = format!("dd if=/dev/zero of={VOLUME} bs=4M oflag=direct status=none || test $? = 1");
    node.try_run_for(&fill, Duration::from_secs(600))?.good()?;
    node.run(&format!(
        "mkfs.ext4 -q -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 {VOLUME} && \
         mount {VOLUME} /mars && rmdir /mars/lost+found"
    ))
    .map(drop)
}
