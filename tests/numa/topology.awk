# SPDX-License-Identifier: MIT
# Reads tests/numa/topologies/NAME.topo (the format stands at the head of run.sh). What to do with it, in `what`:
#
#   qemu     print the machine as arguments of qemu-system-x86_64, one a line
#   kernel   print the words for the kernel's command line
#   figures  print "LIMIT MEMORY-IN-MIB CPUS NODES ABOUT"
#   check    compare what the guest's kernel says (the second file: the results, "guest: …" lines) with the file;
#            print a line for each difference
#
# Exit status: 0; 1 with differences; 2 when the file itself is wrong (said on standard error).

function wrong(text) {
	printf "%s:%d: %s\n", FILENAME, FNR, text >"/dev/stderr"
	broken = 1
	exit 2
}

function differs(text) {
	print text
	differences++
}

function value(word, name) {
	return index(word, name "=") == 1 ? substr(word, length(name) + 2) : ""
}

# "512M", "2G": MiB.
function mebibytes(text) {
	if (text !~ /^[1-9][0-9]*[MG]$/)
		wrong("'" text "' is no size: a number and M or G")
	return text ~ /G$/ ? text * 1024 : text + 0
}

# "0-3" or "5" into low and high.
function range(text,   parts) {
	if (text !~ /^[0-9]+(-[0-9]+)?$/)
		wrong("'" text "' is no number and no range")
	high = split(text, parts, "-") == 2 ? parts[2] + 0 : parts[1] + 0
	low = parts[1] + 0
}

function known(node) {
	if (node !~ /^[0-9]+$/ || !((node + 0) in kind) || kind[node + 0] == "absent")
		wrong("'" node "' is no node of this machine")
	return node + 0
}

function read_node(   i, id) {
	range($2)
	if (low != nodes)
		wrong("nodes must stand in order, without a gap (say 'node " nodes " absent')")
	if ($3 == "absent") {
		for (id = low; id <= high; id++)
			kind[id] = "absent"
		nodes = high + 1
		return
	}
	if (low != high)
		wrong("one line for each node that there is")
	id = nodes++
	kind[id] = "memory"
	for (i = 3; i <= NF; i++) {
		if (value($i, "cpus") != "") {
			range(value($i, "cpus"))
			if (low != cpus)
				wrong("CPUs are given to the nodes in order: this one's begin at " cpus)
			if (per_node && high - low + 1 != per_node)
				wrong("all nodes that have CPUs have as many")
			per_node = high - low + 1
			cpus = high + 1
			cpulist[id] = low == high ? low : low "-" high # as the kernel writes it
			kind[id] = "cpus"
			if (memory_only)
				wrong("nodes without CPUs come last: the kernel would number them so")
		} else if (value($i, "memory") != "") {
			memory[id] = mebibytes(value($i, "memory"))
			total += memory[id]
		} else if (value($i, "initiator") != "") {
			initiator[id] = value($i, "initiator")
		} else {
			wrong("'" $i "'? A node has cpus=, memory= and initiator=, or is absent")
		}
	}
	if (kind[id] == "memory")
		memory_only = 1
	if (kind[id] == "memory" && !memory[id])
		wrong("a node has CPUs or memory, or is absent")
}

# Only what is given in both directions may differ in them, as in QEMU.
function read_distance(   a, b) {
	a = known($2)
	b = known($3)
	if ($4 !~ /^[0-9]+$/ || $4 < 11 || $4 > 254)
		wrong("a distance is 11 to 254")
	distance[a, b] = $4
	given[a, b] = 1
	if (!((b, a) in given))
		distance[b, a] = $4
	distances++
}

function read_hmat(   i, a, b) {
	a = known($2)
	b = known($3)
	for (i = 4; i <= NF; i++) {
		if (value($i, "latency") ~ /^[1-9][0-9]*$/)
			latency[a, b] = value($i, "latency")
		else if (value($i, "bandwidth") ~ /^[1-9][0-9]*G$/)
			bandwidth[a, b] = value($i, "bandwidth") + 0
		else
			wrong("'" $i "'? latency=NANOSECONDS or bandwidth=NUMBERG")
	}
	hmat++
}

function read_hugepages(   i, parts) {
	if ($2 != "2m" && $2 != "1g")
		wrong("hugepages are 2m or 1g")
	for (i = 3; i <= NF; i++) {
		if (split($i, parts, "=") != 2 || parts[2] !~ /^[0-9]+$/)
			wrong("'" $i "'? NODE=NUMBER")
		pool[$2, known(parts[1])] = parts[2] + 0
		pools[$2] = pools[$2] (pools[$2] ? "," : "") parts[1] ":" parts[2]
	}
}

NR == FNR && (/^[ \t]*#/ || NF == 0) { next }
NR == FNR {
	if ($1 == "about")
		about = substr($0, index($0, $2))
	else if ($1 == "node")
		read_node()
	else if ($1 == "distance")
		read_distance()
	else if ($1 == "hmat")
		read_hmat()
	else if ($1 == "hugepages")
		read_hugepages()
	else if ($1 == "append")
		append = append " " substr($0, index($0, $2))
	else if ($1 == "limit" && $2 ~ /^[1-9][0-9]*$/)
		limit = $2
	else if ($1 == "cpuset" && ($2 == "v1" || $2 == "v2"))
		;
	else if ($1 == "tests" || $1 == "run")
		commands++
	else
		wrong("'" $0 "' is nothing that is known here")
	next
}

# ---- The guest's own words ------------------------------------------------------------------------------------

{ sub(/\r$/, "") }
/^guest: node / { seen[$3] = 1; seen_cpus[$3] = $5; seen_memory[$3] = $7 }
/^guest: possible / { possible = $3 }
/^guest: distance / {
	seen_row[$3] = ""
	for (i = 4; i <= NF; i++)
		seen_row[$3] = seen_row[$3] (i > 4 ? " " : "") $i
}
/^guest: pool / { seen_pool[$3, $4] = $5 }
/^guest: hmat / { seen_hmat[$3, $4, $5] = $6 }

function expect(what_it_is, wanted, got) {
	if (wanted != got)
		differs(what_it_is " should be " (wanted == "" ? "nothing" : wanted) " and is " (got == "" ? "nothing" : got))
}

function between(a, b) {
	if (a == b)
		return 10
	return (a, b) in distance ? distance[a, b] : 20
}

function check(   a, b, row, size, pair) {
	expect("the possible nodes", nodes > 1 ? "0-" (nodes - 1) : "0", possible)
	for (a in seen)
		if (!(a in kind) || kind[a] == "absent")
			differs("node " a " should not be there")
	for (a = 0; a < nodes; a++) {
		if (kind[a] == "absent")
			continue
		if (!(a in seen)) {
			differs("node " a " is not there")
			continue
		}
		expect("the CPUs of node " a, cpulist[a], seen_cpus[a] == "none" ? "" : seen_cpus[a])
		# The kernel itself and its page tables take some of what there is.
		if (seen_memory[a] > memory[a] * 1024 || seen_memory[a] < memory[a] * 1024 * 7 / 8 - 65536)
			differs("the memory of node " a " should be nearly " memory[a] " MiB and is " int(seen_memory[a] / 1024))
		row = ""
		for (b = 0; b < nodes; b++)
			if (kind[b] != "absent")
				row = row (row == "" ? "" : " ") between(a, b)
		expect("the distances of node " a, row, seen_row[a])
		for (size in pools)
			expect("the pool of " size " pages on node " a, pool[size, a] + 0, seen_pool[size, a])
	}
	for (pair in latency) {
		split(pair, ends, SUBSEP)
		expect("the latency from node " ends[1] " to " ends[2], latency[pair], seen_hmat["latency", ends[1], ends[2]])
		expect("the bandwidth from node " ends[1] " to " ends[2], bandwidth[pair] * 1024,
			seen_hmat["bandwidth", ends[1], ends[2]])
	}
}

# ---- QEMU's ---------------------------------------------------------------------------------------------------

# A node that is absent has a socket that nobody plugged a CPU in: the firmware's table names it, so that the kernel
# counts its id, and nothing of it comes up. The CPUs after the first node's are plugged in one by one then.
function machine(   a, b, i, cores, sockets, socket, holes, first, lb) {
	for (a = 0; a < nodes; a++) {
		sockets += kind[a] != "memory"
		holes += kind[a] == "absent"
	}
	# QEMU's interrupts find their way over a gap between CPUs only as the kernel sends them from nine CPUs on.
	for (cores = per_node; holes && sockets * cores <= 8; cores *= 2)
		;
	print "-machine\nq35" (hmat ? ",hmat=on" : "")
	print "-m\n" total "M"
	print "-smp\n" (holes ? per_node ",maxcpus=" sockets * cores : cpus) ",sockets=" sockets ",cores=" cores ",threads=1"
	for (a = 0; a < nodes; a++) {
		if (memory[a])
			print "-object\nmemory-backend-ram,id=m" a ",size=" memory[a] "M"
		printf "-numa\nnode,nodeid=%d", a
		if (kind[a] != "memory") {
			first = socket++ * cores
			printf ",cpus=%d-%d", first, first + cores - 1
		}
		if (memory[a])
			printf ",memdev=m%d", a
		if (a in initiator)
			printf ",initiator=%d", initiator[a]
		print ""
		for (i = 0; holes && a > 0 && kind[a] == "cpus" && i < per_node; i++)
			print "-device\nmax-x86_64-cpu,socket-id=" socket - 1 ",core-id=" i ",thread-id=0"
	}
	for (a = 0; distances && a < nodes; a++)
		for (b = 0; b < nodes; b++)
			print "-numa\ndist,src=" a ",dst=" b ",val=" between(a, b)
	lb = "-numa\nhmat-lb,initiator=%d,target=%d,hierarchy=memory,data-type=access-%s,%s=%d%s\n"
	for (a = 0; hmat && a < nodes; a++)
		for (b = 0; b < nodes; b++)
			if ((a, b) in latency) {
				printf lb, a, b, "latency", "latency", latency[a, b], ""
				printf lb, a, b, "bandwidth", "bandwidth", bandwidth[a, b], "G"
			}
}

# What must be so over the whole file.
function complete(   a, b) {
	if (!cpus)
		wrong("no node has a CPU")
	if (kind[0] != "cpus" || !memory[0])
		wrong("node 0 is what boots: it has CPUs and memory")
	if (!limit || !commands)
		wrong("the lines 'limit' and 'tests' or 'run' are missing")
	for (a = 0; hmat && a < nodes; a++)
		for (b = 0; b < nodes; b++)
			if (kind[a] == "cpus" && kind[b] != "absent" && !(latency[a, b] && bandwidth[a, b]))
				wrong("hmat is for all pairs or for none: " a " to " b " lacks latency or bandwidth")
}

END {
	if (broken)
		exit 2
	complete()
	if (what == "qemu")
		machine()
	else if (what == "kernel")
		print (("2m" in pools) ? "hugepagesz=2M hugepages=" pools["2m"] " " : "") \
			(("1g" in pools) ? "hugepagesz=1G hugepages=" pools["1g"] : "") append
	else if (what == "figures")
		print limit, total, cpus, nodes, about
	else if (what == "check")
		check()
	exit differences != 0
}
