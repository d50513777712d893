#!/bin/bash
# SPDX-License-Identifier: MIT
# redis-server, loaded by redis-benchmark and by commands made from a seed. What is in the server after them (DEBUG
# DIGEST), after a save in a forked child and after reading that back, is the same as without the library.
. "$(dirname "$0")/lib.sh"
need redis-server redis-server
need redis-benchmark redis-tools
need redis-cli redis-tools

export commands=$work/commands
awk -v n="$(quick 20000 100000)" '
	function say(s,   a, m, i) {
		m = split(s, a, " ")
		printf "*%d\r\n", m
		for (i = 1; i <= m; i++)
			printf "$%d\r\n%s\r\n", length(a[i]), a[i]
	}
	function rnd(m) { x = (x * 16807) % 2147483647; return x % m }
	BEGIN {
		x = 99
		long = "x"
		while (length(long) < 20000)
			long = long long
		for (i = 0; i < n; i++) {
			k = rnd(n / 4)
			v = "value-" rnd(1000000)
			c = rnd(10)
			if (c == 0) say("SET string:" k " " substr(long, 1, 1 + rnd(rnd(50) ? 200 : 20000)) v)
			else if (c == 1) say("APPEND string:" k " " v)
			else if (c == 2) say("HSET hash:" k % 500 " field:" k " " v)
			else if (c == 3) say("ZADD zset:" k % 500 " " k " " v)
			else if (c == 4) say("SADD set:" k % 500 " " v)
			else if (c == 5) say("RPUSH list:" k % 500 " " v " " v)
			else if (c == 6) say("LPOP list:" k % 500)
			else if (c == 7) say("DEL string:" rnd(n / 4))
			else if (c == 8) say("HDEL hash:" k % 500 " field:" rnd(n / 4))
			else say("INCRBY counter:" k % 100 " " rnd(50))
		}
	}' >"$commands"

# The server listens on a socket in the folder only. It is ended by SHUTDOWN, or by its id.
server() {
	local cli="redis-cli -s $PWD/s" pid i status=1
	redis-server --port 0 --unixsocket "$PWD/s" --save '' --appendonly no --dir "$PWD" --daemonize no \
		--enable-debug-command local --activerehashing yes --io-threads 2 --logfile "$PWD/log" &
	pid=$!
	for i in $(seq 600); do
		[ "$($cli ping 2>/dev/null)" = PONG ] && break
		kill -0 $pid 2>/dev/null || { cat log; return 1; }
		sleep 0.05
	done
	with_server && status=0
	if [ -n "${LD_PRELOAD:-}" ] && ! grep -q "${LD_PRELOAD##*/}" /proc/$pid/maps; then
		echo "the library is not in the server"
		status=1
	fi
	$cli shutdown nosave >/dev/null 2>&1 || kill $pid
	wait $pid
	[ $status -eq 0 ] || tail -n 20 log
	return $status
}
with_server() {
	local cli="redis-cli -s $PWD/s" requests
	requests=$(quick 5000 40000)
	$cli --pipe <"$commands" | grep -E 'errors' || return 1
	$cli debug digest || return 1
	redis-benchmark -s "$PWD/s" -q -n "$requests" -c 20 -P 4 -r 10000 -d 100 \
		-t set,get,incr,lpush,rpush,lpop,sadd,hset,zadd,lrange_100,mset >benchmark 2>&1 || { cat benchmark; return 1; }
	# What the benchmark left is random; that each of its requests came through is not.
	[ "$(tr '\r' '\n' <benchmark | grep -c 'requests per second')" -ge 11 ] || { cat benchmark; return 1; }
	$cli eval "local n = 0; for _, k in ipairs(redis.call('keys', 'counter:??????????*')) do
		n = n + redis.call('get', k) end; return n == $requests" 0
	$cli flushall
	$cli --pipe <"$commands" | grep -E 'errors' || return 1
	$cli debug digest
	$cli save
	$cli debug reload
	$cli debug digest
	$cli bgsave >/dev/null
	while $cli info persistence | grep -q 'rdb_bgsave_in_progress:1'; do sleep 0.05; done
	$cli info persistence | grep -o 'rdb_last_bgsave_status:[a-z]*'
	$cli bgrewriteaof >/dev/null
	while $cli info persistence | grep -qE 'aof_rewrite_(in_progress|scheduled):1'; do sleep 0.05; done
	$cli info persistence | grep -o 'aof_last_bgrewrite_status:[a-z]*'
	$cli eval 'for i = 1, 20000 do redis.call("set", "lua:" .. i, string.rep("y", i % 500)) end
		return redis.call("dbsize")' 0
	$cli dbsize
	$cli debug digest
}
export -f with_server

bound redis-server --version
both server
