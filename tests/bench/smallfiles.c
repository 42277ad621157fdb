/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A load of its own, which knows nothing of cmekfs. Rates of operations on many small files, for tests/bench/run:
 * smallfiles create|stat|read|unlink DIR FILES BYTES. Prints operations a second. Files are spread over directories of
 * 1000 and visited in one shuffled order (but made in sequence), so that no cache of the last directory answers for all
 * of them.
 */
#include "config.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILES_PER_DIR 1000

static void path_of(char *path, size_t size, const char *top, unsigned n)
{
	snprintf(path, size, "%s/dir-%u/small-file-number-%u", top, n / FILES_PER_DIR, n);
}

static void make_dirs(const char *top, unsigned n_files)
{
	char path[4096];

	for (unsigned i = 0; i * FILES_PER_DIR < n_files; i++) {
		snprintf(path, sizeof(path), "%s/dir-%u", top, i);
		if (mkdir(path, 0755) && errno != EEXIST)
			err(1, "%s", path);
	}
}

static void do_create(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	if (fd < 0 || write(fd, buf, size) != (ssize_t)size || close(fd))
		err(1, "create %s", path);
}

static void do_stat(const char *path, char *buf, size_t size)
{
	struct stat st;

	(void)buf;
	if (stat(path, &st))
		err(1, "stat %s", path);
	if (st.st_size != (off_t)size)
		errx(1, "stat %s: size %jd", path, (intmax_t)st.st_size);
}

static void do_read(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, buf, size + 1) != (ssize_t)size || close(fd))
		err(1, "read %s", path);
}

static void do_unlink(const char *path, char *buf, size_t size)
{
	(void)buf;
	(void)size;
	if (unlink(path))
		err(1, "unlink %s", path);
}

static const struct operation {
	const char *name;
	void (*run)(const char *path, char *buf, size_t size);
} operations[] = {
	{ "create", do_create },
	{ "read", do_read },
	{ "stat", do_stat },
	{ "unlink", do_unlink },
};

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	const struct operation *op = NULL;
	unsigned *order, n_files;
	char path[4096], *buf;
	size_t size;
	double start;

	if (argc != 5)
		errx(2, "usage: smallfiles create|stat|read|unlink DIR FILES BYTES");
	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
		if (!strcmp(argv[1], operations[i].name))
			op = &operations[i];
	n_files = (unsigned)strtoul(argv[3], NULL, 10);
	size = strtoul(argv[4], NULL, 10);
	if (!op || !n_files)
		errx(2, "usage: smallfiles create|stat|read|unlink DIR FILES BYTES");
	order = calloc(n_files, sizeof(*order));
	buf = malloc(size + 1);
	if (!order || !buf)
		err(1, "memory");
	memset(buf, 'x', size + 1);
	for (unsigned i = 0; i < n_files; i++)
		order[i] = i;
	if (op->run == do_create) {
		make_dirs(argv[2], n_files);
	} else {
		srandom(1);
		for (unsigned i = n_files - 1; i > 0; i--) {
			unsigned j = (unsigned)random() % (i + 1), other = order[i];

			order[i] = order[j];
			order[j] = other;
		}
	}
	start = now_s();
	for (unsigned i = 0; i < n_files; i++) {
		path_of(path, sizeof(path), argv[2], order[i]);
		op->run(path, buf, size);
	}
	printf("%.1f\n", (double)n_files / (now_s() - start));
	free(order);
	free(buf);
	return 0;
}
