"""What `verify` asks; to add a check, write a function in the file of its family."""

from __future__ import annotations

from exlb_fab.checks import backends, config, firewall, nodes, vip
from exlb_fab.checks.base import Check, Verdict, View

__all__ = ["CHECKS", "Check", "Verdict", "View", "verdicts"]

CHECKS: tuple[Check, ...] = (
    *nodes.CHECKS,
    *config.CHECKS,
    *vip.CHECKS,
    *firewall.CHECKS,
    *backends.CHECKS,
)


def verdicts(view: View) -> tuple[Verdict, ...]:
    """Return the answers to all checks, in the order of the checks and then of the nodes."""
    return tuple(verdict for check in CHECKS for verdict in check.decide(view))
