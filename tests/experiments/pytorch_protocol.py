#!/usr/bin/python3
"""The published Fashion-MNIST protocol of HyperFL (arXiv 2412.07187) in PyTorch.

    pytorch_protocol.py --data DIR --out FILE.csv [--methods M,M] [--seeds 1,2,3] [--rounds 10]
                        [--evaluate 1,5,10] [--state DIR] [--train N] [--test N]
    pytorch_protocol.py --data DIR --digests     one digest a site, as the C program prints it
    pytorch_protocol.py --self-check             the rewritten generator step against autograd

It knows nothing of the project's C code: the same protocol written a second time, with PyTorch's
layers, gradients and batches, so that results can be compared (compare_protocol.py).

20 sites, all in every round. Each has 600 training images (from the train files) and 600 test images
(from the test files): a fifth evenly of all classes, the rest evenly of its group's three dominant
ones; rows are taken in file order by one pointer a class that returns to the class's start when a
request does not fit. Pixels / 255, minus 0.1307, divided by 0.3081. Batches of 50, SGD with momentum
0.5 from zero in every stage of every round, weight decay 5e-4.

    local              5 epochs of everything, lr 0.02, never averaged; each site its own start
    fedavg             the same, everything averaged
    fedrep             1 epoch of the head (lr 0.1), 5 of the body (lr 0.02), body averaged; own heads
    hyperfl_published  1 epoch of the head (lr 0.1), 5 of generator and embedding (lr 0.02, joint L2 clip
                       50 on the generator's gradient, another on the embedding's), generator averaged;
                       hidden 128, framework's start, the same embedding and head at all sites
    hyperfl_scaled_128 heads of the generator scaled to the fan-in of what they generate, each site its
                       own embedding and head, lr 0.002
    hyperfl_scaled_3   the same with 3 hidden units and lr 0.02
    ..._head           all sites start with the same head, as the paper's code has it

Rows: method,seed,round,accuracy_after,accuracy_received,cpu_s,after_by_site,received_by_site.
accuracy_after: mean over sites after local training, before averaging. accuracy_received: what a site
holds when the round begins (generated anew from the averaged generator with its own embedding and
head), before it trains. One row more than rounds: what is held after the last average. cpu_s: of all
sites' training in that round, without evaluation. Accuracies are in percent; lists are separated by
spaces; "-" was not asked for.

Generators with many hidden units never form the gradient of their heads W. With g the gradient at the
generated weights and f the hidden layer's output it is g f^T, so after k steps of momentum SGD

    W_k = a W_0 + sum_i G_i C_i^T,  velocity = b W_0 + sum_i G_i D_i^T,   rows G_i = g of step i

and a step changes only the scalars a, b and the small C, D. It is the same algorithm; --self-check
compares both in double precision.
"""
import argparse
import gzip
import hashlib
import math
import os
import struct
import sys
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

try:
    import numpy
    import torch
    import torch.nn.functional as F
except ImportError as missing:
    print(f"skipped: {missing.name} is not installed (Debian: python3-torch, python3-numpy)")
    sys.exit(77)

SITES, CLASSES, BATCH = 20, 10, 50
MEAN, STD = 0.1307, 0.3081
MOMENTUM, DECAY, LR_BODY, LR_HEAD, CLIP = 0.5, 5e-4, 0.02, 0.1, 50.0
EMBEDDING = 64

BODY = [  # name, shape, fan-in
    ("conv1.weight", (16, 1, 5, 5), 25), ("conv1.bias", (16,), 25),
    ("conv2.weight", (32, 16, 5, 5), 400), ("conv2.bias", (32,), 400),
    ("fc1.weight", (128, 800), 800), ("fc1.bias", (128,), 800),
]  # fmt: skip
HEAD = [("fc2.weight", (10, 128), 128), ("fc2.bias", (10,), 128)]
COUNT = [math.prod(shape) for _, shape, _ in BODY]
P = sum(COUNT)
HEAD_COUNT = sum(math.prod(shape) for _, shape, _ in HEAD)

METHODS = {
    "local": {},
    "fedavg": {},
    "fedrep": {},
    "hyperfl_published": {"hidden": 128, "scaled": False, "lr": 0.02},
    "hyperfl_scaled_128": {"hidden": 128, "scaled": True, "lr": 0.002},
    "hyperfl_scaled_3": {"hidden": 3, "scaled": True, "lr": 0.02},
    "hyperfl_scaled_128_head": {"hidden": 128, "scaled": True, "lr": 0.002, "same_head": True},
    "hyperfl_scaled_3_head": {"hidden": 3, "scaled": True, "lr": 0.02, "same_head": True},
    "fedrep_head": {"same_head": True},
}


# ---- data ----


def read_idx(folder, name):
    with gzip.open(os.path.join(folder, name + ".gz")) as f:
        data = f.read()
    rank = data[3]
    shape = struct.unpack(">" + "I" * rank, data[4 : 4 + 4 * rank])
    return numpy.frombuffer(data, numpy.uint8, offset=4 + 4 * rank).reshape(shape)


def share(n, parts):
    return [n // parts] * (parts - 1) + [n - n // parts * (parts - 1)]


def published_rows(labels, each_site):
    """Row numbers of every site, in the order in which they are taken."""
    rows = [numpy.flatnonzero(labels == c) for c in range(CLASSES)]
    used = [0] * CLASSES
    sites = []

    def take(c, n):
        if used[c] + n > len(rows[c]):
            used[c] = 0
        used[c] += n
        return rows[c][used[c] - n : used[c]]

    even = each_site // 5
    rest = each_site - even
    for site in range(SITES):
        mine = [take(c, n) for c, n in enumerate(share(even, CLASSES))]
        first = site % (CLASSES // 2) * 2
        mine += [take((first + j) % CLASSES, n) for j, n in enumerate(share(rest, 3))]
        sites.append(numpy.concatenate(mine))
        assert len(sites[-1]) == each_site
    return sites


class Site:
    pass


def load_sites(folder, train, test):
    sites = [Site() for _ in range(SITES)]
    for part, n in (("train", train), ("test", test)):
        images = read_idx(folder, part + "-images-idx3-ubyte")
        labels = read_idx(folder, part + "-labels-idx1-ubyte")
        for site, rows in zip(sites, published_rows(labels, n)):
            raw = images[rows].astype(numpy.float32) / numpy.float32(255)
            setattr(site, part + "_raw", raw)
            setattr(site, part + "_y", torch.from_numpy(labels[rows].astype(numpy.int64)))
            x = (torch.from_numpy(raw) - MEAN) / STD
            setattr(site, part + "_x", x.reshape(n, 1, 28, 28))
    return sites


def digest(site):
    """The digest by which the agent's ledger knows this data set."""
    h = hashlib.blake2b(digest_size=32)
    h.update(struct.pack("<4I", 1, 28, 28, CLASSES))
    for part in ("train", "test"):
        raw, y = getattr(site, part + "_raw"), getattr(site, part + "_y")
        h.update(struct.pack("<I", len(raw)))
        h.update(raw.tobytes())
        h.update(y.numpy().astype(numpy.int32).tobytes())
    return h.hexdigest()


# ---- the network ----


def views(flat, tensors):
    at, out = 0, []
    for _, shape, _ in tensors:
        n = math.prod(shape)
        out.append(flat[at : at + n].view(shape))
        at += n
    return out


def features(body, x):
    w1, b1, w2, b2, w3, b3 = views(body, BODY)
    x = F.max_pool2d(F.leaky_relu(F.conv2d(x, w1, b1), 0.01), 2)
    x = F.max_pool2d(F.leaky_relu(F.conv2d(x, w2, b2, padding=1), 0.01), 2)
    return F.leaky_relu(F.linear(x.flatten(1), w3, b3), 0.01)


def logits(head, feats):
    w, b = views(head, HEAD)
    return F.linear(feats, w, b)


def accuracy(body, head, site):
    with torch.no_grad():
        guess = logits(head, features(body, site.test_x)).argmax(1)
    return 100.0 * (guess == site.test_y).double().mean().item()


def fresh(*key):
    """A random source of its own for every purpose, so that a run can be resumed at any round."""
    g = torch.Generator()
    word = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    g.manual_seed(int.from_bytes(word, "little") >> 1)
    return g


def uniform(g, n, bound):
    return (torch.rand(n, generator=g) * 2 - 1) * bound


def start(g, tensors):
    """PyTorch's default for convolutions and linear layers: within 1 / sqrt(fan-in)."""
    return torch.cat([uniform(g, math.prod(s), 1 / math.sqrt(fan)) for _, s, fan in tensors])


def batches(g, epochs, n):
    for _ in range(epochs):
        yield from torch.randperm(n, generator=g).split(BATCH)


# ---- local training ----


class Momentum:
    """SGD as torch.optim.SGD does it, on flat vectors."""

    def __init__(self, lr):
        self.lr, self.velocity = lr, {}

    def step(self, name, value, grad):
        grad = grad + DECAY * value
        if name in self.velocity:
            self.velocity[name].mul_(MOMENTUM).add_(grad)
        else:
            self.velocity[name] = grad
        return value - self.lr * self.velocity[name]


def train_all(body, head, site, g):
    both, sgd = torch.cat([body, head]), Momentum(LR_BODY)
    for rows in batches(g, 5, len(site.train_y)):
        theta = both.requires_grad_()
        out = logits(theta[P:], features(theta[:P], site.train_x[rows]))
        (grad,) = torch.autograd.grad(F.cross_entropy(out, site.train_y[rows]), theta)
        both = sgd.step("all", both.detach(), grad)
    return both[:P].clone(), both[P:].clone()


def train_head(body, head, site, g):
    with torch.no_grad():
        feats = features(body, site.train_x)
    sgd = Momentum(LR_HEAD)
    for rows in batches(g, 1, len(site.train_y)):
        head.requires_grad_()
        loss = F.cross_entropy(logits(head, feats[rows]), site.train_y[rows])
        (grad,) = torch.autograd.grad(loss, head)
        head = sgd.step("head", head.detach(), grad)
    return head


def body_gradient(body, head, x, y):
    theta = body.detach().requires_grad_()
    loss = F.cross_entropy(logits(head, features(theta, x)), y)
    return torch.autograd.grad(loss, theta)[0]


def train_body(body, head, site, g):
    sgd = Momentum(LR_BODY)
    for rows in batches(g, 5, len(site.train_y)):
        body = sgd.step("body", body, body_gradient(body, head, site.train_x[rows], site.train_y[rows]))
    return body


# ---- the generator ----


class Generator:
    """theta = W^T f + b, f = relu(M v + m); W is (hidden, P)."""

    names = ("M", "m", "W", "b")

    def __init__(self, M, m, W, b):
        self.M, self.m, self.W, self.b = M, m, W, b

    def generate(self, v):
        return torch.relu(self.M @ v + self.m) @ self.W + self.b


def start_generator(g, hidden, scaled):
    inside = 1 / math.sqrt(EMBEDDING)
    M = uniform(g, hidden * EMBEDDING, inside).view(hidden, EMBEDDING)
    m = uniform(g, hidden, inside)
    W, b = [], []
    for (_, shape, fan), n in zip(BODY, COUNT):
        # A hidden unit has E[f^2] = (1 + 1/E) / 6, so theta has the variance
        # w^2 (H (1 + 1/E) / 6 + 1) when W and b have w^2; wanted is 1 / (3 fan-in).
        bound = 1 / math.sqrt(hidden)
        if scaled:
            bound = 1 / math.sqrt(fan * (hidden * (1 + 1 / EMBEDDING) / 6 + 1))
        W.append(uniform(g, hidden * n, bound).view(hidden, n))
        b.append(uniform(g, n, bound))
    return Generator(M, m, torch.cat(W, 1).contiguous(), torch.cat(b))


def clip_factor(norm):
    return min(1.0, CLIP / (float(norm) + 1e-6))


class Written:
    """W as a matrix: for few hidden units, and to check the other against."""

    def __init__(self, W, steps):
        self.W, self.velocity = W, None

    def generate(self, f):
        return f @ self.W

    def pull(self, g):
        return self.W @ g

    def step(self, lr, g, f):
        grad = torch.outer(f, g).add_(self.W, alpha=DECAY)
        self.velocity = grad if self.velocity is None else self.velocity.mul_(MOMENTUM).add_(grad)
        self.W = self.W - lr * self.velocity

    def add_to(self, total, weight):
        total.add_(self.W, alpha=weight)


class Factored:
    """W = a W_0 + C^T G, never written out."""

    def __init__(self, W, steps):
        self.W, self.a, self.b, self.k = W, 1.0, 0.0, 0
        self.G = W.new_empty(steps, W.shape[1])
        self.C, self.D = W.new_zeros(steps, W.shape[0]), W.new_zeros(steps, W.shape[0])

    def generate(self, f):
        theta = (f @ self.W).mul_(self.a)
        return theta.add_((self.C[: self.k] @ f) @ self.G[: self.k]) if self.k else theta

    def pull(self, g):
        df = self.a * (self.W @ g)
        return df + self.C[: self.k].T @ (self.G[: self.k] @ g) if self.k else df

    def step(self, lr, g, f):
        self.b = MOMENTUM * self.b + DECAY * self.a
        self.D.mul_(MOMENTUM).add_(self.C, alpha=DECAY)
        self.G[self.k], self.D[self.k] = g, f
        self.k += 1
        self.a -= lr * self.b
        self.C.sub_(self.D, alpha=lr)

    def add_to(self, total, weight):
        total.add_(self.W, alpha=weight * self.a)
        total.addmm_(self.C[: self.k].T, self.G[: self.k], alpha=weight)


def train_generator(gen, v, lr, indices, heads_kind, gradient):
    """5 epochs on (generator, v) from the same generator at all sites, which is not changed.
    `gradient(theta, rows)`. Returns the trained generator with W as an object, and v."""
    M, m, b = gen.M, gen.m, gen.b
    W = heads_kind(gen.W, len(indices))
    sgd = Momentum(lr)
    for rows in indices:
        before = M @ v + m
        f = torch.relu(before)
        g = gradient(W.generate(f).add_(b), rows)
        df = W.pull(g)
        dp = df * (before > 0)
        dv = M.T @ dp
        c = clip_factor(torch.sqrt(g.dot(g) * (f.dot(f) + 1) + dp.dot(dp) * (v.dot(v) + 1)))
        dM = torch.outer(dp, v)
        W.step(lr, c * g, f)
        b = sgd.step("b", b, c * g)
        M = sgd.step("M", M, c * dM)
        m = sgd.step("m", m, c * dp)
        v = sgd.step("v", v, clip_factor(dv.norm()) * dv)
    return Generator(M, m, W, b), v


# ---- a federation ----


class Federation:
    """`shared` (a dict of tensors) travels; `own` is one dict a site."""

    def __init__(self, method, seed):
        self.method, self.seed, self.round, self.conf = method, seed, 0, METHODS[method]
        job = fresh(seed, "job")
        self.shared, self.own = {}, []
        self.generated = "hidden" in self.conf
        if self.generated:
            gen = start_generator(job, self.conf["hidden"], self.conf["scaled"])
            self.shared = {n: getattr(gen, n) for n in Generator.names}
        elif method == "fedavg":
            self.shared = {"body": start(job, BODY), "head": start(job, HEAD)}
        elif method.startswith("fedrep"):
            self.shared = {"body": start(job, BODY)}
        for i in range(SITES):
            g = fresh(seed, "site", i)
            if method == "hyperfl_published":
                g = fresh(seed, "every site")
            own = {}
            if method == "local":
                own["body"] = start(g, BODY)
            if method != "fedavg":
                own["head"] = start(fresh(seed, "head") if self.conf.get("same_head") else g, HEAD)
            if self.generated:
                own["v"] = torch.randn(EMBEDDING, generator=g)
            self.own.append(own)

    def held(self, i):
        """Body and head as site i has them."""
        have = {**self.shared, **self.own[i]}
        if self.generated:
            return Generator(*(have[n] for n in Generator.names)).generate(have["v"]), have["head"]
        return have["body"], have["head"]

    def train_site(self, i, site, total):
        """Trains site i, adds what travels to `total`, returns body and head after training."""
        body, head = self.held(i)
        g = fresh(self.seed, "batches", self.round, i)
        if self.method in ("local", "fedavg"):
            body, head = train_all(body, head, site, g)
        elif not self.generated:
            head = train_head(body, head, site, g)
            body = train_body(body, head, site, g)
        else:
            head = train_head(body, head, site, g)
            gen = Generator(*(self.shared[n] for n in Generator.names))
            kind = Factored if self.conf["hidden"] > 16 else Written
            trained, v = train_generator(
                gen, self.own[i]["v"], self.conf["lr"], list(batches(g, 5, len(site.train_y))), kind,
                lambda theta, rows: body_gradient(theta, head, site.train_x[rows], site.train_y[rows]),
            )  # fmt: skip
            self.own[i]["v"] = v
            for n in ("M", "m", "b"):
                total[n].add_(getattr(trained, n), alpha=1 / SITES)
            trained.W.add_to(total["W"], 1 / SITES)
            f = torch.relu(trained.M @ v + trained.m)
            body = trained.W.generate(f) + trained.b
        for n, value in (("body", body), ("head", head)):
            if n in total:
                total[n].add_(value, alpha=1 / SITES)
            elif n in self.own[i]:
                self.own[i][n] = value
        return body, head

    def evaluate(self, sites):
        return [accuracy(*self.held(i), sites[i]) for i in range(SITES)]

    def step(self, sites, evaluated):
        """One round; ([accuracy after], [accuracy received], CPU seconds of training)."""
        self.round += 1
        received = self.evaluate(sites) if evaluated else None
        total = {n: torch.zeros_like(t) for n, t in self.shared.items()}
        after, cpu = [], 0.0
        for i, site in enumerate(sites):
            begin = time.process_time()
            body, head = self.train_site(i, site, total)
            cpu += time.process_time() - begin
            if evaluated:
                after.append(accuracy(body, head, site))
        self.shared = total
        return after or None, received, cpu


# ---- runs ----


def row(method, seed, number, after, received, cpu):
    def mean(values):
        return f"{sum(values) / len(values):.4f}" if values else "-"

    def each(values):
        return " ".join(f"{v:.2f}" for v in values) if values else "-"

    cpu = "-" if cpu is None else f"{cpu:.2f}"
    return f"{method},{seed},{number},{mean(after)},{mean(received)},{cpu},{each(after)},{each(received)}"


COLUMNS = "method,seed,round,accuracy_after,accuracy_received,cpu_s,after_by_site,received_by_site"


def append(path, text):
    with open(path, "a") as f:
        f.write(text + "\n")
        f.flush()
        os.fsync(f.fileno())


def rows_of(path):
    """(method, seed, round) of what is already there."""
    if not os.path.exists(path):
        append(path, COLUMNS)
    with open(path) as f:
        return {tuple(line.split(",")[:3]) for line in f}


def run(method, seed, sites, a):
    done = rows_of(a.out)
    if (method, str(seed), str(a.rounds + 1)) in done:
        return
    state = os.path.join(a.state, f"{method}-{seed}.pt")
    fed = Federation(method, seed)
    if os.path.exists(state):
        fed.round, fed.shared, fed.own = torch.load(state)
    while fed.round < a.rounds:
        after, received, cpu = fed.step(sites, fed.round + 1 in a.evaluate)
        line = row(method, seed, fed.round, after, received, cpu)
        if (method, str(seed), str(fed.round)) not in done:  # a crash between row and state
            append(a.out, line)
        torch.save((fed.round, fed.shared, fed.own), state + ".new")
        os.replace(state + ".new", state)
        print(time.strftime("%H:%M:%S"), *line.split(",")[:6], flush=True)
    append(a.out, row(method, seed, a.rounds + 1, None, fed.evaluate(sites), None))
    if not a.keep:
        os.unlink(state)


def self_check():
    """Both ways of training the heads, and torch.optim with torch's own clipping, in doubles."""
    torch.set_default_dtype(torch.float64)
    g = fresh("self-check")
    gen = start_generator(g, 5, False)
    v, head = torch.randn(EMBEDDING, generator=g), start(g, HEAD)
    x = torch.randn(8 * BATCH, 1, 28, 28, generator=g)
    y = torch.randint(10, (8 * BATCH,), generator=g)
    indices = list(batches(g, 3, len(x)))

    def gradient(theta, rows):
        return body_gradient(theta, head, x[rows], y[rows])

    results = []
    for kind in (Written, Factored):
        trained, own = train_generator(gen, v, 0.02, indices, kind, gradient)
        W = torch.zeros_like(gen.W)
        trained.W.add_to(W, 1.0)
        results.append([trained.M, trained.m, W, trained.b, own])

    params = [torch.nn.Parameter(getattr(gen, n).clone()) for n in Generator.names]
    own = torch.nn.Parameter(v.clone())
    sgd = torch.optim.SGD(params + [own], 0.02, momentum=MOMENTUM, weight_decay=DECAY)
    clipped = 0
    for rows in indices:
        theta = Generator(*params).generate(own)
        sgd.zero_grad()
        F.cross_entropy(logits(head, features(theta, x[rows])), y[rows]).backward()
        clipped += torch.nn.utils.clip_grad_norm_(params, CLIP).item() > CLIP
        torch.nn.utils.clip_grad_norm_([own], CLIP)
        sgd.step()
    results.append([p.detach() for p in params + [own]])

    worst, first = 0.0, [getattr(gen, n) for n in Generator.names] + [v]
    for other in results[:2]:
        for begin, one, two in zip(first, results[2], other):
            worst = max(worst, ((one - two).norm() / (one - begin).norm()).item())
    print(f"{len(indices)} steps, {clipped} clipped: largest relative difference {worst:.1e}")
    return 0 if worst < 1e-8 and clipped > 0 else 1


def main():
    p = argparse.ArgumentParser(description="The published Fashion-MNIST protocol in PyTorch.")
    p.add_argument("--data", help="folder of the four IDX files, gzipped")
    p.add_argument("--out", help="CSV to append to")
    p.add_argument("--state", help="folder for checkpoints; default: beside the CSV")
    p.add_argument("--methods", default=",".join(m for m in METHODS if not m.endswith("_head")))
    p.add_argument("--seeds", default="1,2,3")
    p.add_argument("--rounds", type=int, default=10)
    p.add_argument("--train", type=int, default=600, help="training images of a site")
    p.add_argument("--test", type=int, default=600, help="test images of a site")
    p.add_argument("--evaluate", default="1,5,10", help="rounds whose models are tested")
    p.add_argument("--keep", action="store_true", help="keep the last checkpoint of each run")
    p.add_argument("--digests", action="store_true")
    p.add_argument("--self-check", action="store_true")
    a = p.parse_args()
    torch.set_num_threads(1)
    if a.self_check:
        return self_check()
    if not a.data or not (a.out or a.digests):
        p.error("--data and --out are needed")
    sites = load_sites(a.data, a.train, a.test)
    if a.digests:
        for i, site in enumerate(sites):
            print(i, digest(site))
        return 0
    a.state = a.state or os.path.dirname(os.path.abspath(a.out))
    a.evaluate = {int(r) for r in a.evaluate.split(",")}
    methods, seeds = a.methods.split(","), [int(s) for s in a.seeds.split(",")]
    for method in methods:
        if method not in METHODS:
            p.error(f"{method}: there are {', '.join(METHODS)}")
    for seed in seeds:
        for method in methods:
            run(method, seed, sites, a)
    return 0


if __name__ == "__main__":
    sys.exit(main())
