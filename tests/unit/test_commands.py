"""What the commands share, and that every report travels between processes and through JSON."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from exlb_fab import client, locking, rollout
from exlb_fab.cluster import Cluster
from exlb_fab.commands.base import NodeRow, Report, Result, exit_code_of, failure, refuse_unreachable, select
from exlb_fab.commands.changing import ChangeOptions
from exlb_fab.commands.config import config
from exlb_fab.commands.deploy import DeployOptions, DeployReport, deploy
from exlb_fab.commands.diff import DiffOptions, DiffReport, diff
from exlb_fab.commands.differences import FileDiff
from exlb_fab.commands.execute import ExecOptions, ExecReport, ExecRow, execute
from exlb_fab.commands.history import HistoryOptions, history
from exlb_fab.commands.install import InstallOptions, install
from exlb_fab.commands.lock import LockOptions, lock_status
from exlb_fab.commands.push_config import PushOptions, PushReport, push_config
from exlb_fab.commands.recover import recover
from exlb_fab.commands.render import RenderOptions, render
from exlb_fab.commands.restart import RestartOptions, restart
from exlb_fab.commands.rollback import RollbackOptions, rollback
from exlb_fab.commands.verify import VerifyOptions, verify
from exlb_fab.errors import (
    AuthenticationError,
    ExlbError,
    FactsError,
    HostKeyError,
    UnreachableError,
    UsageError,
)
from exlb_fab.fleet import Fleet, NotStartedError
from exlb_fab.remote import Completed
from exlb_fab.understanding import load
from tests.fake import Clock, FakeFleet, cluster, environment_file

THREE = cluster()
DEPLOY = DeployOptions(InstallOptions(), PushOptions(), VerifyOptions())


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the gates of a roll-out wait without waiting."""
    made = Clock()
    monkeypatch.setattr(Fleet, "wait", lambda fleet, seconds: made.sleep(seconds))
    monkeypatch.setattr(rollout, "time", made)
    monkeypatch.setattr(locking, "time", made)


@pytest.fixture(autouse=True)
def bastion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing leave this host: the bastion does not reach the VIP."""
    monkeypatch.setattr(client, "request", lambda url: None)


@pytest.fixture
def three(tmp_path: Path) -> Cluster:
    """A cluster that was read from a file, with a password."""
    return load(environment_file(tmp_path, STATS_PASSWORD="geheim"))


@cache
def deployed() -> FakeFleet:
    """Return the nodes of that cluster after a deploy; what is rendered does not depend on where its file is."""
    with TemporaryDirectory() as folder:
        of = load(environment_file(Path(folder), STATS_PASSWORD="geheim"))
    fakes = FakeFleet(of)
    with Fleet(fakes.connect) as fleet:
        assert deploy(of, DEPLOY, fleet).exit_code == 0
    return fakes


REPORTS: dict[str, Callable[[Cluster, Fleet], Report]] = {
    "deploy": lambda of, fleet: deploy(of, DEPLOY, fleet),
    "install": lambda of, fleet: install(of, InstallOptions(), fleet),
    "push-config": lambda of, fleet: push_config(of, PushOptions(skip_unreachable=True), fleet),
    "push-config --dry-run": lambda of, fleet: push_config(of, PushOptions(dry_run=True, skip_unreachable=True), fleet),
    "restart": lambda of, fleet: restart(of, RestartOptions(skip_unreachable=True), fleet),
    "install --upgrade": lambda of, fleet: install(of, InstallOptions(upgrade=True, skip_unreachable=True), fleet),
    "rollback": lambda of, fleet: rollback(of, RollbackOptions(to=1, skip_unreachable=True), fleet),
    "rollback --to 0": lambda of, fleet: rollback(of, RollbackOptions(to=0, skip_unreachable=True, yes=True), fleet),
    "recover": lambda of, fleet: recover(of, ChangeOptions(skip_unreachable=True), fleet),
    "history": lambda of, fleet: history(of, HistoryOptions(), fleet),
    "diff": lambda of, fleet: diff(of, DiffOptions(), fleet),
    "lock status": lambda of, fleet: lock_status(of, LockOptions(), fleet),
    "verify": lambda of, fleet: verify(of, VerifyOptions(), fleet),
    "exec": lambda of, fleet: execute(of, ExecOptions(("true",)), fleet),
    "render": lambda of, fleet: render(of, RenderOptions()),
    "config": lambda of, fleet: config(of),
}


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("state", ["green", "unreachable"])
def test_report_travels_between_processes_and_through_json(three: Cluster, name: str, state: str) -> None:
    fakes = FakeFleet(three)
    fakes.become(deployed())
    for node in fakes:
        node.commands[("true",)] = Completed(0, "out\n", "err\n")
    if state == "unreachable":
        fakes.cut("lb2")
    with Fleet(fakes.connect) as fleet:
        report = REPORTS[name](three, fleet)
    again = pickle.loads(pickle.dumps(report))
    assert again == report
    assert again.exit_code == report.exit_code
    read = type(report).model_validate_json(report.model_dump_json())
    assert read == report
    assert read.exit_code == report.exit_code
    assert "geheim" not in report.model_dump_json()
    assert report.exit_code == (4 if state == "unreachable" and name not in ("render", "config") else 0)


def test_report_cannot_be_changed() -> None:
    row = NodeRow(node="lb1", address="198.51.100.11", result="changed", detail="")
    with pytest.raises(ValueError, match="frozen"):
        row.result = "failed"


# Exit codes


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([], 0),
        (["unchanged", "changed", "pending"], 0),
        (["changed", "unreachable"], 4),
        (["changed", "restored"], 1),
        (["restored", "unreachable"], 4),
        (["unreachable", "failed"], 1),
        (["changed", "not started"], 1),
        (["not started", "unreachable"], 4),
        (["failed"], 1),
    ],
)
def test_exit_code_tells_unreachable_nodes_from_failures(results: list[Result], code: int) -> None:
    assert exit_code_of(results) == code


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (ExlbError("x"), "failed"),
        (FactsError("x"), "failed"),
        (UnreachableError("x"), "unreachable"),
        (HostKeyError("x"), "unreachable"),
        (AuthenticationError("x"), "unreachable"),
        (NotStartedError("x"), "not started"),
    ],
)
def test_error_of_a_node_becomes_its_result(error: ExlbError, result: Result) -> None:
    assert failure(THREE.nodes[0], error).result == result


def push_report(results: Sequence[Result], *, dry_run: bool, pending_exit_code: bool) -> PushReport:
    rows = tuple(NodeRow(node="lb1", address="", result=result, detail="") for result in results)
    return PushReport(dry_run=dry_run, pending_exit_code=pending_exit_code, number=2, diffs=(), notices=(), nodes=rows)


@pytest.mark.parametrize(
    ("results", "dry_run", "asked", "code"),
    [
        (["pending", "unchanged"], True, True, 6),
        (["pending", "unchanged"], True, False, 0),
        (["unchanged"], True, True, 0),
        (["unchanged", "unreachable"], True, True, 4),
        (["pending", "failed"], True, True, 1),
        (["changed"], False, True, 0),
        (["changed", "failed", "not started"], False, False, 1),
    ],
)
def test_exit_code_of_a_push_tells_pending_from_done(
    results: list[Result], dry_run: bool, asked: bool, code: int
) -> None:
    assert push_report(results, dry_run=dry_run, pending_exit_code=asked).exit_code == code


@pytest.mark.parametrize(
    ("diffs", "results", "code"),
    [(0, [], 0), (1, [], 6), (0, ["unreachable"], 4), (1, ["unreachable"], 4), (1, ["failed"], 1)],
)
def test_exit_code_of_a_diff_is_6_unless_something_is_worse(diffs: int, results: list[Result], code: int) -> None:
    rows = tuple(NodeRow(node="lb1", address="", result=result, detail="") for result in results)
    found = (FileDiff(nodes=("lb1",), path="/etc/x", reason="content", diff=""),) * diffs
    assert DiffReport(diffs=found, nodes=rows).exit_code == code


@pytest.mark.parametrize(
    ("statuses", "failures", "code"),
    [([0, 0], 0, 0), ([0, 7, 3], 0, 7), ([0, None], 4, 4), ([3, None], 4, 3), ([None], 1, 1), ([255, 1], 0, 255)],
)
def test_exit_code_of_exec_is_the_worst_status(statuses: list[int | None], failures: int, code: int) -> None:
    rows = tuple(ExecRow(node="lb1", address="", status=status, stdout="", stderr="", seconds=0) for status in statuses)
    assert ExecReport(nodes=rows, failures=failures).exit_code == code


def test_exit_code_of_a_deploy_is_that_of_the_last_part_that_ran() -> None:
    fakes = FakeFleet(THREE)
    fakes["lb2"].failing["stage"] = "no"
    with Fleet(fakes.connect) as fleet:
        report: DeployReport = deploy(THREE, DEPLOY, fleet)
    assert (report.install.exit_code, report.exit_code, report.verify) == (0, 1, None)


# The choice of nodes


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ([], ["lb1", "lb2", "lb3"]),
        (["lb*"], ["lb1", "lb2", "lb3"]),
        (["lb3", "lb1"], ["lb1", "lb3"]),
        (["198.51.100.12"], ["lb2"]),
        (["*.13", "lb[12]"], ["lb1", "lb2", "lb3"]),
        (["lb[!1]"], ["lb2", "lb3"]),
    ],
)
def test_nodes_are_selected_in_the_order_of_the_file(patterns: list[str], names: list[str]) -> None:
    assert [node.name for node in select(THREE, patterns)] == names


@pytest.mark.parametrize("patterns", [["web*"], ["lb1", "web*"], ["LB1"], [""], ["198.51.100.1"]])
def test_every_pattern_has_to_match(patterns: list[str]) -> None:
    with pytest.raises(UsageError, match="no such node") as caught:
        select(THREE, patterns)
    assert caught.value.hint == "the nodes are: lb1 (198.51.100.11), lb2 (198.51.100.12), lb3 (198.51.100.13)"


# Refusals


def test_all_unreachable_nodes_are_named_in_one_error() -> None:
    with pytest.raises(UnreachableError) as caught:
        refuse_unreachable([UnreachableError("lb1: gone"), UnreachableError("lb3: gone")])
    assert caught.value.message == "lb1: gone\nlb3: gone\nnothing was changed on any node"


def test_worse_failure_goes_before_an_unreachable_node() -> None:
    with pytest.raises(FactsError, match="lb3: what"):
        refuse_unreachable([UnreachableError("lb1: gone"), FactsError("lb3: what")])


def test_hint_of_a_single_special_failure_is_kept() -> None:
    with pytest.raises(HostKeyError) as caught:
        refuse_unreachable([HostKeyError("lb1: key", hint="ssh-keygen -R lb1")])
    assert caught.value.hint == "ssh-keygen -R lb1"


def test_nothing_is_refused_where_all_answer() -> None:
    refuse_unreachable([])


def test_what_no_node_accepts_is_told_with_its_own_hint() -> None:
    with pytest.raises(UnreachableError) as caught:
        refuse_unreachable([AuthenticationError(f"{name}: no", hint="check SSH_USER") for name in ("lb1", "lb2")])
    assert caught.value.message == "lb1: no\nlb2: no\nnothing was changed on any node"
    assert caught.value.hint == "check SSH_USER"
