//! Where this node is: the root of its tree, its name, its run directory, and its clock.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mars_core::{HostName, Stamp};

/// How long an offset of the clock that was read counts.
const OFFSET_LIFE: Duration = Duration::from_millis(100);

/// Places and name of this node.
#[derive(Debug, Clone)]
pub struct Env {
    /// Root of the tree: `MARS_DIR`, else `/mars`.
    pub dir: PathBuf,
    /// Name of this node: `MARS_HOST`, else `uname -n`.
    pub host: HostName,
    /// Sockets and mount points, never replicated: `MARS_RUN`, else `/run/mars`.
    pub run: PathBuf,
}

/// Why the environment is unusable.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// The name of the node breaks a rule.
    #[error("the name of this node ({origin}) is unusable: {cause}; set MARS_HOST to a legal name")]
    Host {
        /// `MARS_HOST` or `uname -n`.
        origin: &'static str,
        /// The rule.
        cause: mars_core::name::NameError,
    },
    /// The system does not tell its name.
    #[error("cannot ask the system for the name of this node: {0}; set MARS_HOST")]
    Uname(#[from] nix::Error),
}

impl Env {
    /// Reads `MARS_DIR`, `MARS_HOST` and `MARS_RUN`; an empty variable counts as unset.
    pub fn from_env() -> Result<Self, EnvError> {
        let (origin, name) = match variable("MARS_HOST") {
            Some(name) => ("MARS_HOST", name),
            None => ("uname -n", nix::unistd::gethostname()?),
        };
        let host = HostName::new(&name.to_string_lossy())
            .map_err(|cause| EnvError::Host { origin, cause })?;
        Ok(Self {
            dir: variable("MARS_DIR").map_or_else(|| "/mars".into(), PathBuf::from),
            host,
            run: variable("MARS_RUN").map_or_else(|| "/run/mars".into(), PathBuf::from),
        })
    }
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The wall clock as a stamp; 1970 where the clock stands before it.
///
/// For tests, `MARS_CLOCK_OFFSET_FILE` names a file with whole seconds (may be negative) that are added; it is read again
/// every tenth of a second, so that the clock of a running program can be made to jump. Without a number in it nothing is added.
pub fn wall_clock() -> Stamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let secs = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Stamp::new(
        secs.saturating_add(clock_offset_secs()),
        since.subsec_nanos(),
    )
}

fn clock_offset_secs() -> i64 {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    static LAST: Mutex<Option<(Instant, i64)>> = Mutex::new(None);
    let Some(file) = FILE.get_or_init(|| variable("MARS_CLOCK_OFFSET_FILE").map(PathBuf::from))
    else {
        return 0;
    };
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, offset)) = *last
        && at.elapsed() < OFFSET_LIFE
    {
        return offset;
    }
    let text = std::fs::read_to_string(file).ok();
    let offset = text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    *last = Some((Instant::now(), offset));
    offset
}
