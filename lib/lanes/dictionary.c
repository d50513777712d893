/* SPDX-License-Identifier: MIT */
/* Zstandard's dictionaries. (dictionary.h has what they are.) Its functions are those of version 1.0 and later. */
#include "lib/lanes/dictionary.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include "lib/base/quiet.h"

#define LEVEL 3

static struct {
	size_t (*train)(void *to, size_t room, const void *samples, const size_t *sizes, unsigned count);
	unsigned (*train_failed)(size_t);
	void *(*encoder)(const void *bytes, size_t size, int level);
	void *(*decoder)(const void *bytes, size_t size);
	size_t (*encoder_free)(void *);
	size_t (*decoder_free)(void *);
	void *(*compression)(void);
	void *(*decompression)(void);
	size_t (*compression_free)(void *);
	size_t (*decompression_free)(void *);
	size_t (*compress)(void *context, void *to, size_t room, const void *from, size_t size, const void *encoder);
	size_t (*decompress)(void *context, void *to, size_t room, const void *from, size_t size, const void *decoder);
	unsigned (*failed)(size_t);
} zstd;

/* By way of memory, for ISO C knows no conversion. */
static bool find(void *library, const char *name, void *function)
{
	void *found = dlsym(library, name);

	memcpy(function, &found, sizeof(found));
	return found != NULL;
}

static bool load(void)
{
	void *library = dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);

	return library != NULL && find(library, "ZDICT_trainFromBuffer", &zstd.train) &&
	       find(library, "ZDICT_isError", &zstd.train_failed) && find(library, "ZSTD_createCDict", &zstd.encoder) &&
	       find(library, "ZSTD_createDDict", &zstd.decoder) && find(library, "ZSTD_freeCDict", &zstd.encoder_free) &&
	       find(library, "ZSTD_freeDDict", &zstd.decoder_free) && find(library, "ZSTD_createCCtx", &zstd.compression) &&
	       find(library, "ZSTD_createDCtx", &zstd.decompression) &&
	       find(library, "ZSTD_freeCCtx", &zstd.compression_free) &&
	       find(library, "ZSTD_freeDCtx", &zstd.decompression_free) &&
	       find(library, "ZSTD_compress_usingCDict", &zstd.compress) &&
	       find(library, "ZSTD_decompress_usingDDict", &zstd.decompress) && find(library, "ZSTD_isError", &zstd.failed);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Who was loading is not here: it is loaded again, from the beginning. (The C library minds its own locks.) */
static void in_child(void)
{
	pthread_mutex_init(&lock, NULL);
}

static void mind_forks(void)
{
	(void)pthread_atfork(NULL, NULL, in_child);
}

bool qy_dictionaries_load(void)
{
	static int loaded; /* 0: not tried, 1: there, -1: not */
	bool there;

	pthread_once(&once, mind_forks);
	qy_hold(&lock);
	if (loaded == 0)
		loaded = load() ? 1 : -1;
	there = loaded == 1;
	qy_let_go(&lock);
	return there;
}

size_t qy_dictionary_train(void *to, size_t room, const void *samples, const size_t *sizes, uint32_t count)
{
	size_t size = zstd.train(to, room, samples, sizes, count);

	return zstd.train_failed(size) ? 0 : size;
}

void *qy_encoder_make(const void *dictionary, size_t size)
{
	return zstd.encoder(dictionary, size, LEVEL);
}

void *qy_decoder_make(const void *dictionary, size_t size)
{
	return zstd.decoder(dictionary, size);
}

void qy_encoder_free(void *encoder)
{
	if (encoder != NULL)
		(void)zstd.encoder_free(encoder);
}

void qy_decoder_free(void *decoder)
{
	if (decoder != NULL)
		(void)zstd.decoder_free(decoder);
}

void *qy_compression_make(void)
{
	return zstd.compression();
}

void *qy_decompression_make(void)
{
	return zstd.decompression();
}

void qy_compression_free(void *context)
{
	if (context != NULL)
		(void)zstd.compression_free(context);
}

void qy_decompression_free(void *context)
{
	if (context != NULL)
		(void)zstd.decompression_free(context);
}

size_t qy_compress_by(void *context, const void *encoder, const void *from, size_t size, void *to, size_t room)
{
	size_t made = zstd.compress(context, to, room, from, size, encoder);

	return zstd.failed(made) ? 0 : made;
}

bool qy_decompress_by(void *context, const void *decoder, const void *from, size_t size, void *to, size_t is)
{
	return zstd.decompress(context, to, is, from, size, decoder) == is;
}
