#!/bin/sh
# Secure aggregation with real processes. The model is, byte for byte, that of the same job without it, of the same members; agents
# are killed in each of the five stages, the coordinator at every step of them; a round that too many left is given up.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin secure
make_world 5 'retention: {keep_rounds: 3}'
secure='secure_aggregation: {dropout: 0.3, survivors: 3}'
rounds=${rounds:-1}

# Sites 01 to 04 in one process, 05 in another, which is the one that is killed.
agents_config 1 4
cp "$work/agents.yaml" "$work/four.yaml"
agents_config 5 1
sed 's/agent.sock/last.sock/; s/^state: sites/state: last/' "$work/agents.yaml" >"$work/last.yaml"
cp "$work/four.yaml" "$work/agents.yaml"
last=''
start_last() {
    env "$@" cohort-agent --config "$work/last.yaml" 2>>"$work/last.log" &
    last=$!
}
end_all() {
    stop "$agents"
    [ -z "$last" ] || stop "$last"
    last=''
}
trap 'failed=$?; [ -z "$last" ] || kill -9 "$last" 2>/dev/null; (exit $failed); e2e_end' EXIT

# begin NAME EXCHANGE [TEXT]: everything anew; each site gets the same seed for its update
begin() {
    rm -rf "$work/last"
    new_world
    strategy=${strategy:-fedavg} quorum=${quorum:-4} deadline=${deadline:-60s} fill=${fill:-10s} job "$1" 5 "${3:-}
${attempts:-}"
    submit "$1"
    for of in four last; do
        cohort-agent prepare --config "$work/$of.yaml" --incarnation "$(job_field incarnation "$1")" --rounds 2 --exchange "$2" \
            --seed 5 >/dev/null 2>"$work/prepare.log" || die "prepare: $(cat "$work/prepare.log")"
    done
}
export_to() { cohortctl model export "$1" -o "$work/$2.safetensors" >/dev/null || die "export $1"; }
same_as() { cmp "$work/$1.safetensors" "$work/$2.safetensors" || die "$2: another model than $1"; }

# ---- without it, as the measure: of all five, and of the first four ----
for strategy in fedavg hyperfl; do
    begin bare 0
    start_agents
    start_last
    finishes bare 30
    export_to bare "$strategy-five"
    end_all
done
strategy=fedavg
fill=1s begin bare 0
start_agents
finishes bare 30
export_to bare fedavg-four
end_all
! cmp -s "$work/fedavg-five.safetensors" "$work/fedavg-four.safetensors" || die "the fifth site changes nothing"

# ---- with it, and nobody is killed ----
for strategy in fedavg hyperfl; do
    begin masked 2 "$secure"
    start_agents
    start_last
    finishes masked 30
    export_to masked "$strategy-masked"
    same_as "$strategy-five" "$strategy-masked"
    ok "$strategy: the same model as without secure aggregation"
    end_all
done
strategy=fedavg
cohort-agent outbox show --config "$work/last.yaml" >"$work/outbox.txt" || die "outbox"
for stage in advertise share mask sign unmask; do
    grep -q "exchange secagg-$stage" "$work/outbox.txt" || die "the outbox does not show $stage: $(cat "$work/outbox.txt")"
done
[ "$(grep -c 'tensors:' "$work/outbox.txt")" = 1 ] || die "tensors are in one of the five objects"
ok "$(grep 'under the masks' "$work/outbox.txt" | sed 's/^ *//')"

# ---- noise: each site's own is the same with masks and without; shared noise is a part, and only for sites that agree ----
noise='privacy: {unit: client, clip: 0.5, noise_multiplier: 1, delta: 1e-5'
begin bare 0 "$noise}"
start_agents
start_last
finishes bare 30 >/dev/null
export_to bare noised
end_all
begin masked 2 "$noise}
$secure"
start_agents
start_last
finishes masked 30 >/dev/null
export_to masked masked-noised
same_as noised masked-noised
end_all
ok "with each site's own noise: the same model as without secure aggregation"
begin shared 2 "$noise, noise: distributed}
$secure"
for of in four last; do # from now on with a budget, and site-05 adds all of its noise itself
    where=$([ $of = four ] && echo ', noise: distributed')
    sed "s/^  jobs: .*/&\n  privacy: {unit: client, epsilon: 100, delta: 1e-5$where}/" "$work/$of.yaml" >"$work/budget-$of.yaml"
done
cp "$work/budget-four.yaml" "$work/agents.yaml"
cp "$work/last.yaml" "$work/bare-last.yaml"
cp "$work/budget-last.yaml" "$work/last.yaml"
start_last
start_agents
expect_log last 'declined: job shared shares the noise among its members; this site adds it itself .privacy.noise: distributed would'
finishes shared 30
expect_run 0 'unit client.*together with at most the part of the members' cohort-agent ledger --config "$work/agents.yaml" --agent site-01
expect_run 0 'no data .keys, shares and signatures of secure sums.: 4 releases' \
    cohort-agent ledger --config "$work/agents.yaml" --agent site-01
expect_run 0 'noise of standard deviation 0.2887 added' cohort-agent outbox --config "$work/agents.yaml" --agent site-01 # 0.5 / sqrt(3)
end_all

# ---- unit example: one step of each site, of which nobody sees less than the sum with all its noise ----
for of in four last; do
    sed -i 's/unit: client, epsilon: 100, delta: 1e-5[^}]*/unit: example, epsilon: 100, delta: 1e-5, noise: distributed/' "$work/budget-$of.yaml"
done
cp "$work/budget-four.yaml" "$work/agents.yaml"
cp "$work/budget-last.yaml" "$work/last.yaml"
train='train: {batch: 20, steps: 1, lr: 1}' begin step 2 "privacy: {unit: example, clip: 0.5, noise_multiplier: 3, delta: 1e-5, sampling_rate: 0.5, examples: 60, noise: distributed}
$secure"
start_last
start_agents
finishes step 30
expect_run 0 'epsilon 0.8833 of 100 .*unit example.*together with at most the part of the members' \
    cohort-agent ledger --config "$work/agents.yaml" --agent site-01 # of Poisson(0.5; Gauss(3)), whole
end_all
ok "unit example: a step under masks, its noise shared"
cp "$work/four.yaml" "$work/agents.yaml"
cp "$work/bare-last.yaml" "$work/last.yaml"

# ---- an agent is killed in each stage, at each point of a stage once; --long: at each of both ----
strings "$build/server/cohortd" 2>/dev/null | grep -q '^crash-point=round-between-after' || {
    ok "no crash points in this build: kills are left out"
    exit 0
}
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

# ---- an agent that cheats is out, by a reason, and nobody else is ----
hows='garbage forged' # one for each reason
[ "${TESTS_LONG:-0}" = 0 ] || hows="$hows short stolen"
for how in $hows; do
    deadline=4s
    begin masked 2 "$secure"
    deadline=''
    start_agents
    python3 "$e2e_root/tests/e2e/secure_hostile.py" "$port" "$work/pki" site-05 masked $how || die "$how"
    finishes masked 40 >/dev/null
    export_to masked cheated
    same_as fedavg-four cheated
    stop "$agents"
done
ok "the sum is of the other four, each time"

# ---- one whose shares nobody can read ends one round, and is in none of the next; so it is for an auditor ----
given_up() { grep -c 'is given up' "$work/cohortd.log"; }
before=$(given_up)
rounds=2 fill=4s deadline=4s attempts='' begin masked 2 "$secure"
start_agents
python3 "$e2e_root/tests/e2e/secure_hostile.py" "$port" "$work/pki" site-05 masked shares || die "shares"
expect_log cohortd 'round 1 is given up.*(secagg-too-few|secagg-share)'
expect_log cohortd 'site-05 sits out of round 2: 4 others and it cannot read'
stop "$coordinator"
start_coordinator || die "no start"
expect_run 0 'given up' cohortctl audit replay masked 1
start_last
finishes masked 40
expect_log cohortd 'site-05 sits out of round 3: 4 others and it cannot read' # known again from the checkpoint, and passed on
grep -q 'masked round 2' "$work/last.log" && die "it is asked into another round"
[ "$(given_up)" = $((before + 1)) ] || die "it made more than one round fail"
end_all
ok "an agent whose shares cannot be read sits out"

# ---- one that cheats a single neighbour: the two are not put together again, and its next victim gives it away ----
if tr '{' '\n' <"$build/meson-info/intro-buildoptions.json" | grep '"seeded_leaks"' | grep -q '"value": true'; then
    rounds=4 fill=3s deadline=4s attempts='' begin masked 2 "$secure"
    start_agents
    start_last COHORT_SEEDED_LEAK=shares
    expect_log cohortd "sits out of round 2: 1 other and it cannot read each other's shares"
    expect_log cohortd 'site-05 sits out of round [34]: 2 others'
    finishes masked 40
    [ "$(given_up)" = $((before + 1)) ] || die "a round was given up"
    end_all
    ok "$(grep 'site-05 sits out.*2 others' "$work/cohortd.log" | head -n 1)"
fi

# ---- hold: approve asks for the masked update and for nothing else; a site may demand masks ----
sed "s/^  jobs: .*/  jobs: [{name: \"*\", masked: true}]\n  hold: approve/" "$work/four.yaml" >"$work/agents.yaml"
rounds=1 quorum=4 deadline=30s fill=100ms begin masked 2 "$secure"
start_agents
for site in 01 02 03 04; do
    expect_log agents "site-$site.*masked round 1: the update waits for outbox approve"
    cohort-agent outbox approve --config "$work/agents.yaml" --agent "site-$site" >/dev/null || die "approve"
done
finishes masked 40
job bare 4
submit bare
expect_log agents "declined: job bare asks for updates one by one; this site's leave only under secure_aggregation"
stop "$agents"
