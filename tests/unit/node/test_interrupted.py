"""apply.sh ended by others: killed between any two of its steps, or without space at any of them.

A kill before a call leaves what there is at that call: so one run, with a copy of the whole machine made before every
call, shows all that kills can leave. Some real kills show that this is so.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.node.conftest import copy
from tests.unit.node.machine import (
    LIMIT_SECONDS,
    TOKEN,
    URL,
    Found,
    Machine,
    Ran,
    keepalived_file,
    proxy_file,
    require_mounts,
)

GATE = (str(LIMIT_SECONDS), URL)
NEXT = (proxy_file("bb"), keepalived_file("NEXT"))
State = dict[Path, Found]

# What only looks leaves nothing new: a kill before it is a kill before the next call.
ONLY_LOOKS = (
    "awk|grep|head|readlink|sha256sum|stat|tr|wc|xargs|ss|sleep|date|uname|tail|cut|curl|flock|haproxy|keepalived"
)
COPY = f"""case $me in {ONLY_LOOKS}) ;; *)
    /bin/cp -a "$ROOT" "$ROOT.$$" 2>/dev/null; /bin/mv "$ROOT.$$" "$COPIES/$$" ;; esac
"""


def watched(machine: Machine, hook: str) -> Machine:
    """Return the same machine with a hook before every call."""
    other = Machine(machine.root, watched=True)
    other.environment["HOOK"] = str(machine.root.with_name("hook"))
    machine.root.with_name("hook").write_text(hook)
    return other


def digest(root: Path) -> str:
    """Return a sum over all that the programs read."""
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name in ("log", "uptime", "count"):
            continue
        content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        total.update(f"{name} {path.lstat().st_mode:o} {len(content)} ".encode() + content)
    return total.hexdigest()


def snapshots(machine: Machine, act: Callable[[Machine], Ran]) -> Iterator[Path]:
    """Run something; yield each different state that a kill can leave of it, in its place."""
    copies = machine.root.with_name("copies")
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir()
    other = watched(machine, COPY)
    other.environment["COPIES"] = str(copies)
    assert act(other).done
    different = {digest(path): path for path in copies.iterdir()}
    for path in different.values():
        shutil.rmtree(machine.root)
        path.rename(machine.root)
        machine.take()
        yield path
    shutil.rmtree(copies)


def settled(machine: Machine, *complete: State) -> State:
    """Recover, and hold that the machine stands on one of some complete generations, which is its current one."""
    ran = machine.recover()
    assert ran.done, ran
    active = machine.active
    assert active in complete
    assert machine.current is None or machine.is_on(machine.current)
    assert not list((machine.root / "etc").rglob("*.exlb-*"))
    assert not (machine.state / "intent").exists()
    assert all(machine.generation(number) for number in machine.kept)
    for unit, path in (("haproxy", machine.proxy), ("keepalived", machine.keepalived)):
        assert machine.running(unit) == active[path].text
    return active


def activate(machine: Machine) -> Ran:
    return machine.activate(2, 1)


def pushes_on(machine: Machine) -> None:
    """Hold that the next push is as good as any."""
    ran = machine.push(proxy_file("cc"), keepalived_file("LATER"))
    assert ran.done, ran
    assert machine.active[machine.proxy].text == proxy_file("cc")
    assert machine.leftovers == []


def test_push_killed_between_any_two_steps_leaves_one_complete_generation(pushed: Machine) -> None:
    first, original = pushed.active, pushed.generation(0)
    second = {path: Found(*each) for path, each in wanted(pushed).items()}
    assert pushed.stage(*NEXT).done
    ended = []
    for count, _ in enumerate(snapshots(pushed, activate)):
        ended.append(settled(pushed, first, second))
        assert pushed.kept in ([0, 1], [0, 1, 2])
        assert (ended[-1] == second) == (pushed.current == 2)
        assert pushed.generation(0) == original
        if count % 8 == 0:
            pushes_on(pushed)
    assert len(ended) > 25
    assert first in ended
    assert second in ended


def test_first_push_killed_between_any_two_steps_leaves_what_was_there_or_what_was_pushed(machine: Machine) -> None:
    machine.keepalived.unlink()
    (machine.root / "running-keepalived").unlink()
    before = machine.active
    assert machine.stage(*NEXT).done
    ended = []
    for count, _ in enumerate(snapshots(machine, lambda each: each.activate(actions=("reload", "start")))):
        if count % 3:
            continue
        after = settled(machine, before, {path: Found(*each) for path, each in wanted(machine).items()})
        ended.append(after)
        assert (after == before) == (machine.current in (None, 0))
        if count % 18 == 0:
            assert machine.stage(*NEXT).done
            number, previous = machine.next_numbers()
            assert machine.activate(number, previous, ("reload", "start")).done
            assert machine.generation(0) == before
    assert before in ended


def wanted(machine: Machine) -> dict[Path, tuple[str, int, int]]:
    return {machine.proxy: (NEXT[0], 0o600, machine.group), machine.keepalived: (NEXT[1], 0o644, machine.group)}


def test_rollback_killed_between_any_two_steps_leaves_one_complete_generation(pushed: Machine) -> None:
    first, original = pushed.active, pushed.generation(0)
    assert pushed.apply("prepare", TOKEN, "0000").done
    ended = []
    for count, _ in enumerate(snapshots(pushed, lambda each: each.activate(0, 1))):
        if count % 3:
            continue
        ended.append(settled(pushed, first, original))
        assert (ended[-1] == original) == (pushed.current == 0)
        assert pushed.kept == [0, 1]
        assert (pushed.generation(0), pushed.generation(1)) == (original, first)
    assert first in ended


def test_stage_killed_between_any_two_steps_changes_nothing_and_does_not_stand_in_the_way(pushed: Machine) -> None:
    first = pushed.active
    frame, _ = pushed.attachment("exit 0\n")
    for count, _ in enumerate(snapshots(pushed, lambda each: each.stage(*NEXT, more=frame))):
        assert pushed.recover().done
        assert pushed.active == first
        if count % 9 == 0:
            assert pushed.push(*NEXT, more=frame).done
            assert pushed.leftovers == []


def test_recover_killed_between_any_two_steps_is_ended_by_the_next(pushed: Machine) -> None:
    first = pushed.active
    assert pushed.stage(*NEXT).done
    between = f'[ "$me $*" = "mv -f {pushed.keepalived}.exlb-new {pushed.keepalived}" ]'
    assert watched(pushed, f"if {between}; then kill -9 0; fi\n").activate(2, 1, noisy=True).status < 0
    assert pushed.active[pushed.proxy].text == NEXT[0]
    assert pushed.active[pushed.keepalived] == first[pushed.keepalived]
    for _ in snapshots(pushed, lambda each: each.recover()):
        assert settled(pushed, first) == first


@pytest.mark.parametrize(
    "call",
    [
        "mv -T */staging *", "mv -f */intent.new *", "ln *haproxy.cfg*", "mv -f *keepalived.conf", "socat *",
        "systemctl reload keepalived*", "mv -fT *", "touch */0002/was-active", "rm -f */intent *",
    ],
)  # fmt: skip
def test_real_kill_is_what_the_copies_say_it_is(pushed: Machine, call: str) -> None:
    first = pushed.active
    assert pushed.stage(*NEXT).done
    hook = f'case "$me $*" in {call.replace(" ", "?")}) kill -9 0 ;; esac\n'
    ran = watched(pushed, hook).activate(2, 1, noisy=True)
    assert ran.status < 0
    assert "exlb-apply" not in ran.said
    settled(pushed, first, pushed.generation(2) if pushed.current == 2 else first)


@pytest.mark.parametrize("program", ["cp", "ln"])
def test_half_a_sibling_is_never_taken_for_a_file(pushed: Machine, program: str) -> None:
    first = pushed.active
    assert pushed.stage(*NEXT).done
    hook = f'if [ "$me" = {program} ]; then for last; do :; done; echo half >"$last"; kill -9 0; fi\n'
    assert watched(pushed, hook).activate(2, 1, noisy=True).status < 0
    assert settled(pushed, first) == first
    pushes_on(pushed)


# No space


FAILING = "cp|ln|mv|touch|mkdir|chmod|chown|sync"


def test_call_that_fails_for_want_of_space_leaves_the_old_files_or_all_new_ones(pushed: Machine) -> None:
    first = pushed.active
    assert pushed.stage(*NEXT).done
    template = pushed.root.with_name("staged")
    copy(pushed.root, template)
    assert watched(pushed, f'case $me in {FAILING}) echo "$me $*" >>"$ROOT/calls" ;; esac\n').activate(2, 1).done
    calls = list(dict.fromkeys((pushed.root / "calls").read_text().splitlines()))
    failed = []
    for call in calls:
        copy(template, pushed.root)
        pushed.take()
        hook = 'if [ "$me $*" = "$CALL" ]; then echo "$me: No space left on device" >&2; exit 1; fi\n'
        other = watched(pushed, hook)
        other.environment["CALL"] = call
        ran = other.activate(2, 1, noisy=True)
        if not ran.done:
            failed.append(call)
            if not ran.failed:  # what was to put the old files back fails as well
                assert "exlb recover tries again" in ran.said
                assert pushed.recover().done
            assert pushed.active == first, (call, ran)
            assert pushed.current == 1
        else:
            assert pushed.active == pushed.generation(2)
        assert pushed.leftovers in ([], [pushed.state / "staging"]), call
    assert len(failed) > 20


def full(machine: Machine, folder: Path, pages: int) -> tuple[str, ...]:
    """Return a shell that sees a directory on a file system of so many pages more than it needs."""
    inside = (
        'mount -t tmpfs -o "size=$1" tmpfs "$0" && /bin/cp -a "$0.saved/." "$0" && folder=$0 && shift && "$@"\n'
        'status=$?; rm -rf "$folder.saved"; /bin/cp -a "$folder" "$folder.saved"; exit $status'
    )
    shutil.rmtree(folder.with_name(f"{folder.name}.saved"), ignore_errors=True)
    copy(folder, folder.with_name(f"{folder.name}.saved"))
    used = sum(-(-path.stat().st_size // 4096) for path in folder.rglob("*") if path.is_file())
    return ("unshare", "-m", "sh", "-c", inside, str(folder), str(4096 * (used + pages)), *machine.shell)


@pytest.mark.parametrize(
    ("name", "pages"), [("etc", 0), ("etc", 1), *(("var/lib/exlb", pages) for pages in (0, 1, 3, 5, 8, 15))]
)
def test_full_disk_truncates_nothing(pushed: Machine, name: str, pages: int) -> None:
    folder = pushed.root / name
    require_mounts()
    pushed.write(pushed.proxy, "by hand\n", 0o600)  # so that there is something to be kept, too
    pushed.put("running-haproxy", "by hand\n")
    before = pushed.active
    assert pushed.stage(*NEXT).done
    usual = pushed.shell
    pushed.shell = full(pushed, folder, pages)
    ran = pushed.activate(3, 2, noisy=True)
    pushed.shell = usual
    copy(folder.with_name(f"{folder.name}.saved"), folder)
    assert ran.done or ran.failed, ran
    if ran.failed:
        assert pushed.active == before
        assert not (pushed.state / "intent").exists()
        assert not list((pushed.root / "etc").rglob("*.exlb-*"))
        assert pushed.stage(*NEXT).done
        assert pushed.activate(*pushed.next_numbers()).done
    assert pushed.active[pushed.proxy].text == NEXT[0]
    assert pushed.is_on(pushed.current or 0)
    assert "by hand\n" in [pushed.generation(number)[pushed.proxy].text for number in pushed.kept]
