#!/bin/sh
# units.sh ACTION UNIT...: enable or restart units, each with its journal's end where that fails.
set -u
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH

action=$1
shift
for unit in "$@"; do
	if [ "$action" = restart ]; then systemctl reset-failed "$unit.service" 2>/dev/null; fi
	if ! systemctl "$action" "$unit.service" 2>&1; then
		journalctl -u "$unit.service" -n 5 --no-pager -o cat 2>/dev/null
		exit 1
	fi
done
