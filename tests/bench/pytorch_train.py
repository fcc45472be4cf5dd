"""PyTorch's side of tests/bench/train.sh: the same networks and batches, one line of JSON each.

CPU seconds of the whole process, best of several. `private` is DP-SGD by hooks at its best: norms
of linear layers from their factors, per-example gradients of convolutions by one batched product,
then one weighted sum; noise by torch.normal (faster, and weaker, than integers from a stream cipher).
"""
import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

REPEATS = 25


def cnn():
    return nn.Sequential(nn.Conv2d(1, 16, 5), nn.LeakyReLU(0.01), nn.MaxPool2d(2),
                         nn.Conv2d(16, 32, 5), nn.LeakyReLU(0.01), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(512, 128), nn.LeakyReLU(0.01), nn.Linear(128, 10))


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.LeakyReLU(0.01), nn.Linear(256, 10))


class Block(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(i, o, 3, stride, 1), nn.GroupNorm(8, o), nn.LeakyReLU(0.01),
                                  nn.Conv2d(o, o, 3, 1, 1), nn.GroupNorm(8, o))
        self.way = nn.Identity() if i == o and stride == 1 else nn.Conv2d(i, o, 1, stride)

    def forward(self, x):
        return F.leaky_relu(self.body(x) + self.way(x), 0.01)


def resnet8():
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.GroupNorm(8, 16), nn.LeakyReLU(0.01),
                         Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(16, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.body(self.embed(x)).mean(1))


def best(step, steps):
    least = float("inf")
    for _ in range(REPEATS):
        start = time.process_time()
        for _ in range(steps):
            step()
        least = min(least, (time.process_time() - start) / steps)
    return least


def plain(model, x, y):
    optim = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)

    def step():
        optim.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optim.step()
    return step


def private(model, x, y, clip=1.0, sigma=1.0):
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    seen, back = {}, {}
    for m in layers:
        m.register_forward_hook(lambda m, i, o: seen.__setitem__(m, i[0].detach()))
        m.register_full_backward_hook(lambda m, gi, go: back.__setitem__(m, go[0].detach()))
        for p in m.parameters():
            p.requires_grad_(True)
    optim = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
    first = layers[0]

    def step():
        # Gradients of activations only: weights' are made below, weighted.
        loss = F.cross_entropy(model(x), y, reduction="sum")
        loss.backward(inputs=[first.bias])
        norms = torch.zeros(len(x))
        each = {}
        for m in layers:
            a, d = seen[m], back[m]
            if isinstance(m, nn.Linear):
                norms += d.square().sum(1) * (a.square().sum(1) + 1)
            else:
                u = F.unfold(a, m.kernel_size, padding=m.padding, stride=m.stride)
                d = d.flatten(2)
                w = torch.bmm(d, u.transpose(1, 2))
                b = d.sum(2)
                each[m] = (w, b)
                norms += w.square().sum((1, 2)) + b.square().sum(1)
        f = (clip / norms.sqrt()).clamp(max=1)
        for m in layers:
            if isinstance(m, nn.Linear):
                d = back[m] * f[:, None]
                m.weight.grad, m.bias.grad = d.t() @ seen[m], d.sum(0)
            else:
                w, b = each[m]
                m.weight.grad = torch.matmul(f, w.flatten(1)).view_as(m.weight)
                m.bias.grad = f @ b
        for p in model.parameters():
            p.grad = (p.grad + torch.normal(0, sigma * clip, p.shape)) / len(x)
        optim.step()
    return step


def row(name, make, step, shape, batch, threads, steps):
    torch.manual_seed(1)
    torch.set_num_threads(threads)
    x, y = torch.rand(batch, *shape), torch.randint(0, 10, (batch,))
    cpu = best(step(make(), x, y), steps)
    print(json.dumps({"bench": name, "by": "pytorch", "threads": threads,
                      "samples_per_cpu_s": round(batch / cpu)}), flush=True)


def main():
    image = (1, 28, 28)
    print(json.dumps({"bench": "version", "by": "pytorch", "version": torch.__version__}))
    for threads in (1, 2):
        row("cnn", cnn, plain, image, 50, threads, 10)
        row("mlp", mlp, plain, image, 50, threads, 50)
        row("resnet8", resnet8, plain, (3, 32, 32), 50, threads, 1)
        row("transformer", Transformer, plain, (30, 16), 32, threads, 4)
    row("cnn_private", cnn, private, image, 50, 1, 6)
    row("mlp_private", mlp, private, image, 50, 1, 10)
    row("cnn_private_512", cnn, private, image, 512, 1, 1)
    row("mlp_private_512", mlp, private, image, 512, 1, 2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
