# SPDX-License-Identifier: MIT
"""The commands, and how stacks are told."""

import gdb

from .heap import Heap
from .memory import UNREADABLE, Trouble, absent, short


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


def count(number, what):
    """A number of things, which are one or more."""
    return "%d %s%s" % (number, what, "" if number == 1 else "s")


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
        head = "0x%x: %s at 0x%x + %d, %s" % (
            p, found["kind"], found["address"], p - found["address"], count(found["size"], "byte"))
        if "state" in found:
            head += ", %s%s" % (found["state"], ": " + found["where"] if found["where"] else "")
        print(head)
        print("  " + place_text(heap, found["region"]))
        slab = found.get("slab")
        if slab is not None:
            objects, taken, _ = heap.use_of(slab)
            print("  slab 0x%x of %s, %s, %d of %s taken, %s" % (
                slab["address"], short(slab["size"]),
                "mixed sizes" if slab["mixed"] else "objects of %d bytes" % slab["class"]["size"],
                taken, count(objects, "object"), owner_text(heap, slab)))
        sample = heap.samples().get(found["address"]) if found.get("state") == "live" else None
        if sample is not None:
            site, asked, weight = sample
            print("  sampled: %s asked for, stands for %.1f objects, allocated by" % (
                count(asked, "byte"), weight / heap.lib.constant("weight_one")))
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
            print("%s in %s of %d bytes (%s), %.1f %%, arena %s" % (
                short(int(s["objects"] * s["size"])), count(round(s["objects"]), "object"), s["size"],
                count(s["live"], "sample"),
                100 * s["objects"] * s["size"] / total, heap.arena_name(s["arena"])))
            print_stack(s["frames"])
        print("%s in all, of %s" % (short(int(total)), count(len(sites), "site")))


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
                print("0x%x: %s at 0x%x + %d, %s, arena %s" % (
                    at, holder["kind"], holder["address"], at - holder["address"], count(holder["size"], "byte"),
                    heap.manager(holder["region"]["owner"])["name"]))
        print("%s to [0x%x, 0x%x) in what lives" % (count(found, "pointer"), low, high))

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


def define():
    Prefix()
    for one in (Inspect, Arenas, Regions, Slabs, Sites, Find):
        one(one.name, gdb.COMMAND_DATA)
