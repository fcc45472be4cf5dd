#!/usr/bin/python3
"""Golden rounds of FedCAC as published, by PyTorch: tests/golden/fedcac.py writes tests/golden/fedcac_published.safetensors.

Six agents with two classes each train a small CNN for three rounds; between rounds masks, overlaps, collaborators and the next models are made
tensor by tensor as the method's papers and public descriptions have them, with torch.topk and whole models in memory. What an agent trained is
rounded to the job's grid first, so that both sides begin from the very same numbers; means are taken in double precision. beta is 2, so the
third round is beyond it. The file holds the initial model, and of each round the updates in steps of the grid and all next models.
Needs python3-torch. Seeds are fixed.
"""
import os

import torch
from torch import nn

from golden_file import write

torch.manual_seed(11)
AGENTS, ROUNDS, TAU, BETA, STEP = 6, 3, 0.5, 2, 2.0 ** -20
WEIGHTS = [3, 1, 4, 1, 5, 9]
JOB = """name: fedcac
strategy: {fedcac: {variant: published, tau: 0.5, beta: 2}}
rounds: 3
model:
  input: [1, 8, 8]
  classes: 4
  layers:
    - conv2d: {out: 4, kernel: 3}
    - relu:
    - max_pool: {size: 2}
    - flatten:
    - linear: {out: 4}
train: {lr: 0.1}
weights: examples
max_weight: 10
grid: {bits: 32, step: -20}
round: {members: 6}
"""


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 4))


def values(state):
    return torch.cat([t.reshape(-1) for t in state])


def examples(agent):
    """Two of four classes, each a direction of stripes with noise; agents 2i and 2i + 1 have the same, and one in common with the next."""
    g = torch.Generator().manual_seed(agent)
    y = (torch.randint(0, 2, (40,), generator=g) + agent // 2) % 4
    line = torch.arange(8.0)
    waves = [torch.sin(line)[:, None].expand(8, 8), torch.sin(line)[None].expand(8, 8), torch.sin(2 * line)[:, None].expand(8, 8),
             torch.sin(2 * line)[None].expand(8, 8)]
    x = torch.stack([waves[c] for c in y.tolist()])[:, None] + 0.5 * torch.randn(40, 1, 8, 8, generator=g)
    return x, y


def train(before, agent):
    net = Net()
    with torch.no_grad():
        for p, t in zip(net.parameters(), before):
            p.copy_(t)
    x, y = examples(agent)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in range(8):
        optimizer.zero_grad()
        part = slice(step % 2 * 20, step % 2 * 20 + 20)
        nn.functional.cross_entropy(net(x[part]), y[part]).backward()
        optimizer.step()
    after, steps = [], []
    for p, t in zip(net.parameters(), before):
        q = torch.round((p.detach().double() - t.double()) / STEP)
        steps.append(q)
        after.append((t.double() + q * STEP).float())
    return after, steps


def mask_of(before, after):
    masks = []
    for old, new in zip(before, after):
        omega = torch.abs((new - old) * new)
        flat = omega.reshape(-1)
        k = int(TAU * flat.numel())
        top = torch.topk(flat, k)[0] if k else []
        least = top[-1] if k else torch.tensor(float("inf"))
        if least <= 1e-10:
            moved = flat[flat > 1e-20]
            least = moved.sort()[0][0] if moved.numel() else least
        masks.append((omega >= least).int())
    return masks


def main():
    first = [p.detach() for p in Net().parameters()]
    tensors = {"initial": values(first), "weights": torch.tensor(WEIGHTS).float()}
    mine = [first] * AGENTS
    share = torch.tensor(WEIGHTS, dtype=torch.float64) / sum(WEIGHTS)
    for t in range(ROUNDS):
        trained, masks, bits = [], [], []
        for i in range(AGENTS):
            after, steps = train(mine[i], i)
            assert max(s.abs().max() for s in steps) < 2 ** 24
            trained.append(after)
            masks.append(mask_of(mine[i], after))
            bits.append(values(masks[i]))
            tensors[f"round{t + 1}.steps{i}"] = values(steps)
        common = [sum(share[i] * trained[i][l].double() for i in range(AGENTS)) for l in range(len(first))]
        overlap = [[1 - float(torch.sum(torch.abs(bits[i] - bits[j]))) / (2 * float(torch.sum(bits[i]))) for j in range(AGENTS) if j != i]
                   for i in range(AGENTS)]
        every = [o for row in overlap for o in row]
        mean = sum(every) / len(every)
        least = mean + (t + 1) / BETA * (max(every) - mean)
        mine = []
        for i in range(AGENTS):
            others = [j for j in range(AGENTS) if j != i]
            circle = [i] + [j for j, o in zip(others, overlap[i]) if o >= least]
            tensors[f"round{t + 1}.circle{i}"] = torch.tensor([float(j in circle) for j in range(AGENTS)])
            own = [sum(trained[j][l].double() for j in circle) / len(circle) for l in range(len(first))]
            mine.append([(m * c + (1 - m) * g).float() for m, c, g in zip(masks[i], own, common)])
            tensors[f"round{t + 1}.next{i}"] = values(mine[i])
        tensors[f"round{t + 1}.mean0"] = values([g.float() for g in common])
        print(t + 1, [int(sum(tensors[f"round{t + 1}.circle{i}"])) for i in range(AGENTS)], "least", least, "most", max(every))
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "fedcac_published.safetensors"), tensors, JOB)


if __name__ == "__main__":
    main()
