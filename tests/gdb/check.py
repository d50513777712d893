# SPDX-License-Identifier: MIT
"""Sourced by gdb in tests/gdb.sh, at a process or a core file of tests/gdb/held.c: what `quarry inspect` says of each
pointer against what the program was told itself (in $held); and the other commands. Says what is wrong, or "gdb: all is
as the program says"."""

import re

import gdb

KINDS = {1: "free memory", 2: "slab", 4: "object", 8: "large block"}
STATES = {0: "free", 1: "live", 2: "cached"}
PAGES = ("auto", "base", "thp", "2m", "1g")
wrong = []
core = "core dump file" in gdb.execute("info files", to_string=True)


def check(what, right):
    if not right:
        wrong.append(what)


def said(command):
    try:
        return gdb.execute(command, to_string=True)
    except gdb.error as error:
        return "error: %s" % error


def size_of(text):
    number, unit = text.split()
    return float(number) * {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit]


def inspect(words):
    name, address = words[0], words[1]
    text = said("quarry inspect %s" % address)
    if words[2] == "none":
        check("%s: %s" % (name, text), text == "error: quarry: %s is not in quarry's memory" % address)
        return
    kind, begin, size, state, slab, slab_size, region, region_size, node, page_kind = words[2:12]
    head = re.match(r"(0x[0-9a-f]+): (.*) at (0x[0-9a-f]+) \+ (\d+), (\d+) bytes(?:, (\w+)(?:: .*)?)?\n", text)
    place = re.search(r'\n  arena "(.*)", node (\d+); region (0x[0-9a-f]+) of (.*), pages (\w+)\n', text)
    if not head or not place:
        check("%s: not to be understood: %s" % (name, text), False)
        return
    check("%s: kind: %s" % (name, text), head[2] == KINDS[int(kind)])
    offset = int(address, 16) - int(begin, 16)
    check("%s: where it begins: %s" % (name, text), head[3] == begin and int(head[4]) == offset)
    check("%s: size: %s" % (name, text), head[5] == size)
    if kind == "4":
        # (3: the program itself cannot know; and what another thread's free would not tell is in a ring of this one.)
        wanted = {"his": "live", "his-freed": "cached", "his-sent": "cached"}.get(name, STATES.get(int(state)))
        wanted = "unknown" if name == "hidden" and core else wanted
        check("%s: state, not %s: %s" % (name, wanted, text), head[6] == wanted)
    check("%s: place: %s" % (name, text), place[1] == words[12] and place[2] == node and place[3] == region and
          size_of(place[4]) == int(region_size) and place[5] == PAGES[int(page_kind)])
    in_slab = re.search(r"\n  slab (0x[0-9a-f]+) of ([0-9.]+ \w+),", text)
    check("%s: slab: %s" % (name, text), (slab == "(nil)") == (in_slab is None))
    if in_slab:
        check("%s: slab: %s" % (name, text), in_slab[1] == slab and size_of(in_slab[2]) == int(slab_size))
    check("%s: sampled or not: %s" % (name, text), ("sampled" in text) == ("sampled" in name))
    if "sampled" in name:
        asked = "200000" if name == "large-sampled" else "100"
        check("%s: asked for: %s" % (name, text), "sampled: %s bytes asked for, stands for 1.0 objects" % asked in text)
        stack = r"samples_are_taken \(.*held\.c:\d+\)\n.* in main \(.*held\.c"
        check("%s: stack: %s" % (name, text), re.search(stack, text))
    if name == "hidden":
        # What is not in a core file is said.
        check("%s: note: %s" % (name, text), ("cannot be read (not in the core file?" in text) == core)
    elif state == "1" and kind == "4":
        check("%s: how sure: %s" % (name, text), ("live: as far as lists of free objects" in text) == core)
    if name == "his-sent":
        # (What else the thread frees may have sent it.)
        check("%s: where: %s" % (name, text), "on its way home" in text or "sent home to thread" in text)


def commands(held):
    at = {w[0]: w for w in held}
    text = said("quarry arenas")
    check("arenas: %s" % text, re.search(r'^"second one" +0 +2 +4 MiB ', text, re.M) and '"node 0"' in text)
    row = re.search(r'^"second one" .*', text, re.M)
    # 1000 bytes are of the class of 1024; 50,000 are 13 pages.
    if row:
        live = re.findall(r"[0-9.]+ (?:B|KiB|MiB|GiB)", row[0])[1]
        check("arenas: live of the second: %s" % row[0], abs(size_of(live) - (1024 + 13 * 4096)) < 60)
    text = said("quarry regions \"second one\"")
    check("regions: %s" % text, text.count("\n") == 3 and at["in-arena"][8] in text)
    text = said("quarry regions none")
    check("regions of none: %s" % text, "error: quarry: no arena none" in text)
    text = said("quarry slabs \"second one\"")
    check("slabs: %s" % text, re.search(r"^ +1024 +1 +1 +\d+ +\d+ +64 KiB +64 KiB$", text, re.M))
    text = said("quarry sites 1")
    check("sites: %s" % text, text.startswith("200 KiB in 1 object of 200704 bytes (1 sample)") or
          re.match(r"19\d(\.\d)? KiB in 1 object of \d+ bytes \(1 sample\)", text))
    check("sites: %s" % text, "samples_are_taken" in text and "2 sites" in text)
    text = said("quarry find %s" % at["medium"][1])
    check("find: %s" % text, "%s: object at %s + 24" % (hex(int(at["holder"][1], 16) + 24), at["holder"][1]) in text)
    check("find: %s" % text, "large block at %s + 8000" % at["frames"][1] in text and "\n2 pointers to" in text)
    text = said("quarry find %s" % at["holder"][1])
    check("find, one or more: %s" % text, re.search(r"^(1 pointer|([02-9]|\d\d+) pointers) to ", text, re.M))
    check("find, what is not there: %s" % text, ("note: memory at" in text) == core)
    for command, error in (("quarry inspect", "takes one address"), ("quarry inspect no_such_name", "no_such_name: "),
                           ("quarry sites x", "takes a number"), ("quarry arenas x", "takes no argument")):
        text = said(command)
        check("%s: %s" % (command, text), text.startswith("error: quarry: ") and error in text and "\n" not in text)


def main():
    held = [line.rstrip("\n").split(" ", 12) for line in open(str(gdb.convenience_variable("held").string()))]
    for words in held:
        inspect(words)
    commands(held)
    for what in wrong:
        print("gdb: WRONG: %s" % what)
    if not wrong:
        print("gdb: all is as the program says, of %d pointers" % len(held))


main()
