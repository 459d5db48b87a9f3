"""Has each node's system what a change and a takeover need: space to write, and the same time as the others?"""

from __future__ import annotations

from itertools import combinations

from exlb_fab.checks.base import Register, Verdict, View, failed, passed, skipped, warned
from exlb_fab.cluster import Node
from exlb_fab.facts import Facts
from exlb_fab.host import Space
from exlb_fab.questions import INSTALLED_TO

CHECKS = Register()

MEGABYTE = 1_000_000
# A push keeps a generation of some ten small files twice for a moment.
NEEDED_BYTES = MEGABYTE
NEEDED_INODES = 50
# haproxy, keepalived and their libraries take some 20 MB on Debian 12, and half of that as downloads.
PACKAGES_BYTES = 10 * MEGABYTE
# Less of both is little: a tenth of a small /run is enough, and so are 100 MB of a large disk.
LOW_SHARE = 0.1
LOW_BYTES = 100 * MEGABYTE
LOW_INODES = 1000
APART_SECONDS = 2.0


@CHECKS.per_node("host.space", "There is space where a change writes")
def space(view: View, node: Node) -> Verdict:
    """Where packages are installed counts as long as some are missing."""
    facts = view.facts(node)
    found = [each for each in facts.spaces if each.path not in INSTALLED_TO or facts.lacks(view.proxy)]
    if not found:
        return skipped("was not asked")
    frozen = [each for each in found if not each.writable]
    if frozen:
        hint = f"exlb exec --sudo --nodes {node} -- dmesg shows why; mount -o remount,rw {frozen[0].mount}"
        return failed(f"cannot write to {_paths(frozen)}", cause="the file system is read-only", hint=hint)
    full = [each for each in found if _is_full(each)]
    if full:
        purpose = "the packages" if all(each.path in INSTALLED_TO for each in full) else "a change"
        return failed(f"no space for {purpose}: {_said(full)}", hint=_look(node, full))
    low = [each for each in found if _is_low(each)]
    if low:
        installing = any(each.path in INSTALLED_TO for each in low)
        cause = f"the packages that are missing may take {LOW_BYTES // MEGABYTE} MB" if installing else None
        return warned(_said(low), cause=cause, hint=_look(node, low))
    return passed("enough")


def _is_full(space: Space) -> bool:
    needed_bytes = PACKAGES_BYTES if space.path in INSTALLED_TO else NEEDED_BYTES
    return space.free_bytes < needed_bytes or (space.total_inodes > 0 and space.free_inodes < NEEDED_INODES)


def _is_low(space: Space) -> bool:
    low_bytes = LOW_BYTES if space.path in INSTALLED_TO else min(LOW_BYTES, LOW_SHARE * space.total_bytes)
    return space.free_bytes < low_bytes or (space.free_inodes < min(LOW_INODES, LOW_SHARE * space.total_inodes))


def _said(spaces: list[Space]) -> str:
    """Return what is left, once for each file system."""
    by_mount: dict[str, list[Space]] = {}
    for each in spaces:
        by_mount.setdefault(each.mount, []).append(each)
    return "; ".join(f"{_paths(group)} (on {mount}): {_left(group[0])}" for mount, group in by_mount.items())


def _left(space: Space) -> str:
    return f"{space.free_bytes / MEGABYTE:.0f} MB and {space.free_inodes} inodes left"


def _paths(spaces: list[Space]) -> str:
    return ", ".join(each.path for each in spaces)


def _look(node: Node, spaces: list[Space]) -> str:
    return f"exlb exec --sudo --nodes {node} -- du -xhd 2 {spaces[0].mount}"


@CHECKS.overall("host.clock", "The clocks of the nodes are in step")
def clock(view: View) -> Verdict:
    """Judge by bounds: how far two clocks are apart at least, whatever of the way to them took how long."""
    offsets = {node: offset for node in view.answering if (offset := _offset(view.facts(node)))}
    if len(offsets) < 2:
        return skipped("fewer than two nodes tell the time")
    apart = [
        f"{fast} is at least {gap:.0f} s ahead of {slow}"
        for one, other in combinations(offsets, 2)
        for fast, slow in ((one, other), (other, one))
        if (gap := offsets[fast][0] - offsets[slow][1]) >= APART_SECONDS
    ]
    if apart:
        cause = "no time service keeps them in step: logs cannot be compared, and certificates may be refused"
        return warned("; ".join(apart), cause=cause, hint="exlb exec -- timedatectl; install chrony on the nodes")
    return passed(f"{len(offsets)} nodes")


def _offset(facts: Facts) -> tuple[float, float] | None:
    """Return between what a node's clock is ahead of the bastion's, in seconds.

    Its first answer came after the bastion began to ask, in whole seconds that may be almost over, and its last one
    before the bastion had all.
    """
    if facts.system is None or facts.clock is None or facts.asked is None:
        return None
    return facts.clock - facts.asked.end, facts.system.time + 1 - facts.asked.begin
