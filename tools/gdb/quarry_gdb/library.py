# SPDX-License-Identifier: MIT
"""The copy of quarry that the program has: its symbols, types and constants."""

import gdb

from .memory import Layout, Memory, Trouble, absent


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
