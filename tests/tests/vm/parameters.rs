//! `/proc/sys/mars`: marsd fills it and obeys it, mars-status shows it.

use mars_tests::Result;
use mars_tests::vm::Kernel;

use crate::{DEADLINE, machine, script};

/// One node of its own, with marsd from the first to the last line.
const PARAMETERS: &str = r#"
own() { cat "/proc/sys/mars/$1"; }
says() { [ "$(own "$1")" = "$2" ]; }
has() { own "$1" | grep -qF -- "$2"; }
shows() { mars-status --system --debug | grep -qF -- "$1"; }
tells() { mars-status --system --json | tr -d ' \n' | grep -qF -- "\"$1\":{\"value\":$2,\"text\":\"$3\"}"; }
alive() { kill -0 $daemon 2>/dev/null; }
start() { marsd 2>>/tmp/marsd & daemon=$!; }
# The end of marsd; its device goes first, as nobody has it open.
end() { kill $daemon; wait $daemon || true; }

say "the table"
expected="errors free_space_mb loadavg_limit logdel_auto_gb logrot_auto_gb mem_used_kb network_io_timeout network_traffic_limit_kb \
network_traffic_rate_kb percent_mem_limit_kb server_io_limit_mb server_io_rate_mb trigger warnings"
[ "$(echo $(ls /proc/sys/mars))" = "$expected" ] || die "/proc/sys/mars holds $(ls /proc/sys/mars)"
for name in $expected; do
    mode=600
    [ $name != trigger ] || mode=200
    [ "$(stat -c '%a %u' /proc/sys/mars/$name)" = "$mode 0" ] || die "$name: $(ls -l /proc/sys/mars/$name)"
    [ $name = trigger ] || says $name "" || die "$name is not empty"
done
echo 1 >/proc/sys/mars/trigger
refused dd if=/proc/sys/mars/trigger of=/dev/null count=1
head -c 64 /dev/zero | tr '\0' 7 >/proc/sys/mars/free_space_mb
(head -c 65 /dev/zero | tr '\0' 8 >/proc/sys/mars/free_space_mb) 2>/dev/null && die "65 bytes fit into a number"
[ "$(own free_space_mb | tr -d 7)" = "" ] || die "what did not fit was kept"
echo >/proc/sys/mars/free_space_mb

say "marsd fills it"
mkdir -p /mars
mkfs.ext4 -q "$LOG_DISK"
mount "$LOG_DISK" /mars
ip address add 10.77.0.1/24 dev lo
marsadm create-cluster --ip=10.77.0.1
start
wait_for "the values of the beginning" says server_io_rate_mb 0.00
while read -r name value; do
    says $name $value || die "$name is '$(own $name)', not $value"
    [ ! -e /run/mars/sys/$name ] || die "/run/mars/sys has $name as well"
done <<END
free_space_mb 8
loadavg_limit 0
logdel_auto_gb 8
logrot_auto_gb 32
mem_used_kb 0
network_io_timeout 30
network_traffic_limit_kb 0
network_traffic_rate_kb 0
percent_mem_limit_kb 0
server_io_limit_mb 0
END
shows "MARS Module - kernel module 0.1.0" || die "the module is not shown"
shows "Free-Space-Limit on /mars: is set to 8 mb" || die "the value of the beginning is not shown"

say "and obeys it"
echo 16 >/proc/sys/mars/free_space_mb
wait_for "free_space_mb holds" grep -qF "free_space_mb is 16 now" /tmp/marsd
shows "Free-Space-Limit on /mars: is set to 16 mb" || die "16 is not shown"
tells free_space_mb 16.0 16 || die "16 is not told"
echo many >/proc/sys/mars/logrot_auto_gb
wait_for "the warning" has warnings "logrot_auto_gb cannot be 'many'"
wait_for "the value that stays" says logrot_auto_gb 32
has warnings " MARS_WARN " || die "no line of a warning"

say "errors"
marsadm create-resource r1 "$DISK"
wait_for "the device" test -b "$DEVICE"
marsadm detach r1
wait_for "the disk is free" mars-kmod attach other "$DISK"
ID=$(mars-kmod list)
says errors "" || die "an error before: $(own errors)"
marsadm attach r1
wait_for "the error" has errors "$DISK: it is in use"
has errors " MARS_ERROR " || die "no line of an error"
rm /run/mars/sys/warnings /run/mars/sys/errors
shows "logrot_auto_gb cannot be 'many'" || die "the warning is not shown"
shows "$DISK: it is in use" || die "the error is not shown"
mars-kmod release "$ID"
wait_for "the device again" test -b "$DEVICE"

say "the next marsd keeps what the module was told"
end
start
wait_for "the next one" sh -c '[ "$(grep -c "marsd .* serves" /tmp/marsd)" = 2 ]'
wait_for "the device of the next one" test -b "$DEVICE"
says free_space_mb 16 || die "16 is forgotten"
echo default >/proc/sys/mars/free_space_mb
wait_for "the default" says free_space_mb 8
alive || die "marsd has ended: $(cat /tmp/marsd)"
end
rmmod mars
[ ! -e /proc/sys/mars ] || die "/proc/sys/mars is still there"
umount /mars
"#;

#[test]
#[ignore = "needs a virtual machine: make vm-test"]
fn marsd_fills_the_parameters_of_the_module_and_mars_status_shows_them() -> Result {
    let kernel = Kernel::Checked;
    let text = machine(kernel)?.run(&script(kernel, PARAMETERS)?, DEADLINE)?;
    println!("{text}");
    Ok(())
}
