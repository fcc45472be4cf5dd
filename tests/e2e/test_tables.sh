#!/bin/sh
# Tables by the job's schema: sites name their columns as they like, what does not fit declines with its reason, and the others train.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin tables
make_world 5
awk 'BEGIN { srand(5); print "shop,age,job,since,buys"; n = split("nurse,clerk,baker", j, ",")
    for (i = 0; i < 400; i++) { y = i % 2; printf "%s,%d,%s,20%02d-%02d-%02d,%s\n", i % 4 < 2 ? "A" : "B", 20 + 30 * y + 10 * rand(),
        j[1 + int(n * rand())], i % 20, 1 + i % 12, 1 + i % 28, y ? "yes" : "no" } }' >"$work/table.csv"
sed '1s/age/years/' "$work/table.csv" | gzip >"$work/german.csv.gz"
{ head -n 200 "$work/table.csv"; echo 'B,30,pilot,2001-01-01,yes'; } >"$work/new.csv"
{ head -n 200 "$work/table.csv"; echo 'B,30,nurse,2001-01-01,'; } >"$work/blank.csv"
agents_config 1 1
sed -i '/first: 1/d' "$work/agents.yaml"
cat >>"$work/agents.yaml" <<'CONFIG'
  - {name: site-01, certificate: pki/site-01.crt, key: pki/site-01.key, data: {train_x: table.csv, partition: column, column: shop, client: A}}
  - {name: site-02, certificate: pki/site-02.crt, key: pki/site-02.key, data: {train_x: german.csv.gz, columns: {age: years}, memory: 1KiB, partition: column, column: shop, client: B}}
  - {name: site-03, certificate: pki/site-03.crt, key: pki/site-03.key, data: {train_x: new.csv}}
  - {name: site-04, certificate: pki/site-04.crt, key: pki/site-04.key, data: {train_x: blank.csv}}
  - {name: site-05, certificate: pki/site-05.crt, key: pki/site-05.key, data: {train_x: table.csv, partition: column, column: shop, client: C}}
CONFIG
cat >"$work/shop.yaml" <<'JOB'
name: shop
strategy: fedavg
rounds: 5
seed: 3
model: {input: [6], classes: 2, layers: [{linear: {out: 8}}, {leaky_relu: {}}, {linear: {out: 2}}]}
round: {members: 5, quorum: 2, deadline: 3s, fill: 2s}
train: {batch: 20, epochs: 5, lr: 0.1}
data:
  table:
    columns:
      - numeric: {name: age, min: 15, max: 65, mean: 40, std: 15}
      - category: {name: job, values: [nurse, clerk, baker], onehot: true}
      - datetime: {name: since, parts: [month], as: cyclic}
    target: {category: {name: buys, values: ['no', 'yes']}}
JOB
check() { expect_run "$1" "$2" cohort-agent check-data --config "$work/agents.yaml" --agent "$3" --job "$work/shop.yaml"; }
final() { cohort-agent report --config "$work/agents.yaml" --json | grep -c '"event":"final"' | grep -qx 2; }
check 0 'rows whose shop says A' site-01
check 0 '"job": "(nurse|clerk|baker)".*"target": "(yes|no)"' site-01
check 0 'kept: in a file without a name' site-02
check 1 'new.csv:201: column job: "pilot" is not in the job.s dictionary.*708' site-03
check 1 'blank.csv:201: column buys.*710' site-04
check 1 'no training examples.*704' site-05
sed 's/batch: 20/batch: 2000/' "$work/shop.yaml" >"$work/large.yaml"
expect_run 1 'a batch of 2000 of 180 training examples.*713' cohort-agent check-data --config "$work/agents.yaml" --agent site-01 --job "$work/large.yaml"
start_agents
submit shop
expect_log cohortd 'site-03.*declines round 1 of shop.*\[708 data-category\]'
expect_log cohortd 'site-04.*declines round 1 of shop.*\[710 data-target\]'
expect_log cohortd 'site-05.*declines round 1 of shop.*\[704 data-empty\]'
finishes shop
wait_for 10 final || die "no final report"
accuracy() { cohort-agent report --config "$work/agents.yaml" --agent "$1" --json | sed -n 's/.*"accuracy_received": *\([0-9.]*\).*/\1/p' | tail -n 1; }
for site in site-01 site-02; do
    got=$(accuracy $site)
    awk -v a="$got" 'BEGIN { exit !(a >= 0.9) }' || die "$site reaches $got; the table is easy"
    ok "$site: accuracy $got"
done
grep -Eq 'pilot|nurse' "$work/cohortd.log" && die "a word of the data is in the coordinator's log"
ok "no word of the data reaches the coordinator"

# Every number a program is given, computed a second time in another language.
stop "$agents"
cat >"$work/keep.sh" <<P
#!/bin/sh
cp train-x.npy train-y.npy $work; cp shared.safetensors shared-out.safetensors; echo '{}'
P
chmod +x "$work/keep.sh"
cat >"$work/twin.yaml" <<'JOB'
name: twin
strategy: fedavg
trainer: exec
rounds: 1
model: {input: [10], classes: 2, layers: [{linear: {out: 2}}]}
round: {members: 1}
train: {batch: 20, lr: 0.1}
data:
  table:
    columns:
      - numeric: {name: age, min: 25, max: 60, mean: 40, std: 15}
      - category: {name: job, values: [nurse, clerk], buckets: 3}
      - category: {name: shop, values: [A, B], onehot: true}
      - datetime: {name: since, parts: [month, weekday], as: cyclic}
      - datetime: {name: since2, parts: [yearday, year]}
    target: {category: {name: buys, values: ['no', 'yes']}}
JOB
agents_config 1 1
sed -i 's|^  data: .*|  data: {format: csv, train_x: table.csv, columns: {since2: since}}\n  trainer: {program: [./keep.sh]}|' "$work/agents.yaml"
start_agents
submit twin
finishes twin
twin=$(python3 "$e2e_root/tests/e2e/table_twin.py" "$work/train-x.npy" "$work/train-y.npy" "$work/table.csv") || die "the two encodings differ: $twin"
ok "Python encodes the same: $twin"
