"""history: the generations that every node keeps: what changed, when, and who did it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from exlb_fab.cluster import Cluster, Node
from exlb_fab.commands.base import NodeRow, Report, exit_code_of, failure, select
from exlb_fab.facts import Facts, Kept
from exlb_fab.fleet import Fleet
from exlb_fab.proxies import PROXIES


@dataclass(frozen=True, slots=True)
class HistoryOptions:
    """Whose history is asked for."""

    nodes: tuple[str, ...] = ()


class GenerationRow(BaseModel):
    """One generation of one node; `changed` names the files that differ from the one before."""

    model_config = ConfigDict(frozen=True)

    node: str
    number: int
    active: bool
    when: str
    who: str
    origin: str
    what: str
    changed: tuple[str, ...]


class HistoryReport(Report):
    """The generations of every node, oldest first, what has not ended, and the nodes that could not be asked."""

    generations: tuple[GenerationRow, ...]
    unfinished: dict[str, str]
    journal: dict[str, tuple[str, ...]]
    nodes: tuple[NodeRow, ...]

    @property
    def exit_code(self) -> int:
        return exit_code_of([row.result for row in self.nodes])


def history(cluster: Cluster, options: HistoryOptions, fleet: Fleet) -> HistoryReport:
    """Ask every node what it keeps; nothing is changed."""
    proxy = PROXIES[cluster.proxy]
    survey = fleet.survey(select(cluster, options.nodes), proxy, lambda _: ["generation", "history"])
    return HistoryReport(
        generations=tuple(row for node, found in survey.facts.items() for row in _rows(node, found)),
        unfinished={node.name: told for node, found in survey.facts.items() if (told := _unfinished(found))},
        journal={node.name: found.history.journal for node, found in survey.facts.items() if found.history},
        nodes=tuple(failure(node, error) for node, error in survey.errors.items()),
    )


def _rows(node: Node, found: Facts) -> list[GenerationRow]:
    kept = found.history.kept if found.history else ()
    return [
        GenerationRow(
            node=node.name,
            number=each.number,
            active=each.number == found.generations.current,
            when=each.meta.get("when", ""),
            who=each.meta.get("who", ""),
            origin=each.meta.get("from", ""),
            what=each.meta.get("what", ""),
            changed=_changed(before, each),
        )
        for before, each in zip((None, *kept), kept, strict=False)
    ]


def _changed(before: Kept | None, after: Kept) -> tuple[str, ...]:
    old = {(file.path, file.sha256, file.mode, file.owner) for file in before.files} if before else set()
    new = {(file.path, file.sha256, file.mode, file.owner) for file in after.files if file.sha256 or before}
    return tuple(sorted({path for path, *_ in new - old}))


def _unfinished(found: Facts) -> str:
    generations = found.generations
    if generations.changing:
        return "a change runs right now"
    if generations.unfinished:
        number, previous = generations.unfinished
        way = f"goes back to {previous}" if generations.current != number else "ends it"
        return f"a change to generation {number} was interrupted: the next push, or exlb recover, {way}"
    return "files were edited by hand since" if generations.edited else ""
