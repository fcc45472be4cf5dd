#!/usr/bin/python3
"""Runs one table of methods x data x seeds with the real daemons over loopback, and writes what came out.

    tests/experiments/table.py TABLE.yaml --data DIR [--out DIR] [--build DIR] [--only METHOD,...] [--variants NAME,...] [--seeds N,...] [--summary]
    tests/experiments/table.py TABLE.yaml --data DIR --recommend
    tests/experiments/table.py TABLE.yaml --data DIR --export DIR

A table is one YAML file (tables/*.yaml; README.md says what it may hold). Every run is one job of its own: a fresh coordinator, one
process with all sites, fresh ledgers; the sites' own reports are read when the job is done, which an experimenter may do and a coordinator
cannot. Runs that are in OUT/rows.csv already are not repeated, so a table that was stopped goes on when it is started again.

Choices (`choose:`) are made on examples set apart from the training files, by runs of their own; the test files are opened afterwards only.
Each method has the same number of settings to choose from, which the table prints.

With --recommend `cohortctl recommend` is asked for each data set and seed, with the candidates of `recommend:`, after the methods; the summary
says how much worse its answer is than the best of them, by what the methods reached on test examples.

With --export nothing is run: what the sites would train, choose and judge on, and what they would begin with, goes to files that any other
program reads (export.py says which).

Writes OUT/rows.csv (a row a site), OUT/rounds.csv (means over sites, a row a round), OUT/chosen.csv, OUT/summary.md, and the pictures.
"""
import argparse
import copy
import csv
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import yaml

import natural

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCORES = {"received": "accuracy_received", "served": "accuracy_served", "trained": "accuracy_trained"}
ROW = ["variant", "method", "setting", "seed", "site", "received", "served", "trained", "loss", "rounds", "bytes_up", "cpu_s", "epsilon", "guarded", "choice"]
RECOMMENDED = ["variant", "seed", "strategy", "confidence", "candidates", "seconds"]
ROUND = ["variant", "method", "setting", "seed", "round", "received", "served", "trained"]


class Failed(Exception):
    pass


def merged(*trees):
    """Later trees win, key by key; lists and values are replaced whole."""
    out = {}
    for tree in trees:
        for key, value in (tree or {}).items():
            out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else copy.deepcopy(value)
    return out


def with_dotted(tree, dotted):
    """A copy of tree with {"train.lr": 0.1} set; "site.x" and "job.x" are the caller's business."""
    out = copy.deepcopy(tree)
    for key, value in dotted.items():
        at = out
        parts = key.split(".")
        for part in parts[:-1]:
            at = at.setdefault(part, {})
        at[parts[-1]] = value
    return out


class Rows:
    """A CSV file that only grows; a run's rows are written at once, when it is done."""

    def __init__(self, path, columns):
        self.path, self.columns = path, columns
        if not os.path.exists(path):
            with open(path, "w", newline="") as f:
                csv.writer(f).writerow(columns)

    def read(self):
        with open(self.path, newline="") as f:
            return [r for r in csv.DictReader(f) if None not in r.values()]

    def add(self, rows):
        text = "".join(",".join("" if r.get(c) is None else str(r[c]) for c in self.columns) + "\n" for r in rows)
        with open(self.path, "a") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())


class Federation:
    """One coordinator and one process of sites, in a folder that goes away with them."""

    def __init__(self, build, pki, sites, clients=None, seed=0):
        self.build, self.pki, self.sites, self.seed = build, pki, sites, seed
        self.clients = clients or ["{n}"] * sites  # what `client` of a site's data says
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.work = tempfile.mkdtemp(prefix="cohort-table.", dir=base)
        self.children = []
        self.env = dict(os.environ, COHORT_SOCKET=self.path("cohortd.sock"))
        self.env["PATH"] = os.pathsep.join([build + "/server", build + "/server/ctl", build + "/client", self.env["PATH"]])

    def path(self, name):
        return os.path.join(self.work, name)

    def ctl(self, *arguments, timeout=60):
        done = subprocess.run(["cohortctl", *arguments], env=self.env, capture_output=True, text=True, timeout=timeout)
        if done.returncode != 0:
            raise Failed("cohortctl %s: %s" % (" ".join(arguments), done.stderr.strip()))
        return done.stdout

    def begin(self, program, config):
        with open(self.path(program + ".yaml"), "w") as f:
            yaml.safe_dump(config, f, sort_keys=False)
        with open(self.path(program + ".log"), "w") as log:
            self.children.append(subprocess.Popen([program, "--config", self.path(program + ".yaml")], env=self.env, stderr=log))

    def check_alive(self):
        for child in self.children:
            if child.poll() is not None:
                logs = "".join(open(self.path(p + ".log")).read()[-2000:] for p in ("cohortd", "cohort-agent") if os.path.exists(self.path(p + ".log")))
                raise Failed("a daemon ended with status %d\n%s" % (child.returncode, logs))

    def wait(self, seconds, what, condition):
        until = time.monotonic() + seconds
        while True:
            self.check_alive()
            try:
                found = condition()
            except (Failed, subprocess.TimeoutExpired):
                found = None
            if found:
                return found
            if time.monotonic() > until:
                raise Failed("not within %d s: %s" % (seconds, what))
            time.sleep(0.1)

    def status(self):
        return json.loads(self.ctl("--json", "status"))

    def agents_config(self, site, rules, port=7443, groups=()):
        """Of one process with all sites. A site's own draws, its private tensors' first values, begin with the table's seed."""
        for n in range(1, self.sites + 1):
            folder = self.path("sites/site-%02d" % n)
            os.makedirs(folder, mode=0o700, exist_ok=True)
            with open(os.open(folder + "/seed", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as f:
                f.write(hashlib.blake2b(("site %d of %s" % (n, self.seed)).encode(), digest_size=32).digest())
        return {
            "state": "sites", "socket": {"path": "agent.sock"},
            "coordinator": {"host": "localhost", "port": port, "ca": self.pki + "/ca.crt", "crl": self.pki + "/ca.crl"},
            "log": {"level": "warn", "format": "text"}, "backoff": {"min": "100ms", "max": "2s"},
            "defaults": {"data": site, "jobs": [{k: v for k, v in rules.items() if k != "noise"}],
                         **({"privacy": {k: v for k, v in rules.items() if k != "name"}} if rules.get("noise") else {})},
            "agents": [{"count": 1, "first": n, "name": "site-{nn}", "certificate": self.pki + "/site-{nn}.crt", "key": self.pki + "/site-{nn}.key",
                        "data": merged(own, {"client": str(client)})} for n, (client, own) in enumerate(zip(self.clients, self.own(groups)), 1)]}

    def own(self, groups):
        """What each site's data say beside what all say; groups: [{"count": 15, "site": {...}}, ...] in the order of the sites' numbers."""
        return [group.get("site") for group in groups or [{"count": self.sites}] for _ in range(group["count"])]

    def start(self, site, rules, groups=()):
        self.begin("cohortd", {
            "listen": {"address": "127.0.0.1", "port": 0}, "state": "state", "socket": {"path": "cohortd.sock"},
            "tls": {"ca": self.pki + "/ca.crt", "certificate": self.pki + "/cohortd.crt", "key": self.pki + "/cohortd.key",
                    "crl": self.pki + "/ca.crl"},
            "log": {"level": "warn", "format": "text"}})
        status = self.wait(30, "the coordinator answers", self.status)
        port = json.dumps(status).split('"port": ')[1].split(",")[0].split("}")[0]
        self.ctl("agent", "enrol", *["%s/site-%02d.crt" % (self.pki, i + 1) for i in range(self.sites)])
        self.begin("cohort-agent", self.agents_config(site, rules, int(port), groups))
        self.wait(120, "all sites connect", lambda: self.status().get("agents_connected") == self.sites)

    def shift(self, job, shift, seconds):
        """When so many rounds are published the job pauses, and the sites go on with other data; returns how many there were by then."""
        rounds = lambda: json.loads(self.ctl("--json", "job", "show", job["name"]))["round"]
        self.wait(seconds, "round %d" % shift["after"], lambda: rounds() >= shift["after"])
        self.ctl("job", "pause", job["name"], "--wait", "--timeout", "10m", timeout=660)
        agents = self.children.pop()
        agents.terminate()
        agents.wait()
        with open(self.path("cohort-agent.yaml")) as f:
            config = yaml.safe_load(f)
        for agent in config["agents"][:shift.get("sites", self.sites)]:
            agent["data"] = merged(agent["data"], shift["site"])
        self.begin("cohort-agent", config)
        self.wait(120, "all sites connect", lambda: self.status().get("agents_connected") == self.sites)
        self.ctl("job", "resume", job["name"])
        return rounds()

    def run(self, job, seconds, shift=None):
        with open(self.path("job.yaml"), "w") as f:
            yaml.safe_dump(job, f, sort_keys=False, default_flow_style=None)
        self.ctl("job", "submit", self.path("job.yaml"))
        if shift:
            print("%s  shifted behind round %d" % (time.strftime("%H:%M:%S"), self.shift(job, shift, seconds)), flush=True)

        def done():
            state = json.loads(self.ctl("--json", "job", "show", job["name"]))
            text = json.dumps(state)
            if '"paused"' in text or '"cancelled"' in text or '"failed"' in text:
                self.children and self.check_alive()
                raise SystemExit("the job stopped: %s\n%s" % (text, self.ctl("round", "explain", job["name"])))
            return '"done"' in text

        self.wait(seconds, "the job is done", done)
        self.wait(120, "every site judges the final model", lambda: len(self.finals()) >= self.sites)
        return self.finals(), self.lines()

    def lines(self):
        out = []
        for site in sorted(os.listdir(self.path("sites"))):
            path = os.path.join(self.path("sites"), site, "report.jsonl")
            if os.path.exists(path):
                for line in open(path):
                    if line.endswith("\n"):
                        out.append(dict(json.loads(line), site=site))
        return out

    def finals(self):
        return {l["site"]: l for l in self.lines() if l.get("final")}

    def stop(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # a second one must not leave half of it behind
        for child in reversed(self.children):
            child.send_signal(signal.SIGKILL)
        for child in self.children:
            child.wait()
        shutil.rmtree(self.work, ignore_errors=True)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def make_pki(folder, build, sites):
    """Certificates of the whole table, once."""
    if os.path.exists(folder + "/complete"):
        return
    shutil.rmtree(folder, ignore_errors=True)
    ctl = build + "/server/ctl/cohortctl"
    for arguments in (["init", folder, "--name", "Experiments"], ["issue", folder, "coordinator", "cohortd", "--dns", "localhost"],
                      ["issue", folder, "agent", "site-{nn}", "--count", str(sites)]):
        subprocess.run([ctl, "pki", *arguments], check=True, stdout=subprocess.DEVNULL)
    open(folder + "/complete", "w").close()


def named(setting):
    """A setting in a cell of a CSV file."""
    return json.dumps(setting).replace(",", ";").replace('"', "")


def percent(value):
    return None if value is None else round(100 * value, 4)


def mean(values):
    values = [v for v in values if v is not None]
    return sum(values) / len(values) if values else None


def picked(of, names):
    """Those of a map that are named, separated by commas; all without names."""
    unknown = [n for n in names.split(",") if n not in of] if names else []
    if unknown:
        sys.exit("%s: there are %s" % (", ".join(unknown), ", ".join(of)))
    return {n: of[n] for n in names.split(",")} if names else dict(of)


class Table:
    def __init__(self, path, options):
        with open(path) as f:
            self.spec = yaml.safe_load(f)
        self.name = os.path.splitext(os.path.basename(path))[0]
        self.out = os.path.abspath(options.out or os.path.join(ROOT, "build", "experiments", self.name))
        self.build = os.path.abspath(options.build)
        os.makedirs(self.out, exist_ok=True)
        self.lock = open(self.out + "/lock", "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("%s: this table is being run already" % self.out)
        self.data = os.path.abspath(options.data)
        self.rows, self.rounds = Rows(self.out + "/rows.csv", ROW), Rows(self.out + "/rounds.csv", ROUND)
        self.chosen = Rows(self.out + "/chosen.csv", ["variant", "method", "setting", "score"])
        self.recommended = Rows(self.out + "/recommended.csv", RECOMMENDED)
        commas = [n for n in [*self.spec["methods"], *self.spec.get("variants", {})] if "," in n]
        if commas:
            sys.exit("%s: %s: names of methods and variants are without commas" % (path, "; ".join(commas)))
        self.all_methods, self.seeds = self.spec["methods"], self.spec["seeds"]
        common = {k: v for k, v in self.spec.items() if k not in ("title", "variants", "methods", "seeds", "score", "reference", "patience")}
        self.variants = {v: merged(common, own) for v, own in (self.spec.get("variants") or {"all": {}}).items()}
        self.all_variants = dict(self.variants)
        self.variants = picked(self.variants, options.variants)
        self.methods = picked(self.all_methods, options.only)
        if options.seeds:
            self.seeds = [int(s) for s in options.seeds.split(",")]
        for variant, spec in self.variants.items():
            if not os.path.isdir(os.path.join(self.data, spec["data"])):
                print("skipped: no folder %s in %s (--data DIR or COHORT_DATA)" % (spec["data"], self.data))
                sys.exit(77)

    def pki(self, sites):
        """The folder of certificates for so many sites, made once."""
        folder = "%s/pki-%d" % (self.out, sites)
        make_pki(folder, self.build, sites)
        return folder

    def folder(self, spec):
        """Of a data set's files, or of what was made of them."""
        folder = os.path.join(self.data, spec["data"])
        return natural.made(spec["made"], folder, os.path.join(self.out, "made", "%s-%s" % (spec["data"], spec["made"]))) if "made" in spec else folder

    def features(self, spec):
        """The folder of features of a data set's images (public_features.py), made once."""
        wanted, out = spec["features"], "%s/features-%s" % (self.out, spec["data"])
        if not os.path.exists(out + "/test-y.npy"):
            here = os.path.dirname(os.path.abspath(__file__))
            subprocess.run(["/usr/bin/python3", here + "/public_features.py", "--features", self.build + "/tests/experiments/features",
                            "--job", os.path.join(here, wanted["job"]), "--data", os.path.join(self.data, spec["data"]),
                            "--public", os.path.join(self.data, wanted["public"]), "--out", out, "--size", str(wanted["size"])], check=True)
        return out

    def settings(self, variant, method):
        """The grid of a method: a list of {"train.lr": 0.1}."""
        grid = self.variants[variant].get("choose", {}).get("keys", {})
        grid = self.methods[method].get("choose", grid)
        return [dict(zip(grid, values)) for values in itertools.product(*grid.values())] or [{}]

    def site_data(self, variant, seed, choosing, method=None):
        spec = self.variants[variant]
        site = merged(spec["site"], self.methods[method].get("site") if method else None)
        if choosing:
            site = merged(site, spec["choose"].get("site"))
        site = {k: v for k, v in site.items() if v is not None}
        return self.placed(spec, merged({"of": spec["sites"], "seed": seed}, site))

    def placed(self, spec, site):
        """With the folders of the data in their places."""
        places = {"{folder}": self.folder(spec)}
        if "features" in spec:
            places["{features}"] = self.features(spec)
        for name, place in places.items():
            site = {k: v.replace(name, place) if isinstance(v, str) else v for k, v in site.items()}
        return site

    def shift(self, variant, seed):
        """What a variant's `shift` says, for a seed: `seed` of its site is added to it."""
        spec = self.variants[variant]
        shift = copy.deepcopy(spec.get("shift"))
        if shift:
            shift["site"] = self.placed(spec, merged(shift["site"], {"seed": seed + shift["site"]["seed"]} if "seed" in shift["site"] else None))
        return shift

    def job(self, variant, method, seed, setting, choosing):
        spec = self.variants[variant]
        own = merged(self.methods[method], spec.get("methods", {}).get(method))
        own = {k: v for k, v in own.items() if k not in ("choose", "score", "of", "site", "in_process")}
        job = with_dotted(merged(spec["job"], own), setting)
        sites = spec["sites"]
        job = merged({"name": "run", "round": {"members": sites, "quorum": sites, "deadline": "30m", "fill": "60s"}}, job)
        job["seed"] = seed
        if choosing and "rounds" in spec["choose"]:
            job["rounds"] = min(job["rounds"], spec["choose"]["rounds"])
        return job

    def federation(self, variant, seed):
        spec = self.variants[variant]
        return Federation(self.build, self.pki(spec["sites"]), spec["sites"], spec.get("clients"), seed)

    def run(self, variant, method, seed, setting, choosing):
        job = self.job(variant, method, seed, setting, choosing)
        privacy = job.get("privacy", {})
        rules = {"name": "run", "unit": privacy.get("unit", "none")}
        if rules["unit"] != "none":
            rules.update(epsilon=privacy["epsilon"], delta=privacy["delta"])
            if privacy.get("noise", "local") != "local":
                rules["noise"] = privacy["noise"]
        groups = self.variants[variant].get("groups", ())
        if self.methods[method].get("in_process"):
            return job, *self.federate(variant, method, seed, job, groups)
        federation = self.federation(variant, seed)
        try:
            federation.start(self.site_data(variant, seed, choosing, method), rules, groups)
            finals, lines = federation.run(job, self.spec.get("patience", 3600), None if choosing else self.shift(variant, seed))
        finally:
            federation.stop()
        return job, finals, lines

    def federate(self, variant, method, seed, job, groups):
        """The same in one process, without daemons (federate.c): what secure sums would take too long for."""
        site, sites = self.site_data(variant, seed, False, method), self.variants[variant]["sites"]
        train = [str(merged(site, g.get("site"))["train"]) for g in groups or [{"count": sites}] for _ in range(g["count"])]
        with tempfile.TemporaryDirectory() as work:
            with open(work + "/job.yaml", "w") as f:
                yaml.safe_dump(job, f, sort_keys=False, default_flow_style=None)
            done = subprocess.run([self.build + "/tests/experiments/federate", "--folder", os.path.dirname(site["train_x"]), "--sites", str(sites),
                                   "--seed", str(seed), "--dealt", str(site.get("dealt", 0)), "--test", str(site["test"]),
                                   "--train", ",".join(train), work + "/job.yaml"], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(done.stderr.strip())
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return {line["site"]: line for line in lines}, [dict(line, event="round", epsilon=job["privacy"]["epsilon"]) for line in lines]

    def recommend(self, variant, seed):
        """What cohortctl answers; pilots have the rate that was chosen for fedavg, and everything else of the job."""
        wanted = self.variants[variant]["recommend"]
        job = merged(self.job(variant, "fedavg", seed, self.choose(variant, "fedavg"), False), wanted.get("job"))
        federation = self.federation(variant, seed)
        started = time.monotonic()
        try:
            federation.start(self.site_data(variant, seed, False), {"name": "*", "scores": True})
            with open(federation.path("job.yaml"), "w") as f:
                yaml.safe_dump(job, f, sort_keys=False, default_flow_style=None)
            answer = json.loads(federation.ctl("--json", "recommend", federation.path("job.yaml"), "--candidates", ",".join(wanted["candidates"]),
                                               "--rounds", str(wanted["rounds"]), timeout=self.spec.get("patience", 3600)))
        finally:
            federation.stop()
        found = {c["strategy"]: round(c["mean"], 4) if "mean" in c else c.get("why") for c in answer["candidates"]}
        self.recommended.add([{"variant": variant, "seed": seed, "strategy": answer["strategy"], "confidence": round(answer["confidence"], 4), "candidates": named(found),
                               "seconds": round(time.monotonic() - started)}])
        print("%s  %-12s seed %s: recommended %s of %s" % (time.strftime("%H:%M:%S"), variant, seed, answer["strategy"], named(found)), flush=True)

    def recommend_all(self):
        done = {(r["variant"], r["seed"]) for r in self.recommended.read()}
        for seed, variant in itertools.product(self.seeds, self.variants):
            if (variant, str(seed)) not in done and "recommend" in self.variants[variant]:
                self.recommend(variant, seed)

    def score(self, method):
        return self.all_methods[method].get("score", self.spec.get("score", "received"))

    def keep(self, variant, method, seed, setting, job, finals, lines):
        setting = named(setting)
        same = {"variant": variant, "method": method, "setting": setting, "seed": seed}
        rounds = [l for l in lines if l.get("event") == "round"]
        last = {l["site"]: l for l in sorted(rounds, key=lambda l: l["round"])}
        curve = []
        for r in sorted({l["round"] for l in rounds}):
            at = [l for l in rounds if l["round"] == r]
            curve.append(dict(same, round=r, **{k: percent(mean([l.get(SCORES[k]) for l in at])) for k in SCORES}))
        rows = []
        for site, final in sorted(finals.items()):
            guard = final.get("guard")  # of sites with validation examples; who has too few serves what came
            if not guard and self.site_data(variant, seed, False).get("validation"):
                guard = {"choice": "as_is", "as_is": {"accuracy": final[SCORES[self.score(method)]]}}
            mine = [l for l in rounds if l["site"] == site]
            rows.append(dict(same, site=site, received=percent(final["accuracy_received"]), served=percent(final["accuracy_served"]),
                             trained=percent(last.get(site, {}).get("accuracy_trained")), loss=final["loss"], rounds=job["rounds"],
                             bytes_up=sum(l.get("update_bytes", 0) for l in mine), cpu_s=round(sum(l.get("cpu_s") or 0 for l in mine), 3),
                             epsilon=max([l.get("epsilon") or 0 for l in mine], default=0) or None,
                             guarded=percent(guard[guard["choice"]]["accuracy"]) if guard else None, choice=guard["choice"] if guard else None))
        self.rounds.add(curve)
        self.rows.add(rows)
        return mean([r[self.score(method)] for r in rows])

    def choose(self, variant, method):
        """The setting with the best mean on examples set apart from training, and whether there was a choice."""
        settings = self.settings(variant, method)
        if len(settings) == 1:
            return settings[0]
        known = {r["setting"]: float(r["score"]) for r in self.chosen.read() if (r["variant"], r["method"]) == (variant, method)}
        for setting in settings:
            text = named(setting)
            if text not in known:
                _, finals, _ = self.run(variant, method, self.variants[variant]["choose"].get("seed", 1000), setting, True)
                known[text] = percent(mean([f.get(SCORES[self.score(method)]) for f in finals.values()]))
                self.chosen.add([{"variant": variant, "method": method, "setting": text, "score": known[text]}])
                print("%s  %-12s %-22s %s: %.2f set apart" % (time.strftime("%H:%M:%S"), variant, method, text, known[text]), flush=True)
        return max(settings, key=lambda s: known[named(s)])

    def all(self):
        done = {(r["variant"], r["method"], r["seed"]) for r in self.rows.read()}
        for seed, variant, method in itertools.product(self.seeds, self.variants, self.methods):
            if (variant, method, str(seed)) in done or "of" in self.methods[method] or method in self.variants[variant].get("without", ()):
                continue
            started = time.monotonic()
            setting = self.choose(variant, method)
            score = self.keep(variant, method, seed, setting, *self.run(variant, method, seed, setting, False))
            print("%s  %-12s %-22s seed %s: %s %.2f  (%.0f s)" % (time.strftime("%H:%M:%S"), variant, method, seed, self.score(method), score,
                                                           time.monotonic() - started), flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("table")
    p.add_argument("--data", default=os.environ.get("COHORT_DATA", os.path.join(ROOT, "..", "shared", "data")))
    p.add_argument("--out", help="folder for what comes out (default: build/experiments/TABLE)")
    p.add_argument("--build", default=os.path.join(ROOT, "build"))
    p.add_argument("--only", help="methods, separated by commas")
    p.add_argument("--variants", help="data, separated by commas")
    p.add_argument("--seeds", help="instead of the table's, separated by commas")
    p.add_argument("--recommend", action="store_true", help="ask cohortctl recommend, in place of running methods")
    p.add_argument("--export", metavar="DIR", help="run nothing; write splits and first weights to files")
    p.add_argument("--summary", action="store_true", help="only write the summary and the pictures of what is there")
    options = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the daemons end with it
    path = options.table if os.path.exists(options.table) else os.path.join(ROOT, "tests/experiments/tables", options.table + ".yaml")
    table = Table(path, options)
    if options.export:
        import export
        return export.write(table, os.path.abspath(options.export))
    if not options.summary:
        table.recommend_all() if options.recommend else table.all()
    import summary
    summary.write(table)


if __name__ == "__main__":
    main()
