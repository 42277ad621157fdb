#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Volumes whose key is in AWS KMS, against the emulator: from nothing to a mount, each state of the key with its exit
# code, and what goes wrong on the way. Credentials have a test of their own, aws_creds.
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
aws_env
key=aws-kms://alias/db

say "from nothing to a mount"
"$CTL" key create "$key"
expect_code 4 "$CTL" key create "$key"
"$MKFS" --key "$key" "$store" >"$T/mkfs.out"
arn=$("$CTL" key describe --json "$key" | sed -n 's/^  "key": "\(.*\)",$/\1/p')
grep -q "slot 0  $arn" "$T/mkfs.out" || fail "the alias was not resolved: $(cat "$T/mkfs.out")"
start_daemon "$store" "$mnt"
echo content >"$mnt/file"
stop "$store" "$mnt"
grep '"event":"kms.call","outcome":"success"' "$CMEKFS_AUDIT_LOG" | grep -Eq '"request_id":"[^"]+"' ||
	fail "no call in the audit log: $(cat "$CMEKFS_AUDIT_LOG")"
emulate log DELETE >/dev/null
opens
[ "$(asked Decrypt)" -eq 1 ] || fail "a mount asked for $(asked Decrypt) unwraps"
opens -o key="$arn"
opens -o key="aws-kms://$arn"

say "a dry run"
"$CTL" slot test "$key" >"$T/out"
expect_text "^identity +ok .*user/admin \\(the environment\\)" "^describe +ok .*$arn: enabled" "^wrap +ok" "^unwrap +ok" "^binding +ok"

fault '{"kind": "reset", "operation": "GetCallerIdentity"}' # STS need not be reachable
"$CTL" slot test "$key" >"$T/out"
expect_text "^identity +left-out" "^binding +ok"
no_faults

say "a volume's section in the configuration"
printf '[volume db]\nstore = %s\nkey = %s\nprofile = p\n[aws p]\nregion = eu-central-1\n' "$store" "$arn" >"$CMEKFS_CONFIG"
opens
"$CMEKFS" db "$mnt"
stop db "$mnt"
sed -i 's/^key = .*/key = local:other/' "$CMEKFS_CONFIG"
expect_code $MISMATCH "$CMEKFS" db "$mnt"
opens -o key="$arn"
expect_code $USAGE "$CMEKFS" "$store" "$mnt" -o key="$arn",profile=none
expect_text "no profile 'none'"
: >"$CMEKFS_CONFIG"

say "a new version, and a re-wrap in the KMS"
"$CTL" key rotate "$key"
opens
emulate log DELETE >/dev/null
"$CTL" rewrap "$store" >/dev/null
[ "$(asked ReEncrypt)" -ge 1 ] || fail "it was not re-wrapped by AWS: $(emulate log)"
opens

say "states of the key"
"$CTL" key disable "$key"
refused $KEY_DISABLED
expect_text "$arn" "disabled" "request id" "cmekctl key enable"
expect_code $KEY_DISABLED "$MKFS" --key "$key" "$SHM/none"
"$CTL" key enable "$key"
opens
"$CTL" key schedule-deletion --days 7 "$key"
refused $PENDING_DELETION
expect_text "will be deleted on" "cancel-deletion"
expect_code $USAGE "$CTL" key schedule-deletion --days 5 "$key"
"$CTL" key cancel-deletion "$key"
refused $KEY_DISABLED
"$CTL" key enable "$key"
opens
emulate aws "{\"import_pending\": \"$arn\"}" >/dev/null
refused $KEY_DISABLED
expect_text "PendingImport"
emulate aws "{\"enabled\": \"$arn\"}" >/dev/null
opens

say "not permitted"
emulate aws '{"user": "nobody", "access_key": "AKIDNOBODY", "secret": "s", "allow": []}' >/dev/null
AWS_ACCESS_KEY_ID=AKIDNOBODY AWS_SECRET_ACCESS_KEY=s expect_code $DENIED "$CTL" slot test "$key"
expect_text "^identity +ok .*user/nobody" "^describe +left-out" "^wrap +failed .*kms:Encrypt"
AWS_ACCESS_KEY_ID=AKIDNOBODY AWS_SECRET_ACCESS_KEY=s expect_code $DENIED "$MKFS" --key "$key" "$SHM/none"
expect_text "trying $key" "^wrap +failed .*kms:Encrypt"
AWS_ACCESS_KEY_ID=AKIDNOBODY AWS_SECRET_ACCESS_KEY=s refused $DENIED
expect_text "user/nobody is not authorized to perform: kms:Decrypt"
say "a seat for one volume: the policy names it before it is there"
seat=6ba7b810-9dad-11d1-80b4-00c04fd430c8
emulate aws "{\"user\": \"seat\", \"access_key\": \"AKIDSEAT\", \"secret\": \"s\", \"allow\": [
	{\"actions\": [\"kms:DescribeKey\"]},
	{\"actions\": [\"kms:Decrypt\", \"kms:Encrypt\"], \"context\": {\"cmekfs:volume\": [\"$seat\"]}}]}" >/dev/null
(
	export AWS_ACCESS_KEY_ID=AKIDSEAT AWS_SECRET_ACCESS_KEY=s
	"$MKFS" --key "$key" --uuid $seat "$SHM/seat" >/dev/null
	expect_code $DENIED "$MKFS" --key "$key" "$SHM/other"
	refused $DENIED
)
"$CTL" key policy --volume $seat "aws-kms://$arn" >"$T/out"
expect_text '"kms:EncryptionContext:cmekfs:volume"' "$seat" "\"Resource\": \"$arn\"" '"kms:Decrypt"'

say "credentials that are not good"
AWS_SECRET_ACCESS_KEY=wrong refused $EXPIRED
expect_text "InvalidSignatureException" "the environment"
AWS_ACCESS_KEY_ID=AKIDUNKNOWN refused $EXPIRED
fault '{"kind": "expired", "operation": "Decrypt"}'
refused $EXPIRED
no_faults

faults_of_a_service Decrypt ThrottlingException '"code", "code": "InvalidCiphertextException"'
say "what AWS may answer besides"
fault '{"kind": "wrong_key", "operation": "Decrypt"}'
refused $TAMPERED
expect_text "asked of $arn, and .*0000 has answered"
no_faults
# code CODE EXIT TEXT
code() {
	fault "{\"kind\": \"code\", \"code\": \"$1\", \"operation\": \"Decrypt\"}"
	refused "$2"
	expect_text "$1" "$3"
	no_faults
}
code IncorrectKeyException $TAMPERED "try: find out who changed it"
code InvalidKeyUsageException $UNSUPPORTED "try: use a version"
code LimitExceededException $LIMIT "$arn"
code NotFoundException $KEY_DESTROYED "has been deleted, or its name was changed"
code DisabledException $KEY_DISABLED "try: 'cmekctl key enable"
code ValidationException $USAGE "$arn"
code UnknownExceptionOfTomorrow $BAD_FORMAT "try: check the endpoint"
kms_says "attempts = 2"
code DependencyTimeoutException $UNREACHABLE "2 attempts"
code KeyUnavailableException $UNREACHABLE "2 attempts"
kms_says "attempts = 5"
expect_code $NOT_FOUND "$CTL" key describe aws-kms://alias/none
expect_text "NotFoundException"
moved_blobs "$arn" "$(second=aws-kms://alias/second && "$CTL" key create $second >/dev/null && "$CTL" key describe --json $second |
	sed -n 's/^  "key": "\(.*\)",$/\1/p')"

say "a KMS that is gone"
AWS_ENDPOINT_URL=http://127.0.0.1:1 refused $UNREACHABLE
: >"$CMEKFS_CONFIG"

say "clocks that differ"
emulate clock '{"offset": 1200}' >/dev/null
opens
emulate clock '{"offset": -1200}' >/dev/null
opens
emulate clock '{"offset": 0}' >/dev/null

say "TLS"
cat >"$CMEKFS_CONFIG" <<CONF
[aws]
endpoint = $EMU_HTTPS
ca_file = $EMU/ca.pem
CONF
opens
sed -i "s,ca.pem,other-ca.pem," "$CMEKFS_CONFIG"
refused $UNREACHABLE
expect_text "certificate"
echo "endpoint = $EMU_HTTPS" | sed '1i [aws]' >"$CMEKFS_CONFIG"
refused $UNREACHABLE
AWS_CA_BUNDLE=$EMU/ca.pem opens
say "a proxy"
printf '[aws]\nendpoint = http://127.0.0.1:1\nproxy = %s\n' "$EMU_HTTP" >"$CMEKFS_CONFIG"
opens
say "http is for this machine only"
printf '[aws]\nendpoint = http://192.0.2.1\n' >"$CMEKFS_CONFIG"
refused $USAGE
say "mistakes in the configuration"
printf '[aws]\nregoin = x\n' >"$CMEKFS_CONFIG"
expect_code $USAGE "$CMEKFS" "$store" "$mnt"
expect_text "cmekfs.conf:2: \"regoin\""
: >"$CMEKFS_CONFIG"

say "another key in the slot's place is refused"
expect_code $MISMATCH "$CMEKFS" "$store" "$mnt" -o key=arn:aws:kms:eu-central-1:111122223333:key/other

say "a key of several Regions opens in the other one"
"$CTL" key create --multi-region aws-kms://alias/everywhere
mrk=$("$CTL" key describe --json aws-kms://alias/everywhere | sed -n 's/^  "key": "\(.*\)",$/\1/p')
emulate aws "{\"replicate\": \"$mrk\", \"region\": \"us-east-1\"}" >/dev/null
mkdir "$SHM/mrk"
"$MKFS" --key "$mrk" "$SHM/mrk" >/dev/null
"$CTL" key disable "$mrk"
expect_code $KEY_DISABLED "$CMEKFS" "$SHM/mrk" "$mnt"
printf '[aws]\nreplica_region = us-east-1\n' >"$CMEKFS_CONFIG"
start_daemon "$SHM/mrk" "$mnt"
stop "$SHM/mrk" "$mnt"
: >"$CMEKFS_CONFIG"

say "two keys: the second serves when the first is denied, and that is said"
"$CTL" key create local:spare
mkdir "$SHM/two"
"$MKFS" --key "$key" --key local:spare "$SHM/two" >/dev/null
AWS_ACCESS_KEY_ID=AKIDNOBODY AWS_SECRET_ACCESS_KEY=s start_daemon "$SHM/two" "$mnt"
grep -q "slot 1 (local:spare) opened the volume; before it failed slot 0 .*not authorized" "$T/mnt.mount.log" ||
	fail "not told: $(cat "$T/mnt.mount.log")"
stop "$SHM/two" "$mnt"
AWS_ACCESS_KEY_ID=AKIDNOBODY AWS_SECRET_ACCESS_KEY=s expect_code $DENIED "$CMEKFS" "$SHM/two" "$mnt" -o slot=0

say "a service that does not answer: what is known without it is told at once, and one key is asked about"
mkdir "$SHM/silent"
"$CTL" key enable "$mrk"
"$MKFS" --key "$key" --key aws-kms://alias/everywhere "$SHM/silent" >/dev/null
port=$(emulate line '{}' | tr -dc 0-9)
emulate line "{\"port\": $port, \"mode\": \"hole\"}" >/dev/null
kms_says "attempts = 1" "deadline = 1h"
AWS_ENDPOINT_URL=http://127.0.0.1:$port "$CTL" status "$SHM/silent" >"$T/status" &
asking=$!
wait_for 60 grep -q "^block size" "$T/status" || fail "it waits before it tells anything"
kill $asking
wait $asking || true
emulate line "{\"port\": $port, \"mode\": \"refuse\"}" >/dev/null
AWS_ENDPOINT_URL=http://127.0.0.1:$port expect_code 0 "$CTL" status "$SHM/silent"
expect_text "^0 +data +unreachable" "^1 +data +unreachable" "not asked, as the service of slot 0 did not answer"
: >"$CMEKFS_CONFIG"

say "deleted for good"
"$CTL" key schedule-deletion --days 7 "$key" >/dev/null
emulate clock '{"offset": 700000}' >/dev/null
refused $KEY_DESTROYED
expect_text "has been deleted"
emulator_stop
