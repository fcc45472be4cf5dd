#!/bin/sh
# Every call that changes the state folder fails once, and then from some point on for good: no space, an I/O error, a short write.
# However the run ends: it does not crash, it says a reason; after a power failure at its end every promise is kept; and once
# the disk works again, work goes on from what is there.
#
# usage: test_faults.sh SHIM TOOL DRIVER      TESTS_LONG=1: every call instead of every seventh
set -u
shim=$1 tool=$2 driver=$3
step=7
[ "${TESTS_LONG:-0}" = 1 ] && step=1
base=/dev/shm
[ -w $base ] || base=/tmp
work=$(mktemp -d $base/store-faults.XXXXXX) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
export ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0"
bad=0

complain() {
    echo "FAILED $fault: $1"
    tail -n 5 "$work/err"
    bad=1
}

# one KIND N ERRNO: 1 when there was no such call any more.
one() {
    fault=$1:$2:$3
    rm -rf "${work:?}/state" "$work/copy" "$work/journal"
    mkdir "$work/state"
    "$tool" begin "$work/journal" "$work/state"
    POWERFAIL_FAIL=$fault POWERFAIL_DIR=$work/state POWERFAIL_LOG=$work/journal LD_PRELOAD=$shim \
        "$driver" act "$work/state" 1 1 retry >"$work/facts" 2>"$work/err"
    status=$?
    struck=$(sed -n 's/^struck //p' "$work/err")
    reason=$(sed -n 's/^reason \([0-9]*\):.*/\1/p' "$work/err")
    [ "${struck:-x}" = 0 ] && [ $status = 0 ] && return 1
    case $status:$reason in
    0:) survived=$((survived + 1)) ;;                      # nothing, or tried again
    1:600 | 1:604 | 1:605) stopped=$((stopped + 1)) ;;     # cannot open, durability failed, disk full
    *) complain "exit $status, reason '$reason'" ;;
    esac
    # A single lack of space is gone when it is tried again.
    case $3:$2 in
    ENOSPC:*+ | SHORT:*) ;;
    ENOSPC:*) [ $status = 0 ] || [ "$1" = sync ] || [ "$reason" = 600 ] || complain "did not go on when there was space again" ;;
    esac
    "$tool" rebuild "$work/journal" "$work/copy" drop || complain "rebuild"
    "$driver" verify "$work/copy" "$work/facts" 2>>"$work/err" || complain "after a power failure"
    "$driver" act "$work/state" 1 1 >>"$work/facts" 2>>"$work/err" || complain "does not go on"
    "$driver" verify "$work/state" "$work/facts" 2>>"$work/err" || complain "after going on"
    return 0
}

for kind in open write truncate rename unlink mkdir sync; do
    for error in EIO ENOSPC SHORT; do
        [ $error = SHORT ] && [ $kind != write ] && continue
        case $kind:$error in truncate:ENOSPC | unlink:ENOSPC) continue ;; esac # these need no space
        for forever in '' +; do
            [ "$error$forever" = SHORT+ ] && continue
            survived=0 stopped=0 n=1
            while [ $bad = 0 ] && one $kind $n$forever $error; do
                n=$((n + step))
            done
            echo "$kind $error${forever:+ for good}: calls 1..$n, went on $survived, stopped with a reason $stopped"
            [ $bad = 0 ] || exit 1
        done
    done
done
exit 0
