//! Settings of the process: it must not be killed for want of memory, nor by a careless signal.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// From `linux/prctl.h`.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// Its niceness, between that of applications and of the kernel's own threads for urgent block I/O.
const NICE: libc::c_int = -15;

/// Protects the process as far as its rights go; every failure is tolerated, because the data path also works without.
pub fn protect() {
    if let Err(e) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::info!("oom_score_adj: {e}");
    }
    // SAFETY: plain numbers. Whoever writes to the device waits for this process: it goes before them.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } != 0 {
        tracing::info!("setpriority: {}", std::io::Error::last_os_error());
    }
    // SAFETY: plain numbers. Lets memory reclaim not wait for us, as for any block driver in user space.
    if unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) } != 0 {
        tracing::info!("PR_SET_IO_FLUSHER: {}", std::io::Error::last_os_error());
    }
}

/// Turns the signals that ask for an end into a descriptor that becomes readable. Call before the first thread.
///
/// While a device is served they are ignored: the only ways to end are [`Verb::Stop`](mars_core::control::Verb) and
/// SIGKILL, which is safe by design. A node that shuts down kills everything in the end anyway, after the file
/// systems on top are unmounted; ending at the first SIGTERM would fail them.
pub fn catch_signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}
