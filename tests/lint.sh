#!/bin/sh
# What the compiler does not check: who may include whom, the doors of third-party headers, banned functions, layout, the reason
# registry, and words that do not belong in the project.
set -u
cd "$(dirname "$0")/.." || exit 1
bad=0
complain() {
    echo "lint: $1"
    bad=1
}
# only PATTERN 'allowed file regex': headers that have one door
only() {
    found=$(grep -rlE "#include +[<\"]$1" common server client --include='*.c' --include='*.h' | grep -vE "$2" || true)
    [ -z "$found" ] || complain "$1 is included outside its door: $found"
}
# never FOLDER PATTERN: what a room must not include
never() {
    found=$(grep -rnE "#include +[<\"]$2" "$1" --include='*.c' --include='*.h' || true)
    [ -z "$found" ] || complain "$1 must not include $2: $found"
}
only 'uv\.h' '^(common/io/|server/[a-z_]*\.c|server/[a-z_]*\.h|server/control/|client/[a-z_]*\.[ch])'
only 'mbedtls/' '^(common/wire/tls|server/ctl/pki)'
only 'cohort\.pb-c\.h' '^common/wire/msg\.h'
only 'control\.pb-c\.h' '^common/io/ctl_wire\.c'
only 'cblas\.h' '^common/math/blas\.[ch]'
only 'sqlite3\.h' '^(server/store/|client/core/ledger)'
only 'zlib\.h' '^client/data/bytes\.c'
only 'xgboost/' '^client/boost\.c'
only 'yaml\.h' '^common/base/conf\.c'
only 'sodium\.h' '^common/(base|privacy)/'
never common 'server/|client/'
never server 'client/'
never client 'server/'
for room in common/base common/math common/nn common/privacy common/plan common/wire server/core server/strategy; do
    never $room 'uv\.h|common/io/'
done
for room in common/base common/math common/nn common/privacy common/plan; do
    never $room 'common/wire/(msg|tls|frame)'
done
for room in server/core server/strategy client/core; do
    found=$(grep -rnE '\b(time|clock_gettime|gettimeofday|fopen|open|socket)\(' $room --include='*.c' | grep -v '^client/core/ledger' || true)
    [ -z "$found" ] || complain "a core reads a clock or opens a file: $found"
done
found=$(grep -rnE '\b(strcpy|strcat|sprintf|vsprintf|atoi|alloca|rand|gets)\(' common server client --include='*.c' --include='*.h' || true)
[ -z "$found" ] || complain "banned: $found"
# (The pattern is in two pieces so that this line does not find itself.)
found=$(git ls-files | grep -E '(meson\.build|\.sh|\.c)$' | xargs grep -nE 'f''fast-math|-O''fast' | grep -v '^meson.build:.*never' || true)
[ -z "$found" ] || complain "fast-math: $found"
files=$(git ls-files '*.c' '*.h')
if command -v clang-format >/dev/null; then
    # shellcheck disable=SC2086
    clang-format --dry-run --Werror $files 2>/dev/null || complain "layout differs from .clang-format"
fi
for file in $files; do
    lines=$(wc -l <"$file")
    case $file in tests/*) most=1200 ;; *) most=700 ;; esac
    [ "$lines" -le $most ] || complain "$file has $lines lines: does it still have one subject?"
done
sed -n 's/^ *X(\([0-9]*\), [A-Z_0-9]*, "\([a-z0-9-]*\)".*/\1 \2/p' common/base/reasons.h | while read -r number name; do
    grep -qE "^\| *$number *\| *\`?$name\`? *\|" proto/WIRE.md || echo "lint: WIRE.md has no row for reason $number $name"
done | tee /dev/stderr | grep -q . && bad=1
found=$(git ls-files | grep -vE '^(\.|LICENSE|README\.md|ARCHITECTURE\.md|CHANGELOG\.md|meson\.build|meson_options\.txt|(server|client|proto|common|tests|deploy)/)' || true)
[ -z "$found" ] || complain "at the top level beside what the project has: $found"
exit $bad
