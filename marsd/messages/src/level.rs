//! Which messages are told on stderr: the value of `--log-level` and `MARS_LOG`.

use std::str::FromStr;

use tracing_subscriber::EnvFilter;

const WORDS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A level, or several parts separated by commas, of which one may be a level for all and the others are
/// `MODULE=LEVEL`, such as `info,marsd::net=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels(String);

/// The text says no levels.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "'{part}' is no level: use error, warn, info, debug, trace or off, or MODULE=LEVEL such as marsd::net=debug"
)]
pub struct LevelError {
    part: String,
}

impl FromStr for Levels {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, LevelError> {
        let is_word = |word: &str| WORDS.iter().any(|w| w.eq_ignore_ascii_case(word));
        for part in text.split(',') {
            let (module, word) = part.rsplit_once('=').unwrap_or(("all", part));
            let is_name = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
            if !is_word(word) || module.is_empty() || !module.chars().all(is_name) {
                return Err(LevelError { part: part.into() });
            }
        }
        Ok(Self(text.into()))
    }
}

impl std::fmt::Display for Levels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Levels {
    pub(crate) fn into_filter(self) -> EnvFilter {
        EnvFilter::new(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_modules_are_taken_and_misspellings_are_not() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,marsd::net=debug",
            "marsd=trace,error",
        ] {
            assert_eq!(good.parse::<Levels>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "verbose",
            "info,",
            "marsd::net=loud",
            "=debug",
            "a b=info",
            "[x]=info",
        ] {
            let error = bad.parse::<Levels>().unwrap_err().to_string();
            assert!(error.contains("is no level: use error, warn"), "{error}");
        }
    }
}
