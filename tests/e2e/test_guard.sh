#!/bin/sh
# Nobody loses by joining: a site chooses by its validation examples which model serves it, and can measure before it joins.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin guard
make_world 2
agents_config 1 2
sed -i 's/, test: 20/, test: 20, validation: 20/' "$work/agents.yaml"
# A third site, which is no member: the same task, and the same with every label wrong.
stranger() {
    cat >"$work/$1.yaml" <<CONFIG
state: elsewhere
socket: {path: $1.sock}
coordinator: {host: localhost, port: $port, ca: pki/ca.crt}
agents:
  - {name: $1, certificate: pki/site-01.crt, key: pki/site-01.key, jobs: ["*"],
     data: {format: csv, train_x: $1.csv, target: label, classes: 2, partition: all, test: 20, validation: ${2:-30}}}
CONFIG
}
expect_run 0 'validation 20: ' cohort-agent check-data --config "$work/agents.yaml" --agent site-01
start_agents
strategy=fedavg rounds=20 train="train: {batch: 20, epochs: 2, lr: 0.05}" job good 2 'data: {mean: [0.5], std: [0.8]}'
submit good
finishes good
final() { cohort-agent report --config "$work/agents.yaml" --agent "$1" --job good --json | grep '"event":"final"'; }
wait_for 10 final site-01 >/dev/null || die "no final report"
wait_for 10 final site-02 >/dev/null || die "no final report"
for site in site-01 site-02; do
    final $site | /usr/bin/python3 -c '
import json, sys
line = json.loads(sys.stdin.readline())
guard = line["guard"]
tried = [m for m in ("alone", "as_is", "head", "full", "mixed", "parts") if m in guard]
assert len(tried) == 6, tried
least = min(guard[m]["validation_loss"] for m in tried)
assert guard[guard["choice"]]["validation_loss"] == least, guard
assert abs(guard["as_is"]["accuracy"] - line["accuracy_received"]) < 1e-9, line
assert guard["as_is"]["accuracy"] > 0.7, guard
print("ok:", sys.argv[1], "serves", guard["choice"], {m: round(guard[m]["validation_loss"], 3) for m in tried})
' $site || die "$site: $(final $site)"
done
expect_run 0 'serves (alone|as_is|head|full|mixed|parts): accuracy [0-9.]+%' cohort-agent report --config "$work/agents.yaml" --agent site-01
# Nothing of the comparison is in the ledger or was sent: as many releases as rounds.
expect_run 0 '20 releases' cohort-agent ledger --config "$work/agents.yaml" --agent site-01

cohortctl model export good --output "$work/good.safetensors" >/dev/null || die "model export"
cp "$work/data.csv" "$work/friend.csv"
sed '2,$s/.$/X&/; 2,$s/X0$/1/; 2,$s/X1$/0/' "$work/data.csv" >"$work/foe.csv"
stranger friend
stranger foe
preview() {
    code=$1 pattern=$2 site=$3
    shift 3
    expect_run "$code" "$pattern" cohort-agent preview --config "$work/$site.yaml" --job "$work/good.yaml" --model "$work/good.safetensors" "$@"
}
preview 0 'friend: worth joining' friend
preview 0 'foe: alone is better' foe
preview 0 '"join":true' friend --json
[ ! -e "$work/elsewhere" ] || die "a preview left something behind"
expect_run 2 'preview needs' cohort-agent preview --config "$work/friend.yaml" --job "$work/good.yaml"
stranger friend 0
preview 1 'no validation examples' friend
stranger friend 1000
preview 1 '1000 validation examples of 80 training examples leave none' friend
