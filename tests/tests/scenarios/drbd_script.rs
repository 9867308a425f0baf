//! A script written for DRBD's administration tool runs unchanged on two nodes.

use mars_tests::oracle::same_disks;
use mars_tests::setup::{DEVICE, DISK, PAIR, RESOURCE};
use mars_tests::{Result, scenario};

/// On a secondary, with `drbdadm` standing for the tool: `step CODE COMMAND...` demands an exit code, `expect WORD
/// COMMAND...` what is printed.
const SCRIPT: &str = r#"
set -u
drbdadm() { marsadm "$@"; }
fail() { echo "FAILED: $*"; exit 1; }
step() {
    want=$1; shift
    drbdadm "$@" >/tmp/out 2>&1; code=$?
    [ "$code" = "$want" ] || fail "drbdadm $*: exit code $code instead of $want: $(cat /tmp/out)"
}
expect() {
    want=$1; shift
    got=$(drbdadm "$@" 2>&1)
    [ "$got" = "$want" ] || fail "drbdadm $*: '$got' instead of '$want'"
}
until_is() {
    want=$1; shift
    for i in $(seq 600); do
        [ "$(drbdadm "$@" 2>/dev/null)" = "$want" ] && return
        sleep 0.1
    done
    fail "drbdadm $*: '$(drbdadm "$@" 2>&1)', never '$want'"
}

# The state of a secondary.
expect secondary role $R
expect secondary state $R
until_is Connect cstate $R
until_is UpToDate dstate $R
step 0 wait-connect $R
step 0 wait-sync $R
step 0 status $R
step 0 role all

# Left-overs that change nothing.
step 0 syncer $R
step 0 adjust $R
step 0 get-gi $R
step 0 create-md $R
step 2 no-such-command $R
step 2 primary
step 4 role no-such-resource

# Connection.
step 0 disconnect $R
expect Disconnect cstate $R
until_is SwitchOff dstate $R
step 1 primary $R
step 1 wait-connect $R
step 0 connect $R
expect Connect cstate $R
until_is UpToDate dstate $R
step 0 connect $R

# All off and on again.
step 0 down $R
expect Disconnect cstate $R
step 0 up $R
until_is UpToDate dstate $R

# A new full sync.
step 0 invalidate $R
step 0 wait-sync $R
until_is UpToDate dstate $R

# The role, there and back.
step 1 secondary $R
step 0 primary $R
expect primary role $R
[ -b /dev/mars/$R ] || fail "no device"
dd if=/dev/urandom of=/dev/mars/$R bs=64k count=16 oflag=direct conv=fsync 2>/dev/null || fail dd
step 1 invalidate $R
step 0 primary $R
step 0 secondary $R
expect secondary role $R
step 0 wait-umount $R
[ ! -e /dev/mars/$R ] || fail "the device is still there"
echo DONE
"#;

#[test]
fn a_script_for_drbd_runs_unchanged() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(16 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        a.run(&format!("mars-node load {DEVICE} 1 0 256 100 50"))?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        let text = b.run(&format!("R={RESOURCE}\n{SCRIPT}"))?;
        assert!(text.ends_with("DONE\n"), "{text}");
        // The first node takes the role back and has what was written meanwhile.
        a.run(&format!("marsadm primary {RESOURCE}"))?;
        cluster.wait_device(a)?;
        cluster.wait_caught_up(RESOURCE, a, b, 60)?;
        same_disks(a, b, DISK)?;
        // The end of the resource: its name can be used again.
        b.run(&format!(
            "marsadm down {RESOURCE} && marsadm leave-resource {RESOURCE}"
        ))?;
        cluster.wait("the other node knows that it is alone", 60, || {
            a.link(&format!("resource-{RESOURCE}/replay-{}", b.name()))
                .is_none()
        })?;
        a.run(&format!("marsadm up {RESOURCE}"))?;
        a.run(&format!("marsadm --force delete-resource {RESOURCE}"))?;
        let dir = |node: &mars_tests::Node| node.mars().join(format!("resource-{RESOURCE}"));
        cluster.wait("the resource is gone on all nodes", 60, || {
            !dir(a).exists() && !dir(b).exists()
        })?;
        a.run(&format!("marsadm create-resource {RESOURCE} {DISK}"))?;
        cluster.wait_device(a)?;
        cluster.wait("the other node knows the new resource", 60, || {
            b.link(&format!("resource-{RESOURCE}/replay-{}", a.name()))
                .is_some()
        })?;
        b.run(&format!("marsadm join-resource {RESOURCE} {DISK}"))?;
        cluster.wait_caught_up(RESOURCE, a, b, 120)?;
        same_disks(a, b, DISK)
    })
}
