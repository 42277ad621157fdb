#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Volumes whose key is in Google Cloud KMS, against the emulator: from nothing to a mount, every source of credentials,
# each state of the key with its exit code, and what goes wrong on the way.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=../emulator/lib.sh
. "$HERE/../emulator/lib.sh"
# shellcheck source=../emulator/service.sh
. "$HERE/../emulator/service.sh"
need_cmekfs
need_root
need_fuse
need jq

emulator_start
gcp_env
name=projects/p1/locations/europe-west3/keyRings/r1/cryptoKeys/db
key=gcp-kms://$name
admin=admin@p1.iam.gserviceaccount.com

ctl() { "$CTL" key "$@"; }
ctl_code() { expect_code "$1" "$CTL" key "${@:2}"; }
as() { emulate log | grep -q "\"operation\": \"decrypt\", \"status\": 200, \"who\": \"$1\"" || fail "not as $1: $(emulate log)"; }

say "from nothing to a mount"
ctl_code $NOT_FOUND describe "$key"
ctl create "$key"
ctl_code $EXISTS create "$key"
"$MKFS" --key "$key" "$store" >"$T/mkfs.out"
grep -q "slot 0  $name, version 1" "$T/mkfs.out" || fail "not the key's name: $(cat "$T/mkfs.out")"
start_daemon "$store" "$mnt"
echo content >"$mnt/file"
stop "$store" "$mnt"
emulate log DELETE >/dev/null
opens
[ "$(asked decrypt)" -eq 1 ] || fail "a mount asked for $(asked decrypt) unwraps"
[ "$(asked encrypt)" -eq 0 ] || fail "a mount wrapped"
(
	conf=$CMEKFS_CONFIG
	unset CMEKFS_CONFIG
	opens -o config="$conf"
)
opens -o key="$name"
opens -o key="$key"
expect_code $USAGE "$MKFS" --key "$key/cryptoKeyVersions/1" "$SHM/none"
expect_text "one version of a key"

"$CTL" slot test "$key" >"$T/out"
expect_text "service account $admin, by $T/gcp-sa.json"

say "versions"
ctl rotate "$key"
ctl rotate "$key"
opens -o ro # it changes nothing
ctl describe --json "$key" >"$T/out"
expect_text '"primary_version": "3"' '"version": "1"'
emulate log DELETE >/dev/null
"$CTL" rewrap "$store" >"$T/out"
[ "$(asked encrypt)" -ge 1 ] || fail "it was not wrapped again: $(emulate log)"
"$CTL" status "$store" >"$T/out"
expect_text "enabled +3"
opens
ctl rotate "$key"
: >"$T/mnt.mount.log"
opens
grep -q "key slot 0 is now wrapped under version 4" "$T/mnt.mount.log" || fail "not said: $(cat "$T/mnt.mount.log")"
emulate log DELETE >/dev/null
opens
[ "$(asked encrypt)" -eq 0 ] || fail "the header has a stale blob: $(emulate log)"

say "while it is mounted: a newer version is taken up, and the one that is needed still is looked after"
turning=gcp-kms://${name%/*}/turning
ctl create "$turning"
"$MKFS" --key "$turning" "$SHM/turning" >/dev/null
turned() { "$CTL" status --json "$mnt" | jq -r "$1"; }
turned_is() { [ "$(turned "$1")" = "$2" ]; }
start "$SHM/turning" "$mnt" -o auto_rewrap,watch_interval=100ms,watch_retry=100ms,watch_on_disabled=ignore
ctl rotate "$turning"
wait_for 60 turned_is '.mount.volume.slots[0].version' 2 || fail "not wrapped anew: $(tail -n 5 "$T/mnt.mount.log")"
"$CTL" watch "$mnt" auto_rewrap=no >/dev/null
turned_is '.mount.watch.slots[0].version_state' null || fail "$(turned .mount.watch)"
ctl disable "$turning"
wait_for 60 turned_is '.mount.watch.slots[0].version_state' disabled || fail "not seen: $(turned .mount.watch)"
ctl rotate "$turning" # the key is enabled again, version 2 is not
wait_for 60 turned_is '.mount.watch.slots[0].newer_version' 3 || fail "not seen: $(turned .mount.watch)"
turned_is '.mount.watch.slots[0].version_state' disabled || fail "$(turned .mount.watch)"
turned_is '.mount.watch.state' disabled || fail "$(turned .mount.watch)"
grep -q "version 2 of the key of slot 0, which the header needs, is disabled" "$T/mnt.mount.log" || fail "not said"
"$CTL" metrics "$mnt" | $PYTHON "$HERE/promtext.py" cmekfs_key_slot_version_at_risk slot=0 | grep -qx 1 || fail "no metric"
risk='.event == "key.version-state" and .slot == 0 and .version == "2" and .state == "disabled"'
jq -e -s "any($risk)" "$CMEKFS_AUDIT_LOG" >/dev/null || fail "no event"
calls='.event == "kms.call" and .program == "cmekfs" and .operation == "wrap" and .outcome == "success" and .version == "2"'
jq -e -s "any($calls)" "$CMEKFS_AUDIT_LOG" >/dev/null || fail "no call: $(jq -c 'select(.event == "kms.call")' "$CMEKFS_AUDIT_LOG")"
stop "$SHM/turning" "$mnt"

say "states of the key"
ctl disable "$key"
refused $KEY_DISABLED
expect_text "$name" "KEY_DISABLED" "cmekctl key enable"
expect_code $KEY_DISABLED "$MKFS" --key "$key" "$SHM/none"
ctl enable "$key"
opens
ctl schedule-deletion "$key" >"$T/out"
expect_text "will be destroyed on"
refused $PENDING_DELETION
expect_text "cancel-deletion"
ctl_code $USAGE schedule-deletion --days 5 "$key"
expect_text "destroyScheduledDuration"
ctl cancel-deletion "$key" >"$T/out"
expect_text "it is disabled"
refused $KEY_DISABLED
ctl enable "$key"
opens
say "a refusal that names no state: the key's record does"
ctl disable "$key"
fault '{"kind": "code", "code": "FAILED_PRECONDITION", "message": "no.", "operation": "decrypt"}'
refused $KEY_DISABLED
expect_text "its primary version is disabled"
ctl enable "$key"
refused 5
no_faults
opens

say "not permitted"
emulate gcp "{\"grant\": \"$admin\", \"permissions\": [\"cloudkms.cryptoKeyVersions.useToDecrypt\"]}" >/dev/null
opens
ctl describe "$key" >"$T/out"
expect_text "state: +unknown" "cloudkms.cryptoKeys.get"
expect_code $DENIED "$MKFS" --key "$key" "$SHM/none"
expect_text "cloudkms.cryptoKeyVersions.useToEncrypt"
expect_code $DENIED "$CTL" slot test "$key"
expect_text "cloudkms.cryptoKeyVersions.useToEncrypt"
emulate gcp "{\"grant\": \"$admin\", \"permissions\": []}" >/dev/null
refused $DENIED
expect_text "useToDecrypt" "HTTP 403"
emulate gcp "{\"grant\": \"$admin\", \"permissions\": null}" >/dev/null

faults_of_a_service decrypt RESOURCE_EXHAUSTED '"code", "code": "INVALID_ARGUMENT", "message": "Decryption failed"'
say "what Google Cloud may answer besides"
fault '{"kind": "unavailable", "operation": "decrypt", "count": 1}'
opens
fault '{"kind": "wrong_crc", "operation": "decrypt", "count": 2}'
opens
fault '{"kind": "bad_request_crc", "operation": "decrypt", "count": 2}'
opens
fault '{"kind": "wrong_crc", "operation": "decrypt"}'
refused $BAD_FORMAT
expect_text "changed on its way: plaintextCrc32c"
no_faults
for kind in unverified wrong_crc; do
	fault "{\"kind\": \"$kind\", \"operation\": \"encrypt\"}"
	expect_code $BAD_FORMAT "$MKFS" --key "$key" "$SHM/none"
	expect_text "changed on its way"
	no_faults
done
fault '{"kind": "wrong_key", "operation": "encrypt"}'
expect_code $TAMPERED "$MKFS" --key "$key" "$SHM/none"
expect_text "another key answered"
no_faults
ctl create "$name-2" >/dev/null
moved_blobs "$key" "$name-2"
tls_of_a_service

say "credentials: the machine's own"
sed -i '/^credentials_file/d' "$CMEKFS_CONFIG"
emulate gcp '{"machine": "vm@p1.iam.gserviceaccount.com"}' >/dev/null
emulate log DELETE >/dev/null
opens
as vm@p1.iam.gserviceaccount.com
fault '{"kind": "no_flavor", "operation": "Metadata"}'
refused $BAD_FORMAT
expect_text "not a metadata server"
no_faults
emulate gcp '{"machine": null}' >/dev/null
refused $EXPIRED
expect_text "no service account" "GOOGLE_APPLICATION_CREDENTIALS"

say "a service account's key"
emulate log DELETE >/dev/null
GOOGLE_APPLICATION_CREDENTIALS=$T/gcp-sa.json opens
as "$admin"
cp "$T/gcp-sa.json" "$T/open.json"
chmod 644 "$T/open.json"
GOOGLE_APPLICATION_CREDENTIALS=$T/open.json expect_code 0 "$CTL" key describe "$key"
expect_text "open.json.*others"
sed 's/admin@p1/stranger@p1/' "$T/gcp-sa.json" >"$T/stranger.json"
chmod 600 "$T/stranger.json"
GOOGLE_APPLICATION_CREDENTIALS=$T/stranger.json refused $EXPIRED
expect_text "stranger@p1" "invalid_grant" "account not found"
emulate clock '{"offset": 7200}' >/dev/null
GOOGLE_APPLICATION_CREDENTIALS=$T/gcp-sa.json refused $EXPIRED
expect_text "reasonable timeframe"
emulate clock '{"offset": 0}' >/dev/null
echo '{"type": "service_account", "client_email": "x", "private_key": "no"}' >"$T/bad.json"
echo '{"type": "external_account"}' >"$T/external.json"
chmod 600 "$T/bad.json" "$T/external.json"
GOOGLE_APPLICATION_CREDENTIALS=$T/bad.json refused $BAD_FORMAT
GOOGLE_APPLICATION_CREDENTIALS=$T/external.json refused $UNSUPPORTED
expect_text "external.json: .*workload identity federation.* not supported: give those of a service account"
GOOGLE_APPLICATION_CREDENTIALS=$T/none.json refused $EXPIRED
expect_text "none.json"

say "a user, in gcloud's own file and as systemd hands it over"
mkdir -p "$T/gcloud" "$T/loaded"
cat >"$T/gcloud/application_default_credentials.json" <<-END
	{"type": "authorized_user", "client_id": "id", "client_secret": "s&c=ret", "refresh_token": "1//refresh",
	 "token_uri": "$EMU_HTTP/gcp/token", "quota_project_id": "payer"}
END
chmod 600 "$T/gcloud/application_default_credentials.json"
cp -p "$T/gcloud/application_default_credentials.json" "$T/loaded/gcp-credentials.json"
emulate gcp '{"user": {"email": "user:me", "refresh_token": "1//refresh", "client_id": "id", "client_secret": "s&c=ret"}}' >/dev/null
emulate log DELETE >/dev/null
CLOUDSDK_CONFIG=$T/gcloud opens
as user:me
emulate log DELETE >/dev/null
CREDENTIALS_DIRECTORY=$T/loaded opens
as user:me
sed -i 's/1\/\/refresh/1\/\/revoked/' "$T/gcloud/application_default_credentials.json"
CLOUDSDK_CONFIG=$T/gcloud refused $EXPIRED
expect_text "expired or revoked"

say "acting as another account"
other=volumes@p1.iam.gserviceaccount.com
export GOOGLE_APPLICATION_CREDENTIALS=$T/gcp-sa.json
expect_code $DENIED "$MKFS" --service-account $other --key "$key" "$SHM/none"
expect_text "acting as $other" "getAccessToken"
emulate gcp "{\"impersonator\": \"$admin\", \"accounts\": [\"$other\"]}" >/dev/null
rm -rf "$SHM/other"
"$MKFS" --service-account $other --key "$key" "$SHM/other" >/dev/null
emulate log DELETE >/dev/null
start_daemon "$SHM/other" "$mnt"
stop "$SHM/other" "$mnt"
as $other
cat >"$T/wrapped.json" <<-END
	{"type": "impersonated_service_account", "source_credentials": $(cat "$T/gcp-sa.json"),
	 "service_account_impersonation_url": "$EMU_HTTP/v1/projects/-/serviceAccounts/$other:generateAccessToken"}
END
chmod 600 "$T/wrapped.json"
emulate log DELETE >/dev/null
GOOGLE_APPLICATION_CREDENTIALS=$T/wrapped.json opens
as $other
ctl_code $USAGE describe --service-account "no address" "$key"

say "destroyed for good"
ctl schedule-deletion "$key" >/dev/null
emulate gcp "{\"destroy_now\": \"$name\"}" >/dev/null
refused $KEY_DESTROYED
expect_text "destroyed"
ctl describe "$key" >"$T/out"
expect_text "state: +destroyed"
emulator_stop
refused $UNREACHABLE
