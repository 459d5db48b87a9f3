"""Do the firewalls of the nodes let in what the entrance will live by, or will a push open them?

Whether packets really pass is `verify`'s question, from the adverts that backups receive, once keepalived runs.
"""

from __future__ import annotations

from exlb_fab.checks import firewall
from exlb_fab.checks.base import Register, Verdict, View, passed
from exlb_fab.cluster import Node

CHECKS = Register()


@CHECKS.per_node("firewall.vrrp", "The node's firewall lets the adverts of the others in, and its own out")
def vrrp(view: View, node: Node) -> Verdict:
    """Closed for what comes in is no finding with FIREWALL=manage: a push opens it."""
    return firewall.both_ways(_before_a_push(view, firewall.arriving(view, node)), firewall.leaving(view, node))


@CHECKS.per_node("firewall.ports", "The node's firewall lets clients in")
def ports(view: View, node: Node) -> Verdict:
    """Closed is no finding with FIREWALL=manage: a push opens it."""
    return _before_a_push(view, firewall.ports(view, node))


@CHECKS.per_node("firewall.backends", "The node's firewall lets the other proxies reach the backends on it")
def backends(view: View, node: Node) -> Verdict:
    """A closed port is a warning: a backend is no part of the entrance, and a push does not open it."""
    return firewall.backends(view, node)


def _before_a_push(view: View, verdict: Verdict) -> Verdict:
    if verdict.status == "fail" and view.cluster.firewall == "manage":
        return passed(f"{verdict.text}; a push opens it")
    return verdict
