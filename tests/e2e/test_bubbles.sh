#!/bin/sh
# Two populations with the same inputs and opposite labels. The strategy pacfl finds them by noised descriptors, and each bubble's model beats the
# one for all; the coordinator is killed around the descriptors, and nothing of the result changes.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin bubbles
make_world 6 'retention: {keep_rounds: 2}'
for site in 1 2 3 4 5 6; do # odd sites: label by a > b; even ones: the other way round
    awk -v seed=$site 'BEGIN { srand(seed); print "a,b,c,d,label"
        for (i = 0; i < 200; i++) { a = 2 * rand() - 1; b = 2 * rand() - 1
            printf "%.4f,%.4f,%.4f,%.4f,%d\n", a, b, 2 * rand() - 1, 2 * rand() - 1, (a > b) == seed % 2 } }' >"$work/data-0$site.csv"
done
sites() {
    agents_config 1 6 '  jobs: ["*"]'
    sed -i "s|data: {.*|data: {format: csv, train_x: \"data-{nn}.csv\", target: label, classes: 2, partition: all, test: 60}|" "$work/agents.yaml"
}
sites
unit='privacy: {unit: example, clip: 1, noise_multiplier: 0.6, delta: 0.00001, sampling_rate: 0.15, examples: 140}'
privacy=$unit
describe() { # NAME STRATEGY TEXT
    strategy=$2 rounds=8 quorum=6 train='train: {steps: 20, lr: 0.5}' job "$1" 6 "$privacy
$3"
}
begin() {
    new_world
    describe "$1" "$2" "${3:-}"
    submit "$1"
    cohort-agent prepare --config "$work/agents.yaml" --incarnation "$(job_field incarnation "$1")" --rounds 10 --exchanges 2 --seed 5 \
        >/dev/null 2>"$work/prepare.log" || die "prepare: $(cat "$work/prepare.log")"
}
of_job() { cat "$work"/sites/*/report.jsonl 2>/dev/null | grep "\"job\": *\"$1\"" | grep '"final": *true'; }
finals() { [ "$(of_job "$1" | wc -l)" = 6 ]; }
# worst JOB: the least accuracy of the received model at a site
worst() { of_job "$1" | sed -n 's/.*"accuracy_received": *\([-0-9.e]*\).*/\1/p' | sort -g | head -n 1; }
above() { [ "$(awk -v a="$1" -v b="$2" 'BEGIN { print (a != "" && a > b) }')" = 1 ]; }

begin all fedavg
start_agents
finishes all 60
wait_for 20 finals all || die "no final reports of all"
stop "$agents"
global=$(worst all)
ok "one model for all: $global at the worst site"

pacfl='{pacfl: {most: 4}}' descriptor='descriptor: {noise_multiplier: 1, every: 4}'
begin apart "$pacfl" "$descriptor"
start_agents
finishes apart 60
wait_for 20 finals apart || die "no final reports of apart"
stop "$agents"
above "$(worst apart)" 0.9 || die "accuracy $(worst apart) in bubbles"
above "$global" 0.8 && die "the model for all is as good: $global"
ok "two bubbles: $(worst apart) at the worst site"
[ "$(job_field slots apart)" = 2 ] || die "$(job_field slots apart) slots"
for site in 01 02 03 04 05 06; do # 8 updates, and descriptors in rounds 1 and 5
    n=$(cohort-agent ledger --config "$work/agents.yaml" --agent "site-$site" --json | grep -o '"round":' | wc -l)
    [ "$n" = 10 ] || die "site-$site has $n releases instead of 10"
    cohortctl model export apart --agent "site-$site" -o "$work/site-$site.safetensors" >/dev/null || die "export"
done
cmp -s "$work/site-01.safetensors" "$work/site-03.safetensors" && cmp -s "$work/site-01.safetensors" "$work/site-05.safetensors" || die "odd sites are apart"
cmp -s "$work/site-02.safetensors" "$work/site-04.safetensors" && cmp -s "$work/site-02.safetensors" "$work/site-06.safetensors" || die "even sites are apart"
cmp -s "$work/site-01.safetensors" "$work/site-02.safetensors" && die "odd and even sites are together"
expect_run 0 'site-03 +[01] +described in round 5: .* from the middle of its bubble' cohortctl job bubbles apart
[ "$(cohortctl --json job bubbles apart | grep -c '"slot": *0')" = 3 ] || die "bubbles: $(cohortctl --json job bubbles apart)"
ok "sites 1, 3, 5 and 2, 4, 6; 10 releases on each ledger"

# By other means, without a unit: the model that a site picks, the updates themselves.
privacy=''
for other in '{ifca: {bubbles: 2}}' '{cfl: {after: 2, still: 0.6}}' '{flhc: {after: 2}}' '{fesem: {bubbles: 2}}' \
    '{pacfl: {body: shared}}' '{pacfl: {model: hyperfl}}'; do
    name=$(echo "$other" | tr -cd 'a-z')
    begin "$name" "$other"
    start_agents
    finishes "$name" 60
    finals_of() { finals "$name"; }
    wait_for 20 finals_of || die "no final reports of $name"
    stop "$agents"
    cohortctl job bubbles "$name" >"$work/bubbles.log"
    above "$(worst "$name")" 0.9 || die "accuracy $(worst "$name") under $name"
    ok "$name: $(worst "$name") at the worst site"
done

# As published: importances of trees, with no claim. Both populations have the same ones, so this need not find them; whoever is alone is said to be.
if ! ldd "$build/client/cohort-agent" | grep -q xgboost; then
    ok "no XGBoost in this build: the published descriptor is left out"
else
    begin published '{pacfl: {variant: published, rows: 3}}'
    start_agents
    finishes published 60
    finals_of() { finals published; }
    wait_for 20 finals_of || die "no final reports of published"
    stop "$agents"
    cohortctl job bubbles published >"$work/bubbles.log"
    [ "$(grep -c 'described in round 1' "$work/bubbles.log")" = 6 ] || die "not all are described: $(cat "$work/bubbles.log")"
    slots=$(job_field slots published)
    [ "$slots" -ge 2 ] && [ "$slots" -le 5 ] || die "$slots bubbles, as published"
    for slot in 0 1 2 3 4; do
        alone=$(grep -E "^site-0[1-6] +$slot " "$work/bubbles.log" | wc -l)
        said=$(grep -E "^site-0[1-6] +$slot .*alone there" "$work/bubbles.log" | wc -l)
        [ "$said" = "$([ "$alone" = 1 ] && echo 1 || echo 0)" ] || die "$alone in bubble $slot, $said said to be alone: $(cat "$work/bubbles.log")"
    done
    ok "published: $slots bubbles by the importances of trees"
fi

# ---- under secure sums: one for each bubble, and with a common body one of all for it ----
# sums NAME STRATEGY EXCHANGES [TEXT]: of two rounds; each site gets the same seed for its update, which is one of these
sums() {
    new_world
    strategy=$2 rounds=2 quorum=${quorum:-6} deadline=${deadline:-60s} train='train: {steps: 20, lr: 0.5}' job "$1" 6 "${4:-}"
    submit "$1"
    for exchange in 0 $3; do
        cohort-agent prepare --config "$work/agents.yaml" --incarnation "$(job_field incarnation "$1")" --rounds 2 --exchange "$exchange" \
            --seed 5 >/dev/null 2>"$work/prepare.log" || die "prepare: $(cat "$work/prepare.log")"
    done
}
models() {
    finishes "$1" 60 >/dev/null
    for site in 01 02; do cohortctl model export "$1" --agent "site-$site" -o "$work/$1-$site.safetensors" >/dev/null || die "export"; done
    stop "$agents"
}
secure='secure_aggregation: {corrupt: 0, dropout: 0, survivors: 3}'
for with in '{pacfl: {most: 4}}' '{pacfl: {body: shared}}' '{ifca: {bubbles: 2}}'; do
    sums bare "$with" 1
    start_agents
    models bare
    sums masked "$with" '2 3' "$secure" # round 2 has no descriptors before them
    start_agents
    models masked
    for site in 01 02; do cmp "$work/bare-$site.safetensors" "$work/masked-$site.safetensors" || die "$with: another model under secure sums"; done
    cmp -s "$work/masked-01.safetensors" "$work/masked-02.safetensors" && die "$with: one model for both"
    ok "$with: the same models as without secure aggregation"
done
expect_log cohortd 'masked: round 2: 2 secure sums of 3 to 3 members; 0 given up'
sums buckets fedavg 2 "aggregate: {rule: median, before: bucketing, bucket: 3}
$secure"
start_agents
finishes buckets 60
expect_log cohortd 'buckets: round 2: 2 secure sums of 3 to 3 members; 0 given up'
stop "$agents"

privacy=$unit
strings "$build/server/cohortd" 2>/dev/null | grep -q '^crash-point=round-between-after' || {
    ok "no crash points in this build: kills are left out"
    exit 0
}
for point in store-close-after round-fold-after:2 round-finish-before round-between-after store-checkpoint-renamed store-publish-after; do
    begin apart "$pacfl" "$descriptor"
    crash_at "$point"
    finishes apart 60
    for site in 01 02; do
        cohortctl model export apart --agent "site-$site" -o "$work/killed.safetensors" >/dev/null || die "export"
        cmp "$work/site-$site.safetensors" "$work/killed.safetensors" || die "$point: another model of site-$site"
    done
    stop "$agents"
    ok "killed at $point: the same models"
done
privacy=''

# Under secure sums the coordinator is killed behind the making of groups, and behind the last masked vector; and an auditor makes the same.
for point in round-between-after:2 round-fold-after:24; do
    sums masked '{ifca: {bubbles: 2}}' 3 "$secure"
    crash_at "$point"
    models masked
    for site in 01 02; do cmp "$work/bare-$site.safetensors" "$work/masked-$site.safetensors" || die "$point: another model of site-$site"; done
    ok "secure sums, killed at $point: the same models"
done
cohortctl --json audit replay masked 2 >"$work/replay" 2>&1 || die "replay: $(cat "$work/replay")"
grep -q '"same": *true' "$work/replay" || die "replay: $(cat "$work/replay")"

# Site 6 leaves that of its bubble, which is given up; the body and the other bubble go on.
cp "$work/agents.yaml" "$work/all.yaml"
sed 's/agent.sock/last.sock/; s/^state: sites/state: last/; s/first: 1, count: 6/first: 6, count: 1/' "$work/all.yaml" >"$work/last.yaml"
sed -i 's/count: 6/count: 5/' "$work/agents.yaml"
quorum=5 deadline=3s sums left '{pacfl: {body: shared}}' 3 "$secure"
start_agents
COHORT_CRASH_AT=agent-train-after:4 cohort-agent --config "$work/last.yaml" 2>>"$work/last.log" &
last=$!
finishes left 60
reap "$last"
expect_log cohortd 'left: round 1: 1 secure sums of 3 to 3 members; 1 given up; 0 members in none'
stop "$agents"
mv "$work/all.yaml" "$work/agents.yaml"
