#!/bin/sh
# The generations that a node keeps: read by probe.sh, written by apply.sh.
#
#   generations/NNNN/files/K    the bytes of file K, 0600
#   generations/NNNN/manifest   "K KIND MODE UID:GID SHA256 PATH"; "K KIND absent - - PATH" for a file that was not there
#   generations/NNNN/meta       NAME=value: when, who, from, tool, what
#   generations/NNNN/units      "UNIT ENABLED ACTIVE" as found, in a generation that exlb did not write
#   generations/NNNN/was-active a mark: what never was active is no generation yet, and its number is free
#   current                     a link to the generation that is active
#   intent                      "NUMBER PREVIOUS KEEPALIVED" while a change is under way: complete once `current` is NUMBER
#   pruned                      the newest number that is no longer kept
#   journal                     one line per change
#   installed                   what exlb has brought: packages.sh
#   leaving                     a mark: exlb is being removed, and what is beside it may be gone already
# shellcheck disable=SC2034,SC2329 # the program that follows uses these

state=/var/lib/exlb
generations=$state/generations
staging=$state/staging
leaving=$state/leaving

# generation: the number of the active one, nothing if there is none.
generation() {
	link=$(readlink "$state/current" 2>/dev/null) && echo "${link##*/}"
}

# describe PATH: "MODE UID:GID SHA256" of what is there, as a manifest has it.
describe() {
	if [ ! -e "$1" ] && [ ! -L "$1" ]; then echo 'absent - -' && return; fi
	sum=$(sha256sum <"$1") && printf '%s %s\n' "$(stat -c '%a %u:%g' "$1")" "${sum%% *}"
}

# is_kept NUMBER: it was active once, and is still here.
is_kept() {
	[ -e "$generations/$1/was-active" ] || [ "$1" = "$(generation)" ]
}

# is_active DIRECTORY: the active files are those of its manifest, byte for byte, with mode and owner.
is_active() {
	[ -e "$1/manifest" ] || return
	while read -r _ _ mode owner sum path; do
		[ "$(describe "$path" 2>/dev/null)" = "$mode $owner $sum" ] || return 1
	done <"$1/manifest"
}
