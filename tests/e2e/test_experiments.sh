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
recommend: {candidates: [local, fedavg], rounds: 2}
methods:
  local: {strategy: local}
  fedavg: {strategy: fedavg}
  fedavg trained: {of: fedavg, score: trained}
TABLE
table() { exec timeout 120 /usr/bin/python3 "$e2e_root/tests/experiments/table.py" "$work/small.yaml" --data "$e2e_root/tests/data" --build "$build" --out "$work/out" "$@"; }
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
[ "$(tail -n +2 "$work/out/rows.csv" | awk -F, '{ print $14 != "" && $15 ~ /^(alone|as_is|head|parts|full|mixed)$/ }' | sort -u)" = 1 ] || die "no choice of the sites"
grep -q 'with the guard' "$work/out/summary.md" || die "$(cat "$work/out/summary.md")"
ok "stopped and started again: 8 rows, each once; a summary"
(table) >"$work/again.log" 2>&1 || die "a table that is complete"
grep -q 'seed' "$work/again.log" && grep -q 'set apart' "$work/again.log" && die "a complete table ran something"
ok "a complete table runs nothing"

grep -q '^| fedavg trained | train.lr: .* | trained | 2 | ' "$work/out/summary.md" || die "another model of the same runs: $(cat "$work/out/summary.md")"
(table --recommend --seeds 1) >"$work/again.log" 2>&1 || die "recommend: $(cat "$work/again.log")"
grep -qE '^\| all \| 1 \| (local|fedavg) \| .* \| [0-9.]+ \|$' "$work/out/summary.md" || die "no regret: $(cat "$work/out/summary.md")"
ok "what is recommended, and its regret by the table's own runs"

# A shift: the job pauses, site-01 goes on with 7 test examples in place of 40, so that its accuracy is in sevenths.
sed '/^choose\|^recommend\|validation/d; s/^  rounds: 2/  rounds: 150/; s/^job:/shift: {after: 1, sites: 1, site: {test: 7, seed: 1}}\njob:/; s/batch: 20/lr: 0.1, batch: 20/' \
    "$work/small.yaml" >"$work/shifted.yaml"
timeout 120 /usr/bin/python3 "$e2e_root/tests/experiments/table.py" "$work/shifted.yaml" --data "$e2e_root/tests/data" --build "$build" --out "$work/shifted" \
    --only fedavg --seeds 1 >"$work/shifted.log" 2>&1 || die "a shift: $(cat "$work/shifted.log")"
grep -qE 'shifted behind round [0-9]+$' "$work/shifted.log" || die "no shift: $(cat "$work/shifted.log")"
awk -F, '$5 == "site-01" { n = 1; a = $6 * 7 / 100; if (a - int(a + 0.5) > 0.01 || int(a + 0.5) - a > 0.01) exit 1 } END { exit !n }' "$work/shifted/rows.csv" ||
    die "site-01 judged by other examples than the seven: $(cat "$work/shifted/rows.csv")"
ok "in the middle of a job a site goes on with other data"

# What is exported is what the sites have: rows of the source's files, none twice; and what a job begins with.
(table --export "$work/export" --seeds 2) >"$work/export.log" 2>&1 || die "export: $(cat "$work/export.log")"
[ -e "$work/export/all/seed-2/fedavg/job.yaml" ] && [ -e "$work/export/all/seed-2/local/site-02/fc1.weight.npy" ] || die "$(find "$work/export")"
if /usr/bin/python3 -c 'import numpy' 2>/dev/null; then
    /usr/bin/python3 - "$e2e_root/tests" "$work/export/all/seed-2" <<'CHECK' || die "what was exported"
import sys
from collections import Counter
import numpy
sys.path.insert(0, sys.argv[1] + "/experiments")
import natural
source, to = sys.argv[1] + "/data/fashion-mnist/", sys.argv[2]
rows = lambda x, y: Counter((a.tobytes(), int(b)) for a, b in zip(x, y))
part = lambda site, p: rows(*(numpy.load("%s/data/site-%02d-%s-%s.npy" % (to, site, p, c)) for c in "xy"))
files = lambda p: [natural.read_idx(source + "%s-%s-ubyte.gz" % (p, c)) for c in ("images-idx3", "labels-idx1")]
for name, parts, sizes in (("train", ("train", "validation"), {"train": 30, "validation": 10}), ("test", ("test",), {"test": 40})):
    x, y = files(name)
    there = rows((x.reshape(len(x), 1, 28, 28) / numpy.float32(255)).astype(numpy.float32), y)
    held = Counter()
    for site in (1, 2):
        for p in parts:
            mine = part(site, p)
            assert sum(mine.values()) == sizes[p], (site, p, sum(mine.values()))
            held += mine
    assert sum(held.values()) == 2 * sum(sizes.values()) and not held - there, "a row that is not in the files, or more often than there"
w = numpy.load(to + "/fedavg/shared/fc1.weight.npy")
assert w.shape == (8, 784) and w.dtype == "<f4" and 0.95 / 28 < numpy.abs(w).max() <= 1 / 28, "the start of a linear layer"
own = [numpy.load(to + "/local/site-%02d/fc1.weight.npy" % site) for site in (1, 2)]
assert own[0].shape == w.shape and (own[0] != own[1]).any()
CHECK
    ok "exported: the sites' rows, none twice, and first weights"
else
    ok "exported files are there (skipped: python3-numpy is not installed)"
fi

/usr/bin/python3 - "$e2e_root/tests/experiments" <<'CHECK' || die "Student's t"
import sys
sys.path.insert(0, sys.argv[1])
import summary
for df, known in ((3, 3.182), (4, 2.776), (9, 2.262), (19, 2.093), (100, 1.984)):  # 97.5 % points, any table of t
    assert abs(summary.t_quantile(0.975, df) - known) < 0.01, (df, summary.t_quantile(0.975, df))
assert summary.harmed([-3.0, -3.1, -2.9]) and not summary.harmed([-3.0, 3.0, -5.0]) and not summary.harmed([-0.5, -0.5, -0.5])
CHECK
ok "the intervals' quantiles are those of Student's t"
