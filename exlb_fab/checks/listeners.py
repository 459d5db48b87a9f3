"""Do clients get through to the port of every node, are those of the other listeners served, and is there room for all?

Through a proxy of TCP a connection alone shows little: it is taken whatever is behind. So it counts together with
what the proxy says of its backends, and where clients speak HTTP, with the answer to a request.
"""

from __future__ import annotations

from exlb_fab.checks import firewall
from exlb_fab.checks.base import Register, Verdict, View, failed, passed, skipped, warned, worst
from exlb_fab.checks.election import is_vip_awaited
from exlb_fab.checks.replies import MORE_CONNECTIONS, SERVER_ERROR, busiest, crowded, cut_off, restart, seen_up
from exlb_fab.cluster import Address, Listener, Node
from exlb_fab.facts import Reply
from exlb_fab.questions import listener_url, node_url, urls_from_outside

CHECKS = Register()

BUSY = 0.8
_BAD_REQUEST = 400


@CHECKS.per_node("listener.open", "The other nodes reach the port of the proxy")
def open_to_others(view: View, node: Node) -> Verdict:
    """What the node refuses to itself as well is no matter of its network: that is the finding of another check."""
    if stopped := view.stopped(node):
        return stopped
    urls = urls_from_outside(view.cluster, node)
    if not urls:
        return passed("it is bound to the VIPs alone")
    others = [each for each in view.answering if each != node]
    if not others:
        alone = len(view.cluster.nodes) == 1
        return passed("there is no other node") if alone else skipped("no other node could be asked")
    if not view.facts(node).replies[node_url(view.cluster, node)].accepted:
        return skipped("the node itself does not reach it")
    if crowded(view, node, view.cluster.apiserver_listener):
        return skipped("the proxy is full")
    # A holder may ask by the VIP (an IPv6 one with a prefix of its own), and the answer goes to another one.
    if any(len(view.survey.holders(vip.address)) > 1 for vip in view.cluster.vips):
        return skipped("several nodes hold a VIP: answers may go astray")
    replies = {each: [view.facts(each).replies[url] for url in urls] for each in others}
    shut_out = {each: found for each, found in replies.items() if not any(reply.accepted for reply in found)}
    if not shut_out:
        return passed("yes")
    if firewall.open_to_vips_alone(view, node):
        return passed("its firewall lets in what is for the VIPs alone")
    port = view.cluster.apiserver_listener.port
    text = f"{node} reaches its own port {port}, and {' and '.join(map(str, shut_out))} cannot"
    cause = "; ".join(dict.fromkeys(reply.error for found in shut_out.values() for reply in found))
    hint = f"what is in between, and on {node} itself: exlb exec --sudo --nodes {node} -- nft list ruleset"
    return failed(text, cause=cause, hint=hint)


@CHECKS.per_node("listener.own", "The node's own port of every other listener serves clients")
def own(view: View, node: Node) -> Verdict:
    stopped = view.stopped(node)
    if stopped and view.cluster.listeners[1:]:
        return stopped
    return _all(view, node, view.cluster.own_address(node), node)


@CHECKS.per_node("listener.vip", "Every other listener serves clients through the VIP")
def vip(view: View, node: Node) -> Verdict:
    if is_vip_awaited(view) and view.cluster.listeners[1:]:
        return skipped(f"no node can hold {view.cluster.vip} while there is no apiserver")
    return view.of_each_vip(lambda vip: _all(view, node, vip.address, view.holder(vip)))


@CHECKS.per_node("listener.connections", "The proxy can take more connections than it has")
def connections(view: View, node: Node) -> Verdict:
    """At its limit it takes no new one until another one ends; from four fifths on a warning."""
    if stopped := view.stopped(node):
        return stopped
    load = busiest(view, node, *view.cluster.listeners)
    if load is None:
        return skipped("nothing tells how many it has")
    if load.share >= 1:
        cause = "clients wait until a connection of somebody else ends"
        return failed(f"no connection is left: {load}", cause=cause, hint=MORE_CONNECTIONS)
    if load.share >= BUSY:
        return warned(f"few connections are left: {load}", hint=MORE_CONNECTIONS)
    return passed(str(load))


def _all(view: View, node: Node, address: Address, server: Node | None) -> Verdict:
    """Judge all listeners but the apiserver's together; the worst of them counts."""
    others = view.cluster.listeners[1:]
    if not others:
        return passed("there are none")
    return worst([(str(listener), _judged(view, node, listener, address, server)) for listener in others])


def _judged(view: View, node: Node, listener: Listener, address: Address, server: Node | None) -> Verdict:
    url = listener_url(listener, address)
    reply = view.facts(node).replies[url]
    if reply.code is None and (crowd := crowded(view, server, listener)):
        return failed(f"{url} from {node}: not served", cause=crowd, hint=MORE_CONNECTIONS)
    is_vip = any(address == vip.address for vip in view.cluster.vips)
    if is_vip and (apart := cut_off(view, node, url, server)):
        return apart
    if not reply.accepted:
        return failed(f"{url} from {node}: not served", cause=reply.error, hint=restart(view, server))
    if reply.code is not None and reply.code < SERVER_ERROR:
        return _answered(listener, url, reply)
    if seen_up(view, server, listener) == 0:
        if view.expect_no_apiserver:
            return passed("takes connections, no backend behind it yet")
        cause = f"{view.proxy.name} takes the connection and has no backend to give it to"
        return failed(
            f"{url} from {node}: not served", cause=cause, hint=f"exlb backend list --listener {listener.name}"
        )
    if reply.code is not None:
        hint = f"exlb backend list --listener {listener.name}, and the journals of what is behind it"
        return warned(f"{url} from {node}: status {reply.code}", cause="its backends answer with an error", hint=hint)
    if listener.send_proxy != "no" and listener.scheme != "tcp":
        return _unread(listener, f"{url} from {node}: takes the connection and does not answer")
    if listener.scheme == "http" or reply.late:
        hint = f"exlb backend list --listener {listener.name}, and the journals of what is behind it"
        return failed(f"{url} from {node}: takes the connection and does not answer", cause=reply.error, hint=hint)
    # Without a name that it knows, a server of TLS may end the connection at once (RFC 6066 3).
    return passed("takes connections")


def _answered(listener: Listener, url: str, reply: Reply) -> Verdict:
    if reply.code == _BAD_REQUEST and listener.send_proxy != "no":
        return _unread(listener, f"{url}: status {reply.code}")
    return passed(f"{reply.code}")


def _unread(listener: Listener, said: str) -> Verdict:
    """Warn of what looks like backends that take the PROXY protocol for a request."""
    cause = f"do the backends expect the PROXY protocol ({listener.send_proxy})?"
    return warned(said, cause=cause, hint="set it up in the ingress, or INGRESS_PROXY_PROTOCOL=no in environment.sh")
