/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_BASE_LOG_H
#define CMEK_BASE_LOG_H

/*
 * One process-wide sink. Libraries log at debug only; programs, mount's main and reply.c speak.
 * Never file names or contents, never key bytes. Thread-safe.
 */
enum cmek_log_level {
	CMEK_LOG_ERROR = 3, /* syslog's numbers */
	CMEK_LOG_WARNING = 4,
	CMEK_LOG_NOTICE = 5,
	CMEK_LOG_INFO = 6,
	CMEK_LOG_DEBUG = 7
};

/* To stderr as "PROGRAM: text" (the default), or to syslog once daemonized. Messages above `level` are dropped. */
void cmek_log_to_stderr(const char *program, enum cmek_log_level level);
void cmek_log_to_syslog(const char *program, enum cmek_log_level level);
/* To stderr as "<LEVEL>text" (the form of sd-daemon(3)), for another process to read and pass on. */
void cmek_log_to_relay(enum cmek_log_level level);

void cmek_log(enum cmek_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * At most 10 lines a second for the caller's bucket (a static zeroed struct at the call's site); what was dropped is
 * counted and said with the next line that passes.
 */
struct cmek_log_limit {
	long second;
	unsigned passed, dropped;
};
void cmek_log_limited(struct cmek_log_limit *limit, enum cmek_log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
