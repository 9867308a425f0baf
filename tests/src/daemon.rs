//! Starts and stops marsd on a node.

use std::time::Duration;

use crate::cluster::poll;
use crate::error::{Context, Result};
use crate::node::{Node, Task};

impl Node {
    /// Starts marsd and waits until it has published its sign of life.
    ///
    /// # Errors
    /// It ends, or gives no sign of life; the error shows its last messages.
    pub fn start_marsd(&self) -> Result<Task> {
        let alive = format!("alive-{}", self.name());
        let before = self.link_stamp(&alive);
        let mut task = self.spawn("marsd", &format!("exec marsd{}", self.shim_option()))?;
        let mut ended = false;
        let published = poll(Duration::from_secs(30), || {
            ended = !task.runs();
            let fresh = self.link_stamp(&alive) > before;
            ended || (fresh && self.link_is(&alive, "1"))
        });
        let state = if ended {
            "ended"
        } else {
            "gives no sign of life"
        };
        (!ended && published.is_ok())
            .then_some(task)
            .context(format!(
                "marsd on {} {state}: {}",
                self.name(),
                self.log_tail("marsd", 20)
            ))
    }

    /// `MARS_TESTS_KMOD` names the nodes whose devices the kernel module serves, separated by spaces.
    fn shim_option(&self) -> &'static str {
        let names = std::env::var("MARS_TESTS_KMOD").unwrap_or_default();
        if names.is_empty() {
            ""
        } else if names.split_whitespace().any(|name| name == self.name()) {
            " --shim kmod"
        } else {
            " --shim user"
        }
    }

    /// Ends marsd as a service manager does, and waits for its end.
    ///
    /// # Errors
    /// None runs, or it does not end.
    pub fn stop_marsd(&self) -> Result {
        for process in self.processes("marsd")? {
            // The bridge of a running rsync bears the same name, and may be gone already.
            if process.lives() {
                let _ = process.signal(nix::sys::signal::Signal::SIGTERM);
            }
        }
        poll(Duration::from_secs(60), || {
            self.processes("marsd").is_ok_and(|p| p.is_empty())
        })
        .context(format!("marsd on {} does not end", self.name()))
    }
}
