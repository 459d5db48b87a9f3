"""Runs one function over many nodes, all at once or a few at a time; no worker stops another."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from exlb_fab import answers, facts
from exlb_fab import node as programs
from exlb_fab.cluster import Node
from exlb_fab.errors import (
    EXIT_INTERRUPTED,
    AuthenticationError,
    ExlbError,
    FactsError,
    HostKeyError,
    UnreachableError,
)
from exlb_fab.events import Emit, Event, silent
from exlb_fab.facts import Survey
from exlb_fab.host import Span
from exlb_fab.proxies import Proxy
from exlb_fab.remote import Connect, Remote

T = TypeVar("T")

PROBE_SECONDS = 60
# What waits for somebody else, one question after the other: at most 4 s each. Source: node/probe.sh.
WAITING_QUESTIONS = ("request", "certificate", "ping", "arp-answers")
MILLISECONDS = 1000
WAITING_SECONDS = 4
NOTICE_SECONDS = 0.2  # by when Ctrl-C ends a wait for nodes


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
        self._asked: dict[Node, Future[_Done[facts.Facts] | ExlbError]] = {}
        self._missed: dict[Node, ExlbError] = {}

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for remote in list(self._remotes.values()):  # a node that was glanced at may just be connected to
            remote.close()

    @property
    def stopped(self) -> bool:
        """Tell whether Ctrl-C has come."""
        return self._stop.is_set()

    def wait(self, seconds: float) -> None:
        """Let time pass, until Ctrl-C at the longest."""
        self._stop.wait(seconds)

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

    def ask(
        self,
        nodes: Iterable[Node],
        program: str,
        questions: Callable[[Node], list[str]],
        parse: Callable[[str, Span], T],
    ) -> Outcomes[T]:
        """Ask nodes by a program that answers as the probe does, one exec each.

        `parse` gets what it printed and when that was; its FactsError is told of the node.
        """
        return self.each(nodes, lambda node, remote: _ask(node, remote, program, questions(node), parse))

    def look(self, nodes: Iterable[Node], proxy: Proxy, questions: Callable[[Node], list[str]]) -> Survey:
        """Probe nodes also after Ctrl-C: what has begun is watched to its end."""
        found = self.tidy(nodes, lambda node, remote: _probe(node, remote, proxy, questions(node)))
        return Survey(found.values, found.errors)

    def glance(
        self,
        nodes: Iterable[Node],
        proxy: Proxy,
        questions: Callable[[Node], list[str]],
        patience_seconds: float | None,
    ) -> Survey:
        """Probe all nodes at once, and wait for none of them longer than that: for a screen that shows what is now.

        A node that is not heard by then is an error, the one that it had before where it had one. It is not asked again
        until it has answered or failed, and what it answers later than this does not count.
        """
        if self.stopped:
            return Survey({}, {})

        def probing(node: Node, remote: Callable[[], Remote]) -> facts.Facts:
            return _probe(node, remote(), proxy, questions(node))

        chosen, late = list(nodes), set(self._asked)
        for node in chosen:
            if node not in late:
                self._asked[node] = _apart(partial(self._one, node, probing))
        self._await([self._asked[node] for node in chosen], patience_seconds)
        values: dict[Node, facts.Facts] = {}
        errors: dict[Node, ExlbError] = {}
        for node in chosen:
            result = self._asked.pop(node).result() if self._asked[node].done() else None
            if isinstance(result, ExlbError):
                errors[node] = result
            elif result is None or node in late:
                silent = UnreachableError(f"{node}: says nothing for {patience_seconds:g} s", hint=f"exlb ssh {node}")
                errors[node] = self._missed.get(node) or silent
            else:
                values[node] = result.value
        self._missed = errors
        return Survey(values, errors)

    def _await(self, asked: Sequence[Future[Any]], patience_seconds: float | None) -> None:
        """Wait until all is done, Ctrl-C has come, or that time is over; without one for all, whatever comes."""
        if patience_seconds is None:
            wait(asked)
            return
        deadline = time.monotonic() + patience_seconds
        while not self.stopped and time.monotonic() < deadline:
            if not wait(asked, NOTICE_SECONDS).not_done:
                return

    def forget(self, nodes: Iterable[Node]) -> None:
        """Close the connections of nodes that no longer answer: their next use tries anew.

        Who has refused us once is not asked again: an sshd that counts failed logins would shut the bastion out. A node
        that is still being asked is left alone.
        """
        for node in nodes:
            if node in self._asked or isinstance(self._errors.get(node), (AuthenticationError, HostKeyError)):
                continue
            self._errors.pop(node, None)
            remote = self._remotes.pop(node, None)
            if remote is not None:
                remote.close()

    def _all(self, nodes: Iterable[Node], work: Callable[[Node, Callable[[], Remote]], T]) -> Outcomes[T]:
        chosen = list(nodes)
        if len(chosen) > 1:
            with ThreadPoolExecutor(max_workers=min(self._parallel, len(chosen))) as pool:
                results = dict(zip(chosen, pool.map(lambda node: self._one(node, work), chosen), strict=True))
        else:
            results = {node: self._one(node, work) for node in chosen}
        return Outcomes(
            {node: result.value for node, result in results.items() if isinstance(result, _Done)},
            {node: result for node, result in results.items() if isinstance(result, ExlbError)},
        )

    def _one(self, node: Node, work: Callable[[Node, Callable[[], Remote]], T]) -> _Done[T] | ExlbError:
        try:
            return _Done(work(node, lambda: self._remote(node)))
        except ExlbError as error:
            return error

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


def _apart(work: Callable[[], T]) -> Future[T]:
    """Begin work on a thread of its own, which does not keep exlb from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _probe(node: Node, remote: Remote, proxy: Proxy, questions: Sequence[str]) -> facts.Facts:
    program = programs.probe(proxy.program)
    return _ask(node, remote, program, questions, lambda text, span: replace(answers.parse(text, proxy), asked=span))


def limit_seconds(questions: Sequence[str]) -> int:
    """Return how long a node may take to answer: more where nobody may answer what it asks in turn."""
    waiting = sum(question.startswith(WAITING_QUESTIONS) for question in questions)
    told = [int(question.split(" ")[1]) for question in questions if question.startswith("keepalived-state ")]
    return PROBE_SECONDS + waiting * WAITING_SECONDS + math.ceil(sum(told) / MILLISECONDS)


def _ask(node: Node, remote: Remote, program: str, questions: Sequence[str], parse: Callable[[str, Span], T]) -> T:
    asked = "".join(f"{question}\n" for question in questions)
    begin = time.time()
    done = remote.run(program, data=asked, limit_seconds=limit_seconds(questions))
    span = Span(begin, time.time())
    try:
        return parse(done.stdout, span)
    except FactsError as error:
        raise FactsError(f"{node}: {error.message}", hint=error.hint) from error


@dataclass(frozen=True, slots=True)
class _Done(Generic[T]):
    value: T
