# SPDX-License-Identifier: MIT
# The tables of run.sh, after figures.awk and means.awk; then the promises (promises.awk). -v form=text|markdown.
function show_head(title, last,    i, line, rule) {
	if (form == "text") {
		print "\n" title
		line = sprintf("%-20s", "")
		for (i = 1; i <= columns; i++)
			line = line sprintf(" %16s", name[i])
		print line (last == "" ? "" : "  " last)
		return
	}
	print "\n### " title "\n"
	line = "| |"
	rule = "|---|"
	for (i = 1; i <= columns; i++) {
		line = line " " name[i] " |"
		rule = rule "---:|"
	}
	print line (last == "" ? "" : " " last " |")
	print rule (last == "" ? "" : "---:|")
}

# One line; the cells are in cell[1..columns], and bold[i] is set where one is the best.
function show_line(label, last,    i, line) {
	if (form == "text") {
		line = sprintf("%-20s", label)
		for (i = 1; i <= columns; i++)
			line = line sprintf(" %16s", cell[i])
		print line (last == "" ? "" : "  " sprintf("%6s", last))
		return
	}
	line = "| " label " |"
	for (i = 1; i <= columns; i++)
		line = line (bold[i] ? " **" cell[i] "** |" : " " cell[i] " |")
	print line (last == "" ? "" : " " last " |")
}

# A ratio, in as many columns as any; 0 is none.
function times(ratio) {
	return ratio ? sprintf(ratio < 99.995 ? " %5.2fx" : " %5.0fx", ratio) : form == "text" ? "       " : ""
}

# A row of a metric: the values and their ratios to the best, which is the least, or the most where more is better; a count
# has no best.
function show_row(label, r, metric, digits, more, with_spread,    i, v, best_v, noise, s, most) {
	best_v = -1
	for (i = 1; i <= columns && unit[r, metric] != "count"; i++) {
		v = get(r, name[i], metric)
		if (v >= 0 && (best_v < 0 || (more ? v > best_v : v < best_v)))
			best_v = v
	}
	for (i = 1; i <= columns; i++) {
		v = get(r, name[i], metric)
		bold[i] = v >= 0 && v == best_v
		if (v < 0)
			cell[i] = (r, name[i]) in fail ? "FAIL" : "-"
		else
			cell[i] = sprintf(v < 10000 ? digits : "%.0f", v) \
				times(best_v > 0 && v > 0 ? (more ? best_v / v : v / best_v) : 0)
		if (form != "text")
			gsub(/ +/, " ", cell[i])
		s = spread(r, name[i], metric)
		noise = v >= 0 && s > noise ? s : noise
		most = count[r, name[i], metric] > most ? count[r, name[i], metric] : most
	}
	show_line(label, with_spread ? spread_text(most, noise) : "")
}

function show_mean(label, metric, which, with_spread,    i, v, least) {
	least = -1
	for (i = 1; i <= columns; i++) {
		v = mean(i, metric, which)
		if (v > 0 && (least < 0 || v < least))
			least = v
	}
	for (i = 1; i <= columns; i++) {
		v = mean(i, metric, which)
		bold[i] = v > 0 && v == least
		cell[i] = v > 0 ? sprintf("%.3fx", v) : "-"
	}
	show_line(label, with_spread ? (form == "text" ? " " : "-") : "")
}

# The groups that means are over, a mean after each, and the mean of all.
function show_metric(title, metric, digits,    g, i) {
	if (!groups)
		return
	show_head(title, "spread")
	for (g = 1; g <= groups; g++) {
		for (i = 1; i <= rows; i++)
			if (group[i] == group_name[g])
				show_row(row[i], row[i], metric, digits, 0, 1)
		show_mean("mean, " group_name[g], metric, group_name[g], 1)
	}
	if (groups > 1)
		show_mean("MEAN OF ALL", metric, "", 1)
}

function is_own(metric) {
	return metric !~ /^@/ && metric != "time" && metric != "cpu" && metric != "rss" && metric !~ /^server\./
}

function show_others(r, which,    m, metric, u, digits, label) {
	for (m = 1; m <= metrics[r]; m++) {
		metric = metric_of[r, m]
		u = unit[r, metric]
		if (is_own(metric) || (which == "parts" && (metric == "time" || metric == "cpu" || metric == "rss"))) {
			digits = u ~ /^(s|us)$/ ? "%.3f" : "%.1f"
			label = (which == "parts" ? "" : r " ") metric ", " u
			show_row(label, r, metric, digits, u ~ /\/s$/, 1)
		}
	}
}

function others_head(title) {
	if (!shown++)
		show_head(title, "spread")
}

# The patterns at several numbers of threads ("larson@4").
function show_scaling(title, metric, digits,    i) {
	shown = 0
	for (i = 1; i <= rows; i++)
		if (group[i] == "scaling" && row[i] ~ /@/) {
			others_head(title)
			show_row(row[i], row[i], metric, digits, 0, 1)
		}
}

END {
	begin()
	show_metric("Time, s (less is better; ratio to the best of the row; spread: the row's widest (max - min) / median)",
		"time", "%.3f")
	show_metric("Processor time, user and system, s", "cpu", "%.3f")
	show_metric("Peak RSS, MiB", "rss", "%.1f")
	shown = 0
	for (i = 1; i <= rows; i++)
		for (m = 1; m <= metrics[row[i]] && in_mean(i, ""); m++)
			if (is_own(metric_of[row[i], m])) {
				others_head("What else these say")
				show_others(row[i], "")
				break
			}
	show_scaling("By threads, the same work in all: time, s", "time", "%.3f")
	show_scaling("The same: peak RSS, MiB", "rss", "%.1f")
	for (i = 1; i <= rows; i++)
		if (!in_mean(i, "") && row[i] !~ /@/) {
			show_head("Not in the means: " row[i], "spread")
			show_others(row[i], "parts")
		}
	promises()
}
