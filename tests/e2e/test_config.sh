#!/bin/sh
# What is wrong in a configuration or a job file is said with file, line, column, key and reason, and nothing starts.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin config
make_world 1
agents_config 1 1

# edit FILE LINE TEXT: $work/bad.yaml is FILE with that line replaced.
edit() { awk -v n="$2" -v text="$3" 'NR == n { print text; next } { print }' "$work/$1" >"$work/bad.yaml"; }
line_of() { grep -n "^ *$2" "$work/$1" | head -n 1 | cut -d: -f1; }

# daemon, agent, description: LINE-TO-REPLACE TEXT PATTERN REASON
daemon() {
    n=$(line_of cohortd.yaml "$1")
    edit cohortd.yaml "$n" "$2"
    expect_run 78 "bad.yaml:$n:[0-9]+: $3.*\[$4 " cohortd --config "$work/bad.yaml"
    expect_run 78 "bad.yaml:$n:[0-9]+: $3.*\[$4 " cohortd --config "$work/bad.yaml" --check-config
}
daemon listen 'listen: {address: 127.0.0.1, prot: 0}' 'listen.prot: unknown key' 102
daemon listen 'listen: {address: 127.0.0.1, port: many}' 'listen.port: ' 103
daemon listen 'listen: {address: 127.0.0.1, port: 65536}' 'listen.port: ' 104
daemon listen 'listen: {port: 0, port: 1}' 'listen.port: ' 105
daemon socket 'state: other' 'state: ' 105
edit cohortd.yaml "$(line_of cohortd.yaml tls)" '# no certificates'
expect_run 78 'bad.yaml:[0-9]+:[0-9]+: tls is missing.*\[106 ' cohortd --config "$work/bad.yaml"

agent() {
    n=$(line_of agents.yaml "$1")
    edit agents.yaml "$n" "$2"
    expect_run 78 "bad.yaml:$n:[0-9]+: .*$3.*\[$4 " cohort-agent --config "$work/bad.yaml"
    expect_run 78 "bad.yaml:$n:[0-9]+: .*$3.*\[$4 " cohort-agent --config "$work/bad.yaml" --check-config
}
agent backoff 'backof: {min: 20ms}' 'backof: unknown key' 102
agent backoff 'backoff: {min: soon}' 'backoff.min: ' 103
agent backoff 'backoff: {min: 1ms}' 'backoff.min: ' 104
agent drain 'patience: 2s' 'patience: ' 105
agent data '  data: {format: csv, tran: 3}' 'tran: unknown key' 102

job bad 1
cp "$work/bad.yaml" "$work/good.yaml"
description() {
    n=$(line_of good.yaml "$1")
    edit good.yaml "$n" "$2"
    expect_run 78 "bad.yaml:$n:[0-9]+: .*$3.*(reason $4)" cohortctl job submit "$work/bad.yaml"
}
description train 'train: {batch: 20, lr: 0.1, momentun: 0.5}' 'train.momentun: unknown key; did you mean momentum' 102
description rounds 'rounds: often' 'rounds: ' 103
description train 'train: {batch: 20, lr: 101}' 'train.lr: ' 104
description round: 'round: {members: 2, members: 2}' 'round.members: ' 105
description round: 'round: {members: 2, quorum: 3}' 'round.quorum: ' 107
description strategy 'strategy: fedmagic' 'strategy: ' 113
expect_run 0 '^\[\]$' cohortctl --json job list
ok "nothing of it became a job"

# Everyone else goes on: the coordinator that refused all this runs a good one.
start_agents
cp "$work/good.yaml" "$work/bad.yaml"
submit bad
finishes bad
