#!/bin/sh
# An agent is killed in the middle of local training, in every strategy and with a trainer program: when it is back the round starts again
# from the private state and the seed it was bound to, and update, private tensors and published model have the bytes of a run that nobody
# disturbed. Optimizers begin each round afresh, so there is no state of theirs to lose.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin train-killed
strings "$build/client/cohort-agent" | grep -q '^crash-point=agent-train-batch' || {
    echo "skipped: $build has no crash points (meson option crash_points)"
    exit 77
}
make_world 1
cc -O2 -o "$work/softmax" "$e2e_root/deploy/examples/trainers/softmax.c" -lm || die "softmax.c does not compile"
cp "$e2e_root/deploy/examples/trainers/softmax.sh" "$work"
# A program that kills its agent the first time it is asked, in the middle.
cat >"$work/kills.sh" <<P
#!/bin/sh
if [ -e $work/kill.pid ] && [ ! -e $work/killed ]; then
    : >$work/killed
    kill -9 \$(cat $work/kill.pid)
    sleep 100
fi
exec $work/softmax.sh
P
chmod +x "$work/kills.sh"
agents_config 1 1 '  jobs: ["*"]
  trainer: {program: [./kills.sh]}'

# federation NAME STRATEGY TRAIN MORE: from nothing, the same job and the same intents.
federation() {
    new_world
    rounds=3 strategy=$2 train="$3" job "$1" 1 "$4"
    submit "$1"
    cohort-agent prepare --config "$work/agents.yaml" --incarnation "$(job_field incarnation "$1")" --rounds 3 --seed 11 \
        >/dev/null 2>"$work/prepare.log" || die "prepare: $(cat "$work/prepare.log")"
}
gone() { dead "$agents"; }
settled() { cohort-agent report --config "$work/agents.yaml" --job "$1" --json | grep -q '"event":"final"'; }
# What there is to compare: the published model, and the private tensors at home (named by their digest; the job's incarnation is another).
result() {
    finishes "$1" 60 >/dev/null
    wait_for 30 settled "$1" || die "no final report"
    [ "$2" = local ] || cohortctl model export "$1" -o "$work/out.safetensors" >/dev/null || die "export"
    { cat "$work/out.safetensors" 2>/dev/null | sed 's/"incarnation":"[^"]*"//g' | cksum; ls "$work"/sites/site-01/private | sed 's/.*-//'; } >"$3"
    rm -f "$work/out.safetensors"
    stop "$agents"
}
# killed STRATEGY TIMES TRAIN [MORE]
killed() {
    federation job "$1" "$3" "${4:-}"
    start_agents
    result job "$1" "$work/undisturbed"
    for at in $2; do
        federation job "$1" "$3" "${4:-}"
        start_agents COHORT_CRASH_AT="agent-train-batch:$at"
        wait_for 30 gone || die "$1: not killed at batch $at"
        reap "$agents"
        start_agents
        result job "$1" "$work/disturbed"
        cmp -s "$work/undisturbed" "$work/disturbed" || die "$1, killed at batch $at: $(cat "$work/undisturbed") became $(cat "$work/disturbed")"
        ok "$1, killed at batch $at: $(tr '\n' ' ' <"$work/disturbed" | cut -c1-60)"
    done
}
plain='train: {batch: 10, epochs: 4, lr: 0.05, momentum: 0.9, head: {epochs: 2}}'
killed fedavg '5 29' "$plain"
killed fedrep '3 20 70' "$plain"
killed hyperfl '7 40' "$plain"
killed ditto '9 25' "$plain"
killed apfl 13 "$plain"
killed fedala 17 "$plain"
killed feddyn 21 "$plain"
killed feddbe 33 "$plain"
killed fedproto 35 "$plain"
killed scaffold 18 'train: {batch: 10, epochs: 4, lr: 0.05}'
killed hyperfl '9' 'train: {batch: 10, steps: 12, lr: 0.05}' \
    'privacy: {unit: example, clip: 1, noise_multiplier: 1, delta: 0.00001, sampling_rate: 0.2, examples: 80}'
killed fedavg '40' "$plain" \
    'privacy: {unit: client, clip: 0.1, noise_multiplier: 1, delta: 0.00001, adaptive: {rate: 1, noise_multiplier: 0.75, max: 0.3}}'

program_run() {
    new_world
    rounds=3 strategy=fedavg train='train: {batch: 20, epochs: 3, lr: 0.1}' job job 1 'trainer: exec'
    sed -i 's/layers: .*/layers: [{linear: {out: 2}}]}/' "$work/job.yaml"
    submit job
    cohort-agent prepare --config "$work/agents.yaml" --incarnation "$(job_field incarnation job)" --rounds 3 --seed 11 >/dev/null 2>&1 || die "prepare"
    start_agents
}
program_run
result job fedavg "$work/undisturbed"
program_run
echo "$agents" >"$work/kill.pid"
wait_for 30 gone || die "the program did not kill its agent"
reap "$agents"
rm "$work/kill.pid"
start_agents
result job fedavg "$work/disturbed"
cmp -s "$work/undisturbed" "$work/disturbed" || die "program: $(cat "$work/undisturbed") became $(cat "$work/disturbed")"
ok "a trainer program, killed with its agent: $(cat "$work/disturbed")"
