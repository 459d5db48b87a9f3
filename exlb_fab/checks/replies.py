"""What the reply to an HTTPS request says about the entrance."""

from __future__ import annotations

from exlb_fab.checks.base import Verdict, View, failed, passed
from exlb_fab.cluster import Listener, Node
from exlb_fab.facts import Reply
from exlb_fab.planning import differences
from exlb_fab.proxies import Load
from exlb_fab.questions import vip_url

SERVER_ERROR = 500
MORE_CONNECTIONS = "a higher MAXCONN in environment.sh, then exlb push-config; exlb status shows where they go"


def served(view: View, url: str, reply: Reply, where: str, server: Node | None) -> Verdict:
    """Judge a reply: any answer of an apiserver below 500 is one, also one that wants a login first.

    `server` is the node whose proxy should have taken the connection, None where that is nobody or not one alone.
    """
    if reply.foreign:
        text = f"{url} {where}: something that is no apiserver answers with status {reply.code}"
        cause = f"it says {reply.body!r}" if reply.body else "it says nothing"
        return failed(text, cause=cause, hint="what listens at the apiservers' addresses? exlb backend list shows them")
    if reply.code is not None and reply.code < SERVER_ERROR:
        return passed(f"{reply.code}")
    if view.expect_no_apiserver and reply.accepted:
        return passed("accepts, no apiserver behind it yet")
    if reply.code is not None:
        return failed(
            f"{url} {where}: status {reply.code}: the apiserver is not ready", hint="kubectl get --raw /readyz?verbose"
        )
    if reply.accepted and server and view.facts(server).proxy_state is None:
        cause = f"{view.proxy.name} on {server} takes the connection, and says nothing of itself either: {reply.error}"
        return failed(f"{url} {where}: not served", cause=cause, hint=awaken(view, server))
    if crowd := crowded(view, server, view.cluster.apiserver_listener):
        return failed(f"{url} {where}: not served", cause=crowd, hint=MORE_CONNECTIONS)
    if reply.late and seen_up(view, server, view.cluster.apiserver_listener):
        cause = f"{view.proxy.name} gives the connection to an apiserver that it sees up, and no answer comes"
        hint = "exlb backend list; HEALTH_CHECK=readyz in environment.sh asks more than whether it takes connections"
        return failed(f"{url} {where}: not served", cause=f"{cause}: {reply.error}", hint=hint)
    if reply.accepted:
        cause = f"{view.proxy.name} takes the connection and has no apiserver to give it to: {reply.error}"
        return failed(f"{url} {where}: not served", cause=cause, hint="exlb backend list")
    return failed(f"{url} {where}: not served", cause=reply.error, hint=restart(view, server))


def cut_off(view: View, node: Node, url: str, holder: Node | None) -> Verdict | None:
    """Judge that a node alone does not get through to a VIP, None where others do not either: that is not the node's.

    The holder is no witness: it asks itself. Of a proxy that is full this says nothing: it takes some, and not others.
    """
    reply = view.facts(node).replies[url]
    others = [view.facts(other).replies[url] for other in view.answering if other not in (node, holder)]
    if view.bastion is not None and url == vip_url(view.cluster):
        others.append(view.bastion)
    if reply.accepted or holder is None or not others or not all(each.accepted for each in others):
        return None
    where = f"on {node}" if node == holder else f"on {node}, or between it and {holder}"
    return failed(
        f"{url} from {node}: not served",
        cause=f"{reply.error}, and {view.proxy.name} on {holder} takes what comes from elsewhere: it is {where}",
        hint=f"look for a firewall, a wrong route or MAC, a slow link: exlb ssh {node} -- {_asked_by(url)}",
    )


def _asked_by(url: str) -> str:
    return f"socat -u /dev/null TCP:{url.removeprefix('tcp://')}" if url.startswith("tcp://") else f"curl -gvk {url}"


def busiest(view: View, node: Node, *listeners: Listener) -> Load | None:
    """Return the load of a proxy that is nearest to its limit: that of the whole, or of one of some listeners."""
    state = view.facts(node).proxy_state
    names = ("", *map(str, listeners))
    loads = [each for each in state.loads if each.listener in names] if state else []
    return max(loads, key=lambda each: each.share, default=None)


def crowded(view: View, node: Node | None, listener: Listener) -> str | None:
    """Return that a proxy is full, None where it is not for a listener.

    The kernel goes on taking connections for it, until as many wait as may (listen(2), `backlog`).
    """
    load = busiest(view, node, listener) if node else None
    return f"{view.proxy.name} on {node} has no connection left: {load}" if load and load.share >= 1 else None


def seen_up(view: View, node: Node | None, listener: Listener) -> int | None:
    """Return how many backends of a listener a node's proxy sees up, None where nobody knows."""
    state = view.facts(node).proxy_state if node else None
    if state is None:
        return None
    return sum(each.up for each in state.servers if each.listener == listener.name)


def awaken(view: View, node: Node) -> str:
    """Return what to type where the proxy of a node runs, and does not answer on the socket that its file names.

    With another file it may have another socket; a push has it read the right one. One that hangs does not read.
    """
    files = view.desired.get(node)
    if files is None or differences(files.files, files.absent, view.facts(node)):
        return "exlb push-config"
    return f"exlb restart {view.proxy.unit} --nodes {node}"


def restart(view: View, server: Node | None) -> str:
    """Return what to type where the proxy of a node does not take a connection, or of one that nobody can name."""
    return f"exlb restart {view.proxy.unit} --nodes {server}" if server else "exlb status shows who holds the VIP"
