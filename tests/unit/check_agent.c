/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The KMS agent in a process of its own, asked over its socket as the storage daemon does, with a local key store. */
#include "config.h"

#include <sys/socket.h>
#include <sys/stat.h>

#include "base/crypto.h"
#include "fs/mount/agent.h"
#include "fs/mount/message.h"
#include "tests/unit/unit.h"

static const uint8_t volume[16] = "a volume's UUID";

struct fixture {
	char *dir;
	char keystore[4096];
	struct cmek_kms_options options;
	struct cmek_kms *kms;
	struct cmek_secret *kek;
	struct cmek_slot slot;
	int sock, told[2];
	pid_t agent;
};
static struct fixture f;

/*
 * In the agent. No assertions in children: Check would write about them into the parent's file, in the middle of what the
 * parent writes there.
 */
static void on_answered(void *arg)
{
	if (write(*(int *)arg, "a", 1) != 1)
		_exit(1);
}

static void start_agent(void)
{
	int ends[2];

	ck_assert_int_eq(cmek_message_pair(ends), 0);
	ck_assert_int_eq(pipe(f.told), 0);
	fflush(NULL);
	f.agent = fork();
	if (f.agent == 0) {
		close(ends[0]);
		_exit(cmek_agent_serve(ends[1], &f.options, on_answered, &f.told[1]) == 0 ? 0 : 1);
	}
	ck_assert_int_gt(f.agent, 0);
	close(ends[1]);
	close(f.told[1]);
	f.sock = ends[0];
}

static void setup(void)
{
	struct cmek_kms_create how = { 0 };
	struct cmek_error err = CMEK_ERROR_INIT;

	memset(&f, 0, sizeof(f));
	cmek_json_init();
	cmek_secret_allow_unlocked();
	f.dir = unit_tmpdir();
	snprintf(f.keystore, sizeof(f.keystore), "%s/keys.json", f.dir);
	f.options.keystore_path = f.keystore;
	f.options.config_path = "/nonexistent";
	ck_assert_msg(cmek_kms_open("local:agent", NULL, &f.options, &f.kms, &err) == 0, "%s", err.text);
	ck_assert_msg(cmek_kms_create(f.kms, &how, &err) == 0, "%s", err.text);
	ck_assert_int_eq(cmek_secret_new_random(CMEK_KEY_KEK, 32, &f.kek, NULL), 0);
	ck_assert_msg(cmek_keyslot_wrap(f.kms, volume, 3, "data", NULL, f.kek, &f.slot, &err) == 0, "%s", err.text);
	start_agent();
}

/* The agent ends by itself when the socket closes, with success. */
static void teardown(void)
{
	int status;

	close(f.sock);
	ck_assert_int_eq(waitpid(f.agent, &status, 0), f.agent);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "agent: status %#x", status);
	close(f.told[0]);
	cmek_slot_done(&f.slot);
	cmek_secret_free(f.kek);
	cmek_kms_close(f.kms);
	unit_rmtree(f.dir);
}

static int ask(const uint8_t uuid[16], struct cmek_secret **ret_kek, struct cmek_error *err)
{
	struct cmek_agent_link link = { .sock = f.sock };
	struct cmek_unwrapper unwrapper = cmek_agent_unwrapper(&link);

	return unwrapper.unwrap(unwrapper.arg, uuid, &f.slot, ret_kek, err);
}

/* What was told of calls: "unwrap 0 1, ...": operation, kind, version. */
static char told_calls[1024];

static void add_call(void *arg, const struct cmek_agent_call *call)
{
	size_t n = strlen(told_calls);

	ck_assert_ptr_eq(arg, &f);
	ck_assert_uint_eq(call->slot->id, 3);
	ck_assert_str_eq(call->note->provider, "local");
	snprintf(told_calls + n, sizeof(told_calls) - n, "%s%d %s %u %s", n ? ", " : "", call->call, call->note->operation,
		 call->note->failure, call->note->version);
}

static void ck_told(const char *want)
{
	ck_assert_str_eq(told_calls, want);
	told_calls[0] = '\0';
}

/* What the agent asked the key service comes with its answers. */
START_TEST(tells_what_was_asked)
{
	struct cmek_agent_link link = { .sock = f.sock, .called = add_call, .arg = &f };
	struct cmek_unwrapper unwrapper = cmek_agent_unwrapper(&link);
	struct cmek_slot renewed = { 0 };
	struct cmek_secret *kek = NULL;
	struct cmek_agent_key key;
	uint8_t other[16] = { 1 };
	char want[64];
	int ends[2];

	ck_assert_int_eq(unwrapper.unwrap(unwrapper.arg, volume, &f.slot, &kek, NULL), 0);
	cmek_secret_free(kek);
	ck_told("0 unwrap 0 1");
	ck_assert_int_eq(unwrapper.unwrap(unwrapper.arg, other, &f.slot, &kek, NULL), -EBADMSG);
	snprintf(want, sizeof(want), "0 unwrap %d 1", CMEK_E_TAMPERED);
	ck_told(want);
	ck_assert_int_eq(cmek_kms_rotate(f.kms, NULL, NULL), 0);
	ck_assert_int_eq(cmek_agent_describe(&link, volume, &f.slot, &key, NULL), 0);
	ck_told("1 describe 0 ");
	ck_assert_int_eq(cmek_agent_rewrap(&link, volume, &f.slot, &renewed, NULL), 0);
	cmek_slot_done(&renewed);
	ck_told("2 unwrap 0 1, 2 unwrap 0 1, 2 wrap 0 2, 2 unwrap 0 2");
	/* An agent that says nothing: then the question itself is told. */
	ck_assert_int_eq(cmek_message_pair(ends), 0);
	close(ends[1]);
	link.sock = ends[0];
	ck_assert_int_eq(cmek_agent_rewrap(&link, volume, &f.slot, &renewed, NULL), -EPIPE);
	snprintf(want, sizeof(want), "2 rewrap %d 1", CMEK_E_SYSTEM);
	ck_told(want);
	close(ends[0]);
}
END_TEST

START_TEST(hands_over_the_key)
{
	char told[4];
	int i;

	for (i = 0; i < 3; i++) {
		struct cmek_error err = CMEK_ERROR_INIT;
		struct cmek_secret *kek = NULL;

		ck_assert_msg(ask(volume, &kek, &err) == 0, "%s", err.text);
		ck_assert(cmek_equal(cmek_secret_bytes(kek, CMEK_KEY_KEK), cmek_secret_bytes(f.kek, CMEK_KEY_KEK), 32));
		cmek_secret_free(kek);
	}
	shutdown(f.sock, SHUT_RDWR);
	ck_assert_int_eq(read(f.told[0], told, sizeof(told)), 1); /* once, then the end */
	ck_assert_int_eq(read(f.told[0], told, sizeof(told)), 0);
}
END_TEST

static void expect(const uint8_t uuid[16], enum cmek_kind kind, int errnum)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_secret *kek = NULL;
	int rc = ask(uuid, &kek, &err);

	ck_assert_ptr_null(kek);
	ck_assert_msg(err.kind == kind, "kind %s: %s", cmek_kind_name(err.kind), err.text);
	ck_assert_int_eq(rc, -errnum);
	ck_assert_int_gt((int)strlen(err.text), 0);
}

/* The kind of an error survives the way through the socket, and the agent serves on after it. */
START_TEST(tells_what_went_wrong)
{
	uint8_t other[16] = { 1 };
	struct cmek_secret *kek = NULL;

	expect(other, CMEK_E_TAMPERED, EBADMSG);
	ck_assert_int_eq(cmek_kms_disable(f.kms, NULL), 0);
	expect(volume, CMEK_E_KEY_DISABLED, EKEYREVOKED);
	ck_assert_int_eq(cmek_kms_enable(f.kms, NULL), 0);
	ck_assert_int_eq(cmek_kms_schedule_deletion(f.kms, 3, NULL, NULL), 0);
	expect(volume, CMEK_E_PENDING_DELETION, EKEYREVOKED);
	ck_assert_int_eq(cmek_kms_cancel_deletion(f.kms, NULL), 0);
	(void)cmek_kms_enable(f.kms, NULL);
	f.slot.wrapped[f.slot.wrapped_len - 1] ^= 1;
	expect(volume, CMEK_E_TAMPERED, EBADMSG);
	f.slot.wrapped[f.slot.wrapped_len - 1] ^= 1;
	ck_assert_int_eq(ask(volume, &kek, NULL), 0);
	cmek_secret_free(kek);
	ck_assert_int_eq(unlink(f.keystore), 0);
	expect(volume, CMEK_E_NOT_FOUND, ENOKEY);
}
END_TEST

/* Requests that no daemon of ours sends. */
static const struct {
	const char *name, *bytes;
	size_t len;
} odd_requests[] = {
	{ "one byte", "x", 1 },
	{ "no slot", "0123456789abcdef", 16 },
	{ "no JSON", "0123456789abcdef{", 17 },
	{ "empty object", "0123456789abcdef{}", 18 },
	{ "NUL inside", "0123456789abcdef{\0}", 19 },
};

START_TEST(survives_odd_requests)
{
	struct cmek_secret *kek = NULL;
	uint8_t answer[4096];
	int32_t rc;

	ck_assert_int_eq(send(f.sock, odd_requests[_i].bytes, odd_requests[_i].len, 0), (ssize_t)odd_requests[_i].len);
	ck_assert_int_gt(recv(f.sock, answer, sizeof(answer), 0), 4);
	memcpy(&rc, answer, sizeof(rc));
	ck_assert_int_lt(rc, 0);
	ck_assert_int_eq(ask(volume, &kek, NULL), 0);
	cmek_secret_free(kek);
}
END_TEST

START_TEST(a_dead_agent_is_told)
{
	int ends[2], keep = f.sock;

	ck_assert_int_eq(cmek_message_pair(ends), 0);
	close(ends[1]);
	f.sock = ends[0];
	expect(volume, CMEK_E_SYSTEM, EPIPE);
	close(ends[0]);
	f.sock = keep;
}
END_TEST

START_TEST(short_answers_are_no_key)
{
	int ends[2], keep = f.sock, status;
	char request[70000];
	pid_t pid;

	ck_assert_int_eq(cmek_message_pair(ends), 0);
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		_exit(recv(ends[1], request, sizeof(request), 0) > 16 && send(ends[1], "\0\0\0\0", 4, 0) == 4 ? 0 : 1);
	}
	close(ends[1]);
	f.sock = ends[0];
	expect(volume, CMEK_E_SYSTEM, EPIPE);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(ends[0]);
	f.sock = keep;
}
END_TEST

/* The key itself does not come back, only a slot for it; what was asked with stays as it was. */
START_TEST(rewraps)
{
	struct cmek_agent_link link = { .sock = f.sock };
	struct cmek_slot renewed = { 0 };
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_secret *kek = NULL;
	struct cmek_agent_key key;

	ck_assert_int_eq(cmek_kms_rotate(f.kms, NULL, NULL), 0);
	ck_assert_int_eq(cmek_agent_describe(&link, volume, &f.slot, &key, NULL), 0);
	ck_assert_str_eq(key.primary_version, "2");
	ck_assert_int_eq(key.version_state, CMEK_KMS_ENABLED);
	ck_assert_msg(cmek_agent_rewrap(&link, volume, &f.slot, &renewed, &err) == 0, "%s", err.text);
	ck_assert_str_eq(f.slot.version, "1");
	ck_assert_str_eq(renewed.version, "2");
	ck_assert_str_eq(renewed.resolved, f.slot.resolved);
	cmek_slot_done(&f.slot);
	f.slot = renewed;
	ck_assert_int_eq(ask(volume, &kek, NULL), 0);
	ck_assert(cmek_equal(cmek_secret_bytes(kek, CMEK_KEY_KEK), cmek_secret_bytes(f.kek, CMEK_KEY_KEK), 32));
	cmek_secret_free(kek);

	memset(&renewed, 0, sizeof(renewed));
	ck_assert_int_eq(cmek_kms_disable(f.kms, NULL), 0);
	ck_assert_int_eq(cmek_agent_rewrap(&link, volume, &f.slot, &renewed, &err), -EKEYREVOKED);
	ck_assert_int_eq(err.kind, CMEK_E_KEY_DISABLED);
	ck_assert_ptr_null(renewed.wrapped);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("agent");
	TCase *tc = tcase_create("agent");

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, hands_over_the_key);
	tcase_add_test(tc, tells_what_was_asked);
	tcase_add_test(tc, tells_what_went_wrong);
	tcase_add_loop_test(tc, survives_odd_requests, 0, UNIT_ROWS(odd_requests));
	tcase_add_test(tc, rewraps);
	tcase_add_test(tc, a_dead_agent_is_told);
	tcase_add_test(tc, short_answers_are_no_key);
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
