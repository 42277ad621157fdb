/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TESTS_FUZZ_FUZZ_H
#define CMEK_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * What libFuzzer, or replay.c with the files of a corpus, calls. A target aborts when something is wrong, and never
 * mind what the input is otherwise. To fuzz: tests/fuzz/README.md.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(condition)                                                                   \
	do {                                                                                    \
		if (!(condition)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                                \
		}                                                                               \
	} while (0)

#endif
