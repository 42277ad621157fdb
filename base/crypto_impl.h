/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_BASE_CRYPTO_IMPL_H
#define CMEK_BASE_CRYPTO_IMPL_H

#include "base/err.h"

/* What the files share that include OpenSSL: crypto.c and crypto_pkey.c. */

/*
 * -EIO, with OpenSSL's reason in err or, on the data path, in the debug log. The first error of the queue is the cause,
 * so cold paths empty it before they begin; here it is emptied behind them.
 */
int cmek_openssl_failed(struct cmek_error *err, const char *what);

#endif
