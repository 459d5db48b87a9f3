"""How long VRRP has to be watched before what is seen of it counts. Pure."""

from __future__ import annotations

from exlb_fab import vrrp
from exlb_fab.cluster import Cluster
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
    running = [found for found in survey.facts.values() if found.units[KEEPALIVED_UNIT].running]
    if not running:
        return 0.0
    adverts = [each.advert_seconds for found in running for each in found.instances]
    advert = max(adverts, default=cluster.vrrp.advert_seconds)
    settle = vrrp.settle_seconds(cluster.priorities, advert, cluster.vrrp.version)
    holders = len(survey.holders(cluster.vip.address))
    elsewhere = survey.errors and all(_reaches_vip(cluster, found) for found in survey.facts.values())
    if holders > 1 or (holders == 0 and not elsewhere) or any(map(_hears_nothing, survey.facts.values())):
        return settle
    ages = [
        found.system.time - at
        for found in running
        if found.system
        for at in (found.units[KEEPALIVED_UNIT].changed, *(each.since for each in found.instances))
        if at is not None
    ]
    return min(settle, max(0.0, settle - min(ages, default=settle)))


def _reaches_vip(cluster: Cluster, found: Facts) -> bool:
    return found.pings[str(cluster.vip)] or found.replies[vip_url(cluster)].accepted


def _hears_nothing(found: Facts) -> bool:
    return any(each.state == "BACKUP" and each.counted(RECEIVED) == 0 for each in found.instances)
