"""What the file says of VRRP and of the checks that decide who holds the VIP."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

from exlb_fab import values, vrrp
from exlb_fab.cluster import Failover, Garp, Vrrp, VrrpVersion
from exlb_fab.reading import Reading
from exlb_fab.understanding.nodes import NodesDraft, priorities

_LONGEST_V3_SECONDS = 40.95  # RFC 5798 5.2.7: 12 bits of centiseconds


class Times(NamedTuple):
    """The times and counts of a TIMING; what the file sets by itself goes before them."""

    advert_seconds: float
    check_interval_seconds: int
    check_fall: int
    check_rise: int


TIMES = {
    "default": Times(1, 1, 2, 2),
    "documents": Times(3, 5, 1, 1),
    "fast": Times(0.3, 1, 2, 2),
}


@dataclass(frozen=True, slots=True)
class ElectionDraft:
    """What the file says of VRRP, each variable by itself; `version` is None where it leaves the choice."""

    vrrp: Vrrp
    timing: values.Timing
    version: VrrpVersion | None


def read(reading: Reading) -> ElectionDraft:
    """Read the variables of VRRP. Its version follows from others as well: `version`."""
    timing = reading.one("TIMING", values.timing)
    times = TIMES[timing]
    preempt = reading.one("PREEMPT", values.yes)
    default_failover: Failover = "weighted" if preempt else "fault"
    version = reading.maybe("VRRP_VERSION", values.vrrp_version)
    return ElectionDraft(
        vrrp=Vrrp(
            router_id=reading.one("ROUTER_ID", values.small),
            version=2,
            mode=reading.one("VRRP_MODE", values.vrrp_mode),
            auth_pass=reading.maybe("AUTH_PASS", values.auth_pass),
            advert_seconds=reading.maybe("ADVERT_INT", values.seconds) or times.advert_seconds,
            track=reading.one("TRACK", values.tracks),
            check_interval_seconds=reading.maybe("CHECK_INTERVAL", values.small) or times.check_interval_seconds,
            check_timeout_seconds=reading.one("CHECK_TIMEOUT", values.small),
            check_fall=reading.maybe("CHECK_FALL", values.small) or times.check_fall,
            check_rise=reading.maybe("CHECK_RISE", values.small) or times.check_rise,
            check_weight=reading.one("CHECK_WEIGHT", values.weight),
            process_delay_seconds=reading.one("PROCESS_DELAY", values.repeat),
            failover=reading.maybe("FAILOVER", values.failover) or default_failover,
            preempt=preempt,
            garp=Garp(
                delay_seconds=reading.one("GARP_MASTER_DELAY", values.repeat),
                repeat=reading.one("GARP_MASTER_REPEAT", values.small),
                refresh_seconds=reading.one("GARP_MASTER_REFRESH", values.repeat),
                refresh_repeat=reading.one("GARP_MASTER_REFRESH_REPEAT", values.small),
            ),
        ),
        timing=timing,
        version=cast(VrrpVersion, version) if version else None,
    )


def version(draft: ElectionDraft, nodes: NodesDraft) -> VrrpVersion:
    """Return the version of VRRP: what the file says, else the one that its other variables need."""
    needs_three = draft.vrrp.advert_seconds % 1 > 0 or (nodes.vip is not None and nodes.vip.address.version == 6)
    return draft.version or (3 if needs_three else 2)


def compare(draft: ElectionDraft, nodes: NodesDraft, reading: Reading) -> None:
    """Refuse what these variables contradict each other in, and what cannot fail over."""
    _compare_version(draft, nodes, reading)
    _compare_law(draft, nodes, reading)


def _compare_version(draft: ElectionDraft, nodes: NodesDraft, reading: Reading) -> None:
    """Refuse what a version of VRRP does not have. Source: RFC 3768, RFC 5798, keepalived.conf(5) `vrrp_version`."""
    three = version(draft, nodes) == 3
    advert = draft.vrrp.advert_seconds
    if nodes.vip and nodes.vip.address.version == 6 and draft.version == 2:
        reading.fault("VRRP_VERSION", "2 has no IPv6, and MASTER_VIP is an IPv6 address", "write VRRP_VERSION=3")
    if not three and advert % 1:
        reading.fault("ADVERT_INT" if reading.is_set("ADVERT_INT") else "TIMING", *_too_often(advert))
    if three and advert > _LONGEST_V3_SECONDS:
        reading.fault("ADVERT_INT", f"{advert:g} is more than version 3 has", "write at most 40.95")
    if three and draft.vrrp.auth_pass:
        because, otherwise = _why_three(draft, nodes)
        right = f"leave AUTH_PASS out{otherwise}"
        reading.fault("AUTH_PASS", f"VRRP version 3 has no password, and {because}", right)


def _too_often(advert: float) -> tuple[str, str]:
    return f"adverts every {advert:g} s need VRRP version 3, and VRRP_VERSION is 2", "leave VRRP_VERSION out"


def _why_three(draft: ElectionDraft, nodes: NodesDraft) -> tuple[str, str]:
    """Say why the version is 3, and what would make it 2, "" where nothing would."""
    if nodes.vip and nodes.vip.address.version == 6:
        return "MASTER_VIP is an IPv6 address, which needs it", ""
    if draft.vrrp.advert_seconds % 1:
        also = " and VRRP_VERSION=2" if draft.version else ""
        return f"adverts every {draft.vrrp.advert_seconds:g} s need it", f", or write ADVERT_INT=1{also}"
    return "VRRP_VERSION is 3", ", or write VRRP_VERSION=2"


def _compare_law(draft: ElectionDraft, nodes: NodesDraft, reading: Reading) -> None:
    """Refuse priorities and weights with which a healthy node does not get the VIP from one that is not."""
    if any(map(reading.is_faulty, ("NODE_IPS", "NODE_NAMES", "PRIORITIES", "CHECK_WEIGHT", "FAILOVER", "PREEMPT"))):
        return
    names = nodes.names or tuple(map(str, nodes.addresses))
    stranding = vrrp.stranded(draft.vrrp.group(dict(zip(names, priorities(nodes), strict=True))))
    if stranding:
        blamed = "CHECK_WEIGHT" if reading.is_set("CHECK_WEIGHT") else "PRIORITIES"
        reading.fault(blamed if draft.vrrp.preempt else "FAILOVER", f"cannot fail over: {stranding}", stranding.remedy)


def doubts(
    draft: ElectionDraft, nodes: NodesDraft, health_check: values.HealthCheck, reading: Reading
) -> Iterator[str]:
    """Yield a warning for what has no effect, or a price."""
    found = priorities(nodes)
    group = draft.vrrp.group(dict(zip(map(str, nodes.addresses), found, strict=True)))
    if len(set(found)) < len(found):
        yield (
            f"{reading.locate('PRIORITIES')}: PRIORITIES: equal ones make two nodes take over at once, which costs "
            "clients about five seconds; write falling ones"
        )
    elif len(set(map(group.effective, group.routers))) < len(found):
        yield (
            f"{reading.locate('CHECK_WEIGHT')}: CHECK_WEIGHT: several healthy nodes advertise {vrrp.HIGHEST_PRIORITY}, "
            "which makes two take over at once and costs clients about five seconds; write a smaller weight, or lower "
            "PRIORITIES"
        )
    if nodes.priorities and nodes.priorities[0] < max(nodes.priorities):
        yield f"{reading.locate('PRIORITIES')}: PRIORITIES: the first of NODE_IPS does not have the highest"
    if draft.vrrp.failover == "fault" and reading.is_set("CHECK_WEIGHT"):
        yield f"{reading.locate('CHECK_WEIGHT')}: CHECK_WEIGHT: has no effect with FAILOVER=fault"
    if draft.vrrp.process_delay_seconds and "process" not in draft.vrrp.track:
        yield f"{reading.locate('PROCESS_DELAY')}: PROCESS_DELAY: has no effect without TRACK=process"
    if "apiserver" in draft.vrrp.track and health_check in ("tcp", "ssl-hello"):
        yield (
            f"{reading.locate('TRACK')}: TRACK: apiserver asks for /readyz, and HEALTH_CHECK={health_check} does not: "
            "where apiservers answer it with 401 (--anonymous-auth=false), every node counts as failed; write port "
            "instead of apiserver"
        )
    if not draft.vrrp.garp.refresh_seconds:
        yield (
            f"{reading.locate('GARP_MASTER_REFRESH')}: GARP_MASTER_REFRESH: with 0 a healed partition can cut clients "
            "off for most of a minute"
        )
