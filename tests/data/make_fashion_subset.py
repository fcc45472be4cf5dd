#!/usr/bin/env python3
"""Chooses the Fashion-MNIST images that ship in tests/data/fashion-mnist.

    make_fashion_subset.py SOURCE [DESTINATION]

SOURCE holds the four files {train,test}-{images-idx3,labels-idx1}-ubyte.gz. The files of the same
names are written to DESTINATION (default: fashion-mnist beside this script).

How many of each class: 20 sites of the disjoint pathological partition with 80 training and 240 test
images each need, of an even class (dominant in two of the five groups, so at 8 sites), 128 from the
even part and about 8 * 85.3 as a dominant class: 811; of an odd class (4 sites) 128 + 4 * 85.3: 470.
We take 880 and 520, about a tenth more, at random with a fixed seed, no image twice.
"""
import gzip
import pathlib
import random
import struct
import sys

PER_CLASS = {"train": (630, 370), "test": (250, 150)}  # even, odd classes
SEED = 20


def read(path, magic):
    data = gzip.decompress(path.read_bytes())
    rank = magic & 0xFF
    head = struct.unpack(">" + "I" * (1 + rank), data[: 4 + 4 * rank])
    if head[0] != magic:
        sys.exit(f"{path}: not the IDX file expected")
    return head[1:], data[4 + 4 * rank :]


def write(path, magic, sizes, payload):
    raw = struct.pack(">" + "I" * (1 + len(sizes)), magic, *sizes) + payload
    with open(path, "wb") as out:
        # no name and no time inside, so that the same choice gives the same bytes
        with gzip.GzipFile("", "wb", 9, out, mtime=0) as z:
            z.write(raw)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    source = pathlib.Path(sys.argv[1])
    here = pathlib.Path(__file__).resolve().parent
    to = pathlib.Path(sys.argv[2]) if len(sys.argv) == 3 else here / "fashion-mnist"
    to.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    seen = set()
    for part, (even, odd) in PER_CLASS.items():
        (count, height, width), pixels = read(source / f"{part}-images-idx3-ubyte.gz", 0x803)
        _, labels = read(source / f"{part}-labels-idx1-ubyte.gz", 0x801)
        size = height * width
        order = list(range(count))
        rng.shuffle(order)
        wanted = {c: odd if c % 2 else even for c in range(10)}
        chosen = []
        for i in order:
            image = pixels[i * size : (i + 1) * size]
            if wanted[labels[i]] and image not in seen:
                wanted[labels[i]] -= 1
                seen.add(image)
                chosen.append(i)
        if any(wanted.values()):
            sys.exit(f"{source}: too few {part} images: {wanted}")
        write(to / f"{part}-images-idx3-ubyte.gz", 0x803, (len(chosen), height, width),
              b"".join(pixels[i * size : (i + 1) * size] for i in chosen))
        write(to / f"{part}-labels-idx1-ubyte.gz", 0x801, (len(chosen),),
              bytes(labels[i] for i in chosen))


if __name__ == "__main__":
    main()
