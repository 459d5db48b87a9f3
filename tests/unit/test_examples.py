"""The examples of docs/examples are right as they stand, and docs/from-your-document.md says what they say."""

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from exlb_fab import vrrp
from exlb_fab.cluster import Cluster
from exlb_fab.environment import read
from exlb_fab.rendering import Rendered, Target, Templates, render
from exlb_fab.understanding import InvalidEnvironment, understand
from exlb_fab.variables import KNOWN

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "from-your-document.md"
EXAMPLES = ROOT / "docs" / "examples"
NAMES = ["bash-loops", "kubeadm", "kubeasz-2", "kubeasz-3-l4lb", "two-lb-ubuntu"]

CODE = re.compile(r"`([^`]+)`")
VARIABLE = re.compile(r"([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)(?:=(.+))?")
NUMBER = re.compile(r"\[(\d+)\](?!\()")


def example(name: str) -> Path:
    return EXAMPLES / name / "environment.sh"


def understood(path: Path) -> Cluster:
    """Understand a file, with passwords that are kept nowhere."""
    return understand(read(path, KNOWN), generate=lambda _, length: "x" * length)


@cache
def cluster(name: str) -> Cluster:
    return understood(example(name))


@cache
def rendered(name: str) -> tuple[Rendered, ...]:
    """Return the files of every node of an example, for the newest versions."""
    described = cluster(name)
    return tuple(render(described, node, Templates(), Target()) for node in described.nodes)


def changed(tmp_path: Path, name: str, *lines: str) -> Path:
    """Write an environment file that is an example with other lines after it."""
    path = tmp_path / "environment.sh"
    path.write_text("\n".join([f"source {example(name)}", *lines]) + "\n")
    path.chmod(0o600)
    return path


# The examples


def test_every_document_has_an_example_and_every_example_is_linked() -> None:
    assert sorted(path.parent.name for path in EXAMPLES.glob("*/environment.sh")) == NAMES
    for name in NAMES:
        assert f"(examples/{name}/environment.sh)" in PAGE.read_text()
        assert f"from-your-document.md#{name}\n" in example(name).read_text()
        assert f"\n## {name}\n" in PAGE.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_understood_without_a_warning(name: str) -> None:
    assert cluster(name).warnings == ()


@pytest.mark.parametrize("name", NAMES)
def test_an_example_passes_bash_and_shellcheck(name: str) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    for words in (["bash", "-n"], [str(shellcheck), "-s", "bash"]):
        found = subprocess.run([*words, str(example(name))], text=True, capture_output=True, check=False)
        assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_rendered_for_every_node_as_it_asks_for(name: str) -> None:
    for each in rendered(name):
        assert {file.kind for file in each.files} >= {"proxy", "keepalived"}
        assert each.notes == ()


@pytest.mark.parametrize("name", NAMES)
def test_in_an_example_a_healthy_node_beats_any_other_and_no_two_are_equal(name: str) -> None:
    priorities = cluster(name).priorities
    assert vrrp.lawful(priorities, cluster(name).vrrp.check_weight)
    assert list(priorities) == sorted(set(priorities), reverse=True)


@pytest.mark.parametrize(
    ("name", "lines", "fault"),
    [
        pytest.param("kubeadm", ["CHECK_WEIGHT=-2"], ": CHECK_WEIGHT: ", id="the weight of kubeadm"),
        pytest.param(
            "two-lb-ubuntu", ["AUTH_PASS=k8s-lb@lab"], ": AUTH_PASS: has 10 signs", id="a password of 10 signs"
        ),
        pytest.param(
            "two-lb-ubuntu",
            ["NODE_IPS+=(198.51.100.247)", "NODE_NAMES+=(k8s-lb-3)", "PRIORITIES+=(99)"],
            ": CHECK_WEIGHT: ",
            id="a third node with a weight of 2",
        ),
        pytest.param(
            "bash-loops", ["unset STATS_PASSWORD", "STATS_ADMIN=yes"], ": STATS_ADMIN: ", id="admin for everybody"
        ),
        pytest.param(
            "kubeadm",
            ["APISERVER_DEST_PORT=6443", "unset KUBE_APISERVER"],
            "apiservers run on the nodes",
            id="the apiservers' own port on their machines",
        ),
    ],
)
def test_what_the_page_says_of_a_document_to_be_refused_is_refused(
    name: str, lines: list[str], fault: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidEnvironment, match=fault) as found:
        understood(changed(tmp_path, name, *lines))
    assert len(found.value.faults) == 1


def test_the_timeouts_of_the_documents_bring_a_warning(tmp_path: Path) -> None:
    warnings = understood(changed(tmp_path, "kubeadm", "TIMEOUT_CLIENT=20s", "TIMEOUT_SERVER=20s")).warnings
    assert len(warnings) == 2
    for name, warning in zip(("TIMEOUT_CLIENT", "TIMEOUT_SERVER"), warnings, strict=True):
        assert f": {name}: less than 10m cuts watches" in warning


# The page


class Line(NamedTuple):
    """One line of a table of the page: of which example, and its last two cells."""

    name: str
    variables: str
    outcome: str


def lines() -> Iterator[Line]:
    for section in PAGE.read_text().split("\n## ")[1:]:
        name, _, text = section.partition("\n")
        for row in text.splitlines() if name in NAMES else ():
            if row.startswith("| ") and not row.startswith(("| the document |", "| --- ")):
                cells = [cell.strip() for cell in row.strip("|").split("|")]
                assert len(cells) == 3, row
                yield Line(name, *cells[1:])


LINES = list(lines())


def test_every_example_has_a_table() -> None:
    assert {line.name for line in LINES} == set(NAMES)


def test_every_variable_that_the_page_names_exists_and_has_the_value_that_it_says() -> None:
    for line in LINES:
        settings = {setting.name: setting.value for setting in cluster(line.name).settings}
        for span in CODE.findall(line.variables):
            match = VARIABLE.fullmatch(span)
            assert match, (line, span)
            name, value = match.groups()
            assert name in settings, (line, span)
            if value is not None:
                assert settings[name] == value.strip("()"), (line, span)


def test_everything_that_an_example_sets_is_on_the_page() -> None:
    for name in NAMES:
        spans = [span for line in LINES if line.name == name for span in CODE.findall(line.variables)]
        named = {span.partition("=")[0] for span in spans}
        assert {setting.name for setting in cluster(name).settings if setting.source != "default"} <= named


def test_what_the_page_says_that_exlb_makes_is_what_is_rendered() -> None:
    for line in LINES:
        texts = [file.text for node in rendered(line.name) for file in node.files]
        for span in CODE.findall(line.outcome):
            if not span.startswith("exlb ") and span not in KNOWN:
                assert any(span in text for text in texts), (line, span)


def test_every_difference_that_a_table_refers_to_is_explained() -> None:
    explained = {int(number) for number in re.findall(r"^(\d+)\. \*\*", PAGE.read_text(), re.MULTILINE)}
    assert {int(number) for line in LINES for number in NUMBER.findall(line.outcome)} <= explained
    assert explained == set(range(1, len(explained) + 1))
