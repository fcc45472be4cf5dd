"""What a table came to: OUT/summary.md, and pictures where python3-matplotlib is installed. Used by table.py.

Intervals are over sites: a site's differences are averaged over seeds first (its seeds share its place in the federation, not its
images, so they are not independent sites), then Student's t over the sites. "Harmed": a site that is more than one point worse than the
reference on its mean over seeds, with one-sided paired p below 0.05 over the seeds (needs two seeds at least). A method that is another one's run
judged otherwise (`of`) has that one's rows, and no guard of its own. With `intervals: seeds` in the table they are over seeds, each of which
deals other examples: means over sites first.
"""
import math
from collections import defaultdict


def t_quantile(p, df):
    """Of Student's t by Hill's expansion around the normal quantile; within 0.01 from three degrees of freedom on (tested)."""
    z = normal_quantile(p)
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    g4 = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + g1 / df + g2 / df**2 + g3 / df**3 + g4 / df**4


def normal_quantile(p):
    from statistics import NormalDist
    return NormalDist().inv_cdf(p)


EXACT = {1: 12.706, 2: 4.303}  # 97.5 % points of Student's t where the expansion is not good


def average(x):
    return sum(x) / len(x)


def interval(x):
    """Mean and half width of its 95 % interval; no width for one value."""
    m = average(x)
    if len(x) < 2:
        return m, None
    s = math.sqrt(sum((v - m) ** 2 for v in x) / (len(x) - 1))
    return m, (EXACT.get(len(x) - 1) or t_quantile(0.975, len(x) - 1)) * s / math.sqrt(len(x))


def harmed(differences):
    """Of one site over seeds: more than a point worse, and one-sided p < 0.05."""
    n, m = len(differences), average(differences)
    if m >= -1 or n < 2:
        return False
    s = math.sqrt(sum((v - m) ** 2 for v in differences) / (n - 1))
    critical = {1: 6.314, 2: 2.920}.get(n - 1) or t_quantile(0.95, n - 1)
    return s == 0 or m / (s / math.sqrt(n)) < -critical


def gather(table, judged=True):
    """{variant: {method: {(site, seed): row}}}, in the order of the table; of sites that are judged, or of all."""
    rows = defaultdict(lambda: defaultdict(dict))
    for r in table.rows.read():
        variant = table.all_variants.get(r["variant"], {})
        if not judged or int(r["site"].split("-")[1]) > variant.get("sites", 0) - variant.get("judged", variant.get("sites", 0)):
            rows[r["variant"]][r["method"]][(r["site"], r["seed"])] = r
    run = lambda m: table.all_methods[m].get("of", m)
    return {v: {m: rows[v][run(m)] for m in table.all_methods if run(m) in rows[v]} for v in table.all_variants if v in rows}


def number(row, column):
    return float(row[column]) if row.get(column) not in (None, "") else None


def over(table):
    """What intervals are over, as the place in a row's key."""
    return 1 if table.spec.get("intervals") == "seeds" else 0


def references(table):
    named = table.spec.get("reference") or []
    return named if isinstance(named, list) else [named]


def reference_of(table, everywhere, variant, methods):
    """Name and rows of what a variant is compared with, where its sites stand alone; of several, what is better for the sites that are judged."""
    keys = {key for rows in methods.values() for key in rows}
    rows = everywhere.get(table.all_variants[variant].get("alone", variant), {})
    there = {m: {k: r for k, r in rows[m].items() if k in keys} for m in references(table) if m in rows}
    best = max((m for m in there if there[m]), key=lambda m: average([number(r, table.score(m)) for r in there[m].values()]), default=None)
    return best, there.get(best)


def against(table, rows, column, reference):
    """Mean paired difference to the reference with its interval, and how many sites are harmed."""
    pairs, units = defaultdict(list), defaultdict(list)
    other, there = table.score(reference[0]), reference[1]
    for key, r in rows.items():
        if key in there:
            difference = number(r, column) - number(there[key], other)
            pairs[key[0]].append(difference)
            units[key[over(table)]].append(difference)
    d, dh = interval([average(v) for v in units.values()])
    return "%+.2f" % d + ("" if dh is None else " (%+.2f to %+.2f)" % (d - dh, d + dh)), "%d of %d" % (sum(harmed(v) for v in pairs.values()), len(pairs))


def method_line(table, name, rows, reference):
    column = table.score(name)
    of_site, units = defaultdict(list), defaultdict(list)
    for key, r in rows.items():
        of_site[key[0]].append(number(r, column))
        units[key[over(table)]].append(number(r, column))
    means = sorted(average(v) for v in of_site.values())
    worst = average(means[:max(1, len(means) // 10)])
    spread = math.sqrt(sum((m - average(means)) ** 2 for m in means) / len(means))
    mean, half = interval([average(v) for v in units.values()])
    gain, share, guard = "", "", ["", "", ""]
    if reference[1] and reference[0] != name:
        gain, share = against(table, rows, column, reference)
        if all(r.get("choice") for r in rows.values()) and "of" not in table.all_methods[name]:
            federated = sum(r["choice"] != "alone" for r in rows.values())
            guard = [*against(table, rows, "guarded", reference), "%.0f %%" % (100 * federated / len(rows))]
    any_row = next(iter(rows.values()))
    seeds = len({seed for _, seed in rows})
    cpu = average([number(r, "cpu_s") / number(r, "rounds") for r in rows.values()])
    epsilon = max((number(r, "epsilon") or 0) for r in rows.values())
    return [name, any_row["setting"].strip("{}") or "-", column, str(seeds), "%.2f" % mean + ("" if half is None else " +- %.2f" % half), "%.2f" % worst, "%.1f" % spread,
            gain, share, *guard, "%.0f" % (average([number(r, "bytes_up") for r in rows.values()]) / number(any_row, "rounds")), "%.3f" % cpu,
            "%.2f" % epsilon if epsilon else "none"]


HEAD = ["method", "chosen", "model", "seeds", "accuracy, mean over sites", "worst tenth", "spread of sites", "against the reference", "harmed", "with the guard", "harmed with it",
        "chose the federation", "bytes up a round",
        "CPU s a round", "epsilon"]


def winners(table, data):
    """Methods by variants: means; the best in bold, and a tilde at those that 95 % over sites do not tell apart from it."""
    of_site = defaultdict(dict)
    for v, methods in data.items():
        for m, rows in methods.items():
            sites = defaultdict(list)
            for (site, _), r in rows.items():
                sites[site].append(number(r, table.score(m)))
            of_site[v][m] = {site: average(x) for site, x in sites.items()}
    best = {v: max(ms, key=lambda m: average(list(ms[m].values()))) for v, ms in of_site.items()}

    def cell(v, m):
        if m not in of_site[v]:
            return ""
        mine, top = of_site[v][m], of_site[v][best[v]]
        text = "%.2f" % average(list(mine.values()))
        if m == best[v]:
            return "**%s**" % text
        d, half = interval([mine[s] - top[s] for s in mine if s in top])
        return text + (" ~" if half is not None and d + half >= 0 else "")
    out = ["## Which method where", "", "| method | " + " | ".join(data) + " |", "| --- |" + " --- |" * len(data)]
    out += ["| %s | %s |" % (m, " | ".join(cell(v, m) for v in data)) for m in table.all_methods if any(m in ms for ms in data.values())]
    return out + [""]


def regrets(table, data):
    """What `recommend` answered, and how far that is from the best candidate by the table's own runs of the same seed."""
    out = []
    for r in table.recommended.read():
        methods = data.get(r["variant"], {})
        word = {(m["strategy"] if isinstance(m.get("strategy"), str) else ""): n for n, m in reversed(table.all_methods.items())}
        means = {}
        for c in table.all_variants[r["variant"]]["recommend"]["candidates"]:
            of = [number(x, table.score(word[c])) for (_, seed), x in methods.get(word.get(c), {}).items() if seed == r["seed"]]
            if of:
                means[c] = average(of)
        if r["strategy"] in means:
            best = max(means, key=means.get)
            out.append("| %s | %s | %s | %s | %s, %.2f | %.2f | %.2f |" % (r["variant"], r["seed"], r["strategy"], "%.3f" % float(r["confidence"]), best, means[best],
                                                                    means[r["strategy"]], means[best] - means[r["strategy"]]))
    head = ["## What was recommended", "", "| data | seed | recommended | confidence | best candidate | the recommended one | regret |", "| --- |" + " --- |" * 6]
    return head + out + [""] if out else []


def write(table):
    data, everywhere = gather(table), gather(table, judged=False)
    out = ["# %s" % table.spec["title"], ""]
    out += ["Accuracy in percent on test examples that no choice has seen; +- and intervals are 95 %% over %s. Reference: %s."
            % (table.spec.get("intervals", "sites"), " or ".join(references(table)) or "none"), ""]
    if len(data) > 1:
        out += winners(table, data)
    out += regrets(table, data)
    for variant, methods in data.items():
        any_row = next(iter(next(iter(methods.values())).values()))
        reference = reference_of(table, everywhere, variant, methods)
        named = ", against %s" % reference[0] if len(references(table)) > 1 and reference[0] else ""
        out += ["## %s (%d sites, %s rounds%s)" % (variant, table.all_variants[variant]["sites"], any_row["rounds"], named), "", "| " + " | ".join(HEAD) + " |", "| " + " | ".join("---" for _ in HEAD) + " |"]
        for name, rows in methods.items():
            out.append("| " + " | ".join(method_line(table, name, rows, reference)) + " |")
        out.append("")
    with open(table.out + "/summary.md", "w") as f:
        f.write("\n".join(out))
    print("\n".join(out))
    try:
        import matplotlib
    except ImportError:
        print("skipped: pictures (apt-get install python3-matplotlib)")
        return
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": table.name})  # small, and the same when made again
    curves(table)
    spread(table, data)


def curves(table):
    import matplotlib.pyplot as plt
    of = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for r in table.rounds.read():
        value = number(r, table.score(r["method"])) if r["method"] in table.all_methods else None
        if value is not None:
            of[r["variant"]][r["method"]][int(r["round"])].append(value)
    variants = [v for v in table.all_variants if v in of]
    if not variants:
        return
    figure, axes = plt.subplots(1, len(variants), figsize=(5 * len(variants), 4), squeeze=False, sharey=True)
    for axis, variant in zip(axes[0], variants):
        for method in table.all_methods:
            rounds = of[variant].get(method, {})
            axis.plot(sorted(rounds), [average(rounds[r]) for r in sorted(rounds)], label=method)
        axis.set(title=variant, xlabel="round")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("accuracy, mean over sites and seeds, %")
    axes[0][-1].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(table.out + "/curves.svg")
    plt.close(figure)


def spread(table, data):
    import matplotlib.pyplot as plt
    if not data:
        return
    figure, axes = plt.subplots(1, len(data), figsize=(5 * len(data), 4), squeeze=False, sharey=True)
    for axis, (variant, methods) in zip(axes[0], data.items()):
        axis.boxplot([[number(r, table.score(m)) for r in rows.values()] for m, rows in methods.items()])
        axis.set_xticks(range(1, len(methods) + 1), list(methods), rotation=45, ha="right", fontsize="small")
        axis.set_title(variant)
        axis.grid(alpha=0.3, axis="y")
    axes[0][0].set_ylabel("accuracy of each site and seed, %")
    figure.tight_layout()
    figure.savefig(table.out + "/sites.svg")
    plt.close(figure)
