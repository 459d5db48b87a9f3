#!/bin/sh
# What probe.sh and apply.sh need to know of haproxy: it is sent in front of them.
# shellcheck disable=SC2034,SC2329 # the program that follows uses these

proxy_unit=haproxy
proxy_path=/etc/haproxy/haproxy.cfg
proxy_socket=/run/haproxy-admin.sock
proxy_memory=/run/haproxy-server-state

proxy_version() {
	haproxy -v
}

# proxy_validate FILE: the node's own verdict on a configuration.
proxy_validate() {
	haproxy -c -f "$1"
}

# proxy_state: which configuration runs and how its servers are.
proxy_state() {
	printf 'show info\n' | socat -T 3 - "UNIX-CONNECT:$proxy_socket" || return
	printf 'show stat\n' | socat -T 3 - "UNIX-CONNECT:$proxy_socket"
}

# proxy_digest: the digest of the configuration that runs, nothing if none of ours does.
proxy_digest() {
	printf 'show info\n' | socat -T 3 - "UNIX-CONNECT:$proxy_socket" 2>/dev/null |
		sed -n 's/^description: exlb-\([0-9a-f]*\)$/\1/p'
}

# proxy_settled: every server has been checked at least once; "* INI" is a first check that has not ended yet.
proxy_settled() {
	servers=$(printf 'show stat\n' | socat -T 3 - "UNIX-CONNECT:$proxy_socket" 2>/dev/null) &&
		! printf '%s\n' "$servers" | grep -q -e ',INI,' -e ',\* INI,'
}

# proxy_remember: let the next process begin with what this one knows of its servers. Without it a reload takes every
# server for up, and a client that is sent to a dead one waits until its first check has failed.
proxy_remember() {
	printf 'show servers state\n' | socat -T 3 - "UNIX-CONNECT:$proxy_socket" >"$proxy_memory.new" 2>/dev/null &&
		mv -f "$proxy_memory.new" "$proxy_memory"
}

# proxy_forget: a state of today must not be loaded by a start tomorrow; what stays is the format's version.
proxy_forget() {
	printf '1\n' >"$proxy_memory"
}
