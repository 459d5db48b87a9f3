"""The environment file that a lab writes for exlb."""

import shlex
from collections.abc import Sequence

from exlb_fab.lab.layout import NODE_INTERFACE, VIP, VIP_PORT, LabLayout, LabNode


def environment_text(lab: LabLayout, nodes: Sequence[LabNode]) -> str:
    """Return the text of the lab's environment.sh."""

    def array(words: Sequence[str]) -> str:
        return f"({' '.join(map(shlex.quote, words))})"

    return f"""\
# Written by `exlb lab up` for the lab {lab.name!r}; gone with `exlb lab down`.

# The load balancers; the first is the master.
NODE_IPS={array([node.address for node in nodes])}
# Their names, in the same order.
NODE_NAMES={array([node.name for node in nodes])}
# The interface that gets the VIP.
VIP_IF={NODE_INTERFACE}
# The virtual address that clients connect to.
MASTER_VIP={VIP}
# What clients have in their kubeconfig.
KUBE_APISERVER="https://${{MASTER_VIP}}:{VIP_PORT}"

# The user to log in as; `operator` (sudo without password) and `clerk` (with) have the same key.
SSH_USER=root
# The key made for this lab.
SSH_KEY={shlex.quote(str(lab.key))}
# The host keys of its nodes.
SSH_KNOWN_HOSTS={shlex.quote(str(lab.known_hosts))}
"""
