#!/bin/sh
# What systemd starts: read by probe.sh, apply.sh and the functions of a proxy, in front of which it is sent.
# shellcheck disable=SC2329 # the program that follows uses it

# unit_words UNIT: the words of its command line, one per line, with the variables of its environment in their place.
unit_words() {
	{
		systemctl show -p Environment "$1.service" | sed 's/^Environment=//' | xargs -r printf '%s\n'
		systemctl show -p EnvironmentFiles "$1.service" | sed -n 's/^EnvironmentFiles=\(.*\) (ignore_errors=.*/\1/p' |
			while read -r file; do sed -n "s/^\([A-Z0-9_]*\)=[\"']\{0,1\}\([^\"']*\).*/\1=\2/p" "$file" 2>/dev/null; done
		echo
		systemctl show -p ExecStart "$1.service" | sed -n 's/.*argv\[\]=\(.*\) ; ignore_errors=.*/\1/p' | head -n 1
	} | awk '
		/=/ && !command { at = index($0, "="); value[substr($0, 1, at - 1)] = substr($0, at + 1); next }
		$0 == "" { command = 1; next }
		{
			for (i = 1; i <= NF; i++) {
				name = $i
				if (sub(/^\$\{?/, "", name)) { sub(/\}$/, "", name); $i = value[name] }
			}
			count = split($0, words, " ")
			for (i = 1; i <= count; i++) print words[i]
		}'
}

# What systemd calls the message with which a process ended. Source: sd-messages.h SD_MESSAGE_UNIT_PROCESS_EXIT.
process_exit=98e322203f7a4ed290d09fe03c09fe15

# unit_said UNIT: what its own processes said last, and how they ended: where it was started in vain, systemd goes on to
# say so until nothing else is at the end of the journal. Of a process that has ended by the time journald reads it,
# nobody knows the unit: keepalived's child, which finds the faults of a configuration, is asked for by its name, too. A
# proxy logs its clients' connections in between, and keepalived that somebody has asked how it runs, as we do.
unit_said() {
	set -- "_SYSTEMD_UNIT=$1.service" + "UNIT=$1.service" "MESSAGE_ID=$process_exit"
	case $1 in *=keepalived.service) set -- "$@" + SYSLOG_IDENTIFIER=Keepalived_vrrp ;; esac
	journalctl -n 1000 --no-pager -o cat "$@" 2>/dev/null | grep -v '^Printing .* on signal$' | proxy_own | tail -n 8
}
