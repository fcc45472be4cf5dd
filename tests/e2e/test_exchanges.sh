#!/bin/sh
# A job of two exchanges: noised class counts, then the update. What the sites sent is in the checkpoint and on their ledgers; the
# coordinator is killed between the exchanges, around each close and while it finishes, and nothing of the result changes.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin exchanges
make_world 3
agents_config 1 3 '  jobs: ["*"]
  privacy: {unit: client, epsilon: 100000, delta: 1e-5}'
describe() {
    rounds=3 job counted 3 "privacy: {unit: client, clip: 0.5, noise_multiplier: 1, delta: 0.00001}
counts: {noise_multiplier: 0.25, bound: 100, every: 2}"
}
begin() { # the same intents in every run, so that the same bytes leave
    new_world
    describe
    submit counted
    cohort-agent prepare --config "$work/agents.yaml" --incarnation "$(job_field incarnation counted)" --rounds 10 --exchanges 2 --seed 5 \
        >/dev/null 2>"$work/prepare.log" || die "prepare: $(cat "$work/prepare.log")"
}

begin
start_agents
finishes counted 40
cohortctl --json job show counted >"$work/show.json" || die "job show"
python3 - "$work/show.json" <<'PY' || die "job show: $(cat "$work/show.json")"
import json, sys
c = json.load(open(sys.argv[1]))["counts"]
assert c["sites"] == 3 and c["classes"] == 2, c
assert abs(c["noise_std"] - 25 * 3 ** 0.5) < 0.01, c           # three sites, each 0.25 of 100
assert all(abs(x - 3 * 40) < 8 * c["noise_std"] for x in c["examples"]), c  # 80 of a site's 100 train, half of each class
assert all(x != round(x / 120) * 120 for x in c["examples"]), c
PY
ok "counts of 3 sites: $(grep -o '"examples.*' "$work/show.json" | head -c 80)"
expect_run 0 'class counts' cohortctl job show counted
for site in 01 02 03; do # 3 updates, and counts in rounds 1 and 3
    n=$(cohort-agent ledger --config "$work/agents.yaml" --agent "site-$site" --json | grep -o '"round":' | wc -l)
    [ "$n" = 5 ] || die "site-$site has $n releases instead of 5"
done
ok "5 releases on each ledger"
cohortctl model export counted -o "$work/calm.safetensors" >/dev/null || die "export"
expect_run 0 'round 3 of counted' cohortctl model export counted --agent site-02 -o "$work/of.safetensors"
cmp "$work/calm.safetensors" "$work/of.safetensors" || die "one slot, and two models"
expect_run 1 'slot 1: there are 1' cohortctl model export counted --slot 1 -o "$work/none.safetensors"
calm=$(sed -n 's/.*"examples": *\[\([^]]*\).*/\1/p' "$work/show.json" | tr -d ' \n')
stop "$agents"

strings "$build/server/cohortd" 2>/dev/null | grep -q '^crash-point=round-between-after' || {
    ok "no crash points in this build: kills are left out"
    exit 0
}
for point in store-close-before store-close-after round-fold-after:2 round-finish-before round-between-after store-commit-after:4 \
    store-members-after:2 store-checkpoint-renamed store-publish-after; do
    begin
    crash_at "$point"
    finishes counted 40
    cohortctl model export counted -o "$work/killed.safetensors" >/dev/null || die "export"
    cmp "$work/calm.safetensors" "$work/killed.safetensors" || die "$point: another model"
    cohortctl --json job show counted >"$work/show.json"
    [ "$calm" = "$(sed -n 's/.*"examples": *\[\([^]]*\).*/\1/p' "$work/show.json" | tr -d ' \n')" ] || die "$point: other counts"
    stop "$agents"
    ok "killed at $point: the same model and counts"
done
