"""apply.sh, every branch of it: run here by /bin/sh in a scratch root."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.unit.node.machine import (
    APPLY,
    KEEPALIVED_NEW,
    KEEPALIVED_OLD,
    LIMIT_SECONDS,
    NEW,
    OLD,
    TOKEN,
    URL,
    Found,
    Machine,
    Ran,
    found,
    keepalived_file,
    proxy_file,
    require_mounts,
)

GATE = (str(LIMIT_SECONDS), URL)
STEPS = [
    *("target", "validate", "ports", "snapshot", "record", "write", "remember", "compare", "swap", "system"),
    *("reload-proxy", "gate-proxy", "reload-keepalived", "gate-keepalived", "commit"),
]


def untouched(machine: Machine) -> bool:
    """Tell whether the active files are those that were there before exlb, and nothing stays beside them."""
    files = {machine.proxy: (OLD, 0o640), machine.keepalived: (KEEPALIVED_OLD, 0o644)}
    same = all((found(path).text, found(path).mode) == wanted for path, wanted in files.items())
    return same and not list((machine.root / "etc").rglob("*.exlb-*"))


# stage


def test_stage_keeps_the_bytes_of_every_file_where_only_root_reads_them(machine: Machine) -> None:
    ran = machine.stage()
    assert ran.done
    assert ran.steps == ["receive", "target", "validate"]
    staging = machine.state / "staging"
    assert [(staging / f"files/{key}").read_text() for key in "12"] == [NEW, KEEPALIVED_NEW]
    assert {stat.S_IMODE(path.stat().st_mode) for path in staging.rglob("*") if path.is_file()} == {0o600}
    folders = (machine.state, machine.state / "generations", staging)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    assert untouched(machine)


def test_stage_forgets_what_was_staged_before(machine: Machine) -> None:
    assert machine.stage().done
    assert machine.stage(proxy=None).done
    staging = machine.state / "staging"
    assert [path.name for path in (staging / "files").iterdir()] == ["1"]
    assert len((staging / "manifest").read_text().splitlines()) == 1
    assert len((staging / "meta").read_text().splitlines()) == 5


@pytest.mark.parametrize("shell", [("bash", "--posix"), ("dash",)], ids=lambda words: words[0])
def test_any_posix_shell_brings_the_same_bytes_through_push_failure_and_recovery(
    tmp_path: Path, shell: tuple[str, ...]
) -> None:
    machine = Machine(tmp_path / "node", shell=shell)
    machine.take()
    assert machine.push().done
    assert machine.is_on(1)
    assert machine.proxy.read_text() == NEW
    assert machine.push(proxy_file("bb", "UNSTARTABLE")).failed == "reload-proxy"
    assert machine.stage(proxy_file("BROKEN")).failed == "validate"
    assert machine.is_on(1)
    (machine.state / "intent").write_text("0001 0000\n")
    (machine.state / "current").unlink()
    (machine.state / "current").symlink_to("generations/0000")
    assert machine.recover().done
    assert machine.is_on(0)
    assert machine.rollback(1).done
    assert machine.is_on(1)
    assert machine.leftovers == []
    machine.release()


@pytest.mark.parametrize("cut", [1, 0.9, 0.6, 0.4])
def test_transfer_that_was_cut_short_inside_a_file_is_refused(machine: Machine, cut: float) -> None:
    frame = machine.file("keepalived", KEEPALIVED_NEW, machine.keepalived)
    frames = machine.frames(keepalived=None) + frame[: max(int(len(frame) * cut) - 1, len(frame.splitlines()[0]) + 1)]
    ran = machine.apply("stage", TOKEN, stdin=frames)
    assert ran.failed == "receive"
    assert "the files did not arrive whole" in ran.said
    assert machine.activate().said.startswith("nothing is staged and validated")


@pytest.mark.parametrize("frames", ["", "meta who eva\n", "file proxy 0600 0:0\n", "what is this\n", "file proxy"])
def test_transfer_without_a_file_is_refused(machine: Machine, frames: str) -> None:
    assert machine.apply("stage", TOKEN, stdin=frames).failed == "receive"


def test_invalid_proxy_file_is_refused_in_the_words_of_the_proxy(machine: Machine) -> None:
    ran = machine.stage("BROKEN\n")
    assert ran.failed == "validate"
    assert ran.lines[-2] == f"[ALERT] parsing [{machine.proxy}:1] : unknown keyword 'BROKEN'"
    assert "staging" not in ran.said
    assert untouched(machine)


def test_invalid_keepalived_file_is_refused_in_the_words_of_keepalived(machine: Machine) -> None:
    ran = machine.stage(keepalived="vrrp_instance BROKEN\n")
    assert ran.failed == "validate"
    assert ran.lines[-2] == f"({machine.keepalived}: Line 1) Unknown keyword 'BROKEN'"
    assert "staging" not in ran.said
    assert untouched(machine)


def test_keepalived_2_1_is_taken_at_its_words_because_it_ends_with_0_whatever_it_says(machine: Machine) -> None:
    (machine.root / "keepalived-2.1").touch()
    ran = machine.stage(keepalived="vrrp_instance BROKEN\n")
    assert ran.failed == "validate"
    assert ran.lines[-2] == f"({machine.keepalived}: Line 1) Unknown keyword 'BROKEN'"
    assert machine.stage(keepalived=keepalived_file("VI", "    2001:db8::100")).done


@pytest.mark.parametrize("text", ["", "\n", "# vrrp_instance\n"], ids=["no byte", "blank", "comment"])
def test_keepalived_file_without_an_instance_is_refused_though_keepalived_itself_accepts_it(
    machine: Machine, text: str
) -> None:
    ran = machine.stage(keepalived=text)
    assert ran.failed == "validate"
    assert "the rendered file has no vrrp_instance" in ran.said


def test_keepalived_that_cannot_test_is_asked_nothing_where_the_operator_said_so(machine: Machine) -> None:
    frames = machine.frames(keepalived=keepalived_file("BROKEN"))
    assert machine.apply("stage", TOKEN, "unvalidated", stdin=frames).done
    assert machine.activate().done
    assert not any(line.startswith("keepalived -t") for line in machine.log)
    assert machine.apply("stage", TOKEN, stdin=frames).failed == "validate"
    assert machine.apply("prepare", TOKEN, "0001").failed == "validate"
    assert machine.apply("prepare", TOKEN, "0001", "unvalidated").done


def test_symbolic_link_is_refused_and_told_where_it_leads(machine: Machine) -> None:
    machine.proxy.rename(machine.root / "etc/real.cfg")
    machine.proxy.symlink_to(machine.root / "etc/real.cfg")
    ran = machine.stage()
    assert ran.failed == "target"
    assert f"{machine.proxy} is a symbolic link to {machine.root}/etc/real.cfg" in ran.said


def test_directory_in_the_place_of_a_file_is_refused(machine: Machine) -> None:
    machine.proxy.unlink()
    machine.proxy.mkdir()
    ran = machine.stage()
    assert ran.failed == "target"
    assert f"{machine.proxy} is not a regular file" in ran.said


def test_missing_directory_is_refused(machine: Machine) -> None:
    shutil.rmtree(machine.keepalived.parent)
    ran = machine.stage()
    assert ran.failed == "target"
    assert f"{machine.keepalived.parent} is not there: is the package installed?" in ran.said


def test_file_that_is_a_mount_of_its_own_is_refused(machine: Machine) -> None:
    machine.put("mountinfo", f"40 22 8:1 /x {machine.proxy} rw,relatime - ext4 /dev/sda1 rw\n")
    ran = machine.stage()
    assert ran.failed == "target"
    assert f"{machine.proxy} is a mount of its own" in ran.said


def test_directory_on_a_read_only_file_system_is_refused(machine: Machine) -> None:
    folder = machine.keepalived.parent
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    inside = ["unshare", "-m", "sh", "-c", mount, str(folder)]
    require_mounts()
    machine.shell = (*inside, *machine.shell)
    ran = machine.stage()
    assert ran.failed == "target"
    assert f"{folder} cannot be written: is its file system mounted read-only?" in ran.said


def test_kind_of_file_that_nobody_validates_is_refused(machine: Machine) -> None:
    ran = machine.stage(more=machine.file("secret", "x\n", machine.proxy))
    assert ran.failed == "validate"
    assert "unknown kind of file secret" in ran.said


def test_session_that_lost_its_lock_can_stage_nothing(machine: Machine) -> None:
    lost = "this session has lost its lock on the node"
    for action in (("stage", "another"), ("prepare", "another", "0000"), ("discard", "another"), ("stage", "")):
        assert lost in machine.apply(*action, stdin=machine.frames()).said
    machine.release()
    ran = machine.stage()
    assert ran.failed == "start"
    assert lost in ran.said
    assert not machine.state.exists()


def test_session_stages_nothing_under_a_change_that_still_runs(machine: Machine) -> None:
    machine.put("running-exlb-apply")
    ran = machine.stage()
    assert ran.failed == "start"
    assert "another change runs on the node" in ran.said
    assert not machine.state.exists()


# attachments: what another file names


def test_script_is_in_place_before_keepalived_is_asked_about_the_file_that_names_it(machine: Machine) -> None:
    frame, path = machine.attachment("#!/bin/sh\nexit 0\n")
    assert machine.push(keepalived=keepalived_file("VI", f"script {path}"), more=frame).done
    assert found(path) == Found("#!/bin/sh\nexit 0\n", 0o755, machine.group)
    # Its path is its content: no later generation touches it, and going back needs it.
    assert machine.push().done
    assert machine.rollback(1).done
    assert path.exists()
    assert machine.rollback(0).done


def test_keepalived_file_that_names_a_script_that_is_not_there_is_refused(machine: Machine) -> None:
    ran = machine.stage(keepalived=keepalived_file("VI", "script /nowhere/check.sh"))
    assert ran.failed == "validate"
    assert "/nowhere/check.sh is not there" in ran.said


def test_script_without_the_hash_of_its_content_in_its_name_is_refused(machine: Machine) -> None:
    path = machine.root / "etc/keepalived/check.sh"
    ran = machine.stage(more=machine.file("attachment", "exit 0\n", path, 0o755))
    assert ran.failed == "validate"
    assert f"{path} does not carry the hash of its content" in ran.said
    assert not path.exists()


def test_script_that_cannot_be_written_leaves_nothing_beside_it(machine: Machine) -> None:
    frame, path = machine.attachment("exit 0\n")
    machine.put("fail/restorecon", "restorecon: No space left on device\n")
    ran = machine.stage(more=frame)
    assert ran.failed == "validate"
    assert not path.exists()
    assert untouched(machine)


def test_authorities_of_the_proxy_are_in_place_before_it_is_asked_and_stay_through_a_rollback(machine: Machine) -> None:
    frame, path = machine.attachment("a certificate\n", "haproxy")
    assert machine.push(proxy_file("aa", f"    # ca-file {path}"), more=frame).done
    assert path.read_text() == "a certificate\n"
    again = path.stat().st_ino
    assert machine.push(proxy_file("bb", f"    # ca-file {path}"), more=frame).done
    assert path.stat().st_ino == again, "what is there already, by its content, is not written again"
    path.unlink()
    assert machine.rollback(1).done
    assert path.read_text() == "a certificate\n"


def test_attachment_of_what_never_became_active_goes_with_it(machine: Machine) -> None:
    first, used = machine.attachment("exit 0\n")
    assert machine.push(more=first).done
    second, unused = machine.attachment("exit 1\n")
    # Discarded; staged and then killed, so that another one is staged; staged and then failed.
    assert machine.stage(more=first + second).done
    assert unused.exists()
    assert machine.apply("discard", TOKEN).done
    assert not unused.exists()
    assert machine.stage(more=second).done
    assert machine.stage(more=first).done
    assert not unused.exists()
    machine.put("fail/systemctl-reload-haproxy", "no\n")
    machine.put("fail/systemctl-restart-haproxy", "no\n")
    assert machine.push(proxy_file("bb"), more=first + second).failed
    assert not unused.exists()
    assert used.exists(), "another generation names it"


def test_attachment_that_somebody_has_edited_is_put_right_under_its_name(machine: Machine) -> None:
    frame, path = machine.attachment("exit 0\n")
    assert machine.stage(more=frame).done
    path.write_text("exit 1\n")
    assert machine.stage(more=frame).done
    assert found(path) == Found("exit 0\n", 0o755, machine.group)


# files that are not to be there


def test_file_that_is_not_to_be_there_goes_and_comes_back_with_a_rollback(pushed: Machine) -> None:
    ran = pushed.stage(keepalived=None, more=pushed.absent("keepalived", pushed.keepalived))
    assert ran.done
    assert pushed.activate(2, 1, ("none", "stop")).done
    assert not pushed.keepalived.exists()
    assert pushed.running("keepalived") is None
    assert pushed.generation(2)[pushed.keepalived] == Found(None)
    assert pushed.rollback(1, ("none", "start")).done
    assert pushed.keepalived.read_text() == KEEPALIVED_NEW


def test_file_that_is_not_to_be_there_comes_back_where_the_change_fails(pushed: Machine) -> None:
    assert pushed.stage(proxy_file("bb", "UNSTARTABLE"), None, more=pushed.absent("keepalived", pushed.keepalived)).done
    assert pushed.activate(2, 1, ("reload", "stop")).failed == "reload-proxy"
    assert pushed.active == pushed.generation(1)
    assert pushed.leftovers == []


def test_file_that_is_not_there_and_not_to_be_there_is_no_change(pushed: Machine) -> None:
    nowhere = pushed.root / "etc/keepalived/nothing"
    assert pushed.push(more=pushed.absent("attachment", nowhere)).done
    assert pushed.is_on(2)
    assert not nowhere.exists()


def test_half_of_a_script_that_a_killed_session_left_does_not_stay(machine: Machine) -> None:
    stray = machine.put("etc/keepalived/attached-000000000000.exlb-new", "exit")
    frame, _ = machine.attachment("exit 0\n")
    assert machine.stage(more=frame).done
    assert not stray.exists()


# the files that a unit reads


@pytest.mark.parametrize(
    ("words", "environment", "file", "asked"),
    [
        ("-Ws -f $CONFIG -p $PIDFILE $EXTRAOPTS", 'CONFIG={path} PIDFILE=/x "EXTRAOPTS=-S /x"', None, "-f {file}"),
        ("-Ws -f ${CONFIG} -p /x", "CONFIG={path}", None, "-f {file}"),
        ("-Ws -f $CONFIG -f $CFGDIR -p /x", "CONFIG={path} CFGDIR=/h/conf.d", None, "-f {file} -f /h/conf.d"),
        ("-Ws -f {path}", "", None, "-f {file}"),
        ("-f $CONFIG $EXTRAOPTS", "CONFIG=/a", 'CONFIG="{path}"\n#CONFIG=/no\nEXTRAOPTS="-f /b"\n', "-f {file} -f /b"),
    ],
    ids=["Debian", "braces", "Red Hat", "plain", "EnvironmentFile"],
)  # fmt: skip
def test_proxy_file_is_validated_with_all_that_its_unit_reads(
    machine: Machine, words: str, environment: str, file: str | None, asked: str
) -> None:
    machine.exec_start("haproxy", f"/usr/sbin/haproxy {words.replace('{path}', str(machine.proxy))}")
    machine.put("unit/haproxy.Environment", environment.format(path=machine.proxy))
    if file is not None:
        machine.put("defaults", file.format(path=machine.proxy))
        machine.put("unit/haproxy.EnvironmentFiles", f"{machine.root}/defaults (ignore_errors=yes)")
    assert machine.stage().done
    calls = [line for line in machine.log if line.startswith("haproxy -c")]
    assert calls == [f"haproxy -c {asked.format(file=machine.state / 'staging/files/1')}"]


def test_proxy_unit_that_reads_another_file_is_refused(machine: Machine) -> None:
    machine.put("unit/haproxy.Environment", "CONFIG=/etc/other.cfg")
    ran = machine.stage()
    assert ran.failed == "validate"
    assert f"haproxy.service reads /etc/other.cfg, not {machine.proxy}" in ran.said


def test_proxy_that_has_no_unit_is_refused(machine: Machine) -> None:
    (machine.root / "unit/haproxy.ExecStart").unlink()
    assert f"haproxy.service reads no file, not {machine.proxy}" in machine.stage().said


@pytest.mark.parametrize("words", ["-f /etc/other.conf", "--use-file=/etc/other.conf", "$DAEMON_ARGS"])
def test_keepalived_unit_that_reads_another_file_is_refused(machine: Machine, words: str) -> None:
    machine.exec_start("keepalived", f"/usr/sbin/keepalived -n {words}")
    machine.put("unit/keepalived.Environment", '"DAEMON_ARGS=-D -f /etc/other.conf"')
    ran = machine.stage()
    assert ran.failed == "validate"
    assert f"/etc/other.conf\nthat, and not {machine.keepalived}, is what keepalived.service reads" in ran.said


def test_keepalived_unit_that_names_its_usual_file_is_fine(machine: Machine) -> None:
    machine.exec_start("keepalived", f"/usr/sbin/keepalived -n -f {machine.keepalived}")
    assert machine.stage().done


# activate


def test_first_push_adopts_what_is_there_as_generation_0(machine: Machine) -> None:
    machine.stage()
    ran = machine.activate()
    assert ran.done
    assert ran.steps == STEPS
    assert machine.generation(0) == {
        machine.proxy: Found(OLD, 0o640, os.getgid()),
        machine.keepalived: Found(KEEPALIVED_OLD, 0o644, os.getgid()),
    }
    assert machine.active == machine.generation(1)
    assert machine.active == {
        machine.proxy: Found(NEW, 0o600, machine.group),
        machine.keepalived: Found(KEEPALIVED_NEW, 0o644, machine.group),
    }
    assert (machine.current, machine.kept, machine.leftovers) == (1, [0, 1], [])
    assert (machine.running("haproxy"), machine.running("keepalived")) == (NEW, KEEPALIVED_NEW)
    assert machine.unit_calls == ["reload haproxy.service", "reload keepalived.service"]
    folder = machine.state / "generations/0000"
    assert (folder / "units").read_text() == "haproxy enabled active\nkeepalived enabled active\n"
    assert "what=found on the node" in (folder / "meta").read_text().splitlines()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in machine.state.glob("generations/*/files/*")}
    assert modes == {0o600}


def test_first_push_remembers_what_was_not_there(machine: Machine) -> None:
    machine.keepalived.unlink()
    for name in ("running-keepalived", "enabled-keepalived"):
        (machine.root / name).unlink()
    assert machine.stage().done
    assert machine.activate(actions=("reload", "start")).done
    assert machine.generation(0)[machine.keepalived] == Found(None)
    units = (machine.state / "generations/0000/units").read_text()
    assert units == "haproxy enabled active\nkeepalived disabled inactive\n"
    machine.put("enabled-keepalived")
    assert machine.rollback(0, ("reload", "stop")).done
    assert not machine.keepalived.exists()
    assert machine.running("keepalived") is None
    assert (machine.enabled("haproxy"), machine.enabled("keepalived")) == (True, False)


def test_node_with_no_file_at_all_is_adopted_too(machine: Machine) -> None:
    machine.proxy.unlink()
    machine.keepalived.unlink()
    for unit in ("haproxy", "keepalived"):
        (machine.root / f"running-{unit}").unlink()
    assert machine.stage().done
    assert machine.activate(actions=("start", "start")).done
    assert machine.generation(0) == {machine.proxy: Found(None), machine.keepalived: Found(None)}


def test_hand_edit_is_kept_before_it_is_replaced(pushed: Machine) -> None:
    pushed.write(pushed.proxy, "by hand, without an end", 0o604)
    assert pushed.push(proxy_file("bb")).done
    assert (pushed.current, pushed.kept) == (3, [0, 1, 2, 3])
    assert pushed.generation(2)[pushed.proxy] == Found("by hand, without an end", 0o604, pushed.group)
    assert pushed.rollback(2, ("restart", "reload")).done
    assert found(pushed.proxy) == Found("by hand, without an end", 0o604, pushed.group)
    assert pushed.current == 2


def test_change_of_the_mode_alone_is_a_hand_edit(pushed: Machine) -> None:
    pushed.proxy.chmod(0o666)
    assert pushed.push(proxy_file("bb")).done
    assert pushed.generation(2)[pushed.proxy].mode == 0o666


def test_hand_edit_after_exlb_looked_is_not_lost(pushed: Machine) -> None:
    assert pushed.stage(proxy_file("bb")).done
    pushed.proxy.write_text("by hand\n")
    ran = pushed.activate(2, 1)
    assert ran.failed == "snapshot"
    assert "the active files have changed since exlb looked, and 0001 is kept already" in ran.said
    assert pushed.proxy.read_text() == "by hand\n"
    assert pushed.generation(1)[pushed.proxy].text == NEW


def test_hand_edit_in_the_last_moment_before_the_swap_is_not_lost(pushed: Machine) -> None:
    assert pushed.stage(proxy_file("bb")).done
    watched = Machine(pushed.root, watched=True)
    # What `echo` writes is the file that the old name and the one beside it share.
    edits = f'case "$me $*" in "cp "*" {pushed.proxy}.exlb-new") echo "# by hand" >>{pushed.proxy} ;; esac\n'
    watched.environment["HOOK"] = str(watched.put("hook", edits))
    ran = watched.activate(2, 1)
    assert ran.failed == "compare"
    assert "the active files have changed since exlb kept them" in ran.said
    assert pushed.proxy.read_text() == NEW + "# by hand\n"
    assert (pushed.current, pushed.kept, pushed.leftovers) == (1, [0, 1], [])
    assert pushed.push(proxy_file("bb")).done
    assert pushed.generation(2)[pushed.proxy].text == NEW + "# by hand\n"


def test_current_generation_that_was_deleted_does_not_stop_a_push(pushed: Machine) -> None:
    shutil.rmtree(pushed.state / "generations/0001")
    assert pushed.stage(proxy_file("bb")).done
    assert pushed.activate(3, 2).done
    assert pushed.generation(2)[pushed.proxy].text == NEW


def test_number_of_a_change_that_never_became_active_is_used_again(pushed: Machine) -> None:
    shutil.copytree(pushed.state / "generations/0001", pushed.state / "generations/0002")
    (pushed.state / "generations/0002/was-active").unlink()
    assert pushed.push(proxy_file("bb")).done
    assert (pushed.current, pushed.kept) == (2, [0, 1, 2])
    assert pushed.proxy.read_text() == proxy_file("bb")


def test_number_of_another_generation_is_refused(pushed: Machine) -> None:
    assert pushed.stage(proxy_file("bb")).done
    ran = pushed.activate(0, 1)
    assert ran.failed == "record"
    assert "0000 is another generation, which this node keeps" in ran.said
    assert (pushed.kept, pushed.leftovers) == ([0, 1], [])
    assert pushed.generation(0)[pushed.proxy].text == OLD
    assert pushed.is_on(1)


def test_push_writes_a_sibling_and_syncs_it_before_the_rename_and_the_directory_after(machine: Machine) -> None:
    watched = Machine(machine.root, watched=True)
    watched.environment["HOOK"] = str(
        watched.put("hook", 'case $me in sync | mv | ln | rm) echo "$me $*" >>"$ROOT/log" ;; esac')
    )
    assert watched.stage(keepalived=None).done
    machine.put("log")
    assert watched.activate().done
    path = str(machine.proxy)
    order = [
        f"mv -T {machine.state}/generations/.found {machine.state}/generations/0000",
        f"mv -fT {machine.state}/current.new {machine.state}/current",
        f"mv -T {machine.state}/staging {machine.state}/generations/0001",
        f"mv -f {machine.state}/intent.new {machine.state}/intent",
        f"ln {path} {path}.exlb-old",
        f"sync {path}.exlb-new",
        f"mv -f {path}.exlb-new {path}",
        f"sync {machine.proxy.parent}",
        f"rm -f {machine.state}/intent {machine.state}/intent.new",
    ]
    places = [watched.log.index(line) for line in order]
    assert places == sorted(places)
    for folder, place in (("generations/.found", places[0]), ("staging", places[2])):
        synced = [line for line in watched.log[:place] if line.startswith(f"sync {machine.state}/{folder}")]
        assert any(f" {machine.state}/{folder}/files/1" in line and f"{folder}/manifest " in line for line in synced)


def test_file_that_is_the_same_already_is_not_touched(pushed: Machine) -> None:
    before = pushed.keepalived.stat()
    assert pushed.stage(proxy_file("bb")).done
    assert pushed.activate(2, 1, ("reload", "none")).done
    after = pushed.keepalived.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )
    assert not any("keepalived" in call for call in pushed.unit_calls[2:])


def test_push_may_start_a_unit(machine: Machine) -> None:
    (machine.root / "running-haproxy").unlink()
    assert machine.stage().done
    machine.put("log")
    assert machine.activate(actions=("start", "restart")).done
    assert machine.unit_calls == ["start haproxy.service", "restart keepalived.service"]
    assert machine.log.index("systemctl reset-failed haproxy.service") < machine.log.index(
        "systemctl start haproxy.service"
    )


def test_push_may_leave_keepalived_stopped(pushed: Machine) -> None:
    assert pushed.stage(keepalived=keepalived_file("OTHER")).done
    ran = pushed.activate(2, 1, ("none", "stop"))
    assert ran.done
    assert "gate-keepalived" not in ran.steps
    assert pushed.running("keepalived") is None


def test_activate_without_anything_staged_fails(machine: Machine) -> None:
    ran = machine.activate()
    assert ran.failed == "start"
    assert "nothing is staged and validated" in ran.said
    assert machine.stage("BROKEN\n").failed == "validate"
    assert "nothing is staged and validated" in machine.activate().said
    assert untouched(machine)


def test_activate_on_top_of_an_unfinished_change_is_refused(pushed: Machine) -> None:
    assert pushed.stage(proxy_file("bb")).done
    (pushed.state / "intent").write_text("0001 0000\n")
    ran = pushed.activate(2, 1)
    assert ran.failed == "start"
    assert "an earlier change has not ended: exlb recover" in ran.said
    assert pushed.is_on(1)


def test_target_that_became_a_link_since_it_was_staged_is_refused(machine: Machine) -> None:
    assert machine.stage().done
    machine.proxy.rename(machine.root / "etc/real.cfg")
    machine.proxy.symlink_to(machine.root / "etc/real.cfg")
    assert machine.activate().failed == "target"
    assert (machine.root / "etc/real.cfg").read_text() == OLD


def test_file_that_became_invalid_since_it_was_staged_is_refused(machine: Machine) -> None:
    assert machine.stage().done
    machine.exec_start("keepalived", "/usr/sbin/keepalived -f /etc/other.conf")
    assert machine.activate().failed == "validate"
    assert "nothing is staged and validated" in machine.activate().said
    assert untouched(machine)


# ports


def sockets(machine: Machine, port: int, where: str, pid: int = 4711, name: str = "nginx") -> None:
    users = f'users:(("{name}",pid={pid},fd=6),("{name}",pid={pid + 1},fd=6))'
    machine.put(f"sockets/{port}", f"LISTEN 0 511 {where}:{port} 0.0.0.0:* {users}\n")


@pytest.mark.parametrize("where", ["0.0.0.0", "*", "198.51.100.11", "127.0.0.1"])
def test_port_that_a_foreign_process_has_is_refused_before_anything_is_touched(machine: Machine, where: str) -> None:
    assert machine.stage().done
    sockets(machine, 8443, where)
    ran = machine.activate()
    assert ran.failed == "ports"
    assert "port 8443 is taken by nginx (process 4711)" in ran.said
    assert untouched(machine)
    assert machine.kept == []


def test_port_that_an_unknown_process_has_is_refused(machine: Machine) -> None:
    assert machine.stage().done
    machine.put("sockets/8443", "LISTEN 0 511 0.0.0.0:8443 0.0.0.0:*\n")
    assert "port 8443 is taken by another process\n" in machine.activate().said


@pytest.mark.parametrize("where", ["198.51.100.11", "[::]", "[::1]"])
def test_port_on_an_address_that_is_not_ours_is_free(machine: Machine, where: str) -> None:
    assert machine.stage().done
    sockets(machine, 9000, where)
    sockets(machine, 8443, "[::1]")
    assert machine.activate().done


@pytest.mark.parametrize(
    ("ours", "theirs", "taken"),
    [
        ("0.0.0.0", "*", True),
        ("0.0.0.0", "0.0.0.0", True),
        ("0.0.0.0", "198.51.100.11", True),
        ("0.0.0.0", "127.0.0.53%lo", True),
        ("0.0.0.0", "[::]", False),
        ("0.0.0.0", "[2001:db8::1]", False),
        ("::", "*", True),
        ("::", "[::]", True),
        ("::", "[2001:db8::1]", True),
        ("::", "[fe80::1]%eth0", True),
        ("::", "0.0.0.0", False),
        ("::", "198.51.100.11", False),
        ("198.51.100.11", "*", True),
        ("198.51.100.11", "0.0.0.0", True),
        ("198.51.100.11", "198.51.100.11", True),
        ("198.51.100.11", "198.51.100.1", False),
        ("198.51.100.11", "[::]", False),
        ("2001:db8::1", "*", True),
        ("2001:db8::1", "[::]", True),
        ("2001:db8::1", "[2001:db8::1]", True),
        ("2001:db8::1", "[2001:db8::11]", False),
        ("2001:db8::1", "0.0.0.0", False),
    ],
)
def test_two_programs_have_one_port_where_their_addresses_do_not_overlap(
    machine: Machine, ours: str, theirs: str, taken: bool
) -> None:
    assert machine.apply("stage", TOKEN, stdin=machine.frames(binds=f"bind {ours} 8443\n")).done
    sockets(machine, 8443, theirs)
    assert machine.activate().failed == ("ports" if taken else None)


def test_port_that_our_own_proxy_has_is_free(machine: Machine) -> None:
    assert machine.stage().done
    sockets(machine, 8443, "0.0.0.0", 12, "haproxy")
    (machine.root / "proc/12").mkdir()
    machine.put("proc/12/cgroup", "0::/system.slice/haproxy.service\n")
    assert machine.activate().done


def test_port_that_a_proxy_of_somebody_else_has_is_taken(machine: Machine) -> None:
    assert machine.stage().done
    sockets(machine, 8443, "0.0.0.0", 12, "haproxy")
    (machine.root / "proc/12").mkdir()
    machine.put("proc/12/cgroup", "0::/system.slice/docker-0815.scope\n")
    assert "port 8443 is taken by haproxy (process 12)" in machine.activate().said


# failures before and in the swap


def test_file_that_cannot_be_written_leaves_nothing_behind(machine: Machine) -> None:
    assert machine.stage().done
    machine.put("fail/restorecon", "restorecon: could not set context\n")
    ran = machine.activate()
    assert ran.failed == "write"
    assert "restorecon: could not set context\nthe new files cannot be written" in ran.said
    assert untouched(machine)
    assert (machine.current, machine.kept, machine.leftovers) == (0, [0], [])
    assert machine.unit_calls == []
    assert machine.journal[-1].endswith("0000 -> 0001 eva bastion push-config: failed write")


def watched_failing(machine: Machine, condition: str) -> Machine:
    """Return the same machine with calls that fail where a shell condition on $me and $* holds."""
    watched = Machine(machine.root, watched=True)
    hook = f'if {condition}; then echo "$me: No space left on device" >&2; exit 1; fi\n'
    watched.environment["HOOK"] = str(machine.put("hook", hook))
    return watched


def test_swap_that_fails_half_way_puts_every_file_back(machine: Machine) -> None:
    assert machine.stage().done
    ran = watched_failing(
        machine, f'[ "$me $*" = "mv -f {machine.keepalived}.exlb-new {machine.keepalived}" ]'
    ).activate(noisy=True)
    assert ran.failed == "swap"
    assert ran.steps[-2:] == ["swap", "restore"]
    assert untouched(machine)
    assert machine.is_on(0)
    assert (machine.kept, machine.leftovers, machine.unit_calls) == ([0], [], [])


def test_commit_that_fails_puts_every_file_back_and_the_units_on_them(machine: Machine) -> None:
    assert machine.stage().done
    ran = watched_failing(machine, f'[ "$me $*" = "touch {machine.state}/generations/0001/was-active" ]').activate(
        noisy=True
    )
    assert ran.failed == "commit"
    assert untouched(machine)
    assert (machine.current, machine.kept, machine.leftovers) == (0, [0], [])
    assert (machine.running("haproxy"), machine.running("keepalived")) == (OLD, KEEPALIVED_OLD)


def test_restore_that_fails_says_so_and_leaves_the_rest_to_recover(machine: Machine) -> None:
    assert machine.stage(proxy_file("bb", "UNSTARTABLE")).done
    ran = watched_failing(machine, '[ "$me" = mv ] && case $* in *.exlb-old*) true ;; *) false ;; esac').activate(
        noisy=True
    )
    assert (ran.status, ran.failed, ran.steps[-1]) == (1, None, "restore")
    assert "the old files cannot be put back; exlb recover tries again" in ran.said
    assert machine.journal[-1].endswith("failed reload-proxy, not restored")
    assert machine.recover().done
    assert untouched(machine)
    assert machine.leftovers == []


# units and gates


def restored(machine: Machine, ran: Ran, step: str) -> None:
    """Hold that a push failed at a step, and that all is as after the push before it."""
    assert ran.failed == step, ran
    assert "restore" in ran.steps
    assert machine.is_on(1)
    assert (machine.current, machine.kept, machine.leftovers) == (1, [0, 1], [])
    assert (machine.running("haproxy"), machine.running("keepalived")) == (NEW, KEEPALIVED_NEW)
    assert machine.journal[-1].endswith(f"0001 -> 0002 eva bastion push-config: failed {step}, restored")


@pytest.mark.parametrize(
    ("proxy", "keepalived", "step"),
    [
        (proxy_file("bb", "UNSTARTABLE"), KEEPALIVED_NEW, "reload-proxy"),
        (proxy_file("bb", "DEADLY"), KEEPALIVED_NEW, "gate-proxy"),
        (NEW, keepalived_file("VI", "UNSTARTABLE"), "reload-keepalived"),
        (NEW, keepalived_file("VI", "DEADLY"), "gate-keepalived"),
        (proxy_file("bb"), keepalived_file("VI", "DEADLY"), "gate-keepalived"),
    ],
)
def test_unit_that_does_not_take_its_file_gets_the_old_one_back(
    pushed: Machine, proxy: str, keepalived: str, step: str
) -> None:
    ran = pushed.push(proxy, keepalived)
    restored(pushed, ran, step)
    unit = "haproxy" if step.endswith("proxy") else "keepalived"
    assert f"what {unit}.service said last" in ran.said


def test_reload_that_lies_does_not_pass_the_gate(pushed: Machine) -> None:
    pushed.put("lie", NEW)
    ran = pushed.push(proxy_file("bb"))
    restored(pushed, ran, "gate-proxy")
    assert f"after {LIMIT_SECONDS} s: haproxy runs 00112233aabbccdd, it should run bb" in ran.said


def test_gate_waits_until_the_proxy_runs_the_new_configuration(pushed: Machine) -> None:
    pushed.put("lie", NEW)
    pushed.put("on-sleep", 'rm -f "$ROOT/lie"')
    assert pushed.push(proxy_file("bb")).done


@pytest.mark.parametrize("check", ["INI", "* INI"])
def test_server_that_was_never_checked_does_not_pass_the_gate(pushed: Machine, check: str) -> None:
    pushed.put("state/c", f"UP {check}\n")
    ran = pushed.push(proxy_file("bb", servers="abc"))
    restored(pushed, ran, "gate-proxy")
    assert "some servers have not been checked yet" in ran.said


def test_gate_waits_until_every_server_was_checked(pushed: Machine) -> None:
    pushed.put("state/c", "UP * INI\n")
    pushed.put("on-sleep", 'rm -f "$ROOT/state/c"')
    assert pushed.push(proxy_file("bb", servers="abc")).done


def test_server_that_was_up_and_is_not_although_it_answers_is_the_fault_of_the_push(pushed: Machine) -> None:
    pushed.put("state/b", "UP L7OK\n")
    staged = pushed.stage(proxy_file("bb"))
    assert staged.done
    watched = Machine(pushed.root, watched=True)
    on_reload = 'if [ "$me $*" = "systemctl reload haproxy.service" ]; then echo "DOWN L7STS" >"$ROOT/state/b"; fi\n'
    watched.environment["HOOK"] = str(pushed.put("hook", on_reload))
    ran = watched.activate(2, 1)
    assert ran.failed == "gate-proxy"
    assert "kube/b was up before, and is not now, although 198.51.100.2:6443 answers with status 200" in ran.said
    assert pushed.is_on(1)


def test_server_that_died_by_itself_during_the_push_is_a_warning(pushed: Machine) -> None:
    assert pushed.stage(proxy_file("bb")).done
    pushed.put("answers/198.51.100.2:6443", "000")
    watched = Machine(pushed.root, watched=True)
    on_reload = 'if [ "$me $*" = "systemctl reload haproxy.service" ]; then echo "DOWN L4CON" >"$ROOT/state/b"; fi\n'
    watched.environment["HOOK"] = str(pushed.put("hook", on_reload))
    ran = watched.activate(2, 1)
    assert ran.done
    warnings = [line for line in ran.lines if line.startswith("warning: ")]
    assert warnings == ["warning: kube/b is down: 198.51.100.2:6443 does not answer this node well (status 000)"]


def test_server_that_was_down_before_or_is_not_configured_any_more_is_no_concern_of_the_gate(pushed: Machine) -> None:
    pushed.put("state/b", "DOWN L4CON\n")
    assert pushed.push(proxy_file("bb", servers="abc")).done
    assert pushed.push(proxy_file("cc", servers="ab")).done


def test_proxy_without_any_server_up_where_there_were_some_is_taken_back(pushed: Machine) -> None:
    for name in "ab":
        pushed.put(f"state/{name}", "DOWN L4CON\n")
        pushed.put(f"answers/198.51.100.{1 + 'ab'.index(name)}:6443", "000")
    (pushed.root / "state/a").rename(pushed.root / "a")
    (pushed.root / "state/b").rename(pushed.root / "b")
    assert pushed.stage(proxy_file("bb")).done
    watched = Machine(pushed.root, watched=True)
    hook = 'if [ "$me $*" = "systemctl reload haproxy.service" ]; then mv "$ROOT/a" "$ROOT/b" "$ROOT/state/"; fi\n'
    watched.environment["HOOK"] = str(pushed.put("hook", hook.replace("mv ", "/bin/mv ")))
    ran = watched.activate(2, 1, ("reload", "none"))
    assert ran.failed == "gate-proxy"
    assert "no server is up, and before there were: kube/a kube/b" in ran.said
    assert "haproxy does not serve as before" in ran.said
    assert pushed.is_on(1)


def test_proxy_whose_servers_were_all_down_before_is_not_blamed_for_it(pushed: Machine) -> None:
    for name in "ab":
        pushed.put(f"state/{name}", "DOWN L4CON\n")
    pushed.put("answers/198.51.100.11:8443", "000")
    assert pushed.push(proxy_file("bb")).done


def test_own_port_that_does_not_answer_does_not_pass_the_gate(pushed: Machine) -> None:
    assert pushed.stage(proxy_file("bb")).done
    pushed.put("answers/198.51.100.11:8443", "000")
    ran = pushed.activate(2, 1)
    restored(pushed, ran, "gate-proxy")
    assert f"{URL} is not answered" in ran.said


@pytest.mark.parametrize(("state", "failed"), [("DOWN L4CON", None), ("UP L7OK", "gate-proxy")])
def test_own_port_need_not_answer_while_another_listener_is_up_and_no_apiserver(
    pushed: Machine, state: str, failed: str | None
) -> None:
    pushed.put("backend/a", "kube-master\n")
    pushed.put("backend/b", "ingress-node\n")
    pushed.put("state/a", f"{state}\n")
    pushed.put("answers/198.51.100.11:8443", "000")
    assert pushed.push(proxy_file("bb", servers="ab")).failed == failed


def test_own_port_that_refuses_a_client_without_certificate_answers_all_the_same(pushed: Machine) -> None:
    pushed.put("answers/198.51.100.11:8443", "403")
    assert pushed.push(proxy_file("bb")).done


def test_failed_gate_restores_the_absence_of_a_file_and_stops_its_unit(machine: Machine) -> None:
    machine.keepalived.unlink()
    (machine.root / "running-keepalived").unlink()
    assert machine.stage(keepalived=keepalived_file("VI", "DEADLY")).done
    assert machine.activate(actions=("reload", "start")).failed == "gate-keepalived"
    assert not machine.keepalived.exists()
    assert machine.unit_calls[-1] == "stop keepalived.service"
    assert machine.running("haproxy") == OLD
    assert machine.leftovers == []


def test_unit_that_did_not_run_before_a_failed_start_does_not_run_after_it(pushed: Machine) -> None:
    (pushed.root / "running-keepalived").unlink()
    assert pushed.stage(keepalived=keepalived_file("VI", "DEADLY")).done
    assert pushed.activate(2, 1, ("none", "start")).failed == "gate-keepalived"
    assert pushed.running("keepalived") is None


def test_node_without_selinux_needs_no_restorecon(machine: Machine, tmp_path: Path) -> None:
    machine.bin = Path(shutil.copytree(machine.bin, tmp_path / "bin", symlinks=True))
    (machine.bin / "restorecon").unlink()
    assert machine.push().done


def test_servers_known_to_be_down_are_carried_over_a_reload_and_not_to_the_next_start(pushed: Machine) -> None:
    pushed.put("state/b", "DOWN L4CON\n")
    assert pushed.stage(proxy_file("bb")).done
    watched = Machine(pushed.root, watched=True)
    hook = 'if [ "$me $*" = "systemctl reload haproxy.service" ]; then cat "$ROOT/run/memory" >"$ROOT/loaded"; fi\n'
    watched.environment["HOOK"] = str(pushed.put("hook", hook.replace("cat", "/bin/cat")))
    assert watched.activate(2, 1).done
    rows = [line.split() for line in (pushed.root / "loaded").read_text().splitlines() if line.startswith("2 ")]
    assert [(row[3], row[4]) for row in rows] == [("b", "198.51.100.2")]
    assert (pushed.root / "run/memory").read_text() == "1\n"
    assert pushed.current == 2


def on_ipv6(text: str) -> str:
    """Return a configuration with its servers on IPv6 addresses."""
    return re.sub(r"198\.51\.100\.(\d+):", r"[2001:db8::\1]:", text)


def test_servers_on_ipv6_addresses_are_carried_over_a_reload_too(pushed: Machine) -> None:
    assert pushed.push(on_ipv6(NEW)).done
    pushed.put("state/b", "DOWN L4CON\n")
    assert pushed.stage(on_ipv6(proxy_file("bb"))).done
    watched = Machine(pushed.root, watched=True)
    hook = 'if [ "$me $*" = "systemctl reload haproxy.service" ]; then cat "$ROOT/run/memory" >"$ROOT/loaded"; fi\n'
    watched.environment["HOOK"] = str(pushed.put("hook", hook.replace("cat", "/bin/cat")))
    assert watched.activate(3, 2).done
    rows = [line.split() for line in (pushed.root / "loaded").read_text().splitlines() if line.startswith("2 ")]
    assert [(row[3], row[4]) for row in rows] == [("b", "2001:db8::2")]


def test_server_on_an_ipv6_address_that_is_lost_although_it_answers_is_the_fault_of_the_push(pushed: Machine) -> None:
    assert pushed.push(on_ipv6(NEW)).done
    assert pushed.stage(on_ipv6(proxy_file("bb"))).done
    watched = Machine(pushed.root, watched=True)
    on_reload = 'if [ "$me $*" = "systemctl reload haproxy.service" ]; then echo "DOWN L7STS" >"$ROOT/state/b"; fi\n'
    watched.environment["HOOK"] = str(pushed.put("hook", on_reload))
    ran = watched.activate(3, 2)
    assert ran.failed == "gate-proxy"
    assert "kube/b was up before, and is not now, although [2001:db8::2]:6443 answers with status 200" in ran.said


KEEPS = "    # exlb-keeps-drains: what is drained stays so"


@pytest.mark.parametrize(
    ("flags", "new", "remembered"),
    [
        ("8", proxy_file("bb", KEEPS), ["a", "b"]),
        ("1", proxy_file("bb", KEEPS), ["a", "b"]),
        ("9", proxy_file("bb", KEEPS), ["a", "b"]),
        ("8", proxy_file("bb"), ["b"]),
        ("0", proxy_file("bb", KEEPS), ["b"]),
        ("4", proxy_file("bb", KEEPS), ["b"]),
        ("32", proxy_file("bb", KEEPS), ["b"]),
        ("8", proxy_file("bb", KEEPS, "    option httpchk GET /livez"), ["a"]),
        ("8", proxy_file("bb", KEEPS).replace("198.51.100.1:6443", "198.51.100.1:6444"), ["b"]),
    ],
    ids=[
        "drained",
        "disabled",
        "both",
        "drained, and the file does not ask for it",
        "neither",
        "disabled by its line",
        "without an address",
        "drained, and another health check",
        "drained, and another line",
    ],
)
def test_servers_that_somebody_has_drained_or_disabled_stay_so_where_the_file_says_it(
    pushed: Machine, flags: str, new: str, remembered: list[str]
) -> None:
    pushed.put("admin/a", f"{flags}\n")
    pushed.put("state/b", "DOWN L4CON\n")
    assert pushed.stage(new).done
    watched = Machine(pushed.root, watched=True)
    hook = 'if [ "$me $*" = "systemctl reload haproxy.service" ]; then cat "$ROOT/run/memory" >"$ROOT/loaded"; fi\n'
    watched.environment["HOOK"] = str(pushed.put("hook", hook.replace("cat", "/bin/cat")))
    assert watched.activate(2, 1).done
    rows = [line.split() for line in (pushed.root / "loaded").read_text().splitlines() if line.startswith("2 ")]
    assert [row[3] for row in rows] == remembered


# the journal, and what is kept


def test_journal_tells_who_changed_what_and_how_it_ended_and_no_content(machine: Machine) -> None:
    secret = "auth_pass s3cr3t"
    assert machine.push(proxy_file("aa", "stats auth a:s3cr3t"), keepalived_file("VI", secret)).done
    ran = machine.push(proxy_file("bb", "UNSTARTABLE", "stats auth a:s3cr3t"), keepalived_file("VI", secret))
    assert ran.failed == "reload-proxy"
    machine.put(
        "run/exlb/holder",
        f"token={TOKEN}\nwho=adam\nfrom=elsewhere\nwhat=rollback --to 0\nsince=2026-11-21T05:00:00Z\n",
    )
    back = machine.rollback(0)
    assert back.done
    assert [line.partition(" ")[2] for line in machine.journal] == [
        "0000 -> 0001 eva bastion push-config: done",
        "0001 -> 0002 eva bastion push-config: failed reload-proxy, restored",
        "0001 -> 0000 adam elsewhere rollback --to 0: done",
    ]
    told = "\n".join([*machine.journal, *ran.lines, *back.lines, *machine.log])
    assert "s3cr3t" not in told


def test_only_the_newest_generations_stay_and_the_first_and_the_active_one(pushed: Machine) -> None:
    filler = pushed.state / "generations/0001"
    for number in range(2, 14):
        shutil.copytree(filler, pushed.state / f"generations/{number:04d}")
    (pushed.state / "generations/0013/was-active").unlink()
    assert pushed.stage(proxy_file("bb")).done
    assert pushed.activate(14, 1).done
    assert pushed.kept == [0, *range(4, 13), 14]
    assert not (pushed.state / "generations/0013").exists()
    assert (pushed.state / "pruned").read_text() == "3\n".zfill(5)
    # The active one is older than the newest ten then, and stays.
    assert pushed.rollback(4).done
    for number in range(15, 26):
        shutil.copytree(pushed.state / "generations/0014", pushed.state / f"generations/{number:04d}")
    assert pushed.rollback(4).done
    assert pushed.kept == [0, 4, *range(16, 26)]
    assert (pushed.state / "pruned").read_text() == "0015\n"


def test_script_goes_with_the_last_generation_that_names_it(machine: Machine) -> None:
    first, gone = machine.attachment("exit 0\n")
    assert machine.push(keepalived=keepalived_file("VI", f"script {gone}"), more=first).done
    second, kept = machine.attachment("exit 1\n")
    for letter in "abcdefghijk":
        text = keepalived_file(letter, f"script {kept}")
        assert machine.push(keepalived=text, more=second).done
        assert kept.exists()
    assert 1 not in machine.kept
    assert 3 in machine.kept
    assert not gone.exists()


# drop-ins, kernel settings, and other files of the system

DROP_IN = "[Service]\nRestart=on-failure\n"
SYSCTL = "# Written by exlb\nnet.ipv4.ip_nonlocal_bind = 1\nnet.unix.max_dgram_qlen = 512\n"


@pytest.fixture
def host(pushed: Machine) -> Machine:
    """A node after a first push, with a kernel; its generation 1 names no file of the system."""
    pushed.places += (pushed.drop_in, pushed.sysctl)
    pushed.put("sys/net/ipv4/ip_nonlocal_bind", "0\n")
    pushed.put("sys/net/unix/max_dgram_qlen", "10\n")
    return pushed


def system_frames(machine: Machine, drop_in: str = DROP_IN, sysctl: str = SYSCTL) -> str:
    """Return both files as stage reads them; "" is one that is not to be there."""
    wanted = (("drop-in", machine.drop_in, drop_in), ("sysctl", machine.sysctl, sysctl))
    return "".join(machine.file(kind, text, path) if text else f"absent {kind} {path}\n" for kind, path, text in wanted)


def kernel(machine: Machine) -> list[str]:
    names = ("ipv4/ip_nonlocal_bind", "unix/max_dgram_qlen")
    return [(machine.root / "sys/net" / name).read_text() for name in names]


def test_files_of_the_system_are_taken_in_before_any_unit_changes(host: Machine) -> None:
    ran = host.push(proxy_file("bb"), more=system_frames(host))
    assert ran.done
    assert ran.steps == STEPS
    assert found(host.drop_in) == Found(DROP_IN, 0o644, host.group)
    assert stat.S_IMODE(host.drop_in.parent.stat().st_mode) == 0o755
    assert kernel(host) == ["1\n", "512\n"]
    assert host.unit_calls == ["daemon-reload", "reload haproxy.service", "reload keepalived.service"]


def test_files_of_the_system_that_are_the_same_are_not_taken_in_again(host: Machine) -> None:
    assert host.push(more=system_frames(host)).done
    host.put("sys/net/ipv4/ip_nonlocal_bind", "0\n")
    assert host.push(proxy_file("bb"), more=system_frames(host)).done
    assert "daemon-reload" not in host.unit_calls
    assert kernel(host) == ["0\n", "512\n"]


def test_each_kind_of_file_is_taken_in_for_itself(host: Machine) -> None:
    assert host.push(more=system_frames(host)).done
    assert host.push(more=system_frames(host, sysctl="")).done
    assert "daemon-reload" not in host.unit_calls
    assert not host.sysctl.exists()
    assert host.sysctl.parent.is_dir()
    assert kernel(host) == ["1\n", "512\n"]  # what a file has set stays until the next boot
    assert host.push(more=system_frames(host, drop_in="", sysctl="")).done
    assert "daemon-reload" in host.unit_calls
    assert not host.drop_in.parent.exists()
    assert host.drop_in.parent.parent.is_dir()


def test_folder_with_drop_ins_of_others_stays(host: Machine) -> None:
    assert host.push(more=system_frames(host)).done
    other = host.drop_in.with_name("local.conf")
    other.write_text("[Unit]\n")
    assert host.push(more=system_frames(host, drop_in="")).done
    assert not host.drop_in.exists()
    assert other.exists()


def test_folder_that_is_not_there_is_no_fault_where_no_file_is_wanted_in_it(host: Machine) -> None:
    (host.root / "etc/sysctl.d").rmdir()
    assert host.push(more=system_frames(host, drop_in="", sysctl="")).done
    assert host.stage(more=system_frames(host)).failed == "target"
    assert not host.drop_in.parent.exists()


@pytest.mark.parametrize(("number", "left"), [(1, False), (0, False), (2, True)])
def test_rollback_brings_the_system_back_even_to_a_generation_from_before_its_files(
    host: Machine, number: int, *, left: bool
) -> None:
    assert host.push(more=system_frames(host)).done
    assert host.push(proxy_file("cc"), more=system_frames(host, "[Unit]\n", SYSCTL)).done
    assert host.rollback(number).done
    assert host.current == number
    assert host.is_on(number)
    assert found(host.drop_in).text == (DROP_IN if left else None)
    assert host.sysctl.exists() == left
    assert host.drop_in.parent.exists() == left
    assert host.rollback(3).done
    assert found(host.drop_in).text == "[Unit]\n"


def test_file_that_somebody_else_had_in_that_place_comes_back_with_the_generations_of_before(host: Machine) -> None:
    host.drop_in.parent.mkdir()
    host.write(host.drop_in, "# theirs\n", 0o640)
    assert host.push(more=system_frames(host)).done
    assert [host.generation(number)[host.drop_in].text for number in (0, 1, 2)] == ["# theirs\n"] * 2 + [DROP_IN]
    assert host.rollback(0).done
    assert found(host.drop_in) == Found("# theirs\n", 0o640, os.getgid())


def test_kernel_setting_that_the_proxy_cannot_bind_without_takes_the_change_back(host: Machine) -> None:
    before = host.active
    (host.root / "sys/net/ipv4/ip_nonlocal_bind").unlink()
    (host.root / "sys/net/ipv4").rmdir()
    ran = host.push(proxy_file("bb"), more=system_frames(host))
    assert ran.failed == "system"
    assert "net.ipv4.ip_nonlocal_bind = 1: " in ran.said
    assert host.active == before
    assert host.current == 1
    assert host.unit_calls == ["daemon-reload", "daemon-reload"]  # no unit was touched
    assert host.leftovers == []
    assert not host.drop_in.parent.exists()


def test_queue_that_cannot_be_made_longer_is_worth_a_warning(host: Machine) -> None:
    (host.root / "sys/net/unix/max_dgram_qlen").unlink()
    (host.root / "sys/net/unix").rmdir()
    ran = host.push(proxy_file("bb"), more=system_frames(host))
    assert ran.done
    warning = next(line for line in ran.lines if line.startswith("warning: "))
    assert warning.startswith("warning: net.unix.max_dgram_qlen = 512: ")
    assert kernel_value(host) == "1\n"


def kernel_value(machine: Machine) -> str:
    return (machine.root / "sys/net/ipv4/ip_nonlocal_bind").read_text()


def test_systemd_that_does_not_take_the_drop_in_gets_the_old_one_back(host: Machine) -> None:
    before = host.active
    host.put("fail/systemctl-daemon-reload", "Failed to reload daemon: Connection timed out\n")
    ran = host.push(proxy_file("bb"), more=system_frames(host))
    assert ran.failed == "system"
    assert "Failed to reload daemon: Connection timed out" in ran.said
    assert "the old settings of the system are not taken in" in ran.said
    assert host.active == before
    assert host.is_on(1)


def test_failure_of_a_unit_takes_the_drop_in_back_as_well(host: Machine) -> None:
    ran = host.push(proxy_file("bb", "UNSTARTABLE"), more=system_frames(host))
    assert ran.failed == "reload-proxy"
    assert not host.drop_in.parent.exists()
    assert not host.sysctl.exists()
    assert host.unit_calls.count("daemon-reload") == 2
    assert host.leftovers == []


def test_recovery_takes_in_what_it_puts_back(host: Machine) -> None:
    assert host.push(more=system_frames(host)).done
    (host.state / "intent").write_text("0002 0001 reload\n")
    (host.state / "current").unlink()
    (host.state / "current").symlink_to("generations/0001")
    host.put("log")
    ran = host.recover()
    assert ran.done
    assert ran.steps[:3] == ["restore", "system", "proxy"]
    assert "daemon-reload" in host.unit_calls
    assert not host.drop_in.parent.exists()
    assert host.is_on(1)


def test_recovery_onwards_sets_what_the_new_file_says(host: Machine) -> None:
    assert host.push(more=system_frames(host)).done
    (host.state / "intent").write_text("0002 0001 reload\n")
    host.put("sys/net/ipv4/ip_nonlocal_bind", "0\n")
    assert host.recover().done
    assert kernel_value(host) == "1\n"
    assert found(host.drop_in).text == DROP_IN


def test_recovery_that_cannot_take_the_system_in_goes_on_and_says_so(host: Machine) -> None:
    assert host.push(more=system_frames(host)).done
    (host.state / "intent").write_text("0002 0001 reload\n")
    host.put("fail/systemctl-daemon-reload", "Failed to reload daemon\n")
    ran = host.recover()
    assert ran.failed == "system"
    assert ran.steps == ["restore", "system", "proxy", "keepalived"]
    assert not (host.state / "intent").exists()


# back to a generation that is kept


def test_rollback_makes_an_older_number_the_active_one_byte_for_byte_and_keeps_the_later_ones(pushed: Machine) -> None:
    assert pushed.push(proxy_file("bb"), keepalived_file("B")).done
    assert pushed.push(proxy_file("cc"), keepalived_file("C")).done
    wanted = pushed.generation(1)
    assert pushed.rollback(1).done
    assert (pushed.active, pushed.current, pushed.kept) == (wanted, 1, [0, 1, 2, 3])
    assert pushed.running("haproxy") == NEW
    assert pushed.rollback(3).done
    assert (pushed.active, pushed.current) == (pushed.generation(3), 3)
    assert pushed.push(proxy_file("dd")).done
    assert (pushed.current, pushed.kept) == (4, [0, 1, 2, 3, 4])


def test_rollback_to_0_brings_back_what_was_there_before_exlb(pushed: Machine) -> None:
    wanted = pushed.generation(0)
    ran = pushed.rollback(0)
    assert ran.done, ran
    assert (pushed.active, pushed.current) == (wanted, 0)
    assert (pushed.running("haproxy"), pushed.running("keepalived")) == (OLD, KEEPALIVED_OLD)


def test_rollback_to_what_ran_with_scripts_that_keepalived_warns_of_is_not_refused(machine: Machine) -> None:
    machine.write(machine.keepalived, "vrrp_instance INSECURE {\n}\n", 0o644)
    assert machine.push().done
    assert machine.rollback(0).done
    assert machine.stage(keepalived=keepalived_file("INSECURE")).failed == "validate"


def test_rollback_that_fails_is_taken_back_too(pushed: Machine) -> None:
    assert pushed.push(proxy_file("bb")).done
    pushed.put("lie", proxy_file("bb"))
    assert pushed.rollback(1).failed == "gate-proxy"
    assert pushed.is_on(2)
    assert (pushed.current, pushed.kept, pushed.leftovers) == (2, [0, 1, 2], [])


@pytest.mark.parametrize("number", ["0007", "", "../..", "0002"])
def test_generation_that_is_not_kept_cannot_be_prepared(pushed: Machine, number: str) -> None:
    shutil.copytree(pushed.state / "generations/0001", pushed.state / "generations/0002")
    (pushed.state / "generations/0002/was-active").unlink()
    ran = pushed.apply("prepare", TOKEN, number)
    assert ran.failed == "receive"
    assert f"generation {number} is not kept here" in ran.said


def test_generation_whose_file_this_node_refuses_today_is_not_prepared(pushed: Machine) -> None:
    (pushed.state / "generations/0000/files/1").write_text("BROKEN\n")
    assert pushed.apply("prepare", TOKEN, "0000").failed == "validate"


# units


def test_units_restart_and_pass_the_gates_without_touching_a_file(pushed: Machine) -> None:
    before = pushed.active
    pushed.put("log")
    ran = pushed.apply("units", "restart", "restart", *GATE)
    assert ran.done
    assert ran.steps == ["restart-proxy", "gate-proxy", "restart-keepalived", "gate-keepalived"]
    assert pushed.unit_calls == ["restart haproxy.service", "restart keepalived.service"]
    assert (pushed.active, pushed.current) == (before, 1)


def test_units_leaves_alone_what_needs_nothing(pushed: Machine) -> None:
    pushed.put("log")
    assert pushed.apply("units", "none", "stop", *GATE).done
    assert pushed.unit_calls == ["stop keepalived.service"]
    assert pushed.apply("units", "none", "start", *GATE).done
    assert pushed.running("keepalived") == KEEPALIVED_NEW


def test_units_retires_keepalived_and_calls_it_back(pushed: Machine) -> None:
    pushed.apply("units", "none", "recall", *GATE)
    assert pushed.apply("units", "none", "retire", *GATE).steps == ["none-proxy", "retire-keepalived"]
    assert (pushed.running("keepalived"), pushed.enabled("keepalived")) == (None, False)
    assert pushed.apply("units", "none", "recall", *GATE).done
    assert (pushed.running("keepalived"), pushed.enabled("keepalived")) == (KEEPALIVED_NEW, True)


@pytest.mark.parametrize("unit", ["haproxy", "keepalived"])
def test_units_that_do_not_restart_fail_with_their_journal(pushed: Machine, unit: str) -> None:
    pushed.put(f"fail/systemctl-restart-{unit}", f"Job for {unit}.service failed.\n")
    actions = ("restart", "none") if unit == "haproxy" else ("none", "restart")
    ran = pushed.apply("units", *actions, *GATE)
    assert ran.failed == ("restart-proxy" if unit == "haproxy" else "restart-keepalived")
    assert f"Job for {unit}.service failed.\nwhat {unit}.service said last" in ran.said


def test_units_that_die_at_once_do_not_pass_the_gate(pushed: Machine) -> None:
    pushed.proxy.write_text(proxy_file("bb", "DEADLY"))
    pushed.keepalived.write_text(keepalived_file("VI", "DEADLY"))
    assert pushed.apply("units", "restart", "none", *GATE).failed == "gate-proxy"
    assert pushed.apply("units", "none", "restart", *GATE).failed == "gate-keepalived"


def test_proxy_that_exlb_did_not_configure_is_gated_by_what_can_be_asked_of_it(machine: Machine) -> None:
    assert machine.apply("units", "restart", "none", *GATE).done
    machine.put("lie", NEW)
    ran = machine.apply("units", "restart", "none", *GATE)
    assert ran.failed == "gate-proxy"
    assert "haproxy does not run the configuration that was there" in ran.said


def test_unknown_action_on_a_unit_is_refused(machine: Machine) -> None:
    ran = machine.apply("units", "explode", "none", *GATE)
    assert ran.failed == "explode-proxy"
    assert "unknown action explode" in ran.said


# recover, discard


def interrupted(machine: Machine, number: str = "0002", previous: str = "0001") -> None:
    (machine.state / "intent").write_text(f"{number} {previous}\n")


def test_recover_without_an_unfinished_change_changes_nothing(pushed: Machine) -> None:
    pushed.put("log")
    assert pushed.recover().done
    assert pushed.is_on(1)
    assert pushed.unit_calls == []


def test_recover_ends_a_change_that_was_complete(pushed: Machine) -> None:
    interrupted(pushed, "0001", "0000")
    (pushed.root / "etc/haproxy/haproxy.cfg.exlb-old").write_text(OLD)
    assert pushed.recover().done
    assert pushed.is_on(1)
    assert (pushed.current, pushed.leftovers) == (1, [])
    assert pushed.journal[-1].endswith("0000 -> 0001 eva bastion push-config: interrupted, ended")


def test_what_was_edited_between_a_kill_and_its_recovery_is_kept(pushed: Machine) -> None:
    assert pushed.stage(proxy_file("bb")).done
    hook = 'if [ "$me $*" = "systemctl reload haproxy.service" ]; then kill -9 0; fi\n'
    watched = Machine(pushed.root, watched=True)
    watched.environment["HOOK"] = str(pushed.put("hook", hook))
    assert watched.activate(2, 1, noisy=True).status < 0
    pushed.write(pushed.keepalived, "by hand\n", 0o600)
    assert pushed.recover().done
    assert pushed.is_on(1)
    assert pushed.kept == [0, 1, 3]
    assert pushed.generation(3)[pushed.keepalived] == Found("by hand\n", 0o600, pushed.group)
    assert pushed.journal[-1].endswith("push-config: interrupted, taken back, edited since: kept as 0003")


def test_recover_after_a_power_cut_starts_what_did_not_come_up(pushed: Machine) -> None:
    assert pushed.push(proxy_file("bb")).done
    interrupted(pushed, "0002", "0001")
    (pushed.state / "current").unlink()
    (pushed.state / "current").symlink_to("generations/0001")
    for unit in ("haproxy", "keepalived"):
        (pushed.root / f"running-{unit}").unlink()
    assert pushed.recover().done
    assert pushed.is_on(1)
    assert (pushed.running("haproxy"), pushed.running("keepalived")) == (NEW, KEEPALIVED_NEW)
    assert pushed.journal[-1].endswith("0001 -> 0002 eva bastion push-config: interrupted, taken back")


def test_recover_does_not_start_what_did_not_run_before_exlb_came(machine: Machine) -> None:
    (machine.root / "running-keepalived").unlink()
    machine.put("fail/systemctl-reload-haproxy", "no\n")
    machine.put("fail/systemctl-restart-haproxy", "no\n")
    assert machine.stage().done
    watched = Machine(machine.root, watched=True)
    watched.environment["HOOK"] = str(machine.put("hook", 'if [ "$me" = socat ]; then kill -9 0; fi\n'))
    (machine.root / "fail/systemctl-reload-haproxy").unlink()
    assert watched.activate(actions=("reload", "start"), noisy=True).status != 0
    (machine.root / "fail/systemctl-restart-haproxy").unlink()
    assert machine.recover().done
    assert machine.running("keepalived") is None
    assert machine.running("haproxy") == OLD
    assert untouched(machine)


def test_recover_brings_the_files_back_even_if_their_unit_does_not_run_on_them(pushed: Machine) -> None:
    pushed.write(pushed.proxy, "UNSTARTABLE\n", 0o600)
    assert pushed.push(proxy_file("bb")).done
    interrupted(pushed, "0003", "0002")
    (pushed.state / "current").unlink()
    (pushed.state / "current").symlink_to("generations/0002")
    ran = pushed.recover()
    assert ran.failed == "proxy"
    assert "the files are those of generation 0002, but its unit does not run well" in ran.said
    assert pushed.is_on(2)
    assert pushed.leftovers == []
    # The node is not stuck there: a push mends it.
    assert pushed.stage(proxy_file("cc")).done
    assert pushed.activate(4, 2, ("restart", "none")).done


def test_discard_forgets_what_is_staged(machine: Machine) -> None:
    assert machine.stage().done
    assert machine.apply("discard", TOKEN).done
    assert not (machine.state / "staging").exists()
    assert machine.apply("discard", TOKEN).done


@pytest.mark.parametrize("args", [(), ("nonsense",)])
def test_unknown_action_changes_nothing(machine: Machine, args: tuple[str, ...]) -> None:
    ran = machine.apply(*args)
    assert ran.failed == "start"
    assert "unknown action" in ran.said
    assert not machine.state.exists()


def test_program_ends_although_nobody_listens_any_more(machine: Machine) -> None:
    assert machine.stage().done
    reading, writing = os.pipe()
    os.close(reading)
    words = ("activate", "0001", "0000", "reload", "reload", *GATE)
    with os.fdopen(writing, "w") as nobody:
        subprocess.run(
            ["/bin/sh", "-c", machine.program(*APPLY), "exlb", *words],
            stdout=nobody,
            stderr=subprocess.DEVNULL,
            env=machine.environment,
            check=False,
        )
    assert machine.is_on(1)
    assert (machine.current, machine.leftovers) == (1, [])
