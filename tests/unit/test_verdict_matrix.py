"""The matrix of verdicts before any lab: what makes a cell wrong, until when that may be, and what it is written as."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from exlb_fab.checks import CHECKS
from exlb_fab.checks import doctor as first_install
from exlb_fab.rendering import Target, Templates, render
from exlb_fab.vrrp import settle_seconds
from tests.lab import stranger
from tests.lab.conditions import VERIFY, doctor, healthy
from tests.lab.conditions.base import (
    ALL,
    BUSY,
    Condition,
    Look,
    Said,
    due_seconds,
    duplicates,
    fail,
    first_of_each_family,
    limit_seconds,
    mended_seconds,
    warn,
)
from tests.lab.conditions.faults import Edited, Together
from tests.lab.judging import LOOKS, rows, settled
from tests.lab.records import Records
from tests.lab.table import Cell, verdicts
from tests.ran import Ran
from tests.unit.environments import cluster

STOPPED = Condition(
    "proxy stopped",
    "proxy",
    findings=(*fail("node.proxy", "lb1", says="is inactive"), *warn("backend.servers", "lb2", "lb3", says="2 of 3 up")),
    also=warn("vip.single-holder", says="is served"),
)
PROXY = Said("node.proxy", "lb1", "fail", "haproxy is inactive (dead)\nStopped haproxy.service")
SERVERS = tuple(Said("backend.servers", node, "warn", "2 of 3 up") for node in ("lb2", "lb3"))
RIGHT = Look(1, (PROXY, *SERVERS))
CELL = Cell("proxy stopped", "verify", "exit 1", "exit 1", [], "0123456789")
EVERY = (*VERIFY, *doctor.CONDITIONS, *healthy.CONDITIONS, *(each for _, each in healthy.LABS))


# What makes a cell wrong


def test_look_that_says_just_what_is_expected_is_right() -> None:
    assert STOPPED.wrong(RIGHT) == []


def test_consequence_may_be_told_or_not() -> None:
    told = Said("vip.single-holder", None, "warn", "the VIP is served by a node that could not be asked")
    assert STOPPED.wrong(replace(RIGHT, said=(*RIGHT.said, told))) == []


@pytest.mark.parametrize(
    ("look", "wrong"),
    [
        (replace(RIGHT, said=RIGHT.said[1:]), "no fail node.proxy on lb1"),
        (replace(RIGHT, said=RIGHT.said[:2]), "no warn backend.servers on lb3"),
        (
            replace(RIGHT, said=(*RIGHT.said, Said("vip.ping", "lb2", "fail", "does not answer"))),
            "fail vip.ping on lb2 besides: does not answer",
        ),
        (
            replace(RIGHT, said=(replace(PROXY, text="haproxy is masked"), *SERVERS)),
            "fail node.proxy on lb1 does not say 'is inactive': haproxy is masked",
        ),
        (
            replace(RIGHT, said=(*RIGHT.said, Said("vip.single-holder", None, "warn", "nobody knows"))),
            "warn vip.single-holder does not say 'is served': nobody knows",
        ),
        (replace(RIGHT, status=0), "exit 0 instead of 1"),
    ],
    ids=["false green", "false green of one node", "false red", "another cause", "another consequence", "exit status"],
)
def test_each_way_of_being_wrong_is_found_and_named(look: Look, wrong: str) -> None:
    assert STOPPED.wrong(look) == [wrong]


def test_failure_where_a_warning_is_expected_is_wrong_twice() -> None:
    look = replace(RIGHT, said=(PROXY, SERVERS[0], replace(SERVERS[1], status="fail")))
    assert STOPPED.wrong(look) == [
        "no warn backend.servers on lb3",
        "fail backend.servers on lb3 besides: 2 of 3 up",
    ]


def test_command_that_gives_no_verdicts_is_wrong_with_what_it_said() -> None:
    look = Look.of(Ran(3, "", "error: environment.sh:1: nonsense\n"))
    assert STOPPED.wrong(look) == ["exit 3 instead of 1", "error: environment.sh:1: nonsense"]
    assert "no verdicts" not in str(look)


def answered(*verdicts: dict[str, Any], **rest: Any) -> Ran:
    """Return a run of verify that has printed some verdicts, and `rest` besides."""
    lists: dict[str, list[object]] = {
        name: [] for name in ("nodes", "holders", "not_asked", "checks", "left_out", "backends")
    }
    flags = dict.fromkeys(("expect_no_apiserver", "interrupted", "green"), False)
    head = {"format": "exlb/verify/1", "at": "2026-01-01T00:00:00Z", "vip": "198.51.100.100"}
    return Ran(1, json.dumps({**head, **lists, **flags, "verdicts": verdicts, **rest}), "")


def verdict(status: str, cause: str | None = None) -> dict[str, Any]:
    said = {"check": f"a.{status}", "node": None, "status": status, "text": "odd", "cause": cause}
    return {**said, "hint": None, "unreachable": False}


def test_passes_and_skips_are_no_findings_and_the_cause_is_part_of_what_is_said() -> None:
    look = Look.of(answered(verdict("pass"), verdict("skip"), verdict("warn"), verdict("fail", "because")))
    assert look.said == (Said("a.warn", None, "warn", "odd"), Said("a.fail", None, "fail", "odd\nbecause"))
    assert look.skipped == (Said("a.skip", None, "skip", "odd"),)


def test_answer_that_does_not_keep_to_its_schema_is_an_error() -> None:
    with pytest.raises(jsonschema.ValidationError):
        Look.of(answered(vip=None))


def test_skip_of_what_should_be_asked_is_wrong_where_nothing_else_is() -> None:
    skipped = Said("vip.mac", "lb2", "skip", "lb2 knows no MAC")
    look = Look(0, skipped=(skipped,))
    whole = Condition("as deployed", "healthy", status=0, skips=frozenset())
    alone = replace(whole, skips=frozenset({"vip.mac"}))
    assert (whole.wrong(Look(0)), alone.wrong(look)) == ([], [])
    assert whole.wrong(look) == ["skip vip.mac on lb2 besides: lb2 knows no MAC"]
    assert alone.wrong(Look(0)) == ["no skip vip.mac"]
    assert STOPPED.wrong(replace(RIGHT, skipped=(skipped,))) == []


def test_condition_that_a_command_mends_has_a_finding_that_names_it() -> None:
    mended = replace(STOPPED, typed="exlb restart haproxy --nodes lb1")
    assert mended.expected.endswith("; mended by `exlb restart haproxy --nodes lb1`")
    assert mended.wrong(RIGHT) == ["nothing says to type exlb restart haproxy --nodes lb1"]
    named = replace(PROXY, hint="exlb restart haproxy --nodes lb1")
    assert mended.wrong(replace(RIGHT, said=(named, *SERVERS))) == []


def test_verdicts_of_several_nodes_are_told_together() -> None:
    assert str(RIGHT) == (
        "exit 1; fail `node.proxy` on lb1: haproxy is inactive (dead) Stopped haproxy.service; "
        "warn `backend.servers` on lb2, lb3: 2 of 3 up"
    )
    assert STOPPED.expected == (
        "exit 1; fail `node.proxy` on lb1: is inactive; warn `backend.servers` on lb2, lb3: 2 of 3 up"
    )


# Until when it may be wrong


def seen(answers: Sequence[bool], limit: float, due: float = 0) -> tuple[int, list[str]]:
    """Look for a second each, right or not by turns; return how many there were, and what is wrong in the last."""
    looks = iter(answers)
    made = []
    now = 0.0

    def see() -> Look:
        nonlocal now
        now += 1
        made.append(next(looks))
        return RIGHT if made[-1] else Look(0)

    def wrong(look: Look) -> list[str]:
        return STOPPED.wrong(look)[:1]

    def pause(seconds: float) -> None:
        nonlocal now
        now += seconds

    _, found = settled(see, wrong, due, limit, clock=lambda: now, pause=pause)
    return len(made), found


def test_right_look_counts_when_the_next_one_is_right_as_well() -> None:
    assert LOOKS == 2
    assert seen([True, True], 0) == (2, [])
    assert seen([False, True, False, True, True], 10) == (5, [])


def test_look_that_begins_after_the_limit_has_to_be_right() -> None:
    assert seen([False, False], 0)[0] == 2
    assert seen([False, False, False, False], 3) == (4, ["exit 0 instead of 1"])
    assert seen([False, True, True], 3) == (3, [])


def test_what_is_said_at_first_has_to_last_until_consequences_are_due() -> None:
    assert seen([True, True], limit=0, due=5) == (2, [])
    assert seen([True, False], limit=0, due=5) == (2, ["exit 0 instead of 1"])


def test_what_is_not_said_yet_is_asked_for_until_it_is() -> None:
    assert seen([False, False, True, True], limit=3, due=4) == (4, [])


def test_verdict_that_comes_and_goes_is_wrong() -> None:
    assert seen([True, False, True, False], 2) == (4, ["exit 0 instead of 1"])


def test_limits_are_those_of_the_model_on_a_busy_machine() -> None:
    three = cluster()
    settle = settle_seconds(three.priorities, three.vrrp.advert_seconds)
    assert limit_seconds(three, "nothing") == 0
    assert limit_seconds(three, "an election") == BUSY * settle
    assert due_seconds(three) == settle + three.vrrp.timing("script").failure_seconds
    assert limit_seconds(three, "a check") == BUSY * (settle + three.vrrp.timing("script").failure_seconds)
    # Every two seconds; two failed ones, and the second of them may take as long again.
    assert limit_seconds(three, "the backends") == limit_seconds(three, "a check") + BUSY * 6


@pytest.mark.parametrize("limit", [lambda of: limit_seconds(of, "the backends"), mended_seconds])
def test_slower_checks_and_adverts_are_waited_for(limit: Callable[[Any], float]) -> None:
    assert limit(cluster(TIMING="documents")) > limit(cluster()) > limit(cluster(TIMING="fast"))
    assert limit(cluster(BACKEND_INTER="10s")) > limit(cluster())


# The conditions themselves


def test_conditions_are_as_many_as_promised_and_each_is_named_once() -> None:
    assert len(VERIFY) >= 45
    assert len(healthy.CONDITIONS) >= 10
    assert list(duplicates(EVERY)) == []


def test_duplicates_are_found() -> None:
    twice = replace(STOPPED, findings=(*STOPPED.findings, *warn("node.proxy", "lb1")))
    assert list(duplicates([STOPPED, STOPPED])) == ["proxy stopped"]
    assert list(duplicates([twice])) == ["proxy stopped: ('node.proxy', 'lb1')"] * 2
    twice = replace(STOPPED, also=fail("node.proxy", "lb1", says="is failed"))
    assert list(duplicates([twice])) == ["proxy stopped: ('node.proxy', 'lb1')"] * 2


def test_every_check_of_verify_is_called_for_by_a_condition() -> None:
    called = {each.check for condition in EVERY if condition.command == "verify" for each in condition.findings}
    # One is for information alone, one about clocks, which a lab shares with its host.
    assert {check.id for check in CHECKS} - called == {"vip.role", "host.clock"}


def test_every_check_of_doctor_is_called_for_by_a_condition() -> None:
    ids = {check.id for check in first_install.CHECKS}
    called = {each.check for condition in doctor.CONDITIONS for each in condition.findings}
    assert called <= ids
    # No node of the lab has SELinux.
    assert ids - called == {"system.selinux", "host.clock"}


def test_conditions_call_for_checks_and_nodes_that_there_are() -> None:
    of_verify = [each for each in EVERY if each.command == "verify"]
    found = [each for condition in of_verify for each in (*condition.findings, *condition.also)]
    assert {each.check for each in found} <= {check.id for check in CHECKS}
    assert {each.node for each in found} <= {*ALL, None}


def test_exit_status_fits_what_is_to_be_found() -> None:
    for each in EVERY:
        failing = any(finding.status == "fail" for finding in each.findings)
        assert (each.status != 0) == failing, each.name


def test_conditions_say_what_the_cause_is() -> None:
    said = {each.name: [found.says for found in (*each.findings, *each.also)] for each in EVERY}
    assert [name for name, all_said in said.items() if not all(all_said)] == []
    # What is said of each cause alike names none.
    assert [name for name, all_said in said.items() if "not served" in all_said] == []


def test_one_condition_of_each_family_is_brief() -> None:
    brief = [param.values[0] for param in rows(VERIFY) if not param.marks]
    assert [each.family for each in brief] == list(dict.fromkeys(each.family for each in VERIFY))
    assert first_of_each_family([STOPPED, replace(STOPPED, name="again")]) == {"proxy stopped"}


def edits(fault: object) -> Iterator[Edited]:
    """Yield the hand edits that a fault has in it."""
    if isinstance(fault, Edited):
        yield fault
    elif isinstance(fault, Together):
        for each in fault.faults:
            yield from edits(each)


@pytest.mark.parametrize(
    ("condition", "edit"), [pytest.param(each, edit, id=str(each)) for each in VERIFY for edit in edits(each.fault)]
)
def test_hand_edit_finds_what_it_edits_in_the_files_of_the_lab(condition: Condition, edit: Edited) -> None:
    lab = cluster(
        NODE_IPS=["198.51.100.11", "198.51.100.12", "198.51.100.13"],
        NODE_NAMES=ALL,
        VIP_IF="host0",
        MASTER_VIP="198.51.100.100",
        **condition.variables,
    )
    for node in (each for each in lab.nodes if each.name in edit.nodes):
        files = render(lab, node, Templates(), Target(contained=True)).files
        text = next(file.text for file in files if file.path == edit.path)
        words = ["sed", "-E", edit.expression]
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=10, check=True)
        assert done.stdout != text


# Strangers


def test_advert_of_a_stranger_is_one_of_rfc_3768() -> None:
    packet = stranger.advert(68, 200, "198.51.100.100")
    assert packet[:6] == bytes([0x21, 68, 200, 1, 0, 1])
    assert packet[8:12] == socket.inet_aton("198.51.100.100")
    assert len(packet) == 20
    # What a receiver makes of a packet with its checksum in it. Source: RFC 1071.
    assert stranger.checksum(packet) == 0
    assert stranger.checksum(b"\xff\xff\xff\xff") == 0


def test_announcement_of_a_stranger_is_a_gratuitous_arp_reply() -> None:
    frame = stranger.announcement("02:00:00:00:66:66", "198.51.100.100")
    own, address = bytes.fromhex("020000006666"), socket.inet_aton("198.51.100.100")
    assert frame[:14] == b"\xff" * 6 + own + b"\x08\x06"
    assert frame[14:22] == bytes.fromhex("0001080006040002")
    assert frame[22:28] + frame[28:32] == own + address
    assert frame[38:42] == address


def test_answer_of_a_stranger_goes_to_who_asks_for_its_address() -> None:
    asker, own = bytes.fromhex("02000000000c"), bytes.fromhex("020000006666")
    its, address = socket.inet_aton("198.51.100.12"), socket.inet_aton("198.51.100.100")
    head = b"\xff" * 6 + asker + b"\x08\x06" + bytes.fromhex("00010800060400")
    asked = head + b"\x01" + asker + its + bytes(6) + address
    frame = stranger.answer_to(asked, "02:00:00:00:66:66", "198.51.100.100")
    assert frame == asker + own + b"\x08\x06" + bytes.fromhex("0001080006040002") + own + address + asker + its
    assert stranger.answer_to(asked, "02:00:00:00:66:66", "198.51.100.101") is None
    assert stranger.answer_to(head + b"\x02" + asked[22:], "02:00:00:00:66:66", "198.51.100.100") is None


def test_stranger_asks_itself_and_knows_the_answer_of_who_has_the_address() -> None:
    mac, address = "02:00:00:00:66:66", "198.51.100.100"
    asked = stranger.question(mac, address)
    assert stranger.answer_to(asked, "02:00:00:00:00:0b", address) is not None
    assert not stranger.is_answer(asked, address)
    assert stranger.is_answer(stranger.announcement(mac, address), address)
    assert not stranger.is_answer(stranger.announcement(mac, address), "198.51.100.101")


def test_stranger_says_how_it_is_used() -> None:
    with pytest.raises(SystemExit, match="send VRRP adverts"):
        stranger.main(["advert", "198.51.100.66"])


# What is written


def test_cells_are_kept_until_all_are_there(tmp_path: Path) -> None:
    records = Records(tmp_path)
    wrong = replace(CELL, wrong=["no fail node.proxy on lb1"])
    records.judge("one", wrong)
    records.judge("other", CELL)
    assert records.cells() == {"one": wrong, "other": CELL}
    assert records.passed() == set()


def test_matrix_tells_its_wrong_cells() -> None:
    text = verdicts([CELL, replace(CELL, condition="a | b", wrong=["exit 0 instead of 1", "no fail a.b"])])
    assert "Of 2 conditions, 1 have a wrong cell." in text
    assert "| proxy stopped | verify | exit 1 | exit 1 | yes | 0123456789 |\n" in text
    assert "| a \\| b | verify | exit 1 | exit 1 | **no**: exit 0 instead of 1; no fail a.b | 0123456789 |\n" in text
    assert "Of 1 conditions, none have a wrong cell." in verdicts([CELL])
