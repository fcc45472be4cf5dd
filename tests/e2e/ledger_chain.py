#!/usr/bin/env python3
"""Recomputes the chain of `cohort-agent ledger export` from standard input, as deploy/docs/AGENT.md states it."""
import hashlib, json, struct, sys

TEXTS = {"job"}


def column(name, value):
    if value is None:
        return struct.pack("<Q", 5)
    if isinstance(value, int):
        return struct.pack("<Qq", 1, value)
    if isinstance(value, float):
        return struct.pack("<Qd", 2, value)
    data = value.encode() if name in TEXTS else bytes.fromhex(value)
    return struct.pack("<QQ", 3 if name in TEXTS else 4, len(data)) + data


lines = [json.loads(line) for line in sys.stdin]
ends, entries = lines[0], lines[1:]
head = bytes.fromhex(ends["genesis"])
for number, entry in enumerate(entries, 1):
    columns = list(entry.items())
    assert columns[0] == ("seq", number), number
    assert columns[-1][0] == "chain", number
    head = hashlib.blake2b(head + b"".join(column(*c) for c in columns[:-1]), digest_size=32).digest()
    if head.hex() != columns[-1][1]:
        sys.exit(f"entry {number} does not follow from the one before")
if len(entries) != ends["entries"] or head.hex() != ends["head"]:
    sys.exit(f"{len(entries)} entries end elsewhere than the ledger does")
print(f"{len(entries)} entries follow from each other")
