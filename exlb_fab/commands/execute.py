"""exec: one command of the operator's on every node."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.base import Report, exit_code_of, failure, select
from exlb_fab.fleet import Fleet
from exlb_fab.remote import Completed, Remote


@dataclass(frozen=True, slots=True)
class ExecOptions:
    """`command` is one command line as words; `sudo` runs it as root."""

    command: tuple[str, ...]
    nodes: tuple[str, ...] = ()
    sudo: bool = False
    limit_seconds: float = 300


class ExecRow(BaseModel):
    """What the command printed on one node; `status` is None where it did not run there."""

    model_config = ConfigDict(frozen=True)

    node: str
    address: str
    status: int | None
    stdout: str
    stderr: str
    seconds: float
    error: str | None = None
    hint: str | None = None


class ExecReport(Report):
    """The output per node."""

    nodes: tuple[ExecRow, ...]
    failures: int

    @property
    def exit_code(self) -> int:
        """Return the worst exit status of the nodes; where it ran well, 4 for those that were not reached."""
        worst = max((row.status for row in self.nodes if row.status is not None), default=0)
        return worst or self.failures


def execute(cluster: Cluster, options: ExecOptions, fleet: Fleet) -> ExecReport:
    """Run one command on every node at once and collect what it prints."""
    chosen = select(cluster, options.nodes)

    def work(node: Node, remote: Remote) -> tuple[Completed, float]:
        del node
        began = time.monotonic()
        done = remote.execute(options.command, sudo=options.sudo, limit_seconds=options.limit_seconds)
        return done, time.monotonic() - began

    outcomes = fleet.each(chosen, work)
    rows = {node: _row(node, done, seconds) for node, (done, seconds) in outcomes.values.items()}
    failures = {node: failure(node, error) for node, error in outcomes.errors.items()}
    for node, failed in failures.items():
        rows[node] = ExecRow(
            node=node.name,
            address=failed.address,
            status=None,
            stdout="",
            stderr="",
            seconds=0.0,
            error=failed.detail,
            hint=failed.hint,
        )
    return ExecReport(
        nodes=tuple(rows[node] for node in chosen), failures=exit_code_of([row.result for row in failures.values()])
    )


def _row(node: Node, done: Completed, seconds: float) -> ExecRow:
    return ExecRow(
        node=node.name,
        address=str(node.address),
        status=done.status,
        stdout=done.stdout,
        stderr=done.stderr,
        seconds=seconds,
    )
