"""status and top: one screen of what is, and no judgement."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pexpect
import pytest

from exlb_fab.report.standing import amount, span
from tests.cli.conftest import Site

FIRST = "198.51.100.11"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the tables room: their folds are not what is tested."""
    monkeypatch.setenv("COLUMNS", "120")


def test_status_tells_the_holder_the_nodes_and_the_backends_with_one_exec_per_node(green: Site) -> None:
    green.fleet["lb1"].sessions = {FIRST: 2}
    green.fleet["lb2"].sessions = {FIRST: 1}
    green.fleet["lb3"].old_sessions = {FIRST: 4}
    for node in green.fleet:
        node.calls.clear()
    before = green.fleet.state
    ran = green.exlb("status")
    assert {node.name: len(node.calls) for node in green.fleet} == {"lb1": 2, "lb2": 2, "lb3": 2}
    assert green.fleet.state == before
    assert "VIP 198.51.100.100: held by lb1 for 16m40s" in ran.said
    assert "lb1 master MASTER 16m40s 120 active 2 1" in ran.said
    assert "lb2 backup BACKUP" in ran.said
    assert f"{FIRST}:6443 UP L7OK UP L7OK UP L7OK 3 + 4 old 6.0K 3.0M 1m0s" in ran.said


def test_status_shows_the_priority_that_counts_and_why(green: Site) -> None:
    green.fleet["lb1"].running = None
    green.fleet["lb1"].units["haproxy"].active = "failed"
    ran = green.exlb("status")
    assert "held by lb2" in ran.said
    assert "60 of 120 failed 0 1 check-haproxy fails" in ran.said


def test_status_names_nodes_that_cannot_be_asked_and_a_vip_that_nobody_holds(green: Site) -> None:
    green.fleet.cut("lb2")
    for name in ("lb1", "lb3"):
        green.fleet[name].units["keepalived"].active = "failed"
    ran = green.exlb("status", status=4)
    assert "VIP 198.51.100.100: no node that was asked holds it" in ran.said
    assert "lb2 unreachable cannot connect: No route to host" in ran.said
    assert "keepalived failed" in ran.said


def test_status_tells_of_a_change_that_was_interrupted_and_of_edited_files(green: Site) -> None:
    green.fleet["lb2"].intent = (2, 1)
    green.fleet["lb3"].files["/etc/haproxy/haproxy.cfg"].text += "# edited\n"
    rows = {row["node"]: row["note"] for row in green.exlb("status", "-o", "json").json["standing"]}
    assert rows == {
        "lb1": "",
        "lb2": "a change was interrupted: exlb recover",
        "lb3": "its files were edited: exlb diff",
    }


def test_status_shows_no_password_that_a_proxy_quotes_as_it_falls_silent(green: Site) -> None:
    green.fleet["lb2"].answers["proxy-state"] = (1, "odd: stats auth admin:Gehe1m")
    for output in ("table", "json"):
        ran = green.exlb("status", "-o", output)
        assert "haproxy does not answer" in ran.said
        assert "Gehe1m" not in ran.said


def test_top_without_a_terminal_is_a_usage_error_that_names_status(green: Site) -> None:
    ran = green.exlb("top", status=2)
    assert "top needs a terminal" in ran.said
    assert "exlb status" in ran.said
    assert not any(node.calls for node in green.fleet)


def test_top_offers_no_other_output_than_its_screen(green: Site) -> None:
    assert "--output" not in green.exlb("top", "--help").stdout
    assert "--output" in green.exlb("status", "--help").stdout
    green.exlb("top", "-o", "json", status=2)
    assert not any(node.calls for node in green.fleet)


ON_A_TERMINAL = """
import sys
from pathlib import Path
from exlb_fab import client
from exlb_fab.cli.app import app
from exlb_fab.errors import UnreachableError
from exlb_fab.events import Event
from exlb_fab.fleet import Fleet
from tests.cli.conftest import Site

patient, Fleet.wait = Fleet.wait, lambda fleet, seconds: None
site = Site(Path(sys.argv[1])).deploy()
Fleet.wait = patient
client.request = site.fleet.request
site.fleet.cut("lb2")
connect = site.fleet.connector

def connector(cluster, common, emit):
    made, close = connect(cluster, common, emit)

    def returning(node):
        if Path(sys.argv[1], "returned").exists():
            site.fleet["lb2"].unreachable = None
        emit(Event("warning", f"asked for the passphrase of {node}"))
        return made(node)

    return returning, close

app(["top", "--refresh", "0.5", "-e", str(site.env)], obj=connector)
"""


def terminal(folder: Path, kind: str) -> pexpect.spawn[str]:
    environ = {**os.environ, "TERM": kind, "PYTHONWARNINGS": "error"}
    environ.pop("COLUMNS")
    words = ["-c", ON_A_TERMINAL, str(folder)]
    return pexpect.spawn(
        sys.executable, words, env=environ, encoding="utf-8", timeout=60, dimensions=(40, 140), cwd=Path.cwd()
    )


def test_top_shows_what_is_now_in_its_place_and_comes_back_to_a_node_that_returns(tmp_path: Path) -> None:
    child = terminal(tmp_path, "xterm-256color")
    child.expect_exact("\x1b[?1049h")
    assert "passphrase of lb3" in str(child.before), "what is asked for while it connects is still on the usual screen"
    child.expect_exact("every 0.5 s; Ctrl-C ends")
    child.expect("lb2.*unreachable")
    (tmp_path / "returned").touch()
    child.expect("lb2.*backup.*BACKUP")
    child.sendintr()
    child.expect_exact("\x1b[?1049l")
    child.expect("held by lb1")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130


def test_top_on_a_terminal_that_cannot_be_refreshed_names_status(tmp_path: Path) -> None:
    child = terminal(tmp_path, "dumb")
    child.expect("top needs a terminal that can be refreshed")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2


@pytest.mark.parametrize(("seconds", "said"), [(0.9, "0s"), (60, "1m0s"), (3660, "1h1m"), (90000, "1d1h")])
def test_times_are_told_in_two_units_at_most(seconds: float, said: str) -> None:
    assert span(seconds) == said


@pytest.mark.parametrize(("count", "said"), [(0, "0B"), (1023, "1023B"), (1536, "1.5K"), (5 * 1024**4, "5.0T")])
def test_bytes_are_told_in_the_largest_unit_that_fits(count: int, said: str) -> None:
    assert amount(count) == said
