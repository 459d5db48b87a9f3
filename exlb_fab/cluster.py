"""Understand the environment file: raw variables in, one validated frozen Cluster out, or every fault at once."""

import difflib
import itertools
import re
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from exlb_fab.environment import Environment, Location, Variable, read, references
from exlb_fab.errors import EnvironmentFileError

MASK = "********"
LOOPBACK = "127.0.0.1"
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - behind a password, the stats page is for everyone who may reach the node
MOST_NODES = 50  # more do not get a priority each, see vrrp

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
    proxy: str = "haproxy"
    kube_apiserver: str | None = None
    warnings: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = field(default=(), compare=False, repr=False)

    @property
    def apiserver_listener(self) -> Listener:
        """Return the listener that kube-apiserver clients connect to."""
        return self.listeners[0]


# The table that drives everything


@dataclass(frozen=True, slots=True)
class Spec:
    """Describe one variable.

    `default` is what holds if the file does not set it, as it would be written there; where that is no constant,
    `otherwise` says it in words. `right` tells how to write it.
    """

    name: str
    description: str
    right: str
    default: str = ""
    otherwise: str = ""
    unit: str = ""
    is_array: bool = False
    required: bool = False
    secret: bool = False


VARIABLES: tuple[Spec, ...] = (
    Spec(
        "NODE_IPS",
        "the addresses of the load-balancer nodes; the first is the master",
        "write NODE_IPS=(ADDRESS ...)",
        is_array=True,
        required=True,
    ),
    Spec(
        "VIP_IF",
        "the network interface of the nodes that carries the VIP",
        "write VIP_IF=INTERFACE, a name that `ip -br link` shows on the nodes",
        required=True,
    ),
    Spec(
        "MASTER_VIP",
        "the virtual address, or address/prefix",
        "write MASTER_VIP=ADDRESS or MASTER_VIP=ADDRESS/PREFIX",
        required=True,
    ),
    Spec(
        "NODE_NAMES",
        "the names of the nodes, one for each address, in the same order",
        "write NODE_NAMES=(NAME ...), names made of letters, digits, dots and dashes",
        otherwise="the addresses in NODE_IPS",
        is_array=True,
    ),
    Spec(
        "APISERVER_IPS",
        "the addresses or DNS names of the kube-apiservers",
        "write APISERVER_IPS=(ADDRESS ...), addresses or DNS names without a port",
        otherwise="the addresses in NODE_IPS",
        is_array=True,
    ),
    Spec(
        "APISERVER_NAMES",
        "what the proxy calls the kube-apiservers, one for each, in the same order",
        "write APISERVER_NAMES=(NAME ...), names made of letters, digits and . _ : -",
        otherwise="the texts in APISERVER_IPS",
        is_array=True,
    ),
    Spec(
        "APISERVER_SRC_PORT",
        "the port that the kube-apiservers listen on",
        "write a port from 1 to 65535",
        default="6443",
        unit="TCP port",
    ),
    Spec(
        "APISERVER_DEST_PORT",
        "the port that the proxy listens on, and that clients connect to",
        "write a port from 1 to 65535",
        default="8443",
        unit="TCP port",
    ),
    Spec(
        "KUBE_APISERVER",
        "the address that clients use; only checked: it must lead to the VIP and to APISERVER_DEST_PORT",
        "write https://HOST:PORT",
        otherwise="not checked",
        unit="https URL",
    ),
    Spec(
        "ROUTER_ID",
        "the virtual_router_id (VRID); no other VRRP group of the network segment may have it",
        "write a whole number from 1 to 255",
        default="68",
        unit="number from 1 to 255",
    ),
    Spec(
        "HEALTH_CHECK",
        "how the proxy checks a kube-apiserver: an HTTPS request of /readyz, or a mere TCP connection",
        "write readyz or tcp",
        default="readyz",
        unit="readyz or tcp",
    ),
    Spec(
        "BALANCE",
        "how the proxy spreads connections over the kube-apiservers",
        "write source, roundrobin or leastconn",
        default="source",
        unit="source, roundrobin or leastconn",
    ),
    Spec(
        "STATS_PORT",
        "the port of the proxy's statistics page",
        "write a port from 1 to 65535",
        default="10080",
        unit="TCP port",
    ),
    Spec(
        "STATS_USER",
        "the user of the statistics page, where STATS_PASSWORD is set",
        "write up to 32 letters, digits and . _ @ -",
        default="admin",
    ),
    Spec(
        "STATS_PASSWORD",
        "the password of the statistics page",
        "write 1 to 128 printable signs",
        otherwise="none, and the page listens on 127.0.0.1 only",
        secret=True,
    ),
    Spec(
        "ADVERT_INT",
        "the time between two VRRP advertisements",
        "write a whole number from 1 to 255",
        default="1",
        unit="seconds",
    ),
    Spec(
        "CHECK_INTERVAL",
        "the time between two checks of the proxy by keepalived",
        "write a whole number from 1 to 255",
        default="2",
        unit="seconds",
    ),
    Spec(
        "CHECK_FALL",
        "after how many failed checks in a row a node counts as failed",
        "write a whole number from 1 to 255",
        default="2",
        unit="checks",
    ),
    Spec(
        "CHECK_RISE",
        "after how many passed checks in a row a node counts as well again",
        "write a whole number from 1 to 255",
        default="2",
        unit="checks",
    ),
    Spec(
        "SSH_USER",
        "the user to log in as on the nodes",
        "write a user name made of letters, digits and . _ -",
        default="root",
    ),
    Spec(
        "SSH_PORT",
        "the port of the nodes' sshd",
        "write a port from 1 to 65535",
        default="22",
        unit="TCP port",
    ),
    Spec(
        "SSH_KEY",
        "the private key to log in with; ~ is your home directory",
        "write the path of a private key",
        otherwise="your ssh_config, your agent and the usual files in ~/.ssh",
        unit="path",
    ),
    Spec(
        "SSH_GATEWAY",
        "the host to jump through to the nodes",
        "write [USER@]HOST[:PORT]",
        otherwise="what your ssh_config says (ProxyJump)",
        unit="[user@]host[:port]",
    ),
    Spec(
        "SSH_KNOWN_HOSTS",
        "the file with the host keys of the nodes; ~ is your home directory",
        "write the path of a known_hosts file",
        otherwise="what your ssh_config says, else ~/.ssh/known_hosts",
        unit="path",
    ),
    Spec(
        "SUDO",
        "whether programs that need root are run through sudo; auto: unless SSH_USER is root",
        "write auto, yes or no",
        default="auto",
        unit="auto, yes or no",
    ),
)
SPECS: Mapping[str, Spec] = {spec.name: spec for spec in VARIABLES}
KNOWN = tuple(SPECS)

# Other tools source the same file. These names are theirs, however much they look like ours.
UNRELATED = frozenset(
    """
    BOOTSTRAP_TOKEN CLUSTER_CIDR CLUSTER_DNS_DOMAIN CLUSTER_DNS_SVC_IP CLUSTER_KUBERNETES_SVC_IP CLUSTER_NAME
    CONTAINERD_DIR DOCKER_DIR ENCRYPTION_KEY ETCD_DATA_DIR ETCD_ENDPOINTS ETCD_IPS ETCD_NAMES ETCD_NODES ETCD_WAL_DIR
    FLANNEL_ETCD_PREFIX IFACE K8S_DIR MASTER_IP MASTER_IPS MASTER_NAMES NODE_IP NODE_NAME NODE_PORT_RANGE POD_CIDR
    SERVICE_CIDR SSH_OPTS VIP WORKER_IPS WORKER_NAMES
    """.split()  # noqa: SIM905 - a paragraph of names reads better than a column of strings
)
_ALIKE = 0.8  # difflib's ratio


# Faults


@dataclass(frozen=True, slots=True)
class Fault:
    """Say what is wrong with one variable, and what would be right."""

    location: Location
    name: str
    wrong: str
    right: str

    def __str__(self) -> str:
        return f"{self.location}: {self.name}: {self.wrong}; {self.right}"


class InvalidEnvironment(EnvironmentFileError):  # noqa: N818 - reads as what it is: InvalidEnvironment(faults)
    """The environment file has faults: all of them, one on a line. `warnings` may tell where they come from."""

    def __init__(self, faults: Sequence[Fault], warnings: Sequence[str] = ()) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = tuple(faults)
        self.warnings = tuple(warnings)


class _Wrong(Exception):  # noqa: N818 - never leaves this module
    """One value is not as it must be; without `right`, the table says what would be."""

    def __init__(self, wrong: str, right: str | None = None) -> None:
        super().__init__(wrong)
        self.wrong = wrong
        self.right = right


_PLAIN = re.compile(r"[A-Za-z0-9_.:/@%+,~=\[\]-]{1,60}")
_SHOWN_SIGNS = 60


def _shown(text: str) -> str:
    """Return a value for a message: on one line, not too long, and with its odd signs visible."""
    if _PLAIN.fullmatch(text):
        return text
    return ascii(text if len(text) <= _SHOWN_SIGNS else text[: _SHOWN_SIGNS - 3] + "...")


# Values: text in, value out, or _Wrong. Whitelists only: whatever passes is safe in every file and on every command
# line that it is rendered into.


T = TypeVar("T")
Parse = Callable[[str], T]
Resolve = Callable[[str], Collection[str]]

_WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_DOTTED = re.compile(r"[0-9.]+")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMERIC_END = re.compile(r"(?:.*\.)?[0-9]+")
_HOSTNAME_LENGTH = 253
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,14}")
_SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}")
_STATS_USER = re.compile(r"[A-Za-z0-9_.@-]{1,32}")
_SSH_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_URL = re.compile(r"https://(?P<host>[^/:@]*)(?::(?P<port>[^/:@]*))?")
_URL_WITH_PREFIX = re.compile(r"https://[0-9.]+/[0-9]{1,2}:.*")
_GATEWAY = re.compile(r"(?:(?P<user>[^@:]*)@)?(?P<host>[^@:]*)(?::(?P<port>[^@:]*))?")
_PASSWORD_LENGTH = 128
_PATH_LENGTH = 4096
_THIS_NETWORK = IPv4Network("0.0.0.0/8")


def _number(low: int, high: int) -> Parse[int]:
    """Return the parser of whole numbers in a range, in plain decimal digits."""

    def parse(text: str) -> int:
        if not _WHOLE_NUMBER.fullmatch(text):
            raise _Wrong(f"{_shown(text)} is not a whole number in plain digits")
        if not low <= int(text) <= high:
            raise _Wrong(f"{text} is not between {low} and {high}")
        return int(text)

    return parse


_port = _number(1, 65535)
_small = _number(1, 255)


def _health_check(text: str) -> HealthCheck:
    match text:
        case "readyz" | "tcp":
            return text
        case _:
            raise _Wrong(f"{_shown(text)} is not a health check")


def _balance(text: str) -> Balance:
    match text:
        case "source" | "roundrobin" | "leastconn":
            return text
        case _:
            raise _Wrong(f"{_shown(text)} is not a way to balance")


def _sudo(text: str) -> Sudo:
    match text:
        case "auto" | "yes" | "no":
            return text
        case _:
            raise _Wrong(f"{_shown(text)} is not a choice")


def _word(pattern: re.Pattern[str], kind: str) -> Parse[str]:
    """Return the parser of texts that match a pattern as a whole."""

    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise _Wrong(f"{_shown(text)} is not {kind}")
        return text

    return parse


_interface = _word(_INTERFACE, "the name of a network interface")
_server_name = _word(_SERVER_NAME, "a name that the proxy accepts")
_stats_user = _word(_STATS_USER, "a name for the statistics page")
_ssh_user = _word(_SSH_USER, "a user name")


def _address(text: str) -> IPv4Address:
    """Parse the address of one machine."""
    if _is_ipv6(text):
        raise _Wrong(f"{_shown(text)} is an IPv6 address, and only IPv4 is supported so far", "write an IPv4 address")
    try:
        address = IPv4Address(text)
    except ValueError:
        raise _Wrong(
            f"{_shown(text)} is not an IPv4 address", "write four numbers from 0 to 255, as in 192.0.2.10"
        ) from None
    kind = _unusable(address)
    if kind:
        raise _Wrong(f"{address} is {kind}", "write the address of one machine on the network")
    return address


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _unusable(address: IPv4Address) -> str:
    """Return why an address cannot be one machine's on a network, "" if it can."""
    if address == IPv4Address("255.255.255.255"):
        return "the broadcast address"
    if address.is_unspecified:
        return "the unspecified address"
    if address.is_loopback:
        return "a loopback address"
    if address.is_multicast:
        return "a multicast address"
    if address.is_reserved or address in _THIS_NETWORK:
        return "a reserved address"
    return ""


def _vip(text: str) -> Vip:
    """Parse `address` or `address/prefix`."""
    base, slash, length = text.partition("/")
    address = _address(base)
    if not slash:
        return Vip(address, None)
    try:
        prefix = _number(1, 32)(length)
    except _Wrong as wrong:
        raise _Wrong(f"its prefix {wrong.wrong}", f"write {address}/24, with a prefix from 1 to 32") from None
    network = IPv4Network((address, prefix), strict=False)
    if prefix < 31 and address in (network.network_address, network.broadcast_address):
        which = "network" if address == network.network_address else "broadcast"
        raise _Wrong(f"{address} is the {which} address of {network}", "write an address inside that network")
    return Vip(address, prefix)


def _host(text: str) -> str:
    """Parse an IPv4 address or a DNS name."""
    if _DOTTED.fullmatch(text) or _is_ipv6(text):
        return str(_address(text))
    if ":" in text:
        raise _Wrong(f"{_shown(text)} has a colon, and a port has a variable of its own")
    if not _is_hostname(text):
        raise _Wrong(f"{_shown(text)} is neither an IPv4 address nor a DNS name")
    return text


def _is_hostname(text: str) -> bool:
    """Tell whether a text is a host name (RFC 1123 2.1) that nobody can take for an address."""
    is_name = len(text) <= _HOSTNAME_LENGTH and _HOSTNAME.fullmatch(text) is not None
    return is_name and not _NUMERIC_END.fullmatch(text)


def _node_name(text: str) -> str:
    """Parse the name of a node; its own address will do, which only the whole can tell."""
    if not _is_hostname(text) and not _DOTTED.fullmatch(text):
        raise _Wrong(f"{_shown(text)} is not a host name")
    return text


def _password(text: str) -> Secret:
    """Parse a password; what is wrong with it never shows it."""
    if not text.isprintable():
        raise _Wrong("has a sign that is not printable")
    if len(text) > _PASSWORD_LENGTH:
        raise _Wrong(f"has {len(text)} signs")
    return Secret(text)


def _path(text: str) -> Path:
    """Parse the path of a file on this host."""
    if not text.isprintable() or len(text) > _PATH_LENGTH:
        raise _Wrong(f"{_shown(text)} is not a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise _Wrong(f"{_shown(text)} is in the home directory of a user who has none") from None


def _gateway(text: str) -> str:
    """Parse `[user@]host[:port]`."""
    match = _GATEWAY.fullmatch(text)
    if match is None or not match["host"]:
        raise _Wrong(f"{_shown(text)} does not name a host to jump through")
    if match["user"] is not None:
        _ssh_user(match["user"])
    _host(match["host"])
    if match["port"] is not None:
        _port(match["port"])
    return text


class _Url(NamedTuple):
    """The parts of KUBE_APISERVER."""

    text: str
    host: str
    port: int


def _url(text: str) -> _Url:
    """Parse `https://host:port`."""
    match = _URL.fullmatch(text)
    if _URL_WITH_PREFIX.fullmatch(text):
        raise _Wrong(f"{_shown(text)} has the prefix of MASTER_VIP in it", "write https://${MASTER_VIP%/*}:PORT")
    if match is None:
        raise _Wrong(f"{_shown(text)} is not https://HOST:PORT")
    if not match["host"]:
        raise _Wrong(f"{_shown(text)} has no host: a variable may be missing")
    if not match["port"]:
        raise _Wrong(f"{_shown(text)} has no port")
    return _Url(text, _host(match["host"]), _port(match["port"]))


# Reading values, and gathering what is wrong with them


class _Reading:
    """Take values out of an environment, and remember every fault on the way."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.faults: list[Fault] = []

    def locate(self, name: str) -> Location:
        """Return where a variable is set, or the file where it is not."""
        variable = self.environment.variables.get(name)
        return variable.location if variable else Location(self.environment.path, None)

    def fault(self, name: str, wrong: str, right: str | None = None) -> None:
        """Remember a fault; without `right`, the table says what would be right."""
        self.faults.append(Fault(self.locate(name), name, wrong, right or SPECS[name].right))

    def one(self, name: str, parse: Parse[T]) -> T | None:
        """Return the value of a scalar, parsed; None if it is faulty, or neither set nor in need of a value."""
        variable = self._variable(name)
        default = SPECS[name].default
        if variable is None:
            return None if name in self.environment.variables or not default else parse(default)
        if variable.is_array or len(variable.values) != 1:
            self.fault(name, "is an array", _as_scalar(name, variable))
            return None
        return next(iter(self._parsed(name, variable.values, parse)), None)

    def many(self, name: str, parse: Parse[T], same: Callable[[T], object]) -> tuple[T, ...]:
        """Return the elements of an array that are right; `same` gives what no two of them may have in common."""
        variable = self._variable(name)
        if variable is None:
            return ()
        if not variable.is_array:
            self.fault(name, "is not an array", _as_array(name, variable))
            return ()
        if not variable.values:
            self.fault(name, "is empty", _or_nothing(name))
        values = tuple(self._parsed(name, variable.values, parse))
        self._refuse_duplicates(name, values, same)
        return values

    def count(self, name: str) -> int | None:
        """Return how many elements an array has, faulty ones included; None if it is no array."""
        variable = self._variable(name)
        return len(variable.values) if variable and variable.is_array else None

    def _variable(self, name: str) -> Variable | None:
        """Return a variable whose text has no hole."""
        variable = self.environment.variables.get(name)
        return None if variable is None or any(self._holes(variable)) else variable

    def _parsed(self, name: str, values: Sequence[str], parse: Parse[T]) -> Iterator[T]:
        """Yield the values that can be parsed, and remember what is wrong with the others."""
        for number, text in enumerate(values, 1):
            if not text:
                which = "is empty" if len(values) == 1 else f"is empty in place {number}"
                self.fault(name, which, _or_nothing(name))
                continue
            try:
                yield parse(text)
            except _Wrong as wrong:
                self.fault(name, wrong.wrong, wrong.right)

    def _refuse_duplicates(self, name: str, values: Sequence[T], same: Callable[[T], object]) -> None:
        keys = [same(value) for value in values]
        for key in dict.fromkeys(key for key in keys if keys.count(key) > 1):
            self.fault(name, f"has {values[keys.index(key)]} {keys.count(key)} times", "write each only once")

    def refuse_holes(self) -> None:
        """Remember a fault for every reference to a variable that is not set where it is used."""
        for variable in self.environment.variables.values():
            for name, wrong in self._holes(variable):
                self.fault(variable.name, wrong, self._instead_of(name))

    def _holes(self, variable: Variable) -> Iterator[tuple[str, str]]:
        """Yield what a variable refers to that is not set, and how to say it."""
        for name in dict.fromkeys(references(variable.text)):
            first = self.environment.names.get(name)
            if first is None:
                if name not in self.environment.provided and name not in self.environment.variables:
                    yield name, f"refers to ${name}, which is not set"
            elif _is_later(first, variable.location):
                yield name, f"refers to ${name}, which is not set before line {first.line}"

    def _instead_of(self, name: str) -> str:
        """Return what to do about a reference to a name that is not set."""
        if name in self.environment.names:
            return f"set {name} above it"
        alike = _most_alike(name, [*self.environment.names, *self.environment.variables])
        return f"did you mean ${alike}?" if alike else f"set {name} in the file: it is read in an empty environment"

    def refuse_missing(self) -> None:
        """Remember a fault for every required variable that is not set."""
        for spec in VARIABLES:
            if spec.required and spec.name not in self.environment.variables:
                self.fault(spec.name, "is not set", spec.right + self._instead_of_missing(spec.name))

    def _instead_of_missing(self, name: str) -> str:
        """Return a question about the name in the file that looks like a missing one."""
        unknown = [other for other in self.environment.names if other not in SPECS]
        alike = _most_alike(name, unknown)
        if alike is None:
            return ""
        location = self.environment.names[alike]
        place = f"line {location.line}" if location.path == self.environment.path and location.line else f"{location}"
        return f", or did you mean {name} where {place} says {alike}?"


def _is_later(first: Location, use: Location) -> bool:
    """Tell whether a variable was first set after a use of it; lines of different files have no order."""
    return first.path == use.path and first.line is not None and use.line is not None and first.line > use.line


def _as_array(name: str, variable: Variable) -> str:
    """Return how to write as an array what the file has as one text."""
    words = [word for text in variable.values for word in re.split(r"[\s,]+", text) if word]
    is_plain = 0 < len(words) <= MOST_NODES and all(map(_PLAIN.fullmatch, words))
    return f"write {name}=({' '.join(words)})" if is_plain else SPECS[name].right


def _as_scalar(name: str, variable: Variable) -> str:
    """Return how to write as one text what the file has as an array."""
    is_plain = len(variable.values) == 1 and _PLAIN.fullmatch(variable.values[0]) and not SPECS[name].secret
    return f"write {name}={variable.values[0] if is_plain else 'VALUE'}"


def _or_nothing(name: str) -> str:
    """Return what to do about an empty variable."""
    spec = SPECS[name]
    return spec.right if spec.required else f"{spec.right}, or leave the line out"


def _most_alike(name: str, others: Collection[str]) -> str | None:
    """Return the name that another one looks like a misspelling of, None if none does."""
    for other in others:
        if other != name and _letters(other) == _letters(name):
            return other
    alike = difflib.get_close_matches(name, [other for other in others if other != name], n=1, cutoff=_ALIKE)
    return alike[0] if alike else None


def _letters(name: str) -> str:
    """Return a name without its case and its underscores."""
    return name.replace("_", "").upper()


# From the variables to the cluster


@dataclass(frozen=True, slots=True)
class _Draft:
    """Every value that is right by itself; None, or fewer elements, where something is wrong."""

    addresses: tuple[IPv4Address, ...]
    interface: str | None
    vip: Vip | None
    names: tuple[str, ...]
    hosts: tuple[str, ...]
    server_names: tuple[str, ...]
    source_port: int | None
    destination_port: int | None
    url: _Url | None
    router_id: int | None
    health_check: HealthCheck | None
    balance: Balance | None
    stats_port: int | None
    stats_user: str | None
    stats_password: Secret | None
    advert_interval_seconds: int | None
    check_interval_seconds: int | None
    check_fall: int | None
    check_rise: int | None
    ssh_user: str | None
    ssh_port: int | None
    ssh_key: Path | None
    ssh_gateway: str | None
    ssh_known_hosts: Path | None
    sudo: Sudo | None

    @property
    def backends(self) -> tuple[str, ...]:
        """Return the hosts of the apiservers: the nodes, where APISERVER_IPS is not set."""
        return self.hosts or tuple(map(str, self.addresses))


def understand(environment: Environment, *, resolve: Resolve | None = None) -> Cluster:
    """Return the cluster that the environment file describes.

    `resolve` gives the addresses of a DNS name, none if it has none; it is asked only about a name in KUBE_APISERVER.
    Raises InvalidEnvironment with every fault of the file.
    """
    reading = _Reading(environment)
    reading.refuse_missing()
    reading.refuse_holes()
    draft = _draft(reading)
    for compare in (_compare_lengths, _compare_names, _compare_vip, _compare_ports, _compare_url):
        compare(draft, reading)
    warnings = (*environment.warnings, *_misspellings(environment))
    if reading.faults:
        raise InvalidEnvironment(_in_order(reading.faults, environment.path), warnings)
    return _assemble(draft, environment, (*warnings, *_doubts(draft, reading, resolve or _resolve)))


def load(path: Path) -> Cluster:
    """Read and understand one environment file. Raises EnvironmentFileError."""
    return understand(read(path, KNOWN))


def describe(cluster: Cluster) -> Sequence[Setting]:
    """Return every variable in the order of VARIABLES, with its value (secrets masked) and where it comes from."""
    return cluster.settings


def _in_order(faults: Sequence[Fault], path: Path) -> list[Fault]:
    """Return the faults in the order of the file's lines, what is missing first, other files last."""

    def place(fault: Fault) -> tuple[bool, str, int]:
        return fault.location.path != path, str(fault.location.path), fault.location.line or 0

    return sorted(faults, key=place)


def _draft(reading: _Reading) -> _Draft:
    """Read every variable by itself."""
    return _Draft(
        addresses=reading.many("NODE_IPS", _address, same=int),
        interface=reading.one("VIP_IF", _interface),
        vip=reading.one("MASTER_VIP", _vip),
        names=reading.many("NODE_NAMES", _node_name, same=str.casefold),
        hosts=reading.many("APISERVER_IPS", _host, same=str.casefold),
        server_names=reading.many("APISERVER_NAMES", _server_name, same=str),
        source_port=reading.one("APISERVER_SRC_PORT", _port),
        destination_port=reading.one("APISERVER_DEST_PORT", _port),
        url=reading.one("KUBE_APISERVER", _url),
        router_id=reading.one("ROUTER_ID", _small),
        health_check=reading.one("HEALTH_CHECK", _health_check),
        balance=reading.one("BALANCE", _balance),
        stats_port=reading.one("STATS_PORT", _port),
        stats_user=reading.one("STATS_USER", _stats_user),
        stats_password=reading.one("STATS_PASSWORD", _password),
        advert_interval_seconds=reading.one("ADVERT_INT", _small),
        check_interval_seconds=reading.one("CHECK_INTERVAL", _small),
        check_fall=reading.one("CHECK_FALL", _small),
        check_rise=reading.one("CHECK_RISE", _small),
        ssh_user=reading.one("SSH_USER", _ssh_user),
        ssh_port=reading.one("SSH_PORT", _port),
        ssh_key=reading.one("SSH_KEY", _path),
        ssh_gateway=reading.one("SSH_GATEWAY", _gateway),
        ssh_known_hosts=reading.one("SSH_KNOWN_HOSTS", _path),
        sudo=reading.one("SUDO", _sudo),
    )


# What only several variables together can tell


def _compare_lengths(_: _Draft, reading: _Reading) -> None:
    """Refuse lists that belong together and differ in length, and more nodes than there are priorities."""
    nodes = reading.count("NODE_IPS")
    if nodes is not None and nodes > MOST_NODES:
        reading.fault("NODE_IPS", f"has {nodes} nodes", f"write at most {MOST_NODES}: each needs a priority of its own")
    of = "APISERVER_IPS" if "APISERVER_IPS" in reading.environment.variables else "NODE_IPS"
    for names, hosts in (("NODE_NAMES", "NODE_IPS"), ("APISERVER_NAMES", of)):
        named, wanted = reading.count(names), reading.count(hosts)
        if named is not None and wanted is not None and named != wanted:
            wrong = f"has a length of {named}, and {hosts} ({reading.locate(hosts)}) of {wanted}"
            reading.fault(names, wrong, f"write one name for each of {hosts}, in the same order")


def _compare_names(draft: _Draft, reading: _Reading) -> None:
    """Refuse a name of a node that is an address, unless it is the node's own."""
    if (len(draft.names), len(draft.addresses)) != (reading.count("NODE_NAMES"), reading.count("NODE_IPS")):
        return
    for name, address in zip(draft.names, map(str, draft.addresses), strict=False):
        if _DOTTED.fullmatch(name) and name != address:
            reading.fault("NODE_NAMES", f"{_shown(name)} is not a host name")


def _compare_vip(draft: _Draft, reading: _Reading) -> None:
    """Refuse a VIP that a machine has as its own address."""
    if draft.vip is None:
        return
    right = "write an address that no machine has"
    if draft.vip.address in draft.addresses:
        reading.fault("MASTER_VIP", f"{draft.vip} is the address of a node", right)
    elif str(draft.vip) in draft.hosts:
        reading.fault("MASTER_VIP", f"{draft.vip} is the address of an apiserver", right)


def _compare_ports(draft: _Draft, reading: _Reading) -> None:
    """Refuse a port of the nodes that two programs would listen on."""
    ports = {
        "APISERVER_DEST_PORT": draft.destination_port,
        "STATS_PORT": draft.stats_port,
        "SSH_PORT": draft.ssh_port,
    }
    if _runs_apiservers(draft):
        ports["APISERVER_SRC_PORT"] = draft.source_port
    for one, other in itertools.combinations(ports, 2):
        if ports[one] is not None and ports[one] == ports[other]:
            blamed, taker = _blamed(one, other, reading)
            why = ", and apiservers run on the nodes" if "APISERVER_SRC_PORT" in (one, other) else ""
            reading.fault(blamed, f"{ports[one]} is {taker} already{why}", "write another port")


def _runs_apiservers(draft: _Draft) -> bool:
    """Tell whether an apiserver runs on one of the nodes, as far as their addresses and names tell."""
    nodes = {str(address) for address in draft.addresses} | {name.casefold() for name in draft.names}
    return any(host.casefold() in nodes for host in draft.backends)


def _blamed(one: str, other: str, reading: _Reading) -> tuple[str, str]:
    """Return of two variables the one that the file sets, or sets later, and then the other."""
    places = [reading.locate(name).line or 0 for name in (one, other)]
    return (one, other) if places[0] > places[1] else (other, one)


def _compare_url(draft: _Draft, reading: _Reading) -> None:
    """Refuse a URL for clients that leads elsewhere than to the VIP and the proxy's port."""
    if draft.url is None:
        return
    if draft.destination_port is not None and draft.url.port != draft.destination_port:
        wrong = f"its port is {draft.url.port}, and APISERVER_DEST_PORT is {draft.destination_port}"
        reading.fault("KUBE_APISERVER", wrong, f"write https://{draft.url.host}:{draft.destination_port}")
    if draft.vip is not None and _DOTTED.fullmatch(draft.url.host) and draft.url.host != str(draft.vip):
        wrong = f"its host is {draft.url.host}, and MASTER_VIP is {draft.vip}"
        reading.fault("KUBE_APISERVER", wrong, f"write https://{draft.vip}:{draft.url.port}")


# Warnings


def _misspellings(environment: Environment) -> Iterator[str]:
    """Yield a warning for each unknown name that looks like a known one, unless the file itself makes use of it."""
    used = {name for variable in environment.variables.values() for name in references(variable.text)}
    for name, location in environment.names.items():
        if name in SPECS or name in UNRELATED or name in used:
            continue
        alike = _most_alike(name, KNOWN)
        if alike:
            yield f"{location}: {name}: exlb does not know this name; did you mean {alike}?"


def _doubts(draft: _Draft, reading: _Reading, resolve: Resolve) -> Iterator[str]:
    """Yield what is not wrong but probably not meant."""
    if draft.stats_password is None and "STATS_USER" in reading.environment.variables:
        yield f"{reading.locate('STATS_USER')}: STATS_USER: has no effect; set STATS_PASSWORD as well"
    if draft.url is None or draft.vip is None or _DOTTED.fullmatch(draft.url.host):
        return
    addresses = sorted(resolve(draft.url.host))
    if str(draft.vip) not in addresses:
        found = f"resolves to {', '.join(map(_shown, addresses))}" if addresses else "does not resolve"
        where = reading.locate("KUBE_APISERVER")
        yield f"{where}: KUBE_APISERVER: {draft.url.host} {found}; it should resolve to the VIP {draft.vip}"


def _resolve(name: str) -> Collection[str]:
    """Return the IPv4 addresses that this host finds for a name, none if it has none."""
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return {str(address[0]) for *_, address in found}


# Assembly, once nothing is wrong any more


def _sure(value: T | None) -> T:
    """Return a value that a fault would have been reported for if it were missing."""
    assert value is not None
    return value


def _assemble(draft: _Draft, environment: Environment, warnings: tuple[str, ...]) -> Cluster:
    """Make the cluster of a draft without faults."""
    nodes = _nodes(draft)
    listener = _listener(draft)
    return Cluster(
        path=environment.path,
        nodes=nodes,
        vip=_sure(draft.vip),
        listeners=(listener,),
        stats=Stats(_sure(draft.stats_port), _sure(draft.stats_user), draft.stats_password),
        vrrp=_vrrp(draft),
        ssh=_ssh(draft),
        kube_apiserver=draft.url.text if draft.url else None,
        warnings=warnings,
        settings=tuple(_settings(environment, nodes, listener)),
    )


def _nodes(draft: _Draft) -> tuple[Node, ...]:
    names = draft.names or tuple(map(str, draft.addresses))
    pairs = zip(names, draft.addresses, strict=True)
    return tuple(Node(name, address, _sure(draft.interface), index) for index, (name, address) in enumerate(pairs))


def _listener(draft: _Draft) -> Listener:
    port = _sure(draft.source_port)
    pairs = zip(draft.server_names or draft.backends, draft.backends, strict=True)
    return Listener(
        name="kube-master",
        port=_sure(draft.destination_port),
        backends=tuple(Apiserver(name, host, port) for name, host in pairs),
        health_check=_sure(draft.health_check),
        balance=_sure(draft.balance),
    )


def _vrrp(draft: _Draft) -> Vrrp:
    return Vrrp(
        router_id=_sure(draft.router_id),
        advert_interval_seconds=_sure(draft.advert_interval_seconds),
        check_interval_seconds=_sure(draft.check_interval_seconds),
        check_fall=_sure(draft.check_fall),
        check_rise=_sure(draft.check_rise),
    )


def _ssh(draft: _Draft) -> SshSettings:
    return SshSettings(
        user=_sure(draft.ssh_user),
        port=_sure(draft.ssh_port),
        key=draft.ssh_key,
        gateway=draft.ssh_gateway,
        known_hosts=draft.ssh_known_hosts,
        sudo=_sure(draft.sudo),
    )


def _settings(environment: Environment, nodes: Sequence[Node], listener: Listener) -> Iterator[Setting]:
    """Yield one line per variable: what the file says, else what holds instead."""
    derived = {
        "NODE_NAMES": " ".join(node.name for node in nodes),
        "APISERVER_IPS": " ".join(backend.host for backend in listener.backends),
        "APISERVER_NAMES": " ".join(backend.name for backend in listener.backends),
    }
    for spec in VARIABLES:
        variable = environment.variables.get(spec.name)
        if variable is None:
            yield Setting(spec.name, derived.get(spec.name, spec.default), "default")
        else:
            value = MASK if spec.secret else " ".join(variable.values)
            yield Setting(spec.name, value, str(variable.location))
