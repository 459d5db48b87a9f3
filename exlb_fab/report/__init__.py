"""Reports -> tables, progress and JSON. The only package that imports rich."""

from __future__ import annotations

from exlb_fab.report.progress import Screen
from exlb_fab.report.tables import answer

__all__ = ["Screen", "answer"]
