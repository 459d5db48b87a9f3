"""Just enough of bash's grammar to find in a source text where a variable is set, and what it refers to. Pure."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_PARAMETER = re.compile(
    r"\$(?P<plain>[A-Za-z_]\w*)|\$\{[!#]?(?P<braced>[A-Za-z_]\w*)(?P<index>\[[^\]]*\])?(?P<rest>.*)", re.S
)
_COMMENT = re.compile(r"(?:^|[ \t;])#", re.M)
_HAS_DEFAULT = re.compile(r":?[-=+?]")
_ANSI = re.compile(r"\$'(?:[^'\\]|\\.)*'", re.S)


class Assignment(NamedTuple):
    """One assignment as it is written, and the line that it starts on."""

    line: int
    text: str

    @property
    def last_line(self) -> int:
        return self.line + self.text.count("\n")


def assignments(name: str, text: str) -> Iterator[Assignment]:
    """Yield what looks like an assignment to a name."""
    pattern = re.compile(rf"(?<![\w$-]){name}(?:\[[^\]\n]*\])?(?P<sign>[+:]?)=(?!=)")
    for match in pattern.finditer(text):
        line_start = text.rfind("\n", 0, match.start()) + 1
        if _COMMENT.search(text, line_start, match.start()):
            continue
        # ${NAME:=text} is no assignment of its own.
        end = match.end() if match["sign"] == ":" else _end_of_word(text, match.end())
        yield Assignment(text.count("\n", 0, match.start()) + 1, text[match.start() : end])


def assignment_at(line: int, name: str, text: str) -> Assignment | None:
    """Return the last assignment to a name in a command; bash may name the command's first line or its last."""
    first, last = _joined_lines(line, text)
    found = [each for each in assignments(name, text) if each.line <= last and each.last_line >= first]
    return found[-1] if found else None


def references(text: str) -> Iterator[str]:
    """Yield the names of the variables that the source text of a value needs to be set.

    What bash would not expand (quoted, escaped, commented out) is left out, as are names that have a default
    (`${NAME:-text}`) and what is inside `$( )`, which may set its own.
    """
    at, quoted = 0, False
    while at < len(text):
        sign, pair = text[at], text[at : at + 2]
        if sign == "\\":
            at += 2
        elif sign == '"':
            at, quoted = at + 1, not quoted
        elif pair in ("${", "$("):
            end = _end_of_group(text, at)
            yield from _parameter(text[at:end])
            at = end
        elif sign == "`" or (not quoted and (sign == "'" or pair == "$'")):
            at = _end_of_group(text, at)
        elif not quoted and _starts_comment(text, at):
            at = _index_after("\n", text, at)
        elif sign == "$" and (match := _PARAMETER.match(text, at)):
            yield match["plain"]
            at = match.end()
        else:
            at += 1


def _joined_lines(line: int, text: str) -> tuple[int, int]:
    """Return the first and the last of the lines that backslashes join with a line."""
    lines = text.split("\n")
    first = last = line
    while 2 <= first <= len(lines) and lines[first - 2].endswith("\\"):
        first -= 1
    while last <= len(lines) and lines[last - 1].endswith("\\"):
        last += 1
    return first, last


def _parameter(group: str) -> Iterator[str]:
    """Yield the name in `${...}` if it has no default."""
    match = _PARAMETER.match(group)
    if match and match["braced"] and not _HAS_DEFAULT.match(match["rest"]):
        yield match["braced"]


def _end_of_word(text: str, at: int) -> int:
    """Return the index after the word, or the array in parentheses, that starts at an index."""
    if text.startswith("(", at):
        return _end_of_group(text, at)
    while at < len(text) and text[at] not in " \t\n;&|<>()":
        if text[at] == "\\":
            at += 2
        elif text[at] in "\"'`" or text[at : at + 2] in ("$(", "${", "$'"):
            at = _end_of_group(text, at)
        else:
            at += 1
    return min(at, len(text))


def _end_of_group(text: str, at: int) -> int:
    """Return the index after the quotes, parentheses or braces that open at an index, or the end of the text."""
    closers: list[str] = []
    while at < len(text):
        sign, pair = text[at], text[at : at + 2]
        inner = closers[-1] if closers else ""
        if sign == "\\":
            at += 2
            continue
        if sign == inner:
            closers.pop()
            at += 1
        elif pair == "$'" and inner != '"':
            match = _ANSI.match(text, at)
            at = match.end() if match else len(text)
        elif sign == "'" and inner != '"':
            at = _index_after("'", text, at + 1)
        elif pair in ("$(", "${"):
            closers.append(")" if pair == "$(" else "}")
            at += 2
        elif sign in '"`' or (sign == "(" and inner in ("", ")")):
            closers.append(")" if sign == "(" else sign)
            at += 1
        elif inner == ")" and _starts_comment(text, at):
            at = _index_after("\n", text, at)
        else:
            at += 1
        if not closers:
            return at
    return len(text)


def _starts_comment(text: str, at: int) -> bool:
    """Tell whether a comment starts here: a # at the start of a word."""
    return text[at] == "#" and text[at - 1 : at] in ("", " ", "\t", "\n", "(", ";")


def _index_after(sign: str, text: str, at: int) -> int:
    """Return the index after the next sign of a kind, or the end of the text."""
    end = text.find(sign, at)
    return len(text) if end < 0 else end + 1
