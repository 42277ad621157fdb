/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The process's one log sink: stderr, syslog or another process, a threshold, and a rate limit. Decides nothing about
 * what is worth saying, and never looks into what it is given.
 */
#include "config.h"

#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"

#define LINE_MAX_BYTES 2048
#define LINES_PER_SECOND 10

enum sink { TO_STDERR, TO_SYSLOG, TO_RELAY };

/* Set before threads start, as a rule; the lock guards program and the buckets of all callers. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char program[64] = "cmekfs";
static atomic_int threshold = CMEK_LOG_NOTICE;
static atomic_int sink = TO_STDERR;

static void set_sink(const char *name, enum cmek_log_level level, enum sink to)
{
	pthread_mutex_lock(&lock);
	snprintf(program, sizeof(program), "%s", name);
	if (to == TO_SYSLOG)
		openlog(program, LOG_PID, LOG_DAEMON); /* keeps the pointer */
	pthread_mutex_unlock(&lock);
	atomic_store(&threshold, (int)level);
	atomic_store(&sink, (int)to);
}

void cmek_log_to_stderr(const char *name, enum cmek_log_level level)
{
	set_sink(name, level, TO_STDERR);
}

void cmek_log_to_syslog(const char *name, enum cmek_log_level level)
{
	set_sink(name, level, TO_SYSLOG);
}

void cmek_log_to_relay(enum cmek_log_level level)
{
	set_sink("", level, TO_RELAY);
}

/*
 * One line is one write, so that lines of several threads and processes don't mix. Control characters (a line break in
 * a path, a terminal's escape sequence) would let whoever chose the text forge lines: they become question marks.
 */
static void emit(enum cmek_log_level level, unsigned dropped, const char *fmt, va_list ap)
{
	char line[LINE_MAX_BYTES];
	int to = atomic_load(&sink), saved_errno = errno;
	size_t head = 0, used;
	size_t i;

	line[0] = '\0';
	if (to == TO_STDERR) {
		pthread_mutex_lock(&lock);
		snprintf(line, sizeof(program) + 3, "%s: ", program);
		pthread_mutex_unlock(&lock);
	} else if (to == TO_RELAY) {
		snprintf(line, sizeof(line), "<%d>", (int)level);
	}
	head = strlen(line);
	errno = saved_errno; /* for %m */
	if (vsnprintf(line + head, sizeof(line) - head, fmt, ap) < 0)
		line[head] = '\0';
	used = strlen(line);
	if (dropped && used < sizeof(line) - 48)
		snprintf(line + used, sizeof(line) - used, " (%u more like this not shown)", dropped);
	for (i = head; line[i]; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	if (to == TO_SYSLOG) {
		syslog((int)level, "%s", line + head);
	} else {
		if (i > sizeof(line) - 2)
			i = sizeof(line) - 2;
		line[i++] = '\n';
		(void)cmek_write_full(STDERR_FILENO, line, i); /* there is nowhere left to say that it failed */
	}
	errno = saved_errno;
}

void cmek_log(enum cmek_log_level level, const char *fmt, ...)
{
	va_list ap;

	if ((int)level > atomic_load_explicit(&threshold, memory_order_relaxed))
		return;
	va_start(ap, fmt);
	emit(level, 0, fmt, ap);
	va_end(ap);
}

void cmek_log_limited(struct cmek_log_limit *limit, enum cmek_log_level level, const char *fmt, ...)
{
	int saved_errno = errno;
	unsigned dropped = 0;
	struct timespec now;
	bool pass;
	va_list ap;

	if ((int)level > atomic_load_explicit(&threshold, memory_order_relaxed))
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	pthread_mutex_lock(&lock);
	if (limit->second != (long)now.tv_sec) {
		limit->second = (long)now.tv_sec;
		limit->passed = 0;
	}
	pass = limit->passed < LINES_PER_SECOND;
	if (pass) {
		limit->passed++;
		dropped = limit->dropped;
		limit->dropped = 0;
	} else {
		limit->dropped++;
	}
	pthread_mutex_unlock(&lock);
	if (!pass)
		return;
	errno = saved_errno;
	va_start(ap, fmt);
	emit(level, dropped, fmt, ap);
	va_end(ap);
}
