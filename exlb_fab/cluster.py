"""What the environment file describes: one frozen, validated Cluster and its parts."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal, NamedTuple

from exlb_fab.proxies import DEFAULT_PROXY

MASK = "********"
LOOPBACK = "127.0.0.1"
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - behind a password, the stats page is for everyone who may reach the node

Sudo = Literal["auto", "yes", "no"]
HealthCheck = Literal["readyz", "tcp"]
Balance = Literal["source", "roundrobin", "leastconn"]


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
    """One load-balancer host. `name` is the address where NODE_NAMES is not set; `index` 0 is the master."""

    name: str
    address: IPv4Address
    interface: str
    index: int

    def __str__(self) -> str:
        return self.name

    @property
    def label(self) -> str:
        """Return `name (address)`, or only the address where there is no other name."""
        return self.name if self.name == str(self.address) else f"{self.name} ({self.address})"


@dataclass(frozen=True, slots=True)
class Apiserver:
    """One backend; `host` is an address or a DNS name, `name` what the proxy calls it."""

    name: str
    host: str
    port: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Listener:
    """A port that the proxy accepts connections on, with its backends."""

    name: str
    port: int
    backends: tuple[Apiserver, ...]
    health_check: HealthCheck
    balance: Balance

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Vip:
    """The virtual address; `prefix` is its length in bits, None where the file gives an address only."""

    address: IPv4Address
    prefix: int | None

    def __str__(self) -> str:
        return str(self.address)


@dataclass(frozen=True, slots=True)
class Stats:
    """The proxy's statistics page."""

    port: int
    user: str
    password: Secret | None

    @property
    def bind(self) -> str:
        """Return the address to listen on: without a password nobody but the node itself may look."""
        return LOOPBACK if self.password is None else ANY_ADDRESS


@dataclass(frozen=True, slots=True)
class Vrrp:
    """What the file says about VRRP and the check of the proxy; `router_id` is the VRID, falls and rises are counts."""

    router_id: int
    advert_interval_seconds: int
    check_interval_seconds: int
    check_fall: int
    check_rise: int


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
    """Everything that the environment file says, validated; every string in it is safe to render."""

    path: Path
    nodes: tuple[Node, ...]
    vip: Vip
    listeners: tuple[Listener, ...]
    stats: Stats
    vrrp: Vrrp
    ssh: SshSettings
    proxy: str = DEFAULT_PROXY
    kube_apiserver: str | None = None
    warnings: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = field(default=(), compare=False, repr=False)

    @property
    def apiserver_listener(self) -> Listener:
        """Return the listener that kube-apiserver clients connect to."""
        return self.listeners[0]
