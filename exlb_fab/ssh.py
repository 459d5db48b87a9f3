"""The only module that talks SSH: one connection per node, host keys checked, programs and data over stdin.

Fabric reads the user's ssh configuration and opens connections and gateways; its defaults that do not suit an
operator's tool are replaced here (docs/architecture.md, "SSH").
"""

from __future__ import annotations

import fcntl
import logging
import os
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import fabric
import paramiko

from exlb_fab.cluster import Node, SshSettings
from exlb_fab.errors import (
    AuthenticationError,
    EnvironmentFileError,
    ExlbError,
    HostKeyError,
    OverdueError,
    PrivilegeError,
    RemoteError,
    UnreachableError,
)
from exlb_fab.events import Emit, Event
from exlb_fab.remote import Completed

HostKeyCheck = Literal["strict", "accept-new", "no"]

KEEPALIVE_SECONDS = 10
SILENCE_SECONDS = 60  # longer than a lock lasts without a word: of what ends in a short partition exlb still hears
GRACE_SECONDS = 5
CHANNEL_SECONDS = 30
CHUNK_BYTES = 32768
ENDED_BY_SIGNAL = 255  # as ssh(1) says it
STARTUP_HINT = "look at the startup files of the login shell there, such as .bashrc: one reads stdin, or ends the shell"
TIMED_OUT = (124, 137)  # timeout(1): the limit came; it had to kill
STARTED = "exlb-started"
NOT_ARRIVED = "exlb-not-arrived"
# The login shell gets plain words in single quotes only, which sh, bash, zsh, fish and csh read alike. The program
# comes over stdin, its length first; dd reads byte by byte and leaves the data behind it to the program. Where no
# length comes first, a startup file of the login shell has read of it.
BOOTSTRAP = (
    f'echo {STARTED}; {{ read -r n && [ "$n" -gt 0 ] 2>/dev/null; }} || {{ echo {NOT_ARRIVED}; exit 1; }}; '
    'eval "$(dd bs=1 count="$n" 2>/dev/null)"'
)

# Paramiko logs tracebacks of what is raised anyway.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False


@dataclass(slots=True)
class Traffic:
    """What was spent on the network; counted, so that tests can hold it."""

    connections: int = 0
    executions: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0

    def __str__(self) -> str:
        return (
            f"{self.connections} connections, {self.executions} programs run, "
            f"{self.bytes_sent} bytes sent, {self.bytes_received} received"
        )


@dataclass(frozen=True, slots=True)
class SshOptions:
    """What the command line says about SSH. `ask` prompts the operator for a secret."""

    host_key_check: HostKeyCheck = "strict"
    connect_seconds: float = 10
    sudo_password: str | None = field(default=None, repr=False)
    ask: Callable[[str], str] | None = None


class _Connection(fabric.Connection):  # type: ignore[misc] # Fabric ships no types
    """A connection that leaves the Config alone, which all threads share.

    What is no attribute of its class a Connection writes into its Config, and that builds itself anew for it: other
    threads then do not find `user` or `connect_kwargs` there for a moment. Source: invoke/config.py, DataProxy.
    """

    inline_ssh_env: bool | None = None


class SshConnector:
    """Opens connections to nodes; what they share (configuration, gateways, a key's passphrase) is made once."""

    def __init__(self, settings: SshSettings, options: SshOptions, emit: Emit) -> None:
        if settings.key is not None and not os.access(settings.key, os.R_OK):
            raise EnvironmentFileError(f"SSH_KEY: {settings.key}: no such file, or not readable")
        self._settings = settings
        self._options = options
        self._emit = emit
        self._config = fabric.Config()
        self._gateways: dict[str, fabric.Connection] = {}
        self._gateway_lock = threading.Lock()
        self._passphrase: str | None = None
        self._passphrase_lock = threading.Lock()
        self._accept_lock = threading.Lock()
        self.traffic = Traffic()

    def __call__(self, node: Node) -> SshRemote:
        """Connect to a node. Raises UnreachableError, HostKeyError or AuthenticationError, each naming the node."""
        connection = self._connection(str(node.address), user=self._settings.user, port=self._settings.port)
        connection.gateway = self._gateway(connection)
        with _named(node):
            self._open(connection)
        return SshRemote(node, connection, self._settings.uses_sudo, self._options.sudo_password, self.traffic)

    def close(self) -> None:
        """Close the gateways, which nodes share."""
        for gateway in self._gateways.values():
            gateway.close()

    def _connection(self, host: str, **words: Any) -> fabric.Connection:
        # A gateway of False keeps Fabric from opening one of its own per node.
        kwargs: dict[str, Any] = {
            "banner_timeout": self._options.connect_seconds,
            "auth_timeout": self._options.connect_seconds,
            "channel_timeout": self._options.connect_seconds,
        }
        if self._settings.key:
            kwargs["key_filename"] = [str(self._settings.key)]
        return _Connection(
            host,
            gateway=False,
            config=self._config,
            connect_timeout=max(1, round(self._options.connect_seconds)),
            connect_kwargs=kwargs,
            **words,
        )

    def _gateway(self, connection: fabric.Connection) -> fabric.Connection | str | bool:
        """Return the way to a node: SSH_GATEWAY, else the ssh configuration's ProxyJump or ProxyCommand, else none."""
        jump = self._settings.gateway or connection.ssh_config.get("proxyjump")
        if jump and jump.lower() != "none":
            with self._gateway_lock:
                return self._jump(jump)
        command = connection.ssh_config.get("proxycommand")
        return command if command and command.lower() != "none" else False

    def _jump(self, hops: str) -> fabric.Connection:
        """Return the open connection to the last of `host1,host2`, through those before it."""
        if hops not in self._gateways or not self._gateways[hops].is_connected:
            before, _, host = hops.rpartition(",")
            gateway = self._connection(host)
            if before:
                gateway.gateway = self._jump(before)
            with _named(f"gateway {host}"):
                self._open(gateway)
            self._gateways[hops] = gateway
        return self._gateways[hops]

    def _open(self, connection: fabric.Connection) -> None:
        self._check_host_keys(connection)
        try:
            self._log_in(connection)
        except BaseException:
            connection.client.close()
            raise
        connection.transport.set_keepalive(KEEPALIVE_SECONDS)
        _limit_silence(connection.transport.sock)
        self.traffic.connections += 1

    def _log_in(self, connection: fabric.Connection) -> None:
        """Open a connection; ask for a passphrase where the key turns out to have one."""
        try:
            connection.open()
        except paramiko.PasswordRequiredException:
            connection.client.close()
            connection.connect_kwargs["passphrase"] = self._ask_passphrase()
            connection.open()
        except paramiko.SSHException as error:
            # Paramiko says "no authentication methods available" with its most general exception.
            transport = connection.client.get_transport()
            refused = transport is not None and transport.is_active() and not transport.is_authenticated()
            if refused and type(error) is paramiko.SSHException:
                raise paramiko.AuthenticationException(str(error)) from error
            raise

    def _ask_passphrase(self) -> str:
        with self._passphrase_lock:
            if self._passphrase is None:
                if self._options.ask is None:
                    raise AuthenticationError(
                        "the SSH key is encrypted and there is no terminal to ask for its passphrase",
                        hint="load it into an agent: ssh-add " + (str(self._settings.key or "")),
                    )
                self._passphrase = self._options.ask(f"Passphrase of the SSH key {self._settings.key or ''}".rstrip())
            return self._passphrase

    def _check_host_keys(self, connection: fabric.Connection) -> None:
        client = connection.client
        if self._options.host_key_check == "no":
            client.set_missing_host_key_policy(paramiko.MissingHostKeyPolicy())
            return
        files = self._known_hosts(connection)
        for path in files:
            if path.exists():
                client.load_system_host_keys(str(path))
        if self._options.host_key_check == "accept-new":
            client.set_missing_host_key_policy(_AcceptNew(files[0], self._accept_lock, self._emit))
        else:
            client.set_missing_host_key_policy(_Reject(files))

    def _known_hosts(self, connection: fabric.Connection) -> list[Path]:
        """Return the known_hosts files, the one to write first. Source: ssh_config(5), UserKnownHostsFile."""
        if self._settings.known_hosts:
            return [self._settings.known_hosts]
        names = connection.ssh_config.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2").split()
        names += connection.ssh_config.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts").split()
        return [Path(name).expanduser() for name in names]


def _limit_silence(way: object) -> None:
    """Have the kernel end a connection whose other side acknowledges nothing any more: a host that has died.

    Paramiko's keepalives want no reply; they are what has to be acknowledged. What goes through a gateway or a
    ProxyCommand ends with that. Source: tcp(7), TCP_USER_TIMEOUT (Linux).
    """
    if isinstance(way, socket.socket) and hasattr(socket, "TCP_USER_TIMEOUT"):
        way.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_SECONDS * 1000)


class _Reject(paramiko.MissingHostKeyPolicy):
    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    def missing_host_key(self, client: Any, hostname: str, key: paramiko.PKey) -> None:
        del client
        raise HostKeyError(
            f"host key of {hostname} is not known ({key.get_name()} {key.fingerprint})",
            hint=f"compare the fingerprint, then: ssh-keyscan {_keyscan_words(hostname)} >> {self._files[0]}"
            "; or once: --host-key-check accept-new",
        )


class _AcceptNew(paramiko.MissingHostKeyPolicy):
    """Write a host key that is seen for the first time to known_hosts, one writer at a time."""

    def __init__(self, path: Path, lock: threading.Lock, emit: Emit) -> None:
        self._path = path
        self._lock = lock
        self._emit = emit

    def missing_host_key(self, client: Any, hostname: str, key: paramiko.PKey) -> None:
        del client
        entry = f"{hostname} {key.get_name()} {key.get_base64()}\n"
        with self._lock:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._path.open("a+", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                if entry not in file.read():
                    file.write(entry)
        self._emit(Event("warning", f"accepted the new host key of {hostname}: {key.get_name()} {key.fingerprint}"))


def _keyscan_words(hostname: str) -> str:
    """Return ssh-keyscan's arguments for known_hosts' `[host]:port`."""
    if hostname.startswith("["):
        host, _, port = hostname[1:].partition("]:")
        return f"-p {port} {host}"
    return hostname


@contextmanager
def _named(target: object) -> Iterator[None]:
    """Turn whatever a connection can fail with into one of our errors that names its target."""
    try:
        yield
    except ExlbError as error:
        error.message = f"{target}: {error.message}"
        error.args = (error.message,)
        raise
    except paramiko.BadHostKeyException as error:
        raise HostKeyError(
            f"{target}: host key differs from the known one: {error.key.get_name()} {error.key.fingerprint}",
            hint=f"if the node was reinstalled: ssh-keygen -R {shlex.quote(error.hostname)}, then ssh-keyscan "
            f"{_keyscan_words(error.hostname)} >> known_hosts; if it was not, somebody may be in between",
        ) from error
    except paramiko.PasswordRequiredException as error:
        raise AuthenticationError(f"{target}: {error}", hint="load the key into an agent: ssh-add") from error
    except paramiko.AuthenticationException as error:
        raise AuthenticationError(
            f"{target}: {str(error).rstrip('.')}", hint="check SSH_USER, SSH_KEY and the agent (ssh-add -l)"
        ) from error
    except paramiko.ssh_exception.IncompatiblePeer as error:
        raise UnreachableError(
            f"{target}: the node's sshd is too old or too new for this Paramiko: {error}",
            hint="pip install 'paramiko<5' still speaks SHA-1 key exchange",
        ) from error
    except (paramiko.SSHException, EOFError, OSError, ValueError) as error:
        reason, hint = _reason(error), "is it up, and its sshd reachable from here?"
        if "protocol banner" in reason:  # Paramiko has no class for it
            reason = "its sshd ends the connection at once"
            hint = "after failed logins it does so for a while (sshd_config, PerSourcePenalties and MaxStartups): wait"
        raise UnreachableError(f"{target}: cannot connect: {reason}", hint=hint) from error


def _reason(error: Exception) -> str:
    """Return the operating system's own words where there are some."""
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
        error = next(iter(error.errors.values()))
    words = error.strerror if isinstance(error, OSError) else None
    return words or str(error).strip() or type(error).__name__


class SshRemote:
    """One node over one SSH connection."""

    def __init__(
        self,
        node: Node,
        connection: fabric.Connection,
        uses_sudo: bool,  # noqa: FBT001 - a fact of the connection, given by name nowhere else
        password: str | None,
        traffic: Traffic,
    ) -> None:
        self._node = node
        self._connection = connection
        self._uses_sudo = uses_sudo
        self._password = password
        self._traffic = traffic
        self._sudo_asks: bool | None = None

    def run(self, program: str, args: Sequence[str] = (), data: str = "", limit_seconds: float = 60) -> Completed:
        words, stdin = _bootstrap(program, args, data)
        began = time.monotonic()
        done = self._run(words, stdin, sudo=self._uses_sudo, limit_seconds=limit_seconds)
        if done.status in TIMED_OUT and time.monotonic() - began >= limit_seconds:
            raise OverdueError(
                f"{self._node}: no end after {limit_seconds:.0f} s",
                hint=f"is the node overloaded, or does a program hang there? exlb ssh {self._node}",
            )
        _, mark, stdout = done.stdout.partition(STARTED + "\n")
        if not mark:
            raise self._refused(done)
        if stdout == NOT_ARRIVED + "\n":
            raise RemoteError(f"{self._node}: what exlb sends does not arrive whole", hint=STARTUP_HINT)
        return Completed(done.status, stdout, done.stderr)

    def open(self, program: str, args: Sequence[str] = ()) -> SshChannel:
        words, stdin = _bootstrap(program, args, "")
        words, stdin = self._privileged(words, stdin, sudo=self._uses_sudo)
        self._traffic.executions += 1
        with self._connected():
            channel = self._connection.transport.open_session(timeout=CHANNEL_SECONDS)
            channel.exec_command(shlex.join(words).encode(errors="surrogateescape"))
            channel.sendall(stdin)
        opened = SshChannel(self._node, channel)
        said: list[str] = []
        # A startup file may have printed something without an end of line, such as a terminal's title.
        while not ((line := opened.line(CHANNEL_SECONDS)) or "").endswith(STARTED):
            if line is None:
                errors = opened.errors()
                opened.close()
                raise self._refused(Completed(channel.recv_exit_status(), "\n".join(said), errors))
            said.append(line)
        return opened

    def execute(self, command: Sequence[str], *, sudo: bool, limit_seconds: float) -> Completed:
        return self._run(list(command), b"", sudo=sudo, limit_seconds=limit_seconds)

    def close(self) -> None:
        self._connection.close()

    def _refused(self, done: Completed) -> ExlbError:
        said = done.stderr.strip() or done.stdout.strip() or f"status {done.status}"
        if not self._uses_sudo:
            return RemoteError(f"{self._node}: sh does not start: {said}", hint=STARTUP_HINT)
        hint = "--ask-sudo-pass asks for the password once" if self._password is None else None
        return PrivilegeError(f"{self._node}: sudo refuses: {said}", hint=hint)

    def _run(self, words: list[str], stdin: bytes, *, sudo: bool, limit_seconds: float) -> Completed:
        words = ["timeout", "-k", str(GRACE_SECONDS), f"{limit_seconds:.0f}", *words]
        words, stdin = self._privileged(words, stdin, sudo=sudo)
        return self._exchange(shlex.join(words), stdin, limit_seconds + 2 * GRACE_SECONDS)

    def _privileged(self, words: list[str], stdin: bytes, *, sudo: bool) -> tuple[list[str], bytes]:
        """Return a command and its stdin with sudo in front, and the password where sudo asks for it."""
        if sudo and self._needs_password():
            return ["sudo", "-k", "-S", "-p", "", "--", *words], f"{self._password}\n".encode() + stdin
        return (["sudo", "-n", "--", *words] if sudo else words), stdin

    def _needs_password(self) -> bool:
        """Tell whether sudo asks. Where it does not, a password on stdin would be read as data.

        -k makes it ask each time or never, whatever it was told a moment ago.
        """
        if self._password is None:
            return False
        if self._sudo_asks is None:
            self._sudo_asks = self._exchange("sudo -k -n true", b"", limit_seconds=30).status != 0
            if self._sudo_asks:
                self._check_password()
        return self._sudo_asks

    def _check_password(self) -> None:
        """Try the password alone: after a wrong one sudo would take what follows on stdin for further attempts."""
        done = self._exchange("sudo -k -S -p '' true", f"{self._password}\n".encode(), limit_seconds=30)
        if done.status != 0:
            self._sudo_asks = None
            raise PrivilegeError(f"{self._node}: sudo refuses the password", hint="is it the one of SSH_USER there?")

    def _exchange(self, command: str, stdin: bytes, limit_seconds: float) -> Completed:
        """Run one command line on a channel of its own; never waits longer than the limit."""
        deadline = time.monotonic() + limit_seconds
        self._traffic.executions += 1
        self._traffic.bytes_sent += len(stdin)
        with self._connected():
            channel = self._connection.transport.open_session(timeout=min(limit_seconds, CHANNEL_SECONDS))
            with channel:
                channel.settimeout(limit_seconds)
                channel.exec_command(command.encode(errors="surrogateescape"))
                errors = _Reader(channel.recv_stderr)
                output = _Reader(channel.recv)
                _send(channel, stdin)
                for reader in (output, errors):
                    reader.join(max(0.0, deadline - time.monotonic()))
                channel.status_event.wait(max(0.0, deadline - time.monotonic()))
                status = channel.exit_status if channel.exit_status_ready() else -1
        if status == -1 and not self._connection.transport.is_active():
            raise self._lost("the connection ended before the command did")
        if status == -1 and time.monotonic() >= deadline:
            raise RemoteError(f"{self._node}: no answer after {limit_seconds:.0f} s", hint="exlb verify")
        if status == -1:
            status = ENDED_BY_SIGNAL
        self._traffic.bytes_received += len(output.data) + len(errors.data)
        return Completed(status, output.data.decode(errors="replace"), errors.data.decode(errors="replace"))

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Turn what a connection can end with into an UnreachableError."""
        try:
            yield
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._lost(str(error) or type(error).__name__) from error

    def _lost(self, reason: str) -> UnreachableError:
        return _lost(self._node, reason)


class SshChannel:
    """A program on a node, its stdin open, its stdout read line by line."""

    def __init__(self, node: Node, channel: paramiko.Channel) -> None:
        self._node = node
        self._channel = channel
        self._pending = b""

    def line(self, limit_seconds: float) -> str | None:
        deadline = time.monotonic() + limit_seconds
        while b"\n" not in self._pending:
            self._channel.settimeout(max(0.0, deadline - time.monotonic()))
            try:
                part = self._channel.recv(CHUNK_BYTES)
            except TimeoutError as error:
                raise RemoteError(f"{self._node}: no answer after {limit_seconds:.0f} s", hint="exlb verify") from error
            except (paramiko.SSHException, EOFError, OSError) as error:
                raise _lost(self._node, str(error)) from error
            if not part:
                transport = self._channel.get_transport()
                if transport is None or not transport.is_active():
                    raise _lost(self._node, "the connection ended before the command did")
                return None
            self._pending += part
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace")

    def send(self, text: str) -> None:
        try:
            self._channel.settimeout(CHANNEL_SECONDS)
            self._channel.sendall(text.encode())
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise _lost(self._node, str(error) or "the command has ended") from error

    def errors(self) -> str:
        """Return what it printed on stderr, once it has ended."""
        with suppress(OSError):
            return self._channel.recv_stderr(CHUNK_BYTES).decode(errors="replace").strip()
        return ""

    def close(self) -> None:
        with suppress(paramiko.SSHException, EOFError, OSError):
            self._channel.shutdown_write()
            # Until the program has seen it and ended: who comes next finds nothing of it.
            self._channel.settimeout(GRACE_SECONDS)
            while self._channel.recv(CHUNK_BYTES):
                pass
        with suppress(paramiko.SSHException, EOFError, OSError):
            self._channel.close()


def _lost(node: Node, reason: str) -> UnreachableError:
    return UnreachableError(f"{node}: connection lost: {reason}", hint="exlb verify shows how the node is")


def _bootstrap(program: str, args: Sequence[str], data: str) -> tuple[list[str], bytes]:
    """Return the command that runs a program which comes on its stdin, and that stdin."""
    payload = program.encode()
    return ["sh", "-c", BOOTSTRAP, "exlb", *args], f"{len(payload)}\n".encode() + payload + data.encode()


class _Reader(threading.Thread):
    """Collects one stream of a channel to its end, so that neither stream can stop the other."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        super().__init__(daemon=True)
        self._receive = receive
        self.data = b""
        self.start()

    def run(self) -> None:
        parts = []
        try:
            while part := self._receive(CHUNK_BYTES):
                parts.append(part)
        except OSError:
            pass  # the limit: what came so far counts, the missing exit status tells the rest
        self.data = b"".join(parts)


def _send(channel: paramiko.Channel, stdin: bytes) -> None:
    """Send all of stdin and close it; a command that ends without reading it is no failure of ours."""
    try:
        channel.sendall(stdin)
        channel.shutdown_write()
    except OSError:
        if not channel.exit_status_ready():
            raise
