#!/bin/sh
# A damaged or foreign database, a second daemon on the same folder and a full disk: said with a reason, nothing acknowledged that
# is not durable, and on it goes once there is room.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin store
make_world 2
agents_config 1 1
start_agents
rounds=1 job first 1
submit first
finishes first

# A second one beside the first, which does not notice.
sed 's|cohortd.sock|second.sock|; s|port: [0-9]*|port: 0|' "$work/cohortd.yaml" >"$work/second.yaml"
expect_run 1 '\[603 store-locked\]' cohortd --config "$work/second.yaml"
sed 's|agent.sock|second.sock|' "$work/agents.yaml" >"$work/agents2.yaml"
expect_run 1 '\[603 store-locked\]' cohort-agent --config "$work/agents2.yaml"
rounds=1 job second 1
submit second
finishes second

stop "$coordinator"
[ "$status" = 0 ] || die "exit $status of the coordinator at SIGTERM"
stop "$agents"
database=$(ls "$work"/state/*.db)
cp -r "$work/state" "$work/kept"
expect_bad() { # WHAT REASON
    expect_run 1 "$(basename "$database").*\[$2\]" cohortd --config "$work/cohortd.yaml"
    rm -rf "$work/state"
    cp -r "$work/kept" "$work/state"
}
head -c 8192 /dev/urandom | dd of="$database" bs=4096 seek=1 conv=notrunc 2>/dev/null
expect_bad damaged '601 store-corrupt'
head -c 4096 "$database" >"$work/cut" && cp "$work/cut" "$database"
expect_bad truncated '601 store-corrupt'
rm -f "$database"*
sqlite3 "$database" 'PRAGMA application_id=7; CREATE TABLE other(x)'
expect_bad foreign '602 store-foreign'
ledger=$work/sites/site-01/ledger.db
cp "$ledger" "$work/ledger.kept"
head -c 8192 /dev/urandom | dd of="$ledger" bs=4096 seek=1 conv=notrunc 2>/dev/null
expect_run 1 'site-01.*ledger.db.*\[504 ledger\]' cohort-agent --config "$work/agents.yaml"
cp "$work/ledger.kept" "$ledger"
start_coordinator || die "the undamaged folder is refused"
[ "$(job_field state second)" = done ] || die "the jobs are gone"
ok "the kept folder starts, with its jobs"
stop "$coordinator"

# ---- a full disk ----
if [ "$(id -u)" != 0 ] || ! mount -t tmpfs -o size=8m none "$work/state" 2>/dev/null; then
    echo "skipped: the full disk: cannot mount a small file system here"
    exit 0
fi
unmount_and_end() {
    ended=$?
    umount -l "$work/state" "$work/sites" 2>/dev/null
    (exit $ended)
    e2e_end
}
trap unmount_and_end EXIT
rm -rf "$work/sites"
mkdir -p "$work/sites"
start_coordinator || die "no start on a small file system"
cohortctl agent enrol "$work"/pki/site-0?.crt >/dev/null
: >"$work/agents.log"
start_agents
rounds=1000000 width=20000 deadline=1s job full 1
submit full
past() { [ "$(job_field round full)" -gt "$1" ]; }
wait_for 10 past 1 || die "no rounds"
fill() { # FOLDER: to the last byte
    dd if=/dev/zero of="$1/ballast" bs=64k 2>/dev/null
    dd if=/dev/zero of="$1/ballast2" bs=1 2>/dev/null
    true
}
room() { rm -f "$1/ballast" "$1/ballast2"; }
fill "$work/state"
expect_log cohortd '\[605 disk-full\]'
sleep 1
stuck=$(job_field round full)
acknowledged=$(cohortctl --json status | sed -n 's/.*"updates_committed": *\([0-9]*\).*/\1/p')
runs "$coordinator" || die "the coordinator died of a full disk"
room "$work/state"
job_is full paused && cohortctl job resume full >/dev/null
wait_for 20 past "$((stuck + 1))" || die "no rounds after room was made (stuck at $stuck, $(job_field state full): $(cohortctl round explain full))"
ok "the coordinator stood at round $stuck with $acknowledged updates acknowledged, and went on to $(job_field round full)"

stop "$agents"
cp -pr "$work/sites" "$work/moved"
mount -t tmpfs -o size=6m none "$work/sites" || die "mount"
cp -pr "$work/moved/." "$work/sites/"
: >"$work/agents.log"
start_agents
now=$(job_field round full)
wait_for 30 past "$now" || die "no rounds on the small file system of the agent"
fill "$work/sites"
full_seen() { logged agents 'disk-full|605'; }
wait_for 10 full_seen || die "the agent says nothing of its full disk"
ok "$(grep -E 'disk-full|605' "$work/agents.log" | head -n 1)"
room "$work/sites"
job_is full paused && cohortctl job resume full >/dev/null
now=$(job_field round full)
wait_for 20 past "$((now + 1))" || die "no rounds after the agent has room: $(job_field state full) $(cohortctl round explain full)"
ok "the agent goes on: round $(job_field round full)"
