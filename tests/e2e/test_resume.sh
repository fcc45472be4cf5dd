#!/bin/sh
# A model of 1.6 million parameters: the coordinator is killed in the middle of an upload and an agent in the middle of a download.
# Both go on where they were, and the published model has the bytes of the run that nobody disturbed.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin resume
make_world 2 'limits: {heartbeat: 2s}'
agents_config 1 2
describe() { # 32 bits of 1.6 million values: 6.4 MB down, as many up
    cat >"$work/big.yaml" <<JOB
name: big
strategy: fedavg
rounds: 1
model: {input: [4], classes: 2, head: 1, layers: [{linear: {out: 228571}}, {leaky_relu: {}}, {linear: {out: 2}}]}
round: {members: 2, deadline: 120s}
grid: {bits: 32, step: -20}
train: {batch: 40, steps: 1, lr: 0.01}
JOB
}
one_run() { # a federation from nothing, with the same intents: what an agent draws at random is the same
    new_world
    describe big
    submit big
    cohort-agent prepare --config "$work/agents.yaml" --incarnation "$(job_field incarnation big)" --rounds 2 --seed 11 \
        >/dev/null 2>"$work/prepare.log" || die "prepare: $(cat "$work/prepare.log")"
}
one_run
start_agents
finishes big 40
cohortctl model export big -o "$work/undisturbed.safetensors" >/dev/null || die "export"
stop "$agents"
stop "$coordinator"
rm -rf "$work/state"
: >"$work/cohortd.log"
: >"$work/agents.log"

start_coordinator || die "no start"
cohortctl agent enrol "$work"/pki/site-*.crt >/dev/null
one_run
gone() { dead "$agents"; }
# The agents die of their 700th chunk: between them they hold more than half of two models.
start_agents COHORT_CRASH_AT=agent-fetch-chunk:700
wait_for 20 gone || die "the agents were not killed while they fetched"
reap "$agents"
ok "agents killed in the middle of a download (exit $status)"
# And again in the middle of their uploads, and the coordinator with them.
start_agents COHORT_CRASH_AT=agent-upload-chunk:700
wait_for 30 gone || die "the agents were not killed while they sent"
reap "$agents"
kill_hard "$coordinator"
expect_log cohortd 'site-0[12]: a fetch goes on at byte [1-9][0-9]* of'
ok "agents and coordinator killed in the middle of an upload"
start_coordinator || die "no start after the kill"
start_agents
expect_log cohortd 'site-0[12]: the update for round 1 goes on at byte [1-9][0-9]* of'
finishes big 40
cohortctl model export big -o "$work/disturbed.safetensors" >/dev/null || die "export"
cmp "$work/undisturbed.safetensors" "$work/disturbed.safetensors" || die "the models differ"
ok "the model has the bytes of the undisturbed run: $(wc -c <"$work/disturbed.safetensors") bytes"
