#!/usr/bin/python3
"""Gradients and first steps in PyTorch, for our engine to repeat.

For each strategy and generator a file is made: a job description, initial values, examples, the batches of each step,
and what PyTorch's autograd and torch.optim.SGD make of them in double precision. The C side (tests/lib/replay.h) starts
from the same values and is compared after every step: the gradient at theta, theta, and at the end every shared and
private tensor. Beside it stands how far PyTorch's own single precision is from its double precision on the same steps: a
ReLU or a maximum that flips makes both differ from it by more than rounding, most of all from the published HyperFL start.

  pytorch_reference.py --golden tests/golden             the small files that the unit test reads (kept in the tree)
  pytorch_reference.py --replay BUILD/tests/experiments/replay --data DIR
                                                         the full Fashion-MNIST network, on real images; a table
"""
import argparse
import gzip
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn.functional as F


# ---- files ----

def save(path, tensors, meta):
    header, at = {"__metadata__": meta}, 0
    for name, value in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [at, at + 4 * value.size]}
        at += 4 * value.size
    text = json.dumps(header, separators=(",", ":"), sort_keys=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for value in tensors.values():
            f.write(np.ascontiguousarray(value, dtype="<f4").tobytes())


def read_images(folder, count):
    with gzip.open(os.path.join(folder, "train-images-idx3-ubyte.gz")) as f:
        f.read(16)
        x = np.frombuffer(f.read(count * 784), np.uint8).reshape(count, 1, 28, 28)
    with gzip.open(os.path.join(folder, "train-labels-idx1-ubyte.gz")) as f:
        f.read(8)
        y = np.frombuffer(f.read(count), np.uint8)
    return ((x.astype(np.float32) / 255 - np.float32(0.1307)) / np.float32(0.3081)), y.astype(np.int64)


# ---- networks: name, shape and fan-in of every tensor; forward from a dict ----

SMALL = {
    "input": [2, 7, 7], "classes": 3, "body": 4,
    "tensors": [("conv1.weight", (4, 2, 3, 3), 18), ("conv1.bias", (4,), 18), ("fc1.weight", (6, 16), 16),
                ("fc1.bias", (6,), 16), ("fc2.weight", (3, 6), 6), ("fc2.bias", (3,), 6)],
    "layers": ["conv2d: {out: 4, kernel: 3, padding: 1, stride: 2}", "leaky_relu: {slope: 0.01}", "max_pool: {size: 2}",
               "flatten:", "linear: {out: 6}", "leaky_relu: {slope: 0.01}", "linear: {out: 3}"],
}
FMNIST = {
    "input": [1, 28, 28], "classes": 10, "body": 6,
    "tensors": [("conv1.weight", (16, 1, 5, 5), 25), ("conv1.bias", (16,), 25), ("conv2.weight", (32, 16, 5, 5), 400),
                ("conv2.bias", (32,), 400), ("fc1.weight", (128, 800), 800), ("fc1.bias", (128,), 800),
                ("fc2.weight", (10, 128), 128), ("fc2.bias", (10,), 128)],
    "layers": ["conv2d: {out: 16, kernel: 5}", "leaky_relu: {slope: 0.01}", "max_pool: {size: 2}",
               "conv2d: {out: 32, kernel: 5, padding: 1}", "leaky_relu: {slope: 0.01}", "max_pool: {size: 2}",
               "flatten:", "linear: {out: 128}", "leaky_relu: {slope: 0.01}", "linear: {out: 10}"],
}


def forward(net, t, x):
    x = F.conv2d(x, t["conv1.weight"], t["conv1.bias"], **({"stride": 2, "padding": 1} if net is SMALL else {}))
    x = F.max_pool2d(F.leaky_relu(x, 0.01), 2)
    if net is FMNIST:
        x = F.max_pool2d(F.leaky_relu(F.conv2d(x, t["conv2.weight"], t["conv2.bias"], padding=1), 0.01), 2)
    x = F.leaky_relu(F.linear(x.flatten(1), t["fc1.weight"], t["fc1.bias"]), 0.01)
    return F.linear(x, t["fc2.weight"], t["fc2.bias"])


# ---- parameterizations: parameters in the order they are stored, and theta made from them ----

def leaf(values, dtype):
    return torch.tensor(values.astype(np.float32)).to(dtype).requires_grad_()


def count(shape):
    return int(np.prod(shape))


class Model:
    """shared and private: ordered dicts of leaf tensors. theta(): the network's tensors, in order."""

    def __init__(self, net, case, rng, dtype):
        self.net, self.case = net, case
        self.dtype = dtype
        self.shared, self.private = {}, {}
        body, head = net["tensors"][:net["body"]], net["tensors"][net["body"]:]
        stored = {"fedavg": (body + head, []), "local": ([], body + head), "fedrep": (body, head), "hyperfl": ([], head)}
        for where, part in zip((self.shared, self.private), stored[case["strategy"]]):
            for name, shape, fan_in in part:
                where[name] = self.uniform(rng, shape, 1 / math.sqrt(fan_in))
        if case["strategy"] == "hyperfl":
            getattr(self, case["kind"])(body, rng)
            self.private["embedding"] = leaf(rng.standard_normal(case["embedding"]), dtype)

    def uniform(self, rng, shape, bound):
        return leaf(rng.uniform(-bound, bound, shape), self.dtype)

    def hidden(self, rng, inputs):
        H, E = self.case["hidden"], self.case["embedding"]
        self.shared["hyper.hidden.weight"] = self.uniform(rng, (H, E), 1 / math.sqrt(inputs))
        if self.case["kind"] == "chunked":
            self.shared["hyper.hidden.chunk"] = self.uniform(rng, (H, E), 1 / math.sqrt(inputs))
        self.shared["hyper.hidden.bias"] = self.uniform(rng, (H,), 1 / math.sqrt(inputs))

    def std(self, fan_in):
        """Standard deviation of a head's entries, as common/nn/init.c explains it."""
        H, inputs = self.case["hidden"], self.case["embedding"] * (2 if self.case["kind"] == "chunked" else 1)
        if not self.case["scaled"]:
            return 1 / math.sqrt(3 * H)
        target = 1 if self.case["kind"] == "chunked" else 1 / math.sqrt(3 * fan_in)
        return target / math.sqrt(H * (1 + 1 / inputs) / 6 + 1)

    def affine(self, body, rng):
        self.hidden(rng, self.case["embedding"])
        for suffix in "wb":
            for name, shape, fan_in in body:
                n = count(shape)
                self.shared[f"hyper.{name}.{suffix}"] = self.uniform(
                    rng, (self.case["hidden"], n) if suffix == "w" else (n,), self.std(fan_in) * math.sqrt(3))

    def kronecker(self, body, rng):
        self.hidden(rng, self.case["embedding"])
        for suffix in ("w1", "w2", "b1", "b2"):
            for name, shape, fan_in in body:
                n = count(shape)
                d = max(k for k in range(1, math.isqrt(n) + 1) if n % k == 0)
                d = d if suffix[1] == "1" else n // d
                self.shared[f"hyper.{name}.{suffix}"] = self.uniform(
                    rng, (self.case["hidden"], d) if suffix[0] == "w" else (d,), math.sqrt(3 * self.std(fan_in)))

    def chunked(self, body, rng):
        H, E, C = self.case["hidden"], self.case["embedding"], self.case["chunk"]
        chunks = -(-sum(count(shape) for _, shape, _ in body) // C)
        self.hidden(rng, 2 * E)
        self.shared["hyper.chunks"] = leaf(rng.standard_normal((chunks, E)), self.dtype)
        self.shared["hyper.chunk.w"] = self.uniform(rng, (H, C), self.std(1) * math.sqrt(3))
        self.shared["hyper.chunk.b"] = self.uniform(rng, (C,), self.std(1) * math.sqrt(3))

    def generated(self):
        s, v, kind = self.shared, self.private["embedding"], self.case["kind"]
        body, out = self.net["tensors"][:self.net["body"]], {}
        p = s["hyper.hidden.weight"] @ v + s["hyper.hidden.bias"]
        if kind == "chunked":
            f = torch.relu(p + s["hyper.chunks"] @ s["hyper.hidden.chunk"].T)
            flat, at = (f @ s["hyper.chunk.w"] + s["hyper.chunk.b"]).flatten(), 0
            for name, shape, fan_in in body:
                scale = 1 / math.sqrt(3 * fan_in) if self.case["scaled"] else 1
                out[name] = (flat[at:at + count(shape)] * scale).view(shape)
                at += count(shape)
            return out
        f = torch.relu(p)
        for name, shape, _ in body:
            get = lambda suffix: s[f"hyper.{name}.{suffix}"]
            if kind == "affine":
                flat = f @ get("w") + get("b")
            else:
                flat = torch.einsum("h,hi,hj->ij", f, get("w1"), get("w2")) + torch.outer(get("b1"), get("b2"))
            out[name] = flat.reshape(shape)
        return out

    def theta(self):
        stored = {**self.shared, **self.private}
        made = self.generated() if self.case["strategy"] == "hyperfl" else {}
        return {name: made[name] if name in made else stored[name] for name, _, _ in self.net["tensors"]}

    def flat(self, tensors):
        return np.concatenate([t.detach().numpy().ravel() for t in tensors] or [np.zeros(0)])


# ---- training ----

def trace(net, case, x, y, order, head_steps, seed, dtype):
    """order: one row of example numbers for each step; the first head_steps rows train the head alone."""
    model = Model(net, case, np.random.default_rng(seed), dtype)
    x = x.to(dtype)
    out = {"shared": model.flat(model.shared.values()), "private": model.flat(model.private.values())}
    head = [model.private[name] for name, _, _ in net["tensors"][net["body"]:] if name in model.private]
    v = [model.private["embedding"]] if "embedding" in model.private else []
    moving = list(model.shared.values()) if case["strategy"] != "local" else list(model.private.values())
    joint = head if not head_steps and case["strategy"] in ("fedrep", "hyperfl") else []
    sgd = lambda params, c: torch.optim.SGD(params, lr=c["lr"], momentum=case["momentum"],
                                            weight_decay=case["weight_decay"])
    stages = ([(head_steps, [head], [case["head"]])] if head_steps else []) + [
        (len(order) - head_steps, [moving, v, joint], [case["body"], case["body"], case["head"]])]
    grads, thetas, step = [], [], 0
    for steps, groups, confs in stages:
        optimizers = [(g, sgd(g, c), c) for g, c in zip(groups, confs) if g]
        for _ in range(steps):
            for t in list(model.shared.values()) + list(model.private.values()):
                t.grad = None
            theta = model.theta()
            for t in theta.values():
                t.retain_grad()
            F.cross_entropy(forward(net, theta, x[order[step]]), y[order[step]]).backward()
            grads.append(np.concatenate([t.grad.numpy().ravel() for t in theta.values()]))
            for group, optimizer, conf in optimizers:
                if conf["clip"]:
                    torch.nn.utils.clip_grad_norm_(group, conf["clip"])
                optimizer.step()
            thetas.append(model.flat(model.theta().values()))
            step += 1
    out.update(grads=np.stack(grads), thetas=np.stack(thetas), x=x.numpy().reshape(len(x), -1),
               y=y.numpy().astype(np.float32), order=order.astype(np.float32),
               final_shared=model.flat(model.shared.values()), final_private=model.flat(model.private.values()))
    for side in ("shared", "private"):
        if out[side].size == 0:
            del out[side], out["final_" + side]
    return out


def job(net, case, batch, head_steps, steps):
    sgd = lambda c: f"lr: {c['lr']}, momentum: {case['momentum']}, weight_decay: {case['weight_decay']}, clip: {c['clip']}"
    text = f"""name: reference
strategy: {case['strategy']}
rounds: 1
model:
  input: {net['input']}
  classes: {net['classes']}
  head: 1
  layers:
""" + "".join(f"    - {layer}\n" for layer in net["layers"])
    if case["strategy"] == "hyperfl":
        chunk = f", chunk: {case['chunk']}" if case["kind"] == "chunked" else ""
        text += (f"hypernetwork: {{kind: {case['kind']}, embedding: {case['embedding']}, hidden: {case['hidden']}{chunk}, "
                 f"scaled: {'true' if case['scaled'] else 'false'}}}\n")
    body = "\n  ".join(sgd(case["body"]).split(", "))
    text += f"train:\n  batch: {batch}\n  epochs: {steps}\n  {body}\n"
    if case["strategy"] in ("fedrep", "hyperfl"):
        text += f"  head: {{epochs: {head_steps}, {sgd(case['head'])}}}\n"
    return text + "round: {members: 1}\ngrid: {bits: 32, step: -24}\n"


def cases(small):
    base = {"momentum": 0.5, "weight_decay": 0.0005, "body": {"lr": 0.02, "clip": 0}, "head": {"lr": 0.1, "clip": 0}}
    hyper = {**base, "strategy": "hyperfl", "kind": "affine", "scaled": True}
    clip = {"lr": 0.02, "clip": 50}
    sizes = (5, 8, 5, 8, 60) if small else (64, 128, 128, 64, 1024)
    E, H, E2, H2, C = sizes
    return {
        "fedavg": {**base, "strategy": "fedavg"},
        "fedavg_clipped": {**base, "strategy": "fedavg", "body": {"lr": 0.05, "clip": 0.5}},
        "local": {**base, "strategy": "local"},
        "fedrep": {**base, "strategy": "fedrep", "head_steps": 2},
        "fedrep_joint": {**base, "strategy": "fedrep"},
        "hyperfl_published": {**hyper, "scaled": False, "embedding": E, "hidden": H, "body": clip, "head_steps": 2},
        "hyperfl_scaled": {**hyper, "embedding": E, "hidden": H, "body": {"lr": 0.002, "clip": 50}, "head_steps": 2},
        "hyperfl_few": {**hyper, "embedding": E, "hidden": 3, "body": clip, "head_steps": 2},
        "hyperfl_joint": {**hyper, "embedding": E, "hidden": 3, "body": {"lr": 0.02, "clip": 0.3}},
        "kronecker": {**hyper, "kind": "kronecker", "embedding": E2, "hidden": H2, "body": clip, "head_steps": 1},
        "chunked": {**hyper, "kind": "chunked", "embedding": E, "hidden": 6, "chunk": C, "body": {"lr": 0.1, "clip": 0.2},
                    "head_steps": 1},
    }


def distance(a, b):
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) if a.size else 0.0


def write(path, net, case, x, y, order, seed):
    head_steps = case.get("head_steps", 0)
    exact = trace(net, case, x, y, order, head_steps, seed, torch.float64)
    single = trace(net, case, x, y, order, head_steps, seed, torch.float32)
    far = lambda name: distance(single[name], exact[name]) if name in exact else 0.0
    each = lambda name: max(distance(a, b) for a, b in zip(single[name], exact[name]))
    meta = {"plan": job(net, case, order.shape[1], head_steps, len(order) - head_steps), "head_steps": str(head_steps),
            "torch": torch.__version__, "torch_first_gradient": f"{distance(single['grads'][0], exact['grads'][0]):.3g}",
            "torch_gradient": f"{each('grads'):.3g}", "torch_theta": f"{each('thetas'):.3g}",
            "torch_end": f"{max(far('final_shared'), far('final_private')):.3g}"}
    save(path, exact, meta)


def golden(folder):
    rng = np.random.default_rng(7)
    n = 12
    x = torch.tensor(rng.standard_normal((n, *SMALL["input"])).astype(np.float32))
    y = torch.tensor(rng.integers(0, SMALL["classes"], n))
    for k, (name, case) in enumerate(cases(True).items()):
        # Whole batches, so that fl_train, which shuffles, must come to the same end.
        order = np.stack([rng.permutation(n) for _ in range(6)])
        write(os.path.join(folder, f"train_{name}.safetensors"), SMALL, case, x, y, order, 100 + k)


def replay(program, folder, names):
    x, y = read_images(folder, 300)
    x, y = torch.tensor(x), torch.tensor(y)
    failed = 0
    for k, (name, case) in enumerate(cases(False).items()):
        if names and name not in names:
            continue
        order = np.random.default_rng(k).permutation(300).reshape(6, 50)
        with tempfile.TemporaryDirectory() as work:
            path = os.path.join(work, name + ".safetensors")
            write(path, FMNIST, case, x, y, order, 200 + k)
            done = subprocess.run([program, path], stdout=subprocess.PIPE, text=True)
        print(done.stdout, end="", flush=True)
        failed += done.returncode != 0
    return failed


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--golden", metavar="DIR")
    p.add_argument("--replay", metavar="PROGRAM")
    p.add_argument("--data", metavar="DIR")
    p.add_argument("names", nargs="*")
    a = p.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if a.golden:
        golden(a.golden)
    if a.replay:
        sys.exit(1 if replay(a.replay, a.data, a.names) else 0)


if __name__ == "__main__":
    main()
