"""Environment files that never were files: what one says, and what is understood of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest

from exlb_fab.cluster import Cluster
from exlb_fab.environment import Environment, Location, Variable
from exlb_fab.understanding import InvalidEnvironment, understand
from exlb_fab.variables import KNOWN

Value = str | Sequence[str] | None
FILE = Path("environment.sh")
REQUIRED: Mapping[str, Value] = {
    "NODE_IPS": ["10.0.0.1", "10.0.0.2", "10.0.0.3"],
    "VIP_IF": "eth0",
    "MASTER_VIP": "10.0.0.10",
}
NODES_V6: Mapping[str, Value] = {
    "NODE_IPS": ["2001:db8::1", "2001:db8::2", "2001:db8::3"],
    "MASTER_VIP": "2001:db8::10",
}
MADE = "madeByExlb"


def sets(values: Mapping[str, Value], *, texts: Mapping[str, str] | None = None) -> Environment:
    """Return what a file sets that has each value on a line of its own; None leaves a value out."""
    kept = {name: value for name, value in values.items() if value is not None}
    places = {name: Location(FILE, line) for line, name in enumerate(kept, 1)}
    variables = {
        name: Variable(
            name,
            (value,) if isinstance(value, str) else tuple(value),
            is_array=not isinstance(value, str),
            location=places[name],
            text=(texts or {}).get(name, ""),
        )
        for name, value in kept.items()
        if name in KNOWN
    }
    return Environment(FILE, variables, places, (), frozenset({"HOME"}))


def generate(name: str, length: int) -> str:
    """Return a password of that length which tells whose it is."""
    return f"{MADE}{name}".ljust(length, "x")[:length]


def cluster(resolve: Collection[str] = (), /, **values: Value) -> Cluster:
    """Return what is understood of the required lines and some more, or others."""
    return understand(sets({**REQUIRED, **values}), resolve=lambda name: resolve, generate=generate)


def faults(texts: Mapping[str, str] | None = None, /, **values: Value) -> list[str]:
    """Return all faults of such a file; it has some."""

    def refuse(name: str, length: int) -> str:
        raise AssertionError(f"a password for {name}, which a file with faults gets none of")

    with pytest.raises(InvalidEnvironment) as caught:
        understand(sets({**REQUIRED, **values}, texts=texts), resolve=lambda name: (), generate=refuse)
    return caught.value.message.splitlines()


def fault(texts: Mapping[str, str] | None = None, /, **values: Value) -> str:
    """Return the only fault, without its place."""
    found = faults(texts, **values)
    assert len(found) == 1, found
    return re.sub(r"^environment\.sh:\d+: ", "", found[0])


def doubts(**values: Value) -> list[str]:
    """Return the warnings, without their places."""
    return [re.sub(r"^environment\.sh(:\d+)?: ", "", warning) for warning in cluster(**values).warnings]
