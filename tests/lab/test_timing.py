"""How long clients are without an answer at a fault, against what the model says and what is promised.

Medians of five, alone on the machine; a bound is the promise plus the delay with which this host woke the client up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import pytest

from tests.lab.bastion import Bastion
from tests.lab.conftest import AddMeasured
from tests.lab.watching import Seen

pytestmark = [pytest.mark.timing, pytest.mark.slow]

TIMES = 5
SETTLED_SECONDS = 90


@dataclass(frozen=True)
class Fault:
    """What is done to the holder, and how it is undone; `event` is what `exlb config` calls it."""

    name: str
    event: str
    do: Callable[[Bastion, str], None]
    undo: Callable[[Bastion, str], None]

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def stop_proxy(bastion: Bastion, node: str) -> None:
    bastion.inside(node, "systemctl", "stop", "haproxy")


def start_proxy(bastion: Bastion, node: str) -> None:
    bastion.inside(node, "systemctl", "start", "haproxy")


PROXY_STOPPED = Fault("proxy stopped", "the proxy of the holder dies", stop_proxy, start_proxy)
POWER_CUT = Fault("power cut", "the holder dies", lambda b, node: b.lab.cut(node), lambda b, node: b.lab.boot(node))
PROMISED_SECONDS = {
    ("default", PROXY_STOPPED): 5.5,
    ("default", POWER_CUT): 3.6,
    ("fast", PROXY_STOPPED): 3.0,
    ("fast", POWER_CUT): 1.5,
}
HEALED_SECONDS = 1.1


@contextmanager
def timed(green: Bastion, timing: str) -> Iterator[None]:
    """Have all nodes run with a TIMING, and with the default again afterwards."""
    green.exlb("push-config", "--yes", env=green.environment(TIMING=timing))
    try:
        yield
    finally:
        green.exlb("push-config", "--yes", env=green.environment())


def as_before(green: Bastion) -> bool:
    return green.holders() == green.nodes[:1] and green.served()


def gaps(seen: list[Seen]) -> list[float]:
    """Return the longest gaps, without the delays of the client itself."""
    return [each.longest_gap_seconds - each.delay_seconds for each in seen]


def worst(green: Bastion, timing: str, event: str) -> float:
    """Return what `exlb config` says that an event costs at most."""
    ran = green.exlb("config", "-o", "json", env=green.environment(TIMING=timing))
    return next(float(each["seconds"]) for each in ran.json["outages"] if each["event"] == event)


@pytest.mark.parametrize("timing", ["default", "fast"])
@pytest.mark.parametrize("fault", [PROXY_STOPPED, POWER_CUT], ids=str)
def test_fault_of_the_holder_costs_clients_no_more_than_promised(
    green: Bastion, measured: AddMeasured, timing: str, fault: Fault
) -> None:
    seen = []
    with timed(green, timing):
        for _ in range(TIMES):
            green.wait_until(lambda: as_before(green), SETTLED_SECONDS)
            with green.watched() as watch:
                fault.do(green, "lb1")
                green.wait_until(lambda: "lb1" not in green.holders() and green.served(), SETTLED_SECONDS)
            fault.undo(green, "lb1")
            seen.append(watch.seen)
    promised = PROMISED_SECONDS[timing, fault]
    measured(timing, fault.name, gaps(seen), promised, worst(green, timing, fault.event))
    assert median(gaps(seen)) <= promised, seen


@pytest.mark.parametrize("timing", ["default", "fast"])
def test_healed_partition_costs_clients_no_more_than_promised(
    green: Bastion, measured: AddMeasured, timing: str
) -> None:
    seen = []
    with timed(green, timing):
        for _ in range(TIMES):
            green.wait_until(lambda: as_before(green), SETTLED_SECONDS)
            green.lab.partition("lb1")
            green.wait_until(lambda: len(green.holders()) == 2 and green.served(), SETTLED_SECONDS)
            with green.watched() as watch:
                green.lab.heal("lb1")
                green.wait_until(lambda: as_before(green), SETTLED_SECONDS)
            seen.append(watch.seen)
    model = worst(green, timing, "the holder is there again after it was cut off")
    measured(timing, "partition healed", gaps(seen), HEALED_SECONDS, model)
    assert median(gaps(seen)) <= HEALED_SECONDS, seen
