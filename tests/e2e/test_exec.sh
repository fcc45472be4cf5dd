#!/bin/sh
# Trainer programs: the examples train for real, and whatever a program does wrong is one named error at its site; nothing of it is
# applied, nothing of it is left running, and everyone else goes on.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin exec
examples=$e2e_root/deploy/examples/trainers
make_world 16
cc -O2 -o "$work/softmax" "$examples/softmax.c" -lm || die "softmax.c does not compile"
cp "$examples/softmax.sh" "$examples/torch_trainer.py" "$work"

# program NAME: the rest of stdin is its shell script. `echo {}` is an answer, and `cp` a training that changes nothing.
program() {
    { echo '#!/bin/sh'; cat; } >"$work/$1.sh"
    chmod +x "$work/$1.sh"
}
program idle <<'P'
cp shared.safetensors shared-out.safetensors; echo '{"loss": 1}'
P
program hangs <<'P'
read -r task
case $task in *'"task":"evaluate"'*) echo '{}' && exit ;; esac
trap '' TERM; echo 'about to hang' >&2; while :; do sleep 1; done
P
program forks <<P
cp shared.safetensors shared-out.safetensors
setsid sh -c 'echo \$\$ >$work/left.pid; trap "" TERM HUP; while :; do sleep 1; done' >/dev/null 2>&1 &
sh -c 'echo \$\$ >$work/left2.pid; sleep 1000' &
while [ ! -s $work/left.pid ] || [ ! -s $work/left2.pid ]; do sleep 0.01; done
echo '{"loss": 1}'
P
program prints <<'P'
yes 'and on and on'
P
program nan <<'P'
cp shared.safetensors shared-out.safetensors
size=$(wc -c <shared-out.safetensors)
printf '\000\000\300\177' | dd of=shared-out.safetensors bs=1 seek=$((size - 4)) conv=notrunc 2>/dev/null
echo '{}'
P
program shapes <<'P'
sed 's/"shape":\[2,4\]/"shape":[4,2]/' shared.safetensors >shared-out.safetensors; echo '{}'
P
program missing <<'P'
echo 'trained, and forgot to say what'; echo '{}'
P
program fifo <<'P'
mkfifo shared-out.safetensors; echo '{}'
P
program dies <<'P'
kill -SEGV $$
P
program fails <<'P'
echo 'Traceback: the third last line' >&2; echo 'no module named torch' >&2; exit 1
P
program says <<'P'
cp shared.safetensors shared-out.safetensors; echo 'done!'
P
program hungry <<'P'
head -c 1000000000 /dev/zero | tail -c 900000000 >/dev/null || exit 9
P
agents_config 1 1
sed -i '/first: 1/d' "$work/agents.yaml"
add() { echo "  - {name: site-$1, certificate: pki/site-$1.crt, key: pki/site-$1.key, trainer: {$2}}" >>"$work/agents.yaml"; }
add 01 'program: [./softmax.sh]'
add 02 'program: [./softmax.sh]'
add 03 'program: [./hangs.sh], time: 1s'
add 04 'program: [./forks.sh]'
add 05 'program: [./prints.sh]'
add 06 'program: [./nan.sh]'
add 07 'program: [./shapes.sh]'
add 08 'program: [./missing.sh]'
add 09 'program: [./fifo.sh]'
add 10 'program: [./dies.sh]'
add 11 'program: [./fails.sh]'
add 12 'program: [./says.sh]'
add 13 'program: [./hungry.sh], memory: 64MiB'
add 14 'program: [./nowhere.sh]'
sed -i '$a\  - {name: site-15, certificate: pki/site-15.crt, key: pki/site-15.key}' "$work/agents.yaml"
start_agents
sed 's/members: 2, deadline: 2m/members: 15, quorum: 3, deadline: 20s, fill: 10s/; s/rounds: 5/rounds: 2/; /privacy/d' "$examples/job-softmax.yaml" >"$work/bad.yaml"
sed -i 's/name: softmax/name: bad/' "$work/bad.yaml"
submit bad
declines() { expect_log cohortd "site-$1.*declines round 1 of bad.*\[$2\]"; }
declines 03 '722 exec-time'
declines 05 '723 exec-output'
declines 06 '506 not-finite'
declines 07 '727 exec-tensors'
declines 08 '727 exec-tensors'
declines 09 '727 exec-tensors'
declines 10 '724 exec-signal'
declines 11 '725 exec-exit'
declines 12 '726 exec-answer'
declines 13 '725 exec-exit'
declines 14 '721 exec-start'
declines 15 '720 exec-none'
expect_log agents 'trainer site-11.*no module named torch'
expect_log agents 'site-07.*shared-out.safetensors: .*fc1.weight'
expect_log agents 'site-10.*ended by signal 11 \(SEGV\)'
grep -Eq 'Traceback|torch|hang' "$work/cohortd.log" && die "the coordinator sees more than a number"
ok "the coordinator sees numbers only"
finishes bad
for pid in "$(cat "$work/left.pid")" "$(cat "$work/left2.pid")"; do
    runs "$pid" && die "a process the program left behind still runs"
done
ok "what forked is gone, with and without its group"
gone() { ! pgrep -f "$work/[a-z]*\.sh" >/dev/null && [ -z "$(ls -d "$work"/sites/*/exec 2>/dev/null)" ]; }
wait_for 10 gone || die "left: $(pgrep -af "$work/") $(ls -d "$work"/sites/*/exec)"
ok "no program and no folder is left"

# The agent dies in the middle: the program dies with it, even one that ignores SIGTERM.
kill_hard "$agents"
sed -i 's/time: 1s/time: 10m/' "$work/agents.yaml"
start_agents
sed 's/name: bad/name: killed/; s/rounds: 2/rounds: 1/; s/deadline: 20s/deadline: 4s/' "$work/bad.yaml" >"$work/killed.yaml"
submit killed
hanging() { pgrep -f "$work/hangs.sh" >/dev/null; }
wait_for 15 hanging || die "the hanging program does not run"
kill_hard "$agents"
nobody() { ! hanging; }
wait_for 10 nobody || die "a program outlived its agent"
ok "killed with the agent"
cohortctl job cancel killed >/dev/null
start_agents
wait_for 10 gone || die "the folder of a run that was cut off is still there"
# The round ends without it: the program ends with the round, long before its own time.
sed 's/name: bad/name: over/; s/rounds: 2/rounds: 1/; s/deadline: 20s/deadline: 4s/' "$work/bad.yaml" >"$work/over.yaml"
submit over
wait_for 15 hanging || die "the hanging program does not run"
finishes over
wait_for 10 nobody || die "a program outlived its round"
ok "killed with the round"
stop "$agents"

# The examples: C and a shell with client-level noise; PyTorch with a private head where it is installed.
agents_config 1 2 '  jobs: ["*"]
  privacy: {unit: client, epsilon: 1000000, delta: 1e-5}
  trainer: {program: [./softmax.sh]}'
new_world # the ledgers above remember releases without noise
start_agents
cp "$examples/job-softmax.yaml" "$work/softmax.yaml"
submit softmax
finishes softmax 30
field() { cohort-agent report --config "$work/agents.yaml" --agent site-01 --job "$1" --json | sed -n "s/.*\"$2\":\([-+.0-9e]*\).*/\1/p" | tail -n 1; }
final() { [ -n "$(cohort-agent report --config "$work/agents.yaml" --agent site-01 --job "$1" --json | grep '"event":"final"')" ]; }
wait_for 10 final softmax || die "no final report"
awk -v a="$(field softmax accuracy_received)" 'BEGIN { exit !(a >= 0.9) }' || die "softmax reaches $(field softmax accuracy_received)"
ok "shell and C: accuracy $(field softmax accuracy_received), epsilon $(field softmax epsilon), clipped at $(field softmax clip)"
awk -v c="$(field softmax clip)" -v n="$(field softmax noise_std)" 'BEGIN { exit !(c == 2 && n > 0.39 && n < 0.41) }' || die "not clipped and noised as the job says"
sed 's/unit: client.*/unit: example, clip: 1, noise_multiplier: 1, delta: 1e-5, sampling_rate: 0.1, examples: 80}/; s/epochs: 5/steps: 5/' \
    "$work/softmax.yaml" >"$work/example.yaml"
expect_run 5 'trainer: the unit example clips and noises inside training' cohortctl job submit "$work/example.yaml"
stop "$agents"
if ! /usr/bin/python3 -c 'import torch' 2>/dev/null; then
    echo "skipped: the PyTorch example, python3-torch is not installed"
    exit 0
fi
agents_config 1 2 '  jobs: ["*"]
  trainer: {program: [/usr/bin/python3, ./torch_trainer.py], memory: 16GiB}'
start_agents
cp "$examples/job-torch.yaml" "$work/torch.yaml"
submit torch
finishes torch 120
wait_for 60 final torch || die "no final report of torch"
awk -v a="$(field torch accuracy_received)" 'BEGIN { exit !(a >= 0.9) }' || die "torch reaches $(field torch accuracy_received)"
ok "PyTorch: accuracy $(field torch accuracy_received)"
# The same network as a list of its tensors.
sed 's/name: torch/name: listed/; s/layers: .*/tensors: [{name: fc1.weight, shape: [16, 4]}, {name: fc1.bias, shape: [16]}, {name: fc2.weight, shape: [2, 16], private: true}, {name: fc2.bias, shape: [2], private: true}]}/' \
    "$examples/job-torch.yaml" >"$work/listed.yaml"
submit listed
finishes listed 120
wait_for 60 final listed || die "no final report of listed"
awk -v a="$(field listed accuracy_received)" 'BEGIN { exit !(a >= 0.9) }' || die "listed reaches $(field listed accuracy_received)"
ok "PyTorch, tensors listed: accuracy $(field listed accuracy_received)"
expect_run 1 'has no ONNX form' cohort-agent model export --config "$work/agents.yaml" --agent site-01 --job listed --onnx "$work/listed.onnx"
