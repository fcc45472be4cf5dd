#!/bin/sh
# How soon a started agent has taken its first training step, and how much anonymous memory one needs that trains the published network
# for Fashion-MNIST: the real programs over TLS, a job waiting.
#
#   tests/bench/agent_start.sh [BUILD-FOLDER [REPEATS]]      default: build 5
#
# A round of one step is trained on 600 examples and the time is that from before the process is started until the agent logs that the
# round is trained, so the data files are read and unpacked, and both tests of the model are in it; best of REPEATS. Then the CPU time of
# an agent's whole life for one such round (--once), from loading its libraries to stopping, upload and all. Memory: the peak over three
# rounds of an epoch. Prints JSON lines; exit code 1 above 50 ms or 24 MiB.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=$(cd "${1:-$root/build}" && pwd)
repeats=${2:-5} limit_ms=50 limit_kib=24576
. "$root/tests/e2e/lib.sh"
set -eu
e2e_begin agent-start
PATH=$build/tests/bench:$PATH
data=$root/tests/data/fashion-mnist
make_pki 1
coordinator_config
start_coordinator || die "no coordinator"
cohortctl agent enrol "$work/pki/site-01.crt" >/dev/null
cat >"$work/job.yaml" <<EOF
name: start
strategy: fedavg
rounds: 1000000
model:
  input: [1, 28, 28]
  classes: 10
  layers:
    - conv2d: {out: 16, kernel: 5}
    - leaky_relu:
    - max_pool: {size: 2}
    - conv2d: {out: 32, kernel: 5}
    - leaky_relu:
    - max_pool: {size: 2}
    - flatten:
    - linear: {out: 128}
    - leaky_relu:
    - linear: {out: 10}
data: {mean: [0.2860], std: [0.3530]}
train: {batch: 50, lr: 0.01}
round: {members: 1, deadline: 10m}
EOF
cat >"$work/agents.yaml" <<EOF
state: agents
coordinator: {host: localhost, port: $port, ca: pki/ca.crt, crl: pki/ca.crl}
log: {level: debug, format: json}
agents:
  - name: site-01
    certificate: pki/site-01.crt
    key: pki/site-01.key
    jobs: [start]
    data:
      format: idx
      train_x: $data/train-images-idx3-ubyte.gz
      train_y: $data/train-labels-idx1-ubyte.gz
      test_x: $data/test-images-idx3-ubyte.gz
      test_y: $data/test-labels-idx1-ubyte.gz
      classes: 10
      partition: dirichlet
      alpha: 100
      client: 1
      of: 8
      train: 600
      test: 100
EOF
# Milliseconds since 1970 of the first line of the log with a text.
logged() { date -d "$(grep "$1" "$work/agents.log" | head -n 1 | sed 's/^{"time":"\([^"]*\)".*/\1/')" +%s%3N; }
has() { grep -q "$1" "$work/agents.log" 2>/dev/null; }
cohortctl job submit "$work/job.yaml" --set train.steps=1 >/dev/null
best=999999
for i in $(seq "$repeats"); do
    rm -f "$work/agents.log"
    from=$(date +%s%3N)
    start_agents
    wait_for 60 has ': seal' || die "nothing was trained"
    stop "$agents"
    took=$(($(logged ': seal') - from)) connected=$(($(logged 'welcome at') - from)) train=$(($(logged ': train') - from))
    [ $took -ge $best ] || best=$took parts="\"welcome_ms\": $connected, \"data_and_model_ms\": $((train - connected)), \"train_ms\": $((took - train))"
done
echo "{\"bench\": \"agent_first_step\", \"ms\": $best, $parts, \"limit_ms\": $limit_ms, \"holds\": $([ $best -le $limit_ms ] && echo true || echo false)}"

# CPU time of the children that have ended, which a loaded machine does not change; not in a subshell, which would ask for its own.
children_ms() {
    times >"$work/times"
    children=$(tail -n 1 "$work/times" | awk -F'[ms ]+' '{ printf "%d", 1000 * ($1 * 60 + $2 + $3 * 60 + $4) }')
}
spent=0
for i in $(seq "$repeats"); do
    cohortctl job submit "$work/job.yaml" --set "name=once$i" --set rounds=1 --set train.steps=1 >/dev/null
    sed -i "s/jobs: .*/jobs: [once$i]/" "$work/agents.yaml"
    children_ms
    others=$children
    cohort-agent --config "$work/agents.yaml" --once 2>>"$work/agents.log"
    children_ms
    spent=$((spent + children - others))
done
echo "{\"bench\": \"agent_once\", \"cpu_ms\": $((spent / repeats))}"

cohortctl job cancel start >/dev/null
cohortctl job submit "$work/job.yaml" --set name=again --set rounds=3 >/dev/null
sed -i 's/jobs: .*/jobs: [again]/' "$work/agents.yaml"
rm -f "$work/agents.log"
start_agents
peak_anon "$agents" >"$work/peak.json" &
watcher=$!
cohortctl job wait again --timeout 2m >/dev/null
stop "$agents"
wait $watcher || true
stop "$coordinator"
peak=$(sed -n 's/.*"peak_anon_kib": *\([0-9]*\).*/\1/p' "$work/peak.json")
echo "{\"bench\": \"agent_memory\", \"peak_anon_kib\": $peak, \"limit_kib\": $limit_kib, \"holds\": $([ "$peak" -le $limit_kib ] && echo true || echo false)}"
[ $best -le $limit_ms ] && [ "$peak" -le $limit_kib ]
