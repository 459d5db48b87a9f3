"""A day with a running cluster: status, top, logs, backend, ssh and a verify that goes on, on real nodes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pexpect
import pytest

from exlb_fab.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from exlb_fab.lab import Lab
from tests.lab.bastion import Bastion

LIMIT_SECONDS = 90
SHOWN_SECONDS = 25  # less than a connection takes to notice that nobody is there
LOST_SECONDS = 240  # a node that falls silent is lost after a minute or more
SLACK_SECONDS = 2  # the clock of a node is asked for whole seconds
OTHER_SCREEN, USUAL_SCREEN = "\x1b[?1049h", "\x1b[?1049l"


@contextmanager
def terminal(green: Bastion, *words: str, env: Path | None = None, kind: str = "dumb") -> Iterator[pexpect.spawn[str]]:
    """Run exlb on a terminal with room for its tables; it is ended when this is left."""
    argv = green.lab.argv(["exlb", *words])
    environ = {**green.lab.command_environment(), "EXLB_ENV": str(env or green.env), "TERM": kind}
    environ.pop("COLUMNS", None)
    child = pexpect.spawn(argv[0], argv[1:], env=environ, encoding="utf-8", timeout=LIMIT_SECONDS, dimensions=(60, 180))
    try:
        yield child
    finally:
        child.close(force=True)


def ended(child: pexpect.spawn[str]) -> int | None:
    """Return the exit status of what ends by itself."""
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus


def status(green: Bastion) -> Any:
    return green.exlb("status", "-o", "json").json


def standing(said: Any) -> dict[str, tuple[Any, ...]]:
    """Return role, VRRP state, effective priority, failing checks and proxy of each node, as status has them."""
    wanted = ("role", "state", "effective_priority", "failing", "proxy")
    return {row["node"]: tuple(row[field] for field in wanted) for row in said["standing"]}


def checked(green: Bastion, said: Any) -> dict[str, dict[str, str]]:
    """Return how the proxy of each node sees the apiserver of each: status and last check."""
    rows = {row["server"]: row["seen"] for row in said["servers"]}
    assert set(rows) == {green.address(name) for name in green.nodes}
    return {
        name: {node: f"{seen['status']} {seen['check']}" for node, seen in rows[green.address(name)].items()}
        for name in green.nodes
    }


def all_up(*proxies: str) -> dict[str, dict[str, str]]:
    return {name: dict.fromkeys(proxies, "UP L7OK") for name in ("lb1", "lb2", "lb3")}


def transitions(green: Bastion, *words: str) -> list[tuple[float, str, str]]:
    """Return time, node and state of what lb1 and lb2 became; lb3 may have been master for a moment beside them."""
    said = green.exlb("logs", "keepalived", "--transitions", *words, "-o", "json").json
    found = [(line["time"], line["node"], re.search("Entering ([A-Z]+) STATE", line["text"])) for line in said["lines"]]
    assert all(state for _, _, state in found)
    return [(when, node, state[1]) for when, node, state in found if state and node != "lb3"]


def seen(green: Bastion, server: str, *fields: str) -> dict[str, tuple[Any, ...]]:
    """Return what every node's proxy has of a server, by `exlb backend list`."""
    rows = green.exlb("backend", "list", "-o", "json").json["servers"]
    (found,) = [row["seen"] for row in rows if row["server"] == server]
    return {node: tuple(each[field] for field in fields) for node, each in found.items()}


def answering(green: Bastion) -> str:
    """Return the node whose apiserver answers a new connection to the VIP."""
    url = f"https://{green.lab.vip}:{green.port}/hostname"
    return green.lab.run(["curl", "-ksf", "--max-time", "5", url], capture=True).stdout.decode()


def asked_again(green: Bastion, node: str, times: int = 2) -> None:
    """Wait until the exlb that waits has looked at a node as many times more; nothing else is run there meanwhile."""
    before = green.sessions(node)
    green.wait_until(lambda: green.sessions(node) >= before + times)


def test_status_and_logs_tell_of_a_failover_and_back(green: Bastion) -> None:
    green.wait_until(lambda: checked(green, status(green)) == all_up("lb1", "lb2", "lb3"))
    began = time.time()
    with green.broken("lb1", "systemctl stop haproxy", "systemctl start haproxy"):
        green.wait_until(lambda: green.holders() == ["lb2"])
        taken = time.time()
        said = status(green)
        answered = time.time()
    assert standing(said) == {
        "lb1": ("MASTER", "BACKUP", 60, ["check-haproxy"], "inactive"),
        "lb2": ("BACKUP", "MASTER", 110, [], "active"),
        "lb3": ("BACKUP", "BACKUP", 105, [], "active"),
    }
    assert checked(green, said) == all_up("lb2", "lb3")
    green.wait_until(lambda: green.holders() == ["lb1"])
    green.wait_until(lambda: checked(green, status(green)) == all_up("lb1", "lb2", "lb3"))

    changes = transitions(green, "--since", f"@{began:.6f}")
    there, back = changes[:2], changes[2:]
    # Which of the two is written down first is a matter of milliseconds.
    assert {(node, state) for _, node, state in there} == {("lb1", "BACKUP"), ("lb2", "MASTER")}
    assert {(node, state) for _, node, state in back} == {("lb1", "MASTER"), ("lb2", "BACKUP")}
    assert [when for when, _, _ in changes] == sorted(when for when, _, _ in changes)
    assert transitions(green, "--since", f"@{answered:.6f}") == back
    everything = transitions(green)
    assert everything[-4:] == changes
    assert everything[0][0] < began, "what was before is left out where that is asked for"

    (vip,) = said["vips"]
    assert vip["holders"] == ["lb2"]
    since = next(when for when, node, _ in there if node == "lb2")
    assert taken - SLACK_SECONDS <= since + vip["seconds"]["lb2"] <= answered + SLACK_SECONDS


def test_drain_waits_for_a_client_that_a_process_from_before_a_reload_has(green: Bastion) -> None:
    with ExitStack() as clients:
        watch = clients.enter_context(green.watched())
        server = green.address(watch.server)
        green.inside("lb1", "systemctl", "reload", "haproxy")
        green.wait_until(lambda: seen(green, server, "leaving") == {"lb1": (1,), "lb2": (0,), "lb3": (0,)})
        with terminal(green, "backend", "drain", server, "--wait") as child:
            child.expect("lb1 +waits for 1 session, 1 of them of processes from before a reload to end")
            assert set(seen(green, server, "admission", "status").values()) == {("drain", "DRAIN")}
            assert answering(green) != watch.server
            assert status(green)["held_back"] == [f"{server} of kube-master is drained"]
            asked_again(green, "lb1")
            assert child.isalive()
            clients.close()
            assert ended(child) == EXIT_OK
    assert watch.seen.harmless
    green.exlb("backend", "ready", server)
    assert set(seen(green, server, "admission", "sessions", "leaving").values()) == {("ready", 0, 0)}
    green.wait_until(lambda: answering(green) == watch.server)


def test_ssh_gives_the_words_as_they_were_typed_and_the_status_of_the_command(green: Bastion) -> None:
    words = ("sh", "-c", 'hostname; printf "%s\\n" "$@"; exit 7', "sh", "a  b", "$HOME")
    assert green.exlb("ssh", "lb2", "--", *words, status=7).stdout == "lb2\na  b\n$HOME\n"


@pytest.mark.slow
def test_wait_ends_at_its_limit_and_where_a_reload_undoes_what_was_done(green: Bastion) -> None:
    with green.watched() as watch:
        server = green.address(watch.server)
        words = ("backend", "disable", server, "--wait", "--wait-limit", "3", "-o", "json")
        ran = green.exlb(*words, status=EXIT_FAILED)
        assert ran.results == {"lb1": "failed", "lb2": "changed", "lb3": "changed"}
        assert "1 session left after 3 s; it stays disabled" in ran.said
        assert set(seen(green, server, "admission", "status").values()) == {("disable", "MAINT")}
        assert answering(green) != watch.server
        with terminal(green, "backend", "drain", server, "--wait", "-o", "json") as child:
            child.expect("lb1 +waits for 1 session to end")
            green.inside("lb1", "systemctl", "reload", "haproxy")
            child.expect(f"{server} is ready now: by a reload of the proxy, or by somebody")
            assert ended(child) == EXIT_FAILED
        assert status(green)["held_back"] == [f"{server} of kube-master is drained on lb2, lb3 alone"]
        ran = green.exlb("backend", "ready", server, "-o", "json")
        assert ran.results == {"lb1": "unchanged", "lb2": "changed", "lb3": "changed"}
    assert watch.seen.harmless


@pytest.mark.slow
def test_wait_goes_on_over_a_push_that_keeps_what_is_drained(green: Bastion) -> None:
    env = green.environment(SERVER_STATE="yes")
    green.exlb("push-config", env=env)
    with ExitStack() as clients:
        watch = clients.enter_context(green.watched())
        server = green.address(watch.server)
        with terminal(green, "backend", "drain", server, "--wait", env=env) as child:
            child.expect("lb1 +waits for 1 session to end")
            green.exlb("push-config", env=green.environment(SERVER_STATE="yes", BALANCE="leastconn"))
            child.expect("lb1 +waits for 1 session, 1 of them of processes from before a reload to end")
            assert set(seen(green, server, "admission").values()) == {("drain",)}
            asked_again(green, "lb1")
            assert child.isalive()
            clients.close()
            assert ended(child) == EXIT_OK
    assert watch.seen.harmless


@pytest.mark.slow
def test_verify_that_goes_on_shows_in_its_place_what_breaks_and_what_is_mended(green: Bastion) -> None:
    with terminal(green, "verify", "--watch", "--every", "0.5", kind="xterm-256color") as child:
        child.expect_exact(OTHER_SCREEN)
        child.expect("GREEN: a client that connects to")
        with green.broken("lb2", "systemctl stop haproxy", "systemctl start haproxy"):
            child.expect("RED: a client may not be served")
            assert USUAL_SCREEN not in str(child.before)
            child.expect("lb2: haproxy is inactive")
        child.expect("GREEN: a client that connects to")
        assert USUAL_SCREEN not in str(child.before)
        child.sendintr()
        child.expect_exact(USUAL_SCREEN)
        child.expect("GREEN: a client that connects to")
        assert ended(child) == EXIT_INTERRUPTED


@pytest.mark.slow
def test_top_shows_in_its_place_what_changes(green: Bastion) -> None:
    drained = green.address("lb3")
    with terminal(green, "top", "--refresh", "0.5", kind="xterm-256color") as child:
        child.expect_exact(OTHER_SCREEN)
        child.expect("held by lb1 for")
        green.exlb("backend", "drain", drained)
        child.expect(f"{drained} of kube-master is drained")
        assert USUAL_SCREEN not in str(child.before)
        green.exlb("backend", "ready", drained)
        child.sendintr()
        child.expect_exact(USUAL_SCREEN)
        child.expect("held by lb1 for")
        assert ended(child) == EXIT_INTERRUPTED


@pytest.mark.slow
def test_top_shows_a_failover_although_the_holder_says_nothing_any_more(green: Bastion) -> None:
    with terminal(green, "top", "--refresh", "0.5", kind="xterm-256color") as child:
        child.expect("held by lb1 for")
        green.lab.partition("lb1")
        child.expect("held by lb2 for", timeout=SHOWN_SECONDS)
        child.expect("lb1.*unreachable")
        green.lab.heal("lb1")
        child.expect("held by lb1 for")
        child.sendintr()
        child.expect_exact(USUAL_SCREEN)
        assert ended(child) == EXIT_INTERRUPTED


@pytest.mark.slow
@pytest.mark.parametrize("lose", [Lab.cut, Lab.partition], ids=["power", "network"])
def test_logs_that_are_followed_go_on_without_a_node_that_is_lost(
    green: Bastion, lose: Callable[[Lab, str], None]
) -> None:
    began = datetime.now(UTC)
    with terminal(green, "logs", "-f", "--since", f"@{began.timestamp():.6f}") as child:
        # The first may be among those that were there when it looked; what comes after it was followed.
        for _ in range(2):
            green.inside("lb2", "systemctl", "reload", "haproxy")
            child.expect("lb2 systemd: Reloaded haproxy")
            times = re.findall(r"^\d{4}-\S+ \S+", str(child.before), re.MULTILINE)
            assert min(times) >= f"{began:%Y-%m-%d %H:%M:%S}"
        lose(green.lab, "lb3")
        child.expect("lb3 +is followed no more", timeout=LOST_SECONDS)
        green.inside("lb2", "systemctl", "reload", "haproxy")
        child.expect("lb2 systemd: Reloaded haproxy")
        child.sendintr()
        assert ended(child) == EXIT_INTERRUPTED
