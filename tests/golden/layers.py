#!/usr/bin/python3
"""Golden values of the engine's layers, by PyTorch: tests/golden/layers.py writes tests/golden/layer_*.safetensors.

Each file holds a network as a job's text (metadata `job`), parameters in the engine's order, examples, labels, and what PyTorch makes of them
in double precision: outputs, the gradient of the mean loss, and every example's squared gradient norm, one backward pass each. The networks
are built from the descriptions by this script, from torch.nn alone. Needs python3-torch, python3-yaml. Seeds are fixed.
"""
import json
import math
import os

import torch
import yaml
from torch import nn

from golden_file import write

torch.manual_seed(7)
torch.set_default_dtype(torch.float64)

CASES = {
    "activations": ([12], 4, """
      - linear: {out: 9}
      - tanh: {}
      - linear: {out: 10}
      - gelu: {}
      - layer_norm: {}
      - relu: {}
      - linear: {out: 4}"""),
    "pools": ([3, 7, 9], 3, """
      - conv2d: {out: 4, kernel: 3, padding: 1}
      - gelu: {}
      - avg_pool: {size: 2}
      - group_norm: {groups: 2}
      - tanh: {}
      - flatten: {}
      - linear: {out: 3}"""),
    "resnet": ([3, 8, 8], 5, """
      - conv2d: {out: 4, kernel: 3, padding: 1}
      - group_norm: {groups: 2}
      - relu: {}
      - residual:
          layers:
            - conv2d: {out: 4, kernel: 3, padding: 1}
            - group_norm: {groups: 4}
            - relu: {}
            - conv2d: {out: 4, kernel: 3, padding: 1}
            - group_norm: {groups: 1}
      - relu: {}
      - residual:
          project: 6
          stride: 2
          layers:
            - conv2d: {out: 6, kernel: 3, stride: 2, padding: 1}
            - group_norm: {groups: 3}
            - relu: {}
            - conv2d: {out: 6, kernel: 3, padding: 1}
      - relu: {}
      - max_pool: {size: 2}
      - global_pool: {}
      - linear: {out: 5}"""),
    "nested": ([6], 3, """
      - residual:
          layers:
            - relu: {}
            - residual: {layers: [{linear: {out: 6}}, {tanh: {}}]}
            - linear: {out: 6}
      - relu: {}
      - linear: {out: 3}"""),
    "encoder_post": ([1, 5, 3], 4, """
      - sequence: {}
      - linear: {out: 8}
      - positions: {}
      - transformer_encoder: {layers: 2, heads: 2, feed_forward: 12}
      - global_pool: {}
      - linear: {out: 4}"""),
    "encoder_pre": ([1, 6, 8], 3, """
      - sequence: {}
      - positions: {sinusoidal: true}
      - transformer_encoder: {layers: 1, heads: 4, feed_forward: 10, norm: pre, activation: gelu, causal: true}
      - layer_norm: {}
      - flatten: {}
      - linear: {out: 3}"""),
    "columns": ([5], 3, """
      - embedding: {width: 3, categories: [4, 7]}
      - linear: {out: 8}
      - relu: {}
      - linear: {out: 3}"""),
}
# Losses, each on a small network: (what the description says, outputs, the loss in PyTorch).
LOSSES = {
    "smoothing": ("classes: 4\n  loss: {cross_entropy: {smoothing: 0.2}}", 4, lambda out, y: nn.CrossEntropyLoss(label_smoothing=0.2)(out, y)),
    "binary": ("classes: 2\n  loss: binary", 1, lambda out, y: nn.BCEWithLogitsLoss()(out[:, 0], y.double())),
    "mse": ("targets: 3\n  loss: mse", 3, lambda out, y: nn.MSELoss()(out, y)),
    "huber": ("targets: 2\n  loss: {huber: {delta: 0.7}}", 2, lambda out, y: nn.HuberLoss(delta=0.7)(out, y)),
    "pinball": ("targets: 2\n  loss: {pinball: {quantiles: [0.1, 0.5, 0.75]}}", 6,
                lambda out, y: pinball(out.reshape(-1, 2, 3), y[:, :, None], torch.tensor([0.1, 0.5, 0.75]))),
}


def pinball(out, y, q):
    return torch.maximum(q * (y - out), (q - 1) * (y - out)).mean()


MORE = {
    "grouped": ([4, 7, 6], 3, """
      - conv2d: {out: 6, kernel: 3, padding: 1, groups: 2}
      - tanh: {}
      - conv2d: {out: 6, kernel: 3, stride: 2, padding: 2, groups: 6}
      - gelu: {}
      - conv2d: {out: 4, kernel: 1}
      - relu: {}
      - conv2d: {out: 8, kernel: 2, groups: 4}
      - flatten: {}
      - linear: {out: 3}"""),
    "first_token": ([1, 4, 6], 3, """
      - sequence: {}
      - linear: {out: 5}
      - positions: {}
      - tanh: {}
      - first_token: {}
      - linear: {out: 3}"""),
    "scattering": ([2, 19, 14], 3, """
      - scattering: {scales: 2, angles: 3}
      - avg_pool: {size: 2}
      - conv2d: {out: 4, kernel: 1}
      - tanh: {}
      - flatten: {}
      - linear: {out: 3}"""),
    "scattering_root": ([1, 24, 26], 4, """
      - scattering: {scales: 3, angles: 4, root: true}
      - flatten: {}
      - linear: {out: 4}"""),
    "scattering_gabor": ([1, 11, 12], 4, """
      - scattering: {scales: 1, angles: 6, order: 1}
      - flatten: {}
      - linear: {out: 4}"""),
}
EXAMPLES = 7  # more than the shard of the test: two shards, the second one short


class Take(nn.Module):
    """Parameters in the order of the engine: weights first, layer by layer."""

    def __init__(self):
        super().__init__()
        self.order = []

    def add(self, *parameters):
        self.order += parameters


class Network(Take):
    def __init__(self, shape, description):
        super().__init__()
        self.steps = nn.ModuleList()
        self.kinds = []
        self.shape = list(shape) if len(shape) == 3 else [shape[0], 1, 1]
        self.build(description)

    # Values are [N, channels, height, width]; a sequence is [N, width, length, 1], as the engine has it.
    def step(self, kind, module=None, **more):
        self.kinds.append((kind, len(self.steps), more))
        self.steps.append(module if module is not None else nn.Identity())

    def build(self, layers):
        for layer in layers:
            (kind, c), = layer.items()
            getattr(self, "do_" + kind)(c or {})

    def do_conv2d(self, c):
        m = nn.Conv2d(self.shape[0], c["out"], c["kernel"], c.get("stride", 1), c.get("padding", 0), groups=c.get("groups", 1))
        self.step("plain", m)
        self.add(m.weight, m.bias)
        self.shape = list(m(torch.zeros(1, *self.shape)).shape[1:])

    def do_linear(self, c):
        m = nn.Linear(self.shape[0], c["out"])
        self.step("channels", m)
        self.add(m.weight, m.bias)
        self.shape[0] = c["out"]

    def do_layer_norm(self, c):
        m = nn.LayerNorm(self.shape[0])
        self.step("channels", m)
        self.add(m.weight, m.bias)

    def do_group_norm(self, c):
        m = nn.GroupNorm(c["groups"], self.shape[0])
        self.step("plain", m)
        self.add(m.weight, m.bias)

    def do_batch_norm(self, c):
        m = nn.BatchNorm2d(self.shape[0])
        self.step("plain", m)
        self.add(m.weight, m.bias)
        self.add(m.running_mean, m.running_var)

    def do_relu(self, c):
        self.step("plain", nn.ReLU())

    def do_leaky_relu(self, c):
        self.step("plain", nn.LeakyReLU(c.get("slope", 0.01)))

    def do_gelu(self, c):
        self.step("plain", nn.GELU())

    def do_tanh(self, c):
        self.step("plain", nn.Tanh())

    def pool(self, m):
        self.step("plain", m)
        self.shape = list(m(torch.zeros(1, *self.shape)).shape[1:])

    def do_max_pool(self, c):
        self.pool(nn.MaxPool2d(c["size"]))

    def do_avg_pool(self, c):
        self.pool(nn.AvgPool2d(c["size"]))

    def do_global_pool(self, c):
        self.pool(nn.AdaptiveAvgPool2d(1))

    def do_flatten(self, c):
        self.step("flatten")
        self.shape = [self.shape[0] * self.shape[1] * self.shape[2], 1, 1]

    def do_first_token(self, c):
        self.step("first")
        self.shape[1] = 1

    def do_sequence(self, c):
        self.step("sequence")
        self.shape = [self.shape[2], self.shape[1], 1]

    def do_scattering(self, c):
        """Written from the formulas in double precision: torch.conv2d with whole two-dimensional windows."""
        scales, angles, order = c.get("scales", 2), c.get("angles", 8), c.get("order", 2)
        a, w, slant = 0.8, 3 * math.pi / 4, 4 / angles

        def grid(scale):
            radius = math.ceil(3 * a * 2 ** scale - 1e-9)
            at = torch.arange(-radius, radius + 1).double()
            return at[:, None], at[None, :]

        def waves(scale):
            y, x = grid(scale)
            kernels = []
            for t in range(angles):
                turn = math.pi * t / angles
                u, v = (math.cos(turn) * x + math.sin(turn) * y) / 2 ** scale, (-math.sin(turn) * x + math.cos(turn) * y) / 2 ** scale
                envelope = torch.exp(-(u ** 2 + (slant * v) ** 2) / (2 * a ** 2))
                wave = envelope * torch.exp(1j * w * u)
                wave = (wave - wave.sum() / envelope.sum() * envelope) * slant / (2 * math.pi * a ** 2 * 4 ** scale)
                kernels.append(wave)
            return torch.stack(kernels)[:, None]

        def smooth(z, scale):
            y, x = grid(scale)
            phi = torch.exp(-(x ** 2 + y ** 2) / (2 * (a * 2 ** scale) ** 2))
            z = nn.functional.pad(z, (phi.shape[0] // 2,) * 4, mode="reflect")
            return nn.functional.conv2d(z, (phi / phi.sum())[None, None], stride=2 ** scale)

        def modulus(z, scale):
            k = waves(scale)
            z = nn.functional.pad(z, (k.shape[-1] // 2,) * 4, mode="reflect")
            re, im = (nn.functional.conv2d(z, part.contiguous(), stride=2 ** scale) for part in (k.real, k.imag))
            z = torch.sqrt(re ** 2 + im ** 2)
            return z.reshape(-1, 1, *z.shape[2:])  # every angle an image of its own

        def one(x):
            out, second = [smooth(x, scales)], []
            for j in range(scales):
                first = modulus(x, j)
                out.append(smooth(first, scales - j))
                for k in range(j + 1, scales if order == 2 else 0):
                    second.append(smooth(modulus(first, k - j), scales - k))
            side = out[0].shape[2:]
            return torch.cat([o.reshape(x.shape[0], -1, *side) for o in out + second], 1)

        def scatter(x):
            y = torch.cat([one(x[:, i:i + 1]) for i in range(x.shape[1])], 1)
            return torch.sign(y) * torch.sqrt(y.abs()) if c.get("root") else y

        self.step("call", function=scatter)
        self.shape = list(scatter(torch.zeros(1, *self.shape)).shape[1:])

    def do_positions(self, c):
        width, length = self.shape[:2]
        if c.get("sinusoidal"):
            at = torch.arange(length).double()[:, None]
            rate = 10000 ** (-(torch.arange(width) - torch.arange(width) % 2).double() / width)
            waves = torch.where(torch.arange(width) % 2 == 0, torch.sin(at * rate), torch.cos(at * rate))
            self.step("add", fixed=waves)
        else:
            m = nn.Embedding(length, width)
            self.step("add", m)
            self.add(m.weight)

    def do_embedding(self, c):
        m = nn.Embedding(sum(c["categories"]), c["width"])
        self.step("columns", m, categories=c["categories"])
        self.add(m.weight)
        self.shape[0] += len(c["categories"]) * (c["width"] - 1)

    def do_attention(self, c):
        m = nn.MultiheadAttention(self.shape[0], c["heads"], batch_first=True)
        self.step("attention", m, causal=c.get("causal", False))
        self.add(m.in_proj_weight, m.in_proj_bias, m.out_proj.weight, m.out_proj.bias)

    def do_residual(self, c):
        inner = Network(self.shape, c["layers"])
        self.step("residual", inner)
        self.order += inner.order
        if c.get("project"):
            way = nn.Conv2d(self.shape[0], c["project"], 1, c.get("stride", 1))
            self.step("way", way)
            self.add(way.weight, way.bias)
        self.shape = inner.shape

    def do_transformer_encoder(self, c):
        width = self.shape[0]
        ff = [{"linear": {"out": c["feed_forward"]}}, {c.get("activation", "relu"): {}}, {"linear": {"out": width}}]
        for _ in range(c.get("layers", 1)):
            for inner in ([{"attention": {"heads": c["heads"], "causal": c.get("causal", False)}}], ff):
                if c.get("norm", "post") == "pre":
                    self.build([{"residual": {"layers": [{"layer_norm": {}}] + inner}}])
                else:
                    self.build([{"residual": {"layers": inner}}, {"layer_norm": {}}])

    def forward(self, x):
        around = None
        for position, (kind, i, more) in enumerate(self.kinds):
            m = self.steps[i]
            if kind == "plain":
                x = m(x)
            elif kind == "channels":
                x = m(x.movedim(1, -1)).movedim(-1, 1)
            elif kind == "flatten":
                x = x.reshape(x.shape[0], -1, 1, 1)
            elif kind == "call":
                x = more["function"](x)
            elif kind == "first":
                x = x[:, :, :1]
            elif kind == "sequence":
                x = x[:, 0].transpose(1, 2)[..., None]
            elif kind == "add":
                x = x + (more["fixed"] if "fixed" in more else m.weight).T[None, :, :, None]
            elif kind == "columns":
                numeric = x.shape[1] - len(more["categories"])
                parts, first = [x[:, :numeric, 0, 0]], 0
                for k, size in enumerate(more["categories"]):
                    parts.append(m(x[:, numeric + k, 0, 0].long() + first))
                    first += size
                x = torch.cat(parts, 1)[:, :, None, None]
            elif kind == "attention":
                t = x[..., 0].transpose(1, 2)
                mask = torch.triu(torch.ones(t.shape[1], t.shape[1], dtype=torch.bool), 1) if more["causal"] else None
                x = m(t, t, t, attn_mask=mask, need_weights=False)[0].transpose(1, 2)[..., None]
            elif kind == "residual":
                follows = self.kinds[position + 1][0] if position + 1 < len(self.kinds) else None
                around = x
                x = m(x)
                x = x if follows == "way" else x + around
            elif kind == "way":
                x = x + m(around)
        return x


def optimizers():
    """Twenty steps of every optimizer from the same start with the same gradients: the weights after each."""
    start, grads = torch.randn(5).float().double(), torch.randn(20, 5).float().double()
    tensors = {"start": start, "grads": grads}
    for name, make_one in {
            "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
            "nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
            "adam": lambda p: torch.optim.Adam(p, 0.1, betas=(0.8, 0.95), weight_decay=0.01),
            "adamw": lambda p: torch.optim.AdamW(p, 0.1, betas=(0.8, 0.95), weight_decay=0.01)}.items():
        w = nn.Parameter(start.clone())
        o, path = make_one([w]), []
        for g in grads:
            w.grad = g.clone()
            o.step()
            path.append(w.detach().clone())
        tensors[name] = torch.stack(path)
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "optimizers.safetensors"), tensors, "")


def make(name, shape, goal, layers, loss=None):
    """goal: the number of classes, or lines of the model's description about its loss."""
    if isinstance(goal, int):
        classes, goal = goal, "classes: %d" % goal
    job = ("name: %s\nstrategy: fedavg\nrounds: 1\nmodel:\n  input: %s\n  %s\n  layers:%s\ntrain: {lr: 0.1}\nround: {members: 1}\n"
           % (name.replace("_", "-"), json.dumps(shape), goal, layers.replace("\n      ", "\n    ")))
    description = yaml.safe_load(job)["model"]["layers"]
    net = Network(shape, description)
    with torch.no_grad():
        for p in net.order:  # float32 values, so that both sides start from the same numbers
            spread = 0.4 if p.dim() > 1 else 0.2
            start = torch.randn_like(p) * spread + (1 if p.dim() == 1 and p.abs().sum() == p.numel() else 0)
            p.copy_(start.float().double())
    size = shape if len(shape) == 3 else [shape[0], 1, 1]
    x = torch.randn(EXAMPLES, *size).float().double()
    if name == "columns":
        x[:, 3, 0, 0] = torch.tensor([0, 3, 1, 2, 3, 0, 2]).double()
        x[:, 4, 0, 0] = torch.tensor([6, 0, 5, 5, 1, 2, 3]).double()
    model = yaml.safe_load(job)["model"]
    if "targets" in model:
        y = torch.randn(EXAMPLES, model["targets"]).float().double()
    else:
        y = torch.arange(EXAMPLES) % model["classes"]
    loss = loss or nn.CrossEntropyLoss()
    grads = lambda at: torch.cat([g.reshape(-1) for g in torch.autograd.grad(at, net.order)])
    out = net(x)[:, :, 0, 0]
    norms = torch.stack([(grads(loss(net(x[i:i + 1])[:, :, 0, 0], y[i:i + 1])) ** 2).sum() for i in range(EXAMPLES)])
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "layer_%s.safetensors" % name),
          {"theta": torch.cat([p.reshape(-1) for p in net.order]), "x": x, "y": y.double(), "out": out,
           "loss": loss(out, y).reshape(1), "grad": grads(loss(out, y)), "norms": norms}, job)


def batch_norm():
    """A network with batch norms: outputs as it serves, loss and gradient as it trains (0 at running statistics), and what they become."""
    job = """name: batch-norm
strategy: fedbn
rounds: 1
model:
  input: [2, 6, 5]
  classes: 3
  layers:
    - conv2d: {out: 4, kernel: 3, padding: 1}
    - batch_norm: {}
    - relu: {}
    - max_pool: {size: 2}
    - residual:
        project: 6
        layers:
          - conv2d: {out: 6, kernel: 3, padding: 1}
          - batch_norm: {}
          - relu: {}
          - conv2d: {out: 6, kernel: 1}
          - batch_norm: {}
    - relu: {}
    - flatten: {}
    - linear: {out: 8}
    - batch_norm: {}
    - tanh: {}
    - linear: {out: 3}
train: {lr: 0.1}
round: {members: 1}
"""
    net = Network([2, 6, 5], yaml.safe_load(job)["model"]["layers"])
    with torch.no_grad():
        for p in net.order:
            positive = p.dim() == 1 and p.sum() == p.numel()  # ones: weights of norms, and variances
            start = torch.rand_like(p) + 0.5 if positive else torch.randn_like(p) * 0.4
            p.copy_(start.float().double())
    x, y = torch.randn(EXAMPLES, 2, 6, 5).float().double(), torch.arange(EXAMPLES) % 3
    flat = lambda tensors: torch.cat([t.detach().reshape(-1) for t in tensors])
    theta, trained = flat(net.order), [p for p in net.order if p.requires_grad]
    net.eval()
    out = net(x)[:, :, 0, 0]
    net.train()
    loss = nn.CrossEntropyLoss()(net(x)[:, :, 0, 0], y)
    grads = dict(zip(map(id, trained), torch.autograd.grad(loss, trained)))
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "batch_norm.safetensors"),
          {"theta": theta, "x": x, "y": y.double(), "out": out, "loss": loss.reshape(1), "norms": torch.zeros(EXAMPLES),
           "grad": flat([grads.get(id(p), torch.zeros_like(p)) for p in net.order]), "after": flat(net.order)}, job)


if __name__ == "__main__":
    for case in CASES.items():
        make(case[0], *case[1])
    for name, (goal, outputs, loss) in LOSSES.items():
        make("loss_" + name, [5], goal, """
      - linear: {out: 6}
      - tanh: {}
      - linear: {out: %d}""" % outputs, loss)
    optimizers()
    for case in MORE.items():
        make(case[0], *case[1])
    batch_norm()
