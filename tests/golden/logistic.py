#!/usr/bin/python3
"""Golden values of logistic regression, by torch.optim.LBFGS in double precision: tests/golden/logistic.py writes
tests/golden/logistic.safetensors. The minimum of mean loss + lambda |W|^2 over 23 examples of 9 numbers, for 3 classes and for 2 (one output)."""
import os

import torch

from golden_file import write

torch.manual_seed(12)
torch.set_default_dtype(torch.float64)
COUNT, IN, CLASSES, LAMBDA = 23, 9, 3, 0.003

x = (torch.randn(COUNT, IN) * torch.linspace(0.2, 3, IN) + torch.linspace(-1, 4, IN)).float().double()
y = ((x[:, :CLASSES] + torch.randn(COUNT, CLASSES)).argmax(1))


def minimum(outputs, loss):
    weight = torch.zeros(outputs, IN, requires_grad=True)
    bias = torch.zeros(outputs, requires_grad=True)
    optim = torch.optim.LBFGS([weight, bias], lr=1, max_iter=500, tolerance_grad=1e-13, tolerance_change=1e-18, history_size=50,
                              line_search_fn="strong_wolfe")

    def closure():
        optim.zero_grad()
        value = loss(x @ weight.T + bias) + LAMBDA * weight.square().sum()
        value.backward()
        return value

    for _ in range(50):
        optim.step(closure)
    closure()
    assert weight.grad.abs().max() < 1e-7 and bias.grad.abs().max() < 1e-7
    bias = bias.detach()
    return weight.detach(), bias - bias.mean() if outputs > 1 else bias


weight, bias = minimum(CLASSES, lambda out: torch.nn.functional.cross_entropy(out, y))
one, offset = minimum(1, lambda out: torch.nn.functional.binary_cross_entropy_with_logits(out[:, 0], (y == 1).double()))
write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "logistic.safetensors"),
      {"x": x, "y": y.double(), "lambda": torch.tensor([LAMBDA]), "weight": weight, "bias": bias, "binary_weight": one, "binary_bias": offset}, "")
