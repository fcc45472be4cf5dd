#!/bin/sh
# A site whose data are damaged, of another shape, or whose training diverges, declines with a reason; the others go on.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin data
make_world 4
# An IDX file that ends early, and a table with a column too few.
{ printf '\000\000\010\003\000\000\000\144\000\000\000\002\000\000\000\002'; head -c 100 /dev/zero; } >"$work/cut-x.idx"
{ printf '\000\000\010\001\000\000\000\144'; head -c 100 /dev/zero; } >"$work/cut-y.idx"
cut -d, -f2- "$work/data.csv" >"$work/narrow.csv"
{ head -n 50 "$work/data.csv"; echo '0.1,nan,0.2,0.3,1'; } >"$work/nan.csv"
agents_config 1 1
cat >>"$work/agents.yaml" <<'CONFIG'
  - {name: site-02, certificate: pki/site-02.crt, key: pki/site-02.key, data: {format: idx, train_x: cut-x.idx, train_y: cut-y.idx}}
  - {name: site-03, certificate: pki/site-03.crt, key: pki/site-03.key, data: {train_x: narrow.csv}}
  - {name: site-04, certificate: pki/site-04.crt, key: pki/site-04.key, data: {train_x: nan.csv}}
CONFIG
expect_run 1 'site-02.*cut-x.idx.*702' cohort-agent check-data --config "$work/agents.yaml" --agent site-02
expect_run 1 'site-04.*nan.csv:51.*703' cohort-agent check-data --config "$work/agents.yaml" --agent site-04
start_agents
rounds=2 quorum=1 deadline=2s fill=2s job damaged 4
submit damaged
expect_log cohortd 'site-02.*declines round 1 of damaged.*\[702 data-truncated\]'
expect_log cohortd 'site-03.*declines round 1 of damaged.*\[705 data-shape\]'
expect_log cohortd 'site-04.*declines round 1 of damaged.*\[703 data-value\]'
expect_log agents 'site-02.*cut-x.idx'
finishes damaged

# Weights that grow 99 times in every step, whatever the data do: nothing that is not finite is released, and the next job finds the agent well.
rounds=1 quorum=1 deadline=2s fill=1s train='train: {batch: 20, epochs: 200, lr: 100, weight_decay: 1}' job diverging 1
submit diverging
expect_log agents 'site-01.*\[506 not-finite\]'
expect_log cohortd 'site-01.*\[506 not-finite\]'
cohortctl job cancel diverging >/dev/null
rounds=1 job after 1
submit after
finishes after
