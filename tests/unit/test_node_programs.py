"""The programs that run on nodes, run here by /bin/sh in a scratch root with fakes of what they call.

PATH is a directory of its own: the fakes, and those harmless programs of this host that are named below. What a
program under test calls beyond these does not exist for it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from exlb_fab import facts
from exlb_fab.node import program
from exlb_fab.proxies import PROXIES

PROXY = PROXIES["haproxy"]
OWN_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HARMLESS = """
    awk basename cat chmod cp cut date grep head id mkdir mv readlink rm sed sh sha256sum tail touch true tr uname wc
""".split()  # noqa: SIM905 - a list of programs as one types it

# What the fakes share: $ROOT/log has one line per call; a file $ROOT/fail/NAME makes the call NAME fail with its text.
PRELUDE = """#!/bin/sh
me=$(basename "$0")
echo "$me $*" >>"$ROOT/log"
fails() { if [ -e "$ROOT/fail/$1" ]; then cat "$ROOT/fail/$1"; exit "${2:-1}"; fi; }
"""
FAKES: Mapping[str, str] = {
    # -v | -c -f FILE
    "haproxy": """
        if [ "$1" = -v ]; then echo 'HAProxy version 2.6.12-1+deb12u4 2026/10/17'; exit; fi
        if grep -q BROKEN "$3"; then echo "[ALERT] parsing [$3:1] : unknown keyword 'BROKEN'" >&2; exit 1; fi
    """,
    # --version | -t -f FILE
    "keepalived": """
        if [ "$1" = --version ]; then echo 'Keepalived v2.2.7 (01/16,2022)' >&2; exit; fi
        if grep -q BROKEN "$3"; then echo "($3: Line 1) Unknown keyword 'BROKEN'" >&2; exit 5; fi
    """,
    # A unit runs on the bytes that its file had when it was last started, restarted or reloaded.
    "systemctl": """
        verb=$1; shift
        case $verb in
        show)
            for last; do :; done
            unit=${last%.service}
            state=inactive; if [ -e "$ROOT/running-$unit" ]; then state=active; fi
            printf 'LoadState=loaded\\nActiveState=%s\\nSubState=-\\nUnitFileState=enabled\\n' "$state"
            exit ;;
        is-active) [ "$1" = -q ] && shift; [ -e "$ROOT/running-${1%.service}" ]; exit ;;
        esac
        unit=${1%.service}
        fails "systemctl-$verb-$unit"
        file=$ROOT/etc/$unit/$unit.cfg
        case $verb in
        start) if [ ! -e "$ROOT/running-$unit" ]; then cat "$file" >"$ROOT/running-$unit" 2>/dev/null || :; fi ;;
        restart | reload)
            rm -f "$ROOT/running-$unit"
            if [ -e "$file" ] && [ ! -e "$ROOT/dies-$unit" ]; then cp "$file" "$ROOT/running-$unit"; fi ;;
        enable | reset-failed) ;;
        *) echo "unknown verb $verb"; exit 64 ;;
        esac
    """,
    "journalctl": 'echo "the end of the journal of $2"',
    # The admin socket: what the proxy runs is told from $ROOT/running-haproxy, or from $ROOT/lie if that is there.
    "socat": """
        read -r question
        if [ ! -e "$ROOT/running-haproxy" ]; then echo "socat: Connection refused" >&2; exit 1; fi
        running=$ROOT/running-haproxy; if [ -e "$ROOT/lie" ]; then running=$ROOT/lie; fi
        check=L7OK; if [ -e "$ROOT/unsettled" ]; then check=$(cat "$ROOT/unsettled"); fi
        case $question in
        'show info') echo 'Name: HAProxy'; sed -n 's/^ *description /description: /p' "$running"; echo ;;
        'show stat') echo '# pxname,svname,status,type,check_status,'; echo "kube-master,a,UP,2,$check,"; echo ;;
        'show servers state') cat "$ROOT/servers" ;;
        *) exit 64 ;;
        esac
    """,
    # Time passes only here: each sleep may change something.
    "sleep": 'if [ -e "$ROOT/on-sleep" ]; then . "$ROOT/on-sleep"; fi',
    "stat": """
        if [ "$2" = %d ] && [ -e "$ROOT/mounted" ] && [ "$3" = "$(cat "$ROOT/mounted")" ]; then echo 99; exit; fi
        exec REAL_STAT "$@"
    """,
    "chown": "",
    "sync": 'fails "sync-$(basename "$1")"',
    "restorecon": 'fails restorecon',
    "systemd-detect-virt": "echo none; exit 1",
    "ip": "echo '2: eth0    inet 198.51.100.11/24 scope global eth0'",
    "ss": """echo 'LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=36,fd=3))'""",
    "ping": "echo '1 packets transmitted, 0 received'; exit 1",
    "curl": "echo 'curl: (7) Failed to connect' >&2; echo '000 0'; exit 7",
    "dpkg-query": """
        shift 2
        for name; do if [ "$name" = haproxy ]; then echo 'installed haproxy 2.6.12-1'; fi; done
        echo 'config-files keepalived 2.2.7'
        exit 1
    """,
    "rpm": """
        if [ "$2" = --quiet ]; then [ "$3" = haproxy ]; exit; fi
        echo 'haproxy 2.4.22-3.el9'
    """,
    "apt-get": """
        for verb; do case $verb in update | install) break ;; esac; done
        fails "apt-get-$verb" 100
    """,
    "dnf": "fails dnf; echo installed",
}  # fmt: skip


class Machine:
    """A scratch root, and the node programs run in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        for folder in ("bin", "fail", "run", "locks", "etc/haproxy", "etc/keepalived", "var/lib"):
            (root / folder).mkdir(parents=True)
        for name in HARMLESS:
            found = shutil.which(name)
            assert found, name
            (self.bin / name).symlink_to(found)
        for name, text in FAKES.items():
            self.fake(name, text)
        (root / "etc/os-release").write_text('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n')
        self.proxy_file = root / "etc/haproxy/haproxy.cfg"
        self.keepalived_file = root / "etc/keepalived/keepalived.cfg"
        self.state = root / "var/lib/exlb"

    def fake(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(PRELUDE + text.replace("REAL_STAT", shutil.which("stat") or "stat") + "\n")
        path.chmod(0o755)

    def put(self, name: str, text: str = "") -> None:
        (self.root / name).write_text(text)

    def program(self, *names: str) -> str:
        """Return a program with its PATH and its absolute paths turned to the scratch root."""
        text = program(*names)
        paths = {
            OWN_PATH: f"PATH={self.bin}",
            "/var/lib/exlb": str(self.state),
            PROXY.path: str(self.proxy_file),
            PROXY.admin_socket: f"{self.root}/run/admin.sock",
            PROXY.memory: f"{self.root}/run/memory",
            "/etc/os-release": f"{self.root}/etc/os-release",
            "/var/lib/dpkg/": f"{self.root}/locks/",
            "/var/lib/apt/lists/": f"{self.root}/locks/",
            "/var/lib/rpm/": f"{self.root}/locks/",
            "/usr/lib/sysimage/rpm/": f"{self.root}/locks/",
            "/proc/locks": f"{self.root}/proc-locks",
        }
        expected = {
            "apply.sh": {OWN_PATH, "/var/lib/exlb"},
            "probe.sh": {OWN_PATH, "/etc/os-release"},
            "install.sh": {OWN_PATH, "/var/lib/dpkg/", "/var/lib/apt/lists/", "/var/lib/rpm/", "/proc/locks"},
            "haproxy.sh": {PROXY.path, PROXY.admin_socket, PROXY.memory},
        }
        wanted = set().union(*(expected[name] for name in names))
        for old, new in paths.items():
            assert (old in text) >= (old in wanted), f"{names} do not mention {old} any more: rewrite this test"
            text = text.replace(old, new)
        left = set(re.findall(r"(?<![\w.}/$-])/(?:etc|var|run|usr)/[\w./-]*", text)) - {"/usr/bin/env"}
        inside = {each for each in left if not each.startswith(str(self.root))}
        assert not inside, f"{names} would touch {inside} of this host"
        return text

    def run(self, names: tuple[str, ...], *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["/bin/sh", "-c", self.program(*names), "exlb", *args],
            input=stdin.encode(),
            capture_output=True,
            env={"ROOT": str(self.root)},
            timeout=60,
            check=False,
        )
        # Decoded here: text=True would turn the ends of foreign lines into ours.
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def apply(self, *args: str, stdin: str = "") -> Applied:
        done = self.run(("haproxy.sh", "apply.sh"), *args, stdin=stdin)
        assert done.stderr == ""
        return Applied(done.returncode, done.stdout)

    def stage(self, proxy: str | None = None, keepalived: str | None = None) -> Applied:
        frames = ""
        if proxy is not None:
            frames += f"proxy 0600 {proxy.count(chr(10))} {self.proxy_file}\n{proxy}"
        if keepalived is not None:
            frames += f"keepalived 0644 {keepalived.count(chr(10))} {self.keepalived_file}\n{keepalived}"
        return self.apply("stage", stdin=frames)

    def staged(self, proxy: str | None = None, keepalived: str | None = None) -> Machine:
        assert self.stage(proxy, keepalived).done
        (self.root / "log").unlink(missing_ok=True)
        return self

    def running(self, unit: str) -> str | None:
        path = self.root / f"running-{unit}"
        return path.read_text() if path.exists() else None

    @property
    def log(self) -> list[str]:
        path = self.root / "log"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def files(self) -> dict[str, tuple[str, int]]:
        """Return every file below /etc and /var with its text and mode."""
        return {
            str(path.relative_to(self.root)): (path.read_text(), stat.S_IMODE(path.stat().st_mode))
            for folder in ("etc", "var")
            for path in (self.root / folder).rglob("*")
            if path.is_file()
        }


class Applied:
    """How a run of apply.sh ended."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.lines = text.splitlines()
        self.steps = [line.removeprefix("step ") for line in self.lines if line.startswith("step ")]
        self.said = "\n".join(line for line in self.lines if not line.startswith("step "))

    @property
    def done(self) -> bool:
        return self.status == 0 and self.lines[-1] == "exlb-apply: done"

    @property
    def failed(self) -> str | None:
        """Return the step that failed; None where it did not end as a failure ends."""
        mark = "exlb-apply: failed "
        return self.lines[-1].removeprefix(mark) if self.status == 1 and self.lines[-1].startswith(mark) else None


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A node with both programs installed and running on the files that they brought."""
    made = Machine(tmp_path)
    made.proxy_file.write_text(OLD)
    made.keepalived_file.write_text(KEEPALIVED_OLD)
    made.proxy_file.chmod(0o640)
    made.put("running-haproxy", OLD)
    made.put("running-keepalived", KEEPALIVED_OLD)
    return made


OLD = "global\n    daemon\n"
NEW = "global\n    description exlb-00112233aabbccdd\n    # a line with \\backslashes, 'quotes' and  blanks \n\nend\n"
KEEPALIVED_OLD = "vrrp_instance OLD {\n}\n"
KEEPALIVED_NEW = "# new\nvrrp_instance VI {\n}\n"


# stage


def test_stage_keeps_the_bytes_of_every_file_where_only_root_reads_them(machine: Machine) -> None:
    before = machine.files
    ran = machine.stage(NEW, KEEPALIVED_NEW)
    assert ran.done
    assert ran.steps == ["receive", "target", "validate"]
    staging = machine.state / "staging"
    assert (staging / "1").read_text() == NEW
    assert (staging / "2").read_text() == KEEPALIVED_NEW
    assert {stat.S_IMODE(path.stat().st_mode) for path in (staging / "1", staging / "2")} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (staging, machine.state)} == {0o700}
    assert {name: file for name, file in machine.files.items() if name.startswith("etc")} == before


def test_stage_forgets_what_was_staged_before(machine: Machine) -> None:
    machine.staged(NEW, KEEPALIVED_NEW)
    assert machine.stage(keepalived=KEEPALIVED_NEW).done
    assert sorted(path.name for path in (machine.state / "staging").iterdir()) == ["1", "manifest"]


def test_invalid_proxy_file_is_refused_in_the_words_of_the_proxy(machine: Machine) -> None:
    ran = machine.stage("BROKEN\n", KEEPALIVED_NEW)
    assert ran.failed == "validate"
    assert f"[ALERT] parsing [{machine.proxy_file}:1] : unknown keyword 'BROKEN'" in ran.said
    assert machine.proxy_file.read_text() == OLD


def test_invalid_keepalived_file_is_refused_in_the_words_of_keepalived(machine: Machine) -> None:
    ran = machine.stage(NEW, "vrrp_instance BROKEN\n")
    assert ran.failed == "validate"
    assert f"({machine.keepalived_file}: Line 1) Unknown keyword 'BROKEN'" in ran.said
    assert machine.keepalived_file.read_text() == KEEPALIVED_OLD


@pytest.mark.parametrize("text", ["", "\n", "# nothing but words\n"], ids=["no byte", "blank", "comment"])
def test_keepalived_file_without_content_is_refused_though_keepalived_itself_accepts_it(
    machine: Machine, text: str
) -> None:
    ran = machine.stage(NEW, text)
    assert ran.failed == "validate"


def test_symbolic_link_is_refused_and_told_where_it_leads(machine: Machine) -> None:
    machine.proxy_file.rename(machine.root / "etc/real.cfg")
    machine.proxy_file.symlink_to(machine.root / "etc/real.cfg")
    ran = machine.stage(NEW)
    assert ran.failed == "target"
    assert f"{machine.proxy_file} is a symbolic link to {machine.root}/etc/real.cfg" in ran.said


def test_directory_in_the_place_of_a_file_is_refused(machine: Machine) -> None:
    machine.proxy_file.unlink()
    machine.proxy_file.mkdir()
    ran = machine.stage(NEW)
    assert ran.failed == "target"
    assert f"{machine.proxy_file} is not a regular file" in ran.said


def test_missing_directory_is_refused(machine: Machine) -> None:
    shutil.rmtree(machine.keepalived_file.parent)
    ran = machine.stage(NEW, KEEPALIVED_NEW)
    assert ran.failed == "target"
    assert "is not there: is the package installed?" in ran.said


def test_file_that_is_a_mount_of_its_own_is_refused(machine: Machine) -> None:
    machine.put("mounted", str(machine.proxy_file))
    ran = machine.stage(NEW)
    assert ran.failed == "target"
    assert f"{machine.proxy_file} is a mount of its own" in ran.said


def test_kind_of_file_that_nobody_validates_is_refused(machine: Machine) -> None:
    ran = machine.apply("stage", stdin=f"secret 0600 1 {machine.proxy_file}\nx\n")
    assert ran.failed == "validate"
    assert "unknown kind of file secret" in ran.said


@pytest.mark.parametrize("frames", ["", "proxy 0600 3 {path}\none\ntwo\n", "proxy 0600 2 {path}\none\ntwo"])
def test_transfer_that_was_cut_short_is_refused(machine: Machine, frames: str) -> None:
    ran = machine.apply("stage", stdin=frames.format(path=machine.proxy_file))
    assert ran.failed == "receive"
    assert "the files did not arrive whole" in ran.said


def test_transfer_that_breaks_in_the_header_is_no_file(machine: Machine) -> None:
    ran = machine.apply("stage", stdin=f"keepalived 0644 1 {machine.keepalived_file}\nvrrp_instance A\nproxy 06")
    assert ran.done
    assert (machine.state / "staging/manifest").read_text().count("\n") == 1


# activate


def test_activate_brings_bytes_and_modes_and_reloads_what_changed(machine: Machine) -> None:
    ran = machine.staged(NEW, KEEPALIVED_NEW).apply("activate", "reload", "reload", "5")
    assert ran.done
    assert ran.steps == [
        "target", "keep", "write", "remember", "swap",
        "reload-proxy", "gate-proxy", "reload-keepalived", "gate-keepalived",
    ]  # fmt: skip
    assert machine.files == {
        "etc/haproxy/haproxy.cfg": (NEW, 0o600),
        "etc/keepalived/keepalived.cfg": (KEEPALIVED_NEW, 0o644),
        "etc/os-release": machine.files["etc/os-release"],
    }
    assert (machine.running("haproxy"), machine.running("keepalived")) == (NEW, KEEPALIVED_NEW)


def test_activate_writes_a_sibling_and_syncs_it_before_the_rename_and_the_directory_after(machine: Machine) -> None:
    machine.staged(NEW).apply("activate", "reload", "none", "5")
    sibling = f"{machine.proxy_file}.exlb-new"
    assert [line for line in machine.log if line.startswith(("chown", "restorecon", "sync"))] == [
        f"chown root:root {sibling}",
        f"restorecon {sibling}",
        f"sync {sibling}",
        f"sync {machine.proxy_file.parent}",
    ]


def test_activate_touches_no_unit_whose_file_did_not_change(machine: Machine) -> None:
    assert machine.staged(NEW).apply("activate", "reload", "none", "5").done
    assert [line for line in machine.log if line.startswith("systemctl")] == [
        "systemctl reload haproxy.service",
        "systemctl is-active -q keepalived.service",
    ]


def test_activate_starts_units_that_failed_before(machine: Machine) -> None:
    for unit in ("haproxy", "keepalived"):
        (machine.root / f"running-{unit}").unlink()
    assert machine.staged(NEW, KEEPALIVED_NEW).apply("activate", "start", "start", "5").done
    assert [line for line in machine.log if "haproxy.service" in line] == [
        "systemctl reset-failed haproxy.service",
        "systemctl start haproxy.service",
    ]
    assert machine.running("haproxy") == NEW


def servers(digest: str, third: str, check: str = "option httpchk GET /readyz") -> str:
    """Return a proxy file with three servers, the third of which may have another address."""
    hosts = {"a": "198.51.100.11", "b": "198.51.100.12", "c": third}
    lines = "".join(f"    server {name} {host}:6443 check\n" for name, host in hosts.items())
    return f"global\n    description exlb-{digest}\n\nlisten kube-master\n    {check}\n{lines}"


DOWN, UP = "0", "2"
STATES = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state\n" + "".join(
    f"3 kube-master {number} {name} 198.51.100.1{number} {state}{' -' * 12} 6443\n"
    for number, name, state in ((1, "a", DOWN), (2, "b", UP), (3, "c", DOWN))
)


@pytest.mark.parametrize(
    ("new", "remembered"),
    [
        (servers("01", "198.51.100.13"), ["a", "c"]),
        (servers("01", "198.51.100.99"), ["a"]),
        (servers("01", "198.51.100.13", "option tcplog"), []),
    ],
    ids=["same servers", "another address", "another health check"],
)
def test_servers_known_to_be_down_are_carried_over_a_reload_and_not_to_the_next_start(
    machine: Machine, new: str, remembered: list[str]
) -> None:
    old = servers("00", "198.51.100.13")
    machine.proxy_file.write_text(old)
    machine.put("running-haproxy", old)
    machine.put("servers", STATES)
    machine.put("unsettled", "INI")
    machine.put("on-sleep", 'cp "$ROOT/run/memory" "$ROOT/memory-at-reload"; rm -f "$ROOT/unsettled"')
    assert machine.staged(new).apply("activate", "reload", "none", "30").done
    at_reload = (machine.root / "memory-at-reload").read_text().splitlines()
    assert at_reload[0] == "1"
    assert [line.split()[3] for line in at_reload if not line.startswith(("1", "#"))] == remembered
    assert (machine.root / "run/memory").read_text() == "1\n"


def test_gate_waits_until_the_proxy_runs_the_new_configuration(machine: Machine) -> None:
    machine.staged(NEW)
    machine.put("lie", OLD)
    machine.put("on-sleep", 'rm -f "$ROOT/lie"')
    assert machine.apply("activate", "reload", "none", "30").done
    assert [line for line in machine.log if line.startswith("sleep")] == ["sleep 0.1"]


@pytest.mark.parametrize("check", ["INI", "* INI"])
def test_gate_waits_until_every_server_was_checked(machine: Machine, check: str) -> None:
    machine.staged(NEW)
    machine.put("unsettled", check)
    machine.put("on-sleep", 'rm -f "$ROOT/unsettled"')
    assert machine.apply("activate", "reload", "none", "30").done
    assert [line for line in machine.log if line.startswith("sleep")] == ["sleep 0.1"]


def test_failed_gate_restores_the_bytes_and_modes_of_existing_files(machine: Machine) -> None:
    before = machine.files
    machine.staged(NEW, KEEPALIVED_NEW)
    machine.put("lie", OLD)
    ran = machine.apply("activate", "reload", "reload", "0")
    assert ran.failed == "gate-proxy"
    assert "after 0 s haproxy runs no configuration of exlb, it should run 00112233aabbccdd" in ran.said
    assert "the end of the journal of haproxy.service" in ran.said
    assert {name: file for name, file in machine.files.items() if name.startswith("etc")} == before
    assert machine.running("haproxy") == OLD


def test_failed_gate_restores_the_absence_of_new_files(machine: Machine) -> None:
    machine.proxy_file.unlink()
    machine.staged(NEW)
    machine.put("lie", OLD)
    assert machine.apply("activate", "reload", "none", "0").failed == "gate-proxy"
    assert list(machine.proxy_file.parent.iterdir()) == []


def test_reload_that_fails_restores_the_old_file_and_shows_the_journal(machine: Machine) -> None:
    before = machine.files
    machine.staged(NEW)
    machine.put("fail/systemctl-reload-haproxy", "Job for haproxy.service failed.\n")
    ran = machine.apply("activate", "reload", "none", "5")
    assert ran.failed == "reload-proxy"
    assert "Job for haproxy.service failed.\nthe end of the journal of haproxy.service" in ran.said
    assert {name: file for name, file in machine.files.items() if name.startswith("etc")} == before


def test_keepalived_that_dies_of_its_new_file_gets_the_old_one_back(machine: Machine) -> None:
    machine.staged(NEW, KEEPALIVED_NEW)
    machine.put("dies-keepalived")
    ran = machine.apply("activate", "reload", "reload", "5")
    assert ran.failed == "gate-keepalived"
    assert "keepalived does not run\nthe end of the journal of keepalived.service" in ran.said
    assert machine.keepalived_file.read_text() == KEEPALIVED_OLD
    assert machine.proxy_file.read_text() == OLD
    assert machine.running("haproxy") == OLD


def test_proxy_that_was_started_on_the_new_file_does_not_go_on_with_it_after_a_failed_gate(machine: Machine) -> None:
    (machine.root / "running-haproxy").unlink()
    machine.staged(NEW)
    machine.put("unsettled", "INI")
    assert machine.apply("activate", "start", "none", "0").failed == "gate-proxy"
    assert machine.proxy_file.read_text() == OLD
    assert machine.running("haproxy") == OLD


def test_keepalived_that_was_started_on_a_file_that_is_gone_again_does_not_run_on(machine: Machine) -> None:
    (machine.root / "running-keepalived").unlink()
    machine.keepalived_file.unlink()
    machine.staged(NEW, KEEPALIVED_NEW)
    machine.put("fail/systemctl-start-keepalived", "Job for keepalived.service failed.\n")
    machine.put("running-keepalived", KEEPALIVED_NEW)
    assert machine.apply("activate", "reload", "start", "5").failed == "start-keepalived"
    assert not machine.keepalived_file.exists()
    assert machine.running("keepalived") is None


def test_swap_that_fails_half_way_puts_every_file_back(machine: Machine) -> None:
    before = machine.files
    machine.staged(NEW, KEEPALIVED_NEW)
    machine.put("fail/sync-keepalived", "sync: Input/output error\n")
    ran = machine.apply("activate", "reload", "reload", "5")
    assert ran.failed == "swap"
    assert {name: file for name, file in machine.files.items() if name.startswith("etc")} == before
    assert not any(line.startswith("systemctl") for line in machine.log)


def test_file_that_cannot_be_written_leaves_nothing_behind(machine: Machine) -> None:
    before = machine.files
    machine.staged(NEW, KEEPALIVED_NEW)
    machine.put("fail/sync-keepalived.cfg.exlb-new", "sync: No space left on device\n")
    ran = machine.apply("activate", "reload", "reload", "5")
    assert ran.failed == "write"
    assert "No space left on device" in ran.said
    assert {name: file for name, file in machine.files.items() if name.startswith("etc")} == before


def test_target_that_became_a_link_since_it_was_staged_is_refused(machine: Machine) -> None:
    machine.staged(NEW)
    machine.proxy_file.rename(machine.root / "etc/real.cfg")
    machine.proxy_file.symlink_to(machine.root / "etc/real.cfg")
    assert machine.apply("activate", "reload", "none", "5").failed == "target"
    assert (machine.root / "etc/real.cfg").read_text() == OLD


def test_activate_without_anything_staged_fails(machine: Machine) -> None:
    ran = machine.apply("activate", "reload", "none", "5")
    assert ran.failed == "start"
    assert "nothing is staged" in ran.said


def test_node_without_selinux_needs_no_restorecon(machine: Machine) -> None:
    (machine.bin / "restorecon").unlink()
    assert machine.staged(NEW).apply("activate", "reload", "none", "5").done


# units, discard, and what is neither


def test_units_restarts_and_passes_the_gates_without_touching_a_file(machine: Machine) -> None:
    machine.proxy_file.write_text(NEW)
    before = machine.files
    ran = machine.apply("units", "restart", "restart", "5")
    assert ran.done
    assert ran.steps == ["restart-proxy", "gate-proxy", "restart-keepalived", "gate-keepalived"]
    assert machine.files == before
    assert [line for line in machine.log if line.startswith(("systemctl re", "systemctl start"))] == [
        "systemctl reset-failed haproxy.service",
        "systemctl restart haproxy.service",
        "systemctl reset-failed keepalived.service",
        "systemctl restart keepalived.service",
    ]


def test_units_leaves_alone_what_needs_nothing(machine: Machine) -> None:
    assert machine.apply("units", "none", "restart", "5").done
    assert not any("haproxy" in line for line in machine.log)
    machine.proxy_file.write_text(NEW)
    (machine.root / "log").unlink()
    assert machine.apply("units", "restart", "none", "5").done
    assert not any("keepalived" in line for line in machine.log)


@pytest.mark.parametrize(
    ("unit", "actions", "step"),
    [("haproxy", ("restart", "none"), "restart-proxy"), ("keepalived", ("none", "restart"), "restart-keepalived")],
)
def test_units_that_do_not_restart_fail_with_their_journal(
    machine: Machine, unit: str, actions: tuple[str, str], step: str
) -> None:
    machine.put(f"fail/systemctl-restart-{unit}", f"Job for {unit}.service failed.\n")
    ran = machine.apply("units", *actions, "5")
    assert ran.failed == step
    assert f"Job for {unit}.service failed.\nthe end of the journal of {unit}.service" in ran.said


def test_units_that_die_at_once_do_not_pass_the_gate(machine: Machine) -> None:
    machine.proxy_file.write_text(NEW)
    machine.put("dies-haproxy")
    assert machine.apply("units", "restart", "none", "0").failed == "gate-proxy"
    machine.put("dies-keepalived")
    assert machine.apply("units", "none", "restart", "0").failed == "gate-keepalived"


def test_unknown_action_on_a_unit_is_refused(machine: Machine) -> None:
    ran = machine.apply("units", "stop", "none", "5")
    assert ran.failed == "stop-proxy"
    assert "unknown action stop" in ran.said


def test_discard_forgets_what_is_staged(machine: Machine) -> None:
    assert machine.staged(NEW).apply("discard").done
    assert not (machine.state / "staging").exists()
    assert machine.apply("discard").done


@pytest.mark.parametrize("args", [(), ("nonsense",)])
def test_unknown_action_changes_nothing(machine: Machine, args: tuple[str, ...]) -> None:
    before = machine.files
    ran = machine.apply(*args)
    assert ran.failed == "start"
    assert "unknown action" in ran.said
    assert machine.files == before


# install.sh


def installed(machine: Machine, *args: str) -> subprocess.CompletedProcess[str]:
    machine.put("proc-locks")
    return machine.run(("install.sh",), *args)


def test_install_runs_the_manager_and_enables_the_units(machine: Machine) -> None:
    done = installed(machine, "apt-get", "5", "haproxy,keepalived", "haproxy", "socat")
    assert done.returncode == 0
    assert [line for line in machine.log if line.startswith(("apt-get", "systemctl"))] == [
        "apt-get -o DPkg::Lock::Timeout=5 update",
        "apt-get -y --no-install-recommends -o DPkg::Lock::Timeout=5 -o Dpkg::Options::=--force-confdef"
        " -o Dpkg::Options::=--force-confold install haproxy socat",
        "systemctl enable haproxy.service",
        "systemctl enable keepalived.service",
    ]


def test_install_without_packages_runs_no_manager(machine: Machine) -> None:
    assert installed(machine, "apt-get", "5", "keepalived").returncode == 0
    assert machine.log == ["systemctl enable keepalived.service"]


def test_install_without_units_enables_none(machine: Machine) -> None:
    assert installed(machine, "dnf", "5", "", "socat").returncode == 0
    assert [line for line in machine.log if not line.startswith("stat ")] == ["dnf -y install socat"]


@pytest.mark.parametrize(("manager", "fault"), [("apt-get", "apt-get-install"), ("dnf", "dnf")])
def test_failing_manager_is_heard_and_no_unit_is_enabled(machine: Machine, manager: str, fault: str) -> None:
    machine.put(f"fail/{fault}", "E: Unable to locate package haproxy\n")
    done = installed(machine, manager, "5", "haproxy", "haproxy")
    assert done.returncode == 1
    assert "E: Unable to locate package haproxy" in done.stdout
    assert not any(line.startswith("systemctl") for line in machine.log)


def test_repository_that_fails_does_not_matter_if_the_packages_can_be_had(machine: Machine) -> None:
    machine.put("fail/apt-get-update", "E: The repository does not have a Release file.\n")
    assert installed(machine, "apt-get", "5", "haproxy", "haproxy").returncode == 0


def test_unit_that_cannot_be_enabled_is_a_failure(machine: Machine) -> None:
    machine.put("fail/systemctl-enable-haproxy", "Unit file haproxy.service does not exist.\n")
    done = installed(machine, "dnf", "5", "haproxy,keepalived", "haproxy")
    assert done.returncode == 1
    assert "Unit file haproxy.service does not exist." in done.stdout


def test_unknown_manager_is_refused(machine: Machine) -> None:
    done = installed(machine, "pacman", "5", "haproxy", "haproxy")
    assert done.returncode == 64
    assert "unknown package manager pacman" in done.stdout
    assert machine.log == []


def test_manager_that_another_process_keeps_waiting_names_it(machine: Machine) -> None:
    lock = machine.root / "locks/lock-frontend"
    lock.touch()
    line = f"1: POSIX  ADVISORY  WRITE {os.getpid()} 08:01:{lock.stat().st_ino} 0 EOF\n"
    machine.put("proc-locks", line)
    done = machine.run(("install.sh",), "apt-get", "0", "haproxy", "haproxy")
    assert done.returncode == 75
    assert f"{lock} is held by process {os.getpid()} (" in done.stdout
    assert "for more than 0 s" in done.stdout
    assert not any(line.startswith("apt-get") for line in machine.log)


def test_install_goes_on_when_the_other_package_manager_has_ended(machine: Machine) -> None:
    lock = machine.root / "locks/lock-frontend"
    lock.touch()
    machine.put("proc-locks", f"1: POSIX  ADVISORY  WRITE {os.getpid()} 08:01:{lock.stat().st_ino} 0 EOF\n")
    machine.put("on-sleep", ': >"$ROOT/proc-locks"')
    done = machine.run(("install.sh",), "apt-get", "60", "", "haproxy")
    assert done.returncode == 0
    calls = [line.split()[0] for line in machine.log if not line.startswith("stat ")]
    assert calls == ["sleep", "apt-get", "apt-get"]


# probe.sh


def probed(machine: Machine, *questions: str) -> dict[str, facts.Answer]:
    done = machine.run(("haproxy.sh", "probe.sh"), stdin="".join(f"{question}\n" for question in questions))
    assert (done.returncode, done.stderr) == (0, "")
    return facts.parse_answers(done.stdout)


def test_probe_answers_every_question_that_exlb_asks(machine: Machine) -> None:
    questions = [*facts.configuration_questions(PROXY), "ping 198.51.100.100", "request https://198.51.100.100:8443/"]
    done = machine.run(("haproxy.sh", "probe.sh"), stdin="".join(f"{question}\n" for question in questions))
    found = facts.parse(done.stdout, PROXY)
    assert found.system is not None
    assert (found.system.name, found.system.container) == ("Debian GNU/Linux 12 (bookworm)", None)
    assert found.system.managers == ("apt-get", "dnf")
    assert found.programs == {"haproxy", "keepalived", "curl", "socat", "ip", "ss", "ping"}
    assert found.packages == {"haproxy": "2.6.12-1"}
    assert (str(found.proxy_version), str(found.keepalived_version)) == ("2.6.12", "2.2.7")
    assert [str(each.address) for each in found.addresses] == ["198.51.100.11/24"]
    assert [(each.port, each.process) for each in found.sockets] == [(22, "sshd")]
    assert {unit.running for unit in found.units.values()} == {True}
    assert found.pings == {"198.51.100.100": False}
    assert found.replies["https://198.51.100.100:8443/"].error == "Failed to connect"
    assert found.proxy_state is not None
    assert (found.proxy_state.digest, len(found.proxy_state.servers)) == (None, 1)


def test_probe_of_a_red_hat_asks_its_own_database(machine: Machine) -> None:
    machine.put("etc/os-release", 'ID="rocky"\nID_LIKE="rhel centos fedora"\n')
    assert probed(machine, "packages haproxy keepalived")["packages haproxy keepalived"].text == "haproxy 2.4.22-3.el9"


def test_probe_tells_files_from_what_is_none(machine: Machine) -> None:
    (machine.root / "etc/link").symlink_to("haproxy")
    paths = {name: f"{machine.root}/etc/{name}" for name in ("haproxy/haproxy.cfg", "haproxy", "link", "nothing")}
    answers = probed(machine, *(f"file {path}" for path in paths.values()))
    found = {name: facts.parse_file(answers[f"file {path}"].text) for name, path in paths.items()}
    assert found["haproxy/haproxy.cfg"].sha256 == hashlib.sha256(OLD.encode()).hexdigest()
    assert found["haproxy/haproxy.cfg"].mode == 0o640
    assert found["haproxy"].kind == "directory"
    assert found["link"].kind == "symbolic link"
    assert found["nothing"].absent


def test_probe_shows_the_journal_of_a_unit_that_does_not_run(machine: Machine) -> None:
    (machine.root / "running-haproxy").unlink()
    unit = facts.parse_unit(probed(machine, "unit haproxy")["unit haproxy"].text)
    assert not unit.running
    assert unit.journal == ("the end of the journal of haproxy.service",)


def test_probe_says_that_a_silent_proxy_is_silent(machine: Machine) -> None:
    (machine.root / "running-haproxy").unlink()
    assert probed(machine, "proxy-state")["proxy-state"] == facts.Answer("socat: Connection refused", 1)


def test_probe_does_not_take_a_question_for_shell(machine: Machine) -> None:
    odd = ["file $(touch${IFS}owned)", "file *", "file `touch owned`", "nonsense ; touch owned"]
    answers = probed(machine, *odd)
    assert set(answers) == set(odd)
    assert answers["file *"].text == "absent"
    assert answers["nonsense ; touch owned"] == facts.Answer("unknown question nonsense", 64)
    assert not (Path.cwd() / "owned").exists()


def test_probe_carries_content_that_looks_like_its_own_marks(machine: Machine) -> None:
    text = "@ system\n= 0\n| x\nexlb-probe-end\n\x0c@ unit sshd\r\n= 1\n"
    machine.put("odd", text)
    question = f"read {machine.root}/odd"
    answers = probed(machine, question, "addresses")
    assert list(answers) == [question, "addresses"]
    assert answers[question].text + "\n" == text
