# shellcheck shell=bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What every integration test sources first. A test is a script of its own: it runs under run.sh or alone, has its own
# directories, key store and registry, and ends with 0, 77 (cannot run here, with the reason) or anything else.
#
#   $T    directory of the test on a disk        $SHM  directory of the test in memory (tmpfs)
#   $HERE tests/integ                            $LONG 1 when CMEK_LONG=1, else 0
#
# CMEK_FS=bind or gocryptfs puts another file system in the place of cmekfs. That is for checking the tests themselves:
# a data test that fails on a plain directory is wrong.
set -Eeuo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034 # for the tests
LONG=$([ "${CMEK_LONG:-}" = 1 ] && echo 1 || echo 0)
PYTHON=/usr/bin/python3
export PYTHONDONTWRITEBYTECODE=1
umask 022

if [ -z "${CMEK_TEST_DIR:-}" ]; then
	# Started alone: run.sh does what has to be done around a test.
	exec bash "$HERE/run.sh" "$(basename "$0" .sh)"
fi
T=$CMEK_TEST_DIR
SHM=$CMEK_TEST_SHM
trap 'echo "$0: line $LINENO: $BASH_COMMAND: failed" >&2' ERR

CMEK_FS=${CMEK_FS:-cmekfs}
CMEKFS=${CMEK_BUILD:+$CMEK_BUILD/}cmekfs
MKFS=${CMEK_BUILD:+$CMEK_BUILD/}mkfs.cmekfs
CTL=${CMEK_BUILD:+$CMEK_BUILD/}cmekctl
# shellcheck disable=SC2034 # some scripts' alone
FSCK=${CMEK_BUILD:+$CMEK_BUILD/}fsck.cmekfs

if [ "$CMEK_FS" = cmekfs ]; then
	for program in "$CMEKFS" "$MKFS" "$CTL"; do
		command -v "$program" >/dev/null || {
			echo "$program: not found; is CMEK_BUILD a build directory?" >&2
			exit 1
		}
	done
fi

# Nothing of the machine's own keys and volumes is seen or touched.
mkdir -p "$T/keys"
chmod 700 "$T/keys"
export CMEKFS_LOCAL_KEYSTORE=$T/keys/keys.json
export CMEKFS_VOLUMES=$T/keys/volumes.json
export CMEKFS_CONFIG=$T/cmekfs.conf
export CMEKFS_AUDIT_LOG=$T/keys/audit.log
: >"$CMEKFS_CONFIG"
for name in $(compgen -e | grep -E '^(AWS|GOOGLE|IBM)_' || true); do
	unset "$name"
done
export AWS_EC2_METADATA_DISABLED=true
export CMEKFS_RUNTIME_DIR=$T/sockets

say() { echo "== $*"; }
fail() {
	echo "failed: $*" >&2
	exit 1
}
skip() {
	echo "skipped: $*"
	exit 77
}
need() {
	local program
	for program; do
		command -v "$program" >/dev/null || skip "$program is not installed"
	done
}
need_root() { [ "$(id -u)" -eq 0 ] || skip "needs root"; }
# For tests of what only cmekfs does.
need_cmekfs() { [ "$CMEK_FS" = cmekfs ] || skip "about cmekfs itself"; }
need_fuse() { [ -c /dev/fuse ] || skip "no /dev/fuse"; }

# Sanitizer builds: what is known and not ours.
export LSAN_OPTIONS=${LSAN_OPTIONS:-suppressions=$HERE/lsan.supp:print_suppressions=0}

# expect_code CODE COMMAND...: runs it, output to $T/out, compares the exit code.
expect_code() {
	local want=$1 got=0
	shift
	"$@" >"$T/out" 2>&1 || got=$?
	[ "$got" -eq "$want" ] || {
		cat "$T/out" >&2
		fail "exit code $got, not $want: $*"
	}
}
# expect_text REGEX...: each is in the output of the last expect_code.
expect_text() {
	local regex
	for regex; do
		grep -Eqi -- "$regex" "$T/out" || {
			cat "$T/out" >&2
			fail "not said: $regex"
		}
	done
}
# expect_errno NAME OPERATION ARGUMENTS...: one system call (sysop.py) and exactly this errno ("OK" = none).
expect_errno() {
	local want=$1 got
	shift
	got=$($PYTHON "$HERE/sysop.py" "$@")
	[ "$got" = "$want" ] || fail "$*: $got, not $want"
}
# part FUNCTION [ARGUMENT]...: a part of a test that may be skipped alone. Not "( ... ) ||": that would switch off errexit.
part() {
	local code=0
	("$@") &
	wait $! || code=$?
	[ $code -eq 0 ] || [ $code -eq 77 ] || exit $code
}
# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
	local limit=$1 n=0
	shift
	while ! "$@"; do
		n=$((n + 1))
		[ "$n" -le $((limit * 20)) ] || return 1
		sleep 0.05
	done
}

# Volumes and mounts. The names of logs come from the name of the mount point.

# new_volume STORE [OPTION OF mkfs.cmekfs]...: a volume with the key local:test.
new_volume() {
	local store=$1
	shift
	mkdir -p "$store"
	case $CMEK_FS in
	cmekfs)
		[ -e "$CMEKFS_LOCAL_KEYSTORE" ] || "$CTL" key create local:test >/dev/null
		"$MKFS" --key local:test "$@" "$store" >/dev/null
		;;
	gocryptfs)
		echo test >"$T/keys/passphrase"
		gocryptfs -q -init -scryptn 10 -passfile "$T/keys/passphrase" "$store"
		;;
	bind) ;;
	*) fail "CMEK_FS=$CMEK_FS: unknown" ;;
	esac
}
# mounted POINT: something is mounted there.
mounted() { grep -qF " $1 " /proc/self/mountinfo; }
# fs_pids STORE: the processes of the mount of this store (the store's path is unique to the test).
fs_pids() {
	local dir argv arg
	for dir in /proc/[0-9]*; do
		{ mapfile -d '' -t argv <"$dir/cmdline"; } 2>/dev/null || continue
		case ${argv[0]:-} in cmekfs | */cmekfs | */mount.cmekfs | */gocryptfs | gocryptfs) ;; *) continue ;; esac
		for arg in "${argv[@]:1}"; do
			if [ "$arg" = "$1" ]; then
				echo "${dir#/proc/}"
				break
			fi
		done
	done
}
declare -A mount_pid # of mounts in the foreground, by mount point
# start STORE POINT [OPTION]...: mounts, everyone may enter, and returns when the mount is there. cmekfs stays in the
# foreground (of a background job), so that its messages are in the test's log.
start() {
	local store=$1 point=$2 pid log
	shift 2
	log=$T/$(basename "$point").mount.log
	mkdir -p "$point"
	case $CMEK_FS in
	cmekfs)
		"$CMEKFS" "$store" "$point" -f -o allow_other "$@" >>"$log" 2>&1 &
		pid=$!
		mount_pid[$point]=$pid
		until mounted "$point"; do
			kill -0 $pid 2>/dev/null || fail "can't mount $store: $(tail -n 3 "$log")"
			sleep 0.02
		done
		;;
	gocryptfs) gocryptfs -q -allow_other -passfile "$T/keys/passphrase" "$store" "$point" >>"$log" 2>&1 ;;
	bind) mount --bind "$store" "$point" ;;
	esac
}
# start_daemon STORE POINT [OPTION]...: the same as users do it, in the background.
start_daemon() {
	local store=$1 point=$2 log
	shift 2
	log=$T/$(basename "$point").mount.log
	mkdir -p "$point"
	"$CMEKFS" "$store" "$point" "$@" >>"$log" 2>&1 || fail "can't mount $store: $(tail -n 3 "$log")"
	mounted "$point" || fail "$point: the mount command succeeded and there is no mount"
}
# ended STORE: no process of the mount is left.
ended() { [ -z "$(fs_pids "$1")" ]; }
# stop STORE POINT: unmounts and waits until the file system has ended, with exit code 0 (or any, with stop_code=any).
stop() {
	local n=0 code=0
	until umount "$2" 2>"$T/umount.err"; do
		n=$((n + 1))
		[ "$n" -lt 40 ] || fail "umount $2: $(cat "$T/umount.err")"
		sleep 0.1
	done
	wait_for 60 ended "$1" || fail "$1: the file system did not end 60 s after the unmount"
	if [ -n "${mount_pid[$2]:-}" ]; then
		wait "${mount_pid[$2]}" || code=$?
		unset "mount_pid[$2]"
		[ $code -eq 0 ] || [ "${stop_code:-}" = any ] || fail "the file system ended with exit code $code: $(tail -n 3 "$T/$(basename "$2").mount.log")"
	fi
}
# restart STORE POINT [OPTION]...
restart() {
	stop "$1" "$2"
	start "$@"
}

# leave_room BYTES DIR: takes all else of a file system, of which the smallest image is larger than a test wants.
leave_room() { fallocate -l $(($(stat -f -c '%a*%S' "$2") - $1)) "$2/taken"; }
# mkimage FS SIZE DIR [MOUNT OPTION]: a new file system of this kind (ext4, xfs, btrfs) in an image on tmpfs, on DIR.
mkimage() {
	local fs=$1 size=$2 dir=$3 options=${4:-defaults} image
	image=$SHM/$(basename "$dir").img
	need "mkfs.$fs" losetup
	truncate -s "$size" "$image"
	case $fs in
	ext4) mkfs.ext4 -q -m 0 "$image" ;;
	xfs) mkfs.xfs -q "$image" ;;
	btrfs) mkfs.btrfs -q "$image" ;;
	*) fail "mkimage: $fs?" ;;
	esac
	mkdir -p "$dir"
	mount -o "loop,$options" "$image" "$dir" || skip "no loop device, or no $fs in this kernel"
}

# own_mounts: the script goes on in a mount namespace of its own (it is started anew there). Copies of other tests' mounts
# would keep their file systems from ending, so those go first.
own_mounts() {
	local point
	need unshare findmnt
	[ -n "${CMEK_OWN_MOUNTS:-}" ] || CMEK_OWN_MOUNTS=1 exec unshare -m bash "$0"
	{ findmnt -rno TARGET -t fuse.cmekfs,fuse.gocryptfs || true; } | while read -r point; do
		umount -l "$(printf '%b' "$point")" || true
	done
}

# What a mount consists of (cmekfs).
# supervisor_pid STORE: the process that the others descend from.
supervisor_pid() {
	local pid pids parent
	pids=$(fs_pids "$1")
	for pid in $pids; do
		parent=$(awk '/^PPid:/ { print $2 }' "/proc/$pid/status" 2>/dev/null) || continue
		grep -qxF "$parent" <<<"$pids" || echo "$pid"
	done
}
# storage_pid STORE: the process that holds the store's lock.
storage_pid() {
	local pid
	for pid in $(fs_pids "$1"); do
		# find fails when a descriptor goes while it looks.
		if [ -n "$(find "/proc/$pid/fd" -lname "$1/.cmekfs/lock" 2>/dev/null || true)" ]; then echo "$pid"; fi
	done
}
