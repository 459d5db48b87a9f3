"""A drill: what a fault does, what it costs at worst, and what watchers and journals say that it did cost. Pure.

All times are in seconds; those of samples and transitions since 1970, by the clock of the bastion.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from exlb_fab import vrrp
from exlb_fab.cluster import Cluster, Node, Track
from exlb_fab.dump import TRANSITION
from exlb_fab.errors import ExlbError
from exlb_fab.host import Span
from exlb_fab.platforms import KEEPALIVED_UNIT
from exlb_fab.proxies import PROXIES

Fault = Literal["proxy", "keepalived", "kill", "partition", "node"]
State = Literal["MASTER", "BACKUP", "FAULT", "STOPPED"]

FAULTS: tuple[Fault, ...] = get_args(Fault)
SPARE_SECONDS = 60  # that the node waits for our word beyond what is planned before it undoes the fault by itself
BOOT_SECONDS = 600  # the longest that a node may take to come back
NO_UNIT = "-"
# A watcher that is starved of the processor would allow an outage of any length. Ten times the pace at which it asks is
# less than the shortest failover takes (keepalived stopped: 0.65 s); beyond that it is no measurement any more.
COARSEST_SECONDS = 0.5
_STATE = re.compile(TRANSITION)
# Its own words, and systemd's of a unit whose process was killed.
_STOPPED = re.compile(r"^Stopp(?:ing|ed)\b|Main process exited")
# What is logged before somebody takes over: a check that failed, an advert that resigns, or one that did not come.
_NOTICED = re.compile(
    r"VRRP_Script\(.*\) (?:failed|timed out)|Script `.*` now returning [1-9]|Changing effective priority|"
    r"received priority 0|[Rr]eceive advertisement timeout|sent 0 priority"
)


class DrillRefusedError(ExlbError):
    """A drill would do harm, or show nothing; no fault was injected."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One fault on the node that holds the VIP, and what is known of it beforehand.

    `unit` is the one that it is about, NO_UNIT where there is none. `worst_seconds` is the longest that clients are
    without service by the model. `undone_worst_seconds` is the longest that passes once it is undone: by the model
    after a partition; of the other ways back it says nothing, and none may cost more than its fault. The fault lasts
    `hold_seconds`; what follows is watched for `settle_seconds`; the node undoes it by itself after `limit_seconds`.
    """

    fault: Fault
    holder: Node
    unit: str
    worst_seconds: float
    undone_worst_seconds: float
    hold_seconds: float
    settle_seconds: float
    limit_seconds: int

    @property
    def deed(self) -> str:
        """Return what is done, as a sentence without its end."""
        match self.fault:
            case "proxy" | "keepalived":
                return f"stops {self.unit} on {self.holder}"
            case "kill":
                return f"kills {self.unit} on {self.holder} (signal 9); systemd starts it again"
            case "partition":
                return f"drops VRRP (protocol 112) on {self.holder}, in both directions"
            case "node":
                return f"powers {self.holder} off at once, without stopping its programs"

    def __str__(self) -> str:
        end = "powers it on" if self.fault == "node" else "undoes it"
        return (
            f"{self.deed}; clients are without the VIP for at most {self.worst_seconds:.1f} s by the model; "
            f"{end} after {self.hold_seconds:.0f} s"
        )


def plan(cluster: Cluster, fault: Fault, holder: Node, *, eventless: bool) -> Plan:
    """Return the plan of a drill; `eventless` tells that its keepalived hears nothing of processes.

    Raises DrillRefusedError where the model says that the VIP would not come back to clients by itself.
    """
    if len(cluster.nodes) < 2:
        raise DrillRefusedError("there is no other node that could take the VIP over", hint="NODE_IPS has one node")
    worst, undone = _worst(cluster, fault, holder, eventless=eventless)
    if math.isinf(worst):
        raise DrillRefusedError(
            f"drill {fault}: by the model the VIP would not fail over: clients would be cut off until somebody acts",
            hint="exlb config shows the worst outages; PREEMPT=no wants FAILOVER=fault",
        )
    if math.isinf(undone):
        raise DrillRefusedError(
            f"drill {fault}: afterwards clients might be cut off until somebody acts: no node announces the VIP again",
            hint="GARP_MASTER_REFRESH=5 has the holder announce it every 5 s",
        )
    settle = vrrp.settle_seconds(cluster.priorities, cluster.vrrp.advert_seconds, cluster.vrrp.version)
    # Split brain comes late: what is seen counts only after an election could have shown it.
    hold = worst + settle
    back = _timing(cluster, eventless=eventless).recovery_seconds + settle
    longest = 0.0 if fault == "node" else hold
    return Plan(
        fault=fault,
        holder=holder,
        unit=_unit(cluster, fault),
        worst_seconds=worst,
        undone_worst_seconds=undone,
        hold_seconds=hold,
        settle_seconds=max(back, undone + 1.0),
        limit_seconds=math.ceil(longest + SPARE_SECONDS),
    )


def plannable(cluster: Cluster, holder: Node, *, eventless: bool, poweroff: bool) -> tuple[list[Plan], list[str]]:
    """Return the plans of all faults that a cluster can be drilled for, and why the others are left out.

    Raises DrillRefusedError where there is none.
    """
    plans: list[Plan] = []
    left: list[str] = []
    for fault in FAULTS:
        if fault == "node" and not poweroff:
            left.append("node: only with --allow-poweroff and --power-on COMMAND")
            continue
        try:
            plans.append(plan(cluster, fault, holder, eventless=eventless))
        except DrillRefusedError as error:
            if len(cluster.nodes) < 2:
                raise
            left.append(error.message.removeprefix("drill "))
    if not plans:
        raise DrillRefusedError("no fault can be drilled: " + "; ".join(left), hint="exlb config")
    return plans, left


def _unit(cluster: Cluster, fault: Fault) -> str:
    match fault:
        case "proxy":
            return PROXIES[cluster.proxy].unit
        case "keepalived" | "kill":
            return KEEPALIVED_UNIT
        case _:
            return NO_UNIT


def _worst(cluster: Cluster, fault: Fault, holder: Node, *, eventless: bool) -> tuple[float, float]:
    """Return the longest outages that pass: while the fault lasts, and once it is undone."""
    found = vrrp.outages(cluster.group, _timing(cluster, eventless=eventless))
    match fault:
        case "proxy":
            worst = found.proxy_dead
        case "keepalived":
            worst = found.keepalived_stopped
        case "partition":
            return found.partition, found.partition_healed
        case "kill":  # it says nothing as it dies, like a node
            worst = found.node_dead
        case "node":
            worst = max(found.node_dead, _backend_seconds(cluster, holder))
    return worst, worst


def _backend_seconds(cluster: Cluster, node: Node) -> float:
    """Return how long the other proxies may send clients to an apiserver that died with its node; 0 where none did.

    A check that began just before ends well, and of those that fail each takes at most the interval.
    Source: haproxy configuration manual, `inter` and `timeout check`.
    """
    listener = cluster.apiserver_listener
    if str(node.address) not in [backend.host for backend in listener.backends]:
        return 0.0
    return (listener.check.fall + 1) * listener.check.interval_ms / 1000


def _timing(cluster: Cluster, *, eventless: bool) -> vrrp.Timing:
    """Return the pace of the check that notices a dead proxy first."""
    tracks: list[Track] = ["script" if eventless and each == "process" else each for each in cluster.vrrp.track]
    return min((cluster.vrrp.timing(track) for track in tracks), key=lambda timing: timing.failure_seconds)


# What the watchers saw


@dataclass(frozen=True, slots=True)
class Sample:
    """One request to the VIP: when it began and ended, and whether it was answered."""

    begin: float
    end: float
    answered: bool


@dataclass(frozen=True, slots=True)
class Watched:
    """What one watcher saw in a span of time.

    `outage` is the longest time between two answers, `resolution_seconds` the longest between the beginnings of two
    requests, which is the interval and by how much the watcher was woken up late: it can tell nothing shorter.
    `latency_seconds` is what nine of ten answers take at most.
    """

    requests: int
    unanswered: int
    outage: Span
    resolution_seconds: float
    latency_seconds: float

    @property
    def outage_seconds(self) -> float:
        return self.outage.end - self.outage.begin

    def within(self, worst_seconds: float) -> bool:
        """Tell whether the outage is no longer than the model allows, as far as this watcher can tell.

        Between two answers there is more than the time without service: what passed from the last answer to its
        beginning, from its end to the next request, and until that was answered.
        """
        return self.outage_seconds <= worst_seconds + 2 * self.resolution_seconds + self.latency_seconds


def watched(samples: Iterable[Sample], span: Span) -> Watched | None:
    """Return what the requests that were under way in a span say of it; None where there are none.

    A silence that is there already when the span begins counts from then on; one that is there when it ends counts to
    the first answer, or the last request where none came.
    """
    ordered = sorted(samples, key=lambda sample: sample.end)
    inside = [sample for sample in ordered if sample.end >= span.begin and sample.begin <= span.end]
    if not inside:
        return None
    answers = [sample.end for sample in ordered if sample.answered]
    failures = [sample.begin for sample in ordered if not sample.answered]

    def silent(since: float, until: float) -> bool:
        return any(since < at < until for at in failures)

    before = max((at for at in answers if at < span.begin), default=None)
    first = span.begin if before is None or silent(before, span.begin) else before
    times = [first, *(at for at in answers if span.begin <= at <= span.end)]
    if silent(times[-1], span.end):
        times.append(min((at for at in answers if at > span.end), default=max(inside[-1].end, times[-1])))
    begin, end = max(pairwise(times), key=lambda pair: pair[1] - pair[0], default=(first, first))
    begins = _begins(inside, ordered, span)
    return Watched(
        requests=len(inside),
        unanswered=sum(not sample.answered for sample in inside),
        outage=Span(begin, end),
        resolution_seconds=max((later - earlier for earlier, later in pairwise(begins)), default=span.end - span.begin),
        latency_seconds=_ninth_decile([each.end - each.begin for each in ordered if each.answered] or [0.0]),
    )


def _ninth_decile(values: Sequence[float]) -> float:
    """Return what nine of ten values are at most: the few that waited for the VIP itself are not among them."""
    return sorted(values)[math.ceil(0.9 * len(values)) - 1]


def _begins(inside: Sequence[Sample], samples: Iterable[Sample], span: Span) -> list[float]:
    """Return when requests began, from the first that was under way in a span to its end."""
    first = min(sample.begin for sample in inside)
    return sorted(sample.begin for sample in samples if first <= sample.begin <= span.end)


def gap_seconds(samples: Sequence[Sample], span: Span) -> float:
    """Return the longest time in a span without a new request; the last one tells of the time to its own end."""
    inside = [sample for sample in samples if sample.end >= span.begin and sample.begin <= span.end]
    if not inside:
        return span.end - span.begin
    begins = _begins(inside, samples, span)
    between = [later - earlier for earlier, later in pairwise(begins)]
    return max(begins[0] - span.begin, *between, span.end - max(sample.end for sample in inside))


def silences(samples: Iterable[Sample]) -> tuple[Span, ...]:
    """Return the spans without an answer in which at least one request failed."""
    found: list[Span] = []
    last: float | None = None
    failing = False
    end = 0.0
    for sample in sorted(samples, key=lambda sample: sample.end):
        last = sample.begin if last is None else last
        if sample.answered:
            if failing:
                found.append(Span(last, sample.end))
            last, failing = sample.end, False
        else:
            failing, end = True, sample.end
    if failing and last is not None:
        found.append(Span(last, end))
    return tuple(found)


# What the clocks of the nodes are ahead of the bastion's


@dataclass(frozen=True, slots=True)
class Offset:
    """By how much a node's clock is ahead of the bastion's, give or take `doubt_seconds`."""

    seconds: float
    doubt_seconds: float

    def ours(self, time: float) -> float:
        """Return a time of the node's clock by the bastion's."""
        return time - self.seconds


def offset(readings: Iterable[tuple[float, Span]]) -> Offset:
    """Return the offset of a clock that was read within spans of ours.

    Each reading bounds it; where they contradict each other, because a clock was set meanwhile, the narrowest counts.
    Raises ValueError without a reading.
    """
    bounds = [(clock - asked.end, clock - asked.begin) for clock, asked in readings]
    if not bounds:
        raise ValueError("a clock was never read")
    low, high = max(low for low, _ in bounds), min(high for _, high in bounds)
    if low > high:
        low, high = min(bounds, key=lambda bound: bound[1] - bound[0])
    return Offset((low + high) / 2, (high - low) / 2)


# What keepalived logged


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of keepalived's journal on a node."""

    node: str
    time: float
    text: str


@dataclass(frozen=True, slots=True)
class Transition:
    """A node's keepalived came to a state of VRRP, or stopped."""

    node: str
    time: float
    state: State


def transitions(entries: Iterable[Entry]) -> tuple[Transition, ...]:
    """Return the changes of state among lines of journals, by time."""
    return tuple(sorted(_transitions(entries), key=lambda each: each.time))


def _transitions(entries: Iterable[Entry]) -> Iterator[Transition]:
    known: dict[str, State] = {state: state for state in get_args(State)}
    for entry in entries:
        if (found := _STATE.search(entry.text)) and found[2] in known:
            yield Transition(entry.node, entry.time, known[found[2]])
        elif _STOPPED.search(entry.text):
            yield Transition(entry.node, entry.time, "STOPPED")


def noticed(entries: Iterable[Entry]) -> Entry | None:
    """Return the first line that shows that some keepalived knows of a fault, None where none does."""
    told = [
        entry
        for entry in entries
        if _NOTICED.search(entry.text) or ((state := _STATE.search(entry.text)) and state[2] in ("MASTER", "FAULT"))
    ]
    return min(told, key=lambda entry: entry.time, default=None)


def taken_over(changes: Iterable[Transition], span: Span, holder: str) -> Transition | None:
    """Return how another node became the master in a span, None where none did.

    Of two backups whose timers end at once the worse one may be first, and gives way: the last one counts.
    """
    masters = [
        each
        for each in changes
        if each.state == "MASTER" and each.node != holder and span.begin <= each.time <= span.end
    ]
    return masters[-1] if masters else None


def moves(changes: Iterable[Transition], holder: str) -> int:
    """Return how often the VIP came to a node that did not have it. Two may have it at once."""
    holders = {holder}
    count = 0
    for each in changes:
        if each.state != "MASTER":
            holders.discard(each.node)
        elif each.node not in holders:
            holders.add(each.node)
            count += 1
    return count
