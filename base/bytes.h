/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_BASE_BYTES_H
#define CMEK_BASE_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Little-endian loads and stores of unaligned disk fields. Everything on disk is little-endian. */
static inline uint16_t cmek_load16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t cmek_load32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t cmek_load48(const uint8_t *p)
{
	return (uint64_t)cmek_load32(p) | (uint64_t)cmek_load16(p + 4) << 32;
}

static inline uint64_t cmek_load64(const uint8_t *p)
{
	return (uint64_t)cmek_load32(p) | (uint64_t)cmek_load32(p + 4) << 32;
}

static inline void cmek_store16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static inline void cmek_store32(uint8_t *p, uint32_t v)
{
	cmek_store16(p, (uint16_t)v);
	cmek_store16(p + 2, (uint16_t)(v >> 16));
}

static inline void cmek_store48(uint8_t *p, uint64_t v)
{
	cmek_store32(p, (uint32_t)v);
	cmek_store16(p + 4, (uint16_t)(v >> 32));
}

static inline void cmek_store64(uint8_t *p, uint64_t v)
{
	cmek_store32(p, (uint32_t)v);
	cmek_store32(p + 4, (uint32_t)(v >> 32));
}

/*
 * A bounds-checked reader over bytes that may be hostile. A read past the end sets `bad`, returns zeros and stays bad,
 * so that a decoder checks once, at its end.
 */
struct cmek_reader {
	const uint8_t *p;
	size_t left;
	int bad;
};

static inline struct cmek_reader cmek_reader_over(const void *p, size_t n)
{
	struct cmek_reader r = { p, n, 0 };
	return r;
}

/* Borrowed pointer to the next n bytes, NULL (and bad) if there are fewer. */
static inline const uint8_t *cmek_read_bytes(struct cmek_reader *r, size_t n)
{
	const uint8_t *p = r->p;

	if (r->bad || n > r->left) {
		r->bad = 1;
		return NULL;
	}
	r->p += n;
	r->left -= n;
	return p;
}

static inline uint16_t cmek_read16(struct cmek_reader *r)
{
	const uint8_t *p = cmek_read_bytes(r, 2);
	return p ? cmek_load16(p) : 0;
}

static inline uint32_t cmek_read32(struct cmek_reader *r)
{
	const uint8_t *p = cmek_read_bytes(r, 4);
	return p ? cmek_load32(p) : 0;
}

static inline uint64_t cmek_read64(struct cmek_reader *r)
{
	const uint8_t *p = cmek_read_bytes(r, 8);
	return p ? cmek_load64(p) : 0;
}

/* True when all n bytes are zero. */
static inline int cmek_is_zero(const void *p, size_t n)
{
	const uint8_t *b = p;

	return n == 0 || (b[0] == 0 && memcmp(b, b + 1, n - 1) == 0);
}

#endif
