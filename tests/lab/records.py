"""What lab tests have seen at one commit: which have passed, and the rows of the tables; a file for each.

So a long run goes on where it was interrupted, and several runs beside each other do not write over one another.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.lab.table import Cell, Drilled, Measured, Row


class Records:
    """The records in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def pass_(self, test: str) -> None:
        self._write(test, "passed", None)

    def passed(self) -> set[str]:
        return set(self._read("passed"))

    def keep(self, test: str, row: Row) -> None:
        self._write(test, "row", row.as_json())

    def rows(self) -> dict[str, Row]:
        return {test: Row.from_json(kept) for test, kept in self._read("row").items()}

    def time(self, test: str, measured: Measured) -> None:
        self._write(test, "timing", asdict(measured))

    def timings(self) -> list[Measured]:
        return [Measured(**kept) for _, kept in sorted(self._read("timing").items())]

    def rehearse(self, test: str, drilled: Drilled) -> None:
        self._write(test, "drilled", asdict(drilled))

    def drilled(self) -> dict[str, Drilled]:
        return {test: Drilled(**kept) for test, kept in self._read("drilled").items()}

    def judge(self, test: str, cell: Cell) -> None:
        self._write(test, "cell", asdict(cell))

    def cells(self) -> dict[str, Cell]:
        return {test: Cell(**kept) for test, kept in self._read("cell").items()}

    def _write(self, test: str, kind: str, kept: Any) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(test.encode()).hexdigest()[:16]
        (self._folder / f"{name}.{kind}").write_text(json.dumps({"test": test, "kept": kept}))

    def _read(self, kind: str) -> dict[str, Any]:
        found = [json.loads(path.read_text()) for path in self._folder.glob(f"*.{kind}")]
        return {each["test"]: each["kept"] for each in found}
