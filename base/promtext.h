/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_BASE_PROMTEXT_H
#define CMEK_BASE_PROMTEXT_H

#include <stddef.h>
#include <stdio.h>

/*
 * The text form of Prometheus metrics (exposition format 0.0.4): a family's HELP and TYPE come once, before all its
 * samples. One thread for each FILE or struct.
 */

/* The two lines that a family begins with. */
void cmek_promtext_head(FILE *out, const char *name, const char *type, const char *help);
/* name="value", escaped. value: UTF-8. */
void cmek_promtext_label(FILE *out, const char *name, const char *value);

/* Texts of several programs as one: each family once, in the order in which they were first seen, and its samples together. */
struct cmek_promtext;

/* NULL: no memory. */
struct cmek_promtext *cmek_promtext_new(void);
void cmek_promtext_free(struct cmek_promtext *merged); /* NULL allowed */
/*
 * Adds the families of text, which is borrowed until the free. Of different HELP or TYPE lines the first ones stay. -EINVAL:
 * it is not a text as cmek_promtext_head() begins families, and nothing was added; -ENOMEM: some may have been.
 */
int cmek_promtext_add(struct cmek_promtext *merged, const char *text);
void cmek_promtext_write(const struct cmek_promtext *merged, FILE *out);

#endif
