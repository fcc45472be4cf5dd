#!/bin/sh
# Secure aggregation with a member that cheats: it is out, by a reason, and nobody else is.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin secure-cheats
. "$(dirname "$0")/secure_world.sh"

bare_of four

# ---- an agent that cheats is out, by a reason, and nobody else is ----
hows='garbage forged' # one for each reason
[ "${TESTS_LONG:-0}" = 0 ] || hows="$hows short stolen"
for how in $hows; do
    deadline=4s
    begin masked 2 "$secure"
    deadline=''
    start_agents
    python3 "$e2e_root/tests/e2e/secure_hostile.py" "$port" "$work/pki" site-05 masked $how || die "$how"
    finishes masked 40 >/dev/null
    export_to masked cheated
    same_as fedavg-four cheated
    stop "$agents"
done
ok "the sum is of the other four, each time"

# ---- one whose shares nobody can read ends one round, and is in none of the next; so it is for an auditor ----
given_up() { grep -c 'is given up' "$work/cohortd.log" || true; }
before=$(given_up)
rounds=2 fill=4s deadline=4s attempts='' begin masked 2 "$secure"
start_agents
python3 "$e2e_root/tests/e2e/secure_hostile.py" "$port" "$work/pki" site-05 masked shares || die "shares"
expect_log cohortd 'round 1 is given up.*(secagg-too-few|secagg-share)'
expect_log cohortd 'site-05 sits out of round 2: 4 others and it cannot read'
stop "$coordinator"
start_coordinator || die "no start"
expect_run 0 'given up' cohortctl audit replay masked 1
start_last
finishes masked 40
expect_log cohortd 'site-05 sits out of round 3: 4 others and it cannot read' # known again from the checkpoint, and passed on
grep -q 'masked round 2' "$work/last.log" && die "it is asked into another round"
[ "$(given_up)" = $((before + 1)) ] || die "it made more than one round fail"
end_all
ok "an agent whose shares cannot be read sits out"

# ---- one that cheats a single neighbour: the two are not put together again, and its next victim gives it away ----
if tr '{' '\n' <"$build/meson-info/intro-buildoptions.json" | grep '"seeded_leaks"' | grep -q '"value": true'; then
    rounds=4 fill=3s deadline=4s attempts='' begin masked 2 "$secure"
    start_agents
    start_last COHORT_SEEDED_LEAK=shares
    expect_log cohortd "sits out of round 2: 1 other and it cannot read each other's shares"
    expect_log cohortd 'site-05 sits out of round [34]: 2 others'
    finishes masked 40
    [ "$(given_up)" = $((before + 1)) ] || die "a round was given up"
    end_all
    ok "$(grep 'site-05 sits out.*2 others' "$work/cohortd.log" | head -n 1)"
fi

