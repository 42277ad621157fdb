/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Records every (key, nonce) pair of a test build in a file, one write for each, so that a test can show that none
 * repeats. Only compiled with --enable-nonce-log. Knows keys as fingerprints only.
 */
#include "config.h"

#include "base/nonce_log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/log.h"
#include "base/text.h"

#define KEY_DIGITS 32
#define NONCE_MAX 16

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int log_fd = -1;

static void fail(const char *what)
{
	cmek_log(CMEK_LOG_ERROR, "nonce log: can't %s: %s", what, strerror(errno));
	abort();
}

static void open_log(void)
{
	const char *path = getenv("CMEK_NONCE_LOG_FILE");

	if (!path)
		return;
	log_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (log_fd < 0)
		fail("open the file");
}

void cmek_nonce_log(const uint8_t *key, size_t key_len, const uint8_t *nonce, size_t nonce_len)
{
	struct iovec iov = { (void *)key, key_len };
	char line[CMEK_HEX_LEN(CMEK_SHA256_LEN) + 1 + CMEK_HEX_LEN(NONCE_MAX) + 2];
	uint8_t digest[CMEK_SHA256_LEN];
	size_t len;

	assert(nonce_len <= NONCE_MAX);
	pthread_once(&once, open_log);
	if (log_fd < 0)
		return;
	if (cmek_sha256(&iov, 1, digest))
		abort();
	cmek_hex_encode(digest, KEY_DIGITS / 2, line);
	line[KEY_DIGITS] = ' ';
	cmek_hex_encode(nonce, nonce_len, line + KEY_DIGITS + 1);
	len = strlen(line);
	line[len++] = '\n';
	/* Lines of all processes interleave whole: O_APPEND, one write. */
	if (write(log_fd, line, len) != (ssize_t)len)
		fail("append to the file");
}
