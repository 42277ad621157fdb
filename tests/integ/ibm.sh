#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Volumes whose key is in IBM Key Protect, against the emulator: from nothing to a mount, every source of credentials,
# each state of the key with its exit code, the rules of deletion, and what goes wrong on the way.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=../emulator/lib.sh
. "$HERE/../emulator/lib.sh"
# shellcheck source=../emulator/service.sh
. "$HERE/../emulator/service.sh"
need_cmekfs
need_root
need_fuse

emulator_start
ibm_env
instance=8e19aaff-df40-4623-bef2-86cb19a9d8bd account=0123456789abcdef0123456789abcdef
# new_key [MORE]: the CRN of a key that is there.
new_key() {
	emulate ibm "{\"key\": {\"instance\": \"$instance\", \"account\": \"$account\", \"region\": \"eu-de\" $*}}" |
		sed 's/.*"crn": "\([^"]*\)".*/\1/'
}
ctl() { "$CTL" key "$@"; }
ctl_code() { expect_code "$1" "$CTL" key "${@:2}"; }
as() { emulate log | grep -q "\"operation\": \"unwrap\", \"status\": 200, \"who\": \"$1\"" || fail "not as $1: $(emulate log)"; }
clock() { emulate clock "{\"offset\": $1}" >/dev/null; }

say "from nothing to a mount"
ctl create --name db "crn:v1:bluemix:public:kms:eu-de:a/$account:$instance::" >"$T/out"
expect_text "its full name: crn:v1:.*:$instance:key:"
crn=$(sed -n 's/^its full name: //p' "$T/out")
"$MKFS" --key "$crn" "$store" >"$T/mkfs.out"
grep -q "slot 0  $crn, version " "$T/mkfs.out" || fail "not the key's CRN: $(cat "$T/mkfs.out")"
start_daemon "$store" "$mnt"
echo content >"$mnt/file"
stop "$store" "$mnt"
emulate log DELETE >/dev/null
opens
[ "$(asked unwrap)" -eq 1 ] || fail "a mount asked for $(asked unwrap) unwraps"
opens -o key="$crn"
"$CTL" slot test "$crn" >"$T/out"
expect_text "iam-ServiceId-admin, by an API key in IBMCLOUD_API_KEY"
say "what is no full CRN of a root key"
expect_code $USAGE "$MKFS" --key "${crn##*:}" "$SHM/none"
expect_text "neither in which region nor in which instance"
expect_code $USAGE "$MKFS" --key "crn:v1:bluemix:public:kms:eu-de:a/$account:$instance::" "$SHM/none"
expect_text "names an instance"
standard=$(new_key ', "extractable": true')
ctl_code $USAGE describe "$standard"
expect_text "root key is needed"
ctl_code $NOT_FOUND describe "${crn%:*}:00000000-0000-4000-8000-000000000000"

say "versions: rewrapped by the service"
clock 10
ctl rotate "$crn"
ctl_code $BUSY rotate "$crn"
expect_text "once per hour"
version() { "$CTL" header dump "$store" | grep "version:  "; }
before=$(version)
sha256sum "$store"/.cmekfs/header.* >"$T/headers"
opens -o ro
sha256sum --quiet -c "$T/headers" || fail "a read-only mount has changed the header"
say "a fresher blob that does not hold the key is not taken"
fault '{"kind": "wrong_plaintext", "operation": "unwrap", "count": 1, "after": 1}'
: >"$T/mnt.mount.log"
opens
no_faults
grep -q "stays wrapped under version" "$T/mnt.mount.log" || fail "not said: $(cat "$T/mnt.mount.log")"
[ "$(version)" = "$before" ] || fail "taken all the same"
say "the unwrapping's fresher blob goes into the header"
: >"$T/mnt.mount.log"
opens
grep -q "key slot 0 is now wrapped under version" "$T/mnt.mount.log" || fail "not said: $(cat "$T/mnt.mount.log")"
[ "$(version)" != "$before" ] || fail "still under $before"
emulate log DELETE >/dev/null
opens
[ "$(asked unwrap)" -eq 1 ] || fail "the header has a stale blob: a mount asked for $(asked unwrap) unwraps"
say "and that of an unlocking"
before=$(version)
start_daemon "$store" "$mnt"
clock 4000
ctl rotate "$crn"
"$CTL" lock "$mnt" >/dev/null
"$CTL" unlock "$mnt" >/dev/null
[ "$(version)" != "$before" ] || fail "still under $before"
[ "$(cat "$mnt/file")" = content ] || fail "the content is not there"
stop "$store" "$mnt"
clock 8000
ctl rotate "$crn"
emulate log DELETE >/dev/null
"$CTL" rewrap "$store" >"$T/out"
[ "$(asked rewrap)" -ge 1 ] || fail "it was not rewrapped by the service: $(emulate log)"
opens
ctl describe "$crn" >"$T/out"
expect_text "KEY_PROTECT \(HSM\)" "primary"

say "states of the key"
ctl disable "$crn"
refused $KEY_DISABLED
expect_text "KEY_ACTION_INVALID_STATE_ERR" "the key is disabled" "request id" "cmekctl key enable"
expect_code $KEY_DISABLED "$MKFS" --key "$crn" "$SHM/none"
ctl_code $BUSY enable "$crn"
expect_text "wait 30 seconds" "wait as long as it says"
clock 8100
ctl enable "$crn"
opens
say "a conflict is no revocation unless the key's metadata says so"
fault '{"kind": "code", "status": 409, "code": "KEY_ACTION_INVALID_STATE_ERR", "operation": "metadata"}'
fault '{"kind": "code", "status": 409, "operation": "unwrap"}'
refused $BUSY
no_faults

say "registrations and deletion"
ctl registrations "$crn" >"$T/out"
expect_text "nothing is registered"
emulate ibm "{\"change\": \"$crn\", \"registrations\": [{\"resourceCrn\": \"crn:v1:bucket\", \"description\": \"a bucket\",
	\"preventKeyDeletion\": true}]}" >/dev/null
ctl registrations "$crn" >"$T/out"
expect_text "crn:v1:bucket +.prevents the key's deletion" "a bucket"
ctl_code $BUSY schedule-deletion "$crn"
expect_text "PREV_KEY_DEL_ERR" "cmekctl key registrations"
ctl_code $BUSY schedule-deletion --force with-registrations "$crn"
ctl_code $USAGE schedule-deletion --force yes "$crn"
expect_text "--force with-registrations"
ctl_code $USAGE schedule-deletion --days 7 "$crn"
emulate ibm "{\"change\": \"$crn\", \"dual_auth\": true, \"registrations\": []}" >/dev/null
ctl describe "$crn" >"$T/out"
expect_text "two people"
ctl_code $DENIED schedule-deletion "$crn"
expect_text "AUTHORIZATIONS_NOT_MET"
emulate ibm "{\"change\": \"$crn\", \"dual_auth\": false, \"registrations\": [{\"resourceCrn\": \"crn:v1:bucket\"}]}" >/dev/null
ctl_code $BUSY schedule-deletion "$crn"
expect_text "PROTECTED_RESOURCE_ERR"
ctl schedule-deletion --force with-registrations "$crn" >"$T/out"
expect_text "will be destroyed on"
refused $PENDING_DELETION
expect_text "it can be restored until" "KeyPurge role may purge it from" "the service purges it on"
ctl_code $BUSY cancel-deletion "$crn"
clock 8200
ctl cancel-deletion "$crn" >"$T/out"
expect_text "it is enabled"
opens

say "not permitted"
emulate ibm '{"roles": "iam-ServiceId-admin", "are": ["Writer"]}' >/dev/null
refused $DENIED
expect_text "does not have access" "HTTP 401"
emulate ibm '{"roles": "iam-ServiceId-admin", "are": ["Reader"]}' >/dev/null
opens
ctl_code $DENIED disable "$crn"
emulate ibm '{"roles": "iam-ServiceId-admin", "are": null}' >/dev/null

faults_of_a_service unwrap "Too Many Requests|HTTP 429" '"code", "status": 422, "code": "UNPROCESSABLE_CIPHERTEXT_ERR"'
say "what Key Protect may answer besides"
fault '{"kind": "unavailable", "operation": "unwrap", "count": 1}'
opens
fault '{"kind": "wrong_key", "operation": "metadata"}'
ctl_code $TAMPERED describe "$crn"
expect_text "another key answered"
no_faults
moved_blobs "$crn" "$(new_key)"
tls_of_a_service

say "an API key"
IBMCLOUD_API_KEY=unknown refused $EXPIRED
expect_text "BXNIM0415E" "could not be found"
(
	unset IBMCLOUD_API_KEY
	refused $EXPIRED
	expect_text "IBMCLOUD_API_KEY" "trusted_profile"
	mkdir "$T/loaded"
	(umask 077 && echo ibm-admin-key >"$T/loaded/ibm-api-key")
	CREDENTIALS_DIRECTORY=$T/loaded opens
	cp "$CMEKFS_CONFIG" "$T/file.conf"
	sed -i "s,^\[ibm\],&\napi_key_file = $T/loaded/ibm-api-key," "$T/file.conf"
	opens -o config="$T/file.conf"
)

say "a trusted profile"
profile=Profile-11112222-3333
emulate ibm "{\"profile\": \"$profile\", \"compute_token\": \"pod token\", \"assumers\": [\"iam-ServiceId-admin\"]}" >/dev/null
ctl_code $DENIED describe --trusted-profile Profile-none "$crn"
ctl_code $USAGE describe --trusted-profile "no id" "$crn"
"$MKFS" --trusted-profile $profile --key "$crn" "$SHM/other" >/dev/null
emulate log DELETE >/dev/null
start_daemon "$SHM/other" "$mnt"
stop "$SHM/other" "$mnt"
as $profile
(
	unset IBMCLOUD_API_KEY
	say "a trusted profile by a compute resource token"
	(umask 077 && echo "pod token" >"$T/token")
	sed -i "s,^\[ibm\],&\ncompute_token_file = $T/token\ntrusted_profile = $profile," "$CMEKFS_CONFIG"
	emulate log DELETE >/dev/null
	opens
	as $profile
	echo "another" >"$T/token"
	refused $EXPIRED
	expect_text "$profile" "BXNIM0513E"
	rm "$T/token"
	refused $EXPIRED
	say "a trusted profile by the metadata service"
	sed -i '/^compute_token_file/d' "$CMEKFS_CONFIG"
	emulate log DELETE >/dev/null
	opens
	as $profile
)

say "expired for good"
ctl schedule-deletion "$crn" >/dev/null
clock $((40 * 86400))
# The deletion was 40 days ago, as the service and this machine see it.
emulate ibm "{\"change\": \"$crn\", \"deleted\": $(($(date +%s) - 40 * 86400))}" >/dev/null
refused $KEY_DESTROYED
expect_text "could be restored until"
# And purged: nothing of it is left to be found.
emulate ibm "{\"change\": \"$crn\", \"deleted\": $(($(date +%s) - 100 * 86400))}" >/dev/null
refused $KEY_DESTROYED
expect_text "KEY_NOT_FOUND_ERR" "destroyed and purged"
ctl_code $NOT_FOUND describe "$crn"
emulate ibm "{\"change\": \"$crn\", \"deleted\": $(($(date +%s) - 40 * 86400))}" >/dev/null
clock 0
ctl describe "$crn" >"$T/out"
expect_text "state: +destroyed"
emulator_stop
refused $UNREACHABLE
