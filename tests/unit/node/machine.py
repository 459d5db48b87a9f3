"""A machine to run the node programs on: a scratch root, this host's harmless programs, and fakes of the rest.

PATH is a directory of its own: what a program under test calls beyond what is named here does not exist for it.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import pytest

from exlb_fab.node import program
from exlb_fab.proxies import PROXIES

PROXY = PROXIES["haproxy"]
OWN_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
APPLY = ("session.sh", "units.sh", "generations.sh", "haproxy.sh", "apply.sh")
PROBE = ("session.sh", "units.sh", "generations.sh", "keepalived.sh", "haproxy.sh", "probe.sh")
LOCK = ("session.sh", "lock.sh")
LAUNCH = ("session.sh", "launch.sh")
INSTALL = ("generations.sh", "packages.sh", "install.sh")
BACKEND = ("session.sh", "haproxy.sh", "backend.sh")
LOGS = ("session.sh", "logs.sh")
UNINSTALL = ("session.sh", "units.sh", "generations.sh", "haproxy.sh", "packages.sh", "uninstall.sh")
TOKEN = "0123456789abcdef"
NETWORK_FOLDERS = (
    "network_folders='/etc/systemd/network /run/systemd/network "
    "/usr/local/lib/systemd/network /usr/lib/systemd/network'"
)
LIMIT_SECONDS = 1
URL = "https://198.51.100.11:8443/readyz"

HARMLESS = """
    awk cat chmod chown comm cp cut date dd flock grep head id ln mkdir mv printf readlink rm rmdir sed setsid sh
    sha256sum
    sort stat tail timeout touch tr true uname wc xargs
""".split()  # noqa: SIM905 - a list of programs as one types it

# Every call is a line of $ROOT/log. $ROOT/fail/NAME makes the call NAME fail with its text. $HOOK is run before every
# call, of a fake or not, on machines whose calls are watched.
HOOK = 'if [ -n "${HOOK-}" ]; then . "$HOOK"; fi\n'
PRELUDE = """#!/bin/sh
me=${0##*/}
echo "$me $*" >>"$ROOT/log"
fails() { if [ -e "$ROOT/fail/$1" ]; then cat "$ROOT/fail/$1"; exit "${2:-1}"; fi; }
"""
FAKES: Mapping[str, str] = {
    # -vv | -c -f FILE...
    "haproxy": """
        if [ "$1" = -vv ]; then
            echo 'HAProxy version 2.6.12-1+deb12u4 2026/10/17'; echo 'Available services : prometheus-exporter'; exit
        fi
        if grep -q BROKEN "$3"; then echo "[ALERT] parsing [$3:1] : unknown keyword 'BROKEN'" >&2; exit 1; fi
    """,
    # --version | -t -f FILE. 2.1 says what is wrong, and ends with 0 all the same.
    "keepalived": """
        version='Keepalived v2.2.7 (01/16,2022)'
        if [ -e "$ROOT/keepalived-2.1" ]; then version='Keepalived v2.1.5 (07/13,2020)'; trap 'exit 0' EXIT; fi
        if [ "$1" = --version ]; then echo "$version" >&2; exit; fi
        if grep -q 2001:db8 "$3"; then echo '(VI) the first IPv6 VIP address must be link local' >&2; fi
        if grep -q BROKEN "$3"; then echo "($3: Line 1) Unknown keyword 'BROKEN'" >&2; exit 5; fi
        if grep -q INSECURE "$3"; then echo 'SECURITY VIOLATION - scripts are being executed' >&2; exit 6; fi
        for script in $(sed -n 's/^ *script //p' "$3"); do
            if [ ! -x "$script" ]; then echo "($3: Line 1) $script is not there" >&2; exit 5; fi
        done
    """,
    # A unit runs on the bytes that its file had when it was last started, restarted or reloaded. It does not take bytes
    # that say UNSTARTABLE, and dies behind the back of systemctl of those that say DEADLY.
    "systemctl": """
        verb=$1; shift
        quiet=
        while :; do
            case ${1-} in -q) quiet=yes; shift ;; -p) property=$2; shift 2 ;; *) break ;; esac
        done
        unit=${1%.service}
        case $verb in
        show)
            case $property in
            Environment | EnvironmentFiles | ExecStart)
                if [ -e "$ROOT/unit/$unit.$property" ]; then echo "$property=$(cat "$ROOT/unit/$unit.$property")"; fi
                exit ;;
            DropInPaths)
                if [ ! -e "$ROOT/unit/$unit.service" ]; then printf 'FragmentPath=\nDropInPaths=\n'; exit; fi
                echo "FragmentPath=$ROOT/unit/$unit.service"
                echo "DropInPaths=$(cat "$ROOT/unit/$unit.parts" 2>/dev/null)"; exit ;;
            DefaultLimitNOFILE) echo "$property=524288"; exit ;;
            ActiveEnterTimestamp) echo "$property=$(cat "$ROOT/unit/$unit.started" 2>/dev/null)"; exit ;;
            MainPID)
                pid=0; if [ -e "$ROOT/pid-$unit" ]; then read -r pid <"$ROOT/pid-$unit"; fi
                if ! kill -0 "$pid" 2>/dev/null || [ "$pid" = 0 ]; then pid=0; fi
                echo "MainPID=$pid"; exit ;;
            esac
            state=inactive; if [ -e "$ROOT/running-$unit" ]; then state=active; fi
            pid=none; if [ -e "$ROOT/pid-$unit" ]; then read -r pid <"$ROOT/pid-$unit"; fi
            if kill -0 "$pid" 2>/dev/null; then state=active; fi
            if [ "$property" = ActiveState ]; then echo "ActiveState=$state"; exit; fi
            printf 'LoadState=loaded\\nActiveState=%s\\nSubState=-\\nUnitFileState=enabled\\n' "$state"
            exit ;;
        is-active)
            if [ -e "$ROOT/running-$unit" ]; then [ "$quiet" ] || echo active; exit 0; fi
            [ "$quiet" ] || echo inactive; exit 3 ;;
        is-enabled) if [ -e "$ROOT/enabled-$unit" ]; then echo enabled; else echo disabled && exit 1; fi; exit ;;
        enable) fails "systemctl-$verb-$unit"; : >"$ROOT/enabled-$unit"; exit ;;
        disable) rm -f "$ROOT/enabled-$unit"; exit ;;
        daemon-reload) fails systemctl-daemon-reload; exit ;;
        reset-failed) exit ;;
        cat) [ ! -e "$ROOT/unit/$unit.gone" ]; exit ;;
        stop) fails "systemctl-$verb-$unit"; rm -f "$ROOT/running-$unit"; exit ;;
        start | restart | reload) ;;
        *) echo "unknown verb $verb"; exit 64 ;;
        esac
        fails "systemctl-$verb-$unit"
        file=$ROOT/etc/keepalived/keepalived.conf
        if [ "$unit" = haproxy ]; then file=$ROOT/etc/haproxy/haproxy.cfg; fi
        case $verb in
        start) if [ -e "$ROOT/running-$unit" ]; then exit; fi ;;
        reload)
            if [ ! -e "$ROOT/running-$unit" ]; then echo "$unit.service is not active, cannot reload."; exit 1; fi ;;
        esac
        if [ ! -e "$file" ] || grep -q UNSTARTABLE "$file"; then
            echo "Job for $unit.service failed."; [ "$verb" = reload ] || rm -f "$ROOT/running-$unit"; exit 1
        fi
        if grep -q DEADLY "$file"; then rm -f "$ROOT/running-$unit"; else cat "$file" >"$ROOT/running-$unit"; fi
    """,
    "systemd-run": """
        fails systemd-run
        while :; do case $1 in --unit=*) unit=${1#*=}; shift ;; -*) shift ;; *) break ;; esac; done
        # As systemd does: the program is nobody's child here, and whoever started it takes note of its end at once.
        started=$(setsid sh -c '"$@" </dev/null >/dev/null 2>&1 & echo $!; exec >/dev/null; wait' sh "$@" 2>/dev/null &)
        echo "$started" >"$ROOT/pid-$unit"
    """,
    # Nothing here can be cut from power: what matters is that it is asked for what is there.
    "sync": 'for path; do if [ ! -e "$path" ]; then echo "sync: $path is not there" >&2; exit 1; fi; done',
    # -o json: the lines of $ROOT/entries, and, followed, those of $ROOT/coming, until it is killed.
    "journalctl": """
        if [ "$3" = --since ]; then cat "$ROOT/unit/journal" 2>/dev/null; exit 0; fi
        case " $* " in
        *' json '*) ;;
        *' _SYSTEMD_UNIT='*)
            shift 5; cat "$ROOT/unit/chatter" 2>/dev/null; echo "what ${1#*=} said last"
            case " $* " in *' SYSLOG_IDENTIFIER='*) echo "what ${*##*SYSLOG_IDENTIFIER=} said last" ;; esac
            exit
            ;;
        *) echo "odd: journalctl $*" >&2; exit 1 ;;
        esac
        if [ -e "$ROOT/fail/journalctl" ]; then cat "$ROOT/fail/journalctl" >&2; exit 1; fi
        cat "$ROOT/entries"
        case " $* " in *' -f '*) echo "$$" >"$ROOT/pid-journalctl"; exec tail -f "$ROOT/coming" ;; esac
    """,
    # The admin socket, of what runs: its servers are up, or what $ROOT/state/NAME says; $ROOT/admin/NAME has the flags
    # of what somebody did to one, $ROOT/backend/NAME the backend that it belongs to.
    # As a client of TCP, everything takes its connection, or what $ROOT/answers/ADDRESS says.
    "socat": """
        if [ "$1" = -u ]; then
            address=${3#TCP:}; address=${address%%,*}
            if [ -e "$ROOT/answers/$address" ]; then cat "$ROOT/answers/$address" >&2; exit 1; fi
            exit
        fi
        read -r question
        if [ ! -e "$ROOT/running-haproxy" ]; then echo 'socat: Connection refused' >&2; exit 1; fi
        if [ -e "$ROOT/hanging-haproxy" ]; then exit 0; fi
        exec <"$ROOT/running-haproxy"
        if [ -e "$ROOT/lie" ]; then exec <"$ROOT/lie"; fi
        case $question in
        'show info') printf 'Name: HAProxy\nPid: 7\n' ;;
        'show stat') echo '# pxname,svname,status,type,check_status,' ;;
        'show servers state') printf '1\\n# be_id be_name srv_id srv_name srv_addr srv_op_state\\n' ;;
        'set server '*' state '*)
            words=${question#set server }
            name=${words%% *}; name=${name#*/}
            if ! grep -q "server $name " "$ROOT/running-haproxy"; then printf 'No such server.\n\n'; exit; fi
            case ${words##* } in ready) admin=0 ;; maint) admin=1 ;; drain) admin=8 ;; *) echo 'odd state'; exit ;; esac
            echo "$admin" >"$ROOT/admin/$name"
            echo; exit ;;
        *) exit 64 ;;
        esac
        while read -r word name address; do
            state=UP check=L7OK number=2 admin=0 backend=kube
            if [ -e "$ROOT/state/$name" ]; then read -r state check <"$ROOT/state/$name"; number=0; fi
            if [ -e "$ROOT/backend/$name" ]; then read -r backend <"$ROOT/backend/$name"; fi
            if [ -e "$ROOT/admin/$name" ]; then read -r admin <"$ROOT/admin/$name"; fi
            case $question/$word in
            'show info/description') echo "description: $name" ;;
            'show stat/server') echo "$backend,$name,$state,2,$check," ;;
            'show servers state/server')
                host=${address%:*}; host=${host#[}; host=${host%]}
                echo "2 $backend 1 $name $host $number $admin 1 1 9 6 3 4 6 0 0 0 - ${address##*:}" ;;
            esac
        done
    """,
    # -connect HOST:PORT of s_client: a server that shows a certificate where $ROOT/answers/HOST:PORT.pem is there.
    "openssl": """
        if ! cat "$ROOT/answers/$3.pem" 2>/dev/null; then echo 'connect:errno=111' >&2; exit 1; fi
    """,
    # Time passes only here, and each second may change something.
    "sleep": """
        read -r now <"$ROOT/uptime"; echo $((now + 1)) >"$ROOT/uptime"
        if [ -e "$ROOT/on-sleep" ]; then . "$ROOT/on-sleep"; fi
    """,
    # An address answers 200, or what $ROOT/answers/ADDRESS says.
    "curl": """
        for url; do :; done
        url=${url#*//}; url=${url%%/*}
        if [ -e "$ROOT/answers/$url" ]; then cat "$ROOT/answers/$url"; exit 7; fi
        printf 200
    """,
    "ss": 'for filter; do :; done; cat "$ROOT/sockets/${filter##*:}" 2>/dev/null',
    # list chains | -j list table FAMILY NAME, which it can where $ROOT/nft-json is there
    "nft": 'case $1 in -j) cat "$ROOT/nft-json" ;; *) cat "$ROOT/nft" ;; esac 2>/dev/null',
    "restorecon": "fails restorecon",
    # $ROOT/unit/networks has "INTERFACE FILE" per line.
    "networkctl": """
        for interface; do :; done
        echo "● 2: $interface"
        sed -n "s/^$interface /                Network File: /p" "$ROOT/unit/networks" 2>/dev/null
    """,
    "nmcli": 'cat "$ROOT/unit/devices" 2>/dev/null',
    "systemd-detect-virt": "echo none; exit 1",
    # neigh show to ADDRESS | -o link show | -o addr show
    "ip": """
        case $1/$2 in
        neigh/*) cat "$ROOT/answers/$4.neighbours" 2>/dev/null; exit 0 ;;
        -o/link)
            echo '2: eth0: <BROADCAST,UP> mtu 1500 \\    link/ether 02:00:00:00:00:0b brd ff:ff:ff:ff:ff:ff'; exit ;;
        esac
        echo '2: eth0    inet 198.51.100.11/24 scope global eth0'
        cat "$ROOT/addresses" 2>/dev/null || exit 0
    """,
    "ping": "echo '1 packets transmitted, 0 received'; exit 1",
    # The package databases: a name per line of $ROOT/packages. $ROOT/needed/NAME says that something else needs it.
    "dpkg-query": """
        shift 2
        if [ $# -eq 1 ]; then sed 's/^/installed /' "$ROOT/packages"; echo 'config-files vim'; exit; fi
        for name; do if [ "$name" = haproxy ]; then echo 'installed haproxy 2.6.12-1'; fi; done
        echo 'config-files keepalived 2.2.7'
        exit 1
    """,
    "rpm": """
        case $1 in
        -qa) cat "$ROOT/packages"; exit ;;
        -e)
            shift; test=; if [ "$1" = --test ]; then test=yes; shift; fi
            for name; do if [ -e "$ROOT/needed/$name" ]; then echo "$name is needed by other"; exit 1; fi; done
            if [ "$test" ]; then exit; fi
            fails rpm-e
            for name; do sed -i "/^$name\\$/d" "$ROOT/packages"; done
            exit ;;
        esac
        if [ "$2" = --quiet ]; then [ "$3" = haproxy ]; exit; fi
        echo 'haproxy 2.4.22-3.el9'
    """,
    "dpkg": """
        act=yes; if [ "$1" = --no-act ]; then act=; shift; fi
        if [ "$act" ]; then fails dpkg 2; fi
        status=0
        shift
        for name; do
            if [ -e "$ROOT/needed/$name" ]; then echo "others depend on $name"; status=1; continue; fi
            [ -z "$act" ] || sed -i "/^$name\\$/d" "$ROOT/packages"
        done
        exit $status
    """,
    # Whatever is installed brings libdep with it.
    "apt-get": """
        for verb; do case $verb in update | install) break ;; esac; done
        fails "apt-get-$verb" 100
        if [ "$verb" = update ]; then exit; fi
        while [ "$1" != install ]; do shift; done
        shift
        for name in "$@" libdep; do echo "$name"; done >>"$ROOT/packages"
    """,
    "dnf": """
        fails dnf
        if [ "$2" != install ]; then exit; fi
        shift 2
        for name; do echo "$name"; done >>"$ROOT/packages"
    """,
}  # fmt: skip

OLD = "global\n    daemon\nlisten kube\n    server a 198.51.100.1:6443 check\n"
KEEPALIVED_OLD = "vrrp_instance OLD {\n}\n"


def proxy_file(digest: str = "00112233aabbccdd", *lines: str, servers: str = "ab") -> str:
    """Return a rendered file that carries its digest, an odd line, and a server per letter."""
    named = [f"    server {name} 198.51.100.{1 + ord(name) - ord('a')}:6443 check\n" for name in servers]
    odd = "    # a line with \\backslashes, 'quotes', $(dollars) and  blanks \n\n"
    return (
        f"global\n    description exlb-{digest}\n{odd}{''.join(f'{line}{chr(10)}' for line in lines)}{''.join(named)}"
    )


def keepalived_file(name: str = "VI", *lines: str) -> str:
    return f"# rendered\nvrrp_instance {name} {{\n{''.join(f'    {line}{chr(10)}' for line in lines)}}}\n"


NEW = proxy_file()
KEEPALIVED_NEW = keepalived_file()


@cache
def folder_of_programs(*, watched: bool) -> Path:
    """Return the PATH of all machines: links to this host's programs, or wrappers where every call is watched."""
    folder = Path(tempfile.mkdtemp(prefix="exlb-bin-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in HARMLESS:
        found = shutil.which(name)
        assert found, name
        if watched and name != "sh":
            (folder / name).write_text(f'#!/bin/sh\nme={name}\n{HOOK}exec {found} "$@"\n')
        else:
            (folder / name).symlink_to(found)
    for name, text in FAKES.items():
        # Never through a link: that would write over a program of this host.
        with (folder / name).open("x") as file:
            file.write(PRELUDE + (HOOK if watched else "") + text)
    for path in folder.iterdir():
        if not path.is_symlink():
            path.chmod(0o755)
    return folder


@dataclass(frozen=True)
class Found:
    """What there is in the place of a file: `text` is None where there is nothing."""

    text: str | None
    mode: int = 0
    group: int = 0


def found(path: Path) -> Found:
    if not path.exists():
        return Found(None)
    status = path.stat()
    return Found(path.read_bytes().decode(), stat.S_IMODE(status.st_mode), status.st_gid)


class Ran:
    """How a run of apply.sh ended."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.lines = text.splitlines()
        self.steps = [line.removeprefix("step ") for line in self.lines if line.startswith("step ")]
        self.said = "\n".join(line for line in self.lines if not line.startswith("step "))

    def __repr__(self) -> str:
        return f"{self.status}: {self.lines}"

    @property
    def done(self) -> bool:
        return self.status == 0 and self.lines[-1:] == ["exlb-apply: done"]

    @property
    def failed(self) -> str | None:
        """Return the step that failed; None where it did not end as a failure ends."""
        mark = "exlb-apply: failed "
        last = self.lines[-1] if self.lines else ""
        return last.removeprefix(mark) if self.status == 1 and last.startswith(mark) else None


class Machine:
    """A node with both programs installed and running on the files that they brought, held by a session of ours."""

    def __init__(self, root: Path, *, watched: bool = False, shell: tuple[str, ...] = ("/bin/sh",)) -> None:
        self.root = root
        self.shell = shell
        self.bin = folder_of_programs(watched=watched)
        self.environment = {"ROOT": str(root)}
        self.group = 65534 if os.getuid() == 0 else os.getgid()  # another one than ours, where that can be had
        self.state = root / "var/lib/exlb"
        self.proxy = root / "etc/haproxy/haproxy.cfg"
        self.keepalived = root / "etc/keepalived/keepalived.conf"
        self.drop_in = root / "etc/systemd/system/keepalived.service.d/exlb.conf"
        self.sysctl = root / "etc/sysctl.d/60-exlb.conf"
        self.places: tuple[Path, ...] = (self.proxy, self.keepalived)
        self._lock: IO[str] | None = None
        if not root.exists() or not (root / "etc").exists():
            self._install()

    def _install(self) -> None:
        folders = ("fail", "run/exlb", "locks", "etc/haproxy", "etc/keepalived", "var/lib")
        for folder in (
            *folders,
            "etc/systemd/system",
            "etc/systemd/network",
            "etc/sysctl.d",
            "sys/net/ipv4",
            "sys/net/unix",
        ):
            (self.root / folder).mkdir(parents=True)
        for folder in ("unit", "state", "admin", "backend", "answers", "sockets", "proc", "needed"):
            (self.root / folder).mkdir()
        self.put("etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n')
        self.put("mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
        self.put("uptime", "100\n")
        self.put("packages", "coreutils\n")
        self.put("proc-locks")
        self.put("unit/haproxy.Environment", f'CONFIG={self.proxy} PIDFILE=/run/haproxy.pid "EXTRAOPTS=-S /run/x.sock"')
        self.exec_start("haproxy", "/usr/sbin/haproxy -Ws -f $CONFIG -p $PIDFILE $EXTRAOPTS")
        self.exec_start("keepalived", "/usr/sbin/keepalived --dont-fork $DAEMON_ARGS")
        self.write(self.proxy, OLD, 0o640)
        self.write(self.keepalived, KEEPALIVED_OLD, 0o644)
        for unit, text in (("haproxy", OLD), ("keepalived", KEEPALIVED_OLD)):
            self.put(f"running-{unit}", text)
            self.put(f"enabled-{unit}")

    def exec_start(self, unit: str, words: str) -> None:
        path = words.split()[0]
        value = f"{{ path={path} ; argv[]={words} ; ignore_errors=no ; start_time=[n/a] ; pid=0 ; status=0/0 }}"
        self.put(f"unit/{unit}.ExecStart", value)

    def put(self, name: str, text: str = "") -> Path:
        (self.root / name).write_text(text)
        return self.root / name

    def write(self, path: Path, text: str, mode: int) -> None:
        path.write_bytes(text.encode())
        path.chmod(mode)

    def take(self, token: str = TOKEN) -> None:
        """Hold the node as a session does."""
        self.release()
        self._lock = (self.root / "run/exlb/lock").open("a")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.put(
            "run/exlb/holder", f"token={token}\nwho=eva\nfrom=bastion\nwhat=push-config\nsince=2026-11-21T05:00:00Z\n"
        )

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def program(self, *names: str) -> str:
        """Return a program with its PATH and its absolute paths turned to the scratch root."""
        text = program(*names)
        paths = {
            OWN_PATH: f"PATH={self.bin}",
            "/var/lib/exlb": str(self.state),
            "/run/exlb": f"{self.root}/run/exlb",
            PROXY.path: str(self.proxy),
            PROXY.admin_socket: f"{self.root}/run/admin.sock",
            PROXY.memory: f"{self.root}/run/memory",
            "/etc/keepalived/keepalived.conf": str(self.keepalived),
            "/etc/os-release": f"{self.root}/etc/os-release",
            "/var/lib/dpkg/": f"{self.root}/locks/",
            "/var/lib/apt/lists/": f"{self.root}/locks/",
            "/var/lib/rpm/": f"{self.root}/locks/",
            "/usr/lib/sysimage/rpm/": f"{self.root}/locks/",
            "/proc/self/mountinfo": f"{self.root}/mountinfo",
            "processes=/proc": f"processes={self.root}/proc",
            "running=/proc": f"running={self.root}/proc",
            "kernel=/proc/sys": f"kernel={self.root}/sys",
            "settings=/proc/sys": f"settings={self.root}/sys",
            "guards=/etc/systemd/network": f"guards={self.root}/etc/systemd/network",
            NETWORK_FOLDERS: f"network_folders='{self.root}/etc/systemd/network {self.root}/run/systemd/network'",
        }
        if "apply.sh" in names:
            paths["/proc/uptime"] = f"{self.root}/uptime"
        if "packages.sh" in names:
            paths["/proc/locks"] = f"{self.root}/proc-locks"
        expected = {
            "session.sh": {OWN_PATH, "/run/exlb"},
            "generations.sh": {"/var/lib/exlb"},
            "apply.sh": {
                "/etc/keepalived/keepalived.conf",
                "/proc/self/mountinfo",
                "processes=/proc",
                "/proc/uptime",
                "kernel=/proc/sys",
            },
            "probe.sh": {"/etc/os-release", "settings=/proc/sys", "guards=/etc/systemd/network", NETWORK_FOLDERS},
            "check-apiserver.sh": {OWN_PATH},
            "install.sh": {OWN_PATH},
            "packages.sh": {"/var/lib/dpkg/", "/var/lib/apt/lists/", "/var/lib/rpm/", "/proc/locks"},
            "keepalived.sh": {"running=/proc"},
            "haproxy.sh": {PROXY.path, PROXY.admin_socket, PROXY.memory},
        }
        wanted = set[str]().union(*(expected.get(name, set()) for name in names))
        for old, new in paths.items():
            assert (old in text) >= (old in wanted), f"{names} do not mention {old} any more: rewrite this test"
            text = text.replace(old, new)
        left = set(re.findall(r"(?<![\w.}/$-])/(?:etc|var|run|usr)/[\w./-]*", text)) - {"/usr/bin/env"}
        inside = {each for each in left if not each.startswith((str(self.root), str(self.bin)))}
        assert not inside, f"{names} would touch {inside} of this host"
        return text

    def run(self, names: tuple[str, ...], *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.shell, "-c", self.program(*names), "exlb", *args],
            input=stdin.encode(),
            capture_output=True,
            env=self.environment,
            timeout=60,
            check=False,
            start_new_session=True,
        )
        # Decoded here: text=True would turn the ends of foreign lines into ours.
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def apply(self, *args: str, stdin: str = "", noisy: bool = False) -> Ran:
        done = self.run(APPLY, *args, stdin=stdin)
        assert noisy or done.stderr == "", (done.stderr, done.stdout)
        return Ran(done.returncode, done.stdout)

    def file(self, kind: str, text: str, path: Path, mode: int = 0o644) -> str:
        """Return a file as stage reads it."""
        return f"file {kind} {mode:o} {os.getuid()}:{self.group} {text.count(chr(10))} {path}\n{text}"

    def attachment(self, text: str, folder: str = "keepalived") -> tuple[str, Path]:
        """Return a file that another one names, as stage reads it, and its path."""
        path = self.root / f"etc/{folder}/attached-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        return self.file("attachment", text, path, 0o755), path

    def absent(self, kind: str, path: Path) -> str:
        """Return a file that is not to be there, as stage reads it."""
        return f"absent {kind} {path}\n"

    def frames(
        self,
        proxy: str | None = NEW,
        keepalived: str | None = KEEPALIVED_NEW,
        *,
        more: str = "",
        binds: str = "bind 0.0.0.0 8443\nbind 127.0.0.1 9000\n",
    ) -> str:
        meta = (
            "meta when 2026-11-21T05:00:00Z\nmeta who eva\nmeta from bastion\nmeta tool exlb 1\nmeta what push-config\n"
        )
        files = more
        if proxy is not None:
            files += self.file("proxy", proxy, self.proxy, 0o600)
        if keepalived is not None:
            files += self.file("keepalived", keepalived, self.keepalived)
        return f"{meta}{binds}{files}"

    def stage(self, proxy: str | None = NEW, keepalived: str | None = KEEPALIVED_NEW, *, more: str = "") -> Ran:
        return self.apply("stage", TOKEN, stdin=self.frames(proxy, keepalived, more=more))

    def activate(
        self, number: int = 1, found: int = 0, actions: tuple[str, str] = ("reload", "reload"), *, noisy: bool = False
    ) -> Ran:
        words = (*actions, str(LIMIT_SECONDS), URL)
        return self.apply("activate", f"{number:04d}", f"{found:04d}", *words, noisy=noisy)

    def push(self, proxy: str | None = NEW, keepalived: str | None = KEEPALIVED_NEW, *, more: str = "") -> Ran:
        """Push as rollout does it: stage, and activate under the next number."""
        staged = self.stage(proxy, keepalived, more=more)
        if not staged.done:
            return staged
        self.put("log")
        number, previous = self.next_numbers()
        return self.activate(number, previous)

    def rollback(self, number: int, actions: tuple[str, str] = ("reload", "reload")) -> Ran:
        prepared = self.apply("prepare", TOKEN, f"{number:04d}")
        return self.activate(number, self.next_numbers()[1], actions) if prepared.done else prepared

    def recover(self, *, noisy: bool = False) -> Ran:
        return self.apply("recover", str(LIMIT_SECONDS), URL, noisy=noisy)

    def next_numbers(self) -> tuple[int, int]:
        """Return the number of a new generation and the one to go back to, as planning counts them."""
        current = self.current
        if current is None:
            return 1, 0
        newest = max([current, *self.kept])  # killed early, the first push has left a link and no mark yet
        return (newest + 1, current) if self.is_on(current) else (newest + 2, newest + 1)

    @property
    def current(self) -> int | None:
        link = self.state / "current"
        return int(link.readlink().name) if link.is_symlink() else None

    @property
    def kept(self) -> list[int]:
        """Return the numbers of what was active once."""
        return sorted(int(path.parent.name) for path in self.state.glob("generations/[0-9]*/was-active"))

    def generation(self, number: int) -> dict[Path, Found]:
        """Return the files of a generation but its attachments, held against their sums."""
        folder = self.state / f"generations/{number:04d}"
        files = {}
        for line in (folder / "manifest").read_text().splitlines():
            key, kind, mode, owner, digest, path = line.split()
            if kind == "attachment":
                continue
            if mode == "absent":
                files[Path(path)] = Found(None)
                continue
            data = (folder / "files" / key).read_bytes()
            assert hashlib.sha256(data).hexdigest() == digest
            files[Path(path)] = Found(data.decode(), int(mode, 8), int(owner.partition(":")[2]))
        return files

    @property
    def active(self) -> dict[Path, Found]:
        return {path: found(path) for path in self.places}

    def is_on(self, number: int) -> bool:
        """Tell whether the active files are those of a generation, with mode and owner."""
        return all(found(path) == wanted for path, wanted in self.generation(number).items())

    @property
    def leftovers(self) -> list[Path]:
        """Return what a change must not leave behind."""
        strays = [path for path in (self.root / "etc").rglob("*") if ".exlb-" in path.name]
        marks = [self.state / name for name in ("intent", "intent.new", "staging") if (self.state / name).exists()]
        return strays + marks

    @property
    def journal(self) -> list[str]:
        path = self.state / "journal"
        return path.read_text().splitlines() if path.exists() else []

    def running(self, unit: str) -> str | None:
        path = self.root / f"running-{unit}"
        return path.read_text() if path.exists() else None

    def enabled(self, unit: str) -> bool:
        return (self.root / f"enabled-{unit}").exists()

    @property
    def log(self) -> list[str]:
        path = self.root / "log"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def unit_calls(self) -> list[str]:
        """Return what systemctl was told to change."""
        looks = ("show", "is-active", "is-enabled", "reset-failed")
        calls = (line.removeprefix("systemctl ") for line in self.log if line.startswith("systemctl "))
        return [call for call in calls if not call.startswith(looks)]


def require_mounts() -> None:
    """Skip where nothing can be mounted, as by somebody who is not root; in CI that is a failure."""
    _require("root and a mount namespace", "unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt")


def require_nft() -> None:
    """Skip where there is no ruleset of one's own in a namespace; in CI that is a failure."""
    _require("root and nft", "unshare", "-n", "nft", "list", "ruleset")


def require_namespace() -> None:
    """Skip where there is no network of one's own; in CI that is a failure."""
    _require("root and unshare", "unshare", "-n", "ip", "link")


def _require(needed: str, *words: str) -> None:
    if shutil.which(words[0]) and subprocess.run(words, capture_output=True, check=False).returncode == 0:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI runs every test, and this one needs {needed}")
    pytest.skip(f"needs {needed}")
