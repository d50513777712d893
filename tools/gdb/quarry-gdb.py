# SPDX-License-Identifier: MIT
"""quarry for gdb: what a pointer is in, and what the heap holds, in a live process or a core file.

    (gdb) source .../quarry-gdb.py
    (gdb) quarry inspect ADDRESS    help quarry: all commands

Memory is only read: nothing is called in the program, so a core file will do. Where things are is taken from the
library's own debug info (its types, and qy_layout for what no type tells), of the library that is loaded: it must have
it (-g, or a package with it). A heap that was written over may say anything: no walk goes on for ever, and what cannot
be read is named.
"""

import re
import struct

import gdb

PAGE_KINDS = ("auto", "base", "thp", "2m", "1g")  # enum quarry_page_kind, which is public


class Trouble(Exception):
    """What is said in one line, instead of an answer."""


def short(n):
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024 or unit == "GiB":
            return "%d %s" % (n, unit) if unit == "B" or n % 1 == 0 and n == int(n) else "%.1f %s" % (n, unit)
        n = n / 1024


def quoted(raw):
    """A name that a program chose, on one line."""
    text = raw.split(b"\0")[0].decode("utf-8", "replace")
    return '"%s"' % "".join(c if c.isprintable() and c != '"' else "?" for c in text)


# ---- memory and types ----


# What gdb says of memory that is not there, or that no address can be of: where something was written over.
UNREADABLE = (gdb.error, OverflowError, ValueError)


class Memory:
    """Reads by pages, each once for a command: lists lead through objects one by one."""

    PAGE = 4096
    MOST = 1 << 30  # of one list: gdb ends where it has no memory for what is asked for

    def __init__(self):
        self.inferior = gdb.selected_inferior()
        self.pages = {}
        self.order = "big" if "big" in gdb.execute("show endian", to_string=True) else "little"
        self.word = ("<" if self.order == "little" else ">") + "Q"
        self.left_out = []

    def is_left_out(self, address, size):
        return any(address < end and address + size > begin for begin, end in self.left_out)

    def page(self, number):
        page = self.pages.get(number)
        if page is None:
            page = b""
            try:
                if not self.is_left_out(number * self.PAGE, self.PAGE):
                    page = bytes(self.inferior.read_memory(number * self.PAGE, self.PAGE))
            except UNREADABLE:
                pass
            if len(self.pages) >= 16384:
                self.pages.clear()
            self.pages[number] = page
        if not page:
            raise Trouble("memory at 0x%x cannot be read%s" % (number * self.PAGE, absent()))
        return page

    def read(self, address, size):
        if size > self.MOST:
            raise Trouble("%d bytes at 0x%x are more than there can be" % (size, address))
        if size > self.PAGE and not self.is_left_out(address, size):
            try:
                return bytes(self.inferior.read_memory(address, size))
            except UNREADABLE:
                pass  # the page is named below
        parts = []
        while size > 0:
            number, at = divmod(address, self.PAGE)
            parts.append(self.page(number)[at : at + size])
            address += len(parts[-1])
            size -= len(parts[-1])
        return b"".join(parts)

    def pieces(self, address, size, missing):
        """(address, bytes) of what can be read of that; missing is told in words what cannot. As much as goes in a piece, and
        by pages where one of them is not there."""
        end = address + size
        while address < end:
            most = min(1 << 20, end - address)
            try:
                yield address, self.read(address, most)
            except Trouble:
                yield from self.readable_pages(address, most, missing)
            address += most

    def readable_pages(self, address, size, missing):
        end = address + size
        while address < end:
            most = min(self.PAGE - address % self.PAGE, end - address)
            try:
                yield address, self.read(address, most)
            except Trouble as trouble:
                missing(str(trouble))
            address += most

    def pointer(self, address):
        return struct.unpack(self.word, self.read(address, 8))[0]


def absent():
    """Why it may be so: of a core file."""
    if "core dump file" not in gdb.execute("info files", to_string=True):
        return ""
    return " (not in the core file? see coredump_filter in core(5), and QUARRY_ARENA_NODUMP)"


def left_out(low, high):
    """What of that the kernel left out of the core file: gdb would have it read as zeroes. (Files' memory elsewhere is
    left out too, and read from the files.)"""
    if not absent():
        return []
    sections = gdb.execute("maintenance info sections", to_string=True)
    ranges = re.findall(r"(0x[0-9a-f]+)->(0x[0-9a-f]+) at 0x[0-9a-f]+: load\d+\w*(.*)", sections)
    ranges = [(int(begin, 16), int(end, 16)) for begin, end, flags in ranges if "HAS_CONTENTS" not in flags]
    return [(begin, end) for begin, end in ranges if begin < high and end > low]


class Layout:
    """A struct, by its debug info: where a field is, also one of a struct inside, as 'heap.mail'."""

    def __init__(self, type_, order):
        self.type = type_.strip_typedefs()
        self.size = type_.sizeof
        self.order = order
        self.known = {}

    def field(self, path):
        """(offset, bytes, type)"""
        found = self.known.get(path)
        if found is None:
            offset, type_ = 0, self.type
            for name in path.split("."):
                match = [f for f in type_.fields() if f.name == name]
                if not match:
                    raise Trouble("the library's %s has no %s: this script is of another version" % (self.type, path))
                offset += match[0].bitpos // 8
                type_ = match[0].type.strip_typedefs()
            found = self.known[path] = (offset, type_.sizeof, type_)
        return found

    def offset(self, path):
        return self.field(path)[0]

    def get(self, raw, path):
        offset, size, _ = self.field(path)
        return int.from_bytes(raw[offset : offset + size], self.order)

    def bytes(self, raw, path):
        offset, size, _ = self.field(path)
        return raw[offset : offset + size]

    def ints(self, raw, path):
        offset, size, type_ = self.field(path)
        each = type_.target().strip_typedefs().sizeof
        return [int.from_bytes(raw[i : i + each], self.order) for i in range(offset, offset + size, each)]


def find_library():
    """The copy of quarry whose memory this is: of several, the others hand on to it."""
    idle = None
    for objfile in gdb.objfiles():
        symbol = objfile.lookup_global_symbol("qy_window_size") if objfile.is_valid() else None
        if symbol is None:
            continue
        try:
            if int(symbol.value()) != 0 and objfile.lookup_global_symbol("qy_layout") is not None:
                return objfile
        except gdb.error:
            pass
        idle = objfile
    if idle is not None:
        raise Trouble("%s: the program is not running, or has not allocated yet (or it is of an older version)" %
                      idle.filename)
    try:
        gdb.parse_and_eval("(long) &quarry_version")
    except gdb.error:
        raise Trouble("no quarry in this program")
    raise Trouble("quarry is here, and its debug info is not: it must be of a build with -g, or have it beside it")


class Library:
    """The symbols, types and constants of that copy."""

    def __init__(self):
        self.objfile = find_library()
        self.memory = Memory()
        self.block = self.objfile.lookup_global_symbol("qy_sites_visit").symtab.static_block()
        self.layouts = {}
        self.constants = self.value("qy_layout")
        self.enums = {}

    def value(self, name):
        symbol = self.objfile.lookup_global_symbol(name)
        if symbol is None:
            raise Trouble("the library has no %s: this script is of another version" % name)
        return symbol.value()

    def number(self, name):
        try:
            return int(self.value(name))
        except gdb.error:
            raise Trouble("%s cannot be read%s" % (name, absent()))

    def address(self, name):
        return int(self.value(name).address)

    def static(self, name):
        """The address of a static of lib/manager/sites.c."""
        for symbol in self.block:
            if symbol.name == name and symbol.is_variable:
                return symbol.value()
        raise Trouble("the library has no %s: this script is of another version" % name)

    def layout(self, name):
        if name not in self.layouts:
            try:
                type_ = gdb.lookup_type("struct " + name, self.block)
            except gdb.error:
                raise Trouble("the library's debug info has no struct %s" % name)
            self.layouts[name] = Layout(type_, self.memory.order)
        return self.layouts[name]

    def enum(self, name):
        """Numbers by their names."""
        if name not in self.enums:
            self.enums[name] = {f.name: f.enumval for f in gdb.lookup_type("enum " + name, self.block).fields()}
        return self.enums[name]

    def constant(self, name):
        return int(self.constants[name])


# ---- the heap ----


class Heap:
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
        self.known_cached = self.known_samples = None
        self.incomplete = False  # not all lists of free objects could be followed
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

    # -- threads' caches --

    def threads(self):
        layout, seen = self.lib.layout("qy_thread"), set()
        at = self.lib.number("qy_thread_records")
        while at != 0 and at not in seen:
            seen.add(at)
            raw = self.memory.read(at, layout.size)
            yield at, raw
            at = layout.get(raw, "made_before")

    def lists(self):
        """(where, first object) of all lists of free objects but slabs' own."""
        thread_layout, cache_layout = self.lib.layout("qy_thread"), self.lib.layout("qy_cache")
        out_layout, free_layout = self.lib.layout("qy_outgoing"), self.lib.layout("qy_freelist")
        out_at, out_size, _ = thread_layout.field("out")
        freed_at, freed_size, _ = cache_layout.field("freed")
        for at, raw in self.threads():
            name = "thread %d" % thread_layout.get(raw, "tid")
            if thread_layout.get(raw, "busy"):
                self.note("%s is inside quarry: what it has at hand may be told wrongly" % name)
            for i in range(out_at, out_at + out_size, out_layout.size):
                if thread_layout.get(raw, "sending") >> (i - out_at) // out_layout.size & 1:
                    yield "freed by %s, on its way home" % name, out_layout.get(raw[i:], "first")
            seen, cache = set(), thread_layout.get(raw, "caches")
            while cache != 0 and cache not in seen:
                seen.add(cache)
                c = self.memory.read(cache, cache_layout.size)
                for first in cache_layout.ints(c, "head"):
                    yield "in the cache of %s" % name, first
                for i in range(freed_at, freed_at + freed_size, free_layout.size):
                    yield "in the cache of %s" % name, free_layout.get(c[i:], "head")
                for field in ("heap.mail", "heap.remote"):
                    yield "sent home to %s" % name, cache_layout.get(c, field)
                cache = cache_layout.get(c, "next")
        for manager in {r["owner"] for r in self.regions() if not r["ended"]}:
            yield from self.nobodys_lists(manager)

    def nobodys_lists(self, manager):
        layout = self.manager_layout
        raw = self.memory.read(manager, layout.size)
        for heap in ("orphans", "thinning"):
            for field in ("mail", "remote"):
                yield "sent home to slabs that nobody holds", layout.get(raw, heap + "." + field)
        mixed = layout.get(raw, "mixed")
        if mixed != 0:
            mixed_layout = self.lib.layout("qy_mixed")
            m = self.memory.read(mixed, mixed_layout.size)
            for field in ("heap.mail", "heap.remote"):
                yield "sent home to slabs that nobody holds", mixed_layout.get(m, field)

    def cached(self):
        """Free objects that are not in their slabs, by address: where they are."""
        if self.known_cached is None:
            self.known_cached = {}
            most = self.claimed // self.grain
            for where, first in self.lists():
                if first > 1:  # (1: closed)
                    objects, sound = self.walk(first, most)
                    self.known_cached.update((at, where) for at in objects)
                    self.incomplete |= not sound
        return self.known_cached

    # -- one address --

    def state_in(self, slab, address, index):
        """Of a plain slab's object: live, free, or where it is held."""
        if address in self.cached():
            return "cached", self.cached()[address]
        size, gone = slab["class"]["size"], self.gone_pages(slab)
        first, last = index * size // self.page, (index * size + size - 1) // self.page
        if index >= slab["carved"] or gone >> first & ((1 << (last - first + 1)) - 1) or \
           slab["state"] == self.slab_state["QY_SLAB_SPARE"]:
            return "free", ""
        objects, sound = self.own_list(slab)
        if address in objects:
            return "free", ""
        return self.live() if sound else ("unknown", "its slab's list of free objects cannot be followed")

    def live(self):
        return "live", "as far as lists of free objects could be followed" if self.incomplete else ""

    def in_mixed(self, slab, p):
        free, end = self.mixed(slab)
        i = first = (p - slab["address"]) // self.grain
        if free >> i & 1:
            return None
        while first > 0 and not free >> (first - 1) & 1 and not end >> (first - 1) & 1:
            first -= 1
        last, most = first, self.unit // self.grain - 1
        while last < most and not end >> last & 1:
            last += 1
        address = slab["address"] + first * self.grain
        where = self.cached().get(address)
        return (address, (last + 1 - first) * self.grain) + (("cached", where) if where else self.live())

    def in_slab(self, slab, p):
        """(address, size, state, where) of the object that p is in; None for a gap."""
        if slab["mixed"]:
            return self.in_mixed(slab, p)
        size = slab["class"]["size"]
        index = (p - slab["address"]) // size
        if index >= slab["class"]["capacity"]:
            return None
        address = slab["address"] + index * size
        return (address, size) + self.state_in(slab, address, index)

    def inspect(self, p):
        """A dict; None where nothing of quarry's is."""
        if not 0 <= p - self.base < self.claimed:
            return None
        frame = (p - self.base) // self.frame
        raw = self.frame_record_of(frame)
        record = self.frame_layout.get(raw, "region")
        region = self.region_at(record) if record else None
        if region is None:
            return None
        found = {"region": region, "kind": "free memory", "address": region["address"], "size": region["size"]}
        filler = self.frame_layout.get(raw, "filler")
        if filler == self.lib.enum("qy_filler_kind")["QY_FILL_SLABS"] + 1:
            slab = self.slab_number((p - self.base) // self.unit)
            if slab is not None:
                found.update(slab=slab, kind="slab", address=slab["address"], size=slab["size"])
                one = self.in_slab(slab, p)
                if one is not None:
                    found.update(kind="object", address=one[0], size=one[1], state=one[2], where=one[3])
            return found
        for address, size in self.page_blocks(frame) if filler else self.blocks_of(region):
            if address <= p < address + size:
                found.update(kind="large block", address=address, size=size, state="live", where="")
                break
        return found

    # -- the profile --

    def samples(self):
        """Live ones by address: where their site is, bytes asked for, weight."""
        if self.known_samples is None:
            self.known_samples = {}
            tables = self.lib.static("tables")
            layout, entries = self.lib.layout("qy_sample"), self.lib.layout("entries")
            for i in range(tables.type.range()[1] + 1):
                at = int(tables[i]["entries"])
                if at == 0:
                    continue
                head = self.memory.read(at, entries.size)
                count = entries.get(head, "mask") + 1
                if count > 1 << 28:
                    self.note("a table of the profile, at 0x%x, was written over" % at)
                    continue
                raw = self.memory.read(at + entries.size, count * layout.size)
                for j in range(0, len(raw), layout.size):
                    one = raw[j : j + layout.size]
                    if layout.get(one, "address") > 1:
                        what = [layout.get(one, n) for n in ("site", "asked", "weight")]
                        self.known_samples[layout.get(one, "address")] = what
        return self.known_samples

    def site(self, at):
        layout = self.lib.layout("qy_site")
        raw = self.memory.read(at, layout.size)
        names = ("next", "size", "arena", "depth", "made", "freed", "made_weight", "freed_weight")
        site = {n: layout.get(raw, n) for n in names}
        if site["depth"] > 4096:
            raise Trouble("the profile's site at 0x%x was written over" % at)
        word = self.memory.word[0]
        stack = self.memory.read(at + layout.size, 8 * site["depth"])
        site["frames"] = struct.unpack("%s%dQ" % (word, site["depth"]), stack)
        one = self.lib.constant("weight_one")
        site["objects"] = max(0, site["made_weight"] - site["freed_weight"]) / one
        site["live"] = max(0, site["made"] - site["freed"])
        return site

    def sites(self):
        buckets = self.lib.static("buckets")
        if int(buckets) == 0:
            return
        raw = self.memory.read(int(buckets), 8 * self.lib.constant("site_buckets"))
        seen = set()
        for (at,) in struct.iter_unpack(self.memory.word, raw):
            while at != 0 and at not in seen:
                seen.add(at)
                site = self.site(at)
                yield site
                at = site["next"]

    def arena_name(self, index):
        arenas = self.lib.value("qy_arenas")
        manager = int(arenas[index]["manager"]) if index <= arenas.type.range()[1] else 0
        return self.manager(manager)["name"] if manager else "arena %d" % index


# ---- stacks ----


def frame_text(pc):
    """A return address as gdb knows it: the call is what is before it."""
    at = pc - 1
    name, block = None, gdb.block_for_pc(at)
    while block is not None and name is None:
        name = block.function.print_name if block.function is not None else None
        block = block.superblock
    sal = gdb.find_pc_line(at)
    if name is not None:
        return "%s (%s:%d)" % (name, sal.symtab.filename, sal.line) if sal.symtab else name
    symbol = gdb.execute("info symbol 0x%x" % at, to_string=True).strip()
    return "??" if symbol.startswith("No symbol") else symbol.replace(" in section .text", "").replace(" of ", " in ")


def print_stack(frames):
    if not frames:
        print("    no stack is known")
    for i, pc in enumerate(frames):
        print("    #%-2d 0x%x in %s" % (i, pc, frame_text(pc)))


# ---- commands ----


class Command(gdb.Command):
    """What all have in common: errors are one line, and so is what was found to be wrong on the way."""

    def invoke(self, argument, from_tty):
        self.dont_repeat()
        try:
            heap = Heap()
            self.run(heap, gdb.string_to_argv(argument))
            for note in list(heap.notes)[:5]:
                print("note: %s" % note)
            if len(heap.notes) > 5:
                print("note: and %d more" % (len(heap.notes) - 5))
        except Trouble as trouble:
            raise gdb.GdbError("quarry: %s" % trouble)
        except UNREADABLE as error:
            raise gdb.GdbError("quarry: %s%s" % (str(error).rstrip("."), absent()))

    def usage(self, text):
        raise Trouble("%s %s" % (self.name, text))

    def address(self, argv):
        if len(argv) != 1:
            self.usage("takes one address; an expression with spaces in it must be quoted")
        try:
            return int(gdb.parse_and_eval(argv[0]).cast(gdb.lookup_type("unsigned long")))
        except gdb.error as error:
            raise Trouble("%s: %s" % (argv[0], error))


class Prefix(gdb.Command):
    """quarry's heap: what a pointer is in, arenas, regions, slabs, the profile's sites, and who points where.
Nothing is called in the program: a core file will do, of a process with the debug info of its quarry."""

    def __init__(self):
        super().__init__("quarry", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)


def place_text(heap, region):
    owner = heap.manager(region["owner"])
    node = heap.node_of(region)
    return "arena %s, %s; region 0x%x of %s, pages %s%s" % (
        owner["name"], "no one node" if node < 0 else "node %d" % node, region["address"], short(region["size"]),
        heap.pages_of(region), ", in a file" if region["file"] else "")


def owner_text(heap, slab):
    if slab["owner"] == 0:
        return "nobody's"
    layout = heap.lib.layout("qy_thread")
    for at, raw in heap.threads():
        if at == slab["owner"] & ~1:
            return "of thread %d" % layout.get(raw, "tid")
    return "of an unknown thread"


class Inspect(Command):
    """quarry inspect ADDRESS: in which arena, region, slab, and object or large block it is, and whether that lives.
Where it is a sample of the profile: what was asked for, and the stack that allocated it."""

    name = "quarry inspect"

    def run(self, heap, argv):
        p = self.address(argv)
        found = heap.inspect(p)
        if found is None:
            raise Trouble("0x%x is not in quarry's memory" % p)
        head = "0x%x: %s at 0x%x + %d, %d bytes" % (
            p, found["kind"], found["address"], p - found["address"], found["size"])
        if "state" in found:
            head += ", %s%s" % (found["state"], ": " + found["where"] if found["where"] else "")
        print(head)
        print("  " + place_text(heap, found["region"]))
        slab = found.get("slab")
        if slab is not None:
            objects, taken, _ = heap.use_of(slab)
            print("  slab 0x%x of %s, %s, %d of %d objects taken, %s" % (
                slab["address"], short(slab["size"]),
                "mixed sizes" if slab["mixed"] else "objects of %d bytes" % slab["class"]["size"],
                taken, objects, owner_text(heap, slab)))
        sample = heap.samples().get(found["address"]) if found.get("state") == "live" else None
        if sample is not None:
            site, asked, weight = sample
            print("  sampled: %d bytes asked for, stands for %.1f objects, allocated by" % (
                asked, weight / heap.lib.constant("weight_one")))
            print_stack(heap.site(site)["frames"])


def add_cached(heap):
    """Bytes and objects in caches, by slab."""
    sums = {}
    for address in heap.cached():
        slab = heap.slab_number((address - heap.base) // heap.unit)
        if slab is None:
            heap.note("0x%x is in a thread's cache, and in no slab" % address)
            continue
        one = heap.in_mixed(slab, address) if slab["mixed"] else None
        n = sums.setdefault(slab["address"], [0, 0])
        n[0] += 1
        n[1] += one[1] if one else slab["class"]["size"]
    return sums


class Arenas(Command):
    """quarry arenas: each arena's memory: mapped, of that live, in threads' caches (or on its way home), and free."""

    name = "quarry arenas"

    def run(self, heap, argv):
        if argv:
            self.usage("takes no argument")
        cached, rows = add_cached(heap), {}
        for region in heap.regions():
            if region["ended"]:
                continue
            head = heap.manager(region["owner"])["head"]
            row = rows.setdefault(head, {"nodes": set(), "regions": 0, "mapped": 0, "live": 0, "cached": 0})
            row["nodes"].add(heap.node_of(region))
            row["regions"] += 1
            row["mapped"] += region["size"]
            for slab in heap.slabs_of(region):
                held = cached.get(slab["address"], [0, 0])[1]
                row["live"] += max(0, heap.use_of(slab)[2] - held)
                row["cached"] += held
            row["live"] += sum(size for _, size in heap.blocks_of(region))
        print("%-24s %6s %8s %10s %10s %10s %10s" % ("arena", "node", "regions", "mapped", "live", "cached", "free"))
        for head, row in sorted(rows.items(), key=lambda item: heap.manager(item[0])["index"]):
            nodes = row["nodes"] - {-1}
            print("%-24s %6s %8d %10s %10s %10s %10s" % (
                heap.manager(head)["name"], ",".join(map(str, sorted(nodes))) or "-", row["regions"],
                short(row["mapped"]), short(row["live"]), short(row["cached"]),
                short(row["mapped"] - row["live"] - row["cached"])))


class Regions(Command):
    """quarry regions [ARENA]: the regions of all arenas, or of one by its name: where, how large, of which node and
pages, and how much of each is in slabs and in large blocks."""

    name = "quarry regions"

    def run(self, heap, argv):
        if len(argv) > 1:
            self.usage("takes one name at most")
        rows = 0
        for region in heap.regions():
            arena = '"(ended)"' if region["ended"] else heap.manager(region["owner"])["name"]
            if argv and arena != '"%s"' % argv[0]:
                continue
            if rows == 0:
                print("%-18s %10s %6s %-6s %10s %10s  %s" % (
                    "region", "size", "node", "pages", "slabs", "blocks", "arena"))
            rows += 1
            print("0x%-16x %10s %6s %-6s %10s %10s  %s%s" % (
                region["address"], short(region["size"]), "-" if region["ended"] else heap.node_of(region),
                heap.pages_of(region), short(sum(s["size"] for s in heap.slabs_of(region))),
                short(sum(size for _, size in heap.blocks_of(region))), arena, ", in a file" if region["file"] else ""))
        if rows == 0:
            raise Trouble("no arena %s has a region" % argv[0] if argv else "there is no region")


class Slabs(Command):
    """quarry slabs [ARENA]: by size class, of all arenas or of one by its name: slabs, objects that live, are in
threads' caches, and are free, what the slabs hold, and how much of that is held by slabs of which less than a quarter
lives."""

    name = "quarry slabs"

    def run(self, heap, argv):
        if len(argv) > 1:
            self.usage("takes one name at most")
        cached, rows = add_cached(heap), {}
        for region in heap.regions():
            if region["ended"] or argv and heap.manager(region["owner"])["name"] != '"%s"' % argv[0]:
                continue
            for slab in heap.slabs_of(region):
                self.add(heap, rows, slab, cached.get(slab["address"], [0, 0]))
        if not rows:
            raise Trouble("no slab" + (" in an arena %s" % argv[0] if argv else ""))
        print("%8s %8s %10s %10s %10s %12s %14s" % ("size", "slabs", "live", "cached", "free", "held", "nearly empty"))
        for size, r in sorted(rows.items()):
            print("%8s %8d %10d %10d %10d %12s %14s" % (
                size or "mixed", r[0], r[1], r[2], r[3], short(r[4]), short(r[5])))

    @staticmethod
    def add(heap, rows, slab, cached):
        objects, taken, in_use = heap.use_of(slab)
        row = rows.setdefault(0 if slab["mixed"] else slab["class"]["size"], [0] * 6)
        live = max(0, taken - cached[0])
        row[0] += 1
        row[1] += live
        row[2] += cached[0]
        row[3] += max(0, objects - live - cached[0])
        row[4] += slab["size"]
        row[5] += slab["size"] if max(0, in_use - cached[1]) * 4 < slab["size"] else 0


class Sites(Command):
    """quarry sites [N]: of the profile, the N (10) places whose living objects have most bytes, with their stacks."""

    name = "quarry sites"

    def run(self, heap, argv):
        if len(argv) > 1 or argv and not argv[0].isdigit():
            self.usage("takes a number at most")
        sites = [s for s in heap.sites() if s["live"] > 0]
        if not sites:
            raise Trouble("the profile has no living sample (option profile, quarry_profile_start)")
        sites.sort(key=lambda s: -s["objects"] * s["size"])
        total = sum(s["objects"] * s["size"] for s in sites)
        for s in sites[: int(argv[0]) if argv else 10]:
            print("%s in %.0f objects of %d bytes (%d samples), %.1f %%, arena %s" % (
                short(int(s["objects"] * s["size"])), s["objects"], s["size"], s["live"],
                100 * s["objects"] * s["size"] / total, heap.arena_name(s["arena"])))
            print_stack(s["frames"])
        print("%s in all, of %d sites" % (short(int(total)), len(sites)))


class Find(Command):
    """quarry find ADDRESS: which living objects and large blocks have a pointer to it: to any byte of what it is in,
where that is an object or a large block, else to ADDRESS itself. Stacks and other memory are not searched."""

    name = "quarry find"
    MOST = 1000

    def run(self, heap, argv):
        p = self.address(argv)
        target = heap.inspect(p)
        low, high = p, p + 1
        if target is not None and "state" in target:
            low, high = target["address"], target["address"] + target["size"]
        found = 0
        for region in heap.regions():
            pieces = [(s["address"], s["size"]) for s in heap.slabs_of(region)] + list(heap.blocks_of(region))
            for at in (hit for piece in pieces for hit in self.words(heap, *piece, low, high)):
                holder = heap.inspect(at)
                if holder is None or holder.get("state") != "live":
                    continue
                found += 1
                if found > self.MOST:
                    print("and more")
                    return
                print("0x%x: %s at 0x%x + %d, %d bytes, arena %s" % (
                    at, holder["kind"], holder["address"], at - holder["address"], holder["size"],
                    heap.manager(holder["region"]["owner"])["name"]))
        print("%d pointers to [0x%x, 0x%x) in what lives" % (found, low, high))

    @staticmethod
    def needles(order, low, high):
        """The upper bytes that all these words have, two ways at most, and how many bytes are below them."""
        below = 1
        while (high - 1 >> 8 * below) - (low >> 8 * below) > 1:
            below += 1
        values = range(low >> 8 * below, (high - 1 >> 8 * below) + 1)
        return [value.to_bytes(8 - below, order) for value in values], below

    def words(self, heap, address, size, low, high):
        """Where in a piece of memory a pointer stands. (To look at each word takes a minute a GiB.)"""
        order = heap.memory.order
        needles, below = self.needles(order, low, high)
        for begin, raw in heap.memory.pieces(address, size, heap.note):
            for needle in needles:
                at = raw.find(needle)
                while at >= 0:
                    word = at - below if order == "little" else at
                    if word >= 0 and word % 8 == 0 and low <= int.from_bytes(raw[word : word + 8], order) < high:
                        yield begin + word
                    at = raw.find(needle, at + 1)


Prefix()
for one in (Inspect, Arenas, Regions, Slabs, Sites, Find):
    one(one.name, gdb.COMMAND_DATA)
