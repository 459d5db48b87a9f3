"""The stand-ins of a lab, for kube-apiservers and other backends: on the host, in a node's network namespace."""

from collections.abc import Sequence
from pathlib import Path

from exlb_fab.errors import LabError
from exlb_fab.lab import cgroups, files
from exlb_fab.lab.host import program_environment, python_words
from exlb_fab.lab.identity import self_signed
from exlb_fab.lab.launch import last_line, launch
from exlb_fab.lab.layout import APISERVER_MODES, APISERVER_PORT, SECOND_VIP, VIP, VIP6, NodeLayout
from exlb_fab.lab.serving import LISTENS
from exlb_fab.lab.waiting import until

OFF = "off"
MODES = (*APISERVER_MODES, OFF)

# By name: a module that is both imported and run with -m would be loaded twice.
_APISERVER_MODULE = "exlb_fab.lab.apiserver"
_BACKEND_MODULE = "exlb_fab.lab.backend"
_BACKEND_LIMIT_S = 20


def make_certificate(node: NodeLayout) -> None:
    """Write the stand-in's certificate and key, once."""
    if node.apiserver_certificate.exists():
        return
    addresses = (node.node.address, node.node.address6, VIP, SECOND_VIP, VIP6)
    names = (node.node.name, *addresses, "kubernetes", "kubernetes.default", "localhost")
    certificate, key = self_signed(names)
    # The certificate comes last: it is what says that both are there.
    files.write(node.apiserver_key, key)
    files.write(node.apiserver_certificate, certificate)


def start(node: NodeLayout, leader: int) -> None:
    """Start the stand-in if it is not running; it ends when the node's process `leader` does."""
    if is_running(node):
        return
    server = [*python_words(_APISERVER_MODULE), "--port", str(APISERVER_PORT)]
    server += ["--cert", str(node.apiserver_certificate), "--key", str(node.apiserver_key)]
    server += ["--control", str(node.apiserver_mode)]
    _start(server, node, leader, group=node.apiserver_cgroup, log=node.apiserver_log)


def _start(server: Sequence[str], node: NodeLayout, leader: int, *, group: str, log: Path) -> None:
    cgroups.remove(group)
    cgroups.make(group)
    common = ["--address", "0.0.0.0", "--hostname", node.node.name, "--watch-pid", str(leader)]  # noqa: S104
    launch(
        ["nsenter", f"--net=/proc/{leader}/ns/net", "--", *server, *common],
        group=group,
        log=log,
        env=program_environment(),
    )


def stop(node: NodeLayout) -> None:
    """End the stand-in."""
    cgroups.kill(node.apiserver_cgroup)
    cgroups.remove(node.apiserver_cgroup)


def start_backend(node: NodeLayout, leader: int, port: int) -> None:
    """Start the backend stand-in at a port if it is not running, and wait until it listens.

    It ends when the node's process `leader` does. Raises LabError with the last line that it said.
    """
    group, log = node.backend_cgroup(port), node.backend_log(port)
    if not cgroups.processes(group):
        _start([*python_words(_BACKEND_MODULE), "--port", str(port)], node, leader, group=group, log=log)

    def settled() -> str | None:
        if LISTENS in log.read_text().splitlines():
            return LISTENS
        return None if cgroups.processes(group) else "died"

    if until(settled, limit_s=_BACKEND_LIMIT_S) != LISTENS:
        cgroups.kill(group)
        cgroups.remove(group)
        raise LabError(f"{node.node}: no backend at port {port}: {last_line(log)}", hint=f"less {log}")


def stop_backend(node: NodeLayout, port: int) -> None:
    """End the backend stand-in at a port, if there is one."""
    cgroups.kill(node.backend_cgroup(port))
    cgroups.remove(node.backend_cgroup(port))


def stop_all(node: NodeLayout) -> None:
    """End every stand-in of the node."""
    stop(node)
    cgroups.kill(node.backends_cgroup)
    cgroups.remove(node.backends_cgroup)


def is_running(node: NodeLayout) -> bool:
    """Tell whether the stand-in has a process."""
    return bool(cgroups.processes(node.apiserver_cgroup))


def require_mode(mode: str) -> None:
    """Raise LabError on a mode that there is not."""
    if mode not in MODES:
        raise LabError(f"no apiserver mode {mode!r}", hint=f"one of: {', '.join(MODES)}")


def write_mode(node: NodeLayout, mode: str) -> None:
    """Tell the stand-in how to answer from the next request on."""
    files.write(node.apiserver_mode, f"{mode}\n")


def mode(node: NodeLayout) -> str:
    """Return how the stand-in answers now."""
    return node.apiserver_mode.read_text().strip() if is_running(node) else OFF
