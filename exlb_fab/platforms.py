"""Package managers: which one a node has, what it calls the packages, and what the versions can do."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import total_ordering
from typing import NamedTuple

KEEPALIVED_UNIT = "keepalived"
KEEPALIVED_PACKAGE = "keepalived"
KEEPALIVED_PATH = "/etc/keepalived/keepalived.conf"
KILLALL = "/usr/bin/killall"


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A program's version: its numbers, compared as numbers, and the text that it was read from."""

    numbers: tuple[int, ...]
    text: str

    def __lt__(self, other: Version) -> bool:
        return self.numbers < other.numbers

    def __str__(self) -> str:
        return ".".join(map(str, self.numbers))


def parse_version(text: str) -> Version | None:
    """Return the first dotted number in `text` (`Keepalived v2.2.7 (01/16,2022)`), None where there is none."""
    found = re.search(r"\bv?([0-9]{1,9}(?:\.[0-9]{1,9})+)", text)
    return Version(tuple(int(part) for part in found[1].split(".")), found[1]) if found else None


class Feature(NamedTuple):
    """Something that a program can do from one version on (`since`), or could until one (`until`, the first without).

    `source` says where that is known from.
    """

    name: str
    source: str
    since: tuple[int, ...] = ()
    until: tuple[int, ...] | None = None

    def of(self, version: Version | None) -> bool:
        """Tell whether a version has it; one that is not known counts as the newest."""
        if version is None:
            return self.until is None
        return version.numbers >= self.since and (self.until is None or version.numbers < self.until)


def features(table: Iterable[Feature], version: Version | None) -> frozenset[str]:
    """Return the names of the features that a version has."""
    return frozenset(feature.name for feature in table if feature.of(version))


# What exlb writes into keepalived.conf is read by every keepalived from 1.3.5 (EL7) on, but for what is listed here.
# Which of them the tests run: docs/keepalived-versions.md.
KEEPALIVED_FEATURES = (
    Feature("validate", "ChangeLog 2.0.4: `-t` tests a configuration; docs/findings.md", since=(2, 0, 4)),
    Feature("track-process", "ChangeLog 2.0.11: vrrp_track_process", since=(2, 0, 11)),
)


def can_validate(keepalived: Version) -> bool:
    """Tell whether this keepalived has `-t`."""
    return "validate" in features(KEEPALIVED_FEATURES, keepalived)


@dataclass(frozen=True, slots=True)
class Platform:
    """One package manager, the distributions that live by it, and the package that brings each program."""

    manager: str
    families: frozenset[str]
    packages: Mapping[str, str]


# The tracked script needs killall; exlb itself asks a node with ip, ss, ping, curl and socat. What counts is that the
# program is there: a node with curl-minimal needs no curl.
_COMMON = {"keepalived": "keepalived", "killall": "psmisc", "curl": "curl", "socat": "socat"}
_DEBIAN = {**_COMMON, "ip": "iproute2", "ss": "iproute2", "ping": "iputils-ping"}
_RED_HAT = {**_COMMON, "ip": "iproute", "ss": "iproute", "ping": "iputils"}
_RED_HAT_FAMILIES = frozenset(
    {"rhel", "fedora", "centos", "rocky", "almalinux", "ol", "amzn", "openEuler", "anolis", "kylin"}
)

PLATFORMS = (
    Platform("apt-get", frozenset({"debian", "ubuntu"}), _DEBIAN),
    Platform("dnf", _RED_HAT_FAMILIES, _RED_HAT),
    Platform("yum", _RED_HAT_FAMILIES, _RED_HAT),
)

PROGRAMS = tuple(_DEBIAN)


def platform(families: Collection[str], managers: Collection[str]) -> Platform | None:
    """Return the platform of a node; None where it has no package manager that exlb knows for its distribution.

    `families` are the ID and ID_LIKE of its os-release: a Debian may carry dnf as a tool, and the other way round.
    Source: os-release(5).
    """
    return next((each for each in PLATFORMS if each.families & set(families) and each.manager in managers), None)
