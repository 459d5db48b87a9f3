"""How a run of exlb ended, whoever ran it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it printed."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def said(self) -> str:
        """Return all that was printed, with its lines joined, so that a table's folds do not matter."""
        return " ".join((self.stdout + self.stderr).split())

    @property
    def results(self) -> dict[str, str]:
        """Return the result of each node in the JSON of a command."""
        return {row["node"]: row["result"] for row in self.json["nodes"]}
