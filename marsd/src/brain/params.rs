//! What the parameters change: limits of transfer, pauses, memory, space, patience; and the measured values beside them.

use std::fs;

use tokio::time::Instant;

use mars_core::limit::{memory_share, parse_loadavg, parse_memory};
use mars_core::param::{lower_limit, of_resource};
use mars_core::plan::SpaceLimits;
use mars_core::{Param, ResourceName};

use super::Brain;
use super::res::{Res, Shim};
use crate::transfer::{Moved, Rates};
use crate::work::{BATCH, RateMeter};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Memory that a replay or a sync needs in any case, in bytes.
const WORKER_MIN: u64 = MIB;
/// Windows of a sync that are under way, where memory is not limited.
const AHEAD: u64 = 8;

/// Rates of the whole node.
#[derive(Debug, Default)]
pub(super) struct NodeMeters {
    last: Moved,
    sent: RateMeter,
    received: RateMeter,
    server_io: RateMeter,
}

impl NodeMeters {
    fn add(&mut self, now: Instant, moved: Moved) {
        let last = std::mem::replace(&mut self.last, moved);
        self.sent.add(now, moved.sent.saturating_sub(last.sent));
        self.received
            .add(now, moved.received.saturating_sub(last.received));
        self.server_io
            .add(now, moved.server_io.saturating_sub(last.server_io));
    }
}

impl Brain {
    /// Looks at the parameters, lets them take effect, and publishes what is measured.
    pub(super) fn check_params(&mut self, now: Instant) {
        let mut told = Vec::new();
        let is_changed = self.params.refresh(&self.tree, &self.me, |path, why| {
            told.push((path.display().to_string(), why.to_owned()));
        });
        // Who writes the same nonsense again hears of it again.
        let about = std::mem::take(&mut self.params_told);
        for path in about {
            if !told.iter().any(|(p, _)| *p == path) {
                self.warned.remove(&path);
            }
        }
        for (path, why) in told {
            self.warn_once(&path, &why);
            self.params_told.push(path);
        }
        if is_changed {
            let secs = self.params.get(Param::NetworkIoTimeout);
            self.net.set_silence_secs(secs);
            // At the start it is not yet known what the shims do: the first sign of life looks at the space.
            if self.alive_at.is_some() {
                self.check_space();
            }
        }
        self.limit_transfer();
        self.publish_rates(now);
    }

    fn limit_transfer(&mut self) {
        let node = Rates {
            network: self.params.get(Param::NetworkTrafficLimitKb) * KIB,
            server_io: self.params.get(Param::ServerIoLimitMb) * MIB,
        };
        self.transfer.set_node(node);
        let load = fs::read_to_string("/proc/loadavg")
            .ok()
            .and_then(|text| parse_loadavg(&text));
        let names: Vec<ResourceName> = self.resources.keys().cloned().collect();
        for name in names {
            let own = |param| of_resource(&self.tree, &self.me, &name, param).unwrap_or(0);
            let rates = Rates {
                network: own(Param::NetworkTrafficLimitKb) * KIB,
                server_io: own(Param::ServerIoLimitMb) * MIB,
            };
            let limit = lower_limit(
                self.params.get(Param::LoadavgLimit),
                own(Param::LoadavgLimit),
            );
            let is_over = limit > 0 && load.is_some_and(|load| load >= limit * 100);
            let why = is_over.then(|| {
                format!(
                    "data transfer pauses: the load average of {} has reached loadavg_limit {limit}",
                    self.me
                )
            });
            self.transfer.set_resource(&name, rates, why.as_deref());
            self.note_pause(&name, why);
        }
    }

    fn note_pause(&mut self, name: &ResourceName, why: Option<String>) {
        let Some(res) = self.resources.get_mut(name) else {
            return;
        };
        if res.paused == why {
            return;
        }
        match &why {
            Some(why) => tracing::warn!(resource = %name, "{why}"),
            None => {
                tracing::info!(resource = %name, "data transfer goes on: the load average is below its limit")
            }
        }
        res.paused = why;
        self.dirty.insert(name.clone());
    }

    fn publish_rates(&mut self, now: Instant) {
        let moved = self.transfer.moved();
        self.meters.add(now, moved);
        let meters = &mut self.meters;
        let network = meters.sent.rate(now).max(meters.received.rate(now)) / KIB;
        let server_io = meters.server_io.rate(now);
        let hundredths = server_io * 100 / MIB;
        let dirty: u64 = self.resources.values().map(Res::dirty_bytes).sum();
        for (name, value) in [
            ("network_traffic_rate_kb", network.to_string()),
            (
                "server_io_rate_mb",
                format!("{}.{:02}", hundredths / 100, hundredths % 100),
            ),
            ("mem_used_kb", (dirty / KIB).to_string()),
        ] {
            if let Err(e) = self.params.publish(name, &value) {
                self.warn_once(name, &format!("cannot be published: {e}"));
            }
        }
    }

    /// Bytes of memory for each of the resources that this node has joined; `None` without a limit.
    fn memory_share(&self) -> Option<u64> {
        let percent = self.params.get(Param::PercentMemLimitKb);
        let text = fs::read_to_string("/proc/meminfo").ok()?;
        let joined = self.resources.values().filter(|r| r.pos.is_some()).count();
        memory_share(parse_memory(&text)?, percent, joined)
    }

    /// MiB that a shim may hold before it must write back; `None`: as it likes.
    pub(super) fn shim_dirty_mib(&self) -> Option<u64> {
        self.memory_share()
            .map(|bytes| (bytes / MIB).clamp(4, 65_536))
    }

    /// Log bytes that a replay may hold.
    pub(super) fn replay_batch(&self) -> usize {
        let share = self.memory_share().map(|bytes| bytes.max(WORKER_MIN));
        share.map_or(BATCH, |bytes| {
            usize::try_from(bytes).unwrap_or(BATCH).min(BATCH)
        })
    }

    /// Windows of 1 MiB that a sync may have under way.
    pub(super) fn sync_ahead(&self) -> usize {
        let windows = self.memory_share().map_or(AHEAD, |bytes| bytes / MIB / 2);
        usize::try_from(windows.clamp(1, AHEAD)).unwrap_or(1)
    }

    /// When logs of a resource are rotated and deleted.
    pub(super) fn space_limits(&self, name: &ResourceName) -> SpaceLimits {
        let bytes = |param| {
            let own = of_resource(&self.tree, &self.me, name, param);
            own.unwrap_or_else(|| self.params.get(param))
                .saturating_mul(GIB)
        };
        SpaceLimits {
            delete_below_bytes: bytes(Param::LogdelAutoGb),
            rotate_at_bytes: bytes(Param::LogrotAutoGb),
        }
    }
}

impl Res {
    /// Bytes that the shim holds and the disk has not.
    fn dirty_bytes(&self) -> u64 {
        match &self.shim {
            Shim::Up(up) => up.status.counters.dirty_bytes,
            _ => 0,
        }
    }
}
