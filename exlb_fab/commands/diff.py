"""diff: how the active files of the nodes differ from what the environment file describes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exlb_fab.cluster import Cluster
from exlb_fab.commands.base import NodeRow, Report, exit_code_of
from exlb_fab.commands.differences import FileDiff
from exlb_fab.commands.push_config import PushOptions, push_config
from exlb_fab.errors import EXIT_OK, EXIT_PENDING
from exlb_fab.fleet import Fleet


@dataclass(frozen=True, slots=True)
class DiffOptions:
    """What is compared."""

    nodes: tuple[str, ...] = ()
    templates: Path | None = None


class DiffReport(Report):
    """The differences, and the nodes that could not be asked."""

    diffs: tuple[FileDiff, ...]
    nodes: tuple[NodeRow, ...]

    @property
    def exit_code(self) -> int:
        code = exit_code_of([row.result for row in self.nodes])
        return EXIT_PENDING if code == EXIT_OK and self.diffs else code


def diff(cluster: Cluster, options: DiffOptions, fleet: Fleet) -> DiffReport:
    """Compare what is active with what is rendered.

    A node that cannot be asked is named, and the others are compared all the same.
    """
    dry = PushOptions(options.nodes, skip_unreachable=True, dry_run=True, templates=options.templates, unvalidated=True)
    report = push_config(cluster, dry, fleet)
    return DiffReport(diffs=report.diffs, nodes=report.nodes)
