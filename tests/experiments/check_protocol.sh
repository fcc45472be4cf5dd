#!/bin/sh
# That both sides of the published protocol do the same thing before their results are compared: the same images at every
# site, a generator step in PyTorch that is what torch.optim does, and one round of every job by our trainer.
#
#   check_protocol.sh PROTOCOL SOURCE_ROOT
set -eu
protocol=$1
here=$2/tests/experiments
data=$2/tests/data/fashion-mnist
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Networks only: fixed features have tests of their own, and are slow under the sanitizers. Small sites: the shipped images are few.
# Sizes that do not divide evenly, and enough that every class wraps around.
jobs=$(ls "$here"/protocol/*.yaml | grep -v scattering)
# shellcheck disable=SC2086
"$protocol" --data "$data" --out "$work/ours.csv" --state "$work" --train 40 --test 40 --rounds 1 --seeds 1 $jobs
rows=$(grep -cE '^[a-z0-9_]+,1,[12],' "$work/ours.csv")
count=$(echo "$jobs" | wc -l)
[ "$rows" = $((2 * count)) ] || { echo "$rows rows of $count jobs"; exit 1; }
# A second call goes on from the state: no round is trained again, the last model is tested again and is the same.
# shellcheck disable=SC2086
"$protocol" --data "$data" --out "$work/again.csv" --state "$work" --train 40 --test 40 --rounds 1 --seeds 1 $jobs
grep ',1,2,' "$work/ours.csv" >"$work/last"
grep -v '^method' "$work/again.csv" | cmp - "$work/last"

/usr/bin/python3 -c 'import numpy, torch' 2>/dev/null || {
    echo "skipped: python3-torch or python3-numpy is not installed"
    exit 77
}
for size in "--train 203 --test 207" "--train 60 --test 240"; do
    # shellcheck disable=SC2086
    "$protocol" --data "$data" --digests $size >"$work/ours"
    # shellcheck disable=SC2086
    /usr/bin/python3 "$here/pytorch_protocol.py" --data "$data" --digests $size >"$work/theirs"
    cmp "$work/ours" "$work/theirs"
done
/usr/bin/python3 "$here/pytorch_protocol.py" --self-check
