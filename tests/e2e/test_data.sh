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

# Which rows train, under the unit example: by their places (and the epsilon holds for neighbours in which the others keep theirs), then by a
# keyed hash of each. What was released by place stays in the sum, and so does its relation.
stop "$agents"
placed='one example added or removed at this site, all others in their places'
budget='  jobs: ["*"]
  privacy: {unit: example, epsilon: 100, delta: 0.001}'
noised='privacy: {unit: example, clip: 1, noise_multiplier: 2, delta: 0.001, sampling_rate: 0.2, examples: 80}'
dealt() { # dealt NAME: one job with the agent's configuration as it is
    start_agents
    strategy=fedavg rounds=1 train='train: {steps: 2, lr: 0.1}' job "$1" 1 "$noised"
    submit "$1"
    finishes "$1"
    stop "$agents"
}
spent_says() {
    cohort-agent ledger show --json --config "$work/agents.yaml" >"$work/shown" || die "ledger show"
    python3 - "$work/shown" "$@" <<'PYTHON' || die "ledger show: $(cat "$work/shown")"
import json, sys
text = open(sys.argv[1]).read()
all = json.loads(text)
all = all[0] if isinstance(all, list) else all
spent = all["spent"][-1]["neighbours"]
releases = [r["neighbours"] for r in all["releases"]]
assert spent == sys.argv[2], spent
assert releases == sys.argv[3:], releases
PYTHON
    ok "ledger show: $1"
}
new_world
agents_config 1 1 "$budget"
sed -i 's/test: 20/deal: placed, test: 20/' "$work/agents.yaml"
expect_run 0 'deal: placed' cohort-agent check-data --config "$work/agents.yaml"
dealt by-place
spent_says "$placed" "$placed"
sed -i 's/deal: placed, test: 20/test: 0.2/' "$work/agents.yaml"
dealt by-hash
spent_says "$placed" "$placed" "${placed%,*}"

new_world
expect_run 1 'rows.key, which the agent makes' cohort-agent check-data --config "$work/agents.yaml" --export "$work/all"
dealt anew
spent_says "${placed%,*}" "${placed%,*}"
[ "$(stat -c %a "$work/sites/site-01/rows.key")" = 600 ] || die "others may read rows.key"
expect_run 0 'deal: hashed' cohort-agent check-data --config "$work/agents.yaml" --export "$work/all"
sed -i 31d "$work/data.csv"
expect_run 0 'under unit example: one example added or removed at this site$' cohort-agent check-data --config "$work/agents.yaml" --export "$work/less"
python3 - "$work" <<'PYTHON' || die "a row less moves others"
import sys
def rows(export, part): # of four 32-bit numbers, behind the header of a .npy file
    b = open(f"{sys.argv[1]}/{export}/site-01-{part}-x.npy", "rb").read()
    b = b[10 + int.from_bytes(b[8:10], "little"):]
    return [b[i:i + 16] for i in range(0, len(b), 16)]
gone = 0
for part in "train", "test":
    all = rows("all", part)
    for row in rows("less", part):
        all.remove(row)
    gone += len(all)
assert gone == 1, gone
PYTHON
ok "a row less moves no other"
