#!/bin/sh
# Installs what is missing, builds, and runs the tests. The last line is "N passed, N failed".
#
#   tests/run.sh            everything quick: 9 to 11 minutes on two cores, a fresh build of everything included
#   tests/run.sh --long     also the long ones: kills at every boundary, power loss, many simulated schedules, fuzzing
#   tests/run.sh NAME ...   only the tests whose name contains NAME
#
# What needs something that is not here (the reference tables, python3-torch) says "skipped" and why.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
long=0
names=
for argument; do
    case $argument in
    --long) long=1 ;;
    -h | --help)
        sed -n '2,9s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *) names="$names $argument" ;;
    esac
done
export TESTS_LONG=$long
"$root/deploy/install-packages.sh"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0
failed=0
skipped=0

wanted() {
    [ -n "$names" ] || return 0
    for part in $names; do
        case $1 in *"$part"*) return 0 ;; esac
    done
    return 1
}

# judge NAME STATUS SECONDS LOG: 0 passed, 77 skipped, anything else failed (and its output is shown).
judge() {
    case $2 in
    0)
        passed=$((passed + 1))
        echo "passed  $1 ($3 s)"
        grep -i '^skipped' "$4" || true
        ;;
    77)
        skipped=$((skipped + 1))
        echo "skipped $1: $(tail -n 1 "$4")"
        ;;
    *)
        failed=$((failed + 1))
        echo "FAILED  $1 (exit $2, $3 s)"
        tail -n 60 "$4" | sed 's/^/    /'
        ;;
    esac
}

# run NAME COMMAND...
run() {
    name=$1
    shift
    wanted "$name" || return 0
    start=$(date +%s)
    status=0
    "$@" >"$log" 2>&1 || status=$?
    judge "$name" $status $(($(date +%s) - start)) "$log"
}

# build FOLDER OPTION...: configures and compiles (only targets that match $only, if set); a build that fails is a failed test.
only=
build() {
    folder=$1
    shift
    compiler=gcc
    [ "$folder" = build ] || compiler=clang
    if [ -f "$folder/build.ninja" ]; then
        meson setup --reconfigure "$folder" "$@" || return 1
    else
        CC=$compiler meson setup "$folder" "$@" || return 1
    fi
    if [ -n "$only" ]; then
        # shellcheck disable=SC2046
        ninja -C "$folder" $(ninja -C "$folder" -t targets all | sed -n "s|^\($only\): .*LINKER.*|\1|p")
    else
        ninja -C "$folder"
    fi
}

# suite FOLDER LABEL MESON-OPTION...: the programs of some suites, as many at a time as there are cores; a line each.
suite() {
    folder=$1
    label=$2
    shift 2
    tests=$(meson test -C "$folder" --list "$@" 2>/dev/null | sed -n 's|^cohort:*[a-z+]* / ||p')
    chosen=
    for name in $tests; do
        # Kills of the agent alone take half a minute; e2e kills covers the same points.
        [ "$name" != io-client_kills ] || [ $long = 1 ] || continue
        ! wanted "$label $name" || chosen="$chosen $name"
    done
    [ -n "$chosen" ] || return 0
    # shellcheck disable=SC2086
    meson test -C "$folder" --no-rebuild --print-errorlogs $chosen >"$log" 2>&1 || true
    results=$log.results
    sed -nE 's#^ *[0-9]+/[0-9]+ (cohort:?[a-z+]* / )?([^ ]+) +(OK|FAIL|SKIP|TIMEOUT|ERROR|INTERRUPT|EXPECTEDFAIL|UNEXPECTEDPASS) +([0-9.]+)s.*#\2 \3 \4#p' \
        "$log" | sort -u -k1,1 >"$results"
    for name in $chosen; do
        grep -q "^$name " "$results" || echo "$name MISSING 0" >>"$results"
    done
    while read -r name outcome seconds; do
        case $outcome in
        OK | EXPECTEDFAIL)
            passed=$((passed + 1))
            echo "passed  $label $name ($seconds s)"
            ;;
        SKIP)
            skipped=$((skipped + 1))
            echo "skipped $label $name"
            ;;
        *)
            failed=$((failed + 1))
            echo "FAILED  $label $name ($outcome, $seconds s)"
            bad=1
            ;;
        esac
    done <"$results"
    rm -f "$results"
    [ -z "${bad:-}" ] || tail -n 150 "$log" | sed 's/^/    /'
    bad=
}

run "lint" tests/lint.sh
# Both compilers, no warnings: gcc builds what is installed, clang what is tested under the sanitizers.
run "build gcc" build build -Dwerror=true --buildtype=release
suite build "optimized" --suite optimized # long series, of which the sanitized build tries a part
run "build clang, sanitized" build build-asan -Dwerror=true -Db_sanitize=address,undefined -Db_lundef=false -Dcrash_points=true -Dseeded_leaks=true
ASAN_OPTIONS=detect_leaks=1:abort_on_error=1
UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export ASAN_OPTIONS UBSAN_OPTIONS
suite build-asan "sanitized" --suite unit --suite sim --suite golden --suite fuzz --suite io
only='\(tests/io\|tests/lib\|server/ctl\)/[a-z_./-]*'
run "build thread sanitizer" build build-tsan -Dwerror=true -Db_sanitize=thread -Db_lundef=false
suite build-tsan "threads" --suite io
only=

# The end-to-end scripts: each with a folder and a port of its own; twice as many at a time as there are cores, because they wait more than half of
# the time. The largest first, which take longest, so that none of them is left alone at the end.
logs=$(mktemp -d)
trap 'rm -rf "$log" "$logs"' EXIT
# shellcheck disable=SC2012
ls -S tests/e2e/test_*.sh | while read -r script; do
    name=$(basename "$script" .sh)
    ! wanted "e2e ${name#test_}" || echo "$script"
done | xargs -r -P $((2 * $(nproc))) -n 1 sh -c '
    start=$(date +%s)
    status=0
    "$1" >"$0/$(basename "$1" .sh).log" 2>&1 || status=$?
    echo "$status $(($(date +%s) - start))" >"$0/$(basename "$1" .sh).status"' "$logs"
for script in tests/e2e/test_*.sh; do
    name=$(basename "$script" .sh)
    wanted "e2e ${name#test_}" || continue
    status=1 seconds=0 # of one that left nothing
    [ ! -e "$logs/$name.status" ] || read -r status seconds <"$logs/$name.status"
    [ -e "$logs/$name.log" ] || echo "it was not run" >"$logs/$name.log"
    judge "e2e ${name#test_}" "$status" "$seconds" "$logs/$name.log"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
