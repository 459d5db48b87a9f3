"""How long VRRP has to be watched before what is seen of it counts. Pure."""

from __future__ import annotations

from exlb_fab import vrrp
from exlb_fab.cluster import Cluster, Node
from exlb_fab.dump import RECEIVED
from exlb_fab.facts import Facts, Survey
from exlb_fab.platforms import KEEPALIVED_UNIT
from exlb_fab.questions import vip_url


def unsettled_seconds(cluster: Cluster, survey: Survey) -> float:
    """Return how long to wait before VRRP is looked at again; 0 where it has stood still for long enough.

    Nodes that no longer hear each other show it only when the master-down timer of a backup has ended
    (docs/findings.md, "Split brain comes late"). Where not exactly one node holds the VIP, or a backup hears
    nothing, a second look after the same time tells what comes of it; unless the VIP answers, and may be on a node that
    could not be asked.
    """
    running = _running(survey)
    if not running:
        return 0.0
    settle = _settle_seconds(cluster, survey)
    holders = len(survey.holders(cluster.vip.address))
    elsewhere = survey.errors and all(_reaches_vip(cluster, found) for found in survey.facts.values())
    if holders > 1 or (holders == 0 and not elsewhere) or any(map(_hears_nothing, survey.facts.values())):
        return settle
    ages = [age for found in running.values() if (age := _age(found)) is not None]
    return min(settle, max(0.0, settle - min(ages, default=settle)))


def restless(cluster: Cluster, before: Survey, now: Survey) -> tuple[Node, ...]:
    """Return the nodes whose VRRP has changed between two looks, and too late for the second one to count.

    Two holders of which each has long been one do not move, however often they are looked at.
    """
    settle = _settle_seconds(cluster, now)
    return tuple(
        node
        for node, found in _running(now).items()
        if (age := _age(found)) is not None
        and age < settle
        and node in before.facts
        and len(before.facts[node].instances) == len(found.instances)  # it may once not have told
        and _changes(before.facts[node]) != _changes(found)
    )


def _running(survey: Survey) -> dict[Node, Facts]:
    return {node: found for node, found in survey.facts.items() if found.units[KEEPALIVED_UNIT].running}


def _settle_seconds(cluster: Cluster, survey: Survey) -> float:
    """Return how long it takes until what runs shows what comes of a change."""
    adverts = [each.advert_seconds for found in _running(survey).values() for each in found.instances]
    advert = max(adverts, default=cluster.vrrp.advert_seconds)
    return vrrp.settle_seconds(cluster.priorities, advert, cluster.vrrp.version)


def _changes(found: Facts) -> tuple[float, ...]:
    """Return when keepalived was started or reloaded, and when its instances came to their states."""
    times = (found.units[KEEPALIVED_UNIT].changed, *(each.since for each in found.instances))
    return tuple(at for at in times if at is not None)


def _age(found: Facts) -> float | None:
    """Return for how long VRRP has stood still on a node, None where it does not tell."""
    changes = _changes(found)
    return found.system.time - max(changes) if found.system and changes else None


def _reaches_vip(cluster: Cluster, found: Facts) -> bool:
    return found.pings[str(cluster.vip)] or found.replies[vip_url(cluster)].accepted


def _hears_nothing(found: Facts) -> bool:
    return any(each.state == "BACKUP" and each.counted(RECEIVED) == 0 for each in found.instances)
