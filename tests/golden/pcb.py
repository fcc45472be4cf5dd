#!/usr/bin/python3
"""Golden merges by NumPy, from the algorithm's description (Du et al. 2024, arXiv 2410.02396) by whole vectors and full sorts:
tests/golden/pcb.py writes tests/golden/pcb.safetensors. Of each case: base, models, what share is kept, what share are outliers, one scale for
each model, and the merged model. Needs python3-torch for the file alone.
"""
import os

import numpy as np
import torch

from golden_file import write


def order(rows, share, last=False):
    d = rows.shape[1]
    at = max(int(d * (1 - share) - 1), int(d * share)) if last else int(d * share)
    return np.sort(rows, axis=1)[:, min(at, d - 1)][:, None]


def unit(rows):
    low, high = rows.min(1, keepdims=True), rows.max(1, keepdims=True)
    flat = np.where(high > 0, 1.0, 0.0) * np.ones_like(rows)
    return np.where(high > low, (rows - low) / np.where(high > low, high - low, 1), flat)


def merge(base, models, keep, outliers, scale):
    t = models.astype(np.float64) - base.astype(np.float64)
    n = len(t)
    a = np.clip(np.abs(t), order(np.abs(t), outliers), order(np.abs(t), outliers, last=True))
    m = unit(a)
    s = np.sign(t) * m
    beta = np.exp(n * m ** 2) * np.tanh(s[:, None, :] * s[None, :, :]).sum(1)
    g = unit(np.maximum(beta, order(beta, 1 - keep)))
    g[~t.any(1)] = 0
    return base + (scale[:, None] * g * np.sign(t) * a).sum(0) / np.maximum(g.sum(0), 1e-12)


def main():
    rng = np.random.default_rng(7)
    folder = os.path.dirname(os.path.abspath(__file__))
    cases = []
    for n, d, keep, outliers, scales in [(2, 300, 0.1, 1e-4, 1), (5, 1000, 0.1, 0.01, 1.2), (7, 517, 0.3, 0.05, None), (20, 257, 1.0, 0, 1), (1, 100, 0.2, 0.01, 1)]:
        base = rng.standard_normal(d).astype(np.float32)
        far = rng.standard_normal((n, d)) * rng.exponential(0.02, (n, 1)) + 0.01 * rng.standard_normal(d)
        far[rng.random((n, d)) < 0.05] = 0
        if n == 7:
            far[3] = 0  # a model that is the base itself
            far[5] *= 300  # and one far away
        models = (base + far).astype(np.float32)
        scale = np.full(n, scales, np.float32) if scales else (1 / np.sqrt(1 + np.arange(n))).astype(np.float32)
        cases.append((base, models, keep, outliers, scale))
    out = {}
    for i, (base, models, keep, outliers, scale) in enumerate(cases):
        merged = merge(base, models, keep, outliers, scale.astype(np.float64))
        for name, x in [("base", base), ("models", models), ("terms", [keep, outliers]), ("scale", scale), ("merged", merged)]:
            out[f"{i}.{name}"] = torch.tensor(np.asarray(x, np.float64), dtype=torch.float32)
    write(os.path.join(folder, "pcb.safetensors"), out, "none")


main()
