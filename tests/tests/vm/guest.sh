# What the scripts of the virtual machine share: the log disk at /mars, the module, a resource without marsd.
set -eu
DISK=/dev/vda
LOG_DISK=/dev/vdb
DEVICE=/dev/mars/r1
LOGS=/mars/resource-r1
# No udev here: dmsetup makes its device nodes itself.
export DM_DISABLE_UDEV=1

say() { echo "## $*"; }
die() { echo "FAILED: $*" >&2; exit 1; }
# wait_for WHAT COMMAND...: until the command succeeds
wait_for() {
    local what=$1 tries=0
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 1200 ] || die "not within two minutes: $what"
        sleep 0.1
    done
}
refused() { if "$@" 2>/dev/null; then die "should have been refused: $*"; fi; }

# field KEY: of the status of the resource
field() { mars-kmod status "$ID" | tr ' ' '\n' | sed -n "s/^$1=//p"; }
expect() { [ "$(field "$1")" = "$2" ] || { mars-kmod status "$ID"; die "$1 is $(field "$1"), not $2"; }; }

log_disk() {
    mkdir -p /mars
    [ "$(blkid -o value -s TYPE "$LOG_DISK" || true)" = ext4 ] || mkfs.ext4 -q "$LOG_DISK"
    mount "${1:-$LOG_DISK}" /mars
    mkdir -p "$LOGS"
    sync -f /mars
}

# serve [DISK]: replays what logs there are, then logs to a new one; the resource is ID
serve() {
    local last=0 log
    for log in "$LOGS"/log-*; do
        [ -e "$log" ] || continue
        echo "replayed $log: $(mars-kmod replay "$log" "${1:-$DISK}") bytes"
        last=${log#*/log-} last=${last%%-*}
        rm "$log"
    done
    log=$LOGS/log-$(printf %09d $((10#$last + 1)))-vm
    : >"$log"
    sync "$LOGS"
    rm -f "$LOGS/.passed"
    ID=$(mars-kmod attach r1 "${1:-$DISK}")
    mars-kmod log "$ID" "$log" --mark "$LOGS/.passed"
    [ -b "$DEVICE" ] || die "$DEVICE has not appeared"
}

stop() {
    mars-kmod stop "$ID"
    mars-kmod wait "$ID" stopped
    mars-kmod release "$ID"
    [ ! -e "$DEVICE" ] || die "$DEVICE is still there"
}
