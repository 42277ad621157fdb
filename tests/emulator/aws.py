# SPDX-License-Identifier: GPL-3.0-or-later
"""
AWS as cmekfs meets it: KMS in all Regions, STS, the metadata service of an instance (IMDSv2) and of a container. Requests
are verified with botocore's SigV4, an implementation that is not cmekfs's.
"""
import base64
import datetime
import json
import os
import re
import secrets
import uuid

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from emulator import Answer

ACCOUNT = "111122223333"
SKEW_S = 300
MAGIC = b"EMUK"
USABLE = "Enabled"


class Refusal(Exception):
    """An error of the API."""

    def __init__(self, code, message=None, status=400):
        super().__init__(code)
        self.code, self.message, self.status = code, message, status


def iso(t):
    return datetime.datetime.utcfromtimestamp(t).strftime("%Y-%m-%dT%H:%M:%SZ")


class Material:
    def __init__(self, now, kind):
        self.id = secrets.token_hex(32)
        self.key = secrets.token_bytes(32)
        self.created, self.kind = now, kind


class Key:
    """A key in one Region; replicas of a multi-Region key share their materials."""

    def __init__(self, key_id, region, now, materials, account=ACCOUNT, multi_region=False, primary=None):
        self.id, self.region, self.account = key_id, region, account
        self.created, self.materials = now, materials
        self.state, self.deletion, self.window = USABLE, None, None
        self.multi_region, self.primary = multi_region, primary or region
        self.rotated = None
        self.origin, self.description = "AWS_KMS", ""

    @property
    def arn(self):
        return f"arn:aws:kms:{self.region}:{self.account}:key/{self.id}"


class Identity:
    """
    Who may do what. allow: None = everything, else statements {"actions": [...], "keys": [ARN, ...] or absent,
    "context": {name: [values]} or absent}.
    """

    def __init__(self, arn, secret, token=None, expires=None, allow=None):
        self.arn, self.secret, self.token, self.expires, self.allow = arn, secret, token, expires, allow

    def may(self, action, key, context):
        if self.allow is None:
            return True
        for s in self.allow:
            if action not in s["actions"]:
                continue
            if "keys" in s and (key is None or key.arn not in s["keys"]):
                continue
            if any(context.get(name) not in values for name, values in s.get("context", {}).items()):
                continue
            return True
        return False


class Service:
    name = "aws"

    def __init__(self, emulator):
        self.emulator = emulator
        self.keys = {}  # (region, id) -> Key
        self.aliases = {}  # (region, "alias/NAME") -> id
        self.identities = {"AKIDADMIN": Identity(f"arn:aws:iam::{ACCOUNT}:user/admin", "admin-secret")}
        self.roles = {}  # arn -> {"external_id", "allow", "web_token"}
        self.instance_role = None  # what the metadata service gives credentials for
        self.metadata_tokens = set()
        self.container_token = None
        self.lifetime = 3600

    # ---- what a request is ----

    def operation_of(self, request):
        target = request.headers.get("x-amz-target", "")
        if target.startswith("TrentService."):
            return target[len("TrentService."):]
        if request.method == "POST" and request.path == "/" and b"Action=" in request.body:
            return request.form().get("Action")
        if request.path.startswith("/latest/"):
            return "Metadata"
        if request.path.startswith("/container/"):
            return "Container"
        return None

    def key_of(self, request):
        """The id of the key that a request is about, whatever it calls it."""
        if "x-amz-target" not in request.headers:
            return None
        try:
            name = request.json().get("KeyId")
        except ValueError:
            return None
        return name and name.rsplit("/", 1)[-1]

    def handle(self, request):
        request_id = str(uuid.uuid4())
        try:
            if request.operation == "Metadata":
                return self.metadata(request)
            if request.operation == "Container":
                return self.container(request)
            if "x-amz-target" in request.headers:
                return Answer(200, self.kms(request), {"x-amzn-RequestId": request_id}, "application/x-amz-json-1.1")
            return self.sts(request, request_id)
        except Refusal as refusal:
            if "x-amz-target" in request.headers:
                body = {"__type": refusal.code}
                if refusal.message:
                    body["Message" if refusal.code == "AccessDeniedException" else "message"] = refusal.message
                return Answer(refusal.status, body, {"x-amzn-RequestId": request_id}, "application/x-amz-json-1.1")
            text = (f'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
                    f"<Code>{refusal.code}</Code><Message>{refusal.message or ''}</Message></Error>"
                    f"<RequestId>{request_id}</RequestId></ErrorResponse>")
            return Answer(refusal.status, text.encode(), {"x-amzn-RequestId": request_id}, "text/xml")

    # ---- signatures ----

    def authenticate(self, request, service):
        """(identity, region) of a signed request. The codes are KMS's."""
        if self.emulator.faults.take(request, "expired"):
            raise Refusal("ExpiredTokenException", "The security token included in the request is expired")
        match = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
                             r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})",
                             request.headers.get("authorization", ""))
        if not match:
            raise Refusal("MissingAuthenticationTokenException", "Missing Authentication Token")
        access_key, day, region, signed_service, names, signature = match.groups()
        stamp = request.headers.get("x-amz-date", "")
        if signed_service != service or not stamp.startswith(day):
            raise Refusal("InvalidSignatureException", "Credential should be scoped to correct service")
        identity = self.identities.get(access_key)
        if identity is None:
            raise Refusal("UnrecognizedClientException", "The security token included in the request is invalid.")
        if identity.token != request.headers.get("x-amz-security-token"):
            raise Refusal("UnrecognizedClientException", "The security token included in the request is invalid.")
        when = datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc).timestamp()
        if when < self.emulator.now() - SKEW_S:
            raise Refusal("InvalidSignatureException", f"Signature expired: {stamp} is now earlier than ... - 5 min.)")
        if when > self.emulator.now() + SKEW_S:
            raise Refusal("InvalidSignatureException", f"Signature not yet current: {stamp} is still later than ...")
        if not secrets.compare_digest(signature, self.signature(request, identity, access_key, region, service, names,
                                                                stamp)):
            raise Refusal("InvalidSignatureException", "The request signature we calculated does not match")
        needed = {"host", "x-amz-date"} | ({"x-amz-target"} if service == "kms" else set())
        if not needed <= set(names.split(";")):
            raise Refusal("InvalidSignatureException", "headers that must be signed are not")
        if identity.expires is not None and identity.expires <= self.emulator.now():
            raise Refusal("ExpiredTokenException", "The security token included in the request is expired")
        request.who = identity.arn
        return identity, region

    @staticmethod
    def signature(request, identity, access_key, region, service, names, stamp):
        aws = AWSRequest(method=request.method, url="http://" + request.headers["host"] + request.target,
                         data=request.body, headers={n: request.headers[n] for n in names.split(";")
                                                     if n in request.headers})
        aws.context["timestamp"] = stamp
        signer = SigV4Auth(Credentials(access_key, identity.secret), service, region)
        canonical = signer.canonical_request(aws)
        return signer.signature(signer.string_to_sign(aws, canonical), aws)

    # ---- keys ----

    def find(self, key_id, region, account=ACCOUNT):
        """The key that a KeyId means in this Region."""
        if key_id.startswith("arn:"):
            part = key_id.split(":", 5)
            if len(part) != 6 or part[2] != "kms":
                raise Refusal("InvalidArnException", "Invalid arn " + key_id)
            if part[3] != region:
                raise Refusal("NotFoundException", "Invalid arn " + part[3])
            account, key_id = part[4], part[5]
            if key_id.startswith("key/"):
                key_id = key_id[4:]
        if key_id.startswith("alias/"):
            if (region, key_id) not in self.aliases:
                raise Refusal("NotFoundException", f"Alias arn:aws:kms:{region}:{account}:{key_id} is not found.")
            key_id = self.aliases[(region, key_id)]
        key = self.keys.get((region, key_id))
        if key is None or key.account != account or self.gone(key):
            raise Refusal("NotFoundException", f"Key 'arn:aws:kms:{region}:{account}:key/{key_id}' does not exist")
        return key

    def gone(self, key):
        if key.state == "PendingDeletion" and key.deletion <= self.emulator.now():
            del self.keys[(key.region, key.id)]
            return True
        return False

    def usable(self, key):
        if key.state == "Disabled":
            raise Refusal("DisabledException", f"{key.arn} is disabled.")
        if key.state != USABLE:
            names = {"PendingDeletion": "pending deletion", "PendingImport": "pending import"}
            raise Refusal("KMSInvalidStateException", f"{key.arn} is {names.get(key.state, key.state)}.")

    @staticmethod
    def aad(context):
        return json.dumps(context, sort_keys=True, separators=(",", ":")).encode()

    def seal(self, key, plaintext, context):
        material, nonce = key.materials[-1], secrets.token_bytes(12)
        name = key.id.encode()
        head = MAGIC + bytes([len(name)]) + name + bytes.fromhex(material.id) + nonce
        return head + AESGCM(material.key).encrypt(nonce, plaintext, head + self.aad(context))

    def open(self, blob, region, context, key_id=None):
        """(key, material, plaintext) of a ciphertext."""
        if len(blob) < 5 or blob[:4] != MAGIC or len(blob) < 5 + blob[4] + 32 + 12 + 16:
            raise Refusal("InvalidCiphertextException")
        end = 5 + blob[4]
        named = blob[5:end].decode("ascii", "replace")
        asked = self.find(key_id, region) if key_id else None
        if asked is not None and asked.id != named:
            raise Refusal("IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform "
                                                   "this operation.")
        key = asked or self.find(named, region)
        self.usable(key)
        material = next((m for m in key.materials if m.id == blob[end:end + 32].hex()), None)
        if material is None:
            raise Refusal("InvalidCiphertextException")
        head = blob[:end + 44]
        try:
            return key, material, AESGCM(material.key).decrypt(head[-12:], blob[end + 44:], head + self.aad(context))
        except InvalidTag:
            raise Refusal("InvalidCiphertextException") from None

    # ---- KMS ----

    def kms(self, request):
        identity, region = self.authenticate(request, "kms")
        if self.emulator.faults.take(request, "throttle"):
            raise Refusal("ThrottlingException", "Rate exceeded")
        if self.emulator.faults.take(request, "internal"):
            raise Refusal("KMSInternalException", "internal", 500)
        fault = self.emulator.faults.take(request, "code")
        if fault:
            raise Refusal(fault["code"], fault.get("message"), fault.get("status", 400))
        handler = getattr(self, "kms_" + request.operation, None)
        if handler is None:
            raise Refusal("UnknownOperationException")
        try:
            members = request.json()
        except ValueError:
            raise Refusal("SerializationException") from None
        return handler(members, identity, region, request)

    def allowed(self, identity, action, key, context=None):
        if not identity.may("kms:" + action, key, context or {}):
            where = f" on resource: {key.arn}" if key else ""
            raise Refusal("AccessDeniedException", f"User: {identity.arn} is not authorized to perform: kms:{action}{where} "
                                                   "because no identity-based policy allows the action")

    def key_for(self, members, identity, action, region, name="KeyId", context=None):
        try:
            key = self.find(members[name], region)
        except Refusal as refusal:
            if refusal.code == "NotFoundException":
                self.allowed(identity, action, None)  # the unprivileged don't learn what exists
            raise
        self.allowed(identity, action, key, context)
        return key

    def kms_Encrypt(self, m, identity, region, request):
        context = m.get("EncryptionContext", {})
        key = self.key_for(m, identity, "Encrypt", region, context=context)
        self.usable(key)
        plaintext = base64.b64decode(m["Plaintext"], validate=True)
        if not 1 <= len(plaintext) <= 4096:
            raise Refusal("ValidationException", "Plaintext length")
        return {"CiphertextBlob": base64.b64encode(self.seal(key, plaintext, context)).decode(), "KeyId": key.arn,
                "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}

    def kms_Decrypt(self, m, identity, region, request):
        context = m.get("EncryptionContext", {})
        blob = base64.b64decode(m["CiphertextBlob"], validate=True)
        if m.get("KeyId"):
            self.key_for(m, identity, "Decrypt", region, context=context)
        key, material, plaintext = self.open(blob, region, context, m.get("KeyId"))
        self.allowed(identity, "Decrypt", key, context)
        answer = {"Plaintext": base64.b64encode(plaintext).decode(), "KeyId": key.arn, "KeyMaterialId": material.id,
                  "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}
        if self.emulator.faults.take(request, "wrong_key"):
            answer["KeyId"] = key.arn[:-4] + "0000"
        if self.emulator.faults.take(request, "wrong_plaintext"):
            answer["Plaintext"] = base64.b64encode(secrets.token_bytes(len(plaintext))).decode()
        if self.emulator.faults.take(request, "short_plaintext"):
            answer["Plaintext"] = base64.b64encode(plaintext[:16]).decode()
        return answer

    def kms_ReEncrypt(self, m, identity, region, request):
        blob = base64.b64decode(m["CiphertextBlob"], validate=True)
        source_context, context = m.get("SourceEncryptionContext", {}), m.get("DestinationEncryptionContext", {})
        source, material, plaintext = self.open(blob, region, source_context, m.get("SourceKeyId"))
        self.allowed(identity, "ReEncryptFrom", source, source_context)
        key = self.key_for(m, identity, "ReEncryptTo", region, "DestinationKeyId", context)
        self.usable(key)
        return {"CiphertextBlob": base64.b64encode(self.seal(key, plaintext, context)).decode(), "KeyId": key.arn,
                "SourceKeyId": source.arn, "SourceKeyMaterialId": material.id,
                "DestinationKeyMaterialId": key.materials[-1].id}

    def kms_GenerateDataKey(self, m, identity, region, request):
        context = m.get("EncryptionContext", {})
        key = self.key_for(m, identity, "GenerateDataKey", region, context=context)
        self.usable(key)
        plaintext = secrets.token_bytes(m.get("NumberOfBytes") or {"AES_256": 32, "AES_128": 16}[m["KeySpec"]])
        return {"CiphertextBlob": base64.b64encode(self.seal(key, plaintext, context)).decode(), "KeyId": key.arn,
                "Plaintext": base64.b64encode(plaintext).decode(), "KeyMaterialId": key.materials[-1].id}

    def describe(self, key):
        d = {"AWSAccountId": key.account, "KeyId": key.id, "Arn": key.arn, "CreationDate": key.created,
             "Enabled": key.state == USABLE, "KeyState": key.state, "KeyUsage": "ENCRYPT_DECRYPT",
             "KeySpec": "SYMMETRIC_DEFAULT", "Origin": key.origin, "KeyManager": "CUSTOMER",
             "Description": key.description, "MultiRegion": key.multi_region, "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
             "CurrentKeyMaterialId": key.materials[-1].id}
        if key.deletion is not None:
            d["DeletionDate"] = key.deletion
        if key.multi_region:
            replicas = [k for k in self.keys.values() if k.id == key.id and k.region != key.primary]
            d["MultiRegionConfiguration"] = {
                "MultiRegionKeyType": "PRIMARY" if key.region == key.primary else "REPLICA",
                "PrimaryKey": {"Arn": self.keys[(key.primary, key.id)].arn, "Region": key.primary},
                "ReplicaKeys": [{"Arn": k.arn, "Region": k.region} for k in replicas]}
        return d

    def kms_DescribeKey(self, m, identity, region, request):
        return {"KeyMetadata": self.describe(self.key_for(m, identity, "DescribeKey", region))}

    def kms_CreateKey(self, m, identity, region, request):
        self.allowed(identity, "CreateKey", None)
        now, multi_region = self.emulator.now(), bool(m.get("MultiRegion"))
        key_id = "mrk-" + secrets.token_hex(16) if multi_region else str(uuid.uuid4())
        key = Key(key_id, region, now, [Material(now, "CREATED")], multi_region=multi_region)
        key.description = m.get("Description", "")
        self.keys[(region, key_id)] = key
        return {"KeyMetadata": self.describe(key)}

    def kms_CreateAlias(self, m, identity, region, request):
        name = m["AliasName"]
        if not re.fullmatch(r"alias/[a-zA-Z0-9/_-]{1,250}", name) or name.startswith("alias/aws/"):
            raise Refusal("InvalidAliasNameException", name)
        if (region, name) in self.aliases:
            raise Refusal("AlreadyExistsException", f"An alias with the name {name} already exists")
        self.aliases[(region, name)] = self.management_key(m, identity, "CreateAlias", region, "TargetKeyId").id
        return {}

    def management_key(self, m, identity, action, region, name="KeyId"):
        if "alias/" in m[name]:
            raise Refusal("ValidationException", "an alias is not accepted here")
        return self.key_for(m, identity, action, region, name)

    def kms_ListAliases(self, m, identity, region, request):
        return {"Aliases": [{"AliasName": n, "TargetKeyId": k, "AliasArn": f"arn:aws:kms:{region}:{ACCOUNT}:{n}"}
                            for (r, n), k in self.aliases.items() if r == region], "Truncated": False}

    def kms_EnableKey(self, m, identity, region, request):
        key = self.management_key(m, identity, "EnableKey", region)
        if key.state not in (USABLE, "Disabled"):
            raise Refusal("KMSInvalidStateException", f"{key.arn} is pending deletion.")
        key.state = USABLE
        return {}

    def kms_DisableKey(self, m, identity, region, request):
        key = self.management_key(m, identity, "DisableKey", region)
        if key.state not in (USABLE, "Disabled"):
            raise Refusal("KMSInvalidStateException", f"{key.arn} is pending deletion.")
        key.state = "Disabled"
        return {}

    def kms_ScheduleKeyDeletion(self, m, identity, region, request):
        key = self.management_key(m, identity, "ScheduleKeyDeletion", region)
        days = m.get("PendingWindowInDays", 30)
        if not 7 <= days <= 30:
            raise Refusal("ValidationException", "PendingWindowInDays must be from 7 to 30")
        if key.state == "PendingDeletion":
            raise Refusal("KMSInvalidStateException", f"{key.arn} is pending deletion.")
        key.state, key.deletion = "PendingDeletion", self.emulator.now() + days * 86400
        return {"KeyId": key.arn, "DeletionDate": key.deletion, "KeyState": key.state, "PendingWindowInDays": days}

    def kms_CancelKeyDeletion(self, m, identity, region, request):
        key = self.management_key(m, identity, "CancelKeyDeletion", region)
        if key.state != "PendingDeletion":
            raise Refusal("KMSInvalidStateException", f"{key.arn} is not pending deletion.")
        key.state, key.deletion = "Disabled", None
        return {"KeyId": key.arn}

    def kms_RotateKeyOnDemand(self, m, identity, region, request):
        key = self.management_key(m, identity, "RotateKeyOnDemand", region)
        self.usable(key)
        if key.region != key.primary:
            raise Refusal("UnsupportedOperationException", "the primary key is rotated")
        key.materials.append(Material(self.emulator.now(), "ON_DEMAND"))
        return {"KeyId": key.arn}

    def kms_ListKeyRotations(self, m, identity, region, request):
        key = self.management_key(m, identity, "ListKeyRotations", region)
        rows = []
        for i, material in enumerate(key.materials):
            if i == 0 and m.get("IncludeKeyMaterial") != "ALL_KEY_MATERIAL":
                continue
            row = {"KeyId": key.arn, "KeyMaterialId": material.id,
                   "KeyMaterialState": "CURRENT" if material is key.materials[-1] else "NON_CURRENT"}
            if i > 0:
                row.update(RotationDate=material.created, RotationType=material.kind)
            rows.append(row)
        start, limit = int(m.get("Marker") or 0), m.get("Limit", 100)
        answer = {"Rotations": rows[start:start + limit], "Truncated": start + limit < len(rows)}
        if answer["Truncated"]:
            answer["NextMarker"] = str(start + limit)
        return answer

    def kms_ReplicateKey(self, m, identity, region, request):
        key = self.management_key(m, identity, "ReplicateKey", region)
        if not key.multi_region:
            raise Refusal("UnsupportedOperationException", "not a multi-Region key")
        replica = Key(key.id, m["ReplicaRegion"], self.emulator.now(), key.materials, multi_region=True,
                      primary=key.primary)
        self.keys[(replica.region, replica.id)] = replica
        return {"ReplicaKeyMetadata": self.describe(replica)}

    # ---- STS ----

    def sts(self, request, request_id):
        form = request.form()
        action = form.get("Action")
        if action == "GetCallerIdentity":
            identity, _ = self.authenticate_sts(request)
            inner = f"<Arn>{identity.arn}</Arn><UserId>AIDA</UserId><Account>{ACCOUNT}</Account>"
        elif action in ("AssumeRole", "AssumeRoleWithWebIdentity"):
            inner = self.assume(request, form, action == "AssumeRoleWithWebIdentity")
        else:
            raise Refusal("InvalidAction", str(action))
        text = (f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>{inner}'
                f"</{action}Result><ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>"
                f"</{action}Response>")
        return Answer(200, text.encode(), {"x-amzn-RequestId": request_id}, "text/xml")

    def authenticate_sts(self, request):
        try:
            return self.authenticate(request, "sts")
        except Refusal as refusal:
            codes = {"UnrecognizedClientException": "InvalidClientTokenId",
                     "InvalidSignatureException": "SignatureDoesNotMatch",
                     "MissingAuthenticationTokenException": "MissingAuthenticationToken"}
            raise Refusal(codes.get(refusal.code, refusal.code), refusal.message, 403) from None

    def assume(self, request, form, by_web_identity):
        role_arn, session = form.get("RoleArn", ""), form.get("RoleSessionName", "")
        if not re.fullmatch(r"[\w+=,.@-]{2,64}", session) or form.get("Version") != "2011-06-15":
            raise Refusal("ValidationError", "RoleSessionName")
        role = self.roles.get(role_arn)
        if by_web_identity:
            if "authorization" in request.headers:
                raise Refusal("ValidationError", "not to be signed")
            if role is None or role.get("web_token") != form.get("WebIdentityToken"):
                raise Refusal("InvalidIdentityToken", "Couldn't retrieve verification key from your identity provider")
        else:
            identity, _ = self.authenticate_sts(request)
            refused = Refusal("AccessDenied", f"User: {identity.arn} is not authorized to perform: sts:AssumeRole on "
                                              f"resource: {role_arn}", 403)
            if role is None or ("external_id" in role and role["external_id"] != form.get("ExternalId")):
                raise refused
            if "trust" in role and identity.arn not in role["trust"]:
                raise refused
        arn = role_arn.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/") + "/" + session
        access_key, identity = self.issue(arn, role.get("allow"))
        return (f"<Credentials><AccessKeyId>{access_key}</AccessKeyId><SecretAccessKey>{identity.secret}"
                f"</SecretAccessKey><SessionToken>{identity.token}</SessionToken>"
                f"<Expiration>{iso(identity.expires)}</Expiration></Credentials>"
                f"<AssumedRoleUser><AssumedRoleId>AROA:{session}</AssumedRoleId><Arn>{arn}</Arn></AssumedRoleUser>")

    def issue(self, arn, allow):
        """Temporary credentials: (access key, Identity)."""
        access_key = "ASIA" + secrets.token_hex(8).upper()
        token = base64.b64encode(os.urandom(150)).decode()
        self.identities[access_key] = Identity(arn, base64.b64encode(os.urandom(30)).decode(), token,
                                               int(self.emulator.now() + self.lifetime), allow)
        return access_key, self.identities[access_key]

    # ---- metadata ----

    def credentials_json(self):
        access_key, identity = self.issue(f"arn:aws:sts::{ACCOUNT}:assumed-role/{self.instance_role}/i-0123", None)
        return {"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": access_key, "SecretAccessKey": identity.secret,
                "Token": identity.token, "Expiration": iso(identity.expires), "LastUpdated": iso(self.emulator.now())}

    def metadata(self, request):
        if request.method == "PUT" and request.path == "/latest/api/token":
            if not request.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "").isdigit():
                return Answer(400)
            token = secrets.token_urlsafe(40)
            self.metadata_tokens.add(token)
            return Answer(200, token.encode(), content_type="text/plain")
        if request.headers.get("x-aws-ec2-metadata-token") not in self.metadata_tokens:
            return Answer(401)
        base = "/latest/meta-data/iam/security-credentials/"
        if self.instance_role is None or request.method != "GET" or not request.path.startswith(base):
            return Answer(404)
        if request.path == base:
            return Answer(200, self.instance_role.encode(), content_type="text/plain")
        if request.path == base + self.instance_role:
            return Answer(200, self.credentials_json(), content_type="text/plain")
        return Answer(404)

    def container(self, request):
        if self.instance_role is None or request.headers.get("authorization") != self.container_token:
            return Answer(401, {"code": "AccessDenied", "message": "not you"})
        return Answer(200, self.credentials_json())

    # ---- control ----

    def control(self, order):
        """
        {"user": NAME, "access_key", "secret", "token"?, "expires"?, "allow"?}, {"role": ARN, "external_id", "allow", "trust", "web_token"},
        {"instance_role": NAME, "container_token"}, {"lifetime": S}, {"expire": true} ends all temporary credentials,
        {"import_pending": ARN}, {"enabled": ARN}, {"replicate": ARN, "region"}, {"destroy_now": ARN}.
        """
        if "user" in order:
            self.identities[order["access_key"]] = Identity(f"arn:aws:iam::{ACCOUNT}:user/{order['user']}",
                                                            order["secret"], order.get("token"), order.get("expires"),
                                                            order.get("allow"))
        elif "role" in order:
            self.roles[order["role"]] = order
        elif "instance_role" in order:
            self.instance_role, self.container_token = order["instance_role"], order.get("container_token")
        elif "lifetime" in order:
            self.lifetime = order["lifetime"]
        elif "expire" in order:
            for identity in self.identities.values():
                if identity.expires is not None:
                    identity.expires = 0
        elif "import_pending" in order:
            region = order["import_pending"].split(":")[3]
            key = self.find(order["import_pending"], region)
            key.state, key.origin = "PendingImport", "EXTERNAL"
        elif "enabled" in order:
            self.find(order["enabled"], order["enabled"].split(":")[3]).state = USABLE
        elif "destroy_now" in order:
            del self.keys[tuple(order["destroy_now"].replace("/", ":").split(":")[i] for i in (3, 6))]
        elif "replicate" in order:
            key = self.find(order["replicate"], order["replicate"].split(":")[3])
            self.keys[(order["region"], key.id)] = Key(key.id, order["region"], self.emulator.now(), key.materials,
                                                       multi_region=True, primary=key.primary)
        else:
            raise ValueError("no such order")
        return {}
