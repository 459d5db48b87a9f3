"""What the commands share: the shape of a report, and the choice of nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import BaseModel, ConfigDict

from exlb_fab.cluster import Cluster, Node
from exlb_fab.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNREACHABLE,
    ExlbError,
    UnreachableError,
    UsageError,
)
from exlb_fab.facts import Facts, Survey
from exlb_fab.rollout import NodeResult

Result = Literal["unchanged", "pending", "changed", "restored", "failed", "unreachable", "not started"]


class Report(BaseModel):
    """What a command found or did; the answer on stdout, as tables or as JSON."""

    model_config = ConfigDict(frozen=True)

    @property
    def exit_code(self) -> int:
        return EXIT_OK


class NodeRow(BaseModel):
    """How a command ended on one node."""

    model_config = ConfigDict(frozen=True)

    node: str
    address: str
    result: Result
    detail: str
    seconds: float = 0.0
    hint: str | None = None


def row(node: Node, result: Result, detail: str, seconds: float = 0.0, hint: str | None = None) -> NodeRow:
    """Return the row of a node."""
    return NodeRow(node=node.name, address=str(node.address), result=result, detail=detail, seconds=seconds, hint=hint)


def failure(node: Node, error: ExlbError, seconds: float = 0.0) -> NodeRow:
    """Return the row of a node on which a command failed."""
    result: Result = "failed"
    if error.exit_code == EXIT_UNREACHABLE:
        result = "unreachable"
    elif error.exit_code == EXIT_INTERRUPTED:
        result = "not started"
    return row(node, result, error.message.removeprefix(f"{node}: "), seconds, error.hint)


def rolled(result: NodeResult) -> NodeRow:
    """Return the row of a node that a roll-out came to, or did not."""
    if result.error is not None:
        return failure(result.node, result.error, result.seconds)
    return row(result.node, result.result, result.detail, result.seconds)


def exit_code_of(results: Collection[Result]) -> int:
    """Return 0 where all is well, 4 where nodes could not be reached and nothing else failed, else 1."""
    if "failed" in results:
        return EXIT_FAILED
    if "unreachable" in results:
        return EXIT_UNREACHABLE
    return EXIT_FAILED if {"not started", "restored"} & set(results) else EXIT_OK


def select(cluster: Cluster, patterns: Sequence[str]) -> tuple[Node, ...]:
    """Return the nodes whose name or address matches a glob, in the order of the file; all without patterns.

    Raises UsageError where a pattern matches none.
    """
    if not patterns:
        return cluster.nodes
    for pattern in patterns:
        if not any(_matches(node, pattern) for node in cluster.nodes):
            known = ", ".join(node.label for node in cluster.nodes)
            raise UsageError(f"--nodes {pattern}: no such node", hint=f"the nodes are: {known}")
    return tuple(node for node in cluster.nodes if any(_matches(node, pattern) for pattern in patterns))


def _matches(node: Node, pattern: str) -> bool:
    return fnmatchcase(node.name, pattern) or fnmatchcase(str(node.address), pattern)


def answered(survey: Survey) -> Mapping[Node, Facts]:
    """Return what nodes have said. Raises the error of one that could not be asked."""
    refuse_unreachable(survey.errors.values())
    return survey.facts


def refuse_unreachable(errors: Iterable[ExlbError]) -> None:
    """Raise one error for all nodes that cannot be reached: a push changes nothing unless it can change all."""
    missing = list(errors)
    if any(error.exit_code != EXIT_UNREACHABLE for error in missing):
        raise next(error for error in missing if error.exit_code != EXIT_UNREACHABLE)
    if len(missing) == 1 and type(missing[0]) is not UnreachableError:
        raise missing[0]
    if missing:
        hints = {None if type(error) is UnreachableError else error.hint for error in missing}
        raise UnreachableError(
            "\n".join(error.message for error in missing) + "\nnothing was changed on any node",
            # Where all refuse us for the same reason, leaving them out is no help.
            hint=(hints.pop() if len(hints) == 1 else None) or "--skip-unreachable or --nodes leaves them out",
        )
