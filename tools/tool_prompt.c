/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Asks for a passphrase on the controlling terminal with echo off. It must leave the terminal as it was on every way
 * out, signals included. It knows nothing of what the passphrase is for.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/io.h"
#include "tools/tool.h"

#define PASSPHRASE_MAX 4096

/* The first N_STOPS only stop a process; when it goes on, it asks again. */
static const int caught[] = { SIGTSTP, SIGTTIN, SIGTTOU, SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM };
#define N_STOPS 3
#define STOP_TTOU 2
#define N_CAUGHT (sizeof(caught) / sizeof(caught[0]))

/* Which of the signals came while the terminal was ours; a handler can leave its news nowhere else. */
static volatile sig_atomic_t came[N_CAUGHT];

static void on_signal(int sig)
{
	for (size_t i = 0; i < N_CAUGHT; i++) {
		if (caught[i] == sig)
			came[i] = 1;
	}
}

/*
 * A line into buf: its length without the newline, or -errno (-EINTR: a signal came; -ECANCELED: end of input).
 * The signals are blocked but for the wait, so that none is lost between its news and the read.
 */
static int read_line(int fd, const sigset_t *while_waiting, uint8_t *buf, size_t max)
{
	size_t n = 0;

	for (;;) {
		struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
		ssize_t got;

		if (ppoll(&poll_fd, 1, NULL, while_waiting) < 0)
			return -errno;
		got = read(fd, buf + n, 1);
		if (got < 0)
			return -errno;
		if (got == 0 && n == 0)
			return -ECANCELED;
		if (got == 0 || buf[n] == '\n' || buf[n] == '\r')
			return (int)n;
		if (++n == max)
			return -E2BIG;
	}
}

/* With echo off; the terminal is put back whatever happens. */
static int ask_quietly(int tty, const sigset_t *while_waiting, const char *prompt, uint8_t *buf, size_t max)
{
	struct termios old_term, term;
	int rc;

	if (tcgetattr(tty, &old_term) < 0)
		return -errno;
	term = old_term;
	term.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
	rc = tcsetattr(tty, TCSAFLUSH, &term) < 0 ? -errno : 0;
	if (rc == 0)
		rc = cmek_write_full(tty, prompt, strlen(prompt));
	if (rc == 0)
		rc = read_line(tty, while_waiting, buf, max);
	/* In the background tcsetattr() raises SIGTTOU and fails; then the shell restores the terminal. */
	while (tcsetattr(tty, TCSAFLUSH, &old_term) < 0 && errno == EINTR && !came[STOP_TTOU])
		;
	(void)cmek_write_full(tty, "\n", 1); /* the user's newline was not echoed; cosmetic */
	return rc;
}

/*
 * One prompt with the signals caught. Afterwards, with the terminal restored, each one that came is raised again under
 * its old handler. -EINTR when one came and we still live.
 */
static int prompt_once(int tty, const char *prompt, uint8_t *buf, size_t max)
{
	struct sigaction action = { .sa_handler = on_signal }, old_actions[N_CAUGHT];
	sigset_t block, old_mask;
	int rc;

	sigemptyset(&action.sa_mask);
	sigemptyset(&block);
	for (size_t i = 0; i < N_CAUGHT; i++) {
		came[i] = 0;
		sigaction(caught[i], &action, &old_actions[i]);
		/* Blocked, these two would let a background process change and read the terminal. */
		if (caught[i] != SIGTTIN && caught[i] != SIGTTOU)
			sigaddset(&block, caught[i]);
	}
	sigprocmask(SIG_BLOCK, &block, &old_mask);
	rc = ask_quietly(tty, &old_mask, prompt, buf, max);
	sigprocmask(SIG_SETMASK, &old_mask, NULL);
	for (size_t i = 0; i < N_CAUGHT; i++)
		sigaction(caught[i], &old_actions[i], NULL);
	for (size_t i = 0; i < N_CAUGHT; i++) {
		if (came[i]) {
			raise(caught[i]);
			rc = -EINTR;
		}
	}
	return rc;
}

/* A signal of another kind that we survived was the program's to handle, and ends the question. */
static bool only_stopped(void)
{
	for (size_t i = N_STOPS; i < N_CAUGHT; i++) {
		if (came[i])
			return false;
	}
	return true;
}

int cmek_tool_ask_passphrase(void *arg, const char *prompt, struct cmek_secret **ret_passphrase, struct cmek_error *err)
{
	struct cmek_secret *line = NULL;
	uint8_t *bytes;
	int tty, rc;

	(void)arg;
	tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (tty < 0)
		return cmek_error_set(err, CMEK_E_DENIED, ENOTTY, "there is no terminal to ask for the passphrase on");
	rc = cmek_secret_new(CMEK_KEY_TEXT, PASSPHRASE_MAX + 1, &line, err);
	if (rc < 0)
		goto out;
	bytes = cmek_secret_fill(line, CMEK_KEY_TEXT);
	do {
		rc = prompt_once(tty, prompt, bytes, PASSPHRASE_MAX + 1);
	} while (rc == -EINTR && only_stopped());
	if (rc == 0 || rc == -ECANCELED)
		rc = cmek_error_set(err, CMEK_E_DENIED, ECANCELED, "no passphrase was given");
	else if (rc == -E2BIG)
		rc = cmek_error_set(err, CMEK_E_USAGE, E2BIG, "the passphrase is longer than %d bytes", PASSPHRASE_MAX);
	else if (rc < 0)
		rc = cmek_error_sys(err, -rc, "reading the passphrase from the terminal");
	else
		rc = cmek_secret_new_copy(CMEK_KEY_TEXT, bytes, (size_t)rc, ret_passphrase, err);
out:
	cmek_secret_free(line);
	close(tty);
	return rc < 0 ? rc : 0;
}
