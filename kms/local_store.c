/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The local key store as a value: JSON text to struct and back, its MAC, the wrapping of key material
 * (doc/kms/local.md). It does no I/O and does not know where the master key comes from or which states allow what.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/text.h"
#include "kms/json.h"
#include "kms/local_store.h"

#define FORMAT "cmekfs key store"
#define FORMAT_VERSION 1
#define SEQUENCE_MAX ((UINT64_C(1) << 53) - 1) /* what every JSON reader holds exactly */
#define SCRYPT_N_DEFAULT (1u << 17)
#define SCRYPT_R_DEFAULT 8
#define SCRYPT_P_DEFAULT 1
/* A text that nobody has authenticated yet must not keep us busy for hours. */
#define SCRYPT_N_MIN (1u << 14)
#define SCRYPT_N_MAX (1u << 20)
#define SCRYPT_R_MAX 8
#define SCRYPT_P_MAX 4

#define INFO_WRAP "cmekfs key store v1: wrap"
#define INFO_MAC "cmekfs key store v1: mac"
#define INFO_CHECK "cmekfs key store v1: check"

int cmek_local_keys_derive(const struct cmek_secret *master, const uint8_t uuid[16], struct cmek_local_keys *ret_keys,
			   struct cmek_error *err)
{
	struct cmek_local_keys keys = { 0 };
	struct cmek_secret *check = NULL;
	int rc;

	memcpy(keys.uuid, uuid, sizeof(keys.uuid));
	rc = cmek_hkdf(master, CMEK_KEY_STORE, uuid, 16, INFO_WRAP, strlen(INFO_WRAP), CMEK_KEY_STORE,
		       CMEK_LOCAL_KEY_LEN, &keys.wrap, err);
	if (rc == 0)
		rc = cmek_hkdf(master, CMEK_KEY_STORE, uuid, 16, INFO_MAC, strlen(INFO_MAC), CMEK_KEY_STORE,
			       CMEK_LOCAL_KEY_LEN, &keys.mac, err);
	if (rc == 0)
		rc = cmek_hkdf(master, CMEK_KEY_STORE, uuid, 16, INFO_CHECK, strlen(INFO_CHECK), CMEK_KEY_STORE,
			       CMEK_LOCAL_KEY_LEN, &check, err);
	if (rc == 0) {
		/* Not a secret from here on: it is published in the store. */
		memcpy(keys.check, cmek_secret_bytes(check, CMEK_KEY_STORE), sizeof(keys.check));
		*ret_keys = keys;
	} else {
		cmek_local_keys_done(&keys);
	}
	cmek_secret_free(check);
	return rc;
}

void cmek_local_keys_done(struct cmek_local_keys *keys)
{
	cmek_secret_free(keys->wrap);
	cmek_secret_free(keys->mac);
	memset(keys, 0, sizeof(*keys));
}

void cmek_local_store_init(struct cmek_local_store *store, enum cmek_local_protection protection, int64_t now)
{
	memset(store, 0, sizeof(*store));
	cmek_random(store->uuid, sizeof(store->uuid));
	store->uuid[6] = (store->uuid[6] & 0x0f) | 0x40; /* RFC 9562 s5.4: version 4 */
	store->uuid[8] = (store->uuid[8] & 0x3f) | 0x80;
	store->created = now;
	store->protection = protection;
	if (protection == CMEK_LOCAL_PASSPHRASE) {
		store->scrypt_n = SCRYPT_N_DEFAULT;
		store->scrypt_r = SCRYPT_R_DEFAULT;
		store->scrypt_p = SCRYPT_P_DEFAULT;
		cmek_random(store->salt, sizeof(store->salt));
	}
}

void cmek_local_store_done(struct cmek_local_store *store)
{
	for (size_t i = 0; store->keys && i < store->n_keys; i++)
		free(store->keys[i].versions);
	free(store->keys);
	memset(store, 0, sizeof(*store));
}

/* Text -> store */

static int decode_state(const struct cmek_json_at *at, enum cmek_kms_state *ret_state, struct cmek_error *err)
{
	const char *text = NULL;
	int rc = cmek_json_string(at, "state", &text, err);

	if (rc < 0)
		return rc;
	for (int s = CMEK_KMS_ENABLED; s < CMEK_KMS_STATE_UNKNOWN; s++) {
		if (strcmp(text, cmek_kms_state_name(s)) == 0) {
			*ret_state = s;
			return 0;
		}
	}
	return cmek_json_bad(at, "state", "is not a state", err);
}

static int decode_version(const struct cmek_json_at *at, uint64_t number, struct cmek_local_version *version,
			  struct cmek_error *err)
{
	static const char *const names[] = { "version", "created", "wrapped", NULL };
	uint64_t n;
	int rc;

	rc = cmek_json_only(at, names, err);
	if (rc == 0)
		rc = cmek_json_uint(at, "version", number, number, &n, err);
	if (rc == 0)
		rc = cmek_json_time(at, "created", &version->created, err);
	if (rc < 0)
		return rc;
	version->destroyed = json_object_get(at->value, "wrapped") == NULL;
	if (version->destroyed)
		return 0;
	return cmek_json_b64(at, "wrapped", version->wrapped, sizeof(version->wrapped), err);
}

/* The one date that goes with the state must be there, and no other. */
static int decode_dates(const struct cmek_json_at *at, struct cmek_local_key *key, struct cmek_error *err)
{
	bool pending = key->state == CMEK_KMS_PENDING_DELETION;
	bool destroyed = key->state == CMEK_KMS_DESTROYED;

	if (!pending && json_object_get(at->value, "deletion_date"))
		return cmek_json_bad(at, "deletion_date", "is there, but the key is not pending deletion", err);
	if (!destroyed && json_object_get(at->value, "destroyed"))
		return cmek_json_bad(at, "destroyed", "is there, but the key is not destroyed", err);
	if (pending)
		return cmek_json_time(at, "deletion_date", &key->deletion_date, err);
	if (destroyed)
		return cmek_json_time(at, "destroyed", &key->deletion_date, err);
	return 0;
}

static int decode_key(const struct cmek_json_at *at, struct cmek_local_key *key, struct cmek_error *err)
{
	static const char *const names[] = { "name", "state", "created", "deletion_date", "destroyed", "versions", NULL };
	struct cmek_json_at list, el;
	const char *name = NULL;
	size_t n = 0;
	int rc;

	rc = cmek_json_only(at, names, err);
	if (rc == 0)
		rc = cmek_json_string(at, "name", &name, err);
	if (rc == 0 && !cmek_kms_local_name_ok(name))
		rc = cmek_json_bad(at, "name", "is not a key name", err);
	if (rc == 0)
		rc = decode_state(at, &key->state, err);
	if (rc == 0)
		rc = cmek_json_time(at, "created", &key->created, err);
	if (rc == 0)
		rc = decode_dates(at, key, err);
	if (rc == 0)
		rc = cmek_json_array(at, "versions", &list, &n, err);
	if (rc == 0 && n == 0)
		rc = cmek_json_bad(at, "versions", "is empty", err);
	if (rc < 0)
		return rc;
	memcpy(key->name, name, strlen(name) + 1);
	key->versions = calloc(n, sizeof(*key->versions));
	if (!key->versions)
		return cmek_error_sys(err, ENOMEM, "reading the key store");
	key->n_versions = n;
	for (size_t i = 0; i < n; i++) {
		rc = cmek_json_element(&list, i, &el, err);
		if (rc == 0)
			rc = decode_version(&el, i + 1, &key->versions[i], err);
		if (rc == 0 && key->state == CMEK_KMS_DESTROYED && !key->versions[i].destroyed)
			rc = cmek_json_bad(&el, "wrapped", "is there, but the key is destroyed", err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int decode_keys(const struct cmek_json_at *root, struct cmek_local_store *store, struct cmek_error *err)
{
	struct cmek_json_at list, el;
	size_t n = 0;
	int rc;

	rc = cmek_json_array(root, "keys", &list, &n, err);
	if (rc < 0 || n == 0)
		return rc;
	store->keys = calloc(n, sizeof(*store->keys));
	if (!store->keys)
		return cmek_error_sys(err, ENOMEM, "reading the key store");
	store->n_keys = n;
	for (size_t i = 0; i < n; i++) {
		rc = cmek_json_element(&list, i, &el, err);
		if (rc == 0)
			rc = decode_key(&el, &store->keys[i], err);
		if (rc == 0 && i > 0 && strcmp(store->keys[i - 1].name, store->keys[i].name) >= 0)
			rc = cmek_json_bad(&el, "name", "is out of order", err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int decode_scrypt(const struct cmek_json_at *at, struct cmek_local_store *store, struct cmek_error *err)
{
	static const char *const names[] = { "type", "kdf", "n", "r", "p", "salt", NULL };
	const char *kdf = NULL;
	uint64_t r = 0, p = 0;
	int rc;

	rc = cmek_json_only(at, names, err);
	if (rc == 0)
		rc = cmek_json_string(at, "kdf", &kdf, err);
	if (rc == 0 && strcmp(kdf, "scrypt") != 0)
		rc = cmek_json_bad(at, "kdf", "is not scrypt", err);
	if (rc == 0)
		rc = cmek_json_uint(at, "n", SCRYPT_N_MIN, SCRYPT_N_MAX, &store->scrypt_n, err);
	if (rc == 0 && (store->scrypt_n & (store->scrypt_n - 1)) != 0)
		rc = cmek_json_bad(at, "n", "is not a power of two", err);
	if (rc == 0)
		rc = cmek_json_uint(at, "r", 1, SCRYPT_R_MAX, &r, err);
	if (rc == 0)
		rc = cmek_json_uint(at, "p", 1, SCRYPT_P_MAX, &p, err);
	if (rc == 0)
		rc = cmek_json_b64(at, "salt", store->salt, sizeof(store->salt), err);
	store->scrypt_r = (uint32_t)r;
	store->scrypt_p = (uint32_t)p;
	return rc;
}

static int decode_protection(const struct cmek_json_at *root, struct cmek_local_store *store, struct cmek_error *err)
{
	static const char *const key_file_names[] = { "type", NULL };
	struct cmek_json_at at;
	const char *type = NULL;
	int rc;

	rc = cmek_json_object(root, "protection", &at, err);
	if (rc == 0)
		rc = cmek_json_string(&at, "type", &type, err);
	if (rc < 0)
		return rc;
	if (strcmp(type, "key-file") == 0) {
		store->protection = CMEK_LOCAL_KEY_FILE;
		return cmek_json_only(&at, key_file_names, err);
	}
	if (strcmp(type, "passphrase") == 0) {
		store->protection = CMEK_LOCAL_PASSPHRASE;
		return decode_scrypt(&at, store, err);
	}
	return cmek_json_bad(&at, "type", "is neither key-file nor passphrase", err);
}

/* The format and its version come before anything else: a later format may have changed all the rest. */
static int decode_format(const struct cmek_json_at *root, struct cmek_error *err)
{
	const char *format = NULL;
	uint64_t version = 0;
	int rc;

	rc = cmek_json_string(root, "format", &format, err);
	if (rc == 0 && strcmp(format, FORMAT) != 0)
		rc = cmek_json_bad(root, "format", "is not \"" FORMAT "\"", err);
	if (rc == 0)
		rc = cmek_json_uint(root, "version", 1, INT64_MAX, &version, err);
	if (rc == 0 && version != FORMAT_VERSION)
		rc = cmek_error_set(err, CMEK_E_UNSUPPORTED, EPROTONOSUPPORT,
				    "%s has format version %llu; this program knows only version %d", root->what,
				    (unsigned long long)version, FORMAT_VERSION);
	return rc;
}

int cmek_local_store_decode(const void *text, size_t len, const char *what, struct cmek_local_store *ret_store,
			    struct cmek_error *err)
{
	static const char *const names[] = { "format", "version", "uuid", "created", "sequence", "protection", "check",
					     "keys", "mac", NULL };
	struct cmek_local_store store = { 0 };
	struct cmek_json_at root;
	json_t *json = NULL;
	int rc;

	rc = cmek_json_parse(text, len, what, &json, err);
	if (rc < 0)
		return rc;
	root = cmek_json_root(json, what);
	rc = decode_format(&root, err);
	if (rc == 0)
		rc = cmek_json_only(&root, names, err);
	if (rc == 0)
		rc = cmek_json_uuid(&root, "uuid", store.uuid, err);
	if (rc == 0)
		rc = cmek_json_time(&root, "created", &store.created, err);
	if (rc == 0)
		rc = cmek_json_uint(&root, "sequence", 1, SEQUENCE_MAX, &store.sequence, err);
	if (rc == 0)
		rc = decode_protection(&root, &store, err);
	if (rc == 0)
		rc = cmek_json_b64(&root, "check", store.check, sizeof(store.check), err);
	if (rc == 0)
		rc = cmek_json_b64(&root, "mac", store.mac, sizeof(store.mac), err);
	if (rc == 0)
		rc = decode_keys(&root, &store, err);
	json_decref(json);
	if (rc < 0)
		cmek_local_store_done(&store);
	else
		*ret_store = store;
	return rc;
}

/* Store -> text. json_pack() and the *_new() setters take NULL values and then fail, so one check at the end is enough. */

static json_t *json_time(int64_t unix_seconds)
{
	char text[CMEK_TIME_TEXT];

	cmek_time_encode(unix_seconds, text);
	return json_string(text);
}

static json_t *json_b64(const uint8_t *bytes, size_t len)
{
	char text[CMEK_B64_LEN(CMEK_LOCAL_WRAPPED_LEN) + 1];

	cmek_b64_encode(bytes, len, text);
	return json_string(text);
}

static json_t *encode_versions(const struct cmek_local_key *key)
{
	json_t *list = json_array();

	for (size_t i = 0; i < key->n_versions; i++) {
		const struct cmek_local_version *v = &key->versions[i];
		json_t *one = json_pack("{s:I, s:o}", "version", (json_int_t)(i + 1), "created", json_time(v->created));
		int rc = one ? 0 : -1;

		if (rc == 0 && !v->destroyed)
			rc = json_object_set_new(one, "wrapped", json_b64(v->wrapped, sizeof(v->wrapped)));
		if (rc < 0 || json_array_append(list, one) < 0) {
			json_decref(one);
			json_decref(list);
			return NULL;
		}
		json_decref(one);
	}
	return list;
}

static json_t *encode_key(const struct cmek_local_key *key)
{
	json_t *json = json_pack("{s:s, s:s, s:o, s:o}", "name", key->name, "state", cmek_kms_state_name(key->state),
				 "created", json_time(key->created), "versions", encode_versions(key));
	int rc = json ? 0 : -1;

	if (rc == 0 && key->state == CMEK_KMS_PENDING_DELETION)
		rc = json_object_set_new(json, "deletion_date", json_time(key->deletion_date));
	if (rc == 0 && key->state == CMEK_KMS_DESTROYED)
		rc = json_object_set_new(json, "destroyed", json_time(key->deletion_date));
	if (rc < 0) {
		json_decref(json);
		return NULL;
	}
	return json;
}

/* Everything but the MAC; NULL when memory is short. */
static json_t *encode_body(const struct cmek_local_store *store)
{
	char uuid[CMEK_UUID_TEXT];
	json_t *protection, *keys = json_array();

	cmek_uuid_encode(store->uuid, uuid);
	for (size_t i = 0; i < store->n_keys; i++) {
		if (json_array_append_new(keys, encode_key(&store->keys[i])) < 0) {
			json_decref(keys);
			return NULL;
		}
	}
	if (store->protection == CMEK_LOCAL_PASSPHRASE)
		protection = json_pack("{s:s, s:s, s:I, s:I, s:I, s:o}", "type", "passphrase", "kdf", "scrypt", "n",
				       (json_int_t)store->scrypt_n, "r", (json_int_t)store->scrypt_r, "p",
				       (json_int_t)store->scrypt_p, "salt", json_b64(store->salt, sizeof(store->salt)));
	else
		protection = json_pack("{s:s}", "type", "key-file");
	return json_pack("{s:s, s:i, s:s, s:o, s:I, s:o, s:o, s:o}", "format", FORMAT, "version", FORMAT_VERSION, "uuid",
			 uuid, "created", json_time(store->created), "sequence", (json_int_t)store->sequence,
			 "protection", protection, "check", json_b64(store->check, sizeof(store->check)), "keys", keys);
}

/*
 * The MAC is over the canonical form: members sorted, no white space, ASCII (doc/kms/local.md). As decoding is strict
 * and loses nothing, encoding the struct again gives what was written: what is authenticated is what is used.
 */
static int mac_of(const json_t *body, const struct cmek_local_keys *keys, uint8_t mac[CMEK_SHA256_LEN],
		  struct cmek_error *err)
{
	char *text = body ? json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENSURE_ASCII) : NULL;
	struct iovec iov;
	int rc;

	if (!text)
		return cmek_error_sys(err, ENOMEM, "authenticating the key store");
	iov = (struct iovec){ text, strlen(text) };
	rc = cmek_hmac(keys->mac, CMEK_KEY_STORE, &iov, 1, mac);
	free(text);
	if (rc < 0)
		return cmek_error_sys(err, -rc, "authenticating the key store");
	return 0;
}

int cmek_local_store_verify(const struct cmek_local_store *store, const struct cmek_local_keys *keys, const char *what,
			    struct cmek_error *err)
{
	json_t *body = encode_body(store);
	uint8_t mac[CMEK_SHA256_LEN];
	int rc = mac_of(body, keys, mac, err);

	json_decref(body);
	if (rc == 0 && !cmek_equal(mac, store->mac, sizeof(mac)))
		rc = cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG, "%s is damaged, or was changed by something other than this program",
				    what);
	return rc;
}

/* Keys depend on what is written: it must read back as what was meant, before it replaces anything. */
static int check_text(const char *text, size_t len, const struct cmek_local_keys *keys, struct cmek_error *err)
{
	struct cmek_local_store again = { 0 };
	int rc;

	rc = cmek_local_store_decode(text, len, "the new key store", &again, err);
	if (rc == 0)
		rc = cmek_local_store_verify(&again, keys, "the new key store", err);
	cmek_local_store_done(&again);
	return rc;
}

int cmek_local_store_encode(const struct cmek_local_store *store, const struct cmek_local_keys *keys, char **ret_text,
			    size_t *ret_len, struct cmek_error *err)
{
	json_t *json = encode_body(store);
	uint8_t mac[CMEK_SHA256_LEN];
	char *text = NULL;
	size_t len;
	int rc;

	rc = mac_of(json, keys, mac, err);
	if (rc < 0)
		goto out;
	if (json_object_set_new(json, "mac", json_b64(mac, sizeof(mac))) == 0)
		text = json_dumps(json, JSON_INDENT(1));
	if (!text) {
		rc = cmek_error_sys(err, ENOMEM, "writing the key store");
		goto out;
	}
	len = strlen(text);
	text[len++] = '\n'; /* in place of the NUL: the length is told */
	if (len > CMEK_LOCAL_FILE_MAX) {
		rc = cmek_error_set(err, CMEK_E_LIMIT, EFBIG, "the key store would grow beyond %u bytes",
				    CMEK_LOCAL_FILE_MAX);
		goto out;
	}
	rc = check_text(text, len, keys, err);
	if (rc < 0)
		goto out;
	*ret_text = text;
	*ret_len = len;
	text = NULL;
out:
	free(text);
	json_decref(json);
	return rc;
}

size_t cmek_local_store_head_len(const char *text)
{
	/* encode_body() puts format, version and uuid first; jansson keeps the order. */
	const char *created = strstr(text, "\"created\"");

	assert(created);
	return (size_t)(created - text);
}

/* Keys */

struct cmek_local_key *cmek_local_store_find(struct cmek_local_store *store, const char *name)
{
	for (size_t i = 0; i < store->n_keys; i++) {
		if (strcmp(store->keys[i].name, name) == 0)
			return &store->keys[i];
	}
	return NULL;
}

int cmek_local_store_add(struct cmek_local_store *store, const char *name, int64_t now,
			 struct cmek_local_key **ret_key, struct cmek_error *err)
{
	struct cmek_local_key *keys = reallocarray(store->keys, store->n_keys + 1, sizeof(*keys));
	size_t at = 0;

	if (!keys)
		return cmek_error_sys(err, ENOMEM, "adding a key");
	store->keys = keys;
	while (at < store->n_keys && strcmp(keys[at].name, name) < 0)
		at++;
	memmove(&keys[at + 1], &keys[at], (store->n_keys - at) * sizeof(*keys));
	store->n_keys++;
	memset(&keys[at], 0, sizeof(*keys));
	memcpy(keys[at].name, name, strlen(name) + 1);
	keys[at].state = CMEK_KMS_ENABLED;
	keys[at].created = now;
	*ret_key = &keys[at];
	return 0;
}

/* AAD of wrapped material: store UUID 16 | length of the name 1 | name | version 4. */
struct material_aad {
	uint8_t head[17];
	uint8_t tail[4];
	struct iovec iov[3];
};

static void fill_material_aad(struct material_aad *aad, const struct cmek_local_store *store,
			      const struct cmek_local_key *key, uint32_t number)
{
	memcpy(aad->head, store->uuid, 16);
	aad->head[16] = (uint8_t)strlen(key->name);
	cmek_store32(aad->tail, number);
	aad->iov[0] = (struct iovec){ aad->head, sizeof(aad->head) };
	aad->iov[1] = (struct iovec){ (void *)key->name, strlen(key->name) };
	aad->iov[2] = (struct iovec){ aad->tail, sizeof(aad->tail) };
}

int cmek_local_key_rotate(const struct cmek_local_store *store, struct cmek_local_key *key,
			  const struct cmek_local_keys *keys, int64_t now, struct cmek_error *err)
{
	struct cmek_local_version *versions, version = { .created = now };
	struct cmek_secret *material = NULL;
	struct material_aad aad;
	uint8_t *nonce = version.wrapped, *text = nonce + CMEK_NONCE_LEN, *tag = text + CMEK_LOCAL_KEY_LEN;
	int rc;

	if (key->n_versions >= UINT32_MAX)
		return cmek_error_set(err, CMEK_E_LIMIT, EOVERFLOW, "a key can't have more versions");
	rc = cmek_secret_new_random(CMEK_KEY_STORE, CMEK_LOCAL_KEY_LEN, &material, err);
	if (rc < 0)
		return rc;
	fill_material_aad(&aad, store, key, (uint32_t)key->n_versions + 1);
	cmek_random(nonce, CMEK_NONCE_LEN);
	rc = cmek_gcm_seal(keys->wrap, CMEK_KEY_STORE, nonce, aad.iov, 3, cmek_secret_bytes(material, CMEK_KEY_STORE),
			   CMEK_LOCAL_KEY_LEN, text, tag);
	cmek_secret_free(material);
	if (rc < 0)
		return cmek_error_sys(err, -rc, "wrapping the key's material");
	versions = reallocarray(key->versions, key->n_versions + 1, sizeof(*versions));
	if (!versions)
		return cmek_error_sys(err, ENOMEM, "adding a version");
	key->versions = versions;
	versions[key->n_versions++] = version;
	return 0;
}

void cmek_local_key_destroy(struct cmek_local_key *key, int64_t date)
{
	key->state = CMEK_KMS_DESTROYED;
	key->deletion_date = date;
	for (size_t i = 0; i < key->n_versions; i++) {
		key->versions[i].destroyed = true;
		cmek_wipe(key->versions[i].wrapped, sizeof(key->versions[i].wrapped));
	}
}

bool cmek_local_key_expired(const struct cmek_local_key *key, int64_t now)
{
	return key->state == CMEK_KMS_PENDING_DELETION && now >= key->deletion_date;
}

int cmek_local_key_material(const struct cmek_local_store *store, const struct cmek_local_key *key, uint32_t n,
			    const struct cmek_local_keys *keys, struct cmek_secret **ret_material,
			    struct cmek_error *err)
{
	const uint8_t *nonce = key->versions[n - 1].wrapped, *text = nonce + CMEK_NONCE_LEN;
	struct cmek_secret *material = NULL;
	struct material_aad aad;
	int rc;

	rc = cmek_secret_new(CMEK_KEY_STORE, CMEK_LOCAL_KEY_LEN, &material, err);
	if (rc < 0)
		return rc;
	fill_material_aad(&aad, store, key, n);
	rc = cmek_gcm_open(keys->wrap, CMEK_KEY_STORE, nonce, aad.iov, 3, text, CMEK_LOCAL_KEY_LEN,
			   cmek_secret_fill(material, CMEK_KEY_STORE), text + CMEK_LOCAL_KEY_LEN);
	if (rc < 0) {
		cmek_secret_free(material);
		if (rc == -EBADMSG)
			return cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG,
					      "the material of version %u of local:%s does not authenticate", n, key->name);
		return cmek_error_sys(err, -rc, "unwrapping the material of local:%s", key->name);
	}
	*ret_material = material;
	return 0;
}
