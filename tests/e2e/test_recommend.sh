#!/bin/sh
# A default that chooses itself: pilots of some strategies, in whose last round sites say what the model is worth to them. Where sites
# have little of the same, joining is recommended; where each has a rule of its own, staying alone is; and where nothing can be told,
# the simple one.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin recommend
make_world 8
# data TRAIN OPPOSITE: a file a site, TRAIN examples to train on, 60 to choose by, 20 to test; OPPOSITE=1: every second has the labels swapped
data() {
    awk -v train="$1" -v opposite="$2" -v to="$work" 'BEGIN { srand(3)
        for (s = 1; s <= 8; s++) { file = sprintf("%s/own-%02d.csv", to, s); print "a,b,c,d,label" >file
            for (i = 0; i < train + 80; i++) {
                for (k = 0; k < 4; k++) x[k] = 2 * rand() - 1
                y = (x[0] + x[1] - x[2] - x[3] + 0.3 * (rand() - 0.5)) > 0
                if (opposite && s % 2) y = 1 - y
                printf "%.4f,%.4f,%.4f,%.4f,%d\n", x[0], x[1], x[2], x[3], y >file
            }
            close(file) } }'
}
sites() { # sites SCORES
    agents_config 1 8 "  jobs: [{name: \"*\", scores: $1}]"
    sed -i 's/train_x: data.csv, /validation: 60, /; s/key: "pki\/site-{nn}.key"}/key: "pki\/site-{nn}.key", data: {train_x: "own-{nn}.csv"}}/' "$work/agents.yaml"
}
train="train: {batch: 4, epochs: 2, lr: 0.2}" rounds=30 job own 8

data 4 0
sites true
start_agents
expect_run 0 'fedavg: better than everything simpler, confidence 0\.9' cohortctl recommend "$work/own.yaml" --candidates local,fedavg --rounds 25
expect_run 0 'site-08 +25 ' cohortctl job scores own-pilot-fedavg
[ "$(cohortctl --json job scores own-pilot-fedavg | grep -o '"agent"' | wc -l)" = 8 ] || die "scores of 8 sites"
stop "$agents"

new_world
data 60 1
start_agents
expect_run 0 'local: the simplest, and nothing was better, over 8 sites' \
    cohortctl recommend "$work/own.yaml" --candidates local,fedavg --rounds 25
# An answer for programs, and candidates that do not fit a job say why. FedAvgM without momentum is FedAvg, and batches of everything train
# alike whatever the seed.
cohortctl --json recommend "$work/own.yaml" --candidates fedavg,fedavgm,nonsense --rounds 3 --set name=two --set server.momentum=0 --set train.batch=60 \
    >"$work/two.json" 2>"$work/two.log" || die "recommend --json"
grep -q 'without nonsense: .*not a strategy' "$work/two.log" || die "nothing is said of the candidate left out: $(cat "$work/two.log")"
/usr/bin/python3 - "$work/two.json" <<'P' || die "$(cat "$work/two.json")"
import json, sys
x = json.load(open(sys.argv[1]))
assert x["strategy"] == "fedavg" and x["sites"] == 8, x
assert x["candidates"][0]["mean"] == x["candidates"][1]["mean"], x
assert "not a strategy" in x["candidates"][2]["why"], x
P
ok "not told apart: fedavg, the simple one"
# All are checked, as a submission is, before the first of them is begun.
expect_run 0 'would start it' cohortctl job check "$work/own.yaml" --set rounds=3
expect_run 78 'own.yaml.*grid.bits' cohortctl job check "$work/own.yaml" --set grid.bits=99
expect_run 1 '1 of 3 candidates fit this job.*no pilot was begun' cohortctl recommend "$work/own.yaml" --candidates local,nonsense,fedbn --set name=none
expect_run 1 'no-such-job' cohortctl job show none-pilot-local
strategy='{fedprox: {mu: 0.7}}' job prox 8
expect_run 0 'over 8 sites' cohortctl recommend "$work/prox.yaml" --candidates fedavg,fedprox --rounds 2
expect_run 0 'mu: 0\.7' cohortctl job show prox-pilot-fedprox
cohortctl job show prox-pilot-fedprox | grep -q '^ *strategy: fedprox$' && die "the pilot dropped the settings of the file's strategy"
stop "$agents"

# A run that is killed leaves a pilot, and the next one says so; one that is told to stop leaves none.
pilot_is() { [ "$(job_field state own-pilot-local)" = "$1" ]; }
try() { cohortctl recommend "$work/own.yaml" --candidates local,fedavg "$@" >"$work/try.log" 2>&1 & }
try
run=$!
wait_for 10 pilot_is running || die "no pilot: $(cat "$work/try.log")"
kill_hard $run
left=$(job_field id own-pilot-local)
expect_run 1 "pilot own-pilot-local@$left of another run is running.*--cancel-leftovers.*reason 803" cohortctl recommend "$work/own.yaml"
try --cancel-leftovers
run=$!
anew() { [ "$(job_field id own-pilot-local)" -gt "$left" ]; }
wait_for 10 anew || die "no pilot: $(cat "$work/try.log")"
kill -TERM $run
reap $run
[ "$status" = 1 ] && grep -q 'interrupted; its pilots are cancelled (cancelled, reason 6)' "$work/try.log" || die "exit $status: $(cat "$work/try.log")"
pilot_is cancelled || die "the pilot is $(job_field state own-pilot-local)"
[ "$(job_field state "own-pilot-local@$left")" = cancelled ] || die "the leftover goes on"
ok "pilots end with the run that began them"
expect_run 4 'did not end in time and is cancelled' cohortctl --timeout 300ms recommend "$work/own.yaml"
pilot_is cancelled || die "the pilot is $(job_field state own-pilot-local)"

# Noised and debited under a unit; and not said at all by a site that does not allow it.
new_world
sites false
start_agents
cohortctl job submit "$work/own.yaml" --set name=silent --set score.noise_multiplier=0 >/dev/null || die "submit"
expect_log agents 'job silent asks what its model is worth here, and this site does not say it'
cohortctl job cancel silent >/dev/null
stop "$agents"
sites true
sed -i 's/^  jobs: .*/&\n  privacy: {unit: client, epsilon: 100000, delta: 1e-5}/' "$work/agents.yaml"
start_agents
expect_run 5 'a score is made of private examples' cohortctl job submit "$work/own.yaml" --set name=bare --set rounds=2 --set privacy.unit=client \
    --set privacy.clip=0.5 --set privacy.noise_multiplier=1 --set privacy.delta=0.00001 --set score.noise_multiplier=0
cohortctl job submit "$work/own.yaml" --wait --set name=paid --set rounds=2 --set privacy.unit=client --set privacy.clip=0.5 --set privacy.noise_multiplier=1 \
    --set privacy.delta=0.00001 --set score.noise_multiplier=0.25 >/dev/null || die "submit paid"
expect_run 0 ' 0\.2500' cohortctl job scores paid
n=$(cohort-agent ledger --config "$work/agents.yaml" --agent site-01 --json | grep -o '"round":' | wc -l)
[ "$n" = 3 ] || die "site-01 has $n releases instead of 2 updates and a score"
ok "2 updates and a score on the ledger"
