"""One function per report: what a person reads. The sentences come with the reports; here they are only laid out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import singledispatch

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from exlb_fab.commands.base import NodeRow, Report
from exlb_fab.commands.config import ConfigReport
from exlb_fab.commands.deploy import DeployReport
from exlb_fab.commands.diff import DiffReport
from exlb_fab.commands.differences import FileDiff
from exlb_fab.commands.doctor import DoctorReport
from exlb_fab.commands.execute import ExecReport
from exlb_fab.commands.history import GenerationRow, HistoryReport
from exlb_fab.commands.install import InstallReport
from exlb_fab.commands.lock import LockReport
from exlb_fab.commands.push_config import PushReport
from exlb_fab.commands.questionnaire import CheckList, VerdictRow, VerdictsReport
from exlb_fab.commands.recover import RecoverReport
from exlb_fab.commands.render import RenderReport
from exlb_fab.commands.restart import RestartReport
from exlb_fab.commands.rollback import RollbackReport
from exlb_fab.commands.uninstall import UninstallReport
from exlb_fab.commands.verify import VerifyReport
from exlb_fab.report.progress import colored_diff

RESULT_STYLES = {
    "changed": "green",
    "unchanged": "dim",
    "pending": "yellow",
    "failed": "bold red",
    "unreachable": "bold red",
    "not started": "yellow",
    "restored": "yellow",
}
STATUS_STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}
VERDICT_STYLES = {"GREEN": "bold green", "RED": "bold red", "INTERRUPTED": "bold yellow"}
MEANINGS = {
    "pass": "all is well",
    "warn": "odd, while clients are served; does not make it red",
    "fail": "makes it red; the cause, as far as it is known, and what to type next stand below the tables",
    "skip": "cannot be asked, because of something that fails elsewhere, or is not to be asked",
}


@singledispatch
def answer(report: Report) -> RenderableType:
    """Return what stands on stdout for a report."""
    raise TypeError(f"no table for {type(report).__name__}")


@answer.register
def _install(report: InstallReport) -> RenderableType:
    verdict = sentence(report.nodes, "everything is installed", "installed")
    return Group(nodes_table("Install", report.nodes), verdict)


@answer.register
def _restart(report: RestartReport) -> RenderableType:
    return Group(nodes_table("Restart", report.nodes), sentence(report.nodes, "nothing restarted", "restarted"))


@answer.register
def _push(report: PushReport) -> RenderableType:
    if not report.dry_run:
        table = nodes_table("Push", report.nodes)
        active = "no file changed" if report.number is None else f"generation {report.number} is active"
        return Group(table, sentence(report.nodes, "no changes", active))
    words = "dry run: nothing was touched" if report.changes else "no changes"
    return Group(*_diffs(report.diffs), nodes_table("Plan", report.nodes), Text(words, "bold"))


def _diffs(diffs: Iterable[FileDiff]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for each in diffs:
        parts.append(Text(f"{', '.join(each.nodes)}: {each.path}", "cyan"))
        parts.append(colored_diff(each.diff or each.reason))
    return parts


@answer.register
def _diff(report: DiffReport) -> RenderableType:
    bad = _bad(report.nodes)
    missing = [nodes_table("Not compared", bad)] if bad else []
    words = Text("the active files differ from the rendered ones", "bold yellow")
    if not report.diffs and bad:
        words = Text("no differences on the nodes that were compared", "bold yellow")
    elif not report.diffs:
        words = Text("no differences", "bold green")
    return Group(*_diffs(report.diffs), *missing, words)


@answer.register
def _rollback(report: RollbackReport) -> RenderableType:
    table = nodes_table(f"Back to generation {report.to}", report.nodes)
    if report.dry_run:
        pending = any(row.result == "pending" for row in report.nodes)
        words = "dry run: nothing was touched" if pending else "no changes"
        return Group(*_diffs(report.diffs), table, Text(words, "bold"))
    return Group(table, sentence(report.nodes, "no changes", f"generation {report.to} is active again"))


@answer.register
def _recover(report: RecoverReport) -> RenderableType:
    verdict = sentence(report.nodes, "there was nothing to recover", "recovered")
    return Group(nodes_table("Recover", report.nodes), verdict)


@answer.register
def _uninstall(report: UninstallReport) -> RenderableType:
    table = nodes_table("Uninstall", report.nodes)
    nothing = "nothing to do: exlb is not on these nodes"
    if report.dry_run:
        pending = any(row.result == "pending" for row in report.nodes)
        words = "dry run: nothing was touched" if pending else nothing
        return Group(*_diffs(report.diffs), table, Text(words, "bold"))
    return Group(table, sentence(report.nodes, nothing, "nothing of exlb is left on these nodes"))


@answer.register
def _history(report: HistoryReport) -> RenderableType:
    parts: list[RenderableType] = []
    by_node: dict[str, list[GenerationRow]] = {}
    for row in report.generations:
        by_node.setdefault(row.node, []).append(row)
    for node, rows in by_node.items():
        table = bare_table("number", "when (UTC)", "who", "what", "changed")
        table.columns[1].no_wrap = True
        for row in rows:
            number = Text(f"{row.number}{' active' if row.active else ''}", "bold green" if row.active else "")
            changed = "\n".join(map(_short, row.changed))
            table.add_row(number, _when(row.when), _whose(row.who, row.origin), row.what, changed)
        parts.append(titled(node, table))
        if node in report.unfinished:
            parts.append(Text(report.unfinished[node], "yellow"))
    if not parts:
        parts.append(Text("no node keeps a generation yet: exlb push-config makes the first"))
    if bad := _bad(report.nodes):
        parts.append(nodes_table("Not asked", bad))
    return Group(*parts)


@answer.register
def _locks(report: LockReport) -> RenderableType:
    table = bare_table("node", "lock", "since (UTC)", "for", "change")
    table.columns[2].no_wrap = True
    for row in report.locks:
        lock = Text(_whose(row.who, row.origin or ""), "yellow") if row.who else Text("free", "green")
        change = Text("runs" if row.changing else "", "yellow")
        table.add_row(Text(row.node, "cyan"), lock, _when(row.since or ""), row.what, change)
    missing = [nodes_table("Not asked", bad)] if (bad := _bad(report.nodes)) else []
    return Group(titled("Locks", table), *missing)


def _short(path: str) -> str:
    """Return the name of a file; of a drop-in, which all have the same, that of its directory."""
    *_, parent, name = path.split("/")
    return parent if parent.endswith((".service.d", ".network.d")) else name


def _when(time: str) -> str:
    """Return a node's time (2027-01-02T03:04:05Z) as people read it."""
    return time.replace("T", " ").removesuffix("Z")


def _whose(who: str, origin: str) -> str:
    return f"{who} from {origin}" if origin else who


def _bad(rows: Iterable[NodeRow]) -> list[NodeRow]:
    return [row for row in rows if row.result in ("failed", "unreachable", "not started")]


@answer.register
def _deploy(report: DeployReport) -> RenderableType:
    parts = [part for part in (report.install, report.push, report.verify) if part is not None]
    return Group(*(answer(part) for part in parts))


@answer.register
def _exec(report: ExecReport) -> RenderableType:
    parts: list[RenderableType] = []
    for row in report.nodes:
        if row.status is None:
            parts.append(Text(f">>> {row.node}: {row.error}", "bold red"))
            if row.hint:
                parts.append(Text(f"    next: {row.hint}"))
            continue
        style = "bold cyan" if row.status == 0 else "bold red"
        parts.append(Text(f">>> {row.node}" + (f" (status {row.status})" if row.status else ""), style))
        parts.extend(verbatim(text) for text in (row.stdout, row.stderr) if text.strip())
    return Group(*parts)


@answer.register
def _render(report: RenderReport) -> RenderableType:
    parts: list[RenderableType] = []
    for file in report.files:
        heading = f">>> {file.node}:{file.path} (mode {file.mode})"
        parts.append(Text(heading + (f" written to {file.written}" if file.written else ""), "bold cyan"))
        if file.written is None:
            parts.append(verbatim(file.text))
    parts += [Text(f"note: {note}", "yellow") for note in report.notes]
    return Group(*parts)


@answer.register
def _config(report: ConfigReport) -> RenderableType:
    table = bare_table("variable", "value", "from")
    for row in report.settings:
        source = row.source.replace(f"{report.path}:", "line ")
        table.add_row(Text(row.name, "bold"), Text(row.value), Text(source, "dim"))
    outages = bare_table("what happens", "clients lose the VIP for at most")
    for outage in report.outages:
        lost = "until somebody acts" if outage.seconds is None else f"{outage.seconds:.1f} s"
        outages.add_row(Text(outage.event), Text(lost))
    return Group(titled(report.path, table), Text(), titled("Worst outages, by the model", outages))


@answer.register
def _verify(report: VerifyReport) -> RenderableType:
    return Group(*_verify_tables(report), *_findings(report), _verdict_line(report))


@answer.register
def _doctor(report: DoctorReport) -> RenderableType:
    """Show a row per check and answer, with the nodes that it is the answer of."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for each in report.verdicts:
        said = "see below" if each.status in ("fail", "warn") else each.text
        places.setdefault((each.check, each.status, said), []).append(each.node or "all")
    table = bare_table("check", "nodes", "verdict", "found")
    for (check, status, said), nodes in places.items():
        where = "all" if tuple(nodes) == report.nodes and len(nodes) > 1 else ", ".join(nodes)
        verdict = Text(status.upper() if status == "fail" else status, STATUS_STYLES[status])
        table.add_row(Text(check, "cyan"), Text(where), verdict, Text(said))
    return Group(table, *_findings(report), _verdict_line(report))


@answer.register
def _checks(report: CheckList) -> RenderableType:
    table = bare_table("check", "passes where")
    for check in report.checks:
        passes = Text(check.title)
        table.add_row(Text(check.id, "cyan"), passes.append(f"\n{check.about}", "dim") if check.about else passes)
    meanings = (Text.assemble((status, STATUS_STYLES[status]), f"  {said}") for status, said in MEANINGS.items())
    return Group(table, *meanings)


def round_of_verify(report: VerifyReport) -> RenderableType:
    """Return a report for a screen that may be too low for all of it: what matters comes first."""
    at = Text(f"{report.at:%Y-%m-%d %H:%M:%S} UTC  ", "dim")
    return Group(at.append_text(_verdict_line(report)), *_findings(report), Text(), *_verify_tables(report))


def _verify_tables(report: VerifyReport) -> list[RenderableType]:
    """Return what was found where, as far as it was asked."""
    families = {check.id.partition(".")[0] for check in report.checks}
    parts = {
        "node": _matrix("Nodes", report, "node"),
        "vip": _matrix(f"VIP {report.vip}: {held(report)}", report, "vip"),
        "backend": _backends_table(report),
    }
    shown = [part for family, part in parts.items() if family in families or not report.checks]
    passed = Counter(
        family
        for verdict in report.verdicts
        if verdict.status == "pass" and (family := verdict.check.partition(".")[0]) not in parts
    )
    if passed:
        shown.append(Text(f"Passed too: {', '.join(f'{family} {count}' for family, count in passed.items())}", "green"))
    return shown


def held(report: VerifyReport) -> str:
    """Say who holds the VIP; a node that could not be asked may, as far as anybody knows."""
    if report.holders:
        return f"held by {', '.join(report.holders)}"
    return " or ".join(("held by nobody", *report.not_asked))


def bare_table(*columns: str) -> Table:
    """Return an empty table as all of exlb are: no lines but under its head."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def verbatim(text: str) -> Text:
    """Return text that is never folded: it may be copied, or read by the next program."""
    return Text(text.rstrip("\n"), no_wrap=True, overflow="ignore")


def titled(title: str, table: Table) -> RenderableType:
    """Return a table under its title, which may be wider than it."""
    return Group(Text(title, "bold"), table)


def nodes_table(title: str, rows: Sequence[NodeRow]) -> RenderableType:
    """Return how a command ended on each node."""
    timed = any(row.seconds for row in rows)
    table = bare_table("node", "result", "what", *(["time"] if timed else []))
    for row in rows:
        detail = row.detail + (f"\nnext: {row.hint}" if row.hint else "")
        time = [f"{row.seconds:.1f} s" if row.seconds else ""] if timed else []
        table.add_row(Text(row.node, "cyan"), Text(row.result, RESULT_STYLES[row.result]), Text(detail), *time)
    return titled(title, table)


def sentence(rows: Iterable[NodeRow], unchanged: str, changed: str) -> Text:
    """Return how it ended on all of them together."""
    results = [row.result for row in rows]
    bad = [
        f"{results.count(kind)} {kind}"
        for kind in ("failed", "unreachable", "restored", "not started")
        if kind in results
    ]
    if bad:
        return Text(f"{'; '.join(bad)}; of {len(results)}", "bold red")
    return Text(changed if "changed" in results else unchanged, "bold green")


def _matrix(title: str, report: VerifyReport, family: str) -> RenderableType:
    """Lay the verdicts of a family out: a row per node, a column per check."""
    asked = [check.id for check in report.checks if check.id.startswith(f"{family}.")]
    found = {(verdict.check, verdict.node): verdict for verdict in report.verdicts}
    columns = [check for check in asked if (check, None) not in found]
    table = bare_table("node", *(check.partition(".")[2] for check in columns))
    for node in report.nodes:
        table.add_row(Text(node, "cyan"), *(_cell(found.get((check, node))) for check in columns))
    return titled(title, table)


def _cell(verdict: VerdictRow | None) -> Text:
    if verdict is None:
        return Text("-", "dim")
    words = {"fail": "FAIL", "warn": f"warn: {verdict.text}", "skip": "-"}.get(verdict.status, verdict.text)
    return Text(words.replace(", ", "\n"), STATUS_STYLES[verdict.status])


def _backends_table(report: VerifyReport) -> RenderableType:
    table = bare_table("listener", "backend", *report.nodes)
    for row in report.backends:
        backend = row.address if row.server in row.address else f"{row.server} {row.address}"
        cells = (row.seen.get(node, "-") for node in report.nodes)
        styled = (
            Text(cell, "green" if cell.startswith("UP") else "bold red" if cell != "-" else "dim") for cell in cells
        )
        table.add_row(row.listener, Text(backend, "cyan"), *styled)
    return titled("Backends, as the proxy of each node sees them", table)


def alike(report: VerdictsReport) -> dict[tuple[str, str, str | None], list[VerdictRow]]:
    """Return the verdicts that have something to say, by check, status and what to type next."""
    groups: dict[tuple[str, str, str | None], list[VerdictRow]] = {}
    for verdict in report.verdicts:
        if verdict.status in ("fail", "warn"):
            groups.setdefault((verdict.check, verdict.status, verdict.hint), []).append(verdict)
    return groups


def _findings(report: VerdictsReport) -> list[Text]:
    """Return one paragraph per check that has something to say: its sentences, their causes, what to type next."""
    return [_finding(check, status, hint, group) for (check, status, hint), group in alike(report).items()]


def _finding(check: str, status: str, hint: str | None, verdicts: Sequence[VerdictRow]) -> Text:
    text = Text(no_wrap=True, overflow="ignore")
    text.append(f"{status.upper() if status == 'fail' else status} ", STATUS_STYLES[status])
    text.append(f"{check}", "dim")
    told: set[str | None] = set()
    for verdict in verdicts:
        named = verdict.node and verdict.node not in verdict.text
        text.append(f"\n     {verdict.node}: {verdict.text}" if named else f"\n     {verdict.text}")
        if verdict.cause not in told:
            text.append("".join(f"\n       {line}" for line in (verdict.cause or "").splitlines()), "dim")
        told.add(verdict.cause)
    if hint:
        text.append(f"\n     next: {hint}")
    return text


def _verdict_line(report: VerdictsReport) -> Text:
    return Text(report.sentence, VERDICT_STYLES[report.word])
