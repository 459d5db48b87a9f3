"""Understand the environment file: its variables in, one Cluster out, or every fault at once."""

import itertools
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from exlb_fab import values
from exlb_fab.cluster import (
    MASK,
    Apiserver,
    Balance,
    Cluster,
    HealthCheck,
    Listener,
    Node,
    Setting,
    SshSettings,
    Stats,
    Vip,
    Vrrp,
)
from exlb_fab.environment import Environment, read
from exlb_fab.errors import EnvironmentFileError
from exlb_fab.reading import Fault, Reading
from exlb_fab.values import Url, is_dotted, shown
from exlb_fab.variables import KNOWN, MOST_NODES, VARIABLES

Resolve = Callable[[str], Collection[str]]


class InvalidEnvironment(EnvironmentFileError):  # noqa: N818 - reads as what it is: InvalidEnvironment(faults)
    """The environment file has faults: all of them, one on a line. `warnings` may tell where they come from."""

    def __init__(self, faults: Sequence[Fault], warnings: Sequence[str] = ()) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = tuple(faults)
        self.warnings = tuple(warnings)


def load(path: Path) -> Cluster:
    """Read and understand one environment file. Raises EnvironmentFileError."""
    return understand(read(path, KNOWN))


def understand(environment: Environment, *, resolve: Resolve | None = None) -> Cluster:
    """Return the cluster that the environment file describes.

    `resolve` gives the addresses of a DNS name, none if it has none; it is asked only about a name in KUBE_APISERVER.
    Raises InvalidEnvironment with every fault of the file.
    """
    reading = Reading(environment)
    draft = _draft(reading)
    for compare in (_compare_lengths, _compare_names, _compare_vip, _compare_ports, _compare_url):
        compare(draft, reading)
    warnings = (*environment.warnings, *reading.misspellings())
    if reading.faults:
        raise InvalidEnvironment(_in_order(reading.faults, environment.path), warnings)
    return _assemble(draft, environment, (*warnings, *_doubts(draft, reading, resolve or _resolve)))


def _in_order(faults: Sequence[Fault], path: Path) -> list[Fault]:
    """Return the faults in the order of the file's lines, what is missing first, other files last."""

    def place(fault: Fault) -> tuple[bool, str, int]:
        return fault.location.path != path, str(fault.location.path), fault.location.line or 0

    return sorted(faults, key=place)


# Each variable by itself


@dataclass(frozen=True, slots=True)
class _Draft:
    """What the variables say, each by itself.

    `faulty` names those with a fault: they are None or hold their default here, and an array lacks elements.
    """

    addresses: tuple[IPv4Address, ...]
    interface: str | None
    vip: Vip | None
    names: tuple[str, ...]
    hosts: tuple[str, ...]
    server_names: tuple[str, ...]
    source_port: int
    destination_port: int
    url: Url | None
    health_check: HealthCheck
    balance: Balance
    stats: Stats
    vrrp: Vrrp
    ssh: SshSettings
    faulty: frozenset[str]

    @property
    def backends(self) -> tuple[str, ...]:
        """Return the hosts of the apiservers: the nodes, where APISERVER_IPS is not set."""
        return self.hosts or tuple(map(str, self.addresses))


def _draft(reading: Reading) -> _Draft:
    """Read every variable."""
    return _Draft(
        addresses=reading.many("NODE_IPS", values.address, same=int),
        interface=reading.maybe("VIP_IF", values.interface),
        vip=reading.maybe("MASTER_VIP", values.vip),
        names=reading.many("NODE_NAMES", values.node_name, same=str.casefold),
        hosts=reading.many("APISERVER_IPS", values.host, same=str.casefold),
        server_names=reading.many("APISERVER_NAMES", values.server_name, same=str),
        source_port=reading.one("APISERVER_SRC_PORT", values.port),
        destination_port=reading.one("APISERVER_DEST_PORT", values.port),
        url=reading.maybe("KUBE_APISERVER", values.url),
        health_check=reading.one("HEALTH_CHECK", values.health_check),
        balance=reading.one("BALANCE", values.balance),
        stats=Stats(
            port=reading.one("STATS_PORT", values.port),
            user=reading.one("STATS_USER", values.stats_user),
            password=reading.maybe("STATS_PASSWORD", values.password),
        ),
        vrrp=Vrrp(
            router_id=reading.one("ROUTER_ID", values.small),
            advert_interval_seconds=reading.one("ADVERT_INT", values.small),
            check_interval_seconds=reading.one("CHECK_INTERVAL", values.small),
            check_fall=reading.one("CHECK_FALL", values.small),
            check_rise=reading.one("CHECK_RISE", values.small),
        ),
        ssh=SshSettings(
            user=reading.one("SSH_USER", values.ssh_user),
            port=reading.one("SSH_PORT", values.port),
            key=reading.maybe("SSH_KEY", values.path),
            gateway=reading.maybe("SSH_GATEWAY", values.gateway),
            known_hosts=reading.maybe("SSH_KNOWN_HOSTS", values.path),
            sudo=reading.one("SUDO", values.sudo),
        ),
        # Last, when all the others have been read.
        faulty=frozenset(fault.name for fault in reading.faults),
    )


# What only several variables together can tell


def _compare_lengths(_: _Draft, reading: Reading) -> None:
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


def _compare_names(draft: _Draft, reading: Reading) -> None:
    """Refuse a name of a node that is an address, unless it is the node's own."""
    # Where elements are missing for their faults, a name's place in the list does not tell its node.
    if (len(draft.names), len(draft.addresses)) != (reading.count("NODE_NAMES"), reading.count("NODE_IPS")):
        return
    for name, address in zip(draft.names, map(str, draft.addresses), strict=False):
        if is_dotted(name) and name != address:
            reading.fault("NODE_NAMES", f"{shown(name)} is not a host name")


def _compare_vip(draft: _Draft, reading: Reading) -> None:
    """Refuse a VIP that a machine has as its own address."""
    if draft.vip is None:
        return
    right = "write an address that no machine has"
    if draft.vip.address in draft.addresses:
        reading.fault("MASTER_VIP", f"{draft.vip} is the address of a node", right)
    elif str(draft.vip) in draft.hosts:
        reading.fault("MASTER_VIP", f"{draft.vip} is the address of an apiserver", right)


def _compare_ports(draft: _Draft, reading: Reading) -> None:
    """Refuse a port of the nodes that two programs would listen on."""
    ports = {
        "APISERVER_DEST_PORT": draft.destination_port,
        "STATS_PORT": draft.stats.port,
        "SSH_PORT": draft.ssh.port,
    }
    if _runs_apiservers(draft):
        ports["APISERVER_SRC_PORT"] = draft.source_port
    for one, other in itertools.combinations([name for name in ports if name not in draft.faulty], 2):
        if ports[one] == ports[other]:
            blamed, taker = _blamed(one, other, reading)
            why = ", and apiservers run on the nodes" if "APISERVER_SRC_PORT" in (one, other) else ""
            reading.fault(blamed, f"{ports[one]} is {taker} already{why}", "write another port")


def _runs_apiservers(draft: _Draft) -> bool:
    """Tell whether an apiserver runs on one of the nodes, as far as their addresses and names tell."""
    nodes = {str(address) for address in draft.addresses} | {name.casefold() for name in draft.names}
    return any(host.casefold() in nodes for host in draft.backends)


def _blamed(one: str, other: str, reading: Reading) -> tuple[str, str]:
    """Return of two variables the one that the file sets, or sets later, and then the other."""
    places = [reading.locate(name).line or 0 for name in (one, other)]
    return (one, other) if places[0] > places[1] else (other, one)


def _compare_url(draft: _Draft, reading: Reading) -> None:
    """Refuse a URL for clients that leads elsewhere than to the VIP and the proxy's port."""
    if draft.url is None:
        return
    if "APISERVER_DEST_PORT" not in draft.faulty and draft.url.port != draft.destination_port:
        wrong = f"its port is {draft.url.port}, and APISERVER_DEST_PORT is {draft.destination_port}"
        reading.fault("KUBE_APISERVER", wrong, f"write https://{draft.url.host}:{draft.destination_port}")
    if draft.vip is not None and is_dotted(draft.url.host) and draft.url.host != str(draft.vip):
        wrong = f"its host is {draft.url.host}, and MASTER_VIP is {draft.vip}"
        reading.fault("KUBE_APISERVER", wrong, f"write https://{draft.vip}:{draft.url.port}")


# What is not wrong but probably not meant


def _doubts(draft: _Draft, reading: Reading, resolve: Resolve) -> Iterator[str]:
    """Yield a warning for what has no effect, or leads elsewhere at the moment."""
    if draft.stats.password is None and "STATS_USER" in reading.environment.variables:
        yield f"{reading.locate('STATS_USER')}: STATS_USER: has no effect; set STATS_PASSWORD as well"
    if draft.url is None or is_dotted(draft.url.host):
        return
    addresses = sorted(resolve(draft.url.host))
    if str(draft.vip) not in addresses:
        found = f"resolves to {', '.join(map(shown, addresses))}" if addresses else "does not resolve"
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


def _assemble(draft: _Draft, environment: Environment, warnings: tuple[str, ...]) -> Cluster:
    """Make the cluster of a draft without faults."""
    assert draft.vip is not None
    nodes = _nodes(draft)
    listener = _listener(draft)
    return Cluster(
        path=environment.path,
        nodes=nodes,
        vip=draft.vip,
        listeners=(listener,),
        stats=draft.stats,
        vrrp=draft.vrrp,
        ssh=draft.ssh,
        kube_apiserver=draft.url.text if draft.url else None,
        warnings=warnings,
        settings=tuple(_settings(environment, nodes, listener)),
    )


def _nodes(draft: _Draft) -> tuple[Node, ...]:
    assert draft.interface is not None
    names = draft.names or tuple(map(str, draft.addresses))
    pairs = enumerate(zip(names, draft.addresses, strict=True))
    return tuple(Node(name, address, draft.interface, index) for index, (name, address) in pairs)


def _listener(draft: _Draft) -> Listener:
    pairs = zip(draft.server_names or draft.backends, draft.backends, strict=True)
    return Listener(
        name="kube-master",
        port=draft.destination_port,
        backends=tuple(Apiserver(name, host, draft.source_port) for name, host in pairs),
        health_check=draft.health_check,
        balance=draft.balance,
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
