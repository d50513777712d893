# SPDX-License-Identifier: MIT
"""What ../quarry-gdb.py is made of: memory.py reads, library.py knows where things are, places.py what stands where, heap.py
what of it lives, and commands.py tells."""
