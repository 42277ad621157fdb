/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_CRC32C_H
#define CMEK_KMS_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/*
 * CRC-32C (Castagnoli, RFC 3720 appendix B.4) of short texts: what Google Cloud KMS checks each field of a request and
 * of a reply with. Thread-safe. Looks up no table by secret bytes.
 */
uint32_t cmek_crc32c(const void *data, size_t len);

#endif
