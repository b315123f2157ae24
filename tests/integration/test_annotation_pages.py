"""Every kind of labelling page in a real Label Studio and a real browser, from login to what is stored."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("selenium", reason="The tests of the pages need selenium: pip install 'rlhf-dagster[dev]'.")

from integration.annotation_pages import Work, comparison, log_in
from integration.ui import browsing, require_browser, screenshot
from label_studio import LabelStudioServer
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver

from rlhf_dagster.labeling.label_studio.results import decode
from rlhf_dagster.labeling.settings import LabelingSettings

pytestmark = pytest.mark.integration

FOUR = ["One answer.", "Another answer.", "A third answer.", "The last answer."]
TWO = FOUR[:2]
RATING = LabelingSettings(kind="rating", responses_per_prompt=2, rating_axes=["overall", "not_harmful"])


@dataclass(frozen=True)
class Page:
    """A page, how to answer it with the mouse and with the keyboard, and what both say."""

    kind: str
    purpose: str
    settings: LabelingSettings
    responses: list[str]
    refusal: str
    click: Callable[[Work], None]
    type: Callable[[Work], None]
    clicked: dict[str, Any]
    typed: dict[str, Any]

    def rows(self, n: int) -> list[dict[str, Any]]:
        return [comparison(self.kind, self.purpose, number, self.responses) for number in range(1, n + 1)]


def click_pair(work: Work) -> None:
    work.choose("B is slightly better", "Unsafe content", "All are bad")
    work.write("rationale", "It is <b>shorter</b>.")


def type_pair(work: Work) -> None:
    work.press_until_chosen("1", "A is much better")
    work.press("e")
    work.type_into("rationale", *"2 is right")


def type_best(work: Work) -> None:
    work.press_until_chosen("4", "D")
    work.press("2")


def click_ranking(work: Work) -> None:
    for letter, rank in (("c", 1), ("a", 2), ("d", 2), ("b", 4)):
        work.drag(letter, rank)
    work.choose("Order is final")


def type_ranking(work: Work) -> None:
    for letter, rank in (("b", 1), ("d", 2), ("a", 2), ("c", 3)):
        work.carry(letter, rank)
    # Out of the ranker, where the space bar lifts.
    work.driver.execute_script("document.activeElement.blur()")
    work.press_until_chosen("1", "Order is final")


def click_rating(work: Work) -> None:
    for row, stars in enumerate((7, 2, 4, 1)):
        work.rate(row, stars)


def type_rating(work: Work) -> None:
    work.press_until_chosen("q", "All are bad")
    work.press(*"1223334444")


def click_ab(work: Work) -> None:
    work.choose("A is better", row=0)
    work.choose("Tie", row=1)
    work.choose("B is better", row=2)


def type_ab(work: Work) -> None:
    work.press_until_chosen("8", "Tie")
    work.press("3", "4")


def type_demonstration(work: Work) -> None:
    work.type_into("demonstration", *"1 or 2", Keys.ENTER, *"all")


PAGES = {
    "pair": Page(
        "pair",
        "train",
        LabelingSettings(kind="pair"),
        TWO,
        "Choose one, or skip the task.",
        click_pair,
        type_pair,
        {"choice": 1, "strength": 0.5, "flags": ["both_bad", "unsafe"], "reason": "It is <b>shorter</b>."},
        {"choice": 0, "strength": 1.0, "flags": ["bad_prompt"], "reason": "2 is right"},
    ),
    "pair without strength": Page(
        "pair",
        "train",
        LabelingSettings(kind="pair", strength=False),
        TWO,
        "Choose one, or skip the task.",
        lambda work: work.choose("B is better"),
        lambda work: work.press_until_chosen("2", "Tie"),
        {"choice": 1},
        {"choice": "tie"},
    ),
    "best of four": Page(
        "best_of_k",
        "train",
        LabelingSettings(kind="best_of_k"),
        FOUR,
        "Mark the best response, or skip the task.",
        lambda work: work.choose("C"),
        type_best,
        {"best": 2},
        {"best": [1, 3]},
    ),
    "ranking": Page(
        "ranking",
        "train",
        LabelingSettings(kind="ranking"),
        FOUR,
        "Say whether the order is final, or skip the task.",
        click_ranking,
        type_ranking,
        {"ranks": [2, 3, 1, 2]},
        {"ranks": [2, 1, 3, 2]},
    ),
    "rating": Page(
        "rating",
        "train",
        RATING,
        TWO,
        "Rate Overall of response A too, or skip the task.",
        click_rating,
        type_rating,
        {"ratings": {"overall": [7, 4], "not_harmful": [2, 1]}},
        {"ratings": {"overall": [1, 3], "not_harmful": [2, 4]}, "flags": ["both_bad"]},
    ),
    "A/B": Page(
        "pair",
        "evaluation",
        LabelingSettings(evaluation_axes=["helpful", "honest"]),
        TWO,
        "Choose for Helpful too, or skip the task.",
        click_ab,
        type_ab,
        {"choice": 1, "axes": {"helpful": 0, "honest": "tie"}},
        {"choice": "tie", "axes": {"helpful": 1, "honest": 0}},
    ),
    "demonstration": Page(
        "demonstration",
        "demonstrations",
        LabelingSettings(),
        [],
        "Write a response, or skip the task.",
        lambda work: work.write("demonstration", "Because **2 + 2** is 4.\n\nThat is all."),
        type_demonstration,
        {"text": "Because **2 + 2** is 4.\n\nThat is all."},
        {"text": "1 or 2\nall"},
    ),
}


@pytest.fixture(scope="module")
def browser(label_studio: LabelStudioServer) -> Iterator[WebDriver]:
    """A browser in which somebody has logged in."""
    require_browser()
    with browsing() as driver:
        log_in(driver, label_studio)
        yield driver


@pytest.mark.parametrize("name", PAGES)
def test_what_is_stored_is_what_was_chosen(browser: WebDriver, label_studio: LabelStudioServer, name: str) -> None:
    page = PAGES[name]
    rows = page.rows(4)
    work = Work.on(browser, label_studio, page.settings, rows)
    work.begin()

    work.on_question(1)
    work.submit()
    work.refused(page.refusal)
    page.click(work)
    work.submit()
    assert said(work, 1, page, rows) == page.clicked

    work.on_question(2)
    page.type(work)
    work.press_submit()
    assert said(work, 2, page, rows) == page.typed

    work.on_question(3)
    work.skip()
    skipped = work.stored(3)
    assert skipped["was_cancelled"]
    assert not skipped["result"]

    work.on_question(4)
    work.press_skip()
    assert work.stored(4)["was_cancelled"]
    assert work.count() == 4


@pytest.mark.parametrize("name", [name for name in PAGES if name != "demonstration"])
def test_cannot_decide_is_an_answer_of_its_own(browser: WebDriver, label_studio: LabelStudioServer, name: str) -> None:
    page = PAGES[name]
    rows = page.rows(2)
    work = Work.on(browser, label_studio, page.settings, rows)
    work.begin()
    work.on_question(1)
    work.choose("Cannot decide")
    work.submit()
    assert said(work, 1, page, rows) == {"cannot_decide": True}
    work.on_question(2)
    work.press_until_chosen("0", "Cannot decide")
    work.press_submit()
    assert said(work, 2, page, rows) == {"cannot_decide": True}


def test_untouched_or_unfinished_ranking_is_not_taken_for_one(
    browser: WebDriver, label_studio: LabelStudioServer
) -> None:
    page = PAGES["ranking"]
    rows = page.rows(2)
    work = Work.on(browser, label_studio, page.settings, rows)
    work.begin()
    work.on_question(1)
    work.choose("Order is final")
    work.submit()
    assert "not finished" in said(work, 1, page, rows)["unreadable"]
    work.on_question(2)
    work.drag("b", 1)
    work.choose("Order is final")
    work.submit()
    assert "not finished" in said(work, 2, page, rows)["unreadable"]


@pytest.mark.parametrize("name", ["best of four", "ranking"])
def test_comparison_of_fewer_responses_shows_only_these(
    browser: WebDriver, label_studio: LabelStudioServer, name: str
) -> None:
    page = PAGES[name]
    rows = [comparison(page.kind, page.purpose, 1, FOUR[:3])]
    work = Work.on(browser, label_studio, page.settings, rows)
    work.begin()
    assert cards(browser) == ["Response A", "Response B", "Response C"]
    if name == "ranking":
        for letter, rank in (("b", 1), ("a", 2), ("c", 4)):
            work.drag(letter, rank)
        work.choose("Order is final")
    else:
        work.press("4")
        assert not work.driver.find_elements("css selector", "input[name=D]")
        work.press_until_chosen("3", "C")
    work.submit()
    assert said(work, 1, page, rows) == ({"ranks": [2, 1, 3]} if name == "ranking" else {"best": 2})


def test_stars_of_a_response_that_is_not_there_need_not_be_given(
    browser: WebDriver, label_studio: LabelStudioServer
) -> None:
    settings = RATING.changed(responses_per_prompt=3)
    work = Work.on(browser, label_studio, settings, [comparison("rating", "train", 1, TWO)])
    work.begin()
    assert cards(browser) == ["Response A", "Response B"]
    for row in range(3):
        work.rate(row, 5)
    work.submit()
    work.refused("Rate Not harmful of response B too, or skip the task.")
    work.rate(3, 6)
    work.submit()
    given = {region["from_name"]: region["value"].get("rating") for region in work.stored(1)["result"]}
    assert given == {"a_overall": 5, "a_not_harmful": 5, "b_overall": 5, "b_not_harmful": 6, "absent": None}


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


@pytest.mark.parametrize("name", PAGES)
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


@pytest.mark.parametrize("name", PAGES)
def test_page_reads_well(browser: WebDriver, label_studio: LabelStudioServer, name: str) -> None:
    """Nothing that is asked is out of sight below a long response, and the page is no wider than the window."""
    page = PAGES[name]
    rows = [comparison(page.kind, page.purpose, 1, LONG[: len(page.responses)][::-1], QUESTION)]
    work = Work.on(browser, label_studio, page.settings, rows)
    picture = f"label_studio_{name.replace(' ', '_').replace('/', '').lower()}"
    work.begin(picture)
    screenshot(browser, picture)
    seen = browser.execute_script(
        "let box = document.querySelector('.rl-answer').getBoundingClientRect();"
        "let bar = document.querySelector('button[aria-label=\"Submit current annotation\"]').getBoundingClientRect();"
        "return [box.top, box.bottom, bar.top, document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert 0 < seen[0] < seen[1] <= seen[2]
    assert seen[3] <= seen[4]


def said(work: Work, number: int, page: Page, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the annotation of question ``number`` says, as our tables have it."""
    return decode(work.stored(number)["result"], rows[number - 1], page.settings)


def cards(browser: WebDriver) -> list[str]:
    """The titles of the responses that are to be seen."""
    found = browser.find_elements("css selector", ".rl-card > h4")
    return [title.text for title in found if title.is_displayed()]


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
        "  text => [...text.querySelectorAll(arguments[0])].filter(e => !e.closest('.rl-ratings')).map(e => e.tagName))",
        ELEMENTS,
    )
    found += [f"{element} in a text" for element in elements]
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    return found + [f"{name} was asked for" for name in asked if not name.startswith((address, "data:", "blob:"))]


QUESTION = """User: How do I remove duplicates from a list in Python?
Assistant: Does the order of the items matter to you?
User: Yes, keep the first of each. Please explain your code, and say how fast it is for **1,000,000** items."""
LONG = [
    """A dictionary keeps its keys in the order in which they came, and every key only once:

```python
def without_duplicates(items):
    return list(dict.fromkeys(items))

print(without_duplicates([3, 1, 3, 2, 1]))  # [3, 1, 2]
```

How it works:

1. `dict.fromkeys(items)` makes a dictionary with the items as keys. A key that is there already stays where it is.
2. `list(...)` takes the keys out again, in order.

| items | time |
|---|---|
| 1,000 | 0.03 ms |
| 1,000,000 | 45 ms |

The time grows with the number of items, not with its square. The items must be *hashable*: numbers, texts and tuples are,
lists and dictionaries are not.
""",
    """Use a set to remember what you have seen:

```python
def without_duplicates(items):
    seen = set()
    result = []
    for item in items:
        if item not in seen:
            seen.add(item)
            result.append(item)
    return result
```

- `seen` answers *was this here before?* in constant time.
- `result` keeps the order.

For a million items this takes about 80 ms on a laptop. If you need it in one line, `sorted(set(items), key=items.index)`
gives the same list, **but it is slow**: `items.index` searches from the start each time.

> Tip: for items that are not hashable, keep `repr(item)` in the set instead.
""",
    "Call `set(items)`. That removes the duplicates and is very fast.",
    """You can do it with a list comprehension:

```python
result = []
[result.append(item) for item in items if item not in result]
```

It looks at each item and appends it unless it is there. This is quick enough for most lists.
""",
]
