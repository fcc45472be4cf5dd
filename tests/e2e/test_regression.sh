#!/bin/sh
# Models that predict numbers, by the real programs: a table with a category through an embedding, and a transformer over windows of a
# series. What comes of them stands in the sites' reports.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin regression
make_world 2
# sales = 3 price + what the brand is worth + a little noise; the series is a wave with a period of 8 days.
for site in 1 2; do
    awk -v seed=$site 'BEGIN { srand(seed); print "price,brand,sales"; split("red green blue", name, " "); split("-2 0 5", worth, " ")
        for (i = 0; i < 400; i++) { b = int(rand() * 3) + 1; p = rand(); printf "%.4f,%s,%.4f\n", p, name[b], 3 * p + worth[b] + 0.1 * rand() } }' \
        >"$work/table-0$site.csv"
    awk -v seed=$site 'BEGIN { srand(seed); print "day,value"
        for (i = 0; i < 300; i++) printf "%d,%.4f\n", i, sin(6.283185 * i / 8 + seed) + 0.05 * rand() }' >"$work/series-0$site.csv"
done
sites() { # FILE TEST: two agents on FILE-01.csv and FILE-02.csv
    agents_config 1 2 '  jobs: ["*"]'
    sed -i "s|data: {.*|data: {format: csv, train_x: \"$1-{nn}.csv\"$2}|" "$work/agents.yaml"
    start_agents
}
of_job() { cat "$work"/sites/*/report.jsonl 2>/dev/null | grep "\"job\": *\"$1\"" | grep '"final": *true'; }
# r2 JOB: the least coefficient of determination of the final model at a site
r2() { of_job "$1" | sed -n 's/.*"r2_received": *\([-0-9.e]*\).*/\1/p' | sort -g | head -n 1; }
above() { [ "$(awk -v a="$1" -v b="$2" 'BEGIN { print (a != "" && a > b) }')" = 1 ]; }
finals() { [ "$(of_job "$1" | wc -l)" = 2 ]; }

cat >"$work/table.yaml" <<'JOB'
name: table
strategy: fedavg
rounds: 15
model:
  input: [2]
  targets: 1
  loss: {huber: {delta: 2}}
  layers: [{embedding: {width: 2, categories: [3]}}, {linear: {out: 16}}, {relu: {}}, {linear: {out: 1}}]
train: {batch: 20, epochs: 2, lr: 0.01, optimizer: adam, schedule: {kind: cosine, warmup: 1}}
round: {members: 2, deadline: 30s}
grid: {bits: 24, step: -18}
data:
  table:
    columns: [{numeric: {name: price, min: 0, max: 1}}, {category: {name: brand, values: [red, green, blue]}}]
    target: {numeric: {name: sales, min: -5, max: 10}}
JOB
sites table ', test: 100'
submit table
finishes table 60
wait_for 20 finals table || die "no final reports"
above "$(r2 table)" 0.9 || die "R2 $(r2 table)"
ok "a table with a category: R2 $(r2 table)"
cohort-agent report --config "$work/agents.yaml" | grep -qi 'r2' || die "the report says nothing of R2: $(cohort-agent report --config "$work/agents.yaml" | tail -n 3)"
ok "the report says it"
stop "$agents"

cat >"$work/series.yaml" <<'JOB'
name: series
strategy: fedavg
rounds: 12
model:
  input: [1, 8, 1]
  targets: 1
  loss: {pinball: {quantiles: [0.1, 0.5, 0.9]}}
  layers:
    - sequence: {}
    - linear: {out: 8}
    - positions: {}
    - transformer_encoder: {heads: 2, feed_forward: 16}
    - global_pool: {}
    - linear: {out: 3}
train: {batch: 16, epochs: 4, lr: 0.01, optimizer: adamw}
round: {members: 2, deadline: 60s}
grid: {bits: 24, step: -18}
data:
  table:
    columns: [{numeric: {name: value, min: -2, max: 2}}]
    target: {numeric: {name: value, min: -2, max: 2}}
    window: {steps: 8, ahead: 1, time: day, cut: 220, gap: 2, every: 1}
JOB
sites series ''
submit series
finishes series 120
wait_for 20 finals series || die "no final reports"
above "$(r2 series)" 0.8 || die "R2 $(r2 series)"
ok "a transformer over windows: R2 $(r2 series)"
JOB_TEXT=$(sed 's/targets: 1/classes: 2/; s/  loss: .*/  loss: cross_entropy/; s/linear: {out: 3}/linear: {out: 2}/; s/^name: .*/name: wrong/' "$work/series.yaml")
echo "$JOB_TEXT" >"$work/wrong.yaml"
expect_run 78 "the table's target is a number, the model predicts classes" cohortctl job submit "$work/wrong.yaml"
