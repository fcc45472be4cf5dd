#!/bin/sh
# Domain adaptation with the real programs: a coordinator with examples of a target domain, its worker process, votes, the Group
# Effect, an aggregate that hurts and is not published; and a target that is a site, or none. The coordinator is killed around its
# worker, and nothing of the result changes; the worker dies with the round, with the coordinator, and when it takes too long.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin fedka
tune=$build/client/cohort-tune
[ -x "$tune" ] || {
    echo "skipped: $tune is not built"
    exit 77
}

# The limit is of addresses, and a sanitizer takes 16 TiB of them.
memory=1GiB
grep -q __asan_init "$tune" && memory=100TiB

# ---- refusals at submission ----

make_world 3
rounds=4 train='train: {batch: 20, epochs: 10, lr: 0.1}'
fedka() { # NAME SETTINGS [MORE]
    strategy="{fedka: {$2}}" job "$1" 3 "${3:-}"
}
fedka none ''
expect_run 78 'this one has no target data' cohortctl job submit "$work/none.yaml"

# A target whose columns c and d are elsewhere; FLIP gives it the other labels.
target_data() { # FILE COUNT SEED FLIP CLASSES
    awk -v n="$2" -v seed="$3" -v flip="$4" -v classes="$5" 'BEGIN { srand(seed); print "a,b,c,d,label"
        for (i = 0; i < n; i++) { y = i % 2; printf "%.4f,%.4f,%.4f,%.4f,%d\n", rand() + y, rand() - y, rand() + 0.5, rand() - 0.5,
            i < classes ? i : (flip ? 1 - y : y) } }' >"$work/$1"
}
target_data unlabelled.csv 200 11 0 2
target_data labelled.csv 100 12 0 2
target_data flipped.csv 100 12 1 0
target_data alien.csv 100 12 0 3
describe_target() { # LABELLED FILE
    printf 'format: csv\nexamples: unlabelled.csv\nlabelled: %s\ntarget: label\n' "$1" >"$work/target.yaml"
}
stop "$coordinator"
coordinator_config "target: {data: target.yaml, program: $tune, time: 30s, memory: $memory}"
describe_target alien.csv
start_coordinator || die "no start"
expect_run 78 'test example 2 has class 2, the model knows 0 to 1' cohortctl job submit "$work/none.yaml"
sed 's/input: \[4\]/input: [5]/' "$work/none.yaml" >"$work/wide.yaml"
expect_run 78 'the model takes 5x1x1' cohortctl job submit "$work/wide.yaml"
fedka secret '' 'secure_aggregation:'
expect_run 78 "single members' models" cohortctl job submit "$work/secret.yaml"
describe_target missing.csv
expect_run 78 'missing.csv' cohortctl job submit "$work/none.yaml"
describe_target labelled.csv
ls -d "$work"/state/tune-* 2>/dev/null && die "a worker's folder is left"
ok "nothing is left of refused submissions"

# ---- a round of all parts, and the same with kills ----

agents_config 1 3
begin() { # the same intents in every run, so that the same bytes leave
    new_world
    fedka adapt 'disentangle: 0.5, confidence: 0.6, epochs: 2'
    submit adapt
    cohort-agent prepare --config "$work/agents.yaml" --incarnation "$(job_field incarnation adapt)" --rounds 6 --exchanges 1 --seed 5 \
        >/dev/null 2>"$work/prepare.log" || die "prepare: $(cat "$work/prepare.log")"
}
begin
start_agents
finishes adapt 60
expect_run 0 'Group Effect [-+][0-9.]+ points .*of 100 labelled.*[0-9]+ of 200 votes agreed.*published: the aggregate' cohortctl job show adapt
for round in 1 2 3 4; do
    logged cohortd "round $round of 4 published: Group Effect" || die "round $round says nothing of the target"
done
ok "each round says its Group Effect"
accuracy=$(job_field note adapt | sed -n 's/.*(aggregate \([0-9]*\).*/\1/p')
[ "$accuracy" -ge 80 ] || die "the target's accuracy is $accuracy %"
ok "accuracy on the target: $accuracy %"
cohortctl model export adapt -o "$work/calm.safetensors" >/dev/null || die "export"
stop "$agents"
ls -d "$work"/state/tune-* 2>/dev/null && die "a worker's folder is left"

killed_at() { # POINT...: the coordinator dies there, a start goes on
    for point in "$@"; do
        begin
        crash_at "$point"
        finishes adapt 60
        cohortctl model export adapt -o "$work/killed.safetensors" >/dev/null || die "export"
        cmp "$work/calm.safetensors" "$work/killed.safetensors" || die "$point: another model"
        stop "$agents"
        ls -d "$work"/state/tune-* 2>/dev/null && die "a worker's folder is left"
        ok "killed at $point: the same model"
    done
}
if strings "$build/server/cohortd" 2>/dev/null | grep -q '^crash-point=round-tune-before'; then
    killed_at round-tune-before:2 round-tune-after:2 store-checkpoint-renamed:3
else
    ok "no crash points in this build: kills are left out"
fi

# ---- an aggregate that hurts ----

describe_target flipped.csv
new_world
fedka hurts 'voting: false'
submit hurts
initial=$(job_field model hurts)
start_agents
finishes hurts 60
[ "$(job_field model hurts)" = "$initial" ] || die "something was published"
expect_run 0 'published: the model before, since the aggregate hurts' cohortctl job show hurts
ok "the initial model is what all four rounds published"
fedka blind 'voting: false, guard: false'
submit blind
finishes blind 60
expect_run 0 'published: the aggregate \(kept so 0 times\)' cohortctl job show blind
stop "$agents"

# ---- the worker's limits ----

workers() { pgrep -f "$work/slow-tune" >/dev/null; }
no_workers() { ! workers; }
cat >"$work/slow-tune" <<'SCRIPT'
#!/bin/sh
case "$*" in *--check*) echo done; exit 0 ;; esac
sleep 300
SCRIPT
chmod +x "$work/slow-tune"
slow_world() { # TIME
    coordinator_config "target: {data: target.yaml, program: slow-tune, time: $1}"
    new_world
    fedka slow ''
    submit slow
    start_agents
    wait_for 30 workers || die "no worker"
}
slow_world 60s
cohortctl job cancel slow >/dev/null || die "cancel"
wait_for 10 no_workers || die "the worker goes on after its round"
ok "cancelled: the worker is gone"
stop "$agents"
slow_world 60s
kill_hard "$coordinator"
wait_for 10 no_workers || die "the worker goes on after the coordinator"
ok "the coordinator was killed: the worker is gone"
start_coordinator || die "no start"
wait_for 30 workers || die "the round is not computed again"
stop "$coordinator"
[ "$status" = 0 ] || die "a coordinator that stops exits with $status"
wait_for 10 no_workers || die "the worker goes on after the coordinator"
start_coordinator || die "no start"
[ "$(job_field state slow)" = running ] || die "the job is $(job_field state slow) after a stop"
ok "the coordinator was stopped and started: the worker was gone, the job runs"
stop "$agents"
slow_world 1s
paused() { [ "$(job_field state slow)" = paused ]; }
wait_for 20 paused || die "the job is $(job_field state slow)"
no_workers || die "the worker goes on after its time"
expect_log cohortd 'longer than 1 s'
stop "$agents"

# ---- images: the target's are mirrored and darker ----

images=$e2e_root/tests/data/fashion-mnist
python3 - "$images" "$work" <<'PY' || die "no images"
import gzip, struct, sys
source, to = sys.argv[1:]
x, y = (gzip.open("%s/test-%s-ubyte.gz" % (source, n)).read() for n in ("images-idx3", "labels-idx1"))
at = [x[16 + 784 * i:16 + 784 * (i + 1)] for i in range(600)]
mirrored = [bytes(one[28 * r + 27 - c] * 3 // 4 for r in range(28) for c in range(28)) for one in at]
def write(name, rows):
    open(to + "/" + name, "wb").write(struct.pack(">BBBBIII", 0, 0, 8, 3, len(rows), 28, 28) + b"".join(rows))
write("mirrored", mirrored[:400])
write("mirrored-labelled", mirrored[400:])
open(to + "/mirrored-labels", "wb").write(struct.pack(">BBBBI", 0, 0, 8, 1, 200) + y[8 + 400:8 + 600])
PY
printf 'format: idx\nexamples: mirrored\nlabelled: mirrored-labelled\nlabels: mirrored-labels\n' >"$work/mirrored.yaml"
coordinator_config "target: {data: mirrored.yaml, program: $tune, memory: $memory}"
agents_config 1 3
sed -i "s#data: {format: csv.*#data: {format: idx, train_x: $images/train-images-idx3-ubyte.gz, train_y: $images/train-labels-idx1-ubyte.gz, \
classes: 10, partition: dirichlet, of: 3, client: '{n}', alpha: 5, seed: 1, train: 200, test: 50}#" "$work/agents.yaml"
new_world
cat >"$work/images.yaml" <<JOB
name: images
strategy: {fedka: {disentangle: 0.1, confidence: 0.5}}
rounds: 6
model:
  input: [1, 28, 28]
  classes: 10
  head: 1
  layers: [{conv2d: {out: 8, kernel: 5}}, {leaky_relu: {}}, {max_pool: {size: 4}}, {flatten: {}}, {linear: {out: 32}}, {leaky_relu: {}}, {linear: {out: 10}}]
train: {batch: 20, epochs: 3, lr: 0.05, momentum: 0.5, clip: 5}
round: {members: 3, quorum: 3, deadline: 60s, fill: 10s}
JOB
submit images
start_agents
finishes images 120
for round in 1 2 3 4 5 6; do
    logged cohortd "images: round $round of 6 published: Group Effect .* of 200 labelled\); [0-9]+ of 400 votes agreed" ||
        die "round $round of images says nothing of the target"
done
ok "images: $(grep -Eo 'round 6 of 6 published: Group Effect .*' "$work/cohortd.log" | tail -n 1)"
stop "$agents"

# ---- a target that is a site, and none ----

coordinator_config
agents_config 1 3 '  jobs: ["*"]
  privacy: {unit: client, epsilon: 100000, delta: 1e-5}'
for target in 'target: none' 'target: site, site: site-02'; do
    new_world
    fedka sites "$target, frequencies: 25, noise_multiplier: 0.05" 'privacy: {unit: client, clip: 0.5, noise_multiplier: 1, delta: 0.00001}'
    submit sites
    start_agents
    finishes sites 60
    n=$(cohort-agent ledger --config "$work/agents.yaml" --agent site-01 --json | grep -o '"round":' | wc -l)
    [ "$n" = 8 ] || die "$target: site-01 has $n releases instead of 8"
    ok "$target: an embedding and an update of each round on the ledger"
    stop "$agents"
done
