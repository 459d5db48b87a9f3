"""What verify says of the keepalived that runs on each node, and every answer that each check can give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv6Interface, ip_address
from pathlib import Path
from typing import Any

import pytest

from exlb_fab.checks import Verdict, View
from exlb_fab.checks.election import APISERVER_CHECK
from exlb_fab.cluster import Backend, Listener, Node
from exlb_fab.dump import UNWRITABLE, Script
from exlb_fab.facts import Address, Generations, Survey, System
from exlb_fab.platforms import KEEPALIVED_UNIT, parse_version
from exlb_fab.rendering import Templates
from tests.fake import NOW, cluster
from tests.unit.test_checks import KUBE, LB1, LB2, LB3, RUNNING, STOPPED, THREE, VIP, rendered, verdict, view

CHECK = "check-haproxy"
FAILING: dict[str, Any] = {"passing": frozenset()}


def changed(seen: View, *nodes: Node, **changes: Any) -> View:
    """Return a view in which the instances of nodes differ."""
    facts = {
        node: replace(found, instances=tuple(replace(each, **changes) for each in found.instances))
        if node in nodes
        else found
        for node, found in seen.survey.facts.items()
    }
    return replace(seen, survey=Survey(facts, seen.survey.errors))


def state(seen: View, node: Node = LB2) -> Verdict:
    return verdict("vrrp.state", node, seen)


def running(**changes: Any) -> Verdict:
    return verdict("vrrp.running", LB2, changed(view(), LB2, **changes))


def test_template_of_the_operators_own_is_what_has_to_run(tmp_path: Path) -> None:
    text = Path("templates/keepalived.conf.j2").read_text()
    own = text.replace("    advert_int ", "    authentication {\n        auth_pass s3cret\n    }\n    advert_int ")
    (tmp_path / "keepalived.conf.j2").write_text(own)
    seen = replace(view(), desired=rendered(THREE, Templates(tmp_path)))
    found = verdict("vrrp.running", LB2, seen)
    assert found.text == "runs with password no instead of yes"
    assert verdict("vrrp.running", LB2, changed(seen, LB2, authenticated=True)).status == "pass"


def test_template_whose_instance_stands_elsewhere_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "keepalived.conf.j2").write_text("include /etc/keepalived/conf.d/*.conf\n")
    seen = replace(view(), desired=rendered(THREE, Templates(tmp_path)))
    assert verdict("vrrp.running", LB2, seen).status == "skip"


def overall(name: str, seen: View) -> Verdict:
    return verdict(f"vrrp.{name}", None, seen)


# Is it ready?


def test_ready_nodes_tell_their_state_and_priority() -> None:
    assert [state(view(), node).text for node in THREE.nodes] == [
        "MASTER, priority 120",
        "BACKUP, priority 110",
        "BACKUP, priority 105",
    ]


def test_keepalived_that_does_not_run_is_one_finding() -> None:
    seen = view(units={"haproxy": RUNNING, KEEPALIVED_UNIT: STOPPED}, instances=())
    assert {verdict(f"vrrp.{name}", LB2, seen).status for name in ("state", "running")} == {"skip"}
    assert verdict("node.keepalived", LB2, seen).status == "fail"


SILENT: dict[str, Any] = {"instances": (), "keepalived_silence": "keepalived does not write down its state"}


@pytest.mark.parametrize(
    "changes",
    [
        {**SILENT, "keepalived_version": parse_version("1.3.5")},
        {"instances": (), "keepalived_silence": "instance VI: keepalived does not tell its State"},
    ],
    ids=["older than any that was seen to tell", "in words that are not known"],
)
def test_keepalived_that_does_not_tell_how_it_runs_is_a_warning_where_none_of_its_version_does(
    changes: dict[str, Any],
) -> None:
    found = state(view(everywhere=changes))
    assert (found.status, found.cause) == ("warn", None)
    assert changes["keepalived_silence"] in found.text


@pytest.mark.parametrize("of", ["lb2", "everywhere", "mixed"])
def test_keepalived_that_hangs_is_red(of: str) -> None:
    newer = {**SILENT, "keepalived_version": parse_version("2.3.3")}
    found = state(view(everywhere=SILENT) if of == "everywhere" else view(**(newer if of == "mixed" else SILENT)))
    assert (found.status, found.cause) == ("fail", "it hangs, and would not take the VIP: this version tells")
    assert found.hint == "exlb restart keepalived --nodes lb2"
    assert verdict("vrrp.running", LB2, view(**SILENT)).status == "fail"


@pytest.mark.parametrize("said", sorted(UNWRITABLE))
def test_keepalived_that_has_nowhere_to_write_is_not_said_to_hang(said: str) -> None:
    found = state(view(instances=(), keepalived_silence=said))
    assert (found.status, found.cause) == ("warn", None)
    assert said in found.text
    assert found.hint == "exlb exec --nodes lb2 -- df /tmp"


def test_keepalived_without_the_vip_is_red() -> None:
    found = state(changed(view(), LB2, vips=frozenset({ip_address("198.51.100.101")})))
    assert (found.status, found.text) == ("fail", f"keepalived runs without {VIP}")


@pytest.mark.parametrize(
    ("changes", "text", "cause"),
    [
        ({"state": "FAULT", **FAILING}, f"is in FAULT, and would not take {VIP}", f"its check {CHECK} fails"),
        (
            {"state": "FAULT"},
            f"is in FAULT, and would not take {VIP}",
            "eth0 is down, or something else that it tracks",
        ),
        ({"state": "INIT"}, "has not begun", None),
        ({"state": "MASTER"}, f"is MASTER, and {VIP} is not on eth0", "somebody has taken the address away"),
        (
            {"effective_priority": 50, **FAILING},
            "has priority 50 instead of 110",
            f"its check {CHECK} fails",
        ),
        ({"effective_priority": 50}, "has priority 50 instead of 110", "something that it tracks is down"),
    ],
    ids=lambda each: str(each)[:20],
)
def test_backup_that_would_not_take_over_is_red(changes: dict[str, Any], text: str, cause: str | None) -> None:
    found = state(changed(view(), LB2, **changes))
    assert (found.status, found.text, found.cause) == ("fail", text, cause)


def test_interface_that_is_down_is_the_cause_of_a_fault() -> None:
    assert state(changed(view(down=frozenset({"eth0"})), LB2, state="FAULT")).cause == "eth0 is down"


def test_weight_that_a_passing_check_adds_is_no_finding() -> None:
    raised = {"weights": {CHECK: 2}, "effective_priority": 112}
    assert state(changed(view(), LB2, **raised)).status == "pass"
    assert state(changed(view(), LB2, **{**raised, "effective_priority": 110})).status == "fail"


def test_owner_of_the_address_has_its_whole_priority() -> None:
    assert state(changed(view(), LB2, priority=255, effective_priority=255)).status == "pass"


def test_stale_vip_of_a_backup_is_red() -> None:
    found = state(changed(view(holders=(LB1, LB2)), LB2, state="BACKUP"))
    assert (found.status, found.text) == ("fail", f"is BACKUP, and still has {VIP}")


def stopped(seconds: float, **changes: Any) -> View:
    """Return a view in which the proxy of lb2 has been stopped for a while."""
    system = System("Debian", "lb2", None, 0, ("debian",), ("apt-get",), 1000.0)
    units = {"haproxy": replace(STOPPED, changed=1000.0 - seconds), KEEPALIVED_UNIT: RUNNING}
    return changed(view(units=units, system=system, proxy_state=None, sockets=()), LB2, **changes)


def test_check_that_misses_a_stopped_proxy_is_red_once_it_had_the_time() -> None:
    found = state(stopped(60))
    assert (found.status, found.text) == ("fail", "does not notice that haproxy does not run")
    assert found.cause == f"{CHECK} passes"
    assert state(stopped(1)).status == "skip"
    assert state(stopped(60, **FAILING)).status == "skip"
    assert state(stopped(60, effective_priority=50)).status == "skip"


# Before kubeadm init


BOTH: dict[str, Any] = {"weights": {CHECK: -60, APISERVER_CHECK: -60}, "effective_priority": 50}


def before_init(*, expected: bool = True, **changes: Any) -> View:
    """Return a view in which the check that asks the apiserver fails on lb2."""
    return changed(view(expect_no_apiserver=expected), LB2, **changes)


def test_check_that_asks_an_apiserver_fails_before_there_is_one() -> None:
    found = state(before_init(**BOTH))
    assert found.status == "pass"
    assert "check-apiserver fails, as it has to while there is no apiserver" in found.text
    assert state(before_init(**BOTH, expected=False)).status == "fail"
    assert state(before_init(**{**BOTH, "passing": frozenset()})).status == "fail"
    assert state(before_init(**{**BOTH, "effective_priority": 1})).status == "fail"
    assert state(before_init(**BOTH, state="FAULT")).status == "fail"


def test_nobody_can_hold_the_vip_before_there_is_an_apiserver_if_its_lack_is_a_fault() -> None:
    fault: dict[str, Any] = {"state": "FAULT", "weights": {CHECK: 0, APISERVER_CHECK: 0}}
    seen = view(holders=(), expect_no_apiserver=True, everywhere={"pings": {VIP: False}})
    waiting = changed(seen, *THREE.nodes, **fault)
    assert state(waiting).status == "pass"
    found = verdict("vip.single-holder", None, waiting)
    assert (found.status, "FAILOVER=fault, TRACK=apiserver" in found.text) == ("pass", True)
    assert {verdict(name, LB2, waiting).status for name in ("vip.ping", "vip.request")} == {"skip"}
    web = Listener("ingress-node", 80, (Backend("w1", "198.51.100.31", 30080),), KUBE.check, "source", "no", "http")
    of = replace(THREE, listeners=(KUBE, web))
    two = changed(
        view(of=of, holders=(), expect_no_apiserver=True, everywhere={"pings": {VIP: False}}), *of.nodes, **fault
    )
    assert verdict("listener.vip", LB2, two).status == "skip"
    others = changed(seen, LB1, LB3, **fault)
    assert verdict("vip.single-holder", None, changed(others, LB2, state="FAULT", **FAILING)).status == "fail"
    down = replace(waiting.facts(LB2), down=frozenset({"eth0"}))
    cut = replace(waiting, survey=Survey({**waiting.survey.facts, LB2: down}, {}))
    assert verdict("vip.single-holder", None, cut).status == "fail"


# Does it run what it should?


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"router_id": 69}, "VRID 69 instead of 68"),
        ({"version": 3}, "VRRP version 3 instead of 2"),
        ({"advert_seconds": 3.0}, "advert interval 3.0 instead of 1.0"),
        ({"priority": 50}, "priority 50 instead of 110"),
        ({"interface": "eth1"}, "interface eth1 instead of eth0"),
        (
            {"vips": frozenset({ip_address(VIP), ip_address("198.51.100.99")})},
            f"VIPs 198.51.100.99, {VIP} instead of {VIP}",
        ),
        ({"peers": frozenset()}, "peers none instead of 198.51.100.11, 198.51.100.13"),
        ({"preempts": False}, "preemption no instead of yes"),
        ({"authenticated": True}, "password yes instead of no"),
    ],
)
def test_what_runs_otherwise_than_asked_for_is_named(changes: dict[str, Any], text: str) -> None:
    found = running(**changes)
    assert (found.status, found.text) == ("fail", f"runs with {text}")


def test_what_runs_as_asked_for_is_a_pass() -> None:
    assert running().status == "pass"


RUNS = Script(("/usr/bin/killall", "-0", "haproxy"), interval=1, timeout=2, fall=2, rise=2)


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (replace(RUNS, command=("/usr/bin/true",)), "script /usr/bin/true instead of /usr/bin/killall -0 haproxy"),
        (
            replace(RUNS, command=("/usr/bin/killall", "-0", "nginx")),
            "script /usr/bin/killall -0 nginx instead of /usr/bin/killall -0 haproxy",
        ),
        (replace(RUNS, interval=3600), "interval 3600 instead of 1"),
        (replace(RUNS, timeout=60), "timeout 60 instead of 2"),
        (replace(RUNS, fall=200), "fall 200 instead of 2"),
        (replace(RUNS, rise=200), "rise 200 instead of 2"),
    ],
)
def test_check_that_runs_otherwise_than_asked_for_is_named(script: Script, text: str) -> None:
    found = running(scripts={CHECK: script})
    assert (found.status, found.text) == ("fail", f"runs with {CHECK} {text}")


@pytest.mark.parametrize(
    "scripts",
    [
        {CHECK: RUNS},
        {CHECK: replace(RUNS, command=("/nix/psmisc/bin/killall", "-0", "haproxy"))},
        {CHECK: Script()},
        {"another": replace(RUNS, interval=3600)},
        {},
    ],
    ids=["as asked for", "in a folder that a link led to", "nothing is told", "not tracked", "no script"],
)
def test_check_that_does_not_run_otherwise_than_asked_for_is_a_pass(scripts: dict[str, Script]) -> None:
    assert running(scripts=scripts).status == "pass"


# Together


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"router_id": 69}, "VRID: 68 on lb1, 69 on lb2, 68 on lb3"),
        ({"authenticated": True}, "password: no on lb1, yes on lb2, no on lb3"),
        ({"advert_seconds": 3.0}, "advert interval: 1 s on lb1, 3 s on lb2, 1 s on lb3"),
        ({"peers": frozenset({ip_address("198.51.100.11")})}, "lb2 does not have lb3 among its peers"),
    ],
)
def test_nodes_that_do_not_understand_each_other_are_red(changes: dict[str, Any], text: str) -> None:
    found = overall("agree", changed(view(), LB2, **changes))
    assert (found.status, found.text) == ("fail", text)


def test_one_node_agrees_with_itself() -> None:
    assert overall("agree", view(away=[LB2, LB3])).status == "skip"


def test_priorities_that_strand_the_vip_as_they_run_are_red() -> None:
    found = overall("law", changed(view(), LB2, priority=40))
    assert found.status == "fail"
    assert "lb1 keeps the VIP" in found.text
    assert "exlb push-config" in str(found.hint)


def test_priority_that_no_check_can_move_is_red() -> None:
    found = overall("law", changed(view(), LB3, priority=255, effective_priority=255, weights={}))
    assert (found.status, found.text) == ("fail", "lb3 has priority 255")
    assert "keeps it whatever its checks say" in str(found.cause)
    assert found.hint == "exlb push-config"


def test_weight_that_the_law_does_not_know_is_red() -> None:
    found = overall("law", changed(view(), *THREE.nodes, weights={CHECK: -254}))
    assert (found.status, found.text) == ("fail", "check-haproxy: weight -254 is not in -253..253")


def test_nodes_with_different_checks_are_red() -> None:
    found = overall("law", changed(view(), LB2, weights={CHECK: -2}))
    assert (found.status, found.text) == (
        "fail",
        f"the nodes have different checks: {CHECK} with weight -60 on lb1; {CHECK} with weight -2 on lb2; "
        f"{CHECK} with weight -60 on lb3",
    )


@pytest.mark.parametrize("nodes", [(LB2,), THREE.nodes])
def test_keepalived_that_left_a_check_out_is_red(nodes: Sequence[Node]) -> None:
    seen = changed(view(), *nodes, weights={}, passing=frozenset())
    assert overall("law", seen).status == "fail"
    found = verdict("vrrp.running", LB2, seen)
    assert (found.status, found.text) == ("fail", f"runs without its check {CHECK}: the VIP stays where that fails")
    assert "exlb logs keepalived --nodes lb2" in str(found.hint)


def test_owner_of_the_vip_has_no_checks_and_its_priority_is_the_finding() -> None:
    found = verdict("vrrp.running", LB2, changed(view(), LB2, priority=255, effective_priority=255, weights={}))
    assert found.text.startswith("runs with priority 255 instead of 110, checks none instead of")


def test_keepalived_that_runs_with_another_weight_is_red() -> None:
    found = verdict("vrrp.running", LB2, changed(view(), LB2, weights={CHECK: -2}))
    assert found.text == f"runs with checks {CHECK} with weight -2 instead of {CHECK} with weight -60"


def test_stranger_with_the_same_vrid_is_red_and_named() -> None:
    found = overall("strangers", changed(view(), LB2, LB3, master=ip_address("198.51.100.77")))
    assert (found.status, found.text) == ("fail", "198.51.100.77 is master of VRID 68, and no node of this cluster")
    assert "ROUTER_ID" in str(found.hint)


def test_holder_that_was_taken_out_of_the_file_is_no_other_cluster() -> None:
    left = replace(THREE, nodes=(LB2, LB3))
    facts = {node: found for node, found in view().survey.facts.items() if node != LB1}
    seen = replace(view(), cluster=left, survey=Survey(facts, {}))
    found = overall("strangers", seen)
    assert (found.status, found.text) == ("fail", "198.51.100.11 is master of VRID 68, and not in NODE_IPS")
    assert found.cause == "198.51.100.11 was a node of this cluster: lb2 and lb3 still have it as a peer"
    assert "ROUTER_ID" not in str(found.hint)
    assert str(found.hint).endswith("exlb push-config, then exlb decommission 198.51.100.11")
    nobody = verdict("vip.single-holder", None, seen)
    assert (nobody.text, nobody.cause) == (f"no node holds {VIP}", f"{found.text}: {found.cause}")
    assert nobody.hint == found.hint
    told = overall("strangers", changed(seen, LB3, peers=frozenset({LB2.address})))
    assert told.cause == "198.51.100.11 was a node of this cluster: lb2 still has it as a peer"


def test_vrrp_that_moves_from_look_to_look_is_red_and_tells_who_moved_when() -> None:
    seen = changed(replace(view(), before=view().survey), LB2, since=NOW - 1, state="MASTER")
    units = {"haproxy": RUNNING, KEEPALIVED_UNIT: replace(RUNNING, changed=NOW - 3)}
    moving = replace(seen, survey=Survey({**seen.survey.facts, LB2: replace(seen.facts(LB2), units=units)}, {}))
    found = overall("settled", moving)
    assert (found.status, found.text) == ("fail", "VRRP does not come to rest on lb2")
    assert found.cause == "lb2: started or reloaded 3 s ago, MASTER for 1 s"
    assert found.hint == "exlb logs keepalived --transitions"


def test_vrrp_that_a_change_moves_is_not_judged() -> None:
    seen = changed(replace(view(), before=view().survey), LB2, since=NOW - 1)
    changing = replace(seen.facts(LB2), generations=Generations(1, kept=(0, 1), changing=True))
    found = overall("settled", replace(seen, survey=Survey({**seen.survey.facts, LB2: changing}, {})))
    assert (found.status, found.text) == ("skip", "a change runs on lb2: verify again when it has ended")


def test_vrrp_that_one_look_was_enough_for_stands_still() -> None:
    assert overall("settled", changed(view(), LB2, since=NOW - 1)).status == "pass"
    assert overall("settled", replace(view(), before=view().survey)).status == "pass"


def test_vrrp_that_runs_nowhere_neither_moves_nor_stands_still() -> None:
    units = {"haproxy": RUNNING, KEEPALIVED_UNIT: STOPPED}
    assert overall("settled", view(everywhere={"units": units, "instances": ()})).status == "skip"


def multicast(seen: View, **changes: Any) -> View:
    """Return a view whose nodes send to a group, from addresses that nobody has named."""
    nodes = tuple(replace(node, source=None) for node in THREE.nodes)
    named = dict(zip(THREE.nodes, nodes, strict=True))
    survey = Survey(
        {named[node]: found for node, found in seen.survey.facts.items()},
        {named[node]: error for node, error in seen.survey.errors.items()},
    )
    of = replace(THREE, nodes=nodes, vrrp=replace(THREE.vrrp, mode="multicast"))
    return changed(replace(seen, cluster=of, survey=survey, desired=rendered(of)), *nodes, peers=frozenset(), **changes)


def test_master_that_could_not_be_asked_is_no_stranger() -> None:
    away = view(away=[LB1])
    assert overall("strangers", multicast(away, master=LB1.address)).status == "pass"
    found = overall("strangers", multicast(away, master=ip_address("fe80::1")))
    assert (found.status, found.text) == (
        "skip",
        "fe80::1 is master of VRID 68: that may be lb1, which could not be asked",
    )
    assert overall("strangers", multicast(view(), master=ip_address("198.51.100.77"))).status == "fail"


def test_master_that_does_not_tell_how_it_runs_is_no_stranger() -> None:
    own = Address("eth0", IPv6Interface("fe80::2/64"))
    seen = view(**SILENT, addresses=(own,))
    assert overall("strangers", multicast(seen, master=ip_address("fe80::2"))).status == "pass"
    assert overall("strangers", multicast(seen, master=ip_address("fe80::3"))).status == "fail"


def test_single_node_is_right() -> None:
    one = cluster(1)
    seen = view()
    alone = replace(seen, cluster=one, survey=Survey({one.nodes[0]: seen.facts(LB1)}, {}), desired=rendered(one))
    assert overall("law", changed(alone, LB1, peers=frozenset())).status == "pass"
    assert verdict("vrrp.running", one.nodes[0], changed(alone, LB1, peers=frozenset())).status == "pass"
