"""An agent with a good certificate that cheats in a secure sum (proto/WIRE.md, section 11): secure_hostile.py PORT PKI NAME JOB HOW
garbage: bytes that are no object; forged: a signature that is none; stolen: another agent's certificate and key; short: an object cut
off; shares: right keys, and then sealed shares that nobody can open, and silence."""
import hashlib
import os
import ssl
import subprocess
import sys
import time

from peer import Peer, data, digest, number, read

port, pki, name, job, how = int(sys.argv[1]), *sys.argv[2:]
p = Peer(port, pki, name)


def task_of(exchange):
    p.send("ask", data(1, job.encode()))
    while True:
        got, task = p.next()
        if got == "task":
            if task[3] != exchange:
                raise SystemExit(f"FAILED: {task[3]} instead of {exchange}")
            p.send("accept", data(1, task[1]))
            return task
        if got != "rest":
            raise SystemExit(f"FAILED: {got} instead of a task")
        time.sleep(0.05)
        p.send("ask", data(1, job.encode()))


def hand_in(task, value, answer, reason=None):
    p.send("offer", data(1, task[1]) + data(2, digest(value)) + number(3, len(value)) + data(4, task[4]) + data(5, task[6]) + number(6, 1))
    p.expect("resume")
    p.send("chunk", data(1, digest(value)) + data(3, value))
    p.expect(answer, reason)
    print(f"ok: {how}: {answer} {reason or ''} {p.text}", flush=True)


def h(*parts):
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()


def short(value):
    return len(value).to_bytes(2, "little") + value


task = task_of(b"secagg-advertise")
key = read(task[1])
context = h(b"cohort secagg context 1\0", key[1], key[2].to_bytes(8, "little"), bytes(4), task[4])
keys = os.urandom(64)
signer = "site-04" if how == "stolen" else name
with open(f"{pki}/{signer}.crt") as f:
    certificate = ssl.PEM_cert_to_DER_cert(f.read())
message = b"cohort certificate signature 1\0" + h(b"cohort secagg advertise 1\0", context, keys)
signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", f"{pki}/{signer}.key"], input=message, stdout=subprocess.PIPE,
                           check=True).stdout
if how == "forged":
    signature = signature[:-1] + bytes([signature[-1] ^ 1])
advert = b"CSA1\x01\0\0\0" + context + keys + short(certificate) + short(signature)
if how == "garbage":
    hand_in(task, os.urandom(300), "over", 430)
elif how == "short":
    hand_in(task, advert[:-1], "over", 430)
elif how in ("forged", "stolen"):
    hand_in(task, advert, "over", 431)
else:
    hand_in(task, advert, "ack")
    task = task_of(b"secagg-share")
    near = 4
    hand_in(task, b"CSA1\x03\0\0\0" + context + os.urandom(32 + (2 * near + 1) * 16 + near * 80), "ack")
