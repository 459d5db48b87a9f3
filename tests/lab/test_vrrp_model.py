"""The model of `exlb_fab.vrrp` against the real keepalived: who holds the VIP in one world after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce

import pytest

from exlb_fab.lab import Lab, LabNode
from exlb_fab.vrrp import Check, Group, Router, World, healthy, holders, master_down_seconds, stranded
from tests.lab.bastion import Bastion

CHECK_SECONDS = 1
MARGIN_SECONDS = 0.4
LIMIT_SECONDS = 30
PAUSE_SECONDS = 0.05
START = "systemctl reset-failed keepalived; systemctl start keepalived; "
NODES = ("lb1", "lb2", "lb3")

GLOBAL = "global_defs {\n  enable_script_security\n  script_user root\n}\n"
SCRIPT = """vrrp_script %s {
  script "/usr/bin/test ! -e /run/exlb-test/%s"
  interval %d
  fall 1
  rise 1
  weight %d
}
"""


@dataclass(frozen=True)
class Walk:
    """A configuration, and the changes of the world that it is led through, one word each.

    `-lb1` stops keepalived on lb1 and `+lb1` starts it; `lb1!a` lets the check a fail on lb1 and `lb1?a` succeed.
    Words that are joined by a comma happen together.
    """

    priorities: tuple[int, int, int]
    checks: tuple[Check, ...]
    steps: str
    preempt: bool = True

    @property
    def group(self) -> Group:
        return Group(tuple(map(Router, NODES, self.priorities)), self.checks, self.preempt)

    @property
    def advert_seconds(self) -> float:
        """Return the pace: where nobody preempts, who was late on a busy host has lost for good."""
        return 0.2 if self.preempt else 0.5

    @property
    def down_seconds(self) -> float:
        """Return how long the last of all waits for an advert: an election is over by then."""
        return master_down_seconds(1, self.advert_seconds, version=3)


def weights(*values: int) -> tuple[Check, ...]:
    """Return checks a, b ... with these weights."""
    return tuple(Check("ab"[place], value) for place, value in enumerate(values))


# The two better ones fail, the third is healthy; in both orders, because a tie leaves the VIP with whom it was.
BOTH = "lb1!a lb2!a lb1?a lb2?a lb2!a lb1!a"
# Where nobody preempts, the race of the backups is final: as far apart as this, their skew times differ by more than a
# busy host is late. With 110 and 100 and an advert every 0.2 s it was 8 ms, and the worse one won.
APART = (250, 140, 20)
# The worst becomes the holder while the others are away, and stays it at an equal priority or with nopreempt.
LAST = "-lb1,-lb2 lb3!a +lb1,+lb2 lb2!a lb1!a lb3?a"

QUICK = {
    "weight -30, 120/110/109: right": Walk((120, 110, 109), weights(-30), "lb1!a lb2!a lb1?a"),
    "no weight and nopreempt: fails over, and nobody holds when all fail": Walk(
        APART, weights(0), "lb1!a lb1?a lb2!a lb1!a lb3!a lb2?a", preempt=False
    ),
}
FURTHER = {
    "weight -30, 120/110/110: right, and the tied backups race": Walk(
        (120, 110, 110), weights(-30), BOTH + " lb1?a -lb1"
    ),
    "weight -60, 120/118/61: right": Walk((120, 118, 61), weights(-60), BOTH + " lb1?a lb2?a " + LAST),
    "weight -2, 103/102/100: the VIP stays on a failed node": Walk((103, 102, 100), weights(-2), BOTH),
    "weight 2, 101/100/99: stuck at an equal priority": Walk((101, 100, 99), weights(2), BOTH),
    "weight 3, 101/100/99: right": Walk((101, 100, 99), weights(3), BOTH + " lb1?a lb2?a " + LAST),
    "weight -20, 120/100/100: stuck at an equal priority": Walk(
        (120, 100, 100), weights(-20), BOTH + " lb1?a -lb1 +lb1"
    ),
    "kept at 1: stuck at an equal priority": Walk((30, 20, 1), weights(-60), BOTH + " lb1?a lb2?a " + LAST),
    "kept at 254: stuck at an equal priority": Walk(
        (254, 240, 230), weights(40), "-lb2,-lb3 +lb2,+lb3 lb1!a lb2!a lb3!a"
    ),
    "two weights add up": Walk(
        (120, 110, 109), weights(-8, -4), "lb1!a lb1!b lb2!a lb2?a lb1?b lb1?a lb3!b lb2!b lb1!b lb1!a lb2!a"
    ),
    "a weight up and a weight down add up": Walk(
        (100, 95, 90), weights(8, -7), "lb1!a lb2!b lb1!b lb3!a lb2?b lb3?a lb1?a lb1?b"
    ),
    "only the complete sum is kept in 1..254": Walk(
        (250, 200, 190), weights(60, -60), "lb2!a lb1!a lb2?a lb1?a lb1!b lb2!b lb1!a lb2!a lb1?b lb3!a lb3!b lb1?a"
    ),
    "no weight: fails over, back, and to nobody": Walk(
        (120, 110, 109), weights(0), "lb1!a lb2!a lb3!a lb2?a lb1?a lb3?a -lb1 +lb1"
    ),
    "one with a weight and one without": Walk(
        (120, 110, 100), weights(-15, 0), "lb1!a lb2!b lb3!b lb1!b lb2?b lb1?b lb1?a lb3?b"
    ),
    "weight and nopreempt: never fails over": Walk(
        APART, weights(-60), "lb1!a lb2!a lb1?a lb2?a -lb1 +lb1 lb2!a -lb2 lb1!a +lb2", preempt=False
    ),
    "both and nopreempt: only the one without a weight moves the VIP": Walk(
        APART, weights(-60, 0), "lb1!a lb1!b lb1?b lb2!a lb2!b lb2?b -lb3 +lb3", preempt=False
    ),
    "no weight and nopreempt: who holds it keeps it": Walk(
        APART, weights(0), "-lb1,-lb2 +lb1,+lb2 lb1!a lb1?a lb3!a lb3?a -lb1 lb2!a +lb1", preempt=False
    ),
}


@pytest.fixture(scope="module")
def keepalived_lab(fresh_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Three nodes with keepalived, stopped; its configurations are the tests' own."""
    Bastion(fresh_lab, tmp_path_factory.mktemp("install")).exlb("install")
    return fresh_lab


class Machines:
    """The real world: keepalived on all nodes of a lab, brought into the worlds of the model."""

    def __init__(self, lab: Lab, executor: ThreadPoolExecutor) -> None:
        self._lab = lab
        self._executor = executor

    def begin(self, walk: Walk) -> None:
        """Start keepalived on one node after the other, with every check successful; the first one has the VIP."""
        self._everywhere("systemctl stop keepalived; rm -rf /run/exlb-test; mkdir /run/exlb-test")
        for node in self._lab.nodes:
            text = self._configuration(walk, node)
            write = "cat >/etc/keepalived/keepalived.conf && keepalived -t"
            assert self._lab.shell_in(node, ["sh", "-c", write], input=text.encode()).returncode == 0, text
        first, *others = NODES
        self._shell(first, START)
        self._until([frozenset([first])], 0, 0)  # with nopreempt the first that is up keeps the VIP
        for name in others:
            self._shell(name, START)

    def step(self, before: World, after: World) -> None:
        """Let happen what is different between two worlds, on all nodes at once."""
        scripts = dict.fromkeys(NODES, "")
        for node, check in before.failing - after.failing:
            scripts[node] += f"rm /run/exlb-test/{check}; "
        for node, check in after.failing - before.failing:
            scripts[node] += f"touch /run/exlb-test/{check}; "
        for node in before.dead - after.dead:
            scripts[node] += START
        for node in after.dead - before.dead:
            scripts[node] += "systemctl stop keepalived; "
        list(self._executor.map(self._shell, scripts, scripts.values()))

    def holders(self) -> frozenset[str]:
        """Return the nodes that have the VIP now, by their own kernels."""
        shown = self._executor.map(self._shell, NODES, ["ip -o addr show"] * len(NODES))
        return frozenset(node for node, text in zip(NODES, shown, strict=True) if f" {self._lab.vip}/" in text)

    def settled(self, walk: Walk, expected: Sequence[frozenset[str]]) -> frozenset[str]:
        """Return who holds the VIP once every check has run, elections are over, and it is one of the sets expected.

        Fails, with keepalived's own words, if that does not come within the limit.
        """
        still_seconds = walk.down_seconds + MARGIN_SECONDS
        return self._until(expected, CHECK_SECONDS + still_seconds, still_seconds)

    def _until(self, expected: Sequence[frozenset[str]], least_seconds: float, still_seconds: float) -> frozenset[str]:
        """Return who holds the VIP once that is expected, and has been for some time, after some time at the least."""
        begun = since = time.monotonic()
        seen = self.holders()
        while True:
            time.sleep(PAUSE_SECONDS)
            held, now = self.holders(), time.monotonic()
            if held != seen:
                since, seen = now, held
            if now - begun > least_seconds and now - since > still_seconds and seen in expected:
                return seen
            assert now < begun + LIMIT_SECONDS, (
                f"{sorted(seen)} and not {[sorted(each) for each in expected]}\n{self._log()}"
            )

    def _log(self) -> str:
        words = "journalctl -u keepalived -o short-precise --no-pager -n 12"
        return "\n".join(self._shell(node, words) for node in NODES)

    def _everywhere(self, script: str) -> None:
        list(self._executor.map(self._shell, NODES, [script] * len(NODES)))

    def _shell(self, node: str, script: str) -> str:
        return self._lab.shell_in(node, ["sh", "-c", script], timeout=60).stdout.decode() if script else ""

    def _configuration(self, walk: Walk, node: LabNode) -> str:
        group = walk.group
        (router,) = (each for each in group.routers if each.name == node.name)
        peers = [each.address for each in self._lab.nodes if each != node]
        lines = [
            *("state BACKUP", "interface host0", "virtual_router_id 77", "version 3"),
            *(f"advert_int {walk.advert_seconds}", f"priority {router.priority}", f"unicast_src_ip {node.address}"),
            *([] if group.preempt else ["nopreempt"]),
            *("unicast_peer {", *peers, "}"),
            *("track_script {", *(check.name for check in group.checks), "}"),
            *("virtual_ipaddress {", self._lab.vip, "}"),
        ]
        scripts = "".join(SCRIPT % (each.name, each.name, CHECK_SECONDS, each.weight) for each in group.checks)
        return GLOBAL + scripts + "vrrp_instance VI {\n  " + "\n  ".join(lines) + "\n}\n"


@pytest.fixture
def machines(keepalived_lab: Lab) -> Iterator[Machines]:
    with ThreadPoolExecutor(max_workers=len(NODES)) as executor:
        yield Machines(keepalived_lab, executor)


def changed(world: World, word: str) -> World:
    """Return the world after one change, or after several that are joined by commas."""
    if "," in word:
        return reduce(changed, word.split(","), world)
    if word[0] in "-+":
        dead = world.dead | {word[1:]} if word[0] == "-" else world.dead - {word[1:]}
        return replace(world, dead=dead)
    sign = "!" if "!" in word else "?"
    router, check = word.split(sign)
    pair = {(router, check)}
    return replace(world, failing=world.failing | pair if sign == "!" else world.failing - pair)


def walked(machines: Machines, walk: Walk) -> set[World]:
    """Lead keepalived through a walk, and return the worlds in which the VIP was stranded.

    In each world the holder is one of those that the model allows, or nobody where it allows nobody.
    """
    world, strandings = World(), set()
    machines.begin(walk)
    for word in ["", *walk.steps.split()]:
        after = changed(world, word) if word else world
        machines.step(world, after)
        allowed = holders(walk.group, after)
        (held,) = machines.settled(walk, [frozenset([name]) for name in allowed] or [frozenset()]) or (None,)
        world = replace(after, held=held)
        if healthy(walk.group, world) and held not in healthy(walk.group, world):
            strandings.add(world)
    return strandings


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in FURTHER)])
def test_real_keepalived_gives_the_vip_to_whom_the_model_gives_it(machines: Machines, name: str) -> None:
    walk = {**QUICK, **FURTHER}[name]
    strandings = walked(machines, walk)
    assert bool(strandings) == (stranded(walk.group) is not None), strandings


def test_world_that_the_model_names_strands_the_vip_for_real(machines: Machines) -> None:
    found = stranded(Walk((103, 102, 100), weights(-2), "").group)
    assert found is not None
    steps = ",".join(f"{router}!{check}" for router, check in sorted(found.world.failing))
    (world,) = walked(machines, Walk((103, 102, 100), weights(-2), steps))
    assert world == found.world
