#!/bin/sh
# `cohortctl audit replay`: what was published is computed again, bit for bit, from the updates that are kept; as far back as the
# coordinator was told to keep them, after a kill too; and an update that was changed since is found.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin replay
make_world 3 'retention: {keep_rounds: 3}'
agents_config 1 3 '  jobs: [{name: "noised", unit: client, epsilon: 100000, delta: 1e-5}, {name: "*", unit: none}]
  privacy: {noise: central}'
start_agents
replays() { # JOB ROUND
    cohortctl --json audit replay "$1" "$2" >"$work/replay" 2>&1 || die "replay of round $2 of $1: $(cat "$work/replay")"
    python3 -c "import json,sys; d=json.load(open('$work/replay')); assert d['same'] and d['updates'] >= 3 and d['round'] == $2, d"
}
uploads() { find "$work/state/spool" -type f | wc -l; }

# Several exchanges a round; noise on the sum is a function of the sum: it is found again. And a killed coordinator still has everything.
rounds=3 strategy=fedavg job noised 3 'privacy: {unit: client, noise: central, clip: 0.5, noise_multiplier: 1, delta: 0.00001}
counts: {noise_multiplier: 4, every: 1, bound: 100}'
submit noised
finishes noised
kill_hard "$coordinator"
start_coordinator || die "the coordinator does not start again"
for round in 1 2 3; do replays noised $round; done
[ "$(uploads)" = 18 ] || die "after a restart: $(uploads) files"
ok "noised: $(cohortctl audit replay noised 3 | tail -n 1)"

for strategy in fedavg fedrep hyperfl fedadam; do
    rounds=5 job "$strategy" 3
    submit "$strategy"
    finishes "$strategy"
    for round in 3 4 5; do replays "$strategy" $round; done
    expect_run 1 'round 2 cannot be replayed.*keep_rounds' cohortctl audit replay "$strategy" 2
done
[ "$(uploads)" = 54 ] || die "five jobs, three rounds, three members: $(uploads) files"
ok "$(cohortctl audit replay hyperfl 5 | tr '\n' ';')"

# Secure sums: their stages are exchanges, and what is kept of a member says nothing without the others.
rounds=2 strategy=fedavg job summed 3 'secure_aggregation: {corrupt: 0, survivors: 3}'
submit summed
finishes summed
replays summed 1
replays summed 2

# An update that is not the accepted one any more.
incarnation=$(cohortctl --json job show noised | sed -n 's/.*"incarnation": *"\([0-9a-f]*\)".*/\1/p' | head -n 1)
file=$(find "$work/state/spool/$incarnation/3-0" -type f | head -n 1)
printf '\001' | dd of="$file" bs=1 count=1 conv=notrunc 2>/dev/null
expect_run 1 'is not the update that was accepted' cohortctl audit replay noised 3
rm "$file"
expect_run 1 'not kept any more' cohortctl audit replay noised 3
expect_run 1 'no job' cohortctl audit replay nothing 1
expect_run 1 'cannot be replayed' cohortctl audit replay fedavg 77

# Told to keep less, it lets go.
coordinator_config 'retention: {keep_rounds: 1}'
stop "$coordinator"
start_coordinator || die "the coordinator does not start"
replays fedavg 5
expect_run 1 'not kept any more' cohortctl audit replay fedavg 4
coordinator_config
stop "$coordinator"
start_coordinator || die "the coordinator does not start"
[ "$(uploads)" = 0 ] || die "nothing is to be kept: $(uploads) files"
ok "without retention nothing stays"
