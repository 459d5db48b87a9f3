#!/bin/sh
# demo.sh LAB: the main job on three real machines of a lab of its own, which is gone at the end.
set -eu
exlb=${EXLB:-exlb}
lab=$1

step() {
	printf '\n\033[1m$ %s\033[0m\n' "$*"
	"$@"
}

trap '"$exlb" lab down --name "$lab"' EXIT INT TERM

step "$exlb" lab up --name "$lab"
step "$exlb" lab run --name "$lab" -- exlb deploy
step "$exlb" lab run --name "$lab" -- exlb push-config

printf '\nThe holder of the VIP loses its power; after a few seconds another node serves:\n'
step "$exlb" lab cut --name "$lab" lb1
tries=15
until "$exlb" lab run --name "$lab" -- curl -ksf --max-time 2 -o /dev/null https://198.51.100.100:8443/readyz; do
	tries=$((tries - 1))
	[ "$tries" -gt 0 ]
	sleep 1
done
# 4: the only failure is the node that cannot be reached.
status=0
step "$exlb" lab run --name "$lab" -- exlb verify || status=$?
[ "$status" -eq 4 ]
printf '\nAnd back; after a few seconds it has the VIP again:\n'
step "$exlb" lab boot --name "$lab" lb1
tries=15
until "$exlb" lab run --name "$lab" -- exlb verify | grep -q 'held by lb1'; do
	tries=$((tries - 1))
	[ "$tries" -gt 0 ]
	sleep 1
done
step "$exlb" lab run --name "$lab" -- exlb verify
