#!/bin/sh
# check-port.sh SECONDS ADDRESS:PORT: keepalived's question whether somebody takes connections there.
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
exec timeout "$1" socat -u /dev/null "TCP:$2,connect-timeout=$1"
