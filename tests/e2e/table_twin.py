"""table_twin.py X.npy Y.npy TABLE.csv: the table of test_tables.sh encoded once more, by Python's csv and datetime, and compared.

The schema is written down here a second time, as sums and not as a schema, so that nothing is shared with the program under test.
"""
import csv
import datetime
import math
import struct
import sys


def npy(path, code):
    data = open(path, "rb").read()
    return [v for (v,) in struct.iter_unpack("<" + code, data[128:])]


def fnv1a(word):
    h = 0xCBF29CE484222325
    for byte in word.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return h


def encode(row):
    age = min(max(float(row["age"]), 25), 60)
    yield (age - 40) / 15
    words = ["nurse", "clerk"]
    yield float(words.index(row["job"]) if row["job"] in words else 2 + fnv1a(row["job"]) % 3)
    yield from (float(row["shop"] == shop) for shop in "AB")
    when = datetime.datetime.strptime(row["since"], "%Y-%m-%d")
    for value, cycle in ((when.month - 1, 12), (when.weekday(), 7)):
        yield math.sin(2 * math.pi * value / cycle)
        yield math.cos(2 * math.pi * value / cycle)
    yield (when.timetuple().tm_yday - 1) / 366
    yield (when.year - 2000) / 100


rows = list(csv.DictReader(open(sys.argv[3], newline="")))
want = [x for row in rows for x in encode(row)]
got, classes = npy(sys.argv[1], "f"), npy(sys.argv[2], "i")
assert len(got) == len(want), (len(got), len(want))
far = max(abs(a - b) for a, b in zip(got, want))
assert far < 1e-6, far
assert classes == [["no", "yes"].index(row["buys"]) for row in rows]
print(f"{len(rows)} rows of {len(want) // len(rows)} numbers, largest difference {far:.1e}")
