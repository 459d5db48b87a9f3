#!/bin/sh
# What probe.sh and apply.sh need to know of haproxy: it is sent in front of them.
# shellcheck disable=SC2034,SC2329 # the program that follows uses these

proxy_unit=haproxy
proxy_path=/etc/haproxy/haproxy.cfg
proxy_socket=/run/haproxy-admin.sock
proxy_memory=/run/haproxy-server-state

# proxy_own: of the lines of its journal on stdin those that are not about the connection of a client.
proxy_own() {
	grep -v -E '^(Connect from |[][0-9a-fA-F.:]+:[0-9]+ \[[0-9]+/)'
}

# proxy_version: the version, and what the binary is built with.
proxy_version() {
	haproxy -vv
}

# proxy_sources: what its unit reads, files and directories.
proxy_sources() {
	unit_words "$proxy_unit" | awk 'after { print; after = 0 } $0 == "-f" { after = 1 }'
}

# proxy_others: the files that it reads beside the one that exlb writes.
proxy_others() {
	proxy_sources | while read -r source; do
		if [ -d "$source" ]; then set -- "$source"/*.cfg; else set -- "$source"; fi
		for path in "$@"; do if [ -e "$path" ] && [ "$path" != "$proxy_path" ]; then echo "$path"; fi; done
	done
}

# proxy_validate FILE: the node's own verdict on a configuration, with all else that its unit reads beside it.
proxy_validate() {
	set -- "$1" "$(proxy_sources)"
	if ! printf '%s\n' "$2" | grep -q -x -F "$proxy_path"; then
		echo "$proxy_unit.service reads ${2:-no file}, not $proxy_path" && return 1
	fi
	file=$1
	others=$2
	set --
	for path in $others; do
		if [ "$path" = "$proxy_path" ]; then path=$file; fi
		set -- "$@" -f "$path"
	done
	haproxy -c "$@"
}

# proxy_ask COMMAND: what its admin socket says. Where there is none, socat tells; that nobody reads the command, nobody
# needs to know.
proxy_ask() {
	printf '%s\n' "$1" 2>/dev/null | socat -T 3 - "UNIX-CONNECT:$proxy_socket"
}

# proxy_state: which configuration runs, how its servers are, what somebody did to them, and what processes that a reload
# has replaced still have with them.
proxy_state() {
	info=$(proxy_ask 'show info') || return
	# The kernel takes connections for one that hangs, and socat ends well without a word.
	if [ -z "$info" ]; then echo 'it hangs: nobody reads what it is asked' && return 1; fi
	printf '%s\n\n' "$info" && proxy_ask 'show stat' && proxy_ask 'show servers state' &&
		proxy_leaving "$(printf '%s\n' "$info" | sed -n 's/^Pid: //p')"
}

# proxy_leaving PID: "leaving COUNT ADDRESS:PORT" of the connections to servers that are of other processes than this one.
proxy_leaving() {
	[ -n "$1" ] || return 0
	{
		proxy_servers
		ss -Htnp
	} | awk -v mine="pid=$1," '
		NF == 2 { server[$2] = 1; next }
		$5 in server && /"haproxy"/ && !index($0, mine) { count[$5]++ }
		END { for (each in count) print "leaving", count[each], each }'
}

# proxy_admit ready|drain|disable LISTENER/SERVER: let a server have all connections, those that it has, or no check either.
proxy_admit() {
	case $1 in
	disable) set -- maint "$2" ;;
	ready | drain) ;;
	*) echo "unknown state $1" && return 64 ;;
	esac
	said=$(proxy_ask "set server $2 state $1" 2>&1) || { printf '%s\n' "$said" && return 1; }
	# It says nothing but why it does not.
	[ -z "$said" ] || { printf '%s\n' "$said" | head -n 1 && return 1; }
}

# proxy_digest: the digest of the configuration that runs, nothing if none of ours does.
proxy_digest() {
	proxy_ask 'show info' 2>/dev/null | sed -n 's/^description: exlb-\([0-9a-f]*\)$/\1/p'
}

# "ADDRESS:PORT" of a row of `show servers state`, an IPv6 address in brackets, as a configuration has it.
# shellcheck disable=SC2016 # awk expands it
proxy_endpoint='function endpoint() { return ($5 ~ /:/ ? "[" $5 "]" : $5) ":" $19 }'

# proxy_servers: "BACKEND/SERVER ADDRESS:PORT" of every server of a running proxy.
proxy_servers() {
	proxy_ask 'show servers state' 2>/dev/null | awk "$proxy_endpoint"'/^[0-9]+ / { print $2 "/" $4, endpoint() }'
}

# proxy_up: "BACKEND/SERVER" of those that are up. Only columns in front of any text that could hold a comma are read.
proxy_up() {
	proxy_ask 'show stat' 2>/dev/null | awk -F , '
		sub(/^# /, "") { for (i = 1; i <= NF; i++) column[$i] = i; next }
		$column["type"] == 2 && $column["status"] ~ /^(UP|no check)/ { print $1 "/" $2 }'
}

# proxy_settled: every server has been checked at least once; "* INI" is a first check that has not ended yet.
proxy_settled() {
	servers=$(proxy_ask 'show stat' 2>/dev/null) &&
		! printf '%s\n' "$servers" | grep -q -e ',INI,' -e ',\* INI,'
}

# proxy_remember OLD NEW: let the next process begin with the servers down that this one knows to be down. Without it a
# reload takes every server for up, and a client that is sent to a dead one waits until its first check has failed.
# Only servers whose line is the same in both files, under the same health check, are remembered: haproxy would take a
# remembered address for the configured one. What somebody has drained or disabled is remembered where NEW says so.
proxy_remember() {
	proxy_forget
	drains=0
	if grep -q '^ *# exlb-keeps-drains' "$2"; then drains=1; fi
	checks='^[[:blank:]]*(option[[:blank:]]+(httpchk|ssl-hello-chk|tcp-check)|http-check|tcp-check|default-server)'
	downs=1
	if [ "$(grep -E "$checks" "$1")" != "$(grep -E "$checks" "$2")" ]; then downs=0; fi
	known=$(proxy_ask 'show servers state' 2>/dev/null) || return 0
	printf '%s\n' "$known" | awk -v downs="$downs" -v drains="$drains" "$proxy_endpoint"'
		function line() { $1 = $1; return $0 }
		FILENAME == ARGV[1] { if ($1 == "server") old[line()] = 1; next }
		FILENAME == ARGV[2] { if ($1 == "server" && line() in old) same[$2, $3] = 1; next }
		/^1$/ || /^#/ { print; next }
		# Flags of the administrative state: 1 is disabled by the socket, 8 drained; the rest haproxy finds out itself.
		function drained() { return $7 % 2 || int($7 / 8) % 2 }
		(downs && $6 == 0 || drains && drained()) && ($4, endpoint()) in same { print }
	' "$1" "$2" - >"$proxy_memory.new" && mv -f "$proxy_memory.new" "$proxy_memory"
}

# proxy_forget: a state of today must not be loaded by a start tomorrow; what stays is the format's version.
proxy_forget() {
	printf '1\n' >"$proxy_memory"
}
