"""Desired files + facts -> what changes on each node, in which order, and which nodes are refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from exlb_fab import planning, transitions
from exlb_fab.cluster import ANY_IPV4, Bind, Cluster, Node, Secret, Vip
from exlb_fab.errors import UnreachableError
from exlb_fab.facts import Address, Facts, FileFact, Generations, KeptFile, Socket, Survey, Unit
from exlb_fab.planning import Desired, NodeContradictionError, NodePlan, Plan, PlanError, UnitChange
from exlb_fab.platforms import PROGRAMS, parse_version
from exlb_fab.proxies import ProxyState, Server
from exlb_fab.rendering import File, Templates, render
from tests.fake import PROXYING, STATS, TARGET, VRRP, cluster, converged, fact, holding

THREE = cluster()
TEMPLATES = Templates()
FILES = {node: render(THREE, node, TEMPLATES, TARGET).files for node in THREE.nodes}
DESIRED = {node: Desired(files) for node, files in FILES.items()}
KEEPALIVED_TEXTS = {node: next(file.text for file in FILES[node] if file.kind == "keepalived") for node in THREE.nodes}
RUNNING = Unit("loaded", "active", "running", "enabled")
STOPPED = Unit("loaded", "inactive", "dead", "enabled")
FAILED = Unit("loaded", "failed", "failed", "enabled")


def survey(changes: Mapping[int, Facts] | None = None, holders: Sequence[int] = ()) -> Survey:
    """Return what was found on three converged nodes, but for some; `holders` have the VIP."""
    found = {}
    for number, node in enumerate(THREE.nodes, 1):
        facts = (changes or {}).get(number) or converged(THREE, node, FILES[node])
        found[node] = holding(THREE, facts) if number in holders else facts
    return Survey(found, {})


def other(number: int, **changes: object) -> dict[int, Facts]:
    """Return the facts of one node that differs."""
    node = THREE.nodes[number - 1]
    return {number: converged(THREE, node, FILES[node], **changes)}


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


PROXY_FILE, KEEPALIVED_FILE = FILES[THREE.nodes[1]]
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
            {"files": files(KEEPALIVED_FILE, replace(fact(KEEPALIVED_FILE), owner="1000:0"))},
            [(KEEPALIVED_FILE, "mode or owner")],
            ("none", "reload"),
            id="other owner",
        ),
        pytest.param(
            {"files": files(PROXY_FILE, FileFact("symbolic link", 0o777, "0:0"))},
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


@pytest.mark.parametrize(
    ("rows", "serving"),
    [
        ([("kube-master", "DOWN"), ("ingress-node", "UP")], False),
        ([("kube-master", "UP"), ("ingress-node", "DOWN")], True),
        ([("somebody-elses", "UP")], True),
        ([("somebody-elses", "DOWN")], False),
    ],
)
def test_node_whose_other_listeners_alone_are_up_does_not_serve(rows: list[tuple[str, str]], serving: bool) -> None:
    servers = tuple(Server(listener, "a", "", status, "L4OK", None, "") for listener, status in rows)
    assert planned(2, proxy_state=ProxyState(None, servers)).serving is serving


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
    desired = {
        node: Desired(render(of, node, TEMPLATES, TARGET).files) for node in of.nodes if node.index + 1 in chosen
    }
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
        (Socket("0.0.0.0", 10080, "java"), "lb2: port 10080 is taken by java"),
    ],
)
def test_port_that_another_process_has_is_refused_and_named(socket: Socket, words: str) -> None:
    assert words in refused(survey(other(2, sockets=(socket,))))


def test_port_on_an_address_that_the_proxy_does_not_bind_is_free() -> None:
    elsewhere = other(2, sockets=(Socket("198.51.100.12", 10080, "java"), Socket(None, 8444, "java")))
    assert planning.plan(THREE, DESIRED, survey(elsewhere)).empty
    public = replace(THREE, stats=replace(STATS, bind=ANY_IPV4, password=Secret("x")))
    assert "port 10080 is taken by java" in refused(survey(elsewhere), of=public)


def test_port_that_is_taken_in_the_other_family_alone_is_free() -> None:
    elsewhere = other(2, sockets=(Socket("::", 8443, "java"), Socket("2001:db8::12", 8443, "java")))
    assert planning.plan(THREE, DESIRED, survey(elsewhere)).empty
    six = replace(THREE, extra_vips=(Vip(ip_address("2001:db8::100"), None),))
    networks = tuple(Address("eth0", ip_interface(each)) for each in ("198.51.100.12/24", "2001:db8::12/64"))
    everywhere = {
        node: replace(facts, addresses=networks, sockets=(Socket("2001:db8::12", 8443, "java"),))
        for node, facts in survey().facts.items()
    }
    assert refused(Survey(everywhere, {}), of=six).startswith("lb1: port 8443 is taken by java\nlb2: port 8443 is ")


V6 = Vip(ip_address("2001:db8::100"), 64)


@pytest.mark.parametrize(
    ("bind", "expected"),
    [
        ("all", ["0.0.0.0", "::"]),
        ("vip", ["198.51.100.100", "2001:db8::100", "127.0.0.1"]),
        ("node", ["198.51.100.100", "2001:db8::100", "198.51.100.12"]),
    ],
)
def test_proxy_of_a_node_binds_what_the_file_says_and_its_statistics_page(bind: Bind, expected: list[str]) -> None:
    of = replace(THREE, proxying=replace(PROXYING, bind=bind), extra_vips=(V6,))
    found = [f"{address} {port}" for address, port in planning.binds(of, of.nodes[1])]
    assert found == [*(f"{address} 8443" for address in expected), "127.0.0.1 10080"]


BINDS_AND_FREE: Sequence[tuple[Bind, bool]] = (("vip", True), ("node", False), ("all", False))


def test_bound_to_the_vips_alone_the_proxy_may_share_its_port_with_others_of_the_node() -> None:
    taken = survey(other(2, sockets=(Socket("198.51.100.12", 8443, "kube-apiserver"),)))
    for bind, free in BINDS_AND_FREE:
        of = replace(THREE, proxying=replace(PROXYING, bind=bind))
        desired = {node: Desired(render(of, node, TEMPLATES, TARGET).files) for node in of.nodes}
        if free:
            assert not planning.plan(of, desired, taken).empty
        else:
            assert "lb2: port 8443 is taken by kube-apiserver" in refused(taken, of=of)


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
    assert error.hint == "correct VIP_IF or the VIPs in environment.sh"


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


def differing(*numbers: int) -> dict[int, Facts]:
    """Return the facts of nodes that have another keepalived.conf."""
    return {
        each: facts
        for number in numbers
        for each, facts in other(
            number, files=files(KEEPALIVED_FILE, replace(fact(KEEPALIVED_FILE), sha256="00"))
        ).items()
    }


def actions(plan: Plan) -> list[list[str]]:
    """Return what each wave does to keepalived, the node's own file or not."""
    return [
        [f"{each.node} {each.keepalived.action}{' file' if each.changes else ''}" for each in wave]
        for wave in plan.waves
    ]


# The interface that carries the VIPs, and more of them


def on(*addresses: str) -> tuple[Address, ...]:
    """Return addresses on interfaces, `INTERFACE ADDRESS/PREFIX` each."""
    pairs = [each.split() for each in ("lo 127.0.0.1/8", *addresses)]
    return tuple(Address(interface, ip_interface(address)) for interface, address in pairs)


def refusal(of: Cluster, addresses: tuple[Address, ...]) -> str:
    """Return what is said of a cluster whose lb2 has these addresses, "" if nothing."""
    facts = {of.nodes[1]: replace(survey().facts[THREE.nodes[1]], addresses=addresses)}
    try:
        planning.refuse_contradictions(of, facts)
    except NodeContradictionError as error:
        return error.message
    return ""


AUTO = replace(THREE, nodes=tuple(replace(node, interface=None) for node in THREE.nodes))


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["eth0 198.51.100.12/24"], ""),
        (["eth0 203.0.113.7/24", "bond0 198.51.100.12/24"], ""),
        (["eth0 198.51.100.12/24", "eth0 198.51.100.13/25", "eth0 198.51.100.100/32"], ""),
        (
            ["eth0 198.51.100.12/24", "eth1 198.51.100.13/24"],
            "lb2: VIP_IF=auto: not one interface whose network contains 198.51.100.100; "
            "it is in 198.51.100.0/24, 198.51.100.0/24",
        ),
        (
            ["eth0 203.0.113.7/24", "eth1 2001:db8::12/64"],
            "lb2: VIP_IF=auto: not one interface whose network contains 198.51.100.100; it is in 203.0.113.0/24",
        ),
        (
            ["eth1 2001:db8::12/64"],
            "lb2: VIP_IF=auto: not one interface whose network contains 198.51.100.100; it is in no IPv4 network",
        ),
        (
            ["eth0 198.51.100.100/24"],
            "lb2: VIP_IF=auto: not one interface whose network contains 198.51.100.100; it is in no IPv4 network",
        ),
    ],
    ids=["one", "one of two", "several addresses on one", "two", "none", "no IPv4", "the VIP itself alone"],
)
def test_interface_is_found_by_the_network_of_the_vip_or_it_is_said_why_not(
    addresses: list[str], expected: str
) -> None:
    assert refusal(AUTO, on(*addresses)) == expected


@pytest.mark.parametrize(
    ("vip", "addresses", "expected"),
    [
        ("198.51.100.20", ["eth0 198.51.100.12/24"], ""),
        (
            "203.0.113.20",
            ["eth0 198.51.100.12/24", "eth1 203.0.113.12/24"],
            "lb2: EXTRA_VIPS=203.0.113.20 is outside of the network of eth0 (198.51.100.0/24)",
        ),
        ("203.0.113.20", ["eth0 198.51.100.12/24", "eth0 203.0.113.12/24"], ""),
        ("2001:db8::20", ["eth0 198.51.100.12/24", "eth0 2001:db8::12/64"], ""),
        (
            "2001:db8::20",
            ["eth0 198.51.100.12/24", "eth0 fe80::12/64"],
            "lb2: EXTRA_VIPS=2001:db8::20 is outside of the network of eth0 (fe80::/64)",
        ),
        (
            "2001:db8::20",
            ["eth0 198.51.100.12/24", "eth0 2001:db8::20/64"],
            "lb2: EXTRA_VIPS=2001:db8::20 is outside of the network of eth0 (no IPv6 network)",
        ),
    ],
)
def test_extra_vip_outside_of_the_networks_of_its_interface_is_refused_by_its_own_name(
    vip: str, addresses: list[str], expected: str
) -> None:
    extra = (Vip(ip_address(vip), None),)
    assert refusal(replace(THREE, extra_vips=extra), on(*addresses)) == expected
    assert refusal(replace(AUTO, extra_vips=extra), on(*addresses)) == expected


# What another file names


SCRIPTED = replace(THREE, vrrp=replace(VRRP, track=("port",)))
SCRIPTED_FILES = {node: render(SCRIPTED, node, TEMPLATES, TARGET).files for node in SCRIPTED.nodes}
SCRIPT = next(file for file in SCRIPTED_FILES[SCRIPTED.nodes[0]] if file.kind == "attachment")


def scripted(absent: Sequence[File] = (), **lb2: Any) -> Plan:
    """Plan for nodes that have a script beside keepalived.conf; the facts of lb2 differ."""
    desired = {node: Desired(files, tuple(absent)) for node, files in SCRIPTED_FILES.items()}

    def facts(node: Node) -> Facts:
        return converged(SCRIPTED, node, SCRIPTED_FILES[node])

    found = {node: facts(node) for node in SCRIPTED.nodes}
    lb2["files"] = {**found[SCRIPTED.nodes[1]].files, **lb2.get("files", {})}
    found[SCRIPTED.nodes[1]] = replace(found[SCRIPTED.nodes[1]], **lb2)
    return planning.plan(SCRIPTED, desired, Survey(found, {}))


def test_attachment_that_is_in_place_is_no_change_and_one_that_is_missing_is_one_without_a_reload() -> None:
    assert scripted().empty
    plan = scripted(files={SCRIPT.path: FileFact("absent")}).nodes[1]
    assert [(change.file.path, change.reason) for change in plan.changes] == [(SCRIPT.path, "missing")]
    assert [unit.action for unit in plan.units] == ["none", "none"]
    assert plan.number == 1


def test_attachment_of_another_mode_is_put_right() -> None:
    plan = scripted(files={SCRIPT.path: replace(fact(SCRIPT), mode=0o644)}).nodes[1]
    assert [(change.file, change.reason) for change in plan.changes] == [(SCRIPT, "mode or owner")]


def test_file_that_the_node_is_not_to_have_is_removed_where_it_is_there() -> None:
    other_script = replace(SCRIPT, path="/etc/keepalived/exlb-check-old-0123456789ab.sh")
    there, gone = {other_script.path: fact(SCRIPT)}, {other_script.path: FileFact("absent")}
    found = {node: dict(gone) for node in SCRIPTED.nodes}
    desired = {node: Desired(files, (other_script,)) for node, files in SCRIPTED_FILES.items()}
    facts = {
        node: replace(each, files={**each.files, **(there if node.index == 1 else found[node])})
        for node, each in ((node, converged(SCRIPTED, node, SCRIPTED_FILES[node])) for node in SCRIPTED.nodes)
    }
    plan = planning.plan(SCRIPTED, desired, Survey(facts, {}))
    assert [each.empty for each in plan.nodes] == [True, False, True]
    assert plan.nodes[1].summary() == f"remove {other_script.path} (to be removed)"
    assert [unit.action for unit in plan.nodes[1].units] == ["none", "none"]


# Numbers of generations


def numbered(*generations: Generations, changing: Sequence[int] = (1, 2, 3)) -> list[tuple[int | None, int | None]]:
    """Return number and previous of each node's plan, of nodes that stand on these generations."""
    found = survey(differing(*changing), [1])
    facts = {
        node: replace(each, generations=kept)
        for (node, each), kept in zip(found.facts.items(), generations, strict=True)
    }
    plan = planning.plan(THREE, DESIRED, Survey(facts, {}))
    return [(each.number, each.previous) for each in plan.nodes]


NEW, ONE, SEVEN = Generations(), Generations(1, kept=(0, 1)), Generations(7, kept=(0, 6, 7))


@pytest.mark.parametrize(
    ("generations", "expected"),
    [
        ((NEW, NEW, NEW), [(1, 0)] * 3),
        ((ONE, ONE, ONE), [(2, 1)] * 3),
        ((ONE, SEVEN, NEW), [(8, 1), (8, 7), (8, 0)]),
        ((ONE, Generations(1, edited=True, kept=(0, 1)), ONE), [(3, 1), (3, 2), (3, 1)]),
        ((ONE, Generations(1, kept=(0, 1, 4)), ONE), [(5, 1)] * 3),
        ((Generations(0, edited=True, kept=(0,)), NEW, NEW), [(2, 1), (2, 0), (2, 0)]),
    ],
    ids=["first push", "second", "after pushes to some", "a hand edit", "after a rollback", "edited before"],
)
def test_number_is_the_next_one_of_all_nodes_and_previous_is_each_nodes_own(
    generations: tuple[Generations, ...], expected: list[tuple[int, int]]
) -> None:
    assert numbered(*generations) == expected


def test_nodes_that_do_not_change_have_no_number_but_their_numbers_count() -> None:
    assert numbered(ONE, SEVEN, ONE, changing=[1]) == [(8, 1), (None, None), (None, None)]


def test_hand_edit_that_is_not_overwritten_takes_no_number() -> None:
    assert numbered(ONE, Generations(1, edited=True, kept=(0, 1)), ONE, changing=[1])[0] == (2, 1)


def test_generation_that_is_gone_back_to_keeps_its_number() -> None:
    found = survey(differing(2), [1])
    back = {node: replace(desired, number=1) for node, desired in DESIRED.items()}
    facts = {node: replace(each, generations=SEVEN) for node, each in found.facts.items()}
    plan = planning.plan(THREE, back, Survey(facts, {}))
    assert [(each.number, each.previous) for each in plan.nodes] == [(None, None), (1, 7), (None, None)]
    assert plan.nodes[1].summary().startswith("back to generation 1, write ")


# Back to what was there before exlb


def original(text: str | None, *, kind: str = "proxy") -> File:
    """Return what a node had at a path, None where nothing was there."""
    path = PROXY_FILE.path if kind == "proxy" else KEEPALIVED_FILE.path
    sha256 = None if text is None else hashlib.sha256(text.encode()).hexdigest()
    return planning.kept_file(THREE, KeptFile("1", kind, path, 0o640, "0:107", sha256), text or "")


def gone_back_to(proxy: str | None, keepalived: str | None = None) -> Plan:
    """Plan a rollback of all nodes, which run exlb's files, to these; lb1 holds the VIP."""
    both = (original(proxy), original(keepalived, kind="keepalived"))
    files = tuple(file for file in both if file.known_sha256)
    desired = Desired(files, tuple(file for file in both if not file.known_sha256), 0)
    found = survey(holders=[1])
    plan = planning.plan(THREE, dict.fromkeys(THREE.nodes, desired), found)
    return transitions.announced(plan, THREE, KEEPALIVED_TEXTS, found)


def test_file_that_was_not_there_goes_and_its_unit_stops_the_holders_last() -> None:
    plan = gone_back_to(None)
    assert actions(plan) == [["lb2 stop file"], ["lb3 stop file"], ["lb1 stop file"]]
    assert {(each.proxy.action, each.proxy.why) for each in plan.nodes} == {("stop", "its file goes")}
    assert {change.reason for each in plan.nodes for change in each.changes} == {"to be removed"}
    assert "remove /etc/haproxy/haproxy.cfg (to be removed), remove" in plan.nodes[0].summary()


def test_vip_that_goes_for_good_is_announced_and_asked_for() -> None:
    plan = gone_back_to("listen web\n  bind :80,:8443\n")
    assert plan.notices == ("keepalived stops on all nodes: nobody will hold 198.51.100.100",)
    assert (plan.asks, plan.vacant, plan.apart) == (True, True, False)


def test_port_on_which_nobody_will_listen_any_more_is_announced_and_asked_for() -> None:
    plan = gone_back_to("listen web\n  bind :80\n")
    told = "nobody will listen on port 8443 of lb1, lb2, lb3 any more: clients that connect to it are refused"
    assert (plan.asks, plan.notices[0]) == (True, told)


def test_own_keepalived_of_before_is_a_change_like_any_other() -> None:
    plan = gone_back_to(None, "vrrp_instance VI_1 {\n    virtual_router_id 51\n    priority 9\n}\n")
    assert (plan.vacant, plan.apart, len(plan.waves)) == (False, True, 3)


@pytest.mark.parametrize(
    ("text", "serving"),
    [
        ("listen web\n  bind :80\n", False),
        ("listen api\n  bind *:8443\n", True),
        (PROXY_FILE.text, True),
        (None, False),
    ],
    ids=["another port", "the same port", "exlb's", "none"],
)
def test_what_never_listened_on_the_port_need_not_serve_there(text: str | None, serving: bool) -> None:
    assert {each.serving for each in gone_back_to(text).nodes} == {serving}


def test_kept_file_is_compared_by_the_bytes_that_the_node_knows() -> None:
    found = planning.kept_file(THREE, KeptFile("1", "proxy", "/etc/x", 0o600, "0:107", "aa"), "cut\n")
    assert (found.sha256, found.mode, found.owner, found.path) == ("aa", 0o600, "0:107", "/etc/x")


def test_kept_file_of_exlb_has_the_digest_that_the_proxy_tells_and_another_has_none() -> None:
    assert original(PROXY_FILE.text).digest == PROXY_FILE.digest
    assert original("global\n    description my own\n").digest == ""


def test_kept_file_of_a_kind_that_only_a_newer_exlb_knows_is_refused() -> None:
    with pytest.raises(PlanError, match="/etc/x: this exlb knows no file of the kind 'static-pod'"):
        planning.kept_file(THREE, KeptFile("1", "static-pod", "/etc/x", 0o600, "0:0", "aa"), "text\n")


def test_kept_file_hides_the_passwords_of_its_kind() -> None:
    assert "geheim" not in original("x").mask("stats auth admin:geheim")
    assert "geheim" not in original("x", kind="keepalived").mask("auth_pass geheim")


@pytest.mark.parametrize("kind", ["proxy", "keepalived", "attachment"])
def test_kept_file_is_of_its_own_kind(kind: str) -> None:
    assert original("x", kind=kind).kind == kind
