"""What the environment file describes: one frozen, validated Cluster and its parts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Literal, NamedTuple

from exlb_fab.proxies import DEFAULT_PROXY
from exlb_fab.vrrp import Check, Group, Router, Timing

MASK = "********"
EVENT_SECONDS = 0.1  # by when keepalived has the kernel's word that a process has ended
LOOPBACK = IPv4Address("127.0.0.1")
ANY_IPV4 = IPv4Address("0.0.0.0")  # noqa: S104 - what the proxy binds
ANY_IPV6 = IPv6Address("::")

Address = IPv4Address | IPv6Address
Sudo = Literal["auto", "yes", "no"]
CheckMethod = Literal["https", "http", "ssl-hello", "tcp", "none"]
Balance = Literal["source", "roundrobin", "leastconn", "static-rr", "first"]
Layout = Literal["listen", "frontend"]
Bind = Literal["all", "vip", "node"]
Log = Literal["journal", "syslog"]
SendProxy = Literal["no", "v1", "v2"]
Scheme = Literal["http", "https", "tcp"]
VrrpMode = Literal["unicast", "multicast"]
VrrpVersion = Literal[2, 3]
Track = Literal["process", "script", "apiserver", "port"]
Failover = Literal["weighted", "fault"]
Role = Literal["MASTER", "BACKUP"]
Firewall = Literal["check", "manage", "ignore"]


class Secret:
    """Carry a text that no log, table, traceback or format shows; `reveal()` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return MASK

    def __format__(self, _spec: str) -> str:
        return MASK

    def __reduce__(self) -> tuple[type["Secret"], tuple[str]]:
        return (Secret, (self._text,))


@dataclass(frozen=True, slots=True)
class Node:
    """One load-balancer host. `name` is the address where NODE_NAMES is not set; `index` 0 is the master.

    `interface` carries the VIPs; None where it is found on the node, by the network of the VIP. `source` is the
    address that unicast adverts come from and go to; None where the mode needs none.
    """

    name: str
    address: Address
    interface: str | None
    index: int
    priority: int
    source: Address | None

    def __str__(self) -> str:
        return self.name

    @property
    def label(self) -> str:
        """Return `name (address)`, or only the address where there is no other name."""
        return self.name if self.name == str(self.address) else f"{self.name} ({self.address})"


@dataclass(frozen=True, slots=True)
class Backend:
    """One server behind the proxy; `host` is an address or a DNS name, `name` what the proxy calls it."""

    name: str
    host: str
    port: int

    def __str__(self) -> str:
        return self.name

    @property
    def endpoint(self) -> str:
        """Return `host:port`, an IPv6 address in brackets."""
        return f"{bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How the proxy finds out whether a backend is well.

    `path` is what an https or http check asks for; `ca` is the PEM text of the authorities that an https check
    accepts, None where it accepts any certificate. `slowstart_ms` 0 gives a server its full share at once.
    """

    method: CheckMethod
    path: str
    interval_ms: int
    fall: int
    rise: int
    slowstart_ms: int
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    """A port that the proxy accepts connections on, with its backends.

    `send_proxy` is the version of the PROXY protocol that tells the backends the client's address. `scheme` is what
    clients speak to it, tcp where nobody says.
    """

    name: str
    port: int
    backends: tuple[Backend, ...]
    check: HealthCheck
    balance: Balance
    send_proxy: SendProxy = "no"
    scheme: Scheme = "tcp"

    @property
    def path(self) -> str:
        """Return what an HTTP client may ask for: the path of the health check, where that is one of HTTP."""
        return "" if self.scheme == "tcp" else self.check.path or "/"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Vip:
    """A virtual address; `prefix` is its length in bits, None where the file gives an address only."""

    address: Address
    prefix: int | None

    def __str__(self) -> str:
        return str(self.address)

    @property
    def interface(self) -> str:
        """Return it as keepalived writes it: `address` or `address/prefix`."""
        return str(self.address) if self.prefix is None else f"{self.address}/{self.prefix}"

    @property
    def length(self) -> int:
        """Return how long a prefix keepalived adds it with. Source: keepalived.conf(5), `virtual_ipaddress`."""
        return self.address.max_prefixlen if self.prefix is None else self.prefix


@dataclass(frozen=True, slots=True)
class Stats:
    """The proxy's statistics page; `admin` lets it change servers, `exporter` adds /metrics for Prometheus."""

    bind: Address
    port: int
    user: str
    password: Secret | None
    admin: bool
    exporter: bool


class Timeouts(NamedTuple):
    """How long the proxy waits, in milliseconds; None leaves the proxy's own default."""

    connect_ms: int
    client_ms: int
    server_ms: int
    check_ms: int | None
    queue_ms: int | None


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """What the file says about the proxy as a whole; None leaves the proxy's own default.

    `keeps_drains` carries over a reload what somebody has drained or disabled through the admin socket.
    """

    layout: Layout
    bind: Bind
    timeouts: Timeouts
    maxconn: int | None
    log: Log
    hard_stop_after_ms: int | None
    keeps_drains: bool


class Garp(NamedTuple):
    """How often a master announces its VIPs by gratuitous ARP: delays in seconds, repeats in packets; 0 is never."""

    delay_seconds: int
    repeat: int
    refresh_seconds: int
    refresh_repeat: int


@dataclass(frozen=True, slots=True)
class Vrrp:
    """What the file says about VRRP and keepalived's checks of the node; `router_id` is the VRID.

    `check_weight` counts with `failover` weighted only. `process_delay_seconds` is how long a process may be gone.
    """

    router_id: int
    version: VrrpVersion
    mode: VrrpMode
    auth_pass: Secret | None
    advert_seconds: float
    track: tuple[Track, ...]
    check_interval_seconds: int
    check_timeout_seconds: int
    check_fall: int
    check_rise: int
    check_weight: int
    process_delay_seconds: int
    failover: Failover
    preempt: bool
    garp: Garp

    def group(self, priorities: Mapping[str, int]) -> Group:
        """Return the model of routers with these names and priorities."""
        weight = self.check_weight if self.failover == "weighted" else 0
        return Group(
            routers=tuple(Router(name, priority) for name, priority in priorities.items()),
            checks=tuple(Check(track, weight) for track in self.track),
            preempt=self.preempt,
        )

    def timing(self, track: Track) -> Timing:
        """Return the pace at which a failure is noticed by one check; a dead proxy lets none of them wait."""
        by_event = track == "process"
        return Timing(
            version=self.version,
            advert_seconds=self.advert_seconds,
            check_interval_seconds=max(self.process_delay_seconds, EVENT_SECONDS)
            if by_event
            else self.check_interval_seconds,
            check_run_seconds=0.0,
            check_fall=1 if by_event else self.check_fall,
            check_rise=1 if by_event else self.check_rise,
            garp_delay_seconds=self.garp.delay_seconds,
            garp_refresh_seconds=self.garp.refresh_seconds or math.inf,
        )


@dataclass(frozen=True, slots=True)
class SshSettings:
    """How to reach the nodes; None leaves the choice to the user's own ssh configuration."""

    user: str
    port: int
    key: Path | None
    gateway: str | None
    known_hosts: Path | None
    sudo: Sudo

    @property
    def uses_sudo(self) -> bool:
        """Tell whether programs that need root are run through sudo."""
        return self.user != "root" if self.sudo == "auto" else self.sudo == "yes"


class Setting(NamedTuple):
    """One line of `exlb config`: `value` is masked where it is secret, `source` is `file:line` or `default`."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """Everything that the environment file says, validated; every string in it is safe to render.

    `vip` is the address that clients of the apiserver use, `extra_vips` move together with it.
    """

    path: Path
    nodes: tuple[Node, ...]
    vip: Vip
    listeners: tuple[Listener, ...]
    proxying: ProxySettings
    stats: Stats
    vrrp: Vrrp
    ssh: SshSettings
    extra_vips: tuple[Vip, ...] = ()
    firewall: Firewall = "check"
    proxy: str = DEFAULT_PROXY
    kube_apiserver: str | None = None
    warnings: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = field(default=(), compare=False, repr=False)

    @property
    def apiserver_listener(self) -> Listener:
        """Return the listener that kube-apiserver clients connect to."""
        return self.listeners[0]

    @property
    def vips(self) -> tuple[Vip, ...]:
        """Return all virtual addresses, the one of the apiserver first."""
        return (self.vip, *self.extra_vips)

    @property
    def group(self) -> Group:
        """Return the model of who holds the VIP."""
        return self.vrrp.group({node.name: node.priority for node in self.nodes})

    @property
    def priorities(self) -> tuple[int, ...]:
        """Return the base priorities of the nodes, in their order."""
        return tuple(node.priority for node in self.nodes)

    def role(self, node: Node) -> Role:
        """Return the role that a node is configured for: the highest priority is the master, the first of equal ones.

        Without preemption all begin as backups: keepalived.conf(5) `nopreempt`.
        """
        master = max(self.nodes, key=lambda each: each.priority)
        return "MASTER" if node == master and self.vrrp.preempt else "BACKUP"

    def addresses(self, node: Node) -> tuple[Address, ...]:
        """Return the addresses that the proxy of a node accepts connections on, for every listener."""
        vips = tuple(vip.address for vip in self.vips)
        match self.proxying.bind:
            case "all":
                # The node's own address as well: a gate asks the proxy there.
                return (ANY_IPV4, *((ANY_IPV6,) if any(each.version == 6 for each in (*vips, node.address)) else ()))
            case "vip":
                return (*vips, LOOPBACK)  # by which the node itself can ask its own proxy
            case "node":
                return (*vips, node.address)

    def own_address(self, node: Node) -> Address:
        """Return the address by which the node itself reaches its own proxy, whoever holds the VIP."""
        return LOOPBACK if self.proxying.bind == "vip" else node.address


def bracketed(host: str) -> str:
    """Return a host as it stands in front of a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
