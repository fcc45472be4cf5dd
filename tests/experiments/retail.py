#!/usr/bin/python3
"""Weekly orange juice sales of single stores, forward in time, by the real daemons: bubbles beside one model for all, models of each store's own,
and baselines without a federation.

    tests/experiments/retail.py --data DIR [--out FILE.csv] [--build DIR] [--seeds 1,2,3] [--stores 20] [--only METHOD,...]

DIR/orange-juice/sales.csv.gz has a row a store, brand and week. Predicted is logmove, from the brand, the prices of all brands, coupon and feature
of that week; `profit` follows from the sales and is left out. Training: weeks before 130; test: weeks from 134 on, a gap of four weeks between. Every
arm has the same network, steps and settings; nothing is tuned. A row a site is appended to the CSV; runs that are in it are not repeated.
"""
import argparse
import csv
import gzip
import json
import math
import os
import signal
import statistics
import sys
import tempfile
import time

import table

CUT, GAP = 130, 4
COLUMNS = ["method", "seed", "site", "rmse", "mae", "r2", "bubbles", "seconds"]
METHODS = {
    "local": {"strategy": "local"},
    "fedavg": {"strategy": "fedavg"},
    "fedper": {"strategy": "fedper"},
    "pacfl": {"strategy": {"pacfl": {}}},
    "pacfl: common body": {"strategy": {"pacfl": {"body": "shared"}}},
    "pacfl: heads at home": {"strategy": {"pacfl": {"model": "fedper"}}},
    "ifca": {"strategy": {"ifca": {"bubbles": 3}}},
    "cfl": {"strategy": "cfl"},
    "flhc": {"strategy": "flhc"},
}
BASELINES = ["brand mean at home", "linear at home"]


def job(method, seed, sites):
    prices = [{"numeric": {"name": "price%d" % (i + 1), "min": 0, "max": 0.1, "mean": 0.045, "std": 0.012}} for i in range(11)]
    return {
        "name": "retail", "rounds": 40, "seed": seed, **METHODS[method],
        "model": {"input": [24], "targets": 1, "head": 1,
                  "layers": [{"linear": {"out": 32}}, {"relu": {}}, {"linear": {"out": 16}}, {"relu": {}}, {"linear": {"out": 1}}]},
        "train": {"batch": 64, "epochs": 2, "lr": 0.003, "optimizer": "adam"},
        "round": {"members": sites, "quorum": sites, "deadline": "5m", "fill": "60s"},
        "grid": {"bits": 24, "step": -18},
        "descriptor": {"bound": 3},
        "data": {"table": {
            "columns": [{"category": {"name": "brand", "values": [str(i + 1) for i in range(11)], "onehot": True}}, *prices,
                        {"numeric": {"name": "deal", "min": 0, "max": 1}}, {"numeric": {"name": "feat", "min": 0, "max": 1}}],
            "target": {"numeric": {"name": "logmove", "min": 0, "max": 16, "mean": 9, "std": 1}},
            "window": {"steps": 1, "ahead": 0, "time": "week", "series": ["brand"], "cut": CUT, "gap": GAP}}},
    }


def scores(truth, predicted):
    n = len(truth)
    square = sum((a - b) ** 2 for a, b in zip(truth, predicted))
    middle = sum(truth) / n
    return {"rmse": math.sqrt(square / n), "mae": sum(abs(a - b) for a, b in zip(truth, predicted)) / n,
            "r2": 1 - square / sum((a - middle) ** 2 for a in truth)}


def baselines(rows):
    """Of one store: what it can do without a network."""
    import numpy

    train = [r for r in rows if int(r["week"]) < CUT]
    test = [r for r in rows if int(r["week"]) >= CUT + GAP]
    truth = [float(r["logmove"]) for r in test]
    means = {b: statistics.mean(float(r["logmove"]) for r in train if r["brand"] == b) for b in {r["brand"] for r in train}}
    everything = statistics.mean(means.values())
    x = lambda rs: numpy.array([[float(r["brand"] == str(b + 1)) for b in range(11)] + [float(r["price%d" % (i + 1)]) for i in range(11)] +
                                [float(r["deal"]), float(r["feat"])] for r in rs])
    a, y = x(train), numpy.array([float(r["logmove"]) for r in train])
    w = numpy.linalg.solve(a.T @ a + 1e-6 * numpy.eye(a.shape[1]), a.T @ y)
    return {"brand mean at home": scores(truth, [means.get(r["brand"], everything) for r in test]),
            "linear at home": scores(truth, list(x(test) @ w))}


def summary(path):
    rows = list(csv.DictReader(open(path)))
    best = {(r["seed"], r["site"]): float(r["rmse"]) for r in rows if r["method"] == "local"}
    print("| method | RMSE | MAE | R2 | RMSE of the worst tenth | worse than alone by over 1 % | models | seconds a run |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    for method in dict.fromkeys(r["method"] for r in rows):
        mine = [r for r in rows if r["method"] == method]
        seeds = sorted({r["seed"] for r in mine})
        by_seed = lambda key: [statistics.mean(float(r[key]) for r in mine if r["seed"] == s) for s in seeds]
        show = lambda v: "%.4f" % v[0] if len(v) == 1 else "%.4f +- %.4f" % (statistics.mean(v), statistics.stdev(v) / math.sqrt(len(v)))
        worst = []
        for s in seeds:
            tail = sorted((float(r["rmse"]) for r in mine if r["seed"] == s), reverse=True)
            worst.append(statistics.mean(tail[:max(1, len(tail) // 10)]))
        pairs = [(float(r["rmse"]), best.get((r["seed"], r["site"]))) for r in mine]
        harmed = [a > 1.01 * b for a, b in pairs if b]
        print("| %s | %s | %s | %s | %s | %s | %s | %s |" % (
            method, show(by_seed("rmse")), show(by_seed("mae")), show(by_seed("r2")), show(worst),
            "%.0f %%" % (100 * sum(harmed) / len(harmed)) if harmed and method != "local" else "-",
            ", ".join(sorted({r["bubbles"] for r in mine})) or "-", "%.0f" % statistics.median(float(r["seconds"]) for r in mine) if mine[0]["seconds"] else "-"))


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--data", default=os.environ.get("COHORT_DATA", os.path.join(table.ROOT, "..", "shared", "data")))
    p.add_argument("--out", default="retail.csv")
    p.add_argument("--build", default=os.path.join(table.ROOT, "build"))
    p.add_argument("--seeds", default="1,2,3")
    p.add_argument("--stores", type=int, default=20)
    p.add_argument("--only", help="methods, separated by commas")
    o = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sales = os.path.join(os.path.abspath(o.data), "orange-juice", "sales.csv.gz")
    if not os.path.exists(sales):
        print("skipped: no %s" % sales)
        sys.exit(77)
    rows = list(csv.DictReader(gzip.open(sales, "rt")))
    every = sorted({r["store"] for r in rows}, key=int)
    stores = every[::max(1, len(every) // o.stores)][:o.stores]
    out = table.Rows(os.path.abspath(o.out), COLUMNS)
    done = {(r["method"], r["seed"]) for r in out.read()}
    if ("linear at home", "1") not in done:
        for i, store in enumerate(stores):
            for method, s in baselines([r for r in rows if r["store"] == store]).items():
                out.add([dict(s, method=method, seed=1, site="site-%02d" % (i + 1))])
    with tempfile.TemporaryDirectory() as folder:
        pki = folder + "/pki"
        table.make_pki(pki, os.path.abspath(o.build), len(stores))
        for seed in [int(s) for s in o.seeds.split(",")]:
            for method in o.only.split(",") if o.only else METHODS:
                if (method, str(seed)) in done:
                    continue
                started = time.monotonic()
                federation = table.Federation(os.path.abspath(o.build), pki, len(stores), stores, seed)
                try:
                    federation.start({"format": "csv", "train_x": sales, "target": "logmove", "partition": "column", "column": "store", "of": len(stores)},
                                     {"name": "retail", "unit": "none"})
                    finals, _ = federation.run(job(method, seed, len(stores)), 900)
                    models = json.loads(federation.ctl("--json", "job", "show", "retail"))["slots"]
                finally:
                    federation.stop()
                seconds = time.monotonic() - started
                out.add([{"method": method, "seed": seed, "site": site, "rmse": f["rmse_received"], "mae": f["mae_received"],
                          "r2": f["r2_received"], "bubbles": models, "seconds": round(seconds, 1)} for site, f in sorted(finals.items())])
                print("%s seed %d: RMSE %.4f, %d models, %.0f s" % (method, seed, statistics.mean(f["rmse_received"] for f in finals.values()), models,
                                                                    seconds), flush=True)
    summary(out.path)


if __name__ == "__main__":
    main()
