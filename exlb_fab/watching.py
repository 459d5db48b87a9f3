"""Clients of the entrance on every node and on the bastion while a drill lasts: a request every 50 ms each."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from exlb_fab import client, drilling
from exlb_fab import node as programs
from exlb_fab.cluster import Cluster, Node
from exlb_fab.drilling import Offset, Plan, Sample
from exlb_fab.errors import ExlbError, RemoteError
from exlb_fab.events import Event
from exlb_fab.fleet import Fleet
from exlb_fab.host import Span
from exlb_fab.questions import vip_url
from exlb_fab.remote import BEAT_SECONDS, Channel

INTERVAL_SECONDS = 0.05
MOST_REQUESTS = 200  # at once: one every 50 ms that all hang as long as the client lets them
MILLISECONDS = 1000
BASTION = "the bastion"


class NodeWatch(threading.Thread):
    """A client on a node: reads what it says, and keeps it alive."""

    def __init__(self, node: Node, channel: Channel) -> None:
        super().__init__(daemon=True)
        self.node = node
        self.samples: list[Sample] = []
        self.readings: list[tuple[float, Span]] = []
        self.lost: str | None = None
        self._channel = channel
        self._ended = threading.Event()
        self._asked: list[float] = []

    def run(self) -> None:
        beaten: float | None = None
        try:
            while not self._ended.is_set():
                if beaten is None or time.monotonic() - beaten > BEAT_SECONDS:
                    self._asked.append(time.time())
                    self._channel.send("\n")
                    beaten = time.monotonic()
                try:
                    said = self._channel.line(1)
                except RemoteError:  # nothing was said in this second
                    continue
                if said is None:
                    self.lost = f"{self.node}: its client ended"
                    return
                self._understand(said)
        except ExlbError as error:
            self.lost = error.message
        finally:
            self._channel.close()

    def _understand(self, said: str) -> None:
        match said.split(" "):
            case ["request", begin, end, status] if begin.isdecimal() and end.isdecimal():
                self.samples.append(Sample(int(begin) / MILLISECONDS, int(end) / MILLISECONDS, status == "0"))
            case ["clock", now] if now.isdecimal() and self._asked:
                self.readings.append((int(now) / MILLISECONDS, Span(self._asked.pop(0), time.time())))
            case _:
                pass  # what was cut off at the end

    def end(self) -> None:
        self._ended.set()


class BastionWatch(threading.Thread):
    """The bastion as a client: a request every 50 ms, whatever became of the one before."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.samples: list[Sample] = []
        self._url = url
        self._ended = threading.Event()

    def run(self) -> None:
        with ThreadPoolExecutor(max_workers=MOST_REQUESTS) as pool:
            due = time.monotonic()
            while not self._ended.is_set():
                pool.submit(self._one, time.time())
                due = max(due + INTERVAL_SECONDS, time.monotonic())
                self._ended.wait(max(0.0, due - time.monotonic()))

    def _one(self, begin: float) -> None:
        reply = client.request(self._url)
        self.samples.append(Sample(begin, time.time(), reply is not None and reply.of_apiserver))

    def end(self) -> None:
        self._ended.set()


class Watch:
    """All watchers; what they saw stands by the clock of the bastion once they have ended."""

    def __init__(self, nodes: Sequence[NodeWatch], bastion: BastionWatch | None) -> None:
        self._nodes = nodes
        self._bastion = bastion

    def lost(self, node: Node) -> str | None:
        """Return why the client on a node says nothing any more, None where it does."""
        return self.losses.get(node.name)

    @property
    def losses(self) -> Mapping[str, str]:
        """Return why clients on nodes say nothing any more."""
        return {each.node.name: each.lost for each in self._nodes if each.lost is not None}

    def begin(self) -> None:
        for each in self._all:
            each.start()

    def end(self) -> None:
        for each in self._all:
            each.end()
        for each in self._all:
            each.join()

    @property
    def _all(self) -> Sequence[NodeWatch | BastionWatch]:
        return [*([self._bastion] if self._bastion else []), *self._nodes]

    @property
    def offsets(self) -> Mapping[str, Offset]:
        """Return what the clocks of the nodes are ahead of ours."""
        return {each.node.name: drilling.offset(each.readings) for each in self._nodes if each.readings}

    @property
    def samples(self) -> Mapping[str, Sequence[Sample]]:
        """Return what each watcher saw; nothing of a node whose clock was never told, which no time of ours has."""
        offsets = self.offsets
        found = {BASTION: tuple(self._bastion.samples)} if self._bastion else {}
        for each in self._nodes:
            ahead = offsets.get(each.node.name)
            found[each.node.name] = tuple(
                Sample(ahead.ours(one.begin), ahead.ours(one.end), one.answered) for one in each.samples if ahead
            )
        return found


@contextmanager
def watching(cluster: Cluster, plan: Plan, fleet: Fleet) -> Iterator[Watch]:
    """Have every node ask the VIP, and the bastion where it reaches it, until this is left."""
    url = vip_url(cluster)
    boot = drilling.BOOT_SECONDS if plan.fault == "node" else 0
    limit = plan.hold_seconds + plan.settle_seconds + drilling.SPARE_SECONDS + boot
    args = ["watch", url, f"{INTERVAL_SECONDS:g}", f"{limit:.0f}"]
    opened = fleet.tidy(cluster.nodes, lambda _, remote: remote.open(programs.drill(), args))
    if opened.errors:
        for channel in opened.values.values():
            channel.close()
        raise next(iter(opened.errors.values()))
    reply = client.request(url)
    if reply is None:
        fleet.emit(Event("step", f"the bastion does not reach {cluster.vip}: only the nodes watch"))
    nodes = [NodeWatch(node, channel) for node, channel in opened.values.items()]
    watch = Watch(nodes, BastionWatch(url) if reply is not None else None)
    watch.begin()
    try:
        yield watch
    finally:
        watch.end()
