#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What cmekctl prints with --json is what contrib/output.schema.json says, errors and certificates included; and of
# manifests cmekctl and contrib/slots.schema.json think alike.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
need openssl
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

new_volume "$store" -L db
"$CTL" -q key create local:b
say "results"
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
"$CTL" -q lock "$mnt"
valid status status "$mnt"
stop "$store" "$mnt"
rm "$store/.cmekfs/header.1"
valid "header dump" header dump "$store"
echo '{"region_specs": [{"key_spec": {"type": "LOCAL", "uri": "local:b"}}]}' >"$T/manifest"
valid "slot apply" slot apply --dry-run "$store" "$T/manifest"
valid "slot apply" slot apply "$store" "$T/manifest"
valid shred shred --volume "$store"
say "errors"
valid error slot list "$T/none"
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
