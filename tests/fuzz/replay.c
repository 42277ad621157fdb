/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * In the place of libFuzzer: runs the target it is linked with over files, those named as arguments or those of the
 * target's corpus. Knows nothing of what they mean.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

enum { INPUT_MAX = 1 << 20 };

static int run_file(const char *path)
{
	uint8_t *room = malloc(INPUT_MAX), *input;
	FILE *f = fopen(path, "re");
	size_t n;

	if (f == NULL || room == NULL) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return 1;
	}
	n = fread(room, 1, INPUT_MAX, f);
	(void)fclose(f);
	input = malloc(n > 0 ? n : 1); /* exactly as long, so that a sanitizer sees a read behind it */
	if (input == NULL)
		return 1;
	memcpy(input, room, n);
	(void)LLVMFuzzerTestOneInput(input, n);
	free(input);
	free(room);
	return 0;
}

/* The corpus of fuzz_NAME is corpus/NAME. */
static int run_corpus(const char *program)
{
	const char *srcdir = getenv("CMEK_SRCDIR"), *name = strrchr(program, '/');
	char path[4096];
	struct dirent *entry;
	int failed = 0, n = 0;
	size_t len;
	DIR *dir;

	name = name != NULL ? name + 1 : program;
	if (strncmp(name, "fuzz_", 5) == 0)
		name += 5;
	len = (size_t)snprintf(path, sizeof(path), "%s/tests/fuzz/corpus/%s/", srcdir != NULL ? srcdir : ".", name);
	dir = len < sizeof(path) ? opendir(path) : NULL;
	if (dir == NULL) {
		fprintf(stderr, "%s: no corpus\n", path);
		return 1;
	}
	while ((entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(path + len, sizeof(path) - len, "%s", entry->d_name);
		failed |= run_file(path);
		n++;
	}
	(void)closedir(dir);
	printf("%s: %d inputs\n", name, n);
	return failed || n == 0;
}

int main(int argc, char **argv)
{
	int i, failed = 0;

	if (argc < 2)
		return run_corpus(argv[0]);
	for (i = 1; i < argc; i++)
		failed |= run_file(argv[i]);
	return failed;
}
