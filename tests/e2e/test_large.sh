#!/bin/sh
# Data larger than the memory a site gives: 100 MB of pixels, 400 MB as numbers, are read where they lie; the same through gzip and as a
# table go to a file without a name. The agent's own memory stays small, and training gives the bits it gives with everything in memory.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin large
make_world 1
rows=32768
npy() { # TYPE SHAPE: a header of 128 bytes
    printf '\223NUMPY\001\000\166\000'
    printf "%-117s\n" "{'descr': '$1', 'fortran_order': False, 'shape': ($2), }"
}
{ npy '|u1' "$rows, 3, 32, 32"; awk 'BEGIN { for (i = 0; i < 65536; i++) printf "%c", 1 + i % 127 }'; } >"$work/x.npy"
truncate -s $((128 + rows * 3072)) "$work/x.npy"
{ npy '|u1' "$rows,"; head -c $rows /dev/zero | tr '\0' '\001'; } >"$work/y.npy"
printf '\000' | dd of="$work/y.npy" bs=1 seek=128 conv=notrunc 2>/dev/null
gzip -1 <"$work/x.npy" >"$work/x.npy.gz"
cat >"$work/large.yaml" <<'JOB'
name: large
strategy: fedavg
rounds: 1
seed: 3
model: {input: [3, 32, 32], classes: 2, layers: [{flatten: }, {linear: {out: 2}}]}
round: {members: 1, deadline: 120s}
train: {batch: 64, steps: 60, lr: 0.01}
JOB
# once NAME DATA MiB: one federation from nothing with these data; its agent must have needed less than so much.
once() {
    agents_config 1 1
    sed -i "s|^  data: .*|  data: {format: npy, train_y: y.npy, test: 500, $2}|" "$work/agents.yaml"
    new_world
    submit large
    cohort-agent prepare --config "$work/agents.yaml" --incarnation "$(job_field incarnation large)" --rounds 1 --seed 5 >/dev/null 2>&1
    start_agents
    finishes large 120 >/dev/null
    peak=$(($(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$agents/status") / 1024))
    anonymous=$(($(sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$agents/status") / 1024))
    cohortctl model export large -o "$work/out" >/dev/null || die "export"
    sed 's/"incarnation":"[^"]*"//g' "$work/out" | cksum >"$work/$1.sum"
    stop "$agents"
    ok "$1: peak $peak MiB, of its own now $anonymous MiB"
}
once held 'train_x: x.npy, memory: 2GiB'
[ "$peak" -gt 300 ] || die "the data are not in memory: nothing is compared"
once direct 'train_x: x.npy, memory: 1MiB'
[ "$peak" -lt 200 ] || die "a peak of $peak MiB"
once unpacked 'train_x: x.npy.gz, memory: 1MiB'
[ "$anonymous" -lt 200 ] || die "$anonymous MiB of its own"
cmp -s "$work/held.sum" "$work/direct.sum" && cmp -s "$work/held.sum" "$work/unpacked.sum" || die "the models differ"
ok "three times the same model"
