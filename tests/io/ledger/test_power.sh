#!/bin/sh
# Power loss and kills, on the agent's ledger and outbox: what was released stays paid for, once, and the same bytes can be
# offered again; a seed is never forgotten between intent and debit. See tests/io/store/test_power.sh for the three parts.
#
# usage: test_power.sh SHIM TOOL DRIVER      SEED=n repeats a chain; PARTS="3" does only that part; TESTS_LONG=1: many more of each
. "$(dirname "$0")/../../lib/powerfail/lib.sh"

if [ "$long" = 1 ]; then
    must_survive "all records of eight rounds" 8 1 6
    must_survive "150 rounds, the log is folded back" 150 23 2
else
    must_survive "eight rounds" 8 5 1
    must_survive "100 rounds, the log is folded back" 100 151 1
fi

notice="3 3"
must_notice "no folder is ever synced" dir
must_notice "no file is ever synced" file
must_notice "the write-ahead log is not synced" 'ledger.db-wal'
must_notice "the outbox's folder is not synced" outbox
must_notice "the outbox's bytes are not synced" 'outbox/*'
must_notice "the debit comes before the bytes are on the disk" '' unsynced

chains 80
exit $bad
