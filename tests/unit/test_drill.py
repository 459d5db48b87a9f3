"""What a drill has on the bastion: a client that asks every 50 ms, a way to power a node on, and the report."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from exlb_fab import client, rehearsal, watching
from exlb_fab.commands import drill
from exlb_fab.commands.drill_report import DrillReport, DrillRow, TransitionRow, WatcherRow
from exlb_fab.drilling import Sample
from exlb_fab.errors import ExlbError
from exlb_fab.facts import Reply
from exlb_fab.fleet import Fleet
from exlb_fab.report import answer
from exlb_fab.report.drill import check_folder, keep
from exlb_fab.report.timeline import timeline
from tests.fake import FakeFleet, cluster
from tests.unit.node.machine import require_namespace

LB1 = cluster().nodes[0]
WAIT_SECONDS = 20


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# The bastion's client


def watched(reply: Callable[[], Reply | None], monkeypatch: pytest.MonkeyPatch, count: int) -> list[Sample]:
    monkeypatch.setattr(client, "request", lambda url: reply())
    watch = watching.BastionWatch("https://198.51.100.100:8443/readyz")
    watch.start()
    try:
        until(lambda: len(watch.samples) >= count)
    finally:
        watch.end()
        watch.join()
    return watch.samples


def test_bastion_asks_again_and_again_and_tells_answers_from_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([Reply(200, "", accepted=True), None, Reply(None, "refused", accepted=False)] * 1000)
    seen = watched(lambda: next(answers), monkeypatch, 6)
    assert [each.answered for each in seen][:6] == [True, False, False] * 2
    assert all(each.begin <= each.end for each in seen)


def test_request_of_the_bastion_that_hangs_keeps_no_other_one_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    hung = threading.Event()
    begun: list[float] = []

    def reply() -> Reply | None:
        begun.append(time.monotonic())
        if len(begun) == 10:
            hung.set()
        hung.wait(WAIT_SECONDS)
        return None

    assert len(watched(reply, monkeypatch, 10)) >= 10


# The power


def test_command_is_run_when_it_is_told_to_and_finds_the_node(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    power = rehearsal.Power(f'echo "$EXLB_NODE $EXLB_ADDRESS" >>{mark}', LB1)
    assert not mark.exists()
    power.on()
    assert mark.read_text() == "lb1 198.51.100.11\n"


def test_command_that_is_spared_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    power = rehearsal.Power(f"touch {mark}", LB1)
    power.spare()
    assert power._process.poll() is not None
    assert not mark.exists()


def test_command_that_fails_says_why() -> None:
    power = rehearsal.Power("echo no such server; exit 3", LB1)
    with pytest.raises(ExlbError, match="--power-on ended with status 3: no such server"):
        power.on()


def test_node_is_powered_on_although_exlb_was_killed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    program = f"""
        import os, signal
        from exlb_fab import rehearsal
        from tests.fake import cluster
        rehearsal.Power("touch {mark}", cluster().nodes[0])
        os.kill(os.getpid(), signal.SIGKILL)
    """
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=root, check=False)
    assert done.returncode == -9
    until(mark.exists)


# The report


def watcher(name: str, outage: float = 3.0, *, within: bool = True, unmeasured: str | None = None) -> WatcherRow:
    return WatcherRow(
        watcher=name,
        requests=200,
        unanswered=60,
        outage_seconds=outage,
        afterwards_seconds=0.06,
        resolution_seconds=0.055,
        latency_seconds=0.02,
        last_seconds=17.0,
        unmeasured=unmeasured,
        within=within and unmeasured is None,
        silences=((0.1, outage),),
    )


def row(**changes: object) -> DrillRow:
    values: dict[str, object] = {
        "fault": "proxy",
        "deed": "stops haproxy on lb1 & <waits>",
        "holder": "lb1",
        "at": datetime(2026, 11, 21, tzinfo=UTC),
        "undone_seconds": 10.0,
        "ended_seconds": 17.0,
        "worst_seconds": 5.57,
        "undone_worst_seconds": 5.57,
        "detection_seconds": 1.2,
        "detected": "lb1: failed",
        "takeover_seconds": 3.0,
        "new_holder": "lb2",
        "moves": 2,
        "watchers": (watcher("the bastion"), watcher("lb2", 3.1)),
        "transitions": (
            TransitionRow(node="lb2", seconds=3.0, doubt_seconds=0.01, state="MASTER"),
            TransitionRow(node="lb1", seconds=3.1, doubt_seconds=0.01, state="BACKUP"),
        ),
        "cut_short": None,
        "restored": True,
        "green": True,
        "problem": None,
        "hint": None,
        **changes,
    }
    return DrillRow.model_validate(values)


def report(*rows: DrillRow, **changes: object) -> DrillReport:
    values: dict[str, object] = {
        "at": datetime(2026, 11, 21, tzinfo=UTC),
        "vip": "198.51.100.100",
        "nodes": ("lb1", "lb2", "lb3"),
        "drills": rows,
        "interrupted": False,
        **changes,
    }
    return DrillReport.model_validate(values)


def shown(made: DrillReport) -> str:
    console = Console(width=160, record=True, file=None, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(answer(made))
    return captured.get()


def test_worst_watcher_is_the_outage() -> None:
    assert row().outage_seconds == 3.1
    assert row(watchers=()).outage_seconds is None


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({}, 0, "every failover was within the model's worst case"),
        ({"watchers": (watcher("lb2", 9.0, within=False),)}, 1, "outage too long"),
        ({"watchers": (watcher("lb1"), watcher("lb2", unmeasured="lb2: its client ended"))}, 1, "not measured"),
        (
            {"watchers": (watcher("lb1"), watcher("lb2", unmeasured="lb2: its client ended"))},
            1,
            "could not be measured: lb2: its client ended",
        ),
        ({"watchers": ()}, 1, "the drill failed"),
        ({"restored": False, "problem": "lb1: no"}, 1, "NOT EVERYTHING IS RESTORED"),
        ({"green": False, "problem": "verify is not green afterwards", "hint": "exlb verify"}, 1, "next: exlb verify"),
        ({"new_holder": None, "takeover_seconds": None}, 1, "nobody took over"),
        ({"fault": "kill", "new_holder": None, "takeover_seconds": None}, 0, "as the model says"),
        ({"cut_short": "lb1: connection lost"}, 1, "cut short: lb1: connection lost"),
    ],
)
def test_drill_is_good_only_if_all_of_it_is(changes: dict[str, object], code: int, said: str) -> None:
    made = report(row(**changes))
    assert made.exit_code == code
    assert said in shown(made)


def test_drill_without_a_fault_and_one_that_was_left_are_no_success() -> None:
    assert report().exit_code == 1
    assert report(row(), stopped="verify is not green").exit_code == 1
    assert report(row(), interrupted=True).exit_code == 130


def test_report_pickles_and_comes_back_from_its_json() -> None:
    made = report(row())
    assert DrillReport.model_validate_json(made.model_dump_json()) == made


def test_picture_is_whole_and_shows_every_client_and_node() -> None:
    root = ElementTree.fromstring(timeline(row(), ("lb1", "lb2", "lb3")))
    words = [each.text for each in root.iter() if each.tag.endswith("}text")]
    assert {"the bastion", "lb2", "lb1 VRRP", "lb2 VRRP", "lb3 VRRP", "fault", "undone"} <= set(words)
    assert any("stops haproxy on lb1 & <waits>" in (word or "") for word in words)
    titles = [each.text for each in root.iter() if each.tag.endswith("}title")]
    assert "lb2: no answer for 3.00 s" in titles
    assert {"lb1: MASTER", "lb1: BACKUP", "lb2: MASTER", "lb3: BACKUP"} <= set(titles)


def test_picture_shows_no_answer_for_a_client_that_asked_nothing() -> None:
    mute = watcher("lb2", unmeasured="lb2: its client ended").model_copy(update={"requests": 0, "silences": ()})
    assert "lb2: answered" not in timeline(row(watchers=(watcher("lb1"), mute)), ("lb1", "lb2"))


def test_picture_keeps_its_bars_inside() -> None:
    far = row(ended_seconds=17.0, watchers=(watcher("lb2", 500.0),), undone_seconds=None)
    root = ElementTree.fromstring(timeline(far, ("lb1",)))
    for each in root.iter():
        if each.tag.endswith("}rect"):
            assert float(each.get("x", "0")) >= 0
            assert float(each.get("x", "0")) + float(each.get("width", "0")) <= 961


def test_picture_needs_nothing_from_elsewhere() -> None:
    text = timeline(row(), ("lb1",))
    assert text.count("http") == text.count("http://www.w3.org/2000/svg")
    assert "<script" not in text


def test_folder_of_a_report_is_never_that_of_another(tmp_path: Path) -> None:
    check_folder(tmp_path / "a/b")
    with pytest.raises(ExlbError, match="cannot make"):
        check_folder(tmp_path / "a/b")


def test_report_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(ExlbError, match="cannot write to"):
        keep(report(row()), tmp_path / "gone")


def test_address_of_this_host_is_known_as_one() -> None:
    assert drill._is_here(replace(LB1, address=IPv4Address("127.0.0.1")))
    assert not drill._is_here(LB1)


@pytest.mark.parametrize(
    ("version", "kind", "eventless"),
    [("2.2.7", "none", False), ("2.0.10", "none", True), ("2.2.7", "systemd-nspawn", True)],
)
def test_proxy_is_looked_after_by_what_keepalived_is_configured_with(version: str, kind: str, eventless: bool) -> None:
    fakes = FakeFleet(cluster())
    for each in fakes:
        each.programs.add("keepalived")
        each.keepalived_version = f"Keepalived v{version} (01/16,2022)"
        if kind != "none":
            system = f"{each.release}HOST=lb1\nCONTAINER={kind}\nUSER_ID=0\nEPOCH=2000\nMANAGERS=apt-get\n"
            each.answers["system"] = (0, system)
    with Fleet(fakes.connect) as fleet:
        assert drill._is_eventless(cluster(), LB1, fleet) is eventless


NETWORK = """
ip link set lo up
ip link add v0 type veth peer name v1
ip link set v0 up
ip link set v1 up
for address in 198.51.100.11/24 198.51.100.12/24; do ip addr add $address dev v0; done
for address in 2001:db8::11/64 2001:db8::12/64; do ip addr add $address dev v0 nodad; done
echo 1 >/proc/sys/net/ipv4/ip_nonlocal_bind
echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind
exec "$@"
"""


def test_address_that_a_socket_may_only_be_bound_to_is_none_of_this_host() -> None:
    """Where exlb has set ip_nonlocal_bind, and for addresses that are not the first of their interface, too."""
    require_namespace()
    program = """
        from dataclasses import replace
        from ipaddress import ip_address
        from exlb_fab.commands import drill
        from tests.fake import cluster
        node = cluster().nodes[0]
        for text in ("198.51.100.11", "198.51.100.12", "2001:db8::11", "2001:db8::12"):
            assert drill._is_here(replace(node, address=ip_address(text))), text
        for text in ("198.51.100.13", "2001:db8::13", "2001:db8:1::1"):
            assert not drill._is_here(replace(node, address=ip_address(text))), text
    """
    command = ["unshare", "-n", "sh", "-e", "-c", NETWORK, "sh", sys.executable, "-c", textwrap.dedent(program)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True)
