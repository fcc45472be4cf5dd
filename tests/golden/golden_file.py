"""How the scripts of this folder write what they computed: a safetensors file of float32 tensors, with a job's text as metadata."""
import json
import struct

import torch


def write(path, tensors, job):
    header, data = {"__metadata__": {"job": job}}, b""
    for name, t in tensors.items():
        raw = t.detach().to(torch.float32).contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)
