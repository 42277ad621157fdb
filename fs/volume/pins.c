/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Pins as values: which keys belong to a volume, from the registry's JSON and to it, and whether a slot is one of them.
 * Does no I/O, and does not know where they are kept.
 */
#include "config.h"

#include "fs/volume/pins.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const principal_names[] = { "role", "external_id", "service_account", "profile" };
#define N_PRINCIPAL 4

struct cmek_pins {
	json_t *slots; /* array of objects, checked */
	char *text;
};

/* In the order of principal_names. */
static void principal_texts(const struct cmek_slot *slot, const char *texts[N_PRINCIPAL])
{
	texts[0] = slot->role;
	texts[1] = slot->external_id;
	texts[2] = slot->service_account;
	texts[3] = slot->profile;
}

json_t *cmek_pin_of(const struct cmek_slot *slot)
{
	const char *texts[N_PRINCIPAL];
	json_t *principal = json_object(), *pin;
	size_t i;

	principal_texts(slot, texts);
	for (i = 0; i < N_PRINCIPAL; i++) {
		if (texts[i] && json_object_set_new(principal, principal_names[i], json_string(texts[i]))) {
			json_decref(principal);
			return NULL;
		}
	}
	pin = json_object();
	if (json_object_set_new(pin, "provider", json_string(slot->provider)) ||
	    json_object_set_new(pin, "resolved", json_string(slot->resolved)) ||
	    json_object_set(pin, "principal", principal)) {
		json_decref(pin);
		pin = NULL;
	}
	json_decref(principal);
	return pin;
}

/* Checks one pin and adds its key to the text for people. */
static int read_pin(const struct cmek_json_at *slots, size_t i, char **text, struct cmek_error *err)
{
	const char *provider, *resolved, *value;
	struct cmek_json_at pin, principal;
	char *longer = NULL;
	size_t k;
	int ret = cmek_json_element(slots, i, &pin, err);

	if (!ret)
		ret = cmek_json_string(&pin, "provider", &provider, err);
	if (!ret)
		ret = cmek_json_string(&pin, "resolved", &resolved, err);
	if (!ret)
		ret = cmek_json_object(&pin, "principal", &principal, err);
	for (k = 0; !ret && k < N_PRINCIPAL; k++)
		if (cmek_json_has(&principal, principal_names[k]))
			ret = cmek_json_string(&principal, principal_names[k], &value, err);
	if (ret)
		return ret;
	if (asprintf(&longer, "%s%s%s", *text ? *text : "", *text ? ", " : "", resolved) < 0)
		return cmek_error_sys(err, ENOMEM, "the pins of a volume");
	free(*text);
	*text = longer;
	return 0;
}

int cmek_pins_read(const struct cmek_json_at *entry, struct cmek_pins **ret_pins, struct cmek_error *err)
{
	struct cmek_pins *pins = calloc(1, sizeof(*pins));
	struct cmek_json_at slots;
	size_t i, n = 0;
	int ret;

	if (!pins)
		return cmek_error_sys(err, ENOMEM, "the pins of a volume");
	ret = cmek_json_array(entry, "slots", &slots, &n, err);
	/* An entry without a key would refuse all of them, or none: neither was meant. */
	if (!ret && n == 0)
		ret = cmek_json_bad(entry, "slots", "is empty", err);
	for (i = 0; !ret && i < n; i++)
		ret = read_pin(&slots, i, &pins->text, err);
	if (ret) {
		cmek_pins_free(pins);
		return ret;
	}
	pins->slots = json_incref((json_t *)slots.value);
	*ret_pins = pins;
	return 0;
}

void cmek_pins_free(struct cmek_pins *pins)
{
	if (!pins)
		return;
	json_decref(pins->slots);
	free(pins->text);
	free(pins);
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : !a && !b;
}

bool cmek_pins_match(const struct cmek_pins *pins, const struct cmek_slot *slot)
{
	const char *texts[N_PRINCIPAL];
	json_t *pin, *principal;
	size_t i, k;

	principal_texts(slot, texts);
	json_array_foreach(pins->slots, i, pin) {
		if (!same_text(json_string_value(json_object_get(pin, "provider")), slot->provider) ||
		    !same_text(json_string_value(json_object_get(pin, "resolved")), slot->resolved))
			continue;
		principal = json_object_get(pin, "principal");
		for (k = 0; k < N_PRINCIPAL; k++)
			if (!same_text(json_string_value(json_object_get(principal, principal_names[k])), texts[k]))
				break;
		if (k == N_PRINCIPAL)
			return true;
	}
	return false;
}

bool cmek_pins_have_key(const struct cmek_pins *pins, const char *key)
{
	json_t *pin;
	size_t i;

	json_array_foreach(pins->slots, i, pin)
		if (cmek_slot_key_is(json_string_value(json_object_get(pin, "resolved")), key))
			return true;
	return false;
}

const char *cmek_pins_text(const struct cmek_pins *pins)
{
	return pins->text;
}
