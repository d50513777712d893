# SPDX-License-Identifier: MIT
# What quarry promises of speed, after figures.awk and means.awk: against the peers, which are all whose name does not
# begin with quarry. With a peer that failed somewhere quarry is compared over the rows that both have; where quarry
# itself failed, what is over all rows is not kept.
function peers(    i, list) {
	list = " "
	for (i = 1; i <= columns; i++)
		if (name[i] !~ /^quarry/)
			list = list name[i] " "
	return list
}

# The geometric mean of one's ratios to another over the rows that both have, as many as paired_rows; -1: there are none.
function paired(one, other, metric,    i, v, w, sum, n) {
	for (i = 1; i <= rows; i++) {
		if (!in_mean(i, ""))
			continue
		v = get(row[i], one, metric)
		w = get(row[i], other, metric)
		if (v <= 0 || w <= 0)
			continue
		sum += ln(v / w)
		n++
	}
	paired_rows = n + 0
	return n ? exponential(sum / n) : -1
}

# The best of some peers is the one with which the ratio is largest: its name in best_name, the rows in best_rows.
function against_best(metric, among,    i, r, most) {
	most = -1
	best_name = "-"
	best_rows = 0
	for (i = 1; i <= columns; i++) {
		r = index(among, " " name[i] " ") ? paired("quarry", name[i], metric) : -1
		if (r > most) {
			most = r
			best_name = name[i]
			best_rows = paired_rows
		}
	}
	return most
}

# The peers whose mean of time is within 25 % of the fastest one's.
function fast_peers(among, fastest,    i, list) {
	list = " "
	for (i = 1; i <= columns; i++)
		if (index(among, " " name[i] " ") && (name[i] == fastest ||
			(paired(name[i], fastest, "time") > 0 && paired(name[i], fastest, "time") <= 1.25)))
			list = list name[i] " "
	return list
}

# The rows of the means in which quarry has no figure.
function failures(metric,    i, list) {
	for (i = 1; i <= rows; i++)
		if (in_mean(i, "") && get(row[i], "quarry", metric) <= 0)
			list = list (list == "" ? "" : ", ") row[i]
	return list
}

function overall(what, metric, among, most, note,    r, missing) {
	missing = failures(metric)
	r = against_best(metric, among)
	if (missing != "")
		verdict(what, "FAIL in " missing, sprintf("at most %.3f", most), 0)
	else
		promise(what, r, most, "%.3f", best_name ", over " best_rows " of " measured " workloads" note)
}

# A promise for each workload that means are over: one line for all, and then those that break it. most is the ratio to
# the least among some; 0 takes each workload's own limit.
function each(what, metric, among, most,    i, r, v, least, bound, worst, worst_text, broken, line_of) {
	for (i = 1; i <= rows; i++) {
		if (!in_mean(i, ""))
			continue
		v = get(row[i], "quarry", metric)
		least = best(row[i], metric, among)
		if (v > 0 && least <= 0)
			continue
		bound = most ? most : 1 + limit[i] / 100
		r = v > 0 ? sprintf("%.3f", v / least) + 0 : 1e9
		if (r / bound > worst) {
			worst = r / bound
			worst_text = sprintf("%s %s of %s", row[i], v > 0 ? sprintf("%.3f", r) : "FAIL", best_name)
		}
		if (r > bound)
			line_of[++broken] = sprintf("%s: %s of %s, at most %.2f", row[i], v > 0 ? sprintf("%.3f", r) : "FAIL",
				best_name, bound) (v > 0 ? " (" (count[row[i], "quarry", metric] > 1 ? "spread " : "") \
				spread_text(count[row[i], "quarry", metric], spread(row[i], "quarry", metric)) ")" : "")
	}
	if (worst == "")
		return
	verdict(what, "worst: " worst_text, most ? sprintf("at most %.2f of the least", most) : \
		"at most 1.05, 1.02 where one thread works", !broken)
	for (i = 1; i <= broken; i++)
		print (form == "text" ? "              " line_of[i] : "| " line_of[i] " | | | |")
}

# p50 to p99.99 of each malloc and each free, in tenths of a ns, as they are shown. What is nearer than a step of the
# clock cannot be told apart, and is neither kept nor broken.
function latencies(r, among,    m, metric, step, got, least, want, kept) {
	step = get(r, "quarry", "step") > 0 ? get(r, "quarry", "step") : 0
	for (m = 1; m <= metrics[r]; m++) {
		metric = metric_of[r, m]
		if (metric !~ /^(malloc|free)\.p(50|99|999|9999)$/)
			continue
		got = get(r, "quarry", metric)
		least = best(r, metric, among)
		if (least < 0 && got >= 0)
			continue
		want = least < 0 ? "-" : sprintf("at most %.1f (%s)", least, best_name) \
			(step > 0 ? sprintf(", or %.1f, a step of the clock more", least + step) : "")
		kept = got < 0 ? 0 : sprintf("%.1f", got) + 0 <= sprintf("%.1f", least) + 0 ? 1 : \
			sprintf("%.1f", got) + 0 <= sprintf("%.1f", least + step) + 0 ? "within a step of the clock" : 0
		verdict(r " " metric ", ns", got < 0 ? "FAIL" : sprintf("%.1f", got), want, kept)
	}
}

function promises(    all, fast, fastest, i, column, tail, note) {
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
	note = measured < in_means ? ", of " measured + 0 " of the " in_means " workloads" : ""
	note = note (quick ? ", quick: a sign, not a proof" : "")
	print (form == "text" ? "\nWhat was promised" note : "\n### What was promised" note "\n")
	verdict_head()
	if (measured) {
		against_best("time", all)
		fastest = best_name
		fast = fast_peers(all, fastest)
		overall("geometric mean of time, of the fastest peer's", "time", all, 0.9, "")
		each("no workload slower than its fastest peer", "time", all, 0)
		overall("geometric mean of peak RSS, of the leanest fast peer's", "rss", fast, 1,
			"; fast, within 25 % of the fastest: " substr(fast, 2, length(fast) - 2))
		each("no workload's peak RSS much above the leanest fast peer's", "rss", fast, 1.15)
	}
	for (i = 1; i <= rows; i++)
		if (row[i] == "tail")
			latencies(row[i], all)
	for (i = 1; i <= columns; i++)
		if (index(all, " " name[i] " ") && mean(i, "time", "") < 0 && groups)
			print (form == "text" ? "  " : "\n") name[i] " has no mean: it failed somewhere"
}
