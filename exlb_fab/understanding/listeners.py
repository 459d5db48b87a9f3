"""What the proxy listens on and sends to, how it checks its backends, and how it runs."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from exlb_fab import values
from exlb_fab.cluster import (
    ANY_IPV4,
    LOOPBACK,
    Backend,
    Balance,
    CheckMethod,
    HealthCheck,
    Listener,
    ProxySettings,
    Scheme,
    SendProxy,
    Stats,
    Timeouts,
    bracketed,
)
from exlb_fab.reading import Reading
from exlb_fab.understanding.nodes import NodesDraft
from exlb_fab.values import Extra

APISERVER_LISTENER = "kube-master"
INGRESS_LISTENERS = {"HTTP": "ingress-node", "HTTPS": "ingress-node-tls"}
INGRESS_SCHEMES: dict[str, Scheme] = {"HTTP": "http", "HTTPS": "https"}
STATS_LISTENER = "admin_stats"
SHORT_MS = 600_000  # less cuts watches and logs -f: docs/findings.md


@dataclass(frozen=True, slots=True)
class Ingress:
    """What the file says of one ingress listener: the port of the nodes, and that of the proxy."""

    node_port: int | None
    port: int


@dataclass(frozen=True, slots=True)
class ListenersDraft:
    """What the file says of the proxy, each variable by itself."""

    hosts: tuple[str, ...]
    names: tuple[str, ...]
    source_port: int
    destination_port: int
    method: values.HealthCheck
    check: HealthCheck
    ca: str | None
    balance: Balance
    ingress_hosts: tuple[str, ...]
    ingress: dict[str, Ingress]
    send_proxy: SendProxy
    extra: tuple[Extra, ...]
    stats: Stats
    proxying: ProxySettings


def read(reading: Reading) -> ListenersDraft:
    """Read the variables of the proxy."""
    return ListenersDraft(
        hosts=reading.many("APISERVER_IPS", values.host, same=str.casefold),
        names=reading.many("APISERVER_NAMES", values.server_name, same=str),
        source_port=reading.one("APISERVER_SRC_PORT", values.port),
        destination_port=reading.one("APISERVER_DEST_PORT", values.port),
        method=reading.one("HEALTH_CHECK", values.health_check),
        check=HealthCheck(
            method="tcp",
            path="",
            interval_ms=reading.one("BACKEND_INTER", values.timeout),
            fall=reading.one("BACKEND_FALL", values.small),
            rise=reading.one("BACKEND_RISE", values.small),
            slowstart_ms=reading.one("BACKEND_SLOWSTART", values.milliseconds),
        ),
        ca=reading.maybe("APISERVER_CA", values.ca),
        balance=reading.one("BALANCE", values.balance),
        ingress_hosts=reading.many("INGRESS_NODE_IPS", values.host, same=str.casefold),
        ingress={
            kind: Ingress(
                reading.maybe(f"INGRESS_{kind}_NODEPORT", values.port),
                reading.one(f"INGRESS_{kind}_PORT", values.port),
            )
            for kind in INGRESS_LISTENERS
        },
        send_proxy=reading.one("INGRESS_PROXY_PROTOCOL", values.send_proxy),
        extra=reading.many("EXTRA_LISTENERS", values.extra, same=lambda each: each.name),
        stats=_stats(reading),
        proxying=ProxySettings(
            layout=reading.one("LISTENER_LAYOUT", values.layout),
            bind=reading.one("BIND", values.bind),
            timeouts=Timeouts(
                connect_ms=reading.one("TIMEOUT_CONNECT", values.timeout),
                client_ms=reading.one("TIMEOUT_CLIENT", values.timeout),
                server_ms=reading.one("TIMEOUT_SERVER", values.timeout),
                check_ms=reading.maybe("TIMEOUT_CHECK", values.timeout),
                queue_ms=reading.maybe("TIMEOUT_QUEUE", values.timeout),
            ),
            maxconn=reading.maybe("MAXCONN", values.maxconn),
            log=reading.one("LOG", values.log),
            hard_stop_after_ms=reading.maybe("HARD_STOP_AFTER", values.timeout),
            keeps_drains=reading.one("SERVER_STATE", values.yes),
        ),
    )


def _stats(reading: Reading) -> Stats:
    password = reading.maybe("STATS_PASSWORD", values.password)
    return Stats(
        bind=reading.maybe("STATS_BIND", values.bind_address) or (ANY_IPV4 if password else LOOPBACK),
        port=reading.one("STATS_PORT", values.port),
        user=reading.one("STATS_USER", values.stats_user),
        password=password,
        admin=reading.one("STATS_ADMIN", values.yes),
        exporter=reading.one("EXPORTER", values.yes),
    )


def compare(draft: ListenersDraft, nodes: NodesDraft, ssh_port: int, reading: Reading) -> None:
    """Refuse what these variables contradict each other, or the nodes, in."""
    reading.refuse_another_length(
        "APISERVER_NAMES", "APISERVER_IPS" if "APISERVER_IPS" in reading.environment.variables else "NODE_IPS"
    )
    for vip in nodes.vips:
        if str(vip) in draft.hosts:
            name = "MASTER_VIP" if vip is nodes.vip else "EXTRA_VIPS"
            reading.fault(name, f"{vip} is the address of an apiserver", "write an address that no machine has")
    _compare_ingress(draft, reading)
    _compare_loops(draft, nodes, reading)
    _compare_names(draft, reading)
    _compare_ports(draft, nodes, ssh_port, reading)
    _compare_stats(draft.stats, nodes, reading)


def _compare_stats(stats: Stats, nodes: NodesDraft, reading: Reading) -> None:
    """Refuse a page that everybody can use to disable backends, and one that only one of several nodes can have."""
    if stats.admin and stats.password is None and not reading.is_faulty("STATS_PASSWORD"):
        reading.fault("STATS_ADMIN", "would let everybody disable the backends", "set STATS_PASSWORD as well")
    if stats.bind in nodes.addresses and len(nodes.addresses) > 1:
        wrong = f"{stats.bind} is the address of one node, and the proxy of each would listen on it"
        reading.fault("STATS_BIND", wrong)


def _compare_ingress(draft: ListenersDraft, reading: Reading) -> None:
    """Refuse an ingress without a port, and a port without an ingress."""
    ports = [f"INGRESS_{kind}_NODEPORT" for kind, each in draft.ingress.items() if each.node_port]
    if any(reading.is_faulty(f"INGRESS_{kind}_NODEPORT") for kind in draft.ingress):
        return
    if draft.ingress_hosts and not ports:
        wrong = "no port of these nodes is set"
        reading.fault("INGRESS_NODE_IPS", wrong, "set INGRESS_HTTP_NODEPORT or INGRESS_HTTPS_NODEPORT, or both")
    elif ports and not draft.ingress_hosts and not reading.is_faulty("INGRESS_NODE_IPS"):
        reading.fault(ports[0], "no node is said to have it", "set INGRESS_NODE_IPS, or leave the line out")


def _compare_loops(draft: ListenersDraft, nodes: NodesDraft, reading: Reading) -> None:
    """Refuse a listener that would be its own backend: the proxy has that port on the nodes, or on the VIPs."""
    vips = {str(vip) for vip in nodes.vips}
    own = vips | (nodes.hosts if draft.proxying.bind != "vip" else frozenset())
    servers = [
        (f"INGRESS_{kind}_NODEPORT", "", each.port, host, each.node_port)
        for kind, each in draft.ingress.items()
        for host in draft.ingress_hosts
    ]
    servers += [
        ("EXTRA_LISTENERS", f"{each.name}: ", each.port, host, port)
        for each in draft.extra
        for host, port in each.backends
    ]
    for name, listener, listens, host, port in servers:
        if port == listens and host.casefold() in own:
            wrong = f"{listener}{bracketed(host)}:{port} is the proxy itself"
            reading.fault(name, wrong, f"write another port{'' if host in vips else ', or BIND=vip'}")


def _compare_names(draft: ListenersDraft, reading: Reading) -> None:
    """Refuse an extra listener with a name that another one has."""
    taken = {APISERVER_LISTENER, STATS_LISTENER, *INGRESS_LISTENERS.values()}
    for each in draft.extra:
        if each.name in taken:
            reading.fault("EXTRA_LISTENERS", f"{each.name} is the name of a listener of exlb's", "write another name")


def _compare_ports(draft: ListenersDraft, nodes: NodesDraft, ssh_port: int, reading: Reading) -> None:
    """Refuse a port of the nodes that two programs would listen on."""
    ports = {"APISERVER_DEST_PORT": draft.destination_port, "STATS_PORT": draft.stats.port, "SSH_PORT": ssh_port}
    ports |= {f"INGRESS_{kind}_PORT": each.port for kind, each in draft.ingress.items() if each.node_port}
    if draft.proxying.bind != "vip" and runs_on(nodes, draft.hosts or tuple(map(str, nodes.addresses))):
        ports["APISERVER_SRC_PORT"] = draft.source_port
    uses = [(name, port, name) for name, port in ports.items() if not reading.is_faulty(name)]
    uses += [("EXTRA_LISTENERS", each.port, f"EXTRA_LISTENERS ({each.name})") for each in draft.extra]
    for one, other in itertools.combinations(uses, 2):
        if one[1] == other[1]:
            blamed, taker = _blamed(one, other, reading)
            why = ", and apiservers run on the nodes" if "APISERVER_SRC_PORT" in (one[0], other[0]) else ""
            reading.fault(blamed[0], f"{one[1]} is {taker[2]} already{why}", "write another port")


_Use = tuple[str, int, str]


def _blamed(one: _Use, other: _Use, reading: Reading) -> tuple[_Use, _Use]:
    """Return of two uses of a port the one that the file sets, or sets later, and then the other."""
    if reading.is_set(one[0]) and reading.is_set(other[0]):
        is_first = reading.locate(one[0]).is_below(reading.locate(other[0]))
    else:
        is_first = reading.is_set(one[0])
    return (one, other) if is_first else (other, one)


def runs_on(nodes: NodesDraft, hosts: tuple[str, ...]) -> bool:
    """Tell whether one of the hosts is one of the nodes, as far as addresses and names tell."""
    return any(host.casefold() in nodes.hosts for host in hosts)


def doubts(draft: ListenersDraft, reading: Reading) -> Iterator[str]:
    """Yield a warning for what has no effect, or not the one that was meant."""
    if draft.stats.password is None and reading.is_set("STATS_USER"):
        yield f"{reading.locate('STATS_USER')}: STATS_USER: has no effect; set STATS_PASSWORD as well"
    if draft.ca and method(draft.method) != "https":
        where = reading.locate("APISERVER_CA")
        yield f"{where}: APISERVER_CA: has no effect with HEALTH_CHECK={draft.method}; write HEALTH_CHECK=readyz"
    if draft.check.slowstart_ms and draft.balance not in ("roundrobin", "leastconn"):
        where = reading.locate("BACKEND_SLOWSTART")
        yield f"{where}: BACKEND_SLOWSTART: has no effect with BALANCE={draft.balance}; write roundrobin or leastconn"
    for name, found in (
        ("TIMEOUT_CLIENT", draft.proxying.timeouts.client_ms),
        ("TIMEOUT_SERVER", draft.proxying.timeouts.server_ms),
    ):
        if found < SHORT_MS:
            yield f"{reading.locate(name)}: {name}: less than 10m cuts watches and `kubectl logs -f`; write {name}=10m"
    needs = {"INGRESS_PROXY_PROTOCOL": None if draft.ingress_hosts else "INGRESS_NODE_IPS"}
    for kind, each in draft.ingress.items():
        needs[f"INGRESS_{kind}_PORT"] = None if each.node_port else f"INGRESS_{kind}_NODEPORT"
    for name, needed in needs.items():
        if needed and reading.is_set(name):
            yield f"{reading.locate(name)}: {name}: has no effect; set {needed} as well"


def method(check: values.HealthCheck) -> CheckMethod:
    """Return what a HEALTH_CHECK does: the three paths of an apiserver are asked for over HTTPS."""
    return "https" if check in ("readyz", "healthz", "livez") else "ssl-hello" if check == "ssl-hello" else "tcp"


def listeners(draft: ListenersDraft, nodes: NodesDraft) -> tuple[Listener, ...]:
    """Return the listeners of a draft without faults, the apiserver's first."""
    hosts = draft.hosts or tuple(map(str, nodes.addresses))
    asks = method(draft.method)
    path = f"/{draft.method}" if asks == "https" else ""
    check = replace(draft.check, method=asks, path=path, ca=draft.ca if asks == "https" else None)
    pairs = zip(draft.names or hosts, hosts, strict=True)
    backends = tuple(Backend(name, host, draft.source_port) for name, host in pairs)
    return (
        Listener(APISERVER_LISTENER, draft.destination_port, backends, check, draft.balance, scheme="https"),
        *(
            Listener(
                INGRESS_LISTENERS[kind],
                each.port,
                tuple(Backend(host, host, each.node_port) for host in draft.ingress_hosts),
                draft.check,
                draft.balance,
                draft.send_proxy,
                INGRESS_SCHEMES[kind],
            )
            for kind, each in draft.ingress.items()
            if each.node_port
        ),
        *(
            Listener(
                each.name,
                each.port,
                tuple(Backend(f"{host}:{port}", host, port) for host, port in each.backends),
                replace(draft.check, method=each.method, path=each.path),
                draft.balance,
                scheme=_scheme(each.method),
            )
            for each in draft.extra
        ),
    )


def _scheme(method: CheckMethod) -> Scheme:
    """Return what clients of an extra listener speak, by the health check that the file gives it."""
    return method if method in ("http", "https") else "tcp"
