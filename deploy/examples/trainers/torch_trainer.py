#!/usr/bin/python3
"""A trainer program in PyTorch: one round of a small network, trained on the examples the agent wrote.

The contract is deploy/docs/TRAINER.md: one JSON line comes in, tensors lie in this folder, one JSON line goes out. Everything below the
line "your part" is ordinary PyTorch; replace it by what you have. Needs python3-torch and python3-numpy, nothing else.
"""
import json
import struct
import sys

import numpy
import torch


def read_tensors(path):
    """A safetensors file of float32, without the library: length, JSON header, values."""
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        values = f.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        array = numpy.frombuffer(values[begin:end], dtype="<f4").reshape(entry["shape"])
        tensors[name] = torch.from_numpy(array.copy())
    return tensors


def write_tensors(path, tensors):
    header, at = {}, 0
    for name, tensor in tensors.items():
        size = 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            f.write(tensor.detach().numpy().astype("<f4").tobytes())


def examples(part, task):
    x = torch.from_numpy(numpy.load(part["x"]))
    y = torch.from_numpy(numpy.load(part["y"]).astype("int64"))
    if task["mean"]:
        x = (x - torch.tensor(task["mean"]).view(-1, 1, 1)) / torch.tensor(task["std"]).view(-1, 1, 1)
    return x.flatten(1), y


# ---- your part -------------------------------------------------------------------------------------------------------------


class Network(torch.nn.Module):
    """The job's description in PyTorch: names and shapes of parameters are the same there and here."""

    def __init__(self, task, tensors):
        super().__init__()
        hidden, features = tensors["fc1.weight"].shape
        self.fc1 = torch.nn.Linear(features, hidden)
        self.fc2 = torch.nn.Linear(hidden, task["classes"])
        self.load_state_dict(tensors)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


def accuracy(network, x, y):
    with torch.no_grad():
        return (network(x).argmax(1) == y).float().mean().item() if len(y) else None


def main():
    task = json.loads(sys.stdin.readline())
    torch.manual_seed(int(task["seed"][:15], 16))
    torch.set_num_threads(1)
    groups = [task[g] for g in ("shared", "private") if task[g]]
    tensors = {}
    for group in groups:
        tensors.update(read_tensors(group["in"]))
    network = Network(task, tensors)
    x, y = examples(task["examples"]["train"], task)
    test = examples(task["examples"]["test"], task)
    answer = {"accuracy_received": accuracy(network, *test)}
    if task["task"] == "train":
        how = task["train"]
        step = torch.optim.SGD(network.parameters(), lr=how["lr"], momentum=how["momentum"], weight_decay=how["weight_decay"])
        steps = 0
        for _ in range(how["epochs"]):
            total = 0.0
            for batch in torch.randperm(len(y)).split(how["batch"]):
                step.zero_grad()
                loss = torch.nn.functional.cross_entropy(network(x[batch]), y[batch])
                loss.backward()
                step.step()
                total += loss.item() * len(batch)
                steps += 1
        answer.update(loss=total / len(y), steps=steps, accuracy_trained=accuracy(network, *test))
        trained = network.state_dict()
        for group in groups:
            write_tensors(group["out"], {name: trained[name] for name in group["names"]})
    print(json.dumps(answer))


main()
