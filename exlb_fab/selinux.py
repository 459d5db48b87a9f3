"""What SELinux has to be told so that a proxy may bind its ports and connect to its backends. Pure.

Source: fedora-selinux/selinux-policy, policy/modules/contrib/rhcs.te: the boolean of haproxy's domain allows it to bind
and to connect to all ports; without it, only to those of a few types. Never seen in the lab, which has no SELinux.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from exlb_fab.errors import FactsError
from exlb_fab.proxies import Proxy

PACKAGE = "policycoreutils-python-utils"  # it brings semanage


@dataclass(frozen=True, slots=True)
class PortRange:
    """TCP ports that the policy gives one type, both ends included."""

    low: int
    high: int
    label: str


@dataclass(frozen=True, slots=True)
class Selinux:
    """SELinux on one node: `allowed` is the proxy's boolean, None where the policy has none.

    `ports` is None where there is no semanage to list them, `kept` are the directives that exlb has carried out.
    """

    enforcing: bool = False
    allowed: bool | None = None
    ports: tuple[PortRange, ...] | None = ()
    kept: tuple[str, ...] = ()

    def label(self, port: int) -> str | None:
        """Return the type of a port: of the narrowest range that has it, as the policy does."""
        found = [each for each in self.ports or () if each.low <= port <= each.high]
        return min(found, key=lambda each: each.high - each.low).label if found else None


def question(proxy: Proxy) -> str:
    """Return what the probe is asked."""
    return f"selinux {proxy.domain.boolean}"


def parse(text: str) -> Selinux:
    """Parse `mode MODE`, `boolean NAME --> on|off`, `port TYPE RANGE, RANGE...`, `lacks semanage` and `kept DIRECTIVE`.

    Raises FactsError.
    """
    enforcing, allowed, listed = False, None, True
    ports, kept = list[PortRange](), list[str]()
    for line in filter(None, text.split("\n")):
        word, _, rest = line.partition(" ")
        match word:
            case "mode":
                enforcing = rest == "Enforcing"
            case "boolean":
                allowed = rest.split()[-1] == "on"
            case "port":
                label, _, ranges = rest.partition(" ")
                ports += [_range(each.strip(), label, line) for each in ranges.split(",")]
            case "lacks":
                listed = False
            case "kept":
                kept.append(rest)
            case _:
                raise FactsError(f"what SELinux allows is not understood: {line!r}")
    return Selinux(enforcing, allowed, tuple(ports) if listed else None, tuple(kept))


def _range(text: str, label: str, line: str) -> PortRange:
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if found is None:
        raise FactsError(f"`semanage port -l` said {line!r}")
    return PortRange(int(found[1]), int(found[2] or found[1]), label)


def directives(found: Selinux, proxy: Proxy, binds: Iterable[int], connects: Iterable[int]) -> tuple[str, ...]:
    """Return what `node/selinux.sh` is told so that the proxy may bind and connect to those ports.

    The boolean where the policy has one, else a type for every port that the proxy may not use as it is.
    """
    domain = proxy.domain
    if not found.enforcing or found.allowed:
        return ()
    refused = [port for port in binds if found.label(port) not in domain.binds]
    refused += [port for port in connects if found.label(port) not in domain.connects]
    if not refused:
        return ()
    if found.allowed is not None:
        return (f"boolean {domain.boolean}",)
    return tuple(f"label {port} {domain.label}" for port in dict.fromkeys(refused))


def lacking(found: Selinux) -> str | None:
    """Return the package that has to be installed before anything can be told, None where nothing is missing."""
    return PACKAGE if found.enforcing and found.allowed is None and found.ports is None else None


def told(directive: str) -> str:
    """Return a directive as the command that it stands for."""
    match directive.split():
        case ["boolean", name]:
            return f"setsebool -P {name} 1"
        case [_, port, label]:
            return f"semanage port -a -t {label} -p tcp {port}"
    return directive
