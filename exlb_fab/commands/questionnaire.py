"""The questions that verify and doctor ask of nodes: which of them are chosen, and how the answers are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

from exlb_fab.checks import Check, Verdict
from exlb_fab.checks.base import Status
from exlb_fab.commands.base import Report
from exlb_fab.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_UNREACHABLE, UsageError


@dataclass(frozen=True, slots=True)
class Questionnaire:
    """All checks that a command may ask.

    One of them is asked `always`: a node that cannot be asked answers no other check, which would then look green.
    """

    command: str
    checks: tuple[Check, ...]
    always: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Globs of ids or families: the checks that are asked, all where there are none, and of these the ones left out."""

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()


class VerdictRow(BaseModel):
    """The answer to one check; `node` is null where it is about all nodes together."""

    model_config = ConfigDict(frozen=True)

    check: str = Field(description="the id of the check")
    node: str | None = Field(description="the name of the node; null: all nodes together")
    status: Status = Field(description="pass; warn: odd, and no failure; fail; skip: the question cannot be asked")
    text: str = Field(description="what was found, in a sentence; may change between releases, as all sentences may")
    cause: str | None = Field(description="what is known of the cause; may have several lines")
    hint: str | None = Field(description="what to type or to do next")
    unreachable: bool = Field(description="whether all that failed is that the node cannot be reached")


class CheckRow(BaseModel):
    """One question that is asked of the nodes."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    id: str = Field(description="family.name")
    title: str = Field(description="what is the case where it passes")
    about: str | None = Field(default=None, description="what its answers mean, where that is special")


class CheckList(Report):
    """What a command asks: all checks, or the chosen ones."""

    checks: tuple[CheckRow, ...]


class VerdictsReport(Report):
    """What a command found that asks questions of nodes."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    format: str = Field(description="the version of this schema")
    at: datetime = Field(description="when it was found, by the clock of the bastion")
    nodes: tuple[str, ...] = Field(description="the names of the nodes that single questions were asked of")
    vip: str = Field(description="the VIP that the apiservers are reached by")
    not_asked: tuple[str, ...] = Field(description="nodes that did not answer, one of which may hold the VIP")
    expect_no_apiserver: bool = Field(description="whether --expect-no-apiserver was given")
    checks: tuple[CheckRow, ...] = Field(description="the checks that were asked")
    left_out: tuple[str, ...] = Field(default=(), description="the ids of the checks that were not asked")
    verdicts: tuple[VerdictRow, ...] = Field(description="the answers, in the order of the checks and of the nodes")
    interrupted: bool = Field(description="whether Ctrl-C came before the end; there is no verdict then")

    @property
    def counts(self) -> Counter[str]:
        return Counter(verdict.status for verdict in self.verdicts)

    @computed_field(description="whether no check that was asked failed")  # type: ignore[prop-decorator]
    @property
    def green(self) -> bool:
        return self.counts["fail"] == 0 and not self.interrupted

    @property
    def exit_code(self) -> int:
        """Return 0 where nothing fails, 4 where all that fails is that nodes cannot be reached, else 1."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        if self.green:
            return EXIT_OK
        unreachable = all(verdict.unreachable for verdict in self.verdicts if verdict.status == "fail")
        return EXIT_UNREACHABLE if unreachable else EXIT_FAILED

    @property
    def word(self) -> Literal["GREEN", "RED", "INTERRUPTED"]:
        if self.interrupted:
            return "INTERRUPTED"
        return "GREEN" if self.green else "RED"

    @property
    def promise(self) -> str:
        """Return what is the case, said after the word."""
        raise NotImplementedError

    @property
    def sentence(self) -> str:
        """Return the verdict in one line; what was not asked for is not promised."""
        promise = " as far as asked" if self.green and self.left_out else self.promise
        without = f"; left out: {', '.join(abridged(self.checks, self.left_out))}" if self.left_out else ""
        return f"{self.word}{promise}{without} ({tally(self.counts)})"


def check_list(selection: Selection, questionnaire: Questionnaire) -> CheckList:
    """Return what a command would ask; no node is contacted."""
    return CheckList(checks=check_rows(selected(selection, questionnaire)))


def selected(selection: Selection, questionnaire: Questionnaire) -> tuple[Check, ...]:
    """Return the checks of a selection, in their order; the one whether a node answers at all is always among them.

    Raises UsageError for a glob that matches nothing, and where nothing is left.
    """
    known = questionnaire.checks
    only = _matching("--only", selection.only, questionnaire) if selection.only else {check.id for check in known}
    wanted = only - _matching("--skip", selection.skip, questionnaire)
    if not wanted:
        raise UsageError("--only and --skip leave no check", hint=f"exlb {questionnaire.command} --list")
    return tuple(check for check in known if check.id in wanted or check.id == questionnaire.always)


def _matching(option: str, patterns: Sequence[str], questionnaire: Questionnaire) -> set[str]:
    found = set[str]()
    for pattern in patterns:
        ids = {
            check.id
            for check in questionnaire.checks
            if fnmatchcase(check.id, pattern) or fnmatchcase(check.family, pattern)
        }
        if not ids:
            raise UsageError(f"{option} {pattern}: no such check", hint=_nearest(pattern, questionnaire))
        if option == "--skip" and ids == {questionnaire.always}:
            raise UsageError(f"--skip {pattern}: it is always asked", hint="--nodes leaves nodes out")
        found |= ids
    return found


def _nearest(pattern: str, questionnaire: Questionnaire) -> str:
    families = list(dict.fromkeys(check.family for check in questionnaire.checks))
    near = get_close_matches(pattern, [*families, *(check.id for check in questionnaire.checks)], n=3)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{meant}The families are {', '.join(families)}; exlb {questionnaire.command} --list shows all checks"


def abridged(asked: Sequence[CheckRow], left_out: Sequence[str]) -> list[str]:
    """Return what was left out: a family that was not asked at all as one."""
    asked_of: Collection[str] = {check.id.partition(".")[0] for check in asked}
    families = ((each, each.partition(".")[0]) for each in left_out)
    return list(dict.fromkeys(each if family in asked_of else f"{family}.*" for each, family in families))


def check_rows(asked: Sequence[Check]) -> tuple[CheckRow, ...]:
    """Return checks as reports have them."""
    return tuple(CheckRow(id=check.id, title=check.title, about=check.about) for check in asked)


def tally(counts: Counter[str]) -> str:
    """Return how many verdicts there are of each status, in words."""
    statuses = ("pass", "warn", "fail", "skip")
    return ", ".join(f"{counts[status]} {status}" for status in statuses if counts[status])


def verdict_row(verdict: Verdict) -> VerdictRow:
    """Return a verdict as reports have it."""
    return VerdictRow(
        check=verdict.check,
        node=verdict.node.name if verdict.node else None,
        status=verdict.status,
        text=verdict.text,
        cause=verdict.cause,
        hint=verdict.hint,
        unreachable=verdict.unreachable,
    )
