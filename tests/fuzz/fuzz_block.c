/* SPDX-License-Identifier: MIT */
/* The block layer under libFuzzer: the input is a list of steps, four bytes each, done to the layer and to a plain
 * model that are then compared.
 *
 *	clang -fsanitize=fuzzer,address,undefined -DQUARRY_FUZZ -I. -Iinclude tests/fuzz/fuzz_block.c lib/block/block.c
 *
 * Without QUARRY_FUZZ it is a program of its own, that makes inputs from seeds: fuzz_block [SEED [INPUTS]], or runs
 * those that libFuzzer kept: fuzz_block FILE… */
#include <stdlib.h>

#define MODEL_FAIL(...) abort()
#include "tests/fuzz/block_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct block_model m;

	if (size == 0)
		return 0;
	block_model_init(&m, data[0] & 1 ? 256 : sizeof(struct qy_block));
	for (size_t i = 1; i + 4 <= size; i += 4) {
		uint32_t page = data[i + 1] | (uint32_t)data[i + 2] << 8;

		block_step(&m, data[i] % BLOCK_OPS, page, data[i + 3] | (uint32_t)(data[i] / BLOCK_OPS) << 8);
		if (i % 256 == 1)
			block_compare_all(&m);
	}
	block_compare_all(&m);
	block_model_free(&m);
	return 0;
}

#ifndef QUARRY_FUZZ
#define INPUT_MAX 8192

static int run_file(const char *path)
{
	static uint8_t input[1 << 20];
	FILE *file = fopen(path, "rb");
	size_t size;

	if (file == NULL) {
		perror(path);
		return 1;
	}
	size = fread(input, 1, sizeof(input), file);
	fclose(file);
	return LLVMFuzzerTestOneInput(input, size);
}

int main(int argc, char **argv)
{
	static uint8_t input[INPUT_MAX];
	char *end = NULL;
	unsigned long inputs = argc > 2 ? strtoul(argv[2], NULL, 0) : 500;

	model_start("fuzz_block");
	if (argc > 1) {
		model_state = model_seed = strtoull(argv[1], &end, 0);
		if (*end != 0) {
			for (int i = 1; i < argc; i++)
				if (run_file(argv[i]) != 0)
					return 1;
			return 0;
		}
		printf("fuzz_block: from %" PRIu64 " on\n", model_seed);
	}
	for (unsigned long n = 0; n < inputs; n++) {
		size_t size = model_below(INPUT_MAX);

		for (size_t i = 0; i < size; i++)
			input[i] = (uint8_t)model_random();
		LLVMFuzzerTestOneInput(input, size);
	}
	printf("fuzz_block: %lu inputs\n", inputs);
	return 0;
}
#endif
