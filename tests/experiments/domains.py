#!/usr/bin/python3
"""Digit domains: each once the target, without labels; the others are one site each. FedKA with and without each part against FedAvg, by the
real daemons over loopback, and the Group Effect of each round.

    tests/experiments/domains.py --data DIR [--out DIR] [--build DIR] [--seeds 1,2] [--targets usps,...] [--arms fedavg,...] [--rounds N]
    tests/experiments/domains.py --summary [--out DIR]

Domains are made 28x28 grey: mnist, usps (16x16, centred), femnist (ink inverted; sites and test by writers' groups), blend and syn (the mean
of their colours; syn cut to the middle). They are not the data of the published tables. A site has 600 images of its domain. The coordinator
has 1000 unlabelled images of the target's training files, and 200 others of them, labelled, for the Group Effect and the guard; nothing else
has labels of the target. `test` is the final model on 1000 images of the target's test files, by a site that joins when the job is done.
Runs that are in OUT/rows.csv are not repeated. Writes OUT/rows.csv, OUT/rounds.csv, OUT/summary.md.
"""
import argparse
import csv
import gzip
import os
import re
import statistics
import struct
import sys

import numpy

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from table import ROOT, Federation, Rows, make_pki, merged  # noqa: E402

DOMAINS = ["mnist", "usps", "femnist", "blend", "syn"]
TRAIN, UNLABELLED, LABELLED, TEST = 600, 1000, 200, 1000
OFF = {"matching": 0, "disentangle": 0, "voting": False}
ARMS = {
    "fedavg": {**OFF, "guard": False},
    "fedka": {},
    "without matching": {"matching": 0},
    "without disentangle": {"disentangle": 0},
    "without voting": {"voting": False},
    "matching 1": {"matching": 1},
    "matching 1, without disentangle": {"matching": 1, "disentangle": 0},
    "matching 1, without voting": {"matching": 1, "voting": False},
    "published": {"variant": "published", "matching": 1, "disentangle": 1},
    "no target": {"target": "none", "matching": 1},
}
JOB = {
    "name": "run",
    "model": {"input": [1, 28, 28], "classes": 10, "head": 1, "layers": [
        {"conv2d": {"out": 16, "kernel": 5}}, {"leaky_relu": {}}, {"max_pool": {"size": 2}},
        {"conv2d": {"out": 32, "kernel": 5}}, {"leaky_relu": {}}, {"max_pool": {"size": 2}},
        {"flatten": {}}, {"linear": {"out": 64}}, {"leaky_relu": {}}, {"linear": {"out": 10}}]},
    "data": {"mean": [0.2], "std": [0.35]},
    "grid": {"bits": 16, "step": -14},
    "train": {"batch": 32, "epochs": 2, "lr": 0.03, "momentum": 0.5, "weight_decay": 0.0005, "clip": 5},
    "round": {"members": 4, "quorum": 4, "deadline": "30m", "fill": "60s"},
}
ROW = ["target", "arm", "seed", "test", "labelled", "rounds", "seconds"]
ROUND = ["target", "arm", "seed", "round", "effect", "aggregate", "members", "before", "agreed", "tuned", "published"]
LINE = re.compile(r"round (\d+) of \d+ published: Group Effect ([-+.\d]+) points \(aggregate ([.\d]+) %, members ([.\d]+) %, before ([.\d]+) %"
                  r".*?labelled\); (?:(\d+) of \d+ votes agreed(?:, trained on them ([.\d]+) %)?; )?published: (the aggregate, trained|the aggregate|the model)")


def read(path):
    with gzip.open(path) as f:
        head = f.read(4)
        shape = struct.unpack(">%dI" % head[3], f.read(4 * head[3]))
        return numpy.frombuffer(f.read(), numpy.uint8).reshape(shape)


def write(path, array):
    with open(path, "wb") as f:
        f.write(struct.pack(">BBBB%dI" % array.ndim, 0, 0, 8, array.ndim, *array.shape))
        f.write(numpy.ascontiguousarray(array, numpy.uint8).tobytes())


def grey(images):
    """[n, 28, 28], light ink on dark."""
    if images.ndim == 4:
        images = images.mean(axis=1).round().astype(numpy.uint8)
    n, side, _ = images.shape
    if side == 32:
        images = images[:, 2:30, 2:30]
    elif side == 16:
        images = numpy.pad(images, ((0, 0), (6, 6), (6, 6)))
    return images


def load(data, domain):
    """(training images, labels), (test images, labels)."""
    if domain == "femnist":
        x, y, who = (read("%s/femnist-digits/%s-ubyte.gz" % (data, n)) for n in ("images-idx3", "labels-idx1", "clients-idx1"))
        apart = who >= 6
        return (255 - x[~apart], y[~apart]), (255 - x[apart], y[apart])
    folder, prefix, rank = ("digit-domains", domain + "-", 4) if domain in ("blend", "syn") else (domain, "", 3)
    return tuple((grey(read("%s/%s/%s%s-images-idx%d-ubyte.gz" % (data, folder, prefix, part, rank))),
                  read("%s/%s/%s%s-labels-idx1-ubyte.gz" % (data, folder, prefix, part))) for part in ("train", "test"))


def make_data(data, to):
    """Files of every domain, once: as a site, and as a target."""
    if os.path.exists(to + "/complete"):
        return
    os.makedirs(to, exist_ok=True)
    for domain in DOMAINS:
        order = numpy.random.RandomState(1)
        (x, y), (tx, ty) = load(data, domain)
        all_, test = order.permutation(len(x)), order.permutation(len(tx))[:TEST]
        parts = {"train": all_[:TRAIN], "unlabelled": all_[:UNLABELLED], "labelled": all_[UNLABELLED:UNLABELLED + LABELLED]}
        for part, rows in parts.items():
            write("%s/%s-%s-x" % (to, domain, part), x[rows])
            write("%s/%s-%s-y" % (to, domain, part), y[rows])
        write("%s/%s-test-x" % (to, domain), tx[test])
        write("%s/%s-test-y" % (to, domain), ty[test])
        with open("%s/%s.yaml" % (to, domain), "w") as f:
            f.write("format: idx\nexamples: {0}-unlabelled-x\nlabelled: {0}-labelled-x\nlabels: {0}-labelled-y\n".format(domain))
    open(to + "/complete", "w").close()


class Domains(Federation):
    """A site a domain; the last one is the target's judge, which comes when the job is done."""

    def __init__(self, build, pki, files, target):
        super().__init__(build, pki, 5)
        self.files, self.target = files, target
        self.port = None

    def agents(self, first, domains):
        where = {"format": "idx", "classes": 10, "partition": "all"}
        return [{"name": "site-%02d" % (first + i), "certificate": "%s/site-%02d.crt" % (self.pki, first + i),
                 "key": "%s/site-%02d.key" % (self.pki, first + i),
                 "data": {**where, **{"%s_%s" % (p, c): "%s/%s-%s-%s" % (self.files, d, p, c) for p in ("train", "test") for c in "xy"}}}
                for i, d in enumerate(domains)]

    def start_all(self):
        self.begin("cohortd", {
            "listen": {"address": "127.0.0.1", "port": 0}, "state": "state", "socket": {"path": "cohortd.sock"},
            "tls": {"ca": self.pki + "/ca.crt", "certificate": self.pki + "/cohortd.crt", "key": self.pki + "/cohortd.key",
                    "crl": self.pki + "/ca.crl"},
            "target": {"data": "%s/%s.yaml" % (self.files, self.target), "program": self.build + "/client/cohort-tune"},
            "log": {"level": "info", "format": "text"}})
        self.port = self.wait(30, "the coordinator answers", self.status)["port"]
        self.ctl("agent", "enrol", *["%s/site-%02d.crt" % (self.pki, i + 1) for i in range(5)])
        self.start_agents("sites", self.agents(1, [d for d in DOMAINS if d != self.target]))
        self.wait(60, "all sites connect", lambda: self.status()["agents_connected"] == 4)

    def start_agents(self, state, agents):
        self.begin("cohort-agent", {
            "state": state, "socket": {"path": state + ".sock"},
            "coordinator": {"host": "localhost", "port": self.port, "ca": self.pki + "/ca.crt", "crl": self.pki + "/ca.crl"},
            "log": {"level": "warn", "format": "text"}, "backoff": {"min": "100ms", "max": "2s"},
            "defaults": {"jobs": ["*"]}, "agents": agents})

    def judge(self):
        """Of the final model on the target's test files."""
        for child in self.children[1:]:
            child.terminate()
            child.wait()
        del self.children[1:]
        self.start_agents("judge", self.agents(5, [self.target]))
        report = self.path("judge/site-05/report.jsonl")

        def final():
            for line in open(report) if os.path.exists(report) else []:
                if '"final"' in line and line.endswith("\n"):
                    return float(re.search(r'"accuracy_received": ?([.\d]+)', line).group(1))
        return self.wait(120, "the target's judge has the final model", final)


def run(options, files, target, arm, seed):
    import time
    f = Domains(options.build, options.out + "/pki", files, target)
    try:
        begun = time.monotonic()
        f.sites = 4
        f.start_all()
        job = merged(JOB, {"rounds": options.rounds, "seed": seed})
        job["strategy"] = {"fedka": ARMS[arm]}
        f.run(job, 3600)
        seconds = time.monotonic() - begun
        test = f.judge()
        rounds = [dict(zip(ROUND, (target, arm, seed, *m.groups()))) for m in LINE.finditer(open(f.path("cohortd.log")).read())]
        for r in rounds:
            r["published"] = {"the aggregate, trained": "tuned", "the aggregate": "aggregate", "the model": "previous"}[r["published"]]
        labelled = rounds[-1]["tuned" if rounds[-1]["published"] == "tuned" else "aggregate"] if rounds else None
        return {"target": target, "arm": arm, "seed": seed, "test": "%.4f" % (100 * test), "labelled": labelled,
                "rounds": options.rounds, "seconds": "%.0f" % seconds}, rounds
    finally:
        f.stop()


def summary(out):
    rows = list(csv.DictReader(open(out + "/rows.csv")))
    rounds = list(csv.DictReader(open(out + "/rounds.csv")))
    arms = [a for a in ARMS if any(r["arm"] == a for r in rows)]
    targets = [d for d in DOMAINS if any(r["target"] == d for r in rows)]
    text = "| arm | %s | mean | Group Effect, rounds 1 to 5 | last 5 | rounds held back |\n" % " | ".join(targets)
    text += "| --- |" + " --- |" * (len(targets) + 4) + "\n"
    for arm in arms:
        cells, means = [], []
        for t in targets:
            of = [float(r["test"]) for r in rows if r["arm"] == arm and r["target"] == t]
            cells.append("%.1f" % statistics.mean(of) if of else "")
            means += [statistics.mean(of)] if of else []
        mine = [r for r in rounds if r["arm"] == arm]
        last = max((int(r["round"]) for r in mine), default=0)
        early = [float(r["effect"]) for r in mine if int(r["round"]) <= 5]
        late = [float(r["effect"]) for r in mine if int(r["round"]) > last - 5]
        text += "| %s | %s | %.1f | %s | %s | %s |\n" % (
            arm, " | ".join(cells), statistics.mean(means), "%+.1f" % statistics.mean(early) if early else "",
            "%+.1f" % statistics.mean(late) if late else "", "%d of %d" % (sum(r["published"] == "previous" for r in mine), len(mine)) if mine else "")
    text += "\nGroup Effect in each round, mean over targets and seeds:\n\n| arm | %s |\n" % " | ".join(
        str(i) for i in range(1, 1 + max((int(r["round"]) for r in rounds), default=0)))
    text += "| --- |" + " --- |" * max((int(r["round"]) for r in rounds), default=0) + "\n"
    for arm in arms:
        mine = [r for r in rounds if r["arm"] == arm]
        if mine:
            text += "| %s | %s |\n" % (arm, " | ".join(
                "%+.1f" % statistics.mean(float(r["effect"]) for r in mine if int(r["round"]) == i)
                for i in range(1, 1 + max(int(r["round"]) for r in mine))))
    with open(out + "/summary.md", "w") as f:
        f.write(text)
    print(text)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--data", default=os.environ.get("COHORT_DATA", os.path.join(ROOT, "..", "shared", "data")))
    p.add_argument("--out", default=os.path.join(ROOT, "build", "experiments", "domains"))
    p.add_argument("--build", default=os.path.join(ROOT, "build"))
    p.add_argument("--seeds", default="1")
    p.add_argument("--targets", default=",".join(DOMAINS))
    p.add_argument("--arms", default=",".join(ARMS))
    p.add_argument("--rounds", type=int, default=20)
    p.add_argument("--summary", action="store_true")
    options = p.parse_args()
    options.out, options.build = os.path.abspath(options.out), os.path.abspath(options.build)
    if not options.summary and not os.path.isdir(options.data + "/digit-domains"):
        print("skipped: no digit domains in %s (--data DIR or COHORT_DATA)" % options.data)
        sys.exit(77)
    os.makedirs(options.out, exist_ok=True)
    rows, rounds = Rows(options.out + "/rows.csv", ROW), Rows(options.out + "/rounds.csv", ROUND)
    if not options.summary:
        make_pki(options.out + "/pki", options.build, 5)
        make_data(options.data, options.out + "/files")
        for seed in options.seeds.split(","):
            for target in options.targets.split(","):
                for arm in options.arms.split(","):
                    if any((r["target"], r["arm"], r["seed"]) == (target, arm, seed) for r in rows.read()):
                        continue
                    row, each = run(options, options.out + "/files", target, arm, int(seed))
                    rounds.add(each)
                    rows.add([row])
                    print("%s, %s, seed %s: test %s %%, %s s" % (target, arm, seed, row["test"], row["seconds"]), flush=True)
    summary(options.out)


if __name__ == "__main__":
    main()
