//! The log device is full, the disk fails, the log fails, the module is to go under load.

use mars_tests::Result;
use mars_tests::vm::Kernel;

use crate::{DEADLINE, machine, script};

fn run(body: &str) -> Result {
    let kernel = Kernel::Plain;
    let text = machine(kernel)?.run(&script(kernel, body)?, DEADLINE)?;
    println!("{text}");
    Ok(())
}

/// The application goes on without an error, and what the log does not hold stands on the disk.
#[test]
#[ignore = "needs a virtual machine: make vm-test"]
fn a_full_log_device_stops_logging_and_not_the_application() -> Result {
    run(r#"
log_disk
serve
fallocate -l $(($(df --output=avail -B1 /mars | tail -n 1) - 8388608)) /mars/ballast
fio --name=fill --filename="$DEVICE" --direct=1 --size=64m --rw=write --bs=64k --ioengine=libaio --iodepth=8 \
    --verify=crc32c --do_verify=1 --output=/tmp/fio || { cat /tmp/fio; die fio; }
mars-kmod wait "$ID" pass-through
expect log_errno 28
expect disk_errno 0
grep -q '^log-000000001-vm,' "$LOGS/.passed" || die "no mark: $(head -c 100 "$LOGS/.passed")"
say "logging again"
rm /mars/ballast
: >"$LOGS/log-000000002-vm"
mars-kmod log "$ID" "$LOGS/log-000000002-vm" --mark "$LOGS/.passed"
mars-node load "$DEVICE" 5 0 256 400 20 | tail -n 1
expect state logging
stop
rmmod mars
[ "$(mars-node state "$DISK" 5 0 256)" = 400 ] || die "writes are missing on the disk"
"#)
}

/// Every I/O is answered with an error, and nothing that was acknowledged is lost: it is in the log.
#[test]
#[ignore = "needs a virtual machine: make vm-test"]
fn a_failed_disk_is_told_and_the_log_heals_it() -> Result {
    run(r#"
log_disk
sectors=$(blockdev --getsz "$DISK")
dmsetup create lower --table "0 $sectors linear $DISK 0"
lower=/dev/mapper/lower
serve $lower
: >/tmp/load
mars-node load "$DEVICE" 5 0 512 1000000 7 >/tmp/load 2>/tmp/errors & load=$!
while [ "$(wc -l </tmp/load)" -lt 20 ]; do sleep 0.05; done
say "the disk fails"
dmsetup suspend --nolockfs --noflush lower
dmsetup load lower --table "0 $sectors error"
dmsetup resume lower
mars-kmod wait "$ID" failed
if wait $load; then die "the application has seen no error"; fi
grep -q "Input/output error" /tmp/errors || { cat /tmp/errors; die "another error"; }
refused dd if="$DEVICE" of=/dev/null bs=4096 count=1 iflag=direct
mars-kmod stop "$ID"
mars-kmod wait "$ID" stopped
mars-kmod status "$ID"
mars-kmod release "$ID"
say "the disk is back"
dmsetup suspend lower
dmsetup load lower --table "0 $sectors linear $DISK 0"
dmsetup resume lower
serve $lower
found=$(mars-node state "$DEVICE" 5 0 512)
flushed=$(tail -n 1 /tmp/load)
say "flushed before: $flushed, found: $found"
[ "$found" -ge "$flushed" ] || die "flushed writes are lost"
stop
rmmod mars
dmsetup remove lower
"#)
}

/// The log's disk fails: the application goes on, on its disk.
#[test]
#[ignore = "needs a virtual machine: make vm-test"]
fn a_failed_log_device_stops_logging_and_not_the_application() -> Result {
    run(r#"
mkfs.ext4 -q "$LOG_DISK"
sectors=$(blockdev --getsz "$LOG_DISK")
dmsetup create logs --table "0 $sectors linear $LOG_DISK 0"
log_disk /dev/mapper/logs
serve
: >/tmp/load
mars-node load "$DEVICE" 5 0 512 1500 7 >/tmp/load 2>/tmp/errors & load=$!
while [ "$(wc -l </tmp/load)" -lt 20 ]; do sleep 0.05; done
dmsetup suspend --nolockfs --noflush logs
dmsetup load logs --table "0 $sectors error"
dmsetup resume logs
wait $load || { cat /tmp/errors; die "the application has seen an error"; }
expect state pass-through
expect disk_errno 0
[ "$(($(field flags) & 4))" = 4 ] || die "it does not tell that the mark is missing"
stop
rmmod mars
[ "$(mars-node state "$DISK" 5 0 512)" = 1500 ] || die "writes are missing on the disk"
"#)
}

/// Open devices, attached resources and bad arguments are refused, and the load goes on.
#[test]
#[ignore = "needs a virtual machine: make vm-test"]
fn nothing_goes_away_under_load() -> Result {
    run(r#"
log_disk
serve
: >/tmp/load
mars-node load "$DEVICE" 5 0 512 1000000 7 >/tmp/load 2>/tmp/errors & load=$!
while [ "$(wc -l </tmp/load)" -lt 5 ]; do sleep 0.05; done
for round in 1 2 3; do
    refused rmmod mars
    refused mars-kmod stop "$ID"
    refused mars-kmod release "$ID"
    refused mars-kmod attach r1 /dev/vdc
    refused mars-kmod resize "$ID" 4096
    : >"$LOGS/log-00000000$((round + 1))-vm"
    mars-kmod log "$ID" "$LOGS/log-00000000$((round + 1))-vm" --mark "$LOGS/.passed"
    mars-kmod wait "$ID" clean
done
say "pass-through and back, under load"
mars-kmod pass "$ID"
mars-kmod wait "$ID" pass-through
: >"$LOGS/log-000000005-vm"
mars-kmod log "$ID" "$LOGS/log-000000005-vm" --mark "$LOGS/.passed"
before=$(wc -l </tmp/load)
while [ "$(wc -l </tmp/load)" = "$before" ] && kill -0 $load; do sleep 0.05; done
kill $load || { cat /tmp/errors; die "the application has seen an error"; }
wait $load || true
stop
rmmod mars
found=$(mars-node state "$DISK" 5 0 512)
flushed=$(tail -n 1 /tmp/load)
say "flushed: $flushed, found: $found"
[ "$found" -ge "$flushed" ] || die "writes are missing on the disk"
"#)
}
