"""A peer of cohort/1 for end-to-end tests: frames made by hand, so that they may be wrong. proto/WIRE.md says what is right."""
import hashlib
import socket
import ssl

NAMES = {1: "hello", 2: "welcome", 3: "refuse", 4: "ping", 5: "pong", 6: "bye", 7: "ask", 8: "rest", 9: "task", 10: "accept",
         11: "decline", 12: "fetch", 13: "chunk", 14: "offer", 15: "resume", 16: "ack", 17: "over"}
TAGS = {name: tag for tag, name in NAMES.items()}


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def number(tag, value):
    return varint(tag << 3) + varint(value) if value else b""


def data(tag, value):
    return varint(tag << 3 | 2) + varint(len(value)) + value


def read(body):
    """{tag: value}: numbers as int, the rest as bytes; the last of several."""
    found, at = {}, 0

    def varint_at():
        nonlocal at
        n = shift = 0
        while True:
            n |= (body[at] & 127) << shift
            shift += 7
            at += 1
            if body[at - 1] < 128:
                return n

    while at < len(body):
        head = varint_at()
        n = varint_at()
        if head & 7 == 2:
            found[head >> 3] = body[at:at + n]
            at += n
        else:
            found[head >> 3] = n
    return found


def digest(value):
    return hashlib.blake2b(value, digest_size=32).digest()


def key(incarnation, round_number, exchange=0):
    return data(1, incarnation) + number(2, round_number) + number(3, exchange)


class Peer:
    def __init__(self, port, pki, name, hello=True):
        context = ssl.create_default_context(cafile=pki + "/ca.crt")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["cohort/1"])
        context.load_cert_chain(pki + "/" + name + ".crt", pki + "/" + name + ".key")
        raw = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.tls = context.wrap_socket(raw, server_hostname="localhost")
        self.seen = b""
        if hello:
            self.hello()

    def raw(self, value):
        self.tls.sendall(value)

    def frame(self, message):
        self.raw(len(message).to_bytes(4, "big") + message)

    def send(self, name, body):
        self.frame(data(TAGS[name], body))

    def hello(self, low=1, high=1):
        self.send("hello", number(1, low) + number(2, high) + data(4, b"peer.py"))
        if low == 1:
            self.expect("welcome")

    def next(self):
        """The next message that is not a heartbeat: (name, fields); ("end", {}) when the connection ended."""
        while True:
            while len(self.seen) < 4 or len(self.seen) < 4 + int.from_bytes(self.seen[:4], "big"):
                try:
                    got = self.tls.recv(65536)
                except (ConnectionError, ssl.SSLError):
                    got = b""
                if not got:
                    return "end", {}
                self.seen += got
            size = int.from_bytes(self.seen[:4], "big")
            message, self.seen = read(self.seen[4:4 + size]), self.seen[4 + size:]
            (tag, body), = message.items()
            if NAMES[tag] == "ping":
                self.send("pong", body)
            elif NAMES[tag] != "pong":
                return NAMES[tag], read(body)

    def expect(self, name, reason=None):
        """That very message, with that reason; its fields."""
        got, fields = self.next()
        where = {"refuse": 1, "bye": 1, "rest": 1, "over": 2}.get(got)
        number_of = fields.get(where)
        text = fields.get(where + 1, b"").decode() if where else ""
        if got != name or reason not in (None, number_of):
            raise SystemExit(f"FAILED: {got} {number_of} {text} instead of {name} {reason}")
        self.text = text
        return fields

    def fetch(self, what, size):
        self.send("fetch", data(1, what))
        whole = b""
        while len(whole) < size:
            whole += self.expect("chunk")[3]
        return whole

    def abort(self):
        """Ends the connection without a word of TLS."""
        self.tls.shutdown(socket.SHUT_RDWR)
        self.tls.close()
