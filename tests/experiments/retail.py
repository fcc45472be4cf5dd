#!/usr/bin/python3
"""Weekly sales of single stores, forward in time, by the real daemons: bubbles beside one model for all, models of each store's own, and baselines without
a federation.

    tests/experiments/retail.py --data DIR [--set orange-juice|complete-journey|dataco] [--out FILE.csv] [--build DIR] [--seeds 1,2,3] [--stores 20] [--only METHOD,...]

orange-juice: a row a store, brand and week. Predicted is logmove, from the brand, the prices of all brands, coupon and feature of that week; `profit`
follows from the sales and is left out. Training: weeks before 130; test: weeks from 134 on.

complete-journey: purchases of a sample of households, summed over store, department (the five with most sales but fuel, which some stores lack) and week (2 to 52; the
first and last are not whole). Predicted is log(1 + dollars) of a department's next week from its last four weeks and which it is; whatever is known of that
week itself (quantities, discounts) is left out. Training: targets before week 40; test: from week 42 on. Stores: those with most purchases.

dataco: orders, counted for region, customers' segment and week. Predicted is log(1 + orders) of a segment's next week from its last four and which it
is. The source sells in one part of the world after another, so weeks of fewer than four orders in a region, and the first and last of each
stretch, are left out, and each region's time is its own: training before the last three tenths of its weeks, a week between. No price or profit is used.

Every arm has the same network, steps and settings; nothing is tuned. A row a site is appended to the CSV; runs that are in it are not repeated. Baselines
predict the same targets: linear and gradient-boosted trees (scikit-learn's, skipped where it is not installed) at home and of all stores' rows together, and the mean
of the training or, over time, the last week and the mean of the last four. MASE: the mean absolute error over that of "as the week before" in training.
"""
import argparse
import csv
import datetime
import gzip
import json
import math
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict

import table

COLUMNS = ["method", "seed", "site", "rmse", "mae", "r2", "mase", "bubbles", "seconds"]
BOUND = {"descriptor": {"bound": 3}}
METHODS = {
    "local": {"strategy": "local"},
    "fedavg": {"strategy": "fedavg"},
    "fedper": {"strategy": "fedper"},
    "pacfl": {"strategy": {"pacfl": {}}, **BOUND},
    "pacfl: published": {"strategy": {"pacfl": {"variant": "published"}}},
    "pacfl: common body": {"strategy": {"pacfl": {"body": "shared"}}, **BOUND},
    "pacfl: heads at home": {"strategy": {"pacfl": {"model": "fedper"}}, **BOUND},
    "ifca": {"strategy": {"ifca": {"bubbles": 3}}},
    "cfl": {"strategy": "cfl"},
    "flhc": {"strategy": "flhc"},
}


class OrangeJuice:
    cut, gap, inputs, batch = 130, 4, 24, 64

    def __init__(self, data, _work):
        self.path = os.path.join(data, "orange-juice", "sales.csv.gz")
        self.rows = list(csv.DictReader(gzip.open(self.path, "rt")))

    def stores(self, count):
        every = sorted({r["store"] for r in self.rows}, key=int)
        return every[::max(1, len(every) // count)][:count]

    site = {"target": "logmove", "column": "store"}

    def table(self):
        prices = [{"numeric": {"name": "price%d" % (i + 1), "min": 0, "max": 0.1, "mean": 0.045, "std": 0.012}} for i in range(11)]
        return {
            "columns": [{"category": {"name": "brand", "values": [str(i + 1) for i in range(11)], "onehot": True}}, *prices,
                        {"numeric": {"name": "deal", "min": 0, "max": 1}}, {"numeric": {"name": "feat", "min": 0, "max": 1}}],
            "target": {"numeric": {"name": "logmove", "min": 0, "max": 16, "mean": 9, "std": 1}},
            "window": {"steps": 1, "ahead": 0, "time": "week", "series": ["brand"], "cut": self.cut, "gap": self.gap}}

    def series(self, store):
        """{brand: {week: sales}}"""
        out = defaultdict(dict)
        for r in self.rows:
            if r["store"] == store:
                out[r["brand"]][int(r["week"])] = float(r["logmove"])
        return out

    def examples(self, store):
        """(week of the target, features, target), as the network's but for the scale; and what simple rules would say."""
        mine = [r for r in self.rows if r["store"] == store]
        means = defaultdict(list)
        for r in mine:
            if int(r["week"]) < self.cut:
                means[r["brand"]].append(float(r["logmove"]))
        for r in mine:
            x = [float(r["brand"] == str(b + 1)) for b in range(11)] + [float(r["price%d" % (i + 1)]) for i in range(11)] + [float(r["deal"]), float(r["feat"])]
            yield int(r["week"]), x, float(r["logmove"]), {"brand mean at home": statistics.mean(means[r["brand"]]) if means[r["brand"]] else 0}


class Weeks:
    """log(1 + an amount) of a store's next week, for each of some kinds of it, from the kind and the last four weeks. A subclass has `kinds`, `cut`,
    `gap`, `scale` (of the amounts), `count` (purchases of each store), amount[store, kind, week], and says which weeks a store has."""

    steps = 4
    site = {"target": "amount", "column": "store"}

    def __init__(self, data, work):
        self.path = os.path.join(work, "weeks.csv")
        self.amount, self.count = defaultdict(float), Counter()
        self.read(data)
        with open(self.path, "w") as f:
            f.write("store,kind,week,amount\n")
            for store in self.count:
                for kind, of in self.series(store).items():
                    f.writelines("%s,%s,%d,%.6f\n" % (store, kind, w, y) for w, y in of.items())

    @property
    def inputs(self):
        return self.steps * (len(self.kinds) + 1)

    def stores(self, count):
        return [s for s, _ in self.count.most_common(count)]

    def table(self):
        return {"columns": [{"category": {"name": "kind", "values": self.kinds, "onehot": True}}, {"numeric": {"name": "amount", **self.scale}}],
                "target": {"numeric": {"name": "amount", **self.scale}},
                "window": {"steps": self.steps, "ahead": 1, "time": "week", "series": ["kind"], "cut": self.cut, "gap": self.gap}}

    def series(self, store):
        return {k: {w: math.log1p(self.amount.get((store, k, w), 0)) for w in self.weeks(store)} for k in self.kinds}

    def examples(self, store):
        for number, of in enumerate(self.series(store).values()):
            for week in of:
                past = [of.get(week - self.steps + i) for i in range(self.steps)]
                if None not in past:
                    yield week, [float(number == i) for i in range(len(self.kinds))] + past, of[week], {
                        "last week": past[-1], "mean of four weeks": statistics.mean(past)}


class CompleteJourney(Weeks):
    cut, gap, batch = 40, 2, 64
    kinds = ["GROCERY", "DRUG GM", "PRODUCE", "MEAT", "MEAT-PCKGD"]
    scale = {"min": 0, "max": 10, "mean": 2.5, "std": 1.5}

    def read(self, data):
        for r in csv.DictReader(gzip.open(os.path.join(data, "complete-journey", "transactions.csv.gz"), "rt")):
            self.amount[r["store_id"], r["department"], int(r["week"])] += float(r["sales_value"])
            self.count[r["store_id"]] += 1

    def weeks(self, _store):
        return range(2, 53)


class DataCo(Weeks):
    cut, gap, fewest, batch = 1000, 1, 4, 16
    kinds = ["Consumer", "Corporate", "Home Office"]
    scale = {"min": 0, "max": 6, "mean": 2, "std": 1}

    def read(self, data):
        """Weeks are shifted so that seven tenths of a region's whole weeks are before the cut."""
        orders, all_of = Counter(), Counter()
        for r in csv.DictReader(gzip.open(os.path.join(data, "dataco", "orders.csv.gz"), "rt")):
            week = (datetime.date.fromisoformat(r["order_date"][:10]) - datetime.date(2015, 1, 1)).days // 7
            orders[r["order_region"], r["customer_segment"], week] += 1
            all_of[r["order_region"], week] += 1
            self.count[r["order_region"]] += 1
        sold = {key for key, n in all_of.items() if n >= self.fewest}
        self.whole = {}
        for region in self.count:
            weeks = sorted(w for of, w in sold if of == region and {(region, w - 1), (region, w + 1)} <= sold)
            late = self.cut - weeks[len(weeks) * 7 // 10]
            self.whole[region] = [w + late for w in weeks]
            for (of, kind, w), n in orders.items():
                if of == region:
                    self.amount[region, kind, w + late] = n

    def weeks(self, region):
        return self.whole[region]


SETS = {"orange-juice": OrangeJuice, "complete-journey": CompleteJourney, "dataco": DataCo}


def job(method, seed, sites, sales):
    return {
        "name": "retail", "rounds": 40, "seed": seed, **METHODS[method],
        "model": {"input": [sales.inputs], "targets": 1, "head": 1,
                  "layers": [{"linear": {"out": 32}}, {"relu": {}}, {"linear": {"out": 16}}, {"relu": {}}, {"linear": {"out": 1}}]},
        "train": {"batch": sales.batch, "epochs": 2, "lr": 0.003, "optimizer": "adam"},
        "round": {"members": sites, "quorum": sites, "deadline": "5m", "fill": "60s"},
        "grid": {"bits": 24, "step": -18},
        "data": {"table": sales.table()},
    }


def scores(truth, predicted):
    n = len(truth)
    square = sum((a - b) ** 2 for a, b in zip(truth, predicted))
    middle = sum(truth) / n
    return {"rmse": math.sqrt(square / n), "mae": sum(abs(a - b) for a, b in zip(truth, predicted)) / n,
            "r2": 1 - square / sum((a - middle) ** 2 for a in truth)}


def scale(series, cut):
    """What "as the week before" is wrong by in training, for MASE."""
    steps = [abs(of[w] - of[w - 1]) for of in series.values() for w in of if w < cut and w - 1 in of]
    return statistics.mean(steps)


def learners():
    """{name: a function of training rows and targets that returns a predictor}"""
    import numpy

    def linear(x, y):
        a = numpy.column_stack([x, numpy.ones(len(x))])
        w = numpy.linalg.solve(a.T @ a + 1e-6 * numpy.eye(a.shape[1]), a.T @ y)
        return lambda z: numpy.column_stack([z, numpy.ones(len(z))]) @ w

    out = {"linear": linear}
    os.environ["OMP_NUM_THREADS"] = "1"  # a store's rows are few: threads would only wait for each other
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
        out["boosted trees"] = lambda x, y: HistGradientBoostingRegressor(random_state=1).fit(x, y).predict
    except ImportError:
        print("skipped: boosted trees (apt-get install python3-sklearn)")
    return out


def baselines(sales, stores):
    """{(method, store): scores}: what a store can do without a network; and what one model of all stores' rows could."""
    import numpy

    train, test, simple, out = {}, {}, {}, {}
    for store in stores:
        rows = list(sales.examples(store))
        parts = [[r for r in rows if r[0] < sales.cut], [r for r in rows if r[0] >= sales.cut + sales.gap]]
        train[store], test[store] = [(numpy.array([r[1] for r in p]), numpy.array([r[2] for r in p])) for p in parts]
        for rule in rows[0][3]:
            simple[rule, store] = [r[3][rule] for r in parts[1]]
    guesses = dict(simple)
    for name, learn in learners().items():
        every = learn(*(numpy.concatenate([train[s][i] for s in stores]) for i in (0, 1)))
        for store in stores:
            guesses[name + " at home", store] = list(learn(*train[store])(test[store][0]))
            guesses[name + " of all", store] = list(every(test[store][0]))
    for (method, store), predicted in guesses.items():
        out[method, store] = scores(list(test[store][1]), predicted)
    return out


def summary(path):
    rows = list(csv.DictReader(open(path)))
    best = {(r["seed"], r["site"]): float(r["rmse"]) for r in rows if r["method"] == "local"}
    print("| method | RMSE | MAE | MASE | R2 | RMSE of the worst tenth | worse than alone by over 1 % | models | seconds a run |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
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
        print("| %s | %s | %s | %s | %s | %s | %s | %s | %s |" % (
            method, show(by_seed("rmse")), show(by_seed("mae")), show(by_seed("mase")), show(by_seed("r2")), show(worst),
            "%.0f %%" % (100 * sum(harmed) / len(harmed)) if harmed and method != "local" else "-",
            ", ".join(sorted({r["bubbles"] for r in mine})) or "-", "%.0f" % statistics.median(float(r["seconds"]) for r in mine) if mine[0]["seconds"] else "-"))


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--data", default=os.environ.get("COHORT_DATA", os.path.join(table.ROOT, "..", "shared", "data")))
    p.add_argument("--set", choices=sorted(SETS), default="orange-juice")
    p.add_argument("--out", help="default: SET.csv")
    p.add_argument("--build", default=os.path.join(table.ROOT, "build"))
    p.add_argument("--seeds", default="1,2,3")
    p.add_argument("--stores", type=int, default=20)
    p.add_argument("--only", help="methods, separated by commas")
    o = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not os.path.isdir(os.path.join(o.data, o.set)):
        print("skipped: no %s in %s (--data DIR or COHORT_DATA)" % (o.set, o.data))
        sys.exit(77)
    out = table.Rows(os.path.abspath(o.out or o.set + ".csv"), COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        run(o, SETS[o.set](os.path.abspath(o.data), folder), folder, out)
    summary(out.path)


def run(o, sales, folder, out):
    stores = sales.stores(o.stores)
    sites = {store: "site-%02d" % (i + 1) for i, store in enumerate(stores)}
    scales = {sites[store]: scale(sales.series(store), sales.cut) for store in stores}
    unit = sales.table()["target"]["numeric"]["std"]  # sites report errors on the scale that the network predicts on
    add = lambda rows: out.add([dict(r, mase=r["mae"] / scales[r["site"]]) for r in rows])
    done = {(r["method"], r["seed"]) for r in out.read()}
    pki, build = folder + "/pki", os.path.abspath(o.build)
    if ("linear at home", "1") not in done:
        add([dict(s, method=method, seed=1, site=sites[store]) for (method, store), s in baselines(sales, stores).items()])
    table.make_pki(pki, build, len(stores))
    for seed in [int(s) for s in o.seeds.split(",")]:
        for method in o.only.split(",") if o.only else METHODS:
            if (method, str(seed)) in done:
                continue
            started = time.monotonic()
            federation = table.Federation(build, pki, len(stores), stores, seed)
            try:
                federation.start({"format": "csv", "train_x": sales.path, "partition": "column", "of": len(stores), **sales.site},
                                 {"name": "retail", "unit": "none"})
                finals, _ = federation.run(job(method, seed, len(stores), sales), 900)
                models = json.loads(federation.ctl("--json", "job", "show", "retail"))["slots"]
            finally:
                federation.stop()
            seconds = time.monotonic() - started
            add([{"method": method, "seed": seed, "site": site, "rmse": unit * f["rmse_received"], "mae": unit * f["mae_received"],
                  "r2": f["r2_received"], "bubbles": models, "seconds": round(seconds, 1)} for site, f in sorted(finals.items())])
            print("%s seed %d: RMSE %.4f, %d models, %.0f s" % (method, seed, unit * statistics.mean(f["rmse_received"] for f in finals.values()), models,
                                                                seconds), flush=True)


if __name__ == "__main__":
    main()
