/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Starts a program and reads what it prints into locked memory. It must not know what that means.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kms/cred_process.h"
#include "kms/problem.h"

#define WORDS_MAX 64
#define OUTPUT_MAX (64u << 10)
#define COMPLAINT_MAX 512

/* ---- words ---- */

void cmek_cred_split_free(char **argv)
{
	for (size_t i = 0; argv && argv[i]; i++)
		free(argv[i]);
	free(argv);
}

/* The next word from *p into word, which has room for all: false at the end. -EINVAL in *rc: an open quote. */
static bool next_word(const char **p, const char *end, char *word, int *rc)
{
	bool any = false;
	char quote = 0;
	size_t n = 0;

	while (*p < end && (**p == ' ' || **p == '\t'))
		(*p)++;
	for (; *p < end && (quote || (**p != ' ' && **p != '\t')); (*p)++) {
		char c = **p;

		any = true;
		if (quote && c == quote) {
			quote = 0;
		} else if (!quote && (c == '\'' || c == '"')) {
			quote = c;
		} else if (c == '\\' && quote != '\'' && *p + 1 < end) {
			(*p)++;
			/* Within double quotes a backslash is one, unless it saves something. */
			if (quote && **p != '"' && **p != '\\')
				word[n++] = '\\';
			word[n++] = **p;
		} else {
			word[n++] = c;
		}
	}
	word[n] = '\0';
	if (quote)
		*rc = -EINVAL;
	return any;
}

int cmek_cred_split(const char *text, size_t len, char ***ret_argv, struct cmek_error *err)
{
	const char *p = text, *end = text + len;
	char **argv = calloc(WORDS_MAX + 1, sizeof(*argv));
	char *word = malloc(len + 1);
	size_t n = 0;
	int rc = argv && word ? 0 : -ENOMEM;

	while (rc == 0 && next_word(&p, end, word, &rc)) {
		if (n == WORDS_MAX)
			rc = -EINVAL;
		else if (rc == 0 && !(argv[n++] = strdup(word)))
			rc = -ENOMEM;
	}
	free(word);
	if (rc == -ENOMEM)
		rc = cmek_error_sys(err, ENOMEM, "a command line");
	else if (rc < 0 || n == 0)
		rc = cmek_error_set(err, CMEK_E_USAGE, EINVAL, "not a command line: %s",
				    n == 0 ? "it is empty" : "a quote is open, or it has too many words");
	if (rc < 0)
		cmek_cred_split_free(argv);
	else
		*ret_argv = argv;
	return rc;
}

/* ---- running ---- */

struct run {
	pid_t pid;
	int out, err; /* our ends of its standard output and error, -1 = at their end */
	struct cmek_secret *room;
	size_t n_out;
	char complaint[COMPLAINT_MAX];
	size_t n_complaint;
};

static void close_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd); /* a pipe */
	*fd = -1;
}

/* Signals as usual, whatever this process ignores or blocks. */
static int spawn(char *const *argv, int out, int err, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t all, none;
	int rc = posix_spawn_file_actions_init(&actions);

	if (rc != 0)
		return rc;
	rc = posix_spawnattr_init(&attr);
	if (rc != 0) {
		(void)posix_spawn_file_actions_destroy(&actions);
		return rc;
	}
	(void)sigfillset(&all);
	(void)sigemptyset(&none);
	rc = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	if (rc == 0)
		rc = posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	if (rc == 0)
		rc = posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);
	if (rc == 0)
		rc = posix_spawnattr_setsigdefault(&attr, &all);
	if (rc == 0)
		rc = posix_spawnattr_setsigmask(&attr, &none);
	if (rc == 0)
		rc = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	if (rc == 0)
		rc = posix_spawnp(ret_pid, argv[0], &actions, &attr, argv, environ);
	(void)posix_spawnattr_destroy(&attr);
	(void)posix_spawn_file_actions_destroy(&actions);
	return rc;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t); /* can't fail */
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Reads what is there; closes at the end. False: more than there is room for. */
static bool take_output(struct run *r)
{
	uint8_t *room = cmek_secret_fill(r->room, CMEK_KEY_TEXT);
	ssize_t n = read(r->out, room + r->n_out, OUTPUT_MAX + 1 - r->n_out);

	if (n > 0)
		r->n_out += (size_t)n;
	else if (n == 0 || errno != EINTR)
		close_fd(&r->out);
	return r->n_out <= OUTPUT_MAX;
}

static void take_complaint(struct run *r)
{
	char rest[256];
	bool full = r->n_complaint == sizeof(r->complaint);
	ssize_t n = full ? read(r->err, rest, sizeof(rest)) :
			   read(r->err, r->complaint + r->n_complaint, sizeof(r->complaint) - r->n_complaint);

	if (n > 0 && !full)
		r->n_complaint += (size_t)n;
	else if (n == 0 || (n < 0 && errno != EINTR))
		close_fd(&r->err);
}

/* Until both ends are closed: 0, -ETIMEDOUT, -EFBIG. */
static int collect(struct run *r, unsigned timeout_ms)
{
	uint64_t end = now_ms() + timeout_ms, now;

	while (r->out >= 0 || r->err >= 0) {
		struct pollfd fds[2] = { { r->out, POLLIN, 0 }, { r->err, POLLIN, 0 } };

		now = now_ms();
		if (now >= end)
			return -ETIMEDOUT;
		if (poll(fds, 2, (int)(end - now)) <= 0)
			continue;
		if (fds[0].revents && !take_output(r))
			return -EFBIG;
		if (fds[1].revents)
			take_complaint(r);
	}
	return 0;
}

/* How it ended, as an error. */
static int judge(const struct run *r, const char *program, int status, struct cmek_error *err)
{
	char why[COMPLAINT_MAX];

	cmek_problem_text(why, sizeof(why), r->complaint, r->n_complaint);
	if (WIFSIGNALED(status))
		return cmek_error_set(err, CMEK_E_EXPIRED, EKEYEXPIRED, "%.200s was killed by signal %d", program,
				      WTERMSIG(status));
	if (WEXITSTATUS(status) != 0)
		return cmek_error_set(err, CMEK_E_EXPIRED, EKEYEXPIRED, "%.200s ended with exit code %d: %s", program,
				      WEXITSTATUS(status), why);
	if (r->n_out == 0)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "%.200s printed nothing", program);
	return 0;
}

static int wait_and_judge(struct run *r, const char *program, unsigned timeout_ms, struct cmek_error *err)
{
	int rc = collect(r, timeout_ms), status = 0;

	if (rc < 0)
		(void)kill(r->pid, SIGKILL);
	close_fd(&r->out);
	close_fd(&r->err);
	while (waitpid(r->pid, &status, 0) < 0 && errno == EINTR)
		;
	if (rc == -ETIMEDOUT)
		return cmek_error_set(err, CMEK_E_UNREACHABLE, ETIMEDOUT, "%.200s was not done after %u ms", program,
				      timeout_ms);
	if (rc < 0)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EFBIG, "%.200s printed more than %u bytes", program, OUTPUT_MAX);
	return judge(r, program, status, err);
}

int cmek_cred_run(char *const *argv, unsigned timeout_ms, struct cmek_secret **ret_output, struct cmek_error *err)
{
	int out[2] = { -1, -1 }, complaint[2] = { -1, -1 };
	struct run r = { .pid = -1, .out = -1, .err = -1 };
	int rc;

	rc = cmek_secret_new(CMEK_KEY_TEXT, OUTPUT_MAX + 1, &r.room, err);
	if (rc < 0)
		return rc;
	if (pipe2(out, O_CLOEXEC) != 0 || pipe2(complaint, O_CLOEXEC) != 0)
		rc = -errno;
	if (rc == 0)
		rc = -spawn(argv, out[1], complaint[1], &r.pid);
	r.out = out[0];
	r.err = complaint[0];
	close_fd(&out[1]);
	close_fd(&complaint[1]);
	if (rc == -ENOENT)
		rc = cmek_error_set(err, CMEK_E_EXPIRED, ENOENT, "%.200s: no such program", argv[0]);
	else if (rc < 0)
		rc = cmek_error_sys(err, -rc, "starting %.200s", argv[0]);
	else
		rc = wait_and_judge(&r, argv[0], timeout_ms, err);
	if (rc == 0)
		rc = cmek_secret_new_copy(CMEK_KEY_TEXT, cmek_secret_bytes(r.room, CMEK_KEY_TEXT), r.n_out, ret_output, err);
	close_fd(&r.out);
	close_fd(&r.err);
	cmek_secret_free(r.room);
	return rc;
}
