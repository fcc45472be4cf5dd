#!/usr/bin/python3
"""The table of parameterizations: rows of `protocol` (a CSV) beside what `cohortctl model show` says of each job.

    params_table.py ours.csv build/server/ctl/cohortctl tests/experiments/params/*.yaml
"""
import csv
import json
import os
import statistics
import subprocess
import sys

rows, show, jobs = list(csv.DictReader(open(sys.argv[1]))), sys.argv[2], sys.argv[3:]
print("| job | accuracy received | after training | update, bytes | noise dimension: client | example | private | frozen | CPU s a site and round |")
print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")


def mean(values):
    more = " +- %.1f" % (max(values) / 2 - min(values) / 2) if len(values) > 1 else ""
    return "%.1f%s (%d)" % (statistics.mean(values), more, len(values))


for path in jobs:
    name = os.path.basename(path)[:-5]
    mine = [r for r in rows if r["method"] == name]
    if not mine:
        continue
    last = max(int(r["round"]) for r in mine)
    received = [float(r["accuracy_received"]) for r in mine if int(r["round"]) == last]
    after = [float(r["accuracy_after"]) for r in mine if int(r["round"]) == last - 1]
    cpu = [float(r["cpu_s"]) for r in mine if r["cpu_s"] != "-"]
    o = json.loads(subprocess.run([show, "--json", "model", "show", path], check=True, capture_output=True).stdout)
    p = o["parameters"]
    print("| %s | %s | %s | %d | %d | %d | %d | %d | %.3f |" % (
        name, mean(received), mean(after), o["update_bytes"], o["elements"]["shared"], sum(r["theta"] for r in p),
        sum(r["private"] for r in p), sum(r["frozen"] for r in p), statistics.median(cpu) / 20))
