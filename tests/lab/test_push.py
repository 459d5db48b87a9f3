"""A push cannot break a live entrance: killed, cut off, at the same time as another, or wrong in itself."""

from __future__ import annotations

from pathlib import Path

from exlb_fab.lab import Lab
from tests.lab.bastion import PROXY_PATH, Bastion


def test_killed_exlb_leaves_a_node_that_ends_its_change_by_itself(green: Bastion) -> None:
    env = green.environment(BALANCE="leastconn")
    with green.watched() as watch:
        with green.held("lb2", "mv", ".exlb-new") as stands:
            process = green.start("push-config", env=env)
            green.wait_until(stands)
            process.kill()
            process.communicate(timeout=30)
            # Who comes now waits for the change that runs, and tells how it ended.
            second = green.start("push-config", "--lock-wait", "60", env=env)
            green.wait_until(lambda: "push-config" in green.exlb("lock", "status", status=None).said)
        _, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors.decode()
    assert "an earlier change was still under way; it ended: done" in errors.decode()
    assert watch.seen.failed == 0
    green.exlb("verify", env=env)
    assert "no changes" in green.exlb("push-config", env=env).said


def test_power_cut_between_two_renames_is_taken_back_by_the_next_push(green: Bastion, deployed_lab: Lab) -> None:
    before = green.bytes_of("lb3")
    env = green.environment(BALANCE="leastconn", CHECK_FALL="3")
    # The proxy's file is in its place, keepalived's is not yet.
    with green.held("lb3", "mv", "keepalived.conf.exlb-new") as stands:
        process = green.start("push-config", "--nodes", "lb3", env=env)
        green.wait_until(stands)
        deployed_lab.cut("lb3")
        process.communicate(timeout=180)
        assert process.returncode != 0
    deployed_lab.boot("lb3")
    green.inside("lb3", "rm", "-f", "/usr/local/sbin/mv")
    assert green.bytes_of("lb3") != before
    assert "was interrupted" in green.exlb("history", "--nodes", "lb3").said
    ran = green.exlb("recover")
    assert "was interrupted: back to" in ran.said
    assert green.bytes_of("lb3") == before
    green.exlb("push-config", env=env)
    green.wait_until(lambda: green.exlb("verify", env=env, status=None).status == 0, 90)


def test_of_two_pushes_at_once_one_changes_everything_and_the_other_nothing(green: Bastion) -> None:
    with green.held("lb2", "mv", ".exlb-new") as stands:
        first = green.start("push-config", env=green.environment(BALANCE="leastconn"))
        green.wait_until(stands)
        other = green.environment(BALANCE="roundrobin")
        ran = green.exlb("push-config", env=other, status=5)
        assert "lb1 is locked by root from" in ran.said
        assert "nothing was changed on any node" in ran.said
    first.communicate(timeout=120)
    assert first.returncode == 0
    assert all("balance leastconn" in green.inside(node, "cat", PROXY_PATH) for node in green.nodes)
    assert "free" in green.exlb("lock", "status").said


def test_rollback_brings_the_bytes_back_and_zero_is_what_was_there_before(green: Bastion) -> None:
    before = {node: green.bytes_of(node) for node in green.nodes}
    green.exlb("push-config", env=green.environment(BALANCE="leastconn"))
    with green.watched() as watch:
        green.exlb("rollback")
    assert watch.seen.failed == 0
    assert {node: green.bytes_of(node) for node in green.nodes} == before
    assert "no changes" in green.exlb("rollback").said
    green.exlb("rollback", "--to", "0", "--yes")
    for node in green.nodes:
        assert green.inside(node, "dpkg", "--verify", "haproxy") == ""
        assert "keepalived.conf\n" not in green.inside(node, "ls", "/etc/keepalived")
    assert green.holders() == []


def test_proxy_that_cannot_start_on_its_new_file_is_restored_and_serves(green: Bastion, tmp_path: Path) -> None:
    text = Path("templates/haproxy.cfg.j2").read_text()
    (tmp_path / "haproxy.cfg.j2").write_text(text.replace("chroot /var/lib/haproxy", "chroot /nowhere"))
    before = {node: green.bytes_of(node) for node in green.nodes}
    with green.watched() as watch:
        ran = green.exlb("push-config", "--template-dir", str(tmp_path), status=1)
    assert "lb2" in ran.said
    assert watch.seen.failed == 0
    assert {node: green.bytes_of(node) for node in green.nodes} == before
    green.exlb("verify")


def test_no_secret_shows_on_the_bastion_or_on_a_node(green: Bastion) -> None:
    secret = "Xyzzy-4711"
    env = green.environment(STATS_PASSWORD=secret)
    with green.held("lb2", "mv", ".exlb-new") as stands:
        process = green.start("push-config", "-v", env=env)
        green.wait_until(stands)
        assert secret not in green.inside("lb2", "ps", "axww", "-o", "args")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    said = output.decode() + errors.decode()
    for words in (
        ("history",),
        ("history", "-o", "json"),
        ("diff",),
        ("rollback", "--dry-run", "-o", "json"),
        ("verify",),
    ):
        said += green.exlb(*words, status=None).said
    assert secret not in said
    places = "cat /var/lib/exlb/journal /run/exlb/progress; journalctl --no-pager -o cat; find /var/lib/exlb -perm /077"
    assert secret not in green.inside("lb2", "sh", "-c", places)
    assert green.inside("lb2", "find", "/var/lib/exlb", "/run/exlb", "-perm", "/077", "!", "-type", "l") == ""
