# SPDX-License-Identifier: MIT
# From the raw figures of bench/memory.sh, after figures.awk, the tables, in markdown, and the promises. -v columns, rows and
# extras are lists of names; hand is what update is compared with. Peers are all that is not quarry's nor named by the user
# (extras).

# A metric of a table is "metric:heading:format"; a time in ns is printed in us where its format is "us".
function show(row, name, metric, format) {
	if (!has(row, name, metric))
		return " |"
	if (format == "us")
		return sprintf(" %.2f |", get(row, name, metric) / 1000)
	return sprintf(" " format " |", get(row, name, metric))
}

function table(title, row, list,    i, j, n, m, part, line) {
	if (!((" " rows " ") ~ (" " row " ")))
		return
	print "\n## " title "\n"
	n = split(list, metric, " ")
	line = "| |"
	for (j = 1; j <= n; j++) {
		split(metric[j], part, ":")
		gsub(/_/, " ", part[2])
		line = line " " part[2] " |"
	}
	print line
	gsub(/[^|]+/, "---:", line)
	sub(/---:/, "---", line)
	print line
	for (i = 1; i <= columns_count; i++) {
		if (!ran(row, name[i]))
			continue
		line = "| " name[i] " |"
		if ((row, name[i]) in fail) {
			print line " FAIL |"
			continue
		}
		for (j = 1; j <= n; j++) {
			split(metric[j], part, ":")
			line = line show(row, name[i], part[1], part[3])
		}
		print line
	}
}

function is_peer(i) {
	return name[i] !~ /^quarry/ && !((" " extras " ") ~ (" " name[i] " "))
}

# The peer with the least of a metric, in best_name; -1 when there is none.
function best_peer(row, metric,    i, v, best) {
	best = -1
	best_name = "-"
	for (i = 1; i <= columns_count; i++) {
		v = get(row, name[i], metric)
		if (is_peer(i) && v >= 0 && (best < 0 || v < best)) {
			best = v
			best_name = name[i]
		}
	}
	return best
}

# RSS a second after against the pages that hold a live object.
function spike(row, names, what, floor,    i, n, list) {
	n = split(names, list, " ")
	for (i = 1; i <= n; i++)
		if (has(row, list[i], floor))
			promise(what ", 1 s after, " list[i] ", MiB", get(row, list[i], "rss1s"),
				get(row, list[i], floor) * 1.1 + 8, "%.0f", "the pages of live objects, 10 % and 8 MiB")
}

function store(row, what,    i, p) {
	split("peak resting refilled", stage, " ")
	for (i = 1; i <= 3; i++) {
		p = best_peer(row, stage[i])
		promise(what ", " stage[i] ", MiB", get(row, "quarry", stage[i]), p, "%.0f", best_name)
	}
	if (has(row, "quarry", "huge"))
		verdict(what ", share in huge pages at the peak", sprintf("%.0f %%", get(row, "quarry", "huge")), "at least 90 %",
			get(row, "quarry", "huge") >= 90)
}

function latency(metric, what) {
	promise("busy after the spike: " what " of a malloc or free, first 2 s, us", get("busy", "quarry", metric) / 1000,
		get("control", "quarry", metric) / 1000, "%.2f", "without a spike")
}

function touches(against) {
	if (!has("touch", against, "page.p999") || !has("touch", "quarry", "page.p999"))
		return
	promise("first touches of large blocks, p99.9, us", get("touch", "quarry", "page.p999") / 1000,
		(get("touch", against, "page.p999") + get("touch", "quarry", "zero.p50")) / 1000, "%.1f", "base pages, and the zeroing of a huge page")
}

END {
	columns_count = split(columns, name, " ")
	figures = "peak:peak:%.0f floor:pages_of_live_objects:%.0f"
	looks = " rss0.1s:0.1_s:%.0f rss0.3s:0.3_s:%.0f rss1s:1_s:%.0f rss3s:3_s:%.0f rss10s:10_s:%.0f"
	calls = " call.p50:p50:us call.p99:p99:us call.p999:p99.9:us call.p9999:p99.99:us call.max:max:us"
	table("Random update of a table of 1 GiB (beside it: " hand ")", "update",
		"each:ns_each:%.1f hand:beside_it:%.1f ratio:ratio:%.3f huge:THP_%:%.0f got.2m:hugetlb_%:%.0f rss:RSS_MiB:%.0f time:s_to_touch:%.2f")
	table("Chase of 4 M nodes of 64 bytes", "chase", "hop:ns_per_hop:%.1f rss:RSS_MiB:%.1f huge:in_huge_pages_%:%.0f time:s_to_make:%.2f")
	table("First touches of blocks of 4 to 64 MiB: us", "touch",
		"page.p50:p50:us page.p99:p99:us page.p999:p99.9:us page.p9999:p99.99:us page.max:max:us zero.p50:zeroing_of_a_huge_page,_p50:us zero.p99:p99:us call.p50:malloc_and_free,_p50:us call.p99:p99:us time:s:%.2f")
	table("After a spike of 1.5 GiB, idle, one thread: RSS, MiB", "shrink", figures looks " time:s:%.2f")
	table("The same by 4 threads, which then sleep: RSS, MiB", "shrink4", figures looks " time:s:%.2f")
	table("The same, and the process goes on allocating: RSS, MiB; single calls in the first 2 s, us", "busy",
		"floor1s:pages_of_live_objects:%.0f rss1s:1_s:%.0f rss3s:3_s:%.0f rss10s:10_s:%.0f" calls " touch.p999:touch_p99.9:us")
	table("The control: as busy, without the spike", "control",
		"floor1s:pages_of_live_objects:%.0f rss1s:1_s:%.0f rss3s:3_s:%.0f rss10s:10_s:%.0f" calls " touch.p999:touch_p99.9:us")
	stages = " resting:90_%_deleted,_2_s:%.0f refilled:refilled:%.0f"
	table("Keys and values in one process: RSS, MiB", "churn",
		"peak:peak:%.0f set:set:%.0f overwritten:overwritten:%.0f deleted:90_%_deleted:%.0f resting:2_s_later:%.0f refilled:refilled:%.0f refilled2s:2_s_later:%.0f huge:in_huge_pages_at_the_peak_%:%.0f time:s:%.2f")
	redis = "peak:peak:%.0f set:set:%.0f overwritten:overwritten:%.0f resting:90_%_deleted:%.0f refilled:refilled:%.0f huge:in_huge_pages_at_the_peak_%:%.0f work:s:%.2f"
	table("redis-server, 2 s after each stage: RSS, MiB", "redis", redis)
	table("redis-server, the keys drawn by redis-benchmark: RSS, MiB", "redisrand", redis)

	print "\n## What was promised\n"
	verdict_head()
	if (has("update", "quarry", "ratio"))
		promise("random update on a malloc of 1 GiB, ratio", get("update", "quarry", "ratio"), 1.02, "%.3f", hand)
	if (has("update", "quarry-arena-2m", "ratio"))
		promise("the same in an arena of `2m`, ratio", get("update", "quarry-arena-2m", "ratio"), 1.02, "%.3f", hand)
	p = best_peer("chase", "hop")
	promise("chase, ns per hop", get("chase", "quarry", "hop"), p * 1.02, "%.1f", best_name " and 2 %")
	p = best_peer("chase", "rss")
	promise("chase, RSS, MiB", get("chase", "quarry", "rss"), p * 1.03, "%.1f", best_name " and 3 %")
	spike("shrink", "quarry quarry-thp quarry-base", "spike, idle", "floor")
	if (has("shrink", "quarry", "rss1s"))
		promise("spike, idle, 1 s after, quarry, MiB", get("shrink", "quarry", "rss1s"), 140, "%.0f")
	spike("shrink4", "quarry quarry-thp quarry-base", "spike by 4 threads, idle", "floor")
	spike("busy", "quarry quarry-thp quarry-base", "spike, then busy", "floor1s")
	if (has("busy", "quarry", "call.p999") && has("control", "quarry", "call.p999"))
		latency("call.p999", "p99.9")
	store("churn", "keys and values")
	store("redis", "redis-server")
	store("redisrand", "redis-server by redis-benchmark")
	touches("quarry-base")
}
