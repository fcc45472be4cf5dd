#!/bin/sh
# Kills of the real programs at every named point of the hops, and at random moments; then a count of what was lost.
#
# A job runs on, round after round, with three sites, privacy and all members required. Coordinator and agents are killed at each
# crash point in turn (SIGKILL from inside, without a word), restarted, and must go on; then at random moments. With POWER, each
# kill may also be a power failure: the state folder is replaced by what a disk could hold. At the end:
#
#   acknowledged lost     updates that an agent's ledger calls acknowledged and the coordinator does not have: 0
#   budgets spent twice   rounds for which a ledger has more than one release, or one that differs from what the coordinator has: 0
#   and the final model has the same bytes as that of a run without any kill (intents prepared beforehand).
#
# One kill at each of the main boundaries, half of them with power failures; TESTS_LONG=1: five at every point and 200 at
# random, then all of it again with power failures. KILLS, RANDOM_KILLS, POWER="0 1" and POINTS="a b" (or all) set these apart. Needs
# a build with -Dcrash_points=true.
. "$(dirname "$0")/lib.sh"
e2e_begin kills
if [ "${TESTS_LONG:-0}" = 1 ]; then
    kills_wanted=${KILLS:-5} random_wanted=${RANDOM_KILLS:-200} power_runs=${POWER:-0 1} POINTS=${POINTS:-all}
else
    kills_wanted=${KILLS:-1} random_wanted=${RANDOM_KILLS:-6} power_runs=${POWER:-1}
    POINTS=${POINTS:-spool-seal-renamed store-commit-before store-commit-after round-ack-before store-close-after \
        store-checkpoint-renamed store-publish-before store-publish-after agent-intent-after agent-seal-bytes \
        agent-debit-before agent-debit-after agent-upload-sent}
fi
sites=3
prepared=1500
[ "${TESTS_LONG:-0}" = 1 ] && prepared=20000

points_of() { strings "$build/$1" | sed -n 's/^crash-point=//p' | sort -u; }
command -v strings >/dev/null || {
    echo "skipped: strings (binutils) is not here"
    exit 77
}
# These are passed once in a job's life: see at_submission and at_the_end below.
once='store-job-before store-job-after agent-final-reported'
# These only in rounds of several exchanges: test_exchanges.sh kills there.
elsewhere=$(for p in $(points_of server/cohortd); do case $p in *between* | *tune*) echo "$p" ;; esac; done | tr '\n' ' ')
wanted() { # POINT: is it to be killed at in the running job?
    case " $once $elsewhere " in *" $1 "*) return 1 ;; esac
    [ "$POINTS" = all ] && return 0
    case " $POINTS " in *" $1 "*) return 0 ;; *) return 1 ;; esac
}
coordinator_points=$(for p in $(points_of server/cohortd); do wanted "$p" && echo "$p"; done)
agent_points=$(for p in $(points_of client/cohort-agent); do wanted "$p" && echo "$p"; done)
[ -n "$(points_of server/cohortd)" ] || {
    echo "skipped: $build has no crash points (meson option crash_points)"
    exit 77
}

# ---- the world ----

make_world() {
    rm -rf "$work/state" "$work/sites" "$work/journals"
    mkdir -p "$work/state" "$work/sites" "$work/journals"
    coordinator_config
    cat >"$work/agents.yaml" <<CONFIG
state: sites
socket: {path: agent.sock}
coordinator: {host: localhost, port: $port, ca: pki/ca.crt, crl: pki/ca.crl, order: chacha20}
log: {level: warn, format: text}
backoff: {min: 20ms, max: 200ms}
patience: 5s
defaults:
  privacy: {unit: client, epsilon: 100000, delta: 1e-5}
  jobs: ["*"]
  data: {format: csv, train_x: data.csv, target: label, classes: 2, partition: all, test: 20}
agents:
  - {count: $sites, name: "site-{nn}", certificate: "pki/site-{nn}.crt", key: "pki/site-{nn}.key"}
CONFIG
    awk 'BEGIN { srand(7); print "a,b,c,d,label"
        for (i = 0; i < 100; i++) { y = i % 2; printf "%.4f,%.4f,%.4f,%.4f,%d\n", rand() + y, rand() - y, rand(), rand(), y } }' >"$work/data.csv"
    cat >"$work/job.yaml" <<JOB
name: kills
strategy: fedrep
rounds: 100000
seed: 3
model: {input: [4], classes: 2, head: 1, layers: [{linear: {out: 16}}, {leaky_relu: {}}, {linear: {out: 2}}]}
train: {batch: 20, epochs: 1, lr: 0.05, head: {epochs: 1}}
round: {members: $sites, quorum: $sites, deadline: 10m, fill: 10s, late_rounds: 1000}
grid: {bits: 16, step: -12}
privacy: {unit: client, clip: 0.5, noise_multiplier: 1, delta: 0.00001}
JOB
}

submit() { cohortctl job submit "$work/job.yaml" >/dev/null 2>"$work/submit.log"; }

prepare() {
    cohort-agent prepare --config "$work/agents.yaml" --incarnation "$(job_field incarnation kills)" --rounds $prepared --seed 11 \
        >/dev/null 2>"$work/prepare.log" || die "prepare: $(tail -n 1 "$work/prepare.log")"
}

round_now() {
    r=$(job_field round kills)
    echo "${r:-0}"
}
round_is_past() { dead "$coordinator" || [ "$(round_now)" -gt "$1" ]; }
job_is_done() { [ "$(job_field state kills)" = done ]; }

# ---- one life of a program, and its end ----

shim=$build/tests/lib/powerfail/libpowerfail.so
tool=$build/tests/lib/powerfail/powerfail
power=0

# The environment of a life: under the shim when power may fail.
life_of() { # coordinator|agents
    folder=state
    [ "$1" = agents ] && folder=sites
    if [ $power = 1 ]; then
        [ -e "$work/journals/$1" ] || "$tool" begin "$work/journals/$1" "$work/$folder" || die "journal"
        echo "LD_PRELOAD=$shim POWERFAIL_DIR=$work/$folder POWERFAIL_LOG=$work/journals/$1"
    fi
}

# After a kill: every other time the power failed too, and the folder is one that a disk could hold.
maybe_power_failure() { # coordinator|agents
    [ $power = 1 ] || return 0
    folder=state
    [ "$1" = agents ] && folder=sites
    "$tool" reconcile "$work/journals/$1" "$work/$folder" || die "reconcile"
    dice=$((dice + 1))
    case $((dice % 4)) in
    0) mode=drop ;;
    1) mode=subset ;;
    *) mode='' ;;
    esac
    if [ -n "$mode" ]; then
        power_failures=$((power_failures + 1))
        "$tool" rebuild "$work/journals/$1" "$work/rebuilt" $mode $dice || die "rebuild"
        chmod --reference="$work/$folder" "$work/rebuilt"
        rm -rf "${work:?}/$folder" "$work/journals/$1"
        mv "$work/rebuilt" "$work/$folder"
    fi
}

end_life() { # coordinator|agents
    pid=$coordinator
    [ "$1" = coordinator ] || pid=$agents
    [ -n "$pid" ] || return 0
    kill_hard "$pid"
    maybe_power_failure "$1"
}

# shellcheck disable=SC2046
begin_coordinator() { start_coordinator $(life_of coordinator) "${1:-X=}"; }
# shellcheck disable=SC2046
begin_agents() { start_agents $(life_of agents) "${1:-X=}"; }

goes_on() {
    [ -n "$coordinator" ] || begin_coordinator || die "the coordinator does not start"
    [ -n "$agents" ] || begin_agents
    before=$(round_now)
    wait_for 60 round_is_past "$before" && runs "$coordinator" && runs "$agents"
}

row() { printf '%-26s %6s %10s\n' "$1" "$2" "$3"; }

# One kill of the coordinator at a point: it is armed from its start. The count-th pass is the one.
kill_coordinator_at() {
    end_life coordinator
    begin_coordinator "COHORT_CRASH_AT=$1:$2"
    [ -n "$agents" ] || begin_agents
    wait_for 60 dead "$coordinator" || die "the coordinator did not come by $1:$2"
    reap "$coordinator"
    [ $status = 137 ] || die "the coordinator ended with $status at $1"
    maybe_power_failure coordinator
}

kill_agents_at() {
    end_life agents
    begin_agents "COHORT_CRASH_AT=$1:$2"
    wait_for 60 dead "$agents" || die "the agents did not come by $1:$2"
    reap "$agents"
    [ $status = 137 ] || die "the agents ended with $status at $1"
    maybe_power_failure agents
}

kill_at_points() { # coordinator|agents POINT...
    who=$1
    shift
    for point; do
        n=0 recovered=0
        while [ $n -lt $kills_wanted ]; do
            count=$((n % 3 + 1))
            case $point in store-open-*) count=1 ;; esac
            kill_"$who"_at "$point" $count
            n=$((n + 1))
            if goes_on; then
                recovered=$((recovered + 1))
            else
                die "nothing goes on after a kill at $point"
            fi
        done
        row "$point" $n $recovered
        total=$((total + n))
    done
}

# While rounds run: after a fraction of a second, one of the two.
kill_at_random() {
    n=0
    while [ $n -lt $random_wanted ]; do
        moment=$(od -An -N1 -tu1 /dev/urandom)
        goes_on || die "nothing goes on after random kill $n"
        sleep "0.$(printf '%03d' $moment)"
        if [ $((moment % 2)) = 0 ]; then
            end_life coordinator
        else
            end_life agents
        fi
        n=$((n + 1))
    done
    goes_on || die "nothing goes on after the last random kill"
    row "at random moments" $n $n
    total=$((total + n))
}

# A job is there whole or not at all; in the latter case it is submitted again.
at_submission() {
    n=0
    begin_coordinator || die "the coordinator does not start"
    cohortctl agent enrol "$work"/pki/site-*.crt >/dev/null || die "enrol"
    for point in store-job-before store-job-after; do
        [ "$POINTS" = all ] || continue
        n=0
        while [ $n -lt $kills_wanted ]; do
            end_life coordinator
            begin_coordinator COHORT_CRASH_AT=$point || die "the coordinator does not start"
            submit && die "a job was accepted by a coordinator that died at $point"
            wait_for 30 dead "$coordinator" || die "the coordinator did not come by $point"
            reap "$coordinator"
            maybe_power_failure coordinator
            begin_coordinator || die "the coordinator does not start"
            if [ $point = store-job-after ]; then
                [ "$(job_field state kills)" = running ] || die "a recorded job is gone"
                cohortctl job cancel kills --wait >/dev/null || die "cancel"
            else
                [ -z "$(job_field state kills)" ] || die "a job that was not recorded is there"
            fi
            n=$((n + 1))
        done
        row $point $n $n
        total=$((total + n))
    done
    submit || die "submit: $(cat "$work/submit.log")"
}

# The job ends ROUNDS rounds from now; the points of the end are passed by each agent once.
at_the_end() {
    last=$(($(round_now) + 3))
    cohortctl job set kills rounds=$last >/dev/null || die "job set"
    n=0
    end_life agents
    while [ "$POINTS" = all ] && [ $n -lt $sites ]; do
        begin_agents COHORT_CRASH_AT=agent-final-reported
        wait_for 60 dead "$agents" || break
        reap "$agents"
        maybe_power_failure agents
        n=$((n + 1))
    done
    [ -n "$agents" ] || begin_agents
    [ $n = 0 ] || row agent-final-reported $n $n
    total=$((total + n))
    wait_for 120 job_is_done || die "the job does not end"
    last=$(round_now)
}

# ---- counting ----

# Of all releases in all ledgers: SITE ROUND DIGEST ACKNOWLEDGED
ledgers() {
    for folder in "$work"/sites/site-*; do
        sqlite3 -separator ' ' "$folder/ledger.db" "SELECT '$(basename "$folder")', r.round, hex(r.update_digest),
            EXISTS (SELECT 1 FROM entry a WHERE a.kind = 4 AND a.incarnation = r.incarnation AND a.round = r.round)
            FROM entry r WHERE r.kind = 3" || die "a ledger cannot be read"
    done
}

count() {
    ledgers >"$work/ledgers"
    sqlite3 -separator ' ' "$work/state/cohortd.db" "SELECT a.name, u.round, hex(u.digest) FROM upload u JOIN agent a ON a.id = u.agent
        JOIN job j ON j.id = u.job WHERE j.state <> 4" >"$work/uploads" || die "the store cannot be read"
    awk -v rounds="$last" -v late=1000 '
        FNR == NR { has[$1 " " $2] = $3; next }
        { released[$1 " " $2]++; digest[$1 " " $2] = $3; if ($4) acknowledged[$1 " " $2] = 1 }
        END {
            for (k in acknowledged) { split(k, p, " "); n++
                if (p[2] > rounds - late && has[k] != digest[k]) lost++ }
            for (k in released) { if (released[k] > 1) twice++ }
            for (k in has) if (digest[k] != has[k]) other++
            printf "%d %d %d %d\n", n, lost, twice, other
        }' "$work/uploads" "$work/ledgers" >"$work/count"
    read -r acknowledged lost twice other <"$work/count"
    echo "$acknowledged updates acknowledged, $lost of them lost, $twice rounds paid for twice, $other that differ from what was paid for"
    [ "$acknowledged" -ge "$last" ] && [ "$lost" = 0 ] && [ "$twice" = 0 ] && [ "$other" = 0 ] || die "something was lost"
}

end_world() {
    stop "$agents"
    stop "$coordinator"
    [ $status = 0 ] || die "the coordinator ended with $status"
}

# ---- the test ----

make_pki $sites
for power in $power_runs; do
    dice=$(od -An -N2 -tu2 /dev/urandom) power_failures=0 total=0
    echo "== kills$([ $power = 0 ] || echo ', and half of them with a loss of power')"
    row "killed at" kills recovered
    make_world
    at_submission
    prepare
    begin_agents
    goes_on || die "the first round does not end"
    # shellcheck disable=SC2086
    kill_at_points coordinator $coordinator_points
    # shellcheck disable=SC2086
    kill_at_points agents $agent_points
    kill_at_random
    at_the_end
    model=$(job_field model kills)
    cohortctl model export kills -o "$work/killed.safetensors" >/dev/null || die "export"
    end_world
    [ "$last" -lt $prepared ] || die "$last rounds, but only $prepared intents were prepared"
    echo "$total kills in $last rounds$([ $power = 0 ] || echo ", $power_failures times with a loss of power")"
    count

    # The same without any kill.
    kept=$power power=0
    make_world
    sed -i "s/^rounds: .*/rounds: $last/" "$work/job.yaml"
    start_coordinator || die "the coordinator does not start"
    cohortctl agent enrol "$work"/pki/site-*.crt >/dev/null && submit || die "submit"
    prepare
    start_agents
    wait_for 3600 job_is_done || die "the run without kills does not end"
    cohortctl model export kills -o "$work/whole.safetensors" >/dev/null || die "export"
    [ "$(job_field model kills)" = "$model" ] || die "the final model is another one than without kills: $model"
    cmp "$work/killed.safetensors" "$work/whole.safetensors" || die "the exported models differ"
    end_world
    echo "the final model has the same bytes as without kills: $model"
    power=$kept
done
