#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# What mounts count, as Prometheus text, also over HTTP; and cmekctl status --watch.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_cmekfs
need_root
need_fuse
need jq

# A mount point that has to be escaped in a label.
store=$SHM/store mnt="$T/m\"nt"
NOT_FOUND=3 USAGE=2 BUSY=5 DISABLED=12
new_volume "$store" -L db

# value NAME [LABEL=VALUE]...: of the metrics of the mount, which are checked as well.
value() { "$CTL" metrics "$mnt" | $PYTHON "$HERE/promtext.py" "$@"; }
# equals VALUE NAME [LABEL=VALUE]...
equals() {
	local want=$1 got
	shift
	got=$(value "$@")
	[ "$got" = "$want" ] || fail "$*: $got, not $want"
}
positive() {
	local got
	got=$(value "$@")
	[ "$got" != 0 ] || fail "$*: nothing"
}
is_disabled() { [ "$(value cmekfs_key_state state=disabled)" = 1 ]; }

# promtool_check WHAT...: is not there everywhere.
if command -v promtool >/dev/null; then
	promtool_check() { promtool check "$@"; }
else
	echo "promtool is not there: not checked by it"
	promtool_check() { :; }
fi

say "not mounted"
expect_code $NOT_FOUND "$CTL" metrics "$store"
expect_code $NOT_FOUND "$CTL" status --watch "$store"
expect_code $USAGE "$CTL" status --watch --journal "$store"

say "the text"
start "$store" "$mnt" -o commit=3600,watch_interval=100ms,watch_retry=100ms,watch_on_disabled=ignore
echo content >"$mnt/file"
cat "$mnt/file" >/dev/null
mkdir -p "$mnt/dir/full"
expect_errno ENOTEMPTY rmdir "$mnt/dir"
"$CTL" metrics "$mnt" >"$T/text"
$PYTHON "$HERE/promtext.py" <"$T/text"
promtool_check metrics <"$T/text"
equals 1 cmekfs_info "mountpoint=$mnt" label=db "volume=$("$CTL" status --json "$mnt" | jq -r .uuid)"
equals 0 cmekfs_read_only
equals 1 cmekfs_lock_state state=unlocked
equals 1 cmekfs_waiting_files
equals 0 cmekfs_journal_failed
equals 1 cmekfs_key_state state=healthy
equals 0 cmekfs_requests_refused_total
positive cmekfs_journal_size_bytes
positive cmekfs_request_duration_seconds_count op=lookup
positive cmekfs_request_errors_total op=rmdir
positive cmekfs_kms_calls_total call=unwrap outcome=ok
dd if="$mnt/file" of=/dev/null iflag=direct status=none
ls "$mnt" >/dev/null
sync "$mnt/file"
positive cmekfs_written_bytes_total
positive cmekfs_read_bytes_total
for cache in map_page content_key; do
	positive cmekfs_cache_hits_total cache=$cache
	positive cmekfs_cache_misses_total cache=$cache
done
for op in seal open; do
	for cipher in gcm siv; do
		positive cmekfs_aead_calls_total cipher=$cipher op=$op
		positive cmekfs_aead_bytes_total cipher=$cipher op=$op
	done
done
equals 0 cmekfs_aead_failures_total cipher=gcm
positive cmekfs_dek_sealed_bytes_total dek=1
positive cmekfs_journal_flushes_total
positive cmekfs_journal_appended_bytes_total
equals 1 cmekfs_reencrypt_state state=idle
equals 0 cmekfs_reencrypt_moved_bytes_total
exec 6<"$mnt/file"
positive cmekfs_open_files
exec 6<&-
positive cmekfs_process_resident_memory_bytes
[ "$(value cmekfs_mount_start_time_seconds)" -le "$(date +%s)" ]
[ "$(value cmekfs_key_last_good_timestamp_seconds)" -le "$(date +%s)" ]
"$CTL" metrics --json "$mnt" | jq -r .text >"$T/json"
[ "$(head -n 1 "$T/json")" = "$(head -n 1 "$T/text")" ]

say "a file for a collector"
mkdir "$T/collector"
echo old >"$T/collector/db.prom"
expect_code 0 "$CTL" metrics --textfile "$T/collector/db.prom" "$mnt"
[ ! -s "$T/out" ] || fail "printed as well"
$PYTHON "$HERE/promtext.py" <"$T/collector/db.prom"
[ "$(stat -c %a "$T/collector/db.prom")" = 644 ]
[ "$(ls -A "$T/collector")" = db.prom ] || fail "left: $(ls -A "$T/collector")"
expect_code $NOT_FOUND "$CTL" metrics --textfile "$T/nowhere/db.prom" "$mnt"
expect_code $USAGE "$CTL" metrics --textfile "$T/collector/" "$mnt"

say "a key that is disabled"
"$CTL" key disable local:test
wait_for 60 is_disabled || fail "not seen"
equals 1 cmekfs_key_slot_state slot=0 state=disabled
positive cmekfs_kms_calls_total call=describe outcome=ok
"$CTL" lock "$mnt"
expect_code $DISABLED "$CTL" unlock "$mnt"
positive cmekfs_kms_calls_total call=unwrap outcome=key-disabled
"$CTL" key enable local:test
"$CTL" unlock "$mnt"

say "alerts and dashboard name nothing that is not there"
contrib=$HERE/../../contrib/prometheus
"$CTL" metrics "$mnt" >"$T/text"
$PYTHON - "$T/text" "$contrib/cmekfs.rules.yml" "$contrib/cmekfs.dashboard.json" <<'END'
import json, re, sys
text, *files = sys.argv[1:]
there = set(re.findall(r"^(cmekfs_\w+)\{", open(text).read(), re.M))
states = set(re.findall(r'state="([\w-]+)"', open(text).read()))
for name in files:
    words = open(name).read()
    named = set(re.findall(r"\bcmekfs_\w+", words))
    assert len(named) > 5, name
    assert not named - there, f"{name}: {sorted(named - there)}"
    of = set(re.findall(r'state=\\?"([\w-]+)', words))
    assert not of - states, f"{name}: {sorted(of - states)}"
    if name.endswith(".json"):
        panels = json.loads(words)["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels) and all(panel["targets"] for panel in panels)
END
promtool_check rules "$contrib/cmekfs.rules.yml"

say "the unit of the server"
unit_of_server() {
	need systemd-analyze
	sed "s,@bindir@/cmekctl,$(realpath "$CTL")," "$contrib/../systemd/cmekfs-metrics.service.in" >"$T/cmekfs-metrics.service"
	# Other units of this machine may be as they like.
	systemd-analyze --man=no verify "$T/cmekfs-metrics.service" >"$T/verified" 2>&1 || true
	! grep -F cmekfs-metrics "$T/verified" || fail "the unit"
}
part unit_of_server

say "completion"
# completes WORD... : what the last one can become.
completes() {
	# shellcheck disable=SC2016 # for the other shell
	bash -c '. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cmekctl; printf "%s " "${COMPREPLY[@]}"' - \
		"$contrib/../completion/cmekctl.bash" "$CTL" "$@"
}
[ "$(completes unl)" = "unlock " ] || fail "unl: $(completes unl)"
[ "$(completes slot re)" = "remove " ] || fail "slot re: $(completes slot re)"
[ "$(completes lock --rea)" = "--reason " ] || fail "lock --rea: $(completes lock --rea)"
[ "$(completes lock "$T/coll")" = "$T/collector " ] || fail "a directory: $(completes lock "$T/coll")"

say "several mounts as one text"
second=$SHM/second second_mnt=$T/second
new_volume "$second" -L second
start "$second" "$second_mnt" -o nowatch
uuid=$("$CTL" status --json "$second_mnt" | jq -r .uuid)
# of FILE NAME [LABEL=VALUE]...: value() of a text.
of() { $PYTHON "$HERE/promtext.py" "${@:2}" <"$1"; }
# is FILE VALUE NAME [LABEL=VALUE]...
is() {
	local got
	got=$(of "$1" "${@:3}")
	[ "$got" = "$2" ] || fail "${*:3}: $got, not $2"
}
"$CTL" metrics >"$T/text"
is "$T/text" 1 cmekfs_up "mountpoint=$mnt"
is "$T/text" 1 cmekfs_up "mountpoint=$second_mnt" "volume=$uuid"
is "$T/text" 1 cmekfs_lock_state "mountpoint=$mnt" state=unlocked
is "$T/text" 1 cmekfs_info "mountpoint=$second_mnt" label=second
promtool_check metrics <"$T/text"
"$CTL" metrics second >"$T/text" # its label
! grep -qF 'm\"nt' "$T/text" || fail "of a mount that nobody asked for"
is "$T/text" 1 cmekfs_up "mountpoint=$second_mnt"
"$CTL" metrics "$second_mnt" "$mnt" "$T/nowhere" "$T/nowhere" >"$T/text" 2>"$T/err"
grep -q "$T/nowhere is not mounted" "$T/err" || fail "$(cat "$T/err")"
is "$T/text" 1 cmekfs_up "mountpoint=$mnt"
is "$T/text" 1 cmekfs_up "mountpoint=$second_mnt"
is "$T/text" 0 cmekfs_up "volume=$T/nowhere"
expect_code $NOT_FOUND "$CTL" metrics "$T/nowhere"

say "over HTTP"
# listen FILE [VOLUME]...: a server of its own, whose URL goes to FILE.
listen() {
	"$CTL" metrics --listen 127.0.0.1:0 "${@:2}" >"$1" 2>"$1.err" &
	server=$!
	wait_for 60 grep -q ^listening "$1" || fail "$(cat "$1.err")"
}
url_in() { sed -n 's/^listening on //p' "$1"; }
# get FILE: the metrics of the server of this file, checked, to $T/text.
get() { $PYTHON "$HERE/metrics_http.py" get "$(url_in "$1")" >"$T/text"; }
# shows FILE VALUE NAME [LABEL=VALUE]...: soon.
shows() { wait_for 60 shows_now "$@" || fail "$(url_in "$1"): not $2: ${*:3}"; }
shows_now() { get "$1" && [ "$(of "$T/text" "${@:3}")" = "$2" ]; }
for address in localhost:0 0.0.0.0:0 "[::]:0" 192.0.2.1:0; do
	expect_code $USAGE "$CTL" metrics --listen "$address"
	expect_text "reverse proxy"
done
expect_code $USAGE "$CTL" metrics --listen 127.0.0.1
expect_code $USAGE "$CTL" metrics --listen 127.0.0.1:0 --textfile "$T/x"
: >"$T/heard"
$PYTHON "$HERE/notify.py" "$T/manager" "$T/heard" &
manager=$!
wait_for 60 test -S "$T/manager"
NOTIFY_SOCKET=$T/manager listen "$T/all"
all=$server
wait_for 60 grep -q "^READY=1 STATUS=listening on $(url_in "$T/all")\$" "$T/heard" || fail "$(cat "$T/heard")"
grep -q "^CapEff:.0*$" "/proc/$all/status" || fail "has rights: $(grep Cap "/proc/$all/status")"
grep -q "^NoNewPrivs:.1$" "/proc/$all/status"
listen "$T/named" "$second_mnt"
named=$server
port=$(url_in "$T/all" | tr -cd '0-9:/' | cut -d: -f3 | cut -d/ -f1)
expect_code $BUSY "$CTL" metrics --listen "127.0.0.1:$port"
$PYTHON "$HERE/metrics_http.py" odd "$(url_in "$T/all")"
$PYTHON "$HERE/metrics_http.py" slow "$(url_in "$T/all")" >"$T/slow" &
slow=$!
wait_for 60 grep -q waiting "$T/slow"
listen "$T/crowded"
crowded=$server
$PYTHON "$HERE/metrics_http.py" crowd "$(url_in "$T/crowded")" &
crowd=$!
shows "$T/all" 1 cmekfs_up "mountpoint=$mnt"
shows "$T/all" 1 cmekfs_up "mountpoint=$second_mnt"
shows "$T/named" 1 cmekfs_up "mountpoint=$second_mnt"
is "$T/text" 1 cmekfs_up # and no other
"$CTL" lock "$second_mnt"
shows "$T/named" 1 cmekfs_lock_state state=locked
"$CTL" unlock "$second_mnt"

say "a mount that hangs, one that is gone"
daemon=$(storage_pid "$second")
kill -STOP "$daemon"
timeout 100 "$CTL" metrics "$mnt" "$second_mnt" >"$T/text.named" 2>"$T/err" &
asking=$!
timeout 100 "$CTL" metrics "$mnt" >"$T/text.good" 2>"$T/err.good" &
asking_good=$!
shows "$T/all" 0 cmekfs_up "mountpoint=$second_mnt" "volume=$uuid"
shows "$T/all" 1 cmekfs_lock_state "mountpoint=$mnt" state=unlocked
is "$T/text" 0 cmekfs_up "mountpoint=$second_mnt" "volume=$uuid"
promtool_check metrics <"$T/text"
wait $asking
is "$T/text.named" 1 cmekfs_up "mountpoint=$mnt"
is "$T/text.named" 0 cmekfs_up "volume=$second_mnt"
grep -q "$uuid: the mount did not answer in time" "$T/err" || fail "$(cat "$T/err")"
wait $asking_good
is "$T/text.good" 1 cmekfs_up
[ ! -s "$T/err.good" ] || fail "of a mount that nobody asked for: $(cat "$T/err.good")"
kill -CONT "$daemon"
shows "$T/all" 1 cmekfs_up "mountpoint=$second_mnt"
stop "$second" "$second_mnt"
shows "$T/named" 0 cmekfs_up "volume=$second_mnt"
shows "$T/all" 1 cmekfs_up
! grep -qF "$second_mnt" "$T/text" || fail "of a mount that is gone"
wait $slow || fail "a slow request"
wait $crowd || fail "more than there is room for"
kill -TERM "$all" "$named" "$crowded"
wait "$all" || fail "exit code $?: $(cat "$T/all.err")"
wait "$named" || fail "exit code $?: $(cat "$T/named.err")"
wait_for 60 grep -q ^STOPPING=1 "$T/heard"
kill "$manager"

say "status, again and again; locked, and the end"
"$CTL" status --watch "$mnt" >"$T/watched" 2>"$T/watched.err" &
watcher=$!
wait_for 60 grep -q "state: *unlocked" "$T/watched" || fail "$(cat "$T/watched" "$T/watched.err")"
"$CTL" lock --reason "for the test" "$mnt"
wait_for 60 grep -q "for the test" "$T/watched" || fail "$(cat "$T/watched" "$T/watched.err")"
equals 1 cmekfs_lock_state state=locked
expect_errno EKEYREVOKED stat "$mnt/file"
positive cmekfs_requests_refused_total
stop "$store" "$mnt"
code=0
wait $watcher || code=$?
[ $code -eq $NOT_FOUND ] || fail "exit code $code: $(cat "$T/watched.err")"

say "without the watch"
start "$store" "$mnt" -o nowatch,ro
equals 1 cmekfs_read_only
"$CTL" metrics "$mnt" >"$T/text"
! grep -q cmekfs_key_ "$T/text" || fail "states of keys that nobody asks about"
! grep -q cmekfs_journal_ "$T/text" || fail "a journal of a read-only mount"
stop "$store" "$mnt"
