#!/bin/sh
# Secure aggregation whose agents are killed in each of the five stages, and whose coordinator at every step of them: the model is, byte
# for byte, that of the same job without masks, of those who came through. A round that too many left is given up.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin secure-kills
. "$(dirname "$0")/secure_world.sh"

strings "$build/server/cohortd" 2>/dev/null | grep -q '^crash-point=round-between-after' || {
    echo "skipped: no crash points in this build"
    exit 77
}
bare_of five
bare_of four
! cmp -s "$work/fedavg-five.safetensors" "$work/fedavg-four.safetensors" || die "the fifth site changes nothing"

# ---- an agent is killed in each stage, at each point of a stage once; --long: at each of both ----
last_died() { dead "$last"; }
# killed POINT STAGE EXPECTED BACK: site-05 dies at the STAGE-th passing of POINT; BACK: it is started again at once
killed() {
    # Whoever is late for good costs a deadline; where all five arrive, none must pass.
    deadline=$([ "$3" = five ] && echo 60s || echo 4s)
    begin masked 2 "$secure"
    deadline=''
    start_agents
    start_last "COHORT_CRASH_AT=$1:$2"
    wait_for 20 last_died || die "$1:$2 is never passed"
    reap "$last"
    last=''
    [ "$4" = no ] || start_last
    finishes masked 40 >/dev/null
    export_to masked killed
    same_as "fedavg-$3" killed
    ok "site-05 killed at $1 of stage $2, $([ "$4" = no ] && echo 'and stays away' || echo 'and comes back'): the sum is of $3"
    end_all
}
if [ "${TESTS_LONG:-0}" = 0 ]; then # staying away costs a deadline each time
    killed agent-train-after 3 four no
    killed agent-seal-before 1 five yes
    killed agent-upload-sent 2 four yes
    killed agent-debit-after 3 five yes
    killed agent-seal-before 4 five yes
    killed agent-debit-after 5 five yes
    backs=''
else
    backs='no yes'
fi
for back in $backs; do
    killed agent-seal-before 1 "$([ $back = no ] && echo four || echo five)" $back # nothing has left: new keys are as good
    killed agent-debit-after 1 four $back
    killed agent-seal-before 2 four $back
    killed agent-upload-sent 2 four $back
    killed agent-train-after 3 four $back
    killed agent-debit-after 3 "$([ $back = no ] && echo four || echo five)" $back # its masked vector is in the outbox
    killed agent-seal-before 4 five $back
    killed agent-upload-sent 4 five $back
    killed agent-seal-before 5 five $back
    killed agent-debit-after 5 five $back
done

# ---- the coordinator is killed: at each step of a stage once; --long: at every step of every stage ----
points='store-close-after:1 round-between-after:2 round-fold-after:18 round-finish-before:5' # in stages 1, 2, 4 and 5; below in 3
[ "${TESTS_LONG:-0}" = 0 ] || points="$points round-fold-after:12 round-between-after:3 store-close-before:1 round-between-after:1 store-members-after:2 store-close-after:2
    store-commit-after:6 store-close-before:3 round-finish-before:3 store-close-after:4 round-between-after:4 round-fold-after:24
    store-close-after:5 store-checkpoint-renamed store-publish-after"
for point in $points; do
    begin masked 2 "$secure"
    crash_at "$point" start_last
    finishes masked 40 >/dev/null
    export_to masked killed
    same_as fedavg-five killed
    end_all
    ok "coordinator killed at $point: the same model"
done

# ---- both at once, and too many ----
deadline=4s # site-05 is not there for the stages behind the vectors
begin masked 2 "$secure"
deadline=''
stop "$coordinator"
start_coordinator COHORT_CRASH_AT=round-between-after:3 || die "no start"
start_agents
start_last COHORT_CRASH_AT=agent-upload-sent:3
wait_for 30 coordinator_died || die "round-between-after:3 is never passed"
reap "$coordinator"
reap "$last"
last=''
start_coordinator || die "no start"
finishes masked 40 >/dev/null
export_to masked killed
same_as fedavg-five killed
end_all
ok "site-05 and the coordinator killed behind the masked vectors: the sum is of five"

quorum=5 deadline=4s attempts='' begin masked 2 "secure_aggregation: {dropout: 0.3, survivors: 5}"
start_agents
start_last COHORT_CRASH_AT=agent-train-after:3
wait_for 20 last_died || die "agent-train-after:3 is never passed"
reap "$last"
start_last
finishes masked 60
logged cohortd 'round 1 is given up, the model stays as it was' || die "nothing is said of the round that was given up"
export_to masked given-up
ok "$(grep 'given up' "$work/cohortd.log" | tail -n 1)"
cohortctl audit export masked -o "$work/transcript.txt" >/dev/null || die "audit export"
[ "$(sed -n 's/^base //p' "$work/transcript.txt")" = "$(sed -n 's/^model //p' "$work/transcript.txt")" ] ||
    die "the record of the given-up round: $(cat "$work/transcript.txt")"
ok "its record names the model it began with"
end_all

