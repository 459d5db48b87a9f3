"""Real systemd machines on this host to rehearse on: nspawn containers behind a private bridge.

The only entrance to the lab for the rest of exlb; it imports nothing of exlb but `exlb_fab.errors`.
"""

from exlb_fab.lab.host import require_host
from exlb_fab.lab.image import RELEASES
from exlb_fab.lab.lab import Lab, LabStatus, NodeStatus, down, labs
from exlb_fab.lab.layout import DEFAULT_RELEASE, LabNode

__all__ = ["DEFAULT_RELEASE", "RELEASES", "Lab", "LabNode", "LabStatus", "NodeStatus", "down", "labs", "require_host"]
