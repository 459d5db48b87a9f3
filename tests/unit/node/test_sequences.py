"""Random sequences of what operators do to a node, and of what happens to it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.node.machine import TOKEN, Found, Machine, keepalived_file, proxy_file
from tests.unit.node.test_interrupted import State

FAULTS = st.sampled_from(["", "", "", "", "BROKEN", "UNSTARTABLE", "DEADLY"])
DIGESTS = st.sampled_from(["aa", "bb", "cc"])
TEXTS = st.sampled_from(["", "one line\n", "no end", "two\n\nlines\\\n", "\u00e9\n"])
LATE_EDIT = "edited between kill and recovery\n"
# A push makes some forty such calls, one after the other; what is in pipelines could not be counted.
COUNTED = "mv|ln|cp|sync|rm|touch|chmod|restorecon"
KILLS = st.one_of(st.none(), st.integers(1, 45))


class Node(RuleBasedStateMachine):
    """A node, and beside it what its active files may be and what must be kept of it."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="exlb-node-"))
        self.machine = Machine(self.folder / "node")
        self.machine.take()
        self.allowed: list[State] = [self.machine.active]
        self.original = self.machine.active
        self.kept: dict[int, State] = {}

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.machine.release()
            shutil.rmtree(self.folder)

    @property
    def unfinished(self) -> bool:
        return (self.machine.state / "intent").exists()

    def act(self, new: State, kill: int | None, number: int, previous: int, *, late_edit: bool) -> None:
        """Activate what is staged, perhaps killed on the way: then both the old and the new files are right."""
        old = self.machine.active
        machine, actions = self.machine, ("restart", "stop" if new[self.machine.keepalived].text is None else "restart")
        if kill is not None:
            machine = Machine(machine.root, watched=True)
            count = 'read -r n <"$ROOT/count"; echo $((n - 1)) >"$ROOT/count"; if [ "$n" = 1 ]; then kill -9 0; fi'
            hook = f"case $me in {COUNTED}) {count} ;; esac\n"
            machine.environment["HOOK"] = str(self.machine.put("hook", hook))
            machine.put("count", f"{kill}\n")
        ran = machine.activate(number, previous, actions, noisy=True)
        if ran.done:
            self.allowed = [new]
            assert self.machine.current == number
        elif ran.failed:
            self.allowed = [old]
        else:
            assert kill is not None
            if self.unfinished:
                # Until it is recovered, each file is of one of the two.
                active = self.machine.active
                assert all(active[path] in (old[path], new[path]) for path in active)
                if late_edit:
                    self.machine.proxy.write_text(LATE_EDIT)
                self.recovered([old, new])
                if late_edit:
                    texts = [self.machine.generation(each)[self.machine.proxy].text for each in self.machine.kept]
                    assert LATE_EDIT in texts
            self.allowed = [old, new]

    def recovered(self, complete: list[State]) -> None:
        self.machine.recover()  # its verdict is about the units: here, of files that no unit takes, too
        assert not self.unfinished
        assert self.machine.active in complete

    @rule(digest=DIGESTS, proxy=FAULTS, keepalived=FAULTS, kill=KILLS, late_edit=st.booleans())
    def push(self, digest: str, proxy: str, keepalived: str, kill: int | None, *, late_edit: bool) -> None:
        texts = (proxy_file(digest, proxy), keepalived_file("VI", keepalived, digest))
        staged = self.machine.stage(*texts)
        assert staged.done == ("BROKEN" not in (proxy, keepalived))
        if staged.done:
            new = {
                self.machine.proxy: Found(texts[0], 0o600, self.machine.group),
                self.machine.keepalived: Found(texts[1], 0o644, self.machine.group),
            }
            self.act(new, kill, *self.machine.next_numbers(), late_edit=late_edit)

    @rule(data=st.data(), kill=KILLS, late_edit=st.booleans())
    def rollback(self, data: st.DataObject, kill: int | None, *, late_edit: bool) -> None:
        if not self.machine.kept:
            return
        number = data.draw(st.sampled_from(self.machine.kept))
        if self.machine.apply("prepare", TOKEN, f"{number:04d}").done:
            previous = self.machine.next_numbers()[1]
            self.act(self.machine.generation(number), kill, number, previous, late_edit=late_edit)

    @rule(text=TEXTS, mode=st.sampled_from([0o600, 0o644]), proxy=st.booleans())
    def edit_by_hand(self, text: str, mode: int, *, proxy: bool) -> None:
        self.machine.write(self.machine.proxy if proxy else self.machine.keepalived, text, mode)
        self.allowed = [self.machine.active]

    @rule()
    def delete_by_hand(self) -> None:
        self.machine.keepalived.unlink(missing_ok=True)
        self.allowed = [self.machine.active]

    @rule()
    def recover(self) -> None:
        assert self.machine.recover().done

    @invariant()
    def active_files_are_one_complete_generation_or_what_was_edited_by_hand(self) -> None:
        if hasattr(self, "machine"):
            assert self.machine.active in self.allowed
            assert not list((self.machine.root / "etc").rglob("*.exlb-*"))

    @invariant()
    def generations_that_are_kept_never_change_and_the_first_is_always_kept(self) -> None:
        if not hasattr(self, "machine"):
            return
        kept = {number: self.machine.generation(number) for number in self.machine.kept}
        assert all(kept[number] == files for number, files in self.kept.items() if number in kept)
        assert len(kept) >= min(len(self.kept), 10)
        assert 0 in kept or 0 not in self.kept
        self.kept = kept


Node.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestSequences = Node.TestCase
