"""exlb works when it is installed from its wheel, outside of the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = "NODE_IPS=(198.51.100.11 198.51.100.12)\nVIP_IF=eth0\nMASTER_VIP=198.51.100.100\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel installed in it, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(folder / "site"), str(wheel)], check=True, capture_output=True)
    return folder / "site"


def exlb(site: Path, cwd: Path, *words: str) -> str:
    environ = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "exlb_fab", *words]
    return subprocess.run(command, cwd=cwd, env=environ, check=True, capture_output=True, text=True).stdout


def test_renders_with_the_templates_of_the_wheel(site: Path, tmp_path: Path) -> None:
    (tmp_path / "environment.sh").write_text(ENVIRONMENT)
    (tmp_path / "environment.sh").chmod(0o600)
    rendered = exlb(site, tmp_path, "render")
    assert "listen kube-master" in rendered
    assert "vrrp_instance VI-kube-master" in rendered


def test_carries_the_node_programs(site: Path, tmp_path: Path) -> None:
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "import exlb_fab.node as n; print(n.__file__); print(n.program('haproxy.sh', 'probe.sh'))",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert found.startswith(str(site))
    assert "exlb-probe-end" in found
