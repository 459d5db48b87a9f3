from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.node.machine import Machine


def copy(source: Path, target: Path) -> None:
    """Copy a tree with modes and owners."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A node with both programs installed and running on the files that they brought, held by our session."""
    made = Machine(tmp_path / "node")
    made.take()
    yield made
    made.release()


@pytest.fixture(scope="session")
def pushed_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node after its first push, made once: its manifests have its own paths, so it is used in its place."""
    root = tmp_path_factory.mktemp("pushed") / "node"
    made = Machine(root)
    made.take()
    assert made.push().done
    made.release()
    copy(root, root.with_name("template"))
    return root


@pytest.fixture
def pushed(pushed_root: Path) -> Iterator[Machine]:
    """A node after a first push: generation 1 is active, generation 0 is what was there."""
    copy(pushed_root.with_name("template"), pushed_root)
    made = Machine(pushed_root)
    made.take()
    yield made
    made.release()
