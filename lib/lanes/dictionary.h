/* SPDX-License-Identifier: MIT */
/* Zstandard with dictionaries, whose library is loaded when somebody asks for it. Where that has no training, or there is
 * no memory, there are none, and nobody is the worse for it. */
#ifndef QUARRY_LANES_DICTIONARY_H
#define QUARRY_LANES_DICTIONARY_H

#include "lib/base/base.h"

bool qy_dictionaries_load(void);
/* Bytes of a dictionary made of samples, which stand side by side; 0: none can be made of those. It takes some ms. */
size_t qy_dictionary_train(void *to, size_t room, const void *samples, const size_t *sizes, uint32_t count);
/* Digested, to compress by and to decompress by; NULL: no memory. (They are freed with the functions after them.) */
void *qy_encoder_make(const void *dictionary, size_t size);
void *qy_decoder_make(const void *dictionary, size_t size);
void qy_encoder_free(void *encoder);
void qy_decoder_free(void *decoder);
void *qy_compression_make(void);
void *qy_decompression_make(void);
void qy_compression_free(void *context);
void qy_decompression_free(void *context);
/* Bytes made, or 0: they do not fit. */
size_t qy_compress_by(void *context, const void *encoder, const void *from, size_t size, void *to, size_t room);
bool qy_decompress_by(void *context, const void *decoder, const void *from, size_t size, void *to, size_t is);

#endif
