/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The steps of a signature, as pieces that are hashed in order: nothing secret is ever joined to a text. It must not know
 * what a request is for, nor where keys come from.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/crypto.h"
#include "base/text.h"
#include "kms/aws_sigv4.h"

#define HEADERS_MAX 16
#define ALGORITHM "AWS4-HMAC-SHA256"
#define DAY_LEN 8

void cmek_sigv4_date(int64_t unix_seconds, char out[CMEK_SIGV4_DATE_LEN])
{
	time_t t = (time_t)unix_seconds;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || strftime(out, CMEK_SIGV4_DATE_LEN, "%Y%m%dT%H%M%SZ", &tm) == 0)
		memcpy(out, "19700101T000000Z", CMEK_SIGV4_DATE_LEN); /* beyond any calendar; no service takes it */
}

/* Texts to be hashed one behind the other. */
struct pieces {
	struct iovec iov[12 + 5 * HEADERS_MAX];
	int n;
};

static void add(struct pieces *p, const char *text)
{
	p->iov[p->n++] = (struct iovec){ (void *)text, strlen(text) };
}

static void add_names(struct pieces *p, const struct cmek_sigv4_request *req)
{
	for (size_t i = 0; i < req->n_headers; i++) {
		if (i > 0)
			add(p, ";");
		add(p, req->headers[i].name);
	}
}

/* Step 1 and 2: the canonical request, hashed. */
static int canonical_hash(const struct cmek_sigv4_request *req, char out[2 * CMEK_SHA256_LEN + 1])
{
	const struct iovec body = { (void *)req->body, req->body_len };
	char body_hash[2 * CMEK_SHA256_LEN + 1];
	uint8_t digest[CMEK_SHA256_LEN];
	struct pieces p = { .n = 0 };
	int rc = cmek_sha256(&body, 1, digest);

	if (rc < 0)
		return rc;
	cmek_hex_encode(digest, sizeof(digest), body_hash);
	add(&p, req->method);
	add(&p, "\n");
	add(&p, req->path);
	add(&p, "\n");
	add(&p, req->query);
	add(&p, "\n");
	for (size_t i = 0; i < req->n_headers; i++) {
		add(&p, req->headers[i].name);
		add(&p, ":");
		add(&p, req->headers[i].value);
		add(&p, "\n");
	}
	add(&p, "\n");
	add_names(&p, req);
	add(&p, "\n");
	add(&p, body_hash);
	rc = cmek_sha256(p.iov, p.n, digest);
	if (rc == 0)
		cmek_hex_encode(digest, sizeof(digest), out);
	return rc;
}

/* HMAC of a text under *key, which becomes the result. */
static int next_key(struct cmek_secret **key, const char *text, size_t len, struct cmek_error *err)
{
	const struct iovec in = { (void *)text, len };
	struct cmek_secret *next = NULL;
	int rc = cmek_secret_new(CMEK_KEY_TEXT, CMEK_SHA256_LEN, &next, err);

	if (rc == 0)
		rc = cmek_hmac(*key, CMEK_KEY_TEXT, &in, 1, cmek_secret_fill(next, CMEK_KEY_TEXT));
	if (rc < 0) {
		cmek_secret_free(next);
		return rc;
	}
	cmek_secret_free(*key);
	*key = next;
	return 0;
}

/* Step 4: the signing key of a day, a Region and a service. */
static int signing_key(const struct cmek_sigv4_request *req, struct cmek_secret **ret_key, struct cmek_error *err)
{
	size_t len = cmek_secret_len(req->secret_key);
	struct cmek_secret *key = NULL;
	int rc = cmek_secret_new(CMEK_KEY_TEXT, 4 + len, &key, err);

	if (rc < 0)
		return rc;
	memcpy(cmek_secret_fill(key, CMEK_KEY_TEXT), "AWS4", 4);
	memcpy(cmek_secret_fill(key, CMEK_KEY_TEXT) + 4, cmek_secret_bytes(req->secret_key, CMEK_KEY_TEXT), len);
	rc = next_key(&key, req->date, DAY_LEN, err);
	if (rc == 0)
		rc = next_key(&key, req->region, strlen(req->region), err);
	if (rc == 0)
		rc = next_key(&key, req->service, strlen(req->service), err);
	if (rc == 0)
		rc = next_key(&key, "aws4_request", strlen("aws4_request"), err);
	if (rc < 0)
		cmek_secret_free(key);
	else
		*ret_key = key;
	return rc;
}

int cmek_sigv4_authorization(const struct cmek_sigv4_request *req, char *out, size_t max, struct cmek_error *err)
{
	char scope[160], request_hash[2 * CMEK_SHA256_LEN + 1], signature[2 * CMEK_SHA256_LEN + 1], names[256] = "";
	uint8_t mac[CMEK_SHA256_LEN];
	struct pieces p = { .n = 0 };
	struct cmek_secret *key = NULL;
	size_t used = 0;
	int rc, n;

	if (req->n_headers > HEADERS_MAX || strlen(req->date) != CMEK_SIGV4_DATE_LEN - 1)
		return cmek_error_sys(err, EINVAL, "signing a request");
	n = snprintf(scope, sizeof(scope), "%.8s/%s/%s/aws4_request", req->date, req->region, req->service);
	for (size_t i = 0; i < req->n_headers && used < sizeof(names); i++)
		used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", i ? ";" : "", req->headers[i].name);
	if ((size_t)n >= sizeof(scope) || used >= sizeof(names))
		return cmek_error_sys(err, ENOSPC, "signing a request");
	rc = canonical_hash(req, request_hash);
	if (rc == 0)
		rc = signing_key(req, &key, err);
	if (rc == 0) {
		add(&p, ALGORITHM "\n");
		add(&p, req->date);
		add(&p, "\n");
		add(&p, scope);
		add(&p, "\n");
		add(&p, request_hash);
		rc = cmek_hmac(key, CMEK_KEY_TEXT, p.iov, p.n, mac);
	}
	cmek_secret_free(key);
	if (rc < 0)
		return cmek_error_is_set(err) ? rc : cmek_error_sys(err, -rc, "signing a request");
	cmek_hex_encode(mac, sizeof(mac), signature);
	n = snprintf(out, max, ALGORITHM " Credential=%s/%s, SignedHeaders=%s, Signature=%s", req->access_key, scope, names,
		     signature);
	return (size_t)n < max ? 0 : cmek_error_sys(err, ENOSPC, "signing a request");
}
