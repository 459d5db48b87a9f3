"""Cluster + node -> the files of that node. Pure but for reading the templates."""

from __future__ import annotations

import hashlib
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

import jinja2

from exlb_fab import node as programs
from exlb_fab import platforms, system
from exlb_fab.cluster import Address, Cluster, Node, Track, bracketed
from exlb_fab.errors import RenderError
from exlb_fab.platforms import KEEPALIVED_PATH, KEEPALIVED_UNIT, KILLALL, Version
from exlb_fab.proxies import PROXIES, Proxy
from exlb_fab.values import is_address

DIGEST_LENGTH = 16
_NO_DIGEST = "0" * DIGEST_LENGTH

ROOT = "0:0"
ATTACHMENT_DIGITS = 12
SCRIPTS = "/etc/keepalived"
SCRIPT_NAMES: Mapping[Track, str] = {"apiserver": "check-apiserver.sh", "port": "check-port.sh"}
EXPORTER = "prometheus-exporter"

Kind = Literal["proxy", "keepalived", "attachment", "drop-in", "sysctl", "guard"]


@dataclass(frozen=True, slots=True)
class File:
    """One file of a node: where it goes, its text, its mode and owner (uid:gid), and the unit that reads it.

    An attachment is named by its content, and another file names it: it is in place before that one, and never changes.

    `digest` is the hash that its own first line names, "" where exlb did not write it; `mask` hides the passwords in
    it, or in another version of it. `known_sha256` is that of its bytes where `text` may not be all of them.
    """

    path: str
    text: str
    mode: int
    kind: Kind
    unit: str
    digest: str
    mask: Callable[[str], str]
    owner: str = ROOT
    known_sha256: str = ""

    @property
    def sha256(self) -> str:
        return self.known_sha256 or hashlib.sha256(self.text.encode()).hexdigest()


class Templates:
    """The packaged templates, each of which a file of the same name in `directory` replaces.

    Raises RenderError for a file there that replaces none.
    """

    def __init__(self, directory: Path | None = None) -> None:
        packaged = jinja2.FileSystemLoader(str(resources.files("exlb_fab").joinpath("templates")))
        own = [jinja2.FileSystemLoader(directory)] if directory else []
        # A report is no file of a node.
        known = sorted(name for name in packaged.list_templates() if not name.endswith(".html.j2"))
        for path in sorted(directory.glob("*.j2")) if directory else ():
            if path.name not in known or not path.is_file():
                raise RenderError(f"{path}: replaces no template", hint=f"the templates are {', '.join(known)}")
        self._environment = jinja2.Environment(  # noqa: S701 - configuration files, not HTML
            loader=jinja2.ChoiceLoader([*own, packaged]),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self._quotings: dict[Callable[[str], str], jinja2.Environment] = {}

    def render(self, name: str, quote: Callable[[str], str], values: Mapping[str, object]) -> tuple[str, str]:
        """Return the text of a template and the digest that it names.

        The digest is taken of the text with zeros in its place, so that a file can carry its own. Raises RenderError
        with the template's name and line.
        """
        try:
            template = self._quoting(quote).get_template(name)
            digest = hashlib.sha256(_lines(template, values, _NO_DIGEST).encode()).hexdigest()[:DIGEST_LENGTH]
            text = _lines(template, values, digest)
        except Exception as error:
            raise RenderError(f"{_place(error, name)}: {error}", hint="correct the template") from error
        return text, digest

    def _quoting(self, quote: Callable[[str], str]) -> jinja2.Environment:
        """Return the environment with one proxy's `quoted`; it compiles each template once for all nodes."""
        if quote not in self._quotings:
            environment = self._environment.overlay()
            own = {"quoted": quote, "duration": duration, "endpoint": endpoint}
            environment.filters = {**environment.filters, **own}
            environment.tests = {**environment.tests, "an_address": is_address}
            self._quotings[quote] = environment
        return self._quotings[quote]


def _place(error: Exception, name: str) -> str:
    """Return `template:line` of the innermost template that an error comes from."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{error.filename or name}:{error.lineno}"
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename.endswith(".j2")]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else f"template {name}"


def _lines(template: jinja2.Template, values: Mapping[str, object], digest: str) -> str:
    """Return the text of a template as whole lines, also where the template's last one has no end."""
    text = template.render(**values, digest=digest)
    return text if text.endswith("\n") or not text else f"{text}\n"


@dataclass(frozen=True, slots=True)
class Target:
    """What the files of one node are rendered for: what its programs are, and where they run.

    A version of None stands for the newest. `services` is what the proxy's binary is built with, None where that is
    not known; `interface` is the one that carries the VIPs, None where nothing says which. `contained` tells that the
    node is a container, `settings` how its system is set.
    """

    proxy: Version | None = None
    keepalived: Version | None = None
    services: frozenset[str] | None = None
    interface: str | None = None
    contained: bool = False
    settings: system.Settings = field(default_factory=system.Settings)

    @property
    def exports(self) -> bool:
        """Tell whether the proxy is built to answer Prometheus; where nobody knows, it is taken to be."""
        return self.services is None or EXPORTER in self.services


@dataclass(frozen=True, slots=True)
class Check:
    """One check that keepalived makes on its node: of a process by the kernel's events, or by a command."""

    name: str
    process: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The files of one node, the proxy's first, and those that exlb would write for another configuration.

    `notes` say where the node gets something else than the environment file asks for, and why.
    """

    files: tuple[File, ...]
    absent: tuple[File, ...] = ()
    notes: tuple[str, ...] = ()


def render(cluster: Cluster, node: Node, templates: Templates, target: Target) -> Rendered:
    """Return the files of `node`.

    Raises RenderError where a template is missing or wrong, or where nothing says which interface carries the VIP.
    """
    proxy = PROXIES[cluster.proxy]
    authorities = _authorities(cluster, proxy)
    attachments = {file.path: file for file in (*authorities.values(), *_scripts(cluster).values())}
    features = platforms.features(proxy.features, target.proxy)
    proxy_file = _proxy_file(cluster, node, proxy, templates, target, features, authorities)
    keepalived_file = _keepalived_file(cluster, node, proxy, templates, target)
    system_files = [_system_file(each) for each in system.files(cluster, _interface(node, target), target.settings)]
    return Rendered(
        files=(proxy_file, keepalived_file, *attachments.values(), *(file for file in system_files if file.text)),
        absent=tuple(file for file in system_files if not file.text),
        notes=tuple(_notes(cluster, proxy, target, features)),
    )


def paths(cluster: Cluster) -> tuple[str, ...]:
    """Return the paths at which exlb may have a file for this cluster on any node; a guard's only the node can tell."""
    proxy = PROXIES[cluster.proxy]
    attachments = (*_authorities(cluster, proxy).values(), *_scripts(cluster).values())
    fixed = (proxy.path, KEEPALIVED_PATH, *system.paths(cluster))
    return tuple(dict.fromkeys((*fixed, *(file.path for file in attachments))))


def _system_file(found: system.SystemFile) -> File:
    return File(found.path, found.text, 0o644, found.kind, found.unit, "", str)


def _interface(node: Node, target: Target) -> str | None:
    """Return the interface that carries the VIPs, None where nothing says which."""
    return node.interface or target.interface


def _proxy_file(
    cluster: Cluster,
    node: Node,
    proxy: Proxy,
    templates: Templates,
    target: Target,
    features: frozenset[str],
    authorities: Mapping[str, File],
) -> File:
    text, digest = templates.render(
        proxy.template,
        proxy.quote,
        {
            "admin_socket": proxy.admin_socket,
            "memory": proxy.memory,
            "proxying": cluster.proxying,
            "stats": cluster.stats,
            "exporter": cluster.stats.exporter and target.exports,
            "listeners": cluster.listeners,
            "addresses": cluster.addresses(node),
            "ca_files": {name: file.path for name, file in authorities.items()},
            "features": features,
        },
    )
    if proxy.mark(digest) not in text:
        raise RenderError(
            f"template {proxy.template}: `{proxy.mark('{{ digest }}')}` is missing: without it nobody can tell which "
            "configuration runs",
            hint="add that line to the template",
        )
    return File(
        path=proxy.path,
        text=text,
        mode=0o600 if cluster.stats.password else _mode(text, proxy.mask),
        kind="proxy",
        unit=proxy.unit,
        digest=digest,
        mask=proxy.mask,
    )


def _keepalived_file(cluster: Cluster, node: Node, proxy: Proxy, templates: Templates, target: Target) -> File:
    interface = _interface(node, target)
    if interface is None:
        raise RenderError(
            f"{node}: VIP_IF=auto: only the node can tell which interface it is",
            hint="exlb push-config --dry-run asks the nodes; exlb render --interface NAME takes your word",
        )
    family = cluster.vip.address.version
    text, digest = templates.render(
        "keepalived.conf.j2",
        str,
        {
            "node": node,
            "interface": interface,
            "role": cluster.role(node),
            "peers": [each for each in cluster.nodes if each != node and cluster.vrrp.mode == "unicast"],
            "vrrp": cluster.vrrp,
            "vips": [vip for vip in cluster.vips if vip.address.version == family],
            "others": [vip for vip in cluster.vips if vip.address.version != family],
            "checks": _checks(cluster, node, proxy, target),
        },
    )
    return File(
        path=KEEPALIVED_PATH,
        text=text,
        mode=_mode(text, mask_keepalived),
        kind="keepalived",
        unit=KEEPALIVED_UNIT,
        digest=digest,
        mask=mask_keepalived,
    )


def _checks(cluster: Cluster, node: Node, proxy: Proxy, target: Target) -> tuple[Check, ...]:
    """Return what keepalived checks on a node; a process by a script where the kernel's events do not reach it."""
    scripts = _scripts(cluster)
    seconds = cluster.vrrp.check_timeout_seconds
    port = cluster.apiserver_listener.port
    own = f"{bracketed(str(cluster.own_address(node)))}:{port}"
    through = f"{bracketed(str(cluster.vip))}:{port}"
    by_script = Check(proxy.name, command=f"{KILLALL} -0 {proxy.process}")

    def check(track: Track) -> Check:
        match track:
            case "process":
                return by_script if why_no_events(target) else Check(proxy.name, process=proxy.process)
            case "script":
                return by_script
            case "port":
                return Check("port", command=f"{scripts['port'].path} {seconds} {own}")
            case "apiserver":
                asked = f"{seconds / 2:g} https://{own}/readyz {cluster.vip} https://{through}/readyz"
                return Check("apiserver", command=f"{scripts['apiserver'].path} {asked}")

    return tuple({found.name: found for found in map(check, cluster.vrrp.track)}.values())


def why_no_events(target: Target) -> str:
    """Say why keepalived cannot follow processes on a node, "" where it can.

    Source: docs/findings.md, the kernel's process connector answers in the initial network namespace only.
    """
    if target.contained:
        return "in a container the kernel does not tell it of processes"
    if "track-process" not in platforms.features(platforms.KEEPALIVED_FEATURES, target.keepalived):
        return f"keepalived {target.keepalived} has no vrrp_track_process (it came with 2.0.11)"
    return ""


def _notes(cluster: Cluster, proxy: Proxy, target: Target, features: frozenset[str]) -> Iterator[str]:
    """Yield what the node gets instead of what the environment file asks for."""
    reason = why_no_events(target)
    if "process" in cluster.vrrp.track and reason:
        yield f"TRACK=process: {reason}: a script checks the process every {cluster.vrrp.check_interval_seconds} s"
    if cluster.stats.exporter and "exporter" in features and not target.exports:
        yield f"EXPORTER=yes: this {proxy.name} is built without {EXPORTER}: there is no /metrics"
    unit = target.settings.units.get(proxy.unit)
    if cluster.proxying.log == "syslog" and unit and proxy.log_socket not in unit.bound:
        yield (
            f"LOG=syslog: the unit of {proxy.name} brings no /dev/log into its chroot: nothing is logged, unless "
            f"something else, like rsyslog, listens at {proxy.log_socket}; LOG=journal needs neither"
        )
    settings = (
        ("log-stdout", cluster.proxying.log == "journal", "LOG=journal", "it logs to /dev/log, if its chroot has one"),
        ("hard-stop-after", cluster.proxying.hard_stop_after_ms, "HARD_STOP_AFTER", "old processes end by themselves"),
        ("init-addr", _names_backends(cluster), "DNS names of backends", "it does not start while one is not resolved"),
        ("exporter", cluster.stats.exporter, "EXPORTER=yes", "there is no /metrics"),
        ("state-file", cluster.proxying.keeps_drains, "SERVER_STATE=yes", "a reload forgets what is drained"),
    )
    for feature, wanted, name, instead in settings:
        if wanted and feature not in features:
            yield f"{name}: {proxy.name} {target.proxy} cannot: {instead}"


def _names_backends(cluster: Cluster) -> bool:
    """Tell whether a backend is written as a DNS name."""
    return not all(is_address(each.host) for listener in cluster.listeners for each in listener.backends)


def _authorities(cluster: Cluster, proxy: Proxy) -> dict[str, File]:
    """Return the file with the authorities of each listener that checks certificates."""
    folder = proxy.path.rpartition("/")[0]
    return {
        listener.name: _attachment(f"{folder}/exlb-ca-", ".pem", listener.check.ca, 0o644, proxy.unit)
        for listener in cluster.listeners
        if listener.check.ca
    }


def _scripts(cluster: Cluster) -> dict[Track, File]:
    """Return the scripts that keepalived runs."""
    return {
        track: _attachment(f"{SCRIPTS}/exlb-check-{track}-", ".sh", programs.program(name), 0o755, KEEPALIVED_UNIT)
        for track, name in SCRIPT_NAMES.items()
        if track in cluster.vrrp.track
    }


def _attachment(prefix: str, suffix: str, text: str, mode: int, unit: str) -> File:
    """Return a file that another one names, by its content: the one in use is never changed under a program."""
    name = hashlib.sha256(text.encode()).hexdigest()[:ATTACHMENT_DIGITS]
    return File(f"{prefix}{name}{suffix}", text, mode, "attachment", unit, "", str)


def _mode(text: str, mask: Callable[[str], str]) -> int:
    """Return the mode of a file: what has a password, which may stand in a template of the operator's, is root's."""
    return 0o644 if mask(text) == text else 0o600


def duration(milliseconds: int) -> str:
    """Return a time as the proxy's configuration says it, in the largest unit that is exact."""
    units = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000))
    return next((f"{milliseconds // ms}{unit}" for unit, ms in units if not milliseconds % ms), f"{milliseconds}ms")


def endpoint(address: Address, port: int) -> str:
    """Return `address:port`, an IPv6 address in brackets."""
    return f"{bracketed(str(address))}:{port}"


def mask_keepalived(text: str) -> str:
    """Return keepalived.conf text without the VRRP password in it."""
    # All that begins like it: a typing error is refused, and shown.
    return re.sub(r"(\bauth_(?!type\b)\w*[ \t]+)\S.*", r"\1********", text)
