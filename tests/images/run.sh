#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Broken volumes and what fsck.cmekfs makes of them. Each directory here is a case: make.sh breaks a copy of a good volume
# (it is sourced, with what is below; it may set options, for fsck, and masks, for sed: what is up to chance), expect.1 is
# what fsck -n, then fsck -y say, expect.2 what a second fsck -y says: it finds nothing but what can't be repaired. Needs no
# mount and no root: the volume comes from tests/reader.
#
#   tests/images/run.sh [--update] [CASE]...      programs are taken from $CMEK_BUILDDIR (default: the current directory)
#
# In the output the scratch directory is DIR, a stored name NAME, a UUID UUID, and a name in .cmekfs/lost LOST.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
reader=$here/../reader
builddir=$(cd "${CMEK_BUILDDIR:-.}" && pwd)
PYTHON=/usr/bin/python3
export LC_ALL=C PYTHONDONTWRITEBYTECODE=1
update=no
if [ "${1-}" = --update ]; then
	update=yes
	shift
fi
if [ ! -x "$builddir/fsck.cmekfs" ] || ! $PYTHON -c 'import cryptography' 2>/dev/null; then
	echo "no fsck.cmekfs in $builddir, or no python3-cryptography"
	exit 77
fi
if [ $# -eq 0 ]; then
	for dir in "$here"/*/; do
		set -- "$@" "$(basename "$dir")"
	done
fi

scratch=$(mktemp -d "${TMPDIR:-/tmp}/cmekfs-images.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
export CMEKFS_LOCAL_KEYSTORE=$scratch/keys.json CMEKFS_VOLUMES=$scratch/volumes.json CMEKFS_AUDIT_LOG=$scratch/audit.log
uuid=11111111-2222-4333-8444-555555555555

# The good volume. What cases break is found by the sizes of its stored files.
make_volume() {
	local src=$scratch/plain
	mkdir -p "$src/dir/sub" "$src/other"
	head -c 5000 /dev/zero | tr '\0' s >"$src/small"
	: >"$src/empty"
	head -c 500000 /dev/zero | tr '\0' b >"$src/dir/big"
	head -c 700 /dev/zero | tr '\0' l >"$src/dir/$(printf 'long%.0s' $(seq 50))"
	head -c 4096 /dev/zero | tr '\0' d >"$src/dir/sub/deep"
	head -c 9 /dev/zero | tr '\0' o >"$src/other/nine"
	ln -s small "$src/link"
	ln -s "$(printf '%01500d' 0)" "$src/far"
	mkfifo "$src/fifo"
	head -c 32 /dev/urandom >"$scratch/kek"
	$PYTHON "$reader/make_keystore.py" --kek-file "$scratch/kek" --uuid $uuid "$CMEKFS_LOCAL_KEYSTORE" db >"$scratch/slots"
	chmod 600 "$CMEKFS_LOCAL_KEYSTORE"
	$PYTHON "$reader/make_volume.py" --kek-file "$scratch/kek" --uuid $uuid --slots "$scratch/slots" --deks 2 \
		--symlink-max 1023 "$src" "$scratch/good"
	mkdir -p "$scratch/good/.cmekfs/links" "$scratch/good/.cmekfs/lost"
}

# For make.sh. stored PLAIN-BYTES: the stored file of this many plain bytes.
# shellcheck disable=SC2317,SC2017
stored() {
	local plain=$1
	find "$store" -path "$store/.cmekfs" -prune -o -type f -size "$(((plain + 393215) / 393216 * 4096 + plain))c" -print
}
# flip FILE OFFSET: changes a byte.
# shellcheck disable=SC2317,SC2059
flip() {
	local byte
	byte=$(od -An -tu1 -j "$2" -N 1 "$1")
	printf "\\x$(printf %x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

normalise() {
	sed -e "s|$scratch/[a-z0-9-]*|DIR|g" -e 's|fsck-[0-9a-f]\{16\}|LOST|g' -e "s|$uuid|UUID|g" \
		-e 's|[A-Za-z0-9_-]\{22,\}\(\.[0-9nl]\)|NAME\1|g' -e 's|[A-Za-z0-9_-]\{23,\}|NAME|g' \
		"${masks[@]}" | sort_findings
}
# The order of a directory is the file system's: findings are sorted, what is around them is not.
sort_findings() {
	awk '/^(\$|exit|DIR:|clean|Without|Contents|[0-9]+ (found|blocks))/ { flush(); print; next }
		{ lines[n++] = $0 }
		function flush(  i, j, t) {
			for (i = 1; i < n; i++)
				for (j = i; j > 0 && lines[j] < lines[j - 1]; j--) {
					t = lines[j]
					lines[j] = lines[j - 1]
					lines[j - 1] = t
				}
			for (i = 0; i < n; i++) print lines[i]
			n = 0
		}
		END { flush() }'
}

# check_with OPTION...: one run of fsck, with its exit code.
check_with() {
	local code=0
	echo "\$ fsck.cmekfs $*"
	"$builddir/fsck.cmekfs" "$@" "$store" 2>&1 || code=$?
	echo "exit $code"
}

make_volume
failed=0
for name in "$@"; do
	store=$scratch/$name
	cp -a "$scratch/good" "$store"
	options=(--data)
	masks=()
	# shellcheck source=/dev/null
	. "$here/$name/make.sh"
	{
		check_with -n "${options[@]}"
		check_with -y "${options[@]}"
	} | normalise >"$scratch/$name.1"
	check_with -y "${options[@]}" | normalise >"$scratch/$name.2"
	if [ $update = yes ]; then
		cp "$scratch/$name.1" "$here/$name/expect.1"
		cp "$scratch/$name.2" "$here/$name/expect.2"
	elif diff -u "$here/$name/expect.1" "$scratch/$name.1" && diff -u "$here/$name/expect.2" "$scratch/$name.2"; then
		echo "PASS: $name"
	else
		echo "FAIL: $name"
		failed=1
	fi
	rm -rf "$store"
done
exit $failed
