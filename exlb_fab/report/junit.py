"""A report of verify or doctor -> JUnit XML, as CI servers read it: a suite per family, a case per check and node."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from exlb_fab.commands.questionnaire import VerdictRow, VerdictsReport
from exlb_fab.commands.verify import VerifyReport

# Source: XML 1.0, production 2 (Char); what a program printed on a node may be anything.
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
COUNTED = ("failure", "error", "skipped")


def junit(report: VerdictsReport) -> str:
    """Return JUnit XML in ASCII, so that the encoding of whatever carries it does not matter.

    Source: the schemas of Maven Surefire (surefire-test-report.xsd) and of Jenkins' xUnit plugin (junit-10.xsd).
    """
    suites = Element("testsuites", name=f"exlb {_command(report)} {report.vip}")
    for family, verdicts in groupby(report.verdicts, lambda verdict: _family(verdict.check)):
        _suite(suites, report, family, [_case(verdict) for verdict in verdicts])
    if report.left_out:
        _suite(suites, report, "left out", [_left_out(check) for check in report.left_out])
    if report.interrupted:
        _suite(suites, report, "interrupted", [_interrupted(report)])
    for name, value in _counts(suites.iter("testcase")).items():
        suites.set(name, value)
    ElementTree.indent(suites)
    text: bytes = ElementTree.tostring(suites, encoding="us-ascii", xml_declaration=True)
    return text.decode("ascii")


def _suite(suites: Element, report: VerdictsReport, name: str, cases: list[Element]) -> None:
    suite = SubElement(suites, "testsuite", name=f"exlb.{name}", timestamp=f"{report.at:%Y-%m-%dT%H:%M:%S}", time="0")
    for key, value in _counts(cases).items():
        suite.set(key, value)
    properties = SubElement(suite, "properties")
    told = {"vip": report.vip}
    if isinstance(report, VerifyReport):
        told["holders"] = ", ".join(report.holders)
    for key, value in {**told, "verdict": report.word}.items():
        SubElement(properties, "property", name=key, value=value)
    suite.extend(cases)


def _counts(cases: Iterable[Element]) -> dict[str, str]:
    found = list(cases)
    failures, errors, skipped = (sum(case.find(name) is not None for case in found) for name in COUNTED)
    return {"tests": str(len(found)), "failures": str(failures), "errors": str(errors), "skipped": str(skipped)}


def _case(verdict: VerdictRow) -> Element:
    name = f"{verdict.check} {verdict.node}" if verdict.node else verdict.check
    case = Element("testcase", classname=f"exlb.{_family(verdict.check)}", name=_clean(name), time="0")
    said = _clean(_said(verdict))
    match verdict.status:
        case "fail":
            SubElement(case, "failure", message=_clean(verdict.text), type="fail").text = said
        case "skip":
            SubElement(case, "skipped", message=_clean(verdict.text))
        case "warn":
            SubElement(case, "system-out").text = f"warning: {said}"
        case "pass":
            SubElement(case, "system-out").text = said
    return case


def _left_out(check: str) -> Element:
    case = Element("testcase", classname=f"exlb.{_family(check)}", name=check, time="0")
    SubElement(case, "skipped", message="left out")
    return case


def _interrupted(report: VerdictsReport) -> Element:
    case = Element("testcase", classname=f"exlb.{_command(report)}", name="came to its end", time="0")
    SubElement(case, "error", message="interrupted: there is no verdict", type="interrupted")
    return case


def _said(verdict: VerdictRow) -> str:
    hint = f"next: {verdict.hint}" if verdict.hint else None
    return "\n".join(part for part in (verdict.text, verdict.cause, hint) if part)


def _command(report: VerdictsReport) -> str:
    return report.format.split("/")[1]


def _family(check: str) -> str:
    return check.partition(".")[0]


def _clean(text: str) -> str:
    """Return a text with what XML cannot carry, not even escaped, spelled out."""
    return FORBIDDEN.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
