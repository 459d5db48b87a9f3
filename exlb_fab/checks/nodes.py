"""Is each node what it should be: reachable, installed, running, listening, unchanged?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

from exlb_fab.checks.base import Check, Register, Verdict, View, failed, passed, skipped, warned
from exlb_fab.checks.replies import awaken
from exlb_fab.cluster import Node
from exlb_fab.errors import UnreachableError
from exlb_fab.facts import Generations
from exlb_fab.planning import binds, differences
from exlb_fab.platforms import KEEPALIVED_UNIT
from exlb_fab.rendering import mask_keepalived
from exlb_fab.system import SYSCTL_PATH, SystemKind, nonlocal_binds

CHECKS = Register()


def _reachable(view: View) -> Iterator[Verdict]:
    for node in view.cluster.nodes:
        if node in view.survey.facts:
            verdict = passed("yes")
        else:
            error = view.survey.errors[node]
            unreachable = isinstance(error, UnreachableError)
            verdict = replace(failed(error.message, hint=error.hint or f"exlb ssh {node}"), unreachable=unreachable)
        yield replace(verdict, check="node.ssh", node=node)


CHECKS.append(Check("node.ssh", "Every node answers over SSH", _reachable))


@CHECKS.per_node("node.packages", "The proxy, keepalived and what they need are installed")
def installed(view: View, node: Node) -> Verdict:
    facts = view.facts(node)
    missing = facts.lacks(view.proxy)
    if missing:
        return failed(f"not installed: {', '.join(missing)}", hint="exlb install")
    return passed(f"{view.proxy.name} {facts.proxy_version}, keepalived {facts.keepalived_version}")


@CHECKS.overall("node.same-versions", "All nodes run the same versions")
def same_versions(view: View) -> Verdict:
    """Different versions are a warning: each node has a configuration for its own."""
    versions: dict[tuple[str, str], list[Node]] = {}
    for node in view.answering:
        facts = view.facts(node)
        versions.setdefault((str(facts.proxy_version), str(facts.keepalived_version)), []).append(node)
    if not versions:
        return skipped("no node could be asked")
    if len(versions) == 1:
        return passed("the same versions on all nodes")
    found = "; ".join(
        f"{view.proxy.name} {proxy} and keepalived {keepalived} on {', '.join(map(str, nodes))}"
        for (proxy, keepalived), nodes in versions.items()
    )
    # A cluster that moves to another release is mixed for a while.
    return warned(f"versions differ: {found}", hint="upgrade the nodes to the same versions, one at a time")


def _unit(view: View, node: Node, unit: str) -> Verdict:
    found = view.facts(node).units[unit]
    if found.masked:
        return failed(f"{unit} is masked", hint=f"exlb exec --sudo -- systemctl unmask {unit}")
    if not found.running:
        # A program that does not start may quote its configuration.
        cause = mask_keepalived(view.proxy.mask("\n".join(found.journal))) or None
        # Its file may be one on which it would not hear the others: a restart leaves it alone, a push knows.
        bring = "exlb push-config" if unit == KEEPALIVED_UNIT else f"exlb restart {unit} --nodes {node}"
        hint = "exlb install" if found.load == "not-found" else bring
        return failed(f"{unit} is {found.active} ({found.sub})", cause=cause, hint=hint)
    if not found.enabled:
        return failed(f"{unit} runs, but is {found.file_state or 'not enabled'} at boot", hint="exlb install")
    return passed("enabled")


@CHECKS.per_node("node.proxy", "The proxy runs and is enabled at boot")
def proxy_unit(view: View, node: Node) -> Verdict:
    found = _unit(view, node, view.proxy.unit)
    off = _off(view, node) if found.status == "pass" else []
    if not off:
        return found
    return failed(
        f"{view.proxy.unit} runs, but could not start again: {' and '.join(f'{name} is 0' for name in off)}",
        cause="it binds the VIP, which only the holder has; somebody, or another file of /etc/sysctl.d, set them back",
        hint=f"exlb exec --sudo --nodes {node} -- sysctl -p {SYSCTL_PATH}",
    )


def _off(view: View, node: Node) -> list[str]:
    """Return the kernel settings that the proxy needs and that are off, though their file is right."""
    if node not in view.desired:
        return []
    facts = view.facts(node)
    if SYSCTL_PATH in {each.file.path for each in differences(view.desired[node].files, (), facts)}:
        return []
    return [name for name in nonlocal_binds(view.cluster) if facts.kernel.get(name) == "0"]


@CHECKS.per_node("node.keepalived", "keepalived runs and is enabled at boot")
def keepalived_unit(view: View, node: Node) -> Verdict:
    return _unit(view, node, KEEPALIVED_UNIT)


@CHECKS.per_node("node.ports", "The proxy listens on its ports")
def listening(view: View, node: Node) -> Verdict:
    if stopped := view.stopped(node):
        return stopped
    # By address and port: bound to the VIPs alone, the proxy may share its port with others.
    owners: dict[int, set[str | None]] = {}
    unheard = set[int]()
    for address, port in binds(view.cluster, node):
        found = {each.process for each in view.facts(node).sockets if each.covers(address, port)}
        owners.setdefault(port, set()).update(found)
        if not found:
            unheard.add(port)
    closed = [str(port) for port in owners if port in unheard]
    if closed:
        hint = f"exlb restart {view.proxy.unit} --nodes {node}"
        return failed(f"nobody listens on {' and '.join(closed)}", hint=hint)
    foreign = [
        (port, found) for port, processes in owners.items() for found in processes if found != view.proxy.process
    ]
    if foreign:
        port, process = foreign[0]
        return failed(f"{process or 'another process'} listens on {port}", hint="stop it, or choose another port")
    return passed(" ".join(map(str, owners)))


_DIFFERENCES = {
    "missing": "is missing",
    "content": "differs",
    "mode or owner": "has another mode or owner",
    "to be removed": "is not wanted",
}
_SYSTEM = frozenset(get_args(SystemKind))


@CHECKS.per_node("node.files", "The active files are the rendered ones")
def same_files(view: View, node: Node) -> Verdict:
    """A drop-in, a guard or a kernel setting that the node does not need any more is a warning: it does no harm."""
    facts = view.facts(node)
    if node not in view.desired:
        return failed(f"VIP_IF=auto: not one interface has a network with {view.cluster.vip}", hint="set VIP_IF")
    changes = differences(view.desired[node].files, view.desired[node].absent, facts)
    surplus = [each for each in changes if each.reason == "to be removed" and each.file.kind in _SYSTEM]
    if len(changes) > len(surplus):
        differ = ", ".join(f"{each.file.path} {_DIFFERENCES[each.reason]}" for each in changes)
        return failed(differ, hint="exlb push-config --dry-run shows the difference")
    if facts.generations.unfinished and not facts.generations.changing:
        return failed("same, but the change that brought them was interrupted", hint="exlb recover")
    if surplus:
        return warned(
            f"same, but the node as it stands does not need {', '.join(each.file.path for each in surplus)}",
            cause="what it says is said elsewhere by now, or systemd-networkd, which a guard is for, does not run",
            hint="exlb push-config takes it away; where that is not to stay so, mend it before",
        )
    return passed("same") if facts.generations.changing else _kept(facts.generations)


def _kept(generations: Generations) -> Verdict:
    """Judge whether a rollback finds the active files, which are the right ones, in the active generation."""
    hint = "exlb history shows what is kept; the next push-config that changes anything keeps these files first"
    if generations.current is None:
        cause = "they were put there by hand, or /var/lib/exlb was taken away"
        return warned("same, but in no generation: a rollback has nothing to go back to", cause=cause, hint=hint)
    if generations.edited:
        cause = "they were put there by hand, or the generation was changed or lost"
        return warned(
            f"same, but not those of generation {generations.current}, the active one", cause=cause, hint=hint
        )
    return passed("same")


@CHECKS.per_node("node.running", "The proxy runs the configuration of its file")
def running_configuration(view: View, node: Node) -> Verdict:
    if stopped := view.stopped(node):
        return stopped
    if node not in view.desired:
        return skipped("nothing says what its files should be")
    facts = view.facts(node)
    wanted = next(file.digest for file in view.desired[node].files if file.kind == "proxy")
    if facts.proxy_state is None:
        cause = facts.proxy_silence or None
        return failed("its admin socket does not answer", cause=cause, hint=awaken(view, node))
    if facts.proxy_state.digest != wanted:
        found = facts.proxy_state.digest or "no configuration of exlb"
        cause = "its file was changed and not loaded, or is not what a push would write"
        return failed(f"runs {found}, not {wanted}", cause=cause, hint="exlb push-config")
    return passed("yes")
