"""The kube-apiserver stand-ins of a lab: started from the host, inside a node's network namespace."""

from exlb_fab.errors import LabError
from exlb_fab.lab import cgroups, files
from exlb_fab.lab.host import program_environment, python_words
from exlb_fab.lab.identity import self_signed
from exlb_fab.lab.launch import launch
from exlb_fab.lab.layout import APISERVER_MODES, APISERVER_PORT, VIP, NodeLayout

OFF = "off"
MODES = (*APISERVER_MODES, OFF)

# By name: a module that is both imported and run with -m would be loaded twice.
_APISERVER_MODULE = "exlb_fab.lab.apiserver"


def make_certificate(node: NodeLayout) -> None:
    """Write the stand-in's certificate and key, once."""
    if node.apiserver_certificate.exists():
        return
    names = (node.node.name, node.node.address, VIP, "kubernetes", "kubernetes.default", "localhost")
    certificate, key = self_signed(names)
    # The certificate comes last: it is what says that both are there.
    files.write(node.apiserver_key, key)
    files.write(node.apiserver_certificate, certificate)


def start(node: NodeLayout, leader: int) -> None:
    """Start the stand-in if it is not running; it ends when the node's process `leader` does."""
    if is_running(node):
        return
    cgroups.remove(node.apiserver_cgroup)
    cgroups.make(node.apiserver_cgroup)
    server = [*python_words(_APISERVER_MODULE), "--address", "0.0.0.0", "--port", str(APISERVER_PORT)]  # noqa: S104
    server += ["--cert", str(node.apiserver_certificate), "--key", str(node.apiserver_key)]
    server += ["--hostname", node.node.name, "--control", str(node.apiserver_mode), "--watch-pid", str(leader)]
    launch(
        ["nsenter", f"--net=/proc/{leader}/ns/net", "--", *server],
        group=node.apiserver_cgroup,
        log=node.apiserver_log,
        env=program_environment(),
    )


def stop(node: NodeLayout) -> None:
    """End the stand-in."""
    cgroups.kill(node.apiserver_cgroup)
    cgroups.remove(node.apiserver_cgroup)


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
