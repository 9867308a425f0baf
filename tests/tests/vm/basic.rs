//! File systems on the device of the kernel module, and what stands in its log.

use mars_tests::Result;
use mars_tests::vm::Kernel;

use crate::{DEADLINE, machine, machine_with, script};

/// mkfs, files, fio with verification, fsck; afterwards the log alone gives the same disk.
const FILE_SYSTEMS: &str = r#"
log_disk
serve
refused mars-kmod attach r2 "$DISK"
refused mount -t ext4 "$DISK" /mnt
for type in ext4 xfs; do
    say "$type"
    case $type in
        ext4) mkfs.ext4 -qF -b 4096 -E lazy_itable_init=0 "$DEVICE" ;;
        xfs) mkfs.xfs -qf "$DEVICE" 2>/dev/null || mkfs.xfs -qf --unsupported "$DEVICE" ;;
    esac
    mount -t $type "$DEVICE" /mnt
    refused mars-kmod stop "$ID"
    refused rmmod mars
    cp -r /usr/share/common-licenses /mnt/
    fio --name=verify --directory=/mnt --size=8m --rw=randwrite --bsrange=512-64k --bs_unaligned --ioengine=libaio --iodepth=8 \
        --fsync=16 --verify=crc32c --do_verify=1 --randseed=7 --output=/tmp/fio || { cat /tmp/fio; die fio; }
    umount /mnt
    case $type in
        ext4) e2fsck -fn "$DEVICE" ;;
        xfs) xfs_repair -n "$DEVICE" 2>&1 | tail -n 3 ;;
    esac
    mount -t $type "$DEVICE" /mnt
    diff -r /usr/share/common-licenses /mnt/common-licenses
    umount /mnt
done
say "raw"
fio --name=raw --filename="$DEVICE" --direct=1 --size=16m --rw=randwrite --bsrange=4k-256k --ioengine=libaio --iodepth=16 \
    --verify=crc32c --do_verify=1 --randseed=9 --output=/tmp/fio || { cat /tmp/fio; die fio; }
mars-kmod wait "$ID" clean
mars-kmod status "$ID"
stop
rmmod mars
say "the log gives the same disk"
truncate -s "$(blockdev --getsize64 "$DISK")" /tmp/image
mars-kmod replay "$LOGS"/log-* /tmp/image
cmp "$DISK" /tmp/image
umount /mars
"#;

#[test]
#[ignore = "needs a virtual machine: make vm-test"]
fn file_systems_on_the_kernel_device() -> Result {
    run(Kernel::Plain)
}

#[test]
#[ignore = "needs a virtual machine: make vm-test"]
fn the_checked_kernel_has_nothing_to_complain_about() -> Result {
    run(Kernel::Checked)
}

#[test]
#[ignore = "needs a virtual machine: make vm-test"]
fn what_the_kernel_complains_of_ends_the_machine_at_once() -> Result {
    let script = "echo BUG: first >/dev/kmsg; sleep 0.5; echo second >/dev/kmsg; sleep 3600";
    let error = machine_with(Kernel::Plain, &[])?
        .run(script, 6 * DEADLINE)
        .expect_err("nobody has seen it")
        .to_string();
    assert!(error.starts_with("the kernel complains: "), "{error}");
    assert!(error.contains("BUG: first") && error.contains("] second"));
    Ok(())
}

fn run(kernel: Kernel) -> Result {
    let text = machine(kernel)?.run(&script(kernel, FILE_SYSTEMS)?, DEADLINE)?;
    println!("{text}");
    Ok(())
}
