# SPDX-License-Identifier: MIT
"""Dumps of views read anew, by doc/view-format.md alone: check.py FOLDER NAME. The binary one and the JSON one must say the
same, record by record, and what the program wrote that made them (NAME.txt: kind, address, size, state of each thing)."""
import json
import struct
import sys

folder, name = sys.argv[1:]


def binary(path):
    data = open(path, "rb").read()
    magic, version, zero = struct.unpack_from("<8sII", data)
    assert magic == b"QuarryVw" and version == 1 and zero == 0
    at = 16
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        body = data[at + 8:at + 8 + length]
        assert len(body) == length
        yield kind, body
        at += 8 + length


def report(body):
    names = ["exact", "unsettled", "missed", "arenas_ended", "threads", None, "moment_ns", "longest_ns", "took_ns",
             "regions", "slabs", "blocks", "blocks_bytes", "objects", "objects_bytes", "cached", "cached_bytes"]
    said = dict(zip(names, struct.unpack("<6I11Q", body)))
    assert said.pop(None) == 0
    return dict({"quarry_view_dump": 1}, **said)


def slab(body):
    address, size, object_size, objects, live, cached = struct.unpack_from("<QIIIII", body)
    line = dict(slab=address, size=size, object_size=object_size, objects=objects, live=live, cached=cached)
    if object_size == 0:
        pairs = struct.unpack_from("<%dH" % (2 * objects), body, 28)
        line["items"] = [[pairs[i] * 16, (pairs[i + 1] & 0x1fff) * 16, pairs[i + 1] >> 14] for i in range(0, len(pairs), 2)]
        return line
    runs = []
    for i in range(objects):
        state = body[28 + i // 4] >> (i % 4 * 2) & 3
        if runs and runs[-1][1] == state:
            runs[-1][0] += 1
        else:
            runs.append([1, state])
    line["runs"] = runs
    return line


def as_json(kind, body):
    if kind == 1:
        return report(body)
    if kind == 2:
        return {"arena": struct.unpack_from("<I", body)[0], "name": body[4:].decode("utf-8", "replace")}
    if kind == 3:
        return dict(zip(["region", "size", "arena", "node", "pages"], struct.unpack("<QQIiI", body)))
    if kind == 4:
        return slab(body)
    if kind == 5:
        return dict(zip(["block", "size"], struct.unpack("<QQ", body)))
    if kind == 8:
        return dict(zip(["profile", "lost"], struct.unpack("<QQ", body)))
    if kind == 9:
        number, length = struct.unpack_from("<II", body)
        return {"module": number, "id": body[8:8 + length].hex(), "file": body[8 + length:].decode("utf-8", "replace")}
    if kind == 10:
        line = dict(zip(["frame", "module", "offset"], struct.unpack_from("<IIQ", body)))
        line["function"] = body[16:].decode("utf-8", "replace")
        if line["module"] == 0xffffffff:
            del line["module"]
        return line
    if kind == 6:
        line = dict(zip(["samples", "objects", "bytes", "object_size", "arena", "node"], struct.unpack_from("<4QIi", body)))
        line["stack"] = list(struct.unpack_from("<%dI" % ((len(body) - 40) // 4), body, 40))
        if line["arena"] == 0xffffffff:
            del line["arena"]
        return line
    assert kind == 7
    return {"end": struct.unpack("<Q", body)[0]}


def things(lines):
    """As the visit tells them."""
    for line in lines:
        if "region" in line:
            yield 1, line["region"], line["size"], 1
        elif "block" in line:
            yield 8, line["block"], line["size"], 1
        elif "slab" in line:
            yield 2, line["slab"], line["size"], 1
            at = line["slab"]
            for offset, size, state in line.get("items", []):
                yield 4, at + offset, size, state
            for count, state in line.get("runs", []):
                for _ in range(count):
                    yield 4, at, line["object_size"], state
                    at += line["object_size"]


lines = [json.loads(line) for line in open("%s/%s.json" % (folder, name), encoding="utf-8")]
records = [as_json(kind, body) for kind, body in binary("%s/%s.bin" % (folder, name))]
for line, record in zip(lines, records):
    assert line == record, (line, record)
assert len(lines) == len(records) and lines[-1] == {"end": len(lines) - 1}
told = [tuple(map(int, line.split())) for line in open("%s/%s.txt" % (folder, name))]
assert told == list(things(lines))
slabs = [line for line in lines if "slab" in line]
mixed = [line for line in slabs if line["object_size"] == 0]
assert sum(line["live"] for line in slabs) == lines[0]["objects"] and len(slabs) == lines[0]["slabs"]
modules, frames, stacks = ([line for line in lines if kind in line and "region" not in line] for kind in ("id", "frame", "stack"))
for i, line in enumerate(modules):
    assert line["module"] == i
for i, line in enumerate(frames):
    assert line["frame"] == i and line.get("module", 0) < len(modules)
for line in stacks:
    assert all(i < len(frames) for i in line["stack"]) and line["bytes"] == line["objects"] * line["object_size"]
assert bool(stacks) == any("profile" in line for line in lines)
print("%d records, %d of mixed slabs, %d things" % (len(lines), len(mixed), len(told)))
assert mixed, "no slab became mixed"
