"""backend: what the running proxies do with a server, and what each has; no file is changed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict

from exlb_fab import node as programs
from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.base import NodeRow, Report, exit_code_of, failure, row, select
from exlb_fab.commands.changing import ask
from exlb_fab.errors import ExlbError, FactsError, RemoteError, UsageError
from exlb_fab.events import Event
from exlb_fab.facts import Facts
from exlb_fab.fleet import Fleet
from exlb_fab.locking import Lock
from exlb_fab.proxies import PROXIES, Admission, Proxy, ProxyState, Server
from exlb_fab.remote import Remote
from exlb_fab.rollout import masked

POLL_SECONDS = 2
LIMIT_SECONDS = 60
DONE = "exlb-backend: done"
WORDS: Mapping[Admission, str] = {"ready": "ready", "drain": "drained", "disable": "disabled"}
"""What a server is after each of the three."""


@dataclass(frozen=True, slots=True)
class BackendListOptions:
    """Whose servers are shown; `listener` is the name of one, None for all."""

    nodes: tuple[str, ...] = ()
    listener: str | None = None


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """`name` is a server's name, address or host, or a glob. `wait_seconds` is how long sessions may take to end."""

    admission: Admission
    name: str
    nodes: tuple[str, ...] = ()
    listener: str | None = None
    wait_seconds: float | None = None
    lock_wait_seconds: int = 0
    yes: bool = False
    dry_run: bool = False


class Seen(BaseModel):
    """One server as the proxy of one node sees it.

    `leaving` are the connections to its address that processes still have which a reload has replaced.
    """

    model_config = ConfigDict(frozen=True)

    status: str
    check: str
    detail: str
    admission: Admission
    sessions: int
    leaving: int
    bytes_in: int
    bytes_out: int
    changed_seconds: int | None


class ServerRow(BaseModel):
    """One server behind a listener, as the proxy of each node sees it."""

    model_config = ConfigDict(frozen=True)

    listener: str
    server: str
    address: str
    seen: dict[str, Seen]


class BackendListReport(Report):
    """The servers of all listeners, what of them is drained or disabled, and the nodes that could not be asked."""

    names: tuple[str, ...]
    servers: tuple[ServerRow, ...]
    held_back: tuple[str, ...]
    kept: str
    nodes: tuple[NodeRow, ...]

    @property
    def exit_code(self) -> int:
        return exit_code_of([row.result for row in self.nodes])


class BackendReport(Report):
    """What became of the servers on every node; `left` are the sessions that they still have there, as last seen."""

    admission: Admission
    servers: tuple[str, ...]
    nodes: tuple[NodeRow, ...]
    left: dict[str, int]
    kept: str
    dry_run: bool

    @property
    def exit_code(self) -> int:
        return exit_code_of([row.result for row in self.nodes])


def backend_list(cluster: Cluster, options: BackendListOptions, fleet: Fleet) -> BackendListReport:
    """Show the servers of every listener; nothing is changed."""
    _check_listener(cluster, options.listener)
    look = _look(cluster, select(cluster, options.nodes), fleet)
    rows = [each for each in server_rows(cluster, look.states) if options.listener in (None, each.listener)]
    return BackendListReport(
        names=tuple(node.name for node in look.states),
        servers=tuple(rows),
        held_back=held_back(rows),
        kept=kept(cluster),
        nodes=tuple(failure(node, error) for node, error in look.errors.items()),
    )


def backend(cluster: Cluster, options: BackendOptions, fleet: Fleet) -> BackendReport:
    """Have every node's proxy send a server all connections, no new ones, or none at all and no check.

    All nodes that can be asked are done, and the others are named: typing it again finishes.
    """
    _check_listener(cluster, options.listener)
    chosen = select(cluster, options.nodes)
    before = _look(cluster, chosen, fleet)
    named = _named(cluster, options, before.states)
    changing = [node for node, state in before.states.items() if _pending(named, state, options.admission)]
    after = before
    if options.dry_run:
        _warn(_refusals(named, options.admission, before.states), fleet)
    elif changing:
        with Lock(changing, fleet, f"backend {options.admission} {options.name}", options.lock_wait_seconds) as lock:
            before = before.but(_look(cluster, changing, fleet))
            refusals = _refusals(named, options.admission, before.states)
            _warn(refusals, fleet)
            if refusals and not options.yes:
                ask(fleet)
            changing = [node for node in changing if node in before.states]
            after = before.but(_admit(cluster, named, options.admission, before.states, changing, fleet, lock))
    after = after.but(_missing(named, after.states))
    rows = {node: failure(node, error) for node, error in after.errors.items()}
    rows |= {node: _row(node, named, before.states[node], state, options) for node, state in after.states.items()}
    if options.wait_seconds is not None and not options.dry_run:
        after = _wait(cluster, named, options, after, fleet)
        rows |= {node: failure(node, error) for node, error in after.errors.items()}
    return BackendReport(
        admission=options.admission,
        servers=tuple(f"{name} of {listener}" for listener, name in named),
        nodes=tuple(rows[node] for node in chosen),
        left={node.name: sum(_sessions(named, state)) for node, state in after.states.items()},
        kept="" if options.admission == "ready" else kept(cluster),
        dry_run=options.dry_run,
    )


def server_rows(cluster: Cluster, states: Mapping[Node, ProxyState]) -> list[ServerRow]:
    """Return the servers that the proxies have, the configured ones first and in their order."""
    found: dict[tuple[str, str], dict[Node, Server]] = {
        (listener.name, each.name): {} for listener in cluster.listeners for each in listener.backends
    }
    for node, state in states.items():
        for server in state.servers:
            found.setdefault((server.listener, server.name), {})[node] = server
    configured = {(each.name, one.name): one.endpoint for each in cluster.listeners for one in each.backends}
    return [
        ServerRow(
            listener=listener,
            server=name,
            address=configured.get((listener, name)) or next(iter(servers.values())).address,
            seen={node.name: _seen(server, states[node]) for node, server in servers.items()},
        )
        for (listener, name), servers in found.items()
    ]


def held_back(rows: Iterable[ServerRow]) -> tuple[str, ...]:
    """Return a sentence for each server that somebody has drained or disabled, with the nodes."""
    said = []
    for each in rows:
        for admission in ("drain", "disable"):
            nodes = [node for node, seen in each.seen.items() if seen.admission == admission]
            if nodes:
                everywhere = "" if len(nodes) == len(each.seen) else f" on {', '.join(nodes)} alone"
                said.append(f"{each.server} of {each.listener} is {WORDS[admission]}{everywhere}")
    return tuple(said)


def kept(cluster: Cluster) -> str:
    """Say how long what an operator has drained stays so."""
    if cluster.proxying.keeps_drains:
        return "a push keeps this (SERVER_STATE=yes); a restart of the proxy does not"
    return "a push that reloads the proxy undoes this (SERVER_STATE=no), and so does a restart"


@dataclass(frozen=True, slots=True)
class _Look:
    """What the proxies say, and the error of each that did not."""

    states: Mapping[Node, ProxyState]
    errors: Mapping[Node, ExlbError]

    def but(self, later: _Look) -> _Look:
        """Return this with what some of the nodes said later."""
        states = {node: later.states.get(node, state) for node, state in self.states.items()}
        errors = {**self.errors, **later.errors}
        return _Look({node: state for node, state in states.items() if node not in errors}, errors)


Name = tuple[str, str]
"""A listener and the name of one of its servers."""


def _look(cluster: Cluster, nodes: Sequence[Node], fleet: Fleet) -> _Look:
    survey = fleet.look(nodes, PROXIES[cluster.proxy], lambda _: ["proxy-state"])
    states, errors = {}, dict(survey.errors)
    for node, found in survey.facts.items():
        if found.proxy_state is None:
            errors[node] = silent(node, found, PROXIES[cluster.proxy])
        else:
            states[node] = found.proxy_state
    return _Look(states, errors)


def silent(node: Node, found: Facts, proxy: Proxy) -> RemoteError:
    """Return the error of a node whose proxy does not say how it is."""
    reason = masked(found.proxy_silence, proxy).strip().splitlines()[-1:] or ["no answer"]
    return RemoteError(f"{node}: {proxy.name} does not answer: {reason[0]}", hint="exlb verify")


def _seen(server: Server, state: ProxyState) -> Seen:
    return Seen(
        status=server.status,
        check=server.check,
        detail=server.detail,
        admission=server.admission,
        sessions=server.sessions,
        leaving=state.leaving.get(server.address, 0),
        bytes_in=server.bytes_in,
        bytes_out=server.bytes_out,
        changed_seconds=server.changed_seconds,
    )


def _check_listener(cluster: Cluster, listener: str | None) -> None:
    if listener is not None and listener not in [each.name for each in cluster.listeners]:
        known = ", ".join(each.name for each in cluster.listeners)
        raise UsageError(f"--listener {listener}: no such listener", hint=f"the listeners are: {known}")


def _named(cluster: Cluster, options: BackendOptions, states: Mapping[Node, ProxyState]) -> tuple[Name, ...]:
    """Return the servers that the name is the name of: its own one, its address or its host, or a glob of these.

    Raises UsageError where there is none.
    """
    words: dict[Name, set[str]] = {}
    for listener in cluster.listeners:
        for each in listener.backends:
            words[listener.name, each.name] = {each.name, each.host, each.endpoint}
    for server in (server for state in states.values() for server in state.servers):
        host = server.address.rpartition(":")[0]
        more = {server.name, server.address, host, host.strip("[]")} - {""}
        words.setdefault((server.listener, server.name), set()).update(more)
    words = {name: each for name, each in words.items() if options.listener in (None, name[0])}
    named = tuple(
        name
        for name, each in words.items()
        if options.name in each or any(fnmatchcase(word, options.name) for word in each)
    )
    if not named:
        known = ", ".join(f"{name} of {listener}" for listener, name in words)
        raise UsageError(f"{options.name}: no such backend", hint=f"the backends are: {known}")
    return named


def _servers(named: Sequence[Name], state: ProxyState) -> list[Server]:
    return [server for server in state.servers if (server.listener, server.name) in named]


def _pending(named: Sequence[Name], state: ProxyState, admission: Admission) -> list[Server]:
    return [server for server in _servers(named, state) if server.admission != admission]


def _sessions(named: Sequence[Name], state: ProxyState) -> tuple[int, int]:
    """Return how many sessions servers have: those of the running process, and what older ones still have."""
    servers = _servers(named, state)
    addresses = {server.address for server in servers}
    return sum(server.sessions for server in servers), sum(state.leaving.get(address, 0) for address in addresses)


def _refusals(named: Sequence[Name], admission: Admission, states: Mapping[Node, ProxyState]) -> list[str]:
    """Return a sentence for each listener of a node that would be left without a server that takes connections."""
    if admission == "ready":
        return []
    said: list[str] = []
    for node, state in states.items():
        taking = [server for server in state.servers if server.takes]
        left = {server.listener for server in taking if (server.listener, server.name) not in named}
        said.extend(
            f"{node}: no server of {listener} is left that is up: clients will be refused there"
            for listener in dict.fromkeys(server.listener for server in taking)
            if listener not in left
        )
    return said


def _warn(sentences: Iterable[str], fleet: Fleet) -> None:
    for sentence in sentences:
        fleet.emit(Event("warning", sentence))


def _admit(
    cluster: Cluster,
    named: Sequence[Name],
    admission: Admission,
    states: Mapping[Node, ProxyState],
    nodes: Sequence[Node],
    fleet: Fleet,
    lock: Lock,
) -> _Look:
    """Tell the proxies, and return what they say then."""
    proxy = PROXIES[cluster.proxy]

    def work(node: Node, remote: Remote) -> ProxyState:
        pending = _pending(named, states[node], admission)
        if not pending:
            return states[node]
        words = [f"{server.listener}/{server.name}" for server in pending]
        done = remote.run(programs.backend(proxy.program), [lock.token, admission, *words], limit_seconds=LIMIT_SECONDS)
        said, mark, state = done.stdout.partition(f"{DONE}\n")
        if not mark:
            reason = masked(said or done.stderr, proxy).strip() or f"status {done.status}"
            raise RemoteError(f"{node}: {reason}", hint="exlb backend list shows how it is")
        try:
            found = proxy.parse_state(state)
        except FactsError as error:
            raise FactsError(f"{node}: {error.message}", hint=error.hint) from error
        if still := _pending(named, found, admission):
            raise RemoteError(f"{node}: {still[0].name} is not {WORDS[admission]}, although {proxy.name} was told")
        return found

    outcomes = fleet.each(nodes, work)
    return _Look(outcomes.values, outcomes.errors)


def _missing(named: Sequence[Name], states: Mapping[Node, ProxyState]) -> _Look:
    """Return an error for each node whose proxy does not have one of the servers."""
    errors: dict[Node, ExlbError] = {}
    for node, state in states.items():
        there = {(server.listener, server.name) for server in state.servers}
        if absent := [f"{name} of {listener}" for listener, name in named if (listener, name) not in there]:
            errors[node] = RemoteError(f"{node}: its proxy does not have {', '.join(absent)}", hint="exlb push-config")
    return _Look({}, errors)


def _row(node: Node, named: Sequence[Name], before: ProxyState, after: ProxyState, options: BackendOptions) -> NodeRow:
    """Return what happened on a node, or would happen."""
    changed = [f"{server.name} of {server.listener}" for server in _pending(named, before, options.admission)]
    word = WORDS[options.admission]
    if not changed:
        return row(node, "unchanged", f"{word} already; {_left(named, after)}")
    if options.dry_run:
        return row(node, "pending", f"{', '.join(changed)} would be {word}; {_left(named, after)}")
    return row(node, "changed", f"{', '.join(changed)} {word}; {_left(named, after)}")


def _left(named: Sequence[Name], state: ProxyState) -> str:
    own, older = _sessions(named, state)
    text = f"{own + older} sessions" if own + older != 1 else "1 session"
    return f"{text}, {older} of them of processes from before a reload" if older else text


def _wait(cluster: Cluster, named: Sequence[Name], options: BackendOptions, look: _Look, fleet: Fleet) -> _Look:
    """Wait until the servers have no session any more; a node where they still do at the limit is an error.

    After Ctrl-C what is drained stays so.
    """
    assert options.wait_seconds is not None
    word = WORDS[options.admission]
    deadline = time.monotonic() + options.wait_seconds
    told: dict[Node, str] = {}
    while busy := [node for node, state in look.states.items() if any(_sessions(named, state))]:
        for node in busy:
            left = _left(named, look.states[node])
            if told.get(node) != left:
                fleet.emit(Event("step", f"waits for {left} to end", node.name))
            told[node] = left
        if fleet.stopped:
            fleet.emit(
                Event("warning", f"interrupted: what is {word} stays so; exlb backend ready {options.name} ends it")
            )
            return look
        if time.monotonic() >= deadline:
            return look.but(_Look({}, {node: _still(node, told[node], word, options) for node in busy}))
        fleet.wait(POLL_SECONDS)
        later = _look(cluster, busy, fleet)
        look = look.but(later).but(_readmitted(named, options.admission, later.states))
    return look


def _still(node: Node, left: str, word: str, options: BackendOptions) -> ExlbError:
    return RemoteError(
        f"{node}: {left} left after {options.wait_seconds:.0f} s; it stays {word}",
        hint="the same command with --wait goes on waiting",
    )


def _readmitted(named: Sequence[Name], admission: Admission, states: Mapping[Node, ProxyState]) -> _Look:
    """Return an error for each node where what was done is undone: sessions would come for ever."""
    errors: dict[Node, ExlbError] = {
        node: RemoteError(
            f"{node}: {undone[0].name} is {WORDS[undone[0].admission]} now: by a reload of the proxy, or by somebody",
            hint="exlb lock status and exlb history tell who is at work",
        )
        for node, state in states.items()
        if (undone := _pending(named, state, admission))
    }
    return _Look({}, errors)
