/* SPDX-License-Identifier: MIT */
/* Codecs: liblz4 and libzstd, loaded when somebody asks for them, so that quarry depends on neither. Their interfaces are
 * those of their first stable versions (LZ4 1.7, Zstandard 1.0), and their libraries' names say so. And a checksum. */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "lib/api/error.h"
#include "lib/base/quiet.h"
#include "lib/lanes/cold.h"

#define LZ4_STATE 16416 /* LZ4_sizeofState() */
#define ZSTD_LEVEL 3

static struct {
	int (*state_size)(void);
	int (*learn)(void *state, const char *dictionary, int size);
	int (*compress_on)(void *state, const char *from, char *to, int size, int room, int acceleration);
	int (*decompress_on)(const char *from, char *to, int size, int room, const char *dictionary, int known);
	int (*compress)(void *state, const char *from, char *to, int size, int room, int acceleration);
	int (*decompress)(const char *from, char *to, int size, int room);
} lz4;

static struct {
	size_t (*compress)(void *to, size_t room, const void *from, size_t size, int level);
	size_t (*decompress)(void *to, size_t room, const void *from, size_t size);
	unsigned (*is_error)(size_t);
} zstd;

static size_t lz4_compress(void *state, const void *from, size_t size, void *to, size_t room)
{
	int made;

	if (size > INT_MAX / 2)
		return 0;
	made = lz4.compress(state, from, to, (int)size, (int)qy_min(room, INT_MAX), 1);
	return made <= 0 ? 0 : (size_t)made;
}

static bool lz4_decompress(const void *from, size_t size, void *to, size_t is)
{
	return size <= INT_MAX && is <= INT_MAX && lz4.decompress(from, to, (int)size, (int)is) == (int)is;
}

/* A stream that has had the dictionary: each copy of it goes on from there. */
static void lz4_learn(void *learned, const void *dictionary, size_t size)
{
	memset(learned, 0, LZ4_STATE);
	(void)lz4.learn(learned, dictionary, (int)size);
}

static size_t lz4_compress_by(void *state, const void *learned, const void *from, size_t size, void *to, size_t room)
{
	int made;

	if (size > INT_MAX / 2)
		return 0;
	memcpy(state, learned, LZ4_STATE);
	made = lz4.compress_on(state, from, to, (int)size, (int)qy_min(room, INT_MAX), 1);
	return made <= 0 ? 0 : (size_t)made;
}

static bool lz4_decompress_by(const void *dictionary, size_t known, const void *from, size_t size, void *to, size_t is)
{
	return size <= INT_MAX && is <= INT_MAX &&
	       lz4.decompress_on(from, to, (int)size, (int)is, dictionary, (int)known) == (int)is;
}

static size_t zstd_compress(void *state, const void *from, size_t size, void *to, size_t room)
{
	size_t made = zstd.compress(to, room, from, size, ZSTD_LEVEL);

	(void)state;
	return zstd.is_error(made) ? 0 : made;
}

static bool zstd_decompress(const void *from, size_t size, void *to, size_t is)
{
	return zstd.decompress(to, is, from, size) == is;
}

static size_t none_compress(void *state, const void *from, size_t size, void *to, size_t room)
{
	(void)state;
	if (size > room)
		return 0;
	memcpy(to, from, size);
	return size;
}

static bool none_decompress(const void *from, size_t size, void *to, size_t is)
{
	if (size != is)
		return false;
	memcpy(to, from, size);
	return true;
}

static const struct qy_codec codecs[] = {
	{ "lz4", LZ4_STATE, lz4_compress, lz4_decompress, lz4_learn, lz4_compress_by, lz4_decompress_by },
	{ "zstd", 0, zstd_compress, zstd_decompress, NULL, NULL, NULL }, /* (with dictionaries: deep.c) */
	{ "none", 0, none_compress, none_decompress, NULL, NULL, NULL },
};

/* A function of a library: by way of memory, for ISO C knows no conversion. */
static bool find(void *library, const char *name, void *function)
{
	void *found = library == NULL ? NULL : dlsym(library, name);

	memcpy(function, &found, sizeof(found));
	return found != NULL;
}

/* A library stays once it is loaded: compressed objects need it. */
static bool load_lz4(void)
{
	void *library = dlopen("liblz4.so.1", RTLD_NOW | RTLD_LOCAL);

	return find(library, "LZ4_sizeofState", &lz4.state_size) && find(library, "LZ4_compress_fast_extState", &lz4.compress) &&
	       find(library, "LZ4_decompress_safe", &lz4.decompress) && find(library, "LZ4_loadDict", &lz4.learn) &&
	       find(library, "LZ4_compress_fast_continue", &lz4.compress_on) &&
	       find(library, "LZ4_decompress_safe_usingDict", &lz4.decompress_on) && lz4.state_size() <= LZ4_STATE;
}

static bool load_zstd(void)
{
	void *library = dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);

	return find(library, "ZSTD_compress", &zstd.compress) && find(library, "ZSTD_decompress", &zstd.decompress) &&
	       find(library, "ZSTD_isError", &zstd.is_error);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Who was loading is not here. */
static void in_child(void)
{
	pthread_mutex_init(&lock, NULL);
}

static void mind_forks(void)
{
	(void)pthread_atfork(NULL, NULL, in_child);
}

const struct qy_codec *qy_codec_find(const char *name)
{
	bool loaded = true;

	pthread_once(&once, mind_forks);
	for (size_t i = 0; i < sizeof(codecs) / sizeof(codecs[0]); i++) {
		if (strcmp(name, codecs[i].name) != 0)
			continue;
		qy_hold(&lock);
		if (i == 0)
			loaded = load_lz4();
		else if (i == 1)
			loaded = load_zstd();
		qy_let_go(&lock);
		if (loaded)
			return &codecs[i];
		(void)qy_fail(ENOENT, "codec: the library of %s, lib%s.so.1, is not there", name, name);
		return NULL;
	}
	(void)qy_fail(EINVAL, "codec: \"%s\" is not lz4, zstd or none", name);
	return NULL;
}

/* ---- checksum ---- */

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_by_instruction(const unsigned char *p, size_t size)
{
	uint64_t crc = UINT32_MAX, word;

	for (; size >= 8; p += 8, size -= 8) {
		memcpy(&word, p, 8);
		crc = __builtin_ia32_crc32di(crc, word);
	}
	for (; size > 0; p++, size--)
		crc = __builtin_ia32_crc32qi((uint32_t)crc, *p);
	return ~(uint32_t)crc;
}
#endif

static uint32_t crc_by_bits(const unsigned char *p, size_t size)
{
	uint32_t crc = UINT32_MAX;

	for (; size > 0; p++, size--) {
		crc ^= *p;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (0x82f63b78u & -(crc & 1));
	}
	return ~crc;
}

uint32_t qy_crc32c(const void *bytes, size_t size)
{
#if defined(__x86_64__)
	static _Atomic(int) has; /* 0: not known yet, 1: no, 2: yes. (__builtin_cpu_supports has a constructor run everywhere.) */
	unsigned a, b, c = 0, d;

	if (atomic_load_explicit(&has, memory_order_relaxed) == 0)
		atomic_store_explicit(&has, __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_2) ? 2 : 1, memory_order_relaxed);
	if (atomic_load_explicit(&has, memory_order_relaxed) == 2)
		return crc_by_instruction(bytes, size);
#endif
	return crc_by_bits(bytes, size);
}
