#!/bin/sh
# FedCAC and FedAMP by the real daemons: two pairs of sites whose labels are opposite, which one model cannot serve. Each site is given a model of its own;
# one that stays away finds the model it left, a newcomer the mean of all. The coordinator is killed around each step of a round, and every
# site's model stays the same to the byte.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin fedcac
make_world 5
make_pairs
some_agents() { # NUMBER...: who is there
    agents_config 1 1
    sed -i '/^agents:/,$d; s/train_x: data.csv, //' "$work/agents.yaml"
    echo agents: >>"$work/agents.yaml"
    for k in "$@"; do
        echo "  - {name: site-0$k, certificate: pki/site-0$k.crt, key: pki/site-0$k.key, data: {train_x: pair-$((k / 3 % 2)).csv}}" >>"$work/agents.yaml"
    done
}
train='train: {batch: 20, epochs: 3, lr: 0.3}'
model_of() { cohortctl model export "$1" --agent "site-0$2" -o "$work/$3-$2.safetensors" >/dev/null || die "export of site-0$2"; }
export_all() { for k in 1 2 3 4; do model_of "$1" $k "$2"; done; }
final_accuracy() { # of a site, after so many final models
    sed -n 's/.*"final": *true.*"accuracy_received": *\([0-9.]*\).*/\1/p; s/.*"accuracy_received": *\([0-9.]*\).*"final": *true.*/\1/p' \
        "$work/sites/site-0$1/report.jsonl" | tail -n 1
}

# What it cannot be together with is refused when it is submitted.
strategy=fedcac job secret 4 'secure_aggregation: {}'
expect_run 78 'strategy fedcac compares and mixes the models of single agents' cohortctl job submit "$work/secret.yaml"
strategy=fedcac job ruled 4 'aggregate: {rule: median}'
expect_run 78 'there is no one mean that a rule could stand for' cohortctl job submit "$work/ruled.yaml"
strategy=fedcac job central 4 'privacy: {unit: client, clip: 0.5, noise_multiplier: 1, delta: 0.00001, noise: central}'
expect_run 5 'has no row in the table of releases' cohortctl job submit "$work/central.yaml"

# One model for all, and one for each.
some_agents 1 2 3 4
start_agents
for s in fedavg fedcac '{fedcac: {variant: published, beta: 4}}' '{fedamp: {sigma: 0.1}}'; do
    name=$(echo "$s" | tr -dc a-z | sed 's/fedcacvariantpublishedbeta/published/; s/sigma//')
    strategy=$s rounds=8 job "$name" 4
    submit "$name"
    finishes "$name" 60
    all_final() { [ "$(cat "$work"/sites/*/report.jsonl | grep -c '"final": *true')" = "$1" ]; }
    finals=$((${finals:-0} + 4))
    wait_for 30 all_final $finals || die "not every site has the final model of $name"
    accuracies=''
    for k in 1 2 3 4; do accuracies="$accuracies $(final_accuracy $k)"; done
    mean=$(echo $accuracies | awk '{ print ($1 + $2 + $3 + $4) / 4 }')
    case $name in
    fedavg) awk "BEGIN { exit !($mean < 0.75) }" || die "one model serves opposite sites: $mean" ;;
    *) awk "BEGIN { exit !($mean > 0.9) }" || die "$name does not serve each of them: $accuracies" ;;
    esac
    ok "$name: mean accuracy of what sites receive $mean ($accuracies)"
done
export_all fedcac end
for k in 2 3 4; do cmp -s "$work/end-1.safetensors" "$work/end-$k.safetensors" && die "site-01 and site-0$k have one model"; done
expect_run 0 'round 8 of fedcac' cohortctl model export fedcac --slot 0 -o "$work/end-0.safetensors"
expect_run 1 'slot 5: there are 5' cohortctl model export fedcac --slot 5 -o "$work/end-5.safetensors"
stop "$agents"

# Who stays away keeps the model; who was never there has the mean of all.
new_world
some_agents 1 2 3 4
start_agents
strategy=fedcac rounds=400 job away 4
submit away
one_round() { [ "$(job_field round away)" -ge 1 ]; }
wait_for 30 one_round || die "no round"
cohortctl job pause away --wait >/dev/null || die "job pause"
stop "$agents"
at=$(job_field round away)
cohortctl job set away round.quorum=3 >/dev/null && cohortctl job set away round.members=3 >/dev/null || die "job set"
cohortctl job set away "rounds=$((at + 3))" >/dev/null || die "job set rounds"
cohortctl job resume away >/dev/null || die "job resume"
export_all away before
cohortctl model export away --slot 0 -o "$work/before-0.safetensors" >/dev/null || die "export"
model_of away 5 newcomer
cmp "$work/newcomer-5.safetensors" "$work/before-0.safetensors" || die "a newcomer's model is not the mean of all"
some_agents 1 2 3
start_agents
finishes away 60
export_all away after
cmp "$work/before-4.safetensors" "$work/after-4.safetensors" || die "site-04 was away and has another model"
for k in 1 2 3; do cmp -s "$work/before-$k.safetensors" "$work/after-$k.safetensors" && die "site-0$k trained and kept its model"; done
ok "away from round $at: its model stayed, the others are trained on"
stop "$agents"

strings "$build/server/cohortd" 2>/dev/null | grep -q '^crash-point=round-finish-before' || {
    ok "no crash points in this build: kills are left out"
    exit 0
}
begin() { # the same intents in every run, so that the same bytes leave
    new_world
    some_agents 1 2 3 4
    strategy=fedcac rounds=3 job killed 4
    submit killed
    cohort-agent prepare --config "$work/agents.yaml" --incarnation "$(job_field incarnation killed)" --rounds 10 --exchanges 1 --seed 5 \
        >/dev/null 2>"$work/prepare.log" || die "prepare: $(cat "$work/prepare.log")"
}
begin
start_agents
finishes killed 60
export_all killed calm
stop "$agents"
for point in store-commit-after:6 store-close-before store-close-after:2 round-fold-after:6 round-finish-before:2 store-checkpoint-renamed:2 \
    store-publish-after:2; do
    begin
    crash_at "$point"
    finishes killed 60
    export_all killed again
    for k in 1 2 3 4; do cmp "$work/calm-$k.safetensors" "$work/again-$k.safetensors" || die "$point: another model for site-0$k"; done
    stop "$agents"
    ok "killed at $point: the same four models"
done
