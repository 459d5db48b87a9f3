"""Changes of keepalived by their class: in which order, at which cost, and never two nodes that hold the VIP."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from exlb_fab.cli import common
from exlb_fab.errors import UnreachableError
from tests.cli.conftest import Site
from tests.fake import KEEPALIVED_PATH, Clock, FakeNode, environment_file
from tests.ran import Ran

COMPATIBLE = {"CHECK_INTERVAL": "3"}
APART = {"ROUTER_ID": "69"}
NOTICE = "old and new keepalived do not hear each other (virtual_router_id 68 -> 69)"


def steps(site: Site) -> list[str]:
    """Return what was done to the units, node by node, in its order."""
    done = []
    for entry in site.fleet.journal:
        name, action, *words = entry.split()
        if action in ("activate", "units"):
            done.append(f"{name} {words[-1]}" + (" file" if action == "activate" else ""))
    return done


def running(site: Site) -> list[str]:
    """Return the VRID that each keepalived runs with, `-` where it does not run."""
    found = (re.search(r"virtual_router_id (\d+)", node.keepalived) for node in site.fleet)
    return [each[1] if each else "-" for each in found]


def hold(site: Site) -> list[str]:
    return [node.name for node in site.fleet.holders]


@pytest.fixture(autouse=True)
def never_two_holders(request: pytest.FixtureRequest) -> Iterator[None]:
    """At no moment of any test here do two nodes hold the VIP, unless it begins so."""
    fleet = request.getfixturevalue("green").fleet if "green" in request.fixturenames else None
    yield
    if fleet and "split" not in request.node.name:
        assert fleet.most_holders <= 1


def answering(monkeypatch: pytest.MonkeyPatch, answer: str) -> list[str]:
    """Put an operator before a terminal who gives one answer; return what they are asked."""
    asked: list[str] = []

    def confirm(question: str) -> bool:
        asked.append(question)
        return answer == "y"

    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(common, "sys", SimpleNamespace(stdin=terminal, stdout=SimpleNamespace(flush=lambda: None)))
    monkeypatch.setattr(common, "_confirm", confirm)
    assert sys.stdin is not terminal
    return asked


# Compatible


def test_compatible_change_is_a_reload_of_one_node_after_the_other_with_the_holder_last(green: Site) -> None:
    green.change(**COMPATIBLE)
    ran = green.exlb("push-config", "-o", "json")
    assert steps(green) == ["lb2 reload file", "lb3 reload file", "lb1 reload file"]
    assert ran.json["notices"] == []
    assert hold(green) == ["lb1"]


# Old and new do not hear each other


def test_incompatible_change_stops_the_others_changes_the_holder_and_starts_the_others_on_the_new(green: Site) -> None:
    green.change(**APART)
    ran = green.exlb("push-config", "--yes", "-o", "json")
    done = steps(green)
    assert sorted(done[:2]) == ["lb2 stop", "lb3 stop"]
    assert done[2] == "lb1 reload file"
    assert sorted(done[3:]) == ["lb2 start file", "lb3 start file"]
    assert ran.results == {"lb1": "changed", "lb2": "changed", "lb3": "changed"}
    assert (running(green), hold(green)) == (["69", "69", "69"], ["lb1"])
    assert "no changes" in green.exlb("push-config").said


def test_incompatible_change_says_beforehand_what_it_costs(green: Site) -> None:
    green.change(**APART)
    ran = green.exlb("push-config", "--yes", "-o", "json")
    (notice,) = ran.json["notices"]
    assert notice.startswith(NOTICE)
    assert "keepalived stops on lb2, lb3 until lb1 has changed, and nobody could take over meanwhile" in notice
    assert "clients lose 198.51.100.100 for 4 s at most" in notice
    assert notice in " ".join(ran.stderr.split())


def test_incompatible_change_of_the_interval_waits_by_the_longer_one(green: Site, clock: Clock) -> None:
    green.change(**APART)
    green.exlb("push-config", "--yes")
    short = clock.passed
    green.change(**APART, ADVERT_INT="3")
    green.exlb("push-config", "--yes")
    long = clock.passed - short
    green.change(**APART)
    ran = green.exlb("push-config", "--yes", "-o", "json")
    assert clock.passed - short - long == long > short
    assert "for 10 s at most" in ran.json["notices"][0]


def test_dry_run_of_an_incompatible_change_tells_its_cost_and_asks_nothing(green: Site) -> None:
    before = green.fleet.state
    green.change(**APART)
    ran = green.exlb("push-config", "--dry-run", "--exit-code", "-o", "json", status=6)
    assert ran.json["notices"][0].startswith(NOTICE)
    assert NOTICE in ran.stderr
    assert green.fleet.state == before


def test_incompatible_change_without_a_terminal_needs_a_yes(green: Site) -> None:
    before = green.fleet.state
    green.change(**APART)
    ran = green.exlb("push-config", status=2)
    assert NOTICE in ran.stderr
    assert "there is no terminal to ask whether to go on next: --yes goes on without asking" in ran.said
    assert green.fleet.state == before


def test_incompatible_change_asks_after_it_has_shown_all(green: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    green.change(**APART)
    asked = answering(monkeypatch, "y")
    ran = green.exlb("push-config")
    assert asked == ["Go on?"]
    assert "+    virtual_router_id 69" in ran.stderr
    assert running(green) == ["69", "69", "69"]


def test_incompatible_change_that_is_answered_with_no_changes_nothing(
    green: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = green.fleet.state
    green.change(**APART)
    answering(monkeypatch, "n")
    ran = green.exlb("push-config", status=2)
    assert "nothing was changed on any node" in ran.said
    assert green.fleet.state == before


def test_compatible_change_asks_nothing(green: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    green.change(**COMPATIBLE)
    asked = answering(monkeypatch, "n")
    green.exlb("push-config")
    assert asked == []


def test_incompatible_change_of_some_nodes_is_refused(green: Site) -> None:
    green.change(**APART)
    before = green.fleet.state
    ran = green.exlb("push-config", "--nodes", "lb1", "--yes", status=1)
    assert "lb2, lb3 would not hear lb1 any more, and both sides would hold 198.51.100.100" in ran.said
    assert "leave --nodes out" in ran.said
    assert green.fleet.state == before


def test_incompatible_change_names_the_nodes_that_cannot_be_asked(green: Site) -> None:
    green.fleet.cut("lb3")
    green.change(**APART)
    ran = green.exlb("push-config", "--yes", "--skip-unreachable", "-o", "json", status=4)
    assert "lb3 cannot be asked: it must not come back before it has been pushed to" in ran.json["notices"][0]
    assert steps(green) == ["lb2 stop", "lb1 reload file", "lb2 start file"]


def test_incompatible_change_of_a_single_node_is_a_reload(site: Callable[..., Site]) -> None:
    alone = site(nodes=1).deploy()
    alone.change(**APART)
    alone.exlb("push-config", "--yes")
    assert steps(alone) == ["lb1 reload file"]


def test_incompatible_change_while_nobody_holds_the_vip_goes_to_all_at_once_and_asks_nothing(green: Site) -> None:
    for node in green.fleet:
        node.units["keepalived"].loaded = ""
    green.change(**APART)
    ran = green.exlb("push-config", "-o", "json")
    assert ran.json["notices"] == [f"{NOTICE}: all nodes change at once"]
    assert sorted(steps(green)) == ["lb1 reload file", "lb2 reload file", "lb3 reload file"]
    entries = [entry.split()[1] for entry in green.fleet.journal]
    assert "probe" not in entries[entries.index("activate") :][:3]


def test_incompatible_change_of_a_split_brain_goes_to_all_at_once_and_ends_it(green: Site) -> None:
    for node in green.fleet:
        unit, file = node.units["keepalived"], node.files[KEEPALIVED_PATH]
        file.text = unit.loaded = unit.loaded.replace("virtual_router_id 68", f"virtual_router_id 7{node.name[-1]}")
    assert hold(green) == ["lb1", "lb2", "lb3"]
    ran = green.exlb("push-config", "-o", "json")
    assert "all nodes change at once" in ran.json["notices"][0]
    assert hold(green) == ["lb1"]


# One that fails, or is interrupted


def test_holder_that_fails_lets_the_others_run_again_on_the_old_files(green: Site) -> None:
    green.change(**APART)
    green.fleet["lb1"].failing["activate"] = "keepalived does not run"
    ran = green.exlb("push-config", "--yes", "-o", "json", status=1)
    assert ran.results == {"lb1": "failed", "lb2": "not started", "lb3": "not started"}
    assert running(green) == ["68", "68", "68"]
    assert sorted(steps(green)[-2:]) == ["lb2 start", "lb3 start"]


def test_holder_after_which_the_vip_is_gone_is_taken_back_and_the_others_run_again(green: Site) -> None:
    green.change(**APART)
    node = green.fleet["lb1"]

    def lose_vip(call: str) -> None:
        if call.startswith("activate 0002"):
            node.answers["addresses"] = (0, "2: eth0    inet 198.51.100.11/24 scope global eth0")
        elif call.startswith("activate 0001"):
            node.answers.clear()

    node.before = lose_vip
    ran = green.exlb("push-config", "--yes", "-o", "json", status=1)
    assert ran.results == {"lb1": "failed", "lb2": "not started", "lb3": "not started"}
    assert running(green) == ["68", "68", "68"]
    assert [step for step in steps(green) if step.startswith("lb1")] == ["lb1 reload file", "lb1 reload file"]


def test_node_that_cannot_stop_lets_all_run_on_as_before(green: Site) -> None:
    green.change(**APART)
    green.fleet["lb3"].failing["units"] = "Job for keepalived.service failed."
    ran = green.exlb("push-config", "--yes", "-o", "json", status=1)
    assert ran.results == {"lb1": "not started", "lb2": "not started", "lb3": "failed"}
    assert running(green) == ["68", "68", "68"]


def other_fails(site: Site, *, gate: bool) -> Ran:
    """Push a change that lb3 fails to take on, the last of all, by its own program or at the gate behind it."""
    site.change(**APART)
    node = site.fleet["lb3"]

    def serve_nobody(call: str) -> None:
        if call.startswith("activate 0002"):
            node.answers["request https://198.51.100.13:8443/readyz"] = (7, "curl: (7) refused\n000 0")
        elif call.startswith("activate"):
            node.answers.clear()

    if gate:
        node.before = serve_nobody
    else:
        node.failing["activate"] = "keepalived does not run"
    return site.exlb("push-config", "--yes", "-o", "json", status=1)


@pytest.mark.parametrize("gate", [False, True], ids=["its own program", "the gate"])
def test_other_node_that_fails_stays_stopped_because_nobody_would_hear_it_on_its_old_file(
    green: Site, gate: bool
) -> None:
    ran = other_fails(green, gate=gate)
    assert ran.results == {"lb1": "changed", "lb2": "changed", "lb3": "failed"}
    assert running(green) == ["69", "69", "-"]
    assert "keepalived stays stopped: on its old file it would not hear lb1, lb2" in ran.said
    green.fleet["lb3"].failing.clear()
    green.exlb("push-config")
    assert running(green) == ["69", "69", "69"]


@pytest.mark.parametrize("gate", [False, True], ids=["its own program", "the gate"])
def test_rollback_all_of_an_incompatible_change_goes_the_same_way_back(green: Site, gate: bool) -> None:
    green.change(**APART)
    node = green.fleet["lb3"]
    if gate:
        node.before = lambda call: node.answers.update(
            {"request https://198.51.100.13:8443/readyz": (7, "curl: (7) refused\n000 0")}
            if call.startswith("activate 0002")
            else {}
        )
    else:
        node.failing["activate"] = "keepalived does not run"
    ran = green.exlb("push-config", "--yes", "--on-failure", "rollback-all", "-o", "json", status=1)
    assert ran.results == {"lb1": "restored", "lb2": "restored", "lb3": "failed"}
    assert (running(green), hold(green)) == (["68", "68", "68"], ["lb1"])


def test_node_that_had_only_to_start_stops_again_when_all_are_taken_back(green: Site) -> None:
    other_fails(green, gate=False)
    green.fleet["lb3"].failing.clear()
    green.fleet["lb2"].failing["activate"] = "keepalived does not run"
    ran = green.exlb("rollback", "--yes", "--on-failure", "rollback-all", "-o", "json", status=1)
    assert ran.results == {"lb1": "restored", "lb2": "failed", "lb3": "restored"}
    assert "keepalived stops again, because another node failed" in ran.said
    assert running(green) == ["69", "69", "-"]


def test_nothing_is_started_beside_a_node_of_which_nobody_knows_what_it_runs(green: Site) -> None:
    green.change(**APART)
    green.fleet["lb1"].killed.add("activate")
    green.exlb("push-config", "--yes", status=1)
    green.fleet["lb1"].killed.clear()
    ran = green.exlb("push-config", "--nodes", "lb3", "--yes", status=1)
    assert "lb1: a change was interrupted: what its keepalived runs is not known next: exlb recover" in ran.said
    green.exlb("push-config", "--yes")
    assert running(green) == ["69", "69", "69"]


def test_holder_that_is_lost_while_it_changes_may_have_changed_and_the_others_stay_stopped(green: Site) -> None:
    green.change(**APART)
    node = green.fleet["lb1"]

    def lose(call: str) -> None:
        if call.startswith("activate"):
            staged = node.staged
            assert staged
            node.put(staged.files)  # its own program goes on
            node.act("keepalived", "reload")
            node.unreachable = UnreachableError("lb1: connection lost")
            raise node.unreachable

    node.before = lose
    ran = green.exlb("push-config", "--yes", "-o", "json", status=4)
    assert ran.results == {"lb1": "unreachable", "lb2": "not started", "lb3": "not started"}
    node.unreachable = None
    assert (running(green), hold(green)) == (["69", "-", "-"], ["lb1"])
    assert "keepalived stays stopped: on its old file it would not hear lb1" in ran.said


def interrupted(site: Site, *, holder: str) -> None:
    """Leave nodes as a push that was killed does: the others stopped, the holder on the old files or the new ones."""
    for name in ("lb2", "lb3"):
        site.fleet[name].act("keepalived", "stop")
    site.change(**APART)
    if holder == "new":
        node = site.fleet["lb1"]
        file = node.files[KEEPALIVED_PATH]
        file.text = rendered(site, node)
        node.act("keepalived", "reload")
        node.generations[2] = node.active
        node.current = 2
    site.fleet.journal.clear()


def rendered(site: Site, node: FakeNode) -> str:
    files = site.exlb("render", "--nodes", node.name, "-o", "json").json["files"]
    (text,) = [file["text"] for file in files if file["path"] == KEEPALIVED_PATH]
    return str(text)


@pytest.mark.parametrize("holder", ["old", "new"])
def test_interrupted_incompatible_change_is_ended_by_the_next_run_the_same_way(green: Site, holder: str) -> None:
    interrupted(green, holder=holder)
    green.exlb("push-config", "--yes")
    assert (running(green), hold(green)) == (["69", "69", "69"], ["lb1"])
    changed = [step for step in steps(green) if step.startswith("lb1")]
    assert changed == (["lb1 reload file"] if holder == "old" else [])
    last = steps(green)[-2:]
    assert sorted(last) == ["lb2 start file", "lb3 start file"]


def test_interrupt_in_the_middle_of_an_incompatible_change_leaves_the_others_stopped_and_says_how_to_go_on(
    green: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    green.change(**APART)
    stopped: list[str] = []
    monkeypatch.setattr("exlb_fab.fleet.Fleet.stopped", property(lambda self: bool(stopped)))
    green.fleet["lb1"].before = lambda call: stopped.append(call) if call.startswith("activate") else None
    ran = green.exlb("push-config", "--yes", "-o", "json", status=1)
    assert ran.results == {"lb1": "changed", "lb2": "not started", "lb3": "not started"}
    assert running(green) == ["69", "-", "-"]
    assert "push again to end the change" in ran.said
    stopped.clear()
    green.exlb("push-config", "--yes")
    assert running(green) == ["69", "69", "69"]


def test_change_of_another_node_that_is_killed_is_recovered_without_a_second_holder(green: Site) -> None:
    green.change(**APART)
    green.fleet["lb3"].killed.add("activate")
    green.exlb("push-config", "--yes", status=1)
    green.fleet["lb3"].killed.clear()
    assert running(green) == ["69", "69", "-"]
    green.exlb("push-config", "--yes")
    assert running(green) == ["69", "69", "69"]
    assert green.fleet.most_holders == 1


# Back


def test_rollback_of_an_incompatible_change_goes_the_same_way_and_asks(green: Site) -> None:
    green.change(**APART)
    green.exlb("push-config", "--yes")
    green.fleet.journal.clear()
    ran = green.exlb("rollback", status=2)
    assert "old and new keepalived do not hear each other (virtual_router_id 69 -> 68)" in ran.stderr
    assert running(green) == ["69", "69", "69"]
    green.fleet.journal.clear()
    green.exlb("rollback", "--yes")
    done = steps(green)
    assert sorted(done[:2]) == ["lb2 stop", "lb3 stop"]
    assert done[2] == "lb1 reload file"
    assert sorted(done[3:]) == ["lb2 start file", "lb3 start file"]
    assert running(green) == ["68", "68", "68"]


def test_rollback_to_generations_that_do_not_hear_each_other_is_refused(green: Site) -> None:
    green.change(**APART)
    other_fails(green, gate=False)
    green.fleet["lb3"].failing.clear()
    before = green.fleet.state
    ran = green.exlb("rollback", "--to", "2", "--yes", status=1)
    assert "lb3 and lb1 would not hear each other, and both would hold 198.51.100.100" in ran.said
    assert green.fleet.state == before
    green.exlb("rollback", "--yes")
    assert running(green) == ["68", "68", "68"]


def test_rollback_of_one_node_to_what_the_others_do_not_hear_is_refused(green: Site) -> None:
    green.change(**APART)
    green.exlb("push-config", "--yes")
    green.exlb("rollback", "--nodes", "lb2", "--yes", status=1)
    green.fleet["lb2"].act("keepalived", "stop")
    ran = green.exlb("rollback", "--nodes", "lb2", "--yes", status=1)
    assert "lb2 and lb1 would not hear each other" in ran.said
    assert running(green) == ["69", "-", "69"]


def test_dry_run_of_a_rollback_tells_its_cost(green: Site) -> None:
    green.change(**APART)
    green.exlb("push-config", "--yes")
    ran = green.exlb("rollback", "--dry-run", "-o", "json")
    assert ran.json["notices"][0].startswith("old and new keepalived do not hear each other")


def test_priorities_that_change_places_move_the_vip_and_that_is_said(green: Site) -> None:
    addresses = "(198.51.100.13 198.51.100.12 198.51.100.11)"
    green.change(NODE_IPS=addresses, NODE_NAMES="(lb3 lb2 lb1)", APISERVER_IPS="(198.51.100.11)")
    ran = green.exlb("push-config")
    assert "lb3 gets the highest priority and takes 198.51.100.100 from lb1; that costs clients" in ran.said
    assert hold(green) == ["lb3"]


def test_port_that_closes_is_asked_for(green: Site) -> None:
    green.change(APISERVER_DEST_PORT="9443")
    before = green.fleet.state
    ran = green.exlb("push-config", status=2)
    assert "nobody will listen on port 8443 of lb1, lb2, lb3 any more" in ran.said
    assert green.fleet.state == before


# Peers that join and leave


@pytest.fixture
def joining(site: Callable[..., Site]) -> Site:
    """Three nodes that are deployed, and a fourth on which all is installed."""
    four = site(nodes=4)
    environment_file(four.folder, 3)
    four.exlb("deploy")
    four.change()
    four.exlb("install")
    four.fleet.journal.clear()
    return four


def test_node_that_joins_starts_when_all_others_send_to_it(joining: Site) -> None:
    ran = joining.exlb("push-config", "-o", "json")
    assert steps(joining) == ["lb2 reload file", "lb3 reload file", "lb1 reload file", "lb4 start file"]
    assert ran.json["notices"] == []
    assert (hold(joining), joining.fleet.most_holders) == (["lb1"], 1)


def test_node_that_joins_alone_is_refused_because_nobody_sends_to_it(joining: Site) -> None:
    before = joining.fleet.state
    ran = joining.exlb("push-config", "--nodes", "lb4", status=1)
    assert "lb1 does not send to lb4 yet, and both would hold 198.51.100.100" in ran.said
    assert "leave --nodes out" in ran.said
    assert joining.fleet.state == before


def test_node_that_joins_while_another_one_is_off_is_warned_of(joining: Site) -> None:
    joining.fleet.cut("lb3")
    ran = joining.exlb("push-config", "--skip-unreachable", status=4)
    assert "lb3 cannot be asked, and does not send to lb4: it must not come back before it is pushed to" in ran.said
    assert steps(joining) == ["lb2 reload file", "lb1 reload file", "lb4 start file"]


def test_node_that_joins_while_the_holder_cannot_be_asked_is_refused(joining: Site) -> None:
    before = joining.fleet.state

    def cut(call: str) -> None:
        raise UnreachableError("lb1: connection lost")

    # It runs, and holds the VIP: only the way to it is cut.
    joining.fleet["lb1"].before = cut
    ran = joining.exlb("push-config", "--skip-unreachable", status=1)
    assert "lb1 cannot be asked and may hold 198.51.100.100: it does not send to lb4 yet" in ran.said
    assert joining.fleet.state == before


def test_node_that_comes_back_alone_is_started(green: Site) -> None:
    green.fleet["lb3"].act("keepalived", "stop")
    green.exlb("push-config", "--nodes", "lb3")
    assert steps(green) == ["lb3 start"]


@pytest.fixture
def leaving(site: Callable[..., Site]) -> Site:
    """Three nodes that are deployed, of which the file has only two any more."""
    three = site().deploy()
    environment_file(three.folder, 2)
    return three


def test_node_that_leaves_is_stopped_first_and_that_is_asked_for(leaving: Site) -> None:
    before = leaving.fleet.state
    ran = leaving.exlb("push-config", status=2)
    assert "198.51.100.13 is no peer any more: keepalived is stopped there first, and stays off at boot" in ran.said
    assert leaving.fleet.state == before
    leaving.exlb("push-config", "--yes")
    assert (steps(leaving), leaving.fleet.most_holders) == (["lb3 retire", "lb2 reload file", "lb1 reload file"], 1)
    assert leaving.fleet["lb3"].units["keepalived"].file_state == "disabled"
    assert leaving.fleet["lb3"].lock is None
    assert "no changes" in leaving.exlb("push-config").said


def test_holder_that_leaves_gives_the_vip_away_before_the_others_change(leaving: Site) -> None:
    environment_file(leaving.folder, 2, NODE_IPS="(198.51.100.12 198.51.100.13)", NODE_NAMES="(lb2 lb3)")
    leaving.exlb("push-config", "--yes")
    # The VIP has moved to lb2 by then, so that it is the last.
    assert (steps(leaving), leaving.fleet.most_holders) == (["lb1 retire", "lb3 reload file", "lb2 reload file"], 1)
    assert hold(leaving) == ["lb2"]


def test_node_that_leaves_and_stands_still_already_is_left_alone(leaving: Site) -> None:
    leaving.fleet["lb3"].act("keepalived", "retire")
    leaving.exlb("push-config", "--yes")
    assert steps(leaving) == ["lb2 reload file", "lb1 reload file"]


def test_node_that_leaves_and_cannot_be_asked_is_refused_unless_it_may_be_skipped(leaving: Site) -> None:
    leaving.fleet.cut("lb3")
    before = leaving.fleet.state
    ran = leaving.exlb("push-config", "--yes", status=4)
    assert "198.51.100.13 leaves, and must not run keepalived any more nothing was changed on any node" in ran.said
    assert leaving.fleet.state == before
    ran = leaving.exlb("push-config", "--yes", "--skip-unreachable")
    assert "it must not come back with its keepalived" in ran.said
    assert steps(leaving) == ["lb2 reload file", "lb1 reload file"]


def test_node_that_leaves_and_is_locked_is_left_alone_with_all_others(leaving: Site) -> None:
    leaving.fleet["lb3"].lock = {"token": "1", "who": "eve", "from": "there", "what": "restart", "since": "x"}
    before = leaving.fleet.state
    ran = leaving.exlb("push-config", "--yes", status=5)
    assert "198.51.100.13 is locked by eve from there" in ran.said
    assert leaving.fleet.state == before


def test_holder_that_leaves_comes_back_where_nobody_takes_the_vip(leaving: Site) -> None:
    environment_file(leaving.folder, 2, NODE_IPS="(198.51.100.12 198.51.100.13)", NODE_NAMES="(lb2 lb3)")
    for name in ("lb2", "lb3"):
        leaving.fleet[name].act("keepalived", "stop")
    ran = leaving.exlb("push-config", "--yes", status=1)
    assert "no node holds 198.51.100.100, not exactly one" in ran.said
    assert "198.51.100.11: keepalived runs again; nothing else was changed" in ran.said
    assert (steps(leaving), hold(leaving)) == (["lb1 retire", "lb1 recall"], ["lb1"])


# What a reload cannot bring about


def namespaced(site: Site) -> None:
    """Give every keepalived.conf a line whose removal needs a restart."""
    for node in site.fleet:
        file = node.files[KEEPALIVED_PATH]
        file.text = node.units["keepalived"].loaded = file.text.replace("global_defs {", "instance blue\nglobal_defs {")


def test_change_that_needs_a_restart_says_why_and_what_it_costs(green: Site) -> None:
    namespaced(green)
    ran = green.exlb("push-config", "-o", "json")
    assert steps(green) == ["lb2 restart file", "lb3 restart file", "lb1 restart file"]
    assert "restart keepalived (a reload cannot bring it about: instance" in ran.json["nodes"][0]["detail"]
    assert ran.json["notices"] == [
        "restarting keepalived on lb1, which holds 198.51.100.100, moves it away, and back again; "
        "each move costs clients about a second, and ends their open connections"
    ]


@pytest.mark.parametrize(
    ("nopreempt", "moves"),
    [(False, "moves it away, and back again;"), (True, "moves it away;")],
    ids=["preempting", "nopreempt"],
)
def test_restart_says_how_often_the_vip_moves(green: Site, nopreempt: bool, moves: str) -> None:
    if nopreempt:
        for node in green.fleet:
            file = node.files[KEEPALIVED_PATH]
            file.text = file.text.replace("    state MASTER", "    state BACKUP").replace(
                "    advert_int 1", "    advert_int 1\n    nopreempt"
            )
    ran = green.exlb("restart", "keepalived")
    assert f"restarting keepalived on lb1, which holds 198.51.100.100, {moves}" in ran.stderr


@pytest.mark.parametrize("words", [(), ("keepalived",)], ids=["both", "keepalived"])
def test_restart_starts_no_keepalived_that_stands_still_because_only_a_push_knows_whether_it_may(
    green: Site, words: tuple[str, ...]
) -> None:
    green.change(**APART)
    other_fails(green, gate=False)
    before = green.fleet.state
    ran = green.exlb("restart", *words, status=1)
    assert "keepalived does not run on lb3 next: exlb push-config starts it" in ran.said
    assert green.fleet.state == before
    green.exlb("restart", "haproxy")


def test_restart_of_the_proxy_says_what_it_costs_where_it_costs(green: Site) -> None:
    ran = green.exlb("restart", "haproxy")
    assert "restarting haproxy on lb1, which holds 198.51.100.100, ends its open connections" in ran.stderr
    assert "holds" not in green.exlb("restart", "haproxy", "--nodes", "lb2").stderr
