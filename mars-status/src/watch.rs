//! Showing again and again: on a terminal in place, with signals taken between two frames only, so that the terminal
//! is left clean.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use console::{Term, measure_text_width};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

const CLEAR: &str = "\x1b[H\x1b[2J";
const HOME: &str = "\x1b[H";
const CLEAR_LINE_END: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
/// Terminals that know it show all between these two at once; others ignore it.
const BEGIN_UPDATE: &str = "\x1b[?2026h";
const END_UPDATE: &str = "\x1b[?2026l";
/// Default colours, and nothing left on the line where an echoed ^C may stand.
pub const LEAVE: &str = "\x1b[0m\r\x1b[K";

/// What comes after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The next frame.
    Again,
    /// The next frame, on a terminal of another size.
    Resized,
    /// Somebody wants the program to end.
    End,
}

/// Waits between two frames.
#[derive(Debug)]
pub struct Pause {
    signals: Option<SignalFd>,
}

impl Pause {
    /// On a terminal signals are taken from now on by [`Pause::wait`]; elsewhere they end the program at once.
    ///
    /// # Errors
    /// The system has no room for another file.
    pub fn new(on_terminal: bool) -> nix::Result<Self> {
        if !on_terminal {
            return Ok(Self { signals: None });
        }
        let mut set = SigSet::empty();
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGWINCH,
        ] {
            set.add(signal);
        }
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self {
            signals: Some(SignalFd::with_flags(&set, flags)?),
        })
    }

    /// Waits for `pause`, or for a signal.
    ///
    /// # Errors
    /// The system refuses to wait.
    pub fn wait(&self, pause: Duration) -> nix::Result<Next> {
        let Some(signals) = &self.signals else {
            thread::sleep(pause);
            return Ok(Next::Again);
        };
        let end = Instant::now() + pause;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, left) {
                Ok(0) => return Ok(Next::Again),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e),
            }
            match signals.read_signal()? {
                None => {}
                Some(info) if i32::try_from(info.ssi_signo) == Ok(Signal::SIGWINCH as i32) => {
                    return Ok(Next::Resized);
                }
                Some(_) => return Ok(Next::End),
            }
        }
    }
}

/// Rows and columns of the terminal.
pub fn terminal_size() -> (usize, usize) {
    let (rows, columns) = Term::stdout().size();
    (rows.into(), columns.into())
}

/// What shows `text` in place of the frame before. What is higher than the terminal is printed anew, and can be
/// scrolled back to.
pub fn frame(text: &str, (rows, columns): (usize, usize), is_first: bool) -> String {
    let columns = columns.max(1);
    let widths: Vec<usize> = text.lines().map(measure_text_width).collect();
    let needed: usize = widths.iter().map(|w| w.div_ceil(columns).max(1)).sum();
    if is_first || needed >= rows {
        return format!("{BEGIN_UPDATE}{CLEAR}{text}{END_UPDATE}");
    }
    let mut out = format!("{BEGIN_UPDATE}{HOME}");
    for (line, width) in text.split_inclusive('\n').zip(widths) {
        let (body, end) = match line.strip_suffix('\n') {
            Some(body) => (body, "\n"),
            None => (line, ""),
        };
        out.push_str(body);
        // A full row has nothing to clear, and clearing would hit its last column.
        if width == 0 || width % columns != 0 {
            out.push_str(CLEAR_LINE_END);
        }
        out.push_str(end);
    }
    out.push_str(CLEAR_BELOW);
    out.push_str(END_UPDATE);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frame_clears_and_the_next_is_drawn_over_it() {
        let size = (24, 5);
        assert_eq!(
            frame("a\nb\n", size, true),
            "\x1b[?2026h\x1b[H\x1b[2Ja\nb\n\x1b[?2026l"
        );
        assert_eq!(
            frame("a\n12345\n\n ", size, false),
            "\x1b[?2026h\x1b[Ha\x1b[K\n12345\n\x1b[K\n \x1b[K\x1b[J\x1b[?2026l"
        );
    }

    #[test]
    fn what_is_too_high_is_printed_anew() {
        let clears = |text: &str, size| frame(text, size, false).contains(CLEAR);
        assert!(!clears("a\nb\n", (3, 80)));
        assert!(clears("a\nb\n", (2, 80)));
        assert!(clears("123456\nb\n", (3, 5)));
        assert!(clears("a\n", (0, 0)));
    }

    #[test]
    fn colours_take_no_room() {
        let text = "\x1b[31m12345\n\x1b[0m";
        assert!(!frame(text, (3, 5), false).contains("12345\x1b[K"));
    }
}
