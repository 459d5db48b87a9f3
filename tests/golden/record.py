"""Record what the probe says of a node: the texts that tests/unit/test_facts.py reads.

For each release, after a change of node/probe.sh:

    exlb lab up --name rec --nodes 1 --release bookworm
    exlb lab run --name rec -- python tests/golden/record.py tests/golden/recorded/bookworm-fresh.txt
    exlb lab run --name rec -- exlb deploy, and the same with bookworm-deployed.txt
    exlb lab run --name rec -- exlb exec -- systemctl stop haproxy keepalived, and the same with bookworm-stopped.txt
    exlb lab down --name rec
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from exlb_fab import facts
from exlb_fab.events import silent
from exlb_fab.node import probe
from exlb_fab.proxies import PROXIES
from exlb_fab.ssh import SshConnector, SshOptions
from exlb_fab.understanding import load


def record(path: Path) -> None:
    """Write the answers of the first node of $EXLB_ENV, to what exlb asks and to some more."""
    cluster = load(Path(os.environ["EXLB_ENV"]))
    node, proxy = cluster.nodes[0], PROXIES[cluster.proxy]
    questions = [
        *facts.configuration_questions(cluster),
        *facts.service_questions(cluster, node),
        "history",
        "lock",
        "file /run",
        "file /etc/os-release",
        f"request https://{node.address}:1/readyz",
        "ping 198.51.100.77",
    ]
    connector = SshConnector(cluster.ssh, SshOptions(), silent)
    remote = connector(node)
    done = remote.run(probe(proxy.program), data="".join(f"{question}\n" for question in questions))
    path.write_text(done.stdout, encoding="utf-8")
    remote.close()
    connector.close()


if __name__ == "__main__":
    record(Path(sys.argv[1]))
