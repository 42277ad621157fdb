/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Writes and signs certificates. Does not know what one certifies.
 */
#include "config.h"

#include "tools/ctl_certificate.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/io.h"
#include "base/text.h"
#include "fs/volume/slot.h"

#define KEY_FILE_MAX 16384

static int sign(const char *key_file, const void *data, size_t len, json_t **ret_signature, struct cmek_error *err)
{
	char value[CMEK_B64_LEN(CMEK_ED25519_SIG_LEN) + 1], public[CMEK_B64_LEN(CMEK_ED25519_PUBLIC_LEN) + 1];
	uint8_t sig[CMEK_ED25519_SIG_LEN], public_bytes[CMEK_ED25519_PUBLIC_LEN], *pem_bytes = NULL;
	struct cmek_secret *pem = NULL;
	size_t pem_len = 0;
	int ret;

	ret = cmek_read_file(AT_FDCWD, key_file, KEY_FILE_MAX, &pem_bytes, &pem_len, err);
	if (!ret && !pem_len)
		ret = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "it is empty");
	if (!ret)
		ret = cmek_secret_new_copy(CMEK_KEY_TEXT, pem_bytes, pem_len, &pem, err);
	if (!ret)
		ret = cmek_ed25519_sign(pem, data, len, sig, public_bytes, err);
	if (ret)
		cmek_error_prefix(err, "%s", key_file);
	cmek_wipe(pem_bytes, pem_bytes ? pem_len : 0);
	free(pem_bytes);
	cmek_secret_free(pem);
	if (ret)
		return ret;
	cmek_b64_encode(sig, sizeof(sig), value);
	cmek_b64_encode(public_bytes, sizeof(public_bytes), public);
	*ret_signature = json_pack("{s:s, s:s, s:s}", "algorithm", "Ed25519", "public_key", public, "value", value);
	return *ret_signature ? 0 : cmek_error_sys(err, ENOMEM, "the certificate's signature");
}

/* The file's directory, opened, and its name in there. */
static int open_dir(const char *file, int *ret_fd, const char **ret_name, struct cmek_error *err)
{
	const char *slash = strrchr(file, '/');
	char *dir = slash ? strndup(file, (size_t)(slash - file) + 1) : strdup(".");

	if (!dir)
		return cmek_error_sys(err, ENOMEM, "%s", file);
	*ret_name = slash ? slash + 1 : file;
	*ret_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(dir);
	return *ret_fd < 0 ? cmek_error_sys(err, errno, "the directory of %s", file) : 0;
}

int cmek_ctl_certificate_check(const char *file, const char *sign_key, struct cmek_error *err)
{
	json_t *signature = NULL;
	const char *name;
	struct stat st;
	int fd, ret = open_dir(file, &fd, &name, err);

	if (ret)
		return ret;
	if (!fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW))
		ret = cmek_error_set(err, CMEK_E_EXISTS, EEXIST, "%s exists already", file);
	else if (faccessat(fd, ".", W_OK, AT_EACCESS))
		ret = cmek_error_sys(err, errno, "the directory of %s", file);
	else if (sign_key)
		ret = sign(sign_key, "", 0, &signature, err);
	json_decref(signature);
	close(fd);
	return ret;
}

int cmek_ctl_certificate_write(json_t **json, const char *file, const char *sign_key, struct cmek_error *err)
{
	char *signed_text = cmek_slot_dump_json(*json, JSON_COMPACT | JSON_SORT_KEYS), *text = NULL;
	json_t *signature = NULL, *whole;
	const char *name = NULL;
	int fd = -1, ret = 0;
	size_t len;

	if (!signed_text)
		return cmek_error_sys(err, ENOMEM, "the certificate");
	if (sign_key)
		ret = sign(sign_key, signed_text, strlen(signed_text), &signature, err);
	if (ret)
		goto out;
	whole = json_pack("{s:O, s:o}", "certificate", *json, "signature", signature ? signature : json_null());
	text = whole ? cmek_slot_dump_json(whole, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
	if (!text) {
		json_decref(whole);
		ret = cmek_error_sys(err, ENOMEM, "the certificate");
		goto out;
	}
	json_decref(*json);
	*json = whole;
	len = strlen(text);
	text[len] = '\n'; /* in the place of the NUL */
	ret = open_dir(file, &fd, &name, err);
	if (!ret)
		ret = cmek_replace_file(fd, name, text, len + 1, 0644, err);
	if (ret)
		cmek_error_prefix(err, "what was to be destroyed is, but its certificate was not written: %s", file);
out:
	if (fd >= 0)
		close(fd);
	free(text);
	free(signed_text);
	return ret;
}
