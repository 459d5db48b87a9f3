"""deploy: install, push-config, verify, each only if the one before it went well."""

from __future__ import annotations

from dataclasses import dataclass

from exlb_fab.cluster import Cluster
from exlb_fab.commands.base import Report
from exlb_fab.commands.install import InstallOptions, InstallReport, install
from exlb_fab.commands.push_config import PushOptions, PushReport, push_config
from exlb_fab.commands.verify import VerifyOptions, VerifyReport, verify
from exlb_fab.fleet import Fleet


@dataclass(frozen=True, slots=True)
class DeployOptions:
    """The options of the three parts."""

    install: InstallOptions
    push: PushOptions
    verify: VerifyOptions


class DeployReport(Report):
    """The reports of the parts that ran."""

    install: InstallReport
    push: PushReport | None = None
    verify: VerifyReport | None = None

    @property
    def exit_code(self) -> int:
        last = self.verify or self.push or self.install
        return last.exit_code


def deploy(cluster: Cluster, options: DeployOptions, fleet: Fleet) -> DeployReport:
    """Take nodes from fresh to serving."""
    installed = install(cluster, options.install, fleet)
    if installed.exit_code or fleet.stopped:
        return DeployReport(install=installed)
    pushed = push_config(cluster, options.push, fleet)
    if pushed.exit_code or fleet.stopped:
        return DeployReport(install=installed, push=pushed)
    return DeployReport(install=installed, push=pushed, verify=verify(cluster, options.verify, fleet))
