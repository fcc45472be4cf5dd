#!/usr/bin/python3
"""Fixed features of one set of images, turned and scaled by what another, public set shows: OUT/{train,test}-{x,y}.npy for `format: npy`.

    tests/experiments/public_features.py --features PROGRAM --job JOB.yaml --data DIR --public DIR --out DIR [--size 160] [--power 0.4]

PROGRAM is build/tests/experiments/features; JOB.yaml names the fixed layers. From the public set, without its labels: the direction of the mean
of its features, which is taken out, and the eigenvectors of their covariance, of which the first `size` are kept, each divided by its eigenvalue
to the power. The result is scaled by one number so that a public example has norm 1 on average. No example of DIR has a part in any of it, so this
costs no privacy. Needs python3-numpy.
"""
import argparse
import os
import shutil
import subprocess
import tempfile

import numpy


def fixed(program, job, data, out):
    os.makedirs(out)
    subprocess.run([program, "--data", data, "--out", out, job], check=True)
    return {name: numpy.load("%s/%s.npy" % (out, name)) for name in ("train-x", "train-y", "test-x", "test-y")}


def turn(public, size, power):
    mean = public.mean(0)
    away = mean / numpy.linalg.norm(mean)
    values, vectors = numpy.linalg.eigh(numpy.cov(public.T))
    turned = vectors[:, -size:] / values[-size:] ** power
    turned -= numpy.outer(away, away @ turned)
    return turned / numpy.linalg.norm(public @ turned, axis=1).mean()


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("features", "job", "data", "public", "out"):
        p.add_argument("--" + name, required=True)
    p.add_argument("--size", type=int, default=160)
    p.add_argument("--power", type=float, default=0.4)
    o = p.parse_args()
    work = tempfile.mkdtemp(prefix="cohort-features.")
    try:
        matrix = turn(fixed(o.features, o.job, o.public, work + "/public")["train-x"].astype(numpy.float64), o.size, o.power)
        made = fixed(o.features, o.job, o.data, work + "/own")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    os.makedirs(o.out, exist_ok=True)
    for part in ("train", "test"):
        numpy.save("%s/%s-x.npy" % (o.out, part), (made[part + "-x"] @ matrix).astype("<f4"))
        numpy.save("%s/%s-y.npy" % (o.out, part), made[part + "-y"].astype("<i4"))


if __name__ == "__main__":
    main()
