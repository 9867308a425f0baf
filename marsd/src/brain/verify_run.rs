//! Runs a comparison as a task, with the brain as its surroundings.

use std::time::Duration;

use mars_core::ReplayPos;
use tokio::sync::watch;
use tokio::time::timeout;

use super::spawn::Reporter;
use super::verify::ask;
use super::{VerifyAsk, WorkEvent};
use crate::net::{Stream, StreamRequest};
use crate::work::{Grant, LogPart, Throttled, VerifyError, VerifyHost, VerifyJob, verify};

/// How long a peer may be away during a comparison.
const PEER_AWAY: Duration = Duration::from_secs(60);
/// How long the logs may take to arrive.
const LOGS_LATE: Duration = Duration::from_secs(60);
/// How long replay may take to get on between two passes.
const REPLAY_LATE: Duration = Duration::from_secs(10);

struct BrainHost(Reporter);

impl VerifyHost for BrainHost {
    type Stream = Throttled<Stream>;

    async fn hold(&mut self) -> Result<Grant<Throttled<Stream>>, VerifyError> {
        let late = |_| VerifyError::Peer {
            peer: "the peer".into(),
            why: format!(
                "not connected and consistent within {} s",
                PEER_AWAY.as_secs()
            ),
        };
        let granted = timeout(PEER_AWAY, ask(&self.0, VerifyAsk::Hold)).await;
        let grant = granted.map_err(late)?.ok_or(VerifyError::Stopped)?;
        let peer = grant.conn.peer().to_string();
        let resource = self.0.res.clone();
        let stream = grant.conn.open(&StreamRequest::Sync { resource }).await;
        match stream {
            Ok(stream) => Ok(Grant {
                stream: Throttled::new(stream, grant.traffic),
                peer,
                both_have: grant.both_have,
            }),
            Err(e) => Err(VerifyError::Peer {
                peer,
                why: e.to_string(),
            }),
        }
    }

    async fn logs(
        &mut self,
        from: &ReplayPos,
        to: &ReplayPos,
    ) -> Result<Vec<LogPart>, VerifyError> {
        let late = |_| {
            let secs = LOGS_LATE.as_secs();
            VerifyError::Logs(format!(
                "the logs up to {to} did not arrive within {secs} s"
            ))
        };
        let make = |tx| VerifyAsk::Logs(from.clone(), to.clone(), tx);
        let answered = timeout(LOGS_LATE, ask(&self.0, make)).await;
        let parts = answered.map_err(late)?.ok_or(VerifyError::Stopped)?;
        parts.map_err(VerifyError::Logs)
    }

    async fn release(&mut self, to: Option<ReplayPos>) {
        // Replay may be switched off, or slow: it is not waited for long.
        let _ = timeout(REPLAY_LATE, ask(&self.0, |tx| VerifyAsk::Release(to, tx))).await;
    }
}

/// Compares, and reports the end.
pub(super) async fn run_verify(job: VerifyJob, reporter: Reporter) {
    let (progress, mut seen) = watch::channel(0);
    let follow = reporter.clone();
    let follower = tokio::spawn(async move {
        while seen.changed().await.is_ok() {
            follow.send(WorkEvent::Verified(*seen.borrow_and_update()));
        }
    });
    let mut host = BrainHost(reporter.clone());
    let result = verify(&mut host, &job, &progress).await;
    drop(progress);
    let _ = follower.await;
    reporter.send(WorkEvent::VerifyEnded(result.map_err(|e| e.to_string())));
}
