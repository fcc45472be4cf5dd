#!/bin/sh
# deploy/demo.sh to its last line, with few sites and rounds: exit 0, a table of three columns, nothing left running. The figures mean nothing.
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
TMPDIR=$work timeout 200 "$root/deploy/demo.sh" --quick --json "$work/table.json" >"$work/out" 2>&1 || {
    echo "FAILED: exit $?"
    tail -n 30 "$work/out"
    exit 1
}
for what in '^mean  *[0-9.]*  *[0-9.]*  *[0-9.]*$' '^federated - alone: ' '^private: epsilon at most ' 'one example added or removed'; do
    grep -q "$what" "$work/out" || {
        echo "FAILED: no line like '$what'"
        cat "$work/out"
        exit 1
    }
done
/usr/bin/python3 -c 'import json, sys; t = json.load(open(sys.argv[1])); assert len(t["sites"]) == t["agents"] == 5 and t["epsilon"] <= 8 and t["bytes"] > 0, t' \
    "$work/table.json" || exit 1
left=$(find "$work" -mindepth 1 -maxdepth 1 -name 'cohort-demo.*')
[ -z "$left" ] || {
    echo "FAILED: left $left"
    exit 1
}
echo "ok: the table, and nothing is left"
