//! The versioned hello: the first bytes in both directions after TLS, by which two versions of marsd understand each
//! other or say why not.

use mars_core::HostName;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use super::frame::{FrameError, expect_json, write_json};

/// Versions of the protocol that a node speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// The newest.
    pub newest: u32,
    /// The oldest.
    pub oldest: u32,
}

impl Default for Protocol {
    fn default() -> Self {
        Self {
            newest: 1,
            oldest: 1,
        }
    }
}

/// What each side says. Fields that a newer version adds are ignored by older ones.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Hello {
    mars: u32,
    min: u32,
    software: String,
    host: HostName,
}

/// What the listening side answers.
#[derive(Debug, Serialize, Deserialize)]
struct Verdict {
    refused: Option<String>,
}

/// Why a hello did not end well.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelloError {
    #[error("{0}")]
    Disagree(String),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Hello {
    pub(super) fn new(host: &HostName, protocol: Protocol) -> Self {
        Self {
            mars: protocol.newest,
            min: protocol.oldest,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            host: host.clone(),
        }
    }

    fn shown(&self) -> String {
        let software: String = self.software.chars().take(40).collect();
        let Self {
            mars, min, host, ..
        } = self;
        format!("{host} runs marsd {software:?} with protocol {min} to {mars}")
    }

    /// The version that both speak; the error tells both.
    fn agree(&self, other: &Self) -> Result<u32, String> {
        let common = self.mars.min(other.mars);
        if common >= self.min && common >= other.min {
            return Ok(common);
        }
        let (a, b) = (self.shown(), other.shown());
        Err(format!(
            "no common protocol version: {a}, {b}; upgrade the older one"
        ))
    }
}

/// The dialling side: reads the hello of `expected`, sends its own, waits for the verdict.
pub(super) async fn dialling<S>(
    stream: &mut S,
    own: &Hello,
    expected: &HostName,
) -> Result<u32, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let other: Hello = expect_json(stream).await?;
    write_json(stream, own).await?;
    let version = own.agree(&other).map_err(HelloError::Disagree)?;
    let verdict: Verdict = expect_json(stream).await?;
    if let Some(reason) = verdict.refused {
        return Err(HelloError::Disagree(reason));
    }
    if other.host != *expected {
        let host = &other.host;
        return Err(HelloError::Disagree(format!(
            "it says that its name is {host}"
        )));
    }
    Ok(version)
}

/// The listening side: sends its hello, reads the other, answers; `is_known` decides whether the name is genuine.
pub(super) async fn listening<S>(
    stream: &mut S,
    own: &Hello,
    is_known: impl FnOnce(&HostName) -> Result<(), String>,
) -> Result<HostName, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    write_json(stream, own).await?;
    let other: Hello = expect_json(stream).await?;
    let refused = own
        .agree(&other)
        .map(drop)
        .and_then(|()| is_known(&other.host))
        .err();
    let verdict = Verdict { refused };
    write_json(stream, &verdict).await?;
    match verdict.refused {
        None => Ok(other.host),
        Some(reason) => Err(HelloError::Disagree(reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(oldest: u32, newest: u32) -> Hello {
        Hello::new(&HostName::new("a").unwrap(), Protocol { newest, oldest })
    }

    #[test]
    fn the_newest_common_version_is_taken() {
        assert_eq!(hello(1, 1).agree(&hello(1, 1)), Ok(1));
        assert_eq!(hello(1, 3).agree(&hello(2, 9)), Ok(3));
        let why = hello(1, 1).agree(&hello(2, 3)).unwrap_err();
        assert!(why.contains("1 to 1") && why.contains("2 to 3"), "{why}");
        assert!(hello(4, 5).agree(&hello(2, 3)).is_err());
    }

    #[test]
    fn fields_of_the_future_are_ignored() {
        let text = r#"{"mars":2,"min":1,"software":"9","host":"b","colour":"red"}"#;
        let other: Hello = serde_json::from_str(text).unwrap();
        assert_eq!(hello(1, 1).agree(&other), Ok(1));
    }
}
