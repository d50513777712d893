# SPDX-License-Identifier: MIT
"""What stands where: regions, slabs and large blocks."""

from .library import Library
from .memory import Trouble, left_out, quoted

PAGE_KINDS = ("auto", "base", "thp", "2m", "1g")  # enum quarry_page_kind, which is public


class Places:
    """What stands where."""

    def __init__(self):
        lib = self.lib = Library()
        self.memory = lib.memory
        self.base = lib.number("qy_window_base")
        self.size = lib.number("qy_window_size")
        self.slab_side = lib.number("qy_slab_side")
        window = lib.value("qy_window")
        self.claimed = int(window["claimed"])
        self.memory.left_out = left_out(self.base, self.base + self.claimed)
        self.page_side, self.frame_side = int(window["page_side"]), int(window["frame_side"])
        self.unit, self.frame, self.page = (lib.constant(n) for n in ("unit", "frame", "page"))
        self.frame_record, self.region_offset = lib.constant("frame_record"), lib.constant("region_offset")
        self.length_mask, self.used_bit = lib.constant("block_length"), lib.constant("block_used")
        self.tag_shift, self.grain = lib.constant("block_tag_shift"), lib.constant("grain")
        self.slab_layout, self.frame_layout = lib.layout("qy_slab"), lib.layout("qy_frame")
        self.region_layout, self.block_layout = lib.layout("qy_region"), lib.layout("qy_block")
        self.manager_layout, self.mixed_layout = lib.layout("qy_manager"), lib.layout("qy_mixed_slab")
        self.slab_kind, self.slab_state = lib.enum("qy_slab_kind"), lib.enum("qy_slab_state")
        self.use = lib.enum("qy_block_use")
        self.classes = self.read_classes()
        self.notes = {}  # in the order in which they were made
        self.known_regions, self.known_managers, self.known_lists = {}, {}, {}

    def note(self, text):
        self.notes[text] = True

    def read_classes(self):
        layout = self.lib.layout("qy_class")
        raw = self.memory.read(self.lib.address("qy_classes"), self.lib.value("qy_classes").type.sizeof)
        return [
            {n: layout.get(raw[i:], n) for n in ("size", "capacity", "units")} for i in range(0, len(raw), layout.size)
        ]

    # -- regions and arenas --

    def manager(self, address):
        """An arena's name, number and head, and the manager's orphans."""
        found = self.known_managers.get(address)
        if found is None:
            layout = self.manager_layout
            raw = self.memory.read(address, layout.size)
            found = self.known_managers[address] = {
                "address": address,
                "name": quoted(layout.bytes(raw, "name")),
                "index": layout.get(raw, "index"),
                "head": layout.get(raw, "head"),
            }
        return found

    def frames(self):
        """Records of all frames that are claimed, as one piece of bytes."""
        count = self.claimed // self.frame
        if count > 1 << 24:
            raise Trouble("qy_window.claimed is 0x%x, which cannot be" % self.claimed)
        return self.memory.read(self.frame_side, count * self.frame_record)

    def region_at(self, record):
        """The region whose record is at that address; None when it is none that can be."""
        if record in self.known_regions:
            return self.known_regions[record]
        frame, rest = divmod(record - self.frame_side - self.region_offset, self.frame_record)
        region = None
        if rest == 0 and 0 < frame < self.claimed // self.frame:
            layout = self.region_layout
            raw = self.memory.read(record, layout.size)
            region = {n: layout.get(raw, n) for n in ("frames", "kind", "kind_wanted", "owner", "ended", "placement")}
            region["first"], region["address"] = frame, self.base + frame * self.frame
            region["size"] = region["frames"] * self.frame
            region["file"] = layout.get(raw, "file.fd") != 0
            if region["frames"] == 0 or frame + region["frames"] > self.claimed // self.frame:
                self.note("a region at frame %d has a length that cannot be" % frame)
                region = None
        self.known_regions[record] = region
        return region

    def node_of(self, region):
        """By the kernel's id; -1 for a set."""
        layout = self.lib.layout("qy_placement")
        node = layout.get(self.memory.read(region["placement"], layout.size), "node")
        if node >= 1 << 31:
            return -1
        ids = self.lib.value("qy_node_ids")
        return int(ids[node]) if node <= ids.type.range()[1] else -1

    def pages_of(self, region):
        return PAGE_KINDS[region["kind"]] if region["kind"] < len(PAGE_KINDS) else "kind %d" % region["kind"]

    def regions(self):
        raw = self.frames()
        at = self.frame_layout.offset("region")
        for frame in range(1, len(raw) // self.frame_record):
            begin = frame * self.frame_record + at
            record = int.from_bytes(raw[begin : begin + 8], self.memory.order)
            if record == self.frame_side + frame * self.frame_record + self.region_offset:
                region = self.region_at(record)
                if region is not None:
                    yield region

    def frame_record_of(self, frame):
        return self.memory.read(self.frame_side + frame * self.frame_record, self.frame_layout.size)

    # -- slabs --

    def slab_number(self, unit):
        """The slab that a unit is in, as its first unit's record; None when it is in none."""
        layout = self.slab_layout
        raw = self.memory.read(self.slab_side + unit * layout.size, layout.size)
        if layout.get(raw, "kind") == self.slab_kind["QY_SLAB_INNER"]:
            unit -= layout.get(raw, "inner")
            raw = self.memory.read(self.slab_side + unit * layout.size, layout.size)
        return self.slab(unit, raw) if layout.get(raw, "kind") == self.slab_kind["QY_SLAB_HEAD"] else None

    def slab(self, unit, raw):
        layout = self.slab_layout
        names = ("owner", "local", "countdown", "linked", "heap", "cls", "state", "carved", "gone")
        slab = {n: layout.get(raw, n) for n in names}
        if slab["cls"] >= len(self.classes):
            self.note("the slab at 0x%x has a class that cannot be" % (self.base + unit * self.unit))
            return None
        slab["class"] = self.classes[slab["cls"]]
        slab["unit"], slab["address"] = unit, self.base + unit * self.unit
        slab["size"] = slab["class"]["units"] * self.unit
        slab["mixed"] = slab["state"] == self.slab_state["QY_SLAB_MIXED"]
        return slab

    def gone_pages(self, slab):
        """Pages that were given back, as bits."""
        layout, pages = self.slab_layout, self.unit // self.page
        bits = 0
        for i in range(slab["class"]["units"]):
            raw = self.memory.read(self.slab_side + (slab["unit"] + i) * layout.size, layout.size)
            bits |= layout.get(raw, "gone") << (i * pages)
        return bits

    def own_list(self, slab):
        """The objects in the slab's own list; and whether that is all of it."""
        found = self.known_lists.get(slab["address"])
        if found is None:
            found = self.known_lists[slab["address"]] = self.walk(slab["local"], slab["class"]["capacity"])
        return found

    def walk(self, at, most):
        """A list of objects that are linked by their first words: those that could be read, and whether it is sound."""
        seen = set()
        while at != 0:
            if at in seen or len(seen) >= most or not 0 <= at - self.base < self.claimed:
                self.note("a list of free objects leads to 0x%x, %s: it was written over" %
                          (at, "round" if at in seen else "where none can be"))
                return seen, False
            seen.add(at)
            try:
                at = self.memory.pointer(at)
            except Trouble as trouble:
                self.note("a list of free objects: %s" % trouble)
                return seen, False
        return seen, True

    def slabs_of(self, region):
        """All that stand in a region."""
        slabs, layout = self.lib.enum("qy_filler_kind")["QY_FILL_SLABS"] + 1, self.slab_layout
        units = self.frame // self.unit
        for frame in range(region["first"], region["first"] + region["frames"]):
            if self.frame_layout.get(self.frame_record_of(frame), "filler") != slabs:
                continue
            raw = self.memory.read(self.slab_side + frame * units * layout.size, units * layout.size)
            for i in range(units):
                one = raw[i * layout.size : (i + 1) * layout.size]
                if layout.get(one, "kind") == self.slab_kind["QY_SLAB_HEAD"]:
                    slab = self.slab(frame * units + i, one)
                    if slab is not None:
                        yield slab

    def mixed(self, slab):
        """The bits of a mixed slab's grains: free ones, and those that end an object."""
        raw = self.memory.read(slab["local"], self.mixed_layout.size)
        bits = [self.mixed_layout.bytes(raw, n) for n in ("free", "end")]
        if self.memory.order == "big":
            bits = [b"".join(b[i : i + 8][::-1] for i in range(0, len(b), 8)) for b in bits]
        free, end = (int.from_bytes(b, "little") for b in bits)
        gone, grains = self.gone_pages(slab), self.page // self.grain
        for page in range(self.unit // self.page):
            if gone >> page & 1:
                free |= ((1 << grains) - 1) << (page * grains)
        return free, end

    def mixed_objects(self, slab):
        """(address, size) of those that are not free."""
        free, end = self.mixed(slab)
        first = None
        for i in range(self.unit // self.grain):
            if free >> i & 1:
                first = None
                continue
            first = i if first is None else first
            if end >> i & 1:
                yield slab["address"] + first * self.grain, (i + 1 - first) * self.grain
                first = None

    def use_of(self, slab):
        """Objects, those the program or a thread's cache has, and bytes of these."""
        if slab["mixed"]:
            grains = min(slab["linked"], self.unit // self.grain)
            return slab["countdown"], slab["countdown"], grains * self.grain
        capacity = slab["class"]["capacity"]
        if slab["state"] == self.slab_state["QY_SLAB_SPARE"]:
            return capacity, 0, 0
        taken = capacity if slab["state"] == self.slab_state["QY_SLAB_FULL"] else min(slab["countdown"], capacity)
        return capacity, taken, taken * slab["class"]["size"]

    # -- large blocks --

    def tag(self, raw):
        return self.block_layout.get(raw, "previous") >> self.tag_shift

    def page_blocks(self, frame):
        """(address, size) of large blocks among a frame's pages."""
        count, size = self.frame // self.page, self.block_layout.size
        raw = self.memory.read(self.page_side + frame * count * size, count * size)
        at = 0
        while at < count:
            one = raw[at * size : (at + 1) * size]
            word = self.block_layout.get(one, "length")
            length = word & self.length_mask
            if length == 0 or at + length > count:
                place = self.base + frame * self.frame + at * self.page
                self.note("the block at 0x%x has a length that cannot be" % place)
                return
            if word & self.used_bit and self.tag(one) == self.use["QY_USE_LARGE"]:
                yield self.base + frame * self.frame + at * self.page, length * self.page
            at += length

    def blocks_of(self, region):
        """(address, size) of the large blocks of a region."""
        at, end = region["first"], region["first"] + region["frames"]
        run = self.frame_layout.offset("run")
        while at < end:
            raw = self.frame_record_of(at)
            one = raw[run : run + self.block_layout.size]
            word = self.block_layout.get(one, "length")
            length = word & self.length_mask
            if length == 0 or at + length > end:
                self.note("the run of frames at 0x%x has a length that cannot be" % (self.base + at * self.frame))
                return
            if self.frame_layout.get(raw, "filler") == self.lib.enum("qy_filler_kind")["QY_FILL_LARGE"] + 1:
                yield from self.page_blocks(at)
            elif word & self.used_bit and self.tag(one) == self.use["QY_USE_LARGE"]:
                yield self.base + at * self.frame, self.frame_layout.get(raw, "bytes")
            at += length
