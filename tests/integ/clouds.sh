#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# One volume with keys of several services: what is asked of them is in the audit log; any of them opens it, in their order, and
# who was denied first is told.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=../emulator/lib.sh
. "$HERE/../emulator/lib.sh"
need_cmekfs
need_root
need_fuse
need jq

emulator_start
aws_env
gcp_env
ibm_env

say "what key services were asked: in the audit log as in theirs"
audit_log=$CMEKFS_AUDIT_LOG
export CMEKFS_AUDIT_LOG=$T/keys/calls.log
store=$SHM/calls mnt=$T/mnt
aws=aws-kms://alias/calls gcp=gcp-kms://projects/p1/locations/europe-west3/keyRings/r1/cryptoKeys/calls
crn=$(emulate ibm '{"key": {"instance": "8e19aaff-df40-4623-bef2-86cb19a9d8bd", "account": "0123456789abcdef", "region": "eu-de"}}' |
	sed 's/.*"crn": "\([^"]*\)".*/\1/')
"$CTL" -q key create $aws
"$CTL" -q key create $gcp
"$MKFS" -q --key $gcp --key "$crn" --key local:calls --key $aws "$store"
# by PROGRAM FILTER N: so many calls of its.
by() {
	[ "$(jq -c "select(.event == \"kms.call\" and .program == \"$1\" and $2)" "$CMEKFS_AUDIT_LOG" | wc -l)" -eq "$3" ] ||
		fail "not $3 of $1, $2: $(cat "$CMEKFS_AUDIT_LOG")"
}
for provider in aws gcp ibm; do
	by mkfs.cmekfs ".provider == \"$provider\" and .operation == \"wrap\" and .outcome == \"success\"" 2 # one to try the key
done
by mkfs.cmekfs '.operation == "create" and .key == "local:calls"' 1
for key in $aws $gcp "$crn" local:calls; do
	"$CTL" -q key rotate "$key"
done
"$CTL" -q rewrap --force "$store" >/dev/null
by "cmekctl rewrap" '.operation == "rewrap" and (.provider == "aws" or .provider == "ibm")' 2
by "cmekctl rewrap" '.operation == "rewrap"' 2
by "cmekctl rewrap" '.operation == "wrap" and (.provider == "gcp" or .provider == "local") and .version == "2"' 2
say "a service that answers once more is asked once, in two requests"
fault '{"kind": "throttle", "service": "gcp", "operation": "decrypt", "count": 1}'
"$CTL" -q rotate "$store"
by "cmekctl rotate" '.operation == "unwrap" and .requests[-2].status == 429 and .requests[-1].status == 200' 1
say "a mount that makes a fresh blob"
"$CTL" -q key rotate $gcp
mkdir -p "$mnt"
start "$store" "$mnt" -o nowatch
stop "$store" "$mnt"
wait_for 60 grep -q '"event":"volume.unmount"' "$CMEKFS_AUDIT_LOG" || fail "not told: $(cat "$CMEKFS_AUDIT_LOG")"
by cmekfs '.operation == "unwrap" and .slot == 0 and .provider == "gcp" and .version == "2"' 1
by cmekfs '.operation == "wrap" and .slot == 0 and .provider == "gcp" and .version == "3"' 1
by cmekfs '.operation == "unwrap" and .slot == 0 and .provider == "gcp" and .version == "3"' 1
by cmekfs true 3
say "the other verbs, and refusals"
"$CTL" -q status "$store" >/dev/null
"$CTL" -q slot test $aws
"$CTL" -q key disable $gcp
expect_code $KEY_DISABLED "$CTL" -q header backup --unlock-slot 0 "$store" "$T/calls.backup"
by "cmekctl header backup" '.operation == "unwrap" and .outcome == "failure" and .error == "key-disabled" and .volume != null' 1
"$CTL" -q key enable $gcp
"$FSCK" -q "$store"
by fsck.cmekfs '.operation == "unwrap" and .outcome == "success"' 1
"$CTL" -q key registrations "$crn" >/dev/null
"$CTL" -q slot remove "$store" 2 >/dev/null
expect_code $UNSUPPORTED "$CTL" -q key registrations $aws # which nobody is asked
expect_code 0 "$CTL" -q shred --volume --kms --yes-destroy "$("$CTL" status --json "$store" | jq -r .uuid)" "$store"
by "cmekctl shred" '.operation == "schedule-deletion" and .outcome == "success"' 3
by "cmekctl shred" '.operation == "unwrap" and .outcome == "failure" and .error != "unreachable"' 3
emulate log | "$HERE/audit_requests.py" "$CMEKFS_AUDIT_LOG" admin-secret ibm-admin-key "PRIVATE KEY" Bearer "$("$PYTHON" -c '
import json, sys
print(json.load(open(sys.argv[1]))["private_key"].splitlines()[1])' "$T/gcp-sa.json")" ||
	fail "see above"
expect_code 0 "$CTL" audit verify
export CMEKFS_AUDIT_LOG=$audit_log

store=$SHM/store mnt=$T/mnt log=$T/mnt.mount.log
mkdir -p "$mnt"
gcp=projects/p1/locations/europe-west3/keyRings/r1/cryptoKeys/db
"$CTL" key create gcp-kms://$gcp >/dev/null
crn=$(emulate ibm '{"key": {"instance": "8e19aaff-df40-4623-bef2-86cb19a9d8bd", "account": "0123456789abcdef", "region": "eu-de"}}' |
	sed 's/.*"crn": "\([^"]*\)".*/\1/')
"$CTL" key create aws-kms://alias/db >/dev/null
"$MKFS" --key gcp-kms://$gcp --key "$crn" --key local:offline --key aws-kms://alias/db "$store" >"$T/out"
expect_text "slot 0 +$gcp" "slot 1 +$crn" "slot 2 +local:offline" "slot 3 +arn:aws:kms:"

opens() {
	: >"$log"
	start_daemon "$store" "$mnt" "$@"
	[ "$(cat "$mnt/file")" = content ] || fail "the content is not there"
	stop "$store" "$mnt"
}
told() {
	local regex
	for regex; do
		grep -Eq -- "$regex" "$log" || fail "not said: $regex; but: $(cat "$log")"
	done
}
refused() {
	expect_code "$1" "$CMEKFS" "$store" "$mnt" "${@:2}"
	wait_for 30 ended "$store" || fail "a process is left"
}

start_daemon "$store" "$mnt"
echo content >"$mnt/file"
stop "$store" "$mnt"

say "what a service answered is gone from the memory of who asked it, at the mount and by the watch"
# unwrapped N OPERATION
unwrapped() { [ "$(asked "$2")" -ge "$1" ]; }
# No key in any process but the one that has the store. (Of that one lock_memory.sh tells.)
only_storage_has_keys() {
	local pids
	mapfile -t pids < <(fs_pids "$store" | grep -vxF "$(storage_pid "$store")")
	[ ${#pids[@]} -eq 3 ] || fail "processes: ${pids[*]}"
	$PYTHON "$HERE/memory_scan.py" "$store" "no text" "${pids[@]}" <"$T/keys/kek" >"$T/found" 2>"$T/where"
	! grep -vE '^[a-z]+ 0 ' "$T/found"
}
if $PYTHON -c 'import cryptography' 2>/dev/null; then
	(umask 077 && $PYTHON "$HERE/../reader/local_unwrap.py" --slot 2 "$store" >"$T/keys/kek")
	for by in 0:decrypt 1:unwrap 3:Decrypt; do
		emulate log DELETE >/dev/null
		start_daemon "$store" "$mnt" -o "slot=${by%:*}"
		"$CTL" watch "$mnt" grace=1h >/dev/null # asks at once
		wait_for 60 unwrapped 2 "${by#*:}" || fail "the watch does not ask: $(emulate log)"
		wait_for 30 only_storage_has_keys || fail "left in memory: $(cat "$T/where")" # an answer may be on its way
		stop "$store" "$mnt"
	done
fi

say "the first slot that serves is the only one that is asked"
emulate log DELETE >/dev/null
opens
if [ "$(asked decrypt)" -ne 1 ] || [ "$(asked unwrap)" -ne 0 ] || [ "$(asked Decrypt)" -ne 0 ]; then fail "asked of others: $(emulate log)"; fi

say "the first is denied, the second serves"
emulate gcp '{"grant": "admin@p1.iam.gserviceaccount.com", "permissions": []}' >/dev/null
opens
told "slot 1 \($crn\) opened the volume" "slot 0 \($gcp\): .*PERMISSION_DENIED"

say "each slot by its number, each key by its name"
refused 10 -o slot=0
expect_text "PERMISSION_DENIED"
opens -o slot=1
opens -o slot=2
opens -o slot=3
refused 3 -o slot=4
opens -o key="$crn"
opens -o key=local:offline

say "two clouds fail, the local key serves"
"$CTL" key disable "$crn" >/dev/null
opens
told "slot 2 \(local:offline\) opened the volume" "slot 0 .*PERMISSION_DENIED.*slot 1 .*the key is disabled"

say "none serves: every one's reason, and the exit code of the first"
"$CTL" key disable local:offline >/dev/null
opens
told "slot 3 \(arn:aws:kms:.*\) opened the volume"
"$CTL" key disable aws-kms://alias/db >/dev/null
refused 10
expect_text "no key slot opens" "slot 0 .*PERMISSION_DENIED" "slot 1 .*the key is disabled" "slot 2 .*local:offline.* disabled"
say "one that may pass by itself goes before a refusal"
fault '{"kind": "reset", "operation": "unwrap"}'
refused 15
no_faults
"$CTL" key enable local:offline >/dev/null

say "profiles of the configuration"
cat >>"$CMEKFS_CONFIG" <<CONF
[aws good]
endpoint = $EMU_HTTP
[aws away]
endpoint = http://127.0.0.1:1
CONF
aws=aws-kms://alias/db named=$SHM/named
"$CTL" key enable --profile good $aws >/dev/null
arn=$("$CTL" key describe --json $aws | sed -n 's/^  "key": "\(.*\)",$/\1/p')
expect_code 2 "$MKFS" --profile none --key $aws "$named"
expect_text "no profile 'none'"
expect_code 15 "$MKFS" --profile away --key $aws "$named"
"$MKFS" --profile good --key $aws "$named" >/dev/null
expect_code 15 "$CTL" slot test --profile away $aws
expect_code 15 "$CTL" key describe --profile away $aws
expect_code 15 "$CTL" header backup --profile away "$named" "$T/backup"
expect_code 16 "$FSCK" --profile none "$named"

say "a volume by its name in the configuration"
# volume KEY PROFILE: what the configuration says of it.
volume() {
	sed -i '/^\[volume/,$d' "$CMEKFS_CONFIG"
	printf '[volume volume-v]\nstore = %s\nkey = %s\nprofile = %s\n' "$named" "$1" "$2" >>"$CMEKFS_CONFIG"
}
volume "$arn" away
expect_code 15 "$CTL" header backup volume-v "$T/backup"
expect_code 15 "$CTL" header backup "$named" "$T/backup"
expect_code 8 "$FSCK" volume-v
expect_code 0 "$FSCK" --profile good volume-v
expect_code 0 "$CTL" slot add --profile good volume-v local:offline
expect_code 0 "$CTL" header backup --profile good volume-v "$T/backup"
expect_code 0 "$CTL" header backup --unlock-key local:offline --force volume-v "$T/backup"
volume local:other good
expect_code 22 "$CTL" rewrap volume-v
volume "$arn" good
for verb in "slot list" "header dump" rewrap status; do
	# shellcheck disable=SC2086 # a verb may be two words
	expect_code 0 "$CTL" $verb volume-v
done
expect_code 3 "$CTL" status volume-w
expect_text "volume-w does not exist"
expect_code 0 "$CTL" slot remove volume-v 1
start_daemon volume-v "$mnt"
for verb in status sync lock unlock rotate metrics; do
	expect_code 0 "$CTL" $verb volume-v
done
stop volume-v "$mnt"
expect_code 0 "$CTL" header restore --older volume-v "$T/backup"
echo '[[' >>"$CMEKFS_CONFIG"
expect_code 2 "$CTL" status volume-v
expect_code 0 "$CTL" slot list "$named"
say "no configuration at all"
CMEKFS_CONFIG=/dev/null "$CTL" key describe local:offline >/dev/null
sed -i '/^\[\[/d; /^\[volume/,$d' "$CMEKFS_CONFIG"

say "no cloud can be reached"
emulator_stop
opens
told "slot 2 \(local:offline\) opened the volume" "slot 0 .*can't reach"
