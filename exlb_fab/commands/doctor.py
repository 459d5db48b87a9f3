"""doctor: before a first install, is the ground right? Nothing is changed on any node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from exlb_fab import answers, checks, ground
from exlb_fab import node as programs
from exlb_fab.checks.doctor import CHECKS
from exlb_fab.checks.doctor.access import SSH
from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.base import select
from exlb_fab.commands.questionnaire import Questionnaire, Selection, VerdictsReport, check_rows, selected, verdict_row
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


class DoctorReport(VerdictsReport):
    """The answer of `exlb doctor -o json`.

    Within a version of `format` fields may be added; none goes away or changes its meaning.
    """

    format: Literal["exlb/doctor/1"] = Field(default="exlb/doctor/1", description="the version of this schema")
    vip: str = Field(description="the VIP that the apiservers are to be reached by")
    not_asked: tuple[str, ...] = Field(description="nodes that did not answer")

    @property
    def promise(self) -> str:
        match self.word:
            case "INTERRUPTED":
                return ": no verdict"
            case "RED":
                return ": what fails has to be mended before exlb deploy"
        return f": nothing was found that stands in the way of an entrance at {self.vip}"


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
