#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A volume that can't be opened: the exit code and the sentence say why and what to do, and nothing is left mounted.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse

store=$SHM/store mnt=$T/mnt
mkdir -p "$mnt"

# The exit codes of tools/tool.h.
NOT_FOUND=3 EXISTS=4 DENIED=10 KEY_DISABLED=12 PENDING_DELETION=13 KEY_DESTROYED=14
BAD_FORMAT=20 TAMPERED=21 MISMATCH=22

# refused CODE [MOUNT OPTION]...: the mount fails so, and leaves neither mount nor process.
refused() {
	local code=$1
	shift
	expect_code "$code" "$CMEKFS" "$store" "$mnt" "$@"
	if mounted "$mnt"; then fail "mounted all the same"; fi
	wait_for 5 ended "$store" || fail "a process is left"
	[ "$(wc -l <"$T/out")" -ge 2 ] || fail "no reason with a remedy: $(cat "$T/out")"
}
# opens [MOUNT OPTION]...: it can be mounted, and what was written is there.
opens() {
	start_daemon "$store" "$mnt" "$@"
	[ "$(cat "$mnt/file")" = content ] || fail "the content is not there"
	stop "$store" "$mnt"
}

new_volume "$store"
start_daemon "$store" "$mnt"
echo content >"$mnt/file"
stop "$store" "$mnt"
cp -a "$T/keys" "$T/keys.good"
cp -a "$store" "$SHM/good"

say "states of the key"
"$CTL" key disable local:test
refused $KEY_DISABLED
expect_text "local:test" "disabled" "cmekctl key enable"
mkdir "$SHM/other"
expect_code $KEY_DISABLED "$MKFS" --key local:test "$SHM/other"
[ -z "$(ls -A "$SHM/other")" ] || fail "mkfs.cmekfs failed and left something in the store"
"$CTL" key enable local:test
opens
"$CTL" key schedule-deletion --days 3 local:test
refused $PENDING_DELETION
expect_text "local:test" "cancel-deletion"
"$CTL" key cancel-deletion local:test
"$CTL" key enable local:test
opens
"$CTL" key rotate local:test
opens
"$CTL" key schedule-deletion --days 0 local:test
sleep 1.1
refused $KEY_DESTROYED
expect_text "local:test" "destroyed"
rm -r "$T/keys"
cp -a "$T/keys.good" "$T/keys"
opens

say "the key store"
CMEKFS_LOCAL_KEYSTORE=$T/keys/none.json refused $NOT_FOUND
expect_text "none.json" "CMEKFS_LOCAL_KEYSTORE"
mv "$CMEKFS_LOCAL_KEYSTORE" "$T/moved"
refused $NOT_FOUND
"$CTL" key create local:unrelated
refused $NOT_FOUND
expect_text "local:test"
rm "$CMEKFS_LOCAL_KEYSTORE"
"$CTL" key create local:test
say "another key of the same name"
"$CMEKFS" "$store" "$mnt" >"$T/out" 2>&1 && fail "a foreign key opened the volume"
expect_text "local:test"
rm -r "$T/keys"
cp -a "$T/keys.good" "$T/keys"
chmod 644 "$CMEKFS_LOCAL_KEYSTORE"
refused $DENIED
expect_text "600"
chmod 600 "$CMEKFS_LOCAL_KEYSTORE"
echo '{ "damaged' >"$CMEKFS_LOCAL_KEYSTORE"
refused $BAD_FORMAT
rm -r "$T/keys"
cp -a "$T/keys.good" "$T/keys"

say "pins"
"$CTL" key create local:other
refused $MISMATCH -o key=local:other
expect_text "local:other" "local:test"
opens -o key=local:test
refused $NOT_FOUND -o slot=7

say "passphrases"
export CMEKFS_LOCAL_KEYSTORE=$T/keys/locked.json
echo "correct horse" >"$T/passphrase"
echo "wrong horse" >"$T/wrong"
chmod 600 "$T/passphrase" "$T/wrong"
"$CTL" key create --passphrase --passphrase-file "$T/passphrase" local:locked
main_store=$store
store=$SHM/locked
mkdir "$store"
"$MKFS" --key local:locked --passphrase-file "$T/passphrase" "$store"
start_daemon "$store" "$mnt" -o "passphrase_file=$T/passphrase"
echo content >"$mnt/file"
stop "$store" "$mnt"
refused $DENIED -o "passphrase_file=$T/wrong"
expect_text "passphrase"
if command -v setsid >/dev/null; then
	# Without a terminal nobody can be asked.
	expect_code $DENIED setsid -w "$CMEKFS" "$store" "$mnt"
	expect_text "passphrase"
fi
opens -o "passphrase_file=$T/passphrase"
export CMEKFS_LOCAL_KEYSTORE=$T/keys/keys.json
store=$main_store

# damage FILE OFFSET: one byte there is another one.
damage() {
	$PYTHON - "$1" "$2" <<-'END'
		import sys
		with open(sys.argv[1], "r+b") as f:
		    f.seek(int(sys.argv[2]))
		    byte = f.read(1)
		    f.seek(int(sys.argv[2]))
		    f.write(bytes([byte[0] ^ 1]))
	END
}
good() {
	rm -r "$store"
	cp -a "$SHM/good" "$store"
}

say "one header copy is damaged: the other serves, and the damage is repaired"
for copy in 0 1; do
	for how in 0 8 16 24 60 100 4096 4200 truncated empty missing; do
		good
		header=$store/.cmekfs/header.$copy
		case $how in
		truncated) truncate -s 5000 "$header" ;;
		empty) truncate -s 0 "$header" ;;
		missing) rm "$header" ;;
		*) damage "$header" $how ;;
		esac
		opens
		[ "$how" = 100 ] || cmp "$store/.cmekfs/header.0" "$store/.cmekfs/header.1" || fail "copy $copy ($how): not repaired"
	done
done

say "both are damaged"
for how in 0 60 4200; do
	good
	damage "$store/.cmekfs/header.0" $how
	damage "$store/.cmekfs/header.1" $how
	refused $BAD_FORMAT
	expect_text "header" "backup"
done
good
truncate -s 0 "$store/.cmekfs/header.0" "$store/.cmekfs/header.1"
refused $BAD_FORMAT
good
rm "$store/.cmekfs/header.0" "$store/.cmekfs/header.1"
refused $NOT_FOUND
rm -r "$store/.cmekfs"
refused $NOT_FOUND

say "both are tampered with, checksums put right"
good
$PYTHON - "$store/.cmekfs/header.0" "$store/.cmekfs/header.1" <<-'END'
	import hashlib, sys
	for path in sys.argv[1:]:
	    with open(path, "r+b") as f:
	        data = bytearray(f.read())
	        assert data.count(b'"block_size": 4096') + data.count(b'"block_size":4096') == 1, "the header's JSON has another form"
	        at = data.index(b"4096", data.index(b'"block_size"'))
	        data[at : at + 4] = b"8192"
	        data[56:88] = hashlib.sha256(data[:56] + bytes(64) + data[120:]).digest()
	        f.seek(0)
	        f.write(data)
END
refused $TAMPERED
expect_text "header"

say "the header of another volume"
good
mkdir "$SHM/foreign"
"$MKFS" --key local:test "$SHM/foreign" >/dev/null
# One copy is foreign: it has the same sequence number, and either copy could be the wrong one. Nothing is guessed at
# the price of the other copy.
cp "$SHM/foreign/.cmekfs/header.1" "$store/.cmekfs/header.1"
code=0
"$CMEKFS" "$store" "$mnt" >"$T/out" 2>&1 || code=$?
cat "$T/out"
if [ $code -eq 0 ]; then
	[ "$(cat "$mnt/file")" = content ] || fail "mounted with the wrong header"
	stop "$store" "$mnt"
fi
good
cp "$SHM/foreign/.cmekfs/header.0" "$SHM/foreign/.cmekfs/header.1" "$store/.cmekfs/"
code=0
"$CMEKFS" "$store" "$mnt" >"$T/out" 2>&1 || code=$?
cat "$T/out"
if [ $code -eq 0 ]; then
	expect_errno ENOENT open "$mnt/file"
	stop "$store" "$mnt"
fi
good
opens

say "not a volume, not empty, already there"
mkdir "$SHM/plain"
echo x >"$SHM/plain/file"
expect_code $EXISTS "$MKFS" --key local:test "$SHM/plain"
expect_code $EXISTS "$MKFS" --key local:test "$store"
opens
store=$SHM/plain
refused $NOT_FOUND
store=$SHM/nowhere
refused $NOT_FOUND
