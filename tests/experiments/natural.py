"""Data that come in sites of their own, put into files as the agents read them. Used by table.py (`made: WORD` of a table): made once, in OUT/made.

A function a data set; what it takes is the set's folder, what it leaves is described at each. No value is fitted to any site's data: what a
scale is, is a constant written here or in the job. Needs python3-numpy.
"""
import csv
import gzip
import os
import shutil
import struct


def read_idx(path):
    """Bytes, or signed words, of a gzip file in the MNIST format."""
    import numpy

    with gzip.open(path) as f:
        head = f.read(4)
        shape = struct.unpack(">%dI" % head[3], f.read(4 * head[3]))
        return numpy.frombuffer(f.read(), {8: "u1", 11: ">i2"}[head[2]]).reshape(shape)


def chains(windows):
    """Windows of one person that overlap by half in time, in chains of one after the other: [[row, ...], ...]. The source shuffled them."""
    import numpy

    half = windows.shape[2] // 2
    first, second = windows[:, :, :half], windows[:, :, half:]
    after = {}
    for i in range(len(windows)):
        distance = numpy.abs(first - second[i]).max(axis=(1, 2))
        j = int(distance.argmin())
        if distance[j] <= 2 and j != i:  # rounding
            after[i] = j
    led = set(after.values())
    out = []
    seen = set()
    for start in [i for i in range(len(windows)) if i not in led] + list(range(len(windows))):  # rings last
        chain = []
        while start is not None and start not in seen:
            seen.add(start)
            chain.append(start)
            start = after.get(start)
        if chain:
            out.append(chain)
    return out


def har(folder, to):
    """site-NN-{train,test}-{x,y}.npy, a site a person: 288 numbers (9 channels, 32 steps) near the standard normal. Windows overlap by half with their
    neighbours in time, so the last three tenths of every stretch of them are the test part and the window between is left out."""
    import numpy

    windows = read_idx(folder + "/windows-idx3-short.gz").astype(numpy.int32)
    labels = read_idx(folder + "/labels-idx1-ubyte.gz").astype(numpy.int32)
    people = read_idx(folder + "/subjects-idx1-ubyte.gz")
    middle = numpy.array([0, 0, 0, 0, 0, 0, 0.8, 0, 0]).reshape(1, 9, 1)  # g; gravity points along x
    scale = numpy.array([0.15] * 3 + [0.35] * 3 + [0.4] * 3).reshape(1, 9, 1)  # g and rad/s
    x = ((windows / 4096 - middle) / scale).astype(numpy.float32).reshape(len(windows), -1)
    for site, person in enumerate(sorted(set(people)), 1):
        rows = numpy.flatnonzero(people == person)
        train, test = [], []
        for chain in chains(windows[rows]):
            cut = len(chain) * 7 // 10
            train += chain[:cut]
            test += chain[cut + (cut > 0):]
        for part, of in (("train", train), ("test", test)):
            numpy.save("%s/site-%02d-%s-x.npy" % (to, site, part), x[rows[sorted(of)]])
            numpy.save("%s/site-%02d-%s-y.npy" % (to, site, part), labels[rows[sorted(of)]])


def heart(folder, to):
    """patients.csv: as it is, but for the class (`sick`: num above 0) and cholesterol of 0, which stands for a missing one."""
    with open(folder + "/heart.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    names = [n for n in rows[0] if n != "num"] + ["sick"]
    with open(to + "/patients.csv", "w", newline="") as f:
        w = csv.DictWriter(f, names, extrasaction="ignore", lineterminator="\n")
        w.writeheader()
        for r in rows:
            w.writerow(dict(r, chol="" if r["chol"] in ("0", "0.0") else r["chol"], sick=int(float(r["num"]) > 0)))


def roles(folder, to, sites=20, context=10, train=1200, test=400):
    """site-NN-{train,test}-{x,y}.npy, a site one of the roles that speak most: ten characters (their numbers among all of the text) and the one that
    follows. The test part is from the last quarter of what the role says."""
    import numpy

    text = gzip.open(folder + "/input.txt.gz", "rt").read()
    number = {c: i for i, c in enumerate(sorted(set(text)))}
    said = {}
    for block in text.split("\n\n"):
        role, _, words = block.partition(":\n")
        said[role] = said.get(role, "") + words + "\n"
    most = sorted(said, key=lambda r: (-len(said[r]), r))[:sites]
    for site, role in enumerate(most, 1):
        of = numpy.array([number[c] for c in said[role]], numpy.int32)
        cut = len(of) * 3 // 4
        draw = numpy.random.RandomState(site)
        for part, begin, end, count in (("train", 0, cut - context, train), ("test", cut, len(of) - context, test)):
            at = begin + draw.permutation(end - begin)[:count]
            numpy.save("%s/site-%02d-%s-x.npy" % (to, site, part), numpy.stack([of[i:i + context] for i in at]))
            numpy.save("%s/site-%02d-%s-y.npy" % (to, site, part), of[at + context])


def plain(folder, to):
    """Every file, unpacked: twenty sites that share one would each unpack it, twice."""
    for name in os.listdir(folder):
        if name.endswith(".gz"):
            with gzip.open(os.path.join(folder, name)) as f, open(os.path.join(to, name[:-3]), "wb") as out:
                shutil.copyfileobj(f, out)


def turned(folder, to):
    """As plain; beside it turned-*: the images of an IDX set turned by a quarter."""
    import numpy

    plain(folder, to)
    for name in os.listdir(folder):
        if "idx3-ubyte" in name:
            images = read_idx(os.path.join(folder, name))
            with open(os.path.join(to, "turned-" + name[:-3]), "wb") as out:
                out.write(struct.pack(">4I", 0x803, *images.shape) + numpy.rot90(images, axes=(1, 2)).tobytes())


MAKERS = {"har": har, "heart": heart, "plain": plain, "roles": roles, "turned": turned}


def made(word, folder, to):
    """The folder with what `word` makes of the set in `folder`."""
    if not os.path.exists(to + "/complete"):
        shutil.rmtree(to, ignore_errors=True)
        os.makedirs(to)
        MAKERS[word](folder, to)
        open(to + "/complete", "w").close()
    return to
