#!/bin/bash
# SPDX-License-Identifier: MIT
# The example examples/cache, a key-value cache in a heap that processes share: what it answers, what goes when it is full or its time is over;
# four processes at work, killed at random moments: nothing that was acknowledged is lost, nothing is torn; a worker that is killed and
# started anew by a supervisor finds all that was there, and so does another build of it.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/cache.sh [SEED]
# CACHE_KILLS: how many processes are killed (60).
set -u
export LC_ALL=C
unset QUARRY_OPTIONS LD_PRELOAD CACHE_FD
# What a sanitizer finds is another status than the program's own.
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}exitcode=99 UBSAN_OPTIONS=${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}exitcode=99

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}
library=$build/.libs/libquarry.so
quarry=$build/quarry
seed=${1:-$RANDOM}
kills=${CACHE_KILLS:-60}
if [[ ! -e $library || ! -x $quarry ]]; then
	echo "cache.sh: $library or $quarry is not built"
	exit 99
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/quarry-cache.XXXXXX") || exit 99
started=()
end() {
	for pid in "${started[@]}"; do
		kill -9 "$pid" 2>/dev/null
	done
	wait 2>/dev/null
	rm -rf "$work"
}
trap end EXIT
. "$src/tests/checks.sh"
compile() { # compile NAME FLAGS... : the program; or, with a file of C among them that has it all, that
	local name=$1 files=("$src"/examples/cache/*.c)
	shift
	[[ $* != *.c* ]] || files=("$src"/examples/cache/{store,supervise}.c)
	"${CC:-cc}" -std=gnu11 -g -Wall -Wextra -Werror -I"$src/include" -I"$src/examples/cache" "$@" -o "$work/$name" "${files[@]}" "$library" \
		-Wl,-rpath,"$(cd "${library%/*}" && pwd)"
}
compile plain -O2 || exit 1
compile other -O0 || exit 1
programs=(plain)
cd "$work" || exit 99
echo 'int main(void) { return 0; }' >try.c
if "${CC:-cc}" -fsanitize=address,undefined -o try try.c 2>/dev/null && ./try; then
	(cd "$OLDPWD" && compile checked -O1 -fsanitize=address,undefined -fno-sanitize-recover=all) || exit 1
	programs+=(checked)
else
	echo "SKIP: ${CC:-cc} has no AddressSanitizer here"
fi
echo "cache.sh: SEED=$seed"
RANDOM=$seed

program=plain
cache() { # into out, err and $status
	timeout 60 "./$program" "$@" >out 2>err </dev/null
	status=$?
}
said() { is "$(cat out)" "$1" && is "$status" "${2:-0}"; }
stat_of() { sed -n "s/^$1 //p" out; }
at_most() { [[ $1 -le $2 ]] || { echo "    $1 is more than $2"; return 1; }; }
until_it() { # until_it COMMAND...: a minute at most
	local n
	for ((n = 0; n < 6000; n++)); do
		"$@" && return 0
		sleep 0.01
	done
	return 1
}

# ---- one at a time --------------------------------------------------------------------------------------------
for program in "${programs[@]}"; do
	f=file.$program
	for what in "get nothing" "del nothing" "ttl nothing" list info; do
		cache "$f" $what   # shellcheck disable=SC2086
		check "$program: where there is none, ${what%% *} is told, and makes none" said "" 2
		check "$program: and no file is there" test ! -e "$f"
	done
	for what in "fill many" "fill -1" "fill 1 many" "incr n many" "incr n 1k"; do
		cache "$f" $what   # shellcheck disable=SC2086
		check "$program: $what is no number" said "" 2
	done
	cache "$f" get nothing
	check "$program: a new one has nothing" said "" 1
	check "$program: it is its owner's alone" is "$(stat -c %a "$f")" 600
	cache "$f" set name value
	cache "$f" get name
	check "$program: set and get" said value
	cache "$f" set name "another value"
	cache "$f" get name
	check "$program: set again" said "another value"
	cache "$f" set '' ''
	cache "$f" get ''
	check "$program: empty ones" said ""
	cache "$f" incr n
	check "$program: incr of nothing" said 1
	cache "$f" incr n -43
	check "$program: incr" said -42
	cache "$f" incr name
	check "$program: incr of no number" is $status 2
	cache "$f" set n 9223372036854775807
	cache "$f" incr n
	check "$program: incr of the largest" is $status 2
	cache "$f" get n
	check "$program: which stays" said 9223372036854775807
	long=$(printf '%01025d' 0)
	cache "$f" set "$long" x
	check "$program: a key that is too long" is $status 2
	cache "$f" set "${long:1}" x
	cache "$f" get "${long:1}"
	check "$program: the longest key" said x
	cache "$f" del "${long:1}" ''
	check "$program: del" said ""
	cache "$f" del name none
	check "$program: del of what is not there" said "" 1
	cache "$f" set $'a\e[31m' $'b\nc'
	cache "$f" list a
	check "$program: list, and nothing that a terminal obeys" said 'a\x1b[31m	b\x0ac'
	cache "$f" set timed x 1000
	cache "$f" ttl timed
	check "$program: ttl" grep -qE '^(99[0-9]{4}|1000000)$' out
	cache "$f" ttl n
	check "$program: no ttl" said 0
	cache "$f" set short x 0.001
	is_over() { cache "$f" get short; [[ $status == 1 ]]; }
	check "$program: what has had its time is gone" until_it is_over
	cache "$f" info
	check "$program: and was counted" is "$(stat_of expired)" 1
	check "$program: entries" is "$(stat_of entries)" 3
	check "$program: locks of the dead" is "$(stat_of died_with_a_shard)" 0
	printf '%s\n' "set k the rest of a line" "get k" "get none" "del k" "nonsense" >commands
	"./$program" "$f" serve <commands >out 2>err
	status=$?
	check "$program: serve" said $'ok\nthe rest of a line\nok\nnone\nok\nerror'
	printf '%s\n' 'verify 0 none/1' 'verify 0 none/1 none/2 none/3 none/4 none/5 none/6' >commands
	timeout 60 "./$program" "$f" serve <commands >out 2>err
	status=$?
	check "$program: words end where they end" said $'1 processes, 0 keys, 0 counted: LOST\nnone\n6 processes, 0 keys, 0 counted: LOST\nnone'
	cache "$f" set stays x
	{ printf 'set k %0*d' $(((1 << 20) + 1024 + 64 - 1 - 6)) 0; printf 'del stays\n%s\n' "get stays"; } >commands
	"./$program" "$f" serve <commands >out 2>err
	status=$?
	check "$program: no part of a line that is too long is a command" said $'error\nx\nok'
	{ printf del; printf ' %d' {1..70}; echo; } >commands
	"./$program" "$f" serve <commands >out 2>err
	status=$?
	check "$program: nor is one of too many words" said error
	cache --limit 1k "$f" info
	check "$program: a limit that is too small" is $status 2
	cache "$f" nonsense
	check "$program: no such command" is $status 2

	# Not larger than it may be; what is used stays, what was not goes.
	cache --limit 1m small.$program set hot stays
	for ((i = 0; i < 20000; i++)); do
		printf 'set cold-%d %0200d\nget hot\n' $i $i
	done >commands
	"./$program" small.$program serve <commands >out 2>err
	check "$program: what is used stays" is "$(grep -c '^stays$' out)" 20000
	check "$program: all was set" is "$(grep -c '^error$' out)" 0
	cache small.$program info
	check "$program: the limit" at_most "$(stat_of bytes)" 1048576
	check "$program: it is nearly full" at_most 800000 "$(stat_of bytes)"
	check "$program: others went" at_most 12000 "$(stat_of evicted)"
	cache small.$program set large "$(printf '%070000d' 0)"
	check "$program: what is larger than a shard may be" is $status 2
	"$quarry" heap check small.$program >out 2>err
	check "$program: its heap is whole" is $? 0
done

# ---- what is no cache -----------------------------------------------------------------------------------------
echo text >text
cache text get x
check "a text is no cache" is $status 2
head -c 1000000 file.plain >cut
cache cut get x
check "nor is half of one" is $status 2
cache none/none get x
check "nor what cannot be made" is $status 2
cache @none get x
check "no supervisor" is $status 2
cache @fd get x
check "no descriptor" is $status 2
# Chains that go in a circle; a count that cannot be, too.
cat >bend.c <<'END'
#include <stdio.h>
#include "../store.c"
/* bend FILE [COUNT]: prints a key that is not there, and is looked for in the circle. */
int main(int argc, char **argv)
{
	struct cache *c = cache_open(argv[1], 1 << 20);
	uint64_t hash = hash_of("x", 1), mask = c->head->buckets - 1;
	struct seen e;
	char key[32];
	size_t n;

	cache_set(c, "x", 1, "y", 1, 0);
	if (!entry_at(c, c->head->table[hash & mask], &e))
		return 1;
	e.at->next = quarry_mapped_off(c->heap, e.at);
	if (argc > 2)
		c->head->shards[(hash & mask) % SHARDS].count = strtoull(argv[2], NULL, 0);
	for (unsigned i = 0;; i++) {
		n = (size_t)sprintf(key, "k%u", i);
		if ((hash_of(key, n) & mask) == (hash & mask))
			break;
	}
	puts(key);
	cache_close(c);
	return 0;
}
END
sed -i "s#\"../store.c\"#\"$src/examples/cache/store.c\"#" bend.c
"${CC:-cc}" -std=gnu11 -g -I"$src/include" -I"$src/examples/cache" -o bend bend.c "$src/examples/cache/supervise.c" "$library" \
	-Wl,-rpath,"$(cd "${library%/*}" && pwd)" || exit 1
for count in 1 0xffffffffffffffff; do
	for command in get del "set KEY y" list "--limit 1m fill 5000 1000"; do
		rm -f circle
		key=$(./bend circle $count)
		case $command in
		get | del) cache circle "$command" "$key" ;;
		set*) cache circle set "$key" y ;;
		list) cache circle list ;;
		*) cache circle fill 5000 1000 ;;
		esac
		# (What is put there may come by no circle, and what is swept may have been.)
		[[ $command == *fill* ]] && check "fill comes to an end in a circle of $count" is $((status == 0 || status == 2)) 1 ||
			check "$command sees a circle of $count" is $status 2
	done
done
# Another process writes other lengths, and another number of buckets, when they have just been checked.
cat >change.c <<'END'
#include <quarry/mapped.h>
static void *checked(const quarry_mapped *heap, quarry_off off, size_t n);
#define quarry_mapped_ptr checked
#include "../store.c"
#undef quarry_mapped_ptr
#include <assert.h>

static quarry_off entry;
static struct entry was;

static void *checked(const quarry_mapped *heap, quarry_off off, size_t n)
{
	struct entry *e = quarry_mapped_ptr(heap, off, n);

	if (e && off == entry && n > sizeof(*e))
		e->key_len = e->value_len = 0xffffffff;
	return e;
}

static void one(void *ctx, const char *key, size_t key_len, const char *value, size_t value_len, uint64_t left)
{
	*(unsigned *)ctx += key_len == 1 && *key == 'n' && value_len == 2 && memcmp(value, "12", 2) == 0 && left == 0;
}

static void restore(struct cache *c)
{
	memcpy(quarry_mapped_at(c->heap, entry), &was, sizeof(was));
}

int main(void)
{
	struct cache *c = cache_volatile(1 << 20);
	uint64_t hash = hash_of("n", 1);
	char value[4] = "";
	unsigned seen = 0;
	int64_t n;

	assert(cache_set(c, "n", 1, "12", 2, 0) == 0);
	c->head->buckets = (uint64_t)1 << 40;
	entry = c->head->table[hash & (c->buckets - 1)];
	memcpy(&was, quarry_mapped_at(c->heap, entry), sizeof(was));
	assert(cache_get(c, "n", 1, value, sizeof(value)) == 2 && strcmp(value, "12") == 0);
	restore(c);
	assert(cache_each(c, one, &seen) == 0 && seen == 1);
	restore(c);
	assert(cache_ttl(c, "n", 1) == 0);
	restore(c);
	assert(cache_incr(c, "n", 1, 30, &n) == -1 && errno == EUCLEAN && n == 42); /* (what it adds to it was read once) */
	cache_close(c);
	return 0;
}
END
sed -i "s#\"../store.c\"#\"$src/examples/cache/store.c\"#" change.c
"${CC:-cc}" -std=gnu11 -g -I"$src/include" -I"$src/examples/cache" -o change change.c "$src/examples/cache/supervise.c" "$library" \
	-Wl,-rpath,"$(cd "${library%/*}" && pwd)" || exit 1
timeout 60 ./change >out 2>err
check "what was checked is what is used, whatever others write there" is $? 0
crashed=0
for ((i = 0; i < 12; i++)); do
	cp small.checked bent 2>/dev/null || cp small.plain bent
	for ((n = 0; n < 60; n++)); do
		printf "\\x$(printf %x $((RANDOM % 256)))" |
			dd of=bent bs=1 seek=$(((2 << 20) + 9 * 65536 + (RANDOM * 32768 + RANDOM) % 400000)) conv=notrunc status=none
	done
	program=${programs[-1]}
	for command in list "get cold-19000" "set x y" "del cold-19001" "fill 300" info; do
		# shellcheck disable=SC2086
		cache bent $command
		[[ $status -le 2 ]] || { crashed=$((crashed + 1)); echo "    $command: $status"; cp err "err.$crashed"; }
	done
done
check "what is bent is refused, or read (SEED=$seed)" is $crashed 0
program=plain

# ---- one that cannot be made, and one that many make -----------------------------------------------------------
mkdir full
(trap '' XFSZ; ulimit -f 3000; exec ./plain full/cache set a b) >out 2>err
check "no room for it" is $? 2
check "leaves nothing" is "$(ls full)" ""
cat >many.c <<'END'
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "store.h"

static const char *path;
static pthread_barrier_t all;

static void *make(void *ctx)
{
	struct cache *c;
	int64_t n;

	(void)ctx;
	pthread_barrier_wait(&all);
	c = cache_open(path, 1 << 20);
	if (!c || cache_incr(c, "n", 1, 1, &n) != 0) {
		perror("cache");
		exit(1);
	}
	pthread_barrier_wait(&all);
	cache_close(c);
	return NULL;
}

/* many FILE: eight threads make it at once, and each has the one that there is. */
int main(int argc, char **argv)
{
	char value[8] = "";

	path = argv[argc - 1];
	pthread_barrier_init(&all, NULL, 8);
	for (int round = 0; round < 40; round++) {
		pthread_t t[8];
		struct cache *c;

		for (int i = 0; i < 8; i++)
			pthread_create(&t[i], NULL, make, NULL);
		for (int i = 0; i < 8; i++)
			pthread_join(t[i], NULL);
		c = cache_open(path, 1 << 20);
		cache_get(c, "n", 1, value, sizeof(value) - 1);
		cache_close(c);
		unlink(path);
		if (atoi(value) != 8) {
			printf("round %d: %s of 8\n", round, value);
			return 1;
		}
	}
	return 0;
}
END
(cd "$OLDPWD" && compile many -O2 -pthread "$work/many.c") || exit 1
timeout 120 ./many full/cache >out 2>err
check "of eight threads that make it at once, all have the same" is $? 0
check "and nothing else is left" is "$(ls full)" ""

# ---- what a log says ------------------------------------------------------------------------------------------
mkdir told
wrong=0 sets=0 counts=0
for ((ops = 1160; ops < 1200; ops++)); do
	rm -f one
	./plain one stress 7 $ops >told/7
	cache one verify 0 told/7
	[[ $status == 0 ]] || { wrong=$((wrong + 1)); echo "    $ops: all is told, and is not believed"; }
	last=$(tail -n 1 told/7)
	sed -i '$d' told/7
	cache one verify 1 told/7
	[[ $status == 0 ]] || { wrong=$((wrong + 1)); echo "    $ops: it was in '$last', and may have been"; }
	case $last in
	s*) sets=$((sets + 1)) ;;
	i) counts=$((counts + 1)) ;;
	*) continue ;;
	esac
	cache one verify 0 told/7
	[[ $status == 1 ]] || { wrong=$((wrong + 1)); echo "    $ops: nobody was killed, and '$last' was not told"; }
	sed -i '$d' told/7
	cache one verify 9 told/7
	[[ $status == 1 ]] || { wrong=$((wrong + 1)); echo "    $ops: two are not told"; }
done
check "the call that a killed process was in, and no other, may be done" is $wrong 0
check "(of both kinds)" at_most 2 "$((sets < counts ? sets : counts))"
rm one
./plain one stress 7 900 >told/7
sed -n '/^i$/d; $d; s/^s \([0-9]*\) .*/\1/p' told/7 >kept
cache one list s7-
key=$(sed -n '1s/\t.*//p' out)
cp one lost
cache lost del "$key"
cache lost verify 9 told/7
check "a key that is gone is seen" is $status 1
cp one lost
cache lost incr total -1
cache lost verify 9 told/7
check "one count that is gone is seen" is $status 1
cp one lost
cache lost incr total
cache lost verify 9 told/7
check "one too many is seen where nobody was counting" is $status 1

./plain --limit 64k tiny stress 7 5000 >told/7
cache tiny verify 0 told/7
check "where entries went, nothing is said to be lost" is $status 2
check "but that they went" grep -q 'it was full, and [1-9][0-9]* entries went' err

# ---- four processes, and kill -9 ------------------------------------------------------------------------------
mkdir logs
declare -A running=()
next=1
begin() {
	./plain shared stress $next >logs/$next 2>err.$next &
	running[$!]=$next
	started+=($!)
	next=$((next + 1))
}
# (What a process puts there is some 200 KiB: nothing is to go.)
./plain --limit $((64 + kills))m shared set kept "from the beginning"
for _ in 1 2 3 4; do
	begin
done
for ((i = 0; i < kills; i++)); do
	pids=("${!running[@]}")
	pid=${pids[RANDOM % 4]}
	until_it test -s "logs/${running[$pid]}" || check "process ${running[$pid]} works" false
	sleep "0.0$((RANDOM % 100 + 100))"
	kill -9 "$pid" || check "process ${running[$pid]} was there to be killed" false
	wait "$pid" 2>/dev/null
	unset "running[$pid]"
	begin
done
for pid in "${!running[@]}"; do
	until_it test -s "logs/${running[$pid]}"
	kill -9 "$pid" || check "process ${running[$pid]} was there to be killed" false
	wait "$pid" 2>/dev/null
done 2>/dev/null
started=()
check "nobody read what nobody wrote" is "$(cat err.[0-9]* | wc -l)" 0
cache shared verify $((kills + 4)) logs/*
check "all that was acknowledged is there (SEED=$seed)" is $status 0
echo "cache.sh: $(cat out), $(cat logs/* | wc -l) acknowledged"
cache shared get kept
check "what was there before is" said "from the beginning"
cache shared info
check "their deaths were seen" is "$(stat_of died)" $((kills + 4))
echo "cache.sh: $(stat_of died_with_a_shard) of $(stat_of died) died with a shard's lock"
entries=$(stat_of entries)
cache shared list
check "list tells of all" is "$(wc -l <out)" "$entries"
"$quarry" heap check shared >out 2>err
check "the heap is whole" is $? 0
objects=$("$quarry" heap info --json shared | sed -E 's/.*"free_bytes":[0-9]+,"objects":([0-9]+),.*/\1/')
check "nothing was leaked" is "$objects" $((entries + 1))
"$quarry" heap dump -o dump shared >out 2>err && "$quarry" heap restore -i dump copy >out 2>err
check "it can be dumped and restored" is $? 0
cache copy verify $((kills + 4)) logs/*
check "and the copy has it all" is $status 0

# ---- warm restart ---------------------------------------------------------------------------------------------
cat >worker <<'END'
#!/bin/bash
n=$(./plain @fd incr starts)
./plain @fd set "by $n" "$$"
echo $$ >"worker.$n"
exec ./plain @fd serve <hold
END
chmod +x worker
mkfifo hold
exec 9<>hold
./plain --limit 4m supervise socket ./worker >supervisor 2>err &
supervisor=$!
started=("$supervisor")
check "a supervisor" until_it grep -q holding supervisor
for n in 1 2 3; do
	check "worker $n" until_it test -s worker.$n
	cache @socket get "by $n"
	check "worker $n put something there" said "$(cat worker.$n)"
	kill -9 "$(cat worker.$n)"
done
check "worker 4" until_it test -s worker.4
cache @socket list by
check "all workers' things are there" is "$(wc -l <out)" 4
cache @socket info
check "what was started is no death" at_most "$(stat_of died)" 3
program=other
cache @socket get "by 1"
check "for a new build of the program, too" said "$(cat worker.1)"
cache @socket set new build
program=plain
cache @socket get new
check "and what that put there for the old one" said build
check "the socket is its owner's alone" is "$(stat -c %a socket)" 700
check "so is its lock" is "$(stat -c %a socket.lock)" 600
timeout 60 ./plain --limit 4m supervise socket >out 2>err
check "there is one supervisor at a place" is $? 1
cache @socket get new
check "which is the one that was there" said build
kill "$supervisor"
wait "$supervisor"
check "the supervisor ends" is $? 0
started=()
cache @socket get new
check "and with it all" is $status 2
check "its socket is gone" test ! -e socket
check "and its lock" test ! -e socket.lock

# Workers and clients that work, killed at random moments: all of it is there for those who come after them.
mkdir warm
cat >busy <<'END'
#!/bin/bash
n=$(./plain @fd incr starts)
echo $$ >"warm.$n"
[[ -e enough ]] && exec ./plain @fd serve <hold
exec ./plain @fd stress "$n" >"warm/$n" 2>"warm.err.$n"
END
chmod +x busy
warm=$((kills / 2 > 100 ? 100 : kills / 2)) # (a supervisor gives up where a hundred die at once)
./plain --limit $((64 + 2 * warm))m supervise socket ./busy >supervisor 2>err &
supervisor=$!
started=("$supervisor")
check "a supervisor of who works" until_it grep -q holding supervisor
clients=()
client() { # client N: one that has the memory from the socket
	./plain @socket stress $((1000 + $1)) >"warm/$((1000 + $1))" 2>"warm.err.$((1000 + $1))" &
	clients+=($!)
	started+=($!)
}
client 0
worker=1
for ((i = 0; i < warm; i++)); do
	check "worker $worker works" until_it test -s "warm/$worker"
	check "client $i works" until_it test -s "warm/$((1000 + i))"
	sleep "0.0$((RANDOM % 100 + 100))"
	kill -9 "$(cat warm.$worker)" || check "worker $worker was there to be killed" false
	worker=$((worker + 1))
	kill -9 "${clients[i]}" || check "client $i was there to be killed" false
	wait "${clients[i]}" 2>/dev/null
	client $((i + 1))
done 2>/dev/null
for log in "warm/$worker" "warm/$((1000 + warm))"; do
	check "the last ones work" until_it test -s "$log"
done
touch enough
kill -9 "$(cat warm.$worker)" "${clients[warm]}"
wait "${clients[warm]}" 2>/dev/null
check "a worker comes after them" until_it test -s warm.$((worker + 1))
cache @socket verify $((2 * warm + 2)) warm/*
check "all that was acknowledged is there after warm restarts (SEED=$seed)" is $status 0
echo "cache.sh: warm restarts: $(cat out), $(cat warm/* | wc -l) acknowledged"
check "nobody read what nobody wrote there" is "$(cat warm.err.* | wc -l)" 0
cache @socket info
check "each was one death" is "$(stat_of died)" $((2 * warm + 2))
kill "$supervisor"
wait "$supervisor"
check "that supervisor ends" is $? 0
started=()

# Who reads what the supervisor prints is gone. A supervisor that is killed takes its program along, and nobody else.
cat >pipes <<'END'
#!/bin/bash
sed -n 's/^SigIgn:[[:space:]]*//p' /proc/self/status >ignored
echo $$ >"piped.$(./plain @fd incr starts)"
exec ./plain @fd serve <hold
END
chmod +x pipes
sed -n 's/^SigIgn:[[:space:]]*//p' /proc/self/status >expected
mkfifo printed
exec 7<>printed
./plain --limit 4m supervise socket ./pipes >printed 2>err 7>&- &
supervisor=$!
started=("$supervisor")
timeout 60 head -n 1 <&7 >out
check "a supervisor that prints into a pipe" is "$(cat out)" holding
check "its program" until_it test -s piped.1
exec 7>&-
kill -9 "$(cat piped.1)"
check "starts the program though nobody reads that" until_it test -s piped.2
check "which finds SIGPIPE as it was" is $((0x$(cat ignored) & 0x1000)) $((0x$(cat expected) & 0x1000))
cache @socket get starts
check "and holds the memory" said 2
./plain @socket serve <hold >out 2>err &
other=$!
started+=($other)
until_it bash -c './plain @socket info | grep -qx "processes 4"'
check "a client, which asked by itself" kill -0 $other
disown "$supervisor" # (nothing is to be said of how it ends)
kill -9 "$supervisor"
is_gone() { ! kill -0 "$(cat piped.2)" 2>/dev/null || [[ $(sed 's/.*) //' "/proc/$(cat piped.2)/stat" 2>/dev/null) == Z* ]]; }
check "a supervisor that is killed takes its program along" until_it is_gone
check "who asked by itself goes on" kill -0 $other
kill -9 $other
wait $other 2>/dev/null
./plain --limit 4m supervise socket >supervisor 2>err &
supervisor=$!
started=("$supervisor")
check "the next supervisor" until_it grep -q holding supervisor
cache @socket get starts
check "begins with nothing" said "" 1
kill "$supervisor"
wait "$supervisor"

# One that is told to end, and has a program that does not.
cat >stubborn.c <<'END'
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static void told(int sig)
{
	(void)sig;
	close(open("told.it", O_CREAT | O_WRONLY, 0600));
}

int main(void)
{
	signal(SIGTERM, told);
	close(open("stubborn.runs", O_CREAT | O_WRONLY, 0600));
	for (;;)
		pause();
}
END
"${CC:-cc}" -o stubborn stubborn.c || exit 1
for times in 2 1; do
	rm -f told.it stubborn.runs
	./plain --limit 4m supervise socket ./stubborn >supervisor 2>err &
	supervisor=$!
	started=("$supervisor")
	check "a program that does not end when it is told to" until_it test -e stubborn.runs
	kill "$supervisor"
	check "is told to" until_it test -e told.it
	cache @socket info
	check "and there is still who answers" is $status 0
	[[ $times == 1 ]] || kill "$supervisor"
	ended() { [[ ! -e /proc/$supervisor || $(sed 's/.*) //' /proc/$supervisor/stat 2>/dev/null) == Z* ]]; }
	check "the supervisor that was told $times times ends" until_it ended
	kill -9 "$supervisor" 2>/dev/null
	wait "$supervisor"
	check "as it was told to" is $? 0
	check "and leaves nothing" test ! -e socket
done

# One that is stopped between bind and listen answers nobody, and is there all the same.
cat >shim.c <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static void note(const char *what)
{
	int fd = getenv("NOTES") ? open(getenv("NOTES"), O_CREAT | O_APPEND | O_WRONLY, 0600) : -1;

	if (fd >= 0 && write(fd, what, strlen(what)) < 0)
		abort();
	close(fd);
}

int kill(pid_t pid, int sig)
{
	note("kill\n");
	return ((int (*)(pid_t, int))dlsym(RTLD_NEXT, "kill"))(pid, sig);
}

int signalfd(int fd, const sigset_t *set, int flags)
{
	if (getenv("NO_SIGNALFD")) {
		errno = EMFILE;
		return -1;
	}
	return ((int (*)(int, const sigset_t *, int))dlsym(RTLD_NEXT, "signalfd"))(fd, set, flags);
}

int accept4(int fd, void *at, void *n, int flags)
{
	static int calls;

	note("accept\n");
	if (getenv("FULL") && calls++ < atoi(getenv("FULL"))) {
		errno = EMFILE;
		return -1;
	}
	return ((int (*)(int, void *, void *, int))dlsym(RTLD_NEXT, "accept4"))(fd, at, n, flags);
}

int poll(struct pollfd *fds, nfds_t n, int ms)
{
	if (fds[0].fd < 0 && ms > 0)
		note("pause\n");
	return ((int (*)(struct pollfd *, nfds_t, int))dlsym(RTLD_NEXT, "poll"))(fds, n, ms);
}

int listen(int fd, int n)
{
	if (getenv("BOUND")) {
		close(open(getenv("BOUND"), O_CREAT | O_WRONLY, 0600));
		close(open("go", O_RDONLY)); /* until the other end of it is opened */
	}
	return ((int (*)(int, int))dlsym(RTLD_NEXT, "listen"))(fd, n);
}

pid_t fork(void)
{
	static int forks;

	if (getenv("FORKS") && forks++ == atoi(getenv("FORKS"))) {
		errno = EAGAIN;
		return -1;
	}
	return ((pid_t (*)(void))dlsym(RTLD_NEXT, "fork"))();
}
END
"${CC:-cc}" -shared -fPIC -o shim.so shim.c -ldl || exit 1
mkfifo go
LD_PRELOAD=$work/shim.so BOUND=bound ./plain --limit 4m supervise socket >supervisor 2>err &
supervisor=$!
started=("$supervisor")
check "one that does not listen yet" until_it test -e bound
timeout 10 ./plain --limit 4m supervise socket >second 2>err
check "its place is not taken" is "$?, $(cat second)" "1, "
timeout 60 bash -c 'echo >go'
check "it listens" until_it grep -q holding supervisor
cache @socket set here x
check "and is asked" is $status 0
rm -f socket
echo other >socket
kill "$supervisor"
wait "$supervisor"
check "it removes no other's" is "$(cat socket 2>&1)" other
rm -f socket
printf '#!/bin/bash\necho "umask $(umask)"\n' >program
chmod +x program
(umask 027; LD_PRELOAD=$work/shim.so NOTES=notes exec timeout 60 ./plain --limit 4m supervise socket ./program) >supervisor 2>err
check "a program that ends" is $? 0
check "is sent no signal: its number may be another's" test ! -e notes
check "has the mask that it would have" grep -qx 'umask 0027' supervisor
timeout 10 env LD_PRELOAD="$work/shim.so" FORKS=0 ./plain --limit 4m supervise socket ./program >supervisor 2>err
check "a program that cannot be started" is $? 1
check "is told of" grep -q 'cannot be started' err
printf '#!/bin/bash\nkill -9 $$\n' >program
timeout 10 env LD_PRELOAD="$work/shim.so" FORKS=1 ./plain --limit 4m supervise socket ./program >supervisor 2>err
check "nor anew" is $? 1
check "leaves nothing" test ! -e socket
NO_SIGNALFD=1 LD_PRELOAD=$work/shim.so timeout -k 1 10 ./plain --limit 4m supervise socket >supervisor 2>err
check "a supervisor that could hear no signal" is $? 1
check "says so" grep -q 'supervise: socket: Too many open files' err
check "and leaves nothing" is "$(ls socket* 2>/dev/null)" ""
FULL=3 NOTES=notes LD_PRELOAD=$work/shim.so ./plain --limit 4m supervise socket >supervisor 2>err &
supervisor=$!
started=("$supervisor")
check "a supervisor with no descriptors for a while" until_it grep -q holding supervisor
cache @socket set here x
check "answers when it has some" is $status 0
check "and does not ask without end until then" is "$(tr '\n' ' ' <notes)" "accept pause accept pause accept pause accept "
kill "$supervisor"
wait "$supervisor"
started=()

echo "cache.sh: $checks checks, $failures failed"
[[ $failures == 0 ]]
