"""The bastion: a network namespace with the nodes' bridge, a second bridge for partitions, and no way out."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from exlb_fab.errors import LabError
from exlb_fab.lab.host import run_program
from exlb_fab.lab.layout import (
    CUT_BRIDGE,
    GATEWAY,
    GATEWAY6,
    LAB_BRIDGE,
    NAMESPACES,
    NODE_INTERFACE,
    LabLayout,
    command,
)
from exlb_fab.lab.waiting import until

_BRIDGE_MAC = "02:00:00:00:33:64"
_IPV6 = Path("/proc/sys/net/ipv6")  # absent on a host whose kernel was told to do without


def is_up(lab: LabLayout) -> bool:
    """Tell whether the lab's namespace exists (it does not survive a restart of the host)."""
    return _is_mount(lab.namespace_file)


def ensure(lab: LabLayout) -> None:
    """Make the namespace and its bridges, or what is missing of them."""
    if not is_up(lab):
        # Not `ip netns add`: it makes /run/netns a mount of its own, for good.
        until(lambda: _make_file(lab.namespace_file), limit_s=1)
        run_program(["unshare", f"--net={lab.namespace_file}", "true"], failure=f"{lab.namespace}: no namespace")
    there = {link["ifname"] for link in _links(lab)}
    batch = [f"link add {bridge} type bridge" for bridge in (LAB_BRIDGE, CUT_BRIDGE) if bridge not in there]
    # Without an address of its own a bridge takes one of its ports': at every partition the bastion would have another
    # one, and forget its neighbours, which no router or switch of a real network does.
    batch += [f"link set {LAB_BRIDGE} address {_BRIDGE_MAC}", f"address replace {GATEWAY} dev {LAB_BRIDGE}"]
    batch += [f"link set {link} up" for link in ("lo", LAB_BRIDGE, CUT_BRIDGE)]
    if _IPV6.exists():
        batch += [f"address replace {GATEWAY6} dev {LAB_BRIDGE} nodad"]
    run_program(["ip", "-n", lab.namespace, "-batch", "-"], text="\n".join(batch) + "\n")
    if _IPV6.exists():
        words = ["sh", "-c", 'for bridge; do echo 0 >"/proc/sys/net/ipv6/conf/$bridge/accept_ra"; done', "sh"]
        run_program(["nsenter", f"--net={lab.namespace_file}", *words, LAB_BRIDGE, CUT_BRIDGE])


def _make_file(path: Path) -> bool:
    """Make the file that the namespace is mounted on; False if another lab's end took the directory away meanwhile."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.touch(mode=0o444)
    except FileNotFoundError:
        return False
    return True


def remove(lab: LabLayout) -> None:
    """Remove the namespace; what runs in it keeps it alive, unnamed, until it ends."""
    while is_up(lab):  # more than one mount, if two `up` raced
        run_program(["umount", str(lab.namespace_file)])
    lab.namespace_file.unlink(missing_ok=True)
    # Others may use the directory, or be about to: it goes when it is empty.
    with suppress(OSError):
        NAMESPACES.rmdir()


def has_own_namespace(lab: LabLayout, leader: int) -> bool:
    """Tell whether the process has left the bastion's namespace for its own."""
    try:
        theirs = Path(f"/proc/{leader}/ns/net").stat()
    except FileNotFoundError:
        return False
    ours = (lab.namespace_file.stat(), Path("/proc/self/ns/net").stat())
    return not any(os.path.samestat(theirs, other) for other in ours)


def bridge_of(lab: LabLayout, leader: int) -> str | None:
    """Return the bridge that the node's interface is plugged into, None while it is in none."""
    link = _bastion_link(lab, leader)
    return str(link["master"]) if link and "master" in link else None


def plug(lab: LabLayout, leader: int, bridge: str) -> None:
    """Plug the node into a bridge, its carrier staying up; nothing happens where it is plugged into that one already.

    On the bridge for partitions each node is alone: it does not hear other nodes that are cut off, either.
    """
    link = until(lambda: _bastion_link(lab, leader), limit_s=5)
    if link is None:
        raise LabError(
            f"the node of process {leader} has no interface in {lab.namespace}", hint=command("status", lab.name)
        )
    if link.get("master") == bridge:
        return
    name = str(link["ifname"])
    batch = [
        f"link set {name} master {bridge}",
        f"link set {name} type bridge_slave isolated {'on' if bridge == CUT_BRIDGE else 'off'}",
        f"link set {name} up",
    ]
    run_program(["ip", "-n", lab.namespace, "-batch", "-"], text="\n".join(batch) + "\n")


def _bastion_link(lab: LabLayout, leader: int) -> dict[str, Any] | None:
    """Return the bastion's end of the node's cable as ip(8) describes it."""
    text = run_program(["nsenter", f"--net=/proc/{leader}/ns/net", "ip", "-j", "link", "show"])
    peers = {link.get("link_index") for link in json.loads(text) if link["ifname"] == NODE_INTERFACE}
    return next((link for link in _links(lab) if link["ifindex"] in peers), None)


def _links(lab: LabLayout) -> list[dict[str, Any]]:
    """Return the links of the bastion as ip(8) describes them."""
    links: list[dict[str, Any]] = json.loads(run_program(["ip", "-n", lab.namespace, "-j", "link", "show"]))
    return [link for link in links if "ifname" in link]


def _is_mount(path: Path) -> bool:
    """Tell whether a namespace is mounted on the file."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False
