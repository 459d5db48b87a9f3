"""The model of VRRP as keepalived does it: who holds the VIP, which weights are right, how long it takes. Pure.

docs/vrrp.md says it in plain words; tests/lab/test_vrrp_model.py holds it against the real keepalived.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

MASTER_PRIORITY = 120
FIRST_BACKUP_PRIORITY = 110
BACKUP_STEP = 5  # 20 ms of skew time between two backups; five nodes are lawful with the documents' weight of -30 too
CHECK_WEIGHT = -60
LOWEST_PRIORITY = 1
HIGHEST_PRIORITY = 254  # 255 is the owner of the address, whom no check can move
GREATEST_WEIGHT = 253
DOWN_TIMER_ADVERTS = 3
NAMES_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Router:
    """One keepalived as configured: its name and its base priority."""

    name: str
    priority: int


@dataclass(frozen=True, slots=True)
class Check:
    """A tracked script or process; with weight 0, keepalived's own default, the router is in FAULT while it fails."""

    name: str
    weight: int


@dataclass(frozen=True, slots=True)
class Group:
    """One VRRP instance: all its routers, the checks that each of them runs, and whether backups preempt.

    Raises ValueError on what keepalived does not take: a priority outside of 1..254, a weight outside of -253..253; and
    on a name that stands twice.
    """

    routers: tuple[Router, ...]
    checks: tuple[Check, ...]
    preempt: bool

    def __post_init__(self) -> None:
        for router in self.routers:
            if not LOWEST_PRIORITY <= router.priority <= HIGHEST_PRIORITY:
                raise ValueError(f"{router.name}: priority {router.priority} is not in 1..254")
        for check in self.checks:
            if abs(check.weight) > GREATEST_WEIGHT:
                raise ValueError(f"{check.name}: weight {check.weight} is not in -253..253")
        for named in (self.routers, self.checks):
            names = [each.name for each in named]
            if len(set(names)) < len(names):
                raise ValueError(f"a name stands twice: {', '.join(names)}")

    @property
    def weighted(self) -> tuple[Check, ...]:
        """Return the checks that move a priority; the others put a router in FAULT."""
        return tuple(check for check in self.checks if check.weight)

    def effective(self, router: Router, failing: AbstractSet[str] = frozenset()) -> int:
        """Return the priority that a router advertises while the checks named in `failing` fail on it.

        A negative weight is subtracted while its check fails, a positive one is added while it succeeds, several add
        up, and the sum is kept in 1..254. Source: keepalived vrrp/vrrp_track.c, vrrp_set_effective_priority.
        """
        moved = sum(check.weight for check in self.checks if (check.name in failing) == (check.weight < 0))
        return min(HIGHEST_PRIORITY, max(LOWEST_PRIORITY, router.priority + moved))


@dataclass(frozen=True, slots=True)
class World:
    """What is the case: the dead routers, the failing checks as (router, check), and who held the VIP until now."""

    dead: frozenset[str] = frozenset()
    failing: frozenset[tuple[str, str]] = frozenset()
    held: str | None = None

    def failing_on(self, router: str) -> frozenset[str]:
        """Return the names of the checks that fail on a router."""
        return frozenset(check for name, check in self.failing if name == router)


# Who holds the VIP


def holders(group: Group, world: World) -> frozenset[str]:
    """Return the names of the routers that may hold the VIP once elections settle; empty where nobody can.

    The highest advertised priority wins among those that are neither dead nor in FAULT. In a tie the holder stays,
    because a backup stays one while it hears an equal priority. Several names mean that backups are tied: they race,
    and any of them may win. With nopreempt a holder that still advertises stays, whatever its priority.
    Source: keepalived vrrp/vrrp.c, vrrp_state_backup; RFC 5798 6.4.2; acassen/keepalived#2599.
    """
    faults = {check.name for check in group.checks if not check.weight}
    failing = {router: world.failing_on(router.name) for router in group.routers if router.name not in world.dead}
    standing = {router.name: group.effective(router, ill) for router, ill in failing.items() if not faults & ill}
    best = max(standing.values(), default=None)
    if world.held in standing and (not group.preempt or standing[world.held] == best):
        return frozenset([world.held])
    return frozenset(name for name, priority in standing.items() if priority == best)


def healthy(group: Group, world: World) -> tuple[str, ...]:
    """Return the names of the routers that are alive and on which no check fails, in the group's order."""
    ill = world.dead | {name for name, _ in world.failing}
    return tuple(router.name for router in group.routers if router.name not in ill)


# The law: where a healthy router exists, a healthy router holds the VIP


@dataclass(frozen=True, slots=True)
class Stranding:
    """A world in which some router is healthy, and the VIP stays on one that is not; `str` of it is the sentence."""

    group: Group
    world: World
    check: Check
    keeper: Router

    def __str__(self) -> str:
        ill = [router.name for router in self.group.routers if self.world.failing_on(router.name)]
        well = healthy(self.group, self.world)
        failing = "the check" if len(self.group.checks) == 1 else f"the check {self.check.name}"
        return (
            f"where {failing} fails on {_listed(ill)}, {_listed(well)} {'is' if len(well) == 1 else 'are'} healthy, "
            f"and {self.keeper.name} keeps the VIP: {self._why(well)}"
        )

    @property
    def remedy(self) -> str:
        """Return what would be right instead, as a sentence."""
        if not self.group.preempt:
            return "PREEMPT=no wants FAILOVER=fault"
        least = least_weight(self.group)
        if least is None:
            return "no weight is right for these priorities: choose others, closer together and farther from 1 and 254"
        return f"the least weight that is right for these priorities is {'-' if self.check.weight < 0 else ''}{least}"

    def _why(self, well: Sequence[str]) -> str:
        if not self.group.preempt:
            return "with nopreempt no backup replaces a holder that still advertises, whatever its priority"
        best = max((each for each in self.group.routers if each.name in well), key=self.group.effective)
        return f"{self._sum(self.keeper, {self.check.name})} is not below {self._sum(best, frozenset())}"

    def _sum(self, router: Router, failing: AbstractSet[str]) -> str:
        """Return how a priority comes about: `103 - 2 = 101`."""
        weights = [each.weight for each in self.group.weighted if (each.name in failing) == (each.weight < 0)]
        if not weights:
            return str(router.priority)
        terms = "".join(f" {'-' if weight < 0 else '+'} {abs(weight)}" for weight in weights)
        total, kept = router.priority + sum(weights), self.group.effective(router, failing)
        return f"{router.priority}{terms} = {total}{'' if kept == total else f' (kept at {kept})'}"


def stranded(group: Group) -> Stranding | None:
    """Return the world with the fewest failures that strands the VIP, None where the law holds in every world.

    Exact over all subsets of dead routers and failing checks, and over all that may have been before. With preemption
    one failing check is the worst on a router, since each further one lowers its priority or ends in FAULT; and to keep
    the VIP its priority has to be no lower than that of a healthy router, while every router above it fails.
    With nopreempt any router may be the holder when its check begins to fail, and stays it.
    """
    if group.preempt:
        return min(_kept(group), key=lambda each: (len(each.world.failing), -_advertised(each)), default=None)
    if not group.weighted or len(group.routers) < 2:
        return None
    first = max(group.routers, key=group.effective)
    return _stranding(group, group.weighted[0], first, ())


def least_weight(group: Group) -> int | None:
    """Return the least |weight| with which the law holds if all weighted checks have it, each with its sign.

    None if there is no such weight: with nopreempt, where the priorities are too far apart or too close to 1 or 254, or
    with no weighted check at all.
    """
    for size in range(1, GREATEST_WEIGHT + 1) if group.weighted else ():
        checks = tuple(
            replace(each, weight=int(math.copysign(size, each.weight))) if each.weight else each
            for each in group.checks
        )
        if stranded(replace(group, checks=checks)) is None:
            return size
    return None


def lawful(values: Sequence[int], weight: int) -> bool:
    """Tell whether a healthy router always holds the VIP where one exists, with one check and these priorities."""
    return stranded(group_of(values, (Check("check", weight),))) is None


def group_of(values: Sequence[int], checks: Sequence[Check]) -> Group:
    """Return a preempting group with these priorities; its routers are named lb1, lb2 ..."""
    return Group(
        tuple(Router(f"lb{place}", value) for place, value in enumerate(values, 1)), tuple(checks), preempt=True
    )


def _kept(group: Group) -> Iterator[Stranding]:
    """Yield, for every weighted check and every router, the least world in which it keeps the VIP with that failing."""
    well = {router: group.effective(router) for router in group.routers}
    for check in group.weighted:
        for keeper in group.routers:
            advertised = group.effective(keeper, {check.name})
            above = [router for router in group.routers if well[router] > advertised and router != keeper]
            if len(above) + 1 < len(group.routers):
                yield _stranding(group, check, keeper, above)


def _stranding(group: Group, check: Check, keeper: Router, others: Sequence[Router]) -> Stranding:
    failing = frozenset((router.name, check.name) for router in (keeper, *others))
    return Stranding(group, World(failing=failing, held=keeper.name), check, keeper)


def _advertised(stranding: Stranding) -> int:
    return stranding.group.effective(stranding.keeper, {stranding.check.name})


def _listed(names: Sequence[str]) -> str:
    if len(names) > NAMES_SHOWN:
        names = [*names[: NAMES_SHOWN - 1], f"{len(names) - NAMES_SHOWN + 1} more"]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


# What exlb configures


def priorities(count: int) -> tuple[int, ...]:
    """Return one priority for each of `count` routers, the master's first.

    Distinct, because equal priorities of backups cost clients seconds in a takeover (both become master at once), and
    apart as far as that goes, because a busy host is late by more than the skew time between neighbours. The nodes
    after the first eleven get what is left between: no node's priority changes when another is added. Raises ValueError
    where the law can no longer hold.
    """
    lawful_ones = range(FIRST_BACKUP_PRIORITY, MASTER_PRIORITY + CHECK_WEIGHT, -1)
    apart = lawful_ones[::BACKUP_STEP]
    values = (MASTER_PRIORITY, *apart, *(each for each in lawful_ones if each not in apart))
    if count > len(values):
        raise ValueError(f"{count} routers are too many for distinct priorities with weight {CHECK_WEIGHT}")
    return values[:count]


# Timers


def skew_seconds(priority: int, advert_seconds: float, version: int = 2) -> float:
    """Return the skew time of a backup with this effective priority; `version` is that of VRRP, 2 or 3.

    Version 2 knows it in fractions of a second, version 3 in fractions of the advert interval.
    Source: RFC 3768 6.1, RFC 5798 6.1; keepalived include/vrrp.h, VRRP_TIMER_SKEW.
    """
    return (256 - priority) / 256 * (1.0 if version == 2 else advert_seconds)


def master_down_seconds(priority: int, advert_seconds: float, version: int = 2) -> float:
    """Return how long a backup waits without an advert that it accepts before it takes over. Source: RFC 3768 6.1."""
    return DOWN_TIMER_ADVERTS * advert_seconds + skew_seconds(priority, advert_seconds, version)


def election_seconds(values: Sequence[int], advert_seconds: float, version: int = 2) -> float:
    """Return the longest time until exactly one of the routers holds the VIP after they all start at once."""
    return max((master_down_seconds(value, advert_seconds, version) for value in values), default=0.0)


def settle_seconds(values: Sequence[int], advert_seconds: float, version: int = 2) -> float:
    """Return how long one holder has to be seen after a change of keepalived before it counts.

    Two nodes that do not hear each other show it only when the backup's master-down timer ends
    (docs/findings.md, "Split brain comes late").
    """
    return election_seconds(values, advert_seconds, version) + 1.0


def listening_seconds(advert_seconds: float) -> float:
    """Return how long a backup has to be listened to before hearing no advert means something: one may come late."""
    return 2 * advert_seconds


# What clients notice


@dataclass(frozen=True, slots=True)
class Timing:
    """What sets the pace: VRRP's adverts, the checks and the announcements of a new holder.

    `check_run_seconds` is the most that one run of the check takes; it has to be less than the interval, because
    keepalived leaves out a run while another one lasts. `garp_refresh_seconds` is math.inf where it is off.
    Raises ValueError on a version of VRRP that there is not, and on a check that outlasts its interval.
    """

    version: int
    advert_seconds: float
    check_interval_seconds: float
    check_run_seconds: float
    check_fall: int
    check_rise: int
    garp_delay_seconds: float
    garp_refresh_seconds: float

    def __post_init__(self) -> None:
        if self.version not in (2, 3):
            raise ValueError(f"there is no VRRP version {self.version}")
        if self.check_run_seconds >= self.check_interval_seconds:
            raise ValueError(
                f"a check of {self.check_run_seconds:g} s does not end within its interval, "
                f"{self.check_interval_seconds:g} s"
            )

    @property
    def failure_seconds(self) -> float:
        """Return the longest time until a failure is known: it came just after a run that began well."""
        return self.check_fall * self.check_interval_seconds + self.check_run_seconds

    @property
    def recovery_seconds(self) -> float:
        """Return the longest time until a recovery is known."""
        return self.check_rise * self.check_interval_seconds + self.check_run_seconds


@dataclass(frozen=True, slots=True)
class Outages:
    """The most seconds that clients are without service, by what happens to a group in which all was well.

    math.inf where the outage does not end by itself.
    """

    proxy_dead: float
    node_dead: float
    partition: float  # the holder is cut off from clients and from the other routers
    partition_healed: float
    keepalived_stopped: float
    last_proxy_back: float  # counted from the return of one proxy after all were dead


def outages(group: Group, timing: Timing) -> Outages:
    """Return what each kind of event costs clients at worst.

    A router that dies in silence is missed when the master-down timer of the best other one ends. One with a weight
    goes on advertising, and the better ones wait out the same timer, from the last advert that they accepted. One in
    FAULT, like one that is stopped, resigns with an advert of priority 0, after which only the skew time passes. Where
    backups are tied, clients may keep the loser's MAC until the winner's second announcement, `garp_delay_seconds`
    later. A node that stayed master through a partition announces itself when its refresh is due, at the latest.
    """
    resigned = max((_succession_seconds(group, timing, router) for router in group.routers), default=math.inf)
    silent = DOWN_TIMER_ADVERTS * timing.advert_seconds + resigned
    lowest = min((group.effective(router) for router in group.routers), default=LOWEST_PRIORITY)
    tracked = bool(group.checks) and stranded(group) is None
    return Outages(
        proxy_dead=timing.failure_seconds + (silent if group.weighted else resigned) if tracked else math.inf,
        node_dead=silent,
        partition=silent,
        partition_healed=timing.garp_refresh_seconds,
        keepalived_stopped=resigned,
        last_proxy_back=timing.recovery_seconds + master_down_seconds(lowest, timing.advert_seconds, timing.version)
        if tracked
        else math.inf,
    )


def _succession_seconds(group: Group, timing: Timing, leaving: Router) -> float:
    """Return how long the best of the other routers waits after `leaving` has resigned; math.inf without another."""
    others = sorted((group.effective(router) for router in group.routers if router != leaving), reverse=True)
    if not others:
        return math.inf
    tied = others.count(others[0]) > 1
    return skew_seconds(others[0], timing.advert_seconds, timing.version) + (timing.garp_delay_seconds if tied else 0.0)
