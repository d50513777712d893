# SPDX-License-Identifier: MIT
# A client of the key-value server (examples/kvstore) that knows what it has to say. tests/kvstore.sh calls it:
#	python3 kvstore_client.py PORT model SEED REQUESTS | hostile | vanish | unread MIB | times | pack | limit BYTES
import itertools
import random
import socket
import struct
import sys
import time

port = int(sys.argv[1])


class Error(Exception):
    pass


class Connection:
    def __init__(self):
        self.s = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.f = self.s.makefile("rb")

    def send(self, data):
        self.s.sendall(data)

    def reply(self):
        line = self.f.readline()
        if not line:
            raise EOFError
        assert line.endswith(b"\r\n"), line
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return Error(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if rest == b"-1":
                return None
            data = self.f.read(int(rest) + 2)
            assert data[-2:] == b"\r\n"
            return data[:-2]
        assert kind == b"*", line
        return [self.reply() for _ in range(int(rest))]

    def ask(self, *words):
        self.send(request(*words))
        return self.reply()

    def close(self):
        self.f.close()
        self.s.close()


def request(*words):
    out = [b"*%d\r\n" % len(words)]
    for w in words:
        w = w if isinstance(w, bytes) else str(w).encode()
        out.append(b"$%d\r\n%s\r\n" % (len(w), w))
    return b"".join(out)


def same(got, expected, what):
    if isinstance(expected, Error):
        good = isinstance(got, Error) and str(got).startswith(str(expected))
    else:
        good = type(got) is type(expected) and got == expected
    if not good:
        sys.exit("%s: %.200r, not %.200r" % (what, got, expected))


def info(c):
    lines = c.ask("INFO").decode().split("\r\n")
    return dict(line.split(":", 1) for line in lines if ":" in line)


NO_INTEGER = Error("ERR value is not an integer or out of range")


class Model:
    """What the store has to be, and what it has to say."""

    def __init__(self, rng):
        self.d, self.rng = {}, rng

    def number(self, key, by):
        try:
            text = self.d.get(key, b"0")
            if text != str(int(text)).encode():
                raise ValueError
            n = int(text) + by
        except ValueError:
            return NO_INTEGER
        if not -2**63 <= n < 2**63:
            return NO_INTEGER if not -2**63 <= n - by < 2**63 else Error("ERR increment")
        self.d[key] = str(n).encode()
        return n

    def key(self):
        return b"k%d" % self.rng.randrange(3000)

    def value(self):
        kind = self.rng.random()
        if kind < 0.2:
            return str(self.rng.choice([0, -1, 41, 2**63 - 2, -2**63, 10**6])).encode()
        length = self.rng.choice([0, 1, 3, 15, 16, 17, 100, 700, 1100, 5000]) if kind < 0.99 else \
            self.rng.randrange(200000)
        return self.rng.randbytes(length)

    def step(self):
        d, key, value = self.d, self.key(), self.value()
        what = self.rng.randrange(16)
        if what < 4:
            d[key] = value
            return ("SET", key, value), "OK"
        if what < 6:
            return ("get", key), d.get(key)
        if what == 6:
            there = key in d
            if not there:
                d[key] = value
            return ("SET", key, value, "nx"), None if there else "OK"
        if what == 7:
            there = key in d
            if there:
                d[key] = value
            return ("SET", key, value, "XX", "EX", "1000"), "OK" if there else None
        if what == 8:
            keys = [self.key() for _ in range(self.rng.randrange(1, 9))]
            n = 0
            for k in keys:
                n += d.pop(k, None) is not None
            return ("DEL", *keys), n
        if what == 9:
            keys = [self.key() for _ in range(3)]
            return ("EXISTS", *keys), sum(k in d for k in keys)
        if what == 10:
            by = self.rng.choice([1, -1, 17, 2**62, -2**63])
            if by == 1:
                return ("INCR", key), self.number(key, 1)
            if by == -1:
                return ("DECR", key), self.number(key, -1)
            return ("INCRBY", key, by), self.number(key, by)
        if what == 11:
            d[key] = d.get(key, b"") + value[:2000]
            return ("APPEND", key, value[:2000]), len(d[key])
        if what == 12:
            return ("STRLEN", key), len(d.get(key, b""))
        if what == 13:
            pairs = [(self.key(), self.value()) for _ in range(self.rng.randrange(1, 6))]
            d.update(pairs)
            return ("MSET", *[x for pair in pairs for x in pair]), "OK"
        if what == 14:
            keys = [self.key() for _ in range(self.rng.randrange(1, 6))]
            return ("MGET", *keys), [d.get(k) for k in keys]
        if self.rng.random() < 0.0005:
            d.clear()
            return ("FLUSHALL",), "OK"
        return ("DBSIZE",), len(d)


def compare_all(c, d):
    same(c.ask("DBSIZE"), len(d), "DBSIZE")
    keys = list(d)
    for i in range(0, len(keys), 500):
        same(c.ask("MGET", *keys[i:i + 500]), [d[k] for k in keys[i:i + 500]], "all contents")


def run_model(seed, requests):
    """Pipelines of all lengths, sent in pieces that end anywhere."""
    rng = random.Random(seed)
    model, c = Model(rng), Connection()
    same(c.ask("FLUSHALL"), "OK", "FLUSHALL")
    done = 0
    while done < requests:
        steps = [model.step() for _ in range(rng.choice([1, 1, 2, 16, 60]))]
        data = b"".join(request(*words) for words, _ in steps)
        while data:
            n = rng.choice([1, 2, 7, 100, 5000, 100000]) if rng.random() < 0.3 else len(data)
            c.send(data[:n])
            data = data[n:]
        for words, expected in steps:
            same(c.reply(), expected, "request %d of seed %d, %.100r" % (done, seed, words))
            done += 1
    compare_all(c, model.d)
    c.close()


INVALID = "ERR Protocol error: invalid "
HOSTILE = [  # what is sent, the error, and whether the connection ends
    (b"*-1\r\n", INVALID + "multibulk length", True),
    (b"*-9223372036854775808\r\n", INVALID + "multibulk length", True),
    (b"*1048577\r\n", INVALID + "multibulk length", True),
    (b"*99999999999999999999999\r\n", INVALID + "multibulk length", True),
    (b"*x\r\n", INVALID + "multibulk length", True),
    (b"*\r\n", INVALID + "multibulk length", True),
    (b"* 1\r\n", INVALID + "multibulk length", True),
    (b"*1\n", INVALID + "multibulk length", True),
    (b"*" + b"1" * 100, INVALID + "multibulk length", True),
    (b"*1\r\n:3\r\n", INVALID + "bulk length", True),
    (b"*1\r\n$-1\r\n", INVALID + "bulk length", True),
    (b"*1\r\n$4x\r\nPING\r\n", INVALID + "bulk length", True),
    (b"*1\r\n$536870913\r\n", INVALID + "bulk length", True),
    (b"*1\r\n$9223372036854775807\r\n", INVALID + "bulk length", True),
    (b"*1\r\n$18446744073709551615\r\n", INVALID + "bulk length", True),
    (b"*1\r\n$4\r\nPINGPING\r\n", "ERR Protocol error: a bulk", True),
    (b"A" * 70000, "ERR Protocol error: too big inline request", True),
    (b"GET \"a\r\n", "ERR Protocol error: unbalanced quotes", True),
    (b"GET \"a\"b\r\n", "ERR Protocol error: unbalanced quotes", True),
    (b"GET\r\n", "ERR wrong number of arguments for 'get'", False),
    (b"GET a b\r\n", "ERR wrong number of arguments for 'get'", False),
    (b"MSET a\r\n", "ERR wrong number of arguments for 'mset'", False),
    (b"MSET a b c\r\n", "ERR wrong number of arguments for 'mset'", False),
    (b"NOSUCH\r\n", "ERR unknown command 'NOSUCH'", False),
    (b"*1\r\n$0\r\n\r\n", "ERR unknown command ''", False),
    (request(b"\r\n-OK\r\n\0\xff" * 99), "ERR unknown command '", False),
    (b"SET a b EX\r\n", "ERR syntax error", False),
    (b"SET a b NX XX\r\n", "ERR syntax error", False),
    (b"SET a b EX 1 PX 1\r\n", "ERR syntax error", False),
    (b"SET a b EX x\r\n", "ERR value is not an integer", False),
    (b"SET a b EX 0\r\n", "ERR invalid expire time", False),
    (b"SET a b EX -1\r\n", "ERR invalid expire time", False),
    (b"SET a b EX 9223372036854775807\r\n", "ERR invalid expire time", False),
    (b"SET a b PX 9223372036854775807\r\n", "ERR invalid expire time", False),
    (b"EXPIRE a 9223372036854775807\r\n", "ERR invalid expire time", False),
    (b"EXPIRE a 1.5\r\n", "ERR value is not an integer", False),
    (b"INCRBY a 9223372036854775808\r\n", "ERR value is not an integer", False),
    (b"DECRBY a -9223372036854775808\r\n", "ERR value is not an integer", False),
    (b"SELECT 1\r\n", "ERR DB index is out of range", False),
    (b"SELECT -x\r\n", "ERR value is not an integer", False),
    (b"CONFIG SET maxmemory 1\r\n", "ERR CONFIG", False),
    (b"HELLO 3\r\n", "NOPROTO", False),
    (b"CLIENT KILL\r\n", "ERR unknown subcommand", False),
]


def run_hostile():
    for before, (data, error, ends) in itertools.product((0, 1, 20), HOSTILE):
        c = Connection()
        c.send(request("PING") * before + data)  # what came before it is answered before
        same([c.reply() for _ in range(before)], ["PONG"] * before, "before %r" % data[:40])
        same(c.reply(), Error(error), repr(data[:40]))
        if ends:
            try:
                c.reply()
                sys.exit("%r: the connection goes on" % data[:40])
            except (EOFError, ConnectionResetError):
                pass
        else:
            same(c.ask("PING"), "PONG", "after %r" % data[:40])
        c.close()
    c = Connection()
    c.send(b"\r\n*0\r\n  \r\nSET \"a\\x41\\n\\\"\" 'it\\'s'\r\nget \"aA\\n\\\"\"\r\n")
    same([c.reply(), c.reply()], ["OK", b"it's"], "inline commands with quotes")
    same(c.ask("DEL", b"aA\n\""), 1, "what those set")
    for seed in range(200):  # noise: whatever is said, the server goes on
        rng = random.Random(seed)
        noise = b"".join(rng.choice([b"*", b"$", b"\r\n", b"3", b"-", b"1", b"GET", b"SET", b" ", b"\0", b"\xff", b"a",
                                     b"\"", b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n"]) for _ in range(200))
        x = Connection()
        try:
            x.send(noise)
        except OSError:
            pass
        x.close()
    same(c.ask("PING"), "PONG", "after noise")
    c.close()


def wait_for(what, test, said=None):
    for _ in range(1200):
        if test():
            return
        time.sleep(0.05)
    sys.exit("in a minute not: %s %s" % (what, said or ""))


def run_vanish():
    """Clients go in the middle of a request or of a reply, in both ways there are; what they sent whole is done."""
    c = Connection()
    same(c.ask("SET", "large", b"x" * 3000000), "OK", "SET")
    for i in range(60):
        x = Connection()
        x.send([b"*3\r\n$3\r\nSET\r\n$5\r\nva", request("SET", "v%d" % i, i) + b"*1", request("GET", "large") * 5][i % 3])
        if i % 2:  # a reset, instead of an end
            x.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        x.close()
    wait_for("all clients but one are gone", lambda: info(c)["connected_clients"] == "1")
    half = Connection()  # one who has said all, and still listens
    half.send(request("GET", "large") * 3 + request("SET", "half", "closed"))
    half.s.shutdown(socket.SHUT_WR)
    same([half.reply() for _ in range(4)], [b"x" * 3000000] * 3 + ["OK"], "after a half close")
    same(half.f.read(), b"", "the end")
    same(c.ask("GET", "half"), b"closed", "GET")
    same(c.ask("FLUSHALL"), "OK", "FLUSHALL")
    c.close()


def run_unread(most):
    """Who does not read his replies makes the server keep some of them, not all."""
    c, x = Connection(), Connection()
    same(c.ask("SET", "large", b"y" * 1000000), "OK", "SET")
    n = 400
    x.send(request("GET", "large") * n)
    same(c.ask("PING"), "PONG", "beside it")
    if int(info(c)["used_memory_rss"]) > most << 20:
        sys.exit("the server keeps all of %d MB that nobody reads" % n)
    for _ in range(n):
        same(x.reply(), b"y" * 1000000, "what was not read")
    same(x.ask("DEL", "large"), 1, "DEL")
    x.close()
    c.close()


def run_times():
    c = Connection()
    same(c.ask("FLUSHALL"), "OK", "FLUSHALL")
    same(c.ask("SET", "t", "1", "PX", "60"), "OK", "SET PX")
    same(c.ask("SET", "u", "1", "EX", "100"), "OK", "SET EX")
    wait_for("it expires", lambda: c.ask("GET", "t") is None)
    same([c.ask("TTL", "t"), c.ask("EXPIRE", "t", 10), c.ask("PTTL", "t")], [-2, 0, -2], "of what is not there")
    if not 0 < c.ask("TTL", "u") <= 100 or not 0 < c.ask("PTTL", "u") <= 100000:
        sys.exit("TTL of what has 100 s")
    same([c.ask("INCR", "u"), c.ask("APPEND", "u", "0" * 100)], [2, 101], "changed in place, and out of it")
    if not 0 < c.ask("TTL", "u") <= 100:
        sys.exit("TTL of what was changed")
    same([c.ask("SET", "u", "3", "KEEPTTL"), c.ask("PERSIST", "u"), c.ask("TTL", "u"), c.ask("PERSIST", "u")],
         ["OK", 1, -1, 0], "PERSIST")
    same([c.ask("EXPIRE", "u", 50), c.ask("SET", "u", "4"), c.ask("TTL", "u")], [1, "OK", -1], "SET ends a time")
    same([c.ask("EXPIRE", "u", -1), c.ask("EXISTS", "u")], [1, 0], "EXPIRE in the past")
    for i in range(3000):
        c.send(request("SET", "e%d" % i, "x" * (i % 200), "PX", "20"))
    same([c.reply() for _ in range(3000)], ["OK"] * 3000, "SET PX")
    wait_for("all are gone without being asked for", lambda: c.ask("DBSIZE") == 0)
    same(info(c)["db0"], "keys=0,expires=0,avg_ttl=0", "INFO")
    c.close()


def run_pack():
    """Most is deleted, and what is left is packed, while it is read and changed."""
    rng, c, d = random.Random(5), Connection(), {}
    same(c.ask("FLUSHALL"), "OK", "FLUSHALL")
    for size in (100, 300):
        for i in range(0, 60000, 500):
            part = {b"p%d" % k: bytes([65 + k % 26]) * (size + k % 50) for k in range(i, i + 500)}
            d.update(part)
            same(c.ask("MSET", *[x for pair in part.items() for x in pair]), "OK", "MSET")
    gone = [k for k in d if rng.random() < 0.9]
    for i in range(0, len(gone), 500):
        same(c.ask("DEL", *gone[i:i + 500]), len(gone[i:i + 500]), "DEL")
    for k in gone:
        del d[k]
    keys = list(d)

    figures = {}

    def packed():
        for _ in range(200):
            k = rng.choice(keys)
            if rng.random() < 0.3:
                d[k] += b"+"
                same(c.ask("APPEND", k, "+"), len(d[k]), "APPEND while it is packed")
            else:
                same(c.ask("GET", k), d[k], "GET while it is packed")
        figures.update(info(c))
        return int(figures["compacted_bytes"]) > 8 << 20 and \
            int(figures["handles_held"]) < 1.2 * int(figures["handles_live"]) + (4 << 20)

    wait_for("it is packed", packed, figures)
    compare_all(c, d)
    if int(info(c)["moved_objects"]) == 0:
        sys.exit("nothing was moved")
    same(c.ask("FLUSHALL"), "OK", "FLUSHALL")
    c.close()


def run_limit(limit):
    c, n = Connection(), 0
    same(c.ask("CONFIG", "GET", "maxmemory"), [b"maxmemory", b"%d" % limit], "CONFIG GET")
    while c.ask("SET", "l%d" % n, b"z" * 1000) == "OK":
        n += 1
        if n * 1000 > limit:
            sys.exit("more than the limit")
    oom = Error("OOM")
    same(c.ask("SET", "one more", b"z" * 1000), oom, "SET")
    same(c.ask("MSET", "a", "1", "b", b"z" * 1000), oom, "MSET")
    same(c.ask("EXISTS", "a"), 0, "of an MSET that was refused")
    same(c.ask("APPEND", "l0", b"z" * 5000), oom, "APPEND")
    same(c.ask("GET", "l0"), b"z" * 1000, "what was there stays")
    same(c.ask("DEL", *["l%d" % i for i in range(n)]), n, "DEL")
    same(c.ask("SET", "one more", b"z" * 1000), "OK", "SET, with room again")
    same(info(c)["used_memory"] != "0", True, "used_memory")
    c.close()


what, rest = sys.argv[2], [int(x) for x in sys.argv[3:]]
{"model": run_model, "hostile": run_hostile, "vanish": run_vanish, "unread": run_unread, "times": run_times,
 "pack": run_pack, "limit": run_limit}[what](*rest)
