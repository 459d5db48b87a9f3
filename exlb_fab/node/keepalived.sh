#!/bin/sh
# What the running keepalived says of itself: read by probe.sh, in front of which it is sent.
# shellcheck disable=SC2329 # the program that follows uses it

running=/proc
complaint_seconds=600
lock_seconds=5 # longer than write_down takes
counted=$(date +%s%N) # when the counters were read that the state is compared with; probe.sh sets it anew

# keepalived_counters: what it has counted since it was started, for a later state to be compared with.
keepalived_counters() {
	find_keepalived || return
	lock_dumps
	write_down USR2 && cat "$dumps/keepalived.stats"
	status=$?
	forget_dumps
	return "$status"
}

# keepalived_state [MILLISECONDS]: its VRRP instances, checks and counters, as it writes them down when it is asked; without
# the password. With a time, not before it has passed since its counters were read.
keepalived_state() {
	find_keepalived || return
	left=$((${1:-0} - ($(date +%s%N) - counted) / 1000000))
	if [ "$left" -gt 0 ]; then sleep "$(printf '%d.%03d' $((left / 1000)) $((left % 1000)))"; fi
	lock_dumps
	# It looks at USR1 first: when it has written the second file, the first one is whole.
	if ! write_down USR1 USR2; then
		forget_dumps
		return 1
	fi
	sed -n -e '/Password = /d' -e '/< VRRP Topology >/,/< VRRP Sockpool >/p' \
		-e '/< VRRP \(Scripts\|Track processes\) >/,/< Interfaces >/p' \
		"$dumps/keepalived.data"
	echo '------< Statistics >------'
	cat "$dumps/keepalived.stats"
	forget_dumps
}

find_keepalived() {
	pid=$(systemctl show -p MainPID keepalived.service | sed 's/^MainPID=//')
	dumps=$running/$pid/root/tmp
	if [ "${pid:-0}" -eq 0 ]; then
		echo 'keepalived does not run'
		return 1
	fi
}

# lock_dumps: have what it writes down for ourselves, until this shell ends: of two probes at once, each would take away
# what the other waits for. Without the lock, which anybody can hold, it is only asked more often.
lock_dumps() {
	if [ -d "$dumps" ]; then exec 9<"$dumps" && flock -w "$lock_seconds" 9 || true; fi
}

# forget_dumps: the password stands in them.
forget_dumps() {
	rm -f "$dumps/keepalived.data" "$dumps/keepalived.stats"
}

# write_down SIGNAL...: have it write what the signals ask for. One that does not within a second, as while somebody else
# asks, is asked again.
write_down() {
	for _ in 1 2 3; do
		forget_dumps
		for signal; do kill -s "$signal" "$pid" || return; done
		for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
			sleep 0.05
			if is_whole "$dumps/keepalived.stats" && { [ "$1" = USR2 ] || is_ours "$dumps/keepalived.data"; }; then return; fi
		done
	done
	why_silent
	return 1
}

# why_silent: whether there is something else that keeps it from writing than itself; the parser knows these words.
why_silent() {
	tried=$dumps/exlb-probe-$$
	if (set -C && head -c 65536 /dev/zero >"$tried") 2>/dev/null; then
		echo 'keepalived does not write down its state'
	elif [ -e "$tried" ]; then
		echo 'no space in the /tmp of keepalived'
	else
		echo 'the /tmp of keepalived cannot be written to'
	fi
	rm -f "$tried"
}

# is_whole STATS: its last words are those on the adverts of priority zero that were sent.
is_whole() {
	is_ours "$1" && grep -q 'Priority Zero' "$1" && tail -n 1 "$1" | grep -q 'Sent:'
}

# is_ours FILE: it is root's, as we are; others can write into that folder too.
is_ours() {
	[ "$(stat -c %u "$1" 2>/dev/null)" = "$(id -u)" ]
}

# keepalived_checks FILE: "STATE NAME" for what each check in the file runs or watches, its first word. A process is "deaf"
# where keepalived could not have the kernel tell it of processes.
keepalived_checks() {
	[ -f "$1" ] || return
	sed -n 's/^[[:blank:]]*\(script\|process\)[[:blank:]]\{1,\}"\{0,1\}\([^[:blank:]"]*\).*/\1 \2/p' "$1" |
		while read -r kind name; do
			if [ "$kind" = process ]; then echo "$(process_state) $name"; else echo "$(state_of "$name") $name"; fi
		done
}

# process_state: whether it hears of processes, by what it has logged since it was started. Source: keepalived
# core/track_process.c nl_connect, set_proc_ev_listen, proc_events_ack_timer_thread.
process_state() {
	if journalctl -u keepalived.service --since "@$(started)" --no-pager -o cat 2>/dev/null |
		grep -q -e 'process event listen' -e 'process monitoring socket' -e 'track_process not available' \
			-e 'does not support proc events'; then
		echo deaf
	else
		echo process
	fi
}

# state_of PROGRAM: whether it can be run, and of a script what it is written for.
state_of() {
	path=$1
	case $path in /*) ;; *) path=$(command -v "$path") ;; esac
	if [ ! -f "$path" ]; then echo missing && return; fi
	if [ ! -x "$path" ]; then echo not-executable && return; fi
	interpreter=$(head -n 1 "$path" | tr -d '\000' | sed -n 's/^#![[:blank:]]*\([^[:blank:]]*\).*/\1/p')
	if [ -n "$interpreter" ] && [ ! -x "$interpreter" ]; then echo no-interpreter; else echo there; fi
}

# keepalived_complaints: what it has logged of adverts that it drops, and of each sender of a lower priority, since it was
# started, of the last minutes alone. Source: keepalived vrrp/vrrp.c vrrp_state_master_rx, vrrp_state_backup.
keepalived_complaints() {
	since=$(($(date +%s) - complaint_seconds))
	began=$(started)
	if [ "$began" -gt "$since" ]; then since=$began; fi
	said=$(journalctl -u keepalived.service --since "@$since" -n 1000 --no-pager -o cat 2>/dev/null) || said=
	printf '%s\n' "$said" |
		grep -e 'bogus VRRP packet' -e 'associated with VRID' -e 'invalid passwd' | sort -u | tail -n 5
	# Of each sender one: after an election there are some of every peer.
	printf '%s\n' "$said" |
		sed -n -e 's/.*Received advert from \([^ ]*\) with lower priority .*/\1 &/p' \
			-e 's/.*received lower priority ([0-9]*) advert from \([^ ]*\) - discarding.*/\1 &/p' |
		sort -u -k 1,1 | cut -d ' ' -f 2- | tail -n 20
	return 0
}

# started: when it was, in seconds since 1970; 0 where nobody knows.
started() {
	entered=$(TZ=UTC systemctl show -p ActiveEnterTimestamp keepalived.service 2>/dev/null)
	began=
	if [ -n "${entered#*=}" ]; then began=$(date -d "${entered#*=}" +%s 2>/dev/null); fi
	echo "${began:-0}"
}
