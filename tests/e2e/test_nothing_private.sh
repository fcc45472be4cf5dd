#!/bin/sh
# What only serves the site shapes no update: the same seeds with other test labels give the very same bytes.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin nothing-private
make_world 1
agents_config 1 1 '  jobs: ["*"]
  privacy: {unit: client, epsilon: 100000, delta: 1e-5}'
sed -i 's|test: 20|test_x: test.csv|' "$work/agents.yaml"
test_labels() { awk -F, -v OFS=, -v flip="$1" 'NR > 1 && flip { $5 = 1 - $5 } { print }' "$work/data.csv" >"$work/test.csv"; }

# run NAME STRATEGY: two rounds from nothing with the same seeds; $work/NAME.digests and $work/NAME.accuracy.
run() {
    new_world
    rounds=2 strategy=$2 train='train: {batch: 20, epochs: 2, lr: 0.05, serve: {epochs: 2, lr: 0.1}}' \
        job "$1" 1 'privacy: {unit: client, clip: 0.5, noise_multiplier: 1, delta: 0.00001}'
    submit "$1"
    cohort-agent prepare --config "$work/agents.yaml" --incarnation "$(job_field incarnation "$1")" --rounds 3 --seed 5 \
        >/dev/null 2>"$work/prepare.log" || die "prepare: $(cat "$work/prepare.log")"
    start_agents
    wait_for 15 job_is "$1" done || die "job $1 is $(job_field state "$1")"
    stop "$agents"
    cohort-agent ledger --config "$work/agents.yaml" --json | grep -o '"update": *"[0-9a-f]*"' >"$work/$1.digests"
    [ "$(wc -l <"$work/$1.digests")" = 2 ] || die "two releases expected: $(cohort-agent ledger --config "$work/agents.yaml" --json)"
    grep -o '"accuracy_received": *[0-9.]*' "$work/sites/site-01/report.jsonl" >"$work/$1.accuracy"
}
for strategy in fedavg fedrep hyperfl; do
    test_labels 0
    run "$strategy-a" $strategy
    test_labels 1
    run "$strategy-b" $strategy
    cmp -s "$work/$strategy-a.accuracy" "$work/$strategy-b.accuracy" && die "$strategy: the other labels changed nothing at home"
    cmp "$work/$strategy-a.digests" "$work/$strategy-b.digests" || die "$strategy: test labels reached an update"
    ok "$strategy: other test labels, other accuracy at home, the same two updates"
done

# The comparison is not blind: what training does read changes the update.
awk -F, -v OFS=, 'NR > 1 { $5 = 1 - $5 } { print }' "$work/data.csv" >"$work/flipped.csv" && mv "$work/flipped.csv" "$work/data.csv"
run fedavg-c fedavg
cmp -s "$work/fedavg-b.digests" "$work/fedavg-c.digests" && die "other training labels gave the same update"
ok "other training labels, another update"
