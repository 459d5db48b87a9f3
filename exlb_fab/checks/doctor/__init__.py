"""What `doctor` asks before a first install; to add a check, write a function in the file of its family."""

from __future__ import annotations

from exlb_fab.checks import host
from exlb_fab.checks.base import Check
from exlb_fab.checks.doctor import access, firewall, network, segment, system

__all__ = ["CHECKS"]

CHECKS: tuple[Check, ...] = (
    *access.CHECKS,
    *system.CHECKS,
    *host.CHECKS,
    *network.CHECKS,
    *segment.CHECKS,
    *firewall.CHECKS,
)
