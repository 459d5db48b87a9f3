"""exlb on the command line, against nodes that are not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from exlb_fab import client, locking, rendering, rollout
from exlb_fab.cli.app import app
from exlb_fab.commands import backend
from exlb_fab.fleet import Fleet
from exlb_fab.rendering import Templates
from exlb_fab.understanding import load
from tests.fake import Clock, FakeFleet, environment_file
from tests.ran import Ran

# What a deploy makes of an environment file; each test gets nodes of its own in that state.
DEPLOYED: dict[str, FakeFleet] = {}


class Site:
    """One environment file, its fake nodes, and exlb run on them."""

    def __init__(self, folder: Path, nodes: int = 3, **values: str) -> None:
        self.folder = folder
        self.env = environment_file(folder, nodes, **values)
        self.fleet = FakeFleet(load(self.env))

    def exlb(self, command: str, *words: str, status: int = 0) -> Ran:
        """Run a command; any other exit status than `status` is a failure of the test."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client, "request", self.fleet.request)
            patch.setattr(client, "arp_answers", self.fleet.arp_answers)
            found = CliRunner().invoke(app, [*command.split(), "-e", str(self.env), *words], obj=self.fleet.connector)
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        assert found.exit_code == status, f"exit {found.exit_code}\n{found.stdout}\n{found.stderr}"
        return Ran(found.exit_code, found.stdout, found.stderr)

    def change(self, **values: str) -> None:
        """Write other values to the environment file."""
        environment_file(self.folder, len(self.fleet.nodes), **values)

    def twin(self) -> FakeFleet:
        """Return other nodes in the same state: what somebody else may do to them."""
        made = FakeFleet(self.fleet.cluster)
        made.become(self.fleet)
        return made

    def deploy(self) -> Site:
        """Take the nodes to green, and forget how."""
        content = self.env.read_text()
        if content not in DEPLOYED:
            self.exlb("deploy")
            DEPLOYED[content] = self.fleet
            self.fleet = FakeFleet(self.fleet.cluster)
        self.fleet.become(DEPLOYED[content])
        return self


@pytest.fixture(scope="session", autouse=True)
def made_once() -> Iterator[None]:
    """Let Typer turn its functions into commands, and Jinja2 compile exlb's templates, once and not for every run."""
    own = Templates()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", cache(get_command))
        patch.setattr(rendering, "Templates", lambda directory=None: Templates(directory) if directory else own)
        yield


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let the gates of a roll-out, a second look and who waits for a lock wait without waiting."""
    made = Clock()
    monkeypatch.setattr(Fleet, "wait", lambda fleet, seconds: made.sleep(seconds))
    monkeypatch.setattr(rollout, "time", made)
    monkeypatch.setattr(locking, "time", made)
    monkeypatch.setattr(backend, "time", made)
    monkeypatch.setattr(rollout, "PAUSE_SECONDS", 2.0)  # a quarter of the looks, which are what a test waits for
    return made


@pytest.fixture
def fresh(tmp_path: Path) -> Site:
    """Three nodes on which nothing is installed."""
    return Site(tmp_path)


@pytest.fixture
def green(tmp_path: Path) -> Site:
    """Three nodes after `exlb deploy`; lb1 holds the VIP."""
    return Site(tmp_path).deploy()


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., Site]:
    """Make a site with other nodes or variables."""
    return lambda nodes=3, **values: Site(tmp_path, nodes, **values)
