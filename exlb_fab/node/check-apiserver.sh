#!/bin/sh
# check-apiserver.sh SECONDS OWN-URL VIP VIP-URL: keepalived's question whether an apiserver answers through this node.
#
# First by the node's own address, for its own proxy; then through the VIP, where this node holds it. Each may take
# SECONDS. Addresses are compared as a whole: 10.0.0.1 is not in 10.0.0.10.
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

# EL7's curl (7.29) takes no fraction for --max-time, and the brackets of an IPv6 address for a range without -g.
ask() {
	timeout "$seconds" curl -q --noproxy '*' -gkfs -o /dev/null "$1"
}

holds() {
	ip -o addr show | awk -v vip="$1" '{ split($4, part, "/") } part[1] == vip { found = 1 } END { exit !found }'
}

seconds=$1
ask "$2"
if holds "$3"; then ask "$4"; fi
