#!/bin/sh
# Power loss and kills, on the store alone.
#
#   1. A run of rounds is journalled; after (nearly) every record the power fails, and whatever the disk may then hold must
#      keep every promise made so far and carry on.
#   2. The same with one kind of sync left out, or bytes recorded before they are sealed: the test must notice, or it proves nothing.
#   3. Chains of kills: killed before its n-th change of the folder, restarted on what programs still see or, after a power
#      failure, on what the disk may hold. Promises accumulate over the whole chain. This finds what (1) cannot: a killed
#      process leaves things that the next one sees but that were never synced.
#
# usage: test_power.sh SHIM TOOL DRIVER      SEED=n repeats a chain; PARTS="3" does only that part; TESTS_LONG=1: many more of each
set -u
shim=$1 tool=$2 driver=$3
long=${TESTS_LONG:-0}
seed=${SEED:-$(date +%s)}
base=/dev/shm
[ -w $base ] || base=/tmp
work=$(mktemp -d $base/store-power.XXXXXX) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
export ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0"
bad=0
parts=" ${PARTS:-1 2 3} "
part() { case $parts in *" $1 "*) return 0 ;; *) return 1 ;; esac }

# shimmed COMMAND...: on $work/state, journalled.
shimmed() {
    POWERFAIL_DIR=$work/state POWERFAIL_LOG=$work/journal LD_PRELOAD=$shim "$@"
}

fresh() {
    rm -rf "${work:?}/state" "$work/run" "$work/journal"
    mkdir "$work/state" "$work/run"
    "$tool" begin "$work/journal" "$work/state"
}

# The journal must tell the truth: what it says that programs see is what is there.
agrees() {
    rm -rf "$work/copy"
    "$tool" rebuild "$work/journal" "$work/copy" keep && diff -r "$work/state" "$work/copy" >"$work/diff" && return 0
    echo "THE JOURNAL IS WRONG:"
    head -n 5 "$work/diff"
    bad=1
}

# explore ROUNDS EVERY SEEDS SKIP [VARIANT]: status of the exploration; the last line of its output in $said.
explore() {
    fresh
    POWERFAIL_SKIP=$4 shimmed "$driver" act "$work/state" "$1" 1 ${5:+"$5"} >/dev/null || {
        said="the run failed"
        return 2
    }
    agrees
    "$tool" explore "$work/journal" "$work/run" "$2" "$3" "$driver" verify >"$work/out" 2>"$work/err"
    status=$?
    said=$(tail -n 1 "$work/out")
    return $status
}

# ---- 1 ----
must_survive() {
    if explore "$2" "$3" "$4" ''; then
        echo "every state survives, $1: $said"
    else
        echo "NOT SURVIVED, $1: $said"
        head -n 12 "$work/err"
        bad=1
    fi
}
if part 1 && [ "$long" = 1 ]; then
    must_survive "all records of two rounds" 2 1 6
    must_survive "fifty rounds, the log is folded back" 50 23 2
elif part 1; then
    must_survive "two rounds" 2 5 1
    must_survive "twenty rounds, the log is folded back" 20 101 1
fi

# ---- 2 ----
must_notice() {
    part 2 || return 0
    if explore 1 9 1 "$2" "${3:-}" || [ $? != 1 ]; then
        echo "NOT NOTICED: $1: $said"
        bad=1
    else
        echo "noticed: $1: $said"
    fi
}
must_notice "no folder is ever synced" dir
must_notice "no file is ever synced" file
must_notice "the write-ahead log is not synced" 'cohortd.db-wal'
must_notice "the state folder is not synced" .
must_notice "spool/ is not synced" spool
must_notice "the folders of uploads are not synced" 'spool/*-?'
must_notice "uploads are not synced" 'spool/*.part'
must_notice "models/ is not synced" models
must_notice "the folder of checkpoints is not synced" 'models/????????????????????????????????'
must_notice "checkpoints are not synced" 'models/*.new'
must_notice "uploads are recorded before they are sealed" '' unsealed

# ---- 3 ----
random() { # random N: 0..N-1 in $picked
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    picked=$((seed / 65536 % $1))
}
if [ "$long" = 1 ]; then chains=40; else chains=6; fi
part 3 && echo "chains of kills from SEED=$seed"
kills=0 failures=0 chain=0
while part 3 && [ $chain -lt $chains ] && [ $bad = 0 ]; do
    chain=$((chain + 1))
    fresh
    : >"$work/facts"
    link=0
    while [ $link -lt 12 ]; do
        link=$((link + 1))
        # Right before a sync, and then again before the next one: what stays unsynced over two lives.
        random 3
        case $picked in
        0) random 160 && at=any:$((picked + 1)) ;;
        1) random 16 && at=any:$((picked + 1)) ;;
        *) random 40 && at=sync:$((picked + 1)) ;;
        esac
        POWERFAIL_KILL=$at shimmed "$driver" act "$work/state" 9 $seed >>"$work/facts" 2>"$work/err"
        status=$?
        [ $status = 137 ] && kills=$((kills + 1))
        if [ $status != 137 ] && [ $status != 0 ]; then
            echo "chain $chain, link $link: exit $status"
            cat "$work/err"
            bad=1
            break
        fi
        "$tool" reconcile "$work/journal" "$work/state" || bad=1
        agrees
        random 4
        case $picked in
        0) mode=keep ;;
        1) mode=drop ;;
        2) mode=prefix ;;
        *) mode=subset ;;
        esac
        rm -rf "$work/copy"
        "$tool" rebuild "$work/journal" "$work/copy" $mode $seed || bad=1
        random 2
        if [ "$picked" = 0 ] && [ $mode != keep ]; then
            # The power did fail: go on from there.
            failures=$((failures + 1))
            rm -rf "$work/state"
            cp -a "$work/copy" "$work/state"
            "$tool" begin "$work/journal" "$work/state"
        fi
        if ! "$driver" verify "$work/copy" "$work/facts" 2>"$work/err"; then
            echo "chain $chain, link $link, $mode:"
            cat "$work/err"
            bad=1
            break
        fi
    done
done
part 3 && echo "$kills kills, each followed by a rebuilt state that was checked; $failures times the chain went on from it after a power failure"
exit $bad
