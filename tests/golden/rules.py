#!/usr/bin/python3
"""Golden values of parameterizations by rules, by PyTorch's autograd: writes tests/golden/rule_*.safetensors.

Each file holds a job's text (metadata `job`), the stored tensors (`shared.NAME`, `private.NAME`), a gradient at theta (`grad`), and what PyTorch
makes of them in double precision: `theta`, and the gradient of <theta, grad> at every stored tensor (`d.shared.NAME`, `d.private.NAME`).
Definitions are written out here element by element, from the papers. Needs python3-torch. Seeds are fixed.
"""
import math
import os

import torch

from golden_file import write

torch.manual_seed(11)
torch.set_default_dtype(torch.float64)

JOB = """name: golden
strategy: %s
rounds: 1
model:
  input: [1, 5, 5]
  classes: 3
  layers:
    - conv2d: {out: 4, kernel: 3}
    - relu: {}
    - flatten: {}
    - linear: {out: 6}
    - relu: {}
    - linear: {out: 6}
    - relu: {}
    - linear: {out: 6}
    - relu: {}
    - linear: {out: 3}
  parameters:
%s
train: {lr: 0.1}
round: {members: 1}
"""
SHAPES = [("conv1", (4, 1, 3, 3)), ("fc1", (6, 36)), ("fc2", (6, 6)), ("fc3", (6, 6)), ("fc4", (3, 6))]
CASES = {
    "low_rank": ("fedavg", "    - {layers: [fc1], kind: low_rank, rank: 2}\n"
                           "    - {layers: [fc2, fc3], kind: low_rank, rank: 3, base: shared}"),
    "adapter": ("fedrep", "    - {layers: [conv1], kind: frozen}\n"
                          "    - {layers: [fc1], kind: adapter, rank: 2}\n"
                          "    - {layers: [fc2], kind: adapter, rank: 1, base: frozen}"),
    "sparse_rank": ("fedavg", "    - {layers: [fc1, fc2], kind: sparse_rank, rank: 3, sparsity: 0.1}"),
    "atoms": ("fedrep", "    - {layers: [fc1, fc2, fc3], kind: atoms, atoms: 2}"),
    "hashed": ("fedavg", "    - {layers: ['fc*'], kind: hashed, ratio: 7}\n    - {layers: [conv1], kind: plain}"),
    "tied": ("fedavg", "    - {layers: [fc2, fc3], kind: tied, rank: 2}"),
    "nested": ("fedavg", "    - {layers: [conv1, fc1, fc2], kind: nested}"),
}
RULES = {  # layer -> (kind, rank or atoms or ratio, base)
    "low_rank": {"fc1": ("low", 2, None), "fc2": ("low", 3, "shared"), "fc3": ("low", 3, "shared")},
    "adapter": {"conv1": ("frozen",), "fc1": ("adapter", 2, "shared"), "fc2": ("adapter", 1, "private")},
    "sparse_rank": {"fc1": ("sparse", 3, "private"), "fc2": ("sparse", 3, "private")},
    "atoms": {k: ("atoms", 2) for k in ("fc1", "fc2", "fc3")},
    "hashed": {k: ("hashed", 7) for k in ("fc1", "fc2", "fc3", "fc4")},
    "tied": {k: ("tied", 2) for k in ("fc2", "fc3")},
    "nested": {k: ("nested",) for k in ("conv1", "fc1", "fc2", "fc3")},
}
MASK = (1 << 64) - 1


def mix64(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


class Stored:
    def __init__(self):
        self.of = {}

    def get(self, where, name, shape):
        key = where + "." + name
        if key not in self.of:
            self.of[key] = torch.randn(*shape, requires_grad=True)
        return self.of[key]


def hashed_memory(case):
    total = sum(math.prod(s) for n, s in SHAPES if n in RULES[case])
    return -(-total // RULES[case]["fc1"][1])


def make(case, stored, name, shape, seen, first):
    rule = RULES[case].get(name)
    rows, columns = shape[0], math.prod(shape[1:])
    where = "private" if case in ("adapter", "atoms") and name == "fc4" else "shared"
    whole = name + ".weight"
    if rule is None:
        return stored.get(where, whole, shape)
    if rule[0] == "frozen":
        return stored.get("private", whole, shape)
    if rule[0] in ("low", "adapter", "sparse"):
        factors = "private" if rule[0] == "adapter" else "shared"
        up = stored.get(factors, whole + ".up", (rows, rule[1]))
        down = stored.get(factors, whole + ".down", (rule[1], columns))
        if rule[0] == "sparse":
            up = up @ torch.diag(stored.get("private", whole + ".mix", (rule[1],)))
        base = stored.get(rule[2], whole + ".base", (rows, columns)) if rule[2] else 0
        return base + up @ down
    if rule[0] == "tied":
        base = stored.get("shared", first + ".weight.tied", (rows, columns))
        return base + stored.get("shared", whole + ".up", (rows, rule[1])) @ stored.get("shared", whole + ".down", (rule[1], columns))
    if rule[0] == "atoms":
        owner = {36: "fc1", 6: "fc2"}[columns]
        atoms = stored.get("shared", owner + ".weight.atoms", (rule[1], rows * columns))
        return torch.einsum("k,ki->i", stored.get("private", whole + ".mix", (rule[1],)), atoms)
    if rule[0] == "hashed":
        m = hashed_memory(case)
        memory = stored.get("shared", "fc1.weight.memory", (m,))
        out = []
        for i in range(seen[0], seen[0] + rows * columns):
            run = i // m
            turn = mix64(run) % m if run else 0
            sign = -1 if run and mix64(~i & MASK) & 1 else 1
            out.append(sign * memory[(i + turn) % m] / math.sqrt(3 * columns))
        seen[0] += rows * columns
        return torch.stack(out)
    width = stored.get("private", "width", (1,)).detach()[0]
    base = stored.get("shared", whole + ".all", (rows, columns))
    mask = torch.ones(rows, columns)
    if name != "fc3":
        mask[math.ceil(width * rows):] = 0
    if name != "conv1":
        units, unit = (4, 9) if name == "fc1" else (6, 1)
        mask[:, math.ceil(width * units) * unit:] = 0
    return base * mask


def bias(case, stored, name, shape):
    rows = shape[0]
    rule = RULES[case].get(name, ("",))
    if rule[0] == "frozen" or (case in ("adapter", "atoms") and name == "fc4"):
        return stored.get("private", name + ".bias", (rows,))
    if rule[0] == "nested":
        base = stored.get("shared", name + ".bias.all", (rows, 1)).reshape(-1)
        mask = torch.ones(rows)
        if name != "fc3":
            mask[math.ceil(stored.of["private.width"].detach()[0] * rows):] = 0
        return base * mask
    return stored.get("shared", name + ".bias", (rows,))


for case, (strategy, rules) in CASES.items():
    stored, seen = Stored(), [0]
    if case == "nested":
        stored.of["private.width"] = torch.tensor([0.5], requires_grad=True)
    theta = []
    for name, shape in SHAPES:
        theta += [make(case, stored, name, shape, seen, "fc2").reshape(-1), bias(case, stored, name, shape)]
    theta = torch.cat(theta)
    grad = torch.randn_like(theta)
    (theta * grad).sum().backward()
    tensors = {"theta": theta, "grad": grad}
    for key, t in stored.of.items():
        tensors[key] = t
        fixed = key.endswith(".base") and key.startswith("private") or key == "private.width" or "conv1" in key and case == "adapter"
        tensors["d." + key] = torch.zeros_like(t) if fixed or t.grad is None else t.grad
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "rule_%s.safetensors" % case), tensors, JOB % (strategy, rules))
