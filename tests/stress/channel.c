/* SPDX-License-Identifier: MIT */
/* Channels under load: what was sent arrives once, whole, and in its sender's order. Threads first: one producer, then several. Then
 * processes, which are killed at random moments and followed by others, the consumer too: what was published is received, again where the
 * consumer died, of that no more than it held and nothing that it had released, and nothing that nobody sent. (ThreadSanitizer does not see other processes: threads alone.) */
#include "tests/stress/stress.h"

#include <sys/wait.h>

#include "include/quarry/channel.h"

enum { PRODUCERS = 3, SLOTS = 8 };

/* In the heap's user area. */
struct notes {
	uint64_t stop;
	uint64_t published[SLOTS]; /* the last number of each */
	uint64_t received[SLOTS], releasing[SLOTS], released[SLOTS]; /* the last one's key */
	uint64_t repeated, again, told;
	quarry_off ring;
};

struct message {
	uint64_t who, key, size;
	unsigned char bytes[];
};

/* What is sent once more, for its producer died before it could note that it was published, is another one. Keys rise. */
static uint64_t key_for(uint64_t round, uint64_t number)
{
	return round << 40 | number;
}

static uint64_t number_of(uint64_t key)
{
	return key & (((uint64_t)1 << 40) - 1);
}

static quarry_mapped *heap;
static struct notes *notes;

static void note(uint64_t *at, uint64_t value)
{
	__atomic_store_n(at, value, __ATOMIC_RELEASE);
}

static uint64_t noted(uint64_t *at)
{
	return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

static quarry_channel *open_end(int role)
{
	quarry_channel *end;

	do /* (one that was killed is not at once gone) */
		end = quarry_channel_open(heap, notes->ring, role);
	while (end == NULL && errno == EUSERS);
	if (end == NULL)
		st_fail("%s", quarry_error_text());
	return end;
}

static size_t size_for(uint64_t who, uint64_t number)
{
	uint64_t x = st_mix(who * 1000003 + number);

	return x % 9 == 0 ? x >> 32 & 4095 : x >> 40 & 127;
}

static void *room_for(quarry_channel *p, size_t size)
{
	void *room;

	do
		room = quarry_channel_reserve(p, size, -1);
	while (room == NULL && errno == EPIPE && sched_yield() == 0); /* its consumer was killed: another comes */
	if (room == NULL)
		st_fail("%s", quarry_error_text());
	return room;
}

static void send_one(quarry_channel *p, struct st_rng *rng, uint64_t who, uint64_t round, uint64_t number)
{
	size_t size = size_for(who, number);
	struct message *m;

	if (st_below(rng, 40) == 0)
		ST_CHECK(quarry_channel_cancel(p, room_for(p, st_below(rng, 2000))) == 0);
	m = room_for(p, sizeof(*m) + size);
	m->who = who;
	m->key = key_for(round, number);
	m->size = size;
	for (size_t i = 0; i < size; i++)
		m->bytes[i] = (unsigned char)(st_mix(number + i / 8) >> i % 8 * 8);
	ST_CHECK(quarry_channel_publish(p, m, st_below(rng, 4) == 0 ? QUARRY_CHANNEL_MORE : 0) == 0);
}

static void is_whole(const struct message *m, size_t size)
{
	uint64_t number;

	if (size < sizeof(*m) || m->who >= SLOTS || m->size != size_for(m->who, number_of(m->key)) || size != sizeof(*m) + m->size)
		st_fail("a message that nobody sent");
	number = number_of(m->key);
	for (size_t i = 0; i < m->size; i++) {
		if (m->bytes[i] != (unsigned char)(st_mix(number + i / 8) >> i % 8 * 8))
			st_fail("message %llu of %llu: byte %zu is another", (unsigned long long)number, (unsigned long long)m->who, i);
	}
}

static void not_in_order(const struct message *m, uint64_t last, const char *what)
{
	st_fail("message %llu of %llu, life %llu, comes behind %llu of life %llu: %s", (unsigned long long)number_of(m->key),
		(unsigned long long)m->who, (unsigned long long)(m->key >> 40), (unsigned long long)number_of(last),
		(unsigned long long)(last >> 40), what);
}

static bool follows(uint64_t key, uint64_t last)
{
	return key > last && number_of(key) - number_of(last) <= 1;
}

/* seen: the last one's key of each sender, in this consumer's life; 0: the first is what the one before had not released, which may have
 * died with a release begun and not noted. */
static void take_one(const struct message *m, size_t size, uint64_t seen[SLOTS])
{
	uint64_t last, released;

	is_whole(m, size);
	last = noted(&notes->received[m->who]);
	released = noted(&notes->released[m->who]);
	if (seen[m->who] != 0 && !follows(m->key, seen[m->who]))
		not_in_order(m, seen[m->who], "it was received, or others are missing");
	if (seen[m->who] == 0 && !follows(m->key, released) && !follows(m->key, noted(&notes->releasing[m->who])))
		not_in_order(m, released, "it was released, or others are missing");
	seen[m->who] = m->key;
	if (m->key <= last) {
		notes->repeated++;
		return;
	}
	if (!follows(m->key, last))
		not_in_order(m, last, "others are missing");
	notes->again += number_of(m->key) == number_of(last);
	note(&notes->received[m->who], m->key);
}

static void give_back(quarry_channel *c, const uint64_t seen[SLOTS])
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (seen[i] != 0)
			note(&notes->releasing[i], seen[i]);
	quarry_channel_release(c);
	for (unsigned i = 0; i < SLOTS; i++)
		if (seen[i] != 0)
			note(&notes->released[i], seen[i]);
}

/* ---- threads ---- */

static void producing(struct st_worker *w)
{
	quarry_channel *p = open_end(QUARRY_CHANNEL_PRODUCER);

	for (uint64_t n = 1; st_more(w); n++) {
		send_one(p, &w->rng, w->number, 0, n);
		note(&notes->published[w->number], n);
	}
	quarry_channel_flush(p);
	quarry_channel_close(p);
}

static void make_ring(uint32_t producers)
{
	quarry_channel_attr attr = { .struct_size = sizeof(attr), .bytes = 65536, .producers = producers };
	quarry_off *slot = quarry_mapped_root_slot(heap, "ring");

	ST_CHECK(quarry_mapped_free_from(heap, slot) == 0);
	memset(notes, 0, sizeof(*notes));
	notes->ring = quarry_channel_make(heap, slot, &attr);
	ST_CHECK(notes->ring != 0);
}

static void threads(uint32_t producers)
{
	static struct st_worker workers[SLOTS];
	struct st_rng rng = st_rng_for(999);
	unsigned threads_were = st.threads, begun;
	quarry_channel *c, *keep;
	uint64_t seen[SLOTS] = { 0 };
	size_t size;
	const void *m;

	make_ring(producers == 1 ? 1 : producers + 1);
	c = open_end(QUARRY_CHANNEL_CONSUMER);
	keep = producers == 1 ? NULL : open_end(QUARRY_CHANNEL_PRODUCER); /* until all have begun */
	st.threads = producers;
	for (unsigned i = 0; i < producers; i++) {
		st_worker_init(&workers[i], i);
		workers[i].body = producing;
		ST_CHECK(pthread_create(&workers[i].thread, NULL, st_worker_main, &workers[i]) == 0);
	}
	for (unsigned held = 0; (m = quarry_channel_receive(c, &size, -1)) != NULL; held++) {
		take_one(m, size, seen);
		if (held >= st_below(&rng, 9)) {
			give_back(c, seen);
			held = 0;
		}
		for (begun = 0; keep != NULL && begun < producers && notes->received[begun] != 0; begun++)
			;
		if (keep != NULL && begun == producers) {
			quarry_channel_close(keep);
			keep = NULL;
		}
	}
	ST_CHECK(errno == EPIPE);
	st_join(workers, producers);
	st.threads = threads_were;
	for (unsigned i = 0; i < producers; i++)
		ST_CHECK(notes->received[i] == notes->published[i]);
	ST_CHECK(notes->again == 0 && notes->repeated == 0);
	quarry_channel_close(c);
}

/* ---- processes ---- */

static void attach(void)
{
	heap = quarry_mapped_attach(quarry_mapped_fd(heap));
	if (heap == NULL)
		st_fail("%s", quarry_error_text());
	notes = quarry_mapped_user(heap, NULL);
	st_watchdog_start(st.watchdog);
}

static void produce(unsigned who, uint64_t round)
{
	struct st_rng rng = st_rng_for(round * 100 + who);
	quarry_channel *p;

	attach();
	p = open_end(QUARRY_CHANNEL_PRODUCER);
	while (noted(&notes->stop) == 0) {
		uint64_t n = noted(&notes->published[who]) + 1;

		send_one(p, &rng, who, round, n);
		note(&notes->published[who], n);
	}
	quarry_channel_close(p);
	_exit(0);
}

static void consume(uint64_t round)
{
	struct st_rng rng = st_rng_for(round * 100 + 50);
	uint64_t seen[SLOTS] = { 0 };
	quarry_channel *c;
	const struct message *m;
	size_t size;

	attach();
	c = open_end(QUARRY_CHANNEL_CONSUMER);
	for (;;) {
		m = quarry_channel_receive(c, &size, -1);
		if (m != NULL) {
			take_one(m, size, seen);
		} else if (errno == EOWNERDEAD) {
			note(&notes->told, noted(&notes->told) + 1);
		} else if (errno != ENOBUFS) {
			break;
		}
		if ((m == NULL && errno == ENOBUFS) || st_below(&rng, 5) == 0)
			give_back(c, seen);
	}
	ST_CHECK(errno == EPIPE);
	_exit(0);
}

static pid_t start(unsigned who, uint64_t round)
{
	pid_t pid = fork();

	if (pid == 0 && who < PRODUCERS)
		produce(who, round);
	if (pid == 0)
		consume(round);
	ST_CHECK(pid > 0);
	return pid;
}

/* Each is told, and again only where a consumer was killed before it came back. Who was killed early had no end yet. */
static void told_of_deaths(uint64_t died, uint64_t of_consumers, uint64_t of_producers)
{
	uint64_t told = noted(&notes->told);

	printf("channel: %llu producers' deaths, %llu told\n", (unsigned long long)died, (unsigned long long)told);
	if (told < died || told - died > of_consumers || died > of_producers || died * 4 < of_producers)
		st_fail("%llu producers and %llu consumers were killed, %llu died with an end, %llu were told", (unsigned long long)of_producers,
			(unsigned long long)of_consumers, (unsigned long long)died, (unsigned long long)told);
}

/* Somebody of all is killed when so much more has been received. */
static void processes(uint64_t kills)
{
	struct st_rng rng = st_rng_for(777);
	pid_t pid[PRODUCERS + 1];
	quarry_channel *keep;
	quarry_channel_info info;
	uint64_t sum = 0, killed[2] = { 0 };
	int status;

	make_ring(PRODUCERS + 3);
	keep = open_end(QUARRY_CHANNEL_PRODUCER); /* the consumer is not at its end while all others are dead */
	for (unsigned i = 0; i <= PRODUCERS; i++)
		pid[i] = start(i, 0);
	for (uint64_t k = 1; k <= kills; k++) {
		unsigned who = (unsigned)st_below(&rng, PRODUCERS + 1);
		uint64_t until = sum + st_below(&rng, 300), is;

		do {
			is = 0;
			for (unsigned i = 0; i < PRODUCERS; i++)
				is += number_of(noted(&notes->received[i]));
		} while (is < until && sched_yield() == 0);
		sum = is;
		ST_CHECK(kill(pid[who], SIGKILL) == 0 && waitpid(pid[who], &status, 0) == pid[who] && WIFSIGNALED(status));
		killed[who == PRODUCERS]++;
		pid[who] = start(who, k);
	}
	note(&notes->stop, 1);
	for (unsigned i = 0; i < PRODUCERS; i++)
		ST_CHECK(waitpid(pid[i], &status, 0) == pid[i] && status == 0);
	quarry_channel_close(keep);
	ST_CHECK(waitpid(pid[PRODUCERS], &status, 0) == pid[PRODUCERS] && status == 0);
	keep = open_end(QUARRY_CHANNEL_PRODUCER);
	ST_CHECK(quarry_channel_info_get(keep, &info, sizeof(info)) == 0);
	quarry_channel_close(keep);
	told_of_deaths(info.died, killed[1], killed[0]);
	for (unsigned i = 0; i < PRODUCERS; i++) {
		if (number_of(notes->received[i]) < notes->published[i])
			st_fail("%llu: %llu were published, %llu received", (unsigned long long)i, (unsigned long long)notes->published[i],
				(unsigned long long)number_of(notes->received[i]));
	}
	printf("channel: %llu killed, %llu messages, %llu received again, %llu sent again\n", (unsigned long long)kills,
	       (unsigned long long)sum, (unsigned long long)notes->repeated, (unsigned long long)notes->again);
	if (notes->again > killed[0])
		st_fail("%llu were sent again, and %llu producers killed", (unsigned long long)notes->again, (unsigned long long)killed[0]);
}

int main(int argc, char **argv)
{
	quarry_mapped_attr attr = { .struct_size = sizeof(attr), .mode = QUARRY_MAPPED_VOLATILE, .max_bytes = (uint64_t)1 << 30 };
	quarry_mapped_report report;

	st_begin(argc, argv, "channel", 300000, PRODUCERS);
	heap = quarry_mapped_create(NULL, &attr);
	if (heap == NULL)
		st_fail("%s", quarry_error_text());
	notes = quarry_mapped_user(heap, NULL);
	ST_CHECK(quarry_mapped_root_put(heap, "ring", 0, 0) == 0);
	threads(1);
	threads(PRODUCERS);
	if (!ST_TSAN)
		processes(st.ops / 1000);
	ST_CHECK(quarry_mapped_free_from(heap, quarry_mapped_root_slot(heap, "ring")) == 0);
	ST_CHECK(quarry_mapped_recover(heap) >= 0);
	if (quarry_mapped_check(heap, &report, sizeof(report)) != 0 || report.objects != 0)
		st_fail("%llu objects are left, %s", (unsigned long long)report.objects, report.first);
	quarry_mapped_close(heap);
	return st_end(ST_SLACK, 0);
}
