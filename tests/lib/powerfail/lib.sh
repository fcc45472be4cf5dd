# For tests of a store under power loss and kills: to be sourced by a script called with SHIM TOOL DRIVER.
#
# DRIVER act DIR ROUNDS SEED [VARIANT]   works on DIR; every line on stdout is a promise (and a note in the journal); what it
#                                        finds at its start it promises again
# DRIVER verify DIR FACTS                exit 0: DIR keeps every promise and work can go on from it; 1: it does not
#
# SEED=n repeats a chain of kills; PARTS="3" does only that part; TESTS_LONG=1: many more of each.
set -u
shim=$1 tool=$2 driver=$3
long=${TESTS_LONG:-0}
seed=${SEED:-$(date +%s)}
base=/dev/shm
[ -w $base ] || base=/tmp
work=$(mktemp -d $base/powerfail.XXXXXX) || exit 1
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
    "$tool" rebuild "$work/journal" "$work/copy" keep && diff -r -x '*-shm' "$work/state" "$work/copy" >"$work/diff" && return 0
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

# must_survive WHAT ROUNDS EVERY SEEDS: the power fails after every EVERY-th record.
must_survive() {
    part 1 || return 0
    if explore "$2" "$3" "$4" ''; then
        echo "every state survives, $1: $said"
    else
        echo "NOT SURVIVED, $1: $said"
        head -n 12 "$work/err"
        bad=1
    fi
}

# must_notice WHAT SKIP [VARIANT]: a program that forgets these syncs must not pass. $notice: rounds, and every how many records.
notice="1 13"
must_notice() {
    part 2 || return 0
    # shellcheck disable=SC2086
    if explore $notice 1 "$2" "${3:-}" || [ $? != 1 ]; then
        echo "NOT NOTICED: $1: $said"
        head -n 12 "$work/err"
        bad=1
    else
        echo "noticed: $1: $said"
    fi
}

random() { # random N: 0..N-1 in $picked
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    picked=$((seed / 65536 % $1))
}

# Picks where the next process is killed: anywhere in CALLS changes of the folder, early, or right before a sync (and then again
# before the next one: what stays unsynced over two lives).
pick_kill() {
    random 3
    case $picked in
    0) random "$1" && at=any:$((picked + 1)) ;;
    1) random 16 && at=any:$((picked + 1)) ;;
    *) random 40 && at=sync:$((picked + 1)) ;;
    esac
}

# One life: runs until it is killed at $at, then a possible disk in $work/copy, which half of the time is what the next life gets.
one_life() {
    POWERFAIL_KILL=$at shimmed "$driver" act "$work/state" 9 $seed >>"$work/facts" 2>"$work/err"
    status=$?
    [ $status = 137 ] && kills=$((kills + 1))
    if [ $status != 137 ] && [ $status != 0 ]; then
        echo "exit $status"
        return 1
    fi
    "$tool" reconcile "$work/journal" "$work/state" && agrees || return 1
    random 4
    case $picked in
    0) mode=keep ;;
    1) mode=drop ;;
    2) mode=prefix ;;
    *) mode=subset ;;
    esac
    rm -rf "$work/copy"
    "$tool" rebuild "$work/journal" "$work/copy" $mode $seed || return 1
    random 2
    if [ "$picked" = 0 ] && [ $mode != keep ]; then
        failures=$((failures + 1))
        rm -rf "$work/state"
        cp -a "$work/copy" "$work/state"
        "$tool" begin "$work/journal" "$work/state"
    fi
    "$driver" verify "$work/copy" "$work/facts" 2>"$work/err"
}

# chains CALLS: promises accumulate over a chain of lives.
chains() {
    part 3 || return 0
    chains=4 kills=0 failures=0 chain=0 mode=
    [ "$long" = 1 ] && chains=40
    echo "chains of kills from SEED=$seed"
    while [ $chain -lt $chains ] && [ $bad = 0 ]; do
        chain=$((chain + 1))
        fresh
        : >"$work/facts"
        life=0
        while [ $life -lt 12 ] && [ $bad = 0 ]; do
            life=$((life + 1))
            pick_kill "$1"
            if ! one_life; then
                echo "chain $chain, life $life, killed before $at, $mode:"
                cat "$work/err"
                bad=1
            fi
        done
    done
    echo "$kills kills, each followed by a rebuilt state that was checked; $failures times the chain went on from it after a power failure"
}
