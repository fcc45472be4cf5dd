#!/bin/sh
# The chain of records: it survives kills, stands up to being read anywhere, and no line of it can be changed unnoticed.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin audit
make_world 3
agents_config 1 3 '  jobs: [{name: "*", unit: none}]'
start_agents
rounds=3 strategy=fedavg job tale 3
submit tale
cohortctl job wait tale >/dev/null || die "job wait"
kill_hard "$coordinator"
start_coordinator || die "the coordinator does not start again"
cohortctl audit export tale -o "$work/short" >"$work/export.log" || die "export"
early=$(sed -n 's/.*head //p' "$work/export.log")
ok "$(cat "$work/export.log")"
expect_run 0 'rounds .*1 to 3' cohortctl audit verify "$work/short"
[ "$(grep -c '^member' "$work/short")" = 9 ] || die "3 rounds of 3 members: $(cat "$work/short")"

# Each site keeps the coordinator's signature under what became of its updates; anybody can check it, also when nothing runs, and
# against the chain.
receipts() { cohort-agent receipts "$@" --config "$work/agents.yaml"; }
kept() { [ "$(receipts show --job "$1" | grep -c 'counted in round [123] with weight 1')" = "$2" ]; }
wait_for 15 kept tale 9 || die "receipts of 3 rounds at 3 sites: $(receipts show)"
expect_run 0 'site-02: 3 receipts, 3 of them verified, 3 stand in .*short \(0 are of rounds that it does not have\)' cohort-agent receipts verify --chain "$work/short" --config "$work/agents.yaml"
receipts export --agent site-01 >"$work/receipts"
python3 - "$work/receipts" "$work/pki/cohortd.crt" "$work/short" <<'PYTHON' || die "a receipt does not verify with openssl: $(cat "$work/receipts")"
import hashlib, json, os, subprocess, sys, tempfile
for line in open(sys.argv[1]):
    x = json.loads(line)
    with tempfile.TemporaryDirectory() as d:
        put = lambda name, data: open(os.path.join(d, name), "wb").write(data)
        put("crt", bytes.fromhex(x["certificate"])); put("sig", bytes.fromhex(x["signature"]))
        put("text", b"cohort certificate signature 1\0" + x["text"].encode())
        run = lambda *a: subprocess.run(["openssl", *a], cwd=d, check=True, capture_output=True).stdout
        put("key", run("x509", "-inform", "DER", "-in", "crt", "-pubkey", "-noout"))
        assert b"OK" in run("dgst", "-sha256", "-verify", "key", "-signature", "sig", "text")
        assert run("x509", "-inform", "DER", "-in", "crt") == open(sys.argv[2], "rb").read()
    [record] = [r for r in open(sys.argv[3]).read().split("\n\n") if f"\nround {x['round']}\n" in r]
    body, digest = record.split("digest ")
    assert hashlib.blake2b(body.encode(), digest_size=32).hexdigest() == digest.strip() == x["record"]
    member = f"member 0 {x['text'].split()[10]} {x['update']} 1 {x['update_bytes']}\n"
    assert member in body and member in x["text"], (member, x["text"])
PYTHON
ok "openssl and python agree with the receipts"
# A chain that was made anew, with another history: its records are not those that were signed.
python3 - "$work/short" "$work/forged" <<'PYTHON' || die "forging"
import hashlib, sys
out, previous = "", "0" * 64
for record in open(sys.argv[1]).read().strip().split("\n\n"):
    body = record.split("digest ")[0]
    at = body.index("member 0 ")
    body = body[:at] + body[at:].replace(" 1 ", " 2 ", 1)
    body = body[:body.index("previous ")] + "previous " + previous + "\n"
    previous = hashlib.blake2b(body.encode(), digest_size=32).hexdigest()
    out += body + "digest " + previous + "\n\n"
open(sys.argv[2], "w").write(out)
PYTHON
expect_run 0 'rounds .*1 to 3' cohortctl audit verify "$work/forged"
expect_run 1 'the chain has another record of this round .417 receipt.' cohort-agent receipts verify --chain "$work/forged" --config "$work/agents.yaml"
stop "$agents"
expect_run 0 'site-03: 3 receipts, 3 of them verified; 0 updates wait' cohort-agent receipts verify --config "$work/agents.yaml"
python3 - "$work/sites/site-01/ledger.db" <<'PYTHON' || die "tampering"
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as d:
    d.execute("UPDATE receipt SET weight = 2 WHERE round = 2")
PYTHON
expect_run 1 'receipt of round 2 of tale: not signed by this coordinator.*417 receipt' cohort-agent receipts verify --agent site-01 --config "$work/agents.yaml"
# Lost receipts are claimed again, and made again: the same content, another time.
python3 - "$work/sites/site-01/ledger.db" <<'PYTHON' || die "tampering"
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as d:
    d.execute("UPDATE receipt SET wall_ms = 0, weight = NULL, record = NULL, model = NULL, signer = NULL, signature = NULL")
PYTHON
expect_run 0 'no receipt yet' cohort-agent receipts --agent site-01 --config "$work/agents.yaml"
start_agents
wait_for 15 kept tale 9 || die "lost receipts are not made again: $(receipts show)"
expect_run 0 'site-01: 3 receipts, 3 of them verified' cohort-agent receipts verify --chain "$work/short" --config "$work/agents.yaml"

# A second job, killed in the middle, goes on with the same chain.
rounds=200 strategy=fedavg job long 3
submit long
early_round() { [ "$(job_field round long)" -ge 2 ]; }
wait_for 20 early_round || die "no round"
cohortctl audit export long -o "$work/first" >"$work/export.log" || die "export"
head=$(sed -n 's/.*head //p' "$work/export.log")
kill_hard "$coordinator"
start_coordinator || die "the coordinator does not start again"
cohortctl job wait long >/dev/null || die "job wait"
cohortctl audit export long -o "$work/chain" >/dev/null || die "export"
expect_run 0 'rounds .*1 to 200' cohortctl audit verify "$work/chain"
expect_run 0 'earlier head .*is the record of round' cohortctl audit verify "$work/chain" --head "$head"
expect_run 1 'head is not in it.*audit' cohortctl audit verify "$work/chain" --head "$early"
update=$(cohort-agent ledger --config "$work/agents.yaml" --agent site-02 --json | sed -n 's/.*"update": *"\([0-9a-f]*\)".*/\1/p' | tail -n 1)
[ -z "$update" ] || expect_run 0 'update .*in round' cohortctl audit verify "$work/chain" --update "$update"
plan=$(sed -n 's/^plan //p' "$work/chain" | head -n 1)
expect_run 0 '200 of these rounds ran this text' cohortctl audit verify "$work/chain" --plan "$plan"

# Whatever line is changed, left out, doubled or exchanged: it does not verify.
lines=$(wc -l <"$work/short")
at=1
while [ $at -le "$lines" ]; do
    for change in "${at}s/./x/" "${at}s/1/2/;${at}s/0/1/" "${at}d" "${at}p" "${at}{h;d};$((at + 1)){G}"; do
        sed "$change" "$work/short" >"$work/changed"
        cmp -s "$work/short" "$work/changed" && continue
        cohortctl audit verify "$work/changed" >"$work/verify.log" 2>&1 && die "line $at, '$change': verified"
        grep -q 'reason 609' "$work/verify.log" || die "line $at, '$change': $(cat "$work/verify.log")"
    done
    at=$((at + 1))
done
ok "$lines lines, each changed, left out, doubled and exchanged: never verified"
head -c $(($(wc -c <"$work/short") - 2)) "$work/short" >"$work/changed"
expect_run 1 'a line without an end|empty line' cohortctl audit verify "$work/changed"
# Records left out in front are said to be missing, in the middle they are noticed.
sed "1,/^\$/d" "$work/short" >"$work/changed"
expect_run 0 'records of earlier rounds are not in this file' cohortctl audit verify "$work/changed"
awk 'BEGIN { RS = ""; ORS = "\n\n" } NR != 2' "$work/short" >"$work/changed"
expect_run 1 'not the round that follows' cohortctl audit verify "$work/changed"
expect_run 1 'no records' cohortctl audit verify /dev/null
expect_run 1 'no job' cohortctl audit export nothing -o "$work/none"
[ ! -e "$work/none" ] || die "a failed export left a file"
