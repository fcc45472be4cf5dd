#!/usr/bin/python3
"""check_onnx.py MODEL.onnx X.npy Y.npy: python3-onnx checks the file, and it must give Y on X, all examples at once and one by one,
as evaluated by NumPy (the operators written down below after onnx/docs/Operators.md) and by OpenCV's dnn where that knows them.

Prints the largest differences relative to the largest value. Exit 77 and a word when numpy or onnx is not installed.
"""
import math
import sys

try:
    import numpy
    import onnx
    from onnx import numpy_helper
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)
try:
    import cv2
except ImportError:
    cv2 = None


def windows(x, a):
    """All windows of an image, [N, C, rows, columns, kh, kw]."""
    p = a.get("pads", [0, 0, 0, 0])
    x = numpy.pad(x, ((0, 0), (0, 0), (p[0], p[2]), (p[1], p[3])))
    w = numpy.lib.stride_tricks.sliding_window_view(x, a["kernel_shape"], (2, 3))
    s = a.get("strides", [1, 1])
    return w[:, :, :: s[0], :: s[1]]


def conv(a, x, w, b=numpy.zeros(1)):
    groups = a.get("group", 1)
    parts = zip(numpy.split(windows(x, a), groups, 1), numpy.split(w, groups))
    return numpy.concatenate([numpy.einsum("nchwij,ocij->nohw", v, k) for v, k in parts], 1) + b.reshape(1, -1, 1, 1)


def softmax(x, axis):
    e = numpy.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def instances(x, scale, bias, a):
    rest = tuple(range(2, x.ndim))
    shape = (1, -1) + (1,) * len(rest)
    y = (x - x.mean(rest, keepdims=True)) / numpy.sqrt(x.var(rest, keepdims=True) + a["epsilon"])
    return y * scale.reshape(shape) + bias.reshape(shape)


def batch_norm(x, scale, bias, mean, variance, epsilon):
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return (x - mean.reshape(shape)) / numpy.sqrt(variance.reshape(shape) + epsilon) * scale.reshape(shape) + bias.reshape(shape)


OPERATORS = {
    "InstanceNormalization": lambda i, a: instances(*i, a),
    "BatchNormalization": lambda i, a: batch_norm(*i, a["epsilon"]),
    "Add": lambda i, a: i[0] + i[1],
    "Sub": lambda i, a: i[0] - i[1],
    "Mul": lambda i, a: i[0] * i[1],
    "Div": lambda i, a: i[0] / i[1],
    "Sqrt": lambda i, a: numpy.sqrt(i[0]),
    "Tanh": lambda i, a: numpy.tanh(i[0]),
    "Erf": lambda i, a: numpy.vectorize(math.erf, otypes=["f8"])(i[0]),
    "Relu": lambda i, a: numpy.maximum(i[0], 0),
    "LeakyRelu": lambda i, a: numpy.where(i[0] < 0, a["alpha"] * i[0], i[0]),
    "Identity": lambda i, a: i[0],
    "Conv": lambda i, a: conv(a, *i),
    "Pad": lambda i, a: numpy.pad(i[0], list(zip(i[1][: i[0].ndim], i[1][i[0].ndim :])), a["mode"].decode()),
    "ReduceL2": lambda i, a: numpy.sqrt((i[0] ** 2).sum(tuple(a["axes"]), keepdims=bool(a["keepdims"]))),
    "Sign": lambda i, a: numpy.sign(i[0]),
    "Abs": lambda i, a: numpy.abs(i[0]),
    "Cos": lambda i, a: numpy.cos(i[0]),
    "MaxPool": lambda i, a: windows(i[0], a).max((4, 5)),
    "AveragePool": lambda i, a: windows(i[0], a).mean((4, 5)),
    "GlobalAveragePool": lambda i, a: i[0].mean((2, 3), keepdims=True),
    "Flatten": lambda i, a: i[0].reshape(math.prod(i[0].shape[: a["axis"]]), -1),
    "Gemm": lambda i, a: i[0] @ (i[1].T if a.get("transB") else i[1]) + i[2],
    "MatMul": lambda i, a: i[0] @ i[1],
    "Transpose": lambda i, a: i[0].transpose(a["perm"]),
    "Squeeze": lambda i, a: numpy.squeeze(i[0], tuple(i[1])),
    "Unsqueeze": lambda i, a: numpy.expand_dims(i[0], tuple(i[1])),
    "Reshape": lambda i, a: i[0].reshape([d or i[0].shape[k] for k, d in enumerate(i[1])]),
    "ReduceMean": lambda i, a: i[0].mean(tuple(a["axes"]), keepdims=bool(a["keepdims"])),
    "Softmax": lambda i, a: softmax(i[0], a["axis"]),
    "Split": lambda i, a: numpy.split(i[0], numpy.cumsum(i[1])[:-1], a["axis"]),
    "Slice": lambda i, a: i[0].take(range(i[1][0], i[2][0]), i[3][0]),
    "Gather": lambda i, a: i[0].take(i[1], a.get("axis", 0)),
    "Cast": lambda i, a: i[0].astype({7: "i8"}[a["to"]]),
    "Concat": lambda i, a: numpy.concatenate(i, a["axis"]),
}


def evaluate(model, x):
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    values = {k: v.astype("f8") if v.dtype.kind == "f" else v for k, v in values.items()}
    values["input"] = x.astype("f8")
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        out = OPERATORS[node.op_type]([values[name] for name in node.input], attributes)
        for name, value in zip(node.output, out if isinstance(out, list) else [out]):
            values[name] = value
    return values["output"]


def far(got, want):
    return float(numpy.abs(numpy.asarray(got).reshape(want.shape) - want).max() / numpy.abs(want).max())


def by_opencv(path, x, want):
    if cv2 is None:
        return "OpenCV is not installed"
    try:
        network = cv2.dnn.readNetFromONNX(path)
        got = []
        for one in x:
            network.setInput(one[None])
            got.append(network.forward().reshape(-1))
    except cv2.error as refused:
        return f"OpenCV {cv2.__version__} does not know: {str(refused).strip().splitlines()[-1][-60:]}"
    assert far(got, want) < 1e-5, f"OpenCV: {far(got, want)}"
    return f"OpenCV {far(got, want):.1e}"


def main():
    path, x, want = sys.argv[1], numpy.load(sys.argv[2]), numpy.load(sys.argv[3])
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    together = far(evaluate(model, x), want)
    alone = far([evaluate(model, one[None])[0] for one in x], want)
    assert together < 1e-5 and alone < 1e-5, f"NumPy: {together}, {alone}"
    print(f"{len(model.graph.node)} nodes, {len(x)} examples, NumPy {together:.1e}, {by_opencv(path, x, want)}")


main()
