"""Clusters for tests, and nodes that are not there: a Remote that knows exlb's own programs and refuses all others.

A fake node answers the questions of probe.sh from a small state; lock.sh holds it, and apply.sh and install.sh, sent
by launch.sh where a change has to end by itself, change that state. It keeps generations, and knows as much of haproxy
and keepalived as exlb asks of them: nodes whose keepalived do not hear each other hold the VIP side by side. The
programs themselves are tested in unit/node/, on real nodes in lab/.
"""

from __future__ import annotations

import copy
import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address, ip_interface
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from exlb_fab import departure, vrrp
from exlb_fab import node as programs
from exlb_fab.answers import END_MARK
from exlb_fab.certificates import Certificate
from exlb_fab.cluster import (
    LOOPBACK,
    Backend,
    Cluster,
    Garp,
    HealthCheck,
    Listener,
    Node,
    ProxySettings,
    SshSettings,
    Stats,
    Timeouts,
    Vip,
    Vrrp,
)
from exlb_fab.dump import RECEIVED, SENT, Instance
from exlb_fab.errors import ExlbError, RemoteError, UnreachableError
from exlb_fab.events import Emit
from exlb_fab.facts import Address, Facts, FileFact, Reply, Socket, System, Unit
from exlb_fab.firewall import Firewall
from exlb_fab.host import Neighbour, Space, Span, Tracker
from exlb_fab.platforms import PROGRAMS, parse_version
from exlb_fab.proxies import PROXIES, Load, ProxyState, Server
from exlb_fab.questions import WRITTEN, listener_url, node_url, shown_to, urls_from_outside, vip_url
from exlb_fab.remote import Channel, Completed, Connect, Remote
from exlb_fab.rendering import ATTACHMENT_DIGITS, ROOT, File, Target, paths
from exlb_fab.system import SYSCTL_PATH, Settings, UnitSettings
from tests.certificates import certificate

PROXY = PROXIES["haproxy"]
VIP = IPv4Address("198.51.100.100")
PROBE = programs.probe(PROXY.program)
DOCTOR = programs.doctor(PROXY.program)
APPLY = programs.apply(PROXY.program)
BACKEND = programs.backend(PROXY.program)
INSTALL = programs.install()
UNINSTALL = programs.uninstall(PROXY.program)
FIREWALL = programs.firewall()
LOCK = programs.lock()
LOGS = programs.logs()
LAUNCH = programs.launch()
KEPT = 10
KEPT_FILES = "/var/lib/exlb/generations/"
KEEPALIVED_PATH = "/etc/keepalived/keepalived.conf"
PACKAGES = {"haproxy": "haproxy", "keepalived": "keepalived", "psmisc": "killall", "curl": "curl", "socat": "socat"}
# A node whose units lack nothing: nothing of its system is rendered.
ONLINE = frozenset({"network-online.target"})
COMPLETE = UnitSettings(ONLINE, ONLINE, "always", 524288)
TARGET = Target(settings=Settings(units=dict.fromkeys(("haproxy", "keepalived"), COMPLETE)))
UNIT_FILES = """DefaultLimitNOFILE=524288
[Unit]
After=network-online.target
Wants=network-online.target
[Service]
Restart=always
"""
DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n'
ROCKY = 'PRETTY_NAME="Rocky Linux 9.1 (Blue Onyx)"\nID="rocky"\nID_LIKE="rhel centos fedora"\n'
NOW = 2000.0
GIGABYTE = 10**9
CERTIFICATE = Certificate(frozenset(), frozenset({VIP}), 0.0, NOW + 365 * 86_400)
LOST = "this session has lost its lock on the node"
STAT_FIELDS = "# pxname,svname,status,type,check_status,check_code,last_chk,addr,scur,bin,bout,lastchg,"
ADMISSIONS = {"ready": 0, "disable": 1, "drain": 8}


PROXYING = ProxySettings(
    layout="listen",
    bind="all",
    timeouts=Timeouts(connect_ms=5000, client_ms=600_000, server_ms=600_000, check_ms=None, queue_ms=None),
    maxconn=None,
    log="journal",
    hard_stop_after_ms=None,
    keeps_drains=False,
)
STATS = Stats(LOOPBACK, 10080, "admin", None, admin=False, exporter=False)
VRRP = Vrrp(
    router_id=68,
    version=2,
    mode="unicast",
    auth_pass=None,
    advert_seconds=1.0,
    track=("script",),
    check_interval_seconds=1,
    check_timeout_seconds=2,
    check_fall=2,
    check_rise=2,
    check_weight=-60,
    process_delay_seconds=0,
    failover="weighted",
    preempt=True,
    garp=Garp(delay_seconds=5, repeat=5, refresh_seconds=1, refresh_repeat=1),
)


def cluster(nodes: int = 3, **changes: Any) -> Cluster:
    """Return a cluster of nodes lb1, lb2 ... on which the apiservers run, as a file of three lines would give it."""
    addresses = [IPv4Address(f"198.51.100.{10 + number}") for number in range(1, nodes + 1)]
    machines = tuple(
        Node(f"lb{place + 1}", address, "eth0", place, priority, address)
        for place, (address, priority) in enumerate(zip(addresses, vrrp.priorities(nodes), strict=True))
    )
    listener = Listener(
        "kube-master",
        8443,
        tuple(Backend(str(node.address), str(node.address), 6443) for node in machines),
        HealthCheck("https", "/readyz", interval_ms=2000, fall=2, rise=2, slowstart_ms=0),
        "source",
        scheme="https",
    )
    made = Cluster(
        path=Path("environment.sh"),
        nodes=machines,
        vip=Vip(VIP, None),
        listeners=(listener,),
        proxying=PROXYING,
        stats=STATS,
        vrrp=VRRP,
        ssh=SshSettings("root", 22, None, None, None, "auto"),
    )
    return replace(made, **changes)


def fact(file: File) -> FileFact:
    """Return what the probe says of a file that was rendered and brought."""
    return FileFact("regular file", file.mode, file.owner, file.sha256)


def converged(cluster: Cluster, node: Node, desired: Sequence[File], /, **changes: Any) -> Facts:
    """Return the facts of a node that has what it should and serves, but for some."""
    proxy = next(file for file in desired if file.kind == "proxy")
    listener = cluster.apiserver_listener
    servers = tuple(
        Server(listener.name, each.name, f"{each.host}:{each.port}", "UP", "L7OK", 200, "Layer7 check passed")
        for each in listener.backends
    )
    found = Facts(
        programs=frozenset({PROXY.process, *PROGRAMS}),
        units=dict.fromkeys(("haproxy", "keepalived"), Unit("loaded", "active", "running", "enabled")),
        proxy_version=parse_version("2.6.12"),
        keepalived_version=parse_version("2.2.7"),
        addresses=(
            Address("lo", ip_interface("127.0.0.1/8")),
            Address(node.interface or "eth0", ip_interface(f"{node.address}/24")),
        ),
        sockets=(
            Socket("0.0.0.0", listener.port, PROXY.process),
            Socket(str(cluster.stats.bind), cluster.stats.port, PROXY.process),
        ),
        files={**dict.fromkeys(paths(cluster), FileFact("absent")), **{file.path: fact(file) for file in desired}},
        proxy_state=ProxyState(proxy.digest, servers, loads=(Load(2, 10_000), Load(2, 9_984, "kube-master"))),
        pings={str(vip): True for vip in cluster.vips},
        instances=(instance(cluster, node),),
        firewall=Firewall(),
        replies={url: Reply(200, "", accepted=True) for url in urls(cluster, node)},
        system=System("Debian", node.name, None, 0, ("debian",), ("apt-get",), NOW),
        trackers=(Tracker("/usr/bin/killall", "there"),),
        neighbours={str(vip): (Neighbour("eth0", mac(cluster.nodes[0]), "REACHABLE"),) for vip in cluster.vips},
        macs={"eth0": mac(node)},
        certificates=dict.fromkeys(shown_to(cluster, node), CERTIFICATE),
        spaces=tuple(Space(path, "/", True, 50 * GIGABYTE, 100 * GIGABYTE, 500_000, 1_000_000) for path in WRITTEN),
        clock=NOW,
        asked=Span(NOW, NOW + 1),
    )
    replies = {**found.replies, **changes.pop("replies", {})}
    return replace(found, replies=replies, **changes)


def urls(cluster: Cluster, node: Node) -> tuple[str, ...]:
    """Return all that a node asks as a client."""
    others = [
        listener_url(listener, address)
        for listener in cluster.listeners[1:]
        for address in (*(vip.address for vip in cluster.vips), cluster.own_address(node))
    ]
    ports = [url for each in cluster.nodes if each != node for url in urls_from_outside(cluster, each)]
    return (*(vip_url(cluster, vip) for vip in cluster.vips), node_url(cluster, node), *ports, *others)


def mac(node: Node) -> str:
    """Return the MAC of a node's interface."""
    return f"02:00:00:00:00:{node.index + 1:02x}"


def holding(cluster: Cluster, facts: Facts) -> Facts:
    """Return the same facts of a node that has the VIP."""
    return replace(
        facts,
        addresses=(*facts.addresses, Address("eth0", ip_interface(f"{cluster.vip}/32"))),
        instances=tuple(replace(each, state="MASTER", master=None) for each in facts.instances),
    )


def instance(cluster: Cluster, node: Node, **changes: Any) -> Instance:
    """Return how keepalived runs as a backup on a node that has what it should, but for some."""
    asked, others = cluster.vrrp, [other for other in cluster.nodes if other != node]
    checks = [f"check-{PROXY.process if each in ('process', 'script') else each}" for each in asked.track]
    made = Instance(
        name="VI-kube-master",
        state="BACKUP",
        since=1000.0,
        version=asked.version,
        router_id=asked.router_id,
        interface=node.interface or "eth0",
        source=node.source,
        priority=node.priority,
        effective_priority=node.priority,
        advert_seconds=asked.advert_seconds,
        preempts=asked.preempt,
        authenticated=asked.auth_pass is not None,
        master=cluster.nodes[0].source,
        vips=frozenset(vip.address for vip in cluster.vips if vip.address.version == cluster.vip.address.version),
        peers=frozenset(other.source for other in others if other.source and asked.mode == "unicast"),
        weights=dict.fromkeys(checks, asked.check_weight if asked.failover == "weighted" else 0),
        passing=frozenset(checks),
        counters={SENT: 12, RECEIVED: 12},
        earlier={SENT: 10, RECEIVED: 10},
    )
    return replace(made, **changes)


def _counters(count: int) -> str:
    return f"VRRP Instance: VI-kube-master\n  Advertisements:\n    Received: {count}\n    Sent: {count}"


def environment_file(folder: Path, nodes: int = 3, **values: str) -> Path:
    """Write the environment file of such a cluster; `values` are more lines, or other ones, as bash words."""
    lines = {
        "NODE_IPS": f"({' '.join(f'198.51.100.{10 + number}' for number in range(1, nodes + 1))})",
        "NODE_NAMES": f"({' '.join(f'lb{number}' for number in range(1, nodes + 1))})",
        "VIP_IF": "eth0",
        "MASTER_VIP": str(VIP),
        **values,
    }
    path = folder / "environment.sh"
    path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()), encoding="utf-8")
    path.chmod(0o600)
    return path


class Clock:
    """Time that passes only while somebody sleeps; each sleep may change something."""

    def __init__(self) -> None:
        self.start = self.now = 1000.0
        self.on_sleep: Callable[[], None] = lambda: None

    @property
    def passed(self) -> float:
        return self.now - self.start

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_sleep()


@dataclass
class FakeUnit:
    """A systemd unit; `loaded` is the configuration that it runs."""

    active: str = "inactive"
    file_state: str = ""
    load: str = "not-found"
    loaded: str = ""


@dataclass
class FakeFile:
    """A regular file."""

    text: str
    mode: int = 0o644
    owner: str = ROOT

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def __str__(self) -> str:
        """Return it as a manifest has it."""
        return f"{self.mode:o} {self.owner} {self.sha256}"


@dataclass
class FakeGeneration:
    """All files of a node at one time, None where there was none: the proxy's first, as in a manifest.

    `units` are those of a node on which exlb has found them: a line each.
    """

    files: dict[str, FakeFile | None]
    meta: dict[str, str] = field(default_factory=dict)
    was_active: bool = False
    units: str = ""

    @property
    def attachments(self) -> dict[str, FakeFile | None]:
        """Return what its other files name: in place before these are validated, and never changed."""
        return {path: file for path, file in self.files.items() if _kind(path) == "attachment"}


@dataclass
class FakeNode:
    """What one node has. `failing` maps an action of its programs to what the node says as it fails there.

    `killed` names actions that end half way, with the new files in place and nobody to take them back. `change` is one
    that somebody else has started: calling it ends it, and returns what it printed. `answers` replaces the answer to a
    question of the probe: a status and a text. `newest` are the versions that an upgrade brings. `record` is what
    install.sh has recorded, `leaving` tells that uninstall.sh has begun. `admitted` is what the proxy was told of
    servers, `sessions` are what it has with them, `old_sessions` what processes of before a reload still have. `logged`
    are lines of its journal as journalctl prints them, `coming` are those that it will print, or what ends that.
    """

    node: Node
    unreachable: ExlbError | None = None
    release: str = DEBIAN
    managers: str = "apt-get"
    programs: set[str] = field(default_factory=lambda: {"ip", "ss", "ping"})
    units: dict[str, FakeUnit] = field(default_factory=lambda: {"haproxy": FakeUnit(), "keepalived": FakeUnit()})
    files: dict[str, FakeFile] = field(default_factory=dict)
    foreign_sockets: list[str] = field(default_factory=list)
    running: str | None = None
    backends: str = "UP"
    admitted: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, int] = field(default_factory=dict)
    old_sessions: dict[str, int] = field(default_factory=dict)
    logged: list[str] = field(default_factory=list)
    coming: list[str | ExlbError] = field(default_factory=list)
    staged: FakeGeneration | None = None
    generations: dict[int, FakeGeneration] = field(default_factory=dict)
    current: int | None = None
    pruned: int | None = None
    intent: tuple[int, int] | None = None
    wanted: str = "none"
    change: Callable[[], str] | None = None
    lock: dict[str, str] | None = None
    record: str | None = None
    leaving: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    newest: dict[str, str] = field(default_factory=dict)
    failing: dict[str, str] = field(default_factory=dict)
    killed: set[str] = field(default_factory=set)
    opened: list[str] = field(default_factory=list)
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    commands: dict[tuple[str, ...], Completed] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    before: Callable[[str], None] = lambda call: None
    proxy_version: str = "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/"
    keepalived_version: str = "Keepalived v2.2.7 (01/16,2022)"

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def keepalived(self) -> str:
        """Return the configuration that its keepalived runs, "" where that does not run."""
        unit = self.units["keepalived"]
        return unit.loaded if unit.active == "active" and not self.unreachable else ""

    @property
    def priority(self) -> int:
        """Return the effective priority of its keepalived, 0 where that does not run."""
        found = re.search(r"^    priority (\d+)$", self.keepalived, re.MULTILINE)
        weight = re.search(r"^    weight (-\d+)$", self.keepalived, re.MULTILINE)
        lost = int(weight[1]) if weight and self.running is None else 0
        return int(found[1]) + lost if found else 0

    def hears(self, other: FakeNode) -> bool:
        """Tell whether adverts of another node reach this one, and are not discarded."""
        peers = re.search(r"unicast_peer \{(.*?)\}", other.keepalived, re.DOTALL)
        sent = peers is None or str(self.node.address) in peers[1].split()
        return sent and _identity(self.keepalived) == _identity(other.keepalived)

    @property
    def state(self) -> object:
        """Return all that a command could have changed, to be compared."""
        units = {name: (unit.active, unit.file_state, unit.loaded) for name, unit in self.units.items()}
        kept = (copy.deepcopy(self.generations), self.current, self.intent, self.record, self.leaving)
        runs = (self.running, dict(self.admitted))
        return (frozenset(self.programs), units, copy.deepcopy(self.files), runs, self.staged, self.lock, kept)

    @property
    def active(self) -> FakeGeneration:
        """Return what is active, as a generation."""
        return FakeGeneration({path: copy.copy(self.files.get(path)) for path in (PROXY.path, KEEPALIVED_PATH)})

    @property
    def kept(self) -> list[int]:
        """Return the numbers that it can go back to: what never was active is no generation yet."""
        return sorted(n for n, each in self.generations.items() if each.was_active or n == self.current)

    @property
    def edited(self) -> bool:
        """Tell whether the active files are not those of the current generation."""
        return self.current is not None and any(
            file != self.files.get(path) for path, file in self.generations[self.current].files.items()
        )

    def put(self, files: Mapping[str, FakeFile | None]) -> None:
        """Make files the active ones."""
        for path, file in files.items():
            if file is None:
                self.files.pop(path, None)
            else:
                self.files[path] = copy.copy(file)

    def act(self, unit: str, action: str) -> None:
        """Do what systemctl does, and what the units do then."""
        assert action in ("none", "reload", "start", "restart", "stop", "disable", "retire", "recall"), action
        found, path = self.units[unit], {"haproxy": PROXY.path, "keepalived": KEEPALIVED_PATH}[unit]
        assert action != "reload" or found.active == "active", f"{self.name}: reload of {unit}, which does not run"
        if action in ("disable", "retire", "recall"):
            found.file_state = "enabled" if action == "recall" else "disabled"
        if action in ("stop", "retire"):
            found.active, found.loaded = "inactive", ""
        elif action not in ("none", "disable"):
            assert path in self.files, f"{self.name}: {action} {unit} without {path}"
            found.active, found.loaded = "active", self.files[path].text
        if unit == "haproxy" and action != "none":
            self.running = found.loaded or None
            self.admitted.clear()


def _identity(text: str) -> object:
    """Return what a receiver of adverts discards them for, if it has another."""
    words = re.findall(r"^\s*(?:virtual_router_id|advert_int|auth_pass|interface) \S+", text, re.MULTILINE)
    addresses = re.search(r"virtual_ipaddress \{(.*?)\}", text, re.DOTALL)
    return frozenset(" ".join(each.split()) for each in words), addresses and frozenset(addresses[1].split())


class FakeFleet:
    """The nodes of a cluster on one network; `connector` is what the command line takes instead of SSH."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.nodes = {node.name: FakeNode(node) for node in cluster.nodes}
        self.journal: list[str] = []
        self.most_holders = 0
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> FakeNode:
        return self.nodes[name]

    def __iter__(self) -> Iterator[FakeNode]:
        return iter(self.nodes.values())

    def connector(self, cluster: Cluster, common: object, emit: Emit) -> tuple[Connect, Callable[[], None]]:
        return self.connect, lambda: None

    def connect(self, node: Node) -> Remote:
        # Not by its name: one that has left the file has none.
        (fake,) = (each for each in self if each.node.address == node.address)
        if fake.unreachable:
            raise fake.unreachable
        return FakeRemote(self, fake)

    def cut(self, name: str) -> None:
        """Power a node off."""
        self[name].unreachable = UnreachableError(f"{name}: cannot connect: No route to host", hint="is it up?")

    @property
    def holders(self) -> list[FakeNode]:
        """Return who holds the VIP: whoever hears no better one that does, because only who holds it sends."""
        found: list[FakeNode] = []
        for each in sorted((each for each in self if each.priority), key=lambda each: -each.priority):
            if not any(each.hears(other) for other in found):
                found.append(each)
        return found

    @property
    def holder(self) -> FakeNode | None:
        """Return who answers for the VIP."""
        return next(iter(self.holders), None)

    def request(self, url: str) -> Reply | None:
        """Answer the bastion as a client of the VIP."""
        assert url == vip_url(self.cluster)
        if self.holder is None:
            return None
        if self.holder.running is None:
            return Reply(None, "Connection refused", accepted=False)
        if self.holder.backends != "UP":
            return Reply(None, "TLS: unexpected end of file", accepted=True)
        return Reply(200, "", accepted=True)

    def arp_answers(self, address: IPv4Address) -> frozenset[str]:
        """Answer the bastion's question by ARP."""
        return frozenset(mac(each.node) for each in self if each in self.holders)

    @property
    def state(self) -> object:
        return [each.state for each in self]

    def count(self, call: str) -> dict[str, int]:
        """Return how many calls that begin so each node got."""
        return {each.name: sum(said.startswith(call) for said in each.calls) for each in self}

    def become(self, other: FakeFleet) -> None:
        """Take on the state of another fleet of the same nodes."""
        for fake in self:
            for each in ("programs", "units", "files", "running", "generations", "current", "record"):
                setattr(fake, each, copy.deepcopy(getattr(other[fake.name], each)))

    def note(self, name: str, call: str) -> None:
        with self._lock:
            self.journal.append(f"{name} {call}")
            self.most_holders = max(self.most_holders, len(self.holders))


class FakeRemote:
    """One connected fake node. What exlb is not known to run is a failure of the test."""

    def __init__(self, fleet: FakeFleet, fake: FakeNode) -> None:
        self._fleet = fleet
        self._fake = fake

    def run(self, program: str, args: Sequence[str] = (), data: str = "", limit_seconds: float = 60) -> Completed:
        # What runs as a unit of its own comes with launch.sh: a lost session must not end it.
        known = {
            PROBE: self._probe,
            DOCTOR: self._probe,
            APPLY: self._apply_at_once,
            LAUNCH: self._launch,
            BACKEND: self._admit,
            LOGS: self._logs,
        }
        assert program in known, f"{self._fake.name}: unexpected program: {program[:200]!r}"
        assert limit_seconds > 0
        return known[program](list(args), data)

    def open(self, program: str, args: Sequence[str] = ()) -> Channel:
        if program == LOGS:
            return self._follow(list(args))
        assert program == LOCK, f"{self._fake.name}: unexpected program: {program[:200]!r}"
        token, who, origin, what = args
        self._note(f"lock {what}")
        if self._fake.lock is not None:
            lines = ["exlb-lock: busy", *(f"{name}={value}" for name, value in self._fake.lock.items())]
            return FakeChannel(self._fake, self._note, token, lines)
        self._fake.lock = {"token": token, "who": who, "from": origin, "what": what, "since": "2027-01-02T03:04:05Z"}
        return FakeChannel(self._fake, self._note, token, ["exlb-lock: held"])

    def execute(self, command: Sequence[str], *, sudo: bool, limit_seconds: float) -> Completed:
        self._note(f"exec {'sudo ' if sudo else ''}{' '.join(command)}")
        assert tuple(command) in self._fake.commands, f"{self._fake.name}: unexpected command: {command}"
        return self._fake.commands[tuple(command)]

    def close(self) -> None:
        self._fake.calls.append("close")

    def _note(self, call: str) -> None:
        self._fake.calls.append(call)
        self._fleet.note(self._fake.name, call)
        self._fake.before(call)

    # probe.sh

    def _probe(self, args: list[str], data: str) -> Completed:
        assert args == []
        questions = data.splitlines()
        assert len(questions) == len(set(questions)), f"asked twice: {questions}"
        self._note(f"probe {len(questions)}")
        parts = []
        for question in questions:
            status, text = self._fake.answers.get(question) or self._answer(question)
            lines = "".join(f"| {line}\n" for line in text.rstrip("\n").split("\n")) if text else ""
            parts.append(f"@ {question}\n{lines}= {status}\n")
        return Completed(0, "".join(parts) + END_MARK + "\n", "")

    def _answer(self, question: str) -> tuple[int, str]:
        fake, words = self._fake, question.split(" ")
        match words:
            case ["system"]:
                return (
                    0,
                    f"{fake.release}HOST={fake.name}\nCONTAINER=none\nUSER_ID=0\nEPOCH=2000\nMANAGERS={fake.managers}\n",
                )
            case ["programs", *names]:
                assert names == [PROXY.process, *PROGRAMS]
                return 0, "".join(f"{name}\n" for name in names if name in fake.programs)
            case ["packages", *names]:
                there = [name for name in names if PACKAGES[name] in fake.programs]
                return 0, "".join(f"{name} {fake.versions.get(name, '1.0-1')}\n" for name in there)
            case ["unit", name]:
                unit = fake.units[name]
                journal = "" if unit.active == "active" else f"Journal=the end of {name}'s journal\n"
                text = f"LoadState={unit.load}\nActiveState={unit.active}\nSubState=-\n"
                return 0, f"{text}UnitFileState={unit.file_state}\n{journal}"
            case ["unit-files", name]:
                return (
                    (0, UNIT_FILES) if fake.units[name].load == "loaded" else (1, f"No files found for {name}.service.")
                )
            case ["network"]:
                return 0, ""
            case ["proxy-version"]:
                return (0, fake.proxy_version) if "haproxy" in fake.programs else (127, "sh: haproxy: not found")
            case ["keepalived-version"]:
                return (0, fake.keepalived_version) if "keepalived" in fake.programs else (127, "sh: not found")
            case ["keepalived-counters"]:
                return (0, _counters(10)) if fake.keepalived else (1, "keepalived does not run")
            case ["keepalived-state", *_]:
                return (0, self._keepalived_state()) if fake.keepalived else (1, "keepalived does not run")
            case ["addresses"]:
                return 0, self._addresses()
            case ["listeners"]:
                return 0, self._sockets()
            case ["file", departure.STATE]:
                kept = fake.generations or fake.record is not None or fake.leaving
                return 0, "700 0:0 - - directory" if kept else "absent"
            case ["file", departure.MARK]:
                return 0, "600 0:0 - - regular empty file" if fake.leaving else "absent"
            case ["file", path]:
                return 0, self._file(path)
            case ["generation"]:
                return 0, self._generation()
            case ["history"]:
                return 0, self._history()
            case ["firewall"]:
                return 0, "".join(f"opened {line}\n" for line in fake.opened)
            case ["selinux", _]:
                return 0, ""
            case ["lock"]:
                return 0, "".join(f"{name}={value}\n" for name, value in (fake.lock or {}).items()) or "free"
            case ["read", departure.RECORD]:
                return (1, "cat: No such file") if fake.record is None else (0, fake.record)
            case ["read", departure.OPENED]:
                return 0, "\n".join(fake.opened)
            case ["read", departure.FOUND_UNITS]:
                return (0, fake.generations[0].units) if 0 in fake.generations else (1, "cat: No such file")
            case ["read", path] if path.startswith(KEPT_FILES):
                number, place = path.removeprefix(KEPT_FILES).split("/files/")
                file = list(fake.generations[int(number)].files.values())[int(place) - 1]
                assert file is not None
                return 0, file.text
            case ["read", path]:
                return (0, fake.files[path].text) if path in fake.files else (1, f"cat: {path}: No such file")
            case ["proxy-state"]:
                return (1, "socat: Connection refused") if fake.running is None else (0, self._proxy_state())
            case ["proxy-others"]:
                return 0, ""
            case ["keepalived-checks", path]:
                text = fake.files[path].text if path in fake.files else ""
                found = re.findall(r'^    (script|process) "?([^" \n]+)', text, re.MULTILINE)
                return 0, "\n".join(f"{'there' if kind == 'script' else kind} {name}" for kind, name in found)
            case ["strays", process, unit]:
                assert (process, unit) == (PROXY.process, PROXY.unit)
                return 0, ""
            case ["keepalived-complaints"]:
                return 0, ""
            case ["neighbours", address]:
                holder = self._fleet.holder
                return 0, f"{address} dev eth0 lladdr {mac(holder.node)} REACHABLE" if holder else ""
            case ["arp-answers", _, _]:
                return 127, ""
            case ["links"]:
                return 0, f"2: eth0: <UP> mtu 1500    link/ether {mac(fake.node)} brd ff:ff:ff:ff:ff:ff"
            case ["certificate", _]:
                return 0, certificate(str(self._fleet.cluster.vip)) if fake.backends != "DOWN" else ""
            case ["space", *names]:
                return 0, "\n".join(f"{name} yes 4096 1000000 900000 100000 90000 /" for name in names)
            case ["clock"]:
                return 0, "2000"
            case ["ground", *asked]:
                return self._ground(asked)
            case ["ping", address]:
                assert address in map(str, self._fleet.cluster.vips)
                return (0, "1 received") if self._fleet.holder else (1, "0 received")
            case ["kernel", _]:
                return 0, "1"
            case ["request", url]:
                return self._request(url)
        raise AssertionError(f"{fake.name}: unexpected question: {question!r}")

    def _ground(self, asked: Sequence[str]) -> tuple[int, str]:
        """Return what doctor.sh says of a machine of one's own, with apt and without tcpdump."""
        match asked:
            case ["machine"]:
                return 0, "sys_vendor QEMU\nproduct_name Standard PC (Q35 + ICH9, 2009)\nchassis_asset_tag"
            case ["available", *names]:
                return 0, "lists 1\n" + "".join(f"{name}:\n  Candidate: 2.6.12-1\n" for name in names)
            case ["owners", _, *addresses]:
                holder = self._fleet.holder
                if holder is None or holder is self._fake:
                    return 0, ""
                return 0, "".join(f"{each} dev eth0 lladdr {mac(holder.node)} REACHABLE\n" for each in addresses)
            case ["adverts", _, _, _]:
                return 127, "there is no tcpdump"
            case ["contacts", *endpoints]:
                return 0, "".join(f"{endpoint} 0 \n" for endpoint in endpoints)
        raise AssertionError(f"{self._fake.name}: unexpected question: {asked!r}")

    def _addresses(self) -> str:
        own = self._fake.node.address
        family = "inet" if own.version == 4 else "inet6"
        prefix = 24 if own.version == 4 else 64
        lines = ["1: lo    inet 127.0.0.1/8 scope host lo", f"2: eth0    {family} {own}/{prefix} scope global eth0"]
        for vip in (each.address for each in self._fleet.cluster.vips if self._fake in self._fleet.holders):
            family = "inet" if vip.version == 4 else "inet6"
            lines.append(f"2: eth0    {family} {vip}/{vip.max_prefixlen} scope global eth0")
        return "\n".join(lines)

    def _keepalived_state(self) -> str:
        """Return how the fake runs, as keepalived writes it down."""
        said = dict(re.findall(r"^ +(\w+) (\S+)$", self._fake.keepalived, re.MULTILINE))
        block = re.compile(r"^    (\w+) \{\n(.*?)^    \}$", re.MULTILINE | re.DOTALL)
        lists = {
            name: [each.strip() for each in text.splitlines()] for name, text in block.findall(self._fake.keepalived)
        }
        tracked = lists["track_script"]
        weight = said.get("weight", "0")
        passes = self._fake.running is not None
        holder = self._fake in self._fleet.holders
        state = "MASTER" if holder else "BACKUP" if passes or weight != "0" else "FAULT"
        fields = {
            "VRRP Version": said.get("vrrp_version", "2"),
            "State": state,
            **({} if holder or not self._fleet.holder else {"Master router": self._fleet.holder.node.source}),
            "Last transition": "1000.0 (Thu Jan  1 00:16:40 1970)",
            "Interface": said["interface"],
            "Using src_ip": f"{self._fake.node.source} (from configuration)",
            "Virtual Router ID": said["virtual_router_id"],
            "Priority": said["priority"],
            "Effective priority": str(self._fake.priority),
            "Advert interval": f"{said['advert_int']} sec",
            "Preempt": "disabled" if "nopreempt" in self._fake.keepalived else "enabled",
            "Authentication type": "SIMPLE_PASSWORD" if "auth_pass" in said else "none",
        }
        return "\n".join(
            [
                "------< VRRP Topology >------",
                " VRRP Instance = VI-kube-master",
                *(f"   {name} = {value}" for name, value in fields.items()),
                "   Virtual IP (1):",
                *(f"     {vip}" for vip in lists["virtual_ipaddress"]),
                "   Unicast Peer :",
                *(f"     {peer} min_ttl 0 max_ttl 255" for peer in lists.get("unicast_peer", ())),
                "   Tracked scripts :",
                *(f"     {name} weight {weight}" for name in tracked),
                "------< VRRP Scripts >------",
                *(f" VRRP Script = {name}\n   Status = {'GOOD' if passes else 'BAD'}" for name in tracked),
                "------< Statistics >------",
                _counters(12),
            ]
        )

    def _sockets(self) -> str:
        own = re.findall(r"^    bind (\S+)(?: v6only)?$", self._fake.running or "", re.MULTILINE)
        lines = [f'LISTEN 0 4096 {bind} 0.0.0.0:* users:(("haproxy",pid=7,fd=9))' for bind in own]
        return "\n".join([*lines, *self._fake.foreign_sockets])

    def _file(self, path: str) -> str:
        file = self._fake.files.get(path)
        if file is None:
            return "absent"
        return f"{file} 1795227762.5 regular file"

    def _generation(self) -> str:
        fake, lines = self._fake, list[str]()
        if fake.current is not None:
            lines += [f"number {fake.current:04d}", f"edited {'yes' if fake.edited else 'no'}"]
        lines += [f"kept {number:04d}" for number in fake.kept]
        if fake.pruned is not None:
            lines.append(f"pruned {fake.pruned:04d}")
        if fake.intent:
            lines.append("intent {:04d} {:04d}".format(*fake.intent))
        if fake.change:
            lines.append("changing MainPID=7")
        return "\n".join(lines)

    def _history(self) -> str:
        lines = []
        for number, kept in ((number, self._fake.generations[number]) for number in self._fake.kept):
            lines += [f"generation {number:04d}", *(f"meta {name}={value}" for name, value in kept.meta.items())]
            for place, (path, file) in enumerate(kept.files.items(), 1):
                lines.append(f"file {place} {_kind(path)} {file or 'absent - -'} {path}")
        return "\n".join([*lines, "journal 2027-01-02T03:04:05Z 0 -> 0001 ann bastion push-config: done"])

    def _proxy_state(self) -> str:
        text = self._fake.running or ""
        described = re.search(r"^    description (\S+)$", text, re.MULTILINE)
        check = {"UP": "L7OK,200,", "DOWN": "L4CON,,Connection refused", "401": "L7STS,401,Unauthorized"}
        status = "UP" if self._fake.backends == "UP" else "DOWN"
        shown = {"disable": "MAINT", **({"drain": "DRAIN"} if status == "UP" else {})}
        servers, listener = list[tuple[str, str, str]](), ""
        for section, name, address in re.findall(
            r"^(?:(?:listen|backend) (\S+)|    server (\S+) (\S+) .*)$", text, re.MULTILINE
        ):
            listener = section or listener
            if name:
                servers.append((listener, name, address))
        told = {name: self._fake.admitted.get(name, "ready") for _, name, _ in servers}
        checked = {name: ",," if said == "disable" else check[self._fake.backends] for name, said in told.items()}
        rows = [
            f"{listener},{name},{shown.get(told[name], status)},2,{checked[name]},{address},"
            f"{self._fake.sessions.get(name, 0)},2048,1048576,60,"
            for listener, name, address in servers
        ]
        lines = [
            *("Name: HAProxy", "Maxconn: 10000", "CurrConns: 2"),
            *(f"description: {described[1]}" if described else "", "", STAT_FIELDS),
        ]
        states = [
            f"2 {listener} 1 {name} {address} 2 {ADMISSIONS[told[name]]} 1" for listener, name, address in servers
        ]
        at = {name: address for _, name, address in servers}
        left = [f"leaving {count} {at[name]}" for name, count in self._fake.old_sessions.items() if count]
        fields = "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight"
        return "\n".join([*lines, "kube-master,FRONTEND,OPEN,0,,,,,", *rows, "", "1", fields, *states, "", *left])

    # logs.sh

    def _logs(self, args: list[str], data: str) -> Completed:
        mode, since, lines, pattern, *units = args
        assert (mode, data) == ("print", "")
        self._note(f"logs {' '.join((since or '-', lines or '-', pattern or '-', *units))}")
        if "logs" in self._fake.failing:
            return Completed(0, "", self._fake.failing["logs"] + "\n")
        return Completed(0, "".join(f"{line}\n" for line in self._fake.logged), "")

    def _follow(self, args: list[str]) -> Channel:
        mode, cursor, since, *units = args
        assert mode == "follow"
        self._note(f"follow {cursor or since or '-'} {' '.join(units)}")
        return FakeJournal(self._fake)

    # backend.sh

    def _admit(self, args: list[str], data: str) -> Completed:
        fake, (token, admission, *words) = self._fake, args
        assert data == ""
        assert words
        self._note(f"{admission} {' '.join(words)}")
        if not self._owns(token):
            return Completed(1, f"{LOST}\n", "")
        if "admit" in fake.failing:
            return Completed(1, f"{words[0]}: {fake.failing['admit']}\n", "")
        assert fake.running is not None
        for word in words:
            listener, _, name = word.partition("/")
            assert listener == "kube-master"
            assert f"    server {name} " in fake.running
            fake.admitted[name] = admission
        return Completed(0, f"exlb-backend: done\n{self._proxy_state()}\n", "")

    def _request(self, url: str) -> tuple[int, str]:
        host = urlsplit(url).hostname
        vip = host in {str(each) for each in self._fleet.cluster.vips}
        by_address = {str(each.node.address): each for each in self._fleet if not each.unreachable}
        target = self._fleet.holder if vip else by_address.get(host or "", self._fake)
        if target is None or target.running is None:
            return 7, f"curl: (7) Failed to connect to {url}\n000 0"
        if url.startswith("tcp:"):
            return 0, ""
        if target.backends != "UP":
            return 35, "curl: (35) TLS connect error\n000 1"
        return 0, "200 1"

    # launch.sh, apply.sh and install.sh

    def _launch(self, args: list[str], data: str) -> Completed:
        fake = self._fake
        if args == ["follow"]:
            self._note("follow")
            change, fake.change = fake.change, None
            return Completed(0, change() if change else "", "")
        action, token, *words = args
        assert action == "run"
        length, _, payload = data.partition("\n")
        assert int(length) == len(payload.encode()), "nothing launched reads a stdin of its own"
        if not self._owns(token):
            return Completed(1, f"{LOST}\n", "")
        if fake.change:
            return Completed(1, "another change runs on the node\n", "")
        known = {APPLY: self._apply, INSTALL: self._install, UNINSTALL: self._uninstall, FIREWALL: self._firewall}
        done = known[payload](words)
        ended = "" if words[0] in fake.killed else f"exlb-ended {done.status}\n"
        return Completed(0, done.stdout + ended, done.stderr)

    def _owns(self, token: str) -> bool:
        return self._fake.lock is not None and self._fake.lock["token"] == token

    def _apply_at_once(self, args: list[str], data: str) -> Completed:
        """Do what harms nothing if it is cut short, or nobody waits for its end."""
        fake, (action, token, *rest) = self._fake, args
        self._note(" ".join((action, *rest)))
        said = fake.failing.get(action)
        if not self._owns(token):
            said = LOST
        match action, rest:
            case _ if said is not None:
                return Completed(1, f"step {action}\n{said}\nexlb-apply: failed {action}\n", "")
            case ("stage", [] | ["unvalidated"]):
                fake.staged = _unframed(data)
                fake.put(fake.staged.attachments)
            case ("prepare", [number, *words]):
                assert set(words) <= {"unvalidated", "idle-proxy", "idle-keepalived"}
                fake.staged = copy.deepcopy(fake.generations[int(number)])
                fake.put(fake.staged.attachments)
            case ("discard", []):
                fake.staged = None
            case _:
                raise AssertionError(f"{fake.name}: unexpected action: {args}")
        return Completed(0, f"step {action}\nexlb-apply: done\n", "")

    def _apply(self, args: list[str]) -> Completed:
        action, *words = args
        *words, limit, url = words
        assert int(limit) > 0
        assert url == node_url(self._fleet.cluster, self._fake.node)
        self._note(" ".join((action, *words)))
        if action in self._fake.failing:
            said = self._fake.failing[action]
            return Completed(1, f"step {action}\n{said}\nexlb-apply: failed {action}\n", "")
        match action, words:
            case "activate", [number, found, proxy, keepalived]:
                ended = self._activate(int(number), int(found), proxy, keepalived)
            case "units", [proxy, keepalived]:
                ended = self._change(proxy, keepalived)
            case "recover", []:
                ended = self._recover()
            case _:
                raise AssertionError(f"{self._fake.name}: unexpected action: {args}")
        return Completed(0, f"step {action}\n{'exlb-apply: done' if ended else 'step swap'}\n", "")

    def _activate(self, number: int, found: int, proxy: str, keepalived: str) -> bool:
        """Return whether it came to its end."""
        fake, staged = self._fake, self._fake.staged
        assert staged
        assert fake.intent is None
        if fake.current is None or fake.edited:
            assert found not in fake.generations, f"{fake.name}: {found} is another generation"
            meta = {**staged.meta, "what": "found on the node"}
            files = {path: copy.copy(fake.files.get(path)) for path in staged.files if _kind(path) != "attachment"}
            units = "".join(f"{name} {unit.file_state} {unit.active}\n" for name, unit in fake.units.items())
            fake.generations[found] = FakeGeneration(files, meta=meta, was_active=True, units=units)
            fake.current = found
        assert fake.current is not None
        fake.staged = None
        if number not in fake.generations:
            meta = {**staged.meta, "previous": f"{fake.current:04d}"}
            fake.generations[number] = replace(staged, meta=meta, was_active=False)
        assert fake.generations[number].files == staged.files
        fake.put(staged.files)
        if "activate" in fake.killed:
            fake.intent, fake.wanted = (number, fake.current), keepalived
            return False
        self._change(proxy, keepalived)
        fake.current = number
        fake.generations[number].was_active = True
        for old in fake.kept[:-KEPT]:
            if old not in (0, number):
                del fake.generations[old]
                fake.pruned = old
        return True

    def _change(self, proxy: str, keepalived: str) -> bool:
        self._fake.act("haproxy", proxy)
        self._fake.act("keepalived", keepalived)
        return True

    def _recover(self) -> bool:
        fake = self._fake
        assert fake.intent
        number, previous = fake.intent
        fake.put(fake.generations[previous].files)
        for unit, path in (("haproxy", PROXY.path), ("keepalived", KEEPALIVED_PATH)):
            runs = fake.units[unit].active == "active"
            still = unit == "keepalived" and fake.wanted == "start"
            fake.act(unit, "stop" if still or path not in fake.files else "reload" if runs else "start")
        if not fake.generations[number].was_active:
            del fake.generations[number]
        fake.intent, fake.current = None, previous
        return True

    def _firewall(self, args: list[str]) -> Completed:
        for each in args:
            self._note(each)
            verb, _, directive = each.partition(" ")
            if "firewall" in self._fake.failing:
                return Completed(1, self._fake.failing["firewall"] + "\n", "")
            if verb == "open":
                self._fake.opened.append(directive)
            else:
                self._fake.opened.remove(directive)
        return Completed(0, "", "")

    def _install(self, args: list[str]) -> Completed:
        fake, (manager, limit, units, *packages) = self._fake, args
        self._note(f"install {manager} {' '.join(packages)}".rstrip())
        assert int(limit) >= 0
        if "install" in fake.failing:
            return Completed(1, fake.failing["install"] + "\n", "")
        if manager.endswith("-upgrade"):
            assert {PACKAGES[package] for package in packages} <= fake.programs
            for package in packages:
                if package in fake.newest:
                    fake.versions[package] = fake.newest[package]
                    fake.act(package, "restart")
            return Completed(0, "0 upgraded\n", "")
        names = [name for name in units.split(",") if name]
        lines = [
            f"unit {name} {fake.units[name].file_state or 'not-found'} {fake.units[name].active}" for name in names
        ]
        fake.record = (fake.record or "") + "".join(
            f"{line}\n" for line in (*lines, *(f"package {p}" for p in packages))
        )
        for package in packages:
            fake.programs.add(PACKAGES[package])
            if package in fake.units:
                fake.units[package].load = "loaded"
        for unit in names:
            assert fake.units[unit].load == "loaded"
            fake.units[unit].file_state = "enabled"
        return Completed(0, "Setting up\n", "")

    def _uninstall(self, args: list[str]) -> Completed:
        fake, (manager, limit, units, *packages) = self._fake, args
        self._note(" ".join(("uninstall", manager, units, *packages)))
        assert int(limit) > 0
        assert manager == ("apt-get" if packages else "none")
        if fake.current is not None and not fake.leaving:
            found = fake.generations[0].files
            active = {path: fake.files.get(path) for path in found}
            assert active == found, f"{fake.name}: exlb's files are active"
        fake.leaving = True
        for each in filter(None, units.split(",")):
            action, unit = each.split("=")
            fake.act(unit, action)
        if "uninstall" in fake.failing:
            return Completed(1, fake.failing["uninstall"] + "\n", "")
        for package in packages:
            fake.programs.discard(PACKAGES[package])
            if package in fake.units:
                assert fake.units[package].active != "active"
                fake.units[package] = FakeUnit()
        fake.generations, fake.current, fake.pruned = {}, None, None
        fake.record, fake.leaving = None, False
        return Completed(0, "step state\n", "")


class FakeJournal:
    """A journal that is followed: it says what comes, and then nothing more."""

    def __init__(self, fake: FakeNode) -> None:
        self._fake = fake

    def line(self, limit_seconds: float) -> str | None:
        assert limit_seconds > 0
        if not self._fake.coming:
            self._fake.before("quiet")
            raise RemoteError(f"{self._fake.name}: no answer after {limit_seconds:.0f} s")
        found = self._fake.coming.pop(0)
        if isinstance(found, ExlbError):
            raise found
        return found

    def send(self, text: str) -> None:
        assert text == "\n"

    def close(self) -> None:
        self._fake.calls.append("unfollow")


class FakeChannel:
    """What holds a fake node for a session, or said that another does."""

    def __init__(self, fake: FakeNode, note: Callable[[str], None], token: str, lines: Sequence[str]) -> None:
        self._fake = fake
        self._note = note
        self._token = token
        self._lines = list(lines)

    def line(self, limit_seconds: float) -> str | None:
        assert limit_seconds > 0
        return self._lines.pop(0) if self._lines else None

    def send(self, text: str) -> None:
        assert text == "\n"
        if self._fake.unreachable:
            raise self._fake.unreachable
        self._note("beat")

    def close(self) -> None:
        if self._fake.lock is not None and self._fake.lock["token"] == self._token:
            self._note("unlock")
            self._fake.lock = None


def _kind(path: str) -> str:
    """Return the kind of a file, as a manifest has it."""
    known = {PROXY.path: "proxy", KEEPALIVED_PATH: "keepalived", SYSCTL_PATH: "sysctl"}
    return "drop-in" if path.endswith(".service.d/exlb.conf") else known.get(path, "attachment")


def _unframed(data: str) -> FakeGeneration:
    """Read a generation the way apply.sh does."""
    lines, staged, binds = iter(data.splitlines()), FakeGeneration({}), 0
    for header in lines:
        match header.split(" "):
            case ["meta", name, *words]:
                staged.meta[name] = " ".join(words)
            case ["bind", address, port]:
                binds += bool(ip_address(address) and int(port))
            case ["absent", kind, path]:
                assert kind == _kind(path)
                staged.files[path] = None
            case ["file", kind, mode, owner, count, path]:
                assert kind == _kind(path)
                text = "".join(f"{next(lines)}\n" for _ in range(int(count)))
                staged.files[path] = file = FakeFile(text, int(mode, 8), owner)
                assert kind != "attachment" or file.sha256[:ATTACHMENT_DIGITS] in path
            case _:
                raise AssertionError(f"not understood by apply.sh: {header!r}")
    assert list(staged.meta) == ["when", "who", "from", "tool", "what"]
    assert set(staged.files) >= {PROXY.path, KEEPALIVED_PATH}
    assert binds
    return staged
