#!/bin/sh
# Power loss and kills, on the coordinator's store alone.
#
#   1. A run of rounds is journalled; after (nearly) every record the power fails, and whatever the disk may then hold must
#      keep every promise made so far and carry on.
#   2. The same with one kind of sync left out, or bytes recorded before they are sealed: the test must notice, or it proves nothing.
#   3. Chains of kills: killed before its n-th change of the folder, restarted on what programs still see or, after a power
#      failure, on what the disk may hold. Promises accumulate over the whole chain. This finds what (1) cannot: a killed
#      process leaves things that the next one sees but that were never synced.
#
# usage: test_power.sh SHIM TOOL DRIVER      SEED=n repeats a chain; PARTS="3" does only that part; TESTS_LONG=1: many more of each
. "$(dirname "$0")/../../lib/powerfail/lib.sh"

if [ "$long" = 1 ]; then
    must_survive "all records of two rounds" 2 1 6
    must_survive "fifty rounds, the log is folded back" 50 23 2
else
    must_survive "two rounds" 2 7 1
    must_survive "twenty rounds, the log is folded back" 20 151 1
fi

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

chains 160
exit $bad
