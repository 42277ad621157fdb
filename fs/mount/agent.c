/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Both ends of the conversation between the storage daemon and the KMS agent. It must not know what a store is, nor
 * which key services exist.
 *
 * A request is what is asked (a byte), the volume's UUID and an encoded slot; an answer is struct answer. Each is one
 * SOCK_SEQPACKET message. An answer can announce notes of what key services were asked, and an encoded slot, each a message
 * of its own and no secret.
 * Whatever a KEK passes through is locked memory and wiped.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>

#include "base/log.h"
#include "fs/mount/agent.h"
#include "kms/session.h"

#define UUID_LEN 16
#define KEK_LEN 32
#define REQUEST_HEAD (1 + UUID_LEN)
#define REQUEST_MAX (REQUEST_HEAD + CMEK_SLOT_ENCODED_MAX)

/*
 * ASK_RENEW: as ASK_UNWRAP, and for the slot with a fresher blob, if the service makes one on the way. ASK_REWRAP: for such a
 * slot alone.
 */
enum { ASK_UNWRAP = 1, ASK_DESCRIBE = 2, ASK_RENEW = 3, ASK_REWRAP = 4 };
static const int call_of[] = { [ASK_UNWRAP] = CMEK_AGENT_UNWRAP, [ASK_DESCRIBE] = CMEK_AGENT_DESCRIBE,
			       [ASK_RENEW] = CMEK_AGENT_UNWRAP, [ASK_REWRAP] = CMEK_AGENT_REWRAP };

/* Both ends are one program, so this never leaves the machine or outlives the mount. */
struct answer {
	int32_t rc; /* 0 or -errno */
	struct cmek_error error;
	uint8_t kek[KEK_LEN];
	struct cmek_agent_key key; /* of ASK_DESCRIBE */
	uint32_t n_calls;          /* so many messages of a struct cmek_call_note follow, in the order of the calls */
	uint32_t renewed_len;      /* of ASK_RENEW and ASK_REWRAP: the length of the message behind them, 0 = there is none */
};

/* An unwrapping, a re-wrapping that the service knows only as an unwrapping and a wrapping, and the proof make four. */
#define CALLS_MAX 8
struct calls {
	struct cmek_call_note notes[CALLS_MAX];
	unsigned n;
};

/* cmek_kms_options.called */
static void note_call(void *arg, const struct cmek_kms_call *call)
{
	struct calls *calls = arg;

	if (calls->n < CALLS_MAX)
		cmek_call_note_make(call, &calls->notes[calls->n++]);
}

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

/*
 * Who is told of the first answer closes the descriptors that were inherited, and can't know those of a session's
 * connections: a new session has none. It reads the configuration now, as long as a relative path still leads there.
 */
static void renew_session(struct cmek_kms_options *opts, struct cmek_kms_session **session)
{
	if (*session)
		opts->session = NULL;
	cmek_kms_session_free(*session);
	*session = NULL;
	make_session(opts, session);
}

static int describe_key(const struct cmek_slot *slot, const struct cmek_kms_options *opts, struct cmek_agent_key *key,
			struct cmek_error *err)
{
	struct cmek_kms_principal principal = cmek_slot_principal(slot);
	struct cmek_kms_info info = { .state = CMEK_KMS_STATE_UNKNOWN };
	struct cmek_kms *kms = NULL;
	size_t i;
	int rc = cmek_kms_open(slot->resolved, &principal, opts, &kms, err);

	if (rc == 0)
		rc = cmek_kms_describe(kms, &info, err);
	if (rc == 0) {
		key->version_state = CMEK_KMS_STATE_UNKNOWN;
		for (i = 0; *slot->version && i < info.n_versions; i++) {
			if (strcmp(info.versions[i].id, slot->version) == 0)
				key->version_state = info.versions[i].state;
		}
		key->state = info.state;
		key->deletion_date = info.deletion_date;
		(void)snprintf(key->primary_version, sizeof(key->primary_version), "%s",
			       info.primary_version ? info.primary_version : "");
	}
	cmek_kms_info_done(&info);
	cmek_kms_close(kms);
	return rc;
}

/* The slot with its fresher blob, encoded. That there is none is never worth the unwrapping. */
static char *encode_renewed(const uint8_t *volume, const struct cmek_slot *slot, const struct cmek_kms_options *opts,
			    const struct cmek_secret *kek, struct cmek_kms_blob *fresh, uint32_t *ret_len)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_slot renewed = { 0 };
	char *text = NULL;
	size_t len = 0;
	int rc = cmek_keyslot_renew(volume, slot, opts, kek, fresh, &renewed, &err);

	if (rc == 0)
		rc = cmek_slot_encode(&renewed, &text, &len, &err);
	if (rc == 0 && len > CMEK_SLOT_ENCODED_MAX)
		rc = cmek_error_set(&err, CMEK_E_LIMIT, EMSGSIZE, "the key slot is too large");
	cmek_slot_done(&renewed);
	if (rc != 0) {
		cmek_log(CMEK_LOG_WARNING, "slot %u stays wrapped under version %s of its key: %s", slot->id, slot->version,
			 err.text);
		free(text);
		return NULL;
	}
	*ret_len = (uint32_t)len;
	return text;
}

/* ret_renewed: NULL = not wanted. */
static int unwrap_key(const uint8_t *volume, const struct cmek_slot *slot, const struct cmek_kms_options *opts,
		      struct answer *answer, char **ret_renewed, struct cmek_error *err)
{
	struct cmek_kms_blob fresh = { 0 };
	struct cmek_secret *kek = NULL;
	int rc = cmek_keyslot_unwrap(volume, slot, opts, &kek, ret_renewed ? &fresh : NULL, err);

	if (rc == 0 && cmek_secret_len(kek) != KEK_LEN)
		rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the key has the wrong length");
	if (rc == 0)
		memcpy(answer->kek, cmek_secret_bytes(kek, CMEK_KEY_KEK), KEK_LEN);
	if (rc == 0 && fresh.data)
		*ret_renewed = encode_renewed(volume, slot, opts, kek, &fresh, &answer->renewed_len);
	cmek_kms_blob_done(&fresh);
	cmek_secret_free(kek);
	return rc;
}

/* The slot becomes that under the newest version. */
static int rewrap_key(const uint8_t *volume, struct cmek_slot *slot, const struct cmek_kms_options *opts,
		      struct answer *answer, char **ret_renewed, struct cmek_error *err)
{
	struct cmek_secret *kek = NULL;
	char *text = NULL;
	size_t len = 0;
	int rc = cmek_keyslot_unwrap(volume, slot, opts, &kek, NULL, err);

	if (rc == 0)
		rc = cmek_keyslot_rewrap(volume, slot, opts, kek, err);
	if (rc == 0)
		rc = cmek_slot_encode(slot, &text, &len, err);
	if (rc == 0 && len > CMEK_SLOT_ENCODED_MAX)
		rc = cmek_error_set(err, CMEK_E_LIMIT, EMSGSIZE, "the key slot is too large");
	cmek_secret_free(kek);
	if (rc != 0) {
		free(text);
		return rc;
	}
	answer->renewed_len = (uint32_t)len;
	*ret_renewed = text;
	return 0;
}

/* request: len bytes as received. *ret_renewed: answer->renewed_len bytes, malloced, if that is not 0. */
static void answer_request(const uint8_t *request, size_t len, struct cmek_kms_options *opts,
			   struct cmek_kms_session **session, struct answer *answer, char **ret_renewed)
{
	struct cmek_slot slot;

	memset(&slot, 0, sizeof(slot));
	if (len < REQUEST_HEAD) {
		answer->rc = cmek_error_set(&answer->error, CMEK_E_BAD_FORMAT, EINVAL, "the request is cut short");
		return;
	}
	make_session(opts, session);
	answer->rc = cmek_slot_decode(request + REQUEST_HEAD, len - REQUEST_HEAD, &slot, &answer->error);
	if (answer->rc == 0 && (request[0] == ASK_UNWRAP || request[0] == ASK_RENEW))
		answer->rc = unwrap_key(request + 1, &slot, opts, answer, request[0] == ASK_RENEW ? ret_renewed : NULL,
					&answer->error);
	else if (answer->rc == 0 && request[0] == ASK_REWRAP)
		answer->rc = rewrap_key(request + 1, &slot, opts, answer, ret_renewed, &answer->error);
	else if (answer->rc == 0 && request[0] == ASK_DESCRIBE)
		answer->rc = describe_key(&slot, opts, &answer->key, &answer->error);
	else if (answer->rc == 0)
		answer->rc = cmek_error_set(&answer->error, CMEK_E_BAD_FORMAT, EINVAL, "an unknown request");
	cmek_slot_done(&slot);
}

/* The answer, and what it announces. */
static int send_answer(int sock, struct answer *answer, const struct calls *calls, const char *renewed)
{
	unsigned i;
	int rc;

	answer->n_calls = calls->n;
	rc = send_whole(sock, answer, sizeof(*answer));
	for (i = 0; rc == 0 && i < calls->n; i++)
		rc = send_whole(sock, &calls->notes[i], sizeof(calls->notes[i]));
	if (rc == 0 && renewed)
		rc = send_whole(sock, renewed, answer->renewed_len);
	return rc;
}

int cmek_agent_serve(int sock, const struct cmek_kms_options *opts, void (*answered)(void *arg), void *arg)
{
	struct cmek_kms_session *session = NULL;
	struct cmek_kms_options mine = *opts;
	struct cmek_secret *room = NULL;
	uint8_t *request = malloc(REQUEST_MAX);
	struct calls *calls = malloc(sizeof(*calls));
	struct answer *answer;
	char *renewed = NULL;
	ssize_t n;
	int rc = -ENOMEM, opened;

	if (!request || !calls)
		goto out;
	mine.called = note_call;
	mine.called_arg = calls;
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
		calls->n = 0;
		answer_request(request, (size_t)n, &mine, &session, answer, &renewed);
		opened = answer->rc == 0 && request[0] != ASK_DESCRIBE;
		rc = send_answer(sock, answer, calls, renewed);
		free(renewed);
		renewed = NULL;
		cmek_secret_free(room);
		room = NULL;
		if (rc != 0)
			break;
		if (opened && answered) {
			renew_session(&mine, &session);
			answered(arg);
			answered = NULL;
		}
	}
out:
	cmek_kms_session_free(session);
	free(calls);
	free(request);
	cmek_secret_free(room);
	return rc;
}

static int cut_short(struct cmek_error *err)
{
	return cmek_error_set(err, CMEK_E_SYSTEM, EPIPE, "the KMS agent ended without an answer");
}

static void tell(struct cmek_agent_link *link, int call, const struct cmek_slot *slot, const struct cmek_call_note *note)
{
	const struct cmek_agent_call told = { call, slot, note };

	link->n_told++;
	if (link->called)
		link->called(link->arg, &told);
}

/* The notes that were announced. What is none is passed over; a message that does not come breaks the connection. */
static int take_calls(struct cmek_agent_link *link, int call, const struct cmek_slot *slot, uint32_t n,
		      struct cmek_error *err)
{
	struct cmek_call_note note;

	for (; n > 0; n--) {
		if (receive_whole(link->sock, &note, sizeof(note)) != (ssize_t)sizeof(note))
			return cut_short(err);
		if (cmek_call_note_check(&note))
			tell(link, call, slot, &note);
	}
	return 0;
}

static int ask(struct cmek_agent_link *link, uint8_t what, const uint8_t volume[UUID_LEN], const struct cmek_slot *slot,
	       struct answer *answer, struct cmek_error *err)
{
	char *text = NULL;
	uint8_t *request = NULL;
	size_t len;
	ssize_t n;
	int rc = cmek_slot_encode(slot, &text, &len, err);

	link->n_told = 0;
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
		rc = n == (ssize_t)sizeof(*answer) && answer->n_calls <= CALLS_MAX ? 0 : cut_short(err);
	}
	if (rc == 0)
		rc = take_calls(link, call_of[what], slot, answer->n_calls, err);
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

/* The message that was announced. A slot that can't be read is none; a message that does not come breaks the connection. */
static int take_renewed(const struct cmek_agent_link *link, size_t len, struct cmek_slot *renewed, struct cmek_error *err)
{
	uint8_t *text = malloc(CMEK_SLOT_ENCODED_MAX);
	size_t max = text ? CMEK_SLOT_ENCODED_MAX : 0;
	ssize_t n = receive_whole(link->sock, text, max);
	int rc = 0;

	cmek_slot_done(renewed);
	memset(renewed, 0, sizeof(*renewed));
	if (!text)
		rc = cmek_error_sys(err, ENOMEM, "asking the KMS agent");
	else if (n != (ssize_t)len)
		rc = cut_short(err);
	else
		(void)cmek_slot_decode(text, len, renewed, NULL);
	free(text);
	return rc;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts); /* can't fail */
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

const char *cmek_agent_call_name(int call)
{
	static const char *const names[CMEK_AGENT_CALLS] = { [CMEK_AGENT_UNWRAP] = "unwrap", [CMEK_AGENT_DESCRIBE] = "describe",
							     [CMEK_AGENT_REWRAP] = "rewrap" };

	return names[call];
}

/* One question more. err: its own, so that a kind in it is of this question. */
static void count(struct cmek_agent_link *link, int call, const struct cmek_slot *slot, uint64_t start_ns, int rc,
		  const struct cmek_error *err)
{
	static const struct cmek_error none = CMEK_ERROR_INIT;
	uint64_t took_ns = now_ns() - start_ns;
	enum cmek_kind kind = rc == 0 ? CMEK_E_NONE : err->kind;

	if (link->n_told == 0) {
		const struct cmek_kms_call asked = { .operation = cmek_agent_call_name(call), .provider = slot->provider,
						     .version = slot->version, .failure = rc == 0 ? &none : err,
						     .took_ms = took_ns / 1000000 };
		struct cmek_call_note note;

		cmek_call_note_make(&asked, &note);
		if (cmek_call_note_check(&note))
			tell(link, call, slot, &note);
	}
	if (!link->counts)
		return;
	/* The agent has the network: what it says is not an index yet. */
	if (rc != 0 && (kind <= CMEK_E_NONE || kind >= CMEK_E_KIND_MAX))
		kind = CMEK_E_SYSTEM;
	atomic_fetch_add(&link->counts->calls[call].outcomes[kind], 1);
	atomic_fetch_add(&link->counts->calls[call].total_ns, took_ns);
}

static int ask_unwrap(struct cmek_agent_link *link, const uint8_t volume[UUID_LEN], const struct cmek_slot *slot,
		      struct cmek_secret **ret_kek, struct cmek_error *err)
{
	struct cmek_secret *room = NULL;
	struct answer *answer;
	int rc = cmek_secret_new(CMEK_KEY_TEXT, sizeof(*answer), &room, err);

	if (rc != 0)
		return rc;
	answer = (struct answer *)cmek_secret_fill(room, CMEK_KEY_TEXT);
	rc = ask(link, link->renewed ? ASK_RENEW : ASK_UNWRAP, volume, slot, answer, err);
	if (rc == 0)
		rc = take_error(answer, err);
	if (rc == 0 && link->renewed && answer->renewed_len != 0)
		rc = take_renewed(link, answer->renewed_len, link->renewed, err);
	if (rc == 0)
		rc = cmek_secret_new_copy(CMEK_KEY_KEK, answer->kek, KEK_LEN, ret_kek, err);
	cmek_secret_free(room);
	return rc;
}

/* What is told to the caller, and 0 or -errno. */
static int pass_error(int rc, const struct cmek_error *own, struct cmek_error *err)
{
	return rc == 0 ? 0 : cmek_error_set(err, own->kind, own->err, "%s", own->text);
}

static int unwrap(void *arg, const uint8_t volume[UUID_LEN], const struct cmek_slot *slot, struct cmek_secret **ret_kek,
		  struct cmek_error *err)
{
	struct cmek_error own = CMEK_ERROR_INIT;
	uint64_t start_ns = now_ns();
	int rc = ask_unwrap(arg, volume, slot, ret_kek, &own);

	count(arg, CMEK_AGENT_UNWRAP, slot, start_ns, rc, &own);
	return pass_error(rc, &own, err);
}

int cmek_agent_describe(struct cmek_agent_link *link, const uint8_t volume[UUID_LEN], const struct cmek_slot *slot,
			struct cmek_agent_key *ret_key, struct cmek_error *err)
{
	struct cmek_error own = CMEK_ERROR_INIT;
	uint64_t start_ns = now_ns();
	struct answer answer;
	int rc = ask(link, ASK_DESCRIBE, volume, slot, &answer, &own);

	if (rc == 0)
		rc = take_error(&answer, &own);
	count(link, CMEK_AGENT_DESCRIBE, slot, start_ns, rc, &own);
	if (rc != 0)
		return pass_error(rc, &own, err);
	answer.key.primary_version[sizeof(answer.key.primary_version) - 1] = '\0';
	*ret_key = answer.key;
	return 0;
}

static int ask_rewrap(struct cmek_agent_link *link, const uint8_t volume[UUID_LEN], const struct cmek_slot *slot,
		      struct cmek_slot *ret_slot, struct cmek_error *err)
{
	struct cmek_slot renewed = { 0 };
	struct answer answer; /* without a key */
	int rc = ask(link, ASK_REWRAP, volume, slot, &answer, err);

	if (rc == 0)
		rc = take_error(&answer, err);
	if (rc == 0)
		rc = take_renewed(link, answer.renewed_len, &renewed, err);
	if (rc == 0 && !renewed.wrapped)
		rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the KMS agent's slot can't be read");
	if (rc == 0)
		*ret_slot = renewed;
	else
		cmek_slot_done(&renewed);
	return rc;
}

int cmek_agent_rewrap(struct cmek_agent_link *link, const uint8_t volume[UUID_LEN], const struct cmek_slot *slot,
		      struct cmek_slot *ret_slot, struct cmek_error *err)
{
	struct cmek_error own = CMEK_ERROR_INIT;
	uint64_t start_ns = now_ns();
	int rc = ask_rewrap(link, volume, slot, ret_slot, &own);

	count(link, CMEK_AGENT_REWRAP, slot, start_ns, rc, &own);
	return pass_error(rc, &own, err);
}

struct cmek_unwrapper cmek_agent_unwrapper(struct cmek_agent_link *link)
{
	struct cmek_unwrapper unwrapper = { .arg = link, .unwrap = unwrap };

	return unwrapper;
}
