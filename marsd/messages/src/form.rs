//! The form of a message at each place.

use std::fmt;

use mars_core::ResourceName;
use mars_tree::wall_clock;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// How much of a file name is kept, from its end.
const FILE_MAX: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Time, level, module, text.
    Stderr,
    /// `<PRIORITY>text`, as journald wants it: it adds time and program itself.
    Journal,
    /// `SEC.NSEC CLASS  THREAD[CPU] FILE LINE MODULE: text`.
    File,
}

/// Writes messages in one style. Fields such as `resource` and `peer`, its own and those of the spans around it, stand
/// behind the text.
#[derive(Debug)]
pub(crate) struct Form {
    style: Style,
    /// What stands behind every message.
    context: String,
}

impl Form {
    pub(crate) fn new(style: Style, resource: Option<&ResourceName>) -> Self {
        let context = resource.map_or_else(String::new, |name| format!(" resource={name}"));
        Self { style, context }
    }
}

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        match self.style {
            Style::Stderr => {
                SystemTime.format_time(&mut out)?;
                let (begin, end) = colours(meta.level())
                    .filter(|_| out.has_ansi_escapes())
                    .unwrap_or_default();
                write!(out, " {begin}{:>5}{end} {}: ", meta.level(), meta.target())?;
            }
            Style::Journal => write!(out, "<{}>", priority(meta.level()))?,
            Style::File => {
                let now = wall_clock();
                let place = meta.file().unwrap_or("?");
                let cut = place.len().saturating_sub(FILE_MAX);
                write!(
                    out,
                    "{}.{:09} {:<12} {}[{}] {} {} {}: ",
                    now.secs,
                    now.nanos,
                    class(meta.level()),
                    std::thread::current().name().unwrap_or("?"),
                    nix::sched::sched_getcpu().unwrap_or(0),
                    place.get(cut..).unwrap_or(place),
                    meta.line().unwrap_or(0),
                    meta.target(),
                )?;
            }
        }
        ctx.format_fields(out.by_ref(), event)?;
        for span in ctx.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                write!(out, " {fields}")?;
            }
        }
        writeln!(out, "{}", self.context)
    }
}

/// As `syslog(3)` counts.
fn priority(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

fn class(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "MARS_ERROR",
        Level::WARN => "MARS_WARN",
        Level::INFO => "MARS_INFO",
        _ => "MARS_DEBUG",
    }
}

fn colours(level: &Level) -> Option<(&'static str, &'static str)> {
    match *level {
        Level::ERROR => Some(("\x1b[31m", "\x1b[0m")),
        Level::WARN => Some(("\x1b[33m", "\x1b[0m")),
        Level::INFO => Some(("\x1b[32m", "\x1b[0m")),
        _ => None,
    }
}
