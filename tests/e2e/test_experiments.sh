#!/bin/sh
# A table of experiments: stopped in the middle and started again it goes on where it was, no run is repeated or lost, and what was
# chosen was chosen by every method among as many settings.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin experiments
/usr/bin/python3 -c 'import yaml' 2>/dev/null || {
    echo "skipped: python3-yaml is not installed"
    exit 77
}
cat >"$work/small.yaml" <<'TABLE'
title: A small table
data: fashion-mnist
sites: 2
seeds: [1, 2]
reference: local
patience: 60
site:
  format: idx
  train_x: "{folder}/train-images-idx3-ubyte.gz"
  train_y: "{folder}/train-labels-idx1-ubyte.gz"
  test_x: "{folder}/test-images-idx3-ubyte.gz"
  test_y: "{folder}/test-labels-idx1-ubyte.gz"
  partition: dirichlet
  alpha: 0.5
  classes: 10
  train: 40
  test: 40
  validation: 10
choose: {keys: {train.lr: [0.02, 0.1]}, rounds: 1, site: {test_x: null, test_y: null, test: 20}}
job:
  rounds: 2
  model: {input: [1, 28, 28], classes: 10, head: 1, layers: [{flatten: {}}, {linear: {out: 8}}, {leaky_relu: {}}, {linear: {out: 10}}]}
  train: {batch: 20, epochs: 1}
methods:
  local: {strategy: local}
  fedavg: {strategy: fedavg}
TABLE
table() { exec timeout 120 /usr/bin/python3 "$e2e_root/tests/experiments/table.py" "$work/small.yaml" --data "$e2e_root/tests/data" --build "$build" --out "$work/out"; }
has_rows() { [ -e "$work/out/rows.csv" ] && [ "$(wc -l <"$work/out/rows.csv")" -gt 1 ]; }

(table) >"$work/table.log" 2>&1 &
first=$!
wait_for 60 has_rows || die "nothing was run"
kill "$first"
wait "$first" 2>/dev/null
(table) >"$work/table.log" 2>&1 || die "the table cannot go on"
[ "$(tail -n +2 "$work/out/rows.csv" | wc -l)" = 8 ] || die "2 methods, 2 seeds, 2 sites: $(cat "$work/out/rows.csv")"
[ "$(tail -n +2 "$work/out/rows.csv" | cut -d, -f1,2,4,5 | sort -u | wc -l)" = 8 ] || die "a run was repeated"
[ "$(tail -n +2 "$work/out/chosen.csv" | cut -d, -f2 | sort | uniq -c | awk '{ print $1 }' | sort -u)" = 2 ] || die "$(cat "$work/out/chosen.csv")"
grep -q '^| fedavg | train.lr: .* | received | 2 | ' "$work/out/summary.md" || die "$(cat "$work/out/summary.md")"
[ "$(tail -n +2 "$work/out/rows.csv" | awk -F, '{ print $14 != "" && $15 ~ /^(alone|as_is|head|full|mixed)$/ }' | sort -u)" = 1 ] || die "no choice of the sites"
grep -q 'with the guard' "$work/out/summary.md" || die "$(cat "$work/out/summary.md")"
ok "stopped and started again: 8 rows, each once; a summary"
(table) >"$work/again.log" 2>&1 || die "a table that is complete"
grep -q 'seed' "$work/again.log" && grep -q 'set apart' "$work/again.log" && die "a complete table ran something"
ok "a complete table runs nothing"

/usr/bin/python3 - "$e2e_root/tests/experiments" <<'CHECK' || die "Student's t"
import sys
sys.path.insert(0, sys.argv[1])
import summary
for df, known in ((3, 3.182), (4, 2.776), (9, 2.262), (19, 2.093), (100, 1.984)):  # 97.5 % points, any table of t
    assert abs(summary.t_quantile(0.975, df) - known) < 0.01, (df, summary.t_quantile(0.975, df))
assert summary.harmed([-3.0, -3.1, -2.9]) and not summary.harmed([-3.0, 3.0, -5.0]) and not summary.harmed([-0.5, -0.5, -0.5])
CHECK
ok "the intervals' quantiles are those of Student's t"
