"""The page of `exlb verify --html` in a real browser: it fits a phone, prints, asks for nothing, and can be read."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from exlb_fab.report.html import page
from tests.unit.test_report import NAMES, verify_report

PHONE, DESKTOP = 390, 1280
PAPER = 680  # A4 less the margins of the page, at 96 pixels per inch
LIMIT_SECONDS = 120
READABLE = 4.5  # the contrast of text on its ground. Source: WCAG 2.2, 1.4.3
# Quiet, and without any names of the world: what a browser asks for on its own account is not the page's doing.
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-extensions",
    "--disable-features=OptimizationHints,MediaRouter,HttpsUpgrades",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip

# Measures pages in frames, whose width media queries see, and so leaves them as they are.
FRAME = '<iframe style="width:%dpx;height:900px;border:0" srcdoc="%s"></iframe>'
WRAPPER = """<!DOCTYPE html>%s
<pre id="found"></pre><script>
const channels = color => color.match(/[\\d.]+/g).map(Number);
const luminance = color => channels(color).slice(0, 3).map(each => each / 255)
  .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
  .reduce((sum, each, at) => sum + each * [0.2126, 0.7152, 0.0722][at], 0);
const ground = (element, style) => {
  for (let each = element; each; each = each.parentElement) {
    const color = style(each).backgroundColor;
    if (channels(color)[3] !== 0) return color;
  }
};
const measured = frame => {
  const inside = frame.contentDocument, root = inside.documentElement, style = frame.contentWindow.getComputedStyle;
  const texts = [...inside.body.querySelectorAll("*")].filter(
    each => [...each.childNodes].some(child => child.nodeType === 3 && child.textContent.trim()));
  const contrast = element => {
    const [dark, light] = [style(element).color, ground(element, style)].map(luminance).sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const written = element => {
    const range = inside.createRange();
    range.selectNodeContents(element);
    return [...range.getClientRects()];
  };
  const broken = element => [...element.childNodes].filter(child => child.nodeType === 3).flatMap(
    child => [...child.data.matchAll(/(?<!\\S)\\S{1,10}(?!\\S)/g)].filter(word => {
      const range = inside.createRange();
      range.setStart(child, word.index);
      range.setEnd(child, word.index + word[0].length);
      return new Set([...range.getClientRects()].map(box => box.top)).size > 1;
    }).map(word => word[0]));
  const seen = texts.filter(each => each.getClientRects().length);
  return {
    width: root.clientWidth,
    needed: root.scrollWidth,
    beyond: seen.filter(each => written(each).some(
      box => box.right > root.clientWidth + 1)).map(each => each.outerHTML),
    broken: seen.flatMap(broken),
    faint: seen.filter(each => contrast(each) < %s).map(each => each.outerHTML + " " + contrast(each)),
    ground: style(inside.body).backgroundColor,
    text: inside.body.innerText,
  };
};
onload = () => {
  found.textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(measured));
};
</script>"""


@dataclass
class Browser:
    """A chromium with a profile of its own."""

    program: str
    folder: Path
    runs: int = 0

    def run(self, *options: str) -> str:
        """Run it once, and return what it prints."""
        self.runs += 1
        words = [self.program, *OPTIONS, f"--user-data-dir={self.folder / f'profile-{self.runs}'}", *options]
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def measure(self, windows: Sequence[tuple[str, int]], *options: str) -> list[dict[str, Any]]:
        """Return how each page lays itself out in a window of a width."""
        wrapper = self.folder / "wrapper.html"
        frames = "".join(FRAME % (width_px, html.escape(text)) for text, width_px in windows)
        wrapper.write_text(WRAPPER % (frames, READABLE))
        dom = self.run(
            "--dump-dom", "--virtual-time-budget=10000", "--window-size=1600,1000", *options, wrapper.as_uri()
        )
        found = re.search(r'<pre id="found">(.+?)</pre>', dom, re.DOTALL)
        assert found, dom[-500:]
        measured: list[dict[str, Any]] = json.loads(html.unescape(found[1]))
        assert len(measured) == len(windows)
        return measured


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """Chromium; where there is none, a developer skips and CI fails."""
    program = shutil.which("chromium")
    if program is None:
        words = "the page was seen by no browser: there is no chromium (tools/setup.sh browser)"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)
    return Browser(program, tmp_path)


RED = page(verify_report())
GREEN = page(verify_report(NAMES[:3]).model_copy(update={"verdicts": ()}))
LONG = page(
    verify_report(("x" * 200,)).model_copy(
        update={"not_asked": ("y" * 300,), "left_out": tuple("z" * 20 for _ in range(40))}
    )
)
SHORT = page(verify_report(("lb1", "lb2", "lb3")))
PAGES = {"red": RED, "green": GREEN, "long words": LONG, "short names": SHORT}


@pytest.mark.parametrize(
    ("options", "ground"),
    [((), "rgb(255, 255, 255)"), (("--force-dark-mode",), "rgb(13, 17, 23)")],
    ids=["day", "night"],
)
def test_page_fits_a_phone_and_a_desktop_and_can_be_read(
    browser: Browser, options: tuple[str, ...], ground: str
) -> None:
    windows = [(name, width_px) for name in PAGES for width_px in (PHONE, DESKTOP)]
    measured = browser.measure([(PAGES[name], width_px) for name, width_px in windows], *options)
    for (name, width_px), found in zip(windows, measured, strict=True):
        assert width_px - 20 <= found["width"] <= width_px, "less a scroll bar"
        assert found["needed"] <= found["width"], (name, width_px)
        assert (found["beyond"], found["faint"]) == ([], []), (name, width_px)
        assert found["ground"] == ground


def test_phone_shows_what_the_desktop_shows(browser: Browser) -> None:
    for found in browser.measure([(RED, PHONE), (RED, DESKTOP)]):
        assert [name for name in NAMES if name not in found["text"]] == []
        assert "48 fail" in found["text"]
        assert "next: exlb verify" in found["text"]


def test_no_short_word_is_broken(browser: Browser) -> None:
    measured = browser.measure([(SHORT, width_px) for width_px in (PHONE, 860, 880, DESKTOP)])
    assert [found["broken"] for found in measured] == [[], [], [], []]


def on_paper(text: str) -> str:
    """Return a page that looks in a window as it does in print."""
    swapped = {"print": "screen", "screen": "print"}
    return re.sub(r"@media (print|screen)", lambda found: f"@media {swapped[found[1]]}", text)


def test_page_fits_on_paper_which_is_always_white(browser: Browser) -> None:
    measured = browser.measure([(on_paper(text), PAPER) for text in PAGES.values()], "--force-dark-mode")
    for name, found in zip(PAGES, measured, strict=True):
        assert found["needed"] <= found["width"], name
        assert (found["beyond"], found["faint"]) == ([], []), name
        assert found["ground"] == "rgb(255, 255, 255)"
    assert measured[list(PAGES).index("short names")]["broken"] == []


def test_page_that_does_not_fit_or_cannot_be_read_is_found(browser: Browser) -> None:
    faults = {
        "beyond": LONG.replace("overflow-wrap: anywhere;", ""),
        "faint": SHORT.replace("--faint: #59636e", "--faint: #ccc"),
        "broken": SHORT.replace("table-layout: fixed;", "word-break: break-all; width: 12rem;"),
    }
    measured = browser.measure([(text, PHONE) for text in faults.values()])
    assert [bool(found[name]) for name, found in zip(faults, measured, strict=True)] == [True, True, True]


@dataclass
class Net:
    """All that a browser can reach: it serves one page under any name, and notes what it is asked for."""

    text: str
    asked: list[str] = field(default_factory=list)

    @property
    def of_pages(self) -> list[str]:
        """Return what pages asked for; what the browser asks for by itself goes to its maker."""
        return [each for each in self.asked if "example.org" in each]


@pytest.fixture
def net() -> Iterator[tuple[Net, str]]:
    """The net, and the option that leads a browser into it."""
    made = Net(RED)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            content = made.text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_CONNECT(self) -> None:
            made.asked.append(self.path)
            self.send_error(502)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server gives it
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield made, f"--proxy-server=127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(10)


def test_page_asks_for_nothing_but_itself(browser: Browser, net: tuple[Net, str]) -> None:
    made, way = net
    assert "Findings" in browser.run("--dump-dom", way, "http://page.example.org/")
    assert made.of_pages == ["http://page.example.org/"]


@pytest.mark.parametrize(
    "outside", ['<img src="http://img.example.org/">', "<style>@import 'https://css.example.org'</style>"]
)
def test_page_that_asks_for_more_is_found_and_its_policy_would_stop_it(
    browser: Browser, net: tuple[Net, str], outside: str
) -> None:
    made, way = net
    made.text = RED.replace("</main>", f"{outside}</main>")
    browser.run("--dump-dom", "--virtual-time-budget=5000", way, "http://page.example.org/")
    assert made.of_pages == ["http://page.example.org/"]
    made.text = re.sub(r"<meta http-equiv=[^>]*>", "", made.text)
    browser.run("--dump-dom", "--virtual-time-budget=5000", way, "http://page.example.org/")
    assert len(made.of_pages) > 2


@pytest.mark.parametrize("name", PAGES)
def test_page_prints(browser: Browser, name: str, tmp_path: Path) -> None:
    place, printed = tmp_path / "page.html", tmp_path / "page.pdf"
    place.write_text(PAGES[name])
    browser.run("--no-pdf-header-footer", "--force-dark-mode", f"--print-to-pdf={printed}", place.as_uri())
    content = printed.read_bytes()
    assert content.startswith(b"%PDF-")
    pages = len(re.findall(rb"/Type\s*/Page\b", content))
    assert 1 <= pages <= 12
