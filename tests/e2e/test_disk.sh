#!/bin/sh
# The coordinator's disk fails: full for a while, full for good, a write or a sync that fails. It says so with a reason, nobody
# else suffers, nothing acknowledged is lost, and work goes on when the disk does (after a failed sync: after a restart).
. "$(dirname "$0")/lib.sh"
e2e_begin disk
shim=$build/tests/lib/powerfail/libpowerfail.so
[ -e "$shim" ] || {
    echo "skipped: $shim is not built"
    exit 77
}
export ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0"

make_pki 2
coordinator_config
cat >"$work/agents.yaml" <<CONFIG
state: sites
socket: {path: agent.sock}
coordinator: {host: localhost, port: $port, ca: pki/ca.crt, crl: pki/ca.crl, order: chacha20}
log: {level: warn, format: text}
backoff: {min: 20ms, max: 200ms}
patience: 5s
defaults:
  jobs: ["*"]
  data: {format: csv, train_x: data.csv, target: label, classes: 2, partition: all, test: 20}
agents:
  - {count: 2, name: "site-{nn}", certificate: "pki/site-{nn}.crt", key: "pki/site-{nn}.key"}
CONFIG
awk 'BEGIN { print "a,b,label"; for (i = 0; i < 60; i++) printf "%.2f,%.2f,%d\n", i % 7 / 7, i % 2, i % 2 }' >"$work/data.csv"
cat >"$work/job.yaml" <<JOB
name: disk
strategy: fedavg
rounds: 100000
model: {input: [2], classes: 2, head: 1, layers: [{linear: {out: 2}}]}
train: {batch: 20, epochs: 1, lr: 0.05}
round: {members: 2, late_rounds: 1000}
JOB

round_now() {
    r=$(job_field round disk)
    echo "${r:-0}"
}
past() { [ "$(round_now)" -gt "$1" ]; }
says() { grep -q "\[$1 " "$work/cohortd.log"; }
says_or_dead() { says "$1" || dead "$coordinator"; }
recorded() { sqlite3 "$work/state/cohortd.db" "SELECT u.round, a.name, hex(u.digest) FROM upload u JOIN agent a ON a.id = u.agent"; }
acknowledged() {
    for folder in "$work"/sites/site-*; do
        sqlite3 "$folder/ledger.db" "SELECT a.round, '$(basename "$folder")', hex(r.update_digest) FROM entry a JOIN entry r
            ON r.kind = 3 AND r.incarnation = a.incarnation AND r.round = a.round WHERE a.kind = 4"
    done
}

start_coordinator || die "the coordinator does not start"
cohortctl agent enrol "$work"/pki/site-*.crt >/dev/null || die "enrol"
cohortctl job submit "$work/job.yaml" >/dev/null || die "submit"
start_agents
wait_for 60 past 2 || die "rounds do not begin"

# broken FAULT REASON WHAT: the coordinator runs into it, says REASON, and may stop in good order; a restart goes on.
broken() {
    before=$(round_now)
    stop "$coordinator"
    : >"$work/cohortd.log"
    start_coordinator LD_PRELOAD="$shim" POWERFAIL_DIR="$work/state" POWERFAIL_SYNC=real POWERFAIL_FAIL="$1" || die "$3: does not start"
    wait_for 60 says_or_dead "$2" || die "$3: nobody said reason $2"
    says "$2" || die "$3: died without reason $2"
    if runs "$coordinator"; then
        # It answers, or is just stopping.
        cohortctl --timeout 10s status >/dev/null 2>&1 || wait_for 10 dead "$coordinator" || die "$3: the control socket does not answer"
        kill "$coordinator" 2>/dev/null || true
    fi
    reap "$coordinator"
    case $status in
    0 | 1) ;;
    *) die "$3: the coordinator ended with $status" ;;
    esac
    start_coordinator || die "$3: does not start again"
    wait_for 60 past "$before" || die "$3: does not go on after round $before"
    echo "$3: said, survived, went on"
}
broken write:90+:ENOSPC 605 "the disk is full for good"
broken write:90+:EIO 604 "writes fail"
broken sync:60+:EIO 604 "syncs fail"
broken sync:60:EIO 604 "one sync fails"

# Full for one write only: no restart is needed.
before=$(round_now)
stop "$coordinator"
: >"$work/cohortd.log"
start_coordinator LD_PRELOAD="$shim" POWERFAIL_DIR="$work/state" POWERFAIL_FAIL=write:90:ENOSPC || die "does not start"
wait_for 60 says_or_dead 605 || die "full once: nobody said reason 605"
before=$(round_now)
wait_for 60 past $((before + 1)) || die "full once: does not go on by itself"
echo "the disk is full once: said, went on by itself"

stop "$agents"
stop "$coordinator"
recorded | sort >"$work/recorded"
acknowledged | sort >"$work/acknowledged"
[ -s "$work/acknowledged" ] || die "nothing was acknowledged"
lost=$(comm -23 "$work/acknowledged" "$work/recorded" | wc -l)
echo "$(wc -l <"$work/acknowledged") updates acknowledged, $lost of them lost"
[ "$lost" = 0 ] || die "acknowledged updates are lost"
