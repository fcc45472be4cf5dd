#!/bin/sh
# Private values do not reach an update, and this test would see it if they did. Two agents that differ only in what is private take
# the same steps of what is released, with the same randomness; what each is about to send (the update's bytes and the offer's fields)
# must be the same, byte for byte. Then the same with an agent that leaks on purpose, one way after the other: each must be noticed.
#
# "The same released steps" although private tensors differ: the steps of the body are too small to change a bit of it (the noise does), the head trains, and in
# one of the two runs all its training labels are exchanged. For what only serves: the test labels are exchanged instead.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin leaks
tr '{' '\n' <"$build/meson-info/intro-buildoptions.json" | grep '"seeded_leaks"' | grep -q '"value": true' || {
    echo "skipped: $build has no -Dseeded_leaks=true"
    exit 77
}
make_world 1
agents_config 1 1 '  jobs: ["*"]
  privacy: {unit: client, epsilon: 100000, delta: 1e-5}'
sed -i 's|test: 20|test_x: test.csv|' "$work/agents.yaml"
cp "$work/data.csv" "$work/as-it-is.csv"

# labels FLIP: the label column as it is (0) or with 40 more zeros and the rest exchanged (1), so that counts differ too.
labels() { awk -F, -v OFS=, -v flip="$1" 'NR > 1 && flip { $5 = NR < 40 ? 0 : 1 - $5 } { print }' "$work/as-it-is.csv"; }

# about_to_send NAME STRATEGY TRAIN-LABELS TEST-LABELS [LEAK]: what stands in the outbox when the agent is killed before its first offer.
jobs=0
about_to_send() {
    jobs=$((jobs + 1))
    new_world
    labels "$3" >"$work/data.csv"
    labels "$4" >"$work/test.csv"
    rounds=1 strategy=$2 train='train: {batch: 20, epochs: 1, lr: 1e-30, head: {epochs: 3, lr: 0.2}, serve: {epochs: 2, lr: 0.1}}' \
        job "job-$jobs" 1 'privacy: {unit: client, clip: 0.5, noise_multiplier: 1, delta: 0.00001}'
    submit "job-$jobs"
    cohort-agent prepare --config "$work/agents.yaml" --incarnation "$(job_field incarnation "job-$jobs")" --rounds 1 --seed 5 \
        >/dev/null 2>"$work/prepare.log" || die "prepare: $(cat "$work/prepare.log")"
    start_agents COHORT_CRASH_AT=agent-offer-before ${5:+COHORT_SEEDED_LEAK=$5}
    wait_for 30 dead "$agents" || die "$1: the agent offered nothing"
    reap "$agents"
    cohortctl job cancel "job-$jobs" >/dev/null || die "job cancel"
    mkdir "$work/$1"
    for offer in "$work"/sites/site-01/outbox/*.offer; do
        [ -e "$offer" ] || die "$1: nothing waits in the outbox"
        # What an Offer carries; incarnation and job are new in each run. The report behind it stays at home.
        sed -n '/"report"/q; /"digest"\|"base"\|"size"\|"weight"\|"round"\|"exchange"/p' "$offer" >"$work/$1/offer"
        cp "${offer%.offer}" "$work/$1/update"
    done
    grep -q '"weight"' "$work/$1/offer" && [ -s "$work/$1/update" ] || die "$1: $(cat "$work/$1/offer")"
}
same() { cmp -s "$work/$1/offer" "$work/$2/offer" && cmp -s "$work/$1/update" "$work/$2/update"; }

for strategy in fedrep hyperfl; do
    about_to_send $strategy $strategy 0 0
    about_to_send $strategy-train $strategy 1 0
    about_to_send $strategy-test $strategy 0 1
    same $strategy $strategy-train || die "$strategy: the private head reached what is sent"
    same $strategy $strategy-test || die "$strategy: what only serves reached what is sent"
    ok "$strategy: other private tensors, other test labels: the same bytes"
done

# noticed LEAK STRATEGY TRAIN-LABELS TEST-LABELS
noticed() {
    about_to_send "$1-0" "$2" 0 0 "$1"
    about_to_send "$1-1" "$2" "$3" "$4" "$1"
    same "$1-0" "$1-1" && die "the leak '$1' was not noticed"
    ok "the leak '$1' is noticed"
}
noticed head fedrep 1 0
noticed label fedrep 1 0
noticed accuracy fedrep 0 1
about_to_send embedding-0 hyperfl 0 0 embedding
same hyperfl embedding-0 && die "the leak 'embedding' was not noticed"
ok "the leak 'embedding' is noticed"
