#!/bin/bash
# SPDX-License-Identifier: MIT
# stress-ng's malloc stressor, which verifies what it wrote, and some of its others that lean on the heap. Its output
# has times in it, so what is compared is what it says of itself.
. "$(dirname "$0")/lib.sh"
need stress-ng stress-ng

stressor() { # stress-ng's arguments
	stress-ng --timeout "$(quick 2 6)" --verify "$@" >log 2>&1
	local status=$?
	grep -oE 'successful run completed|(passed|failed|skipped): [0-9]+:? ?[a-z]*' log
	[ $status -eq 0 ] || cat log
	return $status
}
export -f stressor
by_malloc() {
	stressor --malloc 2 --malloc-bytes 64M --malloc-touch
}
by_malloc_threads() {
	stressor --malloc 2 --malloc-bytes 32M --malloc-pthreads 3 --malloc-thresh 64K
}
by_others() {
	stressor --tree 1 --tree-size 20000 --hsearch 1 --tsearch 1 --qsort 1 --qsort-size 20000
}

bound stress-ng --malloc 1 --malloc-ops 10
both by_malloc
both by_malloc_threads
[ -n "$QUARRY_QUICK" ] || both by_others
