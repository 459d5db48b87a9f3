"""What happens to the VIP and to its clients meanwhile: two clients, and every appearance of the VIP on a node."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exlb_fab.lab import Lab

PROBER = Path(__file__).parent / "prober.py"
READY = "127.0.0.99"  # an address that is added and removed to learn that a monitor listens
TOUCH = f"ip addr add {READY}/32 dev lo && ip addr del {READY}/32 dev lo"
MONITOR = "ip -ts -o monitor address & read -r _; kill $!"
LIMIT_SECONDS = 60


@dataclass(frozen=True)
class Event:
    """The VIP came to a node (`came`) or went."""

    when: datetime
    node: str
    came: bool


@dataclass(frozen=True)
class Seen:
    """What the clients and the kernels of the nodes saw.

    `longest_gap_seconds` is the longest time without a good answer, `delay_seconds` the most by which the client was
    woken up late, `long_lived` whether the open connection lived to the end. `moves` counts how often the VIP came to a
    node that had not had it, `most_holders` how many had it at once.
    """

    requests: int
    failed: int
    longest_gap_seconds: float
    delay_seconds: float
    long_lived: bool
    moves: int
    most_holders: int

    @property
    def harmless(self) -> bool:
        """Tell whether no client noticed anything, and the VIP stayed where it was."""
        return not self.failed and self.long_lived and not self.moves and self.most_holders == 1


def holders_over_time(holders: Iterable[str], events: Iterable[Event]) -> tuple[int, int]:
    """Return how often the VIP came to a node, and the most nodes that had it at once."""
    now = set(holders)
    moves, most = 0, len(now)
    for event in sorted(events, key=lambda event: event.when):
        if event.came and event.node not in now:
            moves += 1
            now.add(event.node)
        elif not event.came:
            now.discard(event.node)
        most = max(most, len(now))
    return moves, most


class _Monitor(threading.Thread):
    """Reads what a node's kernel says of its addresses, until the node dies or `end`."""

    def __init__(self, lab: Lab, node: str) -> None:
        super().__init__(daemon=True)
        self.events: list[Event] = []
        self.listens = threading.Event()
        self._node = node
        self._vip = lab.vip
        words = ["env", "TZ=UTC", "sh", "-c", MONITOR]
        self._process = lab.popen_in(node, words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout

    def run(self) -> None:
        for line in self._output:
            if f" {READY}/" in line:
                self.listens.set()
            if f" {self._vip}/" in line:
                when = datetime.fromisoformat(line[1 : line.index("]")]).replace(tzinfo=UTC)
                self.events.append(Event(when, self._node, came="Deleted" not in line))
        # Without power a node does not say that it has lost its addresses.
        self.events.append(Event(datetime.now(UTC), self._node, came=False))

    def await_ready(self, lab: Lab) -> None:
        """Touch an address until that is heard: a monitor says nothing of when it begins to listen."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while not self.listens.wait(0.2):
            assert time.monotonic() < deadline, f"nothing is heard of the addresses of {self._node}"
            lab.shell_in(self._node, ["sh", "-c", TOUCH])

    def end(self) -> None:
        self._input.close()
        self.join(timeout=30)
        self._output.close()
        self._process.wait(timeout=30)


class Watch:
    """Everything that is watched at one time; `seen` when it has ended."""

    def __init__(self) -> None:
        self.server = ""
        self._seen: Seen | None = None

    @property
    def seen(self) -> Seen:
        assert self._seen is not None, "it is watched still"
        return self._seen

    def end(self, **seen: Any) -> None:
        self._seen = Seen(**seen)


@contextmanager
def watching(
    lab: Lab, holders: Callable[[], list[str]], nodes: Iterable[str], port: int, interval_ms: int = 50
) -> Iterator[Watch]:
    """Watch the VIP on nodes that run, and two clients of it; `server` is where the open connection has come to."""
    watch = Watch()
    monitors = [_Monitor(lab, node) for node in nodes]
    with ExitStack() as ends:
        for monitor in monitors:
            monitor.start()
            ends.callback(monitor.end)
        for monitor in monitors:
            monitor.await_ready(lab)
        before = holders()
        words = [sys.executable, str(PROBER), lab.vip, str(port), str(interval_ms)]
        client = lab.popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert client.stdout is not None
            started = client.stdout.readline().split()
            assert started[:1] == ["started"]
            watch.server = started[1]
            yield watch
        finally:
            output, _ = client.communicate(timeout=30)
            events = [event for monitor in monitors for event in monitor.events]
    moves, most = holders_over_time(before, events)
    watch.end(**json.loads(output), moves=moves, most_holders=most)
