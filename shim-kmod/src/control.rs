// SPDX-License-Identifier: GPL-2.0

//! The control device: finds the resource that a request is for, checks arguments, waits for changes.

use core::mem::{size_of, MaybeUninit};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use kernel::ffi::{c_int, c_long, c_uint, c_ulong};

use kernel::error::{from_result, to_result};
use kernel::prelude::*;
use kernel::sync::{Arc, Mutex};
use kernel::uaccess::{UserSlice, UserSliceWriter};
use kernel::{bindings, new_mutex};

use crate::abi;
use crate::changes::Changes;
use crate::disk::Disk;
use crate::resource::Resource;

/// As `EPROTO`, which the kernel crate does not name.
const EPROTO: c_int = -(bindings::EPROTO as c_int);
/// As `EPOLLIN | EPOLLRDNORM`.
const READABLE: c_uint = 0x41;
/// Version of the module.
const VERSION: &str = "0.1.0";

extern "C" {
    fn mars_control_register() -> c_int;
    fn mars_control_unregister();
    fn mars_poll_wait(
        file: *mut bindings::file,
        queue: *mut bindings::wait_queue_head,
        table: *mut bindings::poll_table_struct,
    );
}

/// All resources.
#[pin_data]
struct Global {
    #[pin]
    table: Mutex<Table>,
    changes: Arc<Changes>,
    module: &'static ThisModule,
}

struct Table {
    resources: KVec<Option<Arc<Resource>>>,
    last_id: u64,
}

/// The one [`Global`], while the control device is registered.
static GLOBAL: AtomicPtr<Global> = AtomicPtr::new(core::ptr::null_mut());

/// The registered control device.
pub(crate) struct Registration {
    _global: Pin<KBox<Global>>,
}

impl Registration {
    pub(crate) fn new(module: &'static ThisModule, changes: Arc<Changes>) -> Result<Self> {
        let table = Table {
            resources: KVec::new(),
            last_id: 0,
        };
        let global = KBox::pin_init(
            pin_init!(Global {
                table <- new_mutex!(table, "mars::table"),
                changes,
                module,
            }),
            GFP_KERNEL,
        )?;
        let at: *const Global = &*global;
        GLOBAL.store(at.cast_mut(), Ordering::Release);
        // SAFETY: The functions that it names are ready to be called.
        to_result(unsafe { mars_control_register() })?;
        Ok(Self { _global: global })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: Registered in `new`. The module goes only when no file and no resource is left, as both hold it.
        unsafe { mars_control_unregister() }
    }
}

/// An open file of the control device.
struct Opened {
    greeted: AtomicBool,
    /// The last change that this reader was told.
    seen: AtomicU64,
}

/// A structure of the interface.
///
/// # Safety
///
/// Any bytes are a valid value, and it has no padding.
unsafe trait Argument: Copy {}
// SAFETY: Integers and arrays of them; the sizes, which `abi` asserts, leave no room for padding.
unsafe impl Argument for abi::Hello {}
// SAFETY: As above.
unsafe impl Argument for abi::Attach {}
// SAFETY: As above.
unsafe impl Argument for abi::Log {}
// SAFETY: As above.
unsafe impl Argument for abi::Target {}
// SAFETY: As above.
unsafe impl Argument for abi::Status {}

fn read_argument<T: Argument>(at: usize) -> Result<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: `MaybeUninit` bytes may be uninitialised, and there are as many as `T` has.
    let bytes = unsafe {
        core::slice::from_raw_parts_mut(
            value.as_mut_ptr().cast::<MaybeUninit<u8>>(),
            size_of::<T>(),
        )
    };
    UserSlice::new(at, size_of::<T>())
        .reader()
        .read_raw(bytes)?;
    // SAFETY: All bytes were read, and any are valid.
    Ok(unsafe { value.assume_init() })
}

fn write_argument<T: Argument>(at: usize, value: &T) -> Result {
    let from: *const T = value;
    // SAFETY: A valid value without padding, as `Argument` promises.
    let bytes = unsafe { core::slice::from_raw_parts(from.cast::<u8>(), size_of::<T>()) };
    writer(at, size_of::<T>()).write_slice(bytes)
}

fn writer(at: usize, len: usize) -> UserSliceWriter {
    UserSlice::new(at, len).writer()
}

impl Global {
    fn find(&self, id: u64) -> Result<Arc<Resource>> {
        let table = self.table.lock();
        let mut all = table.resources.iter().flatten();
        all.find(|r| r.id == id).cloned().ok_or(ENOENT)
    }

    fn attach(&self, mut args: abi::Attach) -> Result<abi::Attach> {
        let owner_ok = abi::text(&args.owner).is_some();
        if args.reserved != 0 || !owner_ok || abi::text(&args.resource).is_none() {
            return Err(EINVAL);
        }
        check_device_name(&args.device)?;
        let mut table = self.table.lock();
        for other in table.resources.iter().flatten() {
            let same = other.owner == args.owner && other.name == args.resource;
            if same || other.device_name == args.device {
                return Err(EEXIST);
            }
        }
        let disk = Disk::open(args.disk_fd)?;
        if args.size_bytes == 0 || args.size_bytes % disk.block_size() != 0 {
            return Err(EINVAL);
        }
        if args.size_bytes > disk.size() {
            return Err(ENOSPC);
        }
        let free = table.resources.iter().position(Option::is_none);
        let place = match free {
            Some(place) => place,
            None => {
                table.resources.push(None, GFP_KERNEL)?;
                table.resources.len() - 1
            }
        };
        let id = table.last_id + 1;
        let resource = Resource::new(id, &args, disk, self.changes.clone())?;
        // SAFETY: The module exists, as its code runs. A resource holds it until it is released.
        if !unsafe { bindings::try_module_get(self.module.as_ptr()) } {
            resource.end_threads();
            return Err(ENODEV);
        }
        table.last_id = id;
        args.id = id;
        resource.publish();
        table.resources[place] = Some(resource);
        Ok(args)
    }

    fn next(&self, after: &abi::Status) -> Result<abi::Status> {
        let table = self.table.lock();
        let mut found: Option<&Arc<Resource>> = None;
        for resource in table.resources.iter().flatten() {
            let changed = resource.change.load(Ordering::Acquire) > after.change;
            let nearer = found.map_or(true, |f| resource.id < f.id);
            if resource.id > after.id && changed && nearer {
                found = Some(resource);
            }
        }
        found.map(|r| r.status()).ok_or(ENOENT)
    }

    fn release(&self, id: u64) -> Result {
        let resource = self.find(id)?;
        resource.release()?;
        let removed = {
            let mut table = self.table.lock();
            table
                .resources
                .iter_mut()
                .find(|place| place.as_ref().is_some_and(|r| r.id == id))
                .and_then(Option::take)
        };
        drop(removed);
        drop(resource);
        self.changes.count(None);
        // SAFETY: Taken in `attach`. The file of this request holds the module too.
        unsafe { bindings::module_put(self.module.as_ptr()) };
        Ok(())
    }

    fn request(&self, opened: &Opened, request: u32, at: usize) -> Result {
        if request == abi::HELLO {
            return hello(opened, at);
        }
        if !opened.greeted.load(Ordering::Acquire) {
            return Err(Error::from_errno(EPROTO));
        }
        match request {
            abi::ATTACH => {
                let done = self.attach(read_argument(at)?)?;
                write_argument(at, &done)
            }
            abi::LOG => {
                let args: abi::Log = read_argument(at)?;
                self.find(args.id)?.log(&args)
            }
            abi::RESIZE => {
                let args: abi::Target = read_argument(at)?;
                self.find(args.id)?.resize(args.value)
            }
            abi::STATUS => {
                let args: abi::Status = read_argument(at)?;
                write_argument(at, &self.find(args.id)?.status())
            }
            abi::NEXT => {
                let found = self.next(&read_argument(at)?)?;
                write_argument(at, &found)
            }
            abi::PASS_THROUGH => self.find(target(at)?)?.pass_through(),
            abi::STOP => self.find(target(at)?)?.stop(),
            abi::RELEASE => self.release(target(at)?),
            _ => Err(ENOTTY),
        }
    }
}

fn hello(opened: &Opened, at: usize) -> Result {
    let mut args: abi::Hello = read_argument(at)?;
    let known = args.abi == abi::ABI_VERSION && args.reserved == 0;
    args.abi = abi::ABI_VERSION;
    args.module_version = abi::field(VERSION).ok_or(EINVAL)?;
    write_argument(at, &args)?;
    if !known {
        return Err(Error::from_errno(EPROTO));
    }
    opened.greeted.store(true, Ordering::Release);
    Ok(())
}

fn target(at: usize) -> Result<u64> {
    let args: abi::Target = read_argument(at)?;
    if args.value != 0 {
        return Err(EINVAL);
    }
    Ok(args.id)
}

/// `mars/`, then letters, digits, and `. _ -`, not beginning with a dot.
fn check_device_name(field: &[u8]) -> Result {
    let name = abi::text(field).and_then(|name| name.strip_prefix("mars/"));
    let good = name.is_some_and(|name| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
    });
    if good {
        Ok(())
    } else {
        Err(EINVAL)
    }
}

/// The resources, for a callback of an open control file.
fn global() -> Result<&'static Global> {
    // SAFETY: Null, or valid while the device is registered; callbacks end before that.
    unsafe { GLOBAL.load(Ordering::Acquire).as_ref() }.ok_or(ENODEV)
}

/// # Safety
///
/// `file` is an open control file.
unsafe fn opened<'a>(file: *mut bindings::file) -> &'a Opened {
    // SAFETY: Set in `mars_control_open`, and valid until the file is released.
    unsafe { &*(*file).private_data.cast::<Opened>() }
}

/// # Safety
///
/// Called by the kernel with a control file that is being opened.
#[no_mangle]
unsafe extern "C" fn mars_control_open(
    _inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    from_result(|| {
        // SAFETY: May be asked at any time.
        if !unsafe { bindings::capable(bindings::CAP_SYS_ADMIN as c_int) } {
            return Err(EPERM);
        }
        let opened = KBox::new(
            Opened {
                greeted: AtomicBool::new(false),
                seen: AtomicU64::new(0),
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The file is valid and ours to set up.
        unsafe { (*file).private_data = KBox::into_raw(opened).cast() };
        Ok(0)
    })
}

/// # Safety
///
/// Called by the kernel with a control file, once, at last.
#[no_mangle]
unsafe extern "C" fn mars_control_release(
    _inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    // SAFETY: Made in `mars_control_open`; nobody uses the file any more.
    drop(unsafe { KBox::from_raw((*file).private_data.cast::<Opened>()) });
    0
}

/// # Safety
///
/// Called by the kernel with an open control file and a buffer of the caller.
#[no_mangle]
unsafe extern "C" fn mars_control_read(
    file: *mut bindings::file,
    to: *mut kernel::ffi::c_char,
    len: usize,
    _pos: *mut bindings::loff_t,
) -> isize {
    from_result(|| {
        // SAFETY: By the contract of this function.
        let (opened, flags) = unsafe { (opened(file), (*file).f_flags) };
        if len < size_of::<u64>() {
            return Err(EINVAL);
        }
        let changes = &global()?.changes;
        let seen = opened.seen.load(Ordering::Acquire);
        if changes.last() == seen && flags & bindings::O_NONBLOCK != 0 {
            return Err(EAGAIN);
        }
        let last = changes.wait(seen)?;
        writer(to as usize, size_of::<u64>()).write_slice(&last.to_ne_bytes())?;
        opened.seen.store(last, Ordering::Release);
        Ok(size_of::<u64>() as isize)
    })
}

/// # Safety
///
/// Called by the kernel with an open control file.
#[no_mangle]
unsafe extern "C" fn mars_control_poll(
    file: *mut bindings::file,
    table: *mut bindings::poll_table_struct,
) -> c_uint {
    let Ok(global) = global() else { return 0 };
    // SAFETY: By the contract of this function; the queue lives as long as the device is registered.
    let opened = unsafe {
        mars_poll_wait(file, global.changes.pollers(), table);
        opened(file)
    };
    if global.changes.last() == opened.seen.load(Ordering::Acquire) {
        0
    } else {
        READABLE
    }
}

/// # Safety
///
/// Called by the kernel with an open control file.
#[no_mangle]
unsafe extern "C" fn mars_control_ioctl(
    file: *mut bindings::file,
    request: c_uint,
    argument: c_ulong,
) -> c_long {
    // SAFETY: By the contract of this function.
    let opened = unsafe { opened(file) };
    let result = global().and_then(|global| global.request(opened, request, argument as usize));
    result.map_or_else(|e| e.to_errno() as c_long, |()| 0)
}
