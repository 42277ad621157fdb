#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The life of a volume's key with each cloud's service: rotated twice and re-wrapped, moved to another service and back, and
# shredded while mounted; then nothing opens, neither the store nor a copy of it, nor a header backup once its own key is
# gone, and nothing is in the daemon's memory. And a kill -9 before every step of each change of the header.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=../emulator/lib.sh
. "$HERE/../emulator/lib.sh"
need_cmekfs
need_root
need_fuse
need jq openssl

emulator_start
aws_env
gcp_env
ibm_env
mnt=$T/mnt
mkdir -p "$mnt"
instance=8e19aaff-df40-4623-bef2-86cb19a9d8bd
"$CTL" -q key create local:scan
openssl genpkey -algorithm ed25519 -out "$T/sign.pem" 2>/dev/null
openssl pkey -in "$T/sign.pem" -pubout -out "$T/public.pem"
hours=0
sanitizer=$(ldd "$(command -v "$CMEKFS")" | grep -oE 'lib[at]san' || true) # its memory has no end

# new_key PROVIDER NAME: makes it, and prints its URI.
new_key() {
	case $1 in
	aws) "$CTL" -q key create "aws-kms://alias/$2" && "$CTL" key describe --json "aws-kms://alias/$2" | jq -r .key ;;
	gcp)
		"$CTL" -q key create "gcp-kms://projects/p1/locations/europe-west3/keyRings/r1/cryptoKeys/$2"
		echo "gcp-kms://projects/p1/locations/europe-west3/keyRings/r1/cryptoKeys/$2"
		;;
	ibm)
		emulate ibm "{\"key\": {\"instance\": \"$instance\", \"account\": \"0123456789abcdef\", \"region\": \"eu-de\"}}" | jq -r .crn
		;;
	esac
}
# rotate KEY: once an hour is what IBM permits.
rotate() {
	hours=$((hours + 1))
	[[ $1 != crn:* ]] || emulate clock "{\"offset\": $((hours * 4000))}" >/dev/null
	"$CTL" -q key rotate "$1"
	emulate clock '{"offset": 0}' >/dev/null
}
# signed CERTIFICATE: as cmekctl(8) has it.
signed() {
	jq -cjS .certificate "$1" >"$T/signed"
	jq -r .signature.value "$1" | base64 -d >"$T/signature"
	openssl pkeyutl -verify -pubin -inkey "$T/public.pem" -rawin -in "$T/signed" -sigfile "$T/signature" >/dev/null
}
# opens STORE SLOT
opens() {
	start_daemon "$1" "$mnt" -o "slot=$2"
	[ "$(head -n 1 "$mnt/file")" = content ] || fail "$1 opens something else"
	stop "$1" "$mnt"
}

# life PROVIDER DAYS NEXT: DAYS for a deletion ("": can't be given), NEXT the service that the volume moves to and back from.
life() {
	local provider=$1 days=$2 next=$3 key other away store=$SHM/$1 text="plaintext of $1 $RANDOM$RANDOM"
	local copy=$SHM/$1.copy certificate=$T/$1.json pids
	say "$provider: rotated twice, and re-wrapped while mounted"
	key=$(new_key "$provider" db)
	other=$(new_key "$provider" backup)
	away=$(new_key "$next" away)
	"$MKFS" -q -L "$provider" --key "$key" "$store"
	"$CTL" -q slot add --purpose backup "$store" "$other"
	"$CTL" -q slot add "$store" local:scan
	start "$store" "$mnt" -o slot=0
	{
		echo content
		yes "$text" | head -n 1000 || true
	} >"$mnt/file"
	"$CTL" sync "$mnt"
	rotate "$key"
	rotate "$key"
	"$CTL" status --json "$mnt" >"$T/status"
	[ "$(jq '.slots[0].rotations_behind' "$T/status")" = 2 ] || fail "two rotations are not told: $(cat "$T/status")"
	expect_code 0 "$CTL" rewrap --force --slot 0 "$mnt"
	"$CTL" status --json "$mnt" >"$T/status"
	[ "$(jq '.slots[0].rotations_behind' "$T/status")" = 0 ] || fail "still behind: $(cat "$T/status")"

	say "$provider: to $next, and back"
	expect_code 0 "$CTL" rewrap --to "$away" --slot 0 "$mnt"
	stop "$store" "$mnt"
	opens "$store" 0
	[ "$("$CTL" slot list --json "$store" | jq -r '.slots[0].provider')" = "$next" ] || fail "not moved"
	expect_code 0 "$CTL" rewrap --to "$key" --slot 0 "$store"
	"$CTL" -q header backup --slot 1 "$store" "$T/$provider.backup"
	cp -a "$store" "$copy"
	$PYTHON "$HERE/../reader/local_unwrap.py" --slot 2 "$store" >"$T/kek"
	"$CTL" -q slot remove "$store" 1
	"$CTL" -q slot remove "$store" 2

	say "$provider: shredded while mounted"
	start "$store" "$mnt"
	cat "$mnt/file" >/dev/null
	expect_code 0 "$CTL" shred --volume --kms ${days:+--days "$days"} --yes-destroy "$provider" \
		--certificate "$certificate" --sign-key "$T/sign.pem" "$mnt"
	expect_errno EKEYREVOKED open "$mnt/file"
	if [ -z "$sanitizer" ]; then
		mapfile -t pids < <(fs_pids "$store")
		$PYTHON "$HERE/memory_scan.py" "$copy" "$text" "${pids[@]}" <"$T/kek" >"$T/found"
		awk '$2 != 0 || $3 == 0 { exit 1 }' "$T/found" || fail "left in memory: $(tr '\n' ';' <"$T/found")"
	fi
	stop "$store" "$mnt"

	say "$provider: the certificate"
	signed "$certificate" || fail "the signature does not verify"
	jq -e '.certificate | .verified == true and .executed and .mounts[0].keys_wiped and .slots[0].old_copies_open.now == false
		and .slots[0].kms_deletion.accepted and (.slots[0].kms_deletion.requests | length > 0)' "$certificate" >/dev/null ||
		fail "the certificate: $(cat "$certificate")"
	if [ "$provider" != gcp ]; then # which names no requests
		jq -e '.certificate.slots[0].kms_deletion.requests | all(.request_id and .date)' "$certificate" >/dev/null ||
			fail "a request without an id: $(cat "$certificate")"
	fi
	jq -e '.certificate | .date < .slots[0].kms_deletion.date and (.could_survive | any(contains("can be cancelled until")))' \
		"$certificate" >/dev/null || fail "no date of the deletion: $(cat "$certificate")"
	sed -i 's/"verified": true/"verified": "no"/' "$certificate"
	if signed "$certificate" 2>/dev/null; then fail "a certificate that was changed verifies"; fi

	say "$provider: what is left"
	expect_code $KEY_DESTROYED "$CMEKFS" "$store" "$mnt"
	expect_code $PENDING_DELETION "$CMEKFS" "$copy" "$mnt" -o slot=0
	opens "$copy" 1 # a backup's key is one of its own
	expect_code 0 "$CTL" header restore --unlock-key "$other" "$store" "$T/$provider.backup"
	opens "$store" 1
	"$CTL" -q key schedule-deletion ${days:+--days "$days"} "$other"
	expect_code $PENDING_DELETION "$CMEKFS" "$store" "$mnt" -o slot=1
	expect_code $PENDING_DELETION "$CMEKFS" "$copy" "$mnt" -o slot=1
	expect_code $PENDING_DELETION "$CTL" header restore --older --unlock-key "$other" "$store" "$T/$provider.backup"
}
$PYTHON -c 'import cryptography' 2>/dev/null || skip "python3-cryptography is not installed"
life aws 7 gcp
life gcp "" ibm
life ibm "" aws
emulator_stop

library=${CMEK_BUILD:-}/tests/inject/cut.so
if [ ! -e "$library" ] || [ -n "$sanitizer" ]; then
	say "not tried: kill -9 at every step (no cut.so in CMEK_BUILD, or a sanitizer)"
	exit 0
fi
"$CTL" -q key create local:a
"$CTL" -q key create local:b
store=$SHM/cut
"$MKFS" -q -L cut --key local:a --key local:b "$store"
cp -a "$store" "$SHM/good"
cp "$CMEKFS_VOLUMES" "$T/volumes.good"
# killed_everywhere CHECK COMMAND...: the command is killed before each of its changes of the volume's own directory,
# one after the other, until it gets through; each time CHECK is called, and the store put back.
killed_everywhere() {
	local check=$1 step=0 code=
	shift
	say "kill -9 at every step: $1 $2"
	until [ "$code" = 0 ]; do
		step=$((step + 1))
		rm -rf "$store"
		cp -a "$SHM/good" "$store"
		cp "$T/volumes.good" "$CMEKFS_VOLUMES"
		code=0
		# shellcheck disable=SC2016 # for the other shell, which says that it was killed
		CMEK_CUT=$step bash -c 'LD_PRELOAD=$1 "${@:2}"; exit $?' - "$library" "$CTL" -q "$@" >"$T/out" 2>&1 || code=$?
		[ $code -eq 0 ] || [ $code -eq 137 ] || fail "step $step: exit code $code: $(cat "$T/out")"
		[ $step -lt 100 ] || fail "there is no end"
		"$check"
	done
	[ $step -gt 8 ] || fail "only $step steps"
}
# Both keys open it, by either copy; and the next change works.
opens_all() {
	local slot
	for slot in $("$CTL" slot list --json "$store" | jq '.slots[].slot'); do
		"$CTL" -q header backup --force --unlock-slot "$slot" "$store" "$T/b" 2>"$T/err" || fail "slot $slot does not open: $(cat "$T/err")"
	done
	"$CTL" -q rewrap --force --slot 1 "$store" || fail "no change after it"
}
# It is whole, or on its way to be gone, which the next one ends.
whole_or_gone() {
	local code=0
	"$CTL" -q header backup --force "$store" "$T/b" 2>"$T/err" || code=$?
	[ $code -eq 0 ] || [ $code -eq 14 ] || fail "exit code $code: $(cat "$T/err")"
	"$CTL" -q shred --volume --yes-destroy cut "$store" || fail "it can't be ended"
	for file in header.0 header.1; do
		[ "$(head -c 8 "$store/.cmekfs/$file")" = CMEKGONE ] || fail "$file is no tombstone"
	done
}
if [ "$LONG" = 1 ]; then # the same writes as the next one's
	killed_everywhere opens_all rewrap --force --slot 0 "$store"
	killed_everywhere opens_all slot add "$store" local:scan
fi
killed_everywhere opens_all rewrap --to local:scan --slot 0 "$store"
killed_everywhere opens_all rotate "$store"
echo "what a mount left" >"$SHM/good/.cmekfs/journal.0"
killed_everywhere whole_or_gone shred --volume --yes-destroy cut "$store"
