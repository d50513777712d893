/* SPDX-License-Identifier: MIT */
/* A durable heap and the loss of power: what is written to its file and synced is recorded at the table of system calls, and files are made that
 * a disk may have after each of these calls: all that was synced, and of what was not some sectors of 512 bytes, or of 4 KiB, in any order: none, a
 * prefix, a prefix of which the last call is torn, any of them, all but one. Each is opened, and must be the state of the last
 * checkpoint that returned or the one that was under way, down to the bytes of each object, and so must each of its old versions.
 *
 * Some calls fail: a write (EIO, ENOSPC), half done or not; fdatasync(2), after which each sector that was not synced is on the disk or is never
 * written, as Linux has it, while reading the file shows it. The checkpoint fails then, and the next one that returns 0
 * has it all. A version in the file that another memory's checkpoint made is not written over.
 *
 * --ops: files (10,000 and more by hand). */
#include "tests/stress/stress.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "include/quarry/mapped.h"
#include "lib/mapped/durable.h"
#include "numa/os.h"

enum { OBJECTS = 48, KEEP = 3, STATES = 1 << 20, SECTOR = 512, OPS_MOST = 4096 };

/* ---- the disk ---- */

static struct {
	char *bytes; /* of what is synced */
	size_t size, room;
	struct op {
		uint64_t at;
		size_t len;
		char *bytes;
	} op[OPS_MOST];
	unsigned ops; /* that are not synced */
} disk;

static struct qy_os recorder;
static struct stat file; /* the heap's */
static struct st_rng rng;
static unsigned failing; /* one in so many calls; 0: none */
static uint64_t failed_writes, failed_syncs, images, took_new, took_old, none_yet, foreign;
static unsigned directories; /* synced */

static void reserve(size_t size)
{
	if (size > disk.room) {
		size_t room = 2 * size;
		char *bytes = st_pages(room);

		if (disk.size != 0)
			memcpy(bytes, disk.bytes, disk.size);
		if (disk.room != 0)
			munmap(disk.bytes, disk.room);
		disk.bytes = bytes;
		disk.room = room;
	}
}

/* Bytes [from, to) of a call reach the disk. */
static void apply(const struct op *op, size_t from, size_t to)
{
	reserve(op->at + to);
	memcpy(disk.bytes + op->at + from, op->bytes + from, to - from);
	if (op->at + to > disk.size)
		disk.size = op->at + to;
}

static bool heaps_file(int fd)
{
	struct stat is;

	return fstat(fd, &is) == 0 && is.st_ino == file.st_ino && is.st_dev == file.st_dev;
}

static void make_images(void);

static bool fails(void)
{
	return failing != 0 && st_below(&rng, failing) == 0;
}

static int record_write_at(int fd, const void *from, size_t len, uint64_t at)
{
	struct op *op = &disk.op[disk.ops];
	bool fail;

	if (!heaps_file(fd))
		return qy_os_linux.write_at(fd, from, len, at);
	fail = fails();
	if (fail) {
		len = st_below(&rng, 2) == 0 ? 0 : len / 2;
		failed_writes++;
	}
	if (len != 0) {
		ST_CHECK(disk.ops < OPS_MOST);
		*op = (struct op){ at, len, malloc(len) };
		memcpy(op->bytes, from, len);
		disk.ops++;
		ST_CHECK(qy_os_linux.write_at(fd, from, len, at) == 0);
	}
	if (at < 2 * 4096 || at >= 66 * 4096) /* (a process's note of itself is no part of a version, and made under locks) */
		make_images();
	if (!fail)
		return 0;
	errno = st_below(&rng, 2) == 0 ? EIO : ENOSPC;
	return -1;
}

static int record_sync(int fd)
{
	bool fail;
	uint64_t how;

	if (!heaps_file(fd))
		return qy_os_linux.sync_data(fd);
	make_images();
	fail = fails();
	how = st_below(&rng, 4); /* none, all, any: a superblock is only one page */
	failed_syncs += fail;
	for (unsigned i = 0; i < disk.ops; i++) {
		for (size_t at = 0; at < disk.op[i].len; at += SECTOR) {
			if (!fail || how == 1 || (how > 1 && st_below(&rng, 2) == 0))
				apply(&disk.op[i], at, at + SECTOR < disk.op[i].len ? at + SECTOR : disk.op[i].len);
		}
		free(disk.op[i].bytes);
	}
	disk.ops = 0;
	make_images();
	if (!fail)
		return 0;
	errno = EIO;
	return -1;
}

/* What has a name then is all on the disk. */
static int record_sync_directory(const char *of)
{
	ST_CHECK(disk.ops == 0 && disk.size != 0);
	directories++;
	return qy_os_linux.sync_directory(of);
}

static int record_set_size(int fd, uint64_t size)
{
	if (heaps_file(fd))
		st_fail("the file's size is set");
	return qy_os_linux.set_size(fd, size);
}

static int record_rename(const char *from, const char *to)
{
	st_fail("%s is renamed to %s", from, to);
}

static int record_open(const char *path, unsigned how)
{
	int fd = qy_os_linux.open_file(path, how);

	if (how == QY_OPEN_NEW && fd >= 0)
		ST_CHECK(fstat(fd, &file) == 0);
	return fd;
}

/* ---- states ---- */

struct state {
	uint64_t step;
	struct {
		uint64_t size, seed;
	} object[OBJECTS];
	uint64_t version; /* what checkpoint returned; 0: it failed */
};

static struct state now, *states; /* at each try to make a checkpoint */
static unsigned tried, good;      /* so many; the last that returned 0: its number + 1 */
static char path[256], image[264];
static quarry_mapped *heap, *peer; /* peer: another session, which goes on where one has failed */

/* What is in a heap: the table of objects in its user area. */
struct table {
	uint64_t step;
	quarry_off object[OBJECTS];
};

static bool is_state(quarry_mapped *h, const struct state *s, bool tell)
{
	struct table *t = quarry_mapped_user(h, NULL);
	quarry_mapped_report report;
	uint64_t count = 0;

	for (unsigned i = 0; i < OBJECTS; i++) {
		unsigned char *p = quarry_mapped_ptr(h, t->object[i], s->object[i].size);
		uint64_t key = st_key(s->object[i].seed, s->object[i].size);

		if ((t->object[i] != 0) != (s->object[i].size != 0) || (t->object[i] != 0 && p == NULL)) {
			if (tell)
				printf("object %u is not there, or should not be\n", i);
			return false;
		}
		count += p != NULL;
		for (size_t k = 0; k < s->object[i].size; k++) {
			if (p[k] != st_pattern_byte(key, k)) {
				if (tell)
					printf("object %u of %llu bytes: byte %zu is another\n", i, (unsigned long long)s->object[i].size, k);
				return false;
			}
		}
	}
	if (t->step != s->step || quarry_mapped_check(h, &report, sizeof(report)) != 0 || report.objects != count) {
		if (tell)
			printf("step %llu; %s; %llu objects, %llu in the table\n", (unsigned long long)t->step, report.first,
			       (unsigned long long)report.objects, (unsigned long long)count);
		return false;
	}
	return true;
}

/* Which state a heap is: by the step that it says, which each has another of. */
static const struct state *state_of(quarry_mapped *h, const char *what)
{
	uint64_t step = ((struct table *)quarry_mapped_user(h, NULL))->step;

	for (unsigned i = tried; i-- > 0;) {
		if (states[i].step == step) {
			if (!is_state(h, &states[i], true)) {
				fflush(stdout);
				st_fail("image %llu, %s: it says that it is step %llu, and is not", (unsigned long long)images, what,
					(unsigned long long)step);
			}
			return &states[i];
		}
	}
	st_fail("image %llu, %s: it is of step %llu, which never was", (unsigned long long)images, what, (unsigned long long)step);
}

/* Old versions are those that checkpoints left, each of its number. (One that failed may have left one as well.) */
static void check_versions(void)
{
	quarry_mapped_version v[KEEP + 1];
	int n = quarry_mapped_versions(image, v, KEEP + 1);

	if (n < 1 || n > KEEP + 1)
		st_fail("image %llu: %d versions: %s", (unsigned long long)images, n, quarry_error_text());
	for (int i = 0; i < n; i++) {
		quarry_mapped *old = quarry_mapped_open_version(image, v[i].number);
		const struct state *s;

		if (old == NULL)
			st_fail("image %llu: version %llu: %s", (unsigned long long)images, (unsigned long long)v[i].number,
				quarry_error_text());
		s = state_of(old, "an old version");
		if (s->version != 0 && s->version != v[i].number)
			st_fail("image %llu: version %llu is what version %llu was", (unsigned long long)images,
				(unsigned long long)v[i].number, (unsigned long long)s->version);
		quarry_mapped_close(old);
	}
}

/* ---- what a disk may have ---- */

static void put(int fd, const struct op *op, size_t from, size_t to)
{
	if (from < to && pwrite(fd, op->bytes + from, to - from, (off_t)(op->at + from)) != (ssize_t)(to - from))
		st_fail("an image cannot be written");
}

static void put_some(int fd, unsigned how)
{
	size_t sector = st_below(&rng, 2) == 0 ? SECTOR : 4096;
	unsigned n = how == 0 ? 0 : how == 1 ? disk.ops : (unsigned)st_below(&rng, disk.ops + 1);
	uint64_t chance = st_below(&rng, 9), out = st_next(&rng), count = 0;

	if (how <= 2) { /* none, all, a prefix */
		for (unsigned i = 0; i < n; i++)
			put(fd, &disk.op[i], 0, disk.op[i].len);
		if (how == 2 && n < disk.ops) /* torn */
			put(fd, &disk.op[n], 0, st_below(&rng, disk.op[n].len / sector + 1) * sector);
		return;
	}
	for (unsigned i = 0; i < disk.ops; i++)
		count += (disk.op[i].len + sector - 1) / sector;
	out %= count + (count == 0);
	for (unsigned i = 0; i < disk.ops; i++) {
		for (size_t at = 0; at < disk.op[i].len; at += sector, count--) {
			size_t to = at + sector < disk.op[i].len ? at + sector : disk.op[i].len;

			if (how == 3 ? st_below(&rng, 8) < chance : count != out + 1) /* any; all but one */
				put(fd, &disk.op[i], at, to);
		}
	}
}

static void check_image(unsigned how)
{
	int fd = open(image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	const struct state *s;
	quarry_mapped *h;

	ST_CHECK(fd >= 0 && (disk.size == 0 || pwrite(fd, disk.bytes, disk.size, 0) == (ssize_t)disk.size));
	put_some(fd, how);
	close(fd);
	images++;
	h = quarry_mapped_open(image);
	if (h == NULL) {
		if (good != 0) /* a heap that was not made yet need not be one */
			st_fail("image %llu (%u), failing %u, tried %u good %u: it does not open: %s", (unsigned long long)images, how, failing, tried,
				good, quarry_error_text());
		none_yet++;
		return;
	}
	s = state_of(h, "opened");
	if (s < states + (good != 0 ? good - 1 : 0))
		st_fail("image %llu (%u): step %llu, and that of step %llu had returned", (unsigned long long)images, how,
			(unsigned long long)s->step, (unsigned long long)states[good - 1].step);
	took_new += s == states + tried - 1 && good != tried;
	took_old += good != 0 && s == states + good - 1 && good != tried;
	ST_CHECK(quarry_mapped_close(h) == 0);
	if (images % 3 == 0)
		check_versions();
}

static uint64_t every = 1, calls;

static void make_images(void)
{
	const struct qy_os *was = qy_os;

	if (calls++ % every != 0 || images >= st.ops)
		return;
	qy_os = &qy_os_linux;
	for (unsigned how = 0; how < 5; how++)
		check_image(how);
	check_image(3);
	check_image(3);
	qy_os = was;
}

/* ---- what the program does ---- */

static void change(unsigned i)
{
	struct table *t = quarry_mapped_user(heap, NULL);
	size_t size = st_below(&rng, 3) == 0 ? 0 : st_below(&rng, 12) == 0 ? 1 + st_below(&rng, 200000) : 1 + st_below(&rng, 3000);

	if (t->object[i] != 0)
		ST_CHECK(quarry_mapped_free_from(heap, &t->object[i]) == 0);
	now.object[i].size = size;
	now.object[i].seed = st_next(&rng);
	if (size != 0) {
		unsigned char *p = quarry_mapped_alloc_into(heap, size, &t->object[i]);

		ST_CHECK(p != NULL);
		st_fill(p, 0, size, st_key(now.object[i].seed, size));
	}
}

/* What has just been made, as its file shows it. */
static void check_own(uint64_t number)
{
	const struct qy_os *was = qy_os;
	quarry_mapped *h;

	qy_os = &qy_os_linux;
	h = quarry_mapped_open_version(path, number);
	if (h == NULL || !is_state(h, &states[tried - 1], true)) {
		fflush(stdout);
		st_fail("try %u: version %llu: %s", tried, (unsigned long long)number, h == NULL ? quarry_error_text() : "it is not what was in memory");
	}
	quarry_mapped_close(h);
	qy_os = was;
}

static void checkpoint(void)
{
	quarry_mapped_checkpoint_info info;

	static uint64_t steps; /* each state has one of its own, also one that is begun again from an older one */

	now.step = ((struct table *)quarry_mapped_user(heap, NULL))->step = ++steps;
	now.version = 0;
	ST_CHECK(tried < STATES);
	states[tried++] = now;
	if (quarry_mapped_checkpoint(peer != NULL && st_below(&rng, 2) == 0 ? peer : heap, &info, sizeof(info)) == 0) {
		states[tried - 1].version = info.version;
		good = tried;
		check_own(info.version);
		make_images();
	} else if (errno != EIO && errno != ENOSPC) {
		st_fail("a checkpoint: %s", quarry_error_text());
	}
}

/* A superblock that is newer than the newest, and valid, but of nobody here. */
static void meet_foreign(void)
{
	struct qy_durable_sb sb[2];
	int fd = open(path, O_RDWR | O_CLOEXEC), newest;
	bool valid[2];

	failing = 0;
	qy_os = &qy_os_linux;
	newest = qy_durable_sb_read(fd, sb, valid);
	ST_CHECK(newest >= 0);
	sb[newest].sequence++;
	sb[newest].version[0].number++;
	sb[newest].version[0].made ^= 1;
	qy_durable_sb_seal(&sb[newest]);
	ST_CHECK(qy_durable_sb_write(fd, &sb[newest], (uint32_t)newest ^ 1) == 0);
	ST_CHECK(quarry_mapped_checkpoint(peer != NULL && st_below(&rng, 2) == 0 ? peer : heap, NULL, 0) == -1 && errno == EUCLEAN);
	ST_CHECK(qy_durable_sb_read(fd, sb, valid) == (newest ^ 1));
	close(fd);
	foreign++;
}

static void close_both(void)
{
	if (peer != NULL)
		ST_CHECK(quarry_mapped_close(peer) == 0);
	peer = NULL;
	ST_CHECK(quarry_mapped_close(heap) == 0);
}

static void history(void)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_DURABLE, .max_bytes = 64 << 20,
				    .sessions = 4, .lanes = 4, .roots = 4, .versions = st_below(&rng, 2) == 0 ? KEEP : (uint32_t)st_below(&rng, KEEP) };

	if (disk.size != 0)
		memset(disk.bytes, 0, disk.size);
	disk.size = 0;
	for (unsigned i = 0; i < disk.ops; i++)
		free(disk.op[i].bytes);
	disk.ops = tried = good = 0;
	memset(&now, 0, sizeof(now));
	failing = 0;
	qy_os = &recorder;
	states[tried++] = now; /* an empty heap */
	directories = 0;
	heap = quarry_mapped_create(path, &attr);
	if (heap == NULL)
		st_fail("it cannot be made: %s", quarry_error_text());
	ST_CHECK(directories == 1);
	good = 1;
	failing = st_below(&rng, 3) == 0 ? 0 : 4 + (unsigned)st_below(&rng, 16);
	peer = st_below(&rng, 2) == 0 ? quarry_mapped_open(path) : NULL; /* (which may fail, with the disk) */
	for (unsigned c = 0; c < 12 && images < st.ops; c++) {
		for (uint64_t n = 1 + st_below(&rng, 10); n > 0; n--)
			change((unsigned)st_below(&rng, OBJECTS));
		checkpoint();
		if (st_below(&rng, good == tried ? 5 : 2) == 0) { /* closed, and what was not in a checkpoint is gone */
			close_both();
			while ((heap = quarry_mapped_open(path)) == NULL) { /* (where its note of itself cannot be written) */
				if (errno != EIO && errno != ENOSPC)
					st_fail("opened again: %s", quarry_error_text());
				failing = 0;
			}
			now = *state_of(heap, "opened again");
		}
	}
	if (st_below(&rng, 2) == 0)
		meet_foreign();
	close_both();
	qy_os = &qy_os_linux;
	unlink(path);
}

int main(int argc, char **argv)
{
	const char *directory = getenv("TMPDIR");

	st_begin(argc, argv, "mapped_power", 1500, 1);
	rng = st_rng_for(0);
	snprintf(path, sizeof(path), "%s/quarry-power-%d", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : directory ? directory : "/tmp",
		 (int)getpid());
	snprintf(image, sizeof(image), "%s-image", path);
	states = st_pages(STATES * sizeof(*states));
	recorder = qy_os_linux;
	recorder.write_at = record_write_at;
	recorder.sync_data = record_sync;
	recorder.set_size = record_set_size;
	recorder.rename_file = record_rename;
	recorder.sync_directory = record_sync_directory;
	recorder.open_file = record_open;
	every = 3;
	for (unsigned n = 0; images < st.ops; n++)
		history();
	unlink(image);
	atomic_store(&st.done, images);
	printf("mapped_power: %llu files: %llu the state under way, %llu the one before while one was under way, %llu none yet; %llu "
	       "writes and %llu syncs failed; %llu files with another memory's version\n", (unsigned long long)images, (unsigned long long)took_new,
	       (unsigned long long)took_old, (unsigned long long)none_yet, (unsigned long long)failed_writes,
	       (unsigned long long)failed_syncs, (unsigned long long)foreign);
	if (images > 1000 && (took_new < images / 100 || took_old < images / 10))
		st_fail("one of the two states is hardly ever met");
	return st_end(ST_SLACK + ST_MIB, 0);
}
