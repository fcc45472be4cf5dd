#!/bin/sh
# The site's ledger is checked by anybody; an old copy of it, a damaged one, one of somebody else and one that cannot be written
# release nothing, and the operator sees why.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin ledger
make_world 2
agents_config 1 1 '  jobs: ["*"]
  privacy: {unit: client, epsilon: 100000, delta: 1e-5}'
start_agents
ledger() { cohort-agent ledger "$@" --config "$work/agents.yaml"; }
file=$work/sites/site-01/ledger.db
noise='privacy: {unit: client, clip: 0.5, noise_multiplier: 1, delta: 0.00001}'

rounds=2 job first 1 "$noise"
submit first
finishes first

# While it runs and when it does not: the same entries, which follow from each other.
expect_run 0 'entries, every one follows' cohort-agent ledger verify --config "$work/agents.yaml"
ledger export >"$work/online" || die "ledger export"
stop "$agents"
ledger export >"$work/offline" || die "ledger export"
cmp "$work/online" "$work/offline" || die "the export differs when nothing runs"
expect_run 0 '^[0-9]+ entries follow' python3 "$e2e_root/tests/e2e/ledger_chain.py" <"$work/online"
sed '4s/"wall_ms":1/"wall_ms":2/' "$work/online" >"$work/changed"
expect_run 1 'entry 3 does not follow' python3 "$e2e_root/tests/e2e/ledger_chain.py" <"$work/changed"

# A copy from before the next job comes back: a sound ledger in itself.
cp -p "$file" "$work/old.db"
start_agents
rounds=2 job second 1 "$noise"
submit second
finishes second
expect_run 0 'ledger +4 releases' cohortctl agent show site-01
expect_run 0 'first +2 .* its own' cohortctl agent models site-01
expect_run 0 'second +2 .* its own' cohortctl agent models site-01
expect_run 0 'no published model' cohortctl agent models site-02
stop "$agents"
cp -p "$file" "$work/new.db"
cp -p "$work/old.db" "$file"
rm -f "$file-wal"
expect_run 0 'every one follows' cohort-agent ledger verify --config "$work/agents.yaml"
rounds=1 job third 1 "$noise"
submit third
start_agents
expect_log agents 'old copy: it holds 2 releases to this coordinator, which has seen 4'
expect_log cohortd 'site-01.*declines round 1 of third.*\[504 ledger\]'
explained() { cohortctl --json round explain third | grep -q '"reason": *504'; }
wait_for 10 explained || die "round explain does not say 504: $(cohortctl --json round explain third)"
ok "round explain: $(cohortctl round explain third | grep -i 'site-01' | head -n 1)"
stop "$agents"
ledger export | grep -q '"job":"third"' && die "something was released of an old ledger"
# The coordinator keeps what it has seen over its own restart, and the newer ledger is welcome again.
stop "$coordinator"
start_coordinator || die "the coordinator does not come back"
expect_run 0 'ledger +4 releases' cohortctl agent show site-01
cp -p "$work/new.db" "$file"
rm -f "$file-wal"
start_agents
again() { job_is third paused && cohortctl job resume third >/dev/null 2>&1; job_is third done; }
wait_for 30 again || die "job third is $(job_field state third)"
ok "with the newer ledger back the job is done"
stop "$agents"

# Each of these ends the agent before anything is asked for.
refused() {
    expect_run 1 "$1" cohort-agent --config "$work/agents.yaml" --once
    cp -p "$work/new.db" "$file"
    rm -f "$file-wal"
}
cp -p "$file" "$work/new.db"
printf 'garbage garbage garbage' | dd of="$file" bs=1 seek=4096 conv=notrunc 2>/dev/null
refused 'ledger.*\[504 ledger\]'
python3 - "$file" <<'PYTHON'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("UPDATE entry SET sigma = 100 WHERE seq = 2")
db.commit()
PYTHON
refused 'entry 2 was changed.*\[504 ledger\]'
python3 - "$file" <<'PYTHON'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("UPDATE meta SET owner = zeroblob(32)")
db.commit()
PYTHON
refused 'belongs to another agent.*\[504 ledger\]'
chmod 644 "$file"
refused 'others could read it.*\['
if mkdir "$work/disk" && mount -t tmpfs -o size=4m none "$work/disk" 2>/dev/null; then
    cp -pr "$work/sites" "$work/disk/"
    mount -o remount,ro "$work/disk"
    sed "s|^state: sites|state: disk/sites|" "$work/agents.yaml" >"$work/readonly.yaml"
    expect_run 1 '[Rr]ead-only.*\[' cohort-agent --config "$work/readonly.yaml" --once
    umount "$work/disk"
else
    echo "skipped: a read-only disk needs the right to mount"
fi
expect_run 0 'every one follows' cohort-agent ledger verify --config "$work/agents.yaml"
