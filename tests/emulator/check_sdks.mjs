// SPDX-License-Identifier: GPL-3.0-or-later
// The clouds' own clients against the emulator: node check_sdks.mjs URL. One line a check; exit code 1 if any failed.
import assert from "node:assert";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const emulator = new URL(process.argv[2]);
const secret = Buffer.alloc(32, 7);

async function control(path, order) {
  const answer = await fetch(new URL("/_control/" + path, emulator), { method: "POST", body: JSON.stringify(order) });
  assert.strictEqual(answer.status, 200);
  return answer.json();
}

async function fails(promise, check) {
  let error = null;
  try {
    await promise;
  } catch (e) {
    error = e;
  }
  assert.ok(error, "it did not fail");
  assert.ok(check(error), `it failed otherwise: ${error} ${JSON.stringify(error)}`);
}

async function aws() {
  const { KMSClient, CreateKeyCommand, EncryptCommand, DecryptCommand, DescribeKeyCommand, DisableKeyCommand } =
    await import("@aws-sdk/client-kms");
  const client = new KMSClient({
    endpoint: emulator.href, region: "eu-central-1", maxAttempts: 1,
    credentials: { accessKeyId: "AKIDADMIN", secretAccessKey: "admin-secret" },
  });
  const { KeyMetadata } = await client.send(new CreateKeyCommand({}));
  const KeyId = KeyMetadata.Arn, EncryptionContext = { "cmekfs:volume": "v", "cmekfs:slot": "data" };
  const { CiphertextBlob } = await client.send(new EncryptCommand({ KeyId, Plaintext: secret, EncryptionContext }));
  const plain = await client.send(new DecryptCommand({ KeyId, CiphertextBlob, EncryptionContext }));
  assert.deepStrictEqual(Buffer.from(plain.Plaintext), secret);
  assert.strictEqual(plain.KeyId, KeyId);
  await fails(client.send(new DecryptCommand({ KeyId, CiphertextBlob, EncryptionContext: { "cmekfs:volume": "w" } })),
    (e) => e.name === "InvalidCiphertextException");
  await client.send(new DisableKeyCommand({ KeyId }));
  await fails(client.send(new DecryptCommand({ KeyId, CiphertextBlob, EncryptionContext })),
    (e) => e.name === "DisabledException");
  const described = await client.send(new DescribeKeyCommand({ KeyId }));
  assert.strictEqual(described.KeyMetadata.KeyState, "Disabled");
}

async function gcp() {
  const { KeyManagementServiceClient } = require("@google-cloud/kms");
  const { OAuth2Client } = require("google-auth-library");
  const name = "projects/p/locations/l/keyRings/r/cryptoKeys/sdk";
  const { token } = await control("gcp", { key: name, token: "sdk@p.iam.gserviceaccount.com" });
  const authClient = new OAuth2Client();
  authClient.setCredentials({ access_token: token });
  const client = new KeyManagementServiceClient({
    fallback: true, protocol: "http", apiEndpoint: emulator.hostname, port: Number(emulator.port), authClient,
  });
  const aad = Buffer.from("cmekfs:volume=v,cmekfs:slot=data");
  const crc32c = (bytes) => {
    let crc = 0xffffffff;
    for (const byte of bytes) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return String((crc ^ 0xffffffff) >>> 0);
  };
  const request = { name, plaintext: secret, additionalAuthenticatedData: aad };
  await fails(client.encrypt({ ...request, plaintextCrc32c: { value: "1" } }), (e) => /crc32c/.test(e.message));
  const [wrapped] = await client.encrypt({ ...request, plaintextCrc32c: { value: crc32c(secret) } });
  assert.strictEqual(wrapped.verifiedPlaintextCrc32c, true);
  assert.strictEqual(wrapped.ciphertextCrc32c.value, crc32c(wrapped.ciphertext));
  assert.strictEqual(wrapped.name, name + "/cryptoKeyVersions/1");
  const [plain] = await client.decrypt({ name, ciphertext: wrapped.ciphertext, additionalAuthenticatedData: aad });
  assert.deepStrictEqual(Buffer.from(plain.plaintext), secret);
  assert.strictEqual(plain.usedPrimary, true);
  await fails(client.decrypt({ name, ciphertext: wrapped.ciphertext }), (e) => e.code === 3 || e.status === "INVALID_ARGUMENT");
  const [version] = await client.createCryptoKeyVersion({ parent: name });
  assert.strictEqual(version.name, name + "/cryptoKeyVersions/2");
  await client.updateCryptoKeyPrimaryVersion({ name, cryptoKeyVersionId: "2" });
  const [older] = await client.decrypt({ name, ciphertext: wrapped.ciphertext, additionalAuthenticatedData: aad });
  assert.strictEqual(older.usedPrimary, false);
  const [versions] = await client.listCryptoKeyVersions({ parent: name });
  assert.deepStrictEqual(versions.map((v) => v.state), ["ENABLED", "ENABLED"]);
  await client.updateCryptoKeyVersion({
    cryptoKeyVersion: { name: name + "/cryptoKeyVersions/1", state: "DISABLED" }, updateMask: { paths: ["state"] },
  });
  await fails(client.decrypt({ name, ciphertext: wrapped.ciphertext, additionalAuthenticatedData: aad }),
    (e) => /current state is: DISABLED/.test(e.message));
  const [gone] = await client.destroyCryptoKeyVersion({ name: name + "/cryptoKeyVersions/1" });
  assert.strictEqual(gone.state, "DESTROY_SCHEDULED");
  const [key] = await client.getCryptoKey({ name });
  assert.strictEqual(key.primary.name, name + "/cryptoKeyVersions/2");
}

async function ibm() {
  const KeyProtect = require("@ibm-cloud/ibm-key-protect/ibm-key-protect-api/v2");
  const { IamAuthenticator } = require("@ibm-cloud/ibm-key-protect/auth");
  const instance = "8e19aaff-df40-4623-bef2-86cb19a9d8bd";
  const { crn } = await control("ibm", { key: { instance, account: "0123", region: "eu-de" } });
  const id = crn.split(":").pop();
  const client = new KeyProtect({
    authenticator: new IamAuthenticator({ apikey: "ibm-admin-key", url: emulator.origin }), serviceUrl: emulator.origin,
  });
  const action = { id, bluemixInstance: instance };
  const aad = ["cmekfs:volume=v", "cmekfs:slot=data"];
  const body = (fields) => Buffer.from(JSON.stringify(fields));
  const wrapped = await client.wrapKey({ ...action, keyActionWrapBody: body({ plaintext: secret.toString("base64"), aad }) });
  const ciphertext = wrapped.result.ciphertext;
  const plain = await client.unwrapKey({ ...action, keyActionUnwrapBody: body({ ciphertext, aad }) });
  assert.strictEqual(plain.result.plaintext, secret.toString("base64"));
  assert.strictEqual(plain.result.ciphertext, undefined);
  await fails(client.unwrapKey({ ...action, keyActionUnwrapBody: body({ ciphertext, aad: ["x"] }) }), (e) => e.status === 422);
  await client.rotateKey({ ...action, keyActionRotateBody: body({}) });
  const fresher = await client.unwrapKey({ ...action, keyActionUnwrapBody: body({ ciphertext, aad }) });
  assert.ok(fresher.result.ciphertext && fresher.result.rewrappedKeyVersion.id !== fresher.result.keyVersion.id);
  const again = await client.rewrapKey({ ...action, keyActionRewrapBody: body({ ciphertext, aad }) });
  assert.ok(again.result.ciphertext);
  const metadata = await client.getKeyMetadata(action);
  assert.strictEqual(metadata.result.resources[0].state, 1);
  await client.disableKey(action);
  await fails(client.unwrapKey({ ...action, keyActionUnwrapBody: body({ ciphertext, aad }) }), (e) => e.status === 409);
}

let failed = 0;
for (const [name, check] of Object.entries({ "@aws-sdk/client-kms": aws, "@google-cloud/kms": gcp,
                                              "@ibm-cloud/ibm-key-protect": ibm })) {
  try {
    await check();
    console.log(`PASS: ${name}`);
  } catch (e) {
    failed++;
    console.log(`FAIL: ${name}: ${e.stack}`);
  }
}
process.exit(failed ? 1 : 0);
