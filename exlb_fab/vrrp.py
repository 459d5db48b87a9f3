"""The arithmetic of VRRP as keepalived does it: priorities, weights, timings. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MASTER_PRIORITY = 120
FIRST_BACKUP_PRIORITY = 110
CHECK_WEIGHT = -60
LOWEST_PRIORITY = 1
HIGHEST_PRIORITY = 254


@dataclass(frozen=True, slots=True)
class Router:
    """One keepalived as configured: its name, its base priority and its address (the tie-breaker)."""

    name: str
    priority: int
    address: int

    def effective(self, weight: int, *, failing: bool) -> int:
        """Return the priority that the router advertises.

        A negative weight is subtracted while the tracked check fails, a positive one is added while it succeeds;
        the result stays in 1..254. Source: keepalived.conf(5), vrrp_script `weight`.
        """
        applies = failing if weight < 0 else not failing
        return min(HIGHEST_PRIORITY, max(LOWEST_PRIORITY, self.priority + (weight if applies else 0)))


def priorities(count: int) -> tuple[int, ...]:
    """Return one priority for each of `count` routers, the master's first.

    Distinct and falling, because equal priorities of backups cost clients seconds in a takeover (both become master
    at once). Raises ValueError where the law below can no longer hold.
    """
    values = (MASTER_PRIORITY, *(FIRST_BACKUP_PRIORITY - place for place in range(count - 1)))[:count]
    if not lawful(values, CHECK_WEIGHT) or values[-1] + CHECK_WEIGHT < LOWEST_PRIORITY:
        raise ValueError(f"{count} routers are too many for distinct priorities with weight {CHECK_WEIGHT}")
    return values


def lawful(values: Sequence[int], weight: int) -> bool:
    """Tell whether any healthy router beats any unhealthy one: |weight| > highest - lowest priority."""
    return not values or abs(weight) > max(values) - min(values)


def winner(routers: Sequence[Router], weight: int, failing: frozenset[str], holder: str | None = None) -> str | None:
    """Return the name of the router that holds the VIP once elections settle; None without routers.

    `failing` names the routers whose tracked check fails, `holder` the one that held the VIP until now. The highest
    effective priority wins; in a tie the holder, because a backup stays one while it hears an equal priority, and
    among routers that begin at once the highest address. Source: RFC 5798 6.4.2, 6.4.3 and 8.3.2.
    """
    if not routers:
        return None

    def rank(router: Router) -> tuple[int, bool, int]:
        return router.effective(weight, failing=router.name in failing), router.name == holder, router.address

    return max(routers, key=rank).name


def skew_seconds(priority: int, advert_seconds: float) -> float:
    """Return the skew time of a backup. Source: RFC 3768 5.3.1, scaled to the advert interval as keepalived does."""
    return (256 - priority) / 256 * advert_seconds


def master_down_seconds(priority: int, advert_seconds: float) -> float:
    """Return how long a backup waits without adverts before it takes over. Source: RFC 3768 5.3.1."""
    return 3 * advert_seconds + skew_seconds(priority, advert_seconds)


def election_seconds(values: Sequence[int], advert_seconds: float) -> float:
    """Return the longest time until exactly one of the routers holds the VIP after they all start at once."""
    return max((master_down_seconds(value, advert_seconds) for value in values), default=0.0)


def settle_seconds(values: Sequence[int], advert_seconds: float) -> float:
    """Return how long one holder has to be seen after a change of keepalived before it counts.

    Two nodes that do not hear each other show it only when the backup's master-down timer ends
    (docs/findings.md, "Split brain comes late").
    """
    return election_seconds(values, advert_seconds) + 1.0


def roles(names: Sequence[str]) -> Mapping[str, str]:
    """Return the configured role of each router: the first is the master, the others are backups."""
    return {name: "MASTER" if place == 0 else "BACKUP" for place, name in enumerate(names)}
