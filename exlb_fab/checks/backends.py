"""Are there apiservers behind the proxy of each node?"""

from __future__ import annotations

from collections.abc import Sequence

from exlb_fab.checks.base import Register, Verdict, View, failed, passed, skipped, warned
from exlb_fab.checks.replies import served
from exlb_fab.cluster import Node
from exlb_fab.facts import node_url
from exlb_fab.proxies import Server
from exlb_fab.values import is_address

CHECKS = Register()


@CHECKS.per_node("backend.request", "An HTTPS request through the node's own port reaches an apiserver")
def request(view: View, node: Node) -> Verdict:
    if stopped := view.stopped(node):
        return stopped
    url = node_url(view.cluster, node)
    return served(view, url, view.facts(node).replies[url], f"on {node}", node)


@CHECKS.per_node("backend.servers", "The proxy sees its backends up")
def servers(view: View, node: Node) -> Verdict:
    if stopped := view.stopped(node):
        return stopped
    state = view.facts(node).proxy_state
    if state is None:
        return failed(f"{view.proxy.name} does not say how its backends are", hint="exlb push-config")
    if not state.servers:
        return failed("has no backend", hint="exlb push-config")
    strangers = _strangers(view, state.servers)
    if strangers:
        return failed(f"serves other backends than configured: {', '.join(strangers)}", hint=_back(view, node))
    unjudged = [server for server in state.servers if not server.judged]
    up = [server for server in state.servers if server.judged and server.up]
    down = [server for server in state.servers if server.judged and not server.up]
    count = f"{len(up)} of {len(state.servers)} up"
    if unjudged and not down:
        return warned(f"{count}, {len(unjudged)} not checked yet", hint="exlb verify again in a few seconds")
    if not down:
        return passed(count)
    dark = {server.listener for server in down} - {server.listener for server in up}
    if view.expect_no_apiserver:
        dark -= {view.cluster.apiserver_listener.name}
        down = [server for server in down if server.listener != view.cluster.apiserver_listener.name]
        if not down:
            return passed(f"{count}, none is expected yet")
    if dark:
        text = f"{count}, none of {', '.join(sorted(dark))}" if up else count
        return failed(text, cause=_why(down), hint=_what_next(down))
    return warned(count, cause=_why(down), hint=_what_next(down))


def _strangers(view: View, servers: Sequence[Server]) -> list[str]:
    """Return the servers whose address in the running proxy is not the configured one; DNS names may be any."""
    seen = {(server.listener, server.name): server.address for server in servers}
    wanted = {(each.name, backend.name): backend for each in view.cluster.listeners for backend in each.backends}
    missing = [f"{name} is missing" for (listener, name) in wanted if (listener, name) not in seen]
    return missing + [
        f"{name} is {address}" if (listener, name) in wanted else f"{address or name} of {listener} is not wanted"
        for (listener, name), address in seen.items()
        if (backend := wanted.get((listener, name))) is None
        or (is_address(backend.host) and address and address != backend.endpoint)
    ]


def _back(view: View, node: Node) -> str:
    """Return what brings the configured backends: a push, or, where it is the configuration that runs, a restart."""
    state = view.facts(node).proxy_state
    files = view.desired[node].files if node in view.desired else ()
    if state and state.digest in [file.digest for file in files if file.kind == "proxy"]:
        return f"exlb restart {view.proxy.unit} --nodes {node}"
    return "exlb push-config"


@CHECKS.overall("backend.any", "At least one backend is up")
def any_backend(view: View) -> Verdict:
    if view.expect_no_apiserver:
        return skipped("no apiserver is expected yet")
    if not view.answering:
        return skipped("no node could be asked")
    states = [facts.proxy_state for facts in view.survey.facts.values() if facts.proxy_state]
    up = {(server.listener, server.name) for state in states for server in state.servers if server.judged and server.up}
    if up:
        return passed(f"{len(up)} up")
    return failed("no node sees any backend up", hint="are the apiservers running, and reachable from the nodes?")


def _why(down: list[Server]) -> str:
    return "; ".join(
        f"{server.name} {server.status}: {server.detail or server.check}"
        + (f" (status {server.code})" if server.code else "")
        for server in down
    )


def _what_next(down: list[Server]) -> str | None:
    if any(server.unauthorized for server in down):
        return "the apiservers want a login for /readyz (anonymous-auth=false): set HEALTH_CHECK=tcp in environment.sh"
    return None
