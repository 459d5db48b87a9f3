"""Every command line that exlb tells somebody to type is one that it has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import typer

from exlb_fab.cli.app import app

ROOT = Path(__file__).parents[2]
EXLB = typer.main.get_command(app)
MODULES = sorted((ROOT / "exlb_fab").rglob("*.py"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLE = re.compile(r"Example: (.*)")
# From the name of the program to the end of its words: a command of somebody else's stands behind --.
TYPED = re.compile(r"(?<![\w./<-])exlb ((?:lab run [^;`\n]*?-- exlb )?[a-z][^;,`\n]*)")
IN_CODE = re.compile(r"```sh\n(.*?)```|`([^`\n]+)`", re.DOTALL)
# What exlb itself does, in a sentence.
VERBS = {
    "asks",
    "brought",
    "changed",
    "does",
    "goes",
    "has",
    "installed",
    "is",
    "keeps",
    "kept",
    "knows",
    "leaves",
    "lets",
    "may",
    "off",
    "on",
    "opens",
    "reloads",
    "runs",
    "sends",
    "understands",
}


def refused(words: list[str]) -> str | None:
    """Return what is no part of exlb among the words behind its name, None where all are."""
    command: Any = EXLB
    rest = list(words)
    while rest and (below := getattr(command, "commands", None)) is not None:
        name = rest.pop(0)
        if name not in below:
            return f"no command {name}"
        command = below[name]
    known = {name for parameter in command.params for name in parameter.opts + parameter.secondary_opts} | {"--help"}
    # What a command passes on has options of its own.
    passing = not command.context_settings.get("allow_interspersed_args", True)
    own = takewhile(lambda word: word.startswith("-"), rest) if passing else rest
    for word in takewhile(lambda word: word != "--", own):
        option = re.match(r"--?[a-z][a-z-]*", word)
        if option and option[0] not in known:
            return f"no option {option[0]} of {command.name}"
    return None


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the strings of a module with their lines, {} for what is filled in; of docstrings only the examples."""
    tree = ast.parse(path.read_text())
    inner: set[int] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text)) as docstring):
                inner.add(id(docstring))
                yield from ((node.lineno, example) for example in EXAMPLE.findall(text))
            case ast.JoinedStr(values=parts):
                inner.update(map(id, parts))
                yield node.lineno, "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in parts)
            case ast.Constant(value=str(text)) if id(node) not in inner:
                yield node.lineno, text


def wrong(text: str, verbs: set[str]) -> Iterator[str]:
    """Yield the command lines of a text that exlb would refuse to read, and why."""
    for line in TYPED.findall(text):
        words = [word for word in line.rsplit(" exlb ", 1)[-1].split() if word != "..."]
        if words[0] not in verbs and (why := refused(words)):
            yield f"exlb {line}: {why}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_a_message_exists(path: Path) -> None:
    assert [f"line {number}: {each}" for number, text in texts(path) for each in wrong(text, VERBS)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_a_document_exists(path: Path) -> None:
    code = [block or span for block, span in IN_CODE.findall(path.read_text())]
    assert [each for text in code for each in wrong(text, set())] == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("exlb reload", "no command reload"),
        ("then: exlb lock steal", "no command steal"),
        ("exlb verify --fix", "no option --fix of verify"),
        ("; or exlb exec --root -- uptime", "no option --root of exec"),
    ],
)
def test_command_that_does_not_exist_is_found(said: str, why: str) -> None:
    (found,) = wrong(said, VERBS)
    assert found.endswith(why)
