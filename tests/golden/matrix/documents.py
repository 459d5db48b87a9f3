"""The tables of docs/haproxy-versions.md and docs/keepalived-versions.md."""

from __future__ import annotations

from pathlib import Path

DOCUMENTS = Path(__file__).parents[3] / "docs"


def rows(document: str, heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without its first two lines."""
    section = (DOCUMENTS / document).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
