"""Texts of models that want to run, load or style something on a labelling page, in a real browser."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("selenium", reason="The tests of the pages need selenium: pip install 'rlhf-dagster[dev]'.")

from integration.annotation_examples import PAGES, pages, said
from integration.annotation_pages import Work, annotating, comparison
from label_studio import LabelStudioServer
from selenium.webdriver.remote.webdriver import WebDriver

pytestmark = pytest.mark.integration


PAYLOADS = [
    "<script>window.broken='script'</script>",
    "<img src=x onerror=\"window.broken='onerror'\">",
    "<svg onload=\"window.broken='svg'\"></svg>",
    "<svg><script>window.broken='svg script'</script></svg>",
    "<iframe srcdoc=\"<script>parent.broken='srcdoc'</script>\"></iframe>",
    '<iframe src="https://www.youtube.com/embed/x" srcdoc="<script>parent.broken=1</script>"></iframe>',
    "<style>html{outline:7px solid rgb(1,2,3)}</style>",
    "<img src='{canary}/image.png'>",
    "<a href=\"javascript:window.broken='link'\" id=link>press</a>",
    "<object data='{canary}/object'></object><embed src='{canary}/embed'>",
    "<form action='{canary}/form'><input autofocus onfocus=\"window.broken='focus'\"></form>",
    "<meta http-equiv=refresh content='0;url={canary}/meta'>",
    "<link rel=stylesheet href='{canary}/style.css'>",
    "<details open ontoggle=\"window.broken='toggle'\">x</details>",
    "![picture]({canary}/markdown.png)",
    "[text](javascript:window.broken=2) <{canary}/auto> {canary}/bare",
    "```\"><script>window.broken='fence'</script>\n</code><script>window.broken=3</script>\n```",
]
ELEMENTS = "script, iframe, img, svg, object, embed, form, input, meta, link, style, a, details"


@pytest.fixture(scope="module")
def browser(label_studio: LabelStudioServer) -> Iterator[WebDriver]:
    with annotating(label_studio) as driver:
        yield driver


@pytest.fixture(scope="module")
def canary() -> Iterator[tuple[str, list[str]]]:
    """A server that payloads call: its address, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


@pytest.mark.parametrize("name", pages("pair", "ranking", "demonstration"))
def test_nothing_in_a_text_runs_loads_or_styles(
    browser: WebDriver, label_studio: LabelStudioServer, canary: tuple[str, list[str]], name: str
) -> None:
    address, asked = canary
    page = PAGES[name]
    texts = [payload.replace("{canary}", address) for payload in PAYLOADS]
    prompt = "\n\n".join(texts)
    responses = ["\n\n".join(texts[part:]) for part in range(len(page.responses))]
    settings = page.settings.changed(instructions=prompt)
    rows = [comparison(page.kind, page.purpose, 1, responses, f"User: {prompt}\nAssistant: {prompt}\nUser: {prompt}")]
    work = Work.on(browser, label_studio, settings, rows)
    work.begin()
    shown = browser.execute_script(
        "return [...document.querySelectorAll('.rl-prompt, .rl-card')].map(e => e.innerText)"
    )
    assert all("<script>window.broken='script'</script>" in text for text in [shown[0], shown[-1]])
    assert asked == []
    assert damage(browser, label_studio.url) == []
    # The page still works.
    page.click(work)
    work.submit()
    assert said(work, 1, page, rows) == page.clicked
    assert damage(browser, label_studio.url) == []


def test_damage_would_be_seen(browser: WebDriver, label_studio: LabelStudioServer) -> None:
    """What Label Studio shows as it is does apply, so that the test above can fail."""
    page = PAGES["demonstration"]
    work = Work.on(browser, label_studio, page.settings, page.rows(1))
    first = work.client.task_page(work.project)[0]
    work.client.delete_tasks(work.project, [first["id"]])
    staying = [payload for payload in PAYLOADS if "refresh" not in payload]
    work.add([{"comparison": "raw", "prompt_html": "<p>Raw</p>" + "".join(staying)}])
    work.begin()
    found = damage(browser, label_studio.url)
    assert "a style applies" in found
    assert any(sentence.endswith("in a text") for sentence in found)
    # The server's content security policy stops what gets past the rest.
    assert not any("ran" in sentence for sentence in found)


def damage(browser: WebDriver, address: str) -> list[str]:
    """What texts did to the page."""
    found = []
    broken = browser.execute_script("return window.broken")
    if broken:
        found.append(f"{broken} ran")
    if "rgb(1, 2, 3)" in browser.execute_script("return getComputedStyle(document.documentElement).outline"):
        found.append("a style applies")
    elements = browser.execute_script(
        "return [...document.querySelectorAll('.rl-prompt, .rl-card, .rl-text')].flatMap("
        "  text => [...text.querySelectorAll(arguments[0])].filter(e => !e.closest('.rl-ratings')))"
        ".map(e => e.tagName)",
        ELEMENTS,
    )
    found += [f"{element} in a text" for element in elements]
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    return found + [f"{name} was asked for" for name in asked if not name.startswith((address, "data:", "blob:"))]
