# SPDX-License-Identifier: MIT
"""What tests/flame.sh needs of pictures and profiles.

    flame.py check PICTURE    that it is well-formed, and that frames lie on what called them; tells what is in it, in JSON
    flame.py make FOLDER      profiles that are wrong, or hostile, each in a file; and NAME.says, what is to be said of it
"""
import gzip
import json
import sys
import xml.etree.ElementTree as ElementTree

SVG = "{http://www.w3.org/2000/svg}"


def check(condition, what):
    if not condition:
        print(what)
        sys.exit(1)


# ---- pictures ----


def number_of(text, word):
    """1234 of '1.2 KiB (1234 bytes), 5 objects, ...'."""
    part = text.replace("(", "").replace(")", "").replace(",", "").split()
    for i, p in enumerate(part[1:], 1):
        if p.startswith(word):
            return int(part[i - 1])
    return None


def read_frames(root):
    frames = []
    groups = [g for g in root.iter(SVG + "g") if g.get("id") == "frames"]
    check(len(groups) == 1, "not one group of frames")
    for g in groups[0]:
        rect, title, text = g.find(SVG + "rect"), g.find(SVG + "title").text.split("\n"), g.find(SVG + "text")
        x, y, width, height = (float(rect.get(k)) for k in ("x", "y", "width", "height"))
        frame = {"name": title[0], "x": x, "y": y, "width": width, "title": title, "class": rect.get("class")}
        check(width > 0 and height > 10, f"{title[0]}: a frame without a size")
        if text is not None:
            check(len(text.text) * 6.62 <= width, f"{title[0]}: its text is wider than its frame")
            check(text.text == title[0] or text.text.endswith("…"), f"{title[0]}: another text")
        else:
            check(width < 30, f"{title[0]}: {width} wide, and no text")
        amounts = [line for line in title if "%" in line and not line.startswith("itself")]
        check(len(amounts) == 1, f"{title}: no amount")
        frame["bytes"], frame["objects"] = number_of(amounts[0], "bytes"), number_of(amounts[0], "object")
        frames.append(frame)
    return frames


def check_places(frames, inverted):
    """Each lies within one on the row before; those of one add up to no more than it has."""
    frames[0]["inside"] = None
    rows = {}
    for f in frames:
        rows.setdefault(f["y"], []).append(f)
    step = 17 if inverted else -17
    for f in frames[1:]:
        under = [g for g in rows.get(f["y"] - step, []) if g["x"] <= f["x"] + 0.02 and f["x"] + f["width"] <= g["x"] + g["width"] + 0.02]
        check(len(under) == 1, f"{f['name']}: lies in {len(under)} frames of the row before")
        under[0].setdefault("children", []).append(f)
    for f in frames:
        children = f.get("children", [])
        check(sum(c["width"] for c in children) <= f["width"] + 0.02 * len(children), f"{f['name']}: children wider than it")
        for what in ("bytes", "objects"):
            check(f[what] is None or sum(c[what] for c in children) <= f[what], f"{f['name']}: children of more {what}")
    for row in rows.values():
        row.sort(key=lambda f: f["x"])
        for a, b in zip(row, row[1:]):
            check(a["x"] + a["width"] <= b["x"] + 0.02, f"{a['name']} and {b['name']} overlap")


def check_picture(path):
    root = ElementTree.parse(path).getroot()
    width, height = float(root.get("width")), float(root.get("height"))
    check(width == 1200, "not 1200 wide")
    frames = read_frames(root)
    check(frames[0]["name"] == "all", "no frame of all")
    check_places(frames, frames[0]["y"] <= min(f["y"] for f in frames))
    for rect in root.iter(SVG + "rect"):
        check(float(rect.get("x", 0)) + float(rect.get("width")) <= width + 0.01, "a box beyond the picture")
        check(float(rect.get("y", 0)) + float(rect.get("height")) <= height + 0.01, "a box under the picture")
    for text in root.iter(SVG + "text"):
        check(0 < float(text.get("y")) <= height, "text beyond the picture")
    words = [t.text or "" for t in root.iter(SVG + "text") if t.get("class") in ("heading", "plain", "small")]
    told = {f["name"]: [f["bytes"], f["objects"]] for f in frames}
    script = root.find(SVG + "script")
    print(json.dumps({"frames": len(frames), "functions": told, "words": words, "script": script is not None and "zoom" in script.text}))


# ---- profiles ----


def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def number(field, n):
    return varint(field << 3) + varint(n)


def message(field, data):
    return varint(field << 3 | 2) + varint(len(data)) + data


STRINGS = ["", "inuse_space", "bytes", "/no/such/file", "cpu"]


def profile(types=(1,), samples=((1,),), locations=(1,), value=4096, strings=STRINGS, mapping="", extra=b""):
    data = b"".join(message(1, number(1, t) + number(2, 2)) for t in types)
    for s in samples:
        data += message(2, message(1, b"".join(varint(l) for l in s)) + message(2, varint(value) * len(types)))
    data += message(3, number(1, 1) + number(2, 4096) + number(3, 1 << 40) + number(5, 3))
    for l in locations:
        data += message(4, number(1, l) + number(2, 1) + number(3, 5000 + l))
    for s in strings:
        data += message(6, (mapping if mapping and s == STRINGS[3] else s).encode())
    return data + extra


SAMPLE = message(2, message(1, varint(1)) + message(2, varint(1)))


def packed_with(extra):
    return gzip.compress(profile(extra=extra), 1)


def make(folder):
    good = profile()
    packed = gzip.compress(good)
    bad_sum = packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]
    cases = {
        "empty": (b"", "is empty"),
        "truncated": (packed[:-9], "ends in the middle"),
        "no-more-than-a-head": (packed[:2], "ends in the middle"),
        "wrong-sum": (bad_sum, "damaged gzip"),
        "bomb": (gzip.compress(b"\n" * (260 << 20), 1), "more than 256 MiB"),
        "endless-number": (b"\n" + b"\xff" * 40, "more than 64 bits"),
        "number-cut": (good + b"\x60\xff\xff", "does not end"),
        "field-too-long": (good + varint(2 << 3 | 2) + varint(1 << 60), "longer than what it is in"),
        "a-group": (good + varint(2 << 3 | 3), "no known type"),
        "no-such-string": (profile(types=(99,)), "a string that is not there"),
        "no-such-location": (profile(samples=((1, 7),)), "a location that is not there"),
        "location-twice": (profile(locations=(1, 1)), "two locations of one number"),
        "too-few-values": (profile(extra=message(2, message(1, varint(1)))), "fewer values"),
        "too-many-values": (profile(extra=message(2, message(2, varint(1) * 9))), "more values"),
        "no-heap": (profile(types=(4,)), "not a heap profile"),
        "an-unknown-function": (profile(extra=message(4, number(1, 2) + message(4, number(1, 5)))), "a function that is not there"),
        "stacks-without-end": (packed_with(SAMPLE * (4 << 20)), "more than 4194304 stacks"),
        "frames-without-end": (packed_with(message(2, message(1, b"\x01" * (16 << 20)))), "more than 16777216 frames"),
        "strings-without-end": (packed_with(b"\x32\x00" * (8 << 20)), "more than 8388608 strings"),
        "mappings-without-end": (packed_with(b"\x1a\x00" * 65536), "more than 65536 mappings"),
        "functions-without-end": (packed_with(b"\x2a\x00" * ((4 << 20) + 1)), "more than 4194304 functions"),
        "locations-without-end": (packed_with(b"\x22\x00" * (4 << 20)), "more than 4194304 locations"),
        "heap-no-figures": (b"heap profile: x\n", "no figures"),
        "heap-no-stack": (b"heap profile: 1: 2 [1: 2] @ heap_v2/9\n 1: 2 [1: 2] @ 0x1 zz\n", "no address"),
        "jemalloc-no-figures": (b"heap_v2/9\n@ 0x1\n  t*: 1: x\n", "no figures"),
        "jemalloc-odd": (b"heap_v2/9\n@ 0x1\n  x\n", "neither a stack nor figures"),
        "heap-cut-stacks": (b"heap profile: 1: 2 [1: 2] @ heap_v2/9\n 1: 2 [1: 2] @ 0x1\n", "cut: no MAPPED_LIBRARIES"),
        "heap-cut-stack": (b"heap profile: 1: 2 [1: 2] @ heap_v2/9\n 1: 2 [1: 2] @ 0x1 0x2", "was cut"),
        "heap-cut-map": (b"heap_v2/9\n@ 0x1\n  t*: 1: 2 [0: 0]\n\nMAPPED_LIBRARIES:\n1000-2000 r-xp 00000000 00:0",
                         "cut: its last line has no end"),
        "heap-of-another": (b"heap profile: 1: 2 [1: 2] @ growthz\n", "not heap_v2"),
        "text": (b"Dear Sir or Madam,\n", "neither a profile nor collapsed"),
        "zeros": (bytes(5000), "neither a profile nor collapsed"),
        "json-of-another": (b'{"a":1}\n', "not a line of quarry's profile"),
        "json-cut": (b'{"size":64,"names":["a"', "ends in the middle"),
    }
    for name, (data, says) in cases.items():
        with open(f"{folder}/{name}", "wb") as f:
            f.write(data)
        with open(f"{folder}/{name}.says", "w") as f:
            f.write(says)


if __name__ == "__main__":
    if sys.argv[1] == "check":
        check_picture(sys.argv[2])
    elif sys.argv[1] == "make":
        make(sys.argv[2])
    else:
        with open(sys.argv[2], "wb") as f:  # FILE MAPPING: a good one, whose addresses are in that file
            f.write(profile(mapping=sys.argv[3]))
