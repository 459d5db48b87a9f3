"""What a node's system needs for its configuration to work: units' drop-ins, kernel settings, a network guard. Pure.

Only what is missing is written: what the distribution or the operator has set already, or more strictly, stays theirs.
"""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from exlb_fab.cluster import Cluster
from exlb_fab.platforms import KEEPALIVED_UNIT
from exlb_fab.proxies import PROXIES

SystemKind = Literal["drop-in", "sysctl", "guard"]
Manager = Literal["networkd", "NetworkManager"]

DROP_IN = "exlb.conf"
SYSCTL_PATH = "/etc/sysctl.d/60-exlb.conf"
NETWORKD = "/etc/systemd/network"
DGRAM_QLEN = "net.unix.max_dgram_qlen"
# systemd's own value at boot; the documents' 100 would lower it.
WANTED_DGRAM_QLEN = 512
UNLIMITED = sys.maxsize
# Longer than apply.sh's gate looks at keepalived (1 s): one that dies of a reload must be seen dead. Five starts then
# take so long that systemd's limit of 5 in 10 s never gives a unit up.
RESTART_SECONDS = 2
_HEADER = "# Written by exlb: changes made here are lost at its next push.\n"
_ONLINE = "network-online.target"
# What KeepConfiguration= may be told: all, what no lease gave, or nothing. Else it keeps what a lease gave.
_KEEPING = frozenset({"static", "yes", "true", "on", "1"})
_DROPPING = frozenset({"", "no", "false", "off", "0"})


@dataclass(frozen=True, slots=True)
class UnitSettings:
    """What a unit says without exlb's drop-in; `file_limit` is its hard limit, None where nobody knows it.

    `bound` are the paths at which it alone has something that is elsewhere on the node.
    """

    after: frozenset[str] = frozenset()
    wants: frozenset[str] = frozenset()
    restart: str = "no"
    file_limit: int | None = None
    bound: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Link:
    """An interface and what manages it; for networkd the path of its .network file, and its KeepConfiguration."""

    interface: str
    manager: Manager
    file: str = ""
    keeps: str = ""

    @property
    def guard(self) -> str:
        """Return the path of exlb's drop-in beside the .network file, which may itself be generated under /run."""
        return f"{NETWORKD}/{posixpath.basename(self.file)}.d/{DROP_IN}"


@dataclass(frozen=True, slots=True)
class Settings:
    """How a node's system is set, exlb's own files left out; what is not known is empty.

    `guards` are the paths at which exlb may have a guard, `dgram_qlen` is the kernel's value now.
    """

    units: Mapping[str, UnitSettings] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    guards: tuple[str, ...] = ()
    dgram_qlen: int | None = None


@dataclass(frozen=True, slots=True)
class SystemFile:
    """One file of the system: `text` is "" where the node needs none; `unit` is the one that it is for."""

    path: str
    kind: SystemKind
    text: str
    unit: str


def drop_in_path(unit: str) -> str:
    """Return where exlb's drop-in of a unit is."""
    return f"/etc/systemd/system/{unit}.service.d/{DROP_IN}"


def paths(cluster: Cluster) -> tuple[str, ...]:
    """Return the paths that are the same on every node; those of guards are found there."""
    return (drop_in_path(PROXIES[cluster.proxy].unit), drop_in_path(KEEPALIVED_UNIT), SYSCTL_PATH)


def files(cluster: Cluster, interface: str | None, settings: Settings) -> tuple[SystemFile, ...]:
    """Return all files of the system, those that are not needed too: what a push does not name, it cannot remove.

    `interface` carries the VIPs.
    """
    proxy = PROXIES[cluster.proxy]
    maxconn = cluster.proxying.maxconn
    limits = {proxy.unit: proxy.file_limit(maxconn) if maxconn else 0}
    drop_ins = (
        SystemFile(
            drop_in_path(unit), "drop-in", drop_in(settings.units.get(unit, UnitSettings()), limits.get(unit, 0)), unit
        )
        for unit in (proxy.unit, KEEPALIVED_UNIT)
    )
    sysctls = "".join(f"{name} = {value}\n" for name, value in kernel_settings(cluster, settings))
    return (
        *drop_ins,
        SystemFile(SYSCTL_PATH, "sysctl", sysctls and _HEADER + sysctls, proxy.unit),
        *_guards(interface, settings),
    )


def drop_in(found: UnitSettings, file_limit: int) -> str:
    """Return what a unit lacks: the network first, a start after a failure, and so many open files; "" for nothing.

    Source: systemd.unit(5) `Wants=`, systemd.service(5) `Restart=`, systemd.exec(5) `LimitNOFILE=`.
    """
    ordering = (("Wants", found.wants), ("After", found.after))
    unit = [f"{name}={_ONLINE}\n" for name, units in ordering if _ONLINE not in units]
    service = []
    if found.restart == "no":
        service += ["Restart=on-failure\n", f"RestartSec={RESTART_SECONDS}\n"]
    if file_limit > (found.file_limit or 0):
        service += [f"LimitNOFILE={file_limit}\n"]
    sections = [f"\n[{name}]\n{''.join(lines)}" for name, lines in (("Unit", unit), ("Service", service)) if lines]
    return _HEADER + "".join(sections) if sections else ""


def kernel_settings(cluster: Cluster, settings: Settings) -> Iterator[tuple[str, int]]:
    """Yield the kernel settings that the proxy needs.

    It binds an address that its node does not have yet, and it logs to a socket whose queue should not be short.
    Source: ip(7) `ip_nonlocal_bind`, unix(7) `max_dgram_qlen`.
    """
    for name in nonlocal_binds(cluster):
        yield name, 1
    # What is set to just this much may be so by this very file.
    if cluster.proxying.log == "syslog" and (settings.dgram_qlen or 0) <= WANTED_DGRAM_QLEN:
        yield DGRAM_QLEN, WANTED_DGRAM_QLEN


def nonlocal_binds(cluster: Cluster) -> tuple[str, ...]:
    """Return the kernel settings without which the proxy cannot start on a node that has not the VIP."""
    bound = [vip.address for vip in cluster.vips if cluster.proxying.bind != "all" or vip.address == cluster.stats.bind]
    return tuple(f"net.ipv{version}.ip_nonlocal_bind" for version in sorted({address.version for address in bound}))


def _guards(interface: str | None, settings: Settings) -> Iterator[SystemFile]:
    """Yield the guard of the interface that carries the VIPs, and every other one, which has to go."""
    link = next((each for each in settings.links if each.interface == interface and each.manager == "networkd"), None)
    wanted = link.guard if link and link.keeps not in _KEEPING else None
    for path in dict.fromkeys((*settings.guards, *((wanted,) if wanted else ()))):
        yield SystemFile(path, "guard", guard(link.keeps) if link and path == wanted else "", KEEPALIVED_UNIT)


def guard(keeps: str) -> str:
    """Return the drop-in that has networkd leave alone what keepalived adds; `keeps` is what it was told to keep.

    Source: systemd.network(5) `KeepConfiguration=`; docs/system.md.
    """
    return f"{_HEADER}\n[Network]\nKeepConfiguration={'static' if keeps in _DROPPING else 'yes'}\n"
