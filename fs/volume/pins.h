/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_VOLUME_PINS_H
#define CMEK_VOLUME_PINS_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "fs/volume/slot.h"
#include "kms/json.h"

/* The keys that belong to a volume, as the registry has them. Immutable once read, so that threads may share them. */
struct cmek_pins;

/* From a volume's entry in the registry: its member "slots", every pin checked. Kind bad-format. */
int cmek_pins_read(const struct cmek_json_at *entry, struct cmek_pins **ret_pins, struct cmek_error *err);
void cmek_pins_free(struct cmek_pins *pins); /* NULL allowed */
/* The pin of a slot's key as the registry has it, a new object; NULL when there is no memory. */
json_t *cmek_pin_of(const struct cmek_slot *slot);

/* True when provider, resolved key and principal of the slot are those of a pin. */
bool cmek_pins_match(const struct cmek_pins *pins, const struct cmek_slot *slot);
/* True when a pin is for this key, whoever asks for it. key: its full form, with or without the provider's scheme. */
bool cmek_pins_have_key(const struct cmek_pins *pins, const char *key);
/* The pinned keys in full, ", " between them; borrowed. */
const char *cmek_pins_text(const struct cmek_pins *pins);

#endif
