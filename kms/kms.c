/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The front of the KMS layer: finds the provider of a URI, checks arguments, and calls it. It must not know how any
 * provider works, what a volume is, or where blobs are kept.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kms/aws.h"
#include "kms/gcp.h"
#include "kms/http.h"
#include "kms/ibm.h"
#include "kms/json.h"
#include "kms/kms.h"
#include "kms/kms_uri.h"
#include "kms/local.h"
#include "kms/recovery.h"

#define KEK_LEN 32
#define URI_MAX_BYTES 2048
#define PURPOSE_MAX_BYTES 32
#define VERSION_MAX_BYTES 511

static const struct cmek_kms_provider *const providers[] = {
	&cmek_kms_local,
	&cmek_kms_aws,
	&cmek_kms_gcp,
	&cmek_kms_ibm,
	&cmek_kms_recovery,
};
#define N_PROVIDERS (sizeof(providers) / sizeof(providers[0]))

struct cmek_kms {
	const struct cmek_kms_provider *provider;
	void *state; /* the provider's */
	char *uri;
	void (*called)(void *arg, const struct cmek_kms_call *call); /* of the options */
	void *called_arg;
};

void cmek_kms_blob_done(struct cmek_kms_blob *blob)
{
	if (!blob)
		return;
	free(blob->data);
	free(blob->resolved);
	free(blob->version);
	memset(blob, 0, sizeof(*blob));
}

void cmek_kms_info_done(struct cmek_kms_info *info)
{
	if (!info)
		return;
	for (size_t i = 0; info->versions && i < info->n_versions; i++)
		free(info->versions[i].id);
	free(info->versions);
	free(info->resolved);
	free(info->primary_version);
	free(info->origin);
	free(info->protection_level);
	free(info->protected_by);
	free(info->remark);
	memset(info, 0, sizeof(*info));
}

void cmek_kms_registration_done(struct cmek_kms_registration *reg)
{
	if (!reg)
		return;
	free(reg->resource);
	free(reg->description);
	memset(reg, 0, sizeof(*reg));
}

void cmek_kms_policy_done(struct cmek_kms_policy *policy)
{
	if (!policy)
		return;
	free(policy->document);
	free(policy->guide);
	memset(policy, 0, sizeof(*policy));
}

struct cmek_kms_principal cmek_kms_principal_for(const char *uri, const struct cmek_kms_principal *principal)
{
	enum cmek_kms_service service = cmek_kms_uri_service(uri);
	struct cmek_kms_principal own = { 0 };

	if (service == CMEK_KMS_SERVICE_AWS) {
		own.role = principal->role;
		own.external_id = principal->external_id;
	} else if (service == CMEK_KMS_SERVICE_GCP) {
		own.service_account = principal->service_account;
	} else if (service == CMEK_KMS_SERVICE_IBM) {
		own.profile = principal->profile;
	}
	return own;
}

const char *cmek_kms_state_name(enum cmek_kms_state state)
{
	switch (state) {
	case CMEK_KMS_ENABLED:
		return "enabled";
	case CMEK_KMS_DISABLED:
		return "disabled";
	case CMEK_KMS_PENDING_DELETION:
		return "pending-deletion";
	case CMEK_KMS_DESTROYED:
		return "destroyed";
	case CMEK_KMS_STATE_UNKNOWN:
		break;
	}
	return "unknown";
}

static int no_provider(const char *uri, struct cmek_error *err)
{
	if (cmek_kms_uri_is_bare_id(uri))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "'%s' is a bare id: it says neither in which region nor in which instance of IBM Key "
				      "Protect its key is; give the key's full CRN, as 'ibmcloud kp key show' prints it",
				      uri);
	return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
			      "'%.200s' names no key: expected local:NAME, aws-kms://ARN, gcp-kms://RESOURCE or an IBM "
			      "CRN (crn:v1:...:kms:...)",
			      uri);
}

int cmek_kms_open(const char *uri, const struct cmek_kms_principal *principal, const struct cmek_kms_options *opts,
		  struct cmek_kms **ret_kms, struct cmek_error *err)
{
	static const struct cmek_kms_principal nobody;
	static const struct cmek_kms_options defaults;
	struct cmek_kms *kms;
	int rc;

	cmek_json_init();
	if (strlen(uri) > URI_MAX_BYTES)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "a key URI of more than %d bytes", URI_MAX_BYTES);
	kms = calloc(1, sizeof(*kms));
	if (!kms)
		return cmek_error_sys(err, ENOMEM, "opening the key %s", uri);
	for (size_t i = 0; i < N_PROVIDERS && !kms->provider; i++) {
		if (providers[i]->match(uri))
			kms->provider = providers[i];
	}
	if (!kms->provider) {
		rc = no_provider(uri, err);
		goto out;
	}
	kms->uri = strdup(uri);
	if (!kms->uri) {
		rc = cmek_error_sys(err, ENOMEM, "opening the key %s", uri);
		goto out;
	}
	if (opts) {
		kms->called = opts->called;
		kms->called_arg = opts->called_arg;
	}
	rc = kms->provider->open(uri, principal ? principal : &nobody, opts ? opts : &defaults, &kms->state, err);
out:
	if (rc < 0)
		cmek_kms_close(kms);
	else
		*ret_kms = kms;
	return rc;
}

void cmek_kms_close(struct cmek_kms *kms)
{
	if (!kms)
		return;
	if (kms->state)
		kms->provider->close(kms->state);
	free(kms->uri);
	free(kms);
}

const char *cmek_kms_provider_name(const struct cmek_kms *kms)
{
	return kms->provider->name;
}

bool cmek_kms_is_by_hand(const struct cmek_kms *kms)
{
	return kms->provider->by_hand;
}

const char *cmek_kms_uri(const struct cmek_kms *kms)
{
	return kms->uri;
}

/* ---- what is told of an operation ---- */

struct asking {
	struct cmek_kms *kms;
	struct cmek_kms_call call;
	struct cmek_error failure; /* the operation's own */
	uint64_t start_ms;
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts); /* can't fail */
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static struct cmek_http *http_of(const struct cmek_kms *kms)
{
	return kms->provider->http ? kms->provider->http(kms->state) : NULL;
}

/* ctx: NULL = it is about a key alone. */
static void begin(struct asking *asking, struct cmek_kms *kms, const char *operation, const struct cmek_kms_context *ctx)
{
	struct cmek_http *http = http_of(kms);

	*asking = (struct asking){ .kms = kms, .failure = CMEK_ERROR_INIT, .start_ms = now_ms() };
	asking->call = (struct cmek_kms_call){
		.operation = operation, .provider = kms->provider->name, .key = kms->uri, .version = "",
		.volume = ctx ? ctx->volume : NULL, .purpose = ctx ? ctx->purpose : NULL, .failure = &asking->failure,
	};
	/* Else an operation that fails before its first request would be told with those of the one before. */
	if (http)
		cmek_http_forget(http);
}

/*
 * key and version: what is known of them now; NULL = no more than before. Services say it: what no key is called is left out,
 * so that nothing they say is too long for a record.
 */
static void know(struct asking *asking, const char *key, const char *version)
{
	if (key && key[0] && strlen(key) <= URI_MAX_BYTES)
		asking->call.key = key;
	if (version && strlen(version) <= VERSION_MAX_BYTES)
		asking->call.version = version;
}

/* Returns rc, with the error. */
static int end(struct asking *asking, int rc, struct cmek_error *err)
{
	struct cmek_error *failure = &asking->failure;
	struct cmek_kms_call *call = &asking->call;
	struct cmek_http *http = http_of(asking->kms);
	bool refused_here;

	if (rc == 0)
		cmek_error_clear(failure);
	else if (!cmek_error_is_set(failure))
		(void)cmek_error_sys(failure, -rc, "%s", call->key);
	call->took_ms = now_ms() - asking->start_ms;
	if (http) {
		call->requests = cmek_http_receipts(http, &call->n_requests);
		call->n_left_out = cmek_http_receipts_left_out(http);
	}
	refused_here = call->n_requests == 0 && (failure->kind == CMEK_E_USAGE || failure->kind == CMEK_E_UNSUPPORTED);
	if (asking->kms->called && !refused_here)
		asking->kms->called(asking->kms->called_arg, call);
	if (rc < 0)
		(void)cmek_error_set(err, failure->kind, failure->err, "%s", failure->text);
	return rc;
}

/* ---- the operations ---- */

static int unsupported(const struct cmek_kms *kms, const char *what, struct cmek_error *err)
{
	return cmek_error_set(err, CMEK_E_UNSUPPORTED, EOPNOTSUPP, "%s has no operation to %s",
			      cmek_kms_service_title(cmek_kms_uri_service(kms->uri)), what);
}

/* A purpose becomes part of a context that KMS policies match on: lower-case words only. */
static int check_context(const struct cmek_kms_context *ctx, struct cmek_error *err)
{
	size_t len = ctx->purpose ? strlen(ctx->purpose) : 0;

	if (len < 1 || len > PURPOSE_MAX_BYTES || strspn(ctx->purpose, "abcdefghijklmnopqrstuvwxyz0123456789-") != len)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "a slot's purpose is 1 to %d of a-z 0-9 -",
				      PURPOSE_MAX_BYTES);
	return 0;
}

static int check_blob(const struct cmek_kms_blob *blob, struct cmek_error *err)
{
	if (!blob->data || blob->len < 1 || blob->len > CMEK_KMS_BLOB_MAX)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "a wrapped key of %zu bytes",
				      blob->data ? blob->len : 0);
	return 0;
}

int cmek_kms_wrap(struct cmek_kms *kms, const struct cmek_kms_context *ctx, const struct cmek_secret *key,
		  struct cmek_kms_blob *ret_blob, struct cmek_error *err)
{
	struct cmek_kms_blob blob = { 0 };
	struct asking asking;
	int rc;

	rc = check_context(ctx, err);
	if (rc < 0)
		return rc;
	if (cmek_secret_len(key) != KEK_LEN)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "only keys of %d bytes are wrapped", KEK_LEN);
	begin(&asking, kms, "wrap", ctx);
	rc = kms->provider->wrap(kms->state, ctx, key, &blob, &asking.failure);
	if (rc == 0)
		know(&asking, blob.resolved, blob.version);
	rc = end(&asking, rc, err);
	if (rc < 0)
		cmek_kms_blob_done(&blob);
	else
		*ret_blob = blob;
	return rc;
}

int cmek_kms_unwrap(struct cmek_kms *kms, const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
		    struct cmek_secret **ret_key, struct cmek_kms_blob *ret_fresh, struct cmek_error *err)
{
	struct cmek_kms_blob fresh = { 0 };
	struct cmek_secret *key = NULL;
	struct asking asking;
	int rc;

	rc = check_context(ctx, err);
	if (rc == 0)
		rc = check_blob(blob, err);
	if (rc < 0)
		return rc;
	begin(&asking, kms, "unwrap", ctx);
	know(&asking, blob->resolved, blob->version);
	rc = kms->provider->unwrap(kms->state, ctx, blob, &key, ret_fresh ? &fresh : NULL, &asking.failure);
	if (rc == 0 && cmek_secret_len(key) != KEK_LEN)
		rc = cmek_error_set(&asking.failure, CMEK_E_TAMPERED, EBADMSG, "the unwrapped key has %zu bytes, not %d",
				    cmek_secret_len(key), KEK_LEN);
	rc = end(&asking, rc, err);
	if (rc < 0) {
		cmek_secret_free(key);
		cmek_kms_blob_done(&fresh);
		return rc;
	}
	/* Who may unwrap need not be allowed to wrap: then there is no fresh blob. */
	if (ret_fresh && !fresh.data && kms->provider->outdated && kms->provider->outdated(kms->state))
		(void)cmek_kms_wrap(kms, ctx, key, &fresh, NULL);
	*ret_key = key;
	if (ret_fresh)
		*ret_fresh = fresh;
	return 0;
}

int cmek_kms_rewrap(struct cmek_kms *kms, const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
		    struct cmek_kms_blob *ret_blob, struct cmek_error *err)
{
	struct cmek_kms_blob fresh = { 0 };
	struct cmek_secret *key = NULL;
	struct asking asking;
	int rc;

	if (!kms->provider->rewrap) {
		rc = cmek_kms_unwrap(kms, ctx, blob, &key, NULL, err);
		if (rc == 0)
			rc = cmek_kms_wrap(kms, ctx, key, ret_blob, err);
		cmek_secret_free(key);
		return rc;
	}
	rc = check_context(ctx, err);
	if (rc == 0)
		rc = check_blob(blob, err);
	if (rc < 0)
		return rc;
	begin(&asking, kms, "rewrap", ctx);
	know(&asking, blob->resolved, blob->version);
	rc = end(&asking, kms->provider->rewrap(kms->state, ctx, blob, &fresh, &asking.failure), err);
	if (rc < 0)
		cmek_kms_blob_done(&fresh);
	else
		*ret_blob = fresh;
	return rc;
}

int cmek_kms_describe(struct cmek_kms *kms, struct cmek_kms_info *ret_info, struct cmek_error *err)
{
	struct cmek_kms_info info = { 0 };
	struct asking asking;
	int rc;

	if (!kms->provider->describe)
		return unsupported(kms, "describe a key", err);
	begin(&asking, kms, "describe", NULL);
	rc = kms->provider->describe(kms->state, &info, &asking.failure);
	if (rc == 0)
		know(&asking, info.resolved, NULL);
	rc = end(&asking, rc, err);
	if (rc < 0)
		cmek_kms_info_done(&info);
	else
		*ret_info = info;
	return rc;
}

int cmek_kms_create(struct cmek_kms *kms, const struct cmek_kms_create *how, struct cmek_error *err)
{
	static const struct cmek_kms_create defaults;
	struct asking asking;

	if (!kms->provider->create)
		return unsupported(kms, "create a key", err);
	begin(&asking, kms, "create", NULL);
	return end(&asking, kms->provider->create(kms->state, how ? how : &defaults, &asking.failure), err);
}

int cmek_kms_rotate(struct cmek_kms *kms, char **ret_version, struct cmek_error *err)
{
	char *version = NULL;
	struct asking asking;
	int rc;

	if (!kms->provider->rotate)
		return unsupported(kms, "rotate a key", err);
	begin(&asking, kms, "rotate", NULL);
	rc = kms->provider->rotate(kms->state, &version, &asking.failure);
	know(&asking, NULL, version);
	rc = end(&asking, rc, err);
	if (rc == 0 && ret_version)
		*ret_version = version;
	else
		free(version);
	return rc;
}

int cmek_kms_enable(struct cmek_kms *kms, struct cmek_error *err)
{
	struct asking asking;

	if (!kms->provider->enable)
		return unsupported(kms, "enable a key", err);
	begin(&asking, kms, "enable", NULL);
	return end(&asking, kms->provider->enable(kms->state, &asking.failure), err);
}

int cmek_kms_disable(struct cmek_kms *kms, struct cmek_error *err)
{
	struct asking asking;

	if (!kms->provider->disable)
		return unsupported(kms, "disable a key", err);
	begin(&asking, kms, "disable", NULL);
	return end(&asking, kms->provider->disable(kms->state, &asking.failure), err);
}

int cmek_kms_schedule_deletion(struct cmek_kms *kms, unsigned days, int64_t *ret_date, struct cmek_error *err)
{
	int64_t date = 0;
	struct asking asking;
	int rc;

	if (!kms->provider->schedule_deletion)
		return unsupported(kms, "schedule a key's deletion", err);
	begin(&asking, kms, "schedule-deletion", NULL);
	rc = end(&asking, kms->provider->schedule_deletion(kms->state, days, &date, &asking.failure), err);
	if (rc == 0 && ret_date)
		*ret_date = date;
	return rc;
}

int cmek_kms_force_deletion(struct cmek_kms *kms, int64_t *ret_date, struct cmek_error *err)
{
	int64_t date = 0;
	struct asking asking;
	int rc;

	if (!kms->provider->force_deletion)
		return unsupported(kms, "delete a key together with its registrations", err);
	begin(&asking, kms, "force-deletion", NULL);
	rc = end(&asking, kms->provider->force_deletion(kms->state, &date, &asking.failure), err);
	if (rc == 0 && ret_date)
		*ret_date = date;
	return rc;
}

int cmek_kms_cancel_deletion(struct cmek_kms *kms, struct cmek_error *err)
{
	struct asking asking;

	if (!kms->provider->cancel_deletion)
		return unsupported(kms, "cancel a key's deletion", err);
	begin(&asking, kms, "cancel-deletion", NULL);
	return end(&asking, kms->provider->cancel_deletion(kms->state, &asking.failure), err);
}

int cmek_kms_identity(struct cmek_kms *kms, char **ret_text, struct cmek_error *err)
{
	struct asking asking;

	if (!kms->provider->identity)
		return unsupported(kms, "tell who asks", err);
	begin(&asking, kms, "identity", NULL);
	return end(&asking, kms->provider->identity(kms->state, ret_text, &asking.failure), err);
}

const struct cmek_kms_receipt *cmek_kms_receipts(struct cmek_kms *kms, size_t *ret_n)
{
	struct cmek_http *http = http_of(kms);

	*ret_n = 0;
	return http ? cmek_http_receipts(http, ret_n) : NULL;
}

int cmek_kms_list(struct cmek_kms *kms, struct cmek_kms_info **ret_infos, size_t *ret_n, struct cmek_error *err)
{
	struct asking asking;

	if (!kms->provider->list)
		return unsupported(kms, "list keys", err);
	begin(&asking, kms, "list", NULL);
	return end(&asking, kms->provider->list(kms->state, ret_infos, ret_n, &asking.failure), err);
}

int cmek_kms_registrations(struct cmek_kms *kms, struct cmek_kms_registration **ret_regs, size_t *ret_n,
			   struct cmek_error *err)
{
	struct asking asking;

	if (!kms->provider->registrations)
		return unsupported(kms, "list what is registered as using a key", err);
	begin(&asking, kms, "registrations", NULL);
	return end(&asking, kms->provider->registrations(kms->state, ret_regs, ret_n, &asking.failure), err);
}

int cmek_kms_policy(struct cmek_kms *kms, const struct cmek_kms_policy_wish *wish, struct cmek_kms_policy *ret_policy,
		    struct cmek_error *err)
{
	static const struct cmek_kms_policy_wish defaults;
	struct cmek_kms_policy policy = { 0 };
	int rc;

	if (!kms->provider->policy)
		return unsupported(kms, "print a policy for a key", err);
	rc = kms->provider->policy(kms->state, wish ? wish : &defaults, &policy, err);
	if (rc < 0)
		cmek_kms_policy_done(&policy);
	else
		*ret_policy = policy;
	return rc;
}
