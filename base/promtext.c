/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Lines of Prometheus text, and several texts made one. It must not know what is measured, nor what a sample says: of a line
 * it looks at no more than whose it is.
 */
#include "config.h"

#include "base/promtext.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of a text that somebody else owns. */
struct span {
	const char *at;
	size_t len;
};

struct family {
	struct span name;
	struct span head;     /* HELP and TYPE */
	struct span *samples; /* of each text that has the family */
	size_t n_samples;
};

struct cmek_promtext {
	struct family *families;
	size_t n;
};

void cmek_promtext_head(FILE *out, const char *name, const char *type, const char *help)
{
	(void)fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void cmek_promtext_label(FILE *out, const char *name, const char *value)
{
	const char *c;

	(void)fprintf(out, "%s=\"", name);
	for (c = value; *c; c++) {
		if (*c == '\n')
			(void)fputs("\\n", out);
		else if (*c == '\\' || *c == '"')
			(void)fprintf(out, "\\%c", *c);
		else
			(void)fputc(*c, out);
	}
	(void)fputc('"', out);
}

struct cmek_promtext *cmek_promtext_new(void)
{
	return calloc(1, sizeof(struct cmek_promtext));
}

void cmek_promtext_free(struct cmek_promtext *merged)
{
	size_t i;

	if (!merged)
		return;
	for (i = 0; i < merged->n; i++)
		free(merged->families[i].samples);
	free(merged->families);
	free(merged);
}

static bool begins_with(const char *text, const char *word)
{
	return strncmp(text, word, strlen(word)) == 0;
}

/* Behind the end of the line; NULL: it has none. */
static const char *behind_line(const char *text)
{
	const char *end = strchr(text, '\n');

	return end ? end + 1 : NULL;
}

/* "# HELP name ", "# TYPE name ": the name. */
static bool take_name(const char *line, const char *keyword, struct span *ret_name)
{
	size_t skip = strlen(keyword);

	if (!begins_with(line, keyword))
		return false;
	ret_name->at = line + skip;
	ret_name->len = strcspn(line + skip, " {\n");
	return ret_name->len > 0 && ret_name->at[ret_name->len] == ' ';
}

static bool same(const struct span *a, const struct span *b)
{
	return a->len == b->len && memcmp(a->at, b->at, a->len) == 0;
}

/* The family that text begins with, its one span of samples in *ret_samples; behind it, or NULL: it is none. */
static const char *take_family(const char *text, struct family *ret_family, struct span *ret_samples)
{
	struct family family = { .head = { text, 0 } };
	struct span of_type;
	const char *type = take_name(text, "# HELP ", &family.name) ? behind_line(text) : NULL;
	const char *samples, *line;

	if (!type || !take_name(type, "# TYPE ", &of_type) || !same(&family.name, &of_type))
		return NULL;
	line = samples = behind_line(type);
	while (line && *line && *line != '#')
		line = strncmp(line, family.name.at, family.name.len) == 0 ? behind_line(line) : NULL;
	if (!line)
		return NULL;
	family.head.len = (size_t)(samples - text);
	*ret_samples = (struct span){ samples, (size_t)(line - samples) };
	*ret_family = family;
	return line;
}

static bool is_text(const char *text)
{
	struct family family;
	struct span samples;

	while (text && *text)
		text = take_family(text, &family, &samples);
	return text != NULL;
}

/* The family of this name; NULL: no memory. */
static struct family *find(struct cmek_promtext *merged, const struct family *like)
{
	struct family *grown;
	size_t i;

	for (i = 0; i < merged->n; i++) {
		if (same(&merged->families[i].name, &like->name))
			return merged->families + i;
	}
	grown = reallocarray(merged->families, merged->n + 1, sizeof(*grown));
	if (!grown)
		return NULL;
	merged->families = grown;
	grown[merged->n] = *like;
	return grown + merged->n++;
}

int cmek_promtext_add(struct cmek_promtext *merged, const char *text)
{
	struct family like, *family;
	struct span samples, *grown;

	if (!is_text(text))
		return -EINVAL;
	while (*text) {
		text = take_family(text, &like, &samples);
		family = find(merged, &like);
		grown = family ? reallocarray(family->samples, family->n_samples + 1, sizeof(*grown)) : NULL;
		if (!grown)
			return -ENOMEM;
		family->samples = grown;
		grown[family->n_samples++] = samples;
	}
	return 0;
}

void cmek_promtext_write(const struct cmek_promtext *merged, FILE *out)
{
	const struct family *family;
	size_t i, k;

	for (i = 0; i < merged->n; i++) {
		family = merged->families + i;
		(void)fwrite(family->head.at, 1, family->head.len, out);
		for (k = 0; k < family->n_samples; k++)
			(void)fwrite(family->samples[k].at, 1, family->samples[k].len, out);
	}
}
