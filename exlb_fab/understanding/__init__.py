"""Understand the environment file: its variables in, one Cluster out, or every fault at once.

`nodes`, `listeners` and `election` take the variables of one part each: what each says by itself (`read`), what only
several together can tell (`compare`), and what is not wrong but probably not meant (`doubts`).
"""

import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from exlb_fab import generated, values
from exlb_fab.cluster import MASK, Cluster, Secret, Setting, SshSettings, bracketed
from exlb_fab.environment import Environment, read
from exlb_fab.errors import EnvironmentFileError
from exlb_fab.reading import Fault, Reading
from exlb_fab.understanding import election, listeners, nodes
from exlb_fab.understanding.listeners import ListenersDraft
from exlb_fab.understanding.nodes import NodesDraft
from exlb_fab.values import Url, is_address, shown
from exlb_fab.variables import KNOWN, VARIABLES

STATS_PASSWORD_LENGTH = 24

Resolve = Callable[[str], Collection[str]]
Generate = Callable[[str, int], str]


class InvalidEnvironment(EnvironmentFileError):  # noqa: N818 - reads as what it is: InvalidEnvironment(faults)
    """The environment file has faults: all of them, one on a line. `warnings` may tell where they come from."""

    def __init__(self, faults: Sequence[Fault], warnings: Sequence[str] = ()) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = tuple(faults)
        self.warnings = tuple(warnings)


def load(path: Path) -> Cluster:
    """Read and understand one environment file. Raises EnvironmentFileError."""
    return understand(read(path, KNOWN))


def understand(
    environment: Environment, *, resolve: Resolve | None = None, generate: Generate | None = None
) -> Cluster:
    """Return the cluster that the environment file describes.

    `resolve` gives the addresses of a DNS name, none if it has none; it is asked only about a name in KUBE_APISERVER.
    `generate` gives the password of a variable that leaves it to exlb, with so many signs. Raises InvalidEnvironment
    with every fault of the file, and EnvironmentFileError where a password cannot be kept.
    """
    reading = Reading(environment)
    machines, proxy, vrrp = nodes.read(reading), listeners.read(reading), election.read(reading)
    url = reading.maybe("KUBE_APISERVER", values.url)
    firewall = reading.one("FIREWALL", values.firewall)
    ssh = _ssh(reading)
    nodes.compare(machines, vrrp.vrrp.mode, reading)
    listeners.compare(proxy, machines, ssh.port, reading)
    election.compare(vrrp, machines, reading)
    if url:
        _compare_url(url, proxy, machines, reading)
    warnings = (*environment.warnings, *reading.misspellings())
    if reading.faults:
        raise InvalidEnvironment(_in_order(reading.faults, environment.path), warnings)
    assert machines.vip is not None
    make = generate or _generate(environment.path)
    doubts = (
        *listeners.doubts(proxy, reading),
        *election.doubts(vrrp, machines, proxy.method, reading),
        *_doubts_of_url(url, machines, reading, resolve or _resolve),
    )
    cluster = Cluster(
        path=environment.path,
        nodes=nodes.nodes(machines, vrrp.vrrp.mode),
        vip=machines.vip,
        extra_vips=machines.extra_vips,
        listeners=listeners.listeners(proxy, machines),
        proxying=proxy.proxying,
        stats=replace(proxy.stats, password=_made(proxy.stats.password, "STATS_PASSWORD", STATS_PASSWORD_LENGTH, make)),
        vrrp=replace(
            vrrp.vrrp,
            version=election.version(vrrp, machines),
            auth_pass=_made(vrrp.vrrp.auth_pass, "AUTH_PASS", values.AUTH_PASS_LENGTH, make),
        ),
        ssh=ssh,
        firewall=firewall,
        kube_apiserver=url.text if url else None,
        warnings=(*warnings, *doubts),
    )
    return replace(cluster, settings=tuple(_settings(environment, cluster)))


def _generate(path: Path) -> Generate:
    """Return what keeps generated passwords beside an environment file."""

    def generate(name: str, length: int) -> str:
        return generated.password(generated.secrets_path(path), name, length)

    return generate


def _made(password: Secret | None, name: str, length: int, generate: Generate) -> Secret | None:
    """Return a password, made where the file leaves that to exlb."""
    return Secret(generate(name, length)) if password == values.GENERATE else password


def _in_order(faults: Sequence[Fault], path: Path) -> list[Fault]:
    """Return the faults in the order of the file's lines, what is missing first, other files last."""

    def place(fault: Fault) -> tuple[bool, str, int]:
        return fault.location.path != path, str(fault.location.path), fault.location.line or 0

    return sorted(faults, key=place)


def _ssh(reading: Reading) -> SshSettings:
    return SshSettings(
        user=reading.one("SSH_USER", values.ssh_user),
        port=reading.one("SSH_PORT", values.port),
        key=reading.maybe("SSH_KEY", values.path),
        gateway=reading.maybe("SSH_GATEWAY", values.gateway),
        known_hosts=reading.maybe("SSH_KNOWN_HOSTS", values.path),
        sudo=reading.one("SUDO", values.sudo),
    )


# KUBE_APISERVER is about the VIP and a port at once


def _compare_url(url: Url, proxy: ListenersDraft, machines: NodesDraft, reading: Reading) -> None:
    """Refuse a URL for clients that leads elsewhere than to the VIP and the proxy's port."""
    port = proxy.destination_port
    if not reading.is_faulty("APISERVER_DEST_PORT") and url.port != port:
        wrong = f"its port is {url.port}, and APISERVER_DEST_PORT is {port}"
        reading.fault("KUBE_APISERVER", wrong, f"write https://{bracketed(url.host)}:{port}")
    if machines.vip is not None and is_address(url.host) and url.host not in map(str, machines.vips):
        wrong = f"its host is {url.host}, and MASTER_VIP is {machines.vip}"
        reading.fault("KUBE_APISERVER", wrong, f"write https://{bracketed(str(machines.vip))}:{url.port}")


def _doubts_of_url(url: Url | None, machines: NodesDraft, reading: Reading, resolve: Resolve) -> Iterator[str]:
    """Yield a warning where the name for clients leads elsewhere at the moment."""
    if url is None or is_address(url.host):
        return
    addresses = sorted(resolve(url.host))
    if str(machines.vip) not in addresses:
        found = f"resolves to {', '.join(map(shown, addresses))}" if addresses else "does not resolve"
        where = reading.locate("KUBE_APISERVER")
        yield f"{where}: KUBE_APISERVER: {url.host} {found}; it should resolve to the VIP {machines.vip}"


def _resolve(name: str) -> Collection[str]:
    """Return the addresses that this host finds for a name, none if it has none."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return {str(address[0]) for *_, address in found}


def _settings(environment: Environment, cluster: Cluster) -> Iterator[Setting]:
    """Yield one line per variable: what the file says, else what holds instead."""
    backends, vrrp = cluster.apiserver_listener.backends, cluster.vrrp
    derived = {
        "NODE_NAMES": " ".join(node.name for node in cluster.nodes),
        "APISERVER_IPS": " ".join(backend.host for backend in backends),
        "APISERVER_NAMES": " ".join(backend.name for backend in backends),
        "STATS_BIND": str(cluster.stats.bind),
        "PRIORITIES": " ".join(map(str, cluster.priorities)),
        "VRRP_VERSION": str(vrrp.version),
        "FAILOVER": vrrp.failover,
        "ADVERT_INT": f"{vrrp.advert_seconds:g}",
        "CHECK_INTERVAL": str(vrrp.check_interval_seconds),
        "CHECK_FALL": str(vrrp.check_fall),
        "CHECK_RISE": str(vrrp.check_rise),
    }
    for spec in VARIABLES:
        variable = environment.variables.get(spec.name)
        if variable is None:
            yield Setting(spec.name, derived.get(spec.name, spec.default), "default")
        else:
            value = MASK if spec.secret else " ".join(variable.values)
            if value == MASK and variable.values == (values.GENERATE.reveal(),):
                value = f"generate, kept in {generated.secrets_path(environment.path)}"
            yield Setting(spec.name, value, str(variable.location))
