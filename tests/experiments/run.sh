#!/bin/sh
# Runs one table of methods on real data: tests/experiments/run.sh TABLE [OPTIONS of table.py]. Needs python3-yaml; pictures need
# python3-matplotlib; both are Debian packages.
#
#   TABLE          a file of tests/experiments/tables without .yaml, or a path
#   --data DIR     folder of the data sets (default: COHORT_DATA, or ../shared/data)
#   --recommend    asks cohortctl recommend, after the methods; the summary has its regret
#   --export DIR   runs nothing; writes splits, first weights and jobs for other frameworks
#   --summary      only the summary and pictures of what was run
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
[ $# -ge 1 ] || {
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    ls "$root/tests/experiments/tables" | sed -n 's/\.yaml$/  &/p'
    exit 2
}
/usr/bin/python3 -c 'import yaml' 2>/dev/null || {
    echo "skipped: python3-yaml is not installed (apt-get install python3-yaml)"
    exit 77
}
"$root/deploy/install-packages.sh"
[ -f "$root/build/build.ninja" ] || meson setup "$root/build" "$root" --buildtype=release >/dev/null
ninja -C "$root/build" server/cohortd server/ctl/cohortctl client/cohort-agent >/dev/null
exec /usr/bin/python3 "$root/tests/experiments/table.py" "$@"
