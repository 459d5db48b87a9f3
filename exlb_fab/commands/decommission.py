"""decommission: take exlb off a node that is in the environment file no more."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address

from exlb_fab import keepalived
from exlb_fab.cluster import Address, Cluster, Node
from exlb_fab.commands.base import answered, refuse_unreachable
from exlb_fab.commands.uninstall import UninstallOptions, UninstallReport, leave
from exlb_fab.departure import Before
from exlb_fab.errors import UnreachableError, UsageError
from exlb_fab.facts import Facts, Survey
from exlb_fab.fleet import Fleet
from exlb_fab.planning import PlanError
from exlb_fab.platforms import KEEPALIVED_PATH, KEEPALIVED_UNIT
from exlb_fab.proxies import PROXIES


@dataclass(frozen=True, slots=True)
class DecommissionOptions(UninstallOptions):
    """`node` is the address or the name of the node; `nodes` is not used."""

    node: str = ""


def decommission(cluster: Cluster, options: DecommissionOptions, fleet: Fleet) -> UninstallReport:
    """Bring a node that has left back to what it was before exlb, and leave nothing of exlb there.

    keepalived stays off, however it was found: on its old file it might hold the VIP beside the cluster.
    """
    node = departed(cluster, options.node)
    for error in fleet.survey([node], PROXIES[cluster.proxy], lambda _: ["addresses"]).errors.values():
        if isinstance(error, UnreachableError):
            error.message += "\nnothing was changed on any node"
        raise error

    def allow(survey: Survey, befores: Mapping[Node, Before]) -> Mapping[Node, Before]:
        if any(was.touched for was in befores.values()):
            _refuse_needed(cluster, node, survey, options, fleet)
        return {leaver: was.without(KEEPALIVED_UNIT) if was.touched else was for leaver, was in befores.items()}

    everybody = replace(cluster, nodes=(*cluster.nodes, node))
    return leave(everybody, replace(options, nodes=(str(node.address),)), fleet, "decommission", allow)


def departed(cluster: Cluster, named: str) -> Node:
    """Return a node that is in the environment file no more.

    Raises UsageError where it still is, or where nothing says which address it has.
    """
    address = _address(named)
    for node in cluster.nodes:
        if named == node.name or address == node.address:
            raise UsageError(
                f"{node.label} is still in NODE_IPS",
                hint=f"take it out of {cluster.path}, exlb push-config, then exlb decommission {node.address}",
            )
    if address is None:
        raise UsageError(f"{named}: no address, and no name of one", hint="exlb decommission ADDRESS")
    return Node(named, address, None, len(cluster.nodes), 0, address)


def _address(named: str) -> Address | None:
    """Return the address that a text is, or that a resolver has for it; None where there is none."""
    try:
        return ip_address(named)
    except ValueError:
        pass
    try:
        return ip_address(socket.getaddrinfo(named, None, type=socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError, ValueError):
        return None


def _refuse_needed(cluster: Cluster, node: Node, survey: Survey, options: DecommissionOptions, fleet: Fleet) -> None:
    """Refuse a node to which others still send, or without which nobody would hold the VIP.

    One that holds it beside others that could goes like any: by multicast no push can tell it to stop.
    """
    if not options.skip_unreachable:
        refuse_unreachable(error for silent, error in survey.errors.items() if silent != node)
    others = [each for each in cluster.nodes if each in survey.facts]
    read = answered(fleet.survey(others, PROXIES[cluster.proxy], lambda _: [f"read {KEEPALIVED_PATH}"]))
    own = {each.address.ip for each in survey.facts[node].addresses}
    sending = [str(each) for each, found in read.items() if keepalived.peers(_conf(found)) & own]
    present = [each.label for each in cluster.nodes if each.address in own]
    if present:
        raise UsageError(f"{node} is {', '.join(present)}, which is still in NODE_IPS")
    if sending:
        raise PlanError(f"{node} is still a peer of {', '.join(sending)}", hint="exlb push-config ends that")
    waiting = any(survey.facts[each].units[KEEPALIVED_UNIT].running for each in others)
    if survey.holders(cluster.vip.address) == (node,) and not waiting:
        raise PlanError(
            f"{node} holds {cluster.vip}, and keepalived runs on no other node: clients would be cut off",
            hint="exlb push-config and exlb verify come first",
        )


def _conf(found: Facts) -> str:
    return found.texts.get(KEEPALIVED_PATH, "")
