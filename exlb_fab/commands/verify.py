"""verify: is a client served, and is every node what it should be?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

from exlb_fab import checks, client, questions, rendering
from exlb_fab.checks import CHECKS, Check, Verdict, View
from exlb_fab.checks.base import Status
from exlb_fab.cluster import Cluster
from exlb_fab.commands.base import Report, select
from exlb_fab.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_UNREACHABLE, UsageError
from exlb_fab.events import Event
from exlb_fab.facts import Survey
from exlb_fab.fleet import Fleet
from exlb_fab.proxies import PROXIES
from exlb_fab.settling import unsettled_seconds


@dataclass(frozen=True, slots=True)
class Questionnaire:
    """All checks that a command may ask.

    One of them is asked `always`: a node that cannot be asked answers no other check, which would then look green.
    """

    command: str
    checks: tuple[Check, ...]
    always: str


# A split brain never settles: the second look has seen it for long enough, and the third is for what moved meanwhile.
MOST_LOOKS = 3

VERIFY = Questionnaire("verify", CHECKS, "node.ssh")


@dataclass(frozen=True, slots=True)
class Selection:
    """Globs of ids or families: the checks that are asked, all where there are none, and of these the ones left out."""

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """`nodes` narrows what is asked of single nodes; the questions about all of them need all."""

    nodes: tuple[str, ...] = ()
    expect_no_apiserver: bool = False
    templates: Path | None = None
    checks: Selection = Selection()


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


class BackendRow(BaseModel):
    """One server behind a listener, as the proxy of each node sees it."""

    model_config = ConfigDict(frozen=True)

    listener: str = Field(description="the name of the listener")
    server: str = Field(description="the name of the server in the configuration of the proxy")
    address: str = Field(description="host:port")
    seen: dict[str, str] = Field(description="by the name of the node: state and last check, in the proxy's words")


class CheckList(Report):
    """What a command asks: all checks, or the chosen ones."""

    checks: tuple[CheckRow, ...]


class VerifyReport(Report):
    """The answer of `exlb verify -o json`.

    Within a version of `format` fields may be added; none goes away or changes its meaning.
    """

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    format: Literal["exlb/verify/1"] = Field(default="exlb/verify/1", description="the version of this schema")
    at: datetime = Field(description="when it was found, by the clock of the bastion")
    nodes: tuple[str, ...] = Field(description="the names of the nodes that single questions were asked of")
    vip: str = Field(description="the VIP that the apiservers are reached by")
    holders: tuple[str, ...] = Field(description="the nodes that have the VIP on an interface")
    not_asked: tuple[str, ...] = Field(description="nodes that did not answer, one of which may hold the VIP")
    expect_no_apiserver: bool = Field(description="whether --expect-no-apiserver was given")
    checks: tuple[CheckRow, ...] = Field(description="the checks that were asked")
    left_out: tuple[str, ...] = Field(default=(), description="the ids of the checks that were not asked")
    verdicts: tuple[VerdictRow, ...] = Field(description="the answers, in the order of the checks and of the nodes")
    backends: tuple[BackendRow, ...] = Field(description="all servers behind all listeners")
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
        without = f"; left out: {', '.join(abridged(self.checks, self.left_out))}" if self.left_out else ""
        return f"{self.word}{self._promise}{without} ({tally(self.counts)})"

    @property
    def _promise(self) -> str:
        match self.word:
            case "INTERRUPTED":
                return ": no verdict"
            case "RED":
                return ": a client may not be served, or may not be after a failure"
        if self.left_out:
            return " as far as asked"
        if self.expect_no_apiserver:
            return f": the entrance at {self.vip} stands, no apiserver is expected yet"
        return f": a client that connects to {self.vip} is served"


def verdicts_exit_code(verdicts: Iterable[VerdictRow]) -> int:
    """Return 0 where nothing fails, 4 where all that fails is that nodes cannot be reached, else 1."""
    failures = [verdict for verdict in verdicts if verdict.status == "fail"]
    if not failures:
        return EXIT_OK
    return EXIT_UNREACHABLE if all(verdict.unreachable for verdict in failures) else EXIT_FAILED


def tally(counts: Counter[str]) -> str:
    """Return how many verdicts there are of each status, in words."""
    statuses = ("pass", "warn", "fail", "skip")
    return ", ".join(f"{counts[status]} {status}" for status in statuses if counts[status])


def verify(cluster: Cluster, options: VerifyOptions, fleet: Fleet) -> VerifyReport:
    """Probe every node and judge what was found, once VRRP has stood still for long enough; nothing is changed."""
    chosen = select(cluster, options.nodes)
    asked = selected(options.checks)
    templates = rendering.Templates(options.templates)
    survey = _observed(cluster, fleet)
    desired = {
        node: rendering.render(cluster, node, templates, found.target(cluster))
        for node, found in survey.facts.items()
        if node.interface or found.interface_of(*cluster.vips)
    }
    view = View(cluster, survey, desired, options.expect_no_apiserver)
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


def check_list(selection: Selection, questionnaire: Questionnaire = VERIFY) -> CheckList:
    """Return what a command would ask; no node is contacted."""
    return CheckList(checks=check_rows(selected(selection, questionnaire)))


def selected(selection: Selection, questionnaire: Questionnaire = VERIFY) -> tuple[Check, ...]:
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


def _from_bastion(view: View) -> View:
    """Return the view with what the bastion gets as a client: of the VIP, and else of the holder's own port."""
    cluster, holder = view.cluster, view.holder(view.cluster.vip)
    bastion = client.request(questions.vip_url(cluster))
    # Bound to the VIPs alone, the proxy has no port that the bastion could ask instead.
    if bastion is not None or holder is None or cluster.proxying.bind == "vip":
        return replace(view, bastion=bastion)
    return replace(view, past_vip=client.request(questions.node_url(cluster, holder)))


def _observed(cluster: Cluster, fleet: Fleet) -> Survey:
    """Return what one probe of every node found; where VRRP is not settled, what a later one did."""

    def look() -> Survey:
        return fleet.survey(
            cluster.nodes,
            PROXIES[cluster.proxy],
            lambda node: [*questions.configuration_questions(cluster), *questions.service_questions(cluster, node)],
        )

    survey = look()
    for _ in range(MOST_LOOKS - 1):
        seconds = unsettled_seconds(cluster, survey)
        if not seconds:
            break
        fleet.emit(Event("step", f"VRRP is not settled: looking again in {seconds:.0f} s"))
        fleet.wait(seconds)
        if fleet.stopped:
            break
        survey = look()
    return survey


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
