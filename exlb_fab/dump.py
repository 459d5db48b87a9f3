"""What a running keepalived writes down of itself when it is asked -> its VRRP instances. Pure.

`node/keepalived.sh` asks it. The same lines were seen of 2.1.5, 2.2.7 and 2.3.3; source: keepalived vrrp/vrrp_data.c
dump_vrrp, dump_vscript and dump_vprocess, vrrp/vrrp_track.c dump_track_process, vrrp/vrrp_print.c vrrp_print_stats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from typing import Literal

Address = IPv4Address | IPv6Address
State = Literal["MASTER", "BACKUP", "FAULT", "INIT"]

STATES: tuple[State, ...] = ("MASTER", "BACKUP", "FAULT", "INIT")
MILLISECONDS = 1000
# What it logs of a new state: an extended regular expression, which awk reads as well. Source: keepalived vrrp/vrrp.c
# and vrrp_scheduler.c: "(VI) Entering MASTER STATE"; in 1.3.5 "VRRP_Instance(VI) Transition to MASTER STATE".
TRANSITION = "(Entering|Transition to) ([A-Z]+) STATE"
SENT, RECEIVED = "Advertisements: Sent", "Advertisements: Received"
# What node/keepalived.sh says of a keepalived that could write, and does not; and of one that would, and cannot.
SILENT = "keepalived does not write down its state"
UNWRITABLE = frozenset({"no space in the /tmp of keepalived", "the /tmp of keepalived cannot be written to"})
_SECTION = re.compile(r"------< (.*) >------")
_FIELD = re.compile(r" {3}(\S[^=:]*?) = (.*)")
_LIST = re.compile(r" {3}(\S.*?)(?: \(\d+\))? ?:")
_ITEM = re.compile(r" {5,}(\S.*)")
_COUNTER = re.compile(r" {2}(?: {2})?(\S[^:]*):(?: (\d+))?")
# It puts quotes around each word of a command, and none of its own into one. Source: keepalived lib/notify.c cmd_str_r.
_COMMAND = re.compile(r"'[^']*'(?: '[^']*')*")


@dataclass(frozen=True, slots=True)
class Script:
    """How keepalived runs a check that is a script, or is asked to: its words, and times in seconds.

    None is what is not told. `timeout` is after how long a run counts as failed.
    """

    command: tuple[str, ...] | None = None
    interval: int | None = None
    timeout: int | None = None
    fall: int | None = None
    rise: int | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """One VRRP instance as keepalived runs it, which need not be what its file says.

    `since` is when it came to its state, in seconds of the node's clock. `master` is whose adverts a backup hears.
    `peers` are empty where it sends to a multicast group. `weights` are those of its checks, scripts and processes, by
    name; `passing` are the checks that pass, `scripts` those that are a script. `counters` are those of keepalived
    since it was started, "KIND: NAME" as it calls them; `earlier` is what they were at an earlier look, empty where
    there was none.
    """

    name: str
    state: State
    since: float
    version: int
    router_id: int
    interface: str
    source: Address | None
    priority: int
    effective_priority: int
    advert_seconds: float
    preempts: bool
    authenticated: bool
    master: Address | None
    vips: frozenset[Address]
    peers: frozenset[Address]
    weights: Mapping[str, int]
    passing: frozenset[str] = frozenset()
    scripts: Mapping[str, Script] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    earlier: Mapping[str, int] = field(default_factory=dict)

    @property
    def failing(self) -> tuple[str, ...]:
        """Return the names of its checks that do not pass."""
        return tuple(name for name in self.weights if name not in self.passing)

    def counted(self, counter: str) -> int | None:
        """Return how much a counter has grown since the earlier look, None where that is not known.

        It is not where this keepalived does not know the counter, or was started in between.
        """
        now, was = self.counters.get(counter), self.earlier.get(counter)
        return None if now is None or was is None or now < was else now - was


def parse(text: str, earlier: str = "") -> tuple[Instance, ...]:
    """Return the instances in the answer of `node/keepalived.sh`; `earlier` are its counters of before.

    Raises ValueError where something is missing or not understood; it says what.
    """
    sections = _sections(text)
    passing = frozenset(
        name
        for section, kind, field_name, good in (
            ("VRRP Scripts", "VRRP Script", "Status", "GOOD"),
            ("VRRP Track processes", "VRRP Track process", "Have quorum", "true"),
        )
        for name, fields, _ in _blocks(sections.get(section, ()), kind)
        if fields.get(field_name) == good
    )
    scripts = {name: _script(fields) for name, fields, _ in _blocks(sections.get("VRRP Scripts", ()), "VRRP Script")}
    counters = _counters(sections.get("Statistics", ()))
    before = _counters(earlier.split("\n"))
    return tuple(
        replace(_instance(name, fields, lists, passing, scripts, counters.get(name, {})), earlier=before.get(name, {}))
        for name, fields, lists in _blocks(sections.get("VRRP Topology", ()), "VRRP Instance")
    )


def _sections(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.split("\n"):
        if title := _SECTION.fullmatch(line):
            lines = found.setdefault(title[1], [])
        else:
            lines.append(line)
    return found


def _blocks(lines: Sequence[str], kind: str) -> Iterator[tuple[str, dict[str, str], dict[str, list[str]]]]:
    """Return the name, fields and lists of each block that ` KIND = NAME` begins; the first field of a name counts."""
    start = f" {kind} = "
    begins = [at for at, line in enumerate(lines) if line.startswith(start)]
    for at, end in pairwise([*begins, len(lines)]):
        fields: dict[str, str] = {}
        lists: dict[str, list[str]] = {}
        items: list[str] = []
        for line in lines[at + 1 : end]:
            if found := _ITEM.fullmatch(line):
                items.append(found[1])
            elif found := _FIELD.fullmatch(line):
                fields.setdefault(found[1], found[2])
            elif found := _LIST.fullmatch(line):
                items = lists.setdefault(found[1], [])
        yield lines[at].removeprefix(start), fields, lists


def _instance(
    name: str,
    fields: Mapping[str, str],
    lists: Mapping[str, list[str]],
    passing: frozenset[str],
    scripts: Mapping[str, Script],
    counters: Mapping[str, int],
) -> Instance:
    try:
        tracked = (*lists.get("Tracked scripts", ()), *lists.get("Tracked processes", ()))
        weights = dict(map(_weight, tracked))
        source = fields.get("Using src_ip", "").split(" ")[0]
        return Instance(
            name=name,
            state=next(state for state in STATES if state == fields["State"]),
            since=float(fields["Last transition"].split(" ")[0]),
            version=int(fields["VRRP Version"]),
            router_id=int(fields["Virtual Router ID"]),
            interface=fields["Interface"],
            source=ip_address(source) if source else None,
            priority=int(fields["Priority"]),
            effective_priority=int(fields["Effective priority"]),
            advert_seconds=_seconds(fields["Advert interval"]),
            preempts=fields["Preempt"] == "enabled",
            authenticated=fields.get("Authentication type", "none") != "none",
            master=_master(fields.get("Master router")),
            vips=frozenset(map(_address, lists["Virtual IP"])),
            peers=frozenset(map(_address, lists.get("Unicast Peer", ()))),
            weights=weights,
            passing=passing & weights.keys(),
            scripts={name: script for name, script in scripts.items() if name in weights},
            counters=counters,
        )
    except KeyError as missing:
        raise ValueError(f"instance {name}: keepalived does not tell its {missing.args[0]}") from missing
    except (ValueError, StopIteration) as error:
        raise ValueError(f"instance {name}: keepalived tells what exlb does not understand: {error}") from error


def _script(fields: Mapping[str, str]) -> Script:
    command = fields.get("Command", "")
    return Script(
        command=tuple(command[1:-1].split("' '")) if _COMMAND.fullmatch(command) else None,
        interval=_whole(fields.get("Interval")),
        timeout=_whole(fields.get("Timeout")),
        fall=_whole(fields.get("Fall")),
        rise=_whole(fields.get("Rise")),
    )


def _whole(said: str | None) -> int | None:
    """Read `2` or `2 sec`, None where it is something else."""
    number, _, unit = (said or "").partition(" ")
    return int(number) if number.isdecimal() and unit in ("", "sec") else None


def _master(said: str | None) -> Address | None:
    """Read who is master; a backup that has heard nobody yet prints what it printed last, the group of IPv6.

    Source: seen with keepalived 2.2.7; no host sends from a group's address (RFC 1112 6.2).
    """
    found = ip_address(said) if said else None
    return None if found is None or found.is_multicast else found


def _weight(item: str) -> tuple[str, int]:
    """Read `check-haproxy weight -60`; of a process, there is a comma behind its name."""
    name, _, weight = item.partition(" weight ")
    return name.removesuffix(","), int(weight.split(" ")[0] or 0)


def _seconds(text: str) -> float:
    """Read `1 sec` or `300 milli-sec`."""
    number, _, unit = text.partition(" ")
    return float(number) / (MILLISECONDS if unit.startswith("milli") else 1)


def _address(item: str) -> Address:
    """Read the address at the head of `198.51.100.100 dev host0 scope global set`, with or without a prefix."""
    return ip_address(item.split(" ")[0].partition("/")[0])


def _counters(lines: Sequence[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    counters: dict[str, int] = {}
    kind = ""
    for line in lines:
        if line.startswith("VRRP Instance: "):
            counters = found.setdefault(line.partition(": ")[2], {})
        elif counted := _COUNTER.fullmatch(line):
            name, number = counted[1], counted[2]
            if number is None:
                kind = name
            elif line.startswith("    "):
                counters[f"{kind}: {name}"] = int(number)
            else:
                counters[name] = int(number)
    return found
