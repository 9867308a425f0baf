//! Applications of a chaos run: writes of which it is known which ones were flushed, so that each can be looked for at rest.

use std::time::Duration;

use crate::error::{Result, fail};
use crate::load::last_reported;
use crate::node::{Node, Task};
use crate::setup::DEVICE;

/// Blocks of one writer; the disk is divided into regions of so many.
pub(super) const REGION_BLOCKS: u64 = 256;
/// Between two flushes of a writer.
const FLUSH_EVERY: u64 = 20;

/// What the disk must hold at rest.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    /// Seed of the writer.
    seed: u64,
    region: u64,
    /// Writes that were flushed.
    flushed: u64,
}

#[derive(Debug)]
struct Writer {
    task: Task,
    node: usize,
    seed: u64,
    region: u64,
}

/// All applications, and what they have been promised.
#[derive(Debug)]
pub(super) struct Writers {
    regions: u64,
    serial: u64,
    running: Vec<Writer>,
    expected: Vec<Expected>,
}

impl Writers {
    /// For a disk of so many regions.
    pub(super) fn new(regions: u64) -> Self {
        Self {
            regions: regions.max(1),
            serial: 0,
            running: Vec::new(),
            expected: Vec::new(),
        }
    }

    /// Starts a writer, unless each region is being written.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(&mut self, number: usize, node: &Node, count: u64) -> Result {
        self.serial += 1;
        let (seed, region) = (self.serial, self.serial % self.regions);
        if self.running.iter().any(|w| w.region == region) {
            return Ok(());
        }
        self.expected.retain(|e| e.region != region);
        let first = region * REGION_BLOCKS;
        let task = node.spawn(
            &format!("writer-{seed}"),
            &format!(
                "exec mars-node load {DEVICE} {seed} {first} {REGION_BLOCKS} {count} {FLUSH_EVERY}"
            ),
        )?;
        self.running.push(Writer {
            task,
            node: number,
            seed,
            region,
        });
        Ok(())
    }

    /// The node died: what its writers have flushed counts, that they failed does not.
    pub(super) fn node_died(&mut self, number: usize) {
        let (gone, rest) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|w| w.node == number);
        self.running = rest;
        let gone: Vec<Writer> = gone;
        self.expected.extend(gone.iter().map(Writer::expected));
    }

    /// Data were thrown away by decision: nothing of before is expected any more.
    pub(super) fn forget(&mut self) {
        self.expected.clear();
    }

    /// Waits for the end of all writers.
    ///
    /// # Errors
    /// One has seen an I/O error, or hangs.
    pub(super) fn finish(&mut self, deadline: Duration) -> Result {
        for mut writer in std::mem::take(&mut self.running) {
            let ended = writer.task.wait(deadline);
            let expected = writer.expected();
            if let Err(e) = ended {
                // The device went before it was opened.
                if expected.flushed > 0 || !writer.task.output().contains("open /dev") {
                    return Err(fail(format!("an application has seen: {e}")));
                }
            }
            self.expected.push(expected);
        }
        Ok(())
    }

    /// Looks for everything that was flushed.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn check(&self, node: &Node, path: &str) -> Result {
        for Expected {
            seed,
            region,
            flushed,
        } in self.expected.iter().filter(|e| e.flushed > 0)
        {
            let first = region * REGION_BLOCKS;
            let state = node.run(&format!(
                "mars-node state {path} {seed} {first} {REGION_BLOCKS}"
            ))?;
            let found: u64 = state.trim().parse().unwrap_or(0);
            if found < *flushed {
                return Err(fail(format!(
                    "writer {seed} has flushed {flushed} writes, {path} of {} holds {found}",
                    node.name()
                )));
            }
        }
        Ok(())
    }
}

impl Writer {
    fn expected(&self) -> Expected {
        Expected {
            seed: self.seed,
            region: self.region,
            flushed: last_reported(&self.task.output()),
        }
    }
}
