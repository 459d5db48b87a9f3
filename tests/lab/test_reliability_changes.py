"""What a change that is right costs clients: nothing, or what the plan has announced."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from exlb_fab.lab import Lab
from tests.lab.bastion import Bastion
from tests.lab.conftest import AddRow
from tests.lab.watching import Watch
from tests.ran import Ran

TEMPLATES = Path("templates")
PROXY, KEEPALIVED = "haproxy.cfg.j2", "keepalived.conf.j2"
REQUEST_SECONDS = 1  # for how long a request that is under way waits, beyond what clients lose
MOVE_SECONDS = 1  # "each move costs clients about a second"
STEADY_SECONDS = 90  # a limit: how long elections and checks may take after a test has changed something itself
HARMLESS = "0 failed, 0 moves, the open connection lives"

slow = pytest.mark.slow


def templates(folder: Path, name: str, *replacements: tuple[str, str]) -> str:
    """Write one of exlb's templates with some words replaced, and return the directory for --template-dir."""
    text = (TEMPLATES / name).read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return str(folder)


def cost_is_as_announced(ran: Ran, watch: Watch) -> None:
    """Assert that clients have lost the VIP for no longer than exlb has said, and that two nodes never held it."""
    announced = re.search(r"clients lose \S+ for (\d+) s at most", ran.said)
    assert announced, ran.said
    seen = watch.seen
    assert seen.most_holders == 1, seen
    assert seen.longest_gap_seconds <= int(announced[1]) + seen.delay_seconds + REQUEST_SECONDS, seen


def all_bytes(green: Bastion) -> dict[str, list[str]]:
    return {node: green.bytes_of(node) for node in green.nodes}


def goes_on(green: Bastion, env: Path, *words: str) -> None:
    """Assert that every check passes and that the next push has nothing to do."""
    green.wait_until(lambda: green.exlb("verify", *words, env=env, status=None).status == 0, STEADY_SECONDS)
    assert "no changes" in green.exlb("push-config", *words, env=env).said


# Changes of the proxy


def test_valid_change_of_the_proxy(green: Bastion, row: AddRow) -> None:
    with green.watched() as watch:
        ran = green.exlb("push-config", "-o", "json", env=green.environment(BALANCE="leastconn"))
    assert set(ran.results.values()) == {"changed"}
    assert watch.seen.requests > 5
    assert watch.seen.harmless, watch.seen
    row("valid haproxy change on a live cluster", HARMLESS, watch, "changed")


def seen_down(green: Bastion) -> bool:
    """Tell whether every proxy knows that one apiserver is down, and all clients are served by the others."""
    return green.exlb("verify", status=None).said.count("2 of 3 up") == len(green.nodes)


@slow
@pytest.mark.parametrize("mode", ["off", "unhealthy"])
def test_apiserver_that_was_down_already(green: Bastion, deployed_lab: Lab, row: AddRow, mode: str) -> None:
    deployed_lab.apiserver("lb2", mode)
    green.wait_until(lambda: seen_down(green))
    env = green.environment(BALANCE="leastconn")
    with green.watched() as watch:
        ran = green.exlb("push-config", "-o", "json", env=env)
    assert set(ran.results.values()) == {"changed"}
    assert watch.seen.harmless, watch.seen
    assert seen_down(green)
    green.exlb("verify", env=env)
    row(f"the same, while one apiserver is {mode} already", HARMLESS, watch, "changed")


@slow
def test_apiserver_that_dies_during_the_gate(green: Bastion, deployed_lab: Lab, row: AddRow) -> None:
    env = green.environment(BALANCE="leastconn")
    with green.watched() as watch:
        victim = next(node for node in green.nodes if node != watch.server)
        # What is known of the servers is written down by then: the new process begins with all of them up.
        with green.held("lb2", "systemctl", "reload haproxy") as stands:
            process = green.start("push-config", env=env)
            green.wait_until(stands)
            deployed_lab.apiserver(victim, "off")
            # What the death itself costs is not what is asked here: the holder's proxy has to know of it first.
            green.wait_until(lambda: seen_down_on(green, "lb1") and seen_down_on(green, "lb3"))
        _, errors = process.communicate(timeout=120)
    said = " ".join(errors.decode().split())
    assert process.returncode == 0, said
    told = f"is down: {green.address(victim)}:6443 does not answer this node well (status 000)"
    assert told in said
    assert watch.seen.harmless, watch.seen
    green.exlb("verify", env=env)
    row("the same, one apiserver dies during the gate", HARMLESS, watch, f"... {told}")


def seen_down_on(green: Bastion, node: str) -> bool:
    script = "echo show stat | socat - UNIX-CONNECT:/run/haproxy-admin.sock"
    return ",DOWN," in green.inside(node, "sh", "-c", script)


@slow
def test_backend_removed_on_purpose(green: Bastion, row: AddRow) -> None:
    with green.watched() as watch:
        removed = next(node for node in green.nodes if node != watch.server)
        stay = [green.address(node) for node in green.nodes if node != removed]
        env = green.environment(APISERVER_IPS=f"({' '.join(stay)})")
        ran = green.exlb("push-config", env=env)
    assert ran.said.count("reload haproxy (its file changes)") >= len(green.nodes)
    assert watch.seen.harmless, watch.seen
    assert green.exlb("verify", env=env).said.count("UP L7OK") == len(stay) * len(green.nodes)
    goes_on(green, env)
    row("one backend removed on purpose", HARMLESS, watch, "reload haproxy (its file changes)")


@slow
def test_second_push_of_the_same(green: Bastion, row: AddRow) -> None:
    with green.watched() as watch:
        before = {node: green.sessions(node) for node in green.nodes}
        ran = green.exlb("push-config")
        after = {node: green.sessions(node) for node in green.nodes}
    assert ran.said.endswith("no changes")
    assert {node: after[node] - count for node, count in before.items()} == dict.fromkeys(green.nodes, 1)
    assert watch.seen.harmless, watch.seen
    row("second push of the same", "one exec per node, no changes", watch, "no changes")


@slow
def test_last_node_fails_and_all_go_back(green: Bastion, tmp_path: Path, row: AddRow) -> None:
    before = all_bytes(green)
    (holder,) = green.holders()
    port = "10081"
    squatter = f"systemd-run --quiet --collect --unit=squatter socat TCP-LISTEN:{port},fork SYSTEM:true"
    first = next(node for node in green.nodes if node != holder)
    with green.watched() as watch, ExitStack() as mended:
        with green.held(first, "mv", ".exlb-new") as stands:
            process = green.start("push-config", "--on-failure", "rollback-all", env=green.environment(STATS_PORT=port))
            green.wait_until(stands)
            # After everybody has looked whether the port is free.
            mended.enter_context(green.broken(holder, squatter, "systemctl stop squatter"))
        output, errors = process.communicate(timeout=120)
    said = " ".join((output + errors).decode().split())
    told = f"{holder} failed ports port {port} is taken by socat"
    assert process.returncode == 1, said
    assert told in said
    assert said.count("because another node failed") == len(green.nodes) - 1
    assert all_bytes(green) == before
    assert watch.seen.harmless, watch.seen
    goes_on(green, green.environment())
    row("the last node fails, --on-failure rollback-all", "all nodes on their old bytes", watch, told)


# Changes of keepalived


@dataclass(frozen=True)
class Change:
    """A change of keepalived: by variables, or by words of its template; `first` is pushed before it."""

    event: str
    reason: str
    variables: Mapping[str, str] = field(default_factory=dict)
    words: tuple[tuple[str, str], ...] = ()
    first: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.event.replace(" ", "-")


ADVERT = '    advert_int {{ "%g" | format(vrrp.advert_seconds) }}\n'
GLOBAL = "    script_user root\n"
VIP = "        {{ vip.interface }}\n"
PEER = "        {{ peer.source }}\n"
STATE = "    state {{ role }}\n"
COMPATIBLE = (
    Change("check fall and interval", "reload", {"CHECK_FALL": "3", "CHECK_INTERVAL": "2"}),
    Change("router_id", "reload", words=(("router_id lb-", "router_id balancer-"),)),
    Change("priorities", "reload", words=(("priority {{ node.priority }}", "priority {{ node.priority + 5 }}"),)),
)
INCOMPATIBLE = (
    Change("VRID", "virtual_router_id 68 -> 69", {"ROUTER_ID": "69"}),
    Change(
        "password",
        "auth_pass changes",
        words=((ADVERT, f"{ADVERT}    authentication {{\n        auth_type PASS\n        auth_pass second\n    }}\n"),),
        first=((ADVERT, f"{ADVERT}    authentication {{\n        auth_type PASS\n        auth_pass first\n    }}\n"),),
    ),
    Change("VRRP version", "version 3", words=((ADVERT, f"{ADVERT}    version 3\n"),)),
    Change("advert interval", "advert_int 1 -> 2", {"ADVERT_INT": "2"}),
    Change("list of VIPs", "virtual_ipaddress +", words=((VIP, f"{VIP}        198.51.100.200/24\n"),)),
    Change("unicast to multicast", "unicast -> multicast", words=(("{% if peers %}", "{% if false %}"),)),
    Change(
        "one peer with another option",
        "min_ttl 1",
        words=((PEER, '        {{ peer.source }}{{ " min_ttl 1" if loop.first }}\n'),),
    ),
)


def pushing(green: Bastion, folder: Path, change: Change) -> tuple[Path, tuple[str, ...]]:
    """Push what a change begins with, and return the environment file and the words for the change itself."""
    if change.first:
        green.exlb("push-config", "--yes", "--template-dir", templates(folder / "first", KEEPALIVED, *change.first))
    words = ("--template-dir", templates(folder / "then", KEEPALIVED, *change.words))
    return green.environment(**change.variables), words


@pytest.mark.parametrize(
    "change", [COMPATIBLE[0], *(pytest.param(each, marks=slow) for each in COMPATIBLE[1:])], ids=str
)
def test_compatible_change_of_keepalived(green: Bastion, tmp_path: Path, row: AddRow, change: Change) -> None:
    env, words = pushing(green, tmp_path, change)
    told = "reload keepalived (its file changes)"
    with green.watched() as watch:
        ran = green.exlb("push-config", *words, env=env)
    assert told in ran.said
    assert watch.seen.harmless, watch.seen
    goes_on(green, env, *words)
    row(f"compatible keepalived change: {change.event}", HARMLESS, watch, told)


@pytest.mark.timing
@pytest.mark.parametrize(
    "change", [INCOMPATIBLE[0], *(pytest.param(each, marks=slow) for each in INCOMPATIBLE[1:])], ids=str
)
def test_incompatible_change_of_keepalived(green: Bastion, tmp_path: Path, row: AddRow, change: Change) -> None:
    env, words = pushing(green, tmp_path, change)
    with green.watched() as watch:
        ran = green.exlb("push-config", "--yes", *words, env=env)
    assert change.reason in ran.said
    assert "keepalived stops on lb2, lb3 until lb1 has changed" in ran.said
    cost_is_as_announced(ran, watch)
    assert watch.seen.moves <= 1, watch.seen
    goes_on(green, env, *words)
    row(
        f"incompatible keepalived change: {change.event}",
        "never two holders, lost no longer than announced",
        watch,
        f"old and new keepalived do not hear each other ({change.reason})".replace("+)", "...)"),
    )


def test_incompatible_change_without_a_yes(green: Bastion, row: AddRow) -> None:
    before = all_bytes(green)
    with green.watched() as watch:
        ran = green.exlb("push-config", env=green.environment(ROUTER_ID="69"), status=2)
    told = "there is no terminal to ask whether to go on"
    assert told in ran.said
    assert all_bytes(green) == before
    assert watch.seen.harmless, watch.seen
    green.exlb("verify")
    row("incompatible keepalived change, and nobody to say yes", "nothing changes", watch, told)


@slow
def test_incompatible_change_that_is_interrupted(green: Bastion, row: AddRow) -> None:
    env = green.environment(ROUTER_ID="69")
    with green.watched() as watch:
        # The holder has reloaded, the others stand still and have their old files.
        with green.held("lb1", "systemctl", "is-active -q keepalived", "exlb-apply") as stands:
            process = green.start("push-config", "--yes", env=env)
            green.wait_until(stands)
            process.kill()
            process.communicate(timeout=30)
        stopped = "systemctl is-active keepalived || true"
        assert [green.inside(node, "sh", "-c", stopped) for node in ("lb2", "lb3")] == ["inactive\n"] * 2
        ran = green.exlb("push-config", "--lock-wait", "60", "--yes", env=env)
    assert ran.said.count("start keepalived (it is inactive)") >= 2
    assert watch.seen.most_holders == 1, watch.seen
    assert watch.seen.moves <= 1, watch.seen
    goes_on(green, env)
    row(
        "kill -9 of exlb after the holder's change of VRID, and the next push",
        "never two holders, the next push ends it",
        watch,
        "start keepalived (it is inactive)",
    )


def test_peer_left_out_of_a_list(green: Bastion, tmp_path: Path, row: AddRow) -> None:
    before = all_bytes(green)
    folder = templates(tmp_path / "templates", KEEPALIVED, ("in peers %}", "in peers[1:] %}"))
    with green.watched() as watch:
        ran = green.exlb("push-config", "--yes", "--template-dir", folder, status=1)
    told = f"lb1 would not send to lb2, and both would hold {green.lab.vip}"
    assert told in ran.said
    assert all_bytes(green) == before
    assert watch.seen.harmless, watch.seen
    green.exlb("verify")
    row("keepalived template in which a node is not everybody's peer", "refused before any change", watch, told)


SNMP = "snmp_socket udp:127.0.0.1:705"  # of an agent that is not asked for
NOPREEMPT = (STATE, "    state BACKUP\n    nopreempt\n")


@slow
@pytest.mark.timing
@pytest.mark.parametrize(("first", "moves"), [((), 2), ((NOPREEMPT,), 1)], ids=["preempting", "nopreempt"])
def test_change_that_needs_a_restart(
    green: Bastion, tmp_path: Path, row: AddRow, first: tuple[tuple[str, str], ...], moves: int
) -> None:
    restart = (GLOBAL, f"{GLOBAL}    {SNMP}\n")  # of all restarts, one that every version knows
    change = Change("restart", SNMP, words=(*first, restart), first=first)
    env, words = pushing(green, tmp_path, change)
    told = f"which holds {green.lab.vip}, moves it away" + (", and back again" if moves == 2 else ";")
    with green.watched() as watch:
        ran = green.exlb("push-config", *words, env=env)
    assert f"a reload cannot bring it about: {SNMP.replace(' ', ' +')}" in ran.said
    assert told in ran.said
    assert watch.seen.moves == moves, watch.seen
    assert watch.seen.longest_gap_seconds <= MOVE_SECONDS + watch.seen.delay_seconds + REQUEST_SECONDS, watch.seen
    goes_on(green, env, *words)
    row(
        f"change that keepalived takes at a restart only, {'preempting' if moves == 2 else 'nopreempt'}",
        f"{moves} moves, as announced",
        watch,
        told,
    )


# Back again


@pytest.mark.slow
@pytest.mark.timing
def test_rollback_of_an_incompatible_change(green: Bastion, row: AddRow) -> None:
    before = all_bytes(green)
    green.exlb("push-config", "--yes", env=green.environment(ROUTER_ID="69"))
    assert all_bytes(green) != before
    with green.watched() as watch:
        ran = green.exlb("rollback", "--yes")
    told = "old and new keepalived do not hear each other (virtual_router_id 69 -> 68)"
    assert told in ran.said
    assert all_bytes(green) == before
    cost_is_as_announced(ran, watch)
    assert watch.seen.moves <= 1, watch.seen
    goes_on(green, green.environment())
    assert "no changes" in green.exlb("rollback").said
    row("exlb rollback of a change of VRID", "never two holders, lost no longer than announced", watch, told)


# Debian's keepalived comes without a configuration, that of the yum family with a sample.
AS_PACKAGED = """
    if command -v rpm >/dev/null && rpm -q --quiet haproxy; then
        rpm --verify --nomtime haproxy keepalived
    else
        dpkg --verify haproxy && ! ls /etc/keepalived/keepalived.conf 2>/dev/null
    fi
"""


@slow
def test_rollback_to_what_was_there_before(green: Bastion, row: AddRow) -> None:
    with green.watched() as watch:
        ran = green.exlb("rollback", "--to", "0", "--yes")
    told = f"keepalived stops on all nodes: nobody will hold {green.lab.vip}"
    assert told in ran.said
    for node in green.nodes:
        assert green.inside(node, "sh", "-c", AS_PACKAGED) == ""
    assert green.holders() == []
    assert (watch.seen.moves, watch.seen.most_holders) == (0, 1), watch.seen
    row("exlb rollback --to 0", "the original files, and nobody holds the VIP", watch, told)


# New packages

REPOSITORY = "/srv/newer"
SOURCES = "/etc/apt/sources.list.d/newer.list"
PACKAGES = ("haproxy", "keepalived")
NEWER = "+newer"


def newer_packages(green: Bastion, node: str, folder: Path) -> bytes:
    """Return an archive of a repository: haproxy and keepalived as a node has them, under a higher version."""
    folder.mkdir(parents=True)
    for name in PACKAGES:
        (path,) = green.inside(node, "sh", "-c", f"ls /srv/repo/{name}_*.deb").split()
        package, tree = folder / f"{name}.deb", folder / name
        package.write_bytes(green.lab.shell_in(node, ["cat", path], timeout=60).stdout)
        subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
        control = tree / "DEBIAN" / "control"
        control.write_text(re.sub(r"^(Version: .*)$", rf"\1{NEWER}", control.read_text(), flags=re.MULTILINE))
        subprocess.run(["dpkg-deb", "-b", "-Znone", tree, package], check=True, capture_output=True)
        shutil.rmtree(tree)
    index = subprocess.run(["dpkg-scanpackages", "."], cwd=folder, check=True, capture_output=True).stdout
    (folder / "Packages").write_bytes(index)
    return subprocess.run(["tar", "-C", folder, "-c", "."], check=True, capture_output=True).stdout


def is_newer(green: Bastion, node: str) -> bool:
    """Tell whether a node has both packages in the newer version."""
    words = ["dpkg-query", "-W", "-f", "${Version}\\n", *PACKAGES]
    return green.inside(node, *words).count(f"{NEWER}\n") == len(PACKAGES)


@pytest.mark.slow
@pytest.mark.timing
def test_upgrade_of_the_packages(green: Bastion, deployed_lab: Lab, tmp_path: Path, row: AddRow) -> None:
    """On nodes of the apt family; one of the other has nothing newer, and stays as it is."""
    apt = [node.name for node in deployed_lab.nodes if node.release != "el9-like"]
    for node in apt:
        archive = newer_packages(green, node, tmp_path / node)
        green.inside(node, "sh", "-c", f"mkdir {REPOSITORY}; echo 'deb [trusted=yes] file:{REPOSITORY} ./' >{SOURCES}")
        deployed_lab.shell_in(node, ["tar", "-C", REPOSITORY, "-x"], input=archive, timeout=60)
    before = all_bytes(green)
    try:
        with green.watched() as watch:
            ran = green.exlb("install", "--upgrade", "-o", "json")
        again = green.exlb("install", "--upgrade", "-o", "json")
    finally:
        for node in apt:
            green.inside(node, "rm", "-r", REPOSITORY, SOURCES)
    told = f"the packages' own scripts restart services on lb1, which holds {green.lab.vip}"
    assert told in ran.said
    assert ran.results == {node: "changed" if node in apt else "unchanged" for node in green.nodes}
    assert all(is_newer(green, node) for node in apt)
    assert all_bytes(green) == before
    assert set(again.results.values()) == {"unchanged"}
    assert again.said.count("newest already") == len(green.nodes)
    steps = [line.split()[0] for line in ran.stderr.splitlines() if line.endswith(" done")]
    assert [node for node in steps if node in apt] == [node for node in ("lb2", "lb3", "lb1") if node in apt]
    assert watch.seen.moves == 2, watch.seen
    assert watch.seen.longest_gap_seconds <= MOVE_SECONDS + watch.seen.delay_seconds + REQUEST_SECONDS, watch.seen
    green.exlb("verify")
    row("exlb install --upgrade", "one node at a time, the holder last; its restarts are announced", watch, told)
