"""What a firewall lets in, judged by rulesets as real nodes gave them, and by rules of every form one by one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Interface, ip_address
from pathlib import Path
from typing import Any

import pytest

from exlb_fab import firewall, planning
from exlb_fab.checks import View
from exlb_fab.checks.firewall import backends, blocking, ports, vrrp
from exlb_fab.checks.vip import single_holder
from exlb_fab.cluster import Cluster, Node, Vip
from exlb_fab.errors import ExlbError, FactsError
from exlb_fab.facts import Address, Facts, KeptFile, Survey, Unit
from exlb_fab.firewall import Directive, Firewall, Opening, Packet
from exlb_fab.planning import NodePlan, Plan, nothing
from exlb_fab.questions import configuration_questions
from exlb_fab.selinux import Selinux
from tests import fake

# Recorded with Debian 12 (firewalld 1.3.3, ufw 0.36.2, nft 1.0.6): fresh, and after a push with FIREWALL=manage on lb1
# (firewalld), lb2 (ufw) or lb3 (nftables) of three nodes with a listener on 9443 and a statistics page on 10080.
RECORDED = Path(__file__).parent / "firewalls"
THREE = fake.cluster(3)
PUSHED = replace(
    THREE,
    listeners=(replace(THREE.listeners[0], port=9443),),
    stats=replace(THREE.stats, bind=ip_address("0.0.0.0")),
)
NODES = {"firewalld": 0, "ufw": 1, "nftables": 2}


def recorded(name: str) -> Firewall:
    return firewall.parse((RECORDED / f"{name}.txt").read_text())


def multicast(cluster: Cluster) -> Cluster:
    return replace(cluster, vrrp=replace(cluster.vrrp, mode="multicast"))


def needed(cluster: Cluster, node: Node) -> tuple[Opening, ...]:
    return (*firewall.adverts(cluster, node), *firewall.ports(cluster))


def answers(found: Firewall, cluster: Cluster, node: Node, openings: Iterable[Opening]) -> dict[str, str]:
    judged = firewall.judged(found, cluster, node, "host0", openings)
    return {opening.words: judgement.answer for opening, judgement in judged.items()}


# Recorded ones


@pytest.mark.parametrize("program", NODES)
def test_firewall_with_its_default_rules_lets_nothing_of_ours_in(program: str) -> None:
    node = PUSHED.nodes[NODES[program]]
    found = answers(recorded(program), PUSHED, node, needed(PUSHED, node))
    assert len(found) == 4
    assert set(found.values()) == {"closed"}


@pytest.mark.parametrize("program", NODES)
def test_firewall_that_was_opened_lets_all_of_it_in_and_nothing_else(program: str) -> None:
    node = PUSHED.nodes[NODES[program]]
    found = recorded(f"{program}-opened")
    assert set(answers(found, PUSHED, node, needed(PUSHED, node)).values()) == {"open"}
    assert firewall.missing(found, PUSHED, node, "host0", needed(PUSHED, node)) == ()
    others = (Opening(port=8443), Opening(source=ip_address("198.51.100.99")))
    assert set(answers(found, PUSHED, node, others).values()) == {"closed"}


@pytest.mark.parametrize("program", NODES)
def test_port_of_ssh_is_open_in_all_of_them(program: str) -> None:
    node = PUSHED.nodes[NODES[program]]
    assert answers(recorded(program), PUSHED, node, [Opening(port=22)]) == {"tcp 22": "open"}


@pytest.mark.parametrize(
    ("program", "place"), [("firewalld", "public"), ("ufw", "-"), ("nftables", "inet/filter/input")]
)
def test_what_is_missing_names_the_firewall_and_the_place_in_it(program: str, place: str) -> None:
    node = PUSHED.nodes[NODES[program]]
    found = firewall.missing(recorded(program), PUSHED, node, "host0", needed(PUSHED, node))
    assert {(each.program, each.place) for each in found} == {(program, place)}
    assert [each.opening for each in found] == list(needed(PUSHED, node))


def test_multicast_needs_its_group_and_no_peer() -> None:
    cluster = multicast(PUSHED)
    opening = Opening(destination=ip_address("224.0.0.18"))
    assert firewall.adverts(cluster, cluster.nodes[0]) == (opening,)
    node = cluster.nodes[0]
    assert answers(recorded("firewalld"), cluster, node, [opening]) == {"vrrp to 224.0.0.18": "closed"}
    assert answers(recorded("firewalld-opened"), cluster, node, [opening]) == {"vrrp to 224.0.0.18": "open"}


def test_without_any_rules_all_is_open() -> None:
    assert set(answers(firewall.parse(""), PUSHED, PUSHED.nodes[0], needed(PUSHED, PUSHED.nodes[0])).values()) == {
        "open"
    }


def test_rules_that_cannot_be_read_make_nothing_sure() -> None:
    found = firewall.parse("unread firewalld runs, and there is no nft")
    assert answers(found, PUSHED, PUSHED.nodes[0], [Opening(port=9443)]) == {"tcp 9443": "unknown"}
    assert firewall.missing(found, PUSHED, PUSHED.nodes[0], "host0", needed(PUSHED, PUSHED.nodes[0])) == ()


def test_opened_lines_are_what_was_opened() -> None:
    found = recorded("nftables-opened")
    assert [each.line for each in found.opened] == [
        "nftables inet/filter/input vrrp from 198.51.100.11",
        "nftables inet/filter/input vrrp from 198.51.100.12",
        "nftables inet/filter/input tcp 10080",
        "nftables inet/filter/input tcp 9443",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "nft {",
        'nft {"nftables": [{"table": {"family": "ip", "name": "f"}}, {"rule": {"family": "ip", "table": "f"}}]}',
        'nft {"nftables": [7]}',
        "iptables -A INPUT -j ACCEPT",
    ],
)
def test_ruleset_that_is_none_makes_nothing_sure(text: str) -> None:
    found = firewall.parse(f"{text}\nopened ufw - tcp 8443")
    assert answers(found, PUSHED, PUSHED.nodes[0], [Opening(port=8443)]) == {"tcp 8443": "unknown"}
    assert "said" in found.unread or "not understood" in found.unread
    assert [each.line for each in found.opened] == ["ufw - tcp 8443"]


@pytest.mark.parametrize(
    "text",
    [
        "opened firewalld",
        "opened carrier-pigeon - tcp 8443",
        "opened ufw - vrrp from lb2",
    ],
)
def test_garbage_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(FactsError):
        firewall.parse(text)


# Rules one by one


PEER = ip_address("198.51.100.12")
OWN = ip_address("198.51.100.11")
ADVERT = Packet(4, "eth0", PEER, OWN)
CONNECTION = Packet(4, "eth0", PEER, ip_address("198.51.100.100"), 8443)


def match(left: Any, right: Any, op: str = "==") -> Any:
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str) -> Any:
    return {"meta": {"key": key}}


def payload(protocol: str, name: str) -> Any:
    return {"payload": {"protocol": protocol, "field": name}}


SADDR = payload("ip", "saddr")
ACCEPT: Any = {"accept": None}
DROP: Any = {"drop": None}


def ruleset(
    *rules: list[Any], policy: str = "drop", chains: dict[str, list[list[Any]]] | None = None, **sets: Any
) -> str:
    chain = {"family": "inet", "table": "f"}
    entries: list[Any] = [{"table": {"family": "inet", "name": "f"}}]
    entries.append({"chain": {**chain, "name": "in", "hook": "input", "policy": policy}})
    entries += [{"rule": {**chain, "chain": "in", "expr": rule}} for rule in rules]
    for name, own in (chains or {}).items():
        entries.append({"chain": {**chain, "name": name}})
        entries += [{"rule": {**chain, "chain": name, "expr": rule}} for rule in own]
    entries += [{"set": {**chain, "name": name, "elem": elements}} for name, elements in sets.items()]
    return "nft " + json.dumps({"nftables": entries})


def judged(packet: Packet, *rules: list[Any], **more: Any) -> str:
    return firewall.parse(ruleset(*rules, **more)).judge(packet).answer


LIMIT: Any = {"limit": {"rate": 1, "per": "second"}}
COUNTER: Any = {"counter": None}


def added(*kept: Any) -> Any:
    """Return what adds who sends a packet to a set, and keeps something for each of them."""
    return {"set": {"op": "add", "elem": SADDR, "set": "@m", **({"stmt": list(kept)} if kept else {})}}


@pytest.mark.parametrize(
    ("condition", "advert", "connection"),
    [
        (match(meta("l4proto"), "vrrp"), "open", "closed"),
        (match(meta("l4proto"), 112), "open", "closed"),
        (match(meta("l4proto"), {"set": ["tcp", "udp"]}), "closed", "open"),
        (match(meta("l4proto"), "ospf"), "closed", "closed"),
        (match(payload("ip", "protocol"), "vrrp"), "open", "closed"),
        (match(payload("ip6", "nexthdr"), "vrrp"), "closed", "closed"),
        (match(meta("iifname"), "eth0"), "open", "open"),
        (match(meta("iifname"), "eth*"), "open", "open"),
        (match(meta("iifname"), "lo"), "closed", "closed"),
        (match(meta("iifname"), "lo", "!="), "open", "open"),
        (match(meta("nfproto"), "ipv4"), "open", "open"),
        (match(meta("mark"), 7), "unknown", "unknown"),
        (match(payload("ip", "saddr"), "198.51.100.12"), "open", "open"),
        (match(payload("ip", "saddr"), "198.51.100.13"), "closed", "closed"),
        (match(payload("ip", "saddr"), {"prefix": {"addr": "198.51.100.0", "len": 24}}), "open", "open"),
        (match(payload("ip", "saddr"), {"set": [{"range": ["198.51.100.2", "198.51.100.9"]}]}), "closed", "closed"),
        (match(payload("ip", "saddr"), {"set": [{"elem": {"val": "198.51.100.12", "expires": 3}}]}), "open", "open"),
        (match(payload("ip", "daddr"), "198.51.100.100"), "closed", "open"),
        (match(payload("ip6", "saddr"), "2001:db8::1", "!="), "closed", "closed"),
        (match(payload("tcp", "dport"), 8443), "closed", "open"),
        (match(payload("tcp", "dport"), {"set": [22, {"range": [8000, 9000]}]}), "closed", "open"),
        (match(payload("tcp", "dport"), 8443, "!="), "closed", "closed"),
        (match(payload("tcp", "dport"), 1024, ">="), "closed", "open"),
        (match(payload("th", "dport"), 8443), "unknown", "open"),
        (match(payload("udp", "dport"), 8443), "closed", "closed"),
        (match({"ct": {"key": "state"}}, "new", "in"), "open", "open"),
        (match({"ct": {"key": "state"}}, ["established", "related"], "in"), "closed", "closed"),
        (match({"ct": {"key": "status"}}, "dnat", "in"), "closed", "closed"),
        (match({"ct": {"key": "mark"}}, 1), "unknown", "unknown"),
        (match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"), "open", "open"),
        (match({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, False), "unknown", "unknown"),
        (match({"&": [payload("tcp", "flags"), {"|": ["fin", "syn", "rst", "ack"]}]}, "syn"), "closed", "open"),
        (match({"&": [payload("tcp", "flags"), ["fin", "syn"]]}, "syn", "!="), "closed", "closed"),
        (LIMIT, "unknown", "unknown"),
        (added(LIMIT), "unknown", "unknown"),
        (added(LIMIT, COUNTER), "unknown", "unknown"),
        (added({"quota": {"val": 5, "val_unit": "mbytes", "inv": True}}), "unknown", "unknown"),
        (added({"ct count": {"val": 20, "inv": True}}), "unknown", "unknown"),
        (added(COUNTER), "open", "open"),
        (added(), "open", "open"),
        ({"meter": {"name": "m", "key": SADDR, "size": 65535, "stmt": LIMIT}}, "unknown", "unknown"),
        ({"meter": {"name": "m", "key": SADDR, "size": 65535, "stmt": COUNTER}}, "open", "open"),
        ("add @m { ip saddr : tcp dport }", "unknown", "unknown"),
        ({"xt": {"type": "match", "name": "comment"}}, "open", "open"),
        ({"xt": {"type": "match", "name": "recent"}}, "unknown", "unknown"),
        ({"counter": {"packets": 0, "bytes": 0}}, "open", "open"),
        (match({"concat": [SADDR, payload("tcp", "dport")]}, {"concat": [str(PEER), 8443]}), "closed", "open"),
        (match(payload("ip", "saddr"), "@friends"), "open", "open"),
        (match(payload("ip", "saddr"), "@nobody-knows"), "unknown", "unknown"),
    ],
)  # fmt: skip
def test_condition_is_understood_or_leaves_the_answer_open(condition: Any, advert: str, connection: str) -> None:
    found = [judged(packet, [condition, ACCEPT], friends=["198.51.100.12"]) for packet in (ADVERT, CONNECTION)]
    assert found == [advert, connection]


def test_rule_that_surely_drops_counts_before_one_that_may_accept() -> None:
    assert judged(ADVERT, [DROP], [ACCEPT], policy="accept") == "closed"
    assert judged(ADVERT, [{"reject": {"type": "tcp reset"}}], policy="accept") == "closed"


def test_rule_that_may_drop_leaves_an_accepting_chain_unsure() -> None:
    assert judged(ADVERT, [LIMIT, DROP], [ACCEPT]) == "unknown"


def test_limit_for_each_sender_shuts_no_port() -> None:
    """Of `tcp dport 8443 add @m { ip saddr limit rate over 50/second } drop`, and of the same as a meter."""
    port, over = match(payload("tcp", "dport"), 8443), {"limit": {"rate": 50, "per": "second", "inv": True}}
    meter = {"meter": {"name": "m", "key": SADDR, "stmt": over}}
    for condition in (added(over), meter):
        assert judged(CONNECTION, [port, condition, DROP], policy="accept") == "unknown"
        assert judged(ADVERT, [port, condition, DROP], policy="accept") == "open"
    assert judged(CONNECTION, [port, added(), DROP], policy="accept") == "closed"


def test_limit_of_the_set_itself_counts_like_one_in_the_rule() -> None:
    text = ruleset([added(), DROP], policy="accept", m=[])
    assert firewall.parse(text).judge(CONNECTION).answer == "closed"
    limited = text.replace('"name": "m"', f'"name": "m", "stmt": {json.dumps([LIMIT])}')
    assert firewall.parse(limited).judge(CONNECTION).answer == "unknown"


def test_nft_that_does_not_tell_what_is_kept_for_each_sender_makes_nothing_sure() -> None:
    entries = json.loads(ruleset([added(), DROP], policy="accept", m=[]).removeprefix("nft "))["nftables"]
    for version, answer in (("0.9.8", "unknown"), ("1.0.6", "closed")):
        text = json.dumps({"nftables": [{"metainfo": {"version": version}}, *entries]})
        assert firewall.parse(f"nft {text}").judge(CONNECTION).answer == answer


def test_order_of_the_rules_decides() -> None:
    mine, all_ports = match(payload("tcp", "dport"), 8443), match(meta("l4proto"), "tcp")
    assert judged(CONNECTION, [mine, ACCEPT], [all_ports, DROP], policy="accept") == "open"
    assert judged(CONNECTION, [all_ports, DROP], [mine, ACCEPT], policy="accept") == "closed"


def test_jump_comes_back_and_goto_does_not() -> None:
    back = {"other": [[match(payload("tcp", "dport"), 22), ACCEPT]]}
    assert judged(ADVERT, [{"jump": {"target": "other"}}], [ACCEPT], chains=back) == "open"
    assert judged(ADVERT, [{"goto": {"target": "other"}}], [ACCEPT], chains=back) == "closed"
    assert (
        judged(ADVERT, [{"jump": {"target": "other"}}], [ACCEPT], chains={"other": [[{"return": None}], [DROP]]})
        == "open"
    )


def test_jump_under_a_condition_that_is_not_known_leaves_both_ways() -> None:
    assert judged(ADVERT, [LIMIT, {"jump": {"target": "other"}}], chains={"other": [[ACCEPT]]}) == "unknown"


def test_map_of_verdicts_is_followed() -> None:
    states = [["established", ACCEPT], ["invalid", DROP], ["new", {"jump": {"target": "fresh"}}]]
    vmap = {"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": states}}}
    assert judged(ADVERT, [vmap], chains={"fresh": [[ACCEPT]]}) == "open"
    assert judged(ADVERT, [vmap], chains={"fresh": []}) == "closed"
    by_port = {"vmap": {"key": payload("tcp", "dport"), "data": "@ports"}}
    assert judged(CONNECTION, [by_port], ports=[[8443, ACCEPT]]) == "open"
    assert judged(ADVERT, [by_port], ports=[[8443, ACCEPT]]) == "closed"
    assert judged(CONNECTION, [by_port]) == "unknown"


def test_target_of_iptables_that_nft_has_no_words_for_is_not_taken_for_anything() -> None:
    assert judged(ADVERT, [{"xt": {"type": "target", "name": "TARPIT"}}], [ACCEPT]) == "unknown"
    assert judged(ADVERT, [{"xt": None}], [ACCEPT]) == "unknown"


def test_every_table_has_a_say_and_one_of_another_family_none() -> None:
    two = firewall.parse(ruleset([ACCEPT]) + "\n" + ruleset(policy="drop").replace('"f"', '"g"'))
    assert two.judge(ADVERT).answer == "closed"
    assert two.judge(ADVERT).blockers[0].place == "inet/g/in"
    six = firewall.parse(ruleset().replace('"inet"', '"ip6"'))
    assert (six.judge(ADVERT).answer, six.judge(replace(ADVERT, family=6)).answer) == ("open", "closed")


def before_input(*rules: list[Any], kind: str = "filter", policy: str = "accept") -> str:
    text = ruleset(*rules, policy=policy).replace('"hook": "input"', f'"type": "{kind}", "hook": "prerouting"')
    return firewall.parse(text).judge(CONNECTION).answer


def test_what_is_dropped_before_the_input_chains_does_not_come_in() -> None:
    mine = [match(meta("iifname"), "eth0"), match(payload("tcp", "dport"), 8443)]
    assert before_input([*mine, DROP]) == "closed"
    assert before_input([match(payload("tcp", "dport"), 22), ACCEPT], policy="drop") == "closed"
    assert before_input([match(meta("iifname"), "eth1"), DROP]) == "open"


def test_chain_before_those_for_what_comes_in_is_told_and_never_opened() -> None:
    text = ruleset([match(payload("tcp", "dport"), 8443), DROP], policy="accept")
    found = firewall.parse(text.replace('"hook": "input"', '"type": "filter", "hook": "prerouting"'))
    node = THREE.nodes[0]
    assert answers(found, THREE, node, firewall.ports(THREE)) == {"tcp 8443": "closed"}
    assert firewall.missing(found, THREE, node, "eth0", firewall.ports(THREE)) == ()


def test_mark_or_reverse_path_filter_before_the_input_chains_is_no_finding() -> None:
    assert before_input([match({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, False), DROP]) == "open"
    assert before_input([{"xt": {"type": "match", "name": "rpfilter"}}, DROP]) == "open"
    assert before_input([{"xt": {"type": "target", "name": "DNAT"}}], kind="nat") == "open"
    assert before_input([DROP], kind="nat") == "open"


def test_table_that_sleeps_drops_nothing() -> None:
    text = ruleset().replace('"name": "f"}', '"name": "f", "flags": ["dormant"]}', 1)
    assert firewall.parse(text).judge(ADVERT).answer == "open"


# iptables


SAVED = """\
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:friends - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m limit --limit 9/sec -j LOG --log-prefix "new: "
-A INPUT -s 198.51.100.0/24 -m comment --comment "ours -j DROP" -j friends
-A INPUT ! -s 198.51.100.0/24 -j DROP
-A friends -p 112 -j ACCEPT
-A friends -p tcp -m multiport --dports 22,8000:9000 -j ACCEPT
-A friends -p udp -m udp --dport 8443 -j ACCEPT
COMMIT
"""


def saved(text: str, source: str = "iptables") -> Firewall:
    return firewall.parse("".join(f"{source} {line}\n" for line in text.splitlines()))


def test_rules_of_iptables_are_read_like_any() -> None:
    found = saved(SAVED)
    assert found.judge(ADVERT).answer == "open"
    assert found.judge(CONNECTION).answer == "open"
    assert found.judge(replace(CONNECTION, port=10080)).answer == "closed"
    assert found.judge(replace(CONNECTION, source=ip_address("2.0.0.1"))).answer == "closed"
    assert found.judge(replace(CONNECTION, port=10080)).blockers == (firewall.Blocker("iptables", "ip"),)


def test_condition_that_iptables_alone_knows_leaves_the_answer_open() -> None:
    line = "-A friends -p tcp -m recent --rcheck --seconds 60 --name knock --rsource -j ACCEPT"
    found = saved(SAVED.replace("COMMIT", f"{line}\nCOMMIT"))
    assert found.judge(replace(CONNECTION, port=10080)).answer == "unknown"


def test_words_of_iptables_replace_those_that_nft_has_for_its_tables() -> None:
    opaque = {"xt": {"type": "match", "name": "conntrack"}}
    text = ruleset([opaque, ACCEPT]).replace('"inet"', '"ip"').replace('"f"', '"filter"').replace('"in"', '"INPUT"')
    assert firewall.parse(text).judge(ADVERT).answer == "unknown"
    lines = "".join(f"iptables {line}\n" for line in SAVED.splitlines())
    assert firewall.parse(f"{text}\n{lines}").judge(ADVERT).answer == "open"
    legacy = lines.replace("iptables ", "iptables-legacy ").replace("-A friends -p 112", "-A friends -p 113")
    assert firewall.parse(f"{lines}{legacy}").judge(ADVERT).answer == "closed"


# As kube-proxy and the kubelet write them: what is marked, and what is in their sets, goes to a Service.
KUBE_MARKS = """\
*filter
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -m comment --comment "marked packets" -m mark --mark 0x8000/0x8000 -j DROP
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m udp --dport 53 -j REJECT --reject-with icmp-port-unreachable
COMMIT
"""
KUBE_SETS = """\
*filter
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-IPVS-FILTER - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A INPUT -m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-FILTER
-A INPUT -j KUBE-PROXY-FIREWALL
-A INPUT -j KUBE-NODE-PORT
-A KUBE-IPVS-FILTER -m set --match-set KUBE-LOAD-BALANCER dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst -j REJECT
-A KUBE-NODE-PORT -m set --match-set KUBE-HEALTH-CHECK-NODE-PORT dst -j ACCEPT
-A KUBE-PROXY-FIREWALL -m set --match-set KUBE-LOAD-BALANCER-SOURCE-CIDR dst,dst,src -j RETURN
-A KUBE-PROXY-FIREWALL -m set --match-set KUBE-LOAD-BALANCER-FW dst,dst -j DROP
COMMIT
"""
SENT = replace(ADVERT, hook="output")


@pytest.mark.parametrize("text", [KUBE_MARKS, KUBE_SETS], ids=["iptables", "ipvs"])
def test_rules_of_kube_proxy_are_about_services_alone(text: str) -> None:
    found = saved(text)
    assert [found.judge(each).answer for each in (ADVERT, CONNECTION, SENT)] == ["open"] * 3


@pytest.mark.parametrize("condition", ["-m mark --mark 0x8000/0x8000", "-m set --match-set friends src"])
def test_marks_and_sets_of_others_leave_the_answer_open(condition: str) -> None:
    found = saved(f"*filter\n:INPUT ACCEPT [0:0]\n-A INPUT {condition} -j DROP\nCOMMIT")
    assert found.judge(ADVERT).answer == "unknown"


def test_what_a_chain_of_services_leads_to_is_nobody_s_but_ours() -> None:
    lines = ":INPUT ACCEPT [0:0]\n:KUBE-X - [0:0]\n:mine - [0:0]\n-A INPUT -j KUBE-X\n-A KUBE-X -j mine"
    found = saved(f"*filter\n{lines}\n-A mine -m mark --mark 0x8000/0x8000 -j DROP\nCOMMIT")
    assert found.judge(ADVERT).answer == "unknown"


def test_mark_in_words_of_nft_is_none_in_a_chain_of_services() -> None:
    bits = {"&": [{"meta": {"key": "mark"}}, 32768]}
    rule = [{"match": {"op": "==", "left": bits, "right": 32768}}, {"drop": None}]
    for name, answer in (("KUBE-FIREWALL", "open"), ("mine", "unknown")):
        assert judged(ADVERT, [{"jump": {"target": name}}], policy="accept", chains={name: [rule]}) == answer


# Plans and verdicts


def facts(cluster: Cluster, node: Node, found: Firewall | None, *, holds: bool = False) -> Facts:
    addresses = [Address("eth0", IPv4Interface(f"{node.address}/24"))]
    addresses += [Address("eth0", IPv4Interface(f"{cluster.vip}/32"))] if holds else []
    units = dict.fromkeys(("haproxy", "keepalived"), Unit("loaded", "active", "running", "enabled"))
    return Facts(addresses=tuple(addresses), units=units, firewall=found)


def survey(cluster: Cluster, found: dict[str, Firewall], holders: tuple[str, ...] = ("lb1",)) -> Survey:
    return Survey(
        {n: facts(cluster, n, found.get(n.name, Firewall()), holds=n.name in holders) for n in cluster.nodes}, {}
    )


def idle(cluster: Cluster) -> Plan:
    nodes = tuple(NodePlan(node, (), nothing("haproxy"), nothing("keepalived")) for node in cluster.nodes)
    return Plan(fake.PROXY, nodes, (), cluster.vrrp.advert_seconds)


def changing(cluster: Cluster) -> Plan:
    plan = idle(cluster)
    first = replace(plan.nodes[0], proxy=planning.UnitChange("haproxy", "reload", "asked for"))
    return replace(plan, nodes=(first, *plan.nodes[1:]), waves=((first,),))


def test_with_manage_what_is_missing_is_opened_and_nothing_else_changes() -> None:
    cluster = replace(PUSHED, firewall="manage")
    plan = planning.admitted(idle(cluster), cluster, survey(cluster, {"lb1": recorded("firewalld")}))
    assert not plan.empty
    assert plan.waves == ()
    assert plan.nodes[0].summary() == (
        "open VRRP (protocol 112) from 198.51.100.12, VRRP (protocol 112) from 198.51.100.13, TCP port 9443, "
        "TCP port 10080 in firewalld (zone public)"
    )
    assert [each.empty for each in plan.nodes] == [False, True, True]
    assert plan.nodes[0].moves_keepalived


def test_with_manage_there_is_nothing_to_do_once_all_is_open() -> None:
    cluster = replace(PUSHED, firewall="manage")
    found = {f"lb{place + 1}": recorded(f"{name}-opened") for name, place in NODES.items()}
    assert planning.admitted(idle(cluster), cluster, survey(cluster, found)).empty


def test_what_nobody_needs_any_more_is_closed_if_exlb_has_opened_it() -> None:
    cluster = replace(THREE, firewall="manage")
    plan = planning.admitted(idle(cluster), cluster, survey(cluster, {"lb3": recorded("nftables-opened")}))
    assert [each.line for each in plan.nodes[2].closes] == [
        "nftables inet/filter/input tcp 10080",
        "nftables inet/filter/input tcp 9443",
    ]
    two = replace(cluster, nodes=(cluster.nodes[0], cluster.nodes[2]))
    left = planning.admitted(idle(two), two, survey(two, {"lb3": recorded("nftables-opened")}))
    assert "nftables inet/filter/input vrrp from 198.51.100.12" in [each.line for each in left.nodes[1].closes]


def test_what_lasts_until_the_next_boot_alone_is_said() -> None:
    cluster = replace(PUSHED, firewall="manage")
    plan = planning.admitted(idle(cluster), cluster, survey(cluster, {"lb3": recorded("nftables")}))
    assert [notice.partition(",")[0] for notice in plan.notices] == [
        "what is opened in nftables on lb3 is gone when its rules are loaded anew"
    ]


def test_with_check_a_push_warns_of_what_is_closed_and_opens_nothing() -> None:
    plan = planning.admitted(changing(PUSHED), PUSHED, survey(PUSHED, {"lb2": recorded("ufw")}))
    assert [each.opens for each in plan.nodes] == [(), (), ()]
    (notice,) = plan.notices
    assert notice.startswith("lb2 does not let in VRRP (protocol 112) from 198.51.100.11, ")
    assert "FIREWALL=manage" in notice


def test_with_ignore_nothing_is_asked_and_nothing_is_said() -> None:
    cluster = replace(PUSHED, firewall="ignore")
    assert "firewall" in configuration_questions(PUSHED)
    assert "firewall" not in configuration_questions(cluster)
    assert planning.admitted(changing(cluster), cluster, survey(cluster, {"lb2": recorded("ufw")})).notices == ()


def test_kept_generation_says_itself_what_has_to_come_in() -> None:
    cluster = replace(THREE, firewall="manage")
    proxy = fake.PROXY.path
    text = "    bind 0.0.0.0:9443\n    bind 127.0.0.1:10080\n"
    peers = "vrrp_instance x {\n    unicast_peer {\n        198.51.100.13\n    }\n}\n"
    made = [(proxy, text, "proxy"), (fake.KEEPALIVED_PATH, peers, "keepalived")]
    files = tuple(
        planning.kept_file(cluster, KeptFile("1", kind, path, 0o644, "0:0", "0"), text) for path, text, kind in made
    )
    plan = idle(cluster)
    back = replace(plan.nodes[0], desired=planning.Desired(files, (), 3))
    plan = replace(plan, nodes=(back, *plan.nodes[1:]))
    opened = planning.admitted(plan, cluster, survey(cluster, {"lb1": recorded("firewalld")})).nodes[0].opens
    assert [each.opening.words for each in opened] == ["vrrp from 198.51.100.13", "tcp 9443"]


def view(cluster: Cluster, found: dict[str, Firewall], holders: tuple[str, ...] = ("lb1",)) -> View:
    return View(cluster, survey(cluster, found, holders), {})


def test_verify_names_the_firewall_and_the_command_to_type() -> None:
    looked = view(PUSHED, {"lb1": recorded("firewalld")})
    verdict = vrrp(looked, PUSHED.nodes[0])
    assert (verdict.status, verdict.text) == (
        "fail",
        "firewalld does not let in: VRRP (protocol 112) from 198.51.100.12, VRRP (protocol 112) from 198.51.100.13",
    )
    assert verdict.hint is not None
    assert "FIREWALL=manage" in verdict.hint
    assert "firewall-cmd --permanent --zone=public --add-port=9443/tcp" in (ports(looked, PUSHED.nodes[0]).hint or "")
    assert vrrp(looked, PUSHED.nodes[1]).status == "pass"


def test_verify_only_warns_of_a_backend_that_the_other_proxies_cannot_reach() -> None:
    verdict = backends(view(PUSHED, {"lb1": recorded("firewalld")}), PUSHED.nodes[0])
    assert (verdict.status, verdict.text) == ("warn", "firewalld does not let in: TCP port 6443")


def test_verify_says_when_it_cannot_tell() -> None:
    unsure = firewall.parse(ruleset([LIMIT, ACCEPT]))
    verdict = ports(view(PUSHED, {"lb1": unsure}), PUSHED.nodes[0])
    assert (verdict.status, verdict.cause) == ("warn", "nftables has rules that exlb does not understand")
    assert verdict.hint == "exlb exec --sudo --nodes lb1 -- nft list ruleset"
    assert ports(view(PUSHED, {"lb1": firewall.parse("unread no nft")}), PUSHED.nodes[0]).cause == "no nft"


def test_verify_with_ignore_skips() -> None:
    looked = View(PUSHED, Survey({node: facts(PUSHED, node, None) for node in PUSHED.nodes}, {}), {})
    assert vrrp(looked, PUSHED.nodes[0]).status == "skip"
    assert blocking(looked, hearing=PUSHED.nodes, sending=PUSHED.nodes) is None


def test_split_brain_names_the_firewalls_that_cause_it() -> None:
    found = {"lb1": recorded("firewalld"), "lb2": recorded("firewalld")}
    verdict = single_holder(view(multicast(PUSHED), found, ("lb1", "lb2")))
    assert verdict.cause == "firewalld on lb1 and lb2 does not let VRRP (protocol 112) in"
    assert verdict.hint == firewall.MANAGE_HINT
    mixed = single_holder(view(PUSHED, {**found, "lb2": recorded("ufw")}, ("lb1", "lb2")))
    assert mixed.cause == "firewalld on lb1 and ufw on lb2 do not let VRRP (protocol 112) in"


OUT = match(meta("l4proto"), "vrrp")


def outward(*rules: list[Any], policy: str = "accept") -> Firewall:
    return firewall.parse(ruleset(*rules, policy=policy).replace('"hook": "input"', '"hook": "output"'))


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.iterdir()))
def test_no_firewall_with_its_default_rules_holds_adverts_back(name: str) -> None:
    for cluster in (PUSHED, multicast(PUSHED)):
        packets = list(firewall.sent(cluster, cluster.nodes[0], "host0"))
        assert packets
        assert recorded(name).judge_all(packets).answer == "open"


def test_own_filter_that_holds_the_adverts_back_is_red_and_what_to_type_is_told() -> None:
    found = vrrp(view(PUSHED, {"lb1": outward([OUT, DROP])}), PUSHED.nodes[0])
    assert (found.status, found.text) == ("fail", "nftables does not let out: VRRP (protocol 112)")
    assert found.hint == "as root on it: nft insert rule inet f in meta l4proto 112 accept"
    legacy = saved("*filter\n:OUTPUT DROP [0:0]\n-A OUTPUT -o eth1 -p 112 -j ACCEPT\nCOMMIT")
    found = vrrp(view(PUSHED, {"lb1": legacy}), PUSHED.nodes[0])
    assert (found.text, found.hint) == (
        "iptables does not let out: VRRP (protocol 112)",
        "as root on it: iptables -I OUTPUT -p 112 -j ACCEPT",
    )


@pytest.mark.parametrize(
    "rules",
    [
        [[match(meta("oifname"), "eth0"), ACCEPT]],
        [[match(payload("ip", "daddr"), {"prefix": {"addr": "198.51.100.0", "len": 24}}), ACCEPT]],
        [[match(payload("ip", "saddr"), "198.51.100.11"), ACCEPT]],
        [[match({"fib": {"result": "type", "flags": ["saddr"]}}, "local"), ACCEPT]],
        [[LIMIT, ACCEPT]],
    ],
)
def test_adverts_that_get_out_or_perhaps_do_are_no_finding(rules: list[list[Any]]) -> None:
    assert vrrp(view(PUSHED, {"lb1": outward(*rules, policy="drop")}), PUSHED.nodes[0]).status == "pass"


def test_firewall_that_shuts_both_ways_is_told_as_one_finding() -> None:
    found = firewall.parse(ruleset() + "\n" + ruleset().replace('"input"', '"output"').replace('"f"', '"g"'))
    verdict = vrrp(view(PUSHED, {"lb1": found}), PUSHED.nodes[0])
    assert "does not let in: VRRP" in verdict.text
    assert verdict.text.endswith("nftables does not let out: VRRP (protocol 112)")
    assert "FIREWALL=manage" in str(verdict.hint)


def test_what_holds_adverts_back_is_not_what_keeps_clients_out() -> None:
    assert ports(view(PUSHED, {"lb1": outward(policy="drop")}), PUSHED.nodes[0]).status == "pass"


def test_one_node_alone_sends_to_nobody() -> None:
    alone = fake.cluster(1)
    assert list(firewall.sent(alone, alone.nodes[0], "eth0")) == []
    assert list(firewall.sent(multicast(alone), alone.nodes[0], "eth0")) == []


def test_split_brain_without_a_firewall_blames_none() -> None:
    verdict = single_holder(view(PUSHED, {}, ("lb1", "lb2")))
    assert verdict.cause == "they do not hear each other's adverts"


# What is needed, and how it is typed


def test_local_statistics_page_needs_no_opening() -> None:
    assert firewall.ports(THREE) == (Opening(port=8443),)
    assert firewall.ports(PUSHED) == (Opening(port=9443), Opening(port=10080))


def test_one_node_alone_hears_nobody() -> None:
    alone = fake.cluster(1)
    assert firewall.adverts(alone, alone.nodes[0]) == ()
    assert firewall.adverts(multicast(alone), alone.nodes[0]) == ()


def test_second_vip_of_another_family_is_judged_by_the_rules_of_that_family() -> None:
    cluster = replace(THREE, extra_vips=(Vip(ip_address("2001:db8::100"), 64),))
    four = firewall.parse(ruleset(policy="accept") + "\n" + ruleset().replace('"inet"', '"ip6"'))
    assert answers(four, THREE, THREE.nodes[0], [Opening(port=8443)]) == {"tcp 8443": "open"}
    assert answers(four, cluster, cluster.nodes[0], [Opening(port=8443)]) == {"tcp 8443": "closed"}


@pytest.mark.parametrize(
    ("line", "typed"),
    [
        ("ufw - tcp 8443", "ufw prepend allow 8443/tcp"),
        ("ufw - vrrp to 224.0.0.18", "ufw prepend allow proto vrrp to 224.0.0.18"),
        ("iptables ip vrrp from 198.51.100.12", "iptables -I INPUT -p 112 -s 198.51.100.12 -j ACCEPT"),
        ("iptables ip6 tcp 8443", "ip6tables -I INPUT -p tcp --dport 8443 -j ACCEPT"),
        ("nftables ip6/f/in vrrp to ff02::12", "nft insert rule ip6 f in ip6 daddr ff02::12 meta l4proto 112 accept"),
        ("nftables inet/f/in tcp 8443", "nft insert rule inet f in tcp dport 8443 accept"),
    ],
)  # fmt: skip
def test_command_to_type_by_hand(line: str, typed: str) -> None:
    (directive,) = firewall.parse(f"opened {line}").opened
    assert directive.line == line
    assert firewall.command(directive) == typed


def test_rich_rule_of_firewalld_names_family_address_and_protocol() -> None:
    port = firewall.command(Directive("firewalld", "internal", Opening(port=8443)))
    assert port == " && ".join(
        f"firewall-cmd {kind}--zone=internal --add-port=8443/tcp" for kind in ("", "--permanent ")
    )
    typed = firewall.command(Directive("firewalld", "public", Opening(source=ip_address("2001:db8::2"))))
    assert "--add-rich-rule='rule family=ipv6 source address=2001:db8::2 protocol value=112 accept'" in typed


def test_selinux_without_semanage_is_refused_before_anything_changes() -> None:
    looked = survey(THREE, {})
    without = replace(looked.facts[THREE.nodes[0]], selinux=Selinux(enforcing=True, ports=None))
    looked = replace(looked, facts={**looked.facts, THREE.nodes[0]: without})
    with pytest.raises(ExlbError) as error:
        planning.admitted(idle(THREE), THREE, looked)
    assert error.value.hint == "install policycoreutils-python-utils there"
