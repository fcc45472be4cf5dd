#!/bin/sh
# Samples per CPU second with one thread, ours and PyTorch's in the same run: tests/bench/train.sh [BUILD]
# JSON lines of both, then a table of ratios. Without python3-torch our figures alone, and it says so.
set -eu
here=$(dirname "$0")
build=${1:-build}
out=$(mktemp)
trap 'rm -f "$out"' EXIT INT TERM
"$build/tests/bench/bench_train" | tee "$out"
if /usr/bin/python3 -c 'import torch' 2>/dev/null; then
    /usr/bin/python3 "$here/pytorch_train.py" | tee -a "$out"
else
    echo "skipped PyTorch: python3-torch is not installed (apt-get install python3-torch)"
fi
exec /usr/bin/python3 - "$out" <<'EOF'
import json
import sys

ours, theirs = {}, {}
for line in open(sys.argv[1]):
    row = json.loads(line)
    if "by" in row and "samples_per_cpu_s" in row:
        side = theirs if row["by"] == "pytorch" else ours
        side[row["bench"], row["threads"]] = row["samples_per_cpu_s"]
print("\n| samples per CPU second | threads | cohort | PyTorch | ratio |\n| --- | --- | --- | --- | --- |")
for (name, threads), rate in ours.items():
    peer = theirs.get((name, threads))
    print(f"| {name} | {threads} | {rate:,} | " + (f"{peer:,} | {rate / peer:.2f} |" if peer else "- | - |"))
EOF
