#!/bin/sh
# backend.sh TOKEN ready|drain|disable LISTENER/SERVER...: what the running proxy does with servers; no file is changed.
#
# Prints "exlb-backend: done" and the state of the proxy, or why not, and ends. Sent after session.sh and the functions of
# one proxy (haproxy.sh).

refuse() {
	printf '%s\n' "$*"
	exit 1
}

owns "$1" || refuse 'this session has lost its lock on the node'
# It may reload the proxy, which forgets what is done here.
if is_changing; then refuse 'another change runs on the node'; fi
if is_drilling; then refuse 'a drill on the node is not undone yet'; fi
state=$2
shift 2
for server; do
	said=$(proxy_admit "$state" "$server") || refuse "$server: $said"
done
echo 'exlb-backend: done'
proxy_state 2>&1
