"""What one probe of a node found: the questions to ask, and pure parsers of the answers.

`node/probe.sh` answers a list of questions in one exec. A question is words with single blanks between them; an
answer is text and an exit status. Every parser raises FactsError with the first line that it does not understand.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

from exlb_fab import firewall, selinux
from exlb_fab.cluster import Address as IpAddress
from exlb_fab.cluster import Cluster, Node, Vip, bracketed
from exlb_fab.errors import ExlbError, FactsError
from exlb_fab.firewall import Firewall
from exlb_fab.platforms import (
    KEEPALIVED_PACKAGE,
    KEEPALIVED_UNIT,
    PROGRAMS,
    Platform,
    Version,
    parse_version,
)
from exlb_fab.platforms import platform as platform_of
from exlb_fab.proxies import PROXIES, Proxy, ProxyState
from exlb_fab.rendering import Target, paths
from exlb_fab.selinux import Selinux
from exlb_fab.system import DGRAM_QLEN, UNLIMITED, Link, Manager, Settings, UnitSettings, drop_in_path

END_MARK = "exlb-probe-end"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node said to one question."""

    text: str
    status: int


@dataclass(frozen=True, slots=True)
class System:
    """The operating system of a node."""

    name: str
    host: str
    container: str | None
    user_id: int
    families: tuple[str, ...]
    managers: tuple[str, ...]

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
        return self.file_state in ("enabled", "enabled-runtime", "static", "generated", "alias")


@dataclass(frozen=True, slots=True)
class Address:
    """One address on one interface."""

    interface: str
    address: IPv4Interface | IPv6Interface


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
    """How a node fared as a client of a URL: the HTTP status, or why there was none.

    `accepted` tells that something took the connection, even if no TLS server was behind it.
    """

    code: int | None
    error: str
    accepted: bool


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

    `unmanaged` are the files that the proxy reads beside the one that exlb writes.
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
    generations: Generations = Generations()
    history: History | None = None
    holder: Holder | None = None
    firewall: Firewall | None = None
    selinux: Selinux = field(default_factory=Selinux)
    pings: Mapping[str, bool] = field(default_factory=dict)
    replies: Mapping[str, Reply] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)

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

    def holds(self, address: IpAddress) -> bool:
        """Tell whether the node has the address on an interface. Addresses are compared, never their text."""
        return any(each.address.ip == address for each in self.addresses)

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


def vip_url(cluster: Cluster) -> str:
    """Return what a client asks through the VIP."""
    return f"https://{bracketed(str(cluster.vip))}:{cluster.apiserver_listener.port}/readyz"


def node_url(cluster: Cluster, node: Node) -> str:
    """Return what the node itself asks through its own port."""
    return f"https://{bracketed(str(cluster.own_address(node)))}:{cluster.apiserver_listener.port}/readyz"


def installation_questions(proxy: Proxy) -> list[str]:
    """Return what `install` has to know: the system, the programs with their packages, the units."""
    return [
        "system",
        " ".join(("programs", proxy.process, *PROGRAMS)),
        " ".join(("packages", *proxy.packages, KEEPALIVED_PACKAGE)),
        f"unit {proxy.unit}",
        f"unit {KEEPALIVED_UNIT}",
    ]


def configuration_questions(cluster: Cluster) -> list[str]:
    """Return what a push has to know of a node."""
    proxy = PROXIES[cluster.proxy]
    return [
        *installation_questions(proxy),
        *(f"unit-files {name}" for name in (proxy.unit, KEEPALIVED_UNIT)),
        "network",
        *([f"kernel {DGRAM_QLEN}"] if cluster.proxying.log == "syslog" else []),
        "proxy-version",
        "keepalived-version",
        "addresses",
        "listeners",
        *(f"file {path}" for path in paths(cluster)),
        "generation",
        "proxy-state",
        "proxy-others",
        *(["firewall"] if cluster.firewall != "ignore" else []),
        selinux.question(PROXIES[cluster.proxy]),
    ]


def service_questions(cluster: Cluster, node: Node) -> list[str]:
    """Return what tells whether a client on the node is served."""
    return [f"ping {cluster.vip}", f"request {vip_url(cluster)}", f"request {node_url(cluster, node)}"]


def parse_answers(text: str) -> dict[str, Answer]:
    """Return the answer to each question in the output of `node/probe.sh`.

    Raises FactsError where the output does not end as it should (the probe was cut short), or is not the probe's.
    """
    answers: dict[str, Answer] = {}
    question, lines, ended = "", list[str](), False
    # Only a newline ends a line here: what a file has in it, a form feed perhaps, must not begin one of the probe's.
    for line in text.split("\n"):
        match line[:2]:
            case "@ ":
                question, lines = line[2:], []
            case "| ":
                lines.append(line[2:])
            case "= ":
                answers[_asked(question)] = Answer("\n".join(lines), _status(line))
                question = ""
            case _ if line == END_MARK:
                ended = True
            case _:
                continue  # a profile that prints
    if not ended:
        # What a file has in it may be secret; what a shell says as it dies is not.
        said = "\n".join(line for line in text.split("\n") if not line.startswith("| ")).strip()
        raise FactsError(f"the probe ended early after {question or 'nothing'!r}: {said[-300:]!r}")
    return answers


def _asked(question: str) -> str:
    if not question.split():
        raise FactsError("the probe answers a question that nobody asked")
    return question


def _status(line: str) -> int:
    try:
        return int(line[2:])
    except ValueError as error:
        raise FactsError(f"expected = STATUS, not {line!r}") from error


def parse(text: str, proxy: Proxy) -> Facts:
    """Turn the output of `node/probe.sh` into facts. Raises FactsError."""
    answers = parse_answers(text)
    words = {tuple(question.split()): answer for question, answer in answers.items()}

    def text_of(*question: str) -> str:
        return words[question].text if question in words else ""

    def each(kind: str) -> Iterator[tuple[str, Answer]]:
        return ((" ".join(question[1:]), answer) for question, answer in words.items() if question[0] == kind)

    links, guards = parse_network(text_of("network"))
    qlen = text_of("kernel", DGRAM_QLEN).strip()
    state = words.get(("proxy-state",))
    alive = state is not None and state.status == 0
    return Facts(
        system=parse_system(text_of("system")) if ("system",) in words else None,
        programs=frozenset(next((a.text for q, a in words.items() if q[0] == "programs"), "").split()),
        packages=parse_packages(next((a.text for q, a in words.items() if q[0] == "packages"), "")),
        units={name: parse_unit(answer.text) for name, answer in each("unit")},
        proxy_version=parse_version(text_of("proxy-version")),
        proxy_services=proxy.services(text_of("proxy-version")),
        keepalived_version=parse_version(text_of("keepalived-version")),
        addresses=parse_addresses(text_of("addresses")),
        sockets=parse_sockets(text_of("listeners")),
        files={**guards, **{path: parse_file(answer.text) for path, answer in each("file")}},
        texts={path: answer.text + "\n" for path, answer in each("read") if answer.status == 0},
        proxy_state=proxy.parse_state(state.text) if state and alive else None,
        proxy_silence=state.text if state and not alive else "",
        unmanaged=tuple(_lines(text_of("proxy-others"))),
        generations=parse_generations(text_of("generation")),
        history=parse_history(text_of("history")) if ("history",) in words else None,
        holder=parse_holder(text_of("lock")),
        firewall=firewall.parse(text_of("firewall")) if ("firewall",) in words else None,
        selinux=selinux.parse(text_of("selinux", proxy.domain.boolean)),
        pings={address: answer.status == 0 for address, answer in each("ping")},
        replies={url: parse_reply(answer) for url, answer in each("request")},
        settings=Settings(
            units={name: parse_unit_files(name, a.text) for name, a in each("unit-files") if a.status == 0},
            links=links,
            guards=tuple(guards),
            dgram_qlen=int(qlen) if qlen.isdecimal() else None,
        ),
    )


def _lines(text: str) -> list[str]:
    """Split text at its newlines alone, as the programs that print it do; blank lines are left out."""
    return [line for line in text.split("\n") if line.strip()]


def _assignments(text: str) -> list[tuple[str, str]]:
    """Split `KEY=value` lines; raises FactsError on a line of another form."""
    pairs = []
    for line in _lines(text):
        key, mark, value = line.partition("=")
        if mark:
            pairs.append((key, value.strip()))
        elif not line.startswith("#"):
            raise FactsError(f"expected KEY=value, not {line!r}")
    return pairs


def parse_system(text: str) -> System:
    """Parse os-release and the lines that the probe adds to it."""
    values = {key: value.strip("'\"") for key, value in _assignments(text)}
    try:
        return System(
            name=values.get("PRETTY_NAME") or values.get("ID", "unknown"),
            host=values["HOST"],
            container=values["CONTAINER"] if values["CONTAINER"] not in ("", "none") else None,
            user_id=int(values["USER_ID"]),
            families=(values.get("ID", ""), *values.get("ID_LIKE", "").split()),
            managers=tuple(values["MANAGERS"].split()),
        )
    except (KeyError, ValueError) as error:
        raise FactsError(f"the description of the system lacks {error}") from error


def parse_packages(text: str) -> dict[str, str]:
    """Parse `NAME VERSION` lines: the packages that are installed."""
    packages = {}
    for line in _lines(text):
        name, blank, version = line.partition(" ")
        if not blank:
            raise FactsError(f"expected NAME VERSION, not {line!r}")
        packages[name] = version.strip()
    return packages


def parse_unit(text: str) -> Unit:
    """Parse `systemctl show` and the journal lines behind it."""
    pairs = _assignments(text)
    values = dict(pairs)
    return Unit(
        load=values.get("LoadState", "unknown"),
        active=values.get("ActiveState", "unknown"),
        sub=values.get("SubState", "unknown"),
        file_state=values.get("UnitFileState", ""),
        journal=tuple(value for key, value in pairs if key == "Journal"),
        changed=float(values["Changed"]) if values.get("Changed", "").isdigit() else None,
    )


def parse_unit_files(name: str, text: str) -> UnitSettings:
    """Parse the limit that every unit gets, and each file of a unit with its path in front.

    exlb's own file is left out. The last assignment counts, and of a list all of them since the last empty one.
    Source: systemd.unit(5), systemd.exec(5) `BindReadOnlyPaths=SOURCE:DESTINATION`.
    """
    values: dict[str, list[str]] = {}
    ours = False
    for line in map(str.strip, _lines(text)):
        if path := re.fullmatch(r"# (/\S+)", line):
            ours = path[1] == drop_in_path(name)
        key, mark, value = line.partition("=")
        if mark and not ours and not line.startswith(("#", ";")):
            kept = values.setdefault(key.strip(), [])
            if not value.strip():
                kept.clear()
            kept.extend(value.split())
    limits = (*values.get("DefaultLimitNOFILE", ()), *values.get("LimitNOFILE", ()))
    return UnitSettings(
        after=frozenset(values.get("After", ())),
        wants=frozenset((*values.get("Wants", ()), *values.get("Requires", ()))),
        restart=(values.get("Restart") or ["no"])[-1],
        file_limit=_limit(limits[-1]) if limits else None,
        bound=frozenset(
            path.split(":")[1]
            for name in ("BindPaths", "BindReadOnlyPaths")
            for path in values.get(name, ())
            if ":" in path
        ),
    )


def _limit(text: str) -> int:
    """Return the hard limit of `LIMIT` or `SOFT:HARD`; a size may end in K, M or G. Source: systemd.exec(5)."""
    hard = text.rpartition(":")[2]
    number, unit = hard.rstrip("KMG"), hard[-1:]
    if hard == "infinity":
        return UNLIMITED
    try:
        return int(number) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(unit, 1)
    except ValueError as error:
        raise FactsError(f"LimitNOFILE={text} is not understood") from error


def parse_network(text: str) -> tuple[tuple[Link, ...], dict[str, FileFact]]:
    """Parse `networkd INTERFACE FILE KEEPS` and `NetworkManager INTERFACE`, and `file PATH FACT` of exlb's guards."""
    managers: dict[str, Manager] = {"networkd": "networkd", "NetworkManager": "NetworkManager"}
    links: list[Link] = []
    guards = {}
    for line in _lines(text):
        match line.split(" "):
            case [manager, interface, *rest] if manager in managers and len(rest) <= 2:
                links.append(Link(interface, managers[manager], *rest))
            case ["file", path, *fact] if fact:
                guards[path] = parse_file(" ".join(fact))
            case _:
                raise FactsError(f"what manages the network is not understood: {line!r}")
    return tuple(links), guards


def parse_addresses(text: str) -> tuple[Address, ...]:
    """Parse `ip -o addr show`, one line per address."""
    addresses = []
    for line in _lines(text):
        words = line.split()
        try:
            interface, family, value = words[1], words[2], words[3]
            if family in ("inet", "inet6"):
                addresses.append(Address(interface, ip_interface(value)))
        except (IndexError, ValueError) as error:
            raise FactsError(f"`ip -o addr show` said {line!r}") from error
    return tuple(addresses)


def parse_sockets(text: str) -> tuple[Socket, ...]:
    """Parse `ss -Hltnp`, one line per listening socket."""
    sockets = []
    for line in _lines(text):
        words = line.split()
        try:
            host, _, port = words[3].rpartition(":")
            host = host.partition("%")[0].strip("[]")
            process = re.search(r'users:\(\("([^"]*)"', line)
            # `*` takes both families; what ss shows as [::] takes IPv6 alone.
            address = None if host == "*" else str(ip_address(host))
            sockets.append(Socket(address, int(port), process[1] if process else None))
        except (IndexError, ValueError) as error:
            raise FactsError(f"`ss -Hltnp` said {line!r}") from error
    return tuple(sockets)


def parse_file(text: str) -> FileFact:
    """Parse `absent` or `MODE OWNER:GROUP SHA256 CHANGED KIND`, `-` for what only a regular file has."""
    if text == "absent":
        return FileFact("absent")
    try:
        mode, owner, digest, changed, kind = text.split(" ", 4)
        if digest == "-":
            return FileFact(kind, int(mode, 8), owner)
        return FileFact(kind, int(mode, 8), owner, digest, float(changed))
    except ValueError as error:
        raise FactsError(f"expected MODE OWNER SHA256 CHANGED KIND, not {text!r}") from error


def parse_generations(text: str) -> Generations:
    """Parse what probe.sh says of the generations, `NAME VALUE...` per line."""
    values: dict[str, list[str]] = {}
    for line in _lines(text):
        name, *words = line.split()
        values.setdefault(name, []).extend(words)
    try:
        unfinished = values.get("intent")
        return Generations(
            current=int(values["number"][0]) if "number" in values else None,
            edited=values.get("edited") == ["yes"],
            kept=tuple(sorted(map(int, values.get("kept", [])))),
            pruned=int(values["pruned"][0]) if "pruned" in values else None,
            unfinished=(int(unfinished[0]), int(unfinished[1])) if unfinished else None,
            changing="changing" in values,
        )
    except (ValueError, IndexError) as error:
        raise FactsError(f"the generations of the node are not understood: {text!r}") from error


def parse_history(text: str) -> History:
    """Parse `generation NUMBER`, the lines `meta NAME=VALUE` and `file MANIFEST-LINE` of each, and `journal LINE`."""
    kept: list[Kept] = []
    journal = []
    for line in _lines(text):
        word, _, rest = line.partition(" ")
        try:
            match word:
                case "generation":
                    kept.append(Kept(int(rest), {}, ()))
                case "meta":
                    name, _, value = rest.partition("=")
                    kept[-1] = replace(kept[-1], meta={**kept[-1].meta, name: value})
                case "file":
                    kept[-1] = replace(kept[-1], files=(*kept[-1].files, _kept_file(rest)))
                case "journal":
                    journal.append(rest)
                case _:
                    raise ValueError(word)
        except (ValueError, IndexError) as error:
            raise FactsError(f"the history of the node is not understood: {line!r}") from error
    return History(tuple(sorted(kept, key=lambda each: each.number)), tuple(journal))


def _kept_file(text: str) -> KeptFile:
    number, kind, mode, owner, sha256, path = text.split(" ", 5)
    if mode == "absent":
        return KeptFile(number, kind, path, 0, "", None)
    return KeptFile(number, kind, path, int(mode, 8), owner, sha256)


def parse_holder(text: str) -> Holder | None:
    """Parse `free`, or the lines NAME=VALUE that a session leaves beside its lock."""
    if text.strip() in ("", "free"):
        return None
    values = dict(_assignments(text))
    unknown = "unknown"
    return Holder(*(values.get(name) or unknown for name in ("who", "from", "since", "what")))


def parse_reply(answer: Answer) -> Reply:
    """Parse curl's `HTTP-STATUS CONNECTIONS-MADE`; where it failed, its own words stand before or behind them."""
    lines = _lines(answer.text) or [""]
    found = next((match for line in lines if (match := re.fullmatch(r"([0-9]{3}) ([0-9]+)", line.strip()))), None)
    if answer.status == 0 and found and int(found[1]):
        return Reply(int(found[1]), "", accepted=True)
    accepted = found is not None and found[2] != "0"
    complaint = next((line for line in lines if line.startswith("curl:")), lines[0])
    error = re.sub(r"^curl: \(\d+\) ", "", complaint) or f"curl ended with status {answer.status}"
    return Reply(None, error, accepted)


def missing_packages(proxy: Proxy, found: Platform, programs: Collection[str]) -> tuple[str, ...]:
    """Return the packages that bring what a node lacks, the proxy's first, each once."""
    own = () if proxy.process in programs else proxy.packages
    others = (package for program, package in found.packages.items() if program not in programs)
    return tuple(dict.fromkeys((*own, *others)))
