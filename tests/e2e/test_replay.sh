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

# Buffers: a round is two updates of three sites, one of which takes longer than rounds do. What it makes counts in a later one, for less; the
# records say how much, and the same comes of them. Killed at an Ack, the coordinator knows who is at work for which round.
awk 'BEGIN { srand(9); print "a,b,c,d,label"
    for (i = 0; i < 40000; i++) { y = i % 2; printf "%.4f,%.4f,%.4f,%.4f,%d\n", rand() + y, rand() - y, rand(), rand(), y } }' >"$work/large.csv"
stop "$agents"
sed -i '/^agents:/,$d; s/train_x: data.csv, //' "$work/agents.yaml"
echo agents: >>"$work/agents.yaml"
for k in 1 2 3; do
    [ $k = 3 ] && data=large || data=data
    echo "  - {name: site-0$k, certificate: pki/site-0$k.crt, key: pki/site-0$k.key, data: {train_x: $data.csv}}" >>"$work/agents.yaml"
done
buffered() { rounds=$2 strategy='{fedbuff: {buffer: 2, staleness: 16}}' quorum=2 job "$1" 3 "${3:-}"; submit "$1"; }
weights() { cohortctl audit export "$1" -o "$work/chain" >/dev/null && awk '/^member/ { print $5 }' "$work/chain" | sort -n | uniq | tr '\n' ' '; }
late() { weights "$1" | awk '{ for (i = 1; i <= NF; i++) { s = (1024 / $i) ^ 2 - 1; if (s < -0.1 || s > 16.2) exit 2; n += s > 0.5 } exit !n }'; }
# Sites with thin links send the same values in fewer bits; what is added up, and found again, is on one grid.
sed -i '/name: site-01/s/}}$/}, upload_bits: 6}/; /name: site-02/s/}}$/}, upload_bits: 5}/' "$work/agents.yaml"
start_agents
rounds=4 strategy=fedavg job thin 3 'set: {grid: {bits: 8, step: -7, narrow: 4}}'
submit thin
finishes thin
for round in 2 3 4; do replays thin $round; done
cohortctl audit export thin -o "$work/chain" >/dev/null || die "export"
bytes=$(awk '/^member/ { print $6 }' "$work/chain" | sort -n | uniq -c | awk '{ printf "%s*%s ", $1, $2 }')
[ "$bytes" = '8*86 4*114 ' ] || die "114 values in 6 bits by two sites, and in 8: $bytes"
ok "thin: $bytes bytes"
buffered buffers 40
finishes buffers 60
late buffers || die "weights $(weights buffers)"
[ "$(grep -c '^member' "$work/chain")" = 80 ] || die "40 rounds of 2: $(grep -c '^member' "$work/chain")"
cohortctl --json audit replay buffers 40 >"$work/replay" 2>&1 || die "replay: $(cat "$work/replay")"
ok "buffers: members weigh $(weights buffers)"
# An update that counted later has its receipt all the same, of the round that took it.
receipts() { cohort-agent receipts "$@" --job buffers --config "$work/agents.yaml"; }
received() { [ "$(receipts | grep -c 'counted in round')" = 80 ]; }
wait_for 20 received || die "receipts: $(receipts | grep -c 'counted in round') of 80"
receipts | awk '{ for (i = 1; i < NF; i++) { if ($i == "round") r[++n] = $(i + 1) } if (r[n] > r[n - 1]) late++ } END { exit !late }' || die "none of a later round"
expect_run 0 'receipts, [1-9][0-9]* of them verified, [1-9][0-9]* stand' cohort-agent receipts verify --job buffers --chain "$work/chain" --config "$work/agents.yaml"
expect_run 1 '^$' sh -c "cohort-agent receipts verify --json --job buffers --chain '$work/chain' --config '$work/agents.yaml' | grep '\"state\":\"kept\"' | grep -v '\"in_chain\":true'"
if strings "$build/server/cohortd" 2>/dev/null | grep -q '^crash-point=round-ack-before'; then
    stop "$agents"
    buffered acked 40 'aggregate: {rule: pcb, clip: 3, keep: 0.5}' # merged, and late ones too
    crash_at round-ack-before:9
    finishes acked 60
    cohortctl audit export acked -o "$work/chain" >/dev/null || die "export"
    expect_run 0 'rounds .*1 to 40' cohortctl audit verify "$work/chain"
    each_acknowledged() { [ "$(sed -n 's/.*agent \(site-0[1-3]: acked round [0-9]*\): acknowledged.*/\1/p' "$work/agents.log" | sort -u | wc -l)" = 80 ]; }
    wait_for 10 each_acknowledged || die "not 80 acknowledged updates for 40 rounds of 2"
    late acked || die "weights $(weights acked)"
    cohortctl --json audit replay acked 40 >"$work/replay" 2>&1 || die "replay of merges: $(cat "$work/replay")"
    ok "killed before an Ack: 80 updates, each acknowledged, of weights $(weights acked)"
fi

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
