# SPDX-License-Identifier: MIT
# Draws run.sh's figures as SVG, after figures.awk and means.awk: the means as a table and as a scatter of time against
# peak RSS, and below them each workload's ratios, of time on the left and of peak RSS on the right, on logarithmic axes.
# -v title, -v machine: two lines of text. The background is part of the picture, so that it reads the same on a dark page.
function xml(text) {
	gsub(/&/, "\\&amp;", text)
	gsub(/</, "\\&lt;", text)
	return text
}

function text(x, y, style, what) {
	printf "<text x=\"%.1f\" y=\"%.1f\" %s>%s</text>\n", x, y, style, what
}

function line(x1, y1, x2, y2, colour, width) {
	printf "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"%s\"/>\n",
		x1, y1, x2, y2, colour, width
}

# quarry is a diamond, the others are discs; each of a colour.
function mark(i, x, y, r) {
	if (name[i] == "quarry")
		printf "<path d=\"M%.1f %.1fl%.1f %.1fl%.1f %.1fl%.1f %.1fz\" fill=\"%s\" stroke=\"#fff\" stroke-width=\"0.8\"/>\n",
			x, y - r * 1.6, r * 1.6, r * 1.6, -r * 1.6, r * 1.6, -r * 1.6, -r * 1.6, colour[i]
	else
		printf "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill=\"%s\" stroke=\"#fff\" stroke-width=\"0.6\"/>\n",
			x, y, r, colour[i]
}

# quarry has a colour that no other has; behind those of the list they are made, by the golden angle around the wheel,
# away from quarry's.
function choose_colours(    i, k, n, palette, hue) {
	n = split("#5f6368 #1f77b4 #e07b00 #2e8b3d #7b4fb0 #00868b #8a5a2b #b8860b #3949ab #4e6b1f #c0392b", palette, " ")
	for (i = 1; i <= columns; i++) {
		if (name[i] == "quarry") {
			colour[i] = "#c2185b"
			continue
		}
		hue = int(k * 137.508) % 300
		colour[i] = ++k <= n ? palette[k] : sprintf("hsl(%d,%d%%,%d%%)", hue, 50 + k % 2 * 35, 35 + k % 3 * 13)
	}
}

# What a text takes, about.
function width_of(what) {
	return length(what) * 7.4
}

function shortened(what) {
	return length(what) > 24 ? substr(what, 1, 23) "…" : what
}

# ---- An axis: from 1 to its end, which the largest ratio sets, up to ten ------------------------------------------------

function place(metric, v) {
	return ln(v < end_of[metric] ? v : end_of[metric]) / ln(end_of[metric])
}

function ratio(i, r, metric,    least, v) {
	least = best(r, metric)
	v = get(r, name[i], metric)
	return v > 0 && least > 0 ? v / least : -1
}

function find_end(metric,    i, j, v, most) {
	most = 1.6
	for (j = 1; j <= rows; j++)
		for (i = 1; i <= columns && in_mean(j, ""); i++) {
			v = ratio(i, row[j], metric)
			most = v > most ? v : most
		}
	end_of[metric] = most * 1.05 < 10 ? most * 1.05 : 10
}

function ticks(metric, list,    n, i, all, few) {
	few = 0
	n = split("1 1.1 1.2 1.5 2 3 4 5 7 10", all, " ")
	split("", list)
	for (i = 1; i <= n; i++)
		if (all[i] <= end_of[metric] * 1.001 && !(end_of[metric] > 4 && (all[i] ~ /^1\.[12]$/ || all[i] == 4)))
			list[++few] = all[i]
	return few
}

# ---- The top: means in numbers, and the scatter ------------------------------------------------------------------------

function means_table(x, y,    i, j, n, metric, first_x, number_x) {
	n = split("time cpu rss", metric, " ")
	text(x, y, "class=\"h\"", "Geometric means, ratio to the best of each workload")
	y += 22
	first_x = 150
	for (i = 1; i <= columns; i++)
		first_x = width_of(shortened(name[i])) + 30 > first_x ? width_of(shortened(name[i])) + 30 : first_x
	for (j = 1; j <= n; j++)
		number_x[j] = x + first_x - 5 + 68 * j
	if (number_x[n] > 418) # before the scatter's own axis
		for (j = 1; j <= n; j++)
			number_x[j] = 418 - 62 * (n - j)
	for (j = 1; j <= n; j++)
		text(number_x[j], y, "class=\"s\" text-anchor=\"end\"",
			metric[j] == "rss" ? "peak RSS" : metric[j] == "cpu" ? "CPU" : "time")
	for (i = 1; i <= columns; i++) {
		y += 21
		mark(i, x + 8, y - 4, 4.5)
		text(x + 22, y, (name[i] == "quarry" ? "class=\"b\"" : ""), xml(shortened(name[i])))
		for (j = 1; j <= n; j++)
			text(number_x[j], y, "text-anchor=\"end\"" (name[i] == "quarry" ? " class=\"b\"" : ""),
				mean(i, metric[j], "") > 0 ? sprintf("%.3f", mean(i, metric[j], "")) : "failed")
	}
}

# Labels stand to the right of their points (to the left at the right edge), and move down, and up again where the frame
# ends, until none covers another.
function scatter(x, y, w, h,    i, j, most_t, most_r, px, py, label_y, from_x, to_x, turned, order, t, n, tick, k) {
	n = 0
	most_t = most_r = 1.1
	for (i = 1; i <= columns; i++) {
		if (mean(i, "time", "") < 0 || mean(i, "rss", "") < 0)
			continue
		order[++n] = i
		most_t = mean(i, "time", "") > most_t ? mean(i, "time", "") : most_t
		most_r = mean(i, "rss", "") > most_r ? mean(i, "rss", "") : most_r
	}
	most_t *= 1.12
	most_r *= 1.05
	text(x, y - 14, "class=\"h\"", "Peak RSS against time: geometric means (lower left is better)")
	printf "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"#fff\" stroke=\"#ccc\"/>\n", x, y, w, h
	k = split("1 1.1 1.2 1.3 1.4 1.5 1.75 2 2.5 3 4 5 7 10", tick, " ")
	for (j = 1; j <= k; j++) {
		if (tick[j] <= most_t && (most_t < 2 || tick[j] !~ /^1\.[134]/)) {
			px = x + w * ln(tick[j]) / ln(most_t)
			line(px, y, px, y + h, "#e6e6e6", 1)
			text(px, y + h + 15, "class=\"s\" text-anchor=\"middle\"", tick[j])
		}
		if (tick[j] <= most_r && (most_r < 2 || tick[j] !~ /^1\.[134]/)) {
			py = y + h - h * ln(tick[j]) / ln(most_r)
			line(x, py, x + w, py, "#e6e6e6", 1)
			text(x - 6, py + 4, "class=\"s\" text-anchor=\"end\"", tick[j])
		}
	}
	text(x + w / 2, y + h + 32, "class=\"s\" text-anchor=\"middle\"", "time")
	text(x - 40, y + h / 2, sprintf("class=\"s\" text-anchor=\"middle\" transform=\"rotate(-90 %.1f %.1f)\"", x - 40,
		y + h / 2), "peak RSS")
	for (i = 1; i <= n; i++) {
		at_x[i] = x + w * ln(mean(order[i], "time", "")) / ln(most_t)
		at_y[i] = y + h - h * ln(mean(order[i], "rss", "")) / ln(most_r)
	}
	for (i = 2; i <= n; i++) # by height
		for (j = i; j > 1 && at_y[j] < at_y[j - 1]; j--) {
			t = at_y[j]; at_y[j] = at_y[j - 1]; at_y[j - 1] = t
			t = at_x[j]; at_x[j] = at_x[j - 1]; at_x[j - 1] = t
			t = order[j]; order[j] = order[j - 1]; order[j - 1] = t
		}
	for (i = 1; i <= n; i++) {
		t = width_of(shortened(name[order[i]])) * 0.9 + 10
		turned[i] = at_x[i] + t > x + w
		from_x[i] = turned[i] ? at_x[i] - t : at_x[i]
		to_x[i] = from_x[i] + t
		label_y[i] = at_y[i] + 4
		for (j = 1; j < i; j++)
			if (from_x[i] < to_x[j] && from_x[j] < to_x[i] && label_y[i] < label_y[j] + 13)
				label_y[i] = label_y[j] + 13
	}
	for (i = n; i >= 1; i--) {
		label_y[i] = label_y[i] > y + h - 5 ? y + h - 5 : label_y[i]
		for (j = i + 1; j <= n; j++)
			if (from_x[i] < to_x[j] && from_x[j] < to_x[i] && label_y[j] - label_y[i] < 13 && label_y[i] - label_y[j] < 13)
				label_y[i] = label_y[j] - 13
		t = turned[i]
		if (label_y[i] > at_y[i] + 8 || label_y[i] < at_y[i])
			line(at_x[i], at_y[i], at_x[i] + (t ? -7 : 7), label_y[i] - 4, "#bbb", 0.8)
		text(at_x[i] + (t ? -9 : 9), label_y[i], (t ? "text-anchor=\"end\" " : "") \
			(name[order[i]] == "quarry" ? "class=\"b\"" : "class=\"s\""), xml(shortened(name[order[i]])))
	}
	for (i = 1; i <= n; i++)
		mark(order[i], at_x[i], at_y[i], 5)
}

# ---- The rows ------------------------------------------------------------------------------------------------------------

# One row on one axis: the value of each allocator on a track of its own, so that none hides another. What is beyond the
# end stands there in numbers, as many as there is room for.
function beyond_end(i, what) {
	if (beyond_w + width_of(what) * 0.9 + 6 > beyond_room - 45) {
		beyond_more++
		return
	}
	beyond_w += width_of(what) * 0.9 + 6
	beyond = beyond sprintf("<tspan dx=\"6\" fill=\"%s\">%s</tspan>", colour[i], what)
}

function track(x, y, w, room, metric, r, which,    i, k, v) {
	beyond = ""
	beyond_w = beyond_more = 0
	beyond_room = room
	line(x, y, x + w, y, "#eee", 1)
	for (k = 1; k <= columns; k++) {
		i = columns + 1 - k # the first, quarry, over the others
		v = r == "" ? mean(i, metric, which) : ratio(i, r, metric)
		if (v <= 0) {
			beyond_end(i, "fail")
			continue
		}
		if (v > end_of[metric])
			beyond_end(i, sprintf("%.0f", v))
		mark(i, x + w * place(metric, v), y + (i - (columns + 1) / 2) * (columns > 7 ? 14 / columns : 2), 3.3)
	}
	if (beyond_more)
		beyond = beyond "<tspan dx=\"6\">+" beyond_more "</tspan>"
	if (beyond != "")
		text(x + w + 3, y + 4, "class=\"s b\"", beyond)
}

function two_tracks(label, r, which, class) {
	text(150, at + 4, "text-anchor=\"end\" class=\"" class "\"", xml(label))
	track(left_x, at, track_w, right_x - left_x - track_w, "time", r, which)
	track(right_x, at, track_w, 1160 - right_x - track_w, "rss", r, which)
	at += 23
}

function axes(from, to,    j, n, list, m, metric, x, part, tick_x) {
	split("time rss", part, " ")
	for (m = 1; m <= 2; m++) {
		metric = part[m]
		x = m == 1 ? left_x : right_x
		text(x, from - 24, "class=\"h\"", m == 1 ? "Time, ratio to the best" : "Peak RSS, ratio to the best")
		n = ticks(metric, list)
		for (j = 1; j <= n; j++) {
			tick_x = x + track_w * place(metric, list[j])
			line(tick_x, from, tick_x, to, list[j] == 1 ? "#999" : "#e2e2e2", 1)
			text(tick_x, from - 6, "class=\"s\" text-anchor=\"middle\"", list[j])
		}
	}
}

function heading(what) {
	at += 6
	text(20, at + 4, "class=\"h\"", what)
	at += 23
}

END {
	begin()
	choose_colours()
	left_x = 165
	right_x = 700
	track_w = 370
	find_end("time")
	find_end("rss")
	top = 100
	scatter_h = columns * 21 > 250 ? columns * 21 : 250
	at = top + scatter_h + 105
	first = at
	lines = groups
	for (i = 1; i <= rows; i++)
		lines += in_mean(i, "") > 0
	height = first + (lines + 1) * 23 + (groups + 1) * 29 + 40
	printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1160\" height=\"%d\" viewBox=\"0 0 1160 %d\" ", height, height
	print "font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"13\" fill=\"#222\">"
	print "<style>.h{font-weight:600;font-size:14px}.b{font-weight:700}.s{font-size:11.5px;fill:#555}</style>"
	printf "<rect width=\"1160\" height=\"%d\" rx=\"8\" fill=\"#fbfbf9\"/>\n", height
	text(20, 32, "font-size=\"18\" font-weight=\"600\"", "Allocators: time and peak memory")
	text(20, 52, "class=\"s\"", xml(title))
	text(20, 68, "class=\"s\"", xml(machine))
	means_table(20, top - 4)
	scatter(480, top + 10, 560, scatter_h)
	axes(first, height - 30)
	heading("Means")
	if (groups > 1)
		two_tracks("all", "", "", "b")
	for (g = 1; g <= groups; g++)
		two_tracks(group_name[g], "", group_name[g], "")
	for (g = 1; g <= groups; g++) {
		heading(group_name[g])
		for (j = 1; j <= rows; j++)
			if (group[j] == group_name[g])
				two_tracks(row[j], row[j], "", "")
	}
	text(20, height - 10, "class=\"s\"", "Ratios beyond the end of an axis stand to its right, in the allocator's colour; +N are so many more.")
	print "</svg>"
}
