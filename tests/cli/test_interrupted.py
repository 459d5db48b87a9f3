"""A change that was cut short: the next run, or exlb recover, ends it on one complete generation before all else."""

from __future__ import annotations

import pytest

from exlb_fab.errors import RemoteError
from tests.cli.conftest import Site
from tests.fake import PROXY

CHANGE = {"BALANCE": "leastconn"}
ANN = {"token": "aa", "who": "ann", "from": "bastion-2", "what": "push-config", "since": "2027-01-02T03:04:05Z"}


def texts(site: Site) -> list[str]:
    return [node.files[PROXY.path].text for node in site.fleet]


def current(site: Site) -> list[int | None]:
    return [node.current for node in site.fleet]


def actions(site: Site, name: str) -> list[str]:
    """Return what changed a node, or waited for a change, in its order."""
    others = ("probe", "close", "lock", "unlock", "beat")
    return [call for call in site.fleet[name].calls if not call.startswith(others)]


@pytest.fixture
def killed(green: Site) -> Site:
    """Nodes on which a push died: lb2 was done, lb3 has the new files and nobody to take them back."""
    green.change(**CHANGE)
    green.fleet["lb3"].killed.add("activate")
    ran = green.exlb("push-config", "-o", "json", status=1)
    assert ran.results == {"lb1": "not started", "lb2": "changed", "lb3": "failed"}
    assert "ended early, after step swap" in ran.said
    assert "exlb recover" in ran.said
    green.fleet["lb3"].killed.clear()
    for node in green.fleet:
        node.calls.clear()
    return green


def test_next_push_takes_back_what_was_interrupted_says_so_and_goes_on(killed: Site) -> None:
    ran = killed.exlb("push-config", "-o", "json")
    assert "lb3 a change to generation 2 was interrupted: back to 1" in ran.said
    assert ran.results == {"lb1": "changed", "lb2": "unchanged", "lb3": "changed"}
    assert actions(killed, "lb3") == ["recover", "stage", "activate 0003 0001 reload none"]
    assert current(killed) == [3, 2, 3]
    assert len(set(texts(killed))) == 1


def test_push_of_something_else_begins_with_the_recovery_too(killed: Site) -> None:
    killed.change(BALANCE="roundrobin")
    killed.exlb("push-config")
    assert actions(killed, "lb3")[0] == "recover"
    assert all("roundrobin" in text for text in texts(killed))


def test_push_that_changes_nothing_recovers_all_the_same(killed: Site) -> None:
    killed.change()
    killed.exlb("push-config", "--nodes", "lb1,lb3")
    assert actions(killed, "lb3") == ["recover"]
    assert current(killed)[::2] == [1, 1]


@pytest.mark.parametrize("command", ["restart haproxy", "rollback --to 1", "install --upgrade"])
def test_every_command_that_changes_nodes_recovers_them_first(killed: Site, command: str) -> None:
    name, *words = command.split()
    killed.exlb(name, *words)
    assert actions(killed, "lb3")[0] == "recover"


def test_recovery_of_a_node_that_was_not_chosen_is_left_to_its_own_push(killed: Site) -> None:
    killed.exlb("push-config", "--nodes", "lb1")
    assert actions(killed, "lb3") == []
    assert killed.fleet["lb3"].intent == (2, 1)
    assert current(killed)[0] == 3


def test_dry_run_recovers_nothing(killed: Site) -> None:
    before = killed.fleet.state
    killed.exlb("push-config", "--dry-run")
    killed.exlb("diff", status=6)
    assert killed.fleet.state == before


def test_node_that_cannot_be_recovered_stops_the_push_before_its_first_change(killed: Site) -> None:
    killed.fleet["lb3"].failing["recover"] = "the old files cannot be put back"
    before = texts(killed)
    ran = killed.exlb("push-config", status=1)
    assert "lb3: failed recover the old files cannot be put back" in ran.said
    assert texts(killed) == before
    assert not any(node.lock for node in killed.fleet)


def test_recover_alone_brings_nodes_to_one_complete_generation(killed: Site) -> None:
    ran = killed.exlb("recover", "-o", "json")
    assert ran.results == {"lb1": "unchanged", "lb2": "unchanged", "lb3": "changed"}
    assert "stands on generation 1" in ran.said
    assert (actions(killed, "lb3"), current(killed)) == (["recover"], [1, 2, 1])
    assert [node.name for node in killed.fleet if "lock recover" in node.calls] == ["lb3"]


def test_recover_twice_changes_nothing_and_says_so(killed: Site) -> None:
    assert "recovered" in killed.exlb("recover").said
    before = killed.fleet.state
    assert "there was nothing to recover" in killed.exlb("recover").said
    assert killed.fleet.state == before


def test_recover_of_a_node_that_another_session_holds_is_refused(killed: Site) -> None:
    killed.fleet["lb3"].lock = dict(ANN)
    killed.exlb("recover", status=5)
    assert killed.fleet["lb3"].intent == (2, 1)


def test_recover_goes_on_without_an_unreachable_node_when_told(killed: Site) -> None:
    killed.fleet.cut("lb2")
    killed.exlb("recover", status=4)
    ran = killed.exlb("recover", "--skip-unreachable", "-o", "json", status=4)
    assert ran.results == {"lb1": "unchanged", "lb2": "unreachable", "lb3": "changed"}


def running(site: Site, ends: str) -> None:
    """Let a change of a session that has gone run on lb3; it puts the new file in place and says how it ended."""
    node = site.fleet["lb3"]
    mine, site.fleet = site.fleet, site.twin()
    site.exlb("push-config")
    theirs, site.fleet = site.fleet["lb3"], mine

    def end() -> str:
        if "done" in ends:
            for each in ("files", "running", "generations", "current", "units"):
                setattr(node, each, getattr(theirs, each))
        return f"step commit\n{ends}\n"

    node.change = end


def test_change_that_still_runs_is_waited_for_and_its_outcome_is_told(green: Site) -> None:
    green.change(**CHANGE)
    running(green, "exlb-apply: done\nexlb-ended 0")
    ran = green.exlb("push-config", "-o", "json")
    assert "lb3 an earlier change was still under way; it ended: done" in ran.said
    assert ran.results == {"lb1": "changed", "lb2": "changed", "lb3": "unchanged"}
    assert actions(green, "lb3") == ["follow"]


def test_change_that_still_runs_and_fails_is_told_and_the_push_goes_on(green: Site) -> None:
    green.change(**CHANGE)
    running(green, "exlb-apply: failed gate-proxy\nexlb-ended 1")
    ran = green.exlb("push-config", "-o", "json")
    assert "it ended: failed gate-proxy" in ran.said
    assert set(ran.results.values()) == {"changed"}
    assert actions(green, "lb3")[0] == "follow"


@pytest.mark.parametrize(("ends", "told"), [("exlb-ended 100", "status 100"), ("", "without a word")])
def test_other_program_that_still_runs_is_waited_for_too(green: Site, ends: str, told: str) -> None:
    green.change(**CHANGE)
    running(green, ends)
    assert f"it ended: {told}" in green.exlb("push-config").said


def test_change_that_is_killed_while_it_is_waited_for_is_taken_back(green: Site) -> None:
    green.change(**CHANGE)
    node = green.fleet["lb3"]
    node.generations[2] = node.active

    def dies() -> str:
        node.intent = (2, 1)
        return "step swap\n"

    node.change = dies
    ran = green.exlb("push-config", "-o", "json")
    assert set(ran.results.values()) == {"changed"}
    assert actions(green, "lb3")[:2] == ["follow", "recover"]


def test_change_that_takes_too_long_stops_the_push_before_its_first_change(green: Site) -> None:
    green.change(**CHANGE)
    before = texts(green)

    def endless(call: str) -> None:
        if call == "follow":
            raise RemoteError("lb3: no end after 120 s")

    running(green, "")
    green.fleet["lb3"].before = endless
    ran = green.exlb("push-config", status=1)
    assert "lb3: no end after 120 s" in ran.said
    assert texts(green) == before
    assert not any(node.lock for node in green.fleet)


def test_recover_waits_for_a_change_that_still_runs(green: Site) -> None:
    green.change(**CHANGE)
    running(green, "exlb-apply: done\nexlb-ended 0")
    ran = green.exlb("recover", "-o", "json")
    assert ran.results == {"lb1": "unchanged", "lb2": "unchanged", "lb3": "changed"}
    assert "stands on generation 2" in ran.said


def test_second_change_is_never_started_beside_one_that_runs(green: Site) -> None:
    green.change(**CHANGE)
    node = green.fleet["lb3"]

    def begins(call: str) -> None:
        if call == "stage":
            node.change = lambda: ""

    node.before = begins
    ran = green.exlb("push-config", "-o", "json", status=1)
    assert ran.results["lb3"] == "failed"
    assert "another change runs on the node" in ran.said
    assert not any(call.startswith("activate") for call in node.calls)


def test_killed_rollback_is_taken_back_and_keeps_the_generation_that_it_went_to(green: Site) -> None:
    green.change(**CHANGE)
    green.exlb("push-config")
    green.fleet["lb3"].killed.add("activate")
    green.exlb("rollback", status=1)
    green.fleet["lb3"].killed.clear()
    green.exlb("recover")
    assert current(green) == [2, 1, 2]
    green.exlb("rollback")
    assert current(green) == [1, 1, 1]
    assert len(set(texts(green))) == 1
