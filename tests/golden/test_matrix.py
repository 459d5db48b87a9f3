"""The golden matrix: options and versions in pairs, one folder per case; what the versions can do, as documented."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from exlb_fab.platforms import KEEPALIVED_FEATURES, Feature
from exlb_fab.proxies.haproxy import FEATURES
from exlb_fab.rendering import EXPORTER, Rendered, Target, Templates, render
from tests.golden.matrix.documents import DOCUMENTS, rows
from tests.golden.matrix.factors import (
    FACTORS,
    HERE,
    KEEPALIVEDS,
    PROXIES,
    Case,
    all_pairs,
    cases,
    cluster,
    pairs,
    text,
    values,
    version,
)

TEMPLATES = Templates()
CASES = cases()
FIRST_WITH_EXPORTER = "2.0"
ANEW = "python -m tests.golden.matrix.choose && pytest tests/golden --update-golden"


def target(case: Case) -> Target:
    """Return the node that a case is for; distributions build haproxy with the exporter since there is one."""
    proxy = version(case["haproxy"])
    services = frozenset({EXPORTER}) if proxy >= version(FIRST_WITH_EXPORTER) else frozenset[str]()
    return Target(proxy, version(case["keepalived"]), services, contained=case["container"] == "yes")


def described(case: Case, rendered: Rendered) -> str:
    """Return what a case is, and what its first node gets beside the two files."""
    node = f"# haproxy {case['haproxy']}, keepalived {case['keepalived']}, container: {case['container']}\n"
    files = "".join(f"{file.mode:04o} {file.path}\n" for file in rendered.files)
    return f"{node}{text(values(case))}\n{files}" + "".join(f"\n{note}\n" for note in rendered.notes)


def golden(case: Case) -> dict[str, str]:
    """Return the texts of a case's folder by their names."""
    of = cluster(case)
    rendered = render(of, of.nodes[0], TEMPLATES, target(case))
    files = {Path(file.path).name: file.text for file in rendered.files if file.kind != "attachment"}
    return {"case": described(case, rendered), **files}


def read(folder: Path) -> dict[str, str]:
    return {path.name: path.read_bytes().decode() for path in folder.iterdir()} if folder.is_dir() else {}


@pytest.mark.parametrize("number", CASES)
def test_rendered_files_of_a_case_are_the_expected_ones(number: str, update: bool) -> None:
    found = golden(CASES[number])
    folder = HERE / number
    if update:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in found.items():
            (folder / name).write_bytes(content.encode())
    assert found == read(folder)


def test_every_pair_of_levels_that_exlb_takes_stands_in_a_case() -> None:
    seen = {pair for case in CASES.values() for pair in pairs(case)}
    missing = [pair for pair in all_pairs() if pair not in seen]
    assert missing == [], ANEW


def test_every_case_has_a_level_of_every_factor_and_a_folder() -> None:
    assert {factor for case in CASES.values() for factor in case} == set(FACTORS)
    assert [level for case in CASES.values() for factor, level in case.items() if level not in FACTORS[factor]] == []
    assert {path.name for path in HERE.iterdir() if path.name.isdecimal()} == set(CASES), ANEW


# What the versions can do


def span(feature: Feature) -> str:
    """Return the versions that have a feature, as the documents say it."""
    since = f"from {'.'.join(map(str, feature.since))}" if feature.since else ""
    until = f"below {'.'.join(map(str, feature.until))}" if feature.until else ""
    return " and ".join(filter(None, (since, until)))


@pytest.mark.parametrize(
    ("document", "features"),
    [("haproxy-versions.md", FEATURES), ("keepalived-versions.md", KEEPALIVED_FEATURES)],
    ids=["haproxy", "keepalived"],
)
def test_documented_differences_are_those_of_the_code(document: str, features: Iterable[Feature]) -> None:
    expected = [[f"`{feature.name}`", span(feature), feature.source] for feature in features]
    assert [row[:3] for row in rows(document, "Differences")] == expected


@pytest.mark.parametrize(
    ("document", "versions"),
    [("haproxy-versions.md", PROXIES), ("keepalived-versions.md", KEEPALIVEDS)],
    ids=["haproxy", "keepalived"],
)
def test_every_version_of_the_matrix_is_documented(document: str, versions: tuple[str, ...]) -> None:
    documented = [row[0] for row in rows(document, "Versions")]
    assert set(versions) <= set(documented)
    assert documented == sorted(documented, key=lambda each: version(each).numbers)


@pytest.mark.parametrize("name", [feature.name for feature in FEATURES if "Never rendered" not in feature.source])
def test_every_feature_makes_a_difference_in_a_file(name: str) -> None:
    template = (DOCUMENTS.parent / "templates" / "haproxy.cfg.j2").read_text(encoding="utf-8")
    assert re.search(rf'"{name}" in features', template)
