"""A condition of the lab, what a command has to say of it, and in what that differs from what it said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Literal

from exlb_fab import vrrp
from exlb_fab.cluster import Cluster
from exlb_fab.errors import EXIT_FAILED, EXIT_OK
from exlb_fab.lab.layout import VIP6
from tests.lab.bastion import Bastion
from tests.ran import Ran
from tests.schemas import validate

Command = Literal["verify", "doctor"]
Takes = Literal["nothing", "an election", "a check", "the backends"]
Told = Literal["warn", "fail"]
Fault = Callable[[Bastion], AbstractContextManager[object]]  # entered, it is there; left, it is mended

ALL = ("lb1", "lb2", "lb3")
HOLDER, SECOND, THIRD = ALL  # a green lab has the VIP on its first node
ADDRESSES = ("198.51.100.11", "198.51.100.12", "198.51.100.13")
OVER_IPV6 = {
    "MASTER_VIP": f"{VIP6}/64",
    "VRRP_IPS": "(2001:db8:0:51::11 2001:db8:0:51::12 2001:db8:0:51::13)",
    "KUBE_APISERVER": "",
}
SHOWN_CHARACTERS = 160
# Other labs run beside this one on two cores, and what takes a second there may take some.
BUSY = 4


@dataclass(frozen=True)
class Finding:
    """A verdict that is no pass and no skip, of a node or (None) of all together; `says` is in its text or cause."""

    check: str
    node: str | None
    status: Told
    says: str = ""


@dataclass(frozen=True)
class Said:
    """A verdict as a command gave it: `text` has the cause behind it, `hint` is what to type next."""

    check: str
    node: str | None
    status: str
    text: str
    hint: str = ""


@dataclass(frozen=True)
class Look:
    """How one run of a command ended: its exit status, what it warned of and what it failed, in its order.

    `skipped` is what it could not ask; `words` is what it printed instead where it gave no verdicts.
    """

    status: int
    said: tuple[Said, ...] = ()
    skipped: tuple[Said, ...] = ()
    words: str = ""

    @classmethod
    def of(cls, ran: Ran) -> Look:
        """Read what `-o json` printed; raise jsonschema.ValidationError where it does not keep to its schema."""
        try:
            answer = json.loads(ran.stdout)
        except ValueError:
            return cls(ran.status, words=ran.said or "nothing")
        _, command, version = answer["format"].split("/")
        validate(f"{command}-{version}", answer)
        verdicts = [
            Said(
                each["check"],
                each["node"],
                each["status"],
                "\n".join(filter(None, (each["text"], each["cause"]))),
                each["hint"] or "",
            )
            for each in answer["verdicts"]
        ]
        return cls(
            ran.status,
            tuple(each for each in verdicts if each.status in ("warn", "fail")),
            tuple(each for each in verdicts if each.status == "skip"),
        )

    def __str__(self) -> str:
        alike: dict[tuple[str, str], list[Said]] = {}
        for each in self.said:
            alike.setdefault((each.status, each.check), []).append(each)
        told = [
            _told(status, check, [each.node for each in found], found[0].text)
            for (status, check), found in alike.items()
        ]
        return "; ".join((f"exit {self.status}", *told, *([_short(self.words)] if self.words else [])))


@dataclass(frozen=True)
class Condition:
    """One cell of the matrix: a lab in this condition is called just this by a command, and nothing else.

    `fault` is None where the condition is that of the lab as it stands, with `variables` pushed to it and `needs` there
    meanwhile. `asked` are variables of the environment file that the command alone is given, `options` its flags.
    `findings` are all that it has to warn of or to fail, `also` what it may besides, because it follows; `status` is
    its exit status. `typed` is a command line that some finding names as what to type, and that mends it. `skips` are
    the checks that it cannot ask of some node, None where these may be any: of what does not run little can be asked.
    `takes` names what has to pass until it shows.
    """

    name: str
    family: str
    fault: Fault | None = None
    findings: Sequence[Finding] = ()
    also: Sequence[Finding] = ()
    status: int = EXIT_FAILED
    typed: str = ""
    skips: frozenset[str] | None = None
    takes: Takes = "nothing"
    command: Command = "verify"
    variables: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    needs: Fault | None = None

    def __str__(self) -> str:
        return self.name.replace(" ", "-")

    @property
    def expected(self) -> str:
        """Return what the command has to say, in one line."""
        alike: dict[tuple[str, str, str], list[str | None]] = {}
        for each in self.findings:
            alike.setdefault((each.status, each.check, each.says), []).append(each.node)
        told = [_told(status, check, nodes, says) for (status, check, says), nodes in alike.items()]
        mended = [f"mended by `{self.typed}`"] if self.typed else []
        return "; ".join((f"exit {self.status}", *told, *mended))

    def wrong(self, look: Look) -> list[str]:
        """Return in what a command said something else: a false green, a false red, or another cause."""
        told = [f"exit {look.status} instead of {self.status}"] if look.status != self.status else []
        if look.words:
            return [*told, _short(look.words)]
        wanted = {_named(each): each for each in (*self.also, *self.findings)}
        found = {_named(each) for each in look.said}
        told += [f"no {name}" for name in map(_named, self.findings) if name not in found]
        for said in look.said:
            expected = wanted.get(_named(said))
            if expected is None:
                told.append(f"{_named(said)} besides: {_short(said.text)}")
            elif expected.says not in said.text:
                told.append(f"{_named(said)} does not say {expected.says!r}: {_short(said.text)}")
        if self.typed and not any(self.typed in each.hint for each in look.said):
            told.append(f"nothing says to type {self.typed}")
        if self.skips is not None:
            told += [f"no skip {check}" for check in sorted(self.skips - {each.check for each in look.skipped})]
            told += [
                f"{_named(each)} besides: {_short(each.text)}" for each in look.skipped if each.check not in self.skips
            ]
        return told


def fail(check: str, *nodes: str, says: str = "") -> tuple[Finding, ...]:
    """Return a failure of each node, of all together where none is named."""
    return tuple(Finding(check, node, "fail", says) for node in nodes or (None,))


def warn(check: str, *nodes: str, says: str = "") -> tuple[Finding, ...]:
    """Return a warning of each node, of all together where none is named."""
    return tuple(Finding(check, node, "warn", says) for node in nodes or (None,))


def torn(condition: Condition) -> Condition:
    """Return the same condition, in which a client may lose its connection where several nodes hold the VIP.

    Each of them announces it, and what one has begun another one ends; that shows now and then.
    """
    if all(each.check != "vip.single-holder" for each in condition.findings):
        return condition
    named = {each.check for each in (*condition.findings, *condition.also)}
    ends = "a connection ends where its packets go to another one"
    lost = (*fail("vip.request", *ALL, says=ends), *fail("vip.bastion", says=ends))
    return replace(condition, also=(*condition.also, *(each for each in lost if each.check not in named)))


def others(*nodes: str) -> tuple[str, ...]:
    """Return the nodes of the lab but for some."""
    return tuple(each for each in ALL if each not in nodes)


def healthy(
    name: str,
    *findings: Finding,
    fault: Fault | None = None,
    variables: Mapping[str, str] | None = None,
    asked: Mapping[str, str] | None = None,
    options: tuple[str, ...] = (),
    command: Command = "verify",
    needs: Fault | None = None,
    skips: Iterable[str] = (),
) -> Condition:
    """Return a condition in which nothing is wrong; `findings` are the warnings that it calls for."""
    return Condition(
        name,
        "healthy",
        fault,
        findings,
        status=EXIT_OK,
        skips=frozenset(skips),
        # Where nothing was done, no look may say that something is wrong.
        takes="the backends" if fault else "nothing",
        command=command,
        variables=variables or {},
        asked=asked or {},
        options=options,
        needs=needs,
    )


def limit_seconds(cluster: Cluster, takes: Takes) -> float:
    """Return by when after its beginning a condition has to show, by the model, on a machine that is busy."""
    settle = vrrp.settle_seconds(cluster.priorities, cluster.vrrp.advert_seconds, cluster.vrrp.version)
    noticed = max(cluster.vrrp.timing(track).failure_seconds for track in cluster.vrrp.track)
    # The last of the checks may begin just before, and wait for its own time limit.
    checked = max(each.check.interval_ms * (each.check.fall + 1) for each in cluster.listeners) / 1000
    seconds = {
        "nothing": 0.0,
        "an election": settle,
        "a check": noticed + settle,
        "the backends": checked + noticed + settle,
    }
    return BUSY * seconds[takes]


def due_seconds(cluster: Cluster) -> float:
    """Return how long a condition takes by the model to have consequences in VRRP, if it has any."""
    return limit_seconds(cluster, "a check") / BUSY


def mended_seconds(cluster: Cluster) -> float:
    """Return by when after a condition has ended all is well again, by the model, on a machine that is busy."""
    settle = vrrp.settle_seconds(cluster.priorities, cluster.vrrp.advert_seconds, cluster.vrrp.version)
    noticed = max(cluster.vrrp.timing(track).recovery_seconds for track in cluster.vrrp.track)
    checked = max(each.check.interval_ms * (each.check.rise + 1) for each in cluster.listeners) / 1000
    # The proxy has to see its backends before a check of keepalived that asks one passes, and that before an election.
    return BUSY * (checked + noticed + settle)


def first_of_each_family(conditions: Iterable[Condition]) -> frozenset[str]:
    """Return the names of the conditions that `make test` runs."""
    by_family: dict[str, str] = {}
    for each in conditions:
        by_family.setdefault(each.family, each.name)
    return frozenset(by_family.values())


def duplicates(conditions: Iterable[Condition]) -> Iterator[str]:
    """Yield what cannot be of conditions: a name that stands twice, and a finding that does within one."""
    names = set[str]()
    for condition in conditions:
        if condition.name in names:
            yield condition.name
        names.add(condition.name)
        keys = [(each.check, each.node) for each in (*condition.findings, *condition.also)]
        yield from (f"{condition.name}: {key}" for key in keys if keys.count(key) > 1)


def _named(each: Finding | Said) -> str:
    return f"{each.status} {each.check}{f' on {each.node}' if each.node else ''}"


def _told(status: str, check: str, nodes: Sequence[str | None], text: str) -> str:
    where = f" on {', '.join(filter(None, nodes))}" if any(nodes) else ""
    return f"{status} `{check}`{where}{f': {_short(text)}' if text else ''}"


def _short(text: str) -> str:
    """Return a text in one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 3]}..."
