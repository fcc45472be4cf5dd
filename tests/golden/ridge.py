#!/usr/bin/python3
"""Golden values of ridge regression, by torch.linalg in double precision: tests/golden/ridge.py writes tests/golden/ridge.safetensors.

The layer is found by least squares on the examples with rows sqrt(count lambda) e_i under them, so by neither of the ways that the engine has.
"""
import os

import torch

from golden_file import write

torch.manual_seed(11)
torch.set_default_dtype(torch.float64)
COUNT, IN, OUT, LAMBDA = 23, 9, 3, 0.05

x = (torch.randn(COUNT, IN) * torch.linspace(0.2, 3, IN) + torch.linspace(-1, 4, IN)).float().double()
t = torch.randn(COUNT, OUT).float().double()
rows = torch.cat([torch.cat([x, torch.ones(COUNT, 1)], 1),
                  torch.cat([torch.eye(IN) * (COUNT * LAMBDA) ** 0.5, torch.zeros(IN, 1)], 1)])
best = torch.linalg.lstsq(rows, torch.cat([t, torch.zeros(IN, OUT)])).solution
write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "ridge.safetensors"),
      {"x": x, "t": t, "lambda": torch.tensor([LAMBDA]), "weight": best[:IN].T.contiguous(), "bias": best[IN]}, "")
