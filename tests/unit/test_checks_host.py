"""What verify says of space and clocks, and every answer that each check can give."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exlb_fab.checks import Verdict, View
from exlb_fab.cluster import Node
from exlb_fab.host import Space, Span
from tests.fake import GIGABYTE, NOW
from tests.unit.test_checks import LB1, LB2, LB3, verdict, view

MB = 10**6
ROOMY = Space("/etc", "/", True, 50 * GIGABYTE, 100 * GIGABYTE, 500_000, 1_000_000)


def space(**changes: object) -> Verdict:
    return verdict("host.space", LB2, view(spaces=(ROOMY, replace(ROOMY, path="/run", mount="/run", **changes))))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"free_bytes": 200 * MB},  # little of a large disk is enough
        {"free_bytes": 45 * MB, "total_bytes": 50 * MB},  # and much of a small one
        {"free_inodes": 0, "total_inodes": 0},  # btrfs does not count them
    ],
)
def test_enough_is_enough(changes: dict[str, object]) -> None:
    assert space(**changes).status == "pass"


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"free_bytes": 99 * MB}, "warn", "/run (on /run): 99 MB and 500000 inodes left"),
        ({"free_bytes": 4 * MB, "total_bytes": 50 * MB}, "warn", "4 MB"),
        ({"free_inodes": 999}, "warn", "999 inodes left"),
        ({"free_bytes": 0}, "fail", "no space for a change: /run (on /run): 0 MB"),
        ({"free_inodes": 49}, "fail", "49 inodes left"),
        ({"writable": False}, "fail", "cannot write to /run"),
    ],
)
def test_little_space_is_a_warning_and_none_is_red(changes: dict[str, object], status: str, words: str) -> None:
    found = space(**changes)
    assert found.status == status
    assert words in found.text
    assert found.hint


def test_one_full_file_system_is_told_once() -> None:
    full = tuple(replace(ROOMY, path=path, free_bytes=0) for path in ("/etc", "/var/log"))
    found = verdict("host.space", LB2, view(spaces=full))
    assert found.text == "no space for a change: /etc, /var/log (on /): 0 MB and 500000 inodes left"


def test_space_that_nobody_told_of_is_no_finding() -> None:
    assert verdict("host.space", LB2, view(spaces=())).status == "skip"


def clocks(*, took: float = 1.0, **ahead: float) -> View:
    """Return nodes whose clocks are ahead of the bastion's; each probe took a while."""
    found = view()
    facts = {
        node: replace(
            each,
            system=replace(each.system, time=float(int(NOW + ahead.get(node.name, 0)))) if each.system else None,
            clock=float(int(NOW + took + ahead.get(node.name, 0))),
            asked=Span(NOW, NOW + took),
        )
        for node, each in found.survey.facts.items()
    }
    return replace(found, survey=replace(found.survey, facts=facts))


def without(seen: View, *nodes: Node) -> View:
    """Return the same view of nodes that do not tell the time."""
    facts = {node: replace(each, clock=None) if node in nodes else each for node, each in seen.survey.facts.items()}
    return replace(seen, survey=replace(seen.survey, facts=facts))


@pytest.mark.parametrize(
    ("ahead", "status"), [(0.0, "pass"), (1.9, "pass"), (2.9, "pass"), (3.9, "warn"), (-7.0, "warn")]
)
def test_clocks_that_are_surely_apart_are_a_warning(ahead: float, status: str) -> None:
    assert verdict("host.clock", None, clocks(lb2=ahead)).status == status


def test_slow_probe_is_no_clock_that_is_apart() -> None:
    assert verdict("host.clock", None, clocks(took=50.0, lb2=1.0)).status == "pass"


def test_clock_that_is_ahead_is_named_with_what_it_is_at_least() -> None:
    found = verdict("host.clock", None, clocks(lb2=60))
    assert found.text == "lb2 is at least 59 s ahead of lb1; lb2 is at least 59 s ahead of lb3"
    assert "timedatectl" in str(found.hint)


def test_one_clock_is_in_step_with_itself() -> None:
    assert verdict("host.clock", None, without(clocks(), LB2, LB3)).status == "skip"
    assert verdict("host.clock", None, without(clocks(lb1=60), LB1)).status == "pass"
