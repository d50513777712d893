# SPDX-License-Identifier: MIT
# For where.sh: a file of callgrind's into "all NUMBER", "allocator NUMBER", "calls NUMBER": instructions of everything
# and of what lies in the allocator's file (-v library, its path), and calls of malloc and its like and of free that
# come into it from elsewhere. The format: a name is written once, "(3) name", and is "(3)" from then on; a line of
# costs is "LINE COST"; the line after "calls=" has the costs of what was called, which its own lines have as well.
function name_of(line, names,    id, at) {
	sub(/^[a-z]*=/, "", line)
	at = index(line, " ")
	id = at ? substr(line, 1, at - 1) : line
	if (at)
		names[id] = substr(line, at + 1)
	return names[id]
}

/^ob=/ { object = name_of($0, objects); next }
/^cob=/ { callee_object = name_of($0, objects); next }
/^fn=/ { name_of($0, functions); callee_object = ""; next }
/^cfn=/ { callee = name_of($0, functions); next }
/^calls=/ {
	# Where it is the caller's own it is not written.
	if (callee_object == "")
		callee_object = object
	sub(/'.*/, "", callee) # which level of a recursion
	if (callee_object == library && object != library &&
			callee ~ /^(malloc|calloc|realloc|free|memalign|posix_memalign|aligned_alloc|valloc|pvalloc)$/)
		calls += substr($1, 7)
	callee_object = ""
	skip = 1
	next
}
/^[0-9+*-]/ {
	if (!skip) {
		all += $2
		if (object == library)
			own += $2
	}
	skip = 0
}
END { printf "all %.0f\nallocator %.0f\ncalls %.0f\n", all, own, calls }
