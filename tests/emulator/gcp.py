# SPDX-License-Identifier: GPL-3.0-or-later
"""
Google Cloud as cmekfs meets it: KMS (REST, v1), the token endpoint, impersonation by IAM credentials, and the metadata
server. Signed tokens are verified with python3-cryptography.
"""
import base64
import datetime
import json
import re
import secrets
import struct
import urllib.parse

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


from emulator import Answer

NAME = r"projects/[a-z0-9.:-]+/locations/[a-z0-9-]+/keyRings/[\w-]{1,63}"
MAGIC = b"EMUG"
SKEW_S = 300
SCOPES = {"https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/cloudkms"}
HTTP_OF = {"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403,
           "NOT_FOUND": 404, "ALREADY_EXISTS": 409, "RESOURCE_EXHAUSTED": 429, "INTERNAL": 500, "UNAVAILABLE": 503}


class Refusal(Exception):
    """An error of the API; oauth: of the token endpoint instead."""

    def __init__(self, status, message="", details=None, oauth=False, headers=None):
        super().__init__(status)
        self.status, self.message, self.details, self.oauth = status, message, details, oauth
        self.headers = headers or {}

    def answer(self):
        if self.oauth:
            return Answer(400, {"error": self.status, "error_description": self.message})
        error = {"code": HTTP_OF[self.status], "message": self.message, "status": self.status}
        if self.details:
            error["details"] = self.details
        return Answer(HTTP_OF[self.status], {"error": error}, self.headers)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def rfc3339(t):
    return datetime.datetime.utcfromtimestamp(t).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def unb64(text):
    try:
        return base64.b64decode(text or "", validate=True)
    except ValueError as e:
        raise Refusal("INVALID_ARGUMENT", "Invalid value: base64") from e


class Version:
    def __init__(self, number, now):
        self.number, self.created = number, now
        self.key = secrets.token_bytes(32)
        self.state, self.destroy = "ENABLED", None


class Key:
    def __init__(self, name, now, purpose="ENCRYPT_DECRYPT", level="SOFTWARE", duration=30 * 86400):
        self.name, self.created, self.purpose, self.level, self.duration = name, now, purpose, level, duration
        self.versions = [Version(1, now)]
        self.primary = 1
        self.rotation, self.next_rotation = None, None

    def version(self, number):
        for version in self.versions:
            if version.number == number:
                return version
        raise Refusal("NOT_FOUND", f"{self.name}/cryptoKeyVersions/{number} not found.")


class Service:
    name = "gcp"

    def __init__(self, emulator):
        self.emulator = emulator
        self.keys = {}
        self.accounts = {}  # e-mail -> public key of a service account
        self.users = {}  # refresh token -> {"email", "client_id", "client_secret"}
        self.machine = None  # e-mail of the account that the metadata server gives tokens for
        self.impersonators = {}  # who -> set of accounts
        self.grants = {}  # who -> set of permissions; absent = all
        self.tokens = {}  # token -> (who, expires)
        self.lifetime = 3599

    def operation_of(self, request):
        path = request.path
        if path == "/gcp/token":
            return "Token"
        if path.startswith("/computeMetadata/"):
            return "Metadata"
        if path.startswith("/v1/projects/-/serviceAccounts/"):
            return "Impersonate"
        if not path.startswith("/v1/projects/"):
            return None
        verb = re.search(r":(\w+)$", path)
        if verb:
            return verb[1]
        return {"GET": "get", "PATCH": "patch", "POST": "create"}.get(request.method, "other")

    def key_of(self, request):
        match = re.match(rf"/v1/({NAME}/cryptoKeys/[\w-]{{1,63}})", request.path)
        return match and match[1]

    def handle(self, request):
        take = self.emulator.faults.take
        try:
            if take(request, "throttle"):
                raise Refusal("RESOURCE_EXHAUSTED", "Quota exceeded", headers={"Retry-After": "0"})
            if take(request, "internal"):
                raise Refusal("INTERNAL", "An internal error has occurred")
            if take(request, "unavailable"):
                raise Refusal("UNAVAILABLE", "The service is currently unavailable.")
            fault = take(request, "code")
            if fault:
                raise Refusal(fault["code"], fault.get("message", ""), fault.get("details"))
            if request.operation == "Token":
                return Answer(200, self.token(request))
            if request.operation == "Metadata":
                return self.metadata(request)
            if request.operation == "Impersonate":
                return Answer(200, self.impersonate(request))
            return Answer(200, self.kms(request))
        except Refusal as refusal:
            return refusal.answer()

    # ---- credentials ----

    def new_token(self, who):
        token = "ya29." + secrets.token_urlsafe(40)
        self.tokens[token] = (who, self.emulator.now() + self.lifetime)
        return token

    def token(self, request):
        form = request.form()
        grant = form.get("grant_type")
        if grant == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            who = self.verify(form.get("assertion", ""), request)
        elif grant == "refresh_token":
            user = self.users.get(form.get("refresh_token"))
            if user is None:
                raise Refusal("invalid_grant", "Token has been expired or revoked.", oauth=True)
            if (form.get("client_id"), form.get("client_secret")) != (user["client_id"], user["client_secret"]):
                raise Refusal("invalid_client", "The OAuth client was not found.", oauth=True)
            who = user["email"]
        else:
            raise Refusal("unsupported_grant_type", "Invalid grant_type", oauth=True)
        request.who = who
        return {"access_token": self.new_token(who), "expires_in": self.lifetime, "token_type": "Bearer"}

    def verify(self, assertion, request):
        def part(text):
            return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

        try:
            head, body, signature = assertion.split(".")
            header, claims = json.loads(part(head)), json.loads(part(body))
            public = self.accounts[claims["iss"]]
            public.verify(part(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
        except KeyError as e:
            raise Refusal("invalid_grant", "Invalid grant: account not found", oauth=True) from e
        except (ValueError, InvalidSignature) as e:
            raise Refusal("invalid_grant", "Invalid JWT Signature.", oauth=True) from e
        now = self.emulator.now()
        if header.get("alg") != "RS256" or header.get("typ") != "JWT":
            raise Refusal("invalid_grant", "Invalid JWT header", oauth=True)
        if not claims["iat"] - SKEW_S <= now <= claims["exp"] + SKEW_S or claims["exp"] > claims["iat"] + 3600:
            raise Refusal("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes) and in a "
                                           "reasonable timeframe. Check your iat and exp values in the JWT claim.",
                          oauth=True)
        if urllib.parse.urlsplit(claims["aud"]).path != request.path or request.headers["host"] not in claims["aud"]:
            raise Refusal("invalid_grant", "Invalid JWT: Failed audience check.", oauth=True)
        if claims.get("scope") not in SCOPES:
            raise Refusal("invalid_scope", "Invalid OAuth scope", oauth=True)
        return claims["iss"]

    def metadata(self, request):
        headers = {} if self.emulator.faults.take(request, "no_flavor") else {"Metadata-Flavor": "Google"}
        if request.headers.get("metadata-flavor") != "Google":
            return Answer(403, b"Missing required header", headers, "text/html")
        if not request.path.endswith("/service-accounts/default/token") or self.machine is None:
            return Answer(404, b"not found", headers, "text/html")
        request.who = self.machine
        return Answer(200, {"access_token": self.new_token(self.machine), "expires_in": self.lifetime,
                            "token_type": "Bearer"}, headers)

    def impersonate(self, request):
        who = self.authenticate(request)
        email = re.search(r"/serviceAccounts/([^/:]+):generateAccessToken$", request.path)[1]
        if email not in self.impersonators.get(who, ()):
            raise Refusal("PERMISSION_DENIED", "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it "
                                               "may not exist).")
        if not set(request.json()["scope"]) <= SCOPES:
            raise Refusal("INVALID_ARGUMENT", "Invalid scope")
        return {"accessToken": self.new_token(email),
                "expireTime": datetime.datetime.utcfromtimestamp(self.emulator.now() + 3600).strftime("%Y-%m-%dT%H:%M:%SZ")}

    def authenticate(self, request):
        match = re.fullmatch(r"Bearer (\S+)", request.headers.get("authorization", ""))
        if match and self.emulator.faults.take(request, "expired"):
            self.tokens.pop(match[1], None)
        who, expires = self.tokens.get(match[1], (None, 0)) if match else (None, 0)
        if who is None or expires <= self.emulator.now():
            raise Refusal("UNAUTHENTICATED", "Request had invalid authentication credentials.")
        request.who = who
        return who

    def check(self, request, permission, name):
        granted = self.grants.get(request.who)
        if granted is not None and permission not in granted:
            raise Refusal("PERMISSION_DENIED", f"Permission '{permission}' denied on resource '{name}' (or it may not "
                                               "exist).")

    # ---- KMS ----

    def key(self, name):
        key = self.keys.get(name)
        if key is None:
            raise Refusal("NOT_FOUND", f"CryptoKey {name} not found.")
        for version in key.versions:
            if version.state == "DESTROY_SCHEDULED" and version.destroy <= self.emulator.now():
                version.state, version.key = "DESTROYED", None
        return key

    def kms(self, request):
        self.authenticate(request)
        path = request.path[len("/v1/"):]
        match = re.fullmatch(rf"({NAME}/cryptoKeys/[\w-]{{1,63}})(?:/cryptoKeyVersions/(\d+))?(?::(\w+))?", path)
        if match:
            return self.on_key(request, match[1], match[2] and int(match[2]), match[3])
        match = re.fullmatch(rf"({NAME}/cryptoKeys/[\w-]{{1,63}})/cryptoKeyVersions", path)
        if match:
            return self.on_versions(request, match[1])
        match = re.fullmatch(rf"({NAME})/cryptoKeys", path)
        if match and request.method == "POST":
            return self.create(request, match[1])
        raise Refusal("NOT_FOUND", "no such method")

    def on_key(self, request, name, number, verb):
        method, take = request.method, "cloudkms.cryptoKeyVersions."
        if verb == "encrypt":
            self.check(request, take + "useToEncrypt", name)
            return self.encrypt(request, self.key(name), number)
        if verb == "decrypt":
            self.check(request, take + "useToDecrypt", name)
            if number:
                raise Refusal("INVALID_ARGUMENT", "Decrypt takes a CryptoKey")
            return self.decrypt(request, self.key(name))
        if verb == "updatePrimaryVersion":
            self.check(request, "cloudkms.cryptoKeys.update", name)
            key = self.key(name)
            version = key.version(int(request.json()["cryptoKeyVersionId"]))
            self.usable(key, version)
            key.primary = version.number
            return self.show_key(key)
        if verb in ("destroy", "restore"):
            self.check(request, take + verb, name)
            return self.change(self.key(name), number, verb)
        if verb:
            raise Refusal("NOT_FOUND", "no such verb")
        if method == "PATCH" and number:
            self.check(request, take + "update", name)
            return self.set_state(self.key(name), number, request)
        if method == "GET":
            self.check(request, take + "get" if number else "cloudkms.cryptoKeys.get", name)
            key = self.key(name)
            return self.show_version(key, key.version(number)) if number else self.show_key(key)
        raise Refusal("INVALID_ARGUMENT", "no such method")

    def on_versions(self, request, name):
        if request.method == "POST":
            self.check(request, "cloudkms.cryptoKeyVersions.create", name)
            key = self.key(name)
            key.versions.append(Version(len(key.versions) + 1, self.emulator.now()))
            return self.show_version(key, key.versions[-1])
        self.check(request, "cloudkms.cryptoKeyVersions.list", name)
        key = self.key(name)
        size = min(int(request.query.get("pageSize", 100)), 2)  # pages are small, so that clients meet them
        start = int(request.query.get("pageToken") or 0)
        page = {"cryptoKeyVersions": [self.show_version(key, v) for v in key.versions[start:start + size]],
                "totalSize": len(key.versions)}
        if start + size < len(key.versions):
            page["nextPageToken"] = str(start + size)
        return page

    def create(self, request, ring):
        self.check(request, "cloudkms.cryptoKeys.create", ring)
        name = f"{ring}/cryptoKeys/{request.query['cryptoKeyId']}"
        if name in self.keys:
            raise Refusal("ALREADY_EXISTS", f"CryptoKey {name} already exists.")
        body = request.json()
        duration = int(body.get("destroyScheduledDuration", "2592000s").rstrip("s"))
        self.keys[name] = Key(name, self.emulator.now(), body["purpose"],
                              body.get("versionTemplate", {}).get("protectionLevel", "SOFTWARE"), duration)
        return self.show_key(self.keys[name])

    def change(self, key, number, verb):
        version = key.version(number)
        if verb == "restore":
            if version.state != "DESTROY_SCHEDULED":
                raise Refusal("FAILED_PRECONDITION", "The version is not scheduled for destruction.")
            version.state, version.destroy = "DISABLED", None
        else:
            if version.state not in ("ENABLED", "DISABLED"):
                raise Refusal("FAILED_PRECONDITION", "The version can not be destroyed.")
            version.state, version.destroy = "DESTROY_SCHEDULED", self.emulator.now() + key.duration
        return self.show_version(key, version)

    def set_state(self, key, number, request):
        version, state = key.version(number), request.json().get("state")
        state = {1: "ENABLED", 2: "DISABLED"}.get(state, state)  # Google's own client sends numbers
        if request.query.get("updateMask") != "state" or state not in ("ENABLED", "DISABLED"):
            raise Refusal("INVALID_ARGUMENT", "update_mask")
        if version.state not in ("ENABLED", "DISABLED"):
            raise Refusal("FAILED_PRECONDITION", f"{key.name}/cryptoKeyVersions/{number} can not be updated.")
        version.state = state
        return self.show_version(key, version)

    def show_version(self, key, version):
        shown = {"name": f"{key.name}/cryptoKeyVersions/{version.number}", "state": version.state,
                 "protectionLevel": key.level, "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION",
                 "createTime": rfc3339(version.created), "generateTime": rfc3339(version.created)}
        if version.destroy:
            shown["destroyTime"] = rfc3339(version.destroy)
        if version.state == "DESTROYED":
            shown["destroyEventTime"] = shown.pop("destroyTime")
        return shown

    def show_key(self, key):
        shown = {"name": key.name, "purpose": key.purpose, "createTime": rfc3339(key.created),
                 "versionTemplate": {"protectionLevel": key.level, "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION"},
                 "destroyScheduledDuration": f"{key.duration}s",
                 "primary": self.show_version(key, key.version(key.primary))}
        if key.rotation:
            shown["rotationPeriod"] = f"{key.rotation}s"
            shown["nextRotationTime"] = rfc3339(key.next_rotation)
        return shown

    def usable(self, key, version):
        if version.state != "ENABLED":
            name = f"{key.name}/cryptoKeyVersions/{version.number}"
            details = [{"@type": "type.googleapis.com/google.rpc.PreconditionFailure",
                        "violations": [{"type": "KEY_" + version.state, "subject": name}]}]
            raise Refusal("FAILED_PRECONDITION", f"{name} is not enabled, current state is: {version.state}.", details)

    def fields(self, request, name):
        """The field and the context of a request, their checksums verified."""
        body = request.json()
        data, aad = unb64(body.get(name)), unb64(body.get("additionalAuthenticatedData"))
        verified = []
        for field, value in ((name, data), ("additionalAuthenticatedData", aad)):
            given = body.get(field + "Crc32c")
            if given is not None and int(given) != crc32c(value) or self.emulator.faults.take(request, "bad_request_crc"):
                raise Refusal("INVALID_ARGUMENT", f"The checksum in field {field}_crc32c did not match the data in field "
                                                  f"{field}.")
            verified.append(given is not None)
        return data, aad, verified

    def encrypt(self, request, key, number):
        take = self.emulator.faults.take
        data, aad, verified = self.fields(request, "plaintext")
        version = key.version(number or key.primary)
        self.usable(key, version)
        nonce = secrets.token_bytes(12)
        blob = MAGIC + struct.pack(">I", version.number) + nonce + \
            AESGCM(version.key).encrypt(nonce, data, key.name.encode() + b"\0" + aad)
        if take(request, "unverified"):
            verified = [False, False]
        name = key.name + "x" if take(request, "wrong_key") else key.name
        return {"name": f"{name}/cryptoKeyVersions/{version.number}", "ciphertext": base64.b64encode(blob).decode(),
                "ciphertextCrc32c": str(crc32c(blob) ^ (1 if take(request, "wrong_crc") else 0)),
                "verifiedPlaintextCrc32c": verified[0], "verifiedAdditionalAuthenticatedDataCrc32c": verified[1],
                "protectionLevel": key.level}

    def decrypt(self, request, key):
        take = self.emulator.faults.take
        blob, aad, _ = self.fields(request, "ciphertext")
        failed = Refusal("INVALID_ARGUMENT", "Decryption failed: verify that 'name' refers to the correct CryptoKey.")
        if not blob.startswith(MAGIC) or len(blob) < 36:
            raise failed
        number = struct.unpack(">I", blob[4:8])[0]
        try:
            version = key.version(number)
        except Refusal as e:
            raise failed from e
        self.usable(key, version)
        try:
            data = AESGCM(version.key).decrypt(blob[8:20], blob[20:], key.name.encode() + b"\0" + aad)
        except InvalidTag as e:
            raise failed from e
        if take(request, "wrong_plaintext"):
            data = bytes(byte ^ 1 for byte in data)
        if take(request, "short_plaintext"):
            data = data[:16]
        return {"plaintext": base64.b64encode(data).decode(),
                "plaintextCrc32c": str(crc32c(data) ^ (1 if take(request, "wrong_crc") else 0)),
                "usedPrimary": number == key.primary, "protectionLevel": key.level}

    # ---- control ----

    def control(self, order):
        """
        {"key": NAME, "purpose"?, "level"?}; {"account": EMAIL, "public_key": PEM}; {"user": {"email", "refresh_token",
        "client_id", "client_secret"}}; {"machine": EMAIL or null}; {"token": WHO} (answers one); {"grant": WHO,
        "permissions": [...] or null}; {"impersonator": WHO, "accounts": [...]}; {"lifetime": SECONDS}; {"revoke": true};
        {"destroy_now": NAME}: what was scheduled for destruction is destroyed.
        """
        for version in self.keys[order["destroy_now"]].versions if "destroy_now" in order else ():
            version.destroy = self.emulator.now() if version.destroy else None
        if "key" in order:
            self.keys[order["key"]] = Key(order["key"], self.emulator.now(), order.get("purpose", "ENCRYPT_DECRYPT"),
                                          order.get("level", "SOFTWARE"))
        if "account" in order:
            self.accounts[order["account"]] = serialization.load_pem_public_key(order["public_key"].encode())
        if "user" in order:
            self.users[order["user"]["refresh_token"]] = order["user"]
        if "machine" in order:
            self.machine = order["machine"]
        if "grant" in order:
            permissions = order["permissions"]
            self.grants[order["grant"]] = None if permissions is None else set(permissions)
        if "impersonator" in order:
            self.impersonators[order["impersonator"]] = set(order["accounts"])
        if "lifetime" in order:
            self.lifetime = order["lifetime"]
        if "revoke" in order:
            self.tokens.clear()
        return {"token": self.new_token(order["token"])} if "token" in order else {}
