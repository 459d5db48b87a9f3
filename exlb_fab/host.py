"""What a node's system says of what the entrance stands on -> file systems, neighbours, keepalived's checks. Pure.

Every parser raises ValueError with the line that it does not understand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

TrackerState = Literal["there", "missing", "not-executable", "no-interpreter", "process", "deaf"]

TRACKER_STATES: tuple[TrackerState, ...] = get_args(TrackerState)
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")


def lines_of(text: str) -> list[str]:
    """Split text at its newlines alone, as the programs that print it do; blank lines are left out."""
    return [line for line in text.split("\n") if line.strip()]


@dataclass(frozen=True, slots=True)
class Space:
    """The file system that has a path, or would have it; `total_inodes` is 0 where it does not count them."""

    path: str
    mount: str
    writable: bool
    free_bytes: int
    total_bytes: int
    free_inodes: int
    total_inodes: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What a node's kernel knows of another host on its network; `mac` is None where it has found out nothing."""

    interface: str
    mac: str | None
    state: str


@dataclass(frozen=True, slots=True)
class Tracker:
    """One check in keepalived.conf as it is on the node: the program or process that it names, and what is of it.

    "deaf" is a process of whose end the kernel does not tell keepalived.
    """

    name: str
    state: TrackerState


@dataclass(frozen=True, slots=True)
class Span:
    """When a node was asked, by the clock of the bastion: before and after, in seconds since 1970."""

    begin: float
    end: float


def parse_spaces(text: str) -> tuple[Space, ...]:
    """Parse `PATH WRITABLE BLOCK-SIZE BLOCKS FREE INODES FREE MOUNT`, a line per path."""
    return tuple(map(_space, lines_of(text)))


def _space(line: str) -> Space:
    try:
        path, writable, size, total, free, inodes, free_inodes, mount = line.split(" ", 7)
        block = int(size)
        return Space(
            path, mount, writable == "yes", int(free) * block, int(total) * block, int(free_inodes), int(inodes)
        )
    except ValueError as error:
        raise ValueError(f"the space of a file system is not understood: {line!r}") from error


def parse_neighbours(text: str) -> tuple[Neighbour, ...]:
    """Parse `ip neigh show to ADDRESS`: `dev INTERFACE [lladdr MAC] ... STATE`, nothing where nobody was asked.

    iproute2 leaves the address out where it was asked for one, or prints it first. Source: ip-neighbour(8).
    """
    found = []
    for line in lines_of(text):
        words = line.split()
        if "dev" not in words[:-2]:
            raise ValueError(f"`ip neigh` said {line!r}")
        interface = words[words.index("dev") + 1]
        mac = words[words.index("lladdr") + 1].lower() if "lladdr" in words[:-2] else None
        found.append(Neighbour(interface, mac, words[-1]))
    return tuple(found)


def parse_arp_answers(text: str) -> frozenset[str]:
    """Parse the MACs that answered, a line each, in the case in which arping prints them."""
    found = frozenset(line.lower() for line in lines_of(text))
    if odd := next((mac for mac in sorted(found) if not _MAC.fullmatch(mac)), None):
        raise ValueError(f"expected a MAC, not {odd!r}")
    return found


def parse_macs(text: str) -> dict[str, str]:
    """Parse `ip -o link show`: the MAC of each Ethernet interface, by name; `eth0@if7` is eth0."""
    macs = {}
    for line in lines_of(text):
        named = re.match(r"\d+: ([^:@]+)", line)
        if named is None:
            raise ValueError(f"`ip -o link show` said {line!r}")
        if found := re.search(rf"link/ether ({_MAC.pattern})", line):
            macs[named[1]] = found[1]
    return macs


def parse_down(text: str) -> frozenset[str]:
    """Parse `ip -o link show`: the interfaces that carry nothing, switched off or with nothing plugged in.

    Source: keepalived include/vrrp_if.h FLAGS_UP, which looks at the same; ip-link(8) calls RUNNING LOWER_UP.
    """
    flags = re.findall(r"^\d+: ([^:@]+)(?:@[^:]+)?: <([^>]*)>", text, re.MULTILINE)
    return frozenset(name for name, words in flags if not {"UP", "LOWER_UP"} <= set(words.split(",")))


def parse_trackers(text: str) -> tuple[Tracker, ...]:
    """Parse `STATE NAME`, a line per check."""
    return tuple(_trackers(text))


def _trackers(text: str) -> Iterator[Tracker]:
    for line in lines_of(text):
        word, _, name = line.partition(" ")
        state = next((each for each in TRACKER_STATES if each == word), None)
        if state is None or not name:
            raise ValueError(f"the checks of keepalived are not understood: {line!r}")
        yield Tracker(name, state)
