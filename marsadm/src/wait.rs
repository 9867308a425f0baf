//! Waiting for a named condition of the tree, bounded, and interruptible without leaving things half done.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mars_core::Tree;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::context::{Context, say};
use crate::error::{AdmError, Result};
use crate::exit::Exit;

const POLL_MILLIS: u8 = 50;

/// How far a condition is.
pub(crate) enum Progress<T> {
    /// It holds.
    Done(T),
    /// Not yet: what is waited for.
    Waiting(String),
}

/// While it lives, SIGINT, SIGTERM and SIGHUP end the waits with an error instead of ending the process.
pub(crate) struct Interrupt {
    signals: SigSet,
    fd: SignalFd,
}

impl Interrupt {
    /// Takes over the signals.
    pub(crate) fn arm() -> Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        let failed = |e| AdmError::system("take over", "signals", e);
        signals.thread_block().map_err(failed)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let fd = SignalFd::with_flags(&signals, flags).map_err(failed)?;
        Ok(Self { signals, fd })
    }

    /// Rests for one poll interval; an error if a signal came.
    fn rest(&self) -> Result<()> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        // An interrupted poll is a short rest.
        let _ = poll(&mut fds, POLL_MILLIS);
        match self.fd.read_signal() {
            Ok(Some(info)) => {
                let number = i32::try_from(info.ssi_signo).ok();
                let name = number.and_then(|n| Signal::try_from(n).ok());
                let name = name.map_or("a signal", Signal::as_str);
                Err(AdmError::new(
                    Exit::Interrupted,
                    format!("stopped by {name}"),
                ))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        // What is pending now takes its usual effect.
        let _ = self.signals.thread_unblock();
    }
}

/// Waits until `condition` is done, at most `timeout` (`None`: for ever). On a terminal the last reason is shown as one
/// line; elsewhere each new reason is printed once.
pub(crate) fn wait_for<T>(
    ctx: &mut Context,
    interrupt: &Interrupt,
    timeout: Option<Duration>,
    mut condition: impl FnMut(&Tree) -> Result<Progress<T>>,
) -> Result<T> {
    let deadline = timeout.map(|t| Instant::now() + t);
    let mut line = StatusLine::default();
    loop {
        let reason = match condition(&ctx.quiet_tree())? {
            Progress::Done(value) => return Ok(value),
            Progress::Waiting(reason) => reason,
        };
        if deadline.is_some_and(|d| Instant::now() >= d) {
            let secs = timeout.unwrap_or_default().as_secs();
            let what = format!("gave up after {secs} s: still {reason}");
            return Err(AdmError::new(Exit::Timeout, what).remedy(
                "look at mars-status, or wait longer with --timeout SECONDS (0: for ever)",
            ));
        }
        line.show(&reason);
        interrupt.rest()?;
    }
}

/// [`wait_for`]; with `--dry-run` it is only told what would be waited for.
pub(crate) fn wait_or_tell(
    ctx: &mut Context,
    interrupt: &Interrupt,
    timeout: Option<Duration>,
    mut condition: impl FnMut(&Tree) -> Result<Progress<()>>,
) -> Result<()> {
    if !ctx.opts.dry_run {
        return wait_for(ctx, interrupt, timeout, condition);
    }
    match condition(&ctx.quiet_tree())? {
        Progress::Done(()) => say("nothing would be waited for"),
        Progress::Waiting(reason) => say(&format!("would wait: {reason}")),
    }
    Ok(())
}

/// One line that is overwritten on a terminal and repeated elsewhere.
#[derive(Default)]
struct StatusLine {
    shown: String,
}

impl StatusLine {
    fn show(&mut self, reason: &str) {
        let mut out = std::io::stdout();
        if out.is_terminal() {
            let _ = write!(out, "\r\x1b[K{reason}");
            let _ = out.flush();
        } else if kind(&self.shown) != kind(reason) {
            say(reason);
        }
        self.shown = reason.into();
    }
}

/// The part of a reason that does not change with every byte.
fn kind(reason: &str) -> &str {
    reason.split_once(" (").map_or(reason, |(kind, _)| kind)
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        let mut out = std::io::stdout();
        if out.is_terminal() && !self.shown.is_empty() {
            let _ = write!(out, "\r\x1b[K");
            let _ = out.flush();
        }
    }
}
