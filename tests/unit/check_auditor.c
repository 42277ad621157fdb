/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Who writes a mount's events into the audit log: whole events come in, whatever else is sent does not. */
#include "config.h"

#include <jansson.h>
#include <sys/socket.h>

#include "fs/mount/auditor.h"
#include "fs/mount/message.h"
#include "fs/volume/audit.h"
#include "kms/json.h"
#include "tests/unit/unit.h"

static char *dir, *path;
static int ends[2];
static struct cmek_mount_opts opts = { .store = (char *)"/srv/store", .mountpoint = (char *)"/srv/mnt" };

static void setup(void)
{
	cmek_json_init();
	dir = unit_tmpdir();
	ck_assert_int_gt(asprintf(&path, "%s/audit.log", dir), 0);
	ck_assert_int_eq(setenv("CMEKFS_AUDIT_LOG", path, 1), 0);
	ck_assert_int_eq(cmek_message_pair(ends), 0);
}

static void teardown(void)
{
	free(path);
	unit_rmtree(dir);
}

/* All that was sent, written; the log's last line. */
static json_t *serve(uint64_t events)
{
	struct cmek_audit_chain chain = { .events = 0 };
	struct cmek_error err = CMEK_ERROR_INIT;
	json_t *last = NULL;
	char line[32768];
	FILE *f;

	close(ends[1]);
	cmek_auditor_serve(ends[0], &opts);
	close(ends[0]);
	ck_assert_msg(cmek_audit_verify(path, &chain, &err) == 0, "%s", err.text);
	ck_assert_uint_eq(chain.events, events);
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f)) {
		json_decref(last);
		last = json_loads(line, 0, NULL);
	}
	fclose(f);
	ck_assert_ptr_nonnull(last);
	return last;
}

static const char *text(const json_t *json, const char *name)
{
	return json_string_value(json_object_get(json, name));
}

START_TEST(test_events)
{
	struct cmek_mount_event event = CMEK_MOUNT_EVENT_INIT;
	json_t *line;
	uint32_t type;

	for (type = CMEK_EVENT_MOUNT; type < CMEK_EVENT_TYPES; type++) {
		ck_assert_ptr_nonnull(cmek_mount_event_name((enum cmek_mount_event_type)type));
		event.type = type;
		cmek_auditor_tell(ends[1], &event);
	}
	event.failure = CMEK_E_TAMPERED;
	event.volume[0] = 1;
	event.slot = 3;
	event.dek = 7;
	event.inode = 4711;
	event.offset = 0;
	event.left_out = 5;
	strcpy(event.label, "db");
	strcpy(event.stored, "a/b");
	cmek_auditor_tell(ends[1], &event);
	line = serve(CMEK_EVENT_TYPES);
	ck_assert_str_eq(text(line, "event"), "data.unauthentic");
	ck_assert_str_eq(text(line, "outcome"), "failure");
	ck_assert_str_eq(text(line, "error"), "tampered");
	ck_assert_str_eq(text(line, "volume"), "01000000-0000-0000-0000-000000000000");
	ck_assert_str_eq(text(line, "label"), "db");
	ck_assert_str_eq(text(line, "store"), "/srv/store");
	ck_assert_str_eq(text(line, "stored"), "a/b");
	ck_assert_ptr_null(json_object_get(line, "operation"));
	ck_assert_ptr_null(json_object_get(line, "duration_ms"));
	ck_assert_int_eq(json_integer_value(json_object_get(line, "slot")), 3);
	ck_assert_int_eq(json_integer_value(json_object_get(line, "dek")), 7);
	ck_assert_int_eq(json_integer_value(json_object_get(line, "inode")), 4711);
	ck_assert_int_eq(json_integer_value(json_object_get(line, "left_out")), 5);
	ck_assert(json_is_integer(json_object_get(line, "offset")));
	ck_assert_int_eq(json_integer_value(json_object_get(line, "pid")), getppid());
	json_decref(line);
}
END_TEST

/* A call of a key service comes with all of its requests that there is room for. */
START_TEST(test_call)
{
	struct cmek_mount_event event = CMEK_MOUNT_EVENT_INIT;
	struct cmek_kms_receipt requests[CMEK_CALL_NOTE_REQUESTS + 2];
	struct cmek_error failure = CMEK_ERROR_INIT;
	const struct cmek_kms_call call = { .operation = "unwrap", .provider = "gcp", .version = "7", .failure = &failure,
					    .took_ms = 12, .requests = requests, .n_requests = UNIT_ROWS(requests),
					    .n_left_out = 1 };
	const json_t *list;
	json_t *line;
	size_t i;

	memset(requests, 0, sizeof(requests));
	for (i = 0; i < UNIT_ROWS(requests); i++) {
		snprintf(requests[i].what, sizeof(requests[i].what), "what %zu", i);
		snprintf(requests[i].request_id, sizeof(requests[i].request_id), "id-%zu", i);
		requests[i].status = 500;
	}
	(void)cmek_error_set(&failure, CMEK_E_DENIED, EACCES, "not to be told");
	event.type = CMEK_EVENT_KMS_CALL;
	event.slot = 2;
	strcpy(event.key, "the key");
	strcpy(event.version, "6");
	cmek_call_note_make(&call, &event.call);
	cmek_auditor_tell(ends[1], &event);
	line = serve(1);
	ck_assert_str_eq(text(line, "event"), "kms.call");
	ck_assert_str_eq(text(line, "error"), "denied");
	ck_assert_str_eq(text(line, "provider"), "gcp");
	ck_assert_str_eq(text(line, "operation"), "unwrap");
	ck_assert_str_eq(text(line, "key"), "the key");
	ck_assert_str_eq(text(line, "version"), "6");
	ck_assert_str_eq(text(line, "request_id"), "id-13");
	ck_assert_int_eq(json_integer_value(json_object_get(line, "slot")), 2);
	ck_assert_int_eq(json_integer_value(json_object_get(line, "duration_ms")), 12);
	ck_assert_int_eq(json_integer_value(json_object_get(line, "requests_left_out")), 3);
	list = json_object_get(line, "requests");
	ck_assert_uint_eq(json_array_size(list), CMEK_CALL_NOTE_REQUESTS);
	ck_assert_str_eq(text(json_array_get(list, 0), "request_id"), "id-2");
	ck_assert_str_eq(text(json_array_get(list, 11), "what"), "what 13");
	ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(list, 0), "status")), 500);
	json_decref(line);
}
END_TEST

/* The storage daemon parses what others wrote: it is not trusted with more than to tell events. */
START_TEST(test_hostile)
{
	struct cmek_mount_event event = CMEK_MOUNT_EVENT_INIT, bad;
	char big[sizeof(event) + 1] = "";
	json_t *line;

	cmek_auditor_tell(ends[1], &event); /* type 0 */
	bad = event;
	bad.type = CMEK_EVENT_TYPES;
	ck_assert_int_gt(send(ends[1], &bad, sizeof(bad), 0), 0);
	bad.type = CMEK_EVENT_LOCKED;
	bad.failure = CMEK_E_KIND_MAX;
	ck_assert_int_gt(send(ends[1], &bad, sizeof(bad), 0), 0);
	bad.failure = 0;
	bad.call.n_requests = CMEK_CALL_NOTE_REQUESTS + 1;
	ck_assert_int_gt(send(ends[1], &bad, sizeof(bad), 0), 0);
	bad.call.n_requests = 0;
	bad.call.failure = CMEK_E_KIND_MAX;
	ck_assert_int_gt(send(ends[1], &bad, sizeof(bad), 0), 0);
	event.type = CMEK_EVENT_LOCKED;
	ck_assert_int_gt(send(ends[1], &event, sizeof(event) - 1, 0), 0);
	memcpy(big, &event, sizeof(event));
	ck_assert_int_gt(send(ends[1], big, sizeof(big), 0), 0);
	ck_assert_int_gt(send(ends[1], "x", 1, 0), 0);
	/* Texts without an end, and with what would break a line. */
	memset(event.label, 'l', sizeof(event.label));
	memset(event.key, '\n', sizeof(event.key));
	memset(event.version, '"', sizeof(event.version));
	memset(event.was, 0xff, sizeof(event.was));
	memset(event.state, 1, sizeof(event.state));
	memset(event.reason, '\\', sizeof(event.reason));
	memset(event.stored, 0xc3, sizeof(event.stored));
	event.slot = -5;
	event.inode = UINT64_MAX;
	cmek_auditor_tell(ends[1], &event);
	line = serve(1);
	ck_assert_str_eq(text(line, "event"), "volume.locked");
	ck_assert_uint_eq(strlen(text(line, "label")), sizeof(event.label) - 1);
	ck_assert_ptr_null(json_object_get(line, "slot"));
	json_decref(line);
}
END_TEST

/* Who tells never waits. */
START_TEST(test_full)
{
	struct cmek_mount_event event = CMEK_MOUNT_EVENT_INIT;
	int i;

	event.type = CMEK_EVENT_LOCKED;
	for (i = 0; i < 10000; i++)
		cmek_auditor_tell(ends[1], &event);
	cmek_auditor_tell(-1, &event);
	close(ends[0]);
	cmek_auditor_tell(ends[1], &event);
	close(ends[1]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("auditor");
	TCase *tc = tcase_create("auditor");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test_events);
	tcase_add_test(tc, test_call);
	tcase_add_test(tc, test_hostile);
	tcase_add_test(tc, test_full);
	suite_add_tcase(s, tc);
	return unit_run(s);
}
