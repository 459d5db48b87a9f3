"""A report of verify -> one page that needs nothing but itself, for a browser, a mail or a printer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import jinja2

from exlb_fab.commands.questionnaire import VerdictRow
from exlb_fab.commands.verify import VerifyReport
from exlb_fab.errors import ExlbError, UsageError
from exlb_fab.report.tables import alike, held

TEMPLATE = "verify.html.j2"


@dataclass(frozen=True, slots=True)
class Family:
    """The checks of a family: what is said of all nodes together, and a table with a row for each of them."""

    name: str
    together: tuple[VerdictRow, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[VerdictRow | None, ...]], ...]


def page(report: VerifyReport) -> str:
    """Return the page: no script, nothing from elsewhere."""
    return _template().render(
        report=report, held=held(report), findings=alike(report), families=list(_families(report))
    )


def check_place(path: Path) -> None:
    """Raise UsageError where a page could not be written: better before a long look at the nodes than after it."""
    if path.exists() and not path.is_file():
        raise UsageError(f"--html {path}: is no regular file")
    if not os.access(path.resolve().parent, os.W_OK):
        raise UsageError(f"--html {path}: no such directory, or not writable")


def write(path: Path, text: str) -> None:
    """Write a page beside its place and rename it: who reads it meanwhile has the old one or the new one, whole.

    Raises ExlbError.
    """
    place = path.resolve()
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")
        beside.replace(place)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ExlbError(f"cannot write {path}: {error.strerror}") from error


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(resources.files("exlb_fab").joinpath("templates"))),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE)


def _families(report: VerifyReport) -> Iterator[Family]:
    found = {(verdict.check, verdict.node): verdict for verdict in report.verdicts}
    for family in dict.fromkeys(check.id.partition(".")[0] for check in report.checks):
        asked = [check.id for check in report.checks if check.id.partition(".")[0] == family]
        single = tuple(check for check in asked if (check, None) not in found)
        yield Family(
            family,
            together=tuple(found[check, None] for check in asked if check not in single),
            columns=single,
            rows=tuple((node, tuple(found.get((check, node)) for check in single)) for node in report.nodes),
        )
