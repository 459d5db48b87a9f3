"""Cluster + node -> the files of that node. Pure but for reading the templates."""

from __future__ import annotations

import hashlib
import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

import jinja2

from exlb_fab import vrrp
from exlb_fab.cluster import Cluster, Node
from exlb_fab.errors import RenderError
from exlb_fab.platforms import KEEPALIVED_PATH, KEEPALIVED_UNIT, KILLALL
from exlb_fab.proxies import PROXIES, Proxy

DIGEST_LENGTH = 16
_NO_DIGEST = "0" * DIGEST_LENGTH

ROOT = "0:0"

Kind = Literal["proxy", "keepalived", "script"]


@dataclass(frozen=True, slots=True)
class File:
    """One file of a node: where it goes, its text, its mode and owner (uid:gid), and the unit that reads it.

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
        known = sorted(packaged.list_templates())
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
            environment.filters = {**environment.filters, "quoted": quote}
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


def render(cluster: Cluster, node: Node, templates: Templates) -> tuple[File, ...]:
    """Return the files of `node`, the proxy's first.

    Raises RenderError where a template is missing or wrong.
    """
    proxy = PROXIES[cluster.proxy]
    return (_proxy_file(cluster, proxy, templates), _keepalived_file(cluster, node, proxy, templates))


def _proxy_file(cluster: Cluster, proxy: Proxy, templates: Templates) -> File:
    text, digest = templates.render(
        proxy.template,
        proxy.quote,
        {
            "admin_socket": proxy.admin_socket,
            "memory": proxy.memory,
            "stats": cluster.stats,
            "listeners": cluster.listeners,
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


def _keepalived_file(cluster: Cluster, node: Node, proxy: Proxy, templates: Templates) -> File:
    names = [each.name for each in cluster.nodes]
    text, digest = templates.render(
        "keepalived.conf.j2",
        str,
        {
            "node": node,
            "role": vrrp.roles(names)[node.name],
            "priority": vrrp.priorities(len(names))[names.index(node.name)],
            "peers": [each for each in cluster.nodes if each != node],
            "vrrp": cluster.vrrp,
            "vip": f"{cluster.vip}/{cluster.vip.prefix}" if cluster.vip.prefix else str(cluster.vip),
            "tracked": {
                "name": proxy.name,
                "command": f"{KILLALL} -0 {proxy.process}",
                "weight": vrrp.CHECK_WEIGHT,
            },
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


def _mode(text: str, mask: Callable[[str], str]) -> int:
    """Return the mode of a file: what has a password, which may stand in a template of the operator's, is root's."""
    return 0o644 if mask(text) == text else 0o600


def is_address(host: str) -> bool:
    """Tell whether `host` is an address, which needs no resolving."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def mask_keepalived(text: str) -> str:
    """Return keepalived.conf text without the VRRP password in it."""
    # All that begins like it: a typing error is refused, and shown.
    return re.sub(r"(\bauth_(?!type\b)\w*[ \t]+)\S.*", r"\1********", text)
