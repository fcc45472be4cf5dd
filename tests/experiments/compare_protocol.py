#!/usr/bin/python3
"""Do two runs of the published protocol agree?

    compare_protocol.py PYTORCH.csv OURS.csv [--round 10] [--json]

Both files have the columns that pytorch_protocol.py explains. For every method with at least two seeds
in both files: mean over seeds of the mean accuracy over sites, its standard error (from the spread over
seeds), the difference, and whether it is within two standard errors of the difference. `p` is Welch's:
how often seeds alone would give such a difference; with three seeds a side, two standard errors are
passed by chance about once in nine comparisons, so look at it too. A method that does not appear with
two seeds in both files is listed, not judged.

Exit: 0 all methods agree, 1 some do not, 2 nothing to compare. Of rows that appear twice, the last
counts. Only Python's standard library.
"""
import argparse
import json
import math
import statistics
import sys

QUANTITIES = ("accuracy_after", "accuracy_received")


def read(path):
    """{method: {seed: {round: row}}}"""
    runs = {}
    with open(path) as f:
        columns = f.readline().strip().split(",")
        for number, line in enumerate(f, 2):
            values = line.rstrip("\n").split(",")
            if len(values) != len(columns):
                sys.exit(f"{path}:{number}: {len(values)} columns, not {len(columns)}")
            row = dict(zip(columns, values))
            by_seed = runs.setdefault(row["method"], {})
            by_seed.setdefault(row["seed"], {})[int(row["round"])] = row
    return runs


def values(runs, method, number, column):
    """Of every seed that got that far."""
    found = []
    for rounds in runs.get(method, {}).values():
        text = rounds.get(number, {}).get(column, "-")
        if text != "-":
            found.append(float(text))
    return found


def student_tail(t, freedom, steps=20000):
    """P(|T| > t): the density integrated with x = sqrt(freedom) tan(a), which makes it finite."""
    top = math.pi / 2
    begin = math.atan(t / math.sqrt(freedom))
    width = (top - begin) / steps
    total = sum(math.cos(begin + (i + 0.5) * width) ** (freedom - 1) for i in range(steps)) * width
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return min(1.0, 2 * scale * total)


def summary(x):
    return {
        "seeds": len(x),
        "mean": statistics.fmean(x),
        "standard_error": statistics.stdev(x) / math.sqrt(len(x)) if len(x) > 1 else None,
    }


def compare(a, b):
    """Of two summaries with standard errors."""
    va, vb = a["standard_error"] ** 2, b["standard_error"] ** 2
    difference, error = b["mean"] - a["mean"], math.sqrt(va + vb)
    result = {"difference": difference, "standard_error": error}
    if error == 0:
        result.update(p=1.0 if difference == 0 else 0.0, agree=difference == 0)
    else:
        freedom = error**4 / (va**2 / (a["seeds"] - 1) + vb**2 / (b["seeds"] - 1))
        result["p"] = student_tail(abs(difference) / error, freedom)
        result["agree"] = abs(difference) <= 2 * error
    return result


def text(s):
    if s["standard_error"] is None:
        return f"{s['mean']:6.2f}          (1)"
    return f"{s['mean']:6.2f} +- {s['standard_error']:4.2f} ({s['seeds']})"


def main():
    p = argparse.ArgumentParser(description="Do two runs of the published protocol agree?")
    p.add_argument("first")
    p.add_argument("second")
    p.add_argument("--round", type=int, default=10)
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    first, second = read(a.first), read(a.second)
    out, compared, differ = [], 0, 0
    for column in QUANTITIES:
        # What was received in round r is the average of round r - 1; the one of round r is the next.
        number = a.round if column == "accuracy_after" else a.round + 1
        for method in sorted(set(first) | set(second)):
            x, y = (values(runs, method, number, column) for runs in (first, second))
            entry = {"method": method, "quantity": column, "round": number}
            entry["first"], entry["second"] = (summary(v) if v else None for v in (x, y))
            if len(x) > 1 and len(y) > 1:
                entry.update(compare(entry["first"], entry["second"]))
                if column == "accuracy_after":
                    compared += 1
                    differ += not entry["agree"]
            out.append(entry)
    if a.json:
        json.dump(out, sys.stdout, indent=1)
        print()
    for column in () if a.json else QUANTITIES:
        what = "after local training" if column == "accuracy_after" else "received, after the average"
        print(f"round {a.round}, {what}: mean over sites, mean +- standard error over (seeds)")
        print(f"  {'method':19} {a.first[-20:]:>20} {a.second[-20:]:>20}  difference +- s.e.     p   within 2 s.e.")
        for e in (e for e in out if e["quantity"] == column):
            sides = [f"{text(e[s]) if e[s] else '-':>20}" for s in ("first", "second")]
            end = "not compared"
            if "agree" in e:
                end = f"{e['difference']:+6.2f} +- {e['standard_error']:4.2f}   {e['p']:5.3f}   {'yes' if e['agree'] else 'NO'}"
            print(f"  {e['method']:19} {sides[0]} {sides[1]}      {end}")
    print(f"{compared} methods compared after local training, {differ} differ", file=sys.stderr)
    return 2 if compared == 0 else 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
