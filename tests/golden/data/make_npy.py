#!/usr/bin/python3
"""Writes the .npy files beside it with NumPy itself: what test_tables.c expects to read."""
import os

import numpy

here = os.path.dirname(os.path.abspath(__file__))


def save(name, array, version=None):
    with open(os.path.join(here, name), "wb") as f:
        numpy.lib.format.write_array(f, array, version=version)


x = numpy.arange(24).reshape(3, 2, 2, 2)
save("x_f4.npy", (x / 8).astype("<f4"))
save("x_f8_v2.npy", (x / 8).astype("<f8"), (2, 0))
save("x_u1.npy", (x * 10).astype("u1"))
save("x_i8.npy", (x - 3).astype("<i8"))
save("x_big_endian.npy", x.astype(">f4"))
save("x_fortran.npy", numpy.asfortranarray(x.reshape(3, 8).astype("<f4")))
save("y_class.npy", numpy.array([2, 0, 1], dtype="<i8"))
save("y_number.npy", numpy.array([[0.5, 1], [-2, 3], [4.25, -1]], dtype="<f8"))
