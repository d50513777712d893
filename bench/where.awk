# SPDX-License-Identifier: MIT
# The tables of where.sh, after figures.awk: rows of the raw figures are the workloads (-v workloads, a list) and
# "limits"; names are "quarry" and "without", the same program without an allocator preloaded. -v form=text|markdown;
# instructions, shares and calls: why their columns are empty, or nothing.
function begin_table(title, heads) {
	lines = 0
	columns = split(heads, head, "|")
	print (form == "text" ? "\n" : "\n### ") title (form == "text" ? "" : "\n")
}

# A line of cells; the last column is text, where it is called so.
function add_line(cells,    i, part) {
	split(cells, part, "|")
	lines++
	for (i = 1; i <= columns; i++)
		table[lines, i] = part[i] == "" ? "-" : part[i]
}

function left(i) {
	return i == 1 || head[i] ~ /^(most|what)/
}

function end_table(    i, n, line, width) {
	if (form != "text") {
		for (i = 1; i <= columns; i++) {
			line = line "| " head[i] (head[i] == "" ? "" : " ")
			rule = (i == 1 ? "" : rule) (left(i) ? "|---" : "|---:")
		}
		print line "|\n" rule "|"
	}
	for (n = form == "text" ? 0 : 1; n <= lines; n++) {
		line = form == "text" ? "" : "|"
		for (i = 1; i <= columns; i++) {
			width = form == "text" ? wide(i) : 0
			if (n == 0)
				table[0, i] = head[i]
			if (form != "text")
				line = line " " (i == 1 && n && quoted ? "`" table[n, i] "`" : table[n, i]) " |"
			else
				line = line sprintf((i > 1 ? "  " : "") "%" (left(i) ? "-" : "") width "s", table[n, i])
		}
		sub(/ +$/, "", line)
		print line
	}
}

function wide(i,    n, most) {
	most = length(head[i])
	for (n = 1; n <= lines; n++)
		if (length(table[n, i]) > most)
			most = length(table[n, i])
	return most
}

# A figure by its format, with what stands behind it; empty where there is none.
function show(row, metric, format, unit) {
	return has(row, "quarry", metric) ? sprintf(format, get(row, "quarry", metric)) unit : ""
}

function limit(metric, what, format, unit) {
	if (has("limits", "quarry", metric))
		add_line(what "|" show("limits", metric, format, unit))
}

# The three most frequent calls, and how many of each there are without the allocator.
function most_frequent(row,    done, m, i, list, metric, best, v, most) {
	for (i = 1; i <= 3; i++) {
		best = ""
		for (m = 1; m <= metrics[row]; m++) {
			metric = metric_of[row, m]
			if (metric !~ /^call\./ || metric in done)
				continue
			v = get(row, "quarry", metric)
			if (v > 0 && (best == "" || v > most)) {
				best = metric
				most = v
			}
		}
		if (best == "")
			break
		done[best] = 1
		v = get(row, "without", best)
		list = list (i > 1 ? ", " : "") substr(best, 6) sprintf(" %.0f (%.0f)", most, v < 0 ? 0 : v)
	}
	return list
}

# What stands below a table: its lines are one paragraph.
function note(text) {
	if (form == "text")
		gsub(/\n/, "\n  ", text)
	print (form == "text" ? "  " : "\n") text
}

function left_out(what, why) {
	return why == "" ? "" : "\n" what ": " why "."
}

# As many digits as say something.
function count_of(row, metric,    v) {
	v = get(row, "quarry", metric)
	return v < 0 ? "" : sprintf(v < 100 ? "%.1f" : "%.0f", v)
}

END {
	n = split(workloads, row, " ")
	begin_table("What the machine allows", "|")
	limit("fault.base", "a fault on a base page, with its zeroing", "%.2f", " us")
	limit("fault.huge", "a fault on a huge page, with its zeroing", "%.0f", " us")
	limit("memset", "memset of memory that is there", "%.1f", " GB/s")
	limit("miss.huge", "a load that misses all caches, in huge pages", "%.0f", " ns")
	limit("miss.base", "the same in base pages, with a miss of the TLB", "%.0f", " ns")
	limit("line", "a cache line to another processor and back", "%.0f", " ns")
	limit("call", "a system call", "%.0f", " ns")
	end_table()

	quoted = 1
	begin_table("Where the time goes",
		"|time, s|user, s|system, s|faults|of the time: program|quarry|kernel|C library")
	for (i = 1; i <= n; i++)
		add_line((row[i], "quarry") in fail ? row[i] "|FAIL" : row[i] "|" show(row[i], "time", "%.3f") \
			"|" show(row[i], "user", "%.3f") "|" show(row[i], "sys", "%.3f") \
			"|" show(row[i], "faults", "%.0f") \
			"|" show(row[i], "share.program", "%.1f", " %") "|" show(row[i], "share.quarry", "%.1f", " %") \
			"|" show(row[i], "share.kernel", "%.1f", " %") "|" show(row[i], "share.libc", "%.1f", " %"))
	end_table()
	note("Time, user, system and faults are medians of the rounds; of redis they are the server's, but for the time.\n" \
		"Shares are of samples of the processors' clocks in one more run; the program is with its own libraries.\n" \
		"\"-\": too few samples, as of threads that end before they are sampled once." \
		left_out("Shares", shares))

	begin_table("Instructions of an operation, counted",
		"|all|quarry's|calls|quarry's for a malloc and a free|quarry's share|what one is")
	for (i = 1; i <= n; i++)
		if (has(row[i], "quarry", "op.all")) {
			one = unit[row[i], "op.all"]
			gsub(/;/, ",", one)
			add_line(row[i] "|" count_of(row[i], "op.all") "|" count_of(row[i], "op.quarry") \
				"|" count_of(row[i], "op.calls") "|" show(row[i], "op.pair", "%.1f") \
				"|" show(row[i], "op.share", "%.1f", " %") "|" one)
		}
	if (lines)
		end_table()
	note("Callgrind's, of programs of ours; two sizes of the work, of which the difference counts, so that the start is\n" \
		"not in it. Calls are malloc, calloc, realloc, free and their like, two of them a malloc and a free. Callgrind\n" \
		"runs one thread at a time: what threads do to each other at the same moment, and the wait for it, is not in\n" \
		"these." \
		left_out("Instructions", instructions))

	begin_table("System calls", "|quarry|without|most frequent (without)")
	for (i = 1; i <= n; i++)
		if (has(row[i], "quarry", "calls"))
			add_line(row[i] "|" show(row[i], "calls", "%.0f") \
				"|" (get(row[i], "without", "calls") < 0 ? "" : get(row[i], "without", "calls")) \
				"|" most_frequent(row[i]))
	if (lines)
		end_table()
	note("strace's, of a whole run with its start; without: the same with no allocator preloaded, which is glibc's\n" \
		"malloc (of the redis-server too, where glibc is preloaded over its jemalloc). strace stops threads at each\n" \
		"call, so that they wait for each other (futex) otherwise than they do by themselves." left_out("System calls", calls))
}
