# SPDX-License-Identifier: MIT
# Walks the hit path of a function in the output of `objdump -d --no-show-raw-insn`: from the first instruction to
# the first return, conditional jumps not taken, plain jumps followed. Prints the listing, numbered, and at the end
# "COUNT n" or "BAD reason".

function hex(text,    i, value) {
	value = 0
	for (i = 1; i <= length(text); i++)
		value = value * 16 + index("0123456789abcdef", substr(text, i, 1)) - 1
	return value
}

function bad(reason) {
	print "BAD " reason
	exit
}

BEGIN {
	n = 0
}

/^ *[0-9a-f]+:\t/ {
	line = $0
	sub(/^ */, "", line)
	where = line
	sub(/:.*/, "", where)
	sub(/^[0-9a-f]+:[ \t]*/, "", line)
	sub(/ *#.*/, "", line)
	address[n] = hex(where)
	name[n] = where
	text[n] = line
	index_of[where] = n++
}

END {
	if (n == 0)
		bad("nothing was disassembled")
	i = 0
	count = 0
	for (;;) {
		if (i >= n)
			bad("the path runs off the end of the function")
		if (seen[i]++)
			bad("the path is a loop")
		insn = text[i]
		count++
		printf "%4d  %s:  %s\n", count, name[i], insn
		op = insn
		# Prefixes that change nothing here.
		while (op ~ /^(bnd|notrack|rep|repz|cs|ds|data16) /)
			sub(/^[a-z0-9]+ +/, "", op)
		if (op ~ /^lock( |$)/ || op ~ /cmpxchg/ || op ~ /^xadd/ || op ~ /^[lsm]fence/)
			bad("an atomic instruction is on the path: " insn)
		if (op ~ /^xchg/ && op ~ /\(/)
			bad("an atomic instruction is on the path: " insn)
		if (op ~ /^call/ || op ~ /^syscall/ || op ~ /^sysenter/ || op ~ /^int /)
			bad("a call is on the path: " insn)
		if (op ~ /^ret/)
			break
		if (op ~ /^j/) {
			target = op
			sub(/^[a-z]+ +/, "", target)
			sub(/[, ].*/, "", target)
			inside = target in index_of
			if (op ~ /^jmp/) {
				if (!inside)
					bad("the path leaves the function: " insn)
				i = index_of[target]
				continue
			}
			if (inside && hex(target) <= address[i])
				bad("the path has a jump back: " insn)
		}
		i++
	}
	print "COUNT " count
}
