"""logs: the journals of all nodes as one, by time."""

from __future__ import annotations

import json
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType

from pydantic import BaseModel, ConfigDict

from exlb_fab import node as programs
from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.base import NodeRow, Report, exit_code_of, failure, select
from exlb_fab.dump import TRANSITION
from exlb_fab.errors import ExlbError, RemoteError, UsageError
from exlb_fab.events import Event
from exlb_fab.fleet import Fleet, Outcomes
from exlb_fab.platforms import KEEPALIVED_UNIT
from exlb_fab.proxies import PROXIES
from exlb_fab.remote import BEAT_SECONDS, Remote
from exlb_fab.rollout import masked

HOLD_SECONDS = 0.5
LINES = 100
# A proxy logs every connection: all of a day would not fit into the memory of a bastion.
MOST_LINES = 10_000
MOST_WAITING = 10_000
MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class LogsOptions:
    """`unit` is a unit's name, None for all of them. `since` is what journalctl takes, "" for LINES without a limit.

    `lines` is how many of each node, None for LINES, or with a time for MOST_LINES; `transitions` are the changes of
    the VRRP state alone. To read them takes `limit_seconds` at most.
    """

    unit: str | None = None
    nodes: tuple[str, ...] = ()
    since: str = ""
    lines: int | None = None
    transitions: bool = False
    limit_seconds: int = 60


class LogLine(BaseModel):
    """One entry of a journal; `time` is in seconds since 1970, of the node's clock."""

    model_config = ConfigDict(frozen=True)

    node: str
    time: float
    source: str
    text: str


class LogsReport(Report):
    """The entries of all nodes by time, and the nodes that could not be asked."""

    lines: tuple[LogLine, ...]
    nodes: tuple[NodeRow, ...]

    @property
    def exit_code(self) -> int:
        return exit_code_of([row.result for row in self.nodes])


@dataclass(frozen=True, slots=True)
class _Entry:
    cursor: str
    line: LogLine


def logs(cluster: Cluster, options: LogsOptions, fleet: Fleet) -> LogsReport:
    """Read what the journals have; a node that cannot be asked is named."""
    found = _read(cluster, options, fleet)
    return _report(_shown(options, found), found.errors)


def follow(cluster: Cluster, options: LogsOptions, fleet: Fleet, tell: Callable[[LogLine], None]) -> LogsReport:
    """Read the same, and tell what comes, until Ctrl-C or until nobody takes it any more.

    A node that cannot be asked is named before the first line, one that is lost as soon as its connection is known to
    be; the others go on. What `tell` raises ends all of it, and is raised.
    """
    found = _read(cluster, options, fleet)
    for node, error in found.errors.items():
        fleet.emit(Event("warning", f"is not followed: {error.message.removeprefix(f'{node}: ')}", node.name))
    for line in _shown(options, found):
        tell(line)
    proxy = PROXIES[cluster.proxy]
    units = _units(cluster, options)

    def left_out(count: int) -> None:
        fleet.emit(Event("warning", f"{count} lines were left out: nobody read those before them"))

    with _Merger(tell, left_out) as merger:

        def work(node: Node, remote: Remote) -> None:
            entries = found.values[node]
            cursor = entries[-1].cursor if entries else ""
            try:
                with closing(remote.open(programs.logs(), ["follow", cursor, options.since, *units])) as channel:
                    beaten = time.monotonic()
                    while not (fleet.stopped or merger.ended):
                        try:
                            said = channel.line(1)
                        except RemoteError:  # nothing was logged in this second
                            said = ""
                        if said is None:
                            raise RemoteError(f"{node}: its journal ended", hint=f"exlb ssh {node} -- journalctl -n 5")
                        entry = _entry(node, said, lambda text: masked(text, proxy)) if said else None
                        if entry and _wanted(options, entry):
                            merger.put(entry.line)
                        if time.monotonic() - beaten > BEAT_SECONDS:
                            channel.send("\n")
                            beaten = time.monotonic()
            except ExlbError as error:
                fleet.emit(Event("warning", f"is followed no more: {error.message}", node.name))
                raise

        followed = fleet.each(list(found.values), work)
    return _report((), {**found.errors, **followed.errors})


def _read(cluster: Cluster, options: LogsOptions, fleet: Fleet) -> Outcomes[list[_Entry]]:
    proxy, units = PROXIES[cluster.proxy], _units(cluster, options)
    # At least one: it tells where to go on from.
    limit = _limit(options)
    lines = str(max(1, limit))
    pattern = TRANSITION if options.transitions else ""

    def work(node: Node, remote: Remote) -> list[_Entry]:
        args = ["print", options.since, lines, pattern, *units]
        done = remote.run(programs.logs(), args, limit_seconds=options.limit_seconds)
        found = [_entry(node, said, lambda text: masked(text, proxy)) for said in done.stdout.split("\n") if said]
        if not found and done.stderr.strip():
            raise RemoteError(f"{node}: {masked(done.stderr, proxy).strip()}", hint=f"exlb ssh {node} -- journalctl")
        if options.lines is None and options.since and len(found) > limit:
            said = f"only its newest {limit} lines are shown; --lines says how many, a later --since wants fewer"
            fleet.emit(Event("warning", said, node.name))
        return [entry for entry in found if entry]

    return fleet.each(select(cluster, options.nodes), work)


def _limit(options: LogsOptions) -> int:
    """Return how many lines of each node are shown at most."""
    if options.lines is not None:
        return options.lines
    return MOST_LINES if options.since else LINES


def _shown(options: LogsOptions, found: Outcomes[list[_Entry]]) -> list[LogLine]:
    """Return the lines of all nodes by time."""
    limit = _limit(options)
    lines: list[LogLine] = []
    for entries in found.values.values():
        wanted = [entry.line for entry in entries if _wanted(options, entry)]
        lines += wanted[max(0, len(wanted) - limit) :]
    return sorted(lines, key=lambda line: line.time)


def _report(lines: Sequence[LogLine], errors: Mapping[Node, ExlbError]) -> LogsReport:
    return LogsReport(lines=tuple(lines), nodes=tuple(failure(node, error) for node, error in errors.items()))


def _units(cluster: Cluster, options: LogsOptions) -> list[str]:
    """Return the units whose entries are read. Raises UsageError where there is no such unit."""
    known = [PROXIES[cluster.proxy].unit, KEEPALIVED_UNIT]
    if options.transitions:
        return [KEEPALIVED_UNIT]
    if options.unit is None:
        return known
    if options.unit not in known:
        raise UsageError(f"logs {options.unit}: no such unit", hint=f"exlb logs {' | '.join((*known, 'all'))}")
    return [options.unit]


def _wanted(options: LogsOptions, entry: _Entry) -> bool:
    return not options.transitions or re.search(TRANSITION, entry.line.text) is not None


def _entry(node: Node, said: str, mask: Callable[[str], str]) -> _Entry | None:
    """Parse one line of `journalctl -o json`; None where it is none, as what a startup file prints.

    Source: systemd.journal-fields(7), journalctl(1) `-o json`: a message that is no text is an array of its bytes.
    """
    try:
        fields = json.loads(said)
        message = fields.get("MESSAGE") or ""
        text = bytes(message).decode(errors="replace") if isinstance(message, list) else str(message)
        line = LogLine(
            node=node.name,
            time=int(fields["__REALTIME_TIMESTAMP"]) / MICROSECONDS,
            source=str(fields.get("SYSLOG_IDENTIFIER") or fields.get("_COMM") or "?"),
            text="".join(each if each.isprintable() or each == "\n" else "?" for each in mask(text)),
        )
        return _Entry(str(fields.get("__CURSOR", "")), line)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


class _Merger:
    """Tells lines by time, although they come from several nodes at once: each is held back for a moment.

    Where they are not taken, as by a pager that waits, no more than MOST_WAITING wait; how many were left out is told.
    """

    def __init__(self, tell: Callable[[LogLine], None], left_out: Callable[[int], None]) -> None:
        self._tell = tell
        self._tell_left_out = left_out
        self._left_out = 0
        self._lock = threading.Lock()
        self._arrived: queue.Queue[LogLine] = queue.Queue(MOST_WAITING)
        self._all_arrived = threading.Event()
        self._executor = ThreadPoolExecutor(max_workers=1)
        self._telling: Future[None]

    def put(self, line: LogLine) -> None:
        try:
            self._arrived.put_nowait(line)
        except queue.Full:
            with self._lock:
                self._left_out += 1

    @property
    def ended(self) -> bool:
        """Tell whether nothing is told any more, as after the end of a pipe has been closed."""
        return self._telling.done()

    def __enter__(self) -> _Merger:
        self._telling = self._executor.submit(self._run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._all_arrived.set()
        self._executor.shutdown()
        self._telling.result()

    def _run(self) -> None:
        while not self._all_arrived.wait(HOLD_SECONDS):
            self._tell_all()
        self._tell_all()

    def _tell_all(self) -> None:
        lines = [self._arrived.get() for _ in range(self._arrived.qsize())]
        with self._lock:
            count, self._left_out = self._left_out, 0
        for line in sorted(lines, key=lambda each: each.time):
            self._tell(line)
        if count:
            self._tell_left_out(count)
