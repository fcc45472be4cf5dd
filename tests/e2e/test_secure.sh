#!/bin/sh
# Secure aggregation with real processes. The model is, byte for byte, that of the same job without it, of the same members, noise or
# not; what a site's own configuration demands of masks, noise and approval holds.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin secure
. "$(dirname "$0")/secure_world.sh"

# ---- without it, as the measure ----
for strategy in fedavg hyperfl; do
    bare_of five
done

# ---- with it, and nobody is killed ----
for strategy in fedavg hyperfl; do
    begin masked 2 "$secure"
    start_agents
    start_last
    finishes masked 30
    export_to masked "$strategy-masked"
    same_as "$strategy-five" "$strategy-masked"
    ok "$strategy: the same model as without secure aggregation"
    end_all
done
strategy=fedavg
cohort-agent outbox show --config "$work/last.yaml" >"$work/outbox.txt" || die "outbox"
for stage in advertise share mask sign unmask; do
    grep -q "exchange secagg-$stage" "$work/outbox.txt" || die "the outbox does not show $stage: $(cat "$work/outbox.txt")"
done
[ "$(grep -c 'tensors:' "$work/outbox.txt")" = 1 ] || die "tensors are in one of the five objects"
ok "$(grep 'under the masks' "$work/outbox.txt" | sed 's/^ *//')"

# ---- noise: each site's own is the same with masks and without; shared noise is a part, and only for sites that agree ----
noise='privacy: {unit: client, clip: 0.5, noise_multiplier: 1, delta: 1e-5'
adaptive='adaptive: {rate: 1, noise_multiplier: 0.75, min: 0.3, max: 0.6}' # and the clip that the bits under the masks lead to
rounds=2
begin bare 0 "$noise, $adaptive}"
start_agents
start_last
finishes bare 30 >/dev/null
export_to bare noised
end_all
begin masked 2 "$noise, $adaptive}
$secure"
start_agents
start_last
finishes masked 30 >/dev/null
export_to masked masked-noised
same_as noised masked-noised
end_all
ok "with each site's own noise: the same model and clip as without secure aggregation"
rounds=1
begin shared 2 "$noise, noise: distributed}
$secure"
for of in four last; do # from now on with a budget, and site-05 adds all of its noise itself
    where=$([ $of = four ] && echo ', noise: distributed')
    sed "s/^  jobs: .*/&\n  privacy: {unit: client, epsilon: 100, delta: 1e-5$where}/" "$work/$of.yaml" >"$work/budget-$of.yaml"
done
cp "$work/budget-four.yaml" "$work/agents.yaml"
cp "$work/last.yaml" "$work/bare-last.yaml"
cp "$work/budget-last.yaml" "$work/last.yaml"
start_last
start_agents
expect_log last 'declined: job shared shares the noise among its members; this site adds it itself .privacy.noise: distributed would'
finishes shared 30
expect_run 0 'unit client.*together with at most the part of the members' cohort-agent ledger --config "$work/agents.yaml" --agent site-01
expect_run 0 'no data .keys, shares and signatures of secure sums.: 4 releases' \
    cohort-agent ledger --config "$work/agents.yaml" --agent site-01
expect_run 0 'noise of standard deviation 0.2887 added here, .* sum of all, .* at least 3 honest members are noise of 0.5;' cohort-agent outbox --config "$work/agents.yaml" --agent site-01 # 0.5 / sqrt(3)
end_all

# ---- unit example: one step of each site, of which nobody sees less than the sum with all its noise ----
for of in four last; do
    sed -i 's/unit: client, epsilon: 100, delta: 1e-5[^}]*/unit: example, epsilon: 100, delta: 1e-5, noise: distributed/' "$work/budget-$of.yaml"
done
cp "$work/budget-four.yaml" "$work/agents.yaml"
cp "$work/budget-last.yaml" "$work/last.yaml"
train='train: {batch: 20, steps: 1, lr: 1}' begin step 2 "privacy: {unit: example, clip: 0.5, noise_multiplier: 3, delta: 1e-5, sampling_rate: 0.5, examples: 60, noise: distributed}
$secure"
start_last
start_agents
finishes step 30
expect_run 0 'epsilon 0.8833 of 100 .*unit example.*together with at most the part of the members' \
    cohort-agent ledger --config "$work/agents.yaml" --agent site-01 # of Poisson(0.5; Gauss(3)), whole
expect_run 0 'clipped to 0.5; the step made of their sum has norm [0-9.e-]+; noise of .* added here, which is this site.s part' \
    cohort-agent outbox --config "$work/agents.yaml" --agent site-01
expect_run 0 'exchange secagg-sign: not made of the data' cohort-agent outbox --config "$work/agents.yaml" --agent site-01
stop "$agents"
sed 's/, noise: distributed}/}/' "$work/agents.yaml" >"$work/trusts-nobody.yaml" # no epsilon of this release holds against the others
expect_run 0 '1 releases, 0 waiting; no epsilon .unit example' cohort-agent ledger --config "$work/trusts-nobody.yaml" --agent site-01
end_all
ok "unit example: a step under masks, its noise shared"
cp "$work/four.yaml" "$work/agents.yaml"
cp "$work/bare-last.yaml" "$work/last.yaml"

# ---- hold: approve asks for the masked update and for nothing else; a site may demand masks ----
sed "s/^  jobs: .*/  jobs: [{name: \"*\", masked: true}]\n  hold: approve/" "$work/four.yaml" >"$work/agents.yaml"
rounds=1 quorum=4 deadline=30s fill=100ms begin masked 2 "$secure"
start_agents
for site in 01 02 03 04; do
    expect_log agents "site-$site.*masked round 1: the update waits for outbox approve"
    cohort-agent outbox approve --config "$work/agents.yaml" --agent "site-$site" >/dev/null || die "approve"
done
finishes masked 40
job bare 4
submit bare
expect_log agents "declined: job bare asks for updates one by one; this site's leave only under secure_aggregation"
stop "$agents"
