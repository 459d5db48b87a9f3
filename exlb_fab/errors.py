"""Every error that exlb raises on purpose.

Each carries a message (what failed, and on which node), a hint (the next thing to type) and an exit code:

    ExlbError                  1   something failed on a node
    +-- UsageError             2   the command line asks for something impossible
    +-- EnvironmentFileError   3   the environment file is missing, unsafe or wrong
    +-- UnreachableError       4   a node cannot be reached, or not be trusted to be the node
    |   +-- HostKeyError       4   its host key is unknown, or another one
    |   +-- AuthenticationError 4  it does not accept us
    +-- RemoteError            1   a program on a node failed
    |   +-- PrivilegeError     1   it needs root and does not get it
    |   +-- OverdueError       1   it did not end within its time limit
    +-- LockedError            5   another session changes a node
    +-- FactsError             1   a node answered something that is not understood
    +-- RenderError            1   a template cannot be rendered
    +-- LabError               1   the lab cannot do what was asked
        +-- LabUnavailable     2   this host cannot run a lab at all
"""

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_ENVIRONMENT = 3
EXIT_UNREACHABLE = 4
EXIT_LOCKED = 5
EXIT_PENDING = 6
EXIT_INTERRUPTED = 130


class ExlbError(Exception):
    """Say what failed, what to type next, and how the process is to end."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return (_revive, (type(self), self.__dict__.copy()))


def _revive(kind: type[ExlbError], state: dict[str, object]) -> ExlbError:
    """Rebuild a pickled error whatever arguments its class takes: reports travel between processes."""
    error = kind.__new__(kind)
    error.__dict__.update(state)
    error.args = (state["message"],)
    return error


class UsageError(ExlbError):
    """The command line asks for something that cannot be done."""

    exit_code = EXIT_USAGE


class EnvironmentFileError(ExlbError):
    """The environment file is missing, unsafe or wrong; no node was contacted."""

    exit_code = EXIT_ENVIRONMENT


class UnreachableError(ExlbError):
    """A node cannot be reached over SSH."""

    exit_code = EXIT_UNREACHABLE


class HostKeyError(UnreachableError):
    """The host key of a node is unknown, or differs from the known one."""


class AuthenticationError(UnreachableError):
    """A node accepts none of our keys."""


class RemoteError(ExlbError):
    """A program on a node failed."""


class PrivilegeError(RemoteError):
    """A program on a node needs root and does not get it."""


class OverdueError(RemoteError):
    """A program on a node did not end within its time limit, and was ended."""


class LockedError(ExlbError):
    """Another session holds a node; nothing was changed anywhere."""

    exit_code = EXIT_LOCKED


class FactsError(ExlbError):
    """The answer of a node is not understood."""


class RenderError(ExlbError):
    """A template cannot be rendered."""


class LabError(ExlbError):
    """The lab cannot do what was asked."""


class LabUnavailable(LabError):  # noqa: N818 - a state of the host more than an error
    """This host cannot run a lab."""

    exit_code = EXIT_USAGE
