# shellcheck shell=bash disable=SC2119,SC2120,SC2086,SC2153 # options of mounts are rarely given, codes are numbers
# SPDX-License-Identifier: GPL-3.0-or-later
# What every key service is put through: source it behind lib.sh of this directory. It is about one volume, $store, which the
# test makes, with "content" in its file "file", mounted on $mnt.
#
#   opens, refused CODE [MOUNT OPTION]...
#   faults_of_a_service, moved_blobs, tls_of_a_service

store=$SHM/store mnt=$T/mnt
mkdir -p "$mnt"

# refused CODE [MOUNT OPTION]...: the mount fails so, in time, and leaves neither mount nor process.
refused() {
	local code=$1 begin=$SECONDS
	shift
	expect_code "$code" "$CMEKFS" "$store" "$mnt" "$@"
	if mounted "$mnt"; then fail "mounted all the same"; fi
	wait_for 30 ended "$store" || fail "a process is left"
	[ $((SECONDS - begin)) -le 60 ] || fail "it took $((SECONDS - begin)) s"
}
# opens [MOUNT OPTION]...
opens() {
	start_daemon "$store" "$mnt" "$@"
	[ "$(cat "$mnt/file")" = content ] || fail "the content is not there"
	stop "$store" "$mnt"
}
# lasting CODE KIND...: each of these faults (a kind in JSON, more may follow), for as long as a mount tries.
lasting() {
	local code=$1 kind
	shift
	for kind; do
		fault "{\"kind\": $kind, \"operation\": \"$unwrap\"}"
		refused "$code"
		no_faults
	done
}
# faults_of_a_service OPERATION THROTTLED INVALID: what may go wrong with any service's answers. OPERATION: its unwrap, as it
# calls it. THROTTLED: how it says so. INVALID: the fault, in JSON, that says that a blob does not fit.
faults_of_a_service() {
	local unwrap=$1 throttled=$2 invalid=$3 begin
	say "what passes is tried again"
	kms_says "attempts = 5"
	fault "{\"kind\": \"throttle\", \"operation\": \"$unwrap\", \"count\": 2}"
	fault "{\"kind\": \"internal\", \"operation\": \"$unwrap\", \"count\": 1}"
	opens
	fault "{\"kind\": \"status\", \"status\": 503, \"operation\": \"$unwrap\", \"count\": 1, \"headers\": {\"Retry-After\": \"1\"}}"
	begin=${EPOCHREALTIME/[.,]/}
	opens
	[ $((${EPOCHREALTIME/[.,]/} - begin)) -ge 1000000 ] || fail "Retry-After was not kept"
	fault "{\"kind\": \"latency\", \"operation\": \"$unwrap\", \"seconds\": 0.3, \"count\": 1}"
	opens
	say "with new credentials, too"
	fault "{\"kind\": \"expired\", \"operation\": \"$unwrap\", \"count\": 1}"
	opens
	no_faults

	say "what does not pass is told, each as what it is"
	kms_says "attempts = 2"
	lasting $THROTTLED '"throttle"'
	expect_text "$throttled" "2 attempts" "try: repeat the command later"
	lasting $UNREACHABLE '"internal"' '"status", "status": 502, "body": "<html>"' '"status", "status": 503' \
		'"status", "status": 504'
	expect_text "HTTP 504, 2 attempts" "try: check the network"
	lasting $UNREACHABLE '"reset"' '"close"'
	expect_text "can't reach $EMU_HTTP"
	lasting $EXPIRED '"expired"'
	expect_text "try: renew the credentials"
	lasting $BAD_FORMAT '"garbage"' '"huge", "bytes": 10000000'
	expect_text "answers with more than [0-9]+ bytes"
	lasting $BAD_FORMAT '"short_plaintext"' '"status", "status": 418'
	lasting $TAMPERED '"wrong_plaintext"' "$invalid"

	say "a service that is slow keeps no mount beyond its deadline"
	kms_says "attempts = 2" "deadline = 1s"
	begin=$SECONDS
	lasting $UNREACHABLE '"latency", "seconds": 100'
	expect_text "no answer from $EMU_HTTP|no time left"
	lasting $UNREACHABLE '"drip", "seconds": 1'
	[ $((SECONDS - begin)) -lt 60 ] || fail "the deadline of 1 s was not kept: $((SECONDS - begin)) s"
	kms_says "attempts = 5" "deadline = 60s"
	lasting $THROTTLED '"status", "status": 429, "headers": {"Retry-After": "100"}'
	expect_text "no time left"
	kms_says "attempts = 5"
	opens
}
# tls_of_a_service: by https, to whom the configuration trusts and to nobody else.
tls_of_a_service() {
	say "TLS"
	cp "$CMEKFS_CONFIG" "$T/conf.kept"
	sed -i "s,^endpoint = .*,endpoint = $EMU_HTTPS,; s,^\[kms\]\$,&\nca_file = $EMU/ca.pem," "$CMEKFS_CONFIG"
	opens
	sed -i "s,/ca.pem,/other-ca.pem," "$CMEKFS_CONFIG"
	refused $UNREACHABLE
	expect_text "certificate" "try: check the endpoint and its certificate"
	cat "$T/conf.kept" >"$CMEKFS_CONFIG"
}
# moved_blobs KEY OTHER: a wrapped key opens the volume, for the purpose and by the key that it was wrapped for, and
# nothing else; KEY made $store, OTHER is another one, as the header names it. The mount asks the service each time, and the
# refusal is the service's.
moved_blobs() {
	local key=$1 other=$2 wrapped
	say "a wrapped key that was moved"
	"$MKFS" --no-pin --key "$key" "$SHM/twin" >/dev/null
	wrapped=$($PYTHON "$HERE/edit_slot.py" "$SHM/twin" 0 wrapped)
	cp -a "$store/.cmekfs" "$T/header.kept"
	$PYTHON "$HERE/edit_slot.py" "$store" 0 wrapped="$wrapped"
	refused $TAMPERED
	expect_text "slot 0|header" "HTTP 4"
	cp -a "$T"/header.kept/header.? "$store/.cmekfs/"
	for purpose in backup recovery; do
		$PYTHON "$HERE/edit_slot.py" "$store" 0 purpose=$purpose
		refused $TAMPERED
		expect_text "HTTP 4"
		cp -a "$T"/header.kept/header.? "$store/.cmekfs/"
	done
	say "a wrapped key under another key's name"
	$PYTHON "$HERE/edit_slot.py" "$store" 0 key="$other" resolved="$other"
	refused $MISMATCH # by the pin
	cp -a "$T"/header.kept/header.? "$store/.cmekfs/"
	$PYTHON "$HERE/edit_slot.py" "$SHM/twin" 0 key="$other" resolved="$other"
	expect_code $TAMPERED "$CMEKFS" "$SHM/twin" "$mnt"
	expect_text "HTTP 4"
	opens
}
