#!/bin/sh
# The chain of records: it survives kills, stands up to being read anywhere, and no line of it can be changed unnoticed.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin audit
make_world 3
agents_config 1 3 '  jobs: [{name: "*", unit: none}]'
start_agents
rounds=3 strategy=fedavg job tale 3
submit tale
cohortctl job wait tale >/dev/null || die "job wait"
kill_hard "$coordinator"
start_coordinator || die "the coordinator does not start again"
cohortctl audit export tale -o "$work/short" >"$work/export.log" || die "export"
early=$(sed -n 's/.*head //p' "$work/export.log")
ok "$(cat "$work/export.log")"
expect_run 0 'rounds .*1 to 3' cohortctl audit verify "$work/short"
[ "$(grep -c '^member' "$work/short")" = 9 ] || die "3 rounds of 3 members: $(cat "$work/short")"

# A second job, killed in the middle, goes on with the same chain.
rounds=200 strategy=fedavg job long 3
submit long
early_round() { [ "$(job_field round long)" -ge 2 ]; }
wait_for 20 early_round || die "no round"
cohortctl audit export long -o "$work/first" >"$work/export.log" || die "export"
head=$(sed -n 's/.*head //p' "$work/export.log")
kill_hard "$coordinator"
start_coordinator || die "the coordinator does not start again"
cohortctl job wait long >/dev/null || die "job wait"
cohortctl audit export long -o "$work/chain" >/dev/null || die "export"
expect_run 0 'rounds .*1 to 200' cohortctl audit verify "$work/chain"
expect_run 0 'earlier head .*is the record of round' cohortctl audit verify "$work/chain" --head "$head"
expect_run 1 'head is not in it.*audit' cohortctl audit verify "$work/chain" --head "$early"
update=$(cohort-agent ledger --config "$work/agents.yaml" --agent site-02 --json | sed -n 's/.*"update": *"\([0-9a-f]*\)".*/\1/p' | tail -n 1)
[ -z "$update" ] || expect_run 0 'update .*in round' cohortctl audit verify "$work/chain" --update "$update"
plan=$(sed -n 's/^plan //p' "$work/chain" | head -n 1)
expect_run 0 '200 of these rounds ran this text' cohortctl audit verify "$work/chain" --plan "$plan"

# Whatever line is changed, left out, doubled or exchanged: it does not verify.
lines=$(wc -l <"$work/short")
at=1
while [ $at -le "$lines" ]; do
    for change in "${at}s/./x/" "${at}s/1/2/;${at}s/0/1/" "${at}d" "${at}p" "${at}{h;d};$((at + 1)){G}"; do
        sed "$change" "$work/short" >"$work/changed"
        cmp -s "$work/short" "$work/changed" && continue
        cohortctl audit verify "$work/changed" >"$work/verify.log" 2>&1 && die "line $at, '$change': verified"
        grep -q 'reason 609' "$work/verify.log" || die "line $at, '$change': $(cat "$work/verify.log")"
    done
    at=$((at + 1))
done
ok "$lines lines, each changed, left out, doubled and exchanged: never verified"
head -c $(($(wc -c <"$work/short") - 2)) "$work/short" >"$work/changed"
expect_run 1 'a line without an end|empty line' cohortctl audit verify "$work/changed"
# Records left out in front are said to be missing, in the middle they are noticed.
sed "1,/^\$/d" "$work/short" >"$work/changed"
expect_run 0 'records of earlier rounds are not in this file' cohortctl audit verify "$work/changed"
awk 'BEGIN { RS = ""; ORS = "\n\n" } NR != 2' "$work/short" >"$work/changed"
expect_run 1 'not the round that follows' cohortctl audit verify "$work/changed"
expect_run 1 'no records' cohortctl audit verify /dev/null
expect_run 1 'no job' cohortctl audit export nothing -o "$work/none"
[ ! -e "$work/none" ] || die "a failed export left a file"
