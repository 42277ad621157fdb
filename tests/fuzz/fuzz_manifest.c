/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A manifest of cmekctl slot apply. Whatever is taken can become a slot of a header that is read again. */
#include "config.h"

#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tools/ctl_manifest.h"

static void check_text(const char *text)
{
	FUZZ_CHECK(text == NULL || cmek_slot_text_ok(text, CMEK_SLOT_TEXT_MAX, 0));
}

static void check_key(const struct cmek_manifest_key *key)
{
	const struct cmek_kms_principal *p = &key->principal;

	FUZZ_CHECK(key->provider != NULL && key->uri != NULL);
	check_text(key->uri);
	FUZZ_CHECK(key->region == NULL || cmek_slot_text_ok(key->region, CMEK_SLOT_TEXT_MAX, 1));
	check_text(p->role);
	check_text(p->external_id);
	check_text(p->service_account);
	check_text(p->profile);
	FUZZ_CHECK(p->external_id == NULL || p->role != NULL);
	FUZZ_CHECK(strcmp(key->provider, "local") != 0 || (!p->role && !p->service_account && !p->profile));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_manifest manifest;
	size_t i, k;
	int r = cmek_manifest_parse(data, size, "the input", &manifest, &err);

	FUZZ_CHECK((r == 0) == !cmek_error_is_set(&err));
	if (r == 0) {
		FUZZ_CHECK(manifest.n_keys <= CMEK_SLOTS_MAX && (manifest.n_keys > 0 || manifest.revoke));
		for (i = 0; i < manifest.n_keys; i++) {
			check_key(&manifest.keys[i]);
			for (k = 0; k < i; k++)
				FUZZ_CHECK(strcmp(manifest.keys[k].uri, manifest.keys[i].uri) != 0);
		}
	}
	cmek_manifest_done(&manifest);
	return 0;
}
