#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What cmekfs writes is read by the independent reader (tests/reader, written from the documents only): names,
# contents and attributes, also through the journal of a mount that was killed. And cmekfs reads what the independent
# writer wrote.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
need_fuse
need_cmekfs
READER=$HERE/../reader
$PYTHON -c 'import cryptography' 2>/dev/null || skip "python3-cryptography is not installed"

# The KEK goes through a pipe; it is not in a file or on a command line.
unwrap() { $PYTHON "$READER/local_unwrap.py" "$1"; }
# read_volume STORE COMMAND...: the reader on the volume.
read_volume() { unwrap "$1" | $PYTHON "$READER/cmekfs_reader.py" --kek-file - "$@"; }
# look_through STORE COMMAND...: as if the journal had been replayed.
look_through() { unwrap "$1" | $PYTHON "$READER/cmekfs_reader.py" --kek-file - --replay "$@"; }
# clean STORE: the reader finds neither damage nor anything left over.
clean() {
	read_volume "$1" verify >"$T/verify" || {
		cat "$T/verify" >&2
		fail "the reader finds damage"
	}
	grep -qx 'notes: 0' "$T/verify" || fail "the reader finds what should not be there"
}
list_tree() { $PYTHON "$READER/list_tree.py" --full "$1"; }
# same WHAT POINT FILE FILE: two listings are, but for the attributes where the mount at POINT has none.
same() {
	getfattr "$2" >/dev/null 2>&1 || sed -i '/^x\t/d' "$3" "$4"
	cmp -s "$3" "$4" || {
		diff "$3" "$4" >"$T/differences" || true
		sed 20q "$T/differences" >&2
		fail "$1"
	}
}

# fill DIR: the odd tree, and what it lacks: files in pieces, changed in place, cut, grown, with attributes.
fill() {
	$PYTHON "$HERE/odd_tree.py" "$1/odd"
	$PYTHON - "$1" <<-'END'
		import os, random, sys
		top = sys.argv[1]
		rng = random.Random(7)
		for i in range(40):
		    path = os.path.join(top, f"changed-{i}")
		    with open(path, "wb", buffering=0) as f:
		        for _ in range(20):
		            f.seek(rng.randrange(3_000_000))
		            f.write(rng.randbytes(rng.choice((1, 100, 4096, 16384, 70000))))
		            if rng.random() < .2:
		                f.truncate(rng.randrange(3_500_000))
		            if rng.random() < .2:
		                os.fsync(f.fileno())
		    if i % 3 == 0:
		        os.rename(path, path + "-" + "r" * 200)
		    elif i % 3 == 1:
		        os.truncate(path, rng.randrange(10_000))
		with open(os.path.join(top, "islands"), "wb") as f:
		    for i in range(14):      # more ranges of absent groups than a map page has
		        f.seek(i * (i + 3) * 1_000_000)
		        f.write(b"island %d" % i)
		    f.truncate(f.tell() + 20_000_000)
		with open(os.path.join(top, "emptied"), "wb") as f:
		    f.write(bytes(range(256)) * 100)
		    f.flush()
		    f.truncate(0)
		    f.seek(0)
		    f.write(b"a new life")
	END
	# Extended attributes are for the mounts that have them.
	if setfattr -n user.probe -v x "$1/emptied" 2>/dev/null; then
		setfattr -n user.comment -v "quarterly figures" "$1/changed-1"
		setfattr -n "user.$(printf 'x%.0s' {1..200})" -v "$(printf 'y%.0s' {1..1000})" "$1/changed-1"
		setfattr -n user.dir -v z "$1/odd"
		setfattr -n trusted.note -v w "$1/changed-4" || true
	fi
}

# forth STORE POINT [OPTION OF mkfs]...: cmekfs writes, the reader reads.
forth() {
	local store=$1 point=$2
	shift 2
	new_volume "$store" "$@"
	start "$store" "$point"
	fill "$point"
	stop "$store" "$point"
	read_volume "$store" tree --full >"$T/reader.list"
	clean "$store"
	start "$store" "$point" -o ro
	list_tree "$point" >"$T/mount.list"
	same "the reader and the mount list different things" "$point" "$T/reader.list" "$T/mount.list"
	mkdir "$T/export"
	read_volume "$store" export "$T/export"
	diff -r --no-dereference --exclude=special "$point" "$T/export" || fail "the reader's contents differ"
	stop "$store" "$point"
	rm -rf "$T/export"
}

# crashed STORE POINT SEED: the mount is killed amid writes; the reader looks through its journal, then a mount replays
# it, and they are to agree.
crashed() {
	local store=$1 point=$2 writer pid
	start "$store" "$point"
	$PYTHON - "$point" "$3" <<-'END' &
		import ctypes, os, random, sys
		rng = random.Random(int(sys.argv[2]))
		punch = ctypes.CDLL(None).fallocate
		paths = [os.path.join(sys.argv[1], f"crash-{i}") for i in range(8)]
		files = [open(path, "w+b", buffering=0) for path in paths]
		try:
		    while True:
		        i = rng.randrange(8)
		        f, what = files[i], rng.random()
		        f.seek(rng.randrange(2_000_000))
		        f.write(rng.randbytes(rng.choice((10, 4096, 50000))))
		        if what < .05:
		            f.truncate(rng.randrange(2_000_000))
		        elif what < .08:
		            f.truncate(0)
		        elif what < .12:
		            first, count = rng.randrange(500), rng.randrange(1, 200)
		            punch(f.fileno(), 3, ctypes.c_long(first * 4096), ctypes.c_long(count * 4096))
		        elif what < .14:
		            os.rename(paths[i], paths[i] + "x")
		            paths[i] += "x"
		        elif what < .4:
		            os.fsync(f.fileno())
		except OSError:
		    sys.exit(0)
	END
	writer=$!
	sleep 3
	for pid in $(fs_pids "$store"); do kill -KILL "$pid" 2>/dev/null || true; done
	wait "$writer" || true
	umount -l "$point" 2>/dev/null || true
	wait_for 20 ended "$store" || fail "the killed file system lives"
	if read_volume "$store" tree >"$T/out" 2>&1; then
		say "the journal was empty"
	else
		grep -q 'is not empty' "$T/out" || fail "refused for another reason: $(cat "$T/out")"
		read_volume "$store" journal >"$T/journal"
		say "$(grep -c ': record' "$T/journal") records in the journal"
	fi
	look_through "$store" tree --full >"$T/reader.list"
	start "$store" "$point"
	list_tree "$point" >"$T/mount.list"
	same "the reader's replay and that of cmekfs differ" "$point" "$T/reader.list" "$T/mount.list"
	stop "$store" "$point"
	clean "$store"
}

# back STORE POINT SYMLINK_MAX [OPTION OF make_volume.py]...: the writer writes, cmekfs reads and goes on writing.
back() {
	local store=$1 point=$2 symlink_max=$3 uuid
	shift 3
	uuid=$(cat /proc/sys/kernel/random/uuid)
	rm -rf "$T/python-keys"
	mkdir -m 700 "$T/python-keys"
	head -c 32 /dev/urandom >"$T/python-keys/kek"
	$PYTHON "$READER/make_keystore.py" --kek-file "$T/python-keys/kek" --uuid "$uuid" --versions 2 \
		"$T/python-keys/keys.json" other main=recovery >"$T/python-keys/slots"
	$PYTHON "$READER/make_volume.py" --kek-file "$T/python-keys/kek" --uuid "$uuid" --slots "$T/python-keys/slots" \
		--symlink-max "$symlink_max" "$@" "$T/source" "$store"
	export CMEKFS_LOCAL_KEYSTORE=$T/python-keys/keys.json
	start "$store" "$point"
	list_tree "$T/source" >"$T/source.list"
	list_tree "$point" >"$T/mount.list"
	same "cmekfs shows a volume of the writer differently" "$point" "$T/source.list" "$T/mount.list"
	cp -a "$point/odd/contents" "$point/more"
	find "$point/odd/links" -type l -delete
	printf 'changed' | dd of="$point/changed-2" bs=1 seek=5000 conv=notrunc status=none
	stop "$store" "$point"
	start "$store" "$point" -o ro
	list_tree "$point" >"$T/mount.list"
	read_volume "$store" tree --full >"$T/reader.list"
	same "what cmekfs changed in a volume of the writer reads differently" "$point" "$T/mount.list" "$T/reader.list"
	stop "$store" "$point"
	clean "$store"
	export CMEKFS_LOCAL_KEYSTORE=$T/keys/keys.json
}

say "B 4096, from cmekfs to the reader"
forth "$SHM/store" "$T/mnt"
say "killed amid writes"
crashed "$SHM/store" "$T/mnt" 1
[ "$LONG" = 0 ] || for seed in {2..20}; do crashed "$SHM/store" "$T/mnt" "$seed"; done
say "B 16384, on XFS, whose symlinks are short"
mkimage xfs 400M "$T/xfs"
forth "$T/xfs/store" "$T/mnt" -b 16384
umount "$T/xfs"

say "from the writer to cmekfs"
mkdir "$T/source"
fill "$T/source"
back "$SHM/back" "$T/mnt" 4095
back "$SHM/back-16384" "$T/mnt" 1023 --block-size 16384 --deks 3
