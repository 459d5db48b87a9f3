#!/bin/sh
# lock.sh TOKEN WHO FROM WHAT: hold this node for one session, until stdin ends or no line came on it for 20 seconds.
#
# Prints "exlb-lock: held", or "exlb-lock: busy" and who holds it, and ends. Sent after session.sh.
# shellcheck disable=SC2154 # which sets run

limit=20 # a partition can leave sshd with a session for hours: silence ends it

mkdir -p "$run" && chmod 0700 "$run" || exit 1
command -v flock >/dev/null || { echo "exlb-lock: flock (util-linux) is not installed" && exit 1; }
exec 9>>"$run/lock" || exit 1
# Whoever only asks has it for a moment.
if ! flock -w 0.5 9; then
	echo 'exlb-lock: busy'
	cat "$run/holder" 2>/dev/null
	exit 0
fi
printf 'token=%s\nwho=%s\nfrom=%s\nwhat=%s\nsince=%s\n' "$1" "$2" "$3" "$4" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
	>"$run/holder.new" && mv -f "$run/holder.new" "$run/holder" || exit 1
echo 'exlb-lock: held'
# The reader must not inherit the lock: it outlives this shell where that is killed.
while timeout "$limit" sh -c 'IFS= read -r _' 9>&-; do :; done
rm -f "$run/holder"
