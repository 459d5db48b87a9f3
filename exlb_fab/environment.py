"""Read the environment file: bash sources it, and every variable comes back with the line that set it.

The file is a program of its owner. It runs in an empty environment, with a time limit, and only after nobody else could
have written it. Its results come back on a descriptor of their own, so that nothing it prints can be taken for them.
Line numbers come from bash's own trace (BASH_XTRACEFD): no second parser guesses what the file would do.
"""

import contextlib
import fcntl
import grp
import os
import pwd
import re
import secrets
import shlex
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from exlb_fab.bash_text import assignment_at, assignments
from exlb_fab.errors import EnvironmentFileError

DEFAULT_NAME = "environment.sh"
EXAMPLE_NAME = "env.example.sh"
LIMIT_SECONDS = 10.0
PATH_DEFAULT = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Files like to use 3 to 9 themselves (exec 3>&1), and bash saves its own from 10 on.
_FIRST_DESCRIPTOR = 100
_KEPT_BYTES = 256 * 1024
_TRACE_BYTES = 16 * 1024 * 1024
_TICK_SECONDS = 0.02
_SHOWN_LINES = 10

# Runs at the top level and not in a function, where `declare` in the file would make local variables.
# The RETURN trap answers for a file that says `set -e` and ends with a false test: nothing of ours would run after it.
_PROGRAM = r"""
readonly __exlb_path=$1 __exlb_results=$2 __exlb_marker=$4
readonly -a __exlb_known=("${@:5}")
BASH_XTRACEFD=$3
__exlb_answer_one() {
  local -n __exlb_reference=$1
  builtin declare -p "$1" 2>/dev/null
  builtin printf '\0'
  builtin printf '%s\0' "$1" "${#__exlb_reference[@]}" "${__exlb_reference[@]}"
}
__exlb_answer() {
  builtin set +eux
  local __exlb_name
  builtin compgen -v
  builtin printf '\0'
  for __exlb_name in "${__exlb_known[@]}"; do __exlb_answer_one "$__exlb_name"; done
  builtin printf '%s\0' "$__exlb_marker"
  builtin exit 0
} >&"$__exlb_results"
readonly -f __exlb_answer __exlb_answer_one
builtin compgen -v >&"$__exlb_results"
builtin printf '\0' >&"$__exlb_results"
trap 'if [[ ${#BASH_SOURCE[@]} == 0 ]]; then __exlb_answer; fi' RETURN
PS4=$'\x1e'$__exlb_marker$'\x1f${BASH_SOURCE[0]-}\x1f${LINENO}\x1f${BASH_SUBSHELL}\x1f'
set --
set -x
source -- "$__exlb_path"
__exlb_answer
"""


@dataclass(frozen=True, slots=True)
class Location:
    """Name the place that set a variable; `path` is as the user, or the file itself, wrote it."""

    path: Path
    line: int | None

    def __str__(self) -> str:
        return str(self.path) if self.line is None else f"{self.path}:{self.line}"

    def is_below(self, other: "Location") -> bool:
        """Tell whether it is a later line of the same file; lines of different files have no order."""
        return self.path == other.path and (self.line or 0) > (other.line or 0) > 0


@dataclass(frozen=True, slots=True)
class Variable:
    """Hold one variable as bash has it after the file.

    `location` is its last assignment; `text` is the source of that, and of the earlier ones that it adds to, "" if
    unknown. Neither it nor the values are in the repr: this layer does not know which variables are secret.
    """

    name: str
    values: tuple[str, ...] = field(repr=False)
    is_array: bool
    location: Location
    text: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Environment:
    """Hold what one file sets.

    `variables` are the known ones that are set; `names` gives every name that the file set, also unknown ones,
    and where first; `provided` are the names that bash sets by itself, before the file.
    """

    path: Path
    variables: Mapping[str, Variable]
    names: Mapping[str, Location]
    warnings: tuple[str, ...] = ()
    provided: frozenset[str] = frozenset()


def find(option: Path | None, environ: Mapping[str, str], cwd: Path) -> Path:
    """Return the environment file to read: the option, else $EXLB_ENV, else ./environment.sh.

    Raises EnvironmentFileError if there is none.
    """
    given = option or Path(environ.get("EXLB_ENV") or DEFAULT_NAME)
    found = cwd / given
    if _is_missing(found):
        hint = f"exlb config --example > {shlex.quote(str(given))}, then edit its three required lines"
        raise EnvironmentFileError(f"{given}: there is no such file", hint=hint)
    # Messages name the file as the user did, wherever that still leads to it.
    return given if cwd == Path.cwd() else found


def example() -> str:
    """Return the text of the example: every variable that exlb knows, explained."""
    return files("exlb_fab").joinpath(EXAMPLE_NAME).read_text(encoding="utf-8")


def _is_missing(path: Path) -> bool:
    """Tell whether there is surely no file; what may not even be looked at is for `read` to refuse."""
    try:
        return not path.exists()
    except OSError:
        return False


def read(path: Path, known: Collection[str], *, limit_seconds: float = LIMIT_SECONDS) -> Environment:
    """Have bash source the file, and return the variables that are in `known`.

    Raises EnvironmentFileError if the file is unsafe or unreadable, has a syntax error, ends bash, or takes longer
    than `limit_seconds`.
    """
    refuse_unsafe(path)
    text = _read_text(path)
    deadline = time.monotonic() + limit_seconds
    _refuse_syntax_errors(path, deadline, limit_seconds)
    run = _source(path, known, deadline)
    steps = _steps(run.trace, run.marker, path)
    answer = _answer(run.results, run.marker)
    if answer is None or run.status is None:
        raise _unfinished(path, run, steps, limit_seconds)
    complaints = [_as_location(path, line) for line in _lines(run)]
    _refuse_nested_syntax_errors(path, complaints)
    return _environment(path, text, answer, steps, tuple(complaints))


# Safety


def refuse_unsafe(path: Path) -> None:
    """Raise EnvironmentFileError if the file is not regular, or if others than its owner and root may write it."""
    try:
        status = path.stat()
    except OSError as error:
        raise EnvironmentFileError(f"{path}: cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        hint = f"name the file: exlb --env {shlex.quote(str(path / DEFAULT_NAME))}"
        raise EnvironmentFileError(f"{path}: is a directory, not a file", hint=hint)
    if not stat.S_ISREG(status.st_mode):
        raise EnvironmentFileError(f"{path}: is not a regular file, and will not be executed")
    writers = _strangers(path, status)
    if writers:
        hint = f"chmod go-w {shlex.quote(str(path))}"
        raise EnvironmentFileError(f"{path}: will not be executed: {writers} may write it", hint=hint)


def _strangers(path: Path, status: os.stat_result) -> str:
    """Return who may write the file besides its owner and root, "" if nobody."""
    if status.st_mode & stat.S_IWOTH:
        return "everyone"
    if not status.st_mode & stat.S_IWGRP:
        return ""
    # With an access control list, the group's bits are the mask of everybody whom it names.
    if _has_acl(path):
        return "whoever its access control list names"
    return "" if _is_private_group(status.st_uid, status.st_gid) else f"group {_group_name(status.st_gid)}"


def _has_acl(path: Path) -> bool:
    """Tell whether the file has a POSIX access control list."""
    try:
        return bool(os.getxattr(path, "system.posix_acl_access"))
    except OSError:
        return False


def _is_private_group(uid: int, gid: int) -> bool:
    """Tell whether a group is the owner's primary one, of the owner's name, and nobody else's."""
    try:
        owner, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    others = set(group.gr_mem) | {user.pw_name for user in pwd.getpwall() if user.pw_gid == gid}
    return owner.pw_gid == gid and owner.pw_name == group.gr_name and others <= {owner.pw_name}


def _group_name(gid: int) -> str:
    """Return the name of a group, or its number."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _read_text(path: Path) -> str:
    """Return the source text of the file, whatever its encoding."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EnvironmentFileError(
            f"{path}: cannot be read: {error.strerror}", hint=f"ls -l {shlex.quote(str(path))}"
        ) from error
    # The first line alone: a quoted value may well hold such a line end.
    if content.partition(b"\n")[0].endswith(b"\r"):
        hint = rf"sed -i 's/\r$//' {shlex.quote(str(path))}"
        raise EnvironmentFileError(f"{path}: has DOS line ends, which bash takes for a part of the values", hint=hint)
    return _decode(content)


def _decode(content: bytes) -> str:
    """Decode what bash wrote; bytes that are not UTF-8 survive, and no pattern for a value accepts them."""
    return content.decode("utf-8", "surrogateescape")


# Running bash


class _Run(NamedTuple):
    """What one bash did; `status` is None if it was stopped at the limit, negative if a signal ended it."""

    status: int | None
    errors: bytes
    results: bytes = b""
    trace: bytes = b""
    marker: str = ""


def _refuse_syntax_errors(path: Path, deadline: float, limit_seconds: float) -> None:
    """Raise EnvironmentFileError with bash's own message if the file does not parse; nothing of it is executed."""
    # A file may turn extglob on for itself, which a mere parse does not do.
    run = _bash(["-O", "extglob", "-n", "--", _with_slash(path)], (), deadline)
    if run.status == 0:
        return
    if run.status is None:
        raise _unfinished(path, run, (), limit_seconds)
    lines = [_as_location(path, line) for line in _lines(run)] or [f"{path}: bash cannot read it"]
    raise EnvironmentFileError("\n".join(lines), hint=f"bash -n {shlex.quote(str(path))}")


def _source(path: Path, known: Collection[str], deadline: float) -> _Run:
    """Source the file; return bash's answer and trace, each record of which starts with the marker."""
    marker = secrets.token_hex(8)
    with _memory("results") as results, _memory("trace") as trace:
        words = [_with_slash(path), str(results), str(trace), marker, *known]
        run = _bash(["-c", _PROGRAM, "bash", *words], (results, trace), deadline)
        return run._replace(results=_contents(results), trace=_contents(trace), marker=marker)


def _with_slash(path: Path) -> str:
    """Return the path as `source` takes it: a name without a slash would be looked for in PATH first."""
    return str(path) if "/" in str(path) else f"./{path}"


@contextlib.contextmanager
def _memory(name: str) -> Iterator[int]:
    """Open a file that is in memory only: secrets do not reach the disk, and no pipe can fill up."""
    low = os.memfd_create(f"exlb-{name}")
    try:
        descriptor = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _FIRST_DESCRIPTOR)
    finally:
        os.close(low)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _contents(descriptor: int) -> bytes:
    """Return what was written to a descriptor, up to a size that no sane file reaches."""
    return os.pread(descriptor, min(os.fstat(descriptor).st_size, _TRACE_BYTES), 0)


def _bash(arguments: Sequence[str], descriptors: Sequence[int], deadline: float) -> _Run:
    """Run bash in an empty environment and a process group of its own, which does not outlive it."""
    program = shutil.which("bash")
    if program is None:
        raise EnvironmentFileError("bash is not installed, and the environment file needs it", hint="apt install bash")
    process = subprocess.Popen(
        [program, "--noprofile", "--norc", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"PATH": PATH_DEFAULT, "HOME": str(Path.home()), "LC_ALL": "C.UTF-8"},
        pass_fds=descriptors,
        start_new_session=True,
    )
    with process:
        try:
            return _watch(process, deadline)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _watch(process: subprocess.Popen[bytes], deadline: float) -> _Run:
    """Collect the end of standard error until bash ends or the deadline has passed.

    A background child may hold the pipe open after bash has ended, and the file may close it before: its end says
    nothing. So bash is waited for, and the pipe emptied every now and then, which also holds back an endless writer.
    """
    assert process.stderr is not None
    pipe, errors = process.stderr.fileno(), b""
    os.set_blocking(pipe, False)
    while process.returncode is None and time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_TICK_SECONDS)
        with contextlib.suppress(BlockingIOError):
            errors = (errors + os.read(pipe, _KEPT_BYTES))[-_KEPT_BYTES:]
    return _Run(process.returncode, errors)


# What bash said


_MESSAGE = re.compile(r"(?P<path>\S.*?): line (?P<line>[0-9]+): (?P<message>.*)")
# What `declare -p` says of an indexed array; an associative one has an A.
_ARRAY = re.compile(r"declare -\w*a")
# An assignment to a name that sounds like a secret: this layer does not know which names are secret.
_SECRET = re.compile(r"(\w*(?:PASS|SECRET|TOKEN)\w*\+?=).+", re.IGNORECASE)
_SYNTAX_ERROR = re.compile(r":[0-9]+: (?:syntax error|unexpected EOF)")


def _lines(run: _Run) -> list[str]:
    """Return standard error as lines that are safe on a terminal, the last ones if there are many.

    The trace is not among them, even where the file turned it to standard error: it shows passwords.
    """
    lines = [line for line in _decode(run.errors).split("\n") if not (run.marker and run.marker in line)]
    return [printable for printable in map(_printable, lines) if printable][-_SHOWN_LINES:]


def _printable(line: str) -> str:
    """Replace what would move the cursor or colour the screen, and what looks like a password."""
    return _SECRET.sub(r"\1********", "".join(sign if sign.isprintable() else " " for sign in line).strip())


def _as_location(path: Path, line: str) -> str:
    """Turn bash's `FILE: line N: ...` into `FILE:N: ...`, and put the file before any other line."""
    match = _MESSAGE.fullmatch(line)
    if match is None:
        return f"{path}: {line}"
    return f"{_as_given(match['path'], path)}:{match['line']}: {match['message']}"


def _as_given(source: str, path: Path) -> Path:
    """Return the path of a file that bash names: the main one as the user gave it."""
    return path if source == _with_slash(path) else Path(source)


def _refuse_nested_syntax_errors(path: Path, complaints: Sequence[str]) -> None:
    """Raise EnvironmentFileError if a file that this one sources does not parse: bash only skips the rest of it."""
    if any(_SYNTAX_ERROR.search(line) for line in complaints):
        raise EnvironmentFileError("\n".join(complaints), hint=f"bash -x {shlex.quote(str(path))}")


def _unfinished(path: Path, run: _Run, steps: Sequence["_Step"], limit_seconds: float) -> EnvironmentFileError:
    """Return the error of a file after which bash did not answer: it took too long, called exit, or died."""
    at = f"{steps[-1].path}:{steps[-1].line}" if steps else f"{path}"
    if run.status is None:
        what = f"{at}: bash was stopped after {limit_seconds:g} s, and this was its last line"
        hint = "the file must not wait for input, a lock or the network"
    elif run.status < 0:
        what = f"{at}: bash was killed by signal {-run.status} before the end of the file"
        hint = f"bash -x {shlex.quote(str(path))}"
    else:
        what = f"{at}: bash ended with status {run.status} before the end of the file"
        hint = "the file is sourced: it must neither exit, nor exec, nor fail under set -e or set -u"
    said = [f"  {_as_location(path, line)}" for line in _lines(run)]
    return EnvironmentFileError("\n".join([what, *said]), hint=hint)


class _Answer(NamedTuple):
    """What bash answered after the file: names before and after, the known values, and which of them are arrays.

    An associative array is none: its values have no order, and the first node is the master.
    """

    before: frozenset[str]
    after: frozenset[str]
    arrays: frozenset[str]
    values: Mapping[str, tuple[str, ...]]


def _answer(results: bytes, marker: str) -> _Answer | None:
    """Parse the results: NUL-terminated fields, the last one the marker; None if it is missing."""
    before, *fields = _decode(results).split("\0")
    if fields[-2:] != [marker, ""]:
        return None
    after, *known = fields[:-2]
    values: dict[str, tuple[str, ...]] = {}
    arrays = set()
    rest = iter(known)
    for declaration in rest:
        name = next(rest)
        values[name] = tuple(next(rest) for _ in range(int(next(rest))))
        if _ARRAY.match(declaration):
            arrays.add(name)
    return _Answer(_names(before), _names(after), frozenset(arrays), values)


def _names(listing: str) -> frozenset[str]:
    """Return the names of a listing, one per line, without those of our own program."""
    return frozenset(name for name in listing.split() if name != "FUNCNAME" and not name.startswith("__exlb_"))


# The trace


class _Step(NamedTuple):
    """One traced command; `depth` counts the subshells around it, whose assignments end with them."""

    path: Path
    line: int
    depth: int
    command: str


class _Assignment(NamedTuple):
    """One assignment found in a traced command; a part adds to what the variable holds."""

    name: str
    is_part: bool
    step: _Step


_HEAD = r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<element>\[[^\]]*\])?(?P<sign>\+?)="
_ASSIGNMENT = re.compile(_HEAD)
_DECLARATION = re.compile(r"(?:declare|typeset|local|readonly|export)\s")
# The trace has `export A="b c"` as `export 'A=b c'`, and what is not printable as `$'A=...'`.
_DECLARED = re.compile(rf"(?:^|\s)\$?'?{_HEAD}")
# These set variables without an equals sign.
_ONE_NAME = re.compile(r"(?:for|select|printf -v)\s+(?P<name>[A-Za-z_]\w*)")
_MANY_NAMES = re.compile(r"(?:read|mapfile|readarray)\s")
_NAME = re.compile(r"[A-Za-z_]\w*")


def _steps(trace: bytes, marker: str, path: Path) -> list[_Step]:
    """Parse the trace into the commands that the file, and the files that it sources, executed."""
    steps = []
    for record in _decode(trace).split(marker)[1:]:
        parts = record.split("\x1f", 4)
        # The last record may be cut short, and our own program has no source.
        if len(parts) == 5 and parts[1]:
            _, source, line, depth, command = parts
            command = command.rstrip("\x1e").removesuffix("\n")
            steps.append(_Step(_as_given(source, path), int(line), int(depth), command))
    return steps


def _assignments(steps: Iterable[_Step]) -> Iterator[_Assignment]:
    """Yield every assignment to a variable of the main shell, in the order in which they happened."""
    for step in steps:
        if step.depth == 0:
            yield from _assigned(step)


def _assigned(step: _Step) -> Iterator[_Assignment]:
    """Yield what one command assigns."""
    if match := _ONE_NAME.match(step.command):
        yield _Assignment(match["name"], is_part=False, step=step)
    elif _MANY_NAMES.match(step.command):
        words = filter(_NAME.fullmatch, step.command.split()[1:])
        yield from (_Assignment(word, is_part=False, step=step) for word in words)
    elif _DECLARATION.match(step.command):
        yield from (_assignment(match, step) for match in _DECLARED.finditer(step.command))
    elif match := _ASSIGNMENT.match(step.command):
        yield _assignment(match, step)


def _assignment(match: re.Match[str], step: _Step) -> _Assignment:
    return _Assignment(match["name"], is_part=bool(match["element"] or match["sign"]), step=step)


# From the trace back to the source text


class _Source(NamedTuple):
    """The source of one assignment; without a line, or without text, as far as it is known."""

    location: Location
    text: str = ""


def _environment(
    path: Path, text: str, answer: _Answer, steps: Sequence[_Step], warnings: tuple[str, ...]
) -> Environment:
    """Put bash's answer and the places from its trace together."""
    texts = {source: _text_of(source) for source in {step.path for step in steps}} | {path: text}
    firsts: dict[str, _Assignment] = {}
    making: dict[str, list[_Assignment]] = {}  # what made the present value: a whole assignment, and the parts after it
    for assignment in _assignments(steps):
        firsts.setdefault(assignment.name, assignment)
        if not assignment.is_part:
            making[assignment.name] = []
        making.setdefault(assignment.name, []).append(assignment)
    set_now = answer.after - answer.before
    # What the trace does not have is looked for in the text.
    names = {name: _last_source(name, path, text).location for name in sorted(set_now)}
    names |= {name: _source_of(first, texts).location for name, first in firsts.items()}
    variables = {}
    for name in answer.values:
        if name in set_now:
            sources = [_source_of(each, texts) for each in making.get(name, [])] or [_last_source(name, path, text)]
            variables[name] = _variable(name, answer, sources)
    return Environment(path, variables, names, warnings, answer.before)


def _variable(name: str, answer: _Answer, sources: Sequence[_Source]) -> Variable:
    """Return a known variable; the last of its sources is where it was set."""
    text = "\n".join(source.text for source in sources if source.text)
    return Variable(name, answer.values[name], name in answer.arrays, sources[-1].location, text)


def _text_of(path: Path) -> str:
    """Return the text of a sourced file, "" where its name no longer leads to it."""
    try:
        return _decode(path.read_bytes())
    except OSError:
        return ""


def _source_of(assignment: _Assignment, texts: Mapping[Path, str]) -> _Source:
    """Return the source of an assignment that bash traced."""
    path, line = assignment.step.path, assignment.step.line
    written = assignment_at(line, assignment.name, texts[path])
    return _Source(Location(path, written.line), written.text) if written else _Source(Location(path, line))


def _last_source(name: str, path: Path, text: str) -> _Source:
    """Return the last assignment to a name that the text of the file shows."""
    written = list(assignments(name, text))
    return _Source(Location(path, written[-1].line), written[-1].text) if written else _Source(Location(path, None))
