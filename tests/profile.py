# SPDX-License-Identifier: MIT
"""Reads a heap profile in the format of profile.proto, gzipped, as strictly as its description allows, and tells in JSON
what is in it: for each function of the program named by --symbols (a file of `nm` output, with the program's own
path), the sums of its samples. Says what is wrong and ends with 1 otherwise.

    profile.py FILE [--symbols NM_OUTPUT PROGRAM]
"""
import gzip
import json
import sys


class Wrong(Exception):
    pass


def check(condition, what):
    if not condition:
        raise Wrong(what)


def varint(data, at):
    n = shift = 0
    while True:
        check(at < len(data), "a number that does not end")
        byte = data[at]
        at += 1
        n |= (byte & 0x7F) << shift
        if byte < 0x80:
            check(n < 1 << 64, "a number of more than 64 bits")
            return n, at
        shift += 7
        check(shift < 64, "a number of more than ten bytes")


def fields(data):
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        check(number > 0, "field 0")
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 2:
            length, at = varint(data, at)
            check(at + length <= len(data), f"field {number} is longer than what it is in")
            value = data[at : at + length]
            at += length
        else:
            raise Wrong(f"wire type {kind} of field {number}")
        yield number, value


def packed(data):
    at, values = 0, []
    while at < len(data):
        n, at = varint(data, at)
        values.append(n)
    return values


def message(data, known):
    """A message whose fields are all known by number: {number: [values]}."""
    got = {}
    for number, value in fields(data):
        check(number in known, f"field {number} is not known")
        check(isinstance(value, int) == (known[number] == "n"), f"field {number} is of another type")
        got.setdefault(number, []).append(value)
    return got


def one(got, number, default=0):
    values = got.get(number, [default])
    check(len(values) == 1, f"field {number} is there {len(values)} times")
    return values[0]


def read(path):
    with open(path, "rb") as f:
        raw = f.read()
    data = gzip.decompress(raw)  # verifies the sum and the length
    p = message(data, {1: "m", 2: "m", 3: "m", 4: "m", 5: "m", 6: "m", 7: "n", 9: "n", 11: "m", 12: "n", 13: "n", 14: "n"})
    strings = [s.decode("utf-8") for s in p.get(6, [])]
    check(strings and strings[0] == "", "the first string is not empty")

    def text(n):
        check(n < len(strings), f"string {n} of {len(strings)}")
        return strings[n]

    types = []
    for t in p[1]:
        v = message(t, {1: "n", 2: "n"})
        types.append(text(one(v, 1)) + "/" + text(one(v, 2)))
    check(
        types == ["alloc_objects/count", "alloc_space/bytes", "inuse_objects/count", "inuse_space/bytes"],
        f"sample types {types}",
    )
    check(text(one(p, 14)) == "inuse_space", "the default type")
    period = message(one(p, 11), {1: "n", 2: "n"})
    check((text(one(period, 1)), text(one(period, 2))) == ("space", "bytes"), "the period's type")
    check(one(p, 12) > 0 and one(p, 9) > 10**18, "period or time")
    mappings = {}
    for m in p.get(3, []):
        v = message(m, {1: "n", 2: "n", 3: "n", 4: "n", 5: "n", 6: "n"})
        check(one(v, 1) > 0 and one(v, 1) not in mappings, "a mapping's number")
        check(one(v, 2) < one(v, 3), "a mapping's limits")
        mappings[one(v, 1)] = (one(v, 2), one(v, 3), one(v, 4), text(one(v, 5)), text(one(v, 6)))
    locations = {}
    for l in p.get(4, []):
        v = message(l, {1: "n", 2: "n", 3: "n"})
        where = one(v, 2)
        check(one(v, 1) > 0 and one(v, 1) not in locations, "a location's number")
        check(where == 0 or where in mappings, "a location's mapping")
        check(where == 0 or mappings[where][0] <= one(v, 3) < mappings[where][1], "a location outside of its mapping")
        locations[one(v, 1)] = (where, one(v, 3))
    samples = []
    for s in p.get(2, []):
        v = message(s, {1: "m", 2: "m", 3: "m"})
        stack = packed(one(v, 1))
        values = packed(one(v, 2))
        check(len(values) == 4 and all(n < 1 << 63 for n in values), "a sample's values")
        check(values[0] >= values[2] and values[1] >= values[3], "more in use than allocated")
        check(all(l in locations for l in stack), "a sample's location")
        labels = {}
        for label in v.get(3, []):
            w = message(label, {1: "n", 2: "n", 3: "n", 4: "n"})
            labels[text(one(w, 1))] = text(one(w, 2)) or one(w, 3)
        check(labels.get("bytes", 0) > 0 and "arena" in labels, f"a sample's labels {labels}")
        samples.append((stack, values, labels))
    return mappings, locations, samples, one(p, 12)


def symbols_of(path):
    """Functions by address in the file: [(from, name)], sorted."""
    found = []
    with open(path) as f:
        for line in f:
            part = line.split()
            if len(part) == 3 and part[1] in "tT":
                found.append((int(part[0], 16), part[2]))
    return sorted(found)


def name_at(symbols, offset):
    name = None
    for start, n in symbols:
        if start > offset:
            break
        name = n
    return name


def main(args):
    mappings, locations, samples, period = read(args[0])
    told = {"samples": len(samples), "period": period, "mappings": len(mappings), "functions": {}}
    told["sums"] = [sum(s[1][i] for s in samples) for i in range(4)]
    told["arenas"] = sorted({s[2]["arena"] for s in samples})
    told["unmapped"] = sum(1 for l in locations.values() if l[0] == 0)
    if len(args) == 4:
        symbols = symbols_of(args[2])
        for stack, values, _ in samples:
            names = set()
            for l in stack:
                where, address = locations[l]
                if where and mappings[where][3] == args[3]:
                    start, _, offset, _, _ = mappings[where]
                    names.add(name_at(symbols, address - start + offset))
            for name in names:
                sums = told["functions"].setdefault(name, [0] * 4)
                for i in range(4):
                    sums[i] += values[i]
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Wrong, OSError, EOFError, UnicodeDecodeError, KeyError) as e:
        print(f"{sys.argv[1]}: {e}")
        sys.exit(1)
