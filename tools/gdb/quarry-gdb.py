# SPDX-License-Identifier: MIT
"""quarry for gdb: what a pointer is in, and what the heap holds, in a live process or a core file.

    (gdb) source .../quarry-gdb.py
    (gdb) quarry inspect ADDRESS    help quarry: all commands

Memory is only read: nothing is called in the program, so a core file will do. Where things are is taken from the
library's own debug info (its types, and qy_layout for what no type tells), of the library that is loaded: it must have
it (-g, or a package with it). A heap that was written over may say anything: no walk goes on for ever, and what cannot
be read is named.
"""

import os
import sys


def load(folder):
    """The modules beside this file, also where they are loaded already, and without leaving compiled ones there."""
    for name in [n for n in sys.modules if n.split(".")[0] == "quarry_gdb"]:
        del sys.modules[name]
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.insert(0, folder)
    try:
        from quarry_gdb import commands
    finally:
        sys.path.remove(folder)
        sys.dont_write_bytecode = before
    return commands


load(os.path.dirname(os.path.realpath(__file__))).define()
