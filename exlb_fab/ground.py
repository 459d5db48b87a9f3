"""What an entrance is to stand on: the machine, its repositories, its network, before exlb comes to it. Pure.

`node/doctor.sh` answers these questions together with those of `facts`, in one exec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Literal, NamedTuple, TypeVar

from exlb_fab import selinux
from exlb_fab.answers import Answer, parse_answers, understood
from exlb_fab.cluster import Address, Cluster, Node
from exlb_fab.host import lines_of, parse_arp_answers, parse_neighbours
from exlb_fab.platforms import PLATFORMS, parse_version
from exlb_fab.proxies import PROXIES
from exlb_fab.questions import INSTALLED_TO, WRITTEN, installation_questions

T = TypeVar("T")

NO_TCPDUMP = "there is no tcpdump"  # as node/doctor.sh says it
# A keepalived that says nothing for 4 s sends its adverts less often than any of the documents.
LISTEN_SECONDS = 4
CONTACT_SECONDS = 3  # of node/doctor.sh
TIMED_OUT = 124  # timeout(1)
NOT_RUN = (126, 127)  # POSIX sh: a program that cannot be run, or is not there
REFUSED = "Connection refused"  # strerror(3) of ECONNREFUSED in the C locale
_ADVERT = re.compile(r"IP6? (\S+) > (\S+): .*\bvrid (\d+)\b")

# How a connection was met: taken, refused by the host itself, not answered (or on the way), or nobody knows.
Reception = Literal["taken", "refused", "unanswered", "unknown"]
# Whether a network carries a VIP that moves by ARP.
Carries = Literal["no", "perhaps"]


@dataclass(frozen=True, slots=True)
class Machine:
    """What the firmware (DMI) says of a node, "" where it says nothing. In a container it speaks of the host."""

    vendor: str = ""
    product: str = ""
    asset_tag: str = ""
    bios: str = ""


class Provider(NamedTuple):
    """A cloud, and how its machines are told: by globs of what their firmware says. `instead` is what serves there."""

    name: str
    carries: Carries
    instead: str
    vendor: str = "*"
    product: str = "*"
    asset_tag: str = "*"
    bios: str = "*"

    def owns(self, machine: Machine) -> bool:
        pairs = (
            (machine.vendor, self.vendor),
            (machine.product, self.product),
            (machine.asset_tag, self.asset_tag),
            (machine.bios, self.bios),
        )
        return all(fnmatchcase(value, glob) for value, glob in pairs)


# Source of the signs: cloud-init tools/ds-identify; systemd src/basic/virt.c dmi_vendor_table (Amazon EC2). The first
# that fits counts: some clouds are built on OpenStack and say both.
PROVIDERS = (
    Provider("Amazon EC2", "no", "a Network Load Balancer", vendor="Amazon EC2"),
    Provider("Amazon EC2", "no", "a Network Load Balancer", bios="*amazon*"),
    Provider("Google Compute Engine", "no", "a passthrough Network Load Balancer", product="Google Compute Engine"),
    Provider("Microsoft Azure", "no", "an Azure Load Balancer", asset_tag="7783-7084-3265-9085-8269-3286-77"),
    Provider("Alibaba Cloud", "no", "its Server Load Balancer (or an HAVIP)", product="Alibaba Cloud ECS*"),
    Provider("Tencent Cloud", "no", "its Cloud Load Balancer (or an HAVIP)", vendor="Tencent Cloud"),
    Provider("Oracle Cloud", "no", "an OCI Network Load Balancer", asset_tag="OracleCloud.com"),
    Provider("DigitalOcean", "no", "a DigitalOcean Load Balancer", vendor="DigitalOcean"),
    Provider("Hetzner Cloud", "no", "a Hetzner Load Balancer", vendor="Hetzner"),
    Provider("Huawei Cloud", "perhaps", "its Elastic Load Balance", asset_tag="HUAWEICLOUD"),
    Provider("Huawei Cloud", "perhaps", "its Elastic Load Balance", vendor="Huawei Cloud"),
    Provider("Open Telekom Cloud", "perhaps", "its Elastic Load Balancer", asset_tag="OpenTelekomCloud"),
    Provider("Vultr", "perhaps", "its load balancer", vendor="Vultr"),
    Provider("Scaleway", "perhaps", "its load balancer", vendor="Scaleway"),
    Provider("UpCloud", "perhaps", "its load balancer", vendor="UpCloud"),
    Provider("Exoscale", "perhaps", "its load balancer", product="Exoscale*"),
    Provider("OpenStack", "perhaps", "Octavia", product="OpenStack *"),
    Provider("OpenStack", "perhaps", "Octavia", asset_tag="OpenStack *"),
)


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface; `carrier` tells whether something is plugged in, `mtu` is in bytes."""

    up: bool
    carrier: bool
    mtu: int


@dataclass(frozen=True, slots=True)
class Available:
    """The newest version of packages by the lists that a node has of its repositories; `listed`: it has any."""

    versions: Mapping[str, str] = field(default_factory=dict)
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Owners:
    """Who answers for an address: by ARP or NDP, with which MACs, and whether to a ping, from wherever that comes."""

    macs: frozenset[str] = frozenset()
    ping: bool = False


@dataclass(frozen=True, slots=True)
class Advert:
    """One VRRP advert that came by."""

    source: Address
    destination: Address
    router_id: int


@dataclass(frozen=True, slots=True)
class Contact:
    """How an attempt to connect ended, and what was said."""

    reception: Reception
    said: str = ""


@dataclass(frozen=True, slots=True)
class Ground:
    """What one node stands on. `owners` are those who answer for each VIP that somebody else has.

    `adverts` is None where nobody listened, and `deaf` why. `contacts` are by `host:port`.
    """

    machine: Machine = Machine()
    interfaces: Mapping[str, Interface] = field(default_factory=dict)
    available: Available = Available()
    owners: Mapping[Address, Owners] = field(default_factory=dict)
    adverts: tuple[Advert, ...] | None = None
    deaf: str = ""
    contacts: Mapping[str, Contact] = field(default_factory=dict)

    @property
    def provider(self) -> Provider | None:
        """Return the cloud that the machine is of, None where nothing says so."""
        return next((each for each in PROVIDERS if each.owns(self.machine)), None)


def questions(cluster: Cluster, node: Node) -> list[str]:
    """Return all that `doctor` has to know of a node."""
    proxy = PROXIES[cluster.proxy]
    packages = dict.fromkeys((*proxy.packages, *(name for each in PLATFORMS for name in each.packages.values())))
    endpoints = dict.fromkeys(backend.endpoint for backend in cluster.apiserver_listener.backends)
    interface = node.interface or "-"
    return [
        *installation_questions(proxy),
        "proxy-version",
        "keepalived-version",
        "keepalived-state",
        "addresses",
        "links",
        "listeners",
        "generation",
        *(["firewall"] if cluster.firewall != "ignore" else []),
        selinux.question(proxy),
        " ".join(("space", *WRITTEN, *INSTALLED_TO)),
        "ground machine",
        " ".join(("ground available", *packages)),
        " ".join(("ground owners", interface, *map(str, cluster.vips))),
        f"ground adverts {cluster.vip} {interface} {LISTEN_SECONDS}",
        " ".join(("ground contacts", *endpoints)),
        "clock",
    ]


def parse(text: str) -> Ground:
    """Turn the output of `node/doctor.sh` and `node/probe.sh` into a ground. Raises FactsError."""
    words = {tuple(question.split()): answer for question, answer in parse_answers(text).items()}

    def of(*question: str) -> Iterator[tuple[tuple[str, ...], Answer]]:
        return ((each, answer) for each, answer in words.items() if each[: len(question)] == question)

    def text_of(*question: str) -> str:
        return "\n".join(answer.text for _, answer in of(*question) if answer.status == 0)

    heard = next((answer for _, answer in of("ground", "adverts")), Answer("was not asked", 1))
    return Ground(
        machine=understood(parse_machine, text_of("ground", "machine")),
        interfaces=understood(parse_interfaces, text_of("links")),
        available=understood(parse_available, text_of("ground", "available")),
        owners=understood(parse_owners, text_of("ground", "owners")),
        adverts=understood(parse_adverts, heard.text) if heard.status == 0 else None,
        deaf=heard.text if heard.status != 0 else "",
        contacts=understood(parse_contacts, text_of("ground", "contacts")),
    )


def parse_machine(text: str) -> Machine:
    """Parse `NAME VALUE`, the names as in /sys/class/dmi/id."""
    values = {name: value.strip() for name, _, value in (line.partition(" ") for line in lines_of(text))}
    return Machine(
        *(values.get(each, "") for each in ("sys_vendor", "product_name", "chassis_asset_tag", "bios_version"))
    )


def parse_interfaces(text: str) -> dict[str, Interface]:
    """Parse `ip -o link show`, by name; `eth0@if7` is eth0. Raises ValueError.

    Source: ip-link(8); Linux include/uapi/linux/if.h for what the flags mean.
    """
    found = {}
    for line in lines_of(text):
        said = re.match(r"\d+: ([^:@]+)(?:@[^:]+)?: <([^>]*)>.* mtu (\d+)\b", line)
        if said is None:
            raise ValueError(f"`ip -o link show` said {line!r}")
        flags = said[2].split(",")
        found[said[1]] = Interface("UP" in flags, "NO-CARRIER" not in flags, int(said[3]))
    return found


def parse_available(text: str) -> Available:
    """Parse `lists NUMBER`, and then `apt-cache policy` or `dnf info` (`yum info`).

    The newest of several versions counts. What else they say is theirs and of no interest.
    """
    versions: dict[str, str] = {}
    listed, name = False, ""
    for line in lines_of(text):
        key, _, value = (part.strip() for part in line.partition(":"))
        if line.startswith("lists "):
            listed = line != "lists 0"
        elif not value and line.endswith(":"):
            name = key
        elif key == "Name":
            name = value
        elif key in ("Candidate", "Version") and value != "(none)":
            versions[name] = _newer(versions.get(name), value)
    return Available(versions, listed)


def _newer(one: str | None, other: str) -> str:
    before, now = parse_version(one or ""), parse_version(other)
    return one if one and before and now and before >= now else other


def parse_owners(text: str) -> dict[Address, Owners]:
    """Parse `ADDRESS ping`, `ADDRESS arping MAC` and `ADDRESS` with a line of `ip neigh show`. Raises ValueError."""
    said: dict[Address, list[str]] = {}
    for line in lines_of(text):
        address, _, rest = line.partition(" ")
        said.setdefault(ip_address(address), []).append(rest)
    return {address: _owners(lines) for address, lines in said.items()}


def _owners(lines: Sequence[str]) -> Owners:
    """Return who answers. An older entry of the kernel is as good as a new one where the address answers a ping."""
    ping = "ping" in lines
    asked = parse_arp_answers("\n".join(line.removeprefix("arping ") for line in lines if line.startswith("arping ")))
    known = parse_neighbours("\n".join(line for line in lines if line != "ping" and not line.startswith("arping ")))
    usable = {
        each.mac for each in known if each.mac and (each.state == "REACHABLE" or (ping and each.state != "FAILED"))
    }
    return Owners(frozenset(usable | asked), ping)


def parse_adverts(text: str) -> tuple[Advert, ...]:
    """Parse `tcpdump -n` of protocol 112, each sender once; other lines than VRRP's are left out. Raises ValueError."""
    found: dict[Advert, None] = {}
    for line in lines_of(text):
        if said := _ADVERT.search(line):
            source, destination, router_id = said[1], said[2], said[3]
            found[Advert(ip_address(source), ip_address(destination), int(router_id))] = None
    return tuple(found)


def parse_contacts(text: str) -> dict[str, Contact]:
    """Parse `HOST:PORT STATUS WORDS`: how bash ended, and its first line, which ends in the reason.

    Raises ValueError.
    """
    found = {}
    for line in lines_of(text):
        endpoint, _, rest = line.partition(" ")
        status, _, said = rest.partition(" ")
        if not status.isdecimal():
            raise ValueError(f"expected HOST:PORT STATUS WORDS, not {line!r}")
        found[endpoint] = _contact(int(status), said.rpartition(": ")[2])
    return found


def _contact(status: int, reason: str) -> Contact:
    if status == 0:
        return Contact("taken")
    if status == TIMED_OUT:
        return Contact("unanswered", f"no answer within {CONTACT_SECONDS} s")
    if status in NOT_RUN:
        return Contact("unknown", "there is no bash to connect with")
    return Contact("refused" if reason == REFUSED else "unanswered", reason or f"bash ended with status {status}")
