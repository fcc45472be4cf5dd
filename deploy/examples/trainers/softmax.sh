#!/bin/sh
# A trainer program that is a shell script and a C program (softmax.c, compiled beside it): takes what it needs out of the one line
# that comes in, and lets the other compute. The contract: deploy/docs/TRAINER.md.
set -eu
read -r task
field() { printf '%s' "$task" | sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }
# The first "train" object has the settings; what the head has of its own stands behind them.
settings=$(printf '%s' "$task" | sed 's/.*"train":{\("lr"[^{]*\).*/\1/')
setting() { printf '%s' "$settings" | sed -n "s/.*\"$1\":\([-+.0-9e]*\).*/\1/p"; }
epochs=$(setting epochs)
[ "$(field task)" = train ] || epochs=0
seed=$(field seed | cut -c1-8)
exec "$(dirname "$0")/softmax" "$epochs" "$(setting batch)" "$(setting lr)" "$seed"
