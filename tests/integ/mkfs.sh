#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# mkfs.cmekfs: what it makes, what it refuses and how, and that an interruption at any system call that changes the store
# leaves nothing or a whole volume.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need jq

# The exit codes of tools/tool.h.
USAGE=2 NOT_FOUND=3 EXISTS=4 BUSY=5 DENIED=10 EXPIRED=11 KEY_DISABLED=12 PENDING_DELETION=13 KEY_DESTROYED=14 UNSUPPORTED=23

# whole STORE: it has a volume with two equal copies of the header and all that belongs to it, and nothing else.
whole() {
	local store=$1
	"$CTL" --json header dump "$store" >"$T/dump" || fail "$store: no whole volume"
	jq -e '.copies | length == 2 and all(.usable and .sequence == 1)' "$T/dump" >/dev/null || fail "$store: copies differ"
	cmp "$store/.cmekfs/header.0" "$store/.cmekfs/header.1"
	[ "$(cd "$store" && find . -mindepth 1 ! -name lost+found | sort | tr '\n' ' ')" = \
		"./.cmekfs ./.cmekfs.dir ./.cmekfs/header.0 ./.cmekfs/header.1 ./.cmekfs/links ./.cmekfs/lock ./.cmekfs/lost " ] ||
		fail "$store: $(find "$store")"
	[[ "$(readlink "$store/.cmekfs.dir")" =~ ^v1:0001:[A-Za-z0-9_-]{22}$ ]] || fail "$store: $(readlink "$store/.cmekfs.dir")"
}
# empty STORE: nothing is there.
empty() { [ -z "$(ls -A "$1")" ] || fail "$1 is not empty: $(ls -A "$1")"; }
snapshot() { { find "$1" -printf '%p %m %s %l\n' 2>&1 || true; } | sort; }
# refused CODE STORE [OPTION]...: and nothing changed in STORE (which may be missing).
refused() {
	local code=$1 store=$2 before
	shift 2
	before=$(snapshot "$store")
	expect_code "$code" "$MKFS" "$@" "$store"
	[ "$(snapshot "$store")" = "$before" ] || fail "$store was changed: $*"
}

say "one command makes key store, key, store and volume"
"$MKFS" --json --key local:one -L 'my volume' "$T/s1" >"$T/json"
whole "$T/s1"
jq -e --arg store "$(realpath "$T/s1")" '.store == $store and .label == "my volume" and .block_size == 4096 and
	.keys == [{slot: 0, key: "local:one", resolved: "local:one", version: "1", provider: "local", created: true}]' \
	"$T/json" >/dev/null || fail "$(cat "$T/json")"
uuid=$(jq -r .uuid "$T/json")
[[ $uuid =~ ^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$ ]] || fail "UUID $uuid"
[ "$(stat -c %a "$T/s1" "$T/s1/.cmekfs" "$T/s1/.cmekfs/header.0" | tr '\n' ' ')" = "700 700 600 " ] || fail "modes"
jq -e --arg u "$uuid" '.volumes[$u] | .slots == [{provider: "local", resolved: "local:one", principal: {}}] and .label == "my volume"' \
	"$CMEKFS_VOLUMES" >/dev/null || fail "pins: $(cat "$CMEKFS_VOLUMES")"
"$CTL" --json status "$T/s1" | jq -e '.in_use == "no" and .slots[0].state == "enabled" and .slots[0].pinned == "yes"' >/dev/null ||
	fail "status"

say "the independent reader"
if $PYTHON -c 'import cryptography' 2>/dev/null; then
	(umask 077 && $PYTHON "$HERE/../reader/local_unwrap.py" --keystore "$CMEKFS_LOCAL_KEYSTORE" "$T/s1" >"$T/kek")
	$PYTHON "$HERE/../reader/cmekfs_reader.py" --kek-file "$T/kek" "$T/s1" verify >"$T/out" || fail "$(cat "$T/out")"
	grep -qx 'damage: 0' "$T/out" || fail "$(cat "$T/out")"
	rm "$T/kek"
fi

say "options"
mkdir "$T/s2"
"$MKFS" -q -k local:one -k local:two -b 16K --uuid 01234567-89AB-cdef-0123-456789abcdef "$T/s2/" >"$T/out"
[ ! -s "$T/out" ] || fail "-q says: $(cat "$T/out")"
whole "$T/s2"
jq -e '.block_size == 16384 and .uuid == "01234567-89ab-cdef-0123-456789abcdef" and (.slots | map(.resolved)) == ["local:one", "local:two"] and
	(.slots | map(.id)) == [0, 1]' "$T/dump" >/dev/null || fail "$(cat "$T/dump")"
"$MKFS" -q -k local:one --no-pin "$T/s3"
"$CTL" --json status "$T/s3" | jq -e '.slots[0].pinned == "no"' >/dev/null || fail "pinned in spite of --no-pin"
(cd "$T" && "$MKFS" -q -k local:one s4)
whole "$T/s4"

say "refused: mistakes"
mkdir "$T/empty"
for args in "" "-k" "-k local:one -b 2048" "-k local:one -b 5000" "-k local:one -b 128K" "-k local:one --uuid x" \
	"-k local:one -k local:one" "-k one" "-k local:a/b" "-k local:one --nonsense" "-k local:one $T/empty"; do
	# shellcheck disable=SC2086 # words
	refused $USAGE "$T/empty" $args
done
refused $USAGE "$T/empty" -k local:one -L "$(printf '%065d' 0)"
refused $USAGE "$T/empty" -k local:one -L $'a\nb'
touch "$T/file"
refused $USAGE "$T/file" -k local:one
refused $NOT_FOUND "$T/missing/store" -k local:one
refused $EXPIRED "$T/empty" -k arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab

say "refused: a store that is in use"
for force in "" --force; do
	refused $EXISTS "$T/s1" -k local:one $force
	expect_text "already is a cmekfs volume" "$uuid" "my volume"
	mkdir -p "$T/full" && touch "$T/full/precious"
	refused $EXISTS "$T/full" -k local:one $force
	expect_text "not empty" "precious"
done
mkdir "$T/damaged"
cp -a "$T/s1/.cmekfs" "$T/damaged/"
echo garbage >"$T/damaged/.cmekfs/header.0"
echo garbage >"$T/damaged/.cmekfs/header.1"
refused $EXISTS "$T/damaged" -k local:one --force
expect_text "damaged"
mkdir "$T/lost" "$T/lost/lost+found"
"$MKFS" -q -k local:one "$T/lost"
whole "$T/lost"

say "refused: keys"
"$CTL" key create local:bad >/dev/null
"$CTL" key disable local:bad >/dev/null
refused $KEY_DISABLED "$T/empty" -k local:one -k local:bad
refused $KEY_DISABLED "$T/empty" -k local:new -k local:bad
expect_code $NOT_FOUND "$CTL" key describe local:new # not made, as another key failed
"$CTL" key schedule-deletion local:bad >/dev/null
refused $PENDING_DELETION "$T/empty" -k local:bad
"$CTL" key schedule-deletion --days 0 local:bad >/dev/null
sleep 1.1
refused $KEY_DESTROYED "$T/empty" -k local:bad
refused $KEY_DESTROYED "$T/not-made" -k local:bad
(
	export CMEKFS_LOCAL_KEYSTORE=$T/keys/locked.json
	(umask 077 && echo right >"$T/right" && echo wrong >"$T/wrong")
	"$CTL" key create --passphrase --passphrase-file "$T/right" local:one >/dev/null
	refused $DENIED "$T/empty" -k local:one --passphrase-file "$T/wrong"
	refused $DENIED "$T/empty" -k local:one
	"$MKFS" -q -k local:one --passphrase-file "$T/right" "$T/s5"
)
whole "$T/s5"
say "refused: a registry that can't be written"
CMEKFS_VOLUMES=$T/file/x.json expect_code 1 "$MKFS" -k local:one "$T/empty"
empty "$T/empty"

say "refused: inside another volume's store"
refused $USAGE "$T/s4/new" -k local:one
mkdir "$T/s4/inside"
refused $USAGE "$T/s4/inside" -k local:one
mkdir "$T/s4/inside/deep"
refused $USAGE "$T/s4/inside/deep" -k local:one --force
expect_text "store of another volume"
rm -r "$T/s4/inside"

say "what an empty volume without its .cmekfs looks like"
mkdir "$T/headless"
cp -a "$T/s1/.cmekfs.dir" "$T/headless/"
refused $EXISTS "$T/headless" -k local:one
expect_text "backup" "--force"
"$MKFS" -q -k local:one --force "$T/headless"
whole "$T/headless"
mkdir -p "$T/notours/.cmekfs.tmp-01234567/data"
refused $EXISTS "$T/notours" -k local:one --force
expect_text "holds something else"

say "two at once"
for _ in 1 2 3 4 5; do
	mkdir "$T/race"
	"$MKFS" -q -k local:one "$T/race" 2>"$T/race1.err" &
	one=$!
	code=0
	"$MKFS" -q -k local:one "$T/race" 2>"$T/race2.err" || code=$?
	other=0
	wait $one || other=$?
	case $code/$other in
	"0/$EXISTS" | "0/$BUSY" | "$EXISTS/0" | "$BUSY/0") ;;
	*) fail "two at once: $code and $other: $(cat "$T"/race?.err)" ;;
	esac
	whole "$T/race"
	rm -rf "$T/race"
done

# The system calls that change the store or make a change durable. Each is hit at its first, second, ... occurrence.
calls="mkdirat symlinkat unlinkat renameat fsync fchmod openat write"
with_fault() (
	code=0
	# The leak sanitizer is a tracer itself.
	ASAN_OPTIONS=detect_leaks=0 strace -f -qq -o "$T/strace" -e trace="${1%%:*}" -e "inject=$1" "$MKFS" -q -k local:one "$SHM/s" >"$T/out" 2>&1 || code=$?
	exit "$code"
)
interrupt_everywhere() {
	local call n code rest hits=0 volumes=0
	for call in $calls; do
		for ((n = 1; ; n++)); do
			mkdir -p "$SHM/s"
			code=0
			with_fault "$call:signal=KILL:when=$n" 2>/dev/null || code=$? # without bash's word on the kill
			if [ -e "$SHM/s/.cmekfs" ]; then
				whole "$SHM/s"
				volumes=$((volumes + 1))
			fi
			[ $code -ne 0 ] || break
			[ $code -eq 137 ] || fail "$call $n: exit code $code: $(cat "$T/out")"
			hits=$((hits + 1))
			if [ ! -e "$SHM/s/.cmekfs" ]; then
				"$MKFS" -q -k local:one "$SHM/s" 2>"$T/out" || fail "after $call $n: $(cat "$T/out")"
				whole "$SHM/s"
			fi
			rest=$(find "$SHM/s" -name '.cmekfs.tmp*')
			[ -z "$rest" ] || fail "after $call $n: left: $rest"
			rm -rf "$SHM/s"
		done
		rm -rf "$SHM/s"
	done
	echo "$hits interruptions"
	[ $((hits > 30 && volumes > 8)) = 1 ] || fail "too few interruptions: $hits"
}
fail_everywhere() {
	local call n code hits=0
	for call in $calls; do
		for ((n = 1; ; n++)); do
			code=0
			with_fault "$call:error=ENOSPC:when=$n" || code=$?
			if [ $code -eq 0 ]; then
				whole "$SHM/s"
				rm -rf "$SHM/s"
				grep -q INJECTED "$T/strace" || break # past the last one; an early one may be no failure
				continue
			fi
			[ $code -lt 128 ] || fail "$call $n: $code"
			hits=$((hits + 1))
			# It cleans up behind itself, unless what fails is the cleaning, or the flush of the finished volume.
			if [ -e "$SHM/s/.cmekfs" ]; then
				whole "$SHM/s"
			elif [ "$call" != unlinkat ] && [ "$call" != openat ]; then
				[ ! -e "$SHM/s" ] || fail "after failed $call $n: left: $(find "$SHM/s")"
			fi
			rm -rf "$SHM/s"
		done
	done
	echo "$hits failures"
	[ $hits -gt 20 ] || fail "too few failures: $hits"
}
if command -v strace >/dev/null && strace -qq -o /dev/null true 2>/dev/null; then
	say "killed at every step"
	part interrupt_everywhere
	say "ENOSPC at every step"
	part fail_everywhere
else
	say "no strace: interruptions are not tested"
fi

# What file systems take: ext4 and btrfs the longest links, XFS and ext4 with 1 KiB blocks shorter ones.
on_fs() {
	local fs=$1 want=$2
	need_root
	mkimage "$fs" "$3" "$T/fs.$fs"
	"$MKFS" --json -k local:one "$T/fs.$fs/store" >"$T/json"
	whole "$T/fs.$fs/store"
	[ "$(jq .symlink_max "$T/json")" = "$want" ] || fail "$fs: symlink_max $(jq .symlink_max "$T/json"), not $want"
	umount "$T/fs.$fs"
}
say "file systems"
part on_fs ext4 4095 1G
part on_fs xfs 1023 300M
part on_fs btrfs 4095 256M
small_ext4() {
	need_root
	need mkfs.ext4
	truncate -s 32M "$SHM/small.img"
	mkfs.ext4 -q -b 1024 "$SHM/small.img"
	mkdir "$T/small"
	mount -o loop "$SHM/small.img" "$T/small" || skip "no loop device"
	"$MKFS" --json -k local:one "$T/small" >"$T/json"
	whole "$T/small"
	[ "$(jq .symlink_max "$T/json")" = 1023 ] || fail "ext4 of 1 KiB blocks: symlink_max $(jq .symlink_max "$T/json")"
	umount "$T/small"
}
part small_ext4
vfat() {
	need_root
	need mkfs.vfat
	truncate -s 32M "$SHM/vfat.img"
	mkfs.vfat "$SHM/vfat.img" >/dev/null
	mkdir "$T/vfat"
	mount -o loop "$SHM/vfat.img" "$T/vfat" || skip "no loop device, or no vfat in this kernel"
	refused $UNSUPPORTED "$T/vfat" -k local:one
	umount "$T/vfat"
}
part vfat
read_only() {
	need_root
	mkdir "$T/ro"
	mount -t tmpfs -o ro none "$T/ro"
	refused 1 "$T/ro" -k local:one
	expect_text "read-only"
	umount "$T/ro"
}
part read_only

say "the passphrase of a key store is asked for once, however many of its keys are given"
echo 'correct horse' >"$T/pass"
chmod 600 "$T/pass"
with_pass() { env CMEKFS_LOCAL_KEYSTORE="$T/pass-keys.json" "$@"; }
with_pass "$CTL" key create --passphrase --passphrase-file "$T/pass" local:one
with_pass "$CTL" key create --passphrase-file "$T/pass" local:two
with_pass "$PYTHON" - "$MKFS" --no-pin --key local:one --key local:two "$T/asked" <<-'END'
	import os, pty, sys
	pid, terminal = pty.fork()
	if pid == 0:
	    os.execvp(sys.argv[1], sys.argv[1:])
	said, prompts = b"", 0
	while True:
	    try:
	        more = os.read(terminal, 4096)
	    except OSError:  # the other end is closed
	        more = b""
	    if not more:
	        break
	    said += more
	    if said.count(b"pass-keys.json: ") > prompts:  # the end of a prompt
	        prompts += 1
	        os.write(terminal, b"correct horse\n")
	code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
	assert code == 0 and prompts == 1, (code, prompts, said)
END
whole "$T/asked"

say "another user"
as_nobody() {
	need_root
	need setpriv
	setpriv --reuid nobody --regid nogroup --clear-groups env "$MKFS" --version >/dev/null 2>&1 ||
		skip "nobody can't run the programs of this build"
	mkdir "$SHM/nobody"
	chown nobody "$SHM/nobody"
	chmod 755 "$SHM"
	(
		unset CMEKFS_VOLUMES CMEKFS_LOCAL_KEYSTORE CMEKFS_AUDIT_LOG
		export HOME=$SHM/nobody XDG_DATA_HOME=
		setpriv --reuid nobody --regid nogroup --clear-groups "$MKFS" -q -k local:mine "$SHM/nobody/store"
	)
	[ "$(stat -c %U "$SHM/nobody/.local/share/cmekfs/volumes.json")" = nobody ] || fail "registry"
	[ "$(stat -c %U-%a "$SHM/nobody/.local/share/cmekfs/keys.json")" = nobody-600 ] || fail "key store"
	whole "$SHM/nobody/store"
	refuse_root_store=0
	setpriv --reuid nobody --regid nogroup --clear-groups env HOME="$SHM/nobody" "$MKFS" -k local:mine "$T/s1" >"$T/out" 2>&1 ||
		refuse_root_store=$?
	[ $refuse_root_store -eq 1 ] || fail "another user's store: exit code $refuse_root_store"
}
part as_nobody
