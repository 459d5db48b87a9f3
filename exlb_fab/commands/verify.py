"""verify: is a client served, and is every node what it should be?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, computed_field

from exlb_fab import checks, facts, rendering
from exlb_fab.checks import Verdict
from exlb_fab.checks.base import Status
from exlb_fab.cluster import Cluster
from exlb_fab.commands.base import Report, select
from exlb_fab.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_UNREACHABLE
from exlb_fab.facts import Survey
from exlb_fab.fleet import Fleet
from exlb_fab.proxies import PROXIES


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """`nodes` narrows what is asked of single nodes; the questions about all of them need all."""

    nodes: tuple[str, ...] = ()
    expect_no_apiserver: bool = False
    templates: Path | None = None


class VerdictRow(BaseModel):
    """The answer to one check; `node` is None where it is about all nodes together."""

    model_config = ConfigDict(frozen=True)

    check: str
    node: str | None
    status: Status
    text: str
    cause: str | None
    hint: str | None
    unreachable: bool


class CheckRow(BaseModel):
    """One question that was asked."""

    model_config = ConfigDict(frozen=True)

    id: str
    title: str


class BackendRow(BaseModel):
    """One server behind a listener, as the proxy of each node sees it."""

    model_config = ConfigDict(frozen=True)

    listener: str
    server: str
    address: str
    seen: dict[str, str]


class VerifyReport(Report):
    """All verdicts, and what they were drawn from for people to see."""

    nodes: tuple[str, ...]
    vip: str
    holders: tuple[str, ...]
    not_asked: tuple[str, ...]
    expect_no_apiserver: bool
    checks: tuple[CheckRow, ...]
    verdicts: tuple[VerdictRow, ...]
    backends: tuple[BackendRow, ...]
    interrupted: bool

    @property
    def counts(self) -> Counter[str]:
        return Counter(verdict.status for verdict in self.verdicts)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def green(self) -> bool:
        return self.counts["fail"] == 0 and not self.interrupted

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return EXIT_INTERRUPTED
        failures = [verdict for verdict in self.verdicts if verdict.status == "fail"]
        if not failures:
            return EXIT_OK
        return EXIT_UNREACHABLE if all(verdict.unreachable for verdict in failures) else EXIT_FAILED


def verify(cluster: Cluster, options: VerifyOptions, fleet: Fleet) -> VerifyReport:
    """Probe every node once and judge what was found; nothing is changed."""
    proxy = PROXIES[cluster.proxy]
    chosen = select(cluster, options.nodes)
    templates = rendering.Templates(options.templates)
    survey = fleet.survey(
        cluster.nodes,
        proxy,
        lambda node: [*facts.configuration_questions(cluster), *facts.service_questions(cluster, node)],
    )
    desired = {
        node: rendering.render(cluster, node, templates, found.target(cluster))
        for node, found in survey.facts.items()
        if node.interface or found.interface_of(*cluster.vips)
    }
    view = checks.View(cluster, survey, desired, options.expect_no_apiserver)
    verdicts = [v for v in checks.verdicts(view) if v.node is None or v.node in chosen]
    return VerifyReport(
        nodes=tuple(node.name for node in chosen),
        vip=str(cluster.vip),
        holders=tuple(node.name for node in survey.holders(cluster.vip.address)),
        not_asked=tuple(node.name for node in cluster.nodes if node in survey.errors),
        expect_no_apiserver=options.expect_no_apiserver,
        checks=tuple(CheckRow(id=check.id, title=check.title) for check in checks.CHECKS),
        verdicts=tuple(_row(verdict) for verdict in verdicts),
        backends=_backends(cluster, survey),
        interrupted=fleet.stopped,
    )


def _row(verdict: Verdict) -> VerdictRow:
    return VerdictRow(
        check=verdict.check,
        node=verdict.node.name if verdict.node else None,
        status=verdict.status,
        text=verdict.text,
        cause=verdict.cause,
        hint=verdict.hint,
        unreachable=verdict.unreachable,
    )


def _backends(cluster: Cluster, survey: Survey) -> tuple[BackendRow, ...]:
    states = [(node.name, found.proxy_state) for node, found in survey.facts.items() if found.proxy_state]
    return tuple(
        BackendRow(
            listener=listener.name,
            server=backend.name,
            address=backend.endpoint,
            seen={
                node: f"{server.status} {server.check}".strip()
                for node, state in states
                for server in state.servers
                if (server.listener, server.name) == (listener.name, backend.name)
            },
        )
        for listener in cluster.listeners
        for backend in listener.backends
    )
