"""The POSIX shell programs that run on nodes, as files; this module only loads them and puts them together."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def program(*names: str) -> str:
    """Return the text of node programs, one after the other: functions first, then what uses them."""
    folder = resources.files(__name__)
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def probe(proxy: str) -> str:
    """Return the program that answers questions; `proxy` is the file with a proxy's functions."""
    return program("session.sh", "units.sh", "generations.sh", "keepalived.sh", proxy, "probe.sh")


def doctor(proxy: str) -> str:
    """Return the program that answers the questions of `doctor` as well."""
    return program("session.sh", "units.sh", "generations.sh", "keepalived.sh", proxy, "doctor.sh", "probe.sh")


def apply(proxy: str) -> str:
    """Return the program that changes a node's configuration."""
    return program("session.sh", "units.sh", "generations.sh", proxy, "apply.sh")


def backend(proxy: str) -> str:
    """Return the program that tells a running proxy what to do with its servers."""
    return program("session.sh", proxy, "backend.sh")


def install() -> str:
    """Return the program that installs packages."""
    return program("generations.sh", "packages.sh", "install.sh")


def uninstall(proxy: str) -> str:
    """Return the program that leaves nothing of exlb on a node."""
    return program("session.sh", "units.sh", "generations.sh", proxy, "packages.sh", "uninstall.sh")


def lock() -> str:
    """Return the program that holds a node for a session."""
    return program("session.sh", "lock.sh")


def logs() -> str:
    """Return the program that reads the journal of a node."""
    return program("session.sh", "logs.sh")


def drill() -> str:
    """Return the program that injects a fault which undoes itself, and watches the VIP."""
    return program("session.sh", "drill.sh")


def launch() -> str:
    """Return the program that runs another one so that it ends whatever happens to the session."""
    return program("session.sh", "launch.sh")


def firewall() -> str:
    """Return the program that opens and closes the firewall of a node."""
    return program("session.sh", "generations.sh", "firewall.sh")


def selinux() -> str:
    """Return the program that lets the proxy bind and connect under SELinux."""
    return program("session.sh", "generations.sh", "selinux.sh")
