#!/usr/bin/python3
"""The same models trained by the builtin trainer and by PyTorch, from the same initial weights, on the same examples: both curves.

    tests/experiments/curves.py --data DIR --build BUILD [--only NAME,...] [--seeds 1,2] [--plot FILE.svg]

Each model is a job's text and a forward pass in PyTorch, written apart. `curves` writes the job's initial weights, which PyTorch reads; then both
train with the same settings, each in its own order of examples, an order a seed. A table for each model: mean over the seeds of the test examples' loss
(and accuracy), and the difference beside its standard error. FILE.svg shows all curves, ours in solid lines. Needs python3-torch, one thread."""
import argparse
import csv
import gzip
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time

try:
    import numpy as np
    import torch
    import torch.nn.functional as F
except ImportError:
    print("curves.py: skipped, no python3-torch here")
    sys.exit(0)

HERE = os.path.dirname(os.path.abspath(__file__))


# ---- files ----

def write(path, tensors):
    header, at = {}, 0
    for name, value in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [at, at + 4 * value.size]}
        at += 4 * value.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for value in tensors.values():
            f.write(np.ascontiguousarray(value, dtype="<f4").tobytes())


def read(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        values = np.frombuffer(f.read(), "<f4")
    header.pop("__metadata__", None)
    return {k: torch.tensor(values[v["data_offsets"][0] // 4:v["data_offsets"][1] // 4].reshape(v["shape"])) for k, v in header.items()}


# ---- examples ----

def fashion(folder, train, test):
    def part(name, count):
        with gzip.open(os.path.join(folder, "fashion-mnist", name + "-images-idx3-ubyte.gz")) as f:
            f.read(16)
            x = np.frombuffer(f.read(count * 784), np.uint8).reshape(count, 1, 28, 28)
        with gzip.open(os.path.join(folder, "fashion-mnist", name + "-labels-idx1-ubyte.gz")) as f:
            f.read(8)
            return (x / 255 - 0.286) / 0.353, np.frombuffer(f.read(count), np.uint8)
    return *part("train", train), *part("test", test)


def cifar(folder, train, test):
    def part(name, count):
        with gzip.open(os.path.join(folder, "cifar10", name)) as f:
            rows = np.frombuffer(f.read(count * 3073), np.uint8).reshape(count, 3073)
        return (rows[:, 1:].reshape(count, 3, 32, 32) / 255 - 0.473) / 0.251, rows[:, 0]
    return *part("data_batch_1.bin.gz", train), *part("test_batch.bin.gz", test)


def retail(folder, train, test):
    """30 weeks of a store's brand (log sales, its price, deal, feature), the sales of the week after them; the test part is later in time."""
    series = {}
    with gzip.open(os.path.join(folder, "orange-juice", "sales.csv.gz"), "rt") as f:
        for r in csv.DictReader(f):
            price = float(r["price" + r["brand"]])
            series.setdefault((r["store"], r["brand"]), []).append(
                (int(r["week"]), float(r["logmove"]) - 9, (price - 0.045) / 0.012, float(r["deal"]), float(r["feat"])))
    early, late = [], []
    for rows in series.values():
        rows.sort()
        for i in range(len(rows) - 30):
            if rows[i + 30][0] - rows[i][0] == 30:
                (early if rows[i + 30][0] < 130 else late if rows[i][0] >= 100 else []).append([r[1:] for r in rows[i:i + 31]])
    rng = np.random.default_rng(7)
    out = []
    for windows, count in ((early, train), (late, test)):
        w = np.array(windows)[rng.permutation(len(windows))[:count]]
        out += [w[:, None, :30, :], w[:, 30, :1]]
    return out


# ---- models: the job's text, and the same in PyTorch ----

RELU = "leaky_relu: {slope: 0.01}"


def cnn_job(shape):
    return {"model": {"input": shape, "classes": 10}, "layers": [
        "conv2d: {out: 16, kernel: 5}", RELU, "max_pool: {size: 2}", "conv2d: {out: 32, kernel: 5}", RELU, "max_pool: {size: 2}", "flatten:",
        "linear: {out: 128}", RELU, "linear: {out: 10}"]}


def cnn(t, x, training):
    for k in "12":
        x = F.max_pool2d(F.leaky_relu(F.conv2d(x, t["conv%s.weight" % k], t["conv%s.bias" % k]), 0.01), 2)
    return F.linear(F.leaky_relu(F.linear(x.flatten(1), t["fc1.weight"], t["fc1.bias"]), 0.01), t["fc2.weight"], t["fc2.bias"])


def block(out, stride):
    inner = ["conv2d: {out: %d, kernel: 3, padding: 1, stride: %d}" % (out, stride), "batch_norm:", RELU,
             "conv2d: {out: %d, kernel: 3, padding: 1}" % out, "batch_norm:"]
    way = ", project: %d, stride: %d" % (out, stride) if stride > 1 else ""
    return ["residual: {layers: [%s]%s}" % (", ".join("{%s}" % i for i in inner).replace("batch_norm:", "batch_norm: {}"), way), RELU]


def resnet_job(widths):
    layers = ["conv2d: {out: %d, kernel: 3, padding: 1}" % widths[0], "batch_norm:", RELU]
    for i, w in enumerate(widths):
        layers += block(w, 2 if i else 1)
    return {"model": {"input": [3, 32, 32], "classes": 10}, "layers": layers + ["global_pool:", "linear: {out: 10}"]}


def resnet(blocks):
    def run(t, x, training):
        norms = iter(range(1, 2 * blocks + 2))
        convs = iter(range(1, 2 * blocks + 2))

        def conv(x, stride=1):
            k = "conv%d." % next(convs)
            x = F.conv2d(x, t[k + "weight"], t[k + "bias"], stride=stride, padding=1)
            k = "bn%d." % next(norms)
            return F.batch_norm(x, t[k + "mean"], t[k + "variance"], t[k + "weight"], t[k + "bias"], training, 0.1, 1e-5)

        x = F.leaky_relu(conv(x), 0.01)
        for b in range(blocks):
            stride = 2 if b else 1
            way = x if not b else F.conv2d(x, t["join%d.weight" % (b + 1)], t["join%d.bias" % (b + 1)], stride=2)
            x = F.leaky_relu(conv(F.leaky_relu(conv(x, stride), 0.01)) + way, 0.01)
        return F.linear(x.mean((2, 3)), t["fc1.weight"], t["fc1.bias"])
    return run


FORMER = {"model": {"input": [1, 30, 4], "targets": 1, "loss": "mse"}, "layers": [
    "sequence:", "linear: {out: 64}", "positions:", "transformer_encoder: {layers: 2, heads: 4, feed_forward: 256, norm: pre}", "layer_norm:",
    "global_pool:", "linear: {out: 1}"]}


def former(t, x, training):
    def norm(x, k):
        return F.layer_norm(x, (64,), t["ln%d.weight" % k], t["ln%d.bias" % k])

    x = F.linear(x[:, 0], t["fc1.weight"], t["fc1.bias"]) + t["positions1.weight"]
    for k in range(2):
        a, n = "attention%d." % (k + 1), x.shape[0]
        q, key, v = F.linear(norm(x, 2 * k + 1), t[a + "in.weight"], t[a + "in.bias"]).view(n, 30, 3, 4, 16).permute(2, 0, 3, 1, 4)
        heads = torch.softmax(q @ key.transpose(2, 3) / 4, 3) @ v
        x = x + F.linear(heads.permute(0, 2, 1, 3).reshape(n, 30, 64), t[a + "out.weight"], t[a + "out.bias"])
        wide = F.relu(F.linear(norm(x, 2 * k + 2), t["fc%d.weight" % (2 * k + 2)], t["fc%d.bias" % (2 * k + 2)]))
        x = x + F.linear(wide, t["fc%d.weight" % (2 * k + 3)], t["fc%d.bias" % (2 * k + 3)])
    return F.linear(norm(x, 5).mean(1), t["fc6.weight"], t["fc6.bias"])


SGD = {"optimizer": "sgd", "lr": 0.02, "momentum": 0.9}
MODELS = {
    "CNN, Fashion-MNIST": (cnn_job([1, 28, 28]), cnn, fashion, 2000, 1000, {**SGD, "batch": 50}, 6),
    "CNN, CIFAR-10": (cnn_job([3, 32, 32]), cnn, cifar, 2000, 1000, {**SGD, "batch": 50}, 6),
    "ResNet-8, CIFAR-10": (resnet_job([16, 32, 64]), resnet(3), cifar, 1200, 500, {**SGD, "lr": 0.05, "batch": 100}, 5),
    "ResNet-10, CIFAR-10": (resnet_job([16, 32, 64, 128]), resnet(4), cifar, 1200, 500, {**SGD, "lr": 0.05, "batch": 100}, 5),
    "transformer, retail sales": (FORMER, former, retail, 1500, 1000, {"optimizer": "adam", "lr": 0.001, "momentum": 0.9, "batch": 32}, 5),
}


# ---- both ways ----

def job_text(job, train):
    lines = ["name: curve", "strategy: fedavg", "rounds: 1", "model:", *("  %s: %s" % (k, json.dumps(v).strip('"')) for k, v in job["model"].items()),
             "  layers:", *("    - " + one for one in job["layers"]), "train: " + json.dumps({**train, "epochs": 1}).replace('"', ""),
             "round: {members: 1}", ""]
    return "\n".join(lines)


def ours(build, job, train, data, epochs, seeds, folder):
    paths = [os.path.join(folder, n) for n in ("job.yaml", "examples.safetensors", "weights.safetensors")]
    with open(paths[0], "w") as f:
        f.write(job_text(job, train))
    write(paths[1], dict(zip(("x", "y", "test_x", "test_y"), data)))
    text = subprocess.run([os.path.join(build, "tests/experiments/curves"), *paths, str(epochs), ",".join(map(str, seeds))], check=True,
                          capture_output=True, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}).stdout
    rows = [line.split() for line in text.splitlines()]
    return [[(float(r[2]), float(r[3])) for r in rows if r[0] == str(s)] for s in seeds], max(float(r[4]) for r in rows), read(paths[2])


def theirs(forward, train, data, epochs, seed, start, classes):
    x, y, test_x, test_y = [torch.tensor(np.ascontiguousarray(v, dtype=np.float32)) for v in data]
    if classes:
        y, test_y = y.long(), test_y.long()
    loss_of = F.cross_entropy if classes else F.mse_loss
    t = {k: v.clone() for k, v in start.items()}
    moving = [v.requires_grad_() for k, v in t.items() if not k.endswith((".mean", ".variance"))]
    if train["optimizer"] == "adam":
        optim = torch.optim.Adam(moving, lr=train["lr"])
    else:
        optim = torch.optim.SGD(moving, lr=train["lr"], momentum=train["momentum"])
    order, curve = torch.Generator().manual_seed(seed), []
    for epoch in range(epochs + 1):
        if epoch:
            for at in torch.randperm(len(x), generator=order).split(train["batch"]):
                optim.zero_grad()
                loss_of(forward(t, x[at], True), y[at]).backward()
                optim.step()
        with torch.no_grad():
            out = torch.cat([forward(t, part, False) for part in test_x.split(500)])
        curve.append((float(loss_of(out, test_y)), 100 * float((out.argmax(1) == test_y).float().mean()) if classes else 0))
    return curve


def spread(values):
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def table(name, mine, other, classes, seconds):
    print("\n%s\n" % name)
    print("| epoch | loss: ours | PyTorch | difference |" + (" accuracy: ours | PyTorch | difference |" if classes else ""))
    print("| --- | --- | --- | --- |" + (" --- | --- | --- |" if classes else ""))
    for k in range(len(mine[0])):
        cells = []
        for i in range(2 if classes else 1):
            a, b = [c[k][i] for c in mine], [c[k][i] for c in other]
            form = "%.4f" if i == 0 else "%.1f"
            error = (spread(a) ** 2 + spread(b) ** 2) ** 0.5
            cells += [form % statistics.mean(a), form % statistics.mean(b), (form + " +- " + form) % (statistics.mean(a) - statistics.mean(b), error)]
        print("| %d | %s |" % (k, " | ".join(cells)))
    print("\nCPU seconds a seed, epochs and tests: %.1f ours, %.1f PyTorch." % seconds, flush=True)


def plot(path, curves):
    """One panel a model, loss over epochs; ours solid, PyTorch dashed, a line a seed."""
    width, height, parts = 300, 200, []
    for n, (name, mine, other) in enumerate(curves):
        values = [p[0] for c in mine + other for p in c[1:]]
        low, high, left = min(values), max(values), n * (width + 40) + 40
        parts.append('<text x="%d" y="16" font-size="12">%s</text><text x="%d" y="36" font-size="10">%.3f</text><text x="%d" y="%d" font-size="10">%.3f</text>'
                     % (left, name, left - 36, high, left - 36, height + 30, low))
        parts.append('<rect x="%d" y="30" width="%d" height="%d" fill="none" stroke="#999"/>' % (left, width, height))
        for group, style in ((mine, 'stroke="#06c"'), (other, 'stroke="#c60" stroke-dasharray="4 3"')):
            for c in group:
                at = ["%.1f,%.1f" % (left + width * k / (len(c) - 1), 30 + height * (high - p[0]) / (high - low)) for k, p in enumerate(c) if k]
                parts.append('<polyline fill="none" %s points="%s"/>' % (style, " ".join(at)))
    with open(path, "w") as f:
        f.write('<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" width="%d" height="%d">%s</svg>\n' % (
            len(curves) * (width + 40) + 20, height + 50, "\n".join(parts)))


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--data", required=True)
    a.add_argument("--build", default="build")
    a.add_argument("--only", default="")
    a.add_argument("--seeds", default="1,2")
    a.add_argument("--plot")
    o = a.parse_args()
    torch.set_num_threads(1)
    seeds, curves = [int(s) for s in o.seeds.split(",")], []
    for name, (job, forward, get, n, tests, train, epochs) in MODELS.items():
        if o.only and not any(word in name for word in o.only.split(",")):
            continue
        classes, data = "classes" in job["model"], get(o.data, n, tests)
        with tempfile.TemporaryDirectory() as folder:
            mine, own_s, start = ours(o.build, job, train, data, epochs, seeds, folder)
        begun = time.process_time()
        other = [theirs(forward, train, data, epochs, s, start, classes) for s in seeds]
        table(name, mine, other, classes, (own_s, (time.process_time() - begun) / len(seeds)))
        curves.append((name, mine, other))
        if o.plot:
            plot(o.plot, curves)


main()
