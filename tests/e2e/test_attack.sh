#!/bin/sh
# `cohortctl selftest attack`: of a job without noise it finds the input, of one with the usual noise flat grey, and it says so when the
# noise is too small. No daemon is needed.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin attack build
cat >"$work/job.yaml" <<'JOB'
name: attacked
strategy: hyperfl
rounds: 3
model: {input: [1, 14, 14], classes: 10, head: 1, layers: [{flatten: }, {linear: {out: 32}}, {leaky_relu: {slope: 0}}, {linear: {out: 10}}]}
hypernetwork: {kind: affine, embedding: 16, hidden: 20}
data: {mean: [0.3], std: [0.4]}
train: {steps: 4, lr: 0.1}
round: {members: 3}
grid: {bits: 30, step: -26}
JOB
tell() { python3 -c "import json; d=json.load(open('$work/out')); print(round($1, 1))"; }
check() { python3 -c "import json,sys; d=json.load(open('$work/out')); assert $1, d"; }

cohortctl --json selftest attack "$work/job.yaml" --seed 3 >"$work/out" || die "a job without noise: $(cat "$work/out")"
check 'd["noised"] is False and d["holds"] is None and d["has_power"]'
check 'd["inversion"]["noise_off"]["psnr"] > 100 and d["inversion"]["noise_off"]["psnr"] > d["inversion"]["noise_off"]["limit"] - 3'
check 'd["imprint"]["agents_refuse"] and 5 < d["inversion"]["noise_off"]["grey"] < 25'
ok "without noise: $(tell 'd["inversion"]["noise_off"]["psnr"]') dB"

echo 'privacy: {unit: client, clip: 1, noise_multiplier: 0.7, delta: 1e-5}' >>"$work/job.yaml"
sed -i 's/step: -26/step: -22/' "$work/job.yaml"
cohortctl --json selftest attack "$work/job.yaml" --seed 3 >"$work/out" || die "the usual noise: $(cat "$work/out")"
check 'd["holds"] and d["has_power"] and d["inversion"]["as_configured"]["most_above_grey"] <= 1'
check 'd["imprint"]["as_configured"]["found"] == 0 and d["membership"]["as_configured"]["epsilon_lower"] < d["epsilon_claimed"]'
ok "with noise: at most $(tell 'd["inversion"]["as_configured"]["most_above_grey"]') dB above flat grey"

cohortctl selftest attack "$work/job.yaml" --seed 3 --set privacy.noise_multiplier=0.0005 >"$work/out" 2>&1
[ $? = 5 ] || die "noise that is too small: $(cat "$work/out")"
grep -q 'better than flat grey: the noise is too small' "$work/out" || die "$(cat "$work/out")"
ok "$(grep -o 'a site.s input is recognised.*' "$work/out")"
sed -i 's/strategy: hyperfl/strategy: local/; /hypernetwork/d' "$work/job.yaml"
expect_run 78 'nothing leaves a site' cohortctl selftest attack "$work/job.yaml"
