#!/bin/sh
# drill.sh: one fault on this node that undoes itself, and a client on it that watches the VIP meanwhile.
#
#   check FAULT UNIT                        can it be done here? "exlb-drill: ready", or why not
#   start TOKEN LIMIT LENGTH FAULT UNIT     do it, as a transient unit; stdin: this program, LENGTH bytes of it
#   end TOKEN                               undo what the session of TOKEN has begun, if that has not happened, and say when
#                                           it was what
#   watch URL PAUSE LIMIT                   ask URL every PAUSE seconds, for LIMIT seconds, until stdin ends or no line came
#                                           on it for 20 seconds: "request BEGIN END STATUS-OF-CURL" each, and "clock NOW"
#                                           for a line of stdin
#
# FAULT is proxy, keepalived, kill, partition or node; UNIT the unit of the first three, "-" of the others. Times are in
# milliseconds since 1970, of this node's clock. `start` and `end` end with "exlb-drill: done", or with why not.
#
# The unit runs this program again, as `inject` and as `undo`. It ends with the session that has the lock of this node, at
# LIMIT seconds, when it is stopped and when it is killed: in each case systemd runs what undoes the fault. With a reboot
# systemd starts the units, and the rules of the partition are gone. Only a node that is powered off needs somebody else.
# Sent after session.sh.
# shellcheck disable=SC2154 # which sets run and drill

program=$run/drill
told=$run/drill-told
session=$run/drill-session
used=$run/drill-firewalls # that the partition was made with
table=exlb_drill
notice_ms=1000 # between the word that the power goes and its going: the word has to get away first

# set_base: when this machine was started, in milliseconds. To ask for the date takes a process, which a busy node may
# bring late: of five readings the one counts that took the least, and one of 20 ms is good enough.
set_base() {
	least=
	for _ in 1 2 3 4 5; do
		read -r up _ </proc/uptime
		before=${up%.*}${up#*.}0
		date=$(date +%s%3N)
		read -r up _ </proc/uptime
		took=$((${up%.*}${up#*.}0 - before))
		if [ -z "$least" ] || [ "$took" -lt "$least" ]; then
			least=$took
			base=$((date - before - took / 2))
		fi
		if [ "$least" -le 20 ]; then return; fi
	done
}

# set_now: without a process, because it is asked for every 50 ms, and the machine is to do what it does without us. The
# uptime has hundredths of a second, and no leaps.
set_now() {
	read -r up _ </proc/uptime
	now=$((base + ${up%.*}${up#*.} * 10))
}

set_base

# tell WORD: and when that was.
tell() {
	set_now
	echo "$1 $now" >>"$told"
}

refuse() {
	printf 'exlb-drill: %s\n' "$*"
	exit 1
}

# rules: both ways, of both families, in front of everything else.
rules() {
	printf 'table inet %s {\n' "$table"
	for hook in input output; do
		printf 'chain %s { type filter hook %s priority -300; meta l4proto 112 drop; }\n' "$hook" "$hook"
	done
	echo '}'
}

has_nft() {
	command -v nft >/dev/null && rules | nft -c -f - 2>/dev/null
}

# iptables_programs: those that this kernel has tables for. To ask loads its modules: only where nft cannot do it. Who else
# has their lock may keep it for long, and the drill has an end.
iptables_programs() {
	for name in iptables ip6tables; do if "$name" -w 5 -n -L INPUT >/dev/null 2>&1; then echo "$name"; fi; done
}

# part: what it is made with is written down before, to be healed.
part() {
	if has_nft; then echo nft >>"$used" && rules | nft -f - && return; fi
	programs=$(iptables_programs)
	[ -n "$programs" ] || return
	for name in $programs; do
		echo "$name" >>"$used" || return
		"$name" -w 5 -N "$table" && "$name" -w 5 -A "$table" -p 112 -j DROP || return
		for chain in INPUT OUTPUT; do "$name" -w 5 -I "$chain" -j "$table" || return; done
	done
}

# heal: whatever there is of it; true if nothing is left.
heal() {
	[ -e "$used" ] || return 0
	left=
	while read -r name; do
		if [ "$name" = nft ]; then
			nft delete table inet "$table" 2>/dev/null
			if nft list table inet "$table" >/dev/null 2>&1; then left=yes; fi
			continue
		fi
		for chain in INPUT OUTPUT; do "$name" -w 5 -D "$chain" -j "$table" 2>/dev/null; done
		"$name" -w 5 -F "$table" 2>/dev/null
		"$name" -w 5 -X "$table" 2>/dev/null
		"$name" -w 5 -n -L "$table" >/dev/null 2>&1
		[ "$?" -eq 1 ] || left=yes # 4: it did not get the lock, and cannot tell
	done <"$used"
	[ -z "$left" ]
}

# check FAULT UNIT: nothing is changed.
check() {
	command -v systemd-run >/dev/null || refuse 'there is no systemd-run: nothing would undo the fault'
	if is_drilling; then refuse 'a drill runs on the node already'; fi
	if is_changing; then refuse 'a change runs on the node'; fi
	case $1 in
	proxy | keepalived | kill) systemctl is-active -q "$2.service" || refuse "$2 does not run" ;;
	partition)
		if ! has_nft && [ -z "$(iptables_programs)" ]; then
			refuse 'neither nft nor iptables can drop VRRP on this node'
		fi
		;;
	node) ;;
	*) refuse "$1: no such fault" ;;
	esac
}

start() {
	token=$1 limit=$2 length=$3
	shift 3
	owns "$token" || refuse 'this session has lost its lock on the node'
	# What the last drill told is none of ours, also where this one is refused.
	if ! is_drilling; then rm -f "$told" "$used" "$session" "$program"; fi
	check "$@"
	if ! { echo "$token" >"$session" && cat >"$program"; } || [ "$(wc -c <"$program")" -ne "$length" ]; then
		refuse "the program did not arrive whole: is $run full?"
	fi
	# What it says has to be read, and what undoes it to be found, whatever becomes of us.
	systemd-run --quiet --collect --unit="$drill" -p RuntimeMaxSec="$limit" -p TimeoutStopSec=90 \
		-p ExecStopPost="/bin/sh $program undo $*" /bin/sh "$program" inject "$token" "$@" 2>&1 ||
		refuse 'systemd refuses the unit that would undo the fault; nothing was done'
	tries=0
	until grep -q -s -e '^injected' -e '^failed' "$told" || [ "$tries" -ge 300 ] || ! is_drilling; do
		sleep 0.1
		tries=$((tries + 1))
	done
	cat "$told" 2>/dev/null
	grep -q -s '^injected' "$told" || refuse "$1: it could not be done; journalctl -u $drill says why"
}

# inject TOKEN FAULT UNIT: as the unit. A fault that fails half way is undone like one that does not.
inject() {
	token=$1
	shift
	if [ "$1" = node ]; then
		sync
		set_now
		printf 'begun %s\ninjected %s\n' "$((now + notice_ms))" "$((now + notice_ms))" >>"$told"
		sleep "$((notice_ms / 1000))"
		systemctl poweroff --force --force
		exit
	fi
	tell begun
	case $1 in
	proxy | keepalived) systemctl stop "$2.service" ;;
	kill) systemctl kill -s KILL "$2.service" ;;
	partition) part ;;
	*) false ;;
	esac || {
		tell failed
		exit 1
	}
	tell injected
	while owns "$token"; do sleep 0.2; done
}

# undo FAULT UNIT: by systemd, after the end of the unit, whatever it ended by.
undo() {
	tell undoing
	tries=0
	until undone "$@"; do
		tries=$((tries + 1))
		if [ "$tries" -ge 5 ]; then
			tell stuck
			exit 1
		fi
		sleep 1
	done
	tell undone
}

undone() {
	case $1 in
	proxy | keepalived | kill)
		systemctl reset-failed "$2.service" 2>/dev/null
		systemctl start "$2.service"
		;;
	partition) heal ;;
	esac
}

# end TOKEN: another session's drill is left alone: ours has ended, and it came after.
end() {
	grep -q -s -x -F "$1" "$session" || return 0
	if is_drilling; then systemctl stop "$drill.service"; fi
	cat "$told" 2>/dev/null
	if is_drilling; then refuse 'the drill does not end'; fi
	# Not only where it says that it is stuck: systemd cuts off what undoes it after TimeoutStopSec=.
	if [ -s "$told" ] && ! grep -q '^undone' "$told"; then
		refuse "the fault could not be undone; journalctl -u $drill says why"
	fi
	rm -f "$program"
}

# request URL: in the background, so that one that hangs does not keep the next one waiting.
request() {
	begin=$now # of the loop, just before
	curl -q --noproxy '*' -gks -o /dev/null --connect-timeout 1 --max-time 1 "$1"
	status=$?
	set_now
	echo "request $begin $now $status"
}

requests() {
	set_now
	until=$((now + $3 * 1000))
	while [ "$now" -lt "$until" ]; do
		request "$1" &
		sleep "$2"
		set_now
	done
}

watch() {
	requests "$@" &
	while is_heard; do
		set_now
		echo "clock $now"
	done
	kill "$!" 2>/dev/null
	wait
}

mode=$1
shift
case $mode in
check) check "$@" ;;
start) start "$@" ;;
end) end "$@" ;;
inject | undo)
	"$mode" "$@"
	exit
	;;
watch)
	watch "$@"
	exit
	;;
esac
echo 'exlb-drill: done'
