"""A hostile peer with a good certificate. hostile.py PORT PKI NAME JOB poison|polite: every offence, each on the connection it deserves."""
import sys
import time

from peer import Peer, data, digest, key, number, read

port, pki, name, job, manner = int(sys.argv[1]), *sys.argv[2:]


def ok(text):
    print("ok:", text, flush=True)


def dial(hello=True):
    return Peer(port, pki, name, hello)


def offence(what, act, reason, hello=True):
    """Ends the connection, with Bye(reason)."""
    p = dial(hello)
    act(p)
    p.expect("bye", reason)
    said = p.text
    if p.next()[0] != "end":
        raise SystemExit("FAILED: " + what + ": the connection goes on after Bye")
    ok(f"{what}: Bye({reason}) {said}")


nothing = bytes(16)


def outside_a_round():
    offence("a first message that is not Hello", lambda p: p.send("ask", b""), 304, hello=False)
    offence("a version nobody speaks", lambda p: p.hello(9, 9), 306, hello=False)
    offence("a large frame before Welcome", lambda p: p.raw((5000).to_bytes(4, "big")), 300, hello=False)
    offence("a frame of 2 GiB", lambda p: p.raw(b"\x7f\xff\xff\xff"), 300)
    offence("a frame of nothing", lambda p: p.raw(bytes(4)), 300)
    offence("a control message of 9000 bytes", lambda p: p.send("ask", data(1, b"x" * 9000)), 300)
    offence("garbage", lambda p: p.frame(b"\xff\xfe\xfd" * 20), 301)
    offence("a truncated message", lambda p: p.frame(data(7, data(1, b"name"))[:-2]), 301)
    offence("two bodies in a frame", lambda p: p.frame(data(4, number(1, 1)) + data(5, number(1, 1))), 301)
    offence("a field given twice", lambda p: p.send("ping", number(1, 1) + number(1, 2)), 301)
    offence("a field of no version", lambda p: p.send("ping", number(1, 1) + number(9, 1)), 303)
    offence("a digest of 3 bytes", lambda p: p.send("fetch", data(1, b"abc")), 305)
    offence("a name with a slash", lambda p: p.send("ask", data(1, b"../../x")), 305)
    offence("a second Hello", lambda p: p.send("hello", number(1, 1) + number(2, 1)), 304)
    offence("a message only coordinators send", lambda p: p.send("ack", data(1, key(nothing, 1)) + data(2, bytes(32))), 304)
    offence("a chunk that nobody asked for", lambda p: p.send("chunk", data(1, bytes(32)) + data(3, b"x" * 100)), 304)


    def flood(p):
        try:
            for _ in range(300):
                p.send("ask", data(1, b"no-such-job"))
        except OSError:
            pass  # cut while we were still at it


    offence("300 messages at once", flood, 4)

    p = dial()
    p.raw((100).to_bytes(4, "big") + b"0123456789")
    p.abort()
    ok("a connection cut in the middle of a frame")
    p, q = dial(), dial()
    p.expect("bye", 310)
    ok("the same agent twice: the older connection gets Bye(310)")
    q.send("fetch", data(1, bytes(32)))
    q.expect("refuse", 416)
    ok("an object of nobody's: Refuse(416), and the connection goes on")
    q.abort()


if manner == "poison":
    outside_a_round()

# ---- inside a round ----


def take_task(p):
    p.send("ask", data(1, job.encode()))
    while True:
        got, task = p.next()
        if got == "task":
            return task
        if got != "rest":
            raise SystemExit("FAILED: " + got + " instead of a task")
        time.sleep(0.05)
        p.send("ask", data(1, job.encode()))


class Round:
    def __init__(self, task):
        self.key, self.plan, self.base, self.size = task[1], task[4], task[6], task[8]

    def offer(self, p, update, **other):
        o = {"key": self.key, "digest": digest(update), "size": self.size, "plan": self.plan, "base": self.base, "weight": 1, **other}
        p.send("offer", data(1, o["key"]) + data(2, o["digest"]) + number(3, o["size"]) + data(4, o["plan"]) + data(5, o["base"])
               + number(6, o["weight"]))


def chunk(p, of, update, at=0):
    p.send("chunk", data(1, digest(of)) + number(2, at) + data(3, update))


p = dial()
task = take_task(p)
r = Round(task)
good = bytes(r.size)
named = read(r.key)
incarnation, number_now = named[1], named[2]
p.send("accept", data(1, r.key))
for what, other, answer in [
        ("another length", {"size": r.size + 2}, ("refuse", 404)),
        ("another plan", {"plan": bytes(32)}, ("refuse", 408)),
        ("another base model", {"base": bytes(32)}, ("refuse", 408)),
        ("a weight of its own choice", {"weight": 1000}, ("refuse", 406)),
        ("a job that does not exist", {"key": key(nothing, 1)}, ("refuse", 400)),
        ("a round that is not open", {"key": key(incarnation, number_now + 7)}, ("refuse", 401)),
        ("an exchange that the plan does not have", {"key": key(incarnation, number_now, 9)}, ("refuse", None))]:
    r.offer(p, good, **other)
    p.expect(*answer)
    ok(f"an offer of {what}: {answer[0]} {answer[1] or ''} {p.text}; the connection goes on")

forbidden = b"\x00\x80" * (r.size // 2)
if manner == "poison":
    # A duplicate Accept crossed nothing; it is ignored or an offence, never an effect.
    r.offer(p, forbidden)
    p.expect("resume")
    chunk(p, forbidden, forbidden[:10], at=20)
    p.expect("bye", 414)
    ok("a chunk at another offset: Bye(414) " + p.text)
    p = dial()
    r.offer(p, forbidden)
    if p.expect("resume").get(3, 0) != 0:
        raise SystemExit("FAILED: resumed at bytes that were never durable")
    chunk(p, forbidden, good)
    p.expect("refuse", 405)
    ok("bytes of another digest: Refuse(405) " + p.text)
    r.offer(p, forbidden)
    p.expect("resume")
    chunk(p, forbidden, forbidden)
    p.expect("over", 406)
    ok("the forbidden grid word: Over(406) " + p.text)
    p.abort()
else:
    r.offer(p, good)
    p.expect("resume")
    chunk(p, good, good[:50])
    chunk(p, good, good[50:], at=50)
    p.expect("ack")
    ok("a good update is acknowledged")
    r.offer(p, good)
    p.expect("ack")
    ok("the same offer again: Ack, without a byte")
    r.offer(p, good[:-1] + b"\x01")
    p.expect("refuse", 407)
    ok("a second update for the same key: Refuse(407) " + p.text)
    r.offer(p, good[:-1] + b"\x01", key=key(incarnation, 1))
    p.expect("over", 403)
    ok("an update for a round that is over: Over(403) " + p.text)
    p.send("chunk", data(1, digest(good)) + data(3, good))
    p.expect("bye", 304)
    ok("the bytes of an acknowledged update replayed: Bye(304) " + p.text)
