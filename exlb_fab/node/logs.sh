#!/bin/sh
# What the journal of this node has of some units, an object of JSON per line (journalctl -o json).
#
#   logs.sh print SINCE LINES PATTERN UNIT...   the newest LINES since SINCE, or those that match; each may be empty. The
#                                               last line is the journal's newest, whether it matches or not
#   logs.sh follow CURSOR SINCE UNIT...         what comes after CURSOR, else since SINCE, else all, until stdin ends or no
#                                               line came on it for 20 seconds
#
# Sent after session.sh.

mode=$1
case $mode in
print)
	since=$2 lines=$3 pattern=$4
	shift 4
	;;
follow)
	cursor=$2 since=$3
	shift 3
	;;
esac
for name; do
	shift
	set -- "$@" -u "$name.service"
done
case $mode in
print)
	if [ -n "$since" ]; then set -- "$@" --since "$since"; fi
	# With --since, journalctl's own -n gives the oldest ones.
	if [ -n "$lines" ] && [ -z "$pattern$since" ]; then set -- "$@" -n "$lines"; fi
	journalctl -q -o json --no-pager "$@" | awk -v pattern="$pattern" '
		{ last = $0; shown = 0 }
		$0 ~ pattern { print; shown = 1 }
		END { if (NR && !shown) print last }' | if [ -n "$lines" ]; then tail -n "$((lines + 1))"; else cat; fi
	;;
follow)
	if [ -n "$cursor" ]; then
		set -- "$@" --after-cursor "$cursor"
	elif [ -n "$since" ]; then
		set -- "$@" --since "$since"
	fi
	journalctl -q -o json --no-pager "$@" -f --no-tail &
	# Where it ends by itself, so does this, and who follows hears of it.
	while kill -0 "$!" 2>/dev/null && is_heard; do :; done
	kill "$!" 2>/dev/null
	;;
esac
