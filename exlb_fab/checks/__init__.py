"""What `verify` asks; to add a check, write a function in the file of its family."""

from __future__ import annotations

from collections.abc import Iterable

from exlb_fab.checks import (
    backends,
    certificates,
    config,
    election,
    firewall,
    hearing,
    host,
    listeners,
    neighbours,
    nodes,
    tracking,
    vip,
)
from exlb_fab.checks.base import Check, Verdict, View

__all__ = ["CHECKS", "Check", "Verdict", "View", "verdicts"]

CHECKS: tuple[Check, ...] = (
    *nodes.CHECKS,
    *host.CHECKS,
    *config.CHECKS,
    *vip.CHECKS,
    *neighbours.CHECKS,
    *election.CHECKS,
    *hearing.CHECKS,
    *tracking.CHECKS,
    *firewall.CHECKS,
    *backends.CHECKS,
    *listeners.CHECKS,
    *certificates.CHECKS,
)


def verdicts(view: View, asked: Iterable[Check] = CHECKS) -> tuple[Verdict, ...]:
    """Return the answers to checks, in their order and then in that of the nodes."""
    return tuple(verdict for check in asked for verdict in check.decide(view))
