"""doctor: before a first install, is the ground right? Nothing is changed on any node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from pydantic import ConfigDict, Field, computed_field

from exlb_fab import answers, checks, ground
from exlb_fab import node as programs
from exlb_fab.checks.doctor import CHECKS
from exlb_fab.checks.doctor.access import SSH
from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.base import Report, select
from exlb_fab.commands.verify import (
    CheckRow,
    Questionnaire,
    Selection,
    VerdictRow,
    abridged,
    check_rows,
    selected,
    tally,
    verdict_row,
    verdicts_exit_code,
)
from exlb_fab.errors import EXIT_INTERRUPTED
from exlb_fab.facts import Facts, Survey
from exlb_fab.fleet import Fleet
from exlb_fab.ground import Ground
from exlb_fab.host import Span
from exlb_fab.proxies import PROXIES

DOCTOR = Questionnaire("doctor", CHECKS, SSH)


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """`nodes` narrows what is asked of single nodes; the questions about all of them need all."""

    nodes: tuple[str, ...] = ()
    expect_no_apiserver: bool = False
    checks: Selection = field(default_factory=Selection)


class DoctorReport(Report):
    """The answer of `exlb doctor -o json`.

    Within a version of `format` fields may be added; none goes away or changes its meaning.
    """

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    format: Literal["exlb/doctor/1"] = Field(default="exlb/doctor/1", description="the version of this schema")
    at: datetime = Field(description="when it was found, by the clock of the bastion")
    nodes: tuple[str, ...] = Field(description="the names of the nodes that single questions were asked of")
    vip: str = Field(description="the VIP that the apiservers are to be reached by")
    not_asked: tuple[str, ...] = Field(description="nodes that did not answer")
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
        return EXIT_INTERRUPTED if self.interrupted else verdicts_exit_code(self.verdicts)

    @property
    def word(self) -> Literal["GREEN", "RED", "INTERRUPTED"]:
        if self.interrupted:
            return "INTERRUPTED"
        return "GREEN" if self.green else "RED"

    @property
    def sentence(self) -> str:
        """Return the verdict in one line; what was not asked for is not promised."""
        promise = {
            "INTERRUPTED": ": no verdict",
            "RED": ": what fails has to be mended before exlb deploy",
            "GREEN": " as far as asked"
            if self.left_out
            else f": nothing was found that stands in the way of an entrance at {self.vip}",
        }
        without = f"; left out: {', '.join(abridged(self.checks, self.left_out))}" if self.left_out else ""
        return f"{self.word}{promise[self.word]}{without} ({tally(self.counts)})"


def doctor(cluster: Cluster, options: DoctorOptions, fleet: Fleet) -> DoctorReport:
    """Ask every node what an entrance would stand on, and judge it; nothing is changed."""
    chosen = select(cluster, options.nodes)
    asked = selected(options.checks, DOCTOR)
    survey, grounds = _look(cluster, fleet)
    view = checks.View(cluster, survey, {}, options.expect_no_apiserver, grounds=grounds)
    verdicts = [each for each in checks.verdicts(view, asked) if each.node is None or each.node in chosen]
    return DoctorReport(
        at=datetime.now(UTC).replace(microsecond=0),
        nodes=tuple(node.name for node in chosen),
        vip=str(cluster.vip),
        not_asked=tuple(node.name for node in cluster.nodes if node in survey.errors),
        expect_no_apiserver=options.expect_no_apiserver,
        checks=check_rows(asked),
        left_out=tuple(check.id for check in DOCTOR.checks if check not in asked),
        verdicts=tuple(verdict_row(verdict) for verdict in verdicts),
        interrupted=fleet.stopped,
    )


def _look(cluster: Cluster, fleet: Fleet) -> tuple[Survey, Mapping[Node, Ground]]:
    """Ask all nodes, one exec each: they are what each other's addresses and MTU are compared with."""
    proxy = PROXIES[cluster.proxy]

    def parse(text: str, span: Span) -> tuple[Facts, Ground]:
        return replace(answers.parse(text, proxy), asked=span), ground.parse(text)

    program = programs.doctor(proxy.program)
    found = fleet.ask(cluster.nodes, program, lambda node: ground.questions(cluster, node), parse)
    survey = Survey({node: each for node, (each, _) in found.values.items()}, found.errors)
    return survey, {node: each for node, (_, each) in found.values.items()}
