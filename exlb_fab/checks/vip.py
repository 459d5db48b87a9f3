"""Is the VIP where it should be, and is a client that connects to it served?"""

from __future__ import annotations

from dataclasses import replace

from exlb_fab.checks import added
from exlb_fab.checks.base import Register, Verdict, View, failed, passed, skipped, warned
from exlb_fab.checks.election import instances, is_vip_awaited, strangers
from exlb_fab.checks.hearing import split
from exlb_fab.checks.neighbours import rivalled
from exlb_fab.checks.replies import crowded, cut_off, served
from exlb_fab.cluster import Node, Vip
from exlb_fab.platforms import KEEPALIVED_PATH, KEEPALIVED_UNIT
from exlb_fab.questions import vip_url

CHECKS = Register()


@CHECKS.overall("vip.single-holder", "Exactly one node holds the VIP")
def single_holder(view: View) -> Verdict:
    vip = view.cluster.vip
    holders = view.survey.holders(vip.address)
    match holders:
        case [node] if len(view.cluster.nodes) == 1:
            hint = "a second node in NODE_IPS of environment.sh, then exlb deploy"
            return warned(f"{vip} is on {node}, and there is one node: nobody would take it over", hint=hint)
        case [node]:
            return passed(f"{vip} is on {node}")
        case []:
            return _nobody(view)
        case _:
            return split(view, holders)


def _nobody(view: View) -> Verdict:
    vip = view.cluster.vip
    if not view.answering:
        return skipped("no node could be asked")
    away = [str(node) for node in view.cluster.nodes if node not in view.answering]
    url = vip_url(view.cluster)
    if away and all(view.facts(node).replies[url].accepted for node in view.answering):
        text = f"{vip} is served by a node that could not be asked: {' or '.join(away)}"
        return warned(text, hint="have it answer again: exlb verify --only node.ssh says what is wrong")
    if is_vip_awaited(view):
        return passed(f"no node holds {vip}, and none can while there is no apiserver: FAILOVER=fault, TRACK=apiserver")
    said, stranger = f"no node holds {vip}", strangers(view)
    if stranger.status == "fail":
        return failed(said, cause=f"{stranger.text}: {stranger.cause}", hint=stranger.hint)
    return failed(said, cause=_why_nobody(view), hint="exlb logs keepalived --transitions")


def _why_nobody(view: View) -> str | None:
    stopped = [str(node) for node in view.answering if not view.facts(node).units[KEEPALIVED_UNIT].running]
    if len(stopped) == len(view.answering):
        return "keepalived runs on no node"
    faulty = [str(node) for node, found in instances(view).items() if found.state == "FAULT"]
    told = [f"keepalived does not run on {', '.join(stopped)}"] if stopped else []
    told += [f"keepalived is in FAULT on {', '.join(faulty)}"] if faulty else []
    return "; ".join(told) or None


@CHECKS.overall("vip.extra", "The other VIPs are where the VIP is")
def extra_vips(view: View) -> Verdict:
    extra = view.cluster.extra_vips
    holders = view.survey.holders(view.cluster.vip.address)
    if not view.answering:
        return skipped("no node could be asked")
    if not extra:
        return passed("there are none")
    if len(holders) != 1:
        return skipped("not exactly one node holds the VIP")
    elsewhere = {vip: found for vip in extra if (found := view.survey.holders(vip.address)) != holders}
    if elsewhere:
        said = "; ".join(f"{vip} is on {', '.join(map(str, found)) or 'no node'}" for vip, found in elsewhere.items())
        wrong = {str(node) for found in elsewhere.values() for node in set(found) ^ set(holders)}
        nodes = "".join(f" --nodes {node}" for node in map(str, view.cluster.nodes) if node in wrong)
        text = f"{said}, {view.cluster.vip} on {holders[0]}"
        others = added.only_by_others(view, view.answering, *elsewhere)
        if wrong == set(map(str, others)):
            return failed(text, cause=added.cause(others), hint=added.removal(others))
        return failed(
            text,
            hint=f"exlb push-config; where that says no changes, exlb restart {KEEPALIVED_UNIT}{nodes}",
        )
    return passed(f"{', '.join(map(str, extra))} on {holders[0]}")


@CHECKS.overall("vip.once", "No node has a VIP twice")
def once(view: View) -> Verdict:
    if not view.answering:
        return skipped("no node could be asked")
    return view.of_each_vip(lambda vip: _once(view, vip))


def _once(view: View, vip: Vip) -> Verdict:
    twice = {node: places for node in view.answering if len(places := view.facts(node).places(vip.address)) > 1}
    if not twice:
        return passed("yes")
    said = "; ".join(f"{vip} is on {node} twice: {', '.join(map(str, places))}" for node, places in twice.items())
    others = added.by_others(view, twice, vip)
    if all(len(others.get(node, ())) == len(places) - 1 for node, places in twice.items()):
        return failed(said, cause=added.cause(others), hint=added.removal(others))
    nodes = "".join(f" --nodes {node}" for node in twice)
    look = f"exlb exec --sudo{nodes} -- grep -A 5 virtual_ipaddress {KEEPALIVED_PATH}"
    hint = f"{look}; then there ip addr del what is not in it"
    return failed(said, cause="keepalived removes only what it has added itself", hint=hint)


@CHECKS.per_node("vip.role", "Who holds the VIP")
def role(view: View, node: Node) -> Verdict:
    """For information: always a pass."""
    configured = view.cluster.role(node).lower()
    holds = view.facts(node).holds(view.cluster.vip.address)
    return passed(f"{configured}, holds the VIP" if holds else configured)


@CHECKS.per_node("vip.ping", "The VIP answers ping")
def ping(view: View, node: Node) -> Verdict:
    return view.of_each_vip(lambda vip: _ping(view, node, vip))


def _ping(view: View, node: Node, vip: Vip) -> Verdict:
    if view.facts(node).pings.get(str(vip)):
        return passed("answers")
    if is_vip_awaited(view):
        return skipped("no node can hold it while there is no apiserver")
    said = f"{vip} does not answer ping from {node}"
    if view.facts(node).replies[vip_url(view.cluster, vip)].accepted:
        return warned(
            f"{said}, and takes a connection",
            cause="a firewall drops ICMP, or the holder ignores it",
            hint="let ICMP echo in where monitoring pings the VIP: exlb exec -- sysctl net.ipv4.icmp_echo_ignore_all",
        )
    return failed(said, hint="exlb exec -- ip -o addr show")


@CHECKS.per_node("vip.request", "An HTTPS request through the VIP reaches an apiserver")
def request(view: View, node: Node) -> Verdict:
    if is_vip_awaited(view):
        return skipped(f"no node can hold {view.cluster.vip} while there is no apiserver")
    return view.of_each_vip(lambda vip: _request(view, node, vip))


def _request(view: View, node: Node, vip: Vip) -> Verdict:
    url, holder = vip_url(view.cluster, vip), view.holder(vip)
    if not crowded(view, holder, view.cluster.apiserver_listener) and (apart := cut_off(view, node, url, holder)):
        return apart
    return _torn(view, vip, served(view, url, view.facts(node).replies[url], f"from {node}", holder))


def _torn(view: View, vip: Vip, found: Verdict) -> Verdict:
    """Say of a client that is not served that several nodes hold the VIP, where they do: each has it for a moment."""
    holders = view.survey.holders(vip.address)
    if found.status != "fail" or len(holders) < 2:
        return found
    said = f"{', '.join(map(str, holders))} all hold {vip}, and a connection ends where its packets go to another one"
    return replace(found, cause=": ".join(filter(None, (found.cause, said))))


@CHECKS.overall("vip.bastion", "An HTTPS request from the bastion through the VIP reaches an apiserver")
def bastion(view: View) -> Verdict:
    """Where it reaches neither the VIP nor the holder's own port, the question cannot be asked."""
    url, holder = vip_url(view.cluster), view.holder(view.cluster.vip)
    if not view.answering:
        return skipped("no node could be asked")
    if view.bastion is None:
        if view.past_vip is None or not view.past_vip.accepted:
            return skipped(f"the bastion does not reach {view.cluster.vip}")
        return failed(
            f"the bastion reaches {holder}, and not {view.cluster.vip}",
            cause="it sends to a MAC that nobody has, or a firewall drops what is meant for the VIP",
            hint=f"on the bastion: {_forget(view)}; then look at the firewalls in between",
        )
    found = served(view, url, view.bastion, "from the bastion", holder)
    nodes_served = all(view.facts(node).replies[url].of_apiserver for node in view.answering)
    if len(view.survey.holders(view.cluster.vip.address)) > 1:
        return _torn(view, view.cluster.vip, found)
    if found.status == "fail" and not view.bastion.of_apiserver and nodes_served:
        said = view.bastion.error or found.cause
        cause = f"{said}, and every node is served: it is between the bastion and {view.cluster.vip}"
        hint = "a firewall, a proxy that intercepts, another host with the address, a wrong MAC"
        return failed(found.text, cause=cause, hint=f"{hint} (on the bastion: {_forget(view)})")
    if found.status == "pass" and holder and (others := _others_heard(view, holder)):
        return rivalled(view, "the bastion", view.cluster.vip, holder, others[0])
    return found


def _others_heard(view: View, holder: Node) -> list[str]:
    """Return the MACs that are no node's and answer the bastion as well as the holder's.

    Where that does not answer, the bastion is on another network: a router answers in its place. A node may have taken
    the VIP over since it was asked.
    """
    nodes = {mac for node in view.answering for mac in view.facts(node).macs.values()}
    return sorted(view.heard - nodes) if view.heard & set(view.facts(holder).macs.values()) else []


def _forget(view: View) -> str:
    """Return what has a host ask anew for the MAC of the VIP, whether it found it out or was told (`nud all`)."""
    return f"ip neigh flush to {view.cluster.vip} nud all"
