#!/usr/bin/python3
"""Golden rounds of pFedHN by PyTorch's autograd: tests/golden/pfedhn.py writes tests/golden/pfedhn_{published,better}.safetensors.

Four agents; a network h of one hidden layer makes all their models in one graph, from embeddings that are leaves. A round's loss is minus the
weighted sum of <theta_i, update_i> of those that take part, so its gradients are what the method's paper has for h (its step: SGD) and, divided
by the agent's weight, for each embedding. Agent 3 is new in the second round and sent what the mean embedding makes; agent 1 is away then. The
file holds h and the embeddings of three agents as they begin, their models, the updates in steps of the grid, and after each round all models, embeddings and h. Needs python3-torch.
"""
import os

import torch

from golden_file import write

torch.manual_seed(5)
torch.set_default_dtype(torch.float64)
E, H, STEP, LR, LR_E, HOMES = 3, 5, 2.0 ** -20, 0.3, 0.7, 6
SHAPES = [(6, 4), (6,), (3, 6), (3,)]
P = sum(torch.Size(s).numel() for s in SHAPES)
WEIGHTS = [3, 1, 4, 2]
MEMBERS = [[0, 1, 2], [0, 2, 3], [0, 1, 2, 3]]
JOB = """name: pfedhn
strategy: {pfedhn: {variant: %s, embedding: 3, hidden: 5, lr: 0.3, embedding_lr: 0.7, homes: 6}}
rounds: 3
model: {input: [4], classes: 3, layers: [{linear: {out: 6}}, {relu: {}}, {linear: {out: 3}}]}
train: {lr: 0.1}
weights: examples
max_weight: 10
grid: {bits: 32, step: -20}
round: {members: 4}
"""


def single(t):
    return t.to(torch.float32).to(torch.float64)


def make(h, e):
    f = torch.relu(h["M"] @ e + h["m"])
    return h["b"] + f @ h["W"]


def rounds(variant, folder):
    h = {"M": single(torch.rand(H, E) - 0.5), "m": single(torch.rand(H) - 0.3), "W": single(0.4 * torch.randn(H, P))}
    own = {i: single(torch.randn(E)) for i in range(3)}
    mean = single(torch.stack([own[i] for i in range(3)]).mean(0))
    h["b"] = single(0.3 * torch.randn(P))
    out = {"begin": torch.cat([h["M"].reshape(-1), h["m"], mean] + [own[i] for i in range(3)] +
                              [torch.zeros((HOMES - 3) * E), h["W"].reshape(-1), h["b"]]),
           "weights": torch.tensor(WEIGHTS),
           "models": torch.stack([make(h, mean)] + [make(h, own[i]) for i in range(3)])}
    for r, members in enumerate(MEMBERS, 1):
        total = sum(WEIGHTS[i] for i in members)
        leaf = {k: v.clone().requires_grad_() for k, v in h.items()}
        embedding = {i: own.get(i, mean).clone().requires_grad_() for i in members}
        loss, power = 0, 0
        for i in members:
            update = torch.round(0.1 * torch.randn(P) / STEP)
            out["round%d.steps%d" % (r, i)] = update
            loss = loss - WEIGHTS[i] / total * (make(leaf, embedding[i]) * (update * STEP)).sum()
            power += WEIGHTS[i] / total * (torch.relu(h["M"] @ embedding[i].detach() + h["m"]) ** 2).sum().item()
        loss.backward()
        with torch.no_grad():
            for i in members:
                on = (h["M"] @ embedding[i] + h["m"] > 0).double()
                largest = (on * (h["W"] ** 2).sum(1) * (h["M"] ** 2).sum(1)).sum().item()
                rate = LR_E / largest if variant == "better" else LR_E
                own[i] = embedding[i] - rate * embedding[i].grad * total / WEIGHTS[i]
            rate = LR / (1 + power) if variant == "better" else LR
            h = {k: v.detach() - rate * v.grad for k, v in leaf.items()}
            mean = torch.stack([own[i] for i in sorted(own)]).mean(0)
        out["round%d.mean0" % r] = make(h, mean)
        for i in sorted(own):
            out["round%d.next%d" % (r, i)] = make(h, own[i])
    write(os.path.join(folder, "pfedhn_%s.safetensors" % variant), out, JOB % variant)


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    for variant in ("published", "better"):
        rounds(variant, here)
