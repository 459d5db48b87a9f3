"""Nodes and bastions that are set up unlike others: a push works there, or is refused before any change."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pytest

from tests.lab.bastion import KEEPALIVED_PATH, PROXY_PATH, Bastion
from tests.lab.conftest import AddRow
from tests.lab.test_ssh import asked

slow = pytest.mark.slow

CHANGE = {"BALANCE": "leastconn", "CHECK_FALL": "3"}  # a line of either file
WORKS = "works: 0 failed, 0 moves, the open connection lives"
REFUSED = "refused before any change, with the reason"
MODES = "644 0:0 regular file"
PENALTY_SECONDS = 60
RC = "/root/.bashrc"  # bash reads it too where it runs a command of sshd's


@dataclass(frozen=True)
class Setting:
    """How nodes can be: lines of shell that make them so and undo it, and words for `exlb exec` with their answer."""

    name: str
    do: str
    undo: str
    ask: tuple[str, ...]
    answer: str


def first_line(name: str, line: str, ask: tuple[str, ...], answer: str) -> Setting:
    """Return what bash does first of all when a command is run over SSH."""
    return Setting(name, f"cp -a {RC} {RC}.kept && sed -i '1i {line}' {RC}", f"mv {RC}.kept {RC}", ask, answer)


def umask(value: str) -> Setting:
    return first_line(f"umask {value} of the login user", f"umask {value}", ("sh", "-c", "umask"), f"0{value}")


def login_shell(name: str) -> Setting:
    install = "" if name == "dash" else f"apt-get -q update && apt-get -qy install --no-install-recommends {name} &&"
    return Setting(
        f"login shell {name}",
        f"export DEBIAN_FRONTEND=noninteractive; {install} usermod -s $(command -v {name}) root",
        "usermod -s /bin/bash root",
        ("getent", "passwd", "root"),
        f"/{name}",
    )


SFTP_OFF = Setting(
    "SFTP subsystem off",
    "sed -i 's/^Subsystem/#&/' /etc/ssh/sshd_config && systemctl reload ssh",
    "sed -i 's/^#Subsystem/Subsystem/' /etc/ssh/sshd_config && systemctl reload ssh",
    ("sh", "-c", "/usr/sbin/sshd -T | grep -c ^subsystem"),
    "0",
)
NOEXEC = Setting(
    "noexec /tmp, /run and /var",
    "mount -o remount,noexec /tmp; mount -o remount,noexec /run; "
    "mount --bind /var /var && mount -o remount,bind,noexec /var",
    "mount -o remount,exec /tmp; mount -o remount,exec /run; umount -l /var",
    ("sh", "-c", "for at in /tmp /run /var; do cp /bin/true $at/x; $at/x; echo $at $?; rm $at/x; done 2>/dev/null"),
    "/tmp 126 /run 126 /var 126",
)
NO_HOSTNAME = Setting(
    "hostname unset",
    "mount -o remount,bind,rw /proc/sys && echo >/proc/sys/kernel/hostname",
    "hostname -F /etc/hostname && mount -o remount,bind,ro /proc/sys",
    ("sh", "-c", 'echo "<$(uname -n)>"'),
    "<>",
)
LOCALE = Setting(
    "locale not UTF-8, and not there",
    "cp /etc/default/locale /root/locale && echo 'LC_ALL=tr_TR.ISO-8859-9' >/etc/default/locale",
    "cat /root/locale >/etc/default/locale && rm /root/locale",  # a link, on Debian 13
    ("printenv", "LC_ALL"),
    "tr_TR.ISO-8859-9",
)
# The last one, a terminal's title, has no end of line.
NOISE = Setting(
    "motd, Banner, sshrc, profile and .bashrc print",
    f"""
    cp -a {RC} {RC}.kept && sed -i '1i printf "out from bashrc\\\\n= 0\\\\n\\\\033]0;title\\\\007"' {RC} &&
        sed -i '1i echo from bashrc >&2' {RC}
    echo from motd >/etc/motd
    echo 'echo from profile' >/etc/profile.d/noise.sh
    echo 'echo from sshrc; echo from sshrc >&2' >/etc/ssh/sshrc
    echo from Banner >/etc/ssh/banner
    echo Banner /etc/ssh/banner >/etc/ssh/sshd_config.d/noise.conf
    systemctl reload ssh
    """,
    f"""
    mv {RC}.kept {RC}
    : >/etc/motd
    rm /etc/profile.d/noise.sh /etc/ssh/sshrc /etc/ssh/banner /etc/ssh/sshd_config.d/noise.conf
    systemctl reload ssh
    """,
    ("true",),
    "out from bashrc",
)
NO_ROOT = Setting(
    "root login forbidden",
    "echo PermitRootLogin no >/etc/ssh/sshd_config.d/aaa.conf && systemctl reload ssh",
    "rm /etc/ssh/sshd_config.d/aaa.conf && systemctl reload ssh",
    ("true",),
    "Authentication failed",
)
# One for all nodes, or one for each of them.
SETTINGS = (
    (NOISE,),
    (SFTP_OFF,),
    (umask("077"), umask("000"), umask("027")),
    (NOEXEC,),
    # On the first nodes those that have to be installed: in a mixed cluster the last one has no apt.
    (login_shell("tcsh"), login_shell("fish"), login_shell("dash")),
    (login_shell("zsh"), LOCALE, NO_HOSTNAME),
)


@contextmanager
def set_up(green: Bastion, settings: Sequence[Setting]) -> Iterator[None]:
    """Set nodes up in one way, or each in its own, and see that exlb meets it."""
    with ExitStack() as ends:
        for node, setting in zip(green.nodes, cycle(settings), strict=False):
            ends.enter_context(green.broken(node, setting.do, setting.undo))
            assert setting.answer in green.exlb("exec", "--nodes", node, "--", *setting.ask, status=None).said
        yield


def require_modes(green: Bastion) -> None:
    """Both files are as they are on any node, and nothing that exlb keeps is open to anybody but root."""
    for node in green.nodes:
        for path in (PROXY_PATH, KEEPALIVED_PATH):
            assert green.inside(node, "stat", "-c", "%a %u:%g %F", path).strip() == MODES, (node, path)
        kept = ("find", "/var/lib/exlb", "/run/exlb", "-perm", "/077", "!", "-type", "l")
        assert green.inside(node, *kept) == ""


def push(green: Bastion, row: AddRow, event: str, env: Path) -> None:
    """Push a change of both files while it is watched, and keep what was seen."""
    with green.watched() as watch:
        ran = green.exlb("push-config", "-o", "json", env=env)
    assert set(ran.results.values()) == {"changed"}
    assert watch.seen.harmless, watch.seen
    require_modes(green)
    green.exlb("verify", env=env)
    row(event, WORKS, watch, "changed")


def event(settings: Sequence[Setting]) -> str:
    return f"{'; '.join(each.name for each in settings)}, on {'all nodes' if len(settings) == 1 else 'one node each'}"


@pytest.mark.parametrize(
    "settings", [pytest.param(each, id=each[-1].name, marks=slow if each[0] != NOISE else ()) for each in SETTINGS]
)
def test_unusual_nodes(green: Bastion, row: AddRow, settings: Sequence[Setting]) -> None:
    with set_up(green, settings):
        push(green, row, event(settings), green.environment(**CHANGE))


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        pytest.param("reads a line of stdin", "read -r line", "lb2: what exlb sends does not arrive whole"),
        pytest.param("reads all of stdin", "cat >/dev/null", "lb2: what exlb sends does not arrive whole"),
        pytest.param("ends the shell", "exit 0", "lb2: sh does not start: status 0"),
    ],
)
@slow
def test_startup_file_that_lets_nothing_through(green: Bastion, row: AddRow, name: str, line: str, said: str) -> None:
    before = green.states()
    setting = first_line(name, line, (), "")
    with green.broken("lb2", setting.do, setting.undo), green.watched() as watch:
        ran = green.exlb("push-config", env=green.environment(**CHANGE), status=1)
    assert said in ran.said
    assert "look at the startup files of the login shell there" in ran.said
    assert green.states() == before
    assert watch.seen.harmless, watch.seen
    row(f".bashrc of the login user {name}", REFUSED, watch, said)


@slow
def test_root_login_forbidden(green: Bastion, row: AddRow) -> None:
    before = green.states()
    with set_up(green, [NO_ROOT]):
        with green.watched() as watch:
            ran = green.exlb("push-config", env=green.environment(**CHANGE), status=4)
        assert "check SSH_USER" in ran.said
        assert "nothing was changed on any node" in ran.said
        assert green.states() == before
        assert watch.seen.harmless, watch.seen
        row("root login forbidden, SSH_USER=root", REFUSED, watch, "check SSH_USER, SSH_KEY and the agent")
        env = green.environment(SSH_USER="operator", **CHANGE)
        # OpenSSH 9.8 and newer let nobody in from where logins have failed, for a while.
        green.wait_until(lambda: green.exlb("exec", "--", "true", env=env, status=None).status == 0, PENALTY_SECONDS)
        push(green, row, "root login forbidden, a user with sudo", env)


@slow
def test_sudo_with_a_password(green: Bastion, row: AddRow) -> None:
    password = (green.lab.directory / "clerk-password").read_text().strip()
    env = green.environment(SSH_USER="clerk", **CHANGE)
    before = green.states()
    assert "--ask-sudo-pass asks for the password once" in green.exlb("push-config", env=env, status=1).said
    assert green.states() == before
    with green.watched() as watch:
        words = ["push-config", "--ask-sudo-pass"]
        status, output, times = asked(green, words, env, "sudo password on the nodes: ", password)
    assert (status, times) == (0, 1), output
    assert "is active" in output
    assert password not in output
    assert watch.seen.harmless, watch.seen
    require_modes(green)
    green.exlb("verify", env=green.environment(**CHANGE))
    row("sudo with password", WORKS, watch, "is active")


ASCII = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({"LC_ALL": "C", **ASCII}, id="LC_ALL=C"),
        pytest.param({"LC_ALL": "", "LANG": "xx", **ASCII}, id="LANG=xx"),
    ],
)
@slow
def test_locale_of_the_bastion_is_not_utf8(green: Bastion, row: AddRow, variables: dict[str, str]) -> None:
    env = green.environment(**CHANGE)
    templates = green.folder / "templates"
    templates.mkdir()
    text = Path("templates/haproxy.cfg.j2").read_text(encoding="utf-8")
    (templates / "haproxy.cfg.j2").write_text(f"{text}# Zürich\n", encoding="utf-8")
    with green.watched() as watch:
        ran = green.exlb("push-config", "--template-dir", str(templates), env=env, variables=variables)
    assert "is active" in ran.said
    assert "+# Z\\xfcrich" in ran.said
    assert watch.seen.harmless, watch.seen
    assert "# Zürich\n" in green.inside("lb1", "cat", PROXY_PATH)
    green.exlb("history", env=env, variables=variables)
    green.exlb("verify", "--template-dir", str(templates), env=env, variables=variables)
    said = "is active"
    row(f"locale of the bastion not UTF-8: {variables['LC_ALL'] or variables['LANG']}", WORKS, watch, said)


# $1 program: it has neither the host's name nor that of its user.
NAMELESS = """
import os, socket, sys
socket.sethostname("")
os.environ.pop("LOGNAME", None)
os.environ.pop("USER", None)
os.execvp(sys.argv[1], sys.argv[1:])
"""


@slow
def test_hostname_of_the_bastion_unset(green: Bastion, row: AddRow) -> None:
    env = {"EXLB_ENV": str(green.environment(**CHANGE))}
    words = ["unshare", "--uts", sys.executable, "-c", NAMELESS, "exlb", "push-config"]
    with green.watched() as watch:
        done = green.lab.run(words, env=env, capture=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert watch.seen.harmless, watch.seen
    assert "root from -" in green.exlb("history").said
    green.exlb("verify", env=green.environment(**CHANGE))
    row("hostname unset on the bastion", WORKS, watch, "root from -")
