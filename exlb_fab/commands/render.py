"""render: the files of every node, without contacting any."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from exlb_fab import rendering
from exlb_fab.cluster import Cluster
from exlb_fab.commands.base import Report, select
from exlb_fab.errors import ExlbError, UsageError
from exlb_fab.platforms import Version, parse_version


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """`out` is the directory to write to: NODE/PATH below it; None only shows. `target` stands for the nodes."""

    nodes: tuple[str, ...] = ()
    out: Path | None = None
    templates: Path | None = None
    target: rendering.Target = field(default_factory=rendering.Target)


class RenderedFile(BaseModel):
    """One file of one node; `text` is masked, `written` is where the true one went."""

    model_config = ConfigDict(frozen=True)

    node: str
    path: str
    mode: str
    sha256: str
    text: str
    written: str | None


class RenderReport(Report):
    """The files of the chosen nodes; `notes` say what a node gets instead of what the environment file asks for."""

    files: tuple[RenderedFile, ...]
    notes: tuple[str, ...]


def render(cluster: Cluster, options: RenderOptions) -> RenderReport:
    """Render the files of every node. Raises ExlbError where `out` cannot be written."""
    templates = rendering.Templates(options.templates)
    rendered = {
        node: rendering.render(cluster, node, templates, options.target) for node in select(cluster, options.nodes)
    }
    return RenderReport(
        files=tuple(
            RenderedFile(
                node=node.name,
                path=file.path,
                mode=f"{file.mode:04o}",
                sha256=file.sha256,
                text=file.mask(file.text),
                written=_write(options.out / node.name, file) if options.out else None,
            )
            for node, each in rendered.items()
            for file in each.files
        ),
        notes=tuple(dict.fromkeys(note for each in rendered.values() for note in each.notes)),
    )


def target(proxy: str | None, keepalived: str | None, interface: str | None) -> rendering.Target:
    """Return what files are rendered for by what the user says of the nodes. Raises UsageError on no version."""
    return rendering.Target(_version("proxy", proxy), _version("keepalived", keepalived), interface=interface)


def _version(program: str, text: str | None) -> Version | None:
    found = parse_version(text) if text else None
    if text and found is None:
        raise UsageError(f"--{program}-version {text}: not a version", hint="write its numbers, as in 2.2")
    return found


def _write(directory: Path, file: rendering.File) -> str:
    target = directory / file.path.lstrip("/")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(mode=file.mode)
        target.chmod(file.mode)
        target.write_text(file.text, encoding="utf-8")
    except OSError as error:
        raise ExlbError(f"cannot write {target}: {error.strerror}", hint="--out DIR names another directory") from error
    return str(target)
