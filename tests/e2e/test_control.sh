#!/bin/sh
# What an operator does: pause, resume, drain, cancel, set, revoke, export; and the exit codes scripts rely on.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin control
make_world 4
agents_config 1 4
start_agents

# A reload says what it did not take.
expect_run 0 '^reloaded$' cohortctl reload
echo 'threads: {long: 3}' >>"$work/cohortd.yaml"
expect_run 0 '^reloaded; waits for a restart: threads$' cohortctl reload
sited() { cohort-agent status --config "$work/agents.yaml" >/dev/null 2>&1; }
wait_for 10 sited || die "no agents"
expect_run 0 '^site-03 ' cohort-agent status --config "$work/agents.yaml" --agent site-03
[ "$(cohort-agent status --config "$work/agents.yaml" --agent site-03 | grep -c '^site-')" = 1 ] || die "status --agent shows others too"
expect_run 2 'no agent nobody here' cohort-agent status --config "$work/agents.yaml" --agent nobody
expect_run 0 'read again$' cohort-agent reload --config "$work/agents.yaml"
sed -i 's/patience: 5s/patience: 6s/; s/test: 20/test: 19/' "$work/agents.yaml"
expect_run 0 'read again; waits for a restart: patience, defaults.data.test$' cohort-agent reload --config "$work/agents.yaml"

past() { [ "$(job_field round "$1")" -gt "$2" ]; }
rounds=1000000 job long 3
submit long
expect_run 1 'exists, reason 803' cohortctl job submit "$work/long.yaml"
wait_for 10 past long 2 || die "no rounds"
quorum() { cohortctl --json round show long | tr -d ' \n' | sed -n 's/.*"quorum":\([0-9]*\).*/\1/p'; }
before=$(quorum)
expect_run 0 '' cohortctl job pause long --wait
[ "$(job_field state long)" = paused ] || die "not paused"
rested=$(job_field round long)
cohortctl job set long train.lr=0.01 round.quorum=2 >/dev/null || die "job set"
[ "$(job_field round long)" = "$rested" ] || die "a paused job went on"
ok "paused after round $rested"
expect_run 78 'grid.bits is fixed.*reason 107' cohortctl job set long grid.bits=8
expect_run 78 'train.lr.*reason 104' cohortctl job set long train.lr=1000
expect_run 0 '' cohortctl job resume long
wait_for 10 past long "$((rested + 1))" || die "no rounds after resume"
cohortctl job show long >"$work/show.out"
grep -q 'train.lr: 0.01' "$work/show.out" || die "the set value is not in the description"
[ "$before" = 3 ] && [ "$(quorum)" = 2 ] || die "quorum $before before, $(quorum) after"
ok "job set: quorum 3 before round $((rested + 1)), 2 from then on"

# Enrolling once more changes nothing; another key under a name is refused, and the rest of the list is enrolled all the same.
expect_run 0 'was enrolled before: site-04' cohortctl agent enrol "$work"/pki/site-0?.crt
cohortctl pki issue "$work/pki" agent site-05 >/dev/null || die "pki issue"
expect_run 1 'site-01 is enrolled with another key' cohortctl agent enrol "$work/pki/site-05.crt" --name site-01
expect_run 1 'this key is enrolled already, as site-01' cohortctl agent enrol "$work/pki/site-01.crt" --name other
expect_run 1 '1 of 3 are not enrolled' cohortctl agent enrol "$work/pki/site-01.crt" "$work/pki/cohortd.key" "$work/pki/site-05.crt"
expect_run 0 'site-05 +away' cohortctl agent list

# Revoked: cut off now, refused from here on; the others go on.
expect_run 0 '' cohortctl agent revoke site-04
expect_log agents 'site-04.*\[212 agent-revoked\]'
expect_run 1 'revoked .*for good' cohortctl agent enrol "$work/pki/site-04.crt"
now=$(job_field round long)
wait_for 10 past long "$((now + 1))" || die "no rounds after agent revoke"
ok "rounds went on after the revocation"

# A published model is a file that other programs read.
expect_run 0 '' cohortctl model export long -o "$work/model.safetensors"
timeout 10 /usr/bin/python3 - "$work/model.safetensors" <<'PYTHON' || die "the exported model is no safetensors file"
import json, sys
blob = open(sys.argv[1], "rb").read()
size = int.from_bytes(blob[:8], "little")
head = json.loads(blob[8:8 + size])
tensors = {k: v for k, v in head.items() if k != "__metadata__"}
assert tensors and max(v["data_offsets"][1] for v in tensors.values()) == len(blob) - 8 - size, head
print("ok: exported:", ", ".join(f"{k} {v['dtype']} {v['shape']}" for k, v in tensors.items()))
PYTHON

# Models become one: the golden merge, cut into files.
timeout 10 /usr/bin/python3 - "$e2e_root/tests/golden/pcb.safetensors" "$work" <<'PYTHON' || die "no files to merge"
import json, struct, sys
blob = open(sys.argv[1], "rb").read()
size = int.from_bytes(blob[:8], "little")
head = json.loads(blob[8:8 + size])
def values(name):
    a, b = head[name]["data_offsets"]
    return blob[8 + size + a:8 + size + b]
def write(name, raw):
    text = json.dumps({"w": {"dtype": "F32", "shape": [len(raw) // 4], "data_offsets": [0, len(raw)]}}).encode()
    open(f"{sys.argv[2]}/{name}.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + raw)
each = len(values("0.base"))
write("base", values("0.base"))
for i in range(2):
    write(f"one-{i}", values("0.models")[i * each:(i + 1) * each])
write("want", values("0.merged"))
PYTHON
expect_run 0 '^2 models by pcb: [1-9][0-9]* of 300 values are not the base' \
    cohortctl model merge "$work/one-0.safetensors" "$work/one-1.safetensors" --base "$work/base.safetensors" -o "$work/pcb.safetensors"
expect_run 0 '^2 models by mean: 0 of 300 ' cohortctl model merge "$work/base.safetensors" "$work/base.safetensors" --base "$work/base.safetensors" --method mean -o "$work/mean.safetensors"
timeout 10 /usr/bin/python3 - "$work" <<'PYTHON' || die "not merged as the golden file has it"
import array, sys
def values(name):
    blob = open(f"{sys.argv[1]}/{name}.safetensors", "rb").read()
    return array.array("f", blob[8 + int.from_bytes(blob[:8], "little"):])
got, want = values("pcb"), values("want")
assert len(got) == len(want) == 300 and max(abs(a - b) for a, b in zip(got, want)) < 1e-6
assert values("mean") == values("base") != got
PYTHON
expect_run 1 'model.safetensors: .*reason' cohortctl model merge "$work/model.safetensors" --base "$work/base.safetensors" -o "$work/none.safetensors"
expect_run 2 'neither mean nor pcb' cohortctl model merge "$work/base.safetensors" --base "$work/base.safetensors" --method median -o "$work/none.safetensors"
[ ! -e "$work/none.safetensors" ] || die "a failed merge left a file"
ok "models merged by pcb as NumPy does, and by their mean"

expect_run 0 '' cohortctl job drain long --wait
[ "$(job_field state long)" = done ] || die "not done after drain"
job dropped 4
submit dropped
expect_run 0 '' cohortctl job cancel dropped --wait
[ "$(job_field state dropped)" = cancelled ] || die "not cancelled"
expect_run 1 'reason 410' cohortctl job resume dropped

expect_run 1 'no-such-job, reason 400' cohortctl job show nothing
expect_run 1 'reason' cohortctl agent revoke nobody
expect_run 2 'no command .*reason 5' cohortctl job frobnicate
expect_run 3 'reason 800' cohortctl --socket "$work/nowhere.sock" status
job waits 4
submit waits
expect_run 4 'reason 8' cohortctl --timeout 300ms job wait waits
job slow 4
expect_run 6 'job slow@[0-9]+ is submitted and goes on; .cohortctl watch slow@[0-9]+. shows it .timeout, reason 8' cohortctl --timeout 300ms job submit "$work/slow.yaml" --wait
[ "$(job_field state slow)" = running ] || die "slow is $(job_field state slow)"
expect_run 0 '' cohortctl job cancel slow
expect_run 0 '' cohortctl job cancel waits
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    chmod 0755 "$work"
    chmod 0666 "$work/cohortd.sock"
    # nobody cannot reach a build folder below a private home: its own copy
    cp "$build/server/ctl/cohortctl" "$work/cohortctl" && chmod 0755 "$work/cohortctl"
    expect_run 5 'control-peer, reason 801' setpriv --reuid 65534 --regid 65534 --clear-groups "$work/cohortctl" status
fi

# The report of a job that has just ended has its end; of one that goes on it says so.
report() { cohort-agent report --config "$work/agents.yaml" --agent site-01 "$@"; }
rounds=1 job ends 3
cohortctl job submit "$work/ends.yaml" --wait >/dev/null || die "submit --wait"
expect_run 0 '"event":"final"' cohort-agent report --config "$work/agents.yaml" --agent site-01 --job ends --wait 20s --json
expect_run 0 'ends' cohort-agent report --config "$work/agents.yaml" --agent site-01 --job ends
report --job ends | grep -q 'goes on' && die "a report with its end says it goes on"
expect_run 1 'no final line of job never after 200ms.*8 timeout' cohort-agent report --config "$work/agents.yaml" --job never --wait 200ms
rounds=1000000

# A name used again: NAME is the newest job, NAME@ID reaches the one before, whose model is not lost.
rounds=1 job again 3
submit again
finishes again
first=$(job_field id again) trained=$(job_field model again)
rounds=1000000 job again 4
submit again
[ "$(job_field id again)" != "$first" ] && [ "$(job_field id "again@$first")" = "$first" ] || die "again is $(job_field id again), before $first"
expect_run 1 'no round of job again is published.*no-such-round, reason 401' cohortctl model export again -o "$work/again.safetensors"
[ ! -e "$work/again.safetensors" ] || die "an untrained model was written"
expect_run 0 '' cohortctl model export again --round 0 -o "$work/again.safetensors"
expect_run 0 "$trained" cohortctl --json model export "again@$first" -o "$work/again.safetensors"
expect_run 0 '1/1' cohortctl watch "again@$first"
expect_run 0 'done' cohortctl job wait "again@$first"
expect_run 1 'no job again@999' cohortctl job cancel again@999
expect_run 0 '' cohortctl job cancel "again@$(job_field id again)" --wait

# More finished jobs than an agent is told of at a time: it still finds work.
rounds=1
for n in 1 2 3 4 5 6 7 8 9 10 11 12; do
    job "short-$n" 3 && submit "short-$n"
    wait_for 10 job_is "short-$n" done || die "short-$n is $(job_field state "short-$n"): the jobs done before keep the agents from work"
done
ok "12 jobs one after the other, each with its final model"
logged cohortd 'offence' && die "an honest agent was cut off: $(grep offence "$work/cohortd.log" | head -n 1)"
ok "no agent was taken for a flood"
