"""Clusters for tests, and nodes that are not there: a Remote that knows exlb's own programs and refuses all others.

A fake node answers the questions of probe.sh from a small state, and apply.sh and install.sh change that state. It
knows as much of haproxy and keepalived as exlb asks of them. The programs themselves are tested in
unit/test_node_programs.py, on real nodes in lab/.
"""

from __future__ import annotations

import copy
import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_interface
from pathlib import Path
from typing import Any

from exlb_fab.cluster import Apiserver, Cluster, Listener, Node, SshSettings, Stats, Vip, Vrrp
from exlb_fab.errors import ExlbError, UnreachableError
from exlb_fab.events import Emit
from exlb_fab.facts import END_MARK, Address, Facts, FileFact, Reply, Socket, Unit, node_url, vip_url
from exlb_fab.node import program
from exlb_fab.platforms import PROGRAMS, parse_version
from exlb_fab.proxies import PROXIES, ProxyState, Server
from exlb_fab.remote import Completed, Connect, Remote
from exlb_fab.rendering import File

PROXY = PROXIES["haproxy"]
VIP = IPv4Address("198.51.100.100")
PROBE = program(PROXY.program, "probe.sh")
APPLY = program(PROXY.program, "apply.sh")
INSTALL = program("install.sh")
KEEPALIVED_PATH = "/etc/keepalived/keepalived.conf"
PACKAGES = {"haproxy": "haproxy", "keepalived": "keepalived", "psmisc": "killall", "curl": "curl", "socat": "socat"}
DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n'
ROCKY = 'PRETTY_NAME="Rocky Linux 9.1 (Blue Onyx)"\nID="rocky"\nID_LIKE="rhel centos fedora"\n'
STAT_FIELDS = "# pxname,svname,status,type,check_status,check_code,last_chk,addr,"


def cluster(nodes: int = 3, **changes: Any) -> Cluster:
    """Return a cluster of nodes lb1, lb2 ... on which the apiservers run, as a file of three lines would give it."""
    machines = tuple(
        Node(f"lb{number}", IPv4Address(f"198.51.100.{10 + number}"), "eth0", number - 1)
        for number in range(1, nodes + 1)
    )
    listener = Listener(
        "kube-master",
        8443,
        tuple(Apiserver(str(node.address), str(node.address), 6443) for node in machines),
        "readyz",
        "source",
    )
    made = Cluster(
        path=Path("environment.sh"),
        nodes=machines,
        vip=Vip(VIP, None),
        listeners=(listener,),
        stats=Stats(10080, "admin", None),
        vrrp=Vrrp(68, 1, 2, 2, 2),
        ssh=SshSettings("root", 22, None, None, None, "auto"),
    )
    return replace(made, **changes)


def fact(file: File) -> FileFact:
    """Return what the probe says of a file that was rendered and brought."""
    return FileFact("regular file", file.mode, "root:root", file.sha256)


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
            Address(node.interface, ip_interface(f"{node.address}/24")),
        ),
        sockets=(
            Socket(None, listener.port, PROXY.process),
            Socket(cluster.stats.bind, cluster.stats.port, PROXY.process),
        ),
        files={file.path: fact(file) for file in desired},
        proxy_state=ProxyState(proxy.digest, servers),
        pings={str(cluster.vip): True},
        replies={url: Reply(200, "", accepted=True) for url in (vip_url(cluster), node_url(cluster, node))},
    )
    return replace(found, **changes)


def holding(cluster: Cluster, facts: Facts) -> Facts:
    """Return the same facts of a node that has the VIP."""
    return replace(facts, addresses=(*facts.addresses, Address("eth0", ip_interface(f"{cluster.vip}/32"))))


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
    """A systemd unit."""

    active: str = "inactive"
    file_state: str = ""
    load: str = "not-found"


@dataclass
class FakeFile:
    """A regular file."""

    text: str
    mode: int = 0o644
    owner: str = "root:root"


@dataclass
class FakeNode:
    """What one node has. `failing` maps a step (stage, activate, units, install) to what the node says as it fails.

    `answers` replaces the answer to a question of the probe: a status and a text.
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
    staged: dict[str, FakeFile] = field(default_factory=dict)
    failing: dict[str, str] = field(default_factory=dict)
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
    def priority(self) -> int:
        """Return the effective priority of its keepalived, 0 where that does not run."""
        if self.units["keepalived"].active != "active" or self.unreachable:
            return 0
        text = self.files[KEEPALIVED_PATH].text
        (priority,) = re.findall(r"^    priority (\d+)$", text, re.MULTILINE)
        (weight,) = re.findall(r"^    weight (-\d+)$", text, re.MULTILINE)
        return int(priority) + (0 if self.running is not None else int(weight))

    @property
    def state(self) -> object:
        """Return all that a command could have changed, to be compared."""
        units = {name: (unit.active, unit.file_state) for name, unit in self.units.items()}
        files = {path: (file.text, file.mode, file.owner) for path, file in self.files.items()}
        return (frozenset(self.programs), units, files, self.running, dict(self.staged))


class FakeFleet:
    """The nodes of a cluster on one network; `connector` is what the command line takes instead of SSH."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.nodes = {node.name: FakeNode(node) for node in cluster.nodes}
        self.journal: list[str] = []
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> FakeNode:
        return self.nodes[name]

    def __iter__(self) -> Iterator[FakeNode]:
        return iter(self.nodes.values())

    def connector(self, cluster: Cluster, common: object, emit: Emit) -> tuple[Connect, Callable[[], None]]:
        return self.connect, lambda: None

    def connect(self, node: Node) -> Remote:
        fake = self.nodes[node.name]
        if fake.unreachable:
            raise fake.unreachable
        return FakeRemote(self, fake)

    def cut(self, name: str) -> None:
        """Power a node off."""
        self[name].unreachable = UnreachableError(f"{name}: cannot connect: No route to host", hint="is it up?")

    @property
    def holder(self) -> FakeNode | None:
        """Return who holds the VIP, as keepalived would have elected it."""
        best = max(self, key=lambda each: each.priority)
        return best if best.priority else None

    @property
    def state(self) -> object:
        return [each.state for each in self]

    def count(self, call: str) -> dict[str, int]:
        """Return how many calls that begin so each node got."""
        return {each.name: sum(said.startswith(call) for said in each.calls) for each in self}

    def become(self, other: FakeFleet) -> None:
        """Take on the state of another fleet of the same nodes."""
        for fake in self:
            for each in ("programs", "units", "files", "running"):
                setattr(fake, each, copy.deepcopy(getattr(other[fake.name], each)))

    def note(self, name: str, call: str) -> None:
        with self._lock:
            self.journal.append(f"{name} {call}")


class FakeRemote:
    """One connected fake node. What exlb is not known to run is a failure of the test."""

    def __init__(self, fleet: FakeFleet, fake: FakeNode) -> None:
        self._fleet = fleet
        self._fake = fake

    def run(self, program: str, args: Sequence[str] = (), data: str = "", limit_seconds: float = 60) -> Completed:
        known = {PROBE: self._probe, APPLY: self._apply, INSTALL: self._install}
        assert program in known, f"{self._fake.name}: unexpected program: {program[:200]!r}"
        assert limit_seconds > 0
        return known[program](list(args), data)

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
                return 0, f"{fake.release}HOST={fake.name}\nCONTAINER=none\nUSER_ID=0\nMANAGERS={fake.managers}\n"
            case ["programs", *names]:
                assert names == [PROXY.process, *PROGRAMS]
                return 0, "".join(f"{name}\n" for name in names if name in fake.programs)
            case ["packages", *names]:
                return 0, "".join(f"{name} 1.0-1\n" for name in names if PACKAGES[name] in fake.programs)
            case ["unit", name]:
                unit = fake.units[name]
                journal = "" if unit.active == "active" else f"Journal=the end of {name}'s journal\n"
                text = f"LoadState={unit.load}\nActiveState={unit.active}\nSubState=-\n"
                return 0, f"{text}UnitFileState={unit.file_state}\n{journal}"
            case ["proxy-version"]:
                return (0, fake.proxy_version) if "haproxy" in fake.programs else (127, "sh: haproxy: not found")
            case ["keepalived-version"]:
                return (0, fake.keepalived_version) if "keepalived" in fake.programs else (127, "sh: not found")
            case ["addresses"]:
                return 0, self._addresses()
            case ["listeners"]:
                return 0, self._sockets()
            case ["file", path]:
                return 0, self._file(path)
            case ["read", path]:
                return (0, fake.files[path].text) if path in fake.files else (1, f"cat: {path}: No such file")
            case ["proxy-state"]:
                return (1, "socat: Connection refused") if fake.running is None else (0, self._proxy_state())
            case ["ping", address]:
                assert address == str(self._fleet.cluster.vip)
                return (0, "1 received") if self._fleet.holder else (1, "0 received")
            case ["request", url]:
                return self._request(url)
        raise AssertionError(f"{fake.name}: unexpected question: {question!r}")

    def _addresses(self) -> str:
        own = self._fake.node.address
        lines = ["1: lo    inet 127.0.0.1/8 scope host lo", f"2: eth0    inet {own}/24 scope global eth0"]
        if self._fleet.holder is self._fake:
            lines.append(f"2: eth0    inet {self._fleet.cluster.vip}/32 scope global eth0")
        return "\n".join(lines)

    def _sockets(self) -> str:
        own = re.findall(r"^    bind (\S+)$", self._fake.running or "", re.MULTILINE)
        lines = [f'LISTEN 0 4096 {bind} 0.0.0.0:* users:(("haproxy",pid=7,fd=9))' for bind in own]
        return "\n".join([*lines, *self._fake.foreign_sockets])

    def _file(self, path: str) -> str:
        file = self._fake.files.get(path)
        if file is None:
            return "absent"
        return f"{file.mode:o} {file.owner} {hashlib.sha256(file.text.encode()).hexdigest()} 1795227762.5 regular file"

    def _proxy_state(self) -> str:
        text = self._fake.running or ""
        described = re.search(r"^    description (\S+)$", text, re.MULTILINE)
        check = {"UP": "L7OK,200,", "DOWN": "L4CON,,Connection refused", "401": "L7STS,401,Unauthorized"}
        status = "UP" if self._fake.backends == "UP" else "DOWN"
        rows = [
            f"kube-master,{name},{status},2,{check[self._fake.backends]},{address},"
            for name, address in re.findall(r"^    server (\S+) (\S+) ", text, re.MULTILINE)
        ]
        lines = ["Name: HAProxy", f"description: {described[1]}" if described else "", "", STAT_FIELDS]
        return "\n".join([*lines, "kube-master,FRONTEND,OPEN,0,,,,,", *rows])

    def _request(self, url: str) -> tuple[int, str]:
        vip = url == vip_url(self._fleet.cluster)
        target = self._fleet.holder if vip else self._fake
        if target is None or target.running is None:
            return 7, f"curl: (7) Failed to connect to {url}\n000 0"
        if target.backends != "UP":
            return 35, "curl: (35) TLS connect error\n000 1"
        return 0, "200 1"

    # apply.sh and install.sh

    def _apply(self, args: list[str], data: str) -> Completed:
        self._note(" ".join(args))
        fake = self._fake
        if args[0] in fake.failing:
            return Completed(1, f"step {args[0]}\n{fake.failing[args[0]]}\nexlb-apply: failed {args[0]}\n", "")
        match args:
            case ["stage"]:
                fake.staged = _unframed(data)
                assert fake.staged
            case ["activate", proxy, keepalived, limit]:
                assert fake.staged
                assert int(limit) > 0
                fake.files |= fake.staged
                fake.staged = {}
                self._change(proxy, keepalived)
            case ["units", proxy, keepalived, limit]:
                assert int(limit) > 0
                self._change(proxy, keepalived)
            case ["discard"]:
                fake.staged = {}
            case _:
                raise AssertionError(f"{fake.name}: unexpected action: {args}")
        return Completed(0, f"step {args[0]}\nexlb-apply: done\n", "")

    def _change(self, proxy: str, keepalived: str) -> None:
        fake = self._fake
        for unit, action in (("haproxy", proxy), ("keepalived", keepalived)):
            assert action in ("none", "reload", "start", "restart")
            assert action != "reload" or fake.units[unit].active == "active"
            if action != "none":
                fake.units[unit].active = "active"
        if proxy != "none":
            fake.running = fake.files[PROXY.path].text

    def _install(self, args: list[str], data: str) -> Completed:
        assert data == ""
        fake, (manager, limit, units, *packages) = self._fake, args
        self._note(f"install {manager} {' '.join(packages)}".rstrip())
        assert int(limit) >= 0
        if "install" in fake.failing:
            return Completed(1, fake.failing["install"] + "\n", "")
        for package in packages:
            fake.programs.add(PACKAGES[package])
            if package in fake.units:
                fake.units[package].load = "loaded"
        for unit in filter(None, units.split(",")):
            assert fake.units[unit].load == "loaded"
            fake.units[unit].file_state = "enabled"
        return Completed(0, "Setting up\n", "")


def _unframed(data: str) -> dict[str, FakeFile]:
    """Read files the way apply.sh does."""
    lines, files = iter(data.splitlines()), {}
    for header in lines:
        kind, mode, count, path = header.split(" ", 3)
        assert kind in ("proxy", "keepalived")
        files[path] = FakeFile("".join(f"{next(lines)}\n" for _ in range(int(count))), int(mode, 8))
    return files
