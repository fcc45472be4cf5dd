#!/bin/sh
# The site sees what leaves it, tensor by tensor, and with hold: approve nothing is paid for or leaves before its word.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin outbox
make_world 1
agents_config 1 1 '  jobs: ["*"]
  hold: approve
  privacy: {unit: client, epsilon: 100000, delta: 1e-5}'
start_agents
outbox() { cohort-agent outbox "$@" --config "$work/agents.yaml"; }
releases() { cohort-agent ledger --json --config "$work/agents.yaml" | grep -o '"acknowledged"' | wc -l; }
waits() { outbox show | grep -q 'waits for approval'; }
noise='privacy: {unit: client, clip: 0.5, noise_multiplier: 1, delta: 0.00001}'

rounds=2 deadline=30s job held 1 "$noise"
submit held
wait_for 15 waits || die "nothing waits: $(outbox show)"
[ "$(releases)" = 0 ] || die "it was paid for before anybody approved"
sleep 1
[ "$(job_field round held)" = 0 ] || die "it left before anybody approved"
ok "the first update waits, nothing is paid for, nothing left"
expect_run 0 'fc1.weight \(64\)' cohort-agent outbox --config "$work/agents.yaml"
expect_run 0 'norm [0-9.]+ before the clip, [0-9.]+ behind it \(clip 0.5\); noise of standard deviation 0.5' cohort-agent outbox --config "$work/agents.yaml"
outbox show --json >"$work/outbox"
python3 - "$work/outbox" "$work"/sites/site-01/outbox <<'PYTHON' || die "the outbox shows something else than what waits: $(cat "$work/outbox")"
import hashlib, json, os, sys
[update] = json.load(open(sys.argv[1]))["waiting"]
data = open(os.path.join(sys.argv[2], update["update"]), "rb").read()
assert hashlib.blake2b(data, digest_size=32).hexdigest() == update["update"]
assert len(data) == update["update_bytes"]
assert sum(t["elements"] for t in update["tensors"]) * 16 == len(data) * 8
assert 0 < update["norm_after"] <= update["clip"] == 0.5 and update["norm_after"] <= update["norm_before"] * 1.05
assert update["state"] == "waits for approval" and update["unit"] == "client"
PYTHON
ok "digest, bytes, tensors and norms are those of the file that waits"
digest=$(sed -n 's/.*"update":"\([0-9a-f]*\)".*/\1/p' "$work/outbox" | head -n 1)
expect_run 2 'no such update waits' cohort-agent outbox approve --update 00000000000000000000000000000000000000000000000000000000000000ff --config "$work/agents.yaml"
expect_run 2 '64 hex digits' cohort-agent outbox approve --update 12 --config "$work/agents.yaml"
expect_run 2 'no agent nobody here' cohort-agent outbox approve --agent nobody --config "$work/agents.yaml"
short=$(printf %.8s "$digest")
expect_run 0 "site-01: approved held round 1, update $short.*ledger, and its 160 bytes go to the coordinator now" \
    cohort-agent outbox approve --update "$short" --config "$work/agents.yaml"
one_left() { [ "$(job_field round held)" = 1 ]; }
wait_for 15 one_left || die "approved, and yet round $(job_field round held)"
expect_run 0 'left: acknowledged' cohort-agent outbox --config "$work/agents.yaml"

# The next one is rejected: declined with a reason that the operator sees, never paid for, its bytes gone.
wait_for 15 waits || die "the second update does not wait"
[ "$(outbox show | grep -En 'round ' | sed -n 1p | grep -c 'waits for approval')" = 1 ] || die "what waits is not listed first: $(outbox show)"
expect_run 0 'site-01: rejected held round 2.*nothing of it leaves.*509 rejected' cohort-agent outbox reject --config "$work/agents.yaml"
expect_log cohortd 'site-01.*declines round 2 of held.*\[509 rejected\]'
[ "$(releases)" = 1 ] || die "$(releases) releases, one was approved"
cohortctl job cancel held >/dev/null

# Stopped while it waits: nothing is lost and nothing left; the same bytes wait again.
rounds=1 deadline=60s job later 1 "$noise"
submit later
wait_for 15 waits || die "nothing waits"
digest=$(outbox show --json | sed -n 's/.*"waiting":\[{[^[]*"update":"\([0-9a-f]*\)".*/\1/p')
stop "$agents"
expect_run 0 'site-01: [01] waiting' cohort-agent outbox --config "$work/agents.yaml"
start_agents
wait_for 15 waits || die "nothing waits after the restart"
again=$(outbox show --json | sed -n 's/.*"waiting":\[{[^[]*"update":"\([0-9a-f]*\)".*/\1/p')
[ -n "$digest" ] && [ "$digest" = "$again" ] || die "another update waits after a restart: $digest, $again"
ok "the same update waits after a restart: $digest"
# A withdrawal ends the waiting at once.
expect_run 0 '' cohort-agent withdraw --config "$work/agents.yaml" --job later
expect_log cohortd 'site-01.*declines round 1 of later.*\[503 withdrawn\]'
waits && die "it still waits"
[ "$(releases)" = 1 ] || die "$(releases) releases, one was approved"
ok "a withdrawal ends the waiting"
