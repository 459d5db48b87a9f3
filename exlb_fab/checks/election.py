"""Is keepalived on each node ready to hold the VIP? By how it runs, which need not be what its file says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from exlb_fab import keepalived
from exlb_fab.checks import added
from exlb_fab.checks.base import Register, Verdict, View, failed, passed, skipped, warned
from exlb_fab.cluster import Address, Node
from exlb_fab.dump import SILENT, UNWRITABLE, Instance, Script
from exlb_fab.keepalived import Asked
from exlb_fab.platforms import KEEPALIVED_UNIT
from exlb_fab.settling import restless
from exlb_fab.vrrp import HIGHEST_PRIORITY, LOWEST_PRIORITY, Check, Group, Router, stranded

CHECKS = Register()
LATE_SECONDS = 2.0  # the clock of a node is asked in whole seconds, and a busy one runs its check late
WORDS = {True: "yes", False: "no"}
# The oldest that was seen to write down how it runs: docs/keepalived-versions.md.
TELLS_SINCE = (2, 1)
APISERVER_CHECK = "check-apiserver"  # as templates/keepalived.conf.j2 calls it


@CHECKS.per_node("vrrp.state", "keepalived has the VIP, or would take it")
def state(view: View, node: Node) -> Verdict:
    instance = _instance(view, node)
    if isinstance(instance, Verdict):
        return instance
    vip, holds = view.cluster.vip, view.facts(node).holds(view.cluster.vip.address)
    awaited = awaits_apiserver(view, node, instance)
    match instance.state:
        case "FAULT" if not awaited:
            cause = _failing(instance) or _fault(view, node, instance)
            return failed(f"is in FAULT, and would not take {vip}", cause=cause, hint=_journal(node))
        case "INIT":
            return failed("has not begun", hint=_journal(node))
        case "MASTER" if not holds:
            text = f"is MASTER, and {vip} is not on {instance.interface}"
            return failed(text, cause="somebody has taken the address away", hint=_restart(node))
        case "BACKUP" if others := added.only_by_others(view, [node], vip):
            return failed(f"is BACKUP, and has {vip}", cause=added.cause(others), hint=added.removal(others))
        case "BACKUP" if holds:
            return failed(f"is BACKUP, and still has {vip}", cause="the address is stale", hint=_restart(node))
    if stopped := view.stopped(node):
        return _unnoticed(view, node, instance) or stopped
    if awaited:
        return passed(f"{instance.state}; {APISERVER_CHECK} fails, as it has to while there is no apiserver")
    if instance.failing or _is_lowered(instance):
        text = f"has priority {instance.effective_priority} instead of {_priority(instance)}"
        return failed(text, cause=_failing(instance) or "something that it tracks is down", hint=_journal(node))
    return passed(f"{instance.state}, priority {instance.effective_priority}")


@CHECKS.per_node("vrrp.running", "keepalived runs what a push would give it")
def running(view: View, node: Node) -> Verdict:
    instance = _instance(view, node)
    if isinstance(instance, Verdict):
        return instance
    if node not in view.desired:
        return skipped("nothing says what its files should be")
    text = next(file.text for file in view.desired[node].files if file.kind == "keepalived")
    asked = keepalived.asked(text, view.cluster.vip.address)
    if asked is None:
        return skipped(f"the template does not say in which instance {view.cluster.vip} is")
    lacking = [name for name in asked.weights if name not in instance.weights]
    # It leaves out all checks of the owner: vrrp/vrrp.c vrrp_complete_instance.
    if lacking and instance.priority <= HIGHEST_PRIORITY:
        cause = "keepalived leaves out a check that others than root could change: its program, or a folder above it"
        return failed(
            f"runs without its check {', '.join(lacking)}: the VIP stays where that fails",
            cause=cause,
            hint=f"{_journal(node)} says which; once that is root's alone, {_restart(node)}",
        )
    if differences := _differences(view, instance, asked):
        return failed(
            f"runs with {', '.join(differences)}",
            cause="its file was changed and not loaded, or is not what a push would write",
            hint=f"exlb push-config; where that says no changes, {_restart(node)}",
        )
    return passed("yes")


@CHECKS.overall("vrrp.agree", "All nodes speak the same VRRP")
def agree(view: View) -> Verdict:
    found = instances(view)
    if len(found) < 2:
        return skipped("fewer than two nodes tell how they run")
    differ = disagreements(found)
    if differ:
        return failed("; ".join(differ), cause="they do not take each other's adverts", hint="exlb push-config")
    return passed(f"{len(found)} nodes")


@CHECKS.overall("vrrp.law", "A healthy node wins over any that is not, as they run")
def law(view: View) -> Verdict:
    found = instances(view)
    if not found:
        return skipped("no node tells how it runs")
    owners = [str(node) for node, each in found.items() if each.priority > HIGHEST_PRIORITY]
    if owners:
        said = f"{', '.join(owners)} {'has' if len(owners) == 1 else 'have'} priority {HIGHEST_PRIORITY + 1}"
        # keepalived leaves out the weighted checks of the owner: vrrp/vrrp.c vrrp_complete_instance.
        cause = "that makes a node the owner of the VIP, who keeps it whatever its checks say"
        return failed(said, cause=cause, hint="exlb push-config")
    weights = {tuple(sorted(each.weights.items())) for each in found.values()}
    if len(weights) > 1:
        told = "; ".join(f"{_weighed(each.weights)} on {node}" for node, each in found.items())
        return failed(
            f"the nodes have different checks: {told}",
            hint=f"exlb push-config; where that says no changes, exlb restart {KEEPALIVED_UNIT}",
        )
    if not any(each.weights for each in found.values()):
        text = "keepalived runs without any check: the VIP stays on a node whose proxy is dead"
        return failed(text, hint=f"exlb push-config; where that says no changes, exlb restart {KEEPALIVED_UNIT}")
    try:
        group = Group(
            routers=tuple(Router(node.name, each.priority) for node, each in found.items()),
            checks=tuple(Check(name, weight) for name, weight in weights.pop()),
            preempt=all(each.preempts for each in found.values()),
        )
    except ValueError as error:  # by hand: an old keepalived takes a weight of 254
        return failed(str(error), hint="exlb push-config")
    wrong = stranded(group)
    if wrong:
        return failed(str(wrong), hint=f"{wrong.remedy}; then exlb push-config")
    return passed("yes")


@CHECKS.overall("vrrp.strangers", "Nobody else sends adverts with this VRID")
def strangers(view: View) -> Verdict:
    found = instances(view)
    if not found:
        return skipped("no node tells whom it hears")
    known = ours(view)
    heard = {
        each.master: each.router_id
        for each in found.values()
        if each.state == "BACKUP" and each.master is not None and each.master not in known
    }
    if heard:
        said = ", ".join(f"{address} is master of VRID {router_id}" for address, router_id in heard.items())
        away = [str(node) for node in view.cluster.nodes if node not in view.answering]
        # By an address that nobody has told us, as an IPv6 node's link-local one.
        if away and view.cluster.vrrp.mode == "multicast":
            return skipped(f"{said}: that may be {' or '.join(away)}, which could not be asked")
        for address in heard:
            if senders := [str(node) for node, each in found.items() if address in each.peers]:
                return failed(
                    f"{said}, and not in NODE_IPS",
                    cause=f"{address} was a node of this cluster: {' and '.join(senders)} still "
                    f"{'has' if len(senders) == 1 else 'have'} it as a peer",
                    hint=f"put it back in NODE_IPS of environment.sh; if it is to leave: exlb push-config, "
                    f"then exlb decommission {address}",
                )
        return failed(
            f"{said}, and no node of this cluster",
            cause="another cluster on this network uses the same VRID, or a node that has left this one",
            hint=parting(str(next(iter(heard)))),
        )
    return passed("nobody")


@CHECKS.overall("vrrp.settled", "VRRP stands still")
def settled(view: View) -> Verdict:
    if not any(view.facts(node).units[KEEPALIVED_UNIT].running for node in view.answering):
        return skipped("keepalived runs on no node that could be asked")
    changing = [str(node) for node in view.answering if view.facts(node).generations.changing]
    if changing:
        return skipped(f"a change runs on {' and '.join(changing)}: verify again when it has ended")
    moving = restless(view.cluster, view.before, view.survey) if view.before else ()
    if moving:
        return failed(
            f"VRRP does not come to rest on {', '.join(map(str, moving))}",
            cause="; ".join(f"{node}: {', '.join(_latest(view, node))}" for node in moving),
            hint="exlb logs keepalived --transitions",
        )
    return passed("yes")


def parting(sender: str) -> str:
    """Return what to do about a router with our VRID of which only the address is known."""
    return (
        f"a node that has left: exlb decommission {sender}; another cluster: choose another ROUTER_ID in "
        "environment.sh, and exlb push-config"
    )


def ours(view: View) -> frozenset[Address]:
    """Return the addresses from which the nodes may send adverts, as far as they are known."""
    known = {each.source for each in instances(view).values()}
    known |= {address for node in view.cluster.nodes for address in (node.source, node.address)}
    known |= {each.address.ip for node in view.answering for each in view.facts(node).addresses}
    return frozenset(address for address in known if address is not None)


def instances(view: View) -> dict[Node, Instance]:
    """Return the instance with the VIP of every node whose keepalived tells how it runs."""
    found = {node: view.facts(node).instance(view.cluster.vip) for node in view.answering}
    return {node: instance for node, instance in found.items() if instance is not None}


def _instance(view: View, node: Node) -> Instance | Verdict:
    """Return the instance with the VIP, or the verdict where there is none."""
    found = view.facts(node)
    if not found.units[KEEPALIVED_UNIT].running:
        return skipped(f"{KEEPALIVED_UNIT} does not run")
    if found.keepalived_silence:
        return _silent(view, node)
    instance = found.instance(view.cluster.vip)
    if instance is None:
        return failed(f"keepalived runs without {view.cluster.vip}", hint=f"exlb push-config, or {_restart(node)}")
    return instance


def _silent(view: View, node: Node) -> Verdict:
    """Judge a keepalived that says nothing of itself: one whose version exlb does understand hangs."""
    found = view.facts(node)
    said = f"keepalived does not tell how it runs: {found.keepalived_silence}"
    if found.keepalived_silence in UNWRITABLE:
        return warned(said, hint=f"exlb exec --nodes {node} -- df /tmp")
    others = [view.facts(other) for other in view.answering if other != node]
    tells = any(other.instances and other.keepalived_version == found.keepalived_version for other in others)
    version = found.keepalived_version
    known = version is not None and version.numbers >= TELLS_SINCE
    if tells or (known and found.keepalived_silence == SILENT):
        return failed(said, cause="it hangs, and would not take the VIP: this version tells", hint=_restart(node))
    return warned(said, hint=_journal(node))


def awaits_apiserver(view: View, node: Node, instance: Instance) -> bool:
    """Tell whether all that is wrong with an instance is that there is no apiserver yet, as the caller has said."""
    if not view.expect_no_apiserver or instance.failing != (APISERVER_CHECK,) or _is_lowered(instance):
        return False
    in_fault = instance.weights[APISERVER_CHECK] == 0 and instance.interface not in view.facts(node).down
    return instance.state != "FAULT" or in_fault


def is_vip_awaited(view: View) -> bool:
    """Tell whether nobody can hold the VIP, for lack of an apiserver that is known to be still to come."""
    found = instances(view)
    away = len(found) < len(view.cluster.nodes)
    return not away and all(
        each.state == "FAULT" and awaits_apiserver(view, node, each) for node, each in found.items()
    )


def _is_lowered(instance: Instance) -> bool:
    """Tell whether its priority is lower than its checks make it: keepalived tracks more than those that exlb knows."""
    return instance.effective_priority < _priority(instance, *instance.failing)


def _priority(instance: Instance, *failing: str) -> int:
    """Return the priority that an instance has by its checks, some of which fail: as vrrp.Group.effective does.

    That takes only what is lawful, and what runs may be anything.
    """
    if instance.priority > HIGHEST_PRIORITY:
        return instance.priority
    moved = sum(weight for name, weight in instance.weights.items() if (name in failing) == (weight < 0))
    return min(HIGHEST_PRIORITY, max(LOWEST_PRIORITY, instance.priority + moved))


def _latest(view: View, node: Node) -> list[str]:
    """Return since when keepalived runs on a node as it does, and for how long it has had its state."""
    found = view.facts(node)
    now = found.system.time if found.system else 0.0
    changed = found.units[KEEPALIVED_UNIT].changed
    told = [f"started or reloaded {_seconds(now - changed)} ago"] if changed is not None else []
    return [*told, *(f"{each.state} for {_seconds(now - each.since)}" for each in found.instances)]


def _seconds(age: float) -> str:
    """Return a time in words; one that the node's clock, which tells whole seconds, has not come to yet is none."""
    return f"{max(0.0, age):.0f} s"


def _fault(view: View, node: Node, instance: Instance) -> str:
    """Return why an instance all of whose checks pass is in FAULT."""
    if instance.interface in view.facts(node).down:
        return f"{instance.interface} is down"
    return f"{instance.interface} is down, or something else that it tracks"


def _failing(instance: Instance) -> str | None:
    return f"its check {', '.join(instance.failing)} fails" if instance.failing else None


def _unnoticed(view: View, node: Node, instance: Instance) -> Verdict | None:
    """Judge a keepalived whose checks pass although the proxy has been gone for longer than they take."""
    found, vrrp = view.facts(node), view.cluster.vrrp
    gone = found.units[view.proxy.unit].changed
    if instance.failing or _is_lowered(instance) or gone is None or found.system is None:
        return None
    if found.system.time - gone <= max(vrrp.timing(track).failure_seconds for track in vrrp.track) + LATE_SECONDS:
        return None
    checks = f"{', '.join(instance.weights)} passes" if instance.weights else "it has no check"
    return failed(f"does not notice that {view.proxy.unit} does not run", cause=checks, hint=_restart(node))


def _differences(view: View, instance: Instance, asked: Asked) -> list[str]:
    """Return how an instance runs where that is not what its file would ask for; a template may differ from ours."""
    cluster = view.cluster
    same_family = {vip for vip in asked.vips if vip.version == cluster.vip.address.version}
    pairs: Sequence[tuple[str, object, object]] = (
        ("VRID", instance.router_id, asked.router_id),
        ("VRRP version", instance.version, cluster.vrrp.version),
        ("advert interval", instance.advert_seconds, asked.advert_seconds),
        ("priority", instance.priority, asked.priority),
        ("interface", instance.interface, asked.interface),
        ("VIPs", _listed(instance.vips), _listed(same_family)),
        ("peers", _listed(instance.peers), _listed(asked.peers)),
        ("checks", _weighed(instance.weights), _weighed(asked.weights)),
        ("preemption", WORDS[instance.preempts], WORDS[asked.preempts]),
        ("password", WORDS[instance.authenticated], WORDS[asked.authenticated]),
    )
    told = [f"{name} {is_now} instead of {wanted}" for name, is_now, wanted in pairs if wanted not in (None, is_now)]
    both = [name for name in asked.scripts if name in instance.scripts]
    return told + [each for name in both for each in _otherwise(name, instance.scripts[name], asked.scripts[name])]


def _otherwise(name: str, runs: Script, asked: Script) -> Iterator[str]:
    """Yield in what a check runs otherwise than asked for, as far as both are known."""
    if runs.command and asked.command and _program(runs.command) != _program(asked.command):
        yield f"{name} script {' '.join(runs.command)} instead of {' '.join(asked.command)}"
    for keyword, is_now, wanted in (
        ("interval", runs.interval, asked.interval),
        ("timeout", runs.timeout, asked.timeout),
        ("fall", runs.fall, asked.fall),
        ("rise", runs.rise, asked.rise),
    ):
        if None not in (is_now, wanted) and is_now != wanted:
            yield f"{name} {keyword} {is_now} instead of {wanted}"


def _program(command: Sequence[str]) -> tuple[str, ...]:
    """Return a command without the folder of its program: keepalived resolves the links in that.

    Source: keepalived lib/notify.c check_script_secure, which keeps the name where it can.
    """
    return (command[0].rpartition("/")[2], *command[1:])


def disagreements(found: Mapping[Node, Instance]) -> list[str]:
    """Return in what instances differ that have to be the same. Source: keepalived vrrp/vrrp.c vrrp_in_chk."""
    told = []
    for name, values in (
        ("VRID", {node: str(each.router_id) for node, each in found.items()}),
        ("VRRP version", {node: str(each.version) for node, each in found.items()}),
        ("advert interval", {node: f"{each.advert_seconds:g} s" for node, each in found.items()}),
        ("VIPs", {node: _listed(each.vips) for node, each in found.items()}),
        ("password", {node: WORDS[each.authenticated] for node, each in found.items()}),
        ("unicast", {node: WORDS[bool(each.peers)] for node, each in found.items()}),
    ):
        if len(set(values.values())) > 1:
            told.append(f"{name}: {', '.join(f'{value} on {node}' for node, value in values.items())}")
    for node, each in found.items():
        deaf = [
            str(other) for other, its in found.items() if other != node and each.peers and its.source not in each.peers
        ]
        if deaf:
            told.append(f"{node} does not have {', '.join(deaf)} among its peers")
    return told


def _listed(addresses: Iterable[Address]) -> str:
    return ", ".join(str(each) for each in sorted(addresses, key=lambda each: (each.version, int(each)))) or "none"


def _weighed(weights: Mapping[str, int]) -> str:
    """Return checks in words; one without a weight leads to FAULT."""
    told = [f"{name} with weight {weight}" if weight else name for name, weight in sorted(weights.items())]
    return ", ".join(told) or "none"


def _journal(node: Node) -> str:
    return f"exlb logs {KEEPALIVED_UNIT} --nodes {node}"


def _restart(node: Node) -> str:
    return f"exlb restart {KEEPALIVED_UNIT} --nodes {node}"
