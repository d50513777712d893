# SPDX-License-Identifier: MIT
# For the tables, the promises and the plot of run.sh, after figures.awk: what was measured, by -v allocators, workloads
# ("name:group:limit ...") and means (the groups that means are over); ratios, and geometric means of them. The ratio is
# to the best of the row. An allocator that failed in a row has no mean over it; the others' stay what they are.
function begin(    i, n, list, part) {
	columns = split(allocators, name, " ")
	rows = split(workloads, list, " ")
	for (i = 1; i <= rows; i++) {
		split(list[i], part, ":")
		row[i] = part[1]
		group[i] = part[2]
		limit[i] = part[3]
		members[part[2]]++
	}
	groups = split(means, group_name, " ")
	n = 0
	for (i = 1; i <= groups; i++)
		if (members[group_name[i]])
			group_name[++n] = group_name[i]
	groups = n
	for (i = 1; i <= rows; i++)
		runs = count[row[i], name[1], "@status"] > runs ? count[row[i], name[1], "@status"] : runs
}

# The least of a row; those of `only` alone when there are any, else all.
function best(r, metric, only,    i, v, least) {
	least = -1
	best_name = "-"
	for (i = 1; i <= columns; i++) {
		if (only != "" && !index(only, " " name[i] " "))
			continue
		v = get(r, name[i], metric)
		if (v >= 0 && (least < 0 || v < least)) {
			least = v
			best_name = name[i]
		}
	}
	return least
}

# The logarithm and its inverse: busybox's awk, as Debian has it, comes without them.
function ln(x,    k, y, sum, power, n) {
	for (k = 0; x > 1.5; k++)
		x /= 2
	for (; x < 0.75; k--)
		x *= 2
	y = power = (x - 1) / (x + 1)
	for (n = 1; n < 30; n += 2) {
		sum += power / n
		power *= y * y
	}
	return 2 * sum + k * 0.693147180559945309
}

function exponential(x,    k, sum, term, n) {
	for (k = 0; x > 0.1 || x < -0.1; k++)
		x /= 2
	term = 1
	for (n = 1; n < 12; n++) {
		sum += term
		term *= x / n
	}
	for (; k > 0; k--)
		sum *= sum
	return sum
}

function in_mean(i, which) {
	return which == "" ? index(" " means " ", " " group[i] " ") > 0 : group[i] == which
}

# The geometric mean of an allocator's ratios over a group, or ("") over all that means are over; -1 when one is
# missing.
function mean(column, metric, which,    i, n, v, least, sum) {
	for (i = 1; i <= rows; i++) {
		if (!in_mean(i, which))
			continue
		least = best(row[i], metric)
		if (least <= 0)
			continue # nobody has it
		v = get(row[i], name[column], metric)
		if (v <= 0)
			return -1
		sum += ln(v / least)
		n++
	}
	return n ? exponential(sum / n) : -1
}
