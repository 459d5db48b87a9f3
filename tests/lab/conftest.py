"""What all lab tests share: the machines, exlb on the bastion, and clients."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from exlb_fab.errors import LabUnavailable
from exlb_fab.lab import Lab, down, require_host
from exlb_fab.lab.layout import DEFAULT_RELEASE
from tests.lab.bastion import Bastion
from tests.lab.conditions.base import Condition, Look
from tests.lab.records import Records
from tests.lab.table import Cell, Drilled, Measured, Row, document, drills, timings, verdicts
from tests.lab.watching import Watch

DOCS = Path(__file__).parents[2] / "docs"
RELIABILITY = DOCS / "reliability.md"
RELIABILITY_MIXED = DOCS / "reliability-mixed.md"
TIMING = DOCS / "timing.md"
VERDICTS = DOCS / "verdicts.md"
DRILLS = DOCS / "drill-measured.md"
TABLES = (RELIABILITY, RELIABILITY_MIXED, TIMING, VERDICTS, DRILLS)

COMMIT_DIGITS = 10
WITH_ROWS = pytest.StashKey[list[str]]()
WITH_CELLS = pytest.StashKey[list[str]]()
WITH_DRILLS = pytest.StashKey[list[str]]()

AddRow = Callable[[str, str, Watch, str], None]
AddCell = Callable[[Condition, Look, list[str]], None]
AddDrilled = Callable[[str, str, list[dict[str, Any]]], None]
AddMeasured = Callable[[str, str, list[float], float, float], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--resume", action="store_true", help="leave out what has passed at this commit already")
    parser.addoption("--table", action="store_true", help="write the tables of docs whose rows are all seen")
    parser.addoption("--releases", default=DEFAULT_RELEASE, help="the releases of the nodes, with commas between them")


def _git(*words: str) -> str:
    """Return what git says, nothing where this is no checkout."""
    try:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def _commit() -> str:
    """Return what is tested; the tables that a run writes are no part of it."""
    written = [f":!{path.relative_to(DOCS.parent)}" for path in TABLES]
    changed = _git("status", "--porcelain", "--", ".", *written)
    return (_git("rev-parse", "HEAD") or "unknown") + ("-dirty" if changed else "")


def _records(config: pytest.Config) -> Records:
    assert config.cache is not None
    return Records(config.cache.mkdir("exlb") / _commit() / "-".join(_releases(config)))


def _releases(config: pytest.Config) -> list[str]:
    return str(config.getoption("--releases")).split(",")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.lab)
    config.stash[WITH_ROWS] = _using("row", items)
    config.stash[WITH_CELLS] = _using("cell", items)
    config.stash[WITH_DRILLS] = _using("in_a_row", items)
    if not config.getoption("--resume"):
        return
    done = _records(config).passed()
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
    items[:] = [item for item in items if item.nodeid not in done]


def _using(fixture: str, items: list[pytest.Item]) -> list[str]:
    return [item.nodeid for item in items if fixture in getattr(item, "fixturenames", ())]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.when == "call" and report.passed and item.config.getoption("--resume"):
        _records(item.config).pass_(item.nodeid)
    return report


@pytest.fixture
def row(request: pytest.FixtureRequest, green: Bastion) -> AddRow:
    """Keep a row of the table of faults: (event, what is required, what was watched, what the user read of it)."""

    def add(event: str, required: str, watch: Watch, said: str) -> None:
        kept = Row(event, required, watch.seen, green.states(), said, _commit()[:COMMIT_DIGITS])
        _records(request.config).keep(request.node.nodeid, kept)

    return add


@pytest.fixture
def cell(request: pytest.FixtureRequest) -> AddCell:
    """Keep a cell of the matrix of verdicts: (condition, what a command said of it, in what that is wrong)."""

    def add(condition: Condition, look: Look, wrong: list[str]) -> None:
        kept = Cell(condition.name, condition.command, condition.expected, str(look), wrong, _commit()[:COMMIT_DIGITS])
        _records(request.config).judge(request.node.nodeid, kept)

    return add


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> AddMeasured:
    """Keep what a fault has cost: (TIMING, fault, gaps, what is promised for their median, the model's worst case)."""

    def add(timing: str, fault: str, gaps: list[float], promised_seconds: float, model_seconds: float) -> None:
        kept = Measured(timing, fault, gaps, promised_seconds, model_seconds, _commit()[:COMMIT_DIGITS])
        _records(request.config).time(request.node.nodeid, kept)

    return add


@pytest.fixture
def in_a_row(request: pytest.FixtureRequest) -> AddDrilled:
    """Keep what drills in a row have measured: (TIMING, fault, what the report of each says of it)."""

    def add(timing: str, fault: str, reports: list[dict[str, Any]]) -> None:
        kept = Drilled.of(timing, fault, reports, _commit()[:COMMIT_DIGITS])
        _records(request.config).rehearse(request.node.nodeid, kept)

    return add


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the table where every row of it has been seen; with nothing left to do, a run that resumes is content."""
    config = session.config
    if config.getoption("--resume") and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = exitstatus = pytest.ExitCode.OK
    if config.getoption("--table") and exitstatus == pytest.ExitCode.OK:
        _write_reliability(config)
        _write_drills(config)
    # A matrix with a wrong cell is told as well: that is what it is for.
    if config.getoption("--table") and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        _write_verdicts(config)


def _write_reliability(config: pytest.Config) -> None:
    rows = _records(config).rows()
    kept = [rows[name] for name in config.stash[WITH_ROWS]]
    releases = _releases(config)
    path = RELIABILITY if releases == [DEFAULT_RELEASE] else RELIABILITY_MIXED
    if kept:
        path.write_text(document(kept, releases))
    if kept and path == RELIABILITY:
        TIMING.write_text(timings(_records(config).timings()))


def _write_drills(config: pytest.Config) -> None:
    if config.stash[WITH_DRILLS] and (drilled := _records(config).drilled()):
        DRILLS.write_text(drills(drilled.values()))


def _write_verdicts(config: pytest.Config) -> None:
    cells, names = _records(config).cells(), config.stash[WITH_CELLS]
    # Of one file alone it would be a part that looks like the whole.
    files = {f"tests/lab/{path.name}" for path in Path(__file__).parent.glob("test_verdicts*.py")}
    if {name.partition("::")[0] for name in names} == files and cells.keys() >= set(names):
        VERDICTS.write_text(verdicts([cells[name] for name in names]))


@pytest.fixture(scope="session", autouse=True)
def host() -> None:
    """Skip, saying why, where no lab can run; in CI that is a failure."""
    try:
        require_host()
    except LabUnavailable as reason:
        said = f"{reason.message}; {reason.hint}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI runs every test, and the lab cannot run here: {said}")
        pytest.skip(said)


@contextmanager
def _lab(name: str, config: pytest.Config) -> Iterator[Lab]:
    """Run a lab that no other process has, of the releases asked for."""
    name = f"t-{name}"[:14] + f"-{os.getpid() % 10000}"
    try:
        yield Lab.up(name, releases=_releases(config))
    finally:
        down(name)


@pytest.fixture(scope="module")
def fresh_lab(host: None, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three nodes on which nothing is installed, for the tests of one module."""
    with _lab(request.module.__name__.rpartition("test_")[2].replace("_", "-"), request.config) as lab:
        yield lab


@pytest.fixture
def bastion(fresh_lab: Lab, tmp_path: Path) -> Bastion:
    """exlb on the bastion of a lab whose nodes are fresh, or as the test before left them."""
    return Bastion(fresh_lab, tmp_path)


# One for all modules: to deploy it takes longer than most of the tests that begin with it.
@pytest.fixture(scope="session")
def deployed_lab(host: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three nodes after `exlb deploy`, for all tests of a process that begin with them."""
    with _lab("deployed", request.config) as lab:
        bastion = Bastion(lab, tmp_path_factory.mktemp("deploy"))
        bastion.exlb("deploy")
        bastion.snapshot()
        yield lab


@pytest.fixture
def green(deployed_lab: Lab, tmp_path: Path) -> Bastion:
    """exlb on the bastion of a lab that is green, whatever the test before did to it."""
    bastion = Bastion(deployed_lab, tmp_path)
    bastion.mend()
    return bastion
