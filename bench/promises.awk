# SPDX-License-Identifier: MIT
# What quarry promises of speed, after figures.awk and means.awk: against the peers, which are all whose name does not
# begin with quarry. A peer that failed somewhere has no mean, and is compared where it did not fail.
function peers(    i, list) {
	list = " "
	for (i = 1; i <= columns; i++)
		if (name[i] !~ /^quarry/)
			list = list name[i] " "
	return list
}

# The least mean among some, its allocator in best_name; -1 when there is none.
function best_mean(metric, among,    i, v, least, whose) {
	least = -1
	whose = "-"
	for (i = 1; i <= columns; i++) {
		v = index(among, " " name[i] " ") ? mean(i, metric, "") : -1
		if (v > 0 && (least < 0 || v < least)) {
			least = v
			whose = name[i]
		}
	}
	best_name = whose # mean has used it
	return least
}

# The peers whose mean of time is within 10 % of the fastest one's.
function fast_peers(among,    i, v, fastest, list) {
	fastest = best_mean("time", among)
	list = " "
	for (i = 1; i <= columns; i++) {
		v = index(among, " " name[i] " ") ? mean(i, "time", "") : -1
		if (v > 0 && v <= fastest * 1.1)
			list = list name[i] " "
	}
	return list
}

# A promise for each workload that means are over: one line for all, and then those that break it. most is the ratio to
# the least among some; 0 takes each workload's own limit.
function each(what, metric, among, most,    i, r, v, least, bound, worst, worst_text, broken, lines) {
	for (i = 1; i <= rows; i++) {
		if (!in_mean(i, ""))
			continue
		v = get(row[i], "quarry", metric)
		least = best(row[i], metric, among)
		if (least <= 0)
			continue
		bound = most ? most : 1 + limit[i] / 100
		r = v > 0 ? v / least : 1e9
		if (r / bound > worst) {
			worst = r / bound
			worst_text = sprintf("%s %s of %s", row[i], v > 0 ? sprintf("%.3f", r) : "FAIL", best_name)
		}
		if (r > bound)
			line_of[++broken] = sprintf("%s: %s of %s, at most %.2f (spread %.0f %%)", row[i],
				v > 0 ? sprintf("%.3f", r) : "FAIL", best_name, bound, spread(row[i], "quarry", metric))
	}
	if (worst == "")
		return
	verdict(what, "worst: " worst_text, most ? sprintf("at most %.2f of the least", most) : \
		"at most 1.05, 1.02 where one thread works", !broken)
	for (i = 1; i <= broken; i++)
		print (form == "text" ? "              " line_of[i] : "| " line_of[i] " | | | |")
}

# p50 to p99.99 of each malloc and each free. What is nearer than a step of the clock cannot be told apart.
function latencies(r, among,    m, metric, step) {
	step = get(r, "quarry", "step") > 0 ? get(r, "quarry", "step") : 0
	for (m = 1; m <= metrics[r]; m++) {
		metric = metric_of[r, m]
		if (metric ~ /^(malloc|free)\.p(50|99|999|9999)$/)
			promise(r " " metric ", ns", get(r, "quarry", metric), best(r, metric, among) + step, "%.1f",
				best_name (step ? sprintf(", and %.1f, a step of the clock", step) : ""))
	}
}

function promises(    all, fast, q, i, column, fastest, least, measured, tail, note) {
	all = peers()
	for (i = 1; i <= columns; i++)
		if (name[i] == "quarry")
			column = i
	if (!column || all == " ")
		return
	for (i = 1; i <= rows; i++) {
		measured += in_mean(i, "") > 0
		tail = tail || row[i] == "tail"
	}
	if (!measured && !tail)
		return
	note = measured < in_means ? ", of " measured " of the " in_means " workloads" : ""
	note = note (quick ? ", quick: a sign, not a proof" : "")
	print (form == "text" ? "\nWhat was promised" note : "\n### What was promised" note "\n")
	verdict_head()
	q = mean(column, "time", "")
	fastest = best_mean("time", all)
	if (q > 0 && fastest > 0)
		promise("geometric mean of time, of the fastest peer's", q / fastest, 0.9, "%.3f", best_name)
	each("no workload slower than its fastest peer", "time", all, 0)
	fast = fast_peers(all)
	q = mean(column, "rss", "")
	least = best_mean("rss", fast)
	if (q > 0 && least > 0)
		promise("geometric mean of peak RSS, of the leanest fast peer's", q / least, 1, "%.3f",
			best_name "; fast: " substr(fast, 2, length(fast) - 2))
	if (fast != " ")
		each("no workload's peak RSS much above the leanest fast peer's", "rss", fast, 1.15)
	for (i = 1; i <= rows; i++)
		if (row[i] == "tail")
			latencies(row[i], all)
	for (i = 1; i <= columns; i++)
		if (index(all, " " name[i] " ") && mean(i, "time", "") < 0 && groups)
			print (form == "text" ? "  " : "\n") name[i] " has no mean: it failed somewhere"
}
