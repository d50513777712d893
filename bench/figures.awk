# SPDX-License-Identifier: MIT
# The raw figures of run.sh and memory.sh (round, workload or row, allocator, metric, value, unit; the field separator
# is the script's), and what the tables, the promises and the plot make of them. Read before one of those, by -f.
# A run whose @status is not 0 makes its cell fail: a failure in one round is not hidden by the others.
FNR > 1 {
	if ($4 == "@status" && $5 != 0)
		fail[$2, $3] = 1
	value[$2, $3, $4, ++count[$2, $3, $4]] = $5 + 0
	if (!(($2, $4) in unit)) {
		unit[$2, $4] = $6
		metric_of[$2, ++metrics[$2]] = $4
	}
}

# The median; leaves the values in order. They are few: by insertion.
function median(cell,    i, j, v, n) {
	n = count[cell]
	for (i = 2; i <= n; i++) {
		v = value[cell, i]
		for (j = i - 1; j >= 1 && value[cell, j] > v; j--)
			value[cell, j + 1] = value[cell, j]
		value[cell, j + 1] = v
	}
	return n % 2 ? value[cell, (n + 1) / 2] : (value[cell, n / 2] + value[cell, n / 2 + 1]) / 2
}

function has(row, name, metric) {
	return !((row, name) in fail) && count[row, name, metric] > 0
}

# The median of a metric; -1 when there is none.
function get(row, name, metric) {
	return has(row, name, metric) ? median(row SUBSEP name SUBSEP metric) : -1
}

function ran(row, name) {
	return count[row, name, "@status"] > 0
}

# (max - min) / median, in per cent.
function spread(row, name, metric,    m, cell) {
	m = get(row, name, metric)
	cell = row SUBSEP name SUBSEP metric
	return m > 0 ? (value[cell, count[cell]] - value[cell, 1]) / m * 100 : 0
}

# The same for a table: of one run there is none.
function spread_text(runs, percent) {
	return runs > 1 ? sprintf("%.0f%%", percent) : "1 run"
}

# One line of the promises, in markdown or as text. Nothing where a figure is missing. What rounds to the same figure is
# the same: the line shows no more of it.
function promise(what, got, want, format, against) {
	if (got < 0 || want < 0)
		return
	against = against == "" ? "" : " (" against ")"
	verdict(what, sprintf(format, got), "at most " sprintf(format, want) against,
		sprintf(format, got) + 0 <= sprintf(format, want) + 0)
}

# kept: 1, 0, or words that are neither.
function verdict(what, got, want, kept) {
	if (kept == 1)
		kept = "kept"
	else if (kept == 0)
		kept = form == "text" ? "NOT KEPT" : "**not kept**"
	if (form == "text")
		printf "  %-8s  %s: %s, %s\n", kept, what, got, want
	else
		printf "| %s | %s | %s | %s |\n", what, got, want, kept
}

function verdict_head() {
	if (form != "text")
		print "| | quarry | target | |\n|---|---:|---|---|"
}
