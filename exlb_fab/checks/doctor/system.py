"""Is each node a machine that the entrance can be installed on?"""

from __future__ import annotations

from exlb_fab import selinux as policy
from exlb_fab.checks.base import Register, Verdict, View, failed, passed, skipped, warned
from exlb_fab.cluster import Node
from exlb_fab.facts import Facts, missing_packages
from exlb_fab.planning import binds
from exlb_fab.platforms import (
    KEEPALIVED_PACKAGE,
    KEEPALIVED_UNIT,
    PLATFORMS,
    Platform,
    can_validate,
    parse_version,
)

CHECKS = Register()

_REFRESH = {"apt-get": "apt-get update", "dnf": "dnf makecache", "yum": "yum makecache"}


@CHECKS.per_node("system.release", "exlb knows the distribution and its package manager")
def release(view: View, node: Node) -> Verdict:
    """A node that has all programs already needs no package manager: what counts is that they are there."""
    facts = view.facts(node)
    if facts.system is None:
        return skipped("was not asked")
    if facts.system.platform is not None:
        return passed(f"{facts.system.name}, {facts.system.platform.manager}")
    if not facts.lacks(view.proxy):
        return passed(f"{facts.system.name}, all programs are there")
    managers = ", ".join(each.manager for each in PLATFORMS)
    return failed(
        f"exlb does not know how to install on {facts.system.name}",
        cause=f"it is no distribution of a family that exlb knows, or has none of {managers}",
        hint=f"install {', '.join(facts.lacks(view.proxy))} by hand: exlb goes on from there",
    )


@CHECKS.per_node("system.packages", "What has to be installed can be had")
def packages(view: View, node: Node) -> Verdict:
    """Looked up offline, in the lists that the node has of its repositories; no repository is asked."""
    facts, available = view.facts(node), view.ground(node).available
    if not facts.lacks(view.proxy):
        found = f"{view.proxy.name} {facts.proxy_version}, keepalived {facts.keepalived_version}"
        return _judged(facts, f"all is installed: {found}", str(facts.keepalived_version))
    platform = facts.system.platform if facts.system else None
    if platform is None:
        return skipped("exlb knows no package manager there")
    wanted = missing_packages(view.proxy, platform, facts.programs)
    unknown = [name for name in wanted if name not in available.versions]
    if unknown and not available.listed:
        return warned(
            f"cannot tell whether it has {', '.join(unknown)}",
            cause="looked up offline, and the node has no lists of its repositories yet",
            hint=_refresh(node, platform),
        )
    if unknown:
        return failed(
            f"no repository of the node has {', '.join(unknown)}",
            cause="by the lists that it has of them; no repository was asked",
            hint=f"add a repository that has {'it' if len(unknown) == 1 else 'them'}, then: {_refresh(node, platform)}",
        )
    versions = ", ".join(f"{name} {available.versions[name]}" for name in wanted)
    return _judged(facts, f"to be installed: {versions}", available.versions.get(KEEPALIVED_PACKAGE, ""))


def _judged(facts: Facts, text: str, keepalived: str) -> Verdict:
    """Pass with a text, but for a keepalived that is too old to test its configuration: a push refuses it."""
    version = facts.keepalived_version or parse_version(keepalived)
    if version is not None and not can_validate(version):
        cause = f"keepalived {version} cannot test a configuration (-t came with 2.0.4), and a push needs that"
        return failed(text, cause=cause, hint="a newer keepalived; or exlb install, and exlb push-config --unvalidated")
    return passed(text)


def _refresh(node: Node, platform: Platform) -> str:
    return f"exlb exec --sudo --nodes {node} -- {_REFRESH[platform.manager]}"


@CHECKS.per_node("system.machine", "The machine is in no cloud whose network carries no VIP")
def machine(view: View, node: Node) -> Verdict:
    """By what its firmware (DMI) says. In a container that is the firmware of the host, and decides nothing."""
    system, provider = view.facts(node).system, view.ground(node).provider
    container = system.container if system else None
    vip = view.cluster.vip
    if container is not None and provider is not None:
        return warned(
            f"a container ({container}) on a machine of {provider.name}",
            cause=f"a VIP moves between containers of one host; further than that, {provider.name} does not carry it",
            hint=f"where {vip} does not answer from other hosts, use {provider.instead}",
        )
    if container is not None:
        return passed(f"a container ({container})")
    if provider is None:
        return passed("no cloud is known by it")
    if provider.carries == "no":
        return failed(
            f"a machine of {provider.name}",
            cause=f"its network does not follow an address that moves by ARP: {vip} would reach nobody",
            hint=f"let {provider.instead} stand in front of the apiservers instead of exlb",
        )
    return warned(
        f"a machine of {provider.name}",
        cause=f"whether its network carries {vip} depends on how that is set up",
        hint=f"allow {vip} on the port of every node (OpenStack: openstack port set --allowed-address "
        f"ip-address={vip} PORT), or use {provider.instead}",
    )


@CHECKS.per_node("system.selinux", "SELinux lets the proxy in, or can be told to")
def selinux(view: View, node: Node) -> Verdict:
    found = view.facts(node).selinux
    if not found.enforcing:
        return passed("not enforcing")
    missing = policy.lacking(found)
    if missing:
        return failed(
            "enforcing, and there is no semanage to let the proxy in",
            hint=f"exlb exec --sudo --nodes {node} -- dnf install -y {missing}",
        )
    listened = [port for _, port in binds(view.cluster, node)]
    connected = [backend.port for listener in view.cluster.listeners for backend in listener.backends]
    needed = policy.directives(found, view.proxy, listened, connected)
    if needed:
        return passed(f"enforcing; a push runs {', '.join(map(policy.told, needed))}")
    return passed("enforcing, and lets the proxy in")


@CHECKS.per_node("system.vacant", "No other proxy or keepalived runs that a push would take over")
def vacant(view: View, node: Node) -> Verdict:
    facts = view.facts(node)
    units = (view.proxy.unit, KEEPALIVED_UNIT)
    masked = [unit for unit in units if facts.units[unit].masked]
    if masked:
        hint = f"exlb exec --sudo --nodes {node} -- systemctl unmask {' '.join(masked)}"
        return failed(f"masked: {', '.join(masked)}", hint=hint)
    if facts.generations.current is not None:
        return passed(f"exlb runs there: generation {facts.generations.current}")
    running = [unit for unit in units if facts.units[unit].running]
    if running:
        return warned(
            f"not of exlb: {' and '.join(running)} {'runs' if len(running) == 1 else 'run'} already",
            cause="a push takes its files over; what was there before stays as generation 0",
            hint=f"exlb push-config --dry-run --nodes {node} shows what would change",
        )
    return passed("yes")
