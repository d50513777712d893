# SPDX-License-Identifier: MIT
"""What of it lives: slabs and caches know what is free, the profile what its samples are."""

import struct

from .memory import Trouble
from .places import Places


class Heap(Places):
    """What stands where, and whether it lives."""

    def __init__(self):
        super().__init__()
        self.known_cached = self.known_samples = None
        self.incomplete = False  # not all lists of free objects could be followed

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
