"""What the source text of a variable says about it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlb_fab.bash_text import assignment_at, assignments, references

SIGNS = st.text(st.sampled_from("$(){}'\"`\\# \nA:-=[]"))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('URL="https://$A.x:${B}/${C%/*}${D[0]}"', ["A", "B", "C", "D"]),
        ("""A='$A' B=\\$B C=$'\\'$C' D="'$D'" """, ["D"]),
        ('"${A:-$B}${A-x}${A:=x}${A:+x}${A?x}"', []),
        ("$(echo $A) `echo $B` $((C + $D)) $1 $? $$", []),
        ("(\n  $A # don't $B\n  $C#$D\n)", ["A", "C", "D"]),
        ("${#A[@]} ${!B}", ["A", "B"]),
        ('"a # $A" #$B', ["A"]),
    ],
)
def test_references_are_what_bash_would_expand_without_a_default(text: str, names: list[str]) -> None:
    assert list(references(text)) == names


@given(SIGNS)
def test_references_of_any_text_at_all_come_to_an_end(text: str) -> None:
    assert set(references(text)) <= {"A" * length for length in range(1, len(text) + 1)}


@given(SIGNS)
def test_assignments_in_any_text_at_all_are_what_is_written_there(text: str) -> None:
    lines = text.split("\n")
    for found in assignments("A", text):
        written = found.text.split("\n")
        assert found.text.startswith("A")
        assert found.last_line - found.line + 1 == len(written)
        assert written[0] in lines[found.line - 1]
        assert lines[found.last_line - 1].startswith(written[-1]) or len(written) == 1


@pytest.mark.parametrize("line", [1, 2, 3])
def test_a_command_over_joined_lines_is_found_by_any_of_them(line: int) -> None:
    found = assignment_at(line, "A", "export B=1 \\\n  A=2 \\\n  C=3\nA=4\n")
    assert found == (2, "A=2")


def test_a_line_without_an_assignment_to_the_name_has_none() -> None:
    assert assignment_at(1, "A", "B=1 # A=2\nA=3") is None
