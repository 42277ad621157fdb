/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl key: the KMS side of keys, through the provider interface. It knows no provider; what one can't do, the
 * library says.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "kms/kms.h"
#include "tools/ctl.h"

enum { OPT_PASSPHRASE = 256, OPT_PASSPHRASE_FILE, OPT_DAYS, OPT_FORCE, OPT_CONFIG, OPT_VOLUME, OPT_MEMBER, OPT_CREATE,
       OPT_MULTI_REGION, OPT_NAME, OPT_PROFILE };

/* What --force wants to be told: nobody types that by habit. */
#define FORCE_WORD "with-registrations"
#define POLICY_VOLUMES_MAX 64

#define COMMON_OPTIONS \
	{ OPT_PASSPHRASE_FILE, "passphrase-file", "FILE", "read the passphrase of a local key store from FILE" }, \
		{ OPT_CONFIG, "config", "FILE", "the configuration [/etc/cmekfs/cmekfs.conf]" }, \
		CMEK_TOOL_PROFILE_OPTION(OPT_PROFILE), CMEK_TOOL_PRINCIPAL_OPTIONS

static const struct cmek_tool_option create_options[] = {
	{ OPT_PASSPHRASE, "passphrase", NULL, "protect a new local key store by a passphrase" },
	{ OPT_MULTI_REGION, "multi-region", NULL, "AWS: a key that can be replicated to other Regions" },
	{ OPT_NAME, "name", "NAME", "IBM: what people call the key [cmekfs]" },
	COMMON_OPTIONS,
	{ 0, NULL, NULL, NULL },
};
static const struct cmek_tool_option schedule_options[] = {
	{ OPT_DAYS, "days", "N", "days until the key is destroyed; local keys: 0 to 30 [7]" },
	{ OPT_FORCE, "force", FORCE_WORD, "IBM: delete the key and what is registered as using it" },
	COMMON_OPTIONS,
	{ 0, NULL, NULL, NULL },
};
static const struct cmek_tool_option policy_options[] = {
	{ OPT_MEMBER, "member", "WHO", "the principal that mounts, as the service names it" },
	{ OPT_CREATE, "create", NULL, "also allow to make volumes and key slots" },
	{ OPT_VOLUME, "volume", "UUID", "only for this volume, which need not exist yet; repeat it for more" },
	COMMON_OPTIONS,
	{ 0, NULL, NULL, NULL },
};
static const struct cmek_tool_option plain_options[] = {
	COMMON_OPTIONS,
	{ 0, NULL, NULL, NULL },
};

/* What all verbs of the group share: the command line, and the opened key. */
struct key_run {
	struct cmek_tool *tool;
	struct cmek_kms *kms;
	const char *config_path;
	const char *uri;
	bool passphrase, force, multi_region;
	const char *name;
	unsigned days;
	struct cmek_kms_policy_wish wish;
	uint8_t volumes[POLICY_VOLUMES_MAX][16];
	struct cmek_error err;
};

static void volume_option(struct key_run *run, const struct cmek_tool_args *args)
{
	if (run->wish.n_volumes == POLICY_VOLUMES_MAX)
		cmek_tool_usage(args->tool, "--volume can be given %d times", POLICY_VOLUMES_MAX);
	if (cmek_uuid_decode(args->value, run->volumes[run->wish.n_volumes]))
		cmek_tool_usage(args->tool, "--volume takes a UUID, not '%s'", args->value);
	run->wish.n_volumes++;
}

static void force_option(struct key_run *run, const struct cmek_tool_args *args)
{
	if (strcmp(args->value, FORCE_WORD) != 0)
		cmek_tool_usage(args->tool, "--force deletes the registrations of others, too; to do so, say --force %s",
				FORCE_WORD);
	run->force = true;
}

/* Parses the command line and opens the key: 0, or -errno with run->err set. */
static int start(struct key_run *run, struct cmek_tool *tool, const struct cmek_tool_command *command, int argc,
		 char **argv)
{
	struct cmek_kms_options opts = cmek_tool_kms_options(tool);
	struct cmek_kms_principal principal = { 0 };
	struct cmek_tool_args args;
	int id;

	memset(run, 0, sizeof(*run));
	run->tool = tool;
	run->wish.volumes = run->volumes;
	run->days = CMEK_KMS_DAYS_DEFAULT;
	cmek_tool_args_init(&args, tool, command, argc, argv);
	while ((id = cmek_tool_next(&args)) != 0) {
		if (id == OPT_PASSPHRASE)
			run->passphrase = true;
		else if (id == OPT_MULTI_REGION)
			run->multi_region = true;
		else if (id == OPT_PASSPHRASE_FILE)
			opts.passphrase_file = args.value;
		else if (id == OPT_CONFIG)
			run->config_path = opts.config_path = args.value;
		else if (id == OPT_PROFILE)
			opts.profile = args.value;
		else if (id == OPT_DAYS)
			run->days = (unsigned)cmek_tool_number(&args, 0, 3650);
		else if (id == OPT_FORCE)
			force_option(run, &args);
		else if (id == OPT_VOLUME)
			volume_option(run, &args);
		else if (id == OPT_MEMBER)
			run->wish.member = args.value;
		else if (id == OPT_NAME)
			run->name = args.value;
		else if (id == OPT_CREATE)
			run->wish.create = true;
		else
			(void)cmek_tool_principal(&args, id, &principal);
	}
	if (run->force && run->days != CMEK_KMS_DAYS_DEFAULT)
		cmek_tool_usage(tool, "--force takes no --days: the service sets the days");
	run->uri = args.argv[0];
	return cmek_kms_open(run->uri, &principal, &opts, &run->kms, &run->err);
}

/* What changes a key is an event of its own, beside those of the questions that it took. */
static void audit(const struct key_run *run)
{
	static const char *const events[] = { "key.create", "key.rotate", "key.disable", "key.enable",
					      "key.schedule-deletion", "key.cancel-deletion" };
	const char *verb = strrchr(run->tool->program, ' ');
	struct cmek_audit_event event = CMEK_AUDIT_EVENT_INIT;
	size_t i;

	event.key = run->uri;
	event.failure = &run->err;
	for (i = 0; verb && i < sizeof(events) / sizeof(events[0]); i++) {
		event.name = events[i];
		if (!strcmp(strchr(events[i], '.') + 1, verb + 1))
			cmek_tool_audit(run->tool, run->config_path, &event);
	}
}

/* The exit code: of the error if there is one, else whether the results could be written. */
static int finish(struct key_run *run, int rc)
{
	int code;

	audit(run);
	code = rc < 0 ? cmek_tool_fail(run->tool, &run->err) : cmek_tool_done(run->tool);
	cmek_kms_close(run->kms);
	return code;
}

static json_t *time_or_null(int64_t unix_seconds)
{
	char text[CMEK_TIME_TEXT];

	if (unix_seconds == 0)
		return json_null();
	cmek_time_encode(unix_seconds, text);
	return json_string(text);
}

static const char *time_text(int64_t unix_seconds, char buf[CMEK_TIME_TEXT])
{
	if (unix_seconds == 0)
		return "-";
	cmek_time_encode(unix_seconds, buf);
	return buf;
}

static const char *or_dash(const char *text)
{
	return text && text[0] ? text : "-";
}

/* Stable names: documented in cmekctl(8). */
static json_t *info_json(const struct cmek_kms_info *info)
{
	json_t *versions = json_array();

	for (size_t i = 0; i < info->n_versions; i++) {
		const struct cmek_kms_version *v = &info->versions[i];

		if (json_array_append_new(versions, json_pack("{s:s, s:s, s:o}", "version", v->id, "state",
							      cmek_kms_state_name(v->state), "created",
							      time_or_null(v->created))) < 0) {
			json_decref(versions);
			return NULL;
		}
	}
	return json_pack("{s:s, s:s, s:s?, s:o, s:o, s:s?, s:s?, s:s?, s:o, s:o, s:s?, s:o}", "key", info->resolved, "state",
			 cmek_kms_state_name(info->state), "primary_version", info->primary_version, "created",
			 time_or_null(info->created), "deletion_date", time_or_null(info->deletion_date), "origin",
			 info->origin, "protection_level", info->protection_level, "protected_by", info->protected_by,
			 "rotation_days", info->rotation_s ? json_integer(info->rotation_s / 86400) : json_null(),
			 "next_rotation", time_or_null(info->next_rotation), "remark", info->remark, "versions", versions);
}

static void print_info(const struct cmek_tool *tool, const struct cmek_kms_info *info)
{
	char date[CMEK_TIME_TEXT];

	cmek_tool_say(tool, "key:           %s", info->resolved);
	cmek_tool_say(tool, "state:         %s", cmek_kms_state_name(info->state));
	if (info->deletion_date)
		cmek_tool_say(tool, "%s     %s", info->state == CMEK_KMS_DESTROYED ? "destroyed:" : "deletion: ",
			      time_text(info->deletion_date, date));
	cmek_tool_say(tool, "created:       %s", time_text(info->created, date));
	cmek_tool_say(tool, "origin:        %s (%s)", or_dash(info->origin), or_dash(info->protection_level));
	if (info->protected_by)
		cmek_tool_say(tool, "protected by:  %s", info->protected_by);
	if (info->rotation_s)
		cmek_tool_say(tool, "rotation:      every %lld days, next %s", (long long)(info->rotation_s / 86400),
			      time_text(info->next_rotation, date));
	if (info->remark)
		cmek_tool_say(tool, "remark:        %s", info->remark);
	cmek_tool_say(tool, "versions:");
	for (size_t i = 0; i < info->n_versions; i++) {
		const struct cmek_kms_version *v = &info->versions[i];
		bool primary = info->primary_version && strcmp(info->primary_version, v->id) == 0;

		cmek_tool_say(tool, "  %-12s %-17s %s%s", v->id, cmek_kms_state_name(v->state),
			      time_text(v->created, date), primary ? "  primary" : "");
	}
}

static int run_describe(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_command command = {
		.synopsis = "[options] KEY", .about = "Shows the state of a key and its versions.",
		.options = plain_options, .min_operands = 1, .max_operands = 1,
	};
	struct cmek_kms_info info = { 0 };
	struct key_run run;
	json_t *json;
	int rc;

	rc = start(&run, tool, &command, argc, argv);
	if (rc == 0)
		rc = cmek_kms_describe(run.kms, &info, &run.err);
	if (rc == 0) {
		print_info(tool, &info);
		json = info_json(&info);
		cmek_tool_json(tool, &json);
	}
	cmek_kms_info_done(&info);
	return finish(&run, rc);
}

static void print_list(const struct cmek_tool *tool, const struct cmek_kms_info *infos, size_t n)
{
	int width = 3;

	for (size_t i = 0; i < n; i++) {
		if ((int)strlen(infos[i].resolved) > width)
			width = (int)strlen(infos[i].resolved);
	}
	cmek_tool_say(tool, "%-*s  %-16s  %-7s  %-20s  %s", width, "KEY", "STATE", "VERSION", "CREATED", "DELETION");
	for (size_t i = 0; i < n; i++) {
		char created[CMEK_TIME_TEXT], deletion[CMEK_TIME_TEXT];

		cmek_tool_say(tool, "%-*s  %-16s  %-7s  %-20s  %s", width, infos[i].resolved,
			      cmek_kms_state_name(infos[i].state), or_dash(infos[i].primary_version),
			      time_text(infos[i].created, created), time_text(infos[i].deletion_date, deletion));
	}
}

static json_t *list_json(const struct cmek_kms_info *infos, size_t n)
{
	json_t *keys = json_array();

	for (size_t i = 0; i < n; i++) {
		if (json_array_append_new(keys, info_json(&infos[i])) < 0) {
			json_decref(keys);
			return NULL;
		}
	}
	return json_pack("{s:o}", "keys", keys);
}

static int run_list(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_command command = {
		.synopsis = "[options] PROVIDER",
		.about = "Lists the keys of a provider: \"local:\" means this user's local key store.",
		.options = plain_options, .min_operands = 1, .max_operands = 1,
	};
	struct cmek_kms_info *infos = NULL;
	struct key_run run;
	size_t n = 0;
	json_t *json;
	int rc;

	rc = start(&run, tool, &command, argc, argv);
	if (rc == 0)
		rc = cmek_kms_list(run.kms, &infos, &n, &run.err);
	if (rc == 0) {
		print_list(tool, infos, n);
		json = list_json(infos, n);
		cmek_tool_json(tool, &json);
	}
	for (size_t i = 0; i < n; i++)
		cmek_kms_info_done(&infos[i]);
	free(infos);
	return finish(&run, rc);
}

/* After a change: a sentence on a terminal, the key as it is now in JSON. */
static int describe_as_json(struct key_run *run)
{
	struct cmek_kms_info info = { 0 };
	json_t *json;
	int rc;

	if (!run->tool->json)
		return 0;
	rc = cmek_kms_describe(run->kms, &info, &run->err);
	if (rc == 0) {
		json = info_json(&info);
		cmek_tool_json(run->tool, &json);
	}
	cmek_kms_info_done(&info);
	return rc;
}

/* Where the URI does not name the key that was made (an alias, an instance), this does. */
static void say_full_name(const struct key_run *run)
{
	struct cmek_kms_info info = { 0 };

	if (cmek_kms_describe(run->kms, &info, NULL) == 0 && !strstr(run->uri, info.resolved))
		cmek_tool_say(run->tool, "its full name: %s", info.resolved);
	cmek_kms_info_done(&info);
}

static int run_create(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_command command = {
		.synopsis = "[options] KEY", .about = "Makes a new key with one version.",
		.options = create_options, .min_operands = 1, .max_operands = 1,
	};
	struct cmek_kms_create how = { false };
	struct key_run run;
	int rc;

	rc = start(&run, tool, &command, argc, argv);
	how.passphrase = run.passphrase;
	how.multi_region = run.multi_region;
	how.name = run.name;
	if (rc == 0)
		rc = cmek_kms_create(run.kms, &how, &run.err);
	if (rc == 0) {
		cmek_tool_say(tool, "created %s", run.uri);
		say_full_name(&run);
		rc = describe_as_json(&run);
	}
	return finish(&run, rc);
}

static int run_rotate(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_command command = {
		.synopsis = "[options] KEY",
		.about = "Adds a version to a key: what is wrapped from now on is wrapped under it. Older versions go on\n"
			 "unwrapping what they have wrapped.",
		.options = plain_options, .min_operands = 1, .max_operands = 1,
	};
	struct key_run run;
	char *version = NULL;
	int rc;

	rc = start(&run, tool, &command, argc, argv);
	if (rc == 0)
		rc = cmek_kms_rotate(run.kms, &version, &run.err);
	if (rc == 0) {
		cmek_tool_say(tool, "rotated %s: its version is now %s", run.uri, or_dash(version));
		rc = describe_as_json(&run);
	}
	free(version);
	return finish(&run, rc);
}

/* The verbs that take a key and change its state. */
static int change_state(struct cmek_tool *tool, const char *about, const char *done,
			int (*change)(struct cmek_kms *kms, struct cmek_error *err), int argc, char **argv)
{
	const struct cmek_tool_command command = {
		.synopsis = "[options] KEY", .about = about, .options = plain_options, .min_operands = 1, .max_operands = 1,
	};
	struct key_run run;
	int rc;

	rc = start(&run, tool, &command, argc, argv);
	if (rc == 0)
		rc = change(run.kms, &run.err);
	if (rc == 0) {
		cmek_tool_say(tool, "%s is %s", run.uri, done);
		rc = describe_as_json(&run);
	}
	return finish(&run, rc);
}

static int run_enable(struct cmek_tool *tool, int argc, char **argv)
{
	return change_state(tool, "Makes a disabled key usable again.", "enabled", cmek_kms_enable, argc, argv);
}

static int run_disable(struct cmek_tool *tool, int argc, char **argv)
{
	return change_state(tool, "Stops a key from wrapping and unwrapping until it is enabled again.", "disabled",
			    cmek_kms_disable, argc, argv);
}

/* In which state a key comes back depends on the service. */
static int run_cancel_deletion(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_command command = {
		.synopsis = "[options] KEY", .about = "Keeps a key that was to be destroyed.",
		.options = plain_options, .min_operands = 1, .max_operands = 1,
	};
	struct cmek_kms_info info = { 0 };
	struct key_run run;
	json_t *json;
	int rc;

	rc = start(&run, tool, &command, argc, argv);
	if (rc == 0)
		rc = cmek_kms_cancel_deletion(run.kms, &run.err);
	if (rc == 0)
		rc = cmek_kms_describe(run.kms, &info, &run.err);
	if (rc == 0) {
		cmek_tool_say(tool, "%s is no longer pending deletion; it is %s", run.uri, cmek_kms_state_name(info.state));
		json = info_json(&info);
		cmek_tool_json(tool, &json);
	}
	cmek_kms_info_done(&info);
	return finish(&run, rc);
}

static int run_schedule_deletion(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_command command = {
		.synopsis = "[options] KEY",
		.about = "Stops a key from being used now, and destroys it after some days. Without a backup of the key,\n"
			 "what only this key has wrapped is then lost for good.",
		.options = schedule_options, .min_operands = 1, .max_operands = 1,
	};
	char text[CMEK_TIME_TEXT];
	struct key_run run;
	int64_t date = 0;
	int rc;

	rc = start(&run, tool, &command, argc, argv);
	if (rc == 0)
		rc = run.force ? cmek_kms_force_deletion(run.kms, &date, &run.err) :
				 cmek_kms_schedule_deletion(run.kms, run.days, &date, &run.err);
	if (rc == 0) {
		if (run.days == 0)
			cmek_tool_say(tool, "%s is destroyed", run.uri);
		else
			cmek_tool_say(tool, "%s will be destroyed on %s", run.uri, time_text(date, text));
		rc = describe_as_json(&run);
	}
	return finish(&run, rc);
}

static json_t *registrations_json(const struct cmek_kms_registration *regs, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		if (json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:b}", "resource", regs[i].resource,
							  "description", regs[i].description, "created",
							  time_or_null(regs[i].created), "prevents_deletion",
							  regs[i].prevents_deletion)) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return json_pack("{s:o}", "registrations", list);
}

static int run_registrations(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_command command = {
		.synopsis = "[options] KEY",
		.about = "Lists the resources that are registered with the service as using a key. Volumes of cmekfs are not\n"
			 "among them: only the cloud's own services can register.",
		.options = plain_options, .min_operands = 1, .max_operands = 1,
	};
	struct cmek_kms_registration *regs = NULL;
	char created[CMEK_TIME_TEXT];
	struct key_run run;
	json_t *json;
	size_t n = 0;
	int rc;

	rc = start(&run, tool, &command, argc, argv);
	if (rc == 0)
		rc = cmek_kms_registrations(run.kms, &regs, &n, &run.err);
	if (rc == 0) {
		if (n == 0)
			cmek_tool_say(tool, "nothing is registered as using %s", run.uri);
		for (size_t i = 0; i < n; i++)
			cmek_tool_say(tool, "%s  %s%s  %s", time_text(regs[i].created, created), regs[i].resource,
				      regs[i].prevents_deletion ? "  (prevents the key's deletion)" : "",
				      or_dash(regs[i].description));
		json = registrations_json(regs, n);
		cmek_tool_json(tool, &json);
	}
	for (size_t i = 0; i < n; i++)
		cmek_kms_registration_done(&regs[i]);
	free(regs);
	return finish(&run, rc);
}

static int run_policy(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_command command = {
		.synopsis = "[options] KEY",
		.about = "Prints the least that somebody must be allowed who opens volumes with a key, as the service takes it,\n"
			 "and the commands that put it there. Asks no service.",
		.options = policy_options, .min_operands = 1, .max_operands = 1,
	};
	struct cmek_kms_policy policy = { 0 };
	struct key_run run;
	json_t *json;
	int rc;

	rc = start(&run, tool, &command, argc, argv);
	if (rc == 0)
		rc = cmek_kms_policy(run.kms, &run.wish, &policy, &run.err);
	if (rc == 0) {
		cmek_tool_say(tool, "%s\n\n%s", policy.document, policy.guide);
		json = json_pack("{s:o, s:s}", "policy", json_loads(policy.document, 0, NULL), "guide", policy.guide);
		cmek_tool_json(tool, &json);
	}
	cmek_kms_policy_done(&policy);
	return finish(&run, rc);
}

int cmek_ctl_key(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_ctl_verb verbs[] = {
		{ "create", "make a new key", run_create },
		{ "list", "list the keys of a provider", run_list },
		{ "describe", "show the state of a key and its versions", run_describe },
		{ "rotate", "add a version to a key", run_rotate },
		{ "disable", "stop a key from being used", run_disable },
		{ "enable", "make a disabled key usable again", run_enable },
		{ "uses", "list the volumes of this host that a key opens", cmek_ctl_key_uses },
		{ "schedule-deletion", "destroy a key after some days", run_schedule_deletion },
		{ "cancel-deletion", "keep a key that was to be destroyed", run_cancel_deletion },
		{ "policy", "print the least permissions that a key's volumes need", run_policy },
		{ "registrations", "list what is registered as using a key", run_registrations },
		{ NULL, NULL, NULL },
	};

	return cmek_ctl_dispatch(tool, verbs,
				 "The KMS side of keys. KEY is local:NAME, aws-kms://ARN, gcp-kms://RESOURCE or the CRN of a key.",
				 argc, argv);
}
