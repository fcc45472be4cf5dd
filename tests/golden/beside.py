#!/usr/bin/python3
"""What sites do beside training the model they received, in PyTorch, for our trainer to repeat (tests/unit/test_personal.c).

Ditto, APFL, FedALA, SCAFFOLD, FedDyn, FedDBE and FedProto over three rounds with given received models, in double precision, written from the papers'
algorithms and not from our code. Batches are the whole data set, so that no order matters. A file has the job, examples,
and for each round the received model, what serves before training, the update, and the private vector after it.

  personal.py tests/golden
"""
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "experiments"))
from pytorch_reference import SMALL, forward, save

NAMES = [n for n, _, _ in SMALL["tensors"]]
SHAPES = [s for _, s, _ in SMALL["tensors"]]
LR, MOMENTUM, DECAY, EPOCHS = 0.1, 0.5, 0.001, 3
ROUNDS = 3


def split(flat):
    out, at = [], 0
    for shape in SHAPES:
        n = int(np.prod(shape))
        out.append(flat[at:at + n].view(shape))
        at += n
    return out


def flat(tensors):
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def loss_of(tensors, x, y):
    return F.cross_entropy(forward(SMALL, dict(zip(NAMES, tensors)), x), y)


def leaves(vector):
    return [t.clone().requires_grad_() for t in split(vector)]


def sgd(tensors, momentum=MOMENTUM):
    return torch.optim.SGD(tensors, lr=LR, momentum=momentum, weight_decay=DECAY)


def train(start, steps, x, y, pull=0.0, anchor=None):
    w = leaves(start)
    o = sgd(w)
    for _ in range(steps):
        o.zero_grad()
        loss = loss_of(w, x, y)
        if pull:
            loss = loss + pull / 2 * sum(((a - b) ** 2).sum() for a, b in zip(w, split(anchor)))
        loss.backward()
        o.step()
    return flat(w)


class Ditto:
    strategy = "{ditto: {lambda: 0.7, epochs: 2}}"

    def __init__(self):
        self.v = None

    def receive(self, w, x, y):
        return w if self.v is None else self.v

    def round(self, w, x, y):
        after = train(w, EPOCHS, x, y)
        self.v = train(w if self.v is None else self.v, 2, x, y, 0.7, w)
        return after

    def private(self, rounds):
        return torch.cat([torch.tensor([float(rounds)]), self.v])


class Apfl:
    strategy = "{apfl: {alpha: 0.3}}"

    def __init__(self):
        self.v, self.alpha = None, 0.3

    def receive(self, w, x, y):
        return w if self.v is None else self.alpha * self.v + (1 - self.alpha) * w

    def round(self, w, x, y):
        v, u = leaves(w if self.v is None else self.v), leaves(w)
        ov, ou = sgd(v), sgd(u)
        for step in range(EPOCHS):
            ov.zero_grad()
            ou.zero_grad()
            alpha = torch.tensor(self.alpha, dtype=torch.float64, requires_grad=True)
            fixed = [t.detach() for t in u]
            loss_of([alpha * a + (1 - alpha) * b for a, b in zip(v, fixed)], x, y).backward()
            loss_of(u, x, y).backward()
            if step == 0:
                self.alpha = float(min(max(self.alpha - LR * alpha.grad.item(), 0), 1))
                kept = self.alpha
                self.alpha = float(alpha)  # this step's gradient was taken with the alpha before
            ov.step()
            ou.step()
            if step == 0:
                self.alpha = kept
        self.v = flat(v)
        return flat(u)

    def private(self, rounds):
        return torch.cat([torch.tensor([float(rounds), self.alpha]), self.v])


class Fedala:
    strategy = "{fedala: {layers: 2, share: 1, eta: 2}}"
    END = 4  # the last two layers have the last four tensors

    def __init__(self):
        self.v, self.weights, self.first, self.started = None, None, True, None

    def receive(self, w, x, y):
        """PFLlib's ALA module, as the paper's appendix has it."""
        if self.v is None:
            self.started = w
            return w
        glob, own = split(w), split(self.v)
        n = self.END
        if self.weights is None:
            self.weights = [torch.ones_like(t) for t in own[-n:]]
        mix = lambda: [a + (b - a) * k for a, b, k in zip(own[-n:], glob[-n:], self.weights)]
        losses = []
        while True:
            top = [t.clone().requires_grad_() for t in mix()]
            loss = loss_of([t.clone() for t in glob[:-n]] + top, x, y)
            loss.backward()
            self.weights = [torch.clamp(k - 2 * t.grad * (b - a), 0, 1)
                            for k, t, a, b in zip(self.weights, top, own[-n:], glob[-n:])]
            losses.append(loss.item())
            if not self.first or (len(losses) > 10 and np.std(losses[-10:]) < 0.1):
                break
        self.first = False
        self.started = flat(glob[:-n] + mix())
        return self.started

    def round(self, w, x, y):
        self.v = train(self.started, EPOCHS, x, y)
        return self.v

    def private(self, rounds):
        n = self.END
        stays = torch.cat([1 - t.reshape(-1) for t in self.weights]) if self.weights else \
            torch.zeros(sum(int(np.prod(s)) for s in SHAPES[-n:]), dtype=torch.float64)
        return torch.cat([torch.tensor([float(rounds)]), self.v, stays])


class Scaffold:
    strategy = "{scaffold: {sites: 4}}"
    momentum, part = 0.0, 0.5

    def __init__(self):
        self.c_i = torch.zeros(sum(int(np.prod(s)) for s in SHAPES), dtype=torch.float64)

    def receive(self, both, x, y):
        return both[:both.numel() // 2]

    def round(self, both, x, y):
        w, c = both.chunk(2)
        v = leaves(w)
        o = sgd(v, 0.0)
        for _ in range(EPOCHS):
            o.zero_grad()
            loss_of(v, x, y).backward()
            for t, a, b in zip(v, split(c), split(self.c_i)):
                t.grad += a - b
            o.step()
        after = flat(v)
        before, self.c_i = self.c_i, self.c_i - c + (w - after) / (EPOCHS * LR)
        return torch.cat([after, c + self.part * (self.c_i - before)])

    def private(self, rounds):
        return self.c_i


class Feddyn:
    strategy = "{feddyn: {alpha: 0.4}}"

    def __init__(self):
        self.h = torch.zeros(sum(int(np.prod(s)) for s in SHAPES), dtype=torch.float64)

    def receive(self, w, x, y):
        return w

    def round(self, w, x, y):
        v = leaves(w)
        o = sgd(v)
        for _ in range(EPOCHS):
            o.zero_grad()
            (loss_of(v, x, y) - sum((a * b).sum() for a, b in zip(v, split(self.h)))
             + 0.4 / 2 * sum(((a - b) ** 2).sum() for a, b in zip(v, split(w)))).backward()
            o.step()
        after = flat(v)
        self.h = self.h - 0.4 * (after - w)
        return after

    def private(self, rounds):
        return self.h


BODY, FEATURES = 4, 6  # the head is the last layer, of two tensors


def features(tensors, x):
    t = dict(zip(NAMES, tensors))
    z = F.max_pool2d(F.leaky_relu(F.conv2d(x, t["conv1.weight"], t["conv1.bias"], stride=2, padding=1), 0.01), 2)
    return F.leaky_relu(F.linear(z.flatten(1), t["fc1.weight"], t["fc1.bias"]), 0.01)


class Feddbe:
    strategy = "{feddbe: {kappa: 3, momentum: 0.6}}"

    def __init__(self):
        self.mean, self.n = torch.zeros(FEATURES, dtype=torch.float64), 0

    def receive(self, both, x, y):
        w = both[:-FEATURES].clone()
        t = split(w)
        t[-1] += t[-2] @ self.mean  # a bias that does what the mean does before the head
        return w

    def round(self, both, x, y):
        self.n += 1
        w, center = both[:-FEATURES], both[-FEATURES:]
        v = leaves(w)
        mean = self.mean.clone().requires_grad_()
        o, om = sgd(v), torch.optim.SGD([mean], lr=LR)
        running = torch.zeros(FEATURES, dtype=torch.float64)
        for _ in range(EPOCHS):
            z = features(v, x)
            running = 0.4 * running + 0.6 * z.mean(0)
            loss = F.cross_entropy(F.linear(z + mean, v[-2], v[-1]), y)
            if self.n > 1:
                loss = loss + 3 * (0.5 * (running - center) ** 2).mean()
            o.zero_grad()
            om.zero_grad()
            loss.backward()
            o.step()
            om.step()
            running = running.detach()
        self.mean = mean.detach()
        return torch.cat([flat(v), features(v, x).mean(0).detach()])

    def private(self, rounds):
        return self.mean


class Fedproto:
    strategy = "{fedproto: {lambda: 0.8}}"

    def __init__(self):
        self.w = None

    def receive(self, sums, x, y):
        return self.w

    def round(self, sums, x, y):
        classes = SMALL["classes"]
        total, sites = sums[:classes * FEATURES].view(classes, FEATURES), sums[classes * FEATURES:]
        v = leaves(self.w)
        o = sgd(v)
        for _ in range(EPOCHS):
            z = features(v, x)
            wanted = z.detach().clone()
            for i, c in enumerate(y.tolist()):
                if sites[c] >= 0.25:
                    wanted[i] = total[c] / sites[c]
            o.zero_grad()
            (F.cross_entropy(F.linear(z, v[-2], v[-1]), y) + 0.8 * F.mse_loss(z, wanted)).backward()
            o.step()
        self.w = flat(v)
        z = features(v, x).detach()
        here = [bool((y == c).any()) for c in range(classes)]
        return torch.cat([z[y == c].mean(0) if here[c] else torch.zeros(FEATURES, dtype=torch.float64)
                          for c in range(classes)] + [torch.tensor([float(h) for h in here]).double()])

    def private(self, rounds):
        return self.w


def job(strategy, momentum, batch):
    return f"""name: reference
strategy: {strategy}
rounds: {ROUNDS}
model:
  input: {SMALL['input']}
  classes: {SMALL['classes']}
  head: 1
  layers:
""" + "".join(f"    - {layer}\n" for layer in SMALL["layers"]) + f"""train:
  batch: {batch}
  epochs: {EPOCHS}
  lr: {LR}
  momentum: {momentum}
  weight_decay: {DECAY}
round: {{members: 2}}
grid: {{bits: 32, step: -24}}
"""


def main(folder):
    torch.set_num_threads(1)
    rng = np.random.default_rng(11)
    n = 70  # more than the network runs at once
    x = torch.tensor(rng.standard_normal((n, *SMALL["input"])).astype(np.float32)).double()
    y = torch.tensor(rng.integers(0, SMALL["classes"], n))
    start = torch.tensor(np.concatenate([rng.uniform(-f ** -0.5, f ** -0.5, int(np.prod(s)))
                                         for _, s, f in SMALL["tensors"]]).astype(np.float32)).double()
    for name, kind in (("ditto", Ditto), ("apfl", Apfl), ("fedala", Fedala), ("scaffold", Scaffold), ("feddyn", Feddyn),
                       ("feddbe", Feddbe), ("fedproto", Fedproto)):
        site, w = kind(), start
        if kind is Scaffold:
            w = torch.cat([start, torch.zeros_like(start)])
        if kind is Feddbe:
            w = torch.cat([start, torch.zeros(FEATURES, dtype=torch.float64)])
        begin = {}
        if kind is Fedproto:
            site.w, begin = start, {"begin": start.numpy()}
            w = torch.zeros(SMALL["classes"] * (FEATURES + 1), dtype=torch.float64)
        received, serves, delta, private = [], [], [], []
        for r in range(1, ROUNDS + 1):
            received.append(w)
            serves.append(site.receive(w, x, y).clone())
            after = site.round(w, x, y)
            delta.append(after - w)
            private.append(site.private(r))
            # What comes next is another mean than this site's own.
            w = torch.tensor((w + 0.5 * (after - w) + torch.tensor(rng.normal(0, 0.05, w.numel()))).float().numpy()).double()
        save(os.path.join(folder, f"beside_{name}.safetensors"),
             {"x": x.numpy().reshape(n, -1), "y": y.numpy().astype(np.float32), "received": torch.stack(received).numpy(),
              "serves": torch.stack(serves).numpy(), "delta": torch.stack(delta).numpy(),
              "private": torch.stack(private).numpy(), **begin},
             {"plan": job(kind.strategy, getattr(kind, "momentum", MOMENTUM), n), "torch": torch.__version__})


if __name__ == "__main__":
    main(sys.argv[1])
