#!/bin/sh
# Fixed features, closed forms and batch norm by the real daemons: four sites of 300 real images each. A head in closed form on scattering
# features serves after one round, alone and from the moments of all sites; norms that stay at home are each site's own. What a privacy unit
# does not cover is refused.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin features build
make_world 4
images=$(cd "$(dirname "$0")/../data/fashion-mnist" && pwd)
agents_config 1 1
sed -i '/^defaults:/,$d' "$work/agents.yaml"
cat >>"$work/agents.yaml" <<EOF2
defaults:
  data:
    format: idx
    train_x: $images/train-images-idx3-ubyte.gz
    train_y: $images/train-labels-idx1-ubyte.gz
    test_x: $images/test-images-idx3-ubyte.gz
    test_y: $images/test-labels-idx1-ubyte.gz
    classes: 10
    partition: dirichlet
    alpha: 5
    train: 300
    test: 100
  jobs: ["*"]
agents:
EOF2
for k in 1 2 3 4; do
    echo "  - {name: site-0$k, certificate: pki/site-0$k.crt, key: pki/site-0$k.key, data: {client: $k, of: 4}}" >>"$work/agents.yaml"
done
start_agents
# text NAME STRATEGY ROUNDS LAYERS TRAIN MORE
text() {
    cat >"$work/$1.yaml" <<EOF2
name: $1
strategy: $2
rounds: $3
seed: 3
model: {input: [1, 28, 28], classes: 10, head: 1, layers: [$4, {flatten: {}}, {linear: {out: 10}}]}
round: {members: 4, quorum: 4, deadline: 60s}
grid: {bits: 32, step: -24}
train: {$5}
${6:-}
EOF2
}
all_final() { [ "$(cat "$work"/sites/*/report.jsonl 2>/dev/null | grep '"final": *true' | grep -c "\"job\": *\"$1\"")" = 4 ]; }
# run NAME LEAST: mean accuracy of what serves the sites
run() {
    submit "$1"
    finishes "$1" >/dev/null
    wait_for 30 all_final "$1" || die "not every site has the final model of $1"
    mean=$(cat "$work"/sites/*/report.jsonl | grep '"final": *true' | grep "\"job\": *\"$1\"" | sed -n 's/.*"accuracy_received": *\([0-9.]*\).*/\1/p' |
        awk '{ s += $1 } END { print s / NR }')
    awk "BEGIN { exit !($mean >= $2) }" || die "$1: mean accuracy $mean"
    ok "$1: mean accuracy $mean"
}
scattering='{scattering: {scales: 2, angles: 4, root: true}}'
text alone local 1 "$scattering" 'solver: ridge, lambda: 0.0003'
run alone 0.75
text together fedavg 1 "$scattering" 'solver: ridge, lambda: 0.0003' 'weights: examples'
run together 0.75
text norms fedbn 6 '{conv2d: {out: 8, kernel: 5}}, {batch_norm: {}}, {relu: {}}, {max_pool: {size: 4}}' 'batch: 20, epochs: 2, lr: 0.05'
run norms 0.65

cohort-agent model export --config "$work/agents.yaml" --agent site-01 --job together --onnx "$work/together.onnx" >/dev/null || die "export"
cohort-agent model export --config "$work/agents.yaml" --agent site-01 --job norms --onnx "$work/norms.onnx" >/dev/null || die "export"
[ -s "$work/together.onnx" ] && [ -s "$work/norms.onnx" ] || die "empty exports"
ok "both are exported as ONNX"

expect_run 5 'batch norm.*group_norm' sh -c "cohortctl job submit '$work/norms.yaml' --set name=examples \
    --set 'privacy={unit: example, clip: 1, noise_multiplier: 1, delta: 0.0001, sampling_rate: 0.1, examples: 300}' --set train.steps=5 2>&1"
expect_run 5 'no row in the table of releases' sh -c "cohortctl job submit '$work/together.yaml' --set name=sites --set weights=equal \
    --set 'privacy={unit: client, clip: 1, noise_multiplier: 1, delta: 0.0001}' 2>&1"
