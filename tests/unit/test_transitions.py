"""The order and the cost of changes of keepalived: who stands still, who begins last, who stops first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from exlb_fab import planning, transitions
from exlb_fab.cluster import Node
from exlb_fab.errors import UnreachableError
from exlb_fab.facts import Facts, Survey
from exlb_fab.planning import Desired, Plan, PlanError
from tests.unit.test_planning import (
    DESIRED,
    FILES,
    KEEPALIVED_TEXTS,
    RUNNING,
    STOPPED,
    THREE,
    actions,
    differing,
    names,
    survey,
)


def rekeyed(text: str) -> str:
    return text.replace("virtual_router_id 68", "virtual_router_id 69")


def pushed_onto(texts: Mapping[int, str], chosen: Sequence[int] = (1, 2, 3), holders: Sequence[int] = (1,)) -> Plan:
    """Plan a push onto nodes that have these keepalived.conf files."""
    found = survey(differing(*texts), holders)
    active = {THREE.nodes[number - 1]: text for number, text in texts.items() if number in chosen}
    plan = planning.plan(THREE, {node: DESIRED[node] for node in THREE.nodes if node.index + 1 in chosen}, found)
    return transitions.announced(plan, THREE, active, found)


def old(edit: Callable[[str], str], *numbers: int) -> dict[int, str]:
    """Return what nodes run that have another file than they should."""
    return {number: edit(KEEPALIVED_TEXTS[THREE.nodes[number - 1]]) for number in numbers or (1, 2, 3)}


def test_change_that_nodes_survive_together_goes_one_by_one_without_a_word() -> None:
    plan = pushed_onto(old(lambda text: text.replace("fall 2", "fall 3")))
    assert actions(plan) == [["lb2 reload file"], ["lb3 reload file"], ["lb1 reload file"]]
    assert (plan.notices, plan.asks, plan.apart) == ((), False, False)


@pytest.mark.parametrize("holder", [1, 2, 3])
def test_nodes_that_would_not_hear_each_other_stop_until_the_holder_has_changed(holder: int) -> None:
    plan = pushed_onto(old(rekeyed), holders=[holder])
    others = [number for number in (1, 2, 3) if number != holder]
    assert actions(plan) == [
        [f"lb{number} stop" for number in others],
        [f"lb{holder} reload file"],
        [f"lb{number} start file" for number in others],
    ]
    assert (plan.asks, plan.apart) == (True, True)
    assert [each.node.name for each in plan.nodes] == ["lb1", "lb2", "lb3"]


def test_proxy_of_a_node_whose_keepalived_stops_is_left_alone_until_its_own_turn() -> None:
    plan = pushed_onto(old(rekeyed))
    assert [[each.proxy.action for each in wave] for wave in plan.waves] == [["none", "none"], ["none"], ["none"] * 2]
    assert [each.changes for each in plan.waves[0]] == [(), ()]


@pytest.mark.parametrize("holders", [(), (1, 3)], ids=["nobody", "two"])
def test_nodes_that_would_not_hear_each_other_change_all_at_once_where_not_one_holds_the_vip(
    holders: tuple[int, ...],
) -> None:
    plan = pushed_onto(old(rekeyed), holders=holders)
    assert actions(plan) == [["lb1 reload file", "lb2 reload file", "lb3 reload file"]]
    assert (plan.asks, plan.apart) == (False, True)
    assert "all nodes change at once" in plan.notices[0]


def test_change_that_leaves_a_running_node_deaf_is_refused() -> None:
    with pytest.raises(PlanError, match="lb3 would not hear lb1, lb2 any more"):
        pushed_onto(old(rekeyed, 1, 2), chosen=[1, 2])


def stopped_keepalived(*numbers: int) -> dict[int, Facts]:
    """Return the facts of nodes with another file, whose keepalived does not run."""
    units = {"haproxy": RUNNING, "keepalived": STOPPED}
    return {number: replace(facts, units=units) for number, facts in differing(*numbers).items()}


def test_change_that_leaves_a_stopped_node_out_is_none_of_its_business() -> None:
    found = survey({**differing(1, 2), **stopped_keepalived(3)}, [1])
    chosen = {node: DESIRED[node] for node in THREE.nodes[:2]}
    texts = {THREE.nodes[number - 1]: text for number, text in old(rekeyed, 1, 2).items()}
    plan = transitions.announced(planning.plan(THREE, chosen, found), THREE, texts, found)
    assert actions(plan) == [["lb2 stop"], ["lb1 reload file"], ["lb2 start file"]]


@pytest.mark.parametrize(
    ("running", "stopped", "holders", "expected"),
    [
        ((1,), (2, 3), (1,), [["lb1 reload file"], ["lb2 start file", "lb3 start file"]]),
        ((), (2, 3), (1,), [["lb2 start file"], ["lb3 start file"]]),
        ((), (3,), (1,), [["lb3 start file"]]),
        ((1, 2), (3,), (1,), [["lb2 stop"], ["lb1 reload file"], ["lb2 start file", "lb3 start file"]]),
    ],
    ids=["others stopped, holder old", "holder new", "one is left", "one of the others was stopped"],
)
def test_interrupted_change_goes_on_where_it_was(
    running: tuple[int, ...], stopped: tuple[int, ...], holders: tuple[int, ...], expected: list[list[str]]
) -> None:
    found = survey({**differing(*running), **stopped_keepalived(*stopped)}, holders)
    texts = {THREE.nodes[number - 1]: text for number, text in old(rekeyed, *running, *stopped).items()}
    plan = transitions.announced(planning.plan(THREE, DESIRED, found), THREE, texts, found)
    assert actions(plan) == expected


def test_first_configuration_makes_nobody_deaf() -> None:
    plan = pushed_onto(dict.fromkeys((1, 2, 3), "global_defs {\n    router_id LVS_DEVEL\n}\n"))
    assert (names(plan), plan.notices) == ([["lb2"], ["lb3"], ["lb1"]], ())


def test_node_that_could_not_be_asked_is_named_where_it_would_not_hear_the_others() -> None:
    found = survey(differing(1, 2, 3), [1])
    gone = THREE.nodes[2]
    partial = Survey({node: facts for node, facts in found.facts.items() if node != gone}, {gone: UnreachableError("")})
    texts = {THREE.nodes[number - 1]: text for number, text in old(rekeyed, 1, 2).items()}
    chosen = {node: DESIRED[node] for node in THREE.nodes[:2]}
    plan = transitions.announced(planning.plan(THREE, chosen, partial), THREE, texts, partial)
    assert "lb3 cannot be asked: it must not come back before it has been pushed to" in plan.notices[0]


def test_largest_interval_counts_old_or_new() -> None:
    assert pushed_onto(old(lambda text: text.replace("advert_int 1", "advert_int 4"))).advert_seconds == 4
    assert pushed_onto(old(rekeyed)).advert_seconds == 1


def test_no_notice_shows_a_password() -> None:
    plan = pushed_onto(old(lambda text: text.replace("advert_int 1\n", "advert_int 1\n    auth_pass geheim\n")))
    assert "auth_pass" in plan.notices[0]
    assert "geheim" not in plan.notices[0]


def test_reload_that_cannot_bring_a_change_about_becomes_a_restart_and_says_why() -> None:
    plan = pushed_onto(old(lambda text: f"instance blue\n{text}"))
    assert actions(plan) == [["lb2 restart file"], ["lb3 restart file"], ["lb1 restart file"]]
    assert "a reload cannot bring it about: instance" in plan.nodes[0].keepalived.why
    assert plan.nodes[0].keepalived == plan.waves[-1][0].keepalived


def test_restart_costs_a_word_only_on_the_holder() -> None:
    found = survey(holders=[2])
    plan = planning.restart(THREE, THREE.nodes, ["keepalived"], found)
    assert len(transitions.announced(plan, THREE, {}, found).notices) == 1
    nobody = survey()
    plan = planning.restart(THREE, THREE.nodes, ["keepalived"], nobody)
    assert transitions.announced(plan, THREE, {}, nobody).notices == ()


# Who joins, and who leaves


def without_peer(number: int) -> Callable[[str], str]:
    return lambda text: text.replace(f"        {THREE.nodes[number - 1].address}\n", "")


def test_peer_that_joins_starts_last() -> None:
    found = survey({**differing(1, 3), **stopped_keepalived(2)}, [1])
    texts = {THREE.nodes[number - 1]: text for number, text in old(without_peer(2), 1, 3).items()}
    plan = transitions.announced(planning.plan(THREE, DESIRED, found), THREE, texts, found)
    assert actions(plan) == [["lb3 reload file"], ["lb1 reload file"], ["lb2 start file"]]


@pytest.mark.parametrize("joiner", [2, 3])
def test_peer_to_which_one_outside_of_the_plan_does_not_send_is_not_started(joiner: int) -> None:
    found = survey({**differing(1), **stopped_keepalived(joiner)}, [1])
    chosen = {node: DESIRED[node] for node in THREE.nodes if node.name == f"lb{joiner}"}
    plan = planning.plan(THREE, chosen, found)
    outside = transitions.outside(plan, found)
    assert [node.name for node in outside] == [f"lb{number}" for number in (1, 2, 3) if number != joiner]
    heard = {node: KEEPALIVED_TEXTS[node] for node in outside}
    transitions.announced(plan, THREE, heard, found)
    unheard = {**heard, THREE.nodes[0]: without_peer(joiner)(KEEPALIVED_TEXTS[THREE.nodes[0]])}
    with pytest.raises(PlanError, match=f"lb1 does not send to lb{joiner} yet"):
        transitions.announced(plan, THREE, unheard, found)


@pytest.mark.parametrize("edit", ["virtual_router_id 69", "virtual_router_id 68\n    auth_pass geheim"])
def test_keepalived_is_not_started_on_a_file_on_which_it_would_not_hear_one_outside_of_the_plan(edit: str) -> None:
    found = survey(stopped_keepalived(2), [1])
    plan = planning.plan(THREE, {THREE.nodes[1]: DESIRED[THREE.nodes[1]]}, found)
    texts = {node: KEEPALIVED_TEXTS[node] for node in transitions.outside(plan, found)}
    transitions.announced(plan, THREE, texts, found)
    texts[THREE.nodes[2]] = texts[THREE.nodes[2]].replace("virtual_router_id 68", edit)
    with pytest.raises(PlanError, match="lb2 and lb3 would not hear each other") as caught:
        transitions.announced(plan, THREE, texts, found)
    assert "geheim" not in caught.value.message


def test_reasons_of_a_file_that_is_another_altogether_are_not_all_listed() -> None:
    others = "".join(
        f"    smtp_{word} 1\n" for word in ("server", "connect_timeout", "alert", "helo_name", "a", "b", "c", "d")
    )
    plan = pushed_onto(
        old(lambda text: text.replace("router_id 68", "router_id 69").replace("defs {\n", f"defs {{\n{others}", 1))
    )
    (notice,) = plan.notices
    assert "virtual_router_id 69 -> 68" in notice
    assert "and 1 more)" in notice
    assert notice.count("smtp_") == 7


def test_peers_that_leave_are_named_in_the_plural() -> None:
    two = "unicast_peer {\n        198.51.100.14\n        198.51.100.15\n"
    plan = pushed_onto(old(lambda text: text.replace("unicast_peer {\n", two)))
    assert "198.51.100.14, 198.51.100.15 are no peers any more: keepalived is stopped there first" in plan.notices[0]


def test_peer_that_leaves_is_named_and_asked_for() -> None:
    plan = pushed_onto(old(lambda text: text.replace("unicast_peer {\n", "unicast_peer {\n        198.51.100.14\n")))
    assert "198.51.100.14 is no peer any more: keepalived is stopped there first" in plan.notices[0]
    assert [str(node.address) for node in plan.leaving] == ["198.51.100.14"]
    assert (plan.asks, actions(plan)[-1]) == (True, ["lb1 reload file"])


def templated(edit: Callable[[Node, str], str]) -> Plan:
    """Plan a push of keepalived.conf files that a template of the operator's has made."""
    desired = {
        node: Desired(
            tuple(replace(file, text=edit(node, file.text)) if file.kind == "keepalived" else file for file in each)
        )
        for node, each in FILES.items()
    }
    found = survey(differing(1, 2, 3), [1])
    return transitions.announced(planning.plan(THREE, desired, found), THREE, KEEPALIVED_TEXTS, found)


def test_node_that_is_not_in_the_list_of_another_is_refused() -> None:
    gone = f"        {THREE.nodes[1].address}\n"
    with pytest.raises(PlanError, match="lb3 would not send to lb2, and both would hold"):
        templated(lambda node, text: text.replace(gone, "") if node.name == "lb3" else text)


def test_peers_of_a_network_of_their_own_are_compared_with_the_addresses_that_are_sent_from() -> None:
    plan = templated(
        lambda _, text: text.replace(" 198.51.100.1", " 198.18.0.1").replace("198.18.0.100", "198.51.100.100")
    )
    assert plan.apart


def test_option_of_one_peer_makes_nobody_a_stranger() -> None:
    first = f"        {THREE.nodes[0].address}\n"
    plan = templated(lambda _, text: text.replace(first, first.replace("\n", " min_ttl 1\n")))
    assert actions(plan) == [["lb2 stop", "lb3 stop"], ["lb1 reload file"], ["lb2 start file", "lb3 start file"]]
