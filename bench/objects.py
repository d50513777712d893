# SPDX-License-Identifier: MIT
"""The python workload: what a service written in Python does with memory. Records are made, indexed, changed, turned to
JSON and back, searched with regular expressions, sorted, kept in a bounded cache, and thrown away. Started with
PYTHONMALLOC=malloc, so that each object comes from malloc. Prints a sum that must be the same in every run."""
import json
import re
import sys
from collections import OrderedDict, defaultdict


class Record:
    """An object with a dictionary, as most have."""

    def __init__(self, number, name, tags, amount):
        self.number = number
        self.name = name
        self.tags = tags
        self.amount = amount
        self.links = []

    def plain(self):
        return {"number": self.number, "name": self.name, "tags": list(self.tags), "amount": self.amount}


def draw(state):
    """A generator of its own: the same numbers with every version of Python."""
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        yield state >> 33


def make(count, numbers):
    words = ["word%x" % next(numbers) for _ in range(2000)]
    return [
        Record(
            i,
            "%s-%s" % (words[next(numbers) % 2000], i),
            tuple(words[next(numbers) % 2000] for _ in range(3)),
            next(numbers) % 10000 / 100,
        )
        for i in range(count)
    ]


def index(records, numbers):
    by_tag = defaultdict(list)
    for r in records:
        for tag in r.tags:
            by_tag[tag].append(r)
        r.links.append(records[next(numbers) % len(records)])
    totals = {tag: round(sum(r.amount for r in found), 2) for tag, found in by_tag.items()}
    return len(by_tag), round(sum(totals.values()), 2)


def exchange(records):
    """As lines of JSON over a wire, and back."""
    text = [json.dumps(r.plain()) for r in records]
    back = [json.loads(line) for line in text]
    nested = json.dumps({"all": back[: len(back) // 4]}, indent=1)
    return sum(map(len, text)) + len(nested), sum(b["number"] for b in json.loads(nested)["all"])


def search(records):
    pattern = re.compile(r"(\w+?)([0-9a-f]{3,})-(\d+)")
    lines = " ".join(r.name for r in records)
    found = [m.groups() for m in pattern.finditer(lines)]
    changed = re.sub(r"word(\d)", r"w<\1>", lines)
    return len(found), len(changed), len(set(changed.split()))


def cache(records, numbers):
    kept = OrderedDict()
    hits = 0
    for _ in range(len(records) * 3):
        key = "key:%d" % (next(numbers) % len(records))
        if key in kept:
            kept.move_to_end(key)
            hits += 1
        else:
            kept[key] = bytes(next(numbers) % 400)
            if len(kept) > 5000:
                kept.popitem(last=False)
    return hits, sum(map(len, kept.values()))


def main():
    numbers = draw(20240613)
    count = int(sys.argv[1])
    records = make(count, numbers)
    print(index(records, numbers))
    print(exchange(records[: count // 2]))
    print(search(records))
    print(cache(records, numbers))
    records.sort(key=lambda r: (r.tags, -r.amount))
    survivors = [r for r in records if r.number % 7 == 0]
    del records
    print(len(survivors), sum(r.number for r in survivors[:1000]), len(make(count // 4, numbers)))


main()
