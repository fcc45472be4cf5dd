#!/bin/sh
# The site decides: less privacy than it allows, a spent budget and a withdrawal are declined before training, and the operator
# sees the number and no more.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin privacy
make_world 3
# Site 1 has what these jobs need; site 2 insists on more noise; site 3 has a small budget.
agents_config 1 1
cat >>"$work/agents.yaml" <<'CONFIG'
    privacy: {unit: client, epsilon: 1000, delta: 1e-5}
  - {name: site-02, certificate: pki/site-02.crt, key: pki/site-02.key, jobs: [{name: "*", min_noise: 5}], privacy: {unit: client, epsilon: 1000, delta: 1e-5}}
  - {name: site-03, certificate: pki/site-03.crt, key: pki/site-03.key, privacy: {unit: client, epsilon: 10, delta: 1e-5}}
CONFIG
sed -i 's|^  - {first: 1, count: 1, name: "site-{nn}", certificate: "pki/site-{nn}.crt", key: "pki/site-{nn}.key"}|  - name: site-01\n    certificate: pki/site-01.crt\n    key: pki/site-01.key|' "$work/agents.yaml"
start_agents

noise='privacy: {unit: client, clip: 0.5, noise_multiplier: 1, delta: 0.00001}'
rounds=8 quorum=1 deadline=1s fill=2s job noisy 3 "$noise"
submit noisy
expect_log cohortd 'site-02.*declines round 1 of noisy.*\[502 policy-noise\]'
explained() { cohortctl --json round explain noisy | grep -q '"reason": *502'; }
wait_for 10 explained || die "round explain does not say 502: $(cohortctl --json round explain noisy)"
ok "round explain: $(cohortctl round explain noisy | grep -i 'site-02' | head -n 1)"
expect_log cohortd 'site-03.*declines round [0-9]+ of noisy.*\[500 budget-spent\]'
finishes noisy

ledger() { cohort-agent ledger --config "$work/agents.yaml" --agent "$1" --json; }
ledger site-03 >"$work/ledger.out"
for word in '"epsilon"' '"delta"' '"unit": *"client"' '"neighbours"' '"bound"'; do
    grep -Eq "$word" "$work/ledger.out" || die "the ledger's JSON has no $word: $(cat "$work/ledger.out")"
done
expect_run 0 'epsilon.*[0-9].*' cohort-agent ledger --config "$work/agents.yaml" --agent site-03
spent=$(sed -n 's/.*"epsilon": *\([0-9.]*\).*/\1/p' "$work/ledger.out" | sort -g | tail -n 1)
awk -v e="$spent" 'BEGIN { exit !(e > 0 && e <= 10) }' || die "epsilon $spent of a budget of 10"
ok "site-03 spent epsilon $spent of 10"
# Nobody trained what was declined: site 2 has no release at all.
grep -q '"event": *"round"' "$work/sites/site-02/report.jsonl" 2>/dev/null && die "site-02 trained"
ok "site-02 trained nothing"

# A job without noise has no epsilon: a site with a budget declines it.
rounds=1 quorum=1 deadline=1s fill=1s job open 3
submit open
expect_log cohortd 'site-01.*declines round 1 of open.*\[502 policy-noise\]'
cohortctl job cancel open >/dev/null

expect_run 0 '' cohort-agent withdraw --config "$work/agents.yaml" --agent site-01 --job later
rounds=1 quorum=1 deadline=1s fill=1s job later 1 "$noise"
submit later
expect_log cohortd 'site-01.*declines round 1 of later.*\[503 withdrawn\]'
expect_run 0 '' cohort-agent withdraw --config "$work/agents.yaml" --agent site-01 --job later --undo
job_is later paused && cohortctl job resume later >/dev/null
finishes later
