// SPDX-License-Identifier: GPL-2.0

//! One resource: its disk, its log, its memory, and the state that its threads share.
//!
//! Locks, in the order in which they may be taken: `control` (sleeps; one request of marsd at a time), `map`, `state`
//! (both never held while sleeping). What is decided under `state` is told to the threads by condition variables.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use kernel::ffi::c_ulong;

use kernel::prelude::*;
use kernel::sync::{Arc, CondVar, Mutex, SpinLock};
use kernel::{bindings, new_condvar, new_mutex, new_spinlock};

use crate::abi::{self, operation, Failure, LOG_NAME_LEN};
use crate::bio::{BioSet, List, Owned, RequestPool};
use crate::changes::Changes;
use crate::device::Device;
use crate::disk::Disk;
use crate::log_file::{LogFile, MarkFile};
use crate::log_format::LogTime;
use crate::logger::Buffers;
use crate::map::{DirtyMap, Entry, Frozen, Slot};
use crate::slots::SlotMemory;
use crate::stream::Stream;
use crate::thread::Thread;

/// Memory when marsd names no bound, and the least and the most it may name.
const DIRTY_DEFAULT: u64 = 64 << 20;
const DIRTY_MIN: u64 = 4 << 20;
const DIRTY_MAX: u64 = 1 << 30;
/// Slots that always have memory, so that writing goes on when there is none left.
pub(crate) const SLOTS_RESERVED: usize = 512;
/// Most pages of one write-back round.
const ROUND_MAX: usize = 4096;

/// Where draining leads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    PassThrough,
    Stop,
}

/// What is done with requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// No device.
    Attached,
    /// Writes go to the log.
    Logging,
    /// Writes wait until memory is empty.
    Draining(Goal),
    /// Writes go to the disk.
    PassThrough,
    /// Writes wait until what went straight to the disk is flushed; logging follows.
    Resuming,
    /// The disk failed: everything is answered with EIO.
    Failed,
    /// No device any more.
    Stopped,
}

/// The next log, ordered and not yet begun.
pub(crate) struct Next {
    pub(crate) file: Arc<LogFile>,
    pub(crate) mark: Option<MarkFile>,
    pub(crate) seq: u64,
    pub(crate) name: [u8; LOG_NAME_LEN],
}

/// State under the lock `state`.
pub(crate) struct State {
    pub(crate) mode: Mode,
    /// STOP was accepted: no new opener.
    pub(crate) stopping: bool,
    /// The threads end.
    pub(crate) exit: bool,
    pub(crate) openers: u32,
    pub(crate) size: u64,
    pub(crate) device: Option<(u32, u32)>,
    /// Writes and flushes that the logger has not taken.
    pub(crate) queue: List,
    /// What waits until the stream is durable up to its end; ordered by end.
    pub(crate) flushes: List,
    /// The log is broken: in memory, not in the log, not answered.
    pub(crate) unlogged: List,
    pub(crate) stream: Stream,
    /// Names of the older and of the newest log.
    pub(crate) names: [[u8; LOG_NAME_LEN]; 2],
    /// The log that takes records.
    pub(crate) log: Option<Arc<LogFile>>,
    pub(crate) mark: Option<MarkFile>,
    pub(crate) next: Option<Next>,
    /// How the last switch ended, until marsd's request has taken note.
    pub(crate) switched: Option<Result>,
    /// The log takes no more.
    pub(crate) broken: bool,
    /// The syncer flushes the log.
    pub(crate) syncing: bool,
    /// Write-back waits until the stream is durable up to here.
    pub(crate) sync_to: u64,
    /// Since when something is not durable.
    pub(crate) undurable_since: Option<c_ulong>,
    /// Flushes that somebody waited for since the log was last extended ahead.
    pub(crate) recent_flushes: u32,
    /// The logger waits for memory.
    pub(crate) starved: bool,
    /// The write-back waits for something to be dirty.
    pub(crate) writeback_idle: bool,
    /// A position has changed and was not told yet.
    pub(crate) touched: bool,
    pub(crate) log_failure: Failure,
    pub(crate) disk_failure: Failure,
    pub(crate) mark_missing: bool,
    pub(crate) logged_bytes: u64,
    pub(crate) written_back_bytes: u64,
}

impl State {
    fn new(size: u64) -> Self {
        Self {
            mode: Mode::Attached,
            stopping: false,
            exit: false,
            openers: 0,
            size,
            device: None,
            queue: List::new(),
            flushes: List::new(),
            unlogged: List::new(),
            stream: Stream::new(),
            names: [[0; LOG_NAME_LEN]; 2],
            log: None,
            mark: None,
            next: None,
            switched: None,
            broken: false,
            syncing: false,
            sync_to: 0,
            undurable_since: None,
            recent_flushes: 0,
            starved: false,
            writeback_idle: false,
            touched: false,
            log_failure: Failure::default(),
            disk_failure: Failure::default(),
            mark_missing: false,
            logged_bytes: 0,
            written_back_bytes: 0,
        }
    }
}

type Map = DirtyMap<KVVec<Entry>, KVVec<Slot>, KVVec<Frozen>>;

/// State under the lock `map`.
pub(crate) struct MapState {
    pub(crate) map: Map,
    /// End of the last record that is in the map, as stream position. Only the logger moves it.
    pub(crate) staged: u64,
    /// Its stamp.
    pub(crate) stamp: LogTime,
}

impl MapState {
    fn new(slots: usize) -> Result<Self> {
        let heads = slots.next_power_of_two();
        Ok(Self {
            map: DirtyMap::new(
                KVVec::from_elem(Entry::new(), slots, GFP_KERNEL)?,
                KVVec::from_elem(0, heads, GFP_KERNEL)?,
                KVVec::from_elem(Frozen::default(), ROUND_MAX, GFP_KERNEL)?,
            ),
            staged: 0,
            stamp: LogTime::default(),
        })
    }
}

/// What only requests of marsd use, one at a time.
pub(crate) struct Control {
    pub(crate) device: Option<Device>,
    threads: [Option<Thread>; 3],
    /// RELEASE was accepted.
    pub(crate) released: bool,
}

/// Pools of the data path.
pub(crate) struct Pools {
    pub(crate) requests: RequestPool,
    /// Clones that go to the disk.
    pub(crate) clones: BioSet,
    /// Parts of reads.
    pub(crate) splits: BioSet,
    /// Writes of the write-back.
    pub(crate) writes: BioSet,
}

/// Counters of requests.
#[derive(Default)]
pub(crate) struct Requests {
    pub(crate) reads: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) flushes: AtomicU64,
}

/// A resource; see the module.
///
/// # Invariants
///
/// * It lives until its device is gone and no request of it is under way.
/// * `dirty` and `free_slots` are those of the map; they change only under its lock.
#[pin_data]
pub(crate) struct Resource {
    pub(crate) id: u64,
    pub(crate) owner: [u8; abi::OWNER_LEN],
    pub(crate) name: [u8; abi::RESOURCE_LEN],
    pub(crate) device_name: [u8; abi::DEVICE_LEN],
    pub(crate) disk: Disk,
    pub(crate) pools: Pools,
    pub(crate) slots: SlotMemory,
    /// Until the logger takes them.
    #[pin]
    pub(crate) buffers: SpinLock<Option<Buffers>>,
    #[pin]
    pub(crate) control: Mutex<Control>,
    #[pin]
    pub(crate) map: SpinLock<MapState>,
    #[pin]
    pub(crate) state: SpinLock<State>,
    #[pin]
    pub(crate) logger: CondVar,
    #[pin]
    pub(crate) syncer: CondVar,
    #[pin]
    pub(crate) writeback: CondVar,
    /// Requests of marsd wait here.
    #[pin]
    pub(crate) settled: CondVar,
    /// Dirty bytes in the map.
    pub(crate) dirty: AtomicU64,
    pub(crate) free_slots: AtomicUsize,
    pub(crate) failed: AtomicBool,
    /// Writes and reads of the application at the disk.
    pub(crate) disk_writes: AtomicUsize,
    pub(crate) disk_reads: AtomicUsize,
    pub(crate) requests: Requests,
    /// Number of the last change.
    pub(crate) change: AtomicU64,
    pub(crate) changes: Arc<Changes>,
}

// SAFETY: What may change stands under locks or is atomic; the C parts are used from any thread.
unsafe impl Send for Resource {}
// SAFETY: As above.
unsafe impl Sync for Resource {}

/// Now, in jiffies.
pub(crate) fn now() -> c_ulong {
    // SAFETY: A word that the timer interrupt counts up.
    unsafe { core::ptr::addr_of!(bindings::jiffies).read_volatile() }
}

/// Number of slots for a wanted bound in bytes.
fn slot_count(dirty_max: u64) -> usize {
    let bytes = match dirty_max {
        0 => DIRTY_DEFAULT,
        wanted => wanted.clamp(DIRTY_MIN, DIRTY_MAX),
    };
    // At most 2^18.
    (bytes / crate::pages::PAGE) as usize
}

impl Resource {
    /// Prepares everything but the device.
    pub(crate) fn new(
        id: u64,
        args: &abi::Attach,
        disk: Disk,
        changes: Arc<Changes>,
    ) -> Result<Arc<Self>> {
        let slots = slot_count(args.dirty_max_bytes);
        let map = MapState::new(slots)?;
        let memory = SlotMemory::new(slots)?;
        let buffers = Buffers::new()?;
        let pools = Pools {
            requests: RequestPool::new(64)?,
            clones: BioSet::new(64, 0)?,
            splits: BioSet::new(64, 0)?,
            writes: BioSet::new(64, bindings::BIOSET_NEED_BVECS)?,
        };
        let control = Control {
            device: None,
            threads: [None, None, None],
            released: false,
        };
        let size = args.size_bytes;
        let resource = Arc::pin_init(
            pin_init!(Self {
                id,
                owner: args.owner,
                name: args.resource,
                device_name: args.device,
                disk,
                pools,
                slots: memory,
                buffers <- new_spinlock!(Some(buffers), "mars::buffers"),
                control <- new_mutex!(control, "mars::control"),
                map <- new_spinlock!(map, "mars::map"),
                state <- new_spinlock!(State::new(size), "mars::state"),
                logger <- new_condvar!("mars::logger"),
                syncer <- new_condvar!("mars::syncer"),
                writeback <- new_condvar!("mars::writeback"),
                settled <- new_condvar!("mars::settled"),
                dirty: AtomicU64::new(0),
                free_slots: AtomicUsize::new(0),
                failed: AtomicBool::new(false),
                disk_writes: AtomicUsize::new(0),
                disk_reads: AtomicUsize::new(0),
                requests: Requests::default(),
                change: AtomicU64::new(0),
                changes,
            }),
            GFP_KERNEL,
        )?;
        if resource.stock(SLOTS_RESERVED) < SLOTS_RESERVED {
            return Err(ENOMEM);
        }
        resource.start_threads()?;
        Ok(resource)
    }

    fn start_threads(self: &Arc<Self>) -> Result {
        let bodies: [(&'static CStr, fn(&Resource)); 3] = [
            (kernel::c_str!("mars-log"), crate::logger::run),
            (kernel::c_str!("mars-sync"), crate::syncer::run),
            (kernel::c_str!("mars-writeback"), crate::writeback::run),
        ];
        for (number, (name, body)) in bodies.into_iter().enumerate() {
            match Thread::spawn(name, self.clone(), body) {
                Ok(thread) => self.control.lock().threads[number] = Some(thread),
                Err(e) => {
                    self.end_threads();
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// Ends the threads and waits for them and for what is under way at the disk.
    pub(crate) fn end_threads(&self) {
        self.state.lock().exit = true;
        self.wake_all();
        let threads = core::mem::take(&mut self.control.lock().threads);
        drop(threads);
        self.wait_for_disk(&self.disk_reads);
        self.wait_for_disk(&self.disk_writes);
    }

    /// Waits until no request counted in `under_way` is at the disk.
    pub(crate) fn wait_for_disk(&self, under_way: &AtomicUsize) {
        while under_way.load(Ordering::Acquire) > 0 {
            // SAFETY: Called where sleeping is allowed.
            unsafe { bindings::schedule_timeout_uninterruptible(1) };
        }
    }

    /// Wakes everybody who may have something to do.
    pub(crate) fn wake_all(&self) {
        self.logger.notify_all();
        self.syncer.notify_all();
        self.writeback.notify_all();
        self.settled.notify_all();
    }

    /// Gives memory to up to `count` slots; returns how many got some.
    pub(crate) fn stock(&self, count: usize) -> usize {
        let mut stocked = 0;
        while stocked < count {
            let Some(slot) = self.map.lock().map.take_bare() else {
                break;
            };
            let filled = self.slots.fill(slot);
            let mut map = self.map.lock();
            if !filled {
                map.map.put_bare(slot);
                break;
            }
            map.map.stock(slot);
            self.count_slots(&map);
            stocked += 1;
        }
        stocked
    }

    /// Takes memory from unused slots until `keep` of them have some.
    pub(crate) fn unstock(&self, keep: usize) {
        loop {
            let Some(slot) = self.map.lock().map.take_surplus(keep) else {
                break;
            };
            self.slots.empty(slot);
            let mut map = self.map.lock();
            map.map.put_bare(slot);
            self.count_slots(&map);
        }
    }

    /// Most bytes in memory.
    pub(crate) fn slot_bytes(&self) -> u64 {
        self.slots.count() as u64 * crate::pages::PAGE
    }

    /// Makes the atomic copies current; `map` is locked.
    pub(crate) fn count_slots(&self, map: &MapState) {
        self.dirty.store(map.map.dirty_bytes(), Ordering::Release);
        self.free_slots
            .store(map.map.free_slots(), Ordering::Release);
    }

    /// Answers a request.
    pub(crate) fn finish(&self, request: Owned, result: Result) {
        crate::submit::account_end(&request);
        let bio = request.bio;
        self.pools.requests.put(request);
        bio.end(result);
    }

    /// Answers all requests of a list.
    pub(crate) fn finish_all(&self, mut list: List, result: Result) {
        while let Some(request) = list.pop_front() {
            self.finish(request, result);
        }
    }

    /// Tells marsd about a change of state.
    pub(crate) fn publish(&self) {
        self.changes.count(Some(&self.change));
    }

    /// Lets the syncer tell marsd about a change of positions.
    pub(crate) fn touch(&self, state: &mut State) {
        if !state.touched {
            state.touched = true;
            self.syncer.notify_one();
        }
    }

    /// The log takes no more: what is in memory goes to the disk, then writes go there straight.
    pub(crate) fn log_failed(&self, operation: u32, error: Error, offset: u64) {
        {
            let mut state = self.state.lock();
            if state.broken {
                return;
            }
            state.broken = true;
            note(&mut state.log_failure, operation, error, offset);
            if state.mode == Mode::Logging {
                state.mode = Mode::Draining(Goal::PassThrough);
            }
        }
        let name = abi::text(&self.name).unwrap_or("?");
        let errno = error.to_errno();
        pr_err!("{name}: the log failed at byte {offset}, error {errno}; writes will go straight to the disk\n");
        self.wake_all();
        self.publish();
    }

    /// The disk does not take what it must take: no request can be answered honestly any more.
    pub(crate) fn disk_failed(&self, operation: u32, error: Error, offset: u64) {
        {
            let mut state = self.state.lock();
            note(&mut state.disk_failure, operation, error, offset);
            if state.mode == Mode::Failed {
                return;
            }
            state.mode = Mode::Failed;
            self.failed.store(true, Ordering::Release);
        }
        let name = abi::text(&self.name).unwrap_or("?");
        let errno = error.to_errno();
        pr_err!("{name}: the disk failed at byte {offset}, error {errno}; the device answers with errors, the data is in the log\n");
        self.wake_all();
        self.publish();
    }
}

pub(crate) fn note(failure: &mut Failure, operation: u32, error: Error, offset: u64) {
    if failure.operation == operation::NONE {
        *failure = Failure {
            operation,
            errno: error.to_errno().unsigned_abs(),
            offset,
        };
    }
}
