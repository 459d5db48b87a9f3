"""Desired files + facts -> what changes on each node, in which order, and which nodes are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_interface

import pytest

from exlb_fab import planning
from exlb_fab.cluster import Cluster, Secret, Stats
from exlb_fab.errors import UnreachableError
from exlb_fab.facts import Address, Facts, FileFact, Socket, Survey, Unit
from exlb_fab.planning import NodeContradictionError, NodePlan, Plan, PlanError, UnitChange
from exlb_fab.platforms import PROGRAMS, parse_version
from exlb_fab.proxies import ProxyState, Server
from exlb_fab.rendering import File, Templates, render
from tests.fake import cluster, converged, fact, holding

THREE = cluster()
TEMPLATES = Templates()
DESIRED = {node: render(THREE, node, TEMPLATES) for node in THREE.nodes}
RUNNING = Unit("loaded", "active", "running", "enabled")
STOPPED = Unit("loaded", "inactive", "dead", "enabled")
FAILED = Unit("loaded", "failed", "failed", "enabled")


def survey(changes: Mapping[int, Facts] | None = None, holders: Sequence[int] = ()) -> Survey:
    """Return what was found on three converged nodes, but for some; `holders` have the VIP."""
    found = {}
    for number, node in enumerate(THREE.nodes, 1):
        facts = (changes or {}).get(number) or converged(THREE, node, DESIRED[node])
        found[node] = holding(THREE, facts) if number in holders else facts
    return Survey(found, {})


def other(number: int, **changes: object) -> dict[int, Facts]:
    """Return the facts of one node that differs."""
    node = THREE.nodes[number - 1]
    return {number: converged(THREE, node, DESIRED[node], **changes)}


def all_differ() -> dict[int, Facts]:
    """Return the facts of three nodes each of which has something to do."""
    return {number: facts for each in (1, 2, 3) for number, facts in other(each, proxy_state=None).items()}


def planned(number: int, **changes: object) -> NodePlan:
    """Return the plan of the node that differs; the others have none."""
    plan = planning.plan(THREE, DESIRED, survey(other(number, **changes)))
    assert [each.empty for each in plan.nodes] == [place + 1 != number for place in range(3)]
    return plan.nodes[number - 1]


def names(plan: Plan) -> list[list[str]]:
    return [[each.node.name for each in wave] for wave in plan.waves]


# What changes


def test_converged_nodes_have_an_empty_plan() -> None:
    plan = planning.plan(THREE, DESIRED, survey(holders=[1]))
    assert plan.empty
    assert [each.summary() for each in plan.nodes] == ["no changes"] * 3


PROXY_FILE, KEEPALIVED_FILE = DESIRED[THREE.nodes[1]]
FACTS = {file.path: fact(file) for file in (PROXY_FILE, KEEPALIVED_FILE)}


def files(file: File, found: FileFact) -> dict[str, FileFact]:
    return {**FACTS, file.path: found}


@pytest.mark.parametrize(
    ("found", "changes", "actions"),
    [
        pytest.param(
            {"files": files(PROXY_FILE, FileFact("absent"))},
            [(PROXY_FILE, "missing")],
            ("reload", "none"),
            id="missing file",
        ),
        pytest.param(
            {"files": files(KEEPALIVED_FILE, replace(fact(KEEPALIVED_FILE), sha256="00"))},
            [(KEEPALIVED_FILE, "content")],
            ("none", "reload"),
            id="other content",
        ),
        pytest.param(
            {"files": files(PROXY_FILE, replace(fact(PROXY_FILE), mode=0o666))},
            [(PROXY_FILE, "mode or owner")],
            ("reload", "none"),
            id="other mode",
        ),
        pytest.param(
            {"files": files(KEEPALIVED_FILE, replace(fact(KEEPALIVED_FILE), owner="ann:root"))},
            [(KEEPALIVED_FILE, "mode or owner")],
            ("none", "reload"),
            id="other owner",
        ),
        pytest.param(
            {"files": files(PROXY_FILE, FileFact("symbolic link", 0o777, "root:root"))},
            [(PROXY_FILE, "content")],
            ("reload", "none"),
            id="a link, which the node then refuses to replace",
        ),
        pytest.param(
            {"units": {"haproxy": FAILED, "keepalived": RUNNING}, "proxy_state": None},
            [],
            ("start", "none"),
            id="proxy failed",
        ),
        pytest.param(
            {"units": {"haproxy": RUNNING, "keepalived": STOPPED}},
            [],
            ("none", "start"),
            id="keepalived stopped",
        ),
        pytest.param(
            {
                "files": files(KEEPALIVED_FILE, FileFact("absent")),
                "units": {"haproxy": RUNNING, "keepalived": STOPPED},
            },
            [(KEEPALIVED_FILE, "missing")],
            ("none", "start"),
            id="stopped and without its file",
        ),
        pytest.param(
            {"proxy_state": ProxyState("0123456789abcdef", ())},
            [],
            ("reload", "none"),
            id="proxy runs another digest than its file has",
        ),
        pytest.param({"proxy_state": ProxyState(None, ())}, [], ("reload", "none"), id="proxy runs what is not ours"),
        pytest.param({"proxy_state": None}, [], ("reload", "none"), id="admin socket silent"),
        pytest.param(
            {"files": dict.fromkeys(FACTS, FileFact("absent")), "units": {"haproxy": RUNNING, "keepalived": RUNNING}},
            [(PROXY_FILE, "missing"), (KEEPALIVED_FILE, "missing")],
            ("reload", "reload"),
            id="both files",
        ),
    ],
)
def test_plan_mends_only_what_differs(
    found: dict[str, object], changes: list[tuple[File, str]], actions: tuple[str, str]
) -> None:
    plan = planned(2, **found)
    assert [(change.file, change.reason) for change in plan.changes] == changes
    assert tuple(unit.action for unit in plan.units) == actions


@pytest.mark.parametrize(("seconds", "action"), [(-60.0, "none"), (0.9, "none"), (1.6, "reload"), (3600.0, "reload")])
def test_unit_whose_file_is_newer_than_what_it_runs_is_reloaded(seconds: float, action: str) -> None:
    units = dict.fromkeys(("haproxy", "keepalived"), replace(RUNNING, changed=1795227762.0))
    newer = replace(fact(KEEPALIVED_FILE), changed=1795227762.0 + seconds)
    plan = planning.plan(THREE, DESIRED, survey(other(2, units=units, files=files(KEEPALIVED_FILE, newer))))
    assert plan.nodes[1].keepalived.action == action
    assert plan.nodes[1].proxy.action == "none"


@pytest.mark.parametrize(
    ("check", "status", "serving"), [("L7OK", "UP", True), ("L4CON", "DOWN", False), ("INI", "UP 1/2", False)]
)
def test_node_serves_when_its_proxy_has_somebody_to_give_a_connection_to(
    check: str, status: str, serving: bool
) -> None:
    state = ProxyState(None, (Server("kube-master", "a", "", status, check, None, ""),))
    assert planned(2, proxy_state=state).serving is serving
    assert not planned(2, proxy_state=None).serving


def test_unit_that_is_just_reloading_counts_as_running() -> None:
    units = {"haproxy": Unit("loaded", "reloading", "reload", "enabled"), "keepalived": RUNNING}
    assert planning.plan(THREE, DESIRED, survey(other(1, units=units))).empty


def test_summary_says_what_happens_and_why() -> None:
    units = {"haproxy": FAILED, "keepalived": RUNNING}
    plan = planned(2, units=units, files=files(KEEPALIVED_FILE, FileFact("absent")))
    assert plan.summary() == (
        "write /etc/keepalived/keepalived.conf (missing), start haproxy (it is failed), "
        "reload keepalived (its file changes)"
    )


def test_nodes_that_were_not_chosen_are_not_in_the_plan() -> None:
    chosen = {node: DESIRED[node] for node in THREE.nodes[1:]}
    found = {number: facts for each in (1, 3) for number, facts in other(each, proxy_state=None).items()}
    plan = planning.plan(THREE, chosen, survey(found))
    assert [each.node.name for each in plan.nodes] == ["lb2", "lb3"]
    assert names(plan) == [["lb3"]]


# The order


@pytest.mark.parametrize(
    ("holders", "expected"),
    [
        ([], [["lb1", "lb2", "lb3"]]),
        ([1], [["lb2"], ["lb3"], ["lb1"]]),
        ([2], [["lb1"], ["lb3"], ["lb2"]]),
        ([3], [["lb1"], ["lb2"], ["lb3"]]),
        ([1, 3], [["lb1", "lb2", "lb3"]]),
        ([1, 2, 3], [["lb1", "lb2", "lb3"]]),
    ],
    ids=["nobody", "master", "backup", "last backup", "split brain", "all"],
)
def test_one_holder_comes_last_and_all_go_at_once_where_no_order_protects_anything(
    holders: list[int], expected: list[list[str]]
) -> None:
    plan = planning.plan(THREE, DESIRED, survey(all_differ(), holders))
    assert names(plan) == expected
    assert [each.node.name for each in plan.nodes] == ["lb1", "lb2", "lb3"]


def test_nodes_go_one_by_one_where_the_holder_may_be_one_that_could_not_be_asked() -> None:
    found = survey(all_differ())
    gone = THREE.nodes[0]
    asked = {node: facts for node, facts in found.facts.items() if node != gone}
    partial = Survey(asked, {gone: UnreachableError("lb1: gone")})
    assert names(planning.plan(THREE, {node: DESIRED[node] for node in asked}, partial)) == [["lb2"], ["lb3"]]


def test_holder_that_does_not_change_protects_the_others_all_the_same() -> None:
    found = {number: facts for each in (2, 3) for number, facts in other(each, proxy_state=None).items()}
    assert names(planning.plan(THREE, DESIRED, survey(found, [1]))) == [["lb2"], ["lb3"]]


def test_restart_restarts_only_the_units_that_were_asked_for() -> None:
    plan = planning.restart(THREE, THREE.nodes, ["keepalived"], survey(holders=[2]))
    assert names(plan) == [["lb1"], ["lb3"], ["lb2"]]
    assert plan.nodes[0].units == (UnitChange("haproxy", "none", ""), UnitChange("keepalived", "restart", "asked for"))


def test_restart_refuses_nodes_that_are_not_fit() -> None:
    found = survey(other(2, programs=frozenset()))
    with pytest.raises(PlanError, match="lb2: not installed"):
        planning.restart(THREE, THREE.nodes, ["keepalived"], found)


def test_restart_of_no_node_has_no_wave() -> None:
    assert planning.restart(THREE, [], ["keepalived"], survey()).waves == ()


# Who is refused


def refused(found: Survey, *, of: Cluster = THREE, chosen: Sequence[int] = (1, 2, 3)) -> str:
    desired = {node: render(of, node, TEMPLATES) for node in of.nodes if node.index + 1 in chosen}
    with pytest.raises(PlanError) as caught:
        planning.plan(of, desired, found)
    return f"{caught.value.message}\nnext: {caught.value.hint}"


def test_missing_programs_are_all_named_and_lead_to_install() -> None:
    found = {**other(1, programs=frozenset(PROGRAMS)), **other(3, programs=frozenset({"haproxy"}))}
    assert refused(survey(found)) == (
        "lb1: not installed: haproxy\n"
        "lb3: not installed: keepalived, killall, curl, socat, ip, ss, ping\n"
        "next: exlb install"
    )


def test_keepalived_that_cannot_validate_is_refused() -> None:
    old = other(2, keepalived_version=parse_version("Keepalived v1.3.5 (03/19,2017)"))
    assert "lb2: keepalived 1.3.5 cannot validate a configuration" in refused(survey(old))


def test_keepalived_2_0_4_is_the_first_that_will_do() -> None:
    assert "2.0.3" in refused(survey(other(2, keepalived_version=parse_version("2.0.3"))))
    assert planning.plan(THREE, DESIRED, survey(other(2, keepalived_version=parse_version("2.0.4")))).empty


@pytest.mark.parametrize("port", [8443, 10080])
def test_port_that_our_own_proxy_has_is_free(port: int) -> None:
    ours = other(1, sockets=(Socket(None, port, "haproxy"),))
    assert planning.plan(THREE, DESIRED, survey(ours)).empty


@pytest.mark.parametrize(
    ("socket", "words"),
    [
        (Socket(None, 8443, "nginx"), "lb2: port 8443 is taken by nginx"),
        (Socket("198.51.100.12", 8443, "nginx"), "lb2: port 8443 is taken by nginx"),
        (Socket(None, 8443, None), "lb2: port 8443 is taken by another process"),
        (Socket("127.0.0.1", 10080, "java"), "lb2: port 10080 is taken by java"),
        (Socket(None, 10080, "java"), "lb2: port 10080 is taken by java"),
    ],
)
def test_port_that_another_process_has_is_refused_and_named(socket: Socket, words: str) -> None:
    assert words in refused(survey(other(2, sockets=(socket,))))


def test_port_on_an_address_that_the_proxy_does_not_bind_is_free() -> None:
    elsewhere = other(2, sockets=(Socket("198.51.100.12", 10080, "java"), Socket(None, 8444, "java")))
    assert planning.plan(THREE, DESIRED, survey(elsewhere)).empty
    public = replace(THREE, stats=Stats(10080, "admin", Secret("x")))
    assert "port 10080 is taken by java" in refused(survey(elsewhere), of=public)


def test_masked_units_are_refused_and_named() -> None:
    units = {"haproxy": RUNNING, "keepalived": Unit("masked", "inactive", "dead", "masked")}
    words = refused(survey(other(3, units=units)))
    assert words == "masked units: lb3: keepalived\nnext: exlb exec --sudo -- systemctl unmask keepalived"


def contradicted(found: Survey) -> NodeContradictionError:
    with pytest.raises(NodeContradictionError) as caught:
        planning.plan(THREE, DESIRED, found)
    return caught.value


def test_interface_that_is_not_there_is_a_fault_of_the_environment_file() -> None:
    renamed = (Address("lo", ip_interface("127.0.0.1/8")), Address("ens3", ip_interface("198.51.100.12/24")))
    error = contradicted(survey(other(2, addresses=renamed)))
    assert error.exit_code == 3
    assert error.message == "lb2: VIP_IF=eth0: no such interface with an address; it has ens3"
    assert error.hint == "correct VIP_IF or MASTER_VIP in environment.sh"


@pytest.mark.parametrize(
    ("addresses", "network"),
    [
        (["203.0.113.7/24"], "203.0.113.0/24"),
        (["198.51.100.12/28"], "198.51.100.0/28"),
        (["2001:db8::1/64"], "no IPv4 network"),
        (["198.51.100.100/24"], "no IPv4 network"),
    ],
    ids=["another", "too small", "only IPv6", "only the VIP itself"],
)
def test_vip_outside_of_the_network_of_its_interface_is_refused(addresses: list[str], network: str) -> None:
    found = tuple(Address("eth0", ip_interface(address)) for address in addresses)
    message = contradicted(survey(other(3, addresses=found))).message
    assert message == f"lb3: MASTER_VIP=198.51.100.100 is outside of the network of eth0 ({network})"


def test_one_matching_network_of_several_is_enough() -> None:
    found = (Address("eth0", ip_interface("203.0.113.7/24")), Address("eth0", ip_interface("198.51.100.13/24")))
    assert planning.plan(THREE, DESIRED, survey(other(3, addresses=found))).empty


@pytest.mark.parametrize(
    "fault",
    [
        {"programs": frozenset()},
        {"keepalived_version": parse_version("1.3.5")},
        {"sockets": (Socket(None, 8443, "nginx"),)},
        {"addresses": ()},
    ],
    ids=["programs", "keepalived", "port", "interface"],
)
def test_only_chosen_nodes_are_refused(fault: dict[str, object]) -> None:
    found = survey(other(3, **fault))
    with pytest.raises((PlanError, NodeContradictionError)):
        planning.plan(THREE, DESIRED, found)
    assert planning.plan(THREE, {node: DESIRED[node] for node in THREE.nodes[:2]}, found).empty


def test_nodes_that_did_not_answer_and_were_not_chosen_do_not_matter() -> None:
    found = survey(holders=[1])
    gone = THREE.nodes[2]
    partial = Survey(
        {node: facts for node, facts in found.facts.items() if node != gone}, {gone: UnreachableError("lb3: gone")}
    )
    assert planning.plan(THREE, {node: DESIRED[node] for node in THREE.nodes[:2]}, partial).empty


# Changes that nodes old and new do not survive together


KEEPALIVED_TEXTS = {
    node: next(file.text for file in DESIRED[node] if file.kind == "keepalived") for node in THREE.nodes
}


def rekeyed(text: str) -> str:
    return text.replace("virtual_router_id 68", "virtual_router_id 69")


def differing(*numbers: int) -> dict[int, Facts]:
    """Return the facts of nodes that have another keepalived.conf."""
    return {
        each: facts
        for number in numbers
        for each, facts in other(
            number, files=files(KEEPALIVED_FILE, replace(fact(KEEPALIVED_FILE), sha256="00"))
        ).items()
    }


def brought_together(texts: Mapping[int, str], chosen: Sequence[int] = (1, 2, 3)) -> Plan:
    """Plan a push onto nodes that have these keepalived.conf files, lb1 holding the VIP."""
    found = survey(differing(*texts), [1])
    active = {THREE.nodes[number - 1]: text for number, text in texts.items() if number in chosen}
    plan = planning.plan(THREE, {node: DESIRED[node] for node in THREE.nodes if node.index + 1 in chosen}, found)
    return planning.together(plan, THREE, active, found)


def test_nodes_that_would_not_hear_each_other_change_all_at_once_and_the_cost_is_told() -> None:
    plan = brought_together({number: rekeyed(KEEPALIVED_TEXTS[THREE.nodes[number - 1]]) for number in (1, 2, 3)})
    assert names(plan) == [["lb1", "lb2", "lb3"]]
    assert plan.notice is not None
    assert "clients may lose 198.51.100.100 for one election, up to 4 s" in plan.notice


def test_change_that_nodes_survive_together_goes_one_by_one_without_a_notice() -> None:
    texts = {number: KEEPALIVED_TEXTS[THREE.nodes[number - 1]].replace("fall 2", "fall 3") for number in (1, 2, 3)}
    plan = brought_together(texts)
    assert names(plan) == [["lb2"], ["lb3"], ["lb1"]]
    assert plan.notice is None


def test_change_that_leaves_a_running_node_deaf_is_refused() -> None:
    texts = {number: rekeyed(KEEPALIVED_TEXTS[THREE.nodes[number - 1]]) for number in (1, 2, 3)}
    with pytest.raises(PlanError, match="lb3 would not hear lb1, lb2 any more"):
        brought_together(texts, chosen=[1, 2])


def test_file_of_the_package_without_an_instance_makes_nobody_deaf() -> None:
    plan = brought_together(dict.fromkeys((1, 2, 3), "global_defs {\n    router_id LVS_DEVEL\n}\n"))
    assert (names(plan), plan.notice) == ([["lb2"], ["lb3"], ["lb1"]], None)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("virtual_router_id 68", "virtual_router_id 69", False),
        ("advert_int 1", "advert_int 3", False),
        ("    198.51.100.13\n", "    198.51.100.14\n", False),
        ("        198.51.100.100\n", "        198.51.100.101\n", False),
        ("        198.51.100.100\n", "        198.51.100.100/24\n", False),
        ("unicast_src_ip 198.51.100.11", "unicast_src_ip 198.51.100.99", False),
        ("advert_int 1\n", "advert_int 1\n    auth_pass x\n", False),
        ("priority 120", "priority 119", True),
        ("weight -60", "weight -50", True),
        ("state MASTER", "state BACKUP", True),
        ("router_id lb-master-lb1", "router_id other", True),
        ("        198.51.100.12\n        198.51.100.13\n", "        198.51.100.13\n        198.51.100.12\n", True),
        ("    advert_int 1\n", "\tadvert_int   1\n", True),
    ],
)
def test_identity_is_what_a_receiver_discards_adverts_for(old: str, new: str, same: bool) -> None:
    text = KEEPALIVED_TEXTS[THREE.nodes[0]]
    assert text.count(old) == 1
    assert (planning.identity(text) == planning.identity(text.replace(old, new))) is same
