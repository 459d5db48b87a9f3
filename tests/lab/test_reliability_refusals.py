"""What cannot be pushed, or not there: refused before it harms anybody, or taken back, and no byte is lost by it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exlb_fab.lab import Lab
from tests.lab.bastion import KEEPALIVED_PATH, LIMIT_SECONDS, PROXY_PATH, Bastion, listens
from tests.lab.conftest import AddRow
from tests.lab.watching import Watch
from tests.ran import Ran

TEMPLATES = Path(__file__).parents[2] / "templates"
PROXY = "haproxy.cfg.j2"
KEEPALIVED = "keepalived.conf.j2"
LISTENS = (
    "systemd-run --quiet --collect --unit=foreign socat TCP-LISTEN:9443,fork,reuseaddr OPEN:/dev/null && "
    f"{listens(9443)}"
)
FOLDERS = ("/etc/haproxy", "/etc/keepalived", "/var/lib/exlb")
TAKEOVER_SECONDS = 90
slow = pytest.mark.slow
BOTH_FILES = {"BALANCE": "leastconn", "CHECK_FALL": "3"}


def template(folder: Path, name: str, old: str, new: str) -> tuple[str, str]:
    """Return the words that push with one piece of a template replaced; all of it where `old` is empty."""
    text = (TEMPLATES / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new) if old else new)
    return "--template-dir", str(folder)


def ended(process: subprocess.Popen[bytes]) -> Ran:
    """Wait for exlb, and return how it ended."""
    output, errors = process.communicate(timeout=LIMIT_SECONDS)
    return Ran(process.returncode, output.decode(), errors.decode())


def bytes_of_all(green: Bastion) -> dict[str, list[str]]:
    return {node: green.bytes_of(node) for node in green.nodes if node in green.running}


def half_done(green: Bastion) -> dict[str, str]:
    """Return what no change may leave behind: files beside the active ones, a staged generation, an intent."""
    pattern = r".*/(staging|intent.*|\.found|.*\.exlb-(new|old))"
    words = ("find", *FOLDERS, "-regextype", "posix-extended", "-regex", pattern)
    return {node: found for node in green.running if (found := green.inside(node, *words, check=False))}


def processes(green: Bastion) -> dict[str, str]:
    """Return the processes of the proxy, which are others after any reload."""
    return {node: green.inside(node, "pgrep", "-x", "haproxy") for node in green.running}


@contextmanager
def kept(green: Bastion) -> Iterator[Watch]:
    """Require that what is done meanwhile leaves every node with the bytes that it had, and that no client notices."""
    before = bytes_of_all(green)
    with green.watched() as watch:
        yield watch
    assert bytes_of_all(green) == before
    assert half_done(green) == {}
    assert watch.seen.harmless, watch.seen


@contextmanager
def untouched(green: Bastion) -> Iterator[Watch]:
    """Require the same, and that not even a reload was tried."""
    before = processes(green)
    with kept(green) as watch:
        yield watch
    assert processes(green) == before


# Wrong in itself


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        pytest.param(PROXY, "option tcplog", "option tcplogg", "unknown option 'tcplogg'", id="haproxy typo"),
        pytest.param(
            PROXY,
            "",
            "global\n    description exlb-{{ digest }}\n",
            "will not start (no listener)",
            id="haproxy with nothing in it",
            marks=slow,
        ),
        pytest.param(
            PROXY,
            "option tcplog",
            "errorfile 503 /etc/haproxy/nowhere.http",
            "/etc/haproxy/nowhere.http",
            id="haproxy names a missing file",
            marks=slow,
        ),
        pytest.param(
            KEEPALIVED,
            "advert_int ",
            "advert_intt ",
            "Unknown keyword 'advert_intt'",
            id="keepalived typo",
            marks=slow,
        ),
        pytest.param(
            KEEPALIVED,
            "interface {{ interface }}",
            "interface nowhere0",
            "interface nowhere0",
            id="keepalived on a wrong interface",
            marks=slow,
        ),
        pytest.param(KEEPALIVED, "", "", "has no vrrp_instance", id="keepalived empty", marks=slow),
        pytest.param(
            KEEPALIVED,
            "{{ check.command }}",
            "/usr/local/bin/nowhere",
            "/usr/local/bin/nowhere",
            id="keepalived names a missing script",
            marks=slow,
        ),
    ],
)
def test_bad_template_is_refused_by_the_node(
    green: Bastion,
    row: AddRow,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    name: str,
    old: str,
    new: str,
    said: str,
) -> None:
    words = template(tmp_path, name, old, new)
    with untouched(green) as watch:
        ran = green.exlb("push-config", "--yes", *words, status=1)
    assert "failed validate" in ran.said
    assert said in ran.said
    event = f"bad template: {request.node.callspec.id}"
    row(event, "refused on the first node, not a byte changed", watch, f"failed validate: … {said}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "drop_in",
    [
        pytest.param('Environment="EXTRAOPTS=-S /run/haproxy-master.sock -f /etc/haproxy/conf.d"', id="by environment"),
        pytest.param(
            "ExecStart=\\nExecStart=/usr/sbin/haproxy -Ws -f $CONFIG -f /etc/haproxy/conf.d -p $PIDFILE",
            id="by command",
            marks=slow,
        ),
    ],
)
def test_error_in_another_file_that_the_unit_reads_is_seen_before_a_reload(
    green: Bastion, row: AddRow, drop_in: str
) -> None:
    folder = "/etc/systemd/system/haproxy.service.d"
    breaks = (
        f"mkdir -p {folder} /etc/haproxy/conf.d && printf '[Service]\\n{drop_in}\\n' >{folder}/more.conf && "
        "printf 'listen more\\n    bindd :9000\\n' >/etc/haproxy/conf.d/more.cfg && systemctl daemon-reload"
    )
    mends = f"rm -rf {folder} /etc/haproxy/conf.d && systemctl daemon-reload"
    env = green.environment(BALANCE="leastconn")
    with green.broken("lb2", breaks, mends):
        with untouched(green) as watch:
            ran = green.exlb("push-config", env=env, status=1)
        assert "unknown keyword 'bindd'" in ran.said
        assert "/etc/haproxy/conf.d/more.cfg:2" in ran.said
    row(
        "an error in another file that haproxy.service reads (-f conf.d)",
        "refused by validation with the unit's own arguments",
        watch,
        "/etc/haproxy/conf.d/more.cfg:2 … unknown keyword 'bindd'",
    )


@slow
@pytest.mark.parametrize("place", ["backup", "holder"])
def test_port_of_a_foreign_process_is_refused_before_any_change(green: Bastion, row: AddRow, place: str) -> None:
    (holder,) = green.holders()
    node = holder if place == "holder" else next(each for each in green.nodes if each != holder)
    env = green.environment(APISERVER_DEST_PORT="9443", KUBE_APISERVER="")
    with green.broken(node, LISTENS, "systemctl stop foreign"), untouched(green) as watch:
        ran = green.exlb("push-config", env=env, status=1)
    said = f"{node}: port 9443 is taken by socat"
    assert said in ran.said
    required = "refused before the reload, the process named"
    row(f"new port taken by a foreign process on the {place}", required, watch, said)


@slow
def test_port_that_is_taken_after_the_look_is_refused_before_the_reload(green: Bastion, row: AddRow) -> None:
    env = green.environment(APISERVER_DEST_PORT="9443", KUBE_APISERVER="")
    with untouched(green) as watch:
        with green.held("lb2", "systemd-run", "activate") as stands:
            process = green.start("push-config", "--yes", env=env)
            green.wait_until(stands)
            green.inside("lb2", "sh", "-c", LISTENS)
        try:
            ran = ended(process)
        finally:
            green.inside("lb2", "systemctl", "stop", "foreign")
    assert ran.status == 1
    assert re.search(r"failed ports port 9443 is taken by socat \(process \d+\)", ran.said)
    row(
        "new port taken by a foreign process after exlb has looked",
        "refused before the reload, the process named",
        watch,
        "failed ports: port 9443 is taken by socat",
    )


# Starts, and serves nobody; does not start


SENDS_NOWHERE = """frontend {{ listener.name }}-entrance
    bind 0.0.0.0:{{ listener.port }}
    default_backend nowhere

backend nowhere
    server nowhere 127.0.0.1:9

listen {{ listener.name }}
    bind 127.0.0.1:9444
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param("", "", "no server is up, and before there were", id="all apiservers on a dead port"),
        pytest.param(
            "listen {{ listener.name }}\n{{ binds(listener.port) }}",
            SENDS_NOWHERE,
            "is not answered",
            id="the port leads to a dead backend",
            marks=slow,
        ),
        pytest.param(
            "bind {{ address | endpoint(port) }}",
            "bind 127.0.0.1:9444",
            "is not answered",
            id="the port is gone",
            marks=slow,
        ),
    ],
)
def test_configuration_that_serves_nobody_is_taken_back(
    green: Bastion, row: AddRow, tmp_path: Path, request: pytest.FixtureRequest, old: str, new: str, said: str
) -> None:
    words = template(tmp_path, PROXY, old, new) if old else ()
    env = green.environment(APISERVER_SRC_PORT="6444") if not old else None
    with kept(green) as watch:
        ran = green.exlb("push-config", "--yes", *words, env=env, status=1)
    assert "lb2 failed gate-proxy" in ran.said
    assert said in ran.said
    assert ran.said.count("not started") >= 2
    green.exlb("verify")
    event = f"configuration that starts and serves nobody: {request.node.callspec.id}"
    row(event, "the gate fails, the bytes are restored, the roll-out stops", watch, f"failed gate-proxy … {said}")


@slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("chroot /var/lib/haproxy", "chroot /nowhere", id="chroot missing"),
        pytest.param("{{ admin_socket }}", "/nowhere/admin.sock", id="directory of the socket missing"),
    ],
)
@pytest.mark.parametrize("runs", [True, False], ids=["reloaded", "started"])
def test_proxy_that_cannot_start_on_its_new_file_is_as_before(
    green: Bastion, row: AddRow, tmp_path: Path, request: pytest.FixtureRequest, old: str, new: str, runs: bool
) -> None:
    (holder,) = green.holders()
    first, *_ = (each for each in green.nodes if each != holder)
    words = template(tmp_path, PROXY, old, new)
    do, undo = ("true", "true") if runs else ("systemctl stop haproxy", "systemctl start haproxy")
    with green.broken(first, do, undo):
        with kept(green) as watch:
            ran = green.exlb("push-config", *words, status=1)
        state = green.inside(first, "systemctl", "is-active", "haproxy", check=False).strip()
        assert (state == "active") == runs, state
    assert ran.said.count("not started") >= 2
    green.wait_until(lambda: green.exlb("verify", status=None).status == 0)
    (said,) = set(re.findall(rf"{first} (failed [\w-]+); back on the bytes that it had", ran.said))
    event = f"proxy that cannot start: {request.node.callspec.id}"
    row(event, "restored and as before, the roll-out stops", watch, said)


VIRTUAL_SERVER = """
# Needs IPVS in the kernel, which `keepalived -t` does not ask for.
virtual_server 198.51.100.200 80 {
    lb_algo rr
    lb_kind DR
    protocol TCP
    real_server 198.51.100.11 80 {
        weight 1
    }
}
"""


@pytest.mark.timing
@slow
def test_keepalived_that_dies_of_its_new_file_has_the_old_one_again(
    green: Bastion, row: AddRow, tmp_path: Path
) -> None:
    before = bytes_of_all(green)
    end = (TEMPLATES / KEEPALIVED).read_text()[-40:]
    words = template(tmp_path, KEEPALIVED, end, end + VIRTUAL_SERVER)
    with green.watched() as watch:
        ran = green.exlb("push-config", "--yes", *words, status=1)
        green.wait_until(lambda: green.exlb("verify", status=None).status == 0)
    assert bytes_of_all(green) == before
    assert half_done(green) == {}
    said = re.search(r"failed (reload|gate)-keepalived", ran.said)
    assert said, ran.said
    announced = re.search(r"clients lose \S+ for (\d+) s at most", ran.said)
    assert announced
    seen = watch.seen
    assert seen.most_holders == 1, seen
    # It loses the VIP twice: when it dies, and when the old file's keepalived has begun anew.
    assert seen.longest_gap_seconds <= 2 * int(announced[1]) + seen.delay_seconds + 1, seen
    row("keepalived that dies of a file that -t takes", "restored; never two holders", watch, said[0])


# A node that is not fit for it


def full(path: str, free_kib: int) -> tuple[str, str]:
    """Return what makes a directory a file system that is full but for some room, and what makes room again."""
    filler = f"{path}/filler"
    return f"cat /dev/zero >{filler} 2>/dev/null; truncate -s -{free_kib}K {filler}", f"rm -f {filler}"


def small(path: str) -> tuple[str, str]:
    """Return what makes a directory a small file system of its own, and what brings all that is on it back."""
    do = (
        f"rm -f /run/exlb/program /run/exlb/progress && cp -a {path} /run/copy && "
        f"mount -t tmpfs -o size=1m,mode=$(stat -c %a {path}) tmpfs {path} && "
        f"cp -a /run/copy/. {path}/; rm -r /run/copy"
    )
    undo = (
        f"cp -a {path} /run/copy && until umount {path}; do sleep 0.1; done; "
        f"find {path} -mindepth 1 -delete; cp -a /run/copy/. {path}/; rm -r /run/copy"
    )
    return do, undo


@pytest.mark.parametrize(
    ("path", "free_kib", "said"),
    [
        pytest.param(
            "/etc/haproxy",
            0,
            "/etc/haproxy/haproxy.cfg.exlb-new': No space left on device",
            id="/etc/haproxy but for 0 KiB",
            marks=slow,
        ),
        pytest.param(
            "/etc/keepalived",
            0,
            "/etc/keepalived/keepalived.conf.exlb-new': No space left on device",
            id="/etc/keepalived but for 0 KiB",
        ),
        pytest.param(
            "/var/lib/exlb",
            0,
            "the files did not arrive whole: is /var/lib/exlb full?",
            id="/var/lib/exlb but for 0 KiB",
            marks=slow,
        ),
        pytest.param(
            "/var/lib/exlb",
            24,
            "the new generation cannot be kept: is /var/lib/exlb full?",
            id="/var/lib/exlb but for 24 KiB",
            marks=slow,
        ),
        pytest.param(
            "/run/exlb",
            0,
            "/run/exlb/holder cannot be written: is /run/exlb full?",
            id="/run/exlb but for 0 KiB",
            marks=slow,
        ),
        pytest.param(
            "/run/exlb",
            40,
            "the program did not arrive whole: is /run/exlb full?",
            id="/run/exlb but for 40 KiB",
            marks=slow,
        ),
    ],
)
def test_full_disk_costs_no_byte_and_a_push_works_once_there_is_room(
    green: Bastion, row: AddRow, path: str, free_kib: int, said: str
) -> None:
    env = green.environment(**BOTH_FILES)
    with green.broken("lb2", *small(path)):
        with green.broken("lb2", *full(path, free_kib)), kept(green) as watch:
            ran = green.exlb("push-config", env=env, status=1)
        assert said in ran.said
        green.exlb("push-config", env=env)
        green.exlb("verify", env=env)
    room = f"but for {free_kib} KiB" if free_kib else "to the last byte"
    row(f"{path} full {room}", "refused or restored, nothing truncated, the path named", watch, said)


def fault(path: str, how: str) -> tuple[str, str]:
    """Return what makes a file, or its directory, such that exlb cannot write it, and what mends that."""
    return {
        "read-only": (f"mount --bind {path} {path} && mount -o remount,ro,bind {path}", f"umount {path}"),
        "symlink": (f"mv {path} {path}.real && ln -s {path}.real {path}", f"mv -f {path}.real {path}"),
        "bind mount": (
            f"cp -a {path} /root/other && mount --bind /root/other {path}",
            f"umount {path}; rm /root/other",
        ),
        "missing": (f"mv {path} {path}.away", f"rm -rf {path}; mv {path}.away {path}"),
        "directory": (f"mv {path} {path}.away && mkdir {path}", f"rmdir {path}; mv {path}.away {path}"),
    }[how]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "how", "said"),
    [
        pytest.param(PROXY_PATH, "symlink", "is a symbolic link to", id="haproxy.cfg symlink"),
        pytest.param(KEEPALIVED_PATH, "symlink", "is a symbolic link to", id="keepalived.conf symlink", marks=slow),
        pytest.param(PROXY_PATH, "bind mount", "is a mount of its own", id="haproxy.cfg bind mount", marks=slow),
        pytest.param(
            KEEPALIVED_PATH, "bind mount", "is a mount of its own", id="keepalived.conf bind mount", marks=slow
        ),
        pytest.param(PROXY_PATH, "directory", "is not a regular file", id="haproxy.cfg directory", marks=slow),
        pytest.param(
            "/etc/haproxy",
            "read-only",
            "cannot be written: is its file system mounted",
            id="/etc/haproxy read-only",
            marks=slow,
        ),
        pytest.param(
            "/etc/keepalived",
            "read-only",
            "cannot be written: is its file system mounted",
            id="/etc/keepalived read-only",
            marks=slow,
        ),
        pytest.param(
            "/var/lib/exlb",
            "read-only",
            "cannot be written: is its file system mounted",
            id="/var/lib/exlb read-only",
            marks=slow,
        ),
        pytest.param("/run/exlb", "read-only", "cannot be written", id="/run/exlb read-only", marks=slow),
        pytest.param("/etc/haproxy", "missing", "is not there", id="/etc/haproxy missing", marks=slow),
        pytest.param("/etc/keepalived", "missing", "is not there", id="/etc/keepalived missing", marks=slow),
    ],
)
def test_target_that_cannot_be_replaced_is_refused_and_a_push_works_once_it_can(
    green: Bastion, row: AddRow, path: str, how: str, said: str
) -> None:
    env = green.environment(**BOTH_FILES)
    before = bytes_of_all(green)
    with green.broken("lb2", *fault(path, how)), untouched(green) as watch:
        ran = green.exlb("push-config", env=env, status=1)
    assert f"{path} {said}".strip() in ran.said
    assert bytes_of_all(green) == before
    green.exlb("push-config", env=env)
    green.exlb("verify", env=env)
    row(f"{path}: {how}", "refused, the path and the reason named", watch, f"{path} {said}")


NO_TEST = """#!/bin/sh
case "$1" in
-t) echo "keepalived: invalid option -- t"; exit 1 ;;
-v | --version) echo "Keepalived v1.3.5 (03/19,2017), git commit v1.3.5-6-g6fa32f2" ;;
*) exec /usr/sbin/keepalived "$@" ;;
esac
"""


@pytest.mark.slow
def test_keepalived_that_cannot_validate_is_refused_unless_told_otherwise(green: Bastion, row: AddRow) -> None:
    env = green.environment(**BOTH_FILES)
    wrapper = "/usr/local/sbin/keepalived"
    breaks = f"printf '%s' '{NO_TEST}' >{wrapper} && chmod 0755 {wrapper}"
    said = "lb2: keepalived 1.3.5 cannot validate a configuration"
    with green.broken("lb2", breaks, f"rm -f {wrapper}"):
        with untouched(green) as watch:
            ran = green.exlb("push-config", env=env, status=1)
        assert said in ran.said
        assert "--unvalidated" in ran.said
        with green.watched() as forced:
            green.exlb("push-config", "--unvalidated", env=env)
    assert forced.seen.harmless, forced.seen
    assert "no changes" in green.exlb("push-config", env=env).said
    row("a keepalived that has no -t", "refused unless --unvalidated", watch, said)


# Somebody else at work


def test_of_two_pushes_at_once_one_changes_everything_and_the_other_nothing(green: Bastion, row: AddRow) -> None:
    with green.watched() as watch:
        with green.held("lb2", "mv", ".exlb-new") as stands:
            first = green.start("push-config", env=green.environment(BALANCE="leastconn"))
            green.wait_until(stands)
            ran = green.exlb("push-config", env=green.environment(BALANCE="roundrobin"), status=5)
        assert ended(first).status == 0
    said = "lb1 is locked by root from"
    assert said in ran.said
    assert "nothing was changed on any node" in ran.said
    assert all("balance leastconn" in green.inside(node, "cat", PROXY_PATH) for node in green.nodes)
    assert "free" in green.exlb("lock", "status").said
    assert watch.seen.harmless, watch.seen
    row("a second push while one is under way", "one wins everywhere, the other changes nothing anywhere", watch, said)


@slow
def test_of_two_pushes_in_the_same_moment_one_wins_everywhere(
    green: Bastion, row: AddRow, tmp_path: Path, deployed_lab: Lab
) -> None:
    other = Bastion(deployed_lab, tmp_path / "other")
    other.folder.mkdir()
    environments = {
        "leastconn": green.environment(BALANCE="leastconn"),
        "roundrobin": other.environment(BALANCE="roundrobin"),
    }
    with green.watched() as watch:
        started = {balance: green.start("push-config", env=env) for balance, env in environments.items()}
        ran = {balance: ended(process) for balance, process in started.items()}
    assert sorted(each.status for each in ran.values()) == [0, 5], ran
    (winner,) = (balance for balance, each in ran.items() if each.status == 0)
    (loser,) = (each for each in ran.values() if each.status == 5)
    assert all(f"balance {winner}" in green.inside(node, "cat", PROXY_PATH) for node in green.nodes)
    assert len(set(green.states().values())) == 1
    assert half_done(green) == {}
    said = "nothing was changed on any node"
    assert said in loser.said
    assert watch.seen.harmless, watch.seen
    row("two pushes in the same moment", "one wins everywhere, the other changes nothing anywhere", watch, said)


@pytest.mark.slow
def test_hand_edit_between_the_look_and_the_change_is_not_lost(green: Bastion, row: AddRow) -> None:
    env = green.environment(BALANCE="leastconn")
    edits = f"echo '# by hand' >>{PROXY_PATH}"
    with green.watched() as watch:
        with green.held("lb2", "systemd-run", "activate") as stands:
            process = green.start("push-config", env=env)
            green.wait_until(stands)
            green.inside("lb2", "sh", "-c", edits)
            edited = green.bytes_of("lb2")
        ran = ended(process)
    assert ran.status == 1
    said = "the active files have changed since exlb looked"
    assert said in ran.said
    assert green.bytes_of("lb2") == edited
    # The next push knows of it, and keeps it before it writes over it.
    green.exlb("push-config", env=env)
    assert green.bytes_of("lb2") != edited
    green.exlb("rollback", "--nodes", "lb2")
    assert green.bytes_of("lb2") == edited
    assert watch.seen.harmless, watch.seen
    row("a hand edit after exlb has looked", "no byte of it is lost", watch, said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status"),
    [
        pytest.param((), 4, id="refused"),
        pytest.param(("--skip-unreachable",), 4, id="left out where it cannot be reached", marks=slow),
        pytest.param(("--nodes", "lb[12]"), 0, id="left out by name", marks=slow),
    ],
)
def test_node_that_cannot_be_reached_is_refused_unless_left_out(
    green: Bastion, row: AddRow, request: pytest.FixtureRequest, words: tuple[str, ...], status: int
) -> None:
    green.lab.poweroff("lb3")
    try:
        # What the dead apiserver costs clients until the proxies see it is not what is asked here.
        green.wait_until(
            lambda: green.exlb("verify", status=None).said.count("2 of 3 up") == 2 and green.served(), TAKEOVER_SECONDS
        )
        env = green.environment(BALANCE="leastconn")
        if words:
            with green.watched() as watch:
                ran = green.exlb("push-config", *words, "-o", "json", env=env, status=status)
            assert {node: ran.results[node] for node in ("lb1", "lb2")} == {"lb1": "changed", "lb2": "changed"}
            assert watch.seen.harmless, watch.seen
            said = "lb1, lb2: changed"
        else:
            with untouched(green) as watch:
                ran = green.exlb("push-config", env=env, status=status)
            said = "nothing was changed on any node"
            assert said in ran.said
            assert "lb3: cannot connect" in ran.said
            assert "--skip-unreachable or --nodes leaves them out" in ran.said
        event = f"a node without power from the start: {request.node.callspec.id}"
        row(event, "refused before the first change, unless it is left out", watch, said)
    finally:
        green.lab.boot("lb3")
