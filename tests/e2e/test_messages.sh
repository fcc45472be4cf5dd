#!/bin/sh
# A hostile peer with a good certificate: each offence is answered with its reason and harms nobody else.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin messages
make_world 3 'limits: {heartbeat: 1s}'
agents_config 1 2
start_agents

# Honest agents go on while the hostile one does its worst outside a round, and then inside one that it poisons and leaves.
rounds=1 quorum=2 deadline=8s fill=1s job target 3
submit target
hostile() { timeout 40 /usr/bin/python3 "$(dirname "$0")/hostile.py" "$port" "$work/pki" site-03 "$@" || die "hostile.py $*"; }
hostile target poison
finishes target
expect_run 0 '"state": *"published"' cohortctl --json round show target --round 1
cohortctl --json round show target --round 1 >"$work/members.json"
tr -d ' \n' <"$work/members.json" | grep -Eq '"agent":"site-03"[^}]*"counted":false' || die "the poison: $(cat "$work/members.json")"
ok "the poisoned update is not counted"
expect_log cohortd 'site-03.*\[209 tls-truncated\]'

# A good update, and then everything that comes too often or too late.
rounds=3 quorum=2 deadline=2s fill=1s job second 3
submit second
second_round() { [ "$(job_field round second)" -ge 1 ]; }
wait_for 10 second_round || die "no round without the hostile one"
hostile second polite
finishes second
runs "$coordinator" || die "the coordinator died"
