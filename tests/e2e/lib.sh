# For end-to-end tests: to be sourced. Real programs, in a folder of their own, nothing left behind.
#
#   e2e_begin NAME [BUILD]    $work (in memory when there is /dev/shm) and the programs of $BUILD in PATH. BUILD: what it is by default;
#                             build-asan, and `build`, if it is there, for what spends its time on numbers that unit tests sanitize
#   make_pki N                $work/pki with a coordinator certificate and site-01 to site-N
#   coordinator_config [TEXT] $work/cohortd.yaml: one free port for the whole test, state in $work/state; TEXT is added
#   start_coordinator [VAR=VALUE...]    $coordinator; true once it answers, false when it died before
#   start_agents [VAR=VALUE...]         $agents; cohort-agent --config $work/agents.yaml
#   stop PID, kill_hard PID   SIGTERM or SIGKILL, and waits; the exit status in $status
#   reap PID                  of one that died: exit status in $status
#   wait_for SECONDS COMMAND...         until it is true; false when it never was. Nothing else here waits by the clock
#   job_field NAME JOB        of `cohortctl job show`
#   die TEXT                  ends the test as failed, with the last lines of the logs
#
# Environment: BUILD, E2E_KEEP=1 (leaves $work and says where it is).
set -u
e2e_root=$(cd "$(dirname "$0")/../.." && pwd)

e2e_begin() {
    build=$e2e_root/${2:-build-asan}
    [ -x "$build/server/cohortd" ] || build=$e2e_root/build-asan
    build=${BUILD:-$build}
    for program in server/cohortd server/ctl/cohortctl client/cohort-agent; do
        [ -x "$build/$program" ] || {
            echo "skipped: $build/$program is not built"
            exit 77
        }
    done
    PATH=$build/server:$build/server/ctl:$build/client:$PATH
    base=/dev/shm
    [ -w $base ] || base=${TMPDIR:-/tmp}
    work=$(mktemp -d "$base/cohort-$1.XXXXXX") || exit 1
    export COHORT_SOCKET="$work/cohortd.sock"
    coordinator='' agents='' port=''
    trap e2e_end EXIT
    trap 'exit 130' INT TERM
}

e2e_end() {
    e2e_status=$?
    trap - EXIT INT TERM
    for pid in $coordinator $agents; do
        kill -9 "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    if [ "${E2E_KEEP:-0}" = 1 ]; then echo "left: $work"; else rm -rf "$work"; fi
    exit $e2e_status
}

die() {
    exec >&2 # whatever the caller does with its output
    echo "FAILED: $*"
    for log in "$work"/*.log; do
        [ -e "$log" ] && echo "--- $log" && tail -n 15 "$log"
    done
    exit 1
}

wait_for() {
    until=$(($(date +%s) + $1)) e2e_pause=2
    shift
    while ! "$@"; do
        [ "$(date +%s)" -le $until ] || return 1
        sleep 0.0$e2e_pause # hundredths, more of them from time to time: whoever asks takes time from what is waited for
        [ $e2e_pause = 9 ] || e2e_pause=$((e2e_pause + 1))
    done
}

# A process that has died but was not waited for yet does not run.
runs() { grep -q '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status" 2>/dev/null; }
dead() { ! runs "$1"; }

reap() {
    wait "$1" 2>/dev/null
    status=$?
    [ "$1" != "$coordinator" ] || coordinator=''
    [ "$1" != "$agents" ] || agents=''
}

stop() {
    kill "$1" 2>/dev/null
    reap "$1"
}

kill_hard() {
    kill -9 "$1" 2>/dev/null
    reap "$1"
}

# Of 20000 to 29999, which the kernel does not hand out by itself. Nothing listens there, and no other test on this machine has chosen
# it: until this one ends, and all it started, descriptor 9 holds the lock of the number.
free_port() {
    port=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 10000))
    until take_port; do
        port=$((20000 + (port + 1) % 10000))
    done
}

take_port() {
    ! grep -qi ":$(printf '%04X' $port) " /proc/net/tcp /proc/net/tcp6 2>/dev/null || return 1
    e2e_locks=${TMPDIR:-/tmp}/cohort-test-ports
    [ -d "$e2e_locks" ] || mkdir -m 1777 "$e2e_locks" 2>/dev/null || [ -d "$e2e_locks" ] || die "no folder $e2e_locks"
    exec 9>"$e2e_locks/$port" && flock -n 9
}

make_pki() {
    cohortctl pki init "$work/pki" --name "Test authority" >/dev/null &&
        cohortctl pki issue "$work/pki" coordinator cohortd --dns localhost >/dev/null &&
        cohortctl pki issue "$work/pki" agent 'site-{nn}' --count "$1" >/dev/null || die "pki"
}

coordinator_config() {
    [ -n "$port" ] || free_port
    cat >"$work/cohortd.yaml" <<CONFIG
listen: {address: 127.0.0.1, port: $port}
state: state
socket: {path: cohortd.sock}
tls: {ca: pki/ca.crt, certificate: pki/cohortd.crt, key: pki/cohortd.key, crl: pki/ca.crl, order: chacha20}
log: {level: info, format: text}
${1:-}
CONFIG
}

coordinator_answers() { dead "$coordinator" || cohortctl --timeout 5s status >/dev/null 2>&1; }

start_coordinator() {
    env "$@" cohortd --config "$work/cohortd.yaml" 2>>"$work/cohortd.log" &
    coordinator=$!
    wait_for 30 coordinator_answers || die "the coordinator does not answer"
    runs "$coordinator"
}

start_agents() {
    env "$@" cohort-agent --config "$work/agents.yaml" 2>>"$work/agents.log" &
    agents=$!
}

job_field() {
    cohortctl --timeout 10s --json job show "$2" 2>/dev/null | sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p" | head -n 1
}
