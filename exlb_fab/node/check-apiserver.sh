#!/bin/sh
# check-apiserver.sh SECONDS OWN-URL VIP VIP-URL: keepalived's question whether an apiserver answers through this node.
#
# First by the node's own address, for its own proxy; then through the VIP, where this node holds it. Each may take
# SECONDS. Addresses are compared as a whole: 10.0.0.1 is not in 10.0.0.10.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

ask() {
	curl -q --noproxy '*' -kfs -o /dev/null --max-time "$seconds" "$1"
}

holds() {
	ip -o addr show | awk -v vip="$1" '{ split($4, part, "/") } part[1] == vip { found = 1 } END { exit !found }'
}

seconds=$1
ask "$2" || exit 1
if holds "$3"; then ask "$4" || exit 1; fi
