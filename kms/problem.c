/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The table of error codes. It knows neither requests nor providers' code, only what their services answer.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "kms/problem.h"

enum advice { FINAL, RETRY, RENEW };

/*
 * The first row that fits is taken: service, then code (NULL = any), then status (0 = any). AWS answers most with 400,
 * so there the code decides; Google Cloud and IBM send both.
 */
static const struct row {
	enum cmek_kms_service service; /* NONE = any */
	const char *code;
	long status;
	enum cmek_kind kind;
	int err;
	enum advice advice;
} rows[] = {
	/* AWS KMS and STS */
	{ CMEK_KMS_SERVICE_AWS, "ThrottlingException", 0, CMEK_E_THROTTLED, EAGAIN, RETRY },
	{ CMEK_KMS_SERVICE_AWS, "Throttling", 0, CMEK_E_THROTTLED, EAGAIN, RETRY },
	{ CMEK_KMS_SERVICE_AWS, "RequestLimitExceeded", 0, CMEK_E_THROTTLED, EAGAIN, RETRY },
	{ CMEK_KMS_SERVICE_AWS, "TooManyRequestsException", 0, CMEK_E_THROTTLED, EAGAIN, RETRY },
	{ CMEK_KMS_SERVICE_AWS, "LimitExceededException", 0, CMEK_E_LIMIT, EDQUOT, FINAL },
	{ CMEK_KMS_SERVICE_AWS, "KMSInternalException", 0, CMEK_E_UNREACHABLE, ETIMEDOUT, RETRY },
	{ CMEK_KMS_SERVICE_AWS, "KeyUnavailableException", 0, CMEK_E_UNREACHABLE, ETIMEDOUT, RETRY },
	{ CMEK_KMS_SERVICE_AWS, "DependencyTimeoutException", 0, CMEK_E_UNREACHABLE, ETIMEDOUT, RETRY },
	{ CMEK_KMS_SERVICE_AWS, "RequestTimeout", 0, CMEK_E_UNREACHABLE, ETIMEDOUT, RETRY },
	{ CMEK_KMS_SERVICE_AWS, "RequestTimeoutException", 0, CMEK_E_UNREACHABLE, ETIMEDOUT, RETRY },
	{ CMEK_KMS_SERVICE_AWS, "ServiceUnavailable", 0, CMEK_E_UNREACHABLE, ETIMEDOUT, RETRY },
	{ CMEK_KMS_SERVICE_AWS, "InternalFailure", 0, CMEK_E_UNREACHABLE, ETIMEDOUT, RETRY },
	{ CMEK_KMS_SERVICE_AWS, "IDPCommunicationError", 0, CMEK_E_UNREACHABLE, ETIMEDOUT, RETRY },
	{ CMEK_KMS_SERVICE_AWS, "DisabledException", 0, CMEK_E_KEY_DISABLED, EKEYREVOKED, FINAL },
	/* Disabled for what was asked, but why (deletion, import, a replica) only DescribeKey tells. */
	{ CMEK_KMS_SERVICE_AWS, "KMSInvalidStateException", 0, CMEK_E_KEY_DISABLED, EKEYREVOKED, FINAL },
	{ CMEK_KMS_SERVICE_AWS, "NotFoundException", 0, CMEK_E_NOT_FOUND, ENOKEY, FINAL },
	{ CMEK_KMS_SERVICE_AWS, "AlreadyExistsException", 0, CMEK_E_EXISTS, EEXIST, FINAL },
	{ CMEK_KMS_SERVICE_AWS, "AccessDeniedException", 0, CMEK_E_DENIED, EACCES, FINAL },
	{ CMEK_KMS_SERVICE_AWS, "AccessDenied", 0, CMEK_E_DENIED, EACCES, FINAL },
	{ CMEK_KMS_SERVICE_AWS, "ExpiredTokenException", 0, CMEK_E_EXPIRED, EKEYEXPIRED, RENEW },
	{ CMEK_KMS_SERVICE_AWS, "ExpiredToken", 0, CMEK_E_EXPIRED, EKEYEXPIRED, RENEW },
	{ CMEK_KMS_SERVICE_AWS, "UnrecognizedClientException", 0, CMEK_E_EXPIRED, EKEYEXPIRED, RENEW },
	{ CMEK_KMS_SERVICE_AWS, "InvalidClientTokenId", 0, CMEK_E_EXPIRED, EKEYEXPIRED, RENEW },
	{ CMEK_KMS_SERVICE_AWS, "InvalidSignatureException", 0, CMEK_E_EXPIRED, EKEYEXPIRED, RENEW },
	{ CMEK_KMS_SERVICE_AWS, "SignatureDoesNotMatch", 0, CMEK_E_EXPIRED, EKEYEXPIRED, RENEW },
	{ CMEK_KMS_SERVICE_AWS, "RequestExpired", 0, CMEK_E_EXPIRED, EKEYEXPIRED, RENEW },
	{ CMEK_KMS_SERVICE_AWS, "IncompleteSignatureException", 0, CMEK_E_EXPIRED, EKEYEXPIRED, FINAL },
	{ CMEK_KMS_SERVICE_AWS, "MissingAuthenticationTokenException", 0, CMEK_E_EXPIRED, EKEYEXPIRED, FINAL },
	{ CMEK_KMS_SERVICE_AWS, "InvalidIdentityToken", 0, CMEK_E_EXPIRED, EKEYEXPIRED, FINAL },
	{ CMEK_KMS_SERVICE_AWS, "IDPRejectedClaim", 0, CMEK_E_DENIED, EACCES, FINAL },
	{ CMEK_KMS_SERVICE_AWS, "RegionDisabledException", 0, CMEK_E_DENIED, EACCES, FINAL },
	{ CMEK_KMS_SERVICE_AWS, "InvalidCiphertextException", 0, CMEK_E_TAMPERED, EBADMSG, FINAL },
	{ CMEK_KMS_SERVICE_AWS, "IncorrectKeyException", 0, CMEK_E_TAMPERED, EBADMSG, FINAL },
	{ CMEK_KMS_SERVICE_AWS, "InvalidKeyUsageException", 0, CMEK_E_UNSUPPORTED, EPROTONOSUPPORT, FINAL },
	{ CMEK_KMS_SERVICE_AWS, "UnsupportedOperationException", 0, CMEK_E_UNSUPPORTED, EPROTONOSUPPORT, FINAL },
	{ CMEK_KMS_SERVICE_AWS, "InvalidArnException", 0, CMEK_E_USAGE, EINVAL, FINAL },
	{ CMEK_KMS_SERVICE_AWS, "ValidationException", 0, CMEK_E_USAGE, EINVAL, FINAL },
	{ CMEK_KMS_SERVICE_AWS, "ValidationError", 0, CMEK_E_USAGE, EINVAL, FINAL },

	/* Google Cloud: the canonical status names, and what its token endpoints say (RFC 6749 s5.2) */
	{ CMEK_KMS_SERVICE_GCP, "RESOURCE_EXHAUSTED", 0, CMEK_E_THROTTLED, EAGAIN, RETRY },
	{ CMEK_KMS_SERVICE_GCP, "INTERNAL", 0, CMEK_E_UNREACHABLE, ETIMEDOUT, RETRY },
	{ CMEK_KMS_SERVICE_GCP, "UNAVAILABLE", 0, CMEK_E_UNREACHABLE, ETIMEDOUT, RETRY },
	{ CMEK_KMS_SERVICE_GCP, "DEADLINE_EXCEEDED", 0, CMEK_E_UNREACHABLE, ETIMEDOUT, RETRY },
	{ CMEK_KMS_SERVICE_GCP, "ABORTED", 0, CMEK_E_BUSY, EBUSY, RETRY },
	/* Why a version can't be used (disabled, to be destroyed) only its state tells. */
	{ CMEK_KMS_SERVICE_GCP, "FAILED_PRECONDITION", 0, CMEK_E_KEY_DISABLED, EKEYREVOKED, FINAL },
	{ CMEK_KMS_SERVICE_GCP, "NOT_FOUND", 0, CMEK_E_NOT_FOUND, ENOKEY, FINAL },
	{ CMEK_KMS_SERVICE_GCP, "ALREADY_EXISTS", 0, CMEK_E_EXISTS, EEXIST, FINAL },
	{ CMEK_KMS_SERVICE_GCP, "PERMISSION_DENIED", 0, CMEK_E_DENIED, EACCES, FINAL },
	{ CMEK_KMS_SERVICE_GCP, "UNAUTHENTICATED", 0, CMEK_E_EXPIRED, EKEYEXPIRED, RENEW },
	{ CMEK_KMS_SERVICE_GCP, "invalid_grant", 0, CMEK_E_EXPIRED, EKEYEXPIRED, FINAL },
	{ CMEK_KMS_SERVICE_GCP, "invalid_client", 0, CMEK_E_DENIED, EACCES, FINAL },
	{ CMEK_KMS_SERVICE_GCP, "unauthorized_client", 0, CMEK_E_DENIED, EACCES, FINAL },
	{ CMEK_KMS_SERVICE_GCP, "INVALID_ARGUMENT", 0, CMEK_E_TAMPERED, EBADMSG, FINAL },
	{ CMEK_KMS_SERVICE_GCP, "UNIMPLEMENTED", 0, CMEK_E_UNSUPPORTED, EPROTONOSUPPORT, FINAL },

	/* IBM Key Protect and IAM */
	{ CMEK_KMS_SERVICE_IBM, "REQ_TOO_EARLY_ERR", 0, CMEK_E_BUSY, EBUSY, FINAL },
	{ CMEK_KMS_SERVICE_IBM, "KEY_ACTION_INVALID_STATE_ERR", 0, CMEK_E_KEY_DISABLED, EKEYREVOKED, FINAL },
	{ CMEK_KMS_SERVICE_IBM, "KEY_INVALID_STATE_ERR", 0, CMEK_E_KEY_DISABLED, EKEYREVOKED, FINAL },
	{ CMEK_KMS_SERVICE_IBM, "KEY_DELETED_ERR", 0, CMEK_E_PENDING_DELETION, EKEYREVOKED, FINAL },
	{ CMEK_KMS_SERVICE_IBM, "BEARER_SUB_EXTRACTION_ERR", 0, CMEK_E_EXPIRED, EKEYEXPIRED, RENEW },
	{ CMEK_KMS_SERVICE_IBM, "UNPROCESSABLE_CIPHERTEXT_ERR", 0, CMEK_E_TAMPERED, EBADMSG, FINAL },
	{ CMEK_KMS_SERVICE_IBM, "INVALID_FIELD_ERR", 0, CMEK_E_TAMPERED, EBADMSG, FINAL },
	{ CMEK_KMS_SERVICE_IBM, "BXNIM0415E", 0, CMEK_E_EXPIRED, EKEYEXPIRED, FINAL }, /* IAM: the API key is unknown */
	{ CMEK_KMS_SERVICE_IBM, NULL, 401, CMEK_E_EXPIRED, EKEYEXPIRED, RENEW },
	{ CMEK_KMS_SERVICE_IBM, NULL, 409, CMEK_E_KEY_DISABLED, EKEYREVOKED, FINAL },
	{ CMEK_KMS_SERVICE_IBM, NULL, 410, CMEK_E_PENDING_DELETION, EKEYREVOKED, FINAL },
	{ CMEK_KMS_SERVICE_IBM, NULL, 422, CMEK_E_TAMPERED, EBADMSG, FINAL },
	{ CMEK_KMS_SERVICE_IBM, NULL, 501, CMEK_E_UNSUPPORTED, EPROTONOSUPPORT, FINAL },

	/* Nothing known of the code, or none given (a proxy, a load balancer) */
	{ CMEK_KMS_SERVICE_NONE, NULL, 401, CMEK_E_EXPIRED, EKEYEXPIRED, RENEW },
	{ CMEK_KMS_SERVICE_NONE, NULL, 403, CMEK_E_DENIED, EACCES, FINAL },
	{ CMEK_KMS_SERVICE_NONE, NULL, 404, CMEK_E_NOT_FOUND, ENOKEY, FINAL },
	{ CMEK_KMS_SERVICE_NONE, NULL, 407, CMEK_E_DENIED, EACCES, FINAL }, /* the proxy */
	{ CMEK_KMS_SERVICE_NONE, NULL, 408, CMEK_E_UNREACHABLE, ETIMEDOUT, RETRY },
	{ CMEK_KMS_SERVICE_NONE, NULL, 429, CMEK_E_THROTTLED, EAGAIN, RETRY },
	{ CMEK_KMS_SERVICE_NONE, NULL, 500, CMEK_E_UNREACHABLE, ETIMEDOUT, RETRY },
	{ CMEK_KMS_SERVICE_NONE, NULL, 502, CMEK_E_UNREACHABLE, ETIMEDOUT, RETRY },
	{ CMEK_KMS_SERVICE_NONE, NULL, 503, CMEK_E_UNREACHABLE, ETIMEDOUT, RETRY },
	{ CMEK_KMS_SERVICE_NONE, NULL, 504, CMEK_E_UNREACHABLE, ETIMEDOUT, RETRY },
};

struct cmek_problem_class cmek_problem_classify(enum cmek_kms_service service, long status, const char *code)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *r = &rows[i];

		if (r->service != CMEK_KMS_SERVICE_NONE && r->service != service)
			continue;
		if (r->code && strcmp(r->code, code) != 0)
			continue;
		if (r->status && r->status != status)
			continue;
		return (struct cmek_problem_class){ r->kind, r->err, r->advice == RETRY, r->advice == RENEW };
	}
	return (struct cmek_problem_class){ CMEK_E_BAD_FORMAT, EPROTO, false, false };
}

void cmek_problem_text(char *out, size_t max, const char *text, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len && n + 1 < max; i++)
		out[n++] = text[i] >= ' ' && text[i] <= '~' ? text[i] : ' ';
	out[n] = '\0';
}
