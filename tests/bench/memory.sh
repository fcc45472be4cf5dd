#!/bin/sh
# The coordinator's peak anonymous memory with few and with many agents of a model of a million parameters: it must grow by less than
# 100 KiB for each agent more, plus the pool of frame buffers that `cohortctl status` states.
#
#   tests/bench/memory.sh [BUILD-FOLDER] [FEW MANY]      default: build 10 100
#
# The agents (one cohort-agent process, twenty images each) all take part in each of three rounds of FedAvg with
# updates of 2 MB. Prints a JSON line for each number of agents and one with the difference; exit code 1 when it is too much.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "${1:-$root/build}" && pwd)
few=${2:-10} many=${3:-100} rounds=3
PATH=$build/server:$build/server/ctl:$build/client:$build/tests/bench:$PATH
for program in cohortd cohort-agent cohortctl peak_anon; do
    command -v $program >/dev/null || { echo "no $program in $build: ninja -C $build" >&2; exit 2; }
done
data=$root/tests/data/fashion-mnist
work=$(mktemp -d "${TMPDIR:-/tmp}/cohort-memory.XXXXXX")
coordinator='' sites='' watcher=''
finish() {
    status=$?
    trap - EXIT INT TERM
    for pid in $sites $coordinator $watcher; do kill "$pid" 2>/dev/null || true; done
    for pid in $sites $coordinator $watcher; do wait "$pid" 2>/dev/null || true; done
    [ $status -le 1 ] || tail -n 20 "$work"/*.log >&2 || true
    rm -rf "$work"
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

cohortctl pki init "$work/pki" --name memory >/dev/null
cohortctl pki issue "$work/pki" coordinator cohortd --dns localhost >/dev/null
cohortctl pki issue "$work/pki" agent 'site-{nnn}' --count "$many" >/dev/null
cat >"$work/job.yaml" <<EOF
name: memory
strategy: fedavg
rounds: $rounds
model:
  input: [1, 28, 28]
  classes: 10
  layers:
    - flatten:
    - linear: {out: 1275}
    - leaky_relu:
    - linear: {out: 10}
train: {batch: 20, lr: 0.01}
round: {members: 1, deadline: 10m}
EOF
number() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p"; }

# measure AGENTS: one run; leaves its JSON line in $line and its figures in $peak and $pool.
measure() {
    agents=$1 run=$work/$1
    mkdir "$run"
    cat >"$run/cohortd.yaml" <<EOF
listen: {port: 0}
state: state
socket: {path: cohortd.sock}
tls: {ca: ../pki/ca.crt, certificate: ../pki/cohortd.crt, key: ../pki/cohortd.key, crl: ../pki/ca.crl}
log: {level: warn}
EOF
    export COHORT_SOCKET="$run/cohortd.sock"
    cohortd --config "$run/cohortd.yaml" 2>"$work/cohortd-$agents.log" &
    coordinator=$!
    peak_anon $coordinator >"$run/peak.json" &
    watcher=$!
    tries=0
    until cohortctl status >/dev/null 2>&1; do
        kill -0 $coordinator
        tries=$((tries + 1))
        [ $tries -lt 300 ] || exit 2
        sleep 0.1
    done
    port=$(cohortctl --json status | number port)
    # shellcheck disable=SC2046
    cohortctl agent enrol $(printf "$work/pki/site-%03d.crt\n" $(seq "$agents")) >/dev/null
    cat >"$run/agents.yaml" <<EOF
state: agents
coordinator: {host: localhost, port: $port, ca: ../pki/ca.crt, crl: ../pki/ca.crl}
log: {level: warn}
defaults:
  certificate: ../pki/site-{nnn}.crt
  key: ../pki/site-{nnn}.key
  jobs: [memory]
  data:
    format: idx
    train_x: $data/train-images-idx3-ubyte.gz
    train_y: $data/train-labels-idx1-ubyte.gz
    test_x: $data/test-images-idx3-ubyte.gz
    test_y: $data/test-labels-idx1-ubyte.gz
    classes: 10
    partition: dirichlet
    alpha: 100
    client: "{n}"
    of: $many
    train: 20
    test: 10
agents:
  - {count: $agents, name: "site-{nnn}"}
EOF
    cohort-agent --config "$run/agents.yaml" 2>"$work/agents-$agents.log" &
    sites=$!
    cohortctl job submit "$work/job.yaml" --set round.members="$agents" >/dev/null
    cohortctl job wait memory --timeout 20m >/dev/null
    status=$(cohortctl --json status)
    pool=$(echo "$status" | number frame_buffer_bytes) committed=$(echo "$status" | number updates_committed)
    kill $sites $coordinator
    wait $sites $coordinator $watcher
    coordinator='' sites='' watcher=''
    [ "$committed" = $((agents * rounds)) ] || {
        echo "only $committed of $((agents * rounds)) updates were committed" >&2
        exit 2
    }
    peak=$(number peak_anon_kib <"$run/peak.json")
    line=$(sed "s/^{/{\"agents\": $agents, \"updates\": $committed, \"frame_buffer_kib\": $((pool / 1024)), /" "$run/peak.json")
    rm -rf "$run"
}
parameters=$((784 * 1275 + 1275 + 1275 * 10 + 10))
measure "$few"
low=$peak
echo "$line"
measure "$many"
echo "$line"
grown=$((peak - low)) allowed=$(((many - few) * 100 + pool / 1024))
echo "{\"parameters\": $parameters, \"grown_kib\": $grown, \"allowed_kib\": $allowed," \
    "\"kib_an_agent\": $(awk "BEGIN { printf \"%.1f\", $grown / ($many - $few) }"), \"holds\": $([ $grown -lt $allowed ] && echo true || echo false)}"
[ $grown -lt $allowed ]
