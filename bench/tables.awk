# SPDX-License-Identifier: MIT
# From the raw figures of bench/run.sh (round,program,allocator,metric,value,unit) the two tables. -v allocators="..."
# and -v programs="..." give the columns and rows. A run whose @status is not 0 makes its cell FAIL: a failure in one
# round is not hidden by the others. In every row the ratio is to the best of the row.
BEGIN { FS = "," }

FNR > 1 {
	run = $2 SUBSEP $3
	if ($4 == "@status" && $5 != 0)
		fail[run] = 1
	cell = run SUBSEP $4
	value[cell, ++count[cell]] = $5
	if ($4 ~ /\./ && $6 == "MiB" && !($4 in known)) {
		known[$4] = 1
		rest[++rests] = $4
		owner[$4] = $2
	}
}

# Sorts the values of a cell in place; few, so by insertion.
function sort_cell(cell,    i, j, v) {
	for (i = 2; i <= count[cell]; i++) {
		v = value[cell, i] + 0
		for (j = i - 1; j >= 1 && value[cell, j] + 0 > v; j--)
			value[cell, j + 1] = value[cell, j]
		value[cell, j + 1] = v
	}
}

function median(cell,    n) {
	n = count[cell]
	if (n % 2)
		return value[cell, (n + 1) / 2] + 0
	return (value[cell, n / 2] + value[cell, n / 2 + 1]) / 2
}

# One row. Where it counts, adds each allocator's logarithm to its total; one without a value gets no mean at all, and
# changes nobody else's.
function row(label, program, metric, counts, digits, spread,    i, cell, best, noise, worst, runs) {
	best = -1
	for (i = 1; i <= columns; i++) {
		cell = program SUBSEP name[i] SUBSEP metric
		if ((program, name[i]) in fail || !count[cell]) {
			v_of[i] = -1
			continue
		}
		if (count[cell] > runs)
			runs = count[cell]
		sort_cell(cell)
		v_of[i] = median(cell)
		if (best < 0 || v_of[i] < best)
			best = v_of[i]
		noise = v_of[i] > 0 ? (value[cell, count[cell]] - value[cell, 1]) / v_of[i] * 100 : 0
		if (noise > worst)
			worst = noise
	}
	printf "%-14s", label
	for (i = 1; i <= columns; i++)
		if (v_of[i] < 0)
			printf " %16s", "FAIL"
		else
			printf " %9s %5.2fx", sprintf(digits, v_of[i]), (best > 0 ? v_of[i] / best : 1)
	print (!spread ? "" : runs > 1 ? sprintf(" %6.0f%%", worst) : " 1 run")
	for (i = 1; counts && i <= columns; i++)
		if (v_of[i] <= 0)
			lacks[i] = 1
		else
			total[i] += log(v_of[i] / best)
}

function head(title, spread,    i) {
	print "\n" title
	printf "%-14s", ""
	for (i = 1; i <= columns; i++)
		printf " %16s", name[i]
	print (spread ? "  spread" : "")
	split("", total)
	split("", lacks)
}

function mean(    i) {
	printf "%-14s", "geometric mean"
	for (i = 1; i <= columns; i++)
		if (i in lacks)
			printf " %16s", "-"
		else
			printf " %15.2fx", exp(total[i] / lines)
	print ""
}

END {
	columns = split(allocators, name, " ")
	lines = split(programs, program, " ")
	head("Seconds (less is better; ratio to the best of the row; spread: the widest (max - min) / median of the row)", 1)
	for (p = 1; p <= lines; p++)
		row(program[p], program[p], program[p], 1, "%.3f", 1)
	mean()
	head("Peak RSS, MiB (less is better; ratio to the best of the row)", 0)
	for (p = 1; p <= lines; p++)
		row(program[p], program[p], "@peak", 1, "%.1f", 0)
	mean()
	for (r = 1; r <= rests; r++) {
		if (r == 1)
			print "at rest (not in the mean):"
		row(rest[r], owner[rest[r]], rest[r], 0, "%.1f", 0)
	}
}
