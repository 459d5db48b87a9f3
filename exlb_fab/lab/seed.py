"""What makes a node that node: the files that lie over the image before its first boot."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exlb_fab.errors import LabError
from exlb_fab.lab.host import run_program
from exlb_fab.lab.layout import GATEWAY, GATEWAY6, NODE_INTERFACE, LabNode

# As image.sh makes them: name, home, uid, gid.
_USERS = (("root", "root", 0, 0), ("operator", "home/operator", 2001, 37), ("clerk", "home/clerk", 2002, 2002))


@dataclass(frozen=True)
class Entry:
    """One file (or directory, where content is None) of a node, its path relative to /."""

    path: str
    content: bytes | None
    mode: int
    uid: int = 0
    gid: int = 0


def entries(
    node: LabNode,
    nodes: Sequence[LabNode],
    *,
    machine_id: str,
    host_key: tuple[bytes, bytes],
    authorized_key: bytes,
    shadow: bytes,
) -> tuple[Entry, ...]:
    """Return what is to lie over the image, directories before what is in them."""
    hosts = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    hosts += [f"{other.address} {other.name}" for other in nodes]
    return (
        Entry("etc", None, 0o755),
        Entry("etc/hostname", f"{node.name}\n".encode(), 0o644),
        Entry("etc/hosts", ("\n".join(hosts) + "\n").encode(), 0o644),
        Entry("etc/machine-id", f"{machine_id}\n".encode(), 0o444),
        Entry("etc/shadow", shadow, 0o640, gid=42),
        Entry("etc/ssh", None, 0o755),
        Entry("etc/ssh/ssh_host_ed25519_key", host_key[0], 0o600),
        Entry("etc/ssh/ssh_host_ed25519_key.pub", host_key[1], 0o644),
        Entry("etc/systemd", None, 0o755),
        Entry("etc/systemd/network", None, 0o755),
        Entry("etc/systemd/network/10-lab.network", network_file(node).encode(), 0o644),
        Entry("home", None, 0o755),
        *(entry for user in _USERS for entry in _home(*user[1:], authorized_key)),
    )


def _home(home: str, uid: int, gid: int, authorized_key: bytes) -> tuple[Entry, ...]:
    return (
        Entry(home, None, 0o700, uid, gid),
        Entry(f"{home}/.ssh", None, 0o700, uid, gid),
        Entry(f"{home}/.ssh/authorized_keys", authorized_key, 0o600, uid, gid),
    )


def network_file(node: LabNode) -> str:
    """Return the node's systemd.network(5) file: one static address of each family, and foreign ones left alone."""
    return f"""\
[Match]
Name={NODE_INTERFACE}

[Network]
Address={node.address}/{GATEWAY.network.prefixlen}
LinkLocalAddressing=ipv6
IPv6AcceptRA=no
LLMNR=no
# Without it a restart of networkd would take the VIP away from keepalived.
KeepConfiguration=yes

[Address]
Address={node.address6}/{GATEWAY6.network.prefixlen}
# It is of use at once: nobody else in the lab has it.
DuplicateAddressDetection=none
"""


def shadow_with_password(shadow: str, user: str, hashed: str) -> str:
    """Return the text of shadow(5) with the user's password hash replaced; raises LabError if there is no such user."""
    lines = shadow.splitlines()
    names = [line.partition(":")[0] for line in lines]
    if user not in names:
        raise LabError(f"the image has no user {user}", hint="remove the image cache, then exlb lab up")
    index = names.index(user)
    fields = lines[index].split(":")
    lines[index] = ":".join([fields[0], hashed, *fields[2:]])
    return "\n".join(lines) + "\n"


def hash_password(root: Path, password: str) -> str:
    """Return the crypt(5) hash of a password, made by the image's own openssl."""
    return run_program(["chroot", str(root), "openssl", "passwd", "-6", "-stdin"], text=password + "\n").strip()


def write(upper: Path, wanted: Sequence[Entry]) -> None:
    """Write the entries into an empty directory, which replaces the one that is there."""
    if upper.exists():
        shutil.rmtree(upper)
    upper.mkdir(parents=True)
    upper.chmod(0o755)  # it becomes the node's /
    for entry in wanted:
        path = upper / entry.path
        if entry.content is None:
            path.mkdir()
        else:
            path.write_bytes(entry.content)
        os.chown(path, entry.uid, entry.gid)
        path.chmod(entry.mode)
