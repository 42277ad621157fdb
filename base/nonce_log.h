/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_BASE_NONCE_LOG_H
#define CMEK_BASE_NONCE_LOG_H

#include <stddef.h>
#include <stdint.h>

/*
 * The record of a test build (configure --enable-nonce-log): one line "KEY NONCE" for every AES-GCM seal, appended to
 * the file that the environment variable CMEK_NONCE_LOG_FILE names before the sealed bytes leave, so that it holds also
 * what a crash cut off. KEY is the first 32 hex digits of SHA-256 of the key, NONCE its 24 hex digits. Nothing is
 * recorded without the variable; a record that can't be written ends the process, for a gap would prove nothing.
 * Thread-safe. In other builds it is nothing at all.
 */
#ifdef CMEK_NONCE_LOG
void cmek_nonce_log(const uint8_t *key, size_t key_len, const uint8_t *nonce, size_t nonce_len);
#else
static inline void cmek_nonce_log(const uint8_t *key, size_t key_len, const uint8_t *nonce, size_t nonce_len)
{
	(void)key;
	(void)key_len;
	(void)nonce;
	(void)nonce_len;
}
#endif

#endif
