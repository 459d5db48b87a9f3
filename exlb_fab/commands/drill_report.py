"""What a drill reports, and how that is made of what watchers saw and journals say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

from exlb_fab import drilling
from exlb_fab.commands.base import Report
from exlb_fab.commands.verify import VerifyReport
from exlb_fab.drilling import Entry, Fault, Offset, Plan, Sample
from exlb_fab.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from exlb_fab.host import Span
from exlb_fab.rehearsal import Course, repair
from exlb_fab.watching import Watch


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class WatcherRow(_Row):
    """What clients on one host saw of the VIP."""

    watcher: str = Field(description="the name of a node, or the bastion")
    requests: int = Field(description="while the fault lasted")
    unanswered: int = Field(description="how many of them got no answer")
    outage_seconds: float = Field(description="the longest time between two answers while the fault lasted")
    afterwards_seconds: float | None = Field(description="the same once it was undone; null: nothing was seen")
    resolution_seconds: float = Field(
        description="the longest time between two requests: nothing shorter is told apart"
    )
    latency_seconds: float = Field(description="what nine of ten answers take at most")
    last_seconds: float = Field(description="when its last request ended, in seconds from the fault")
    unmeasured: str | None = Field(
        description="why it cannot tell: it asked too seldom, or not to the end; null: it can"
    )
    within: bool = Field(
        description="whether it can tell, and both are no longer than what passes, twice the resolution and the latency"
    )
    silences: tuple[tuple[float, float], ...] = Field(description="spans without an answer, in seconds from the fault")


class TransitionRow(_Row):
    """A node's keepalived came to a state."""

    node: str = Field(description="its name")
    seconds: float = Field(description="from the fault, by the clock of the bastion")
    doubt_seconds: float = Field(description="by how much the clock of the node may be off from that")
    state: drilling.State = Field(description="in keepalived's words; STOPPED: it ended, or lost its power")


class DrillRow(_Row):
    """One fault, what it did, and how it ended."""

    fault: Fault = Field(description="what was drilled")
    deed: str = Field(description="what was done, in words")
    holder: str = Field(description="the node that held the VIP, on which it was done")
    at: datetime = Field(description="when, by the clock of the bastion")
    undone_seconds: float | None = Field(description="when it was undone, in seconds from the fault; null: not known")
    ended_seconds: float = Field(description="when the last request ended, in seconds from the fault")
    worst_seconds: float = Field(description="the longest outage by the model")
    undone_worst_seconds: float = Field(
        description="the longest that passes once it is undone: by the model after a partition, else the same again"
    )
    detection_seconds: float | None = Field(description="until some keepalived knew; null: none said so")
    detected: str | None = Field(description="by what line of whose journal")
    takeover_seconds: float | None = Field(
        description="until another node was the master, the last of several; null: none was"
    )
    new_holder: str | None = Field(description="that node")
    moves: int = Field(description="how often the VIP came to a node that did not have it, the way back included")
    watchers: tuple[WatcherRow, ...] = Field(description="the clients that asked the VIP meanwhile")
    transitions: tuple[TransitionRow, ...] = Field(description="by the journals of all nodes, in their order")
    cut_short: str | None = Field(description="why it ended before its time; null: it did not")
    restored: bool = Field(description="whether the node says that the fault is undone")
    green: bool | None = Field(description="whether verify was green afterwards; null: it could not be asked any more")
    problem: str | None = Field(description="what is wrong at the end")
    hint: str | None = Field(description="what to type next")

    @computed_field(description="the longest outage that any watcher saw; null: nobody watched")  # type: ignore[prop-decorator]
    @property
    def outage_seconds(self) -> float | None:
        """Return the longest outage that any watcher saw."""
        return max((each.outage_seconds for each in self.watchers if each.requests), default=None)

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Return why watchers cannot tell."""
        return tuple(each.unmeasured for each in self.watchers if each.unmeasured is not None)

    @property
    def overlong(self) -> bool:
        """Tell whether a watcher that can tell saw more than the model allows."""
        return any(each.unmeasured is None and not each.within for each in self.watchers)

    @computed_field(description="whether all watchers saw what the model allows")  # type: ignore[prop-decorator]
    @property
    def within(self) -> bool:
        """Tell whether every watcher saw what the model allows; where one cannot tell, nobody knows."""
        return bool(self.watchers) and all(each.within for each in self.watchers)

    @property
    def ineffective(self) -> bool:
        """Tell whether nobody took over, but where systemd may start keepalived again before anybody has to."""
        return self.new_holder is None and self.fault != "kill"

    @computed_field(description="whether all went as the model says, and is as it was before")  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        return self.within and not self.ineffective and self.restored and self.green is True and self.cut_short is None


class DrillReport(Report):
    """The answer of `exlb drill -o json`.

    Within a version of `format` fields may be added; none goes away or changes its meaning.
    """

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    format: Literal["exlb/drill/1"] = Field(default="exlb/drill/1", description="the version of this schema")
    at: datetime = Field(description="when it began, by the clock of the bastion")
    vip: str = Field(description="the VIP that the clients ask")
    nodes: tuple[str, ...] = Field(description="the names of all nodes")
    drills: tuple[DrillRow, ...] = Field(description="what was drilled, in its order")
    left_out: tuple[str, ...] = Field(default=(), description="faults of `all` that were not drilled, and why")
    stopped: str | None = Field(default=None, description="why further faults were not drilled; null: all were")
    interrupted: bool = Field(description="whether Ctrl-C came before the end")

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_OK if self.passed else EXIT_FAILED

    @computed_field(description="whether all went as the model says, and is as it was before")  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Tell whether every fault was drilled, cost what the model allows, and is undone."""
        return bool(self.drills) and self.stopped is None and all(each.passed for each in self.drills)


def row(plan: Plan, course: Course, watch: Watch, entries: Sequence[Entry], found: VerifyReport | None) -> DrillRow:
    """Return what the report says of one fault; `found` is what verify says afterwards, None where it was not asked."""
    offsets, samples = watch.offsets, watch.samples
    # Without its clock nothing that the holder tells has a time of ours.
    ahead = offsets.get(plan.holder.name)
    told = {word: ahead.ours(time) for word, time in course.told.items()} if ahead else {}
    began = told.get("begun", course.began)
    undone = told.get("undone", course.undone) if course.restored else None
    ended = max((one.end for each in samples.values() for one in each), default=undone or began)
    lasting = Span(began, undone or ended)
    # What is cut short is not watched afterwards.
    until = lasting.end if undone is None or course.cut_short else undone + plan.settle_seconds
    ours = [Entry(each.node, offsets[each.node].ours(each.time), each.text) for each in entries if each.node in offsets]
    doubt = max((each.doubt_seconds for each in offsets.values()), default=0.0)
    ours = [each for each in ours if each.time >= began - doubt]
    # Who is without power does not say so.
    gone = [drilling.Transition(plan.holder.name, began, "STOPPED")] if plan.fault == "node" and course.told else []
    changes = (*gone, *drilling.transitions(ours))
    # What undoing it leads to was noticed by nobody while it lasted.
    noticed = drilling.noticed(each for each in ours if each.time <= lasting.end + doubt)
    taken = drilling.taken_over(changes, lasting, plan.holder.name)
    problem, hint = _problem(plan, course, found)
    return DrillRow(
        fault=plan.fault,
        deed=plan.deed,
        holder=plan.holder.name,
        at=datetime.fromtimestamp(began, UTC),
        undone_seconds=None if undone is None else _rounded(undone - began),
        ended_seconds=_rounded(ended - began),
        worst_seconds=_rounded(plan.worst_seconds),
        undone_worst_seconds=_rounded(plan.undone_worst_seconds),
        detection_seconds=_rounded(max(0.0, noticed.time - began)) if noticed else None,
        detected=f"{noticed.node}: {noticed.text}" if noticed else None,
        takeover_seconds=_rounded(max(0.0, taken.time - began)) if taken else None,
        new_holder=taken.node if taken else None,
        moves=drilling.moves(changes, plan.holder.name),
        watchers=tuple(_watchers(plan, watch, lasting, until, ended)),
        transitions=tuple(
            TransitionRow(
                node=each.node,
                seconds=_rounded(each.time - began),
                doubt_seconds=_rounded(offsets.get(each.node, Offset(0.0, 0.0)).doubt_seconds),
                state=each.state,
            )
            for each in changes
        ),
        cut_short=course.cut_short,
        restored=course.restored,
        green=found.green if found else None,
        problem=problem,
        hint=hint,
    )


def _watchers(plan: Plan, watch: Watch, lasting: Span, until: float, ended: float) -> Iterator[WatcherRow]:
    """Yield what each watcher saw; `until` is how long each has to have asked, `ended` when the last of them ended."""
    for name, each in watch.samples.items():
        powerless = plan.fault == "node" and name == plan.holder.name
        seen = drilling.watched(each, lasting)
        if seen is None and powerless:
            continue
        seen = seen or drilling.Watched(0, 0, lasting, lasting.end - lasting.begin, 0.0)
        after = drilling.watched(each, Span(lasting.end, ended)) if ended > lasting.end else None
        unmeasured = None if powerless else _unmeasured(name, each, Span(lasting.begin, until), watch)
        yield WatcherRow(
            watcher=name,
            requests=seen.requests,
            unanswered=seen.unanswered,
            outage_seconds=_rounded(seen.outage_seconds),
            afterwards_seconds=_rounded(after.outage_seconds) if after else None,
            resolution_seconds=_rounded(seen.resolution_seconds),
            latency_seconds=_rounded(seen.latency_seconds),
            last_seconds=_rounded(max((one.end for one in each), default=lasting.begin) - lasting.begin),
            unmeasured=unmeasured,
            within=unmeasured is None
            and seen.within(plan.worst_seconds)
            and (after is None or after.within(plan.undone_worst_seconds)),
            silences=tuple(
                (_rounded(span.begin - lasting.begin), _rounded(span.end - lasting.begin))
                for span in drilling.silences(each)
            ),
        )


def _unmeasured(name: str, samples: Sequence[Sample], span: Span, watch: Watch) -> str | None:
    """Return why a watcher cannot tell what happened in a span, None where it can."""
    gap = drilling.gap_seconds(samples, span)
    if gap <= drilling.COARSEST_SECONDS:
        return None
    return watch.losses.get(name) or f"{name}: sent no request for {gap:.2f} s"


def _problem(plan: Plan, course: Course, found: VerifyReport | None) -> tuple[str | None, str | None]:
    """Return what is wrong at the end, and what to type next."""
    if course.error is not None:
        said = course.error.message
        if not course.restored:
            said = f"{said}\n{_by_itself(plan)}"
        return said, course.error.hint or repair(plan)
    if found is None:
        return "verify was not asked again", "exlb verify"
    if not found.green:
        return f"verify is not green afterwards:\n{failures(found)}", "exlb verify"
    return None, None


def _by_itself(plan: Plan) -> str:
    if plan.fault == "node":
        return "nobody but you can power the node on now"
    return f"a node that exlb has lost undoes it by itself, within {plan.limit_seconds} s at the latest"


def _rounded(seconds: float) -> float:
    return round(seconds, 3)


def failures(report: VerifyReport) -> str:
    """Return what verify found wrong, one line each."""
    return "\n".join(
        f"{each.check}{f' on {each.node}' if each.node else ''}: {each.text}"
        for each in report.verdicts
        if each.status == "fail"
    )
