"""Record anew what the probe prints on real nodes: `python -m tests.lab.recording [RELEASE ...]`, as root.

One node of each release is asked while it is fresh, once it is deployed, and with both units stopped; the answers are
the files in tests/golden/recorded. A run changes all that depends on the time: only what else differs means something.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from exlb_fab import departure
from exlb_fab import node as programs
from exlb_fab.cluster import Cluster
from exlb_fab.lab import Lab, down
from exlb_fab.proxies import PROXIES
from exlb_fab.questions import configuration_questions, service_questions
from exlb_fab.system import DGRAM_QLEN
from exlb_fab.understanding import load
from tests.lab.bastion import Bastion

RECORDED = Path(__file__).parents[1] / "golden" / "recorded"
RELEASES = ("bullseye", "bookworm", "trixie", "el9-like")
NAME = "t-recording"
# All of the journal is to be there.
STOP = "systemctl stop keepalived haproxy && journalctl --sync"
# What only some nodes are asked, and answers that a node of the lab has no reason for.
FURTHER = (
    *(f"kernel {DGRAM_QLEN}", "lock", "file /run", "file /etc/os-release"),
    *("request https://198.51.100.11:1/readyz", "ping 198.51.100.77"),
)


def questions(cluster: Cluster) -> list[str]:
    """Return all that is asked of a single node that names its interface."""
    of = replace(cluster, nodes=(replace(cluster.nodes[0], interface="host0"),))
    asked = [*configuration_questions(of), *service_questions(of, of.nodes[0]), *departure.questions(), *FURTHER]
    return list(dict.fromkeys(asked))


def record(bastion: Bastion, state: str, asked: list[str]) -> None:
    """Ask the node, and keep what it says."""
    (node,) = bastion.lab.nodes
    program = programs.probe(PROXIES["haproxy"].program)
    said = bastion.lab.shell_in(
        node, ["sh", "-c", program], input="".join(f"{each}\n" for each in asked).encode(), timeout=120
    )
    assert said.returncode == 0, said.stderr
    (RECORDED / f"{node.release}-{state}.txt").write_bytes(said.stdout)


def main(releases: list[str]) -> None:
    for release in releases or RELEASES:
        try:
            lab = Lab.up(NAME, nodes=1, releases=[release])
            with tempfile.TemporaryDirectory() as folder:
                bastion = Bastion(lab, Path(folder))
                asked = questions(load(bastion.env))
                record(bastion, "fresh", asked)
                bastion.exlb("deploy", "--yes")
                bastion.wait_until(bastion.served)
                record(bastion, "deployed", asked)
                bastion.inside("lb1", "sh", "-c", STOP)
                record(bastion, "stopped", asked)
        finally:
            down(NAME)


if __name__ == "__main__":
    main(sys.argv[1:])
