"""Does keepalived's own look at the node work, and has it complained about what it hears?"""

from __future__ import annotations

import re
from ipaddress import ip_address

from exlb_fab.checks import election
from exlb_fab.checks.base import Register, Verdict, View, failed, passed, skipped, warned
from exlb_fab.cluster import Node
from exlb_fab.host import Tracker
from exlb_fab.platforms import KEEPALIVED_PATH, KEEPALIVED_UNIT, KILLALL

CHECKS = Register()

_SHOWN_CHARACTERS = 100
_BY_NAME = ("killall", "pidof", "pgrep", "pkill")

# What a master and a backup log of an advert of a lower priority: peers send them around an election.
_LOWER = re.compile(
    r"eceived (?:advert|lower priority \(\d+\) advert) from (?P<sender>\S+) (?:with lower|- discarding)"
)
_WRONG = {
    "missing": "is not there",
    "not-executable": "is not executable",
    "no-interpreter": "is written for a program that is not there",
}


@CHECKS.per_node("vrrp.tracker", "keepalived's checks can be made on this node")
def tracker(view: View, node: Node) -> Verdict:
    found = view.facts(node)
    if not found.units[KEEPALIVED_UNIT].running:
        return skipped(f"{KEEPALIVED_UNIT} does not run")
    if not found.trackers:
        instance = found.instance(view.cluster.vip)
        if instance and instance.weights:
            return skipped(f"{KEEPALIVED_PATH} has no check, and another file that keepalived reads has")
        cause = "the VIP stays on a node whose proxy is dead"
        return failed(f"{KEEPALIVED_PATH} has no check", cause=cause, hint="exlb push-config")
    wrong = [each for each in found.trackers if each.state in _WRONG]
    if wrong:
        said = "; ".join(f"{each.name} {_WRONG[each.state]}" for each in wrong)
        # "Script errors aren't server errors": keepalived lib/notify.c system_call_script.
        cause = "keepalived takes a check that it cannot run for one that passes: the VIP stays where the proxy is dead"
        return failed(said, cause=cause, hint=_bring(wrong))
    tracked = {each.name: each.state for each in found.trackers if each.state in ("process", "deaf")}
    said = f"would not notice that {', '.join(tracked)} dies"
    if tracked and found.system and found.system.container:
        # keepalived evaluates a tracked process once there, and never again: docs/findings.md.
        cause = f"in a container ({found.system.container}) the kernel does not tell keepalived of processes"
        return failed(said, cause=cause, hint="exlb push-config")
    if "deaf" in tracked.values():
        cause = "the kernel does not tell keepalived of processes, as it has logged: it lacks CONFIG_PROC_EVENTS"
        return failed(said, cause=cause, hint="TRACK=script in environment.sh, and exlb push-config")
    if found.strays and all(_asks_for_a_name(view, each) for each in found.trackers):
        # Both ask whether a process of that name is there, whosever it is.
        said = f"would not notice that {view.proxy.name} dies: other processes have its name"
        cause = "\n".join(f"not of {view.proxy.unit}: {each[:_SHOWN_CHARACTERS]}" for each in found.strays)
        return failed(said, cause=cause, hint="TRACK=port in environment.sh and exlb push-config, or stop them")
    return passed(", ".join(each.name.rpartition("/")[2] for each in found.trackers))


def _asks_for_a_name(view: View, tracker: Tracker) -> bool:
    if tracker.state in ("process", "deaf"):
        return tracker.name == view.proxy.process
    return tracker.name.rpartition("/")[2] in _BY_NAME


def _bring(wrong: list[Tracker]) -> str:
    return "exlb install" if any(each.name == KILLALL for each in wrong) else "exlb push-config"


@CHECKS.per_node("vrrp.complaints", "keepalived has not dropped adverts of late, nor heard a stranger's")
def complaints(view: View, node: Node) -> Verdict:
    found = view.facts(node)
    if not found.units[KEEPALIVED_UNIT].running:
        return skipped(f"{KEEPALIVED_UNIT} does not run")
    vrid, logs = view.cluster.vrrp.router_id, f"exlb logs {KEEPALIVED_UNIT} --nodes {node}"
    senders = {line: _LOWER.search(line) for line in found.complaints}
    if dropped := [line for line, lower in senders.items() if not lower]:
        hint = f"another cluster with VRID {vrid}? {logs}"
        return warned("dropped adverts in the last minutes", cause="\n".join(dropped), hint=hint)
    strange = {lower["sender"]: line for line, lower in senders.items() if lower and _is_strange(view, lower["sender"])}
    if strange:
        return warned(
            f"{', '.join(strange)} has sent adverts with VRID {vrid} of late, and is no node of this cluster",
            cause="\n".join((*strange.values(), f"it would take {view.cluster.vip} if it heard no better router")),
            hint=f"{logs}; {election.parting(next(iter(strange)))}",
        )
    return passed("no complaint")


def _is_strange(view: View, sender: str) -> bool:
    """Tell whether an address is surely no node's; by multicast, one that could not be asked may send from any."""
    if view.cluster.vrrp.mode == "multicast" and len(view.answering) < len(view.cluster.nodes):
        return False
    try:
        return ip_address(sender) not in election.ours(view)
    except ValueError:
        return False
