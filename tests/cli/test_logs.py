"""logs: the journals of all nodes as one."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exlb_fab.commands.logs import LogLine
from exlb_fab.errors import UnreachableError
from tests.cli.conftest import Site
from tests.cli.test_locks import steps

MIDNIGHT = 1795219200  # 2026-11-21 00:00:00 UTC


def entry(seconds: float, text: object, source: str = "Keepalived_vrrp", **fields: Any) -> str:
    """Return a line as `journalctl -o json` prints it."""
    stamp = str(int((MIDNIGHT + seconds) * 1_000_000))
    made = {"__CURSOR": f"c{seconds}", "__REALTIME_TIMESTAMP": stamp, "SYSLOG_IDENTIFIER": source, "MESSAGE": text}
    return json.dumps({**made, **fields})


def until_quiet(site: Site, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have Ctrl-C come when none of some nodes has anything more to say."""
    quiet = set[str]()
    monkeypatch.setattr("exlb_fab.fleet.Fleet.stopped", property(lambda self: quiet == set(names)))

    def noted(name: str) -> Callable[[str], None]:
        return lambda call: quiet.add(name) if call == "quiet" else None

    for name in names:
        site.fleet[name].before = noted(name)


def texts(site: Site, *words: str) -> list[str]:
    return [line["text"] for line in site.exlb("logs", *words, "-o", "json").json["lines"]]


@pytest.fixture
def logged(green: Site) -> Site:
    """Nodes of which lb1 and lb2 have logged a failover."""
    green.fleet["lb1"].logged = [
        entry(1, "(VI) Entering MASTER STATE"),
        entry(3.5, "Server kube-master/a is DOWN", "haproxy"),
        entry(5, "(VI) Entering BACKUP STATE"),
    ]
    green.fleet["lb2"].logged = [entry(2, "(VI) Entering BACKUP STATE"), entry(4, "(VI) Entering MASTER STATE")]
    return green


def test_lines_of_all_nodes_stand_in_the_order_of_their_time(logged: Site) -> None:
    assert logged.exlb("logs").stdout.splitlines() == [
        "2026-11-21 00:00:01.000 lb1 Keepalived_vrrp: (VI) Entering MASTER STATE",
        "2026-11-21 00:00:02.000 lb2 Keepalived_vrrp: (VI) Entering BACKUP STATE",
        "2026-11-21 00:00:03.500 lb1 haproxy: Server kube-master/a is DOWN",
        "2026-11-21 00:00:04.000 lb2 Keepalived_vrrp: (VI) Entering MASTER STATE",
        "2026-11-21 00:00:05.000 lb1 Keepalived_vrrp: (VI) Entering BACKUP STATE",
    ]


def test_more_than_a_bastion_can_hold_is_left_out_and_said(logged: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exlb_fab.commands.logs.MOST_LINES", 2)
    ran = logged.exlb("logs", "--since", "today")
    assert len(ran.stdout.splitlines()) == 4
    assert "lb1 only its newest 2 lines are shown; --lines says how many" in " ".join(ran.stderr.split())
    assert "lb2" not in ran.stderr
    assert "only its newest" not in logged.exlb("logs", "--since", "today", "--lines", "2").stderr


def test_transitions_are_the_changes_of_the_vrrp_state_alone(logged: Site) -> None:
    old = "VRRP_Instance(VI) Transition to MASTER STATE"
    logged.fleet["lb3"].logged = [entry(6, old), entry(7, "(VI) Master received advert")]
    assert texts(logged, "--transitions")[-2:] == ["(VI) Entering BACKUP STATE", old]
    assert {call.split()[-1] for call in steps(logged, "logs")} == {"keepalived"}


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ((), "- 100 - haproxy keepalived"),
        (("haproxy",), "- 100 - haproxy"),
        (("all", "--lines", "5"), "- 5 - haproxy keepalived"),
        (("--since", "today"), "today 10000 - haproxy keepalived"),
        (("--since", "today", "--lines", "7"), "today 7 - haproxy keepalived"),
    ],
)
def test_units_time_and_number_are_passed_on(logged: Site, words: tuple[str, ...], asked: str) -> None:
    logged.exlb("logs", *words)
    assert f"lb1 logs {asked}" in steps(logged, "logs")


def test_number_of_lines_holds_for_each_node(logged: Site) -> None:
    assert texts(logged, "--transitions", "--lines", "1") == [
        "(VI) Entering MASTER STATE",
        "(VI) Entering BACKUP STATE",
    ]


def test_unknown_unit_is_a_usage_error(green: Site) -> None:
    assert "exlb logs haproxy | keepalived | all" in green.exlb("logs", "sshd", status=2).said


def test_passwords_are_masked_and_what_a_terminal_would_obey_is_not_printed(green: Site) -> None:
    green.fleet["lb1"].logged = [
        entry(1, "parsing 'stats auth admin:Gehe1m' is odd", "haproxy"),
        entry(2, "auth_pass Gehe1m"),
        entry(3, "red \x1b[31m"),
        entry(4, list(b"bytes \xff")),
        entry(5, None),
        "no entry",
        "[1]",
    ]
    for output in ("table", "json"):
        ran = green.exlb("logs", "-v", "-o", output)
        assert "Gehe1m" not in ran.said
    assert texts(green)[2:] == ["red ?[31m", "bytes \ufffd", ""]


def test_node_that_cannot_be_asked_is_named_and_the_others_are_shown(logged: Site) -> None:
    logged.fleet.cut("lb2")
    ran = logged.exlb("logs", status=4)
    assert "lb1 haproxy: Server" in ran.said
    assert "lb2 unreachable cannot connect" in ran.said


def test_time_that_journalctl_does_not_understand_is_told(green: Site) -> None:
    for node in green.fleet:
        node.failing["logs"] = "Failed to parse timestamp: soon"
    assert "Failed to parse timestamp: soon" in green.exlb("logs", "--since", "soon", status=1).said


def test_followed_lines_come_after_those_that_were_there_and_a_lost_node_is_named(
    logged: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[str] = []
    monkeypatch.setattr("exlb_fab.fleet.Fleet.stopped", property(lambda self: len(stopped) == 2))
    logged.fleet["lb1"].coming = [entry(9, "last", "haproxy")]
    logged.fleet["lb2"].coming = [UnreachableError("lb2: connection lost")]
    logged.fleet["lb3"].coming = [entry(8, "first", "haproxy")]
    for name in ("lb1", "lb3"):
        logged.fleet[name].before = lambda call, name=name: (
            stopped.append(name) if call == "quiet" and name not in stopped else None  # type: ignore[misc]
        )
    ran = logged.exlb("logs", "-f", status=4)
    lines = ran.stdout.splitlines()
    assert lines[4].endswith("Entering BACKUP STATE")
    assert [line.rpartition(" ")[2] for line in lines[5:7]] == ["first", "last"]
    assert "lb2 is followed no more: lb2: connection lost" in ran.said
    assert "lb1 follow c5 haproxy keepalived" in logged.fleet.journal
    assert "lb3 follow - haproxy keepalived" in logged.fleet.journal
    assert [node.calls.count("unfollow") for node in logged.fleet] == [1, 1, 1]


def test_node_without_a_line_since_a_time_is_followed_from_that_time_on(
    logged: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[str] = []
    monkeypatch.setattr("exlb_fab.fleet.Fleet.stopped", property(lambda self: bool(stopped)))
    logged.fleet["lb3"].before = lambda call: stopped.append(call) if call == "quiet" else None
    logged.exlb("logs", "-f", "--since", "today")
    assert "lb2 follow c4 haproxy keepalived" in logged.fleet.journal
    assert "lb3 follow today haproxy keepalived" in logged.fleet.journal


def test_node_that_cannot_be_followed_is_named_before_the_first_line(
    logged: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[str] = []
    told: list[str] = []
    monkeypatch.setattr("exlb_fab.fleet.Fleet.stopped", property(lambda self: bool(stopped)))
    monkeypatch.setattr("exlb_fab.report.Screen.emit", lambda self, event: told.append(f"{event.node} {event.text}"))
    monkeypatch.setattr("exlb_fab.cli.logs.printer", lambda: lambda line: told.append(line.text))
    logged.fleet["lb1"].before = lambda call: stopped.append(call) if call == "quiet" else None
    logged.fleet.cut("lb2")
    logged.exlb("logs", "-f", status=4)
    warning = next(number for number, each in enumerate(told) if each.startswith("lb2 is not followed: cannot connect"))
    assert warning < told.index("(VI) Entering MASTER STATE")


def test_node_on_which_nothing_can_be_started_is_named_and_the_others_are_followed(
    logged: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(call: str) -> None:
        if call.startswith("follow"):
            raise UnreachableError("lb2: connection lost: the channel was refused")

    until_quiet(logged, monkeypatch, "lb1", "lb3")
    logged.fleet["lb2"].before = refuse
    logged.fleet["lb3"].coming = [entry(8, "and on", "haproxy")]
    ran = logged.exlb("logs", "-f", status=4)
    assert "lb3 haproxy: and on\n" in ran.stdout
    assert "lb2 is followed no more: lb2: connection lost: the channel was refused" in " ".join(ran.stderr.split())


def test_lines_that_nobody_takes_are_left_out_and_counted(green: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    until_quiet(green, monkeypatch, *(node.name for node in green.fleet))
    monkeypatch.setattr("exlb_fab.commands.logs.MOST_WAITING", 2)
    monkeypatch.setattr("exlb_fab.commands.logs.HOLD_SECONDS", 60)  # until all have come
    green.fleet["lb2"].coming = [entry(number, f"line {number}") for number in range(5)]
    ran = green.exlb("logs", "-f")
    assert [line[-6:] for line in ran.stdout.splitlines()] == ["line 0", "line 1"]
    assert "3 lines were left out: nobody read those before them" in " ".join(ran.stderr.split())


INTO_A_PIPE = """
import sys
from pathlib import Path
from exlb_fab import client
from exlb_fab.cli.app import app
from tests.cli.conftest import Site
from tests.cli.test_logs import entry

class Endless(list):
    def pop(self, at):
        return self[at]

site = Site(Path(sys.argv[1]))
client.request = site.fleet.request
site.fleet["lb2"].coming = Endless([entry(1, "and on")])
app(["logs", "-f", "-e", str(site.env)], obj=site.fleet.connector)
"""


def test_following_ends_with_the_pipe_that_takes_it(tmp_path: Path) -> None:
    words = [sys.executable, "-c", INTO_A_PIPE, str(tmp_path)]
    environ = {**os.environ, "PYTHONWARNINGS": "error"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as child:
        try:
            assert child.stdout
            assert child.stderr
            assert child.stdout.readline().endswith("lb2 Keepalived_vrrp: and on\n")
            child.stdout.close()
            child.wait(timeout=60)
            assert child.stderr.read() == ""
        finally:
            child.kill()


def test_line_that_cannot_be_written_ends_the_following_and_is_told(
    green: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(line: LogLine) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("exlb_fab.cli.logs.printer", lambda: full)
    green.fleet["lb2"].coming = [entry(1, "too much")]
    assert "cannot be written to stdout: No space left" in green.exlb("logs", "-f", status=1).said


def test_json_of_what_has_no_end_is_a_usage_error(green: Site) -> None:
    assert "exlb logs -o json" in green.exlb("logs", "-f", "-o", "json", status=2).said


def test_nodes_that_are_followed_are_followed_at_once(green: Site) -> None:
    assert "leave --parallel out" in green.exlb("logs", "-f", "--parallel", "2", status=2).said


def test_no_lines_that_were_there_are_none_and_what_comes_is_found_all_the_same(logged: Site) -> None:
    assert texts(logged, "--lines", "0") == []
    assert "lb1 logs - 1 - haproxy keepalived" in steps(logged, "logs")
