# A small federation for end-to-end tests: to be sourced after lib.sh. A linear model on a hundred made-up examples, so that a
# round takes milliseconds.
#
#   make_world N [TEXT]       certificates, data, cohortd.yaml (TEXT added), the coordinator started, N sites enrolled
#   new_world                 the same with nothing in it: sites and coordinator begin anew (a coordinator remembers ledgers)
#   make_pairs                $work/pair-0.csv and pair-1.csv: the same features, opposite labels
#   agents_config FIRST COUNT [TEXT]    $work/agents.yaml; TEXT replaces the defaults "any job, no budget"
#   job NAME MEMBERS [TEXT]   $work/NAME.yaml: TEXT is added
#   submit NAME               submits it, prints nothing
#   logged FILE PATTERN       true when $work/FILE.log has a line with the extended regular expression
#   expect_log FILE PATTERN   waits for it, or fails; prints what was checked
#   expect_run CODE PATTERN COMMAND...  runs it: exit code and output (both streams) must be these
#   crash_at POINT [COMMAND]  the coordinator dies there with agents at work (COMMAND starts more of them), and is started again
#   finishes NAME             waits for the job to be done, or fails
#   ok TEXT                   prints what was checked
any_job='  jobs: ["*"]'

ok() { echo "ok: $*"; }

make_world() {
    make_pki "$1"
    coordinator_config "${2:-}"
    make_data
    start_coordinator || die "the coordinator does not start"
    cohortctl agent enrol "$work"/pki/site-*.crt >/dev/null || die "enrol"
}

new_world() {
    stop "$coordinator"
    rm -rf "$work/sites" "$work/state"
    start_coordinator || die "the coordinator does not start"
    cohortctl agent enrol "$work"/pki/site-*.crt >/dev/null || die "enrol"
}

make_data() {
    awk 'BEGIN { srand(7); print "a,b,c,d,label"
        for (i = 0; i < 100; i++) { y = i % 2; printf "%.4f,%.4f,%.4f,%.4f,%d\n", rand() + y, rand() - y, rand(), rand(), y } }' \
        >"$work/data.csv"
}

make_pairs() {
    for e2e_pair in 0 1; do
        awk -v flip=$e2e_pair 'BEGIN { srand(3 + flip); print "a,b,c,d,label"
            for (i = 0; i < 120; i++) { y = i % 2
                printf "%.4f,%.4f,%.4f,%.4f,%d\n", rand() + y, rand() - y, rand(), rand(), flip ? 1 - y : y } }' >"$work/pair-$e2e_pair.csv"
    done
}

agents_config() {
    cat >"$work/agents.yaml" <<CONFIG
state: sites
socket: {path: agent.sock}
coordinator: {host: localhost, port: $port, ca: pki/ca.crt, crl: pki/ca.crl, order: chacha20}
log: {level: info, format: text}
backoff: {min: 20ms, max: 200ms}
patience: 5s
drain: 1s
defaults:
  data: {format: csv, train_x: data.csv, target: label, classes: 2, partition: all, test: 20}
${3:-$any_job}
agents:
  - {first: $1, count: $2, name: "site-{nn}", certificate: "pki/site-{nn}.crt", key: "pki/site-{nn}.key"}
CONFIG
}

job() {
    cat >"$work/$1.yaml" <<JOB
name: $1
strategy: ${strategy:-fedrep}
rounds: ${rounds:-2}
seed: 3
model: {input: [4], classes: 2, head: 1, layers: [{linear: {out: ${width:-16}}}, {leaky_relu: {}}, {linear: {out: 2}}]}
round: {members: $2, quorum: ${quorum:-$2}, deadline: ${deadline:-60s}, fill: ${fill:-10s}}
grid: {bits: 16, step: -12}
${train:-train: {batch: 20, epochs: 1, lr: 0.05\}}
${3:-}
JOB
}

submit() { cohortctl job submit "$work/$1.yaml" >/dev/null 2>"$work/submit.log" || die "job submit $1: $(cat "$work/submit.log")"; }

job_is() { [ "$(job_field state "$1")" = "$2" ]; }
finishes() {
    wait_for "${2:-60}" job_is "$1" done || die "job $1 is $(job_field state "$1"), $(job_field round "$1") rounds published"
    ok "job $1: $(job_field round "$1") rounds published"
}

coordinator_died() { dead "$coordinator"; }
crash_at() {
    stop "$coordinator"
    e2e_point=$1
    shift
    start_coordinator "COHORT_CRASH_AT=$e2e_point" || die "no start"
    start_agents
    "$@"
    wait_for 30 coordinator_died || die "$e2e_point is never passed"
    reap "$coordinator"
    start_coordinator || die "no start after $e2e_point"
}

logged() { grep -Eq -- "$2" "$work/$1.log"; }
expect_log() {
    wait_for 30 logged "$1" "$2" || die "$1.log has no line like: $2"
    ok "$(grep -E -- "$2" "$work/$1.log" | tail -n 1)"
}

expect_run() {
    e2e_code=$1 e2e_pattern=$2
    shift 2
    e2e_output=$(timeout 60 "$@" 2>&1)
    e2e_got=$?
    [ $e2e_got = "$e2e_code" ] || die "exit $e2e_got instead of $e2e_code: $* : $e2e_output"
    printf '%s\n' "$e2e_output" | grep -Eq -- "$e2e_pattern" || die "no '$e2e_pattern' in the output of $*: $e2e_output"
    ok "$(printf '%s\n' "$e2e_output" | grep -E -- "$e2e_pattern" | head -n 1) (exit $e2e_got)"
}
