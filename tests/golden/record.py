"""Record what the probe says of a node: the texts that tests/unit/test_answers.py reads.

After a change of node/probe.sh, or of what is asked:

    for release in bullseye bookworm trixie el9-like; do
        exlb lab up --name rec --nodes 1 --releases $release
        exlb lab run --name rec -- python tests/golden/record.py tests/golden/recorded/$release-fresh.txt
        exlb lab run --name rec -- exlb deploy
        exlb lab run --name rec -- python tests/golden/record.py tests/golden/recorded/$release-deployed.txt
        exlb lab run --name rec -- exlb exec -- systemctl stop haproxy keepalived
        exlb lab run --name rec -- python tests/golden/record.py tests/golden/recorded/$release-stopped.txt
        exlb lab down --name rec
    done

No question here is answered with a text that may hold a secret: no configuration is read.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from exlb_fab import departure, questions
from exlb_fab.events import silent
from exlb_fab.node import probe
from exlb_fab.proxies import PROXIES
from exlb_fab.ssh import SshConnector, SshOptions
from exlb_fab.system import DGRAM_QLEN
from exlb_fab.understanding import load


def record(path: Path) -> None:
    """Write the answers of the first node of $EXLB_ENV, to all that exlb asks of any node and to some more."""
    cluster = load(Path(os.environ["EXLB_ENV"]))
    node, proxy = cluster.nodes[0], PROXIES[cluster.proxy]
    asked = [
        *questions.configuration_questions(cluster),
        *questions.service_questions(cluster, node),
        *departure.questions(),
        f"kernel {DGRAM_QLEN}",
        "lock",
        "file /run",
        "file /etc/os-release",
        f"request https://{node.address}:1/readyz",
        "ping 198.51.100.77",
    ]
    connector = SshConnector(cluster.ssh, SshOptions(), silent)
    remote = connector(node)
    done = remote.run(probe(proxy.program), data="".join(f"{question}\n" for question in dict.fromkeys(asked)))
    path.write_text(done.stdout, encoding="utf-8")
    remote.close()
    connector.close()


if __name__ == "__main__":
    record(Path(sys.argv[1]))
