#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes tests/vectors/rfc7515_a2.h on its standard output: the key of RFC 7515 appendix A.2 as PEM, and its JWS, and an assertion
signed by it.

The numbers are the RFC's. They are proved here: the signature verifies, and signing with the key gives it again.
"""
import base64
import json

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

N = """ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR
T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo
7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91
kzk2PAcDTW9gb54h4FRWyuXpoQ"""
D = """Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46su
i395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV
_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWS
eWjnczT0QU91p1DhOVRuOopznQ"""
P = """4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8
cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc"""
SIGNED = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9p" \
    "c19yb290Ijp0cnVlfQ"
SIGNATURE = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbd" \
    "s9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN93" \
    "83LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywl" \
    "VmtVrBp0igcN_IoypGlUPQGe77Rw"


def decode(text):
    text = "".join(text.split())
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encode(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def number(text):
    return int.from_bytes(decode(text), "big")


def literal(name, text, keep_lines):
    lines = text.split("\n") if keep_lines else [text[i:i + 96] for i in range(0, len(text), 96)]
    lines = [line for line in lines if line]
    end = "\\n" if keep_lines else ""
    body = "\n".join(f'\t"{line}{end}"' for line in lines)
    return f"static const char __attribute__((unused)) {name}[] =\n{body};\n"


def main():
    n, d, p = number(N), number(D), number(P)
    q, e = n // p, 65537
    assert p * q == n
    key = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p),
                                rsa.RSAPublicNumbers(e, n)).private_key()
    signature = key.sign(SIGNED.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert signature == decode(SIGNATURE)
    none = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    print("/* SPDX-License-Identifier: GPL-3.0-or-later */")
    print("/* RFC 7515 appendix A.2, made by rfc7515_a2.py */")
    print("#ifndef CMEK_TESTS_VECTORS_RFC7515_A2_H")
    print("#define CMEK_TESTS_VECTORS_RFC7515_A2_H")
    for name, form in (("rfc7515_pkcs8", serialization.PrivateFormat.PKCS8),
                       ("rfc7515_pkcs1", serialization.PrivateFormat.TraditionalOpenSSL)):
        print(literal(name, key.private_bytes(pem, form, none).decode(), True), end="")
    print(literal("rfc7515_signed", SIGNED, False), end="")
    print(literal("rfc7515_signature", SIGNATURE, False), end="")
    # The assertion (RFC 7523) of a service account with this key, at Unix time 1700000000.
    signed = ".".join(encode(json.dumps(part, separators=(",", ":")).encode()) for part in (
        {"alg": "RS256", "typ": "JWT", "kid": "k1"},
        {"iss": "sa@p.iam.gserviceaccount.com", "scope": "https://www.googleapis.com/auth/cloud-platform",
         "aud": "http://127.0.0.1:1/token", "iat": 1700000000, "exp": 1700003600}))
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    print(literal("rfc7523_assertion", signed + "." + encode(signature), False), end="")
    print("#endif")


if __name__ == "__main__":
    main()
