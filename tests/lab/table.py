"""The tables that lab tests write into docs: what each row of them has seen, kept until all rows have been run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

from exlb_fab.drilling import FAULTS
from tests.lab.watching import Seen

DRILLED_TIMINGS = ("fast", "documents")

HEADER = """# Faults, and what clients saw of them

Written by `make test-all` on {date}, with three nodes in a lab: {nodes}. The commit stands in each row.
Rows that have a bound in seconds ran alone on the machine, the others in three labs beside each other.

Each row is a test in tests/lab/test_reliability*.py. During each of them one client opened a new TLS connection
through the VIP every 50 ms, and another one held a connection open from before to after; every appearance of the VIP on
a node was taken from that node's kernel. "Delay" is the most by which the client itself was woken up late: a gap
shorter than that means nothing. A gap includes the 50 ms between two requests, and up to a second in which a request
that was under way waited for its answer. "Most holders" can be 2 where a node with a higher priority takes the VIP from
one that has it, as VRRP means it to: the old holder hears of it by the new one's first advert, about 0.1 ms later.

What an emulated power cut cannot show: the machines of the lab are killed all at once, and their disks are those of
this host. What was written and not yet synced survives such a cut, and would not survive a real one. That every rename
has a sync of the file before it and of the directory after it is in `apply.sh`, and not in this table.
"""


TIMINGS = """# What faults cost clients, measured

Written by `make test-all` on {date}: three nodes of Debian 12 in a lab, alone on the machine, each fault five times. A
client asked through the VIP every 50 ms; what is told is its longest time without a good answer, less the most by which
it was woken up late itself. It includes the 50 ms between two requests, and up to a second in which one that was under
way waited for its answer. `exlb config` tells the model's worst case for an environment file ([vrrp.md](vrrp.md)).
"""


DRILLS = """# Ten drills in a row, measured

Written by `make test-all` on {date}: three nodes of Debian 12 in a lab, alone on the machine. Each row is `exlb drill`
ten times over with the same fault and the same TIMING ([drill.md](drill.md)); every one of them passed, was undone and
left `verify` green. Four clients, on the bastion and on every node, asked through the VIP every 50 ms. "Outage" is the
longest time between two answers of the one who waited longest. That is more than the time without service: it may
exceed the worst case of the [model](vrrp.md) by twice the resolution, which is the interval and by how much a client
was woken up late (from the last answer to the beginning, and from the end to the next request), and by what an answer
takes. Both are the most that any client had. Of a drill of `node`, nothing is asked of the clients on the node without
power.
"""


VERDICTS = """# What is wrong with an entrance, and what exlb says of it

Written by `make test-all` on {date}: three nodes in a lab, of Debian 12 where nothing else is said. The commit stands
in each row. Of {count} conditions, {wrong} have a wrong cell.

Each row is a test in tests/lab/test_verdicts*.py. The lab is green; the condition is brought about; the command is
asked until it says what is expected, twice running, and no sooner than consequences would show. Once the time is over
that the [model](vrrp.md) of VRRP and of the checks allows, four times it on a busy machine, everything counts: a
warning or a failure that is missing, one more than expected, or another cause makes the cell wrong, and where nothing
is wrong, a question that was skipped and should not have been. Where nothing was done to the lab, every look has to be
right. Then the condition is mended, where a command stands in the row by that command, which a finding has to name; and
the command has to be green again, with nothing skipped.

"Expected" has what must be in the sentence or in its cause; "actual" is what was said of the first of the nodes,
shortened where it is long. What follows from a condition at times may be said besides, and is then in "actual" alone.
"""


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix of verdicts: what a command should have said of a condition, and what it said.

    `wrong` says in what these differ. `commit` is what was tested.
    """

    condition: str
    command: str
    expected: str
    actual: str
    wrong: list[str]
    commit: str

    def cells(self) -> tuple[str, ...]:
        right = f"**no**: {'; '.join(self.wrong)}" if self.wrong else "yes"
        return tuple(map(_escaped, (self.condition, self.command, self.expected, self.actual, right, self.commit)))


def verdicts(cells: Sequence[Cell]) -> str:
    """Return docs/verdicts.md."""
    head = ("condition", "command", "expected verdict and cause", "actual", "right", "commit")
    wrong = sum(bool(each.wrong) for each in cells)
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return f"{VERDICTS.format(date=date, count=len(cells), wrong=wrong or 'none')}\n{_table(head, cells)}"


@dataclass(frozen=True)
class Row:
    """One row: what was done, what is required, what was seen, how the nodes stood after it, what the user read.

    `commit` is what was tested.
    """

    event: str
    required: str
    seen: Seen
    states: Mapping[str, str]
    said: str
    commit: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Row:
        return cls(**{**kept, "seen": Seen(**kept["seen"])})

    def cells(self) -> tuple[str, ...]:
        seen = self.seen
        return (
            self.event,
            self.required,
            f"{seen.failed} of {seen.requests}",
            f"{seen.longest_gap_seconds:.2f} s",
            f"{seen.delay_seconds:.2f} s",
            "lived" if seen.long_lived else "ended",
            str(seen.moves),
            str(seen.most_holders),
            _states(self.states),
            _escaped(self.said),
            self.commit,
        )


@dataclass(frozen=True)
class Measured:
    """What one fault has cost clients, time after time: seconds, without the delay of the client itself.

    `promised_seconds` is for the median, `model_seconds` is the worst case by docs/vrrp.md.
    """

    timing: str
    fault: str
    gaps_seconds: list[float]
    promised_seconds: float
    model_seconds: float
    commit: str

    @property
    def median_seconds(self) -> float:
        return median(self.gaps_seconds)

    def cells(self) -> tuple[str, ...]:
        return (
            self.timing,
            self.fault,
            f"{self.median_seconds:.2f} s",
            _range(self.gaps_seconds),
            f"{self.promised_seconds:.1f} s",
            f"{self.model_seconds:.2f} s",
            self.commit,
        )


def timings(measured: Iterable[Measured]) -> str:
    """Return docs/timing.md."""
    head = ("TIMING", "fault of the holder", "median", "from-to", "promised for the median", "model's worst", "commit")
    return f"{TIMINGS.format(date=datetime.now(UTC).strftime('%Y-%m-%d'))}\n{_table(head, measured)}"


@dataclass(frozen=True)
class Drilled:
    """Drills in a row of one fault: of each, the longest outage of a client while it lasted and once it was undone.

    All in seconds; `resolution_seconds` and `latency_seconds` are the most of all clients, the worst ones the model's.
    """

    timing: str
    fault: str
    outages_seconds: list[float]
    worst_seconds: float
    resolution_seconds: float
    latency_seconds: float
    afterwards_seconds: list[float]
    undone_worst_seconds: float
    commit: str

    @classmethod
    def of(cls, timing: str, fault: str, reports: Sequence[Mapping[str, Any]], commit: str) -> Drilled:
        """Take them from what the reports of the drills say of this fault."""
        clients = [[each for each in row["watchers"] if counts(row, each)] for row in reports]
        return cls(
            timing,
            fault,
            outages_seconds=[max(each["outage_seconds"] for each in row) for row in clients],
            worst_seconds=max(row["worst_seconds"] for row in reports),
            resolution_seconds=max(each["resolution_seconds"] for row in clients for each in row),
            latency_seconds=max(each["latency_seconds"] for row in clients for each in row),
            afterwards_seconds=[max(each["afterwards_seconds"] for each in row) for row in clients],
            undone_worst_seconds=max(row["undone_worst_seconds"] for row in reports),
            commit=commit,
        )

    def cells(self) -> tuple[str, ...]:
        return (
            self.timing,
            self.fault,
            str(len(self.outages_seconds)),
            f"{median(self.outages_seconds):.2f} s",
            _range(self.outages_seconds),
            f"{self.worst_seconds:.2f} s",
            f"{self.resolution_seconds:.2f} s",
            f"{self.latency_seconds:.2f} s",
            _range(self.afterwards_seconds),
            f"{self.undone_worst_seconds:.2f} s",
            self.commit,
        )


def counts(drill: Mapping[str, Any], watcher: Mapping[str, Any]) -> bool:
    """Tell whether a client of a drill can be asked all: not the one on a node without power."""
    return (drill["fault"], watcher["watcher"]) != ("node", drill["holder"])


def drills(drilled: Iterable[Drilled]) -> str:
    """Return docs/drill-measured.md; what has not been measured is named: a part must not look like the whole."""
    found = {(each.fault, each.timing): each for each in drilled}
    wanted = [(fault, timing) for fault in FAULTS for timing in DRILLED_TIMINGS]
    missing = [f"`{fault}` with `TIMING={timing}`" for fault, timing in wanted if (fault, timing) not in found]
    text = DRILLS.format(date=datetime.now(UTC).strftime("%Y-%m-%d"))
    if missing:
        text += f"\nNot measured: {', '.join(missing)}.\n"
    head = (
        "TIMING",
        "fault",
        "drills",
        "median outage",
        "from-to",
        "model's worst",
        "resolution",
        "an answer takes",
        "once undone",
        "worst then",
        "commit",
    )
    return f"{text}\n{_table(head, [found[each] for each in wanted if each in found])}"


def _range(seconds: Sequence[float]) -> str:
    return f"{min(seconds):.2f}-{max(seconds):.2f} s"


def _table(head: tuple[str, ...], rows: Iterable[Cell | Drilled | Measured | Row]) -> str:
    lines = [head, tuple("---" for _ in head), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _states(states: Mapping[str, str]) -> str:
    """Return how the nodes stand, those that stand alike together."""
    alike: dict[str, list[str]] = {}
    for node, state in states.items():
        alike.setdefault(state, []).append(node)
    if len(alike) == 1:
        return f"all: {next(iter(alike))}"
    return "; ".join(f"{', '.join(nodes)}: {state}" for state, nodes in alike.items())


COLUMNS = (
    "event or fault",
    "required",
    "requests failed",
    "longest gap",
    "delay",
    "open connection",
    "VIP moves",
    "most holders",
    "nodes after it",
    "what the user read",
    "commit",
)


SYSTEMS = {
    "bullseye": "Debian 11",
    "bookworm": "Debian 12",
    "trixie": "Debian 13",
    "el9-like": "one in the style of EL9 (dnf and the units of EL9 on a Debian root file system, see [lab.md](lab.md))",
}


def document(rows: Iterable[Row], releases: Sequence[str]) -> str:
    """Return docs/reliability.md, or that of a cluster of several releases."""
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    nodes = ", ".join(SYSTEMS[each] for each in releases)
    return f"{HEADER.format(date=date, nodes=nodes)}\n{_table(COLUMNS, rows)}"
