#!/bin/sh
# lock.sh TOKEN WHO FROM WHAT: hold this node for one session, until stdin ends or no line came on it for 20 seconds.
#
# Prints "exlb-lock: held", or "exlb-lock: busy" and who holds it, and ends. Sent after session.sh.
# shellcheck disable=SC2154 # which sets run

refuse() {
	echo "exlb-lock: $*"
	exit 1
}

command -v flock >/dev/null || refuse 'flock (util-linux) is not installed'
if ! { mkdir -p "$run" && chmod 0700 "$run" && touch "$run/lock"; } 2>/dev/null; then refuse "$run cannot be written"; fi
exec 9>>"$run/lock" || exit 1
# Whoever only asks has it for a moment.
if ! flock -w 0.5 9; then
	echo 'exlb-lock: busy'
	cat "$run/holder" 2>/dev/null
	exit 0
fi
if ! { printf 'token=%s\nwho=%s\nfrom=%s\nwhat=%s\nsince=%s\n' "$1" "$2" "$3" "$4" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
	>"$run/holder.new" && mv -f "$run/holder.new" "$run/holder"; } 2>/dev/null; then
	rm -f "$run/holder.new"
	refuse "$run/holder cannot be written: is $run full?"
fi
rm -f "$run/gone"
echo 'exlb-lock: held'
# The reader must not inherit the lock: it outlives this shell where that is killed.
while is_heard 9>&-; do :; done
rm -f "$run/holder"
# uninstall.sh says that nothing of exlb is to be left. Who waits for this lock finds that it cannot write here any more.
if [ -e "$run/gone" ]; then rm -rf "$run"; fi
