"""verify: is a client served, and is every node what it should be?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from exlb_fab import checks, client, questions, rendering
from exlb_fab.checks import CHECKS, View
from exlb_fab.cluster import Cluster
from exlb_fab.commands.base import select
from exlb_fab.commands.questionnaire import (
    Questionnaire,
    Selection,
    VerdictsReport,
    check_rows,
    selected,
    verdict_row,
)
from exlb_fab.events import Event
from exlb_fab.facts import Survey
from exlb_fab.fleet import Fleet
from exlb_fab.proxies import PROXIES
from exlb_fab.settling import unsettled_seconds

# A split brain never settles: the second look has seen it for long enough, and the third is for what moved meanwhile.
MOST_LOOKS = 3

VERIFY = Questionnaire("verify", CHECKS, "node.ssh")


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """`nodes` narrows what is asked of single nodes; the questions about all of them need all."""

    nodes: tuple[str, ...] = ()
    expect_no_apiserver: bool = False
    templates: Path | None = None
    checks: Selection = field(default_factory=Selection)


class BackendRow(BaseModel):
    """One server behind a listener, as the proxy of each node sees it."""

    model_config = ConfigDict(frozen=True)

    listener: str = Field(description="the name of the listener")
    server: str = Field(description="the name of the server in the configuration of the proxy")
    address: str = Field(description="host:port")
    seen: dict[str, str] = Field(description="by the name of the node: state and last check, in the proxy's words")


class VerifyReport(VerdictsReport):
    """The answer of `exlb verify -o json`.

    Within a version of `format` fields may be added; none goes away or changes its meaning.
    """

    format: Literal["exlb/verify/1"] = Field(default="exlb/verify/1", description="the version of this schema")
    holders: tuple[str, ...] = Field(description="the nodes that have the VIP on an interface")
    backends: tuple[BackendRow, ...] = Field(description="all servers behind all listeners")

    @property
    def promise(self) -> str:
        match self.word:
            case "INTERRUPTED":
                return ": no verdict"
            case "RED":
                return ": a client may not be served, or may not be after a failure"
        if self.expect_no_apiserver:
            return f": the entrance at {self.vip} stands, no apiserver is expected yet"
        return f": a client that connects to {self.vip} is served"


def verify(cluster: Cluster, options: VerifyOptions, fleet: Fleet) -> VerifyReport:
    """Probe every node and judge what was found, once VRRP has stood still for long enough; nothing is changed."""
    chosen = select(cluster, options.nodes)
    asked = selected(options.checks, VERIFY)
    templates = rendering.Templates(options.templates)
    survey, before = _observed(cluster, fleet)
    desired = {
        node: rendering.render(cluster, node, templates, found.target(cluster))
        for node, found in survey.facts.items()
        if node.interface or found.interface_of(*cluster.vips)
    }
    view = View(cluster, survey, desired, options.expect_no_apiserver, before=before)
    if not fleet.stopped:
        view = _from_bastion(view)
    verdicts = [v for v in checks.verdicts(view, asked) if v.node is None or v.node in chosen]
    return VerifyReport(
        at=datetime.now(UTC).replace(microsecond=0),
        nodes=tuple(node.name for node in chosen),
        vip=str(cluster.vip),
        holders=tuple(node.name for node in survey.holders(cluster.vip.address)),
        not_asked=tuple(node.name for node in cluster.nodes if node in survey.errors),
        expect_no_apiserver=options.expect_no_apiserver,
        checks=check_rows(asked),
        left_out=tuple(check.id for check in CHECKS if check not in asked),
        verdicts=tuple(verdict_row(verdict) for verdict in verdicts),
        backends=_backends(cluster, survey),
        interrupted=fleet.stopped,
    )


def watch(cluster: Cluster, options: VerifyOptions, fleet: Fleet, pause_seconds: float) -> Iterator[VerifyReport]:
    """Verify again and again until Ctrl-C, over the same connections; a round that was cut short is not told.

    A node that did not answer is connected to anew in the next round.
    """
    while True:
        report = verify(cluster, options, fleet)
        if report.interrupted:
            return
        yield report
        fleet.forget(node for node in cluster.nodes if node.name in report.not_asked)
        fleet.wait(pause_seconds)
        if fleet.stopped:
            return


def _from_bastion(view: View) -> View:
    """Return the view with what the bastion gets as a client: of the VIP, and else of the holder's own port.

    Where it reaches the VIP, and the nodes have nothing to ask with whether another host has that as well, it asks.
    """
    cluster, holder = view.cluster, view.holder(view.cluster.vip)
    address = cluster.vip.address
    bastion = client.request(questions.vip_url(cluster))
    others = [view.facts(node) for node in view.answering if node != holder]
    unasked = not any(str(cluster.vip) in found.arp_answers for found in others)
    if bastion is not None and holder is not None and unasked and isinstance(address, IPv4Address):
        return replace(view, bastion=bastion, heard=client.arp_answers(address))
    # Bound to the VIPs alone, the proxy has no port that the bastion could ask instead.
    if bastion is not None or holder is None or cluster.proxying.bind == "vip":
        return replace(view, bastion=bastion)
    return replace(view, past_vip=client.request(questions.node_url(cluster, holder)))


def _observed(cluster: Cluster, fleet: Fleet) -> tuple[Survey, Survey | None]:
    """Return what one probe of every node found; where VRRP is not settled, what a later one did and the one before."""

    def look() -> Survey:
        return fleet.survey(
            cluster.nodes,
            PROXIES[cluster.proxy],
            lambda node: [*questions.configuration_questions(cluster), *questions.service_questions(cluster, node)],
        )

    survey, before = look(), None
    for _ in range(MOST_LOOKS - 1):
        seconds = unsettled_seconds(cluster, survey)
        if not seconds:
            break
        fleet.emit(Event("step", f"VRRP is not settled: looking again in {seconds:.0f} s"))
        fleet.wait(seconds)
        if fleet.stopped:
            break
        survey, before = look(), survey
    return survey, before


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
