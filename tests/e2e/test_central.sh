#!/bin/sh
# Noise of the coordinator: only where a site trusts it, printed as such, on the sum, and the same after a crash. With a tree a site
# takes part once in it.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin central
make_world 4
agents_config 1 4 '  jobs: ["*"]
  privacy: {unit: client, epsilon: 1000, delta: 1e-5}'
start_agents
privacy='privacy: {unit: client, clip: 0.5, noise_multiplier: 4, delta: 0.00001, noise: central}'
export strategy=fedavg

rounds=2 quorum=1 deadline=1s fill=1s job distrusted 4 "$privacy"
submit distrusted
expect_log cohortd 'site-01.*declines round 1 of distrusted.*\[502 policy-noise\]'
grep -q 'leaves the noise to the coordinator' "$work/agents.log" || die "the agent does not say why"
cohortctl job cancel distrusted >/dev/null
stop "$agents"

new_world
sed -i 's/epsilon: 1000, delta: 1e-5}/epsilon: 1000, delta: 1e-5, noise: central}/' "$work/agents.yaml"
start_agents
expect_run 0 'adversary +everyone but the coordinator' cohortctl privacy plan "$work/distrusted.yaml"
rounds=2 quorum=4 deadline=30s job trusted 4 "$privacy"
submit trusted
finishes trusted
# What the sites sent has no noise; what was published has: 4 * 0.5 / 4 members = 0.5 a round and element.
cohort-agent outbox --config "$work/agents.yaml" --agent site-01 --json >"$work/outbox"
grep -q '"noise_std":0' "$work/outbox" || die "the site noised it all the same: $(cat "$work/outbox")"
cohortctl model export trusted --round 2 -o "$work/model.safetensors" >/dev/null || die "export"
python3 - "$work/model.safetensors" <<'PYTHON' || die "the published model does not look noised"
import json, math, struct, sys
raw = open(sys.argv[1], "rb").read()
n = struct.unpack("<Q", raw[:8])[0]
head = json.loads(raw[8:8 + n])
values = [x for k, v in head.items() if k != "__metadata__"
          for x in struct.unpack("<%df" % ((v["data_offsets"][1] - v["data_offsets"][0]) // 4),
                                 raw[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]])]
std = math.sqrt(sum(x * x for x in values) / len(values))
expected = 0.5 * math.sqrt(2)
print(len(values), std, expected)
assert 0.7 * expected < std < 1.5 * expected
PYTHON
ok "the published model has the noise of two rounds"
cohort-agent ledger --config "$work/agents.yaml" --agent site-01 >"$work/ledger.out"
grep -q 'everyone but the coordinators that add the noise' "$work/ledger.out" || die "the ledger does not say against whom: $(cat "$work/ledger.out")"
ok "$(grep "against everyone but" "$work/ledger.out" | head -n 1)"

# A tree of four rounds, one member a round: each site is in it once, and a second tree asks all of them again.
rounds=8 quorum=1 deadline=20s fill=5s job tree 1 'privacy: {unit: client, clip: 0.5, noise_multiplier: 4, delta: 0.00001, noise: central, tree: 4}'
sed -i 's/^round: {members: 1,/round: {attempts: 1000, members: 1,/' "$work/tree.yaml"
submit tree
again() { job_is tree paused && cohortctl job resume tree >/dev/null 2>&1; job_is tree done; }
wait_for 60 again || die "job tree is $(job_field state tree), $(job_field round tree) rounds published: $(cohortctl round explain tree)"
for site in site-01 site-02 site-03 site-04; do
    rounds_of=$(cohort-agent ledger --config "$work/agents.yaml" --agent $site --json | python3 -c '
import json, sys
print(*sorted(r["round"] for r in json.load(sys.stdin)["releases"] if r["job"] == "tree"))')
    set -- $rounds_of
    [ $# = 2 ] && [ "$1" -le 4 ] && [ "$2" -gt 4 ] || die "$site was in rounds $rounds_of of trees 1 to 4 and 5 to 8"
done
ok "each site was once in each tree of four rounds"
grep -q '510 participation' "$work/cohortd.log" && ok "$(grep '510 participation' "$work/cohortd.log" | head -n 1)"

# A clip that follows the updates: far below their norms it grows from round to round, and a site stops at the one it allows.
adaptive='privacy: {unit: client, clip: 0.01, noise_multiplier: 0.5, delta: 0.00001, noise: central, adaptive: {rate: 1, noise_multiplier: 0.36, min: 0.01, max: 1}}'
rounds=3 quorum=4 deadline=30s job adaptive 4 "$adaptive"
expect_run 0 'clip adaptive: 0.01 at first' cohortctl privacy plan "$work/adaptive.yaml"
submit adaptive
finishes adaptive
cohort-agent ledger --config "$work/agents.yaml" --agent site-02 --json | python3 -c '
import json, sys
clips = [r["clip"] for r in json.load(sys.stdin)["releases"] if r["job"] == "adaptive"]
assert len(clips) == 3 and clips[0] == 0.01 and clips[0] < clips[1] < clips[2], clips
print("clips", *clips)' || die "the clip does not grow"
ok "the clip grows with the updates beyond it"
stop "$agents"
sed -i 's/jobs: \["\*"\]/jobs: [{name: "*", max_clip: 0.012}]/' "$work/agents.yaml"
start_agents
rounds=2 quorum=4 deadline=2s fill=1s job bounded 4 "$adaptive"
submit bounded
expect_log cohortd 'site-0[1-4].*declines round 2 of bounded.*\[502 policy-noise\]'
expect_log agents 'job bounded clips at .*; this site requires at most 0.012'
