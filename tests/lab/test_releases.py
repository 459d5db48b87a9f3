"""The main job on every release that the lab has; bookworm is the one of all the other tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exlb_fab.lab import Lab, down
from tests.lab.bastion import Bastion


@pytest.mark.slow
@pytest.mark.parametrize("release", ["bullseye", "trixie"])
def test_deploy_takes_fresh_nodes_of_a_release_to_green(release: str, tmp_path: Path) -> None:
    name = f"t-{release}-{os.getpid() % 10000}"
    try:
        bastion = Bastion(Lab.up(name, 2, release), tmp_path)
        bastion.exlb("deploy")
        assert bastion.holders() == ["lb1"]
        with bastion.watched() as watch:
            bastion.exlb("push-config", env=bastion.environment(BALANCE="leastconn"))
        assert watch.seen.failed == 0
        assert "no changes" in bastion.exlb("push-config", env=bastion.environment(BALANCE="leastconn")).said
    finally:
        down(name)
