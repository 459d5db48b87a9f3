"""Where everything of a lab is: names, addresses and paths, all derived from the lab's name.

Nothing here touches the system. That every name follows from the lab's name is what lets `down` clean up after
an `up` that was killed at any moment: it needs no record of what had been made.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from itertools import cycle, islice
from pathlib import Path

from exlb_fab.errors import LabError

DEFAULT_RELEASE = "bookworm"
NODES_DEFAULT = 3
NODES_MAXIMUM = 9

GATEWAY = IPv4Interface("198.51.100.1/24")
VIP = "198.51.100.100"
SECOND_VIP = "198.51.100.101"  # where EXTRA_VIPS asks for one
GATEWAY6 = IPv6Interface("2001:db8:0:51::1/64")
VIP6 = "2001:db8:0:51::100"
VIP_PORT = 8443
NODE_INTERFACE = "host0"  # systemd-nspawn calls it that
LAB_BRIDGE = "br-lab"
CUT_BRIDGE = "br-cut"  # nodes behind a silent partition
DEFAULT_HOME = Path("/var/lib/exlb-lab")
DEFAULT_CACHE = Path("/var/cache/exlb-lab")
NAMESPACES = Path("/run/netns")  # where ip(8) looks for them
REPOSITORY_IN_NODE = "/srv/repo"
APISERVER_PORT = 6443
APISERVER_MODES = ("ok", "unhealthy", "hung", "unauthorized", "foreign")

_NAME = re.compile(r"[a-z0-9-]{1,20}")


@dataclass(frozen=True)
class LabNode:
    """One node of a lab; `str` of it is its name."""

    name: str
    address: str
    address6: str
    release: str

    def __str__(self) -> str:
        return self.name


def is_lab_name(name: str) -> bool:
    """Tell whether a lab can have this name."""
    return _NAME.fullmatch(name) is not None


def lab_name(name: str) -> str:
    """Return the name if it is one a lab can have; raises LabError."""
    if not is_lab_name(name):
        raise LabError(
            f"{name!r} cannot be the name of a lab",
            hint="use 1 to 20 of: small letters, digits, '-'",
        )
    return name


def spread(count: int | None, releases: Sequence[str]) -> tuple[str, ...]:
    """Return the release of each node: the releases in order, and again from the first where there are more nodes.

    `count` None: as many nodes as there are releases, three at least. Raises LabError on counts that cannot be.
    """
    if not releases:
        raise LabError("a lab needs a release", hint=f"exlb lab up --releases {DEFAULT_RELEASE}")
    if count is None:
        count = max(NODES_DEFAULT, len(releases))
    if not 1 <= count <= NODES_MAXIMUM:
        raise LabError(
            f"a lab has 1 to {NODES_MAXIMUM} nodes, not {count}", hint=f"exlb lab up --nodes {NODES_DEFAULT}"
        )
    if len(releases) > count:
        raise LabError(f"{len(releases)} releases for {count} nodes", hint=f"exlb lab up --nodes {len(releases)}")
    return tuple(islice(cycle(releases), count))


def nodes(releases: Sequence[str]) -> tuple[LabNode, ...]:
    """Return the nodes lb1..lbN, one of each release given, with their addresses."""
    return tuple(
        LabNode(
            name=f"lb{number}",
            address=str(GATEWAY.network[10 + number]),
            address6=str(GATEWAY6.network[0x10 + number]),
            release=release,
        )
        for number, release in enumerate(releases, start=1)
    )


def command(verb: str, lab: str, *arguments: str) -> str:
    """Return the command line that does something to the lab of that name: for hints."""
    return " ".join(["exlb lab", verb, *arguments, *([] if lab == "default" else ["--name", lab])])


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory that has one directory per lab; raises LabError."""
    return _directory(environ, "EXLB_LAB_HOME", DEFAULT_HOME)


def cache(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of the images; raises LabError."""
    return _directory(environ, "EXLB_LAB_CACHE", DEFAULT_CACHE)


def _directory(environ: Mapping[str, str], variable: str, default: Path) -> Path:
    path = Path(environ.get(variable) or default).absolute()
    # mount(8) takes the first three as syntax in the options of an overlay, nspawn the first in a bind.
    if set(str(path)) & set(":,\\\n"):
        raise LabError(
            f"{variable}: {str(path)!r} may have no ':', ',', '\\' or line end in it", hint=f"unset {variable}"
        )
    return path


@dataclass(frozen=True)
class NodeLayout:
    """The paths and names of one node of a lab."""

    lab: str
    node: LabNode
    directory: Path  # apiserver-mode, console.log, the stand-in's certificate
    disk: Path  # what the node has written: upper and work directory, mount point
    machine: str
    cgroup: str  # relative to every hierarchy
    apiserver_cgroup: str

    @property
    def backends_cgroup(self) -> str:
        return f"{self.cgroup}.backends"

    def backend_cgroup(self, port: int) -> str:
        """Return the control group of the backend stand-in at a port."""
        return f"{self.backends_cgroup}/{port}"

    def backend_log(self, port: int) -> Path:
        """Return what the backend stand-in at a port says."""
        return self.directory / f"backend-{port}.log"

    @property
    def console_log(self) -> Path:
        return self.directory / "console.log"

    @property
    def apiserver_log(self) -> Path:
        return self.directory / "apiserver.log"

    @property
    def apiserver_mode(self) -> Path:
        return self.directory / "apiserver-mode"

    @property
    def apiserver_certificate(self) -> Path:
        return self.directory / "apiserver.crt"

    @property
    def apiserver_key(self) -> Path:
        return self.directory / "apiserver.key"

    @property
    def upper(self) -> Path:
        return self.disk / "upper"

    @property
    def host_public_key(self) -> Path:
        return self.upper / "etc/ssh/ssh_host_ed25519_key.pub"

    @property
    def seeded(self) -> Path:
        """The mark that the disk is complete; it lives and dies with it."""
        return self.disk / "seeded"


@dataclass(frozen=True)
class LabLayout:
    """The paths and names of one lab."""

    name: str
    home: Path

    @property
    def directory(self) -> Path:
        return self.home / self.name

    @property
    def lock(self) -> Path:
        return self.directory / "lock"

    @property
    def description(self) -> Path:
        return self.directory / "lab.json"

    @property
    def environment_file(self) -> Path:
        return self.directory / "environment.sh"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def key(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def public_key(self) -> Path:
        return self.directory / "id_ed25519.pub"

    @property
    def clerk_password(self) -> Path:
        return self.directory / "clerk-password"

    @property
    def disks(self) -> Path:
        return self.directory / "disks"

    @property
    def _elsewhere(self) -> str:
        # Labs below another home may bear the same names; what the whole host shares must not.
        if self.home == DEFAULT_HOME:
            return ""
        return "." + hashlib.sha256(str(self.home).encode()).hexdigest()[:8]

    @property
    def namespace(self) -> str:
        return f"exlb-{self.name}{self._elsewhere}"

    @property
    def namespace_file(self) -> Path:
        return NAMESPACES / self.namespace

    @property
    def cgroup(self) -> str:
        # The dot is in no lab's name: no lab's group can be taken for another's.
        return f"exlb-lab.{self.name}{self._elsewhere}"

    def node(self, node: LabNode) -> NodeLayout:
        """Return the paths and names of one node."""
        return NodeLayout(
            lab=self.name,
            node=node,
            directory=self.directory / "nodes" / node.name,
            disk=self.disks / node.name,
            machine=f"exlb-{self.name}-{node.name}{self._elsewhere}",
            cgroup=f"{self.cgroup}/{node.name}",
            apiserver_cgroup=f"{self.cgroup}/{node.name}.apiserver",
        )


def lab_layout(name: str) -> LabLayout:
    """Return the paths and names of the lab; raises LabError on a name that a lab cannot have."""
    return LabLayout(lab_name(name), home())
