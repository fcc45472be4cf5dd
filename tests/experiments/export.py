"""What a table's methods run on, in files that any other program reads: splits, first weights and jobs. Used by table.py (--export DIR).

    DIR/VARIANT/seed-N/data/site-01-{train,validation,test}-{x,y}.npy    what a site trains on, chooses by and is judged by; parts that are empty are left out
    DIR/VARIANT/seed-N/METHOD/job.yaml                                   the job's text, as the sites get it
    DIR/VARIANT/seed-N/METHOD/shared/TENSOR.npy                          what travels, as the job begins
    DIR/VARIANT/seed-N/METHOD/site-01/TENSOR.npy                         what stays at a site, as the job begins

x is [n, features] or [n, channels, rows, columns] floats, pixels in 0 to 1, before `data.mean` and `data.std` of the job; y is [n] class numbers (int32), or
[n, width] floats. Weights are laid out as PyTorch's. cohort-agent itself writes all of it (check-data --export, --initial): the very examples and values of a
run with that seed. Where a method's settings are chosen (`choose`), job.yaml has what was chosen in OUT/chosen.csv, or the first of the grid.
"""
import os
import subprocess

import yaml

from table import named


def setting_of(table, variant, method):
    """What was chosen, without running anything."""
    settings = table.settings(variant, method)
    known = {r["setting"]: float(r["score"]) for r in table.chosen.read() if (r["variant"], r["method"]) == (variant, method)}
    tried = [s for s in settings if named(s) in known]
    return max(tried, key=lambda s: known[named(s)]) if tried else settings[0]


def file_name(words):
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in words)


def one(table, variant, seed, to):
    federation = table.federation(variant, seed)
    try:
        config = federation.path("agents.yaml")
        with open(config, "w") as f:
            yaml.safe_dump(federation.agents_config(table.site_data(variant, seed, False), {"name": "run"}), f, sort_keys=False)
        data = ["--export", to + "/data"]
        for method in table.methods:
            if "of" in table.methods[method]:
                continue
            folder = os.path.join(to, file_name(method))
            os.makedirs(folder, exist_ok=True)
            job = table.job(variant, method, seed, setting_of(table, variant, method), False)
            with open(folder + "/job.yaml", "w") as f:
                yaml.safe_dump(job, f, sort_keys=False, default_flow_style=None)
            done = subprocess.run([table.build + "/client/cohort-agent", "check-data", "--config", config, "--job", folder + "/job.yaml", "--initial", folder,
                                   *data], stdout=subprocess.DEVNULL)
            if done.returncode != 0:
                raise SystemExit("%s, %s: nothing was written for them" % (variant, method))
            data = []
    finally:
        federation.stop()


def write(table, to):
    for variant in table.variants:
        for seed in table.seeds:
            folder = "%s/%s/seed-%d" % (to, file_name(variant), seed)
            one(table, variant, seed, folder)
            print(folder, flush=True)
