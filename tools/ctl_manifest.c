/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Reads the manifest of cmekctl slot apply. Every member is checked, and one that is not known is refused: what a key is
 * meant to be must not be guessed. It knows no volume.
 */
#include "config.h"

#include <string.h>

#include "kms/json.h"
#include "tools/ctl_manifest.h"

/* The manifest's types of keys, and the providers of slots. */
static const struct {
	const char *type, *provider;
} types[] = {
	{ "AWS_KMS", "aws" },
	{ "GCP_CLOUD_KMS", "gcp" },
	{ "IBM_KEY_PROTECT", "ibm" },
	{ "LOCAL", "local" },
};
#define N_TYPES (sizeof(types) / sizeof(types[0]))

/* What ends in a slot has to be what a slot may have: found out before a key is asked. */
static int read_text(const struct cmek_json_at *at, const char *name, const char **ret_text, struct cmek_error *err)
{
	const char *text = NULL;
	int ret = cmek_json_string(at, name, &text, err);

	if (ret)
		return ret;
	if (!cmek_slot_text_ok(text, CMEK_SLOT_TEXT_MAX, 0))
		return cmek_json_bad(at, name, "is empty, too long or has control characters", err);
	*ret_text = text;
	return 0;
}

/* Who to be: which member of a principal auth_principal means is up to the service. */
static int read_principal(const struct cmek_json_at *at, struct cmek_manifest_key *key, struct cmek_error *err)
{
	struct cmek_kms_principal *p = &key->principal;
	const char *who = NULL;
	int ret = 0;

	if (cmek_json_has(at, "auth_principal"))
		ret = read_text(at, "auth_principal", &who, err);
	if (!ret && cmek_json_has(at, "external_id"))
		ret = read_text(at, "external_id", &p->external_id, err);
	if (ret)
		return ret;
	if (p->external_id && (strcmp(key->provider, "aws") || !who))
		return cmek_json_bad(at, "external_id", "goes with auth_principal, the role, of an AWS_KMS key", err);
	if (who && !strcmp(key->provider, "aws"))
		p->role = who;
	else if (who && !strcmp(key->provider, "gcp"))
		p->service_account = who;
	else if (who && !strcmp(key->provider, "ibm"))
		p->profile = who;
	else if (who)
		return cmek_json_bad(at, "auth_principal", "makes no sense for a LOCAL key", err);
	return 0;
}

static int read_key_spec(const struct cmek_json_at *at, struct cmek_manifest_key *key, struct cmek_error *err)
{
	static const char *const names[] = { "type", "uri", "auth_principal", "external_id", NULL };
	const char *type = NULL;
	size_t i;
	int ret;

	ret = cmek_json_only(at, names, err);
	if (!ret)
		ret = cmek_json_string(at, "type", &type, err);
	for (i = 0; !ret && i < N_TYPES; i++)
		if (!strcmp(type, types[i].type))
			key->provider = types[i].provider;
	if (!ret && !key->provider)
		ret = cmek_json_bad(at, "type", "is none of AWS_KMS, GCP_CLOUD_KMS, IBM_KEY_PROTECT, LOCAL", err);
	if (!ret)
		ret = read_text(at, "uri", &key->uri, err);
	return ret ? ret : read_principal(at, key, err);
}

static int read_spec(struct cmek_manifest *m, const struct cmek_json_at *list, size_t i, struct cmek_error *err)
{
	static const char *const names[] = { "region", "key_spec", NULL };
	struct cmek_manifest_key *key = &m->keys[m->n_keys];
	struct cmek_json_at at, key_at;
	size_t k;
	int ret;

	key->index = i;
	ret = cmek_json_element(list, i, &at, err);
	if (!ret)
		ret = cmek_json_only(&at, names, err);
	if (!ret && cmek_json_has(&at, "region"))
		ret = cmek_json_string(&at, "region", &key->region, err);
	if (!ret && key->region && !cmek_slot_text_ok(key->region, CMEK_SLOT_TEXT_MAX, 1))
		ret = cmek_json_bad(&at, "region", "is too long or has control characters", err);
	if (!ret)
		ret = cmek_json_object(&at, "key_spec", &key_at, err);
	if (!ret)
		ret = read_key_spec(&key_at, key, err);
	for (k = 0; !ret && k < m->n_keys; k++)
		if (!strcmp(m->keys[k].uri, key->uri))
			ret = cmek_json_bad(&key_at, "uri", "is there twice", err);
	m->n_keys++;
	return ret;
}

int cmek_manifest_parse(const void *text, size_t len, const char *what, struct cmek_manifest *ret_manifest,
			struct cmek_error *err)
{
	static const char *const names[] = { "$schema", "action", "region_specs", NULL };
	struct cmek_manifest *m = ret_manifest;
	struct cmek_json_at root, list;
	const char *action = "APPLY";
	size_t n = 0, i;
	bool listed;
	int ret;

	memset(m, 0, sizeof(*m));
	ret = cmek_json_parse(text, len, what, &m->json, err);
	if (ret)
		return ret;
	root = cmek_json_root(m->json, what);
	ret = cmek_json_only(&root, names, err);
	if (!ret && cmek_json_has(&root, "action"))
		ret = cmek_json_string(&root, "action", &action, err);
	if (!ret && strcmp(action, "APPLY") && strcmp(action, "REVOKE"))
		ret = cmek_json_bad(&root, "action", "is neither APPLY nor REVOKE", err);
	m->revoke = !strcmp(action, "REVOKE");
	/* A bare revocation is of all that the volume has; a list that is empty was hardly meant so. */
	listed = !m->revoke || cmek_json_has(&root, "region_specs");
	if (!ret && listed)
		ret = cmek_json_array(&root, "region_specs", &list, &n, err);
	if (!ret && n > CMEK_SLOTS_MAX)
		ret = cmek_json_bad(&root, "region_specs", "has more elements than a volume has key slots", err);
	if (!ret && !n && listed)
		ret = cmek_json_bad(&root, "region_specs", "is empty", err);
	for (i = 0; !ret && i < n; i++)
		ret = read_spec(m, &list, i, err);
	return ret;
}

void cmek_manifest_done(struct cmek_manifest *manifest)
{
	json_decref(manifest->json);
	memset(manifest, 0, sizeof(*manifest));
}
