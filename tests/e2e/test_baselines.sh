#!/bin/sh
# Baselines by the real daemons. Two pairs of sites with opposite labels, which one model cannot serve: strategies that give a site a model of its
# own serve them all, and the report says which model was measured. Four sites with the same labels: strategies with one model learn it. What has
# state at the coordinator is killed there around a finish, and comes to the same bytes. What a privacy unit does not cover is refused.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin baselines
make_world 4
make_pairs
sites() { # opposite | alike
    agents_config 1 1
    sed -i '/^agents:/,$d; s/train_x: data.csv, //' "$work/agents.yaml"
    echo agents: >>"$work/agents.yaml"
    for k in 1 2 3 4; do
        [ "$1" = opposite ] && pair=$((k % 2)) || pair=0
        echo "  - {name: site-0$k, certificate: pki/site-0$k.crt, key: pki/site-0$k.key, data: {train_x: pair-$pair.csv}}" >>"$work/agents.yaml"
    done
}
plain='train: {batch: 20, epochs: 3, lr: 0.3}'
final_line() { grep '"final": *true' "$work/sites/site-0$1/report.jsonl" | grep "\"job\": *\"$2\"" | tail -n 1; }
field() { sed -n "s/.*\"$1\": *\"*\([0-9a-z.]*\).*/\1/p"; }
all_final() { [ "$(cat "$work"/sites/*/report.jsonl 2>/dev/null | grep '"final": *true' | grep -c "\"job\": *\"$1\"")" = 4 ]; }
# run NAME STRATEGY MEASURED LEAST MORE
run() {
    strategy=$2 rounds=${rounds:-8} train=${train:-$plain} job "$1" 4 "${5:-}"
    submit "$1"
    finishes "$1" 60 >/dev/null
    wait_for 30 all_final "$1" || die "not every site has the final model of $1"
    accuracies=''
    for k in 1 2 3 4; do
        final_line $k "$1" >"$work/line"
        [ "$(field measured <"$work/line")" = "$3" ] || die "$1 measured $(field measured <"$work/line"), not $3"
        accuracies="$accuracies $(field accuracy_received <"$work/line")"
    done
    awk "BEGIN { split(\"$accuracies\", a); exit !((a[1] + a[2] + a[3] + a[4]) / 4 >= $4) }" || die "$1: accuracies$accuracies"
    ok "$1: accuracy of what serves each site$accuracies"
}

sites opposite
start_agents
run ditto '{ditto: {epochs: 3}}' personal 0.9
run apfl apfl personal 0.9
run fedala '{fedala: {layers: 2}}' personal 0.9
run fedproto fedproto received 0.9
rounds=20 run pfedhn '{pfedhn: {lr: 2}}' received 0.9
shared=$(final_line 1 ditto | field accuracy_shared)
[ -n "$shared" ] || die "the report of ditto has no accuracy of the shared model"
cohort-agent model export --config "$work/agents.yaml" --agent site-01 --job ditto --safetensors "$work/own-1.safetensors" >/dev/null || die "export"
cohort-agent model export --config "$work/agents.yaml" --agent site-02 --job ditto --safetensors "$work/own-2.safetensors" >/dev/null || die "export"
cmp -s "$work/own-1.safetensors" "$work/own-2.safetensors" && die "opposite sites export one model"
cohortctl model show "$work/ditto.yaml" >"$work/show" 2>&1 || die "model show: $(cat "$work/show")"
grep -Eq 'personal.fc1.weight +private +serving' "$work/show" || die "model show: $(cat "$work/show")"
cohortctl model show "$work/fedala.yaml" >"$work/show" 2>&1 || die "model show: $(cat "$work/show")"
grep -Eq 'stays.fc2.weight +private +release' "$work/show" || die "model show: $(cat "$work/show")"
ok "sites export the model that serves them; model show says what feeds a release"
stop "$agents"

new_world
sites alike
start_agents
run scaffold scaffold received 0.9
run feddyn feddyn received 0.9
run feddbe '{feddbe: {kappa: 1}}' personal 0.9
stop "$agents"

example='privacy: {unit: example, clip: 1, noise_multiplier: 1, delta: 0.00001, sampling_rate: 0.2, examples: 80}'
for s in fedala feddbe fedproto; do
    strategy=$s train='train: {batch: 20, steps: 5, lr: 0.1}' job refused 4 "$example"
    expect_run 5 "strategy $s has no row in the table of releases for this unit" cohortctl job submit "$work/refused.yaml"
done
new_world
sites opposite
start_agents
train='train: {batch: 20, steps: 5, lr: 0.1}' strategy=fedavg job shown 4 "$example"
expect_run 0 '5 steps of Poisson batches: each example by chance 0.2, about 16 of 80' cohortctl model show "$work/shown.yaml"
train='train: {batch: 20, steps: 5, lr: 0.1}' run noised '{ditto: {epochs: 3}}' personal 0.9 "$example"
expect_run 0 'unit example; what each example gives clipped to 1; 5 noised sums: noise of standard deviation 1 added to each; norm 0\.[0-9]+ as released' \
    cohort-agent outbox show --agent site-01 --config "$work/agents.yaml"
epsilon=$(cat "$work/sites/site-01/report.jsonl" | grep '"final": *true' | field epsilon)
[ -n "$epsilon" ] || die "no epsilon"
ok "ditto with noised steps: the own model serves, epsilon $epsilon covers what left"
stop "$agents"

strings "$build/server/cohortd" 2>/dev/null | grep -q '^crash-point=round-finish-before' || {
    ok "no crash points in this build: kills are left out"
    exit 0
}
begin() { # the same intents in every run, so that the same bytes leave
    new_world
    sites opposite
    strategy=$1 rounds=3 train=$plain job killed 4
    submit killed
    cohort-agent prepare --config "$work/agents.yaml" --incarnation "$(job_field incarnation killed)" --rounds 10 --exchanges 1 --seed 5 \
        >/dev/null 2>"$work/prepare.log" || die "prepare: $(cat "$work/prepare.log")"
}
result() {
    finishes killed 60 >/dev/null
    for slot in $2; do
        cohortctl model export killed --slot $slot -o "$work/out.safetensors" >/dev/null || die "export"
        sed 's/"incarnation":"[^"]*"//g' "$work/out.safetensors" | cksum
    done >"$1"
    stop "$agents"
}
for s in feddyn scaffold pfedhn; do
    [ $s = pfedhn ] && slots='0 1 2 3 4' || slots=0
    begin $s
    start_agents
    result "$work/calm" "$slots"
    for point in round-finish-before:2 store-checkpoint-renamed:2 store-publish-after:2; do
        begin $s
        crash_at "$point"
        result "$work/again" "$slots"
        cmp -s "$work/calm" "$work/again" || die "$s, killed at $point: $(cat "$work/calm") became $(cat "$work/again")"
    done
    ok "$s, its coordinator killed around a finish: the same bytes"
done
