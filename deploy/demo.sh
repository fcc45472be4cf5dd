#!/bin/sh
# The main job, end to end, on real data: a coordinator and twenty small sites train personalised Fashion-MNIST classifiers over
# mutually authenticated TLS, alone, federated without noise, and federated under differential privacy. Ends with a table.
#
#   deploy/demo.sh [--agents N] [--rounds N] [--strategy hyperfl|fedrep|fedavg] [--data DIR] [--epsilon E]
#                  [--train N] [--json FILE] [--quick] [--keep]
#
#   --agents N     sites (default 20, at most 20 with the shipped images)
#   --rounds N     rounds of each job (default 30; the private run takes at most 10)
#   --strategy S   what the federation runs (default hyperfl)
#   --data DIR     IDX files named as in tests/data/fashion-mnist (default: those)
#   --epsilon E    of the private run: one example at a site, add or remove, delta 1e-5 (default 8)
#   --train N      training images a site (default 80)
#   --json FILE    the table once more, for programs
#   --quick        few sites and rounds, to see it run; the figures mean nothing
#   --keep         leave the work folder (certificates, state, logs, reports) and say where it is
#
# Installs what is missing (Debian 12), builds, runs, and leaves nothing running.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
agents=20 rounds=30 strategy=hyperfl data=$root/tests/data/fashion-mnist epsilon=8 train=80 json='' keep=0 quick=0
delta=1e-5 alone_rates='0.02 0.05 0.1' private_rounds=10 private_steps=1 private_rate=1
usage() {
    sed -n '2,18s/^# \{0,1\}//p' "$0"
}
wrong() {
    usage >&2
    exit 2
}
while [ $# -gt 0 ]; do
    case $1 in
    --agents) agents=$2; shift ;;
    --rounds) rounds=$2; shift ;;
    --strategy) strategy=$2; shift ;;
    --data) data=$2; shift ;;
    --epsilon) epsilon=$2; shift ;;
    --train) train=$2; shift ;;
    --json) json=$2; shift ;;
    --quick) quick=1 ;;
    --keep) keep=1 ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) wrong ;;
    esac
    shift
done
[ $quick = 0 ] || { agents=5; rounds=4; alone_rates=0.05; }
case $agents$rounds$train in *[!0-9]*) wrong ;; esac
data=$(cd "$data" && pwd)
[ "$private_rounds" -le "$rounds" ] || private_rounds=$rounds

say() { printf '\n== %s\n' "$*"; }
say "build"
"$root/deploy/install-packages.sh"
build=$root/build
[ -f "$build/build.ninja" ] || meson setup "$build" "$root" --buildtype=release >/dev/null
ninja -C "$build" server/cohortd server/ctl/cohortctl client/cohort-agent | tail -n 1
PATH=$build/server:$build/server/ctl:$build/client:$PATH

work=$(mktemp -d "${TMPDIR:-/tmp}/cohort-demo.XXXXXX")
coordinator='' sites=''
finish() {
    status=$?
    trap - EXIT INT TERM
    for pid in $sites $coordinator; do kill "$pid" 2>/dev/null || true; done
    for pid in $sites $coordinator; do wait "$pid" 2>/dev/null || true; done
    if [ $status != 0 ]; then
        echo "the demo failed; last lines of the logs:" >&2
        tail -n 15 "$work"/*.log >&2 2>/dev/null || true
        keep=1
    fi
    if [ $keep = 1 ]; then echo "work folder: $work"; else rm -rf "$work"; fi
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

say "certificates: one authority, one coordinator, $agents sites"
pki=$work/pki
cohortctl pki init "$pki" --name "Demo consortium" >/dev/null
cohortctl pki issue "$pki" coordinator cohortd --dns localhost >/dev/null
cohortctl pki issue "$pki" agent 'site-{nn}' --count "$agents" >/dev/null
# A coordinator remembers what each ledger released, and an identity with an emptier ledger is refused: so the private run, whose
# ledgers are new, has identities of its own.
cohortctl pki issue "$pki" agent 'private-{nn}' --count "$agents" >/dev/null

say "coordinator and sites"
cat >"$work/cohortd.yaml" <<EOF
listen: {address: 127.0.0.1, port: 0}
state: state
socket: {path: cohortd.sock}
tls: {ca: pki/ca.crt, certificate: pki/cohortd.crt, key: pki/cohortd.key, crl: pki/ca.crl}
log: {level: info, format: text}
EOF
export COHORT_SOCKET="$work/cohortd.sock"
cohortd --config "$work/cohortd.yaml" 2>"$work/cohortd.log" &
coordinator=$!
# until COMMAND...: repeats it for 30 s at most, and gives up at once when the coordinator died.
until_true() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        kill -0 $coordinator 2>/dev/null || return 1
        tries=$((tries + 1))
        [ $tries -lt 300 ] || return 1
        sleep 0.1
    done
}
until_true cohortctl status
port=$(cohortctl --json status | sed -n 's/.*"port": *\([0-9]*\).*/\1/p')
cohortctl agent enrol "$pki"/site-*.crt "$pki"/private-*.crt >/dev/null

# The sites' own rules: which jobs, and what their data may be spent on. Nobody else can change them.
# start_sites FOLDER CERTIFICATES JOBS: twenty agents in one process, with ledgers of their own in FOLDER.
start_sites() {
    cat >"$work/$1.yaml" <<EOF
state: $1
socket: {path: $1.sock}
coordinator: {host: localhost, port: $port, ca: pki/ca.crt, crl: pki/ca.crl}
log: {level: warn, format: text}
backoff: {min: 200ms, max: 5s}
defaults:
  data:
    format: idx
    train_x: $data/train-images-idx3-ubyte.gz
    train_y: $data/train-labels-idx1-ubyte.gz
    test_x: $data/test-images-idx3-ubyte.gz
    test_y: $data/test-labels-idx1-ubyte.gz
    partition: pathological
    disjoint: true
    of: $agents
    classes: 10
    train: $train
    test: 240
  jobs:
$3
agents:
  - count: $agents
    name: "site-{nn}"
    certificate: "pki/$2-{nn}.crt"
    key: "pki/$2-{nn}.key"
    data: {client: "{n}"}
EOF
    cohort-agent --config "$work/$1.yaml" 2>"$work/$1.log" &
    sites=$!
    until_true all_connected
}
all_connected() {
    [ "$(cohortctl --json status | sed -n 's/.*"agents_connected": *\([0-9]*\).*/\1/p')" = "$agents" ]
}
# Every site has judged the final model of every job, then they stop.
stop_sites() { # FOLDER NUMBER-OF-JOBS
    wanted=$(($2 * agents))
    until_true all_final "$1"
    kill $sites
    wait $sites
    sites=''
}
all_final() { [ "$(cat "$work/$1"/*/report.jsonl | grep -c '"final": *true')" -ge $wanted ]; }

# One description; the jobs differ in what `set:` says of it.
job() { # name strategy rounds extra-lines
    cat <<EOF
name: $1
strategy: $2
rounds: $3
seed: 520
model:
  input: [1, 28, 28]
  classes: 10
  head: 1
  layers:
    - conv2d: {out: 16, kernel: 5}
    - leaky_relu: {slope: 0.01}
    - max_pool: {size: 2}
    - conv2d: {out: 32, kernel: 5, padding: 1}
    - leaky_relu: {slope: 0.01}
    - max_pool: {size: 2}
    - flatten:
    - linear: {out: 128}
    - leaky_relu: {slope: 0.01}
    - linear: {out: 10}
data: {mean: [0.2860], std: [0.3530]}
hypernetwork: {kind: affine, embedding: 64, hidden: 3, scaled: true}
round: {members: $agents, quorum: $(((agents * 4 + 4) / 5)), deadline: 60s, fill: 10s}
grid: {bits: 16, step: -14}
$4
EOF
}

run_job() { # name strategy rounds extra-lines title
    say "$5"
    job "$1" "$2" "$3" "$4" >"$work/$1.yaml"
    cohortctl job submit "$work/$1.yaml" >/dev/null
    cohortctl watch "$1" --timeout 20m
}

say "the sites without a privacy budget: for comparison only"
start_sites open site "$(for rate in $alone_rates; do echo "    - {name: alone-$rate, unit: none}"; done)
    - {name: federated, unit: none}"
cohortctl status

# Alone: the same network, as many local steps, learning rates of which the best on the TEST images is taken: a choice in its favour.
for rate in $alone_rates; do
    run_job "alone-$rate" local "$rounds" \
        "train: {batch: 20, epochs: 6, lr: $rate, momentum: 0.5, weight_decay: 0.0005}" \
        "alone, learning rate $rate (nothing is uploaded; the coordinator only keeps time)"
done
run_job federated "$strategy" "$rounds" \
    "train: {batch: 20, epochs: 5, lr: 0.05, momentum: 0.5, clip: 2, weight_decay: 0.0005, head: {epochs: 1, lr: 0.1, momentum: 0.5, weight_decay: 0.0005}}" \
    "federated: $strategy, no noise"
stop_sites open $(($(echo "$alone_rates" | wc -w) + 1))

# A ledger that has released these images without noise can keep no epsilon for them, and refuses. So the private run has
# sites, and ledgers, of its own.
say "the same sites with a privacy budget of epsilon $epsilon"
start_sites sites private "    - {name: private, unit: example, epsilon: $epsilon, delta: $delta}"
run_job private "$strategy" "$private_rounds" \
    "train: {batch: 20, steps: $private_steps, lr: $private_rate, momentum: 0, weight_decay: 0}
privacy: {unit: example, clip: 1, epsilon: $epsilon, delta: $delta, sampling_rate: 1, examples: $train}" \
    "federated: $strategy, epsilon $epsilon for one example, add or remove, delta $delta"
stop_sites sites 1

# The sites report at home; here the sites are ours, so we may read it.
say "result"
for report in "$work"/open/*/report.jsonl "$work"/sites/*/report.jsonl; do
    site=$(basename "$(dirname "$report")")
    sed "s/^/$site	/" "$report"
done >"$work/reports.tsv"
cat >"$work/table.sql" <<EOF
CREATE TABLE lines(site TEXT, line TEXT);
.mode ascii
.separator "\t" "\n"
.import $work/reports.tsv lines
.mode list
CREATE TABLE final AS
    SELECT site, json_extract(line, '\$.job') job,
           100 * coalesce(json_extract(line, '\$.accuracy_received'), 0) accuracy
    FROM lines WHERE json_extract(line, '\$.final') GROUP BY 1, 2;
CREATE TABLE spent AS
    SELECT site, json_extract(line, '\$.job') job, sum(json_extract(line, '\$.cpu_s')) cpu, count(*) rounds,
           max(json_extract(line, '\$.epsilon')) epsilon, max(json_extract(line, '\$.update_bytes')) bytes,
           max(json_extract(line, '\$.bound')) bound
    FROM lines WHERE json_extract(line, '\$.event') = 'round' GROUP BY 1, 2;
-- the learning rate that serves "alone" best, on the mean over sites
CREATE TABLE best AS
    SELECT job FROM final WHERE job LIKE 'alone-%' GROUP BY job ORDER BY avg(accuracy) DESC LIMIT 1;
CREATE TABLE pairs AS
    SELECT a.site site, a.accuracy alone, f.accuracy federated, p.accuracy private
    FROM final a JOIN final f USING (site) JOIN final p USING (site)
    WHERE a.job = (SELECT job FROM best) AND f.job = 'federated' AND p.job = 'private';
CREATE TABLE mean AS
    SELECT count(*) n, avg(alone) alone, avg(federated) federated, avg(private) private,
           avg(federated - alone) gain, avg(private - alone) gain_private,
           -- Student's t at 97.5 %, to 0.01 from 5 degrees of freedom on: 1.96 + 2.37 / df + 2.8 / df^2
           (1.96 + 2.37 / (count(*) - 1) + 2.8 / ((count(*) - 1) * (count(*) - 1.0))) / sqrt(count(*)) t
    FROM pairs;
CREATE TABLE spread AS
    SELECT t * sqrt(sum((federated - alone - gain) * (federated - alone - gain)) / (n - 1)) half,
           t * sqrt(sum((private - alone - gain_private) * (private - alone - gain_private)) / (n - 1)) half_private
    FROM (SELECT p.site, p.alone, p.federated, p.private, m.gain, m.gain_private, m.n, m.t
          FROM pairs p, mean m);
EOF
sqlite3 :memory: ".read $work/table.sql" "
$([ $quick = 0 ] || echo "SELECT '--quick: it ran; the figures mean nothing';
SELECT '';")
SELECT 'test accuracy of each site''s own model, percent (240 test images a site, none shared between sites)';
SELECT '';
SELECT printf('%-10s %8s %10s %10s', 'site', 'alone', 'federated', 'private');
SELECT printf('%-10s %8.1f %10.1f %10.1f', site, alone, federated, private) FROM pairs;
SELECT printf('%-10s %8.2f %10.2f %10.2f', 'mean', alone, federated, private) FROM mean;
SELECT '';
SELECT printf('federated - alone: %+.2f points, 95 %% interval %+.2f to %+.2f over sites', gain, gain - half, gain + half) FROM mean, spread;
SELECT printf('private   - alone: %+.2f points, 95 %% interval %+.2f to %+.2f over sites', gain_private, gain_private - half_private, gain_private + half_private) FROM mean, spread;
SELECT printf('alone = the same network, $rounds rounds of 6 local epochs, learning rate %s: the best of \"$alone_rates\" on these test images', substr(job, 7)) FROM best;
SELECT printf('private: epsilon at most %.3f at any site, delta $delta, unit example (one example added or removed at a site), against a coordinator that sees every upload, accountant %s', max(epsilon), max(bound)) FROM spent WHERE job = 'private';
SELECT '  It covers what the job \"private\" released. The run \"federated\" on the same images has no noise and no epsilon: it is here to compare.';
SELECT printf('%s: %d bytes up a site and round, %.2f CPU seconds a site and round', job, max(bytes), avg(cpu / rounds)) FROM spent WHERE job IN ('federated', 'private') GROUP BY job;
"
if [ -n "$json" ]; then
    sqlite3 :memory: ".read $work/table.sql" "
    SELECT json_object('agents', n, 'rounds', $rounds, 'strategy', '$strategy', 'train_images', $train,
        'alone', alone, 'federated', federated, 'private', private,
        'gain', json_object('mean', gain, 'low', gain - half, 'high', gain + half),
        'gain_private', json_object('mean', gain_private, 'low', gain_private - half_private, 'high', gain_private + half_private),
        'epsilon', (SELECT max(epsilon) FROM spent WHERE job = 'private'), 'delta', $delta, 'unit', 'example',
        'neighbours', 'one example added or removed at one site', 'adversary', 'the coordinator, which sees every upload',
        'accountant', (SELECT max(bound) FROM spent WHERE job = 'private'),
        'bytes', (SELECT max(bytes) FROM spent WHERE job = 'federated'),
        'cpu_s', (SELECT avg(cpu / rounds) FROM spent WHERE job = 'federated'),
        'sites', (SELECT json_group_array(json_object('site', site, 'alone', alone, 'federated', federated, 'private', private)) FROM pairs))
    FROM mean, spread;" >"$json"
    echo "the table as JSON: $json"
fi
