#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# From a fresh clone to a mounted, encrypted volume: sudo contrib/quickstart.sh
#
# Installs what the build needs (Debian and its kin), builds in build/, makes a volume whose key is in a local key
# store, mounts it, writes a file and shows what of it lies on the disk. All it makes is in build/; running it again
# goes on with what is there. Nothing outside is changed but the packages.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
build=$top/build
demo=$build/quickstart
log=$build/quickstart.log
packages=(autoconf automake build-essential fuse3 libcurl4-openssl-dev libfuse3-dev libinih-dev libjansson-dev libmicrohttpd-dev
	libssl-dev pkg-config)
current="start"

trap '[ $? -eq 0 ] || printf "\nquickstart: failed: %s\n" "$current" >&2' EXIT

# step TEXT COMMAND...: what it prints goes to the log, whose end is shown when it fails.
step() {
	current=$1
	shift
	printf -- '- %s\n' "$current"
	if ! "$@" >>"$log" 2>&1; then
		tail -n 20 "$log" >&2
		printf 'quickstart: the whole output is in %s\n' "$log" >&2
		exit 1
	fi
}

# The tree belongs to the user that cloned it, even under sudo: what is built does, too.
owner=$(stat -c %U "$top")
as_owner() {
	if [ "$(id -u)" -eq 0 ] && [ "$owner" != root ] && [ "$owner" != UNKNOWN ]; then
		runuser -u "$owner" -- "$@"
	else
		"$@"
	fi
}

install_packages() {
	apt-get update || echo "apt-get update failed, trying with the lists that are there"
	DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"
}
configure() {
	if [ ! -x "$top/configure" ] || [ "$top/configure.ac" -nt "$top/configure" ]; then
		as_owner autoreconf -fi "$top" || return
	fi
	if [ ! -f "$build/Makefile" ] || [ "$top/configure" -nt "$build/Makefile" ]; then
		(cd "$build" && as_owner ../configure --disable-tests)
	fi
}
compile() { as_owner make -C "$build" -j"$(nproc)"; }
is_mounted() { grep -qF " $demo/mnt " /proc/self/mountinfo; }

as_owner mkdir -p "$build" "$demo"
: >"$log"

missing=()
if command -v dpkg-query >/dev/null; then
	for package in "${packages[@]}"; do
		dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
	done
else
	echo "This is no Debian: the build needs a C compiler, autotools, pkg-config, and the development files of"
	echo "libfuse 3, OpenSSL 3, libcurl, jansson and inih. Going on in the hope that they are here."
fi
if [ ${#missing[@]} -gt 0 ]; then
	if [ "$(id -u)" -ne 0 ]; then
		current="these packages are missing: ${missing[*]} (run it with sudo)"
		exit 1
	fi
	step "installing packages: ${missing[*]}" install_packages
fi
[ -c /dev/fuse ] || { [ "$(id -u)" -eq 0 ] && modprobe fuse 2>/dev/null; } || true
if [ ! -c /dev/fuse ]; then
	current="there is no /dev/fuse here (in a container: start it with --device /dev/fuse --cap-add SYS_ADMIN)"
	exit 1
fi
step "configuring" configure
step "building (output in ${log#"$PWD"/})" compile

export CMEKFS_LOCAL_KEYSTORE=$demo/keys/keys.json CMEKFS_VOLUMES=$demo/keys/volumes.json CMEKFS_AUDIT_LOG=$demo/keys/audit.log
mkdir -p "$demo/keys" "$demo/store" "$demo/mnt"
chmod 700 "$demo/keys"
if [ ! -e "$CMEKFS_LOCAL_KEYSTORE" ]; then
	step "making the key local:quickstart" "$build/cmekctl" key create local:quickstart
fi
if [ ! -e "$demo/store/.cmekfs" ]; then
	step "making a volume" "$build/mkfs.cmekfs" --key local:quickstart -L quickstart "$demo/store"
fi
if ! is_mounted; then
	step "mounting it" "$build/cmekfs" "$demo/store" "$demo/mnt"
fi

current="writing and reading a file"
text="Customer 4711 owes us 99 euros. ($(date))"
printf '%s\n' "$text" >"$demo/mnt/ledger.txt"
sync "$demo/mnt/ledger.txt"
[ "$(cat "$demo/mnt/ledger.txt")" = "$text" ]
current="finding its ciphertext"
stored=$(find "$demo/store" -inum "$(stat -c %i "$demo/mnt/ledger.txt")")
[ -n "$stored" ]
if grep -raqF "Customer 4711" "$demo/store" || find "$demo/store" | grep -q ledger; then
	current="the plain text is in the store: do not use this build"
	exit 1
fi
here=${demo#"$PWD"/}
cat <<END

It works. On the mount, $here/mnt/ledger.txt:
  $text
In the store, the same file is called
  ${stored#"$PWD"/}
and ends with
$(tail -c 48 "$stored" | od -A n -t x1 | sed 's/^/  /')

What next:
  ls $here/mnt      the volume is mounted: put something in
  umount $here/mnt  (or fusermount3 -u) unmounts it
  sudo make -C ${build#"$PWD"/} install       installs the programs
  README.md, doc/operations.md  how to make a volume of your own, run a database on it, and what to back up
The key is in $here/keys. Without that directory nobody can read the volume again: the real place
for it is a key store or a KMS that is kept, and backed up, apart from the data.
END
