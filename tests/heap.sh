#!/bin/bash
# SPDX-License-Identifier: MIT
# `quarry heap`: what info, check, dump, restore and compact say of heaps in files and do to them; that a dump that is restored has all
# that was there, at the same offsets; that what is bent, cut short or in use is refused in one line, and leaves nothing.
#
# Run by make check; by hand: abs_top_srcdir=SOURCES abs_top_builddir=BUILD tests/heap.sh [SEED]
set -u
export LC_ALL=C
unset QUARRY_OPTIONS LD_PRELOAD COLUMNS NO_COLOR

src=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
build=${abs_top_builddir:-$src}
quarry=${QUARRY:-$build/quarry}
library=$build/.libs/libquarry.so
seed=${1:-$RANDOM}
if [[ ! -x $quarry || ! -e $library ]]; then
	echo "heap.sh: $quarry or $library is not built"
	exit 99
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/quarry-heap.XXXXXX") || exit 99
holder=
end() {
	[[ -z $holder ]] || kill -9 "$holder" 2>/dev/null
	wait 2>/dev/null
	rm -rf "$work"
}
trap end EXIT
. "$src/tests/checks.sh"
cd "$work" || exit 99
"${CC:-cc}" -std=gnu11 -O1 -g -Wall -Wextra -Werror -I"$src/include" -o maker "$src/tests/heap_maker.c" "$library" \
	-Wl,-rpath,"$(cd "${library%/*}" && pwd)" || exit 1
echo "heap.sh: SEED=$seed"
field() { sed -nE 's/.*"'"$1"'":([0-9]+).*/\1/p' out; } # of the JSON in out
at_least() { [[ $1 -ge $2 ]] || { echo "    $1 is less than $2"; return 1; }; }
less() { [[ $1 -lt $2 ]] || { echo "    $1 is not less than $2"; return 1; }; }
is_json() { ! command -v python3 >/dev/null || python3 -c 'import json, sys; json.load(open("out"))'; }

# ---- arguments ------------------------------------------------------------------------------------------------
for arguments in "" "none" "--json" "info" "info a b" "info --read-only a" "check --all a" "compact -o x a" "dump -o" "restore -i" \
	"info --ascii --utf8 a" "dump --json a"; do
	# shellcheck disable=SC2086
	quarry heap $arguments
	check "heap $arguments" one_line_error 2 "heap"
done
for verb in "" info check dump restore compact; do
	# shellcheck disable=SC2086
	quarry heap $verb --help
	check "heap $verb --help" is $status 0
	check "heap $verb --help tells of compact" says out compact
done
echo 'no heap, and long enough to hold one: it is what it is' >text
for verb in info check dump compact; do
	quarry heap $verb missing
	check "heap $verb of no file" one_line_error 1 "No such file"
	quarry heap $verb text
	check "heap $verb of a text" one_line_error 1 "text"
	quarry heap $verb .
	check "heap $verb of a folder" one_line_error 1 "heap $verb"
done
quarry heap restore -i text new
check "restore of a text" one_line_error 1 "it is none of a heap"
quarry heap restore -i missing new
check "restore of no file" one_line_error 1 "No such file"
check "nothing is left" test ! -e new

# ---- there and back -------------------------------------------------------------------------------------------
check "a heap is made" ./maker make a "$seed" 120
./maker sum a >sum.a || check "it can be read" false
quarry heap info a
check "info" is $status 0
check "info: its names" is "$(grep -c '^  list ' out)" 9
check "info: --all tells the rest" says out "--all tells them"
check "info: 80 columns" is "$(grep -cE '.{81}' out)" 0
check "info: a hole, and full cells" grep -qE '^ +[0-9.]+[KMG]? [0-9.]+ +[0-9]+ %$' out
quarry heap info --all a
check "info --all: its names" is "$(grep -cE '^  (list |07 a name|large)' out)" 21
quarry heap info --json a
check "info --json" is $status 0
check "info --json is JSON" is_json
objects=$(field objects) kept=$(field kept_bytes)
check "info --json counts what the maker made" is "$(sed 's/ .*//' sum.a)" "$(sed -E 's/.*"free_bytes":[0-9]+,"objects":([0-9]+),.*/\1/' out)"
reckon() { python3 -c '
import json
j = json.load(open("out"))
assert sum(j["live"]) == j["object_bytes"] == sum(s["bytes"] for s in j["sizes"])
assert all(live <= j["cell_size"] for live in j["live"])
assert len(j["live"]) == len(j["holes"]) and not any(h and l == j["cell_size"] for h, l in zip(j["holes"], j["live"]))
assert len(j["roots"]) == 21 and {r["name"]: r["tag"] for r in j["roots"]}["large"] == 99'; }
! command -v python3 >/dev/null || check "info --json: cells, sizes and names" reckon
quarry heap check --json a
check "check --json" is $status 0
check "check --json is JSON" is_json
check "check says all is well" says out '"ok":true'
quarry heap check --read-only a
check "check --read-only" is $status 0
quarry heap dump -o a.dump a
check "dump" is $status 0
"$quarry" heap dump a >a.dump2 2>err
# What is a heap's is nobody else's, at no moment of it; what replaces a good dump is on the disk before.
cat >calls.c <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void note(const char *call, const char *path, unsigned mode)
{
	FILE *f = fopen(getenv("CALLS"), "ae");

	fprintf(f, "%s %s %o\n", call, strstr(path, ".tmp") ? "beside" : path, mode);
	fclose(f);
}
#define OPEN(name)                                                       \
	int name(const char *path, int flags, ...)                       \
	{                                                                \
		int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name); \
		va_list more;                                            \
		unsigned mode;                                           \
									 \
		va_start(more, flags);                                   \
		mode = flags & O_CREAT ? va_arg(more, unsigned) : 0;     \
		va_end(more);                                            \
		if (flags & O_CREAT && strstr(path, "dump"))             \
			note("open", path, mode);                        \
		if (flags & O_CREAT && getenv("NO_BESIDE") && strstr(path, ".tmp")) { \
			errno = EACCES;                                  \
			return -1;                                       \
		}                                                        \
		return real(path, flags, mode);                          \
	}
OPEN(open)
OPEN(open64)
int fsync(int fd)
{
	note("fsync", "", 0);
	return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
ssize_t read(int fd, void *to, size_t n)
{
	ssize_t got = ((ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read"))(fd, to, n);

	if (got < 0 && errno == EAGAIN)
		note("again", "", 0);
	if (got == 0 && fd == 0 && getenv("READ_ERROR")) {
		errno = EIO;
		return -1;
	}
	return got;
}
ssize_t write(int fd, const void *from, size_t n)
{
	ssize_t done;

	if (getenv("WRITE_ERROR") && fd == 1) {
		errno = EBUSY;
		return -1;
	}
	done = ((ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write"))(fd, from, n);
	if (done < 0 && errno == EAGAIN)
		note("again", "", 0);
	return done;
}
/* What was wrong at HEAL_AT is as it was. */
int nanosleep(const struct timespec *t, struct timespec *left)
{
	char bytes[16];

	(void)t;
	(void)left;
	note("pause", "", 0);
	if (getenv("HEAL")) {
		int good = open("e", O_RDONLY), bent = open(getenv("HEAL"), O_RDWR);
		off_t at = atol(getenv("HEAL_AT"));

		if (pread(good, bytes, 16, at) != 16 || pwrite(bent, bytes, 16, at) != 16)
			abort();
		close(good);
		close(bent);
	}
	return 0;
}
__attribute__((constructor)) static void begin(void)
{
	int fd = getenv("NONBLOCK") ? atoi(getenv("NONBLOCK")) : -1;

	if (fd >= 0 && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0)
		abort();
}
int stat(const char *path, struct stat *is)
{
	if (getenv("NO_STAT") && strcmp(path, getenv("NO_STAT")) == 0) {
		errno = EACCES;
		return -1;
	}
	return ((int (*)(const char *, struct stat *))dlsym(RTLD_NEXT, "stat"))(path, is);
}
int stat64(const char *path, struct stat64 *is)
{
	return stat(path, (struct stat *)is);
}
int rename(const char *from, const char *to)
{
	note("rename", from, 0);
	return ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename"))(from, to);
}
END
"${CC:-cc}" -shared -fPIC -o calls.so calls.c -ldl || exit 1
preloaded() { # preloaded COMMAND...: with its calls in the file calls; the umask keeps nothing from anybody
	: >calls
	(umask 0; LD_PRELOAD=$work/calls.so CALLS=$work/calls ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0 exec "$@")
}
calls() { preloaded "$@" >out 2>err; }
check "a dump for its owner" calls "$quarry" heap dump -o own.dump a
check "it is made its owner's" is "$(cat calls)" $'open beside 600\nfsync  0\nrename beside 0'
check "it is its owner's" is "$(stat -c %a own.dump)" 600
chmod 640 own.dump
check "in the place of another one" calls "$quarry" heap dump -o own.dump a
check "it is made its owner's again" is "$(cat calls)" $'open beside 600\nfsync  0\nrename beside 0'
check "and has the other's rights" is "$(stat -c %a own.dump)" 640
# Where nothing can be made beside it, what is there stays: it may be all that there is of a heap.
cp own.dump good.dump
NO_BESIDE=1 calls "$quarry" heap dump -o own.dump a
status=$?
check "a dump that cannot be made beside" one_line_error 1 "own.dump: Permission denied"
check "the one before stays" cmp -s own.dump good.dump
WRITE_ERROR=1 calls "$quarry" heap dump a
status=$?
check "an error of what is written to" one_line_error 1 "standard output: Device or resource busy"
rm own.dump good.dump
# Onto itself, under any name.
ln a linked
ln -s a link
for name in a ./a linked link; do
	quarry heap dump -o $name a
	check "dump of a heap onto itself, as $name" one_line_error 2 "the heap itself"
done
timeout 60 "$quarry" heap dump a >>linked 2>err
check "nor by standard output" is $? 2
rm linked link
./maker sum a | cmp -s - sum.a || check "it stays" false
dump_as() { tail -c +89 "$1" | cmp -s - <(tail -c +89 "$2"); } # but for the head, which has the run
check "dump to standard output: the same" dump_as a.dump a.dump2
quarry heap restore --json -i a.dump b
check "restore" is $status 0
check "restore --json is JSON" is_json
./maker sum b >sum.b
check "what is restored is what was there, where it was" cmp -s sum.a sum.b
quarry heap dump -o b.dump b
check "its dump is the same behind the head" dump_as a.dump b.dump
check "restored by who reads standard input" bash -c '"$1" heap restore c <a.dump >out 2>err' - "$quarry"
READ_ERROR=1 calls "$quarry" heap restore unread <a.dump
status=$?
check "an error behind the end" one_line_error 1 "standard input: Input/output error"
check "leaves nothing" test ! -e unread
# Pipes that do not wait are waited for.
until_it() { # until_it COMMAND...: a minute at most
	local n
	for ((n = 0; n < 6000; n++)); do
		"$@" && return 0
		sleep 0.01
	done
	return 1
}
mkfifo pipe
exec 7<>pipe
NONBLOCK=0 calls timeout 60 "$quarry" heap restore slow <pipe 7>&- &
reader=$!
check "a reader that finds nothing" until_it grep -qs again calls
exec 8>pipe 7>&-
cat a.dump >&8
exec 8>&-
wait $reader
check "waits for it" is $? 0
./maker sum slow | cmp -s - sum.a || check "and has it all" false
exec 7<>pipe
NONBLOCK=1 preloaded timeout 60 "$quarry" heap dump a >pipe 2>err 7>&- &
writer=$!
check "a writer that finds no room" until_it grep -qs again calls
exec 8<pipe 7>&-
cat <&8 >slow.dump
exec 8<&-
wait $writer
check "waits for it" is $? 0
check "and writes it all" dump_as a.dump slow.dump
rm slow slow.dump
NO_STAT=unseen calls "$quarry" heap restore unseen <a.dump
status=$?
check "what cannot be looked at is told of" one_line_error 1 "Permission denied"
rm unseen
quarry heap check c
check "check of it" is $status 0
check "it is its owner's alone" is "$(stat -c %a c)" 600
quarry heap restore -i a.dump b
check "restore does not write over a file" one_line_error 1 "File exists"
./maker sum b | cmp -s - sum.b || check "which stays" false
check "it can be written to" ./maker make d "$seed" 3

# ---- a durable one --------------------------------------------------------------------------------------------
check "a durable heap is made" ./maker durable dur "$seed" 20
./maker sum dur >sum.dur
quarry heap info dur
check "info of a durable heap" says out "durable, version"
quarry heap info --json dur
check "info --json of a durable heap" says out '"mode":"durable"'
check "the file is what is told of" is "$(field file_bytes)" "$(stat -c %s dur)"
quarry heap check dur
check "check of a durable heap" is $status 0
quarry heap compact dur
check "compact of a durable heap" one_line_error 1 "only the file of a direct one"
quarry heap dump -o dur.dump dur
check "dump of a durable heap" is $status 0
quarry heap restore -i dur.dump undur
check "restore of it" is $status 0
./maker sum undur | cmp -s - sum.dur || check "what is restored of a durable heap is what was there" false
quarry heap info undur
check "in a direct one" says out "direct, version"

# ---- others have it open --------------------------------------------------------------------------------------
coproc holds { ./maker hold b; }
holder=$holds_PID
read -r -u "${holds[0]}" _
for verb in dump compact; do
	quarry heap $verb b
	check "$verb while another has it open" one_line_error 1 "others have it open"
done
quarry heap info b
check "info while another has it open" is $status 0
check "info tells of it" says out "1 of 64 processes"
quarry heap check b
check "check while another has it open" is $status 0
hold_in=${holds[1]}
exec {hold_in}>&-
wait "$holder"
holder=
{ ./maker die b; } 2>/dev/null
quarry heap info b
check "info after a death" is $status 0
quarry heap check b
check "check after a death" is $status 0
check "check tells of it" says out "1 processes died with it"
quarry heap info --json b
check "what the dead one had reserved went back" is "$(sed -E 's/.*"free_bytes":[0-9]+,"objects":([0-9]+),.*/\1/' out)" "$(sed 's/ .*//' sum.a)"
./maker sum b | cmp -s - sum.b || check "all is there after a death" false

# ---- smaller --------------------------------------------------------------------------------------------------
check "most is freed" ./maker thin b
./maker sum b >sum.thin
quarry heap compact --json b
check "compact" is $status 0
check "compact --json is JSON" is_json
check "the file is shorter" less "$(field file_bytes)" "$(($(field file_bytes_before) - (30 << 20)))"
check "so is what is kept of it" less "$(field kept_bytes)" "$((kept / 2))"
check "its length is what was said" is "$(field file_bytes)" "$(stat -c %s b)"
./maker sum b | cmp -s - sum.thin || check "all is there when it is smaller" false
quarry heap check b
check "it is whole when it is smaller" is $status 0
quarry heap compact b
check "compact again" is $status 0
quarry heap dump -o thin.dump b
check "a dump of less is less" less "$(stat -c %s thin.dump)" "$(($(stat -c %s a.dump) / 3))"
quarry heap restore -i thin.dump e
./maker sum e | cmp -s - sum.thin || check "what is restored of a thin one" false

# ---- what is not so -------------------------------------------------------------------------------------------
whole=$(stat -c %s thin.dump)
for n in 0 7 8 20 100 $((whole / 2)) $((whole - 1)); do
	head -c "$n" thin.dump >cut
	quarry heap restore -i cut new
	check "a dump cut at $n" one_line_error 1 "cut short"
	check "a dump cut at $n leaves nothing" test ! -e new
done
{ cat thin.dump; echo; } >longer
quarry heap restore -i longer new
check "a dump with something behind it" one_line_error 1 "there is more"
check "which leaves nothing" test ! -e new
RANDOM=$seed
for ((i = 0; i < 20; i++)); do
	at=$(((RANDOM * 32768 + RANDOM) % whole))
	byte=$(od -An -tu1 -j $at -N1 thin.dump)
	cp thin.dump bent
	printf "\\x$(printf %x $((byte ^ (1 << RANDOM % 8))))" | dd of=bent bs=1 seek=$at conv=notrunc status=none
	quarry heap restore -i bent new
	check "a bit at $at is another (SEED=$seed)" one_line_error 1 "heap restore"
	check "a bit at $at: nothing is left" test ! -e new
done
head -c $((1 << 20)) b >short
quarry heap info short
check "info of a heap that is cut short" one_line_error 1 "cut short"
cp e f
printf 'xxxxxxxxxxxxxxxx' | dd of=f bs=1 seek=$(((1 << 21) + 64 * 9)) conv=notrunc status=none
cp f bent.heap # (nobody has seen yet what is wrong with it)
# Who may only read it, while others have it, cannot tell what is damaged from what is being changed.
calls "$quarry" heap check --read-only f
status=$?
check "check of one that is damaged, and nobody's" is $status 1
check "calls it so" says out DAMAGED
check "at once" is "$(cat calls)" ""
coproc holds { ./maker hold f; }
holder=$holds_PID
read -r -u "${holds[0]}" _
calls "$quarry" heap check --read-only f
status=$?
check "check of one that others have" is $status 1
check "does not call it damaged" says out "in use, and not seen whole"
check "but says what it is" says err "others have it open, and what looks wrong may be what they change: "
check "it looks again" is "$(grep -c pause calls)" 7
calls "$quarry" heap check --read-only --json f
check "check --json of it is JSON" is_json
check "and tells" says out '"ok":false,"unsure":true'
HEAL=f HEAL_AT=$(((1 << 21) + 64 * 9)) calls "$quarry" heap check --read-only f
check "what others have finished is whole" is $? 0
check "it looks once more" is "$(grep -c pause calls)" 1
hold_in=${holds[1]}
exec {hold_in}>&-
wait "$holder"
holder=
cp bent.heap f
quarry heap check f
if [[ $status != 0 ]]; then
	check "check of one that is damaged" grep -qE 'quarry: heap check: ' err
	quarry heap dump -o f.dump f
	check "dump of one that is damaged" one_line_error 1 "heap dump: f: mapped heap: "
	check "leaves nothing" test ! -e f.dump
	length=$(stat -c %s bent.heap)
	quarry heap compact bent.heap
	check "compact of one that is damaged" one_line_error 1 "heap compact: bent.heap: mapped heap: it is damaged"
	check "leaves it as long as it was" is "$(stat -c %s bent.heap)" "$length"
else
	check "check saw the damage" false
fi
cp e half # (somebody is writing a name, and died)
printf '\x01' | dd of=half bs=1 seek=$(($(grep -abo 'list 3' half | sed 's/:.*//;q') - 64 + 16)) conv=notrunc status=none
quarry heap info half
check "info says why" one_line_error 1 "heap info: half: mapped heap: a root is being changed"
./maker make g "$seed" 2 && "$quarry" heap dump -o g.dump g >out || check "a small dump" false
./maker forge g.dump 1 >out 2>err
check "content of what is not in use" says out "not in use"
./maker forge g.dump 2 >out 2>err
check "a slab that comes twice" says out "not behind"
check "bent dumps whose checksums are right (SEED=$seed)" ./maker fuzz g.dump "$seed" "${HEAP_FUZZ:-400}"
head -c 1000 g.dump >h.dump
./maker fuzz h.dump "$seed" 5 >out 2>err
check "which tells where the dump itself is none" is $? 1

echo "heap.sh: $checks checks, $failures failed"
[[ $failures == 0 ]]
