# SPDX-License-Identifier: GPL-3.0-or-later
"""
IBM Cloud as cmekfs meets it: Key Protect (v2), IAM's token endpoint, and the metadata service of a virtual server.
"""
import base64
import datetime
import hmac
import json
import re
import secrets
import uuid

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from emulator import Answer

ACTIVE, SUSPENDED, DEACTIVATED, DESTROYED = 1, 2, 3, 5
DAY_S = 86400
ALL = {"Reader", "Writer", "Manager", "KeyPurge"}
COLLECTION = "application/vnd.ibm.kms."


class Refusal(Exception):
    """An error of the API; code None: without reasons."""

    def __init__(self, http, code=None, message=""):
        super().__init__(code)
        self.http, self.code, self.message = http, code, message

    def answer(self):
        resource = {"errorMsg": self.message}
        if self.code:
            resource["reasons"] = [{"code": self.code, "message": self.message, "status": self.http,
                                    "moreInfo": "https://cloud.ibm.com/apidocs/key-protect"}]
        return Answer(self.http, {"metadata": {"collectionType": COLLECTION + "error+json", "collectionTotal": 1},
                                  "resources": [resource]})


class IamRefusal(Exception):
    def __init__(self, http, code, message):
        super().__init__(code)
        self.http, self.code, self.message = http, code, message

    def answer(self):
        return Answer(self.http, {"errorCode": self.code, "errorMessage": self.message,
                                  "context": {"requestId": secrets.token_hex(8)}})


def iso(t):
    return datetime.datetime.utcfromtimestamp(t).strftime("%Y-%m-%dT%H:%M:%SZ")


def collection(kind, resources):
    return {"metadata": {"collectionType": COLLECTION + kind, "collectionTotal": len(resources)}, "resources": resources}


class Version:
    def __init__(self, now):
        self.id, self.created, self.key = str(uuid.uuid4()), now, secrets.token_bytes(32)


class Key:
    def __init__(self, key_id, crn, now, name="db", ring="default", extractable=False):
        self.id, self.crn, self.name, self.ring, self.extractable = key_id, crn, name, ring, extractable
        self.created, self.changed, self.rotated = now, now, None
        self.versions = [Version(now)]
        self.state, self.deleted, self.suspended = ACTIVE, None, None
        self.dual_auth, self.marked = False, False
        self.registrations = []


class Service:
    name = "ibm"

    def __init__(self, emulator):
        self.emulator = emulator
        self.keys = {}  # (instance, id) -> Key
        self.api_keys = {"ibm-admin-key": "iam-ServiceId-admin"}
        self.profiles = {}  # id of a trusted profile -> {"compute_token", "assumers": [who]}
        self.tokens = {}  # token -> (who, expires)
        self.instance_tokens = set()
        self.roles = {}  # who -> set of roles; absent = all
        self.lifetime = 3600

    def operation_of(self, request):
        path = request.path
        if path == "/identity/token":
            return "Token"
        if path.startswith("/instance_identity/"):
            return "Metadata"
        match = re.match(r"/api/v2/keys(?:/([\w-]+)(?:/(?:actions/)?(\w+))?)?", path)
        if not match:
            return None
        if match[2]:
            return match[2]
        return "delete" if request.method == "DELETE" else "create" if request.method == "POST" else "get"

    def key_of(self, request):
        match = re.match(r"/api/v2/keys/([\w-]+)", request.path)
        return match and match[1]

    def handle(self, request):
        take = self.emulator.faults.take
        headers = {"Correlation-Id": request.headers.get("correlation-id", str(uuid.uuid4()))}
        try:
            if take(request, "throttle"):
                raise Refusal(429, None, "Too Many Requests")
            if take(request, "internal"):
                raise Refusal(500, "INTERNAL_ERR", "Internal Server Error")
            if take(request, "unavailable"):
                raise Refusal(503, None, "Service Unavailable")
            fault = take(request, "code")
            if fault:
                raise Refusal(fault["status"], fault.get("code"), fault.get("message", ""))
            if request.operation == "Token":
                answer = Answer(200, self.iam(request))
            elif request.operation == "Metadata":
                answer = Answer(200, self.metadata(request))
            else:
                answer = self.kms(request)
        except (Refusal, IamRefusal) as refusal:
            answer = refusal.answer()
        answer.headers.update(headers)
        return answer

    # ---- credentials ----

    def new_token(self, who):
        """IBM's tokens are JWTs, and its libraries look into them."""
        now = int(self.emulator.now())

        def part(value):
            return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

        signed = part({"alg": "HS256", "typ": "JWT"}) + "." + \
            part({"iam_id": who, "iat": now, "exp": now + self.lifetime, "jti": secrets.token_hex(8)})
        signature = hmac.new(secrets.token_bytes(32), signed.encode(), "sha256").digest()
        token = signed + "." + base64.urlsafe_b64encode(signature).decode().rstrip("=")
        self.tokens[token] = (who, now + self.lifetime)
        return token

    def token_answer(self, who):
        return {"access_token": self.new_token(who), "refresh_token": "not_supported", "token_type": "Bearer",
                "expires_in": self.lifetime, "expiration": int(self.emulator.now()) + self.lifetime}

    def iam(self, request):
        form = request.form()
        grant = form.get("grant_type", "").rsplit(":", 1)[-1]
        if not form.get("grant_type", "").startswith("urn:ibm:params:oauth:grant-type:"):
            raise IamRefusal(400, "BXNIM0120E", "Unsupported grant type")
        profile = self.profiles.get(form.get("profile_id"))
        if grant == "apikey":
            who = self.api_keys.get(form.get("apikey"))
            if who is None:
                raise IamRefusal(400, "BXNIM0415E", "Provided API key could not be found.")
        elif grant == "cr-token":
            if profile is None or form.get("cr_token") != profile.get("compute_token"):
                raise IamRefusal(400, "BXNIM0513E", "The compute resource can not be mapped to the trusted profile.")
            who = form["profile_id"]
        elif grant == "assume":
            holder, expires = self.tokens.get(form.get("access_token"), (None, 0))
            if profile is None or expires <= self.emulator.now() or holder not in profile.get("assumers", ()):
                raise IamRefusal(403, "BXNIM0515E", "The trusted profile can not be assumed.")
            who = form["profile_id"]
        else:
            raise IamRefusal(400, "BXNIM0120E", "Unsupported grant type")
        request.who = who
        return self.token_answer(who)

    def metadata(self, request):
        if request.headers.get("metadata-flavor") != "ibm" or "version" not in request.query:
            raise IamRefusal(400, "invalid", "header or version is missing")
        if request.method == "PUT" and request.path == "/instance_identity/v1/token":
            token = secrets.token_urlsafe(32)
            self.instance_tokens.add(token)
            return {"access_token": token, "created_at": iso(self.emulator.now()), "expires_in": 300}
        if request.headers.get("authorization", "")[len("Bearer "):] not in self.instance_tokens:
            raise IamRefusal(401, "unauthorized", "no instance identity token")
        profile = request.json()["trusted_profile"]["id"]
        if profile not in self.profiles:
            raise IamRefusal(400, "BXNIM0513E", "The compute resource can not be mapped to the trusted profile.")
        return self.token_answer(profile)

    def authenticate(self, request):
        token = request.headers.get("authorization", "")[len("Bearer "):]
        if self.emulator.faults.take(request, "expired"):
            self.tokens.pop(token, None)
        who, expires = self.tokens.get(token, (None, 0))
        if who is None:
            raise Refusal(400, "BEARER_SUB_EXTRACTION_ERR", "Bad Request: the token's subject can not be extracted")
        if expires <= self.emulator.now():
            raise Refusal(401, None, "Unauthorized: The user does not have access to the specified resource")
        request.who = who

    def check(self, request, role):
        if role not in self.roles.get(request.who, ALL):
            raise Refusal(401, None, "Unauthorized: The user does not have access to the specified resource")

    # ---- Key Protect ----

    def find(self, request, key_id):
        instance = request.headers.get("bluemix-instance")
        key = self.keys.get((instance, key_id))
        ring = request.headers.get("x-kms-key-ring")
        if key is None or (ring and ring != key.ring) or (key.deleted and self.emulator.now() > key.deleted + 90 * DAY_S):
            raise Refusal(404, "KEY_NOT_FOUND_ERR", "Not Found: Key could not be retrieved: Please see `reasons`.")
        return key

    def in_state(self, key, *states):
        if key.state == DESTROYED and DESTROYED not in states:
            raise Refusal(410, "KEY_DELETED_ERR", "Gone: Key has already been deleted: Please see `reasons` for more")
        if key.state not in states:
            raise Refusal(409, "KEY_ACTION_INVALID_STATE_ERR",
                          "Conflict: Action could not be performed on key: Please see `reasons` for more details")

    def kms(self, request):
        self.authenticate(request)
        if "bluemix-instance" not in request.headers:
            raise Refusal(400, "BAD_REQ_ERR", "Bad Request: Bluemix-Instance is missing")
        parts = request.path[len("/api/v2/"):].split("/")
        if len(parts) == 1 and request.method == "POST":
            return self.create(request)
        if len(parts) == 1:
            raise Refusal(404, None, "Not Found")
        key = self.find(request, parts[1])
        method, rest = request.method, "/".join(parts[2:])
        if method == "GET" and rest in ("metadata", "versions", "registrations"):
            self.check(request, "Reader")
            return Answer(200, getattr(self, "get_" + rest)(key, request))
        if method == "DELETE" and rest == "":
            self.check(request, "Manager")
            return self.delete(key, request.query.get("force") == "true")
        if method == "POST" and rest == "restore":
            self.check(request, "Manager")
            return self.restore(key)
        actions = {"wrap": "Reader", "unwrap": "Reader", "rewrap": "Reader", "rotate": "Writer", "enable": "Manager",
                   "disable": "Manager"}
        if method == "POST" and len(parts) == 4 and parts[2] == "actions" and parts[3] in actions:
            self.check(request, actions[parts[3]])
            if key.extractable:
                raise Refusal(400, "KEY_ROOT_REQ_ERR", "Bad Request: a root key is required")
            return getattr(self, "do_" + parts[3])(key, request)
        raise Refusal(404, None, "Not Found")

    def add(self, instance, account, region, **more):
        key_id = more.pop("id", None) or str(uuid.uuid4())
        crn = f"crn:v1:bluemix:public:kms:{region}:a/{account}:{instance}:key:{key_id}"
        self.keys[(instance, key_id)] = Key(key_id, crn, self.emulator.now(), **more)
        return self.keys[(instance, key_id)]

    def create(self, request):
        self.check(request, "Writer")
        wanted = request.json()["resources"][0]
        key = self.add(request.headers["bluemix-instance"], "0123456789abcdef0123456789abcdef", "eu-de",
                       name=wanted["name"], extractable=wanted.get("extractable", False))
        return Answer(201, collection("key+json", [self.show(key)]))

    def show(self, key):
        shown = {"type": "application/vnd.ibm.kms.key+json", "id": key.id, "name": key.name, "state": key.state,
                 "extractable": key.extractable, "crn": key.crn, "imported": False, "keyRingID": key.ring,
                 "creationDate": iso(key.created), "lastUpdateDate": iso(key.changed),
                 "dualAuthDelete": {"enabled": key.dual_auth}, "deleted": key.deleted is not None,
                 "algorithmType": "AES", "keyVersion": {"id": key.versions[-1].id,
                                                        "creationDate": iso(key.versions[-1].created)}}
        if key.rotated:
            shown["lastRotateDate"] = iso(key.rotated)
        if key.deleted:
            shown.update(deletionDate=iso(key.deleted), purgeAllowed=self.emulator.now() > key.deleted + 4 * 3600,
                         purgeAllowedFrom=iso(key.deleted + 4 * 3600), purgeScheduledOn=iso(key.deleted + 90 * DAY_S))
        return shown

    def get_metadata(self, key, request):
        shown = self.show(key)
        if self.emulator.faults.take(request, "wrong_key"):
            shown["id"] = str(uuid.uuid4())
        return collection("key+json", [shown])

    def page(self, items, request):
        start = int(request.query.get("offset", 0))
        return items[start:start + int(request.query.get("limit", 200))]

    def get_versions(self, key, request):
        versions = [{"id": v.id, "creationDate": iso(v.created)} for v in reversed(key.versions)]
        return collection("key.version+json", self.page(versions, request))

    def get_registrations(self, key, request):
        return collection("registration+json", self.page(key.registrations, request))

    def seal(self, key, data, aad):
        version, nonce = key.versions[-1], secrets.token_bytes(12)
        sealed = AESGCM(version.key).encrypt(nonce, data, json.dumps(aad).encode())
        return base64.b64encode(json.dumps({"ciphertext": base64.b64encode(sealed).decode(),
                                            "iv": base64.b64encode(nonce).decode(), "version": "4.0.0",
                                            "handle": version.id}).encode()).decode()

    def open(self, key, text, aad):
        """(plain text, version) of a ciphertext."""
        try:
            blob = json.loads(base64.b64decode(text, validate=True))
            sealed, nonce = base64.b64decode(blob["ciphertext"]), base64.b64decode(blob["iv"])
        except (ValueError, KeyError, TypeError) as e:
            raise Refusal(400, "INVALID_FIELD_ERR", "Bad Request: the field `ciphertext` is invalid") from e
        for version in key.versions:
            if version.id == blob.get("handle"):
                try:
                    return AESGCM(version.key).decrypt(nonce, sealed, json.dumps(aad).encode()), version
                except InvalidTag:
                    break
        raise Refusal(422, "UNPROCESSABLE_CIPHERTEXT_ERR",
                      "Unprocessable Entity: The provided ciphertext is invalid or corrupted.")

    def body(self, request):
        try:
            body = json.loads(request.body or b"{}")
        except ValueError as e:
            raise Refusal(400, "BAD_BODY_ERR", "Bad Request: the body is not JSON") from e
        aad = body.get("aad") or []
        if not all(isinstance(s, str) and len(s) <= 255 for s in aad):
            raise Refusal(400, "INVALID_FIELD_ERR", "Bad Request: the field `aad` is invalid")
        return body, aad

    def do_wrap(self, key, request):
        body, aad = self.body(request)
        self.in_state(key, ACTIVE)
        plain = base64.b64decode(body["plaintext"]) if "plaintext" in body else secrets.token_bytes(32)
        answer = {"ciphertext": self.seal(key, plain, aad), "keyVersion": {"id": key.versions[-1].id}}
        if "plaintext" not in body:
            answer["plaintext"] = base64.b64encode(plain).decode()
        return Answer(200, answer)

    def do_unwrap(self, key, request):
        take = self.emulator.faults.take
        body, aad = self.body(request)
        self.in_state(key, ACTIVE, DEACTIVATED)
        plain, version = self.open(key, body.get("ciphertext", ""), aad)
        if take(request, "wrong_plaintext"):
            plain = bytes(byte ^ 1 for byte in plain)
        if take(request, "short_plaintext"):
            plain = plain[:16]
        answer = {"plaintext": base64.b64encode(plain).decode(), "keyVersion": {"id": version.id}}
        if version is not key.versions[-1]:
            answer.update(ciphertext=self.seal(key, plain, aad), rewrappedKeyVersion={"id": key.versions[-1].id})
        return Answer(200, answer)

    def do_rewrap(self, key, request):
        body, aad = self.body(request)
        self.in_state(key, ACTIVE, DEACTIVATED)
        plain, version = self.open(key, body.get("ciphertext", ""), aad)
        return Answer(200, {"ciphertext": self.seal(key, plain, aad), "keyVersion": {"id": version.id},
                            "rewrappedKeyVersion": {"id": key.versions[-1].id}})

    def do_rotate(self, key, request):
        self.in_state(key, ACTIVE, DEACTIVATED)
        now = self.emulator.now()
        if key.rotated and now < key.rotated + 3600:
            raise Refusal(409, "KEY_ROTATION_NOT_PERMITTED", "Conflict: a key can be rotated once per hour")
        key.rotated = now
        key.versions.append(Version(now))
        return Answer(204)

    def do_disable(self, key, request):
        self.in_state(key, ACTIVE)
        key.state, key.suspended = SUSPENDED, self.emulator.now()
        return Answer(204)

    def do_enable(self, key, request):
        self.in_state(key, SUSPENDED)
        if self.emulator.now() < key.suspended + 30:
            raise Refusal(409, "REQ_TOO_EARLY_ERR", "Conflict: the key was updated recently: wait 30 seconds")
        key.state = ACTIVE
        return Answer(204)

    def delete(self, key, force):
        self.in_state(key, ACTIVE, SUSPENDED, DEACTIVATED)
        if any(r.get("preventKeyDeletion") for r in key.registrations):
            raise Refusal(409, "PREV_KEY_DEL_ERR", "Conflict: the key is protecting a resource that prevents its deletion")
        if key.registrations and not force:
            raise Refusal(409, "PROTECTED_RESOURCE_ERR", "Conflict: the key is protecting one or more cloud resources")
        if key.dual_auth and not key.marked:
            raise Refusal(409, "AUTHORIZATIONS_NOT_MET", "Conflict: number of authorizations required to delete: 2")
        key.state, key.deleted, key.registrations = DESTROYED, self.emulator.now(), []
        return Answer(204)

    def restore(self, key):
        self.in_state(key, DESTROYED)
        now = self.emulator.now()
        if now < key.deleted + 30:
            raise Refusal(409, "REQ_TOO_EARLY_ERR", "Conflict: the key was updated recently: wait 30 seconds")
        if now > key.deleted + 30 * DAY_S:
            raise Refusal(400, "KEY_RESTORE_EXPIRED", "Bad Request: the key can not be restored any more")
        key.state, key.deleted = ACTIVE, None
        return Answer(201, collection("key+json", [self.show(key)]))

    # ---- control ----

    def control(self, order):
        """
        {"key": {"instance", "account", "region", "id"?, "ring"?, "extractable"?}} (answers its CRN); {"change": CRN, and
        any of "state", "dual_auth", "registrations", "deleted"}; {"api_key": TEXT, "who": WHO}; {"profile": ID, "compute_token"?,
        "assumers"?}; {"roles": WHO, "are": [...] or null}; {"lifetime": SECONDS}; {"revoke": true}; {"token": WHO}.
        """
        answer = {}
        if "key" in order:
            answer["crn"] = self.add(**order["key"]).crn
        if "change" in order:
            key = self.keys[tuple(order["change"].split(":")[i] for i in (7, 9))]
            for name in ("state", "dual_auth", "registrations", "deleted"):
                setattr(key, name, order.get(name, getattr(key, name)))
        if "api_key" in order:
            self.api_keys[order["api_key"]] = order["who"]
        if "profile" in order:
            self.profiles[order["profile"]] = order
        if "roles" in order:
            self.roles[order["roles"]] = ALL if order["are"] is None else set(order["are"])
        if "lifetime" in order:
            self.lifetime = order["lifetime"]
        if "revoke" in order:
            self.tokens.clear()
        if "token" in order:
            answer["token"] = self.new_token(order["token"])
        return answer
