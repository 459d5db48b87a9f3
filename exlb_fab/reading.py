"""Take every variable by itself: its values, or what is wrong with it and what would be right."""

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from exlb_fab.bash_text import references
from exlb_fab.environment import Environment, Location, Variable
from exlb_fab.values import Parse, Wrong, is_plain
from exlb_fab.variables import KNOWN, MOST_NODES, SPECS, UNRELATED, VARIABLES

T = TypeVar("T")

_ALIKE = 0.8  # difflib's ratio


@dataclass(frozen=True, slots=True)
class Fault:
    """Say what is wrong with one variable, and what would be right."""

    location: Location
    name: str
    wrong: str
    right: str

    def __str__(self) -> str:
        return f"{self.location}: {self.name}: {self.wrong}; {self.right}"


class Reading:
    """Take values out of an environment, and remember every fault on the way.

    What is missing, and what refers to something that is, is a fault from the start.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.faults: list[Fault] = []
        self._holes = {name: dict(_holes(variable, environment)) for name, variable in environment.variables.items()}
        self._refuse_missing()
        self._refuse_holes()

    def locate(self, name: str) -> Location:
        """Return where a variable is set, or the file where it is not."""
        variable = self.environment.variables.get(name)
        return variable.location if variable else Location(self.environment.path, None)

    def fault(self, name: str, wrong: str, right: str | None = None) -> None:
        """Remember a fault; without `right`, the table says what would be right."""
        self.faults.append(Fault(self.locate(name), name, wrong, right or SPECS[name].right))

    def one(self, name: str, parse: Parse[T]) -> T:
        """Return the value of a scalar that has a default, parsed; the default if it is not set, or faulty."""
        value = self.maybe(name, parse)
        return parse(SPECS[name].default) if value is None else value

    def maybe(self, name: str, parse: Parse[T]) -> T | None:
        """Return the value of a scalar, parsed; None if it is not set, or faulty."""
        variable = self._whole(name)
        if variable is None:
            return None
        if variable.is_array or len(variable.values) != 1:
            self.fault(name, "is an array", _as_scalar(name, variable))
            return None
        return next(self._parsed(name, variable.values, parse), None)

    def many(self, name: str, parse: Parse[T], same: Callable[[T], object] | None = None) -> tuple[T, ...]:
        """Return the elements of an array that are right; `same` gives what no two of them may have in common."""
        variable = self._whole(name)
        if variable is None:
            return ()
        if not variable.is_array:
            self.fault(name, "is not an array", _as_array(name, variable))
            return ()
        if not variable.values:
            self.fault(name, "is empty", _or_nothing(name))
        values = tuple(self._parsed(name, variable.values, parse))
        if same:
            self._refuse_duplicates(name, values, same)
        return values

    def is_set(self, name: str) -> bool:
        """Tell whether the file sets a variable."""
        return name in self.environment.variables

    def is_faulty(self, name: str) -> bool:
        """Tell whether a variable has a fault: its value is None or the default, and an array lacks elements."""
        return any(fault.name == name for fault in self.faults)

    def refuse_another_length(self, name: str, of: str) -> None:
        """Remember a fault where an array has not one element for each of another one."""
        found, wanted = self.count(name), self.count(of)
        if found is not None and wanted is not None and found != wanted:
            wrong = f"has a length of {found}, and {of} ({self.locate(of)}) of {wanted}"
            kind = "name" if name.endswith("NAMES") else "element"
            self.fault(name, wrong, f"write one {kind} for each of {of}, in the same order")

    def count(self, name: str) -> int | None:
        """Return how many elements an array has, faulty ones included; None if it is no array."""
        variable = self._whole(name)
        return len(variable.values) if variable and variable.is_array else None

    def misspellings(self) -> Iterator[str]:
        """Yield a warning for each unknown name that looks like a known one, unless the file itself makes use of it."""
        used = {name for variable in self.environment.variables.values() for name in references(variable.text)}
        for name, location in self.environment.names.items():
            if name in SPECS or name in UNRELATED or name in used:
                continue
            alike = _most_alike(name, KNOWN)
            if alike:
                yield f"{location}: {name}: exlb does not know this name; did you mean {alike}?"

    def _parsed(self, name: str, values: Sequence[str], parse: Parse[T]) -> Iterator[T]:
        """Yield the values that can be parsed, and remember what is wrong with the others."""
        for number, text in enumerate(values, 1):
            if not text:
                which = "is empty" if len(values) == 1 else f"is empty in place {number}"
                self.fault(name, which, _or_nothing(name))
                continue
            try:
                yield parse(text)
            except Wrong as wrong:
                self.fault(name, wrong.wrong, wrong.right)

    def _refuse_duplicates(self, name: str, values: Sequence[T], same: Callable[[T], object]) -> None:
        keys = [same(value) for value in values]
        for key in dict.fromkeys(key for key in keys if keys.count(key) > 1):
            self.fault(name, f"has {values[keys.index(key)]} {keys.count(key)} times", "write each only once")

    def _whole(self, name: str) -> Variable | None:
        """Return a variable without a hole: what that leaves of a value says nothing about what was meant."""
        return None if self._holes.get(name) else self.environment.variables.get(name)

    def _refuse_holes(self) -> None:
        """Remember a fault for every reference to a variable that is not set where it is used."""
        for variable, holes in self._holes.items():
            for name, wrong in holes.items():
                self.fault(variable, wrong, self._instead_of(name))

    def _instead_of(self, name: str) -> str:
        """Return what to do about a reference to a name that is not set."""
        if name in self.environment.names:
            return f"set {name} above it"
        alike = _most_alike(name, [*self.environment.names, *self.environment.variables])
        return f"did you mean ${alike}?" if alike else f"set {name} in the file: it is read in an empty environment"

    def _refuse_missing(self) -> None:
        """Remember a fault for every required variable that is not set."""
        for spec in VARIABLES:
            if spec.required and spec.name not in self.environment.variables:
                self.fault(spec.name, "is not set", spec.right + self._instead_of_missing(spec.name))

    def _instead_of_missing(self, name: str) -> str:
        """Return a question about the name in the file that looks like a missing one."""
        unknown = [other for other in self.environment.names if other not in SPECS]
        alike = _most_alike(name, unknown)
        if alike is None:
            return ""
        location = self.environment.names[alike]
        place = f"line {location.line}" if location.path == self.environment.path and location.line else f"{location}"
        return f", or did you mean {name} where {place} says {alike}?"


def _holes(variable: Variable, environment: Environment) -> Iterator[tuple[str, str]]:
    """Yield what a variable refers to that is not set, and how to say it."""
    for name in references(variable.text):
        first = environment.names.get(name)
        if first is None:
            if name not in environment.provided and name not in environment.variables:
                yield name, f"refers to ${name}, which is not set"
        elif first.is_below(variable.location):
            yield name, f"refers to ${name}, which is not set before line {first.line}"


def _as_array(name: str, variable: Variable) -> str:
    """Return how to write as an array what the file has as one text."""
    words = [word for text in variable.values for word in re.split(r"[\s,]+", text) if word]
    if 0 < len(words) <= MOST_NODES and all(map(is_plain, words)) and not SPECS[name].has_blanks:
        return f"write {name}=({' '.join(words)})"
    return SPECS[name].right


def _as_scalar(name: str, variable: Variable) -> str:
    """Return how to write as one text what the file has as an array."""
    can_show = len(variable.values) == 1 and is_plain(variable.values[0]) and not SPECS[name].secret
    return f"write {name}={variable.values[0] if can_show else 'VALUE'}"


def _or_nothing(name: str) -> str:
    """Return what to do about an empty variable."""
    spec = SPECS[name]
    return spec.right if spec.required else f"{spec.right}, or leave the line out"


def _most_alike(name: str, others: Collection[str]) -> str | None:
    """Return the name that another one looks like a misspelling of, None if none does."""
    others = [other for other in others if other != name]
    for other in others:
        if _letters(other) == _letters(name):
            return other
    return next(iter(difflib.get_close_matches(name, others, n=1, cutoff=_ALIKE)), None)


def _letters(name: str) -> str:
    """Return a name without its case and its underscores."""
    return name.replace("_", "").upper()
