#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What the programs print with --json is what contrib/output.schema.json says, errors and certificates included; and of
# manifests cmekctl and contrib/slots.schema.json think alike.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
need openssl
need jq
$PYTHON -c 'from jsonschema import Draft202012Validator' 2>/dev/null || skip "python3-jsonschema (4 or newer) is not installed"
schemas=$HERE/../../contrib
mnt=$T/mnt store=$T/store
n=0
# valid DEFINITION COMMAND...: what it prints, whatever its exit code; to be looked at in the end.
valid() {
	n=$((n + 1))
	"$CTL" --json "${@:2}" >"$T/$n-${2// /-}.json" 2>/dev/null || true
	echo "$T/$n-${2// /-}.json $1" >>"$T/results"
}

# valid_text DEFINITION TEXT: the same of what was printed already.
valid_text() {
	n=$((n + 1))
	printf '%s\n' "$2" >"$T/$n-${1// /-}.json"
	echo "$T/$n-${1// /-}.json $1" >>"$T/results"
}

new_volume "$store" -L db
"$CTL" -q key create local:b
say "results"
valid_text mkfs "$("$MKFS" --json --key local:test --key local:new "$T/store3")"
valid "key list" key list local:
valid "slot test" slot test local:b
valid "slot list" slot list "$store"
valid "slot add" slot add --purpose backup "$store" local:b
valid "slot add" slot add --recovery "$store"
valid "slot remove" slot remove "$store" 2
valid "header backup" header backup "$store" "$T/b"
valid "header dump" header dump "$store"
valid "key describe" key describe local:b
valid "key uses" key uses local:b
valid status status "$store"
start "$store" "$mnt"
valid status status "$mnt"
valid rewrap rewrap --force --slot 0 "$mnt"
valid "rewrap --all" rewrap --all
valid rotate rotate "$mnt"
echo "some data" >"$mnt/file"
progress=$("$CTL" --json reencrypt "$mnt")
while read -r line; do
	valid_text reencrypt "$line"
done <<<"$progress"
tail -n 1 <<<"$progress" | jq -e '.ended_deks[0].state == "retired" and .verified.files == 1' >/dev/null ||
	fail "how re-encryption ended: $progress"
valid watch watch "$mnt" interval=30s
valid nothing sync "$mnt"
valid nothing lock "$mnt"
valid status status "$mnt"
stop "$store" "$mnt"
valid "audit verify" audit verify
valid_text fsck "$("$FSCK" --json -n "$store")"
"$CTL" -q header backup "$store" "$T/b2"
valid "header restore" header restore "$store" "$T/b2"
rm "$store/.cmekfs/header.1"
valid "header dump" header dump "$store"
echo '{"region_specs": [{"key_spec": {"type": "LOCAL", "uri": "local:b"}}]}' >"$T/manifest"
valid "slot apply" slot apply --dry-run "$store" "$T/manifest"
valid "slot apply" slot apply "$store" "$T/manifest"
valid shred shred --volume "$store"
say "errors"
valid error slot list "$T/none"
valid error slot list --nothing
valid error nothing
valid error slot list "$(printf '\377')"
valid_text error "$("$CTL" slot --nothing --json 2>/dev/null || true)"
valid_text error "$("$MKFS" --block-size 5 "$T/store4" --json 2>/dev/null || true)"
valid_text error "$("$FSCK" -n -y --json "$store" 2>/dev/null || true)"
valid error shred --volume --yes-destroy other "$store"
valid error shred --volume --kms --days 99 --yes-destroy db --certificate "$T/none/x" "$store"
say "certificates"
openssl genpkey -algorithm ed25519 -out "$T/sign.pem" 2>/dev/null
start "$store" "$mnt"
valid certificate shred --volume --kms --yes-destroy db --certificate "$T/c" --sign-key "$T/sign.pem" "$mnt"
echo "$T/c certificate" >>"$T/results"
stop "$store" "$mnt"
valid error status "$store"
"$HERE/json_schema.py" results "$schemas/output.schema.json" <"$T/results"

say "manifests: the program and the schema think alike"
store=$T/store2
"$MKFS" -q --key local:test --key local:c "$store"
cat >"$T/manifests" <<'END'
good {"region_specs": [{"key_spec": {"type": "LOCAL", "uri": "local:test"}}]}
good {"region_specs": [{"region": "here", "key_spec": {"type": "LOCAL", "uri": "local:test"}}], "action": "APPLY"}
good {"$schema": "x", "action": "REVOKE", "region_specs": [{"key_spec": {"type": "LOCAL", "uri": "local:c"}}]}
region_specs {}
action {"action": "DROP"}
region_specs {"region_specs": []}
region_specs {"region_specs": {}}
region_specs[0].key_spec {"region_specs": [{}]}
region_specs[0].key_spec.type {"region_specs": [{"key_spec": {}}]}
region_specs[0].key_spec.uri {"region_specs": [{"key_spec": {"type": "LOCAL"}}]}
region_specs[0].key_spec.type {"region_specs": [{"key_spec": {"type": "local", "uri": "local:test"}}]}
region_specs[0].key_spec.uri {"region_specs": [{"key_spec": {"type": "LOCAL", "uri": ""}}]}
region_specs[1].key_spec.uri {"region_specs": [{"key_spec": {"type": "LOCAL", "uri": "local:test"}}, {"key_spec": {"type": "LOCAL", "uri": 7}}]}
region_specs[0].key_spec.external_id {"region_specs": [{"key_spec": {"type": "LOCAL", "uri": "local:test", "external_id": "x"}}]}
region_specs[0].key_spec.auth_principal {"region_specs": [{"key_spec": {"type": "LOCAL", "uri": "local:test", "auth_principal": "x"}}]}
region_specs[0].key_spec.external_id {"region_specs": [{"key_spec": {"type": "AWS_KMS", "uri": "arn:aws:kms:r:1:key/1", "external_id": "x"}}]}
region_specs[0] {"region_specs": [{"key_spec": {"type": "LOCAL", "uri": "local:test"}, "more": 1}]}
region_specs[0].region {"region_specs": [{"region": 1, "key_spec": {"type": "LOCAL", "uri": "local:test"}}]}
END
"$HERE/json_schema.py" manifests "$schemas/slots.schema.json" <"$T/manifests"
while read -r place text; do
	echo "$text" >"$T/manifest"
	code=0
	"$CTL" slot apply --dry-run "$store" "$T/manifest" >"$T/out" 2>&1 || code=$?
	if [ "$place" = good ]; then
		[ $code -eq 0 ] || fail "refused: $text: $(cat "$T/out")"
	elif [ $code -eq 0 ] || ! grep -qF "$T/manifest: $place" "$T/out"; then
		fail "exit code $code, and not that $place is wrong in $text: $(cat "$T/out")"
	fi
done <"$T/manifests"
