"""Does keepalived's own look at the node work, and has it complained about what it hears?"""

from __future__ import annotations

from exlb_fab.checks.base import Register, Verdict, View, failed, passed, skipped, warned
from exlb_fab.cluster import Node
from exlb_fab.host import Tracker
from exlb_fab.platforms import KEEPALIVED_PATH, KEEPALIVED_UNIT, KILLALL

CHECKS = Register()

_SHOWN_CHARACTERS = 100

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
    if found.strays and all(each.name == KILLALL or each.name in tracked for each in found.trackers):
        # Both ask whether a process of that name is there, whosever it is.
        said = f"would not notice that {view.proxy.name} dies: other processes have its name"
        cause = "\n".join(f"not of {view.proxy.unit}: {each[:_SHOWN_CHARACTERS]}" for each in found.strays)
        return failed(said, cause=cause, hint="TRACK=port in environment.sh and exlb push-config, or stop them")
    return passed(", ".join(each.name.rpartition("/")[2] for each in found.trackers))


def _bring(wrong: list[Tracker]) -> str:
    return "exlb install" if any(each.name == KILLALL for each in wrong) else "exlb push-config"


@CHECKS.per_node("vrrp.complaints", "keepalived has not dropped adverts of late")
def complaints(view: View, node: Node) -> Verdict:
    found = view.facts(node)
    if not found.units[KEEPALIVED_UNIT].running:
        return skipped(f"{KEEPALIVED_UNIT} does not run")
    if found.complaints:
        vrid = view.cluster.vrrp.router_id
        hint = f"another cluster with VRID {vrid}? exlb logs {KEEPALIVED_UNIT} --nodes {node}"
        return warned("dropped adverts in the last minutes", cause="\n".join(found.complaints), hint=hint)
    return passed("no complaint")
