"""What verify asks, and every answer that each check can give."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, ip_address, ip_interface
from typing import Any

import pytest

from exlb_fab import checks, firewall
from exlb_fab.checks import CHECKS, Verdict, View
from exlb_fab.checks.nodes import proxy_unit, same_files
from exlb_fab.cluster import Backend, Bind, Cluster, Listener, Node, Vip
from exlb_fab.commands.questionnaire import VerdictRow
from exlb_fab.commands.verify import VerifyReport
from exlb_fab.errors import ExlbError, FactsError, HostKeyError, UnreachableError
from exlb_fab.facts import Address, Facts, FileFact, Generations, Reply, Socket, Survey, Unit
from exlb_fab.platforms import KEEPALIVED_UNIT, parse_version
from exlb_fab.proxies import Admission, Load, ProxyState, Server
from exlb_fab.questions import node_url, urls_from_outside, vip_url
from exlb_fab.rendering import Rendered, Target, Templates, render
from exlb_fab.system import NETWORKD, SYSCTL_PATH, Settings, drop_in_path
from tests.fake import COMPLETE, PROXY, PROXYING, cluster, converged, fact, holding
from tests.unit.test_firewall import ACCEPT, match, payload, ruleset

THREE = cluster()
KUBE = THREE.apiserver_listener
TEMPLATES = Templates()


def rendered(of: Cluster, templates: Templates = TEMPLATES) -> dict[Node, Rendered]:
    """Return what every node of a cluster gets."""
    return {node: render(of, node, templates, Target()) for node in of.nodes}


DESIRED = rendered(THREE)
LB1, LB2, LB3 = THREE.nodes
VIP = "198.51.100.100"
OTHER = Vip(IPv4Address("198.51.100.101"), None)
PROXY_PATH = PROXY.path
NONLOCAL_BIND = "net.ipv4.ip_nonlocal_bind"
STOPPED = Unit("loaded", "failed", "failed", "enabled", ("[ALERT] cannot bind socket", "Main process exited"))
RUNNING = Unit("loaded", "active", "running", "enabled")


def view(
    *,
    holders: Sequence[Node] = (LB1,),
    away: Sequence[Node] = (),
    error: ExlbError | None = None,
    expect_no_apiserver: bool = False,
    everywhere: dict[str, Any] | None = None,
    of: Cluster = THREE,
    **lb2: Any,
) -> View:
    """Return what a probe of three nodes saw; `everywhere` differs on all of them, the rest on lb2."""
    found = {}
    for node in of.nodes:
        changes = {"generations": Generations(1, kept=(0, 1)), **(everywhere or {}), **(lb2 if node == LB2 else {})}
        facts = converged(of, node, DESIRED[node].files, **changes)
        found[node] = holding(of, facts) if node in holders else facts
    errors = {node: error or UnreachableError(f"{node}: cannot connect", hint="is it up?") for node in away}
    answered = {node: facts for node, facts in found.items() if node not in away}
    return View(of, Survey(answered, errors), DESIRED, expect_no_apiserver, bastion=OK)


def holding_both(seen: View) -> View:
    """Return the same view, in which lb1 has the second VIP as well."""
    facts = seen.facts(LB1)
    other = Address("eth0", ip_interface(f"{OTHER}/32"))
    both = replace(facts, addresses=(*facts.addresses, other))
    return replace(seen, survey=replace(seen.survey, facts={**seen.survey.facts, LB1: both}))


def answers(seen: View) -> tuple[Verdict, ...]:
    """Return all answers. Whatever a test makes a check warn of or fail, it has to say what to do next."""
    found = checks.verdicts(seen)
    assert [each for each in found if each.status in ("warn", "fail") and not each.hint] == []
    return found


def verdict(check: str, node: Node | None, seen: View) -> Verdict:
    """Return the one answer to a check about a node, or about all."""
    (found,) = [each for each in answers(seen) if (each.check, each.node) == (check, node)]
    return found


def failing(seen: View) -> set[tuple[str, str | None]]:
    found = [each for each in answers(seen) if each.status == "fail"]
    return {(each.check, each.node.name if each.node else None) for each in found}


def replies(cluster_reply: Reply, own: Reply | None = None) -> dict[str, Reply]:
    """Return the replies that lb2 gets through the VIP and through its own port."""
    return {vip_url(THREE): cluster_reply, node_url(THREE, LB2): own or cluster_reply}


OK = Reply(200, "", accepted=True)
REFUSED = Reply(None, "Failed to connect: Connection refused", accepted=False)
EMPTY = Reply(None, "TLS connect error: unexpected eof", accepted=True)


def states(*statuses: tuple[str, str, int | None], address: str = "198.51.100.1{}:6443") -> ProxyState:
    """Return what the proxy of lb2 says of its servers: status, check and code of each."""
    digest = next(file.digest for file in DESIRED[LB2].files if file.kind == "proxy")
    return ProxyState(
        digest,
        tuple(
            Server("kube-master", f"198.51.100.1{number}", address.format(number), status, check, code, "")
            for number, (status, check, code) in enumerate(statuses, 1)
        ),
    )


def test_every_answer_about_healthy_nodes_is_a_pass() -> None:
    found = list(checks.verdicts(view()))
    assert {each.status for each in found} == {"pass"}
    assert [check.id for check in CHECKS] == list(dict.fromkeys(each.check for each in found))


def test_the_name_of_a_check_is_its_own_and_begins_with_its_family() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    assert {check.family for check in CHECKS} == {
        *("node", "host", "config", "vip", "vrrp", "firewall", "backend", "listener", "certificate")
    }


# The entrance as a whole


def test_false_green_of_dead_proxies_behind_an_answering_vip_is_red() -> None:
    dead = {
        "units": {"haproxy": STOPPED, "keepalived": RUNNING},
        "proxy_state": None,
        "sockets": (),
        "replies": dict.fromkeys((vip_url(THREE), *(node_url(THREE, node) for node in THREE.nodes)), REFUSED),
    }
    seen = view(everywhere=dead)
    assert verdict("vip.ping", LB1, seen).status == "pass"
    assert verdict("vip.single-holder", None, seen).status == "pass"
    assert {("vip.request", "lb1"), ("vip.request", "lb2"), ("vip.request", "lb3")} <= failing(seen)
    assert {("node.proxy", "lb1"), ("node.proxy", "lb2"), ("node.proxy", "lb3")} <= failing(seen)
    assert ("backend.any", None) in failing(seen)


def test_proxy_that_runs_and_listens_and_serves_nobody_is_red() -> None:
    urls = (vip_url(THREE), *(node_url(THREE, node) for node in THREE.nodes))
    seen = view(everywhere={"replies": dict.fromkeys(urls, EMPTY)})
    assert failing(seen) == {(name, node.name) for name in ("vip.request", "backend.request") for node in THREE.nodes}


def test_stopped_proxy_is_one_finding_and_not_six() -> None:
    seen = view(units={"haproxy": STOPPED, "keepalived": RUNNING}, proxy_state=None, sockets=())
    assert failing(seen) == {("node.proxy", "lb2")}
    skipped = {each.check for each in checks.verdicts(seen) if each.status == "skip"}
    assert skipped == {
        *("node.ports", "listener.open", "node.running", "listener.connections", "vrrp.state"),
        *("backend.request", "backend.servers"),
    }


# Reaching the nodes


def shut_out(seen: View, node: Node, *urls: str) -> View:
    """Return the same view, in which no other node reaches a node by some URLs, all of its own where none is named."""
    away = dict.fromkeys(urls or urls_from_outside(seen.cluster, node), REFUSED)
    facts = {
        each: found if each == node else replace(found, replies={**found.replies, **away})
        for each, found in seen.survey.facts.items()
    }
    return replace(seen, survey=replace(seen.survey, facts=facts))


def test_node_that_serves_itself_and_no_other_one_is_red() -> None:
    seen = shut_out(view(), LB2)
    assert failing(seen) == {("listener.open", "lb2")}
    found = verdict("listener.open", LB2, seen)
    assert found.text == "lb2 reaches its own port 8443, and lb1 and lb3 cannot"
    assert found.cause == REFUSED.error


def test_node_is_reached_by_any_of_the_addresses_that_its_proxy_listens_on() -> None:
    nodes = tuple(replace(node, source=ip_address(f"10.0.0.{node.index + 1}")) for node in THREE.nodes)
    of = replace(THREE, nodes=nodes)
    apart, own = urls_from_outside(of, nodes[1])
    assert (apart, own) == ("https://10.0.0.2:8443/readyz", "https://198.51.100.12:8443/readyz")
    assert urls_from_outside(replace(of, proxying=replace(of.proxying, bind="node")), nodes[1]) == (own,)
    seen = replace(
        view(),
        cluster=of,
        survey=Survey(
            {node: converged(of, node, DESIRED[each].files) for node, each in zip(nodes, THREE.nodes, strict=True)}, {}
        ),
    )
    assert verdict("listener.open", nodes[1], shut_out(seen, nodes[1], apart)).status == "pass"
    assert verdict("listener.open", nodes[1], shut_out(seen, nodes[1], apart, own)).status == "fail"


def test_port_that_the_firewall_opens_for_the_vips_alone_is_open() -> None:
    for_vip = [match(payload("ip", "daddr"), VIP), match(payload("tcp", "dport"), 8443), ACCEPT]
    rules = firewall.parse(ruleset(for_vip, policy="drop"))
    found = verdict("listener.open", LB2, shut_out(view(firewall=rules), LB2))
    assert (found.status, found.text) == ("pass", "its firewall lets in what is for the VIPs alone")
    closed = firewall.parse(ruleset(policy="drop"))
    assert verdict("listener.open", LB2, shut_out(view(firewall=closed), LB2)).status == "fail"


def test_port_that_the_node_itself_does_not_reach_is_no_matter_of_its_network() -> None:
    assert verdict("listener.open", LB2, view(replies={node_url(THREE, LB2): REFUSED})).status == "skip"


def test_proxy_that_is_full_is_no_matter_of_its_network() -> None:
    state = view().facts(LB2).proxy_state
    assert state
    assert verdict("listener.open", LB2, view(proxy_state=replace(state, loads=(Load(30, 30),)))).status == "skip"


def test_port_that_a_holder_does_not_reach_is_no_finding_while_there_are_two() -> None:
    assert verdict("listener.open", LB3, view(holders=[LB1, LB2])).status == "skip"


def test_port_of_one_bound_to_the_vips_and_where_the_others_are_away_is_asked_by_nobody() -> None:
    assert verdict("listener.open", LB2, view(away=[LB1, LB3])).status == "skip"
    bound = replace(THREE, proxying=replace(THREE.proxying, bind="vip"))
    assert verdict("listener.open", LB2, view(of=bound)).text == "it is bound to the VIPs alone"


def test_unreachable_node_fails_as_unreachable_with_its_hint() -> None:
    found = verdict("node.ssh", LB3, view(away=[LB3]))
    assert (found.status, found.text, found.hint, found.unreachable) == (
        "fail", "lb3: cannot connect", "is it up?", True,
    )  # fmt: skip


@pytest.mark.parametrize(("error", "unreachable"), [(HostKeyError("lb3: key"), True), (FactsError("lb3: what"), False)])
def test_node_that_answers_nonsense_is_no_unreachable_node(error: ExlbError, unreachable: bool) -> None:
    assert verdict("node.ssh", LB3, view(away=[LB3], error=error)).unreachable is unreachable


def test_node_that_did_not_answer_is_asked_nothing_else() -> None:
    assert failing(view(away=[LB3])) == {("node.ssh", "lb3")}


def test_nothing_can_be_said_where_no_node_answers() -> None:
    seen = view(away=THREE.nodes)
    found = {each.check: each for each in checks.verdicts(seen) if each.node is None}
    assert {each.status for each in found.values()} == {"skip"}
    assert set(found) == {
        "node.same-versions",
        "host.clock",
        "vip.single-holder",
        "vip.extra",
        "vip.once",
        "vip.bastion",
        "vrrp.agree",
        "vrrp.law",
        "vrrp.strangers",
        "vrrp.settled",
        "backend.any",
        "certificate.names",
        "certificate.dates",
    }


# Nodes


def test_missing_programs_are_named_and_lead_to_install() -> None:
    found = verdict("node.packages", LB2, view(programs=frozenset({"haproxy", "keepalived", "ip", "ss", "ping"})))
    assert (found.status, found.text, found.hint) == ("fail", "not installed: killall, curl, socat", "exlb install")


def test_versions_are_told_where_all_is_installed() -> None:
    assert verdict("node.packages", LB2, view()).text == "haproxy 2.6.12, keepalived 2.2.7"


def test_differing_versions_are_a_warning_that_names_the_nodes() -> None:
    found = verdict("node.same-versions", None, view(keepalived_version=parse_version("2.3.3")))
    assert found.status == "warn"
    assert found.text == (
        "versions differ: haproxy 2.6.12 and keepalived 2.2.7 on lb1, lb3; haproxy 2.6.12 and keepalived 2.3.3 on lb2"
    )


@pytest.mark.parametrize(("unit", "check"), [("haproxy", "node.proxy"), ("keepalived", "node.keepalived")])
class TestUnit:
    """Both units are judged alike."""

    def found(self, unit: str, check: str, state: Unit) -> Verdict:
        return verdict(check, LB2, view(units={"haproxy": RUNNING, "keepalived": RUNNING, unit: state}))

    def test_unit_that_does_not_run_shows_the_end_of_its_journal(self, unit: str, check: str) -> None:
        found = self.found(unit, check, STOPPED)
        assert (found.status, found.text) == ("fail", f"{unit} is failed (failed)")
        assert found.cause == "[ALERT] cannot bind socket\nMain process exited"
        assert found.hint == {"haproxy": "exlb restart haproxy --nodes lb2", "keepalived": "exlb push-config"}[unit]

    def test_unit_that_is_not_installed_leads_to_install(self, unit: str, check: str) -> None:
        found = self.found(unit, check, Unit("not-found", "inactive", "dead", ""))
        assert (found.status, found.cause, found.hint) == ("fail", None, "exlb install")

    def test_masked_unit_is_told_as_such(self, unit: str, check: str) -> None:
        found = self.found(unit, check, Unit("masked", "inactive", "dead", "masked"))
        assert (found.status, found.text) == ("fail", f"{unit} is masked")
        assert found.hint == f"exlb exec --sudo -- systemctl unmask {unit}"

    @pytest.mark.parametrize(("state", "words"), [("disabled", "is disabled"), ("", "is not enabled")])
    def test_unit_that_would_not_start_at_boot_fails(self, unit: str, check: str, state: str, words: str) -> None:
        found = self.found(unit, check, replace(RUNNING, file_state=state))
        assert (found.status, found.text) == ("fail", f"{unit} runs, but {words} at boot")


def test_closed_ports_are_all_named() -> None:
    found = verdict("node.ports", LB2, view(sockets=()))
    assert (found.status, found.text) == ("fail", "nobody listens on 8443 and 10080")


@pytest.mark.parametrize(("process", "words"), [("nginx", "nginx listens on 8443"), (None, "another process listens")])
def test_port_of_another_process_is_not_our_proxy_listening(process: str | None, words: str) -> None:
    sockets = (Socket(None, 8443, process), Socket("127.0.0.1", 10080, "haproxy"))
    found = verdict("node.ports", LB2, view(sockets=sockets))
    assert found.status == "fail"
    assert words in found.text


@pytest.mark.parametrize(
    ("bind", "addresses", "expected"),
    [
        ("vip", [VIP, "127.0.0.1"], ("pass", "8443 10080")),
        ("vip", [VIP], ("fail", "nobody listens on 8443")),
        ("vip", ["0.0.0.0"], ("pass", "8443 10080")),
        ("node", [VIP, "198.51.100.12"], ("fail", "kube-apiserver listens on 8443")),
    ],
)
def test_bound_to_some_addresses_the_proxy_has_to_listen_on_each_and_others_may_have_the_rest(
    bind: Bind, addresses: list[str], expected: tuple[str, str]
) -> None:
    of = replace(THREE, proxying=replace(PROXYING, bind=bind))
    others = [Socket("198.51.100.12", 8443, "kube-apiserver")] if "0.0.0.0" not in addresses else []
    own = [*(Socket(each, 8443, "haproxy") for each in addresses), Socket("127.0.0.1", 10080, "haproxy")]
    urls = {url: OK for node in of.nodes for url in (vip_url(of), node_url(of, node))}
    seen = view(of=of, sockets=(*own, *others), everywhere={"replies": urls})
    found = verdict("node.ports", LB2, seen)
    assert (found.status, found.text) == expected


@pytest.mark.parametrize(
    ("kernel", "pushed", "text"),
    [
        ({NONLOCAL_BIND: "0"}, True, f"haproxy runs, but could not start again: {NONLOCAL_BIND} is 0"),
        ({NONLOCAL_BIND: "1"}, True, "enabled"),
        ({}, True, "enabled"),
        # BIND=vip is new: what it needs of the kernel comes with it.
        ({NONLOCAL_BIND: "0"}, False, "enabled"),
    ],
)
def test_proxy_that_could_not_bind_the_vip_again_is_red(kernel: dict[str, str], pushed: bool, text: str) -> None:
    of = replace(THREE, proxying=replace(PROXYING, bind="vip"))
    desired = rendered(of)
    files = {file.path: fact(file) for file in desired[LB2].files}
    if not pushed:
        files[SYSCTL_PATH] = FileFact("absent")
    found = proxy_unit(replace(view(of=of, kernel=kernel, files=files), desired=desired), LB2)
    assert (found.status, found.text) == ("pass" if text == "enabled" else "fail", text)
    if found.status == "fail":
        assert found.hint == "exlb exec --sudo --nodes lb2 -- sysctl -p /etc/sysctl.d/60-exlb.conf"


def test_files_that_differ_or_are_missing_are_named() -> None:
    proxy, keepalived, *others = DESIRED[LB2].files
    files = {file.path: fact(file) for file in others} | {file.path: FileFact("absent") for file in DESIRED[LB2].absent}
    files |= {proxy.path: FileFact("absent"), keepalived.path: FileFact("regular file", 0o644, "0:0", "00")}
    found = verdict("node.files", LB2, view(files=files))
    assert (found.status, found.text) == ("fail", f"{proxy.path} is missing, {keepalived.path} differs")
    assert found.hint is not None
    assert "--dry-run" in found.hint


def surplus(**more: FileFact) -> Verdict:
    """Judge the files of a node that has a drop-in and a guard of exlb's, and needs neither."""
    guard = f"{NETWORKD}/10-eth0.network.d/exlb.conf"
    settings = Settings(units=dict.fromkeys(("haproxy", KEEPALIVED_UNIT), COMPLETE), guards=(guard,))
    desired = {node: render(THREE, node, TEMPLATES, Target(settings=settings)) for node in THREE.nodes}
    there = FileFact("regular file", 0o644, "0:0", "00")
    files = {
        **{file.path: FileFact("absent") for file in desired[LB2].absent},
        **{file.path: fact(file) for file in desired[LB2].files},
        **dict.fromkeys((drop_in_path(KEEPALIVED_UNIT), guard), there),
        **more,
    }
    return same_files(replace(view(files=files), desired=desired), LB2)


def test_file_of_the_system_that_is_not_needed_any_more_is_a_warning() -> None:
    """An operator's own Restart= of keepalived, and a networkd that does not run just now."""
    found = surplus()
    assert found.status == "warn"
    assert found.text == (
        "same, but the node as it stands does not need /etc/systemd/system/keepalived.service.d/exlb.conf, "
        "/etc/systemd/network/10-eth0.network.d/exlb.conf"
    )
    assert "exlb push-config" in str(found.hint)


def test_what_is_not_needed_any_more_does_not_hide_what_differs() -> None:
    found = surplus(**{PROXY_PATH: FileFact("absent")})
    assert found.status == "fail"
    assert f"{PROXY_PATH} is missing" in found.text
    assert "keepalived.service.d/exlb.conf is not wanted" in found.text


def test_file_with_another_mode_is_not_the_rendered_one() -> None:
    keepalived = next(file for file in DESIRED[LB2].files if file.kind == "keepalived")
    files = dict(view().facts(LB2).files)
    files[keepalived.path] = replace(files[keepalived.path], mode=0o666)
    found = verdict("node.files", LB2, view(files=files))
    assert (found.status, found.text) == ("fail", f"{keepalived.path} has another mode or owner")


@pytest.mark.parametrize(("changing", "status"), [(False, "fail"), (True, "pass")])
def test_change_that_was_interrupted_behind_its_last_file_is_found(changing: bool, status: str) -> None:
    generations = Generations(1, kept=(0, 1), unfinished=(2, 1), changing=changing)
    found = verdict("node.files", LB2, view(generations=generations))
    assert (found.status, found.hint) == (status, None if changing else "exlb recover")


@pytest.mark.parametrize(
    ("generations", "words"),
    [
        (Generations(), "same, but in no generation"),
        (Generations(2, edited=True, kept=(0, 1, 2)), "same, but not those of generation 2"),
    ],
)
def test_right_files_that_no_generation_brought_are_a_warning(generations: Generations, words: str) -> None:
    found = verdict("node.files", LB2, view(generations=generations))
    assert found.status == "warn"
    assert words in found.text
    changing = replace(generations, changing=True)
    assert verdict("node.files", LB2, view(generations=changing)).status == "pass"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (None, "its admin socket does not answer"),
        (ProxyState("0123456789abcdef", ()), "runs 0123456789abcdef, not "),
        (ProxyState(None, ()), "runs no configuration of exlb, not "),
    ],
)
def test_proxy_that_runs_something_else_than_its_file_is_red(state: ProxyState | None, words: str) -> None:
    found = verdict("node.running", LB2, view(proxy_state=state, proxy_silence="socat: Connection refused"))
    assert found.status == "fail"
    assert words in found.text
    assert found.cause == (
        "socat: Connection refused"
        if state is None
        else "its file was changed and not loaded, or is not what a push would write"
    )


@pytest.mark.parametrize(
    ("loads", "status", "text"),
    [
        ((Load(15, 20), Load(15, 20, "kube-master")), "pass", "15 of 20"),
        ((Load(15, 40), Load(16, 20, "kube-master")), "warn", "few connections are left: 16 of 20 at kube-master"),
        ((Load(20, 20), Load(12, 20, "kube-master")), "fail", "no connection is left: 20 of 20"),
        ((Load(20, 40), Load(20, 20, "admin_stats")), "pass", "20 of 40"),
        ((), "skip", "nothing tells how many it has"),
    ],
)
def test_proxy_at_the_limit_of_its_connections_is_red_and_one_near_it_a_warning(
    loads: tuple[Load, ...], status: str, text: str
) -> None:
    state = replace(states(*[("UP", "L7OK", 200)] * 3), loads=loads)
    found = verdict("listener.connections", LB2, view(proxy_state=state))
    assert (found.status, found.text) == (status, text)


# The VIP


def test_the_one_holder_is_named() -> None:
    assert verdict("vip.single-holder", None, view(holders=[LB2])).text == f"{VIP} is on lb2"


@pytest.mark.parametrize("check", ["vip.request", "vip.bastion"])
def test_client_that_is_torn_between_two_holders_is_told_so(check: str) -> None:
    reset = Reply(None, "Connection reset by peer", accepted=False)
    node = LB2 if check == "vip.request" else None
    replied = {**view().facts(LB2).replies, **({vip_url(THREE): reset} if node else {})}
    seen = view(holders=[LB1, LB2], replies=replied)
    found = verdict(check, node, replace(seen, bastion=reset))
    assert found.status == "fail"
    assert found.cause == (
        f"Connection reset by peer: lb1, lb2 all hold {VIP}, and a connection ends where its packets go to another one"
    )
    assert verdict(check, node, view(holders=[LB1, LB2])).status == "pass"


def test_split_brain_names_all_holders() -> None:
    found = verdict("vip.single-holder", None, view(holders=[LB1, LB3]))
    assert (found.status, found.text) == ("fail", f"split brain: lb1, lb3 all hold {VIP}")


def test_vip_that_nobody_holds_is_red_even_if_it_answers() -> None:
    found = verdict("vip.single-holder", None, view(holders=[]))
    assert (found.status, found.text, found.cause) == ("fail", f"no node holds {VIP}", None)


def test_why_nobody_holds_the_vip_is_told() -> None:
    units = {"haproxy": RUNNING, "keepalived": STOPPED}
    everywhere = verdict("vip.single-holder", None, view(holders=[], everywhere={"units": units}))
    assert everywhere.cause == "keepalived runs on no node"
    one = verdict("vip.single-holder", None, view(holders=[], units=units))
    assert one.cause == "keepalived does not run on lb2"


def test_holder_that_could_not_be_asked_is_a_warning_while_the_vip_serves() -> None:
    found = verdict("vip.single-holder", None, view(holders=[], away=[LB1]))
    assert found.status == "warn"
    assert found.text == f"{VIP} is served by a node that could not be asked: lb1"


def test_vip_that_serves_nobody_is_red_also_where_a_node_could_not_be_asked() -> None:
    found = verdict("vip.single-holder", None, view(holders=[], away=[LB1], replies=replies(REFUSED, OK)))
    assert found.status == "fail"


def test_proxy_without_an_apiserver_on_a_node_that_could_not_be_asked_holds_the_vip_all_the_same() -> None:
    found = verdict("vip.single-holder", None, view(holders=[], away=[LB1], replies=replies(EMPTY)))
    assert found.status == "warn"


def test_only_node_is_a_warning_as_nobody_would_take_the_vip_over() -> None:
    one = replace(THREE, nodes=THREE.nodes[:1])
    found = verdict("vip.single-holder", None, view(of=one))
    assert (found.status, found.text) == (
        "warn", f"{VIP} is on lb1, and there is one node: nobody would take it over",
    )  # fmt: skip


def test_every_vip_is_asked_and_the_one_that_does_not_serve_is_named() -> None:
    of = replace(THREE, extra_vips=(OTHER,))
    urls = {**replies(OK), vip_url(of, OTHER): REFUSED}
    seen = holding_both(view(of=of, replies=urls, pings={VIP: True, str(OTHER): False}))
    assert verdict("vip.request", LB1, seen).text == "200"
    found = verdict("vip.request", LB2, seen)
    assert (found.status, str(found.cause).startswith(REFUSED.error)) == ("fail", True)
    assert found.text == f"{OTHER}: https://{OTHER}:8443/readyz from lb2: not served"
    assert verdict("vip.ping", LB2, seen).text == f"{OTHER}: {OTHER} does not answer ping from lb2"


def test_role_tells_who_holds_the_vip_beside_what_is_configured() -> None:
    seen = view(holders=[LB2])
    assert [verdict("vip.role", node, seen).text for node in THREE.nodes] == [
        "master", "backup, holds the VIP", "backup",
    ]  # fmt: skip


def test_vip_that_does_not_answer_ping_is_red() -> None:
    found = verdict("vip.ping", LB2, view(pings={VIP: False}, replies=replies(REFUSED)))
    assert (found.status, found.text) == ("fail", f"{VIP} does not answer ping from lb2")


@pytest.mark.parametrize("reply", [OK, EMPTY])
def test_vip_that_takes_connections_and_drops_pings_is_a_warning(reply: Reply) -> None:
    found = verdict("vip.ping", LB2, view(pings={VIP: False}, replies=replies(reply)))
    assert found.status == "warn"
    assert "drops ICMP" in (found.cause or "")


@pytest.mark.parametrize("check", ["vip.request", "backend.request"])
class TestRequest:
    """A request through the VIP and one through the node's own port are judged alike."""

    def found(self, check: str, reply: Reply, **options: Any) -> Verdict:
        return verdict(check, LB2, view(replies=replies(reply), **options))

    @pytest.mark.parametrize("code", [200, 401, 403])
    def test_answer_of_an_apiserver_is_a_pass_even_one_that_wants_a_login(self, check: str, code: int) -> None:
        found = self.found(check, Reply(code, "", accepted=True))
        assert (found.status, found.text) == ("pass", str(code))

    @pytest.mark.parametrize("expected", [False, True])
    def test_answer_of_something_that_is_no_apiserver_is_red_and_says_what_it_is(
        self, check: str, expected: bool
    ) -> None:
        found = self.found(check, Reply(404, "", accepted=True, body="<html>"), expect_no_apiserver=expected)
        assert (found.status, found.cause) == ("fail", "it says '<html>'")
        assert "something that is no apiserver answers with status 404" in found.text

    @pytest.mark.parametrize("body", ["ok", "ok ", '{   "kind": "Status",   "apiVersion": "v1", ', "[+]ping ok [+]log"])
    def test_words_of_an_apiserver_are_known_by_their_beginning(self, check: str, body: str) -> None:
        assert self.found(check, Reply(200, "", accepted=True, body=body)).status == "pass"

    @pytest.mark.parametrize("code", [500, 503])
    def test_apiserver_that_is_not_ready_is_red(self, check: str, code: int) -> None:
        found = self.found(check, Reply(code, "", accepted=True))
        assert found.status == "fail"
        assert f"status {code}: the apiserver is not ready" in found.text

    def test_connection_without_an_apiserver_behind_it_is_red_unless_expected(self, check: str) -> None:
        found = self.found(check, EMPTY)
        assert found.status == "fail"
        assert found.cause is not None
        assert "has no apiserver to give it to" in found.cause
        assert self.found(check, EMPTY, expect_no_apiserver=True).status == "pass"

    def test_refused_connection_is_red_even_if_no_apiserver_is_expected(self, check: str) -> None:
        for expected in (False, True):
            found = self.found(check, REFUSED, expect_no_apiserver=expected)
            assert (found.status, str(found.cause).startswith(REFUSED.error)) == ("fail", True)


@pytest.mark.parametrize(
    ("check", "holders", "hint"),
    [
        ("backend.request", [LB1], "exlb restart haproxy --nodes lb2"),
        ("vip.request", [LB1], "exlb restart haproxy --nodes lb1"),
        ("vip.request", [], "exlb status shows who holds the VIP"),
        ("vip.request", [LB1, LB3], "exlb status shows who holds the VIP"),
    ],
)
def test_refused_connection_leads_to_the_one_proxy_that_should_have_taken_it(
    check: str, holders: list[Node], hint: str
) -> None:
    urls = (vip_url(THREE), *(node_url(THREE, node) for node in THREE.nodes))
    everywhere = {"replies": dict.fromkeys(urls, REFUSED)}
    assert verdict(check, LB2, view(holders=holders, everywhere=everywhere)).hint == hint


def test_node_that_alone_does_not_get_through_is_not_mended_on_the_holder() -> None:
    found = verdict("vip.request", LB2, view(replies=replies(REFUSED, OK)))
    assert (found.status, found.text) == ("fail", f"{vip_url(THREE)} from lb2: not served")
    cause = "and haproxy on lb1 takes what comes from elsewhere: it is on lb2, or between it and lb1"
    assert found.cause == f"{REFUSED.error}, {cause}"
    assert f"exlb ssh lb2 -- curl -gvk {vip_url(THREE)}" in str(found.hint)
    own = verdict("vip.request", LB2, view(replies=replies(REFUSED, OK), holders=[LB2]))
    assert str(own.cause).endswith("it is on lb2")


@pytest.mark.parametrize(
    "others",
    [
        {"bastion": REFUSED},
        {"everywhere": {"proxy_state": ProxyState("", (), loads=(Load(9, 9),))}},
        {"away": [LB1, LB3]},
        {"away": [LB3], "bastion": None},  # the holder asks itself
    ],
)
def test_node_that_others_may_share_the_fate_of_says_nothing_of_itself(others: dict[str, Any]) -> None:
    bastion = others.pop("bastion", OK)
    found = verdict("vip.request", LB2, replace(view(replies=replies(REFUSED, OK), **others), bastion=bastion))
    assert (found.status, "from elsewhere" in str(found.cause)) == ("fail", False)


# Backends


@pytest.mark.parametrize(
    ("statuses", "status", "text"),
    [
        ([("UP", "L7OK", 200)] * 3, "pass", "3 of 3 up"),
        ([("UP", "L4OK", None)] * 3, "pass", "3 of 3 up"),
        ([("UP", "L7OK", 200)] * 2 + [("DOWN", "L4CON", None)], "warn", "2 of 3 up"),
        ([("UP 1/2", "L7STS", 500), ("DOWN", "L4CON", None), ("DOWN", "L4CON", None)], "warn", "1 of 3 up"),
        ([("DOWN", "L4CON", None)] * 3, "fail", "0 of 3 up"),
        ([("UP", "L7OK", 200)] * 2 + [("UP 1/2", "INI", None)], "warn", "2 of 3 up, 1 not checked yet"),
        ([("UP 1/2", "INI", None)] * 3, "warn", "0 of 3 up, 3 not checked yet"),
        ([("UP 1/2", "INI", None), ("DOWN", "L4CON", None), ("DOWN", "L4CON", None)], "fail", "0 of 3 up"),
        ([("UP", "L7OK", 200)] * 2, "fail", "serves other backends than configured: 198.51.100.13 is missing"),
        ([], "fail", "has no backend"),
    ],
)
def test_backends_are_counted_as_the_proxy_sees_them(
    statuses: list[tuple[str, str, int | None]], status: str, text: str
) -> None:
    found = verdict("backend.servers", LB2, view(proxy_state=states(*statuses)))
    assert (found.status, found.text) == (status, text)


def test_listener_without_any_backend_is_red_whatever_the_others_have() -> None:
    web = Listener("web", 80, (Backend("w", "198.51.100.31", 80),), KUBE.check, "source")
    state = states(*[("UP", "L7OK", 200)] * 3)
    down = Server("web", "w", "198.51.100.31:80", "DOWN", "L4CON", None, "Connection refused")
    of = replace(THREE, listeners=(KUBE, web))
    seen = view(of=of, proxy_state=replace(state, servers=(*state.servers, down)))
    found = verdict("backend.servers", LB2, seen)
    assert (found.status, found.text) == ("fail", "3 of 4 up, none of web")
    assert found.cause == "w DOWN: Connection refused"


def test_backend_that_is_down_is_told_with_its_reason() -> None:
    state = states(("UP", "L7OK", 200), ("DOWN", "L7STS", 500), ("UP", "L7OK", 200))
    found = verdict("backend.servers", LB2, view(proxy_state=state))
    assert found.cause == "198.51.100.12 DOWN: L7STS (status 500)"
    assert found.hint == "exlb ssh lb2 -- curl -k https://198.51.100.12:6443/readyz"


def test_proxy_that_serves_another_address_than_configured_is_red() -> None:
    state = states(*[("UP", "L7OK", 200)] * 3, address="203.0.113.{}:6443")
    found = verdict("backend.servers", LB2, view(proxy_state=state))
    assert found.status == "fail"
    assert "198.51.100.11 is 203.0.113.1:6443" in found.text
    assert found.hint == "exlb restart haproxy --nodes lb2"


def test_backends_of_a_configuration_that_is_yet_to_be_pushed_lead_to_the_push_and_not_to_a_restart() -> None:
    strange = Server("db", "db-1", "198.51.100.12:5432", "UP", "L4OK", None, "")
    state = ProxyState("of another push", (*states(*[("UP", "L7OK", 200)] * 3).servers, strange))
    found = verdict("backend.servers", LB2, view(proxy_state=state))
    assert found.text == "serves other backends than configured: 198.51.100.12:5432 of db is not wanted"
    assert found.hint == "exlb push-config"


def test_backend_with_a_dns_name_may_have_any_address() -> None:
    named = Backend("198.51.100.11", "api.example.org", 6443)
    listener = THREE.apiserver_listener
    by_name = replace(THREE, listeners=(replace(listener, backends=(named, *listener.backends[1:])),))
    seen = view(of=by_name, proxy_state=states(*[("UP", "L7OK", 200)] * 3))
    assert verdict("backend.servers", LB2, seen).status == "pass"


def test_backend_whose_name_did_not_resolve_is_down_and_says_why() -> None:
    named = Backend("198.51.100.12", "api.example.org", 6443)
    backends = THREE.apiserver_listener.backends
    by_name = replace(THREE, listeners=(replace(KUBE, backends=(backends[0], named, backends[2])),))
    up, nowhere = ("UP", "L7OK", 200), ("MAINT (resolution)", "", None)
    found = verdict("backend.servers", LB2, view(of=by_name, proxy_state=states(up, nowhere, up)))
    assert (found.status, found.text) == ("warn", "2 of 3 up")
    assert found.cause == "198.51.100.12: its name did not resolve when the proxy was loaded"
    assert found.hint == "exlb ssh lb2 -- getent hosts api.example.org; once that answers, exlb restart haproxy"
    everywhere = {"proxy_state": states(nowhere, nowhere, nowhere)}
    assert verdict("backend.any", None, view(of=by_name, everywhere=everywhere)).status == "fail"


def test_apiservers_that_want_a_login_name_the_variable_to_set() -> None:
    found = verdict("backend.servers", LB2, view(proxy_state=states(*[("DOWN", "L7STS", 401)] * 3)))
    assert found.hint is not None
    assert "set HEALTH_CHECK=tcp" in found.hint


@pytest.mark.parametrize("check", ["backend.servers", "node.running"])
def test_proxy_that_says_nothing_of_itself_is_red(check: str) -> None:
    found = verdict(check, LB2, view(proxy_state=None))
    assert (found.status, found.hint) == ("fail", "exlb restart haproxy --nodes lb2")
    edited = view(proxy_state=None, files=dict.fromkeys(view().facts(LB2).files, FileFact("absent")))
    assert verdict(check, LB2, edited).hint == "exlb push-config"


def test_client_of_a_proxy_that_says_nothing_of_itself_is_not_told_that_there_is_no_apiserver() -> None:
    late = Reply(None, "Operation timed out", accepted=True, late=True)
    seen = view(proxy_state=None, replies={**view().facts(LB2).replies, node_url(THREE, LB2): late})
    found = verdict("backend.request", LB2, seen)
    assert (found.status, found.hint) == ("fail", "exlb restart haproxy --nodes lb2")
    assert found.cause == "haproxy on lb2 takes the connection, and says nothing of itself either: Operation timed out"


@pytest.mark.parametrize(("check", "holder"), [("backend.request", LB1), ("vip.request", LB2)])
def test_client_that_waits_for_an_apiserver_that_is_seen_up_is_told_so(check: str, holder: Node) -> None:
    late = Reply(None, "Operation timed out", accepted=True, late=True)
    found = verdict(check, LB2, view(holders=[holder], replies=replies(late)))
    assert found.cause == (
        "haproxy gives the connection to an apiserver that it sees up, and no answer comes: Operation timed out"
    )
    assert "HEALTH_CHECK=readyz" in (found.hint or "")


@pytest.mark.parametrize(("check", "holder"), [("backend.request", LB1), ("vip.request", LB2)])
@pytest.mark.parametrize("accepted", [True, False])
def test_client_of_a_proxy_that_is_full_is_told_so_whether_or_not_the_kernel_lets_it_wait(
    check: str, holder: Node, accepted: bool
) -> None:
    state = replace(states(*[("UP", "L7OK", 200)] * 3), loads=(Load(20, 20),))
    late = Reply(None, "Operation timed out", accepted=accepted, late=accepted)
    found = verdict(check, LB2, view(holders=[holder], proxy_state=state, replies=replies(late)))
    assert (found.status, found.cause) == ("fail", "haproxy on lb2 has no connection left: 20 of 20")
    assert "MAXCONN" in (found.hint or "")


def test_no_backend_is_no_finding_where_none_is_expected() -> None:
    seen = view(expect_no_apiserver=True, everywhere={"proxy_state": states(*[("DOWN", "L4CON", None)] * 3)})
    assert verdict("backend.servers", LB2, seen).status == "pass"
    assert verdict("backend.any", None, seen).status == "skip"


def test_one_backend_that_one_node_sees_is_some_backend() -> None:
    down = {"proxy_state": states(("DOWN", "L4CON", None))}
    assert verdict("backend.any", None, view(everywhere=down)).status == "fail"
    found = verdict("backend.any", None, view(everywhere=down, proxy_state=states(*[("UP", "L7OK", 200)] * 2)))
    assert (found.status, found.text) == ("pass", "2 up")


UP, DOWN = ("UP", "L7OK", 200), ("DOWN", "L4CON", None)


def test_only_apiserver_that_is_up_and_on_a_node_is_lost_with_that_node() -> None:
    found = verdict("backend.any", None, view(everywhere={"proxy_state": states(DOWN, UP, DOWN)}))
    assert (found.status, found.text) == (
        "fail", "only 198.51.100.12 is up, on lb2 itself: with that node clients lose every apiserver",
    )  # fmt: skip
    assert found.hint == "exlb ssh lb1 -- curl -k https://198.51.100.11:6443/readyz"


def test_backup_that_sees_only_the_apiserver_of_another_node_would_lose_it_with_that_node() -> None:
    found = verdict("backend.any", None, view(proxy_state=states(UP, DOWN, DOWN)))
    assert (found.status, found.text) == (
        "fail", "lb2 sees only 198.51.100.11 up, on lb1: if lb1 fails, lb2 has no apiserver for clients",
    )  # fmt: skip
    assert found.hint == "exlb ssh lb2 -- curl -k https://198.51.100.12:6443/readyz"
    assert verdict("backend.any", None, view(proxy_state=states(DOWN, UP, DOWN))).status == "pass"


def test_apiserver_is_on_a_node_by_any_of_its_addresses() -> None:
    inner = tuple(Backend(str(number), f"10.0.0.{number}", 6443) for number in (1, 2))
    of = replace(THREE, listeners=(replace(KUBE, backends=inner),))
    seen = tuple(
        Server(KUBE.name, each.name, each.endpoint, *status, "") for each, status in zip(inner, (DOWN, UP), strict=True)
    )
    addresses = (*view().facts(LB2).addresses, Address("eth1", ip_interface("10.0.0.2/24")))
    found = verdict(
        "backend.any", None, view(of=of, everywhere={"proxy_state": ProxyState("", seen)}, addresses=addresses)
    )
    assert "on lb2 itself" in found.text


def test_apiservers_that_went_with_a_node_that_could_not_be_asked_are_no_finding_of_their_own() -> None:
    left = {"proxy_state": states(DOWN, UP, DOWN)}
    assert verdict("backend.any", None, view(away=[LB1, LB3], everywhere=left)).status == "pass"
    assert verdict("backend.any", None, view(away=[LB1], everywhere=left)).status == "fail"


@pytest.mark.parametrize("other", ["drain", "disable"])
def test_only_apiserver_that_is_up_is_a_pass_while_another_one_was_told_to_stand_aside(other: Admission) -> None:
    state = states(DOWN, UP, DOWN)
    told = replace(state, servers=(replace(state.servers[0], admission=other), *state.servers[1:]))
    assert verdict("backend.any", None, view(everywhere={"proxy_state": told})).status == "pass"


def test_only_apiserver_that_is_up_is_a_pass_while_others_are_not_checked_yet_or_where_it_is_on_no_node() -> None:
    unchecked = states(UP, ("UP 1/2", "INI", None), DOWN)
    assert verdict("backend.any", None, view(everywhere={"proxy_state": unchecked})).status == "pass"
    servers = tuple(Backend(str(number), f"198.51.100.20{number}", 6443) for number in (1, 2))
    of = replace(THREE, listeners=(replace(KUBE, backends=servers),))
    seen = tuple(
        Server(KUBE.name, each.name, each.endpoint, *status, "")
        for each, status in zip(servers, (UP, DOWN), strict=True)
    )
    found = verdict("backend.any", None, view(of=of, everywhere={"proxy_state": ProxyState("", seen)}))
    assert (found.status, found.text) == ("pass", "1 up")


def test_backend_that_was_never_checked_is_none() -> None:
    unchecked = states(("UP 1/2", "INI", None))
    assert verdict("backend.any", None, view(everywhere={"proxy_state": unchecked})).status == "fail"


# The report


def report(*rows: tuple[str, bool], interrupted: bool = False) -> VerifyReport:
    verdicts = tuple(
        VerdictRow(check="node.ssh", node="lb1", status=status, text="", cause=None, hint=None, unreachable=unreachable)  # type: ignore[arg-type]
        for status, unreachable in rows
    )
    return VerifyReport(
        at=datetime(2027, 1, 2, tzinfo=UTC), nodes=("lb1",), vip=VIP, holders=(), not_asked=(),
        expect_no_apiserver=False, checks=(), verdicts=verdicts, backends=(), interrupted=interrupted,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "code", "green"),
    [
        (report(("pass", False)), 0, True),
        (report(("pass", False), ("warn", False), ("skip", False)), 0, True),
        (report(("pass", False), ("fail", False)), 1, False),
        (report(("fail", True)), 4, False),
        (report(("fail", True), ("fail", False)), 1, False),
        (report(("fail", True), ("warn", False)), 4, False),
        (report(("pass", False), interrupted=True), 130, False),
        (report(("fail", False), interrupted=True), 130, False),
    ],
)
def test_exit_code_of_verify_tells_red_from_unreachable(found: VerifyReport, code: int, green: bool) -> None:
    assert (found.exit_code, found.green) == (code, green)


def test_facts_and_verdicts_travel_between_processes() -> None:
    seen = view(away=[LB3])
    assert pickle.loads(pickle.dumps(seen.survey.facts)) == seen.survey.facts
    found = list(checks.verdicts(seen))
    assert pickle.loads(pickle.dumps(found)) == found
    assert isinstance(seen.facts(LB1), Facts)
