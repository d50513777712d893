# SPDX-License-Identifier: MIT
"""What `quarry map --json` says of a dump of a view, reckoned anew, object by object: cells.py DUMP.json MAP.json. Slabs and
blocks are as the library has them: none but large blocks and those of large objects reach over a border of cells."""
import json
import sys


class Stretch:
    def __init__(self, region):
        self.address, self.size, self.regions = region["region"], 0, 0
        self.arena, self.node = region["arena"], region["node"]
        self.live, self.cached, self.slabs, self.blocks, self.pages = {}, {}, {}, {}, {}


def spread(cells, at, size):
    """Bytes from an offset on, each into its cell."""
    end = at + size
    while at < end:
        border = min(end, (at // cell_size + 1) * cell_size)
        cells[at // cell_size] = cells.get(at // cell_size, 0) + border - at
        at = border


told = json.load(open(sys.argv[2]))
heap = told["heap"]
cell_size = heap["cell_size"]
stretches = []
for line in map(json.loads, open(sys.argv[1])):
    if "region" in line:
        last = stretches[-1] if stretches else None
        if not last or (last.address + last.size, last.arena, last.node) != (line["region"], line["arena"], line["node"]):
            stretches.append(Stretch(line))
        s = stretches[-1]
        spread(s.pages.setdefault(line["pages"], {}), line["region"] - s.address, line["size"])
        s.size += line["size"]
        s.regions += 1
    elif "block" in line:
        spread(s.blocks, line["block"] - s.address, line["size"])
    elif "slab" in line:
        at = line["slab"] - s.address
        spread(s.slabs, at, line["size"])
        for offset, size, state in line.get("items", []):
            if state:
                spread(s.live if state == 1 else s.cached, at + offset, size)
        for count, state in line.get("runs", []):
            if state:
                spread(s.live if state == 1 else s.cached, at, count * line["object_size"])
            at += count * line["object_size"]

assert heap["cell"] == ["live", "cached", "free", "large", "hole", "pages"]
assert len(stretches) == len(heap["stretches"]), (len(stretches), len(heap["stretches"]))
sums = [0] * 5
for s, got in zip(stretches, heap["stretches"]):
    cells = got.pop("cells")
    assert got == dict(address=s.address, size=s.size, regions=s.regions, arena=s.arena, node=s.node), got
    assert len(cells) == (s.size + cell_size - 1) // cell_size
    for i, cell in enumerate(cells):
        mapped = min(cell_size, s.size - i * cell_size)
        live, cached, slabs, blocks = (c.get(i, 0) for c in (s.live, s.cached, s.slabs, s.blocks))
        kinds = [s.pages.get(kind, {}).get(i, 0) for kind in range(5)]
        wanted = [live, cached, slabs - live - cached, blocks, mapped - slabs - blocks]
        assert cell[:5] == wanted, (hex(s.address + i * cell_size), cell, wanted)
        assert kinds[cell[5]] == max(kinds), (cell, kinds)
        sums = [a + b for a, b in zip(sums, wanted)]
assert sum(sums) == heap["mapped"] and sum(sums[:4]) == heap["held"]
assert sums[0] + sums[3] == heap["live"] and sums[1] == heap["cached"]
extra = sum(len(range(0, s.size, cell_size)) - 1 for s in stretches)
assert extra <= 4096 and (cell_size == 65536 or sum(len(range(0, s.size, cell_size // 2)) - 1 for s in stretches) > 4096)
print("%d stretches, %d cells of %d" % (len(stretches), extra + len(stretches), cell_size))
