#!/bin/sh
# Install all that this checkout needs on a Debian or Ubuntu machine; run again, it changes nothing.
#
#   setup.sh dev       a virtual environment with the pinned packages
#   setup.sh node      what the tests of the node programs need beyond that, where there is root
#   setup.sh browser   a browser for the page of verify, where there is root
#   setup.sh lab       the system packages of the lab, where there is root
#   setup.sh labs      what several labs beside each other need of the kernel, until the next start of this machine
set -eu
cd "$(dirname "$0")/.."
venv=.venv

say() {
	printf '>>> %s\n' "$*" >&2
}

apt_install() {
	say "installing $*"
	apt-get -q update >&2
	DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "$@" >&2
}

# A Python of 3.11 or newer that can make virtual environments; prints its name.
find_python() {
	for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 /usr/bin/python3; do
		if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			echo "$candidate"
			return
		fi
	done
	return 1
}

dev() {
	wanted=$(cat requirements-dev.lock pyproject.toml tools/setup.sh | sha256sum)
	if [ -x "$venv/bin/exlb" ] && [ "$(cat "$venv/ready" 2>/dev/null)" = "$wanted" ]; then return; fi
	if ! python=$(find_python); then
		if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then apt_install python3 python3-venv; fi
		python=$(find_python) || {
			say 'Python 3.11 or newer with venv is needed: apt-get install python3 python3-venv'
			exit 1
		}
	fi
	say "making $venv with $("$python" --version)"
	rm -rf "$venv"
	"$python" -m venv "$venv"
	"$venv/bin/pip" --quiet --disable-pip-version-check install --require-hashes -r requirements-dev.lock
	"$venv/bin/pip" --quiet --disable-pip-version-check install --no-deps --no-build-isolation --editable .
	echo "$wanted" >"$venv/ready"
}

node() {
	if command -v nft >/dev/null || [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then return; fi
	apt_install nftables
}

browser() {
	if command -v chromium >/dev/null || [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then return; fi
	# Ubuntu has it as a snap only: the tests say then that nobody looked at the page, and in CI they fail.
	apt_install chromium || say 'the page of verify cannot be looked at: there is no package chromium'
}

lab() {
	missing=$("$venv/bin/python" -c 'from exlb_fab.lab.host import missing_packages; print(*missing_packages())')
	if [ -z "$missing" ]; then return; fi
	if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
		say "the lab cannot run here: it needs root and $missing"
		return
	fi
	# shellcheck disable=SC2086 # a list of package names
	apt_install $missing
}

labs() {
	limit=/proc/sys/fs/inotify/max_user_instances
	if [ "$(id -u)" -eq 0 ] && [ "$(cat "$limit")" -lt 512 ]; then
		say "raising fs.inotify.max_user_instances to 512"
		echo 512 >"$limit"
	fi
}

"$1"
