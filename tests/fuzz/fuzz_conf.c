/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The configuration file. What is taken has its keys in the form that its readers count on; what is refused is told of. The
 * watch reads its own: the policy that it makes of them comes out again when it is told its own words.
 */
#include "config.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/conf.h"
#include "base/io.h"
#include "fs/mount/watch.h"
#include "tests/fuzz/fuzz.h"

/* Whatever is set can be read. */
static void check_section(const struct cmek_conf *conf, const char *section, const char *name)
{
	static const char *const durations[] = { "connect_timeout", "deadline" };
	static const char *const paths[] = { "ca_file", "config_file", "credentials_file", "store", "api_key_file" };
	uint64_t n = 0;
	bool b = false;
	const char *text;
	size_t i;

	for (i = 0; i < sizeof(durations) / sizeof(durations[0]); i++)
		if (cmek_conf_text(conf, section, name, durations[i]))
			FUZZ_CHECK(cmek_conf_duration(conf, section, name, durations[i], &n) && n >= 1 && n <= 3600);
	for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		text = cmek_conf_text(conf, section, name, paths[i]);
		FUZZ_CHECK(text == NULL || text[0] == '/');
	}
	if (cmek_conf_text(conf, section, name, "attempts"))
		FUZZ_CHECK(cmek_conf_number(conf, section, name, "attempts", &n) && n >= 1 && n <= 20);
	if (cmek_conf_text(conf, section, name, "fips"))
		FUZZ_CHECK(cmek_conf_bool(conf, section, name, "fips", &b));
}

static void check_watch(const struct cmek_conf *conf)
{
	struct cmek_watch_policy policy, again;
	const char *key, *text;
	json_t *words, *value, *words_again;

	cmek_watch_policy_init(&policy);
	cmek_watch_policy_init(&again);
	words = cmek_watch_policy_json(&policy);
	FUZZ_CHECK(words != NULL);
	json_object_foreach(words, key, value) {
		struct cmek_error err = CMEK_ERROR_INIT;

		text = cmek_conf_text(conf, "watch", NULL, key);
		if (text)
			FUZZ_CHECK((cmek_watch_policy_set(&policy, key, text, &err) == 0) == !cmek_error_is_set(&err));
	}
	json_decref(words);
	words = cmek_watch_policy_json(&policy);
	FUZZ_CHECK(words != NULL);
	json_object_foreach(words, key, value)
		FUZZ_CHECK(cmek_watch_policy_set(&again, key, json_string_value(value), NULL) == 0);
	words_again = cmek_watch_policy_json(&again);
	FUZZ_CHECK(json_equal(words, words_again));
	json_decref(words_again);
	json_decref(words);
}

static void check_conf(const struct cmek_conf *conf)
{
	static const char *const sections[] = { "kms", "aws", "gcp", "ibm", "volume", "watch" };
	const char *name;
	size_t i, k;

	for (i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
		check_section(conf, sections[i], NULL);
		for (k = 0; (name = cmek_conf_name(conf, sections[i], k)) != NULL; k++) {
			FUZZ_CHECK(name[0] != '\0' && strlen(name) <= 64);
			check_section(conf, sections[i], name);
		}
	}
	check_watch(conf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("conf", MFD_CLOEXEC), rc;
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_conf *conf = NULL;
	char path[64];

	FUZZ_CHECK(fd >= 0 && fchmod(fd, 0600) == 0 && cmek_pwrite_full(fd, data, size, 0) == 0);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	rc = cmek_conf_load(path, &conf, &err);
	FUZZ_CHECK((rc == 0) == (conf != NULL) && (rc == 0) == !cmek_error_is_set(&err));
	if (rc == 0)
		check_conf(conf);
	cmek_conf_free(conf);
	(void)close(fd);
	return 0;
}
