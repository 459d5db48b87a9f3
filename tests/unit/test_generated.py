"""Passwords that exlb makes: one file beside the environment file, for its owner alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exlb_fab.errors import EnvironmentFileError
from exlb_fab.generated import password, secrets_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return secrets_path(tmp_path / "environment.sh")


def test_a_password_is_kept_beside_the_environment_file_for_its_owner_alone(path: Path) -> None:
    made = password(path, "STATS_PASSWORD", 24)
    assert re.fullmatch(r"[A-Za-z0-9]{24}", made)
    assert path.name == "environment.sh.secrets"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == f"STATS_PASSWORD={made}\n"


def test_a_kept_password_stays_the_same_and_others_go_beside_it(path: Path) -> None:
    stats, auth = password(path, "STATS_PASSWORD", 24), password(path, "AUTH_PASS", 8)
    assert (len(stats), len(auth)) == (24, 8)
    assert password(path, "STATS_PASSWORD", 24) == stats
    assert password(path, "AUTH_PASS", 8) == auth
    assert path.read_text() == f"STATS_PASSWORD={stats}\nAUTH_PASS={auth}\n"


def test_two_files_have_different_passwords(tmp_path: Path) -> None:
    assert password(tmp_path / "a", "STATS_PASSWORD", 24) != password(tmp_path / "b", "STATS_PASSWORD", 24)


def test_a_last_line_without_an_end_is_not_continued(path: Path) -> None:
    path.write_text("STATS_PASSWORD=abc")
    path.chmod(0o600)
    auth = password(path, "AUTH_PASS", 8)
    assert path.read_text() == f"STATS_PASSWORD=abc\nAUTH_PASS={auth}\n"
    assert password(path, "STATS_PASSWORD", 24) == "abc"


def test_processes_that_ask_at_once_get_the_same_password(path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from exlb_fab.generated import password; "
        "print('ready', flush=True); sys.stdin.read(); print(password(Path(sys.argv[1]), 'STATS_PASSWORD', 24))"
    )
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for each in asking:
        assert each.stdout
        assert each.stdout.readline() == "ready\n"
    for each in asking:
        assert each.stdin
        each.stdin.close()
    made = set()
    for each in asking:
        assert each.stdout
        with each.stdout:
            made.add(each.stdout.read().strip())
        assert each.wait(60) == 0
    assert len(made) == 1
    assert path.read_text() == f"STATS_PASSWORD={made.pop()}\n"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602])
def test_a_file_that_others_can_read_or_write_is_refused_and_left_alone(path: Path, mode: int) -> None:
    path.write_text("STATS_PASSWORD=hush\n")
    path.chmod(mode)
    with pytest.raises(EnvironmentFileError) as caught:
        password(path, "AUTH_PASS", 8)
    assert caught.value.message == f"{path}: mode {mode:04o} lets others read it"
    assert caught.value.hint == f"chmod 600 {path}"
    assert path.read_text() == "STATS_PASSWORD=hush\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"STATS_PASSWORD=abc\nhush hush\n", ":2: not NAME=PASSWORD"),
        (b"hush\n", ":1: not NAME=PASSWORD"),
        (b"STATS_PASSWORD=hush;\n", ":1: not NAME=PASSWORD"),
        (b"\n", ":1: not NAME=PASSWORD"),
        (b"STATS_PASSWORD=\n", ":1: not NAME=PASSWORD"),
        (b"hush\xff\xfe", ": cannot keep a password: it is not a file of passwords"),
    ],
)
def test_a_file_of_something_else_is_named_and_neither_shown_nor_changed(
    path: Path, content: bytes, expected: str
) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(EnvironmentFileError) as caught:
        password(path, "AUTH_PASS", 8)
    assert caught.value.message == f"{path}{expected}"
    assert "hush" not in f"{caught.value.message}{caught.value.hint}"
    assert path.read_bytes() == content


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    path.symlink_to(target)
    with pytest.raises(EnvironmentFileError, match="cannot keep a password"):
        password(path, "AUTH_PASS", 8)
    assert not target.exists()


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A directory that nobody may write to: for root, who may write everywhere, that is being somebody else."""
    folder = tmp_path / "read-only"
    folder.mkdir(0o555)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(me)


def test_where_nothing_can_be_kept_it_says_so_and_what_to_do(read_only: Path) -> None:
    path = read_only / "environment.sh.secrets"
    with pytest.raises(EnvironmentFileError) as caught:
        password(path, "AUTH_PASS", 8)
    assert caught.value.message == f"{path}: cannot keep a password: Permission denied"
    assert caught.value.hint == f"write the password itself into AUTH_PASS, or make {read_only} writable"
