"""Are there apiservers behind the proxy of each node?"""

from __future__ import annotations

from collections.abc import Sequence

from exlb_fab.checks.base import Register, Verdict, View, failed, passed, skipped, warned
from exlb_fab.checks.replies import awaken, served
from exlb_fab.cluster import Backend, Node
from exlb_fab.proxies import Server
from exlb_fab.questions import node_url
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
    """Some of a listener down, or not checked yet, is a warning; all of one down, or other ones, is a failure."""
    if stopped := view.stopped(node):
        return stopped
    state = view.facts(node).proxy_state
    if state is None:
        return failed(f"{view.proxy.name} does not say how its backends are", hint=awaken(view, node))
    if not state.servers:
        return failed("has no backend", hint="exlb push-config")
    strangers = _strangers(view, state.servers)
    if strangers:
        return failed(f"serves other backends than configured: {', '.join(strangers)}", hint=_back(view, node))
    held = [server for server in state.servers if server.admission != "ready"]
    asked = [server for server in state.servers if server not in held]
    unjudged = [server for server in asked if not server.judged]
    up = [server for server in asked if server.judged and server.up]
    down = [server for server in asked if server.judged and not server.up]
    count = f"{len(up)} of {len(state.servers)} up"
    if unjudged and not down:
        return warned(f"{count}, {len(unjudged)} not checked yet", hint="exlb verify again in a few seconds")
    if not down and not held:
        return passed(count)
    dark = {server.listener for server in (*down, *held)} - {server.listener for server in up}
    if view.expect_no_apiserver:
        dark -= {view.cluster.apiserver_listener.name}
        down = [server for server in down if server.listener != view.cluster.apiserver_listener.name]
        if not down and not held:
            return passed(f"{count}, none is expected yet")
    if dark:
        text = f"{count}, none of {', '.join(sorted(dark))}" if up else count
        return failed(text, cause=_why([*down, *held]), hint=_what_next(view, node, [*down, *held]))
    return warned(count, cause=_why([*down, *held]), hint=_what_next(view, node, [*down, *held]))


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
    seen = {node: state.servers for node in view.answering if (state := view.facts(node).proxy_state)}
    up = {(each.listener, each.name) for servers in seen.values() for each in servers if each.judged and each.up}
    if not up:
        return failed("no node sees any backend up", hint=_look(view, view.answering[0]))
    name = view.cluster.apiserver_listener.name
    apiservers = {node: [each for each in servers if each.listener == name] for node, servers in seen.items()}
    if last := _last(view, [each for servers in apiservers.values() for each in servers]):
        text = f"only {last} is up, on {_own(view, last)} itself: with that node clients lose every apiserver"
        return failed(text, hint=_look(view, view.answering[0], _another(view, last).endpoint))
    for node, servers in apiservers.items():
        if (last := _last(view, servers)) and (other := _own(view, last)) != node:
            text = f"{node} sees only {last} up, on {other}: if {other} fails, {node} has no apiserver for clients"
            return failed(text, hint=_look(view, node, _another(view, last).endpoint))
    return passed(f"{len(up)} up")


def _last(view: View, servers: Sequence[Server]) -> Backend | None:
    """Return the only apiserver of several that is seen up, where it goes down together with a node.

    While one is not judged yet, or was told to stand aside, nothing is said; nor where the others are on nodes that
    could not be asked, which is the finding.
    """
    if any(server.admission != "ready" or not server.judged for server in servers):
        return None
    up = {server.name for server in servers if server.up}
    backends = view.cluster.apiserver_listener.backends
    # Of a node that could not be asked not every address is known.
    elsewhere = (*([] if view.survey.errors else [None]), *view.answering)
    match [each for each in backends if each.name in up]:
        case [last] if _own(view, last) and any(_own(view, each) in elsewhere for each in backends if each != last):
            return last
    return None


def _another(view: View, than: Backend) -> Backend:
    return next(each for each in view.cluster.apiserver_listener.backends if each != than)


def _own(view: View, backend: Backend) -> Node | None:
    """Return the node that a backend is on, by any of its addresses."""
    return next((node for node in view.cluster.nodes if backend.host in _hosts(view, node)), None)


def _hosts(view: View, node: Node) -> set[str]:
    facts = view.survey.facts.get(node)
    found = [each.address.ip for each in facts.addresses] if facts else []
    return {node.name, *(str(each) for each in (node.address, node.source, *found))}


def _look(view: View, node: Node, endpoint: str | None = None) -> str:
    """Return how to see what an apiserver says to a node."""
    endpoint = endpoint or view.cluster.apiserver_listener.backends[0].endpoint
    return f"exlb ssh {node} -- curl -k https://{endpoint}/readyz"


def _why(down: list[Server]) -> str:
    return "; ".join(map(_why_one, down))


def _why_one(server: Server) -> str:
    if server.admission != "ready":
        return f"{server.name}: somebody told the proxy to {server.admission} it"
    if server.nameless:
        return f"{server.name}: its name did not resolve when the proxy was loaded"
    code = f" (status {server.code})" if server.code else ""
    return f"{server.name} {server.status}: {server.detail or server.check}{code}"


def _what_next(view: View, node: Node, down: list[Server]) -> str:
    if any(server.unauthorized for server in down):
        return "the apiservers want a login for /readyz (anonymous-auth=false): set HEALTH_CHECK=tcp in environment.sh"
    ill = [server for server in down if server.admission == "ready"]
    if not ill:
        return f"when its upgrade is done: exlb backend ready {down[0].name}"
    if ill[0].nameless:
        name = _configured(view, ill[0]).host
        return f"exlb ssh {node} -- getent hosts {name}; once that answers, exlb restart {view.proxy.unit}"
    if ill[0].listener == view.cluster.apiserver_listener.name:
        return _look(view, node, ill[0].address or ill[0].name)
    return f"does it run? exlb ssh {node} -- socat -u /dev/null TCP:{ill[0].address}"


def _configured(view: View, server: Server) -> Backend:
    """Return the backend that a server is by the environment file."""
    return next(
        backend
        for listener in view.cluster.listeners
        for backend in listener.backends
        if (listener.name, backend.name) == (server.listener, server.name)
    )
