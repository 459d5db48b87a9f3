"""What a node was before exlb, out of what it has recorded, and the plan that brings it back there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exlb_fab import departure, rendering
from exlb_fab.cluster import Node
from exlb_fab.departure import FOUND_UNITS, MARK, RECORD, STATE, Before
from exlb_fab.errors import FactsError
from exlb_fab.facts import Facts, FileFact, Generations, History, Kept, Survey, System
from exlb_fab.planning import Desired, Plan, PlanError
from exlb_fab.rendering import Templates
from tests.fake import cluster, converged, holding

CLUSTER = cluster()
LB1, LB2, LB3 = CLUSTER.nodes
THERE, ABSENT = FileFact("directory", 0o700, "0:0"), FileFact("absent")
DEBIAN = System("Debian", "lb1", None, 0, ("debian",), ("apt-get",), 1000.0)
NOT_THERE = {"haproxy": ("not-found", "inactive"), "keepalived": ("not-found", "inactive")}


def told(record: str | None = None, units: str | None = None, *, state: bool = True, leaving: bool = False) -> Facts:
    """Return the answers of a node to the questions of a departure."""
    texts = {path: text for path, text in ((RECORD, record), (FOUND_UNITS, units)) if text is not None}
    return Facts(
        files={STATE: THERE if state else ABSENT, MARK: FileFact("regular file") if leaving else ABSENT},
        texts=texts,
        history=History((Kept(0, {}, ()), Kept(4, {}, ())) if units else (), ()),
    )


def planned(was: dict[Node, Before], *, purge: bool = False, system: System | None = DEBIAN) -> Plan:
    """Return the plan for nodes with a generation of exlb that had no files before it."""
    facts, desired = {}, {}
    for node in CLUSTER.nodes:
        files = rendering.render(CLUSTER, node, Templates(), rendering.Target(interface="eth0")).files
        facts[node] = converged(CLUSTER, node, files, system=system, generations=Generations(4, kept=(0, 4)))
        if node in was and was[node].touched and not was[node].leaving:
            desired[node] = Desired((), files, 0, was[node].idle)
    facts[LB1] = holding(CLUSTER, facts[LB1])
    return departure.plan(CLUSTER, desired, was, Survey(facts, {}), purge=purge)


def test_node_without_exlbs_directory_was_never_touched() -> None:
    assert departure.before(LB1, told(state=False)) == Before(touched=False)


def test_what_install_recorded_is_older_than_what_the_first_push_found() -> None:
    record = "unit keepalived not-found inactive\npackage keepalived\npackage libnl-3-200\n"
    was = departure.before(LB1, told(record, "haproxy enabled active\nkeepalived enabled active\n"))
    assert was.units == {"haproxy": ("enabled", "active"), "keepalived": ("not-found", "inactive")}
    assert was.packages == ("keepalived", "libnl-3-200")
    assert was.idle == was.disabled == {"keepalived"}


def test_without_a_record_nobody_knows_the_packages() -> None:
    was = departure.before(LB1, told(None, "haproxy  inactive\nkeepalived disabled active\n"))
    assert was.packages is None
    assert was.idle == {"haproxy"}
    assert was.disabled == {"haproxy", "keepalived"}


def test_node_that_lost_generation_0_is_refused_unless_its_removal_has_begun() -> None:
    lost = replace(told(), history=History((Kept(4, {}, ()),), ()))
    with pytest.raises(PlanError, match="lb1: generation 0, what was there before exlb, is not kept"):
        departure.before(LB1, lost)
    begun = replace(told(leaving=True), history=lost.history)
    assert departure.before(LB1, begun).leaving


@pytest.mark.parametrize("text", ["package\n", "unit haproxy enabled\n", "haproxy\n", "package two words\n"])
def test_record_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(FactsError, match="is not understood"):
        departure.parse_record(text)
    with pytest.raises(FactsError, match="is not understood"):
        departure.parse_units("haproxy enabled\n")


def test_files_go_backups_first_and_the_rest_when_all_of_them_are_back() -> None:
    plan = planned(dict.fromkeys(CLUSTER.nodes, Before(touched=True, units=NOT_THERE, packages=("haproxy",))))
    assert [[each.node for each in wave] for wave in plan.waves] == [[LB2], [LB3], [LB1]]
    assert all(each.removal is None for wave in plan.waves for each in wave)
    assert all(each.removal for each in plan.nodes)
    assert plan.asks


def test_units_that_did_not_run_stop_with_their_files_and_are_disabled_at_the_end() -> None:
    (first, *_) = planned(dict.fromkeys(CLUSTER.nodes, Before(touched=True, units=NOT_THERE, packages=()))).nodes
    assert [unit.action for unit in first.units] == ["stop", "stop"]
    assert first.removal
    assert first.removal.units == (("disable", "haproxy"), ("disable", "keepalived"))


def test_node_whose_removal_has_begun_gets_only_its_end() -> None:
    plan = planned({LB1: Before(touched=True, leaving=True, units=NOT_THERE)})
    assert plan.waves == ()
    assert not plan.empty
    assert plan.nodes[0].removal
    assert ("stop", "keepalived") in plan.nodes[0].removal.units


def test_nodes_that_were_never_touched_make_an_empty_plan() -> None:
    plan = planned(dict.fromkeys(CLUSTER.nodes, Before(touched=False)), purge=True)
    assert plan.empty
    assert not plan.asks
    assert plan.notices == ()


def test_packages_go_only_when_asked_for() -> None:
    was = dict.fromkeys(CLUSTER.nodes, Before(touched=True, units=NOT_THERE, packages=("haproxy", "libnl-3-200")))
    stays = planned(was)
    assert all(each.removal and not each.removal.packages for each in stays.nodes)
    assert any("stay: --purge removes them" in notice for notice in stays.notices)
    goes = planned(was, purge=True)
    assert all(each.removal and each.removal.packages == ("haproxy", "libnl-3-200") for each in goes.nodes)
    assert "from lb1, lb2, lb3 go: haproxy, libnl-3-200" in goes.notices


def test_purge_without_a_manager_that_exlb_knows_is_refused() -> None:
    was = {LB1: Before(touched=True, units=NOT_THERE, packages=("haproxy",))}
    with pytest.raises(PlanError, match="no package manager"):
        planned(was, purge=True, system=None)
    assert not planned(was, system=None).empty


def test_edit_by_hand_that_goes_is_told() -> None:
    files = rendering.render(CLUSTER, LB1, Templates(), rendering.Target(interface="eth0")).files
    found = converged(CLUSTER, LB1, files, generations=Generations(4, edited=True, kept=(0, 4)))
    back = Desired((), files, 0)
    plan = departure.plan(CLUSTER, {LB1: back}, {LB1: Before(touched=True)}, Survey({LB1: found}, {}), purge=False)
    assert any("files were edited by hand on lb1" in notice for notice in plan.notices)
