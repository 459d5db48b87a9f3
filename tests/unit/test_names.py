"""Habits that hold for all of exlb: one module knows the proxy's name, and everything public says what it is."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from pkgutil import iter_modules

import pytest

ROOT = Path(__file__).parents[2] / "exlb_fab"
MODULES = sorted(path for path in ROOT.rglob("*.py"))
PROGRAMS = sorted(path for path in ROOT.rglob("*.sh"))
# The registry imports it; the lab stands alone and has to say which packages its repository carries.
MAY_KNOW = {"proxies/haproxy.py", "proxies/__init__.py", "node/haproxy.sh", "lab/image.py", "lab/el9/build.sh"}
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def words(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield every name, import and string of a module with its line, docstrings left out."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, Documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                yield line, text
            case ast.Constant(value=bytes(content)):
                yield line, content.decode(errors="replace")
            case ast.Name(id=name) | ast.arg(arg=name) | ast.alias(name=name) | ast.Attribute(attr=name):
                yield line, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield line, name
            case ast.keyword(arg=str(name)):
                yield line, name
            case ast.ImportFrom(module=str(name)):
                yield line, name


@pytest.mark.parametrize("path", [path for path in MODULES if named(path) not in MAY_KNOW], ids=named)
def test_no_other_module_knows_the_name_of_the_proxy(path: Path) -> None:
    found = [
        f"{named(path)}:{line}: {word}"
        for line, word in words(ast.parse(path.read_text()))
        if "haproxy" in word.lower()
    ]
    assert found == []


@pytest.mark.parametrize("path", [path for path in PROGRAMS if named(path) not in MAY_KNOW], ids=named)
def test_no_other_program_knows_the_name_of_the_proxy(path: Path) -> None:
    code = [line for line in path.read_text().splitlines() if not re.match(r"\s*#", line)]
    assert [line for line in code if "haproxy" in line.lower()] == []


def test_only_its_own_template_knows_the_name_of_the_proxy() -> None:
    found = {path.name for path in (ROOT / "templates").iterdir() if "haproxy" in path.read_text().lower()}
    assert found <= {"haproxy.cfg.j2"}


def test_what_may_know_the_name_of_the_proxy_is_there() -> None:
    assert {name for name in MAY_KNOW if not (ROOT / name).exists()} == set()


def public(tree: ast.Module) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the public classes and functions of a module; a check says in its title what it asks."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            is_check = any(ast.unparse(each).startswith("CHECKS.") for each in node.decorator_list)
            if not node.name.startswith("_") and not is_check:
                yield node


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, named(path)
    assert docstring.splitlines()[0][-1] in ".:?"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_whatever_is_public_says_what_it_is_in_its_first_line(path: Path) -> None:
    silent, unfinished = [], []
    for node in public(ast.parse(path.read_text())):
        docstring = ast.get_docstring(node)
        if docstring is None:
            silent.append(f"{named(path)}:{node.lineno}: {node.name}")
        elif not docstring.splitlines()[0].endswith("."):
            unfinished.append(f"{named(path)}:{node.lineno}: {node.name}: {docstring.splitlines()[0]}")
    assert (silent, unfinished) == ([], [])


@pytest.mark.parametrize(
    ("rules", "free"),
    [
        (("Only ssh talks SSH", "Nothing but ssh imports Fabric or Paramiko itself"), {"ssh"}),
        (("Only report prints",), {"report", "cli"}),
        (("Only client is a client of the entrance",), {"client", "lab"}),
    ],
)
def test_every_module_stands_under_a_rule_that_names_who_does_not(rules: tuple[str, ...], free: set[str]) -> None:
    written = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    under = {
        each.removeprefix("exlb_fab.") for rule in written if rule["name"] in rules for each in rule["source_modules"]
    }
    assert {module.name for module in iter_modules([str(ROOT)])} - under == free | {"__main__"}
