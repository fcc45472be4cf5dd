#!/usr/bin/python3
"""Sites that join when a job is done, with few labels: what is the published model worth to them, and what would they reach alone?

    tests/experiments/newcomers.py TABLE VARIANT --data DIR [--out FILE.csv] [--build DIR] [--only METHOD,...] [--seeds 1,2] [--newcomers 5] [--labels 5,20]

The last sites of the table's variant take no part in its job. Then each of them has so many labelled examples, two fifths of them to choose by, and asks
`cohort-agent preview` about the model that was published: a private part is fitted to the others by five rounds at home that leave the published part as it is,
and served as it came, with its head tuned, tuned in full, mixed, or not at all (a model trained alone), whichever its examples prefer. Without labels there
is `received` only: the published model by itself, where it is a whole one. A row a site; runs that are in the file are not repeated.
"""
import argparse
import json
import os
import subprocess
import sys
import time

import yaml

import table
from table import ROOT, Rows, merged, percent

COLUMNS = ["variant", "method", "seed", "labels", "site", "choice", "served", "alone", "as_is", "head", "full", "mixed", "parts"]
BATCH = 2


class Newcomers(table.Federation):
    """The members of a job; the others only ask."""

    def preview(self, site, job, model, rounds):
        config = self.agents_config(site, {"name": "run"})
        config["state"], config["agents"] = "newcomers", self.others
        with open(self.path("newcomers.yaml"), "w") as f:
            yaml.safe_dump(config, f, sort_keys=False)
        with open(self.path("preview.yaml"), "w") as f:
            yaml.safe_dump(merged(job, {"train": {"batch": BATCH}, "rounds": rounds}), f, sort_keys=False, default_flow_style=None)
        done = subprocess.run(["cohort-agent", "preview", "--json", "--config", self.path("newcomers.yaml"), "--job", self.path("preview.yaml"), "--model", model],
                              env=self.env, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit("preview: " + done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]


def one(t, variant, method, seed, newcomers, labels):
    sites = t.variants[variant]["sites"]
    members = sites - newcomers
    f = Newcomers(t.build, t.pki(sites), members, None, seed)
    f.others = [{"count": 1, "first": n, "name": "site-{nn}", "certificate": f.pki + "/site-{nn}.crt", "key": f.pki + "/site-{nn}.key", "data": {"client": "{n}"}}
                for n in range(members + 1, sites + 1)]
    job = merged(t.job(variant, method, seed, t.choose(variant, method), False), {"round": {"members": members, "quorum": members}})
    site = t.site_data(variant, seed, False)
    try:
        f.start(site, {"name": "run"})
        f.run(job, 3600)
        f.ctl("model", "export", "run", "-o", f.path("published.safetensors"))
        for count in labels:
            for x in f.preview(merged(site, {"train": count, "validation": 0.4}), job, f.path("published.safetensors"), job["rounds"]):
                guard = x["guard"]
                yield dict({m: percent(guard[m]["accuracy"]) for m in guard if isinstance(guard[m], dict)}, variant=variant, method=method, seed=seed,
                           labels=count, site=x["agent"], choice=guard["choice"], served=percent(guard[guard["choice"]]["accuracy"]))
    finally:
        f.stop()


def summary(rows):
    print("| method | labels | served after its own choice | alone | as it came, private part fitted | head tuned | tuned in full | chose the federation |\n"
          "| --- | --- | --- | --- | --- | --- | --- | --- |")
    for method, labels in sorted({(r["method"], int(r["labels"])) for r in rows}):
        of = [r for r in rows if (r["method"], int(r["labels"])) == (method, labels)]
        mean = lambda c: "%.1f" % (sum(float(r[c]) for r in of if r[c]) / max(1, sum(1 for r in of if r[c])))
        print("| %s | %d | %s | %.0f %% of %d |" % (method, labels, " | ".join(mean(c) for c in ("served", "alone", "as_is", "head", "full")),
                                                   100 * sum(r["choice"] != "alone" for r in of) / len(of), len(of)))


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("table")
    p.add_argument("variant")
    p.add_argument("--data", default=os.environ.get("COHORT_DATA", os.path.join(ROOT, "..", "shared", "data")))
    p.add_argument("--out", default="newcomers.csv")
    p.add_argument("--build", default=os.path.join(ROOT, "build"))
    p.add_argument("--only", default="fedavg,fedrep,hyperfl")
    p.add_argument("--seeds", default="1,2")
    p.add_argument("--newcomers", type=int, default=5)
    p.add_argument("--labels", default="5,20")
    o = p.parse_args()
    path = o.table if os.path.exists(o.table) else os.path.join(ROOT, "tests/experiments/tables", o.table + ".yaml")
    out = Rows(os.path.abspath(o.out), COLUMNS)
    t = table.Table(path, argparse.Namespace(out=os.path.abspath(o.out) + ".made", build=o.build, data=o.data, only=o.only, variants=o.variant, seeds=o.seeds))
    done = {(r["variant"], r["method"], r["seed"]) for r in out.read()}
    for seed in t.seeds:
        for method in t.methods:
            if (o.variant, method, str(seed)) not in done:
                out.add(list(one(t, o.variant, method, seed, o.newcomers, [int(n) for n in o.labels.split(",")])))
                print("%s  %s, seed %d" % (time.strftime("%H:%M:%S"), method, seed), flush=True)
    summary([r for r in out.read() if r["variant"] == o.variant])


if __name__ == "__main__":
    sys.exit(main())
