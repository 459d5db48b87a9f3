"""Runs one function over many nodes, all at once or a few at a time; no worker stops another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

from exlb_fab import facts
from exlb_fab import node as programs
from exlb_fab.cluster import Node
from exlb_fab.errors import EXIT_INTERRUPTED, ExlbError, FactsError
from exlb_fab.events import Emit, Event, silent
from exlb_fab.facts import Survey
from exlb_fab.proxies import Proxy
from exlb_fab.remote import Connect, Remote

T = TypeVar("T")

PROBE_SECONDS = 60


class NotStartedError(ExlbError):
    """Ctrl-C came before the work on this node began."""

    exit_code = EXIT_INTERRUPTED


@dataclass(frozen=True, slots=True)
class Outcomes(Generic[T]):
    """What a function returned for each node, and the error where it raised one; in the order of the nodes."""

    values: Mapping[Node, T]
    errors: Mapping[Node, ExlbError]


class Fleet:
    """The nodes of a cluster, each connected at its first use and until the end, for one command.

    `stop` is set by the first Ctrl-C: what runs ends in order, nothing new starts. `parallel` is how many nodes are
    worked on at once. `confirm` asks the operator for a yes; None where nobody can be asked.
    """

    def __init__(
        self,
        connect: Connect,
        emit: Emit = silent,
        stop: threading.Event | None = None,
        parallel: int = 32,
        confirm: Callable[[str], bool] | None = None,
    ) -> None:
        self.emit = emit
        self.confirm = confirm
        self._connect = connect
        self._stop = stop or threading.Event()
        self._parallel = parallel
        self._remotes: dict[Node, Remote] = {}
        self._errors: dict[Node, ExlbError] = {}

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for remote in self._remotes.values():
            remote.close()

    @property
    def stopped(self) -> bool:
        """Tell whether Ctrl-C has come."""
        return self._stop.is_set()

    def each(self, nodes: Iterable[Node], work: Callable[[Node, Remote], T]) -> Outcomes[T]:
        """Call `work` for each node on threads; errors are collected, a node that cannot be reached is one of them.

        After Ctrl-C no further call begins.
        """

        def unless_stopped(node: Node, remote: Callable[[], Remote]) -> T:
            if self.stopped:
                raise NotStartedError(f"{node}: not started: interrupted")
            return work(node, remote())

        return self._all(nodes, unless_stopped)

    def tidy(self, nodes: Iterable[Node], work: Callable[[Node, Remote], T]) -> Outcomes[T]:
        """Do the same also after Ctrl-C: for what must not stay behind."""
        return self._all(nodes, lambda node, remote: work(node, remote()))

    def survey(self, nodes: Iterable[Node], proxy: Proxy, questions: Callable[[Node], list[str]]) -> Survey:
        """Probe nodes: one exec each."""
        found = self.each(nodes, lambda node, remote: _probe(node, remote, proxy, questions(node)))
        return Survey(found.values, found.errors)

    def look(self, nodes: Iterable[Node], proxy: Proxy, questions: Callable[[Node], list[str]]) -> Survey:
        """Probe nodes also after Ctrl-C: what has begun is watched to its end."""
        found = self.tidy(nodes, lambda node, remote: _probe(node, remote, proxy, questions(node)))
        return Survey(found.values, found.errors)

    def _all(self, nodes: Iterable[Node], work: Callable[[Node, Callable[[], Remote]], T]) -> Outcomes[T]:
        chosen = list(nodes)

        def one(node: Node) -> _Done[T] | ExlbError:
            try:
                return _Done(work(node, lambda: self._remote(node)))
            except ExlbError as error:
                return error

        if len(chosen) > 1:
            with ThreadPoolExecutor(max_workers=min(self._parallel, len(chosen))) as pool:
                results = dict(zip(chosen, pool.map(one, chosen), strict=True))
        else:
            results = {node: one(node) for node in chosen}
        return Outcomes(
            {node: result.value for node, result in results.items() if isinstance(result, _Done)},
            {node: result for node, result in results.items() if isinstance(result, ExlbError)},
        )

    def _remote(self, node: Node) -> Remote:
        """Return the node's connection; a node that could not be reached once is not tried again."""
        if node in self._errors:
            raise self._errors[node]
        if node not in self._remotes:
            self.emit(Event("detail", "connecting", node.name))
            try:
                self._remotes[node] = self._connect(node)
            except ExlbError as error:
                self._errors[node] = error
                raise
        return self._remotes[node]


def _probe(node: Node, remote: Remote, proxy: Proxy, questions: Iterable[str]) -> facts.Facts:
    asked = "".join(f"{question}\n" for question in questions)
    done = remote.run(programs.probe(proxy.program), data=asked, limit_seconds=PROBE_SECONDS)
    try:
        return facts.parse(done.stdout, proxy)
    except FactsError as error:
        raise FactsError(f"{node}: {error.message}", hint=error.hint) from error


@dataclass(frozen=True, slots=True)
class _Done(Generic[T]):
    value: T
