"""What environment files are rendered to, byte by byte: one folder per case, rewritten by --update-golden."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exlb_fab.cluster import Cluster, Secret
from exlb_fab.rendering import DIGEST_LENGTH, File, Target, Templates, render
from exlb_fab.understanding import load
from tests.fake import STATS, cluster

HERE = Path(__file__).parent
TEMPLATES = Templates()
CASES = sorted(path.parent.name for path in HERE.glob("*/environment.sh"))
HEADER = re.compile(r"# Written by exlb, content ([0-9a-f]{16}): ")


def loaded(case: str, tmp_path: Path) -> Cluster:
    """Read the environment file of a case, as bash does, from a copy that nobody else may write."""
    copy = tmp_path / "environment.sh"
    shutil.copyfile(HERE / case / "environment.sh", copy)
    copy.chmod(0o600)
    return load(copy)


def rendered(cluster: Cluster) -> dict[str, str]:
    """Return the files of all nodes by NODE/PATH, and their modes in one more."""
    files = {
        f"{node}{file.path}": file
        for node in cluster.nodes
        for file in render(cluster, node, TEMPLATES, Target()).files
    }
    modes = "".join(f"{file.mode:04o} {path}\n" for path, file in files.items())
    return {"modes": modes, **{path: file.text for path, file in files.items()}}


def written(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes().decode() for path in files}


@pytest.mark.parametrize("case", CASES)
def test_rendered_files_are_the_expected_ones(case: str, tmp_path: Path, update: bool) -> None:
    found = rendered(loaded(case, tmp_path))
    expected = HERE / case / "expected"
    if update:
        shutil.rmtree(expected, ignore_errors=True)
        for name, text in found.items():
            (expected / name).parent.mkdir(parents=True, exist_ok=True)
            (expected / name).write_bytes(text.encode())
    assert found == written(expected)


def test_every_case_is_there() -> None:
    assert CASES == ["default-3-nodes", "dns-apiservers", "prefix-and-timings", "single-node", "stats-password"]


@pytest.mark.parametrize("case", CASES)
def test_no_case_has_a_warning(case: str, tmp_path: Path) -> None:
    assert loaded(case, tmp_path).warnings == ()


# The hash in the first line


def named(file: File) -> str:
    """Return the hash that the first line of a file names."""
    found = HEADER.match(file.text)
    assert found, file.text.splitlines()[0]
    return found[1]


def files_of(cluster: Cluster) -> list[File]:
    return [file for node in cluster.nodes for file in render(cluster, node, TEMPLATES, Target()).files]


@pytest.mark.parametrize("case", CASES)
def test_hash_in_the_first_line_is_that_of_the_content(case: str, tmp_path: Path) -> None:
    for file in (each for each in files_of(loaded(case, tmp_path)) if each.kind in ("proxy", "keepalived")):
        blank = file.text.replace(named(file), "0" * DIGEST_LENGTH)
        assert named(file) == file.digest == hashlib.sha256(blank.encode()).hexdigest()[:DIGEST_LENGTH]


def test_proxy_carries_the_same_hash_where_its_admin_socket_tells_it() -> None:
    for file in files_of(cluster()):
        if file.kind == "proxy":
            assert f"\n    description exlb-{named(file)}\n" in file.text


CHANGES = st.fixed_dictionaries(
    {
        "nodes": st.integers(1, 5),
        "balance": st.sampled_from(["source", "roundrobin", "leastconn"]),
        "password": st.none() | st.sampled_from(["a", "b", "a b"]),
        "router_id": st.integers(1, 3),
    }
)


def changed(nodes: int, balance: str, password: str | None, router_id: int) -> Cluster:
    plain = cluster(nodes)
    return replace(
        plain,
        listeners=(replace(plain.apiserver_listener, balance=balance),),  # type: ignore[arg-type]
        stats=replace(STATS, password=Secret(password) if password else None),
        vrrp=replace(plain.vrrp, router_id=router_id),
    )


@settings(max_examples=30, deadline=None)
@given(CHANGES, CHANGES)
def test_hash_changes_with_the_content_and_with_nothing_else(one: dict[str, object], other: dict[str, object]) -> None:
    first, second = files_of(changed(**one)), files_of(changed(**other))  # type: ignore[arg-type]

    def without_hash(file: File) -> str:
        return file.text.replace(file.digest, "")

    for left in first:
        for right in second:
            assert (left.digest == right.digest) == (without_hash(left) == without_hash(right))


def test_what_is_not_rendered_does_not_change_the_hash() -> None:
    plain = cluster()
    elsewhere = replace(
        plain,
        path=Path("/elsewhere/environment.sh"),
        ssh=replace(plain.ssh, user="ann"),
        kube_apiserver="https://x:8443",
    )
    assert [file.digest for file in files_of(plain)] == [file.digest for file in files_of(elsewhere)]
