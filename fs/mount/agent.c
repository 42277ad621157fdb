/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Both ends of the conversation between the storage daemon and the KMS agent. It must not know what a store is, nor
 * which key services exist.
 *
 * A request is what is asked (a byte), the volume's UUID and an encoded slot; an answer is struct answer. Each is one
 * SOCK_SEQPACKET message.
 * Whatever a KEK passes through is locked memory and wiped.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "fs/mount/agent.h"
#include "kms/session.h"

#define UUID_LEN 16
#define KEK_LEN 32
#define REQUEST_HEAD (1 + UUID_LEN)
#define REQUEST_MAX (REQUEST_HEAD + CMEK_SLOT_ENCODED_MAX)

enum { ASK_UNWRAP = 1, ASK_DESCRIBE = 2 };

/* Both ends are one program, so this never leaves the machine or outlives the mount. */
struct answer {
	int32_t rc; /* 0 or -errno */
	struct cmek_error error;
	uint8_t kek[KEK_LEN];
	struct cmek_agent_key key; /* of ASK_DESCRIBE */
};

static int send_whole(int sock, const void *data, size_t len)
{
	ssize_t n;

	do {
		n = send(sock, data, len, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n == (ssize_t)len ? 0 : -EIO;
}

/* Bytes of one message, 0 at the end of the connection. A longer message is -EMSGSIZE. */
static ssize_t receive_whole(int sock, void *data, size_t max)
{
	ssize_t n;

	do {
		n = recv(sock, data, max, MSG_TRUNC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? 0 : -errno;
	return (size_t)n <= max ? n : -EMSGSIZE;
}

/*
 * Connections and credentials that were fetched serve for the next request, too. Where there can be no session (a mistake in
 * the configuration), who needs one says so.
 */
static void make_session(struct cmek_kms_options *opts, struct cmek_kms_session **session)
{
	if (!opts->session && cmek_kms_session_new(opts->config_path, session, NULL) == 0)
		opts->session = *session;
}

static int describe_key(const struct cmek_slot *slot, const struct cmek_kms_options *opts, struct cmek_agent_key *key,
			struct cmek_error *err)
{
	struct cmek_kms_principal principal = cmek_slot_principal(slot);
	struct cmek_kms_info info = { .state = CMEK_KMS_STATE_UNKNOWN };
	struct cmek_kms *kms = NULL;
	int rc = cmek_kms_open(slot->resolved, &principal, opts, &kms, err);

	if (rc == 0)
		rc = cmek_kms_describe(kms, &info, err);
	if (rc == 0) {
		key->state = info.state;
		key->deletion_date = info.deletion_date;
		(void)snprintf(key->primary_version, sizeof(key->primary_version), "%s",
			       info.primary_version ? info.primary_version : "");
	}
	cmek_kms_info_done(&info);
	cmek_kms_close(kms);
	return rc;
}

static int unwrap_key(const uint8_t *volume, const struct cmek_slot *slot, const struct cmek_kms_options *opts,
		      uint8_t ret_kek[KEK_LEN], struct cmek_error *err)
{
	struct cmek_secret *kek = NULL;
	int rc = cmek_keyslot_unwrap(volume, slot, opts, &kek, err);

	if (rc == 0 && cmek_secret_len(kek) != KEK_LEN)
		rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the key has the wrong length");
	if (rc == 0)
		memcpy(ret_kek, cmek_secret_bytes(kek, CMEK_KEY_KEK), KEK_LEN);
	cmek_secret_free(kek);
	return rc;
}

/* request: len bytes as received. */
static void answer_request(const uint8_t *request, size_t len, struct cmek_kms_options *opts,
			   struct cmek_kms_session **session, struct answer *answer)
{
	struct cmek_slot slot;

	memset(&slot, 0, sizeof(slot));
	if (len < REQUEST_HEAD) {
		answer->rc = cmek_error_set(&answer->error, CMEK_E_BAD_FORMAT, EINVAL, "the request is cut short");
		return;
	}
	make_session(opts, session);
	answer->rc = cmek_slot_decode(request + REQUEST_HEAD, len - REQUEST_HEAD, &slot, &answer->error);
	if (answer->rc == 0 && request[0] == ASK_UNWRAP)
		answer->rc = unwrap_key(request + 1, &slot, opts, answer->kek, &answer->error);
	else if (answer->rc == 0 && request[0] == ASK_DESCRIBE)
		answer->rc = describe_key(&slot, opts, &answer->key, &answer->error);
	else if (answer->rc == 0)
		answer->rc = cmek_error_set(&answer->error, CMEK_E_BAD_FORMAT, EINVAL, "an unknown request");
	cmek_slot_done(&slot);
}

int cmek_agent_serve(int sock, const struct cmek_kms_options *opts, void (*answered)(void *arg), void *arg)
{
	struct cmek_kms_session *session = NULL;
	struct cmek_kms_options mine = *opts;
	struct cmek_secret *room = NULL;
	uint8_t *request = malloc(REQUEST_MAX);
	struct answer *answer;
	ssize_t n;
	int rc = -ENOMEM, opened;

	if (!request)
		goto out;
	for (;;) {
		n = receive_whole(sock, request, REQUEST_MAX);
		rc = (int)n;
		if (n <= 0)
			break;
		/* Made for each request, so that nothing secret stays while the agent idles. */
		rc = cmek_secret_new(CMEK_KEY_TEXT, sizeof(*answer), &room, NULL);
		if (rc != 0)
			break;
		answer = (struct answer *)cmek_secret_fill(room, CMEK_KEY_TEXT);
		answer_request(request, (size_t)n, &mine, &session, answer);
		opened = answer->rc == 0 && request[0] == ASK_UNWRAP;
		rc = send_whole(sock, answer, sizeof(*answer));
		cmek_secret_free(room);
		room = NULL;
		if (rc != 0)
			break;
		if (opened && answered) {
			answered(arg);
			answered = NULL;
		}
	}
out:
	cmek_kms_session_free(session);
	free(request);
	cmek_secret_free(room);
	return rc;
}

static int ask(const struct cmek_agent_link *link, uint8_t what, const uint8_t volume[UUID_LEN], const struct cmek_slot *slot,
	       struct answer *answer, struct cmek_error *err)
{
	char *text = NULL;
	uint8_t *request = NULL;
	size_t len;
	ssize_t n;
	int rc = cmek_slot_encode(slot, &text, &len, err);

	if (rc != 0)
		return rc;
	if (len > CMEK_SLOT_ENCODED_MAX)
		rc = cmek_error_set(err, CMEK_E_LIMIT, EMSGSIZE, "the key slot is too large");
	if (rc == 0) {
		request = malloc(REQUEST_HEAD + len);
		if (!request)
			rc = cmek_error_sys(err, ENOMEM, "asking the KMS agent");
	}
	if (rc == 0) {
		request[0] = what;
		memcpy(request + 1, volume, UUID_LEN);
		memcpy(request + REQUEST_HEAD, text, len);
		rc = send_whole(link->sock, request, REQUEST_HEAD + len);
		if (rc != 0)
			(void)cmek_error_sys(err, -rc, "asking the KMS agent");
	}
	if (rc == 0) {
		n = receive_whole(link->sock, answer, sizeof(*answer));
		if (n != (ssize_t)sizeof(*answer))
			rc = cmek_error_set(err, CMEK_E_SYSTEM, EPIPE, "the KMS agent ended without an answer");
	}
	free(request);
	free(text);
	return rc;
}

/* An answer that is an error becomes the caller's. */
static int take_error(struct answer *answer, struct cmek_error *err)
{
	if (answer->rc == 0)
		return 0;
	answer->error.text[sizeof(answer->error.text) - 1] = '\0';
	return cmek_error_set(err, answer->error.kind, -answer->rc, "%s", answer->error.text);
}

static int unwrap(void *arg, const uint8_t volume[UUID_LEN], const struct cmek_slot *slot, struct cmek_secret **ret_kek,
		  struct cmek_error *err)
{
	struct cmek_secret *room = NULL;
	struct answer *answer;
	int rc = cmek_secret_new(CMEK_KEY_TEXT, sizeof(*answer), &room, err);

	if (rc != 0)
		return rc;
	answer = (struct answer *)cmek_secret_fill(room, CMEK_KEY_TEXT);
	rc = ask(arg, ASK_UNWRAP, volume, slot, answer, err);
	if (rc == 0)
		rc = take_error(answer, err);
	if (rc == 0)
		rc = cmek_secret_new_copy(CMEK_KEY_KEK, answer->kek, KEK_LEN, ret_kek, err);
	cmek_secret_free(room);
	return rc;
}

int cmek_agent_describe(struct cmek_agent_link *link, const uint8_t volume[UUID_LEN], const struct cmek_slot *slot,
			struct cmek_agent_key *ret_key, struct cmek_error *err)
{
	struct answer answer;
	int rc = ask(link, ASK_DESCRIBE, volume, slot, &answer, err);

	if (rc == 0)
		rc = take_error(&answer, err);
	if (rc != 0)
		return rc;
	answer.key.primary_version[sizeof(answer.key.primary_version) - 1] = '\0';
	*ret_key = answer.key;
	return 0;
}

struct cmek_unwrapper cmek_agent_unwrapper(struct cmek_agent_link *link)
{
	struct cmek_unwrapper unwrapper = { .arg = link, .unwrap = unwrap };

	return unwrapper;
}
