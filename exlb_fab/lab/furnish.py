"""Everything of a lab that is a file: keys, certificates, the nodes' disks, known_hosts, environment.sh."""

import secrets
from collections.abc import Mapping, Sequence

from exlb_fab.lab import disks, files, identity, seed, standins
from exlb_fab.lab.environment import environment_text
from exlb_fab.lab.image import Image
from exlb_fab.lab.layout import LabLayout, LabNode, NodeLayout


def furnish(lab: LabLayout, nodes: Sequence[LabNode], images: Mapping[str, Image]) -> None:
    """Write those files of the lab that are missing; what is there stays, since nodes may be running on it.

    `images` are those of the nodes' releases.
    """
    if not lab.key.exists():
        private, public = identity.ssh_key_pair(f"exlb-lab-{lab.name}")
        files.write(lab.public_key, public)
        files.write(lab.key, private)
    if not lab.clerk_password.exists():
        files.write(lab.clerk_password, secrets.token_urlsafe(12) + "\n")
    disks.ensure(lab, images[nodes[0].release].root)
    places = [lab.node(node) for node in nodes]
    for place in places:
        place.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        standins.make_certificate(place)
    if fresh := [place for place in places if not place.seeded.exists()]:
        _seed(lab, nodes, images, fresh)
    files.write(lab.known_hosts, "".join(_known_host(place) for place in places))
    files.write(lab.environment_file, environment_text(lab, nodes))


def _seed(lab: LabLayout, nodes: Sequence[LabNode], images: Mapping[str, Image], fresh: Sequence[NodeLayout]) -> None:
    """Make the disks of nodes that have never booted."""
    password = lab.clerk_password.read_text().strip()
    shadows = {release: _shadow(images[release], password) for release in {place.node.release for place in fresh}}
    for place in fresh:
        entries = seed.entries(
            place.node,
            nodes,
            machine_id=secrets.token_hex(16),
            host_key=identity.ssh_key_pair(f"root@{place.node.name}"),
            authorized_key=lab.public_key.read_bytes(),
            shadow=shadows[place.node.release].encode(),
        )
        seed.write(place.upper, entries)
        place.seeded.touch()


def _shadow(image: Image, password: str) -> str:
    return seed.shadow_with_password(
        (image.root / "etc/shadow").read_text(), "clerk", seed.hash_password(image.root, password)
    )


def _known_host(place: NodeLayout) -> str:
    """Return the node's line for known_hosts: it is known by its address and by its name."""
    kind, key, *_ = place.host_public_key.read_text().split()
    return f"{place.node.address},{place.node.name} {kind} {key}\n"
