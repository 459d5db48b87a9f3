"""drill: a fault on the node that holds the VIP, on purpose: what clients notice, against what the model promises."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from exlb_fab import drilling
from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.changing import ask
from exlb_fab.commands.drill_report import DrillReport, DrillRow, failures, row
from exlb_fab.commands.logs import LogsOptions, logs
from exlb_fab.commands.verify import VerifyOptions, VerifyReport, verify
from exlb_fab.drilling import DrillRefusedError, Entry, Plan
from exlb_fab.errors import ExlbError, UsageError
from exlb_fab.events import Event
from exlb_fab.fleet import Fleet, NotStartedError
from exlb_fab.locking import Lock
from exlb_fab.platforms import KEEPALIVED_UNIT
from exlb_fab.proxies import PROXIES
from exlb_fab.rehearsal import (
    DONE,
    POWER_ADDRESS,
    POWER_NODE,
    RETRY_SECONDS,
    START_SECONDS,
    Course,
    carry_out,
    hold,
    last_words,
    run_program,
)
from exlb_fab.rendering import why_no_events
from exlb_fab.watching import Watch, watching

WARM_SECONDS = 2.0
GREEN_SECONDS = 60.0
DISCARD_PORT = 9

Choice = Literal["proxy", "keepalived", "kill", "partition", "node", "all"]
POWERING_OFF: tuple[Choice, ...] = ("node", "all")  # that may power the holder off


@dataclass(frozen=True, slots=True)
class DrillOptions:
    """`power_on` is a command line of the operator's shell that brings a node back; without it none is powered off."""

    fault: Choice
    yes: bool = False
    lock_wait_seconds: int = 0
    allow_poweroff: bool = False
    power_on: str | None = None
    templates: Path | None = None


def drill(cluster: Cluster, options: DrillOptions, fleet: Fleet) -> DrillReport:
    """Rehearse failovers on a live cluster, one after the other, each undone again, and measure them.

    Raises DrillRefusedError where verify is not green before the first, UsageError where nobody says yes, LockedError
    where somebody else is at work. What fails later is in the report, because the fault is undone first.
    """
    power = _power_on(options)
    at = datetime.now(UTC).replace(microsecond=0)
    holder = _ready(cluster, _verify(cluster, options, fleet))
    plans, left_out = _plans(cluster, options, holder, fleet)
    _tell(plans, left_out, fleet)
    if not options.yes:
        ask(fleet)
    with Lock(cluster.nodes, fleet, f"drill {options.fault}", options.lock_wait_seconds) as lock:
        done, stopped = _all(cluster, plans, options, fleet, lock, power)
    return DrillReport(
        at=at,
        vip=str(cluster.vip),
        nodes=tuple(node.name for node in cluster.nodes),
        drills=tuple(done),
        left_out=tuple(left_out),
        stopped=stopped,
        interrupted=fleet.stopped,
    )


def _all(
    cluster: Cluster, plans: Sequence[Plan], options: DrillOptions, fleet: Fleet, lock: Lock, power: str | None
) -> tuple[list[DrillRow], str | None]:
    """Drill one fault after the other, and return what each did, and why the rest of them was left."""
    done: list[DrillRow] = []
    # Somebody may have been at work before the lock; and without preemption the VIP stays where it went.
    found: VerifyReport | None = _verify(cluster, options, fleet)
    for planned in plans:
        if fleet.stopped:
            return done, "interrupted"
        if found is None:
            return done, f"drill {done[-1].fault} did not end well"
        try:
            if (reason := lock.lost()) is not None:
                raise DrillRefusedError(f"the lock of a node is lost: {reason}", hint="exlb lock status")
            holder = _ready(cluster, found)
            plan = drilling.plan(cluster, planned.fault, holder, eventless=_is_eventless(cluster, holder, fleet))
            # The VIP may be elsewhere by now, on a node that was not asked before: on the host of exlb itself.
            if (reason := _obstacle(plan, fleet)) is not None:
                raise DrillRefusedError(f"{holder}: {reason}")
            fleet.emit(Event("step", f"drill {plan.fault}: {plan.deed}"))
            each, found = _rehearse(cluster, plan, options, fleet, lock, power)
        except ExlbError as error:
            if not done:
                raise
            return done, error.message
        done.append(each)
    return done, None


# Before


def _power_on(options: DrillOptions) -> str | None:
    """Return the command that powers a node on, None where no node is powered off. Raises UsageError."""
    if options.fault == "node" and not (options.allow_poweroff and options.power_on):
        raise UsageError(
            "drill node powers the holder off: it wants --allow-poweroff, and a way to come back",
            hint=f"--power-on COMMAND is run here and finds ${POWER_NODE} and ${POWER_ADDRESS}",
        )
    if options.fault not in POWERING_OFF and (options.allow_poweroff or options.power_on is not None):
        raise UsageError(
            f"drill {options.fault} powers nothing off",
            hint=f"--allow-poweroff and --power-on are for {' and '.join(POWERING_OFF)}",
        )
    if options.allow_poweroff != (options.power_on is not None):
        raise UsageError("--allow-poweroff and --power-on COMMAND go together")
    return options.power_on


def _ready(cluster: Cluster, report: VerifyReport) -> Node:
    """Return the node that holds the VIP.

    Raises DrillRefusedError unless verify is green, and NotStartedError where Ctrl-C kept it from being asked.
    """
    if report.interrupted:
        raise NotStartedError("interrupted: no fault was injected")
    if not report.green:
        raise DrillRefusedError(
            f"verify is not green, and a drill would add to it\n{failures(report)}", hint="exlb verify"
        )
    holders = [node for node in cluster.nodes if node.name in report.holders]
    if len(holders) != 1:  # green says so already, unless somebody has left that check out
        raise DrillRefusedError(f"{len(holders)} nodes hold {cluster.vip}", hint="exlb verify")
    return holders[0]


def _verify(cluster: Cluster, options: DrillOptions, fleet: Fleet) -> VerifyReport:
    return verify(cluster, VerifyOptions(templates=options.templates), fleet)


def _plans(cluster: Cluster, options: DrillOptions, holder: Node, fleet: Fleet) -> tuple[Sequence[Plan], Sequence[str]]:
    """Return what will be done, and what not and why. Raises DrillRefusedError."""
    eventless = _is_eventless(cluster, holder, fleet)
    if options.fault != "all":
        plans, left = [drilling.plan(cluster, options.fault, holder, eventless=eventless)], list[str]()
    else:
        plans, left = drilling.plannable(cluster, holder, eventless=eventless, poweroff=options.allow_poweroff)
    possible = []
    for plan in plans:
        reason = _obstacle(plan, fleet)
        if reason is None:
            possible.append(plan)
        elif options.fault != "all":
            raise DrillRefusedError(f"{holder}: {reason}", hint="exlb drill all leaves out what cannot be done")
        else:
            left.append(f"{plan.fault}: {reason}")
    if not possible:
        raise DrillRefusedError("no fault can be drilled: " + "; ".join(left))
    return possible, left


def _is_eventless(cluster: Cluster, node: Node, fleet: Fleet) -> bool:
    """Tell whether keepalived on a node hears nothing of processes: a script looks after the proxy instead."""
    survey = fleet.look([node], PROXIES[cluster.proxy], lambda _: ["system", "keepalived-version"])
    for error in survey.errors.values():
        raise error
    return bool(why_no_events(survey.facts[node].target(cluster)))


def _obstacle(plan: Plan, fleet: Fleet) -> str | None:
    """Return why the holder cannot be drilled so, None where it can."""
    if plan.fault == "node" and _is_here(plan.holder):
        return "exlb runs on this node, and would lose its power with it"
    done = run_program(plan.holder, fleet, ["check", plan.fault, plan.unit], START_SECONDS)
    if done.stdout.rstrip("\n").endswith(DONE):
        return None
    return last_words(done)


def _is_here(node: Node) -> bool:
    """Tell whether this host has the address of a node. Nothing is sent.

    A socket can be bound to an address that the host has not (ip_nonlocal_bind), but with IPv4 not be connected then.
    With IPv6 it can; unless it is bound, its own address is that of the node only on the node. With IPv4 that would be
    the first one of the interface.
    """
    family = socket.AF_INET if node.address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as ours:
        try:
            if family == socket.AF_INET:
                ours.bind((str(node.address), 0))
            ours.connect((str(node.address), DISCARD_PORT))
        except OSError:
            return False
        return ip_address(ours.getsockname()[0]) == node.address


def _tell(plans: Sequence[Plan], left_out: Sequence[str], fleet: Fleet) -> None:
    for plan in plans:
        fleet.emit(Event("warning", f"drill {plan.fault} {plan}"))
    for each in left_out:
        fleet.emit(Event("step", f"left out: {each}"))


# The fault


def _rehearse(
    cluster: Cluster, plan: Plan, options: DrillOptions, fleet: Fleet, lock: Lock, power: str | None
) -> tuple[DrillRow, VerifyReport | None]:
    """Inject a fault, watch, undo it, watch, and verify; None where that was not asked."""
    with watching(cluster, plan, fleet) as watch:
        fleet.wait(WARM_SECONDS)
        course = carry_out(plan, fleet, lock, power, lambda: watch.lost(plan.holder))
        if course.restored and course.cut_short is None:
            fleet.emit(Event("step", f"undone; watched for {plan.settle_seconds:.0f} s more"))
            hold(plan.settle_seconds, fleet, lambda: None)
    found = _afterwards(cluster, plan, options, fleet) if course.restored else None
    return row(plan, course, watch, _entries(cluster, course, watch, fleet), found), found


def _afterwards(cluster: Cluster, plan: Plan, options: DrillOptions, fleet: Fleet) -> VerifyReport | None:
    """Return what verify finds once it had time to be green; None after Ctrl-C."""
    deadline = time.monotonic() + GREEN_SECONDS + (drilling.BOOT_SECONDS if plan.fault == "node" else 0)
    while True:
        report = _verify(cluster, options, fleet)
        if report.interrupted:
            return None
        if report.green or time.monotonic() >= deadline:
            return report
        fleet.forget(node for node in cluster.nodes if node.name in report.not_asked)
        fleet.wait(RETRY_SECONDS)


def _entries(cluster: Cluster, course: Course, watch: Watch, fleet: Fleet) -> Sequence[Entry]:
    """Return what keepalived has logged on the nodes that can be asked, by the clocks of the nodes."""
    apart = max((abs(ahead.seconds) for ahead in watch.offsets.values()), default=0.0)
    since = int(course.began - apart - drilling.SPARE_SECONDS)
    found = logs(cluster, LogsOptions(unit=KEEPALIVED_UNIT, since=f"@{since}"), fleet)
    return [Entry(line.node, line.time, line.text) for line in found.lines]
