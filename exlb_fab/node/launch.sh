#!/bin/sh
# Run a program as a transient systemd unit, which ends whether or not anybody listens, and follow what it prints.
#
#   run TOKEN ARGS...   stdin: the length of the program in bytes on a line, the program, and then its own stdin
#   follow              follow the one that runs, whoever started it; print what the last one printed if none does
#
# Ends with the line "exlb-ended STATUS" of the program, or without one where it was killed. Sent after session.sh.
# shellcheck disable=SC2154 # which sets run and unit

# The one program of ours that a signal for its session must not end half way.
header="trap '' HUP INT PIPE TERM
exec <$run/input >$run/progress 2>&1
rm -f $run/input
trap 'echo \"exlb-ended \$?\"' EXIT"

room_kib=256

# store: new files, never new bytes in those that a running program reads. One that did not arrive whole is none.
store() {
	read -r length || return
	rm -f "$run/program" "$run/input" "$run/progress"
	{ printf '%s\n' "$header" && dd bs=1 count="$length" 2>/dev/null; } >"$run/program" || return
	[ "$(wc -c <"$run/program")" -eq "$((${#header} + 1 + length))" ] && cat >"$run/input" && touch "$run/progress" || return
	# A program that finds no room for what it says changes the node, and nobody hears how that ended.
	dd if=/dev/zero of="$run/room" bs=1024 count="$room_kib" 2>/dev/null
	status=$?
	rm -f "$run/room"
	return "$status"
}

follow() {
	pid=$(systemctl show -p MainPID "$unit.service")
	pid=${pid#MainPID=}
	if [ "${pid:-0}" = 0 ]; then
		cat "$run/progress" 2>/dev/null
	else
		tail -n +1 -s 0.1 --pid="$pid" -f "$run/progress"
	fi
	# What a killed program has started may live on, until systemd kills that too. What follows could not begin before.
	while is_changing; do sleep 0.1; done
}

case $1 in
run)
	owns "$2" || { echo 'this session has lost its lock on the node' && exit 1; }
	is_changing && { echo 'another change runs on the node' && exit 1; }
	is_drilling && { echo 'a drill on the node is not undone yet' && exit 1; }
	shift 2
	store || { echo "the program did not arrive whole: is $run full?" && exit 1; }
	systemd-run --quiet --collect --unit="$unit" /bin/sh "$run/program" "$@" || exit 1
	follow
	;;
follow) follow ;;
esac
