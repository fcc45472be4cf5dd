#!/usr/bin/python3
"""check_onnx.py MODEL.onnx X.npy Y.npy: python3-onnx checks the file, OpenCV's dnn evaluates it on X and must give Y.

Prints the largest difference relative to the largest value. Exit 77 and a word when one of the two is not installed.
"""
import sys

try:
    import cv2
    import numpy
    import onnx
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

model = onnx.load(sys.argv[1])
onnx.checker.check_model(model, full_check=True)
x, want = numpy.load(sys.argv[2]), numpy.load(sys.argv[3])
network = cv2.dnn.readNetFromONNX(sys.argv[1])
got = []
for one in x:
    network.setInput(one[None])
    got.append(network.forward().reshape(-1))
far = float(numpy.abs(numpy.array(got).reshape(want.shape) - want).max() / numpy.abs(want).max())
print(f"nodes {[n.op_type for n in model.graph.node]}, {len(x)} examples, largest difference {far:.2e}")
sys.exit(0 if far < 1e-5 else 1)
