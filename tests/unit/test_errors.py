"""Every error that exlb raises on purpose: what it carries, and that it travels between processes."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import re
from collections.abc import Iterator

import pytest

import exlb_fab
from exlb_fab import errors
from exlb_fab.cluster import Node
from exlb_fab.errors import ExlbError, UnreachableError
from exlb_fab.understanding import InvalidEnvironment

for module in pkgutil.walk_packages(exlb_fab.__path__, "exlb_fab."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)


def below(kind: type[ExlbError]) -> Iterator[type[ExlbError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from below(each)


KINDS = sorted(set(below(ExlbError)), key=lambda kind: kind.__name__)


def made(kind: type[ExlbError]) -> ExlbError:
    if kind is InvalidEnvironment:
        return InvalidEnvironment([], ["a warning"])
    return kind("lb2: it failed", hint="exlb verify")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_error_travels_with_its_message_hint_and_exit_code(kind: type[ExlbError]) -> None:
    error = made(kind)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.message, copy.hint, copy.exit_code) == (error.message, error.hint, error.exit_code)
    assert str(copy) == str(error) == error.message


def test_error_travels_with_what_else_it_knows() -> None:
    class NodeError(UnreachableError):
        """An error whose class takes other arguments."""

        def __init__(self, node: Node, line: int) -> None:
            super().__init__(f"{node}: line {line}", hint="look")
            self.line = line

    NodeError.__qualname__ = "NodeError"
    globals()["NodeError"] = NodeError
    copy = pickle.loads(pickle.dumps(NodeError("lb2", 7)))  # type: ignore[arg-type]
    assert (copy.message, copy.hint, copy.line, copy.exit_code) == ("lb2: line 7", "look", 7, 4)


def test_faults_of_an_environment_file_travel_with_it() -> None:
    copy = pickle.loads(pickle.dumps(made(InvalidEnvironment)))
    assert copy.warnings == ("a warning",)
    assert copy.faults == ()


def test_module_lists_every_error_of_its_own_with_its_exit_code() -> None:
    listed = dict(re.findall(r"(\w+(?:Error|Unavailable))\s+(\d+)", errors.__doc__ or ""))
    own = {kind.__name__: str(kind.exit_code) for kind in KINDS if kind.__module__ == errors.__name__}
    assert listed == own


def test_exit_codes_are_the_documented_ones() -> None:
    assert (
        errors.EXIT_OK,
        errors.EXIT_FAILED,
        errors.EXIT_USAGE,
        errors.EXIT_ENVIRONMENT,
        errors.EXIT_UNREACHABLE,
        errors.EXIT_LOCKED,
        errors.EXIT_PENDING,
        errors.EXIT_INTERRUPTED,
    ) == (0, 1, 2, 3, 4, 5, 6, 130)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_error_without_a_hint_has_none(kind: type[ExlbError]) -> None:
    if kind is not InvalidEnvironment:
        assert kind("it failed").hint is None
