# SPDX-License-Identifier: MIT
"""Memory of the program, and structs in it; nobody vouches for either."""

import re
import struct

import gdb


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
