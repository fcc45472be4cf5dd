#!/bin/sh
# Five sites that agree, and one with all labels turned round and inputs twenty times as large. A mean follows the loud one; robust rules do not, and
# gates put it into quarantine, which `agent explain` says. The coordinator is killed at many points, and nothing of the result changes.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin robust
make_world 6
for site in 1 2 3 4 5 6; do
    awk -v seed=$site 'BEGIN { srand(seed); print "a,b,c,d,label"; bad = seed == 6; by = bad ? 20 : 1
        for (i = 0; i < 200; i++) { a = 2 * rand() - 1; b = 2 * rand() - 1
            printf "%.4f,%.4f,%.4f,%.4f,%d\n", by * a, by * b, 2 * rand() - 1, 2 * rand() - 1, (a > b) != bad } }' >"$work/data-0$site.csv"
done
agents_config 1 6 '  jobs: ["*"]'
sed -i "s|data: {.*|data: {format: csv, train_x: \"data-{nn}.csv\", target: label, classes: 2, partition: all, test: 60}|" "$work/agents.yaml"
begin() { # NAME TEXT
    new_world
    strategy=fedavg rounds=8 quorum=6 train='train: {steps: 20, lr: 0.2}' job "$1" 6 "$2"
    submit "$1"
    cohort-agent prepare --config "$work/agents.yaml" --incarnation "$(job_field incarnation "$1")" --rounds 10 --exchanges 1 --seed 5 \
        >/dev/null 2>"$work/prepare.log" || die "prepare: $(cat "$work/prepare.log")"
}
of_job() { cat "$work"/sites/site-0[1-5]/report.jsonl 2>/dev/null | grep "\"job\": *\"$1\"" | grep '"final": *true'; }
finals() { [ "$(of_job "$1" | wc -l)" = 5 ]; }
# worst JOB: the least accuracy of the received model at a good site
worst() { of_job "$1" | sed -n 's/.*"accuracy_received": *\([-0-9.e]*\).*/\1/p' | sort -g | head -n 1; }
above() { [ "$(awk -v a="$1" -v b="$2" 'BEGIN { print (a != "" && a > b) }')" = 1 ]; }
run() {
    begin "$@"
    start_agents
    finishes "$1" 60
    ended() { finals "$job_run"; }
    job_run=$1
    wait_for 20 ended || die "no final reports of $1"
    stop "$agents"
}

run mean ''
mean=$(worst mean)
above "$mean" 0.9 && die "the mean stands the attack: $mean"
ok "a mean: $mean at the worst of the good sites"
for rule in 'rule: median' 'rule: multi_krum, byzantine: 1' 'rule: geometric_median' 'rule: centered_clipping, radius: 0.5' \
    'rule: trimmed_mean, byzantine: 1, before: nearest_neighbour_mixing'; do
    name=$(echo "$rule" | sed 's/rule: \([a-z_]*\).*/\1/')
    run "$name" "aggregate: {$rule}"
    above "$(worst "$name")" 0.93 || die "$name: $(worst "$name")"
    ok "$name: $(worst "$name")"
done

gates='aggregate: {rule: mean, gates: {norm: 3, distance: 3, cosine: 0}}'
run gates "$gates"
above "$(worst gates)" 0.93 || die "gates: $(worst gates)"
expect_run 0 'gates +8 +0 +quarantine \(round 8, score [01]\.[0-9]+\); norm .* > 3; distance .* > 3' cohortctl agent explain site-06
expect_run 0 'gates +8 +0 +trusted \(round 8, score 0\.[01]' cohortctl agent explain site-01
cohortctl model export gates -o "$work/gates.safetensors" >/dev/null || die "export"
ok "gates: $(worst gates), and $(cohortctl agent explain site-06 | tail -n 1)"

strings "$build/server/cohortd" 2>/dev/null | grep -q '^crash-point=store-publish-after' || {
    ok "no crash points in this build: kills are left out"
    exit 0
}
for point in store-close-after round-fold-after:4 round-finish-before store-checkpoint-renamed store-publish-after; do
    begin gates "$gates"
    crash_at "$point"
    finishes gates 60
    cohortctl model export gates -o "$work/killed.safetensors" >/dev/null || die "export"
    cmp "$work/gates.safetensors" "$work/killed.safetensors" || die "$point: another model"
    expect_run 0 'quarantine \(round 8' cohortctl agent explain site-06
    stop "$agents"
    ok "killed at $point: the same model"
done
