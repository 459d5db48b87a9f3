"""The example documents every variable, and works once its three required lines are edited."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from exlb_fab.understanding import load
from exlb_fab.variables import VARIABLES, Spec

EXAMPLE = Path(__file__).parents[2] / "env.example.sh"
OPTIONAL = [spec for spec in VARIABLES if not spec.required]
REQUIRED = [spec for spec in VARIABLES if spec.required]
EDITED = {
    "NODE_IPS": "NODE_IPS=(10.0.0.1 10.0.0.2 10.0.0.3)",
    "VIP_IF": "VIP_IF=ens3",
    "MASTER_VIP": "MASTER_VIP=10.0.0.10/24",
}


def named(spec: Spec) -> str:
    return spec.name


def paragraph(spec: Spec) -> str:
    """Return the comment above a variable, on one line, and then its own line."""
    text = EXAMPLE.read_text()
    match = re.search(rf"((?:^# .*\n)+)^(#?{spec.name}=.*)$", text, re.MULTILINE)
    assert match, f"{spec.name} is not in {EXAMPLE.name}"
    return f"{match[1].replace('# ', '').replace(chr(10), ' ')}\n{match[2]}"


def edited(tmp_path: Path, text: str) -> Path:
    for name, line in EDITED.items():
        text, count = re.subn(rf"^{name}=.*$", line, text, flags=re.MULTILINE)
        assert count == 1
    path = tmp_path / "environment.sh"
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("spec", OPTIONAL, ids=named)
def test_the_example_shows_the_default_and_the_unit_of_every_variable(spec: Spec) -> None:
    found = paragraph(spec)
    assert f"\n#{spec.name}={spec.default}" in found
    assert not spec.default or found.endswith(f"={spec.default}")
    # A choice is written as it stands there; everything else is measured in something.
    form = f"Write {spec.unit}." if spec.right == f"write {spec.unit}" else f"Unit: {spec.unit}."
    assert not spec.unit or form in found
    assert not spec.otherwise or f"Default: {spec.otherwise}." in found


@pytest.mark.parametrize("spec", REQUIRED, ids=named)
def test_the_example_has_the_required_lines_for_editing_above_all_others(spec: Spec) -> None:
    assert f"\n{spec.name}=" in paragraph(spec)
    text = EXAMPLE.read_text()
    assert text.index(f"\n{spec.name}=") < min(text.index(f"\n#{optional.name}=") for optional in OPTIONAL)


def test_the_example_sets_nothing_but_what_is_required() -> None:
    assert re.findall(r"^([A-Za-z_]\w*)=", EXAMPLE.read_text(), re.MULTILINE) == [spec.name for spec in REQUIRED]


def test_the_example_is_accepted_once_its_three_required_lines_are_edited(tmp_path: Path) -> None:
    cluster = load(edited(tmp_path, EXAMPLE.read_text()))
    assert [str(node) for node in cluster.nodes] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert {node.interface for node in cluster.nodes} == {"ens3"}
    assert (str(cluster.vip), cluster.vip.prefix) == ("10.0.0.10", 24)
    assert cluster.warnings == ()


def test_the_example_is_accepted_with_all_its_optional_lines_in_use(tmp_path: Path) -> None:
    text = re.sub(r"^#([A-Z_]+=)", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    authorities = tmp_path / "ca.crt"
    authorities.write_text("-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIU\n-----END CERTIFICATE-----\n")
    text = text.replace("APISERVER_CA=~/pki/ca.crt", f"APISERVER_CA={authorities}")
    cluster = load(edited(tmp_path, text))
    assert cluster.warnings == ()
    assert cluster.kube_apiserver == "https://10.0.0.10:8443"
    assert cluster.stats.password is not None
    assert "default" not in {setting.source for setting in cluster.settings}


def test_the_example_has_the_variables_in_the_order_of_the_table() -> None:
    names = re.findall(r"^#?([A-Z][A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE)
    assert names == [spec.name for spec in VARIABLES]


def test_the_example_as_shipped_passes_bash_and_shellcheck() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    for words in (["bash", "-n"], [str(shellcheck), "-s", "bash"]):
        found = subprocess.run([*words, str(EXAMPLE)], text=True, capture_output=True, check=False)
        assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
