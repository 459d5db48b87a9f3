"""What one probe of a node found, in types; `answers` makes them of what the node said."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_address

from exlb_fab.certificates import Certificate
from exlb_fab.cluster import Address as IpAddress
from exlb_fab.cluster import Cluster, Node, Vip
from exlb_fab.dump import Instance
from exlb_fab.errors import ExlbError
from exlb_fab.firewall import Firewall
from exlb_fab.host import Neighbour, Space, Span, Tracker
from exlb_fab.platforms import PROGRAMS, Platform, Version
from exlb_fab.platforms import platform as platform_of
from exlb_fab.proxies import Proxy, ProxyState
from exlb_fab.rendering import Target
from exlb_fab.selinux import Selinux
from exlb_fab.system import Settings

# Source: kubernetes apiserver: /readyz says `ok` or a list of its checks, all else is an object of the kind Status, on
# several lines for curl; but for what its filters say in plain text.
_APISERVERS_WORDS = re.compile(r'ok\s*$|\[[+-]\]|\{\s*"kind":\s*"Status"|Unauthorized\s*$|Too many requests')


@dataclass(frozen=True, slots=True)
class System:
    """The operating system of a node; `time` is what its clock said when it was asked, in seconds since 1970."""

    name: str
    host: str
    container: str | None
    user_id: int
    families: tuple[str, ...]
    managers: tuple[str, ...]
    time: float

    @property
    def platform(self) -> Platform | None:
        return platform_of(self.families, self.managers)


@dataclass(frozen=True, slots=True)
class Unit:
    """One systemd unit: `load` and `active` in systemd's own words, and the journal's end where it does not run.

    `changed` is when its state last changed, a reload included, in seconds of the node's clock.
    """

    load: str
    active: str
    sub: str
    file_state: str
    journal: tuple[str, ...] = ()
    changed: float | None = None

    @property
    def running(self) -> bool:
        return self.active in ("active", "reloading")

    @property
    def masked(self) -> bool:
        return self.load == "masked"

    @property
    def enabled(self) -> bool:
        """Tell whether it starts at boot: what is enabled at run time only is forgotten by then. systemctl(1)."""
        return self.file_state in ("enabled", "static", "generated", "alias")


@dataclass(frozen=True, slots=True)
class Address:
    """One address on one interface."""

    interface: str
    address: IPv4Interface | IPv6Interface

    def __str__(self) -> str:
        return f"{self.address} on {self.interface}"


@dataclass(frozen=True, slots=True)
class Socket:
    """One listening TCP socket; `address` is None where it listens on all of them, of both families."""

    address: str | None
    port: int
    process: str | None

    @property
    def local(self) -> bool:
        """Tell whether only the node itself can reach it."""
        return self.address is not None and ip_address(self.address).is_loopback

    def covers(self, address: IpAddress, port: int) -> bool:
        """Tell whether nobody else can listen on an address (0.0.0.0 and ::, on all of a family) and port."""
        if self.port != port or self.address is None:
            return self.port == port
        mine = ip_address(self.address)
        return mine.version == address.version and (mine == address or mine.is_unspecified or address.is_unspecified)


@dataclass(frozen=True, slots=True)
class FileFact:
    """What is at a path: nothing, a regular file (`sha256` is set), or something else (`kind` says what).

    `changed` is when it was written or put there, in seconds of the node's clock.
    """

    kind: str
    mode: int = 0
    owner: str = ""
    sha256: str | None = None
    changed: float | None = None

    @property
    def absent(self) -> bool:
        return self.kind == "absent"


@dataclass(frozen=True, slots=True)
class Reply:
    """How a node fared as a client of a URL: the HTTP status, or why there was none; `tcp://` has none.

    `accepted` tells that something took the connection, even if no TLS server was behind it; `late` that it then said
    too little for as long as a client of ours waits. `body` is the beginning of what came with the status, None where
    nobody looked.
    """

    code: int | None
    error: str
    accepted: bool
    body: str | None = None
    late: bool = False

    @property
    def foreign(self) -> bool:
        """Tell whether what was said to a question for /readyz is surely not what an apiserver says."""
        return self.body is not None and not _APISERVERS_WORDS.match(self.body.lstrip())

    @property
    def of_apiserver(self) -> bool:
        """Tell whether an apiserver answered, with any status."""
        return self.code is not None and not self.foreign


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One file of a generation that a node keeps: as it was at `path`, or (`sha256` is None) not there.

    `number` is its place in the generation.
    """

    number: str
    kind: str
    path: str
    mode: int
    owner: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Kept:
    """One generation that a node keeps; `meta` says when, who, from where and what."""

    number: int
    meta: Mapping[str, str]
    files: tuple[KeptFile, ...]


@dataclass(frozen=True, slots=True)
class Generations:
    """The generations of a node: `current` is None before its first push.

    `edited` tells that the active files are not those of `current`: somebody else wrote them.
    `pruned` is the newest one that is no longer kept. `unfinished` is (new, previous) of a change that has not ended,
    `changing` tells that one runs right now.
    """

    current: int | None = None
    edited: bool = False
    kept: tuple[int, ...] = ()
    pruned: int | None = None
    unfinished: tuple[int, int] | None = None
    changing: bool = False

    @property
    def newest(self) -> int:
        return max(*self.kept, *(self.unfinished or ()), self.current or 0, 0)

    @property
    def settled(self) -> bool:
        return self.unfinished is None and not self.changing


@dataclass(frozen=True, slots=True)
class History:
    """What a node tells of its past: the generations that it keeps, oldest first, and a line per change."""

    kept: tuple[Kept, ...]
    journal: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a node's lock, from where, since when, and for what."""

    who: str
    origin: str
    since: str
    what: str

    def __str__(self) -> str:
        return f"{self.who} from {self.origin}, since {self.since}: {self.what}"


@dataclass(frozen=True, slots=True)
class Facts:
    """All that one probe of one node found; what was not asked is empty.

    `unmanaged` are the files that the proxy reads beside the one that exlb writes. `instances` are those of the running
    keepalived, and `keepalived_silence` is why there are none. `kernel` are settings of it, by name. `trackers` are the
    checks of its file, `strays` the processes (PID and command line) that have the proxy's name and are not of its
    unit, `complaints` what it has logged of adverts that it dropped. `neighbours` are what its kernel knows of each VIP
    (by address), and `arp_answers` the MACs that answered when it asked for one; `macs` are those of its own
    interfaces, `down` which of them carry nothing. `certificates` are those that it was shown, by `host:port`. `asked`
    is when, by the bastion's clock, and `clock` what its own said at the end.
    """

    system: System | None = None
    programs: frozenset[str] = frozenset()
    packages: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, Unit] = field(default_factory=dict)
    proxy_version: Version | None = None
    proxy_services: frozenset[str] = frozenset()
    keepalived_version: Version | None = None
    addresses: tuple[Address, ...] = ()
    sockets: tuple[Socket, ...] = ()
    files: Mapping[str, FileFact] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    proxy_state: ProxyState | None = None
    proxy_silence: str = ""
    unmanaged: tuple[str, ...] = ()
    instances: tuple[Instance, ...] = ()
    keepalived_silence: str = ""
    generations: Generations = Generations()
    history: History | None = None
    holder: Holder | None = None
    firewall: Firewall | None = None
    selinux: Selinux = field(default_factory=Selinux)
    pings: Mapping[str, bool] = field(default_factory=dict)
    replies: Mapping[str, Reply] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    kernel: Mapping[str, str] = field(default_factory=dict)
    trackers: tuple[Tracker, ...] = ()
    strays: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()
    neighbours: Mapping[str, tuple[Neighbour, ...]] = field(default_factory=dict)
    arp_answers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    macs: Mapping[str, str] = field(default_factory=dict)
    down: frozenset[str] = frozenset()
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    spaces: tuple[Space, ...] = ()
    clock: float | None = None
    asked: Span | None = None

    def interface_of(self, vip: Vip, *others: Vip) -> str | None:
        """Return the interface whose network contains a VIP, None where there is none or more than one.

        Only an address of the node's own counts: not that VIP, nor the others that move with it.
        """
        moving = {each.address for each in (vip, *others)}
        found = {
            each.interface
            for each in self.addresses
            if each.address.ip not in moving and vip.address in each.address.network and each.interface != "lo"
        }
        return found.pop() if len(found) == 1 else None

    def carrier(self, cluster: Cluster, node: Node) -> str | None:
        """Return the interface that carries the VIPs: the one that the file names, or that has their network."""
        return node.interface or self.interface_of(*cluster.vips)

    def target(self, cluster: Cluster) -> Target:
        """Return what the files of this node are rendered for."""
        return Target(
            proxy=self.proxy_version,
            keepalived=self.keepalived_version,
            services=self.proxy_services if self.proxy_version else None,
            interface=self.interface_of(*cluster.vips),
            contained=self.system is not None and self.system.container is not None,
            settings=self.settings,
        )

    def instance(self, vip: Vip) -> Instance | None:
        """Return the VRRP instance that has a VIP, None where the running keepalived has none, or does not tell."""
        return next((each for each in self.instances if vip.address in each.vips), None)

    def holds(self, address: IpAddress) -> bool:
        """Tell whether the node has the address on an interface. Addresses are compared, never their text."""
        return bool(self.places(address))

    def places(self, address: IpAddress) -> tuple[Address, ...]:
        """Return where the node has the address: it may have it on several interfaces, or with several prefixes."""
        return tuple(each for each in self.addresses if each.address.ip == address)

    def lacks(self, proxy: Proxy) -> tuple[str, ...]:
        """Return the programs that a node of this proxy needs and this one does not have."""
        return tuple(program for program in (proxy.process, *PROGRAMS) if program not in self.programs)


@dataclass(frozen=True, slots=True)
class Survey:
    """One probe of all nodes: facts of those that answered, the error of those that did not."""

    facts: Mapping[Node, Facts]
    errors: Mapping[Node, ExlbError]

    def holders(self, address: IpAddress) -> tuple[Node, ...]:
        return tuple(node for node, facts in self.facts.items() if facts.holds(address))


def missing_packages(proxy: Proxy, found: Platform, programs: Collection[str]) -> tuple[str, ...]:
    """Return the packages that bring what a node lacks, the proxy's first, each once."""
    own = () if proxy.process in programs else proxy.packages
    others = (package for program, package in found.packages.items() if program not in programs)
    return tuple(dict.fromkeys((*own, *others)))
