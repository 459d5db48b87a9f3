"""Reports -> tables, progress, JSON, JUnit XML and HTML. The only package that imports rich."""

from __future__ import annotations

from exlb_fab.report import drill as _drill  # which register their tables
from exlb_fab.report import standing as _standing
from exlb_fab.report.logs import printer
from exlb_fab.report.progress import Screen
from exlb_fab.report.tables import answer

__all__ = ["Screen", "answer", "printer"]

del _drill, _standing
