#!/bin/sh
# The systemd units parse, and their sandbox stays as tight as deploy/systemd/README.md says.
set -eu
cd "$(dirname "$0")/../.."
command -v systemd-analyze >/dev/null || {
    echo "systemd-analyze is not here"
    exit 77
}
for unit in cohortd cohort-agent; do
    file=deploy/systemd/$unit.service
    # systemd warns of keys and sections it does not know; binaries that are not installed are not the unit's fault.
    complaints=$(systemd-analyze verify "$file" 2>&1 | grep -F "$unit.service" | grep -v 'is not executable' || true)
    [ -z "$complaints" ] || {
        echo "$complaints"
        exit 1
    }
    systemd-analyze security --offline=true --no-pager --threshold=12 "$file" >/dev/null || {
        systemd-analyze security --offline=true --no-pager "$file" | tail -n 2
        exit 1
    }
done
echo "both units: exposure at most 1.2"
