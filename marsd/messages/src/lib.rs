//! Where messages go: stderr or the journal, the last warnings and errors for `mars-status --debug`, and `/mars/log.txt`
//! (`symlink-spec.md` section 11.7).
//!
//! Whoever logs never waits: every place has a thread of its own and a bounded queue. What does not fit into a queue is
//! left out, counted, and the count is told there. So neither a full disk, nor a hanging one, nor a journal that is kept
//! on a device of MARS can stop a data path.
#![forbid(unsafe_code)]

mod form;
mod level;
mod log_txt;
mod queue;
mod recent;
mod stderr;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mars_core::ResourceName;
use mars_tree::{Env, module_params_dir, params_dir};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, dynamic_filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use form::{Form, Style};
use log_txt::LogTxt;
use queue::Queue;
use recent::Recent;
use stderr::Stderr;

pub use level::{LevelError, Levels};
pub use stderr::is_journal;

/// What the messages of a process need to know.
#[derive(Debug)]
pub struct Setup {
    /// What is worth telling on stderr.
    pub levels: Levels,
    /// Where the tree and the directory of parameters are.
    pub env: Env,
    /// The resource that every message of this process is about, if there is one.
    pub resource: Option<ResourceName>,
}

/// Why messages cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum MessagesError {
    /// A thread cannot be started.
    #[error("cannot start a thread for messages: {0}")]
    Thread(#[from] std::io::Error),
    /// It was done before in this process.
    #[error("messages are set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Messages are written as long as it lives; dropping it writes what waits, for a second at most.
#[derive(Debug)]
#[must_use]
pub struct Messages {
    queues: Vec<Queue>,
}

/// Sets up the messages of this process; panics are told as errors from now on.
///
/// # Errors
/// The system gives no thread, or it was done before.
pub fn start(setup: Setup) -> Result<Messages, MessagesError> {
    let Setup {
        levels,
        env,
        resource,
    } = setup;
    let style = if is_journal() {
        Style::Journal
    } else {
        Style::Stderr
    };
    let is_wanted = Arc::new(AtomicBool::new(false));
    let stderr = Queue::start("messages", Stderr)?;
    let recent = Queue::start("recent", Recent::new(params_dir(&env), module_params_dir()))?;
    let log_txt = Queue::start("log.txt", LogTxt::new(log_path(&env), is_wanted.clone()))?;
    let form = |style| Form::new(style, resource.as_ref());
    let layer = |style, queue: &Queue| {
        tracing_subscriber::fmt::layer()
            .event_format(form(style))
            .with_writer(queue.clone())
    };
    let debug_wanted = move |meta: &tracing::Metadata<'_>| {
        let is_debug = *meta.level() == tracing::Level::DEBUG && meta.target().starts_with("mars");
        *meta.level() <= tracing::Level::INFO || is_debug && is_wanted.load(Ordering::Relaxed)
    };
    let layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = vec![
        layer(style, &stderr)
            .with_ansi(style == Style::Stderr && stderr::is_terminal())
            .with_filter(levels.into_filter())
            .boxed(),
        layer(Style::File, &recent)
            .with_ansi(false)
            .with_filter(LevelFilter::WARN)
            .boxed(),
        layer(Style::File, &log_txt)
            .with_ansi(false)
            .with_filter(dynamic_filter_fn(move |meta, _| debug_wanted(meta)))
            .boxed(),
    ];
    tracing_subscriber::registry().with(layers).try_init()?;
    std::panic::set_hook(Box::new(|info| {
        tracing::error!("a thread panicked: {info}")
    }));
    Ok(Messages {
        queues: vec![stderr, recent, log_txt],
    })
}

/// The log that an administrator switches on by making it.
fn log_path(env: &Env) -> PathBuf {
    env.dir.join("log.txt")
}

impl Drop for Messages {
    fn drop(&mut self) {
        for queue in &self.queues {
            queue.flush();
        }
    }
}
