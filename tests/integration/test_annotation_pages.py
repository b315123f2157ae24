"""People at work: every kind of comparison, with mouse and keyboard, in a real Label Studio and a real browser."""

from collections.abc import Iterator
from typing import Any

import pytest
from integration.annotation_pages import SKIP, Page, log_in
from integration.ui import body, browsing, require_browser, screenshot, wait_for
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver

from rlhf_dagster.labeling.label_studio.ranker import ranker_of
from rlhf_dagster.labeling.settings import LabelingSettings

pytestmark = pytest.mark.integration
AXES = LabelingSettings(evaluation_axes=["helpful"], rating_axes=["overall", "harmless"], responses_per_prompt=2)
A = "Reverse it **in place**:\n\n```python\nnumbers.reverse()\n```\n\n- fast\n- no copy"
B = "Use `numbers[::-1]`, which makes a copy.\n\n| way | copy |\n|---|---|\n| slice | yes |"
C = "I do not know."
PROMPT = "User: How do I reverse a list?\nAssistant: In place, or into a new one?\nUser: Whichever is faster."


@pytest.fixture(scope="module")
def driver(label_studio) -> Iterator[WebDriver]:
    require_browser()
    with browsing() as browser:
        log_in(browser, label_studio)
        yield browser


@pytest.fixture
def page(driver, label_studio) -> Any:
    def open_page(kind: str, purpose: str = "train", responses: tuple[str, ...] = (A, B), **changes: Any) -> Page:
        prompt = changes.pop("prompt", PROMPT)
        settings = AXES.changed(**changes)
        row = {
            "comparison_id": f"{kind}-{purpose}",
            "kind": kind,
            "purpose": purpose,
            "prompt": prompt,
            "responses": list(responses),
            "display_order": list(range(len(responses))),
        }
        return Page.open(driver, label_studio, settings, row)

    return open_page


def test_a_pair_with_the_mouse(page) -> None:
    opened = page("pair")
    wait_for(opened.driver, "Reverse it in place:", "Whichever is faster.")
    opened.choose("A is slightly better")
    opened.choose("Unsafe content")
    opened.driver.find_element(By.NAME, "rationale").send_keys("shorter & kinder")
    screenshot(opened.driver, "label-studio-pair")
    opened.submit()
    assert opened.outcome() == {"choice": 0, "strength": 0.5, "flags": ["unsafe"], "reason": "shorter & kinder"}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("1", {"choice": 0, "strength": 1.0}),
        ("3", {"choice": "tie"}),
        ("5", {"choice": 1, "strength": 1.0}),
        ("6", {"cannot_decide": True}),
    ],
)
def test_a_pair_with_the_keyboard(page, key, expected) -> None:
    opened = page("pair")
    opened.press(key)
    opened.submit(with_keys=True)
    assert opened.outcome() == expected


def test_nothing_chosen_is_not_submitted(page) -> None:
    opened = page("pair")
    opened.submit()
    wait_for(opened.driver, "Choose one, or skip the task.")
    assert opened.nothing_stored()


def test_a_skip_is_stored_as_one(page) -> None:
    opened = page("pair")
    button = opened.find(SKIP)
    button.click()
    (annotation,) = opened.stored()
    assert (annotation["was_cancelled"], annotation["result"]) == (True, [])


def test_the_best_of_four_with_the_mouse_where_one_response_is_missing(page) -> None:
    opened = page("best_of_k", responses=(A, B, C), responses_per_prompt=4)
    shown = wait_for(opened.driver, "Response C")
    assert "Response D" not in shown
    opened.choose("B")
    opened.choose("C")
    screenshot(opened.driver, "label-studio-best-of-k")
    opened.submit()
    assert opened.outcome() == {"best": [1, 2]}


def test_the_best_of_three_with_the_keyboard(page) -> None:
    opened = page("best_of_k", responses=(A, B, C), responses_per_prompt=3)
    opened.press("2")
    opened.submit(with_keys=True)
    assert opened.outcome() == {"best": 1}


def test_a_rating_with_the_mouse(page) -> None:
    opened = page("rating")
    wait_for(opened.driver, "Harmless")
    scales = opened.driver.find_elements(By.CSS_SELECTOR, ".ant-rate")
    assert len(scales) == 4
    for scale, stars in zip(scales, (5, 7, 3, 6), strict=True):
        scale.find_elements(By.CSS_SELECTOR, "li")[stars - 1].click()
    screenshot(opened.driver, "label-studio-rating")
    opened.submit()
    assert opened.outcome() == {"ratings": {"overall": [5, 3], "harmless": [7, 6]}}


def test_a_rating_with_the_keyboard(page) -> None:
    opened = page("rating")
    for scale, stars in zip(opened.driver.find_elements(By.CSS_SELECTOR, ".ant-rate"), (2, 3, 4, 5), strict=True):
        opened.driver.execute_script("arguments[0].focus()", scale)
        opened.press(*[Keys.ARROW_RIGHT] * stars)
    opened.submit(with_keys=True)
    assert opened.outcome() == {"ratings": {"overall": [2, 4], "harmless": [3, 5]}}


def test_an_ab_judgment_with_the_mouse(page) -> None:
    opened = page("pair", "evaluation")
    opened.choose("B is better")
    opened.choose("A is better", nth=1)
    screenshot(opened.driver, "label-studio-ab")
    opened.submit()
    assert opened.outcome() == {"choice": 0, "axes": {"helpful": 1}}


def test_an_ab_judgment_with_the_keyboard(page) -> None:
    opened = page("pair", "evaluation", evaluation_axes=[])
    opened.press("2")
    opened.submit(with_keys=True)
    assert opened.outcome() == {"choice": "tie"}


def test_a_demonstration(page) -> None:
    opened = page("demonstration", "demonstrations", responses=())
    opened.driver.find_element(By.NAME, "demonstration").send_keys("Use `reverse()`.\nIt is faster.")
    screenshot(opened.driver, "label-studio-demonstration")
    opened.submit()
    assert opened.outcome() == {"text": "Use `reverse()`.\nIt is faster."}


def test_an_empty_demonstration_is_not_submitted(page) -> None:
    opened = page("demonstration", "demonstrations", responses=())
    opened.submit()
    wait_for(opened.driver, "Write a response, or skip the task.")
    assert opened.nothing_stored()


def test_a_ranking_with_the_mouse(page) -> None:
    opened = page("ranking", responses=(A, B, C), responses_per_prompt=3)
    for item, rank in (("r-c", 1), ("r-a", 2), ("r-b", 2)):
        drag(opened.driver, item, rank)
    opened.choose("Order is final")
    screenshot(opened.driver, "label-studio-ranking")
    opened.submit()
    assert opened.outcome() == {"ranks": [2, 2, 1]}


def test_a_ranking_with_the_keyboard(page) -> None:
    opened = page("ranking", responses=(A, B), responses_per_prompt=2)
    for item, moves in (("r-b", 1), ("r-a", 2)):
        element = opened.find(f'[data-ranker-id="{item}"]')
        opened.driver.execute_script("arguments[0].focus()", element)
        opened.press(Keys.SPACE, *[Keys.ARROW_RIGHT] * moves, Keys.SPACE)
    opened.press("1")
    opened.submit(with_keys=True)
    assert opened.outcome() == {"ranks": [2, 1]}


def test_an_untouched_ranking_is_no_ranking(page) -> None:
    opened = page("ranking", responses=(A, B), responses_per_prompt=2)
    opened.choose("Order is final")
    opened.submit()
    assert "not finished" in opened.outcome()["unreadable"]


def test_a_ranking_that_cannot_be_decided(page) -> None:
    opened = page("ranking", responses=(A, B), responses_per_prompt=2)
    opened.choose("Cannot decide")
    opened.submit()
    assert opened.outcome() == {"cannot_decide": True}
    assert ranker_of(None, 2)["_"] == ["r-a", "r-b"]


PAYLOADS = [
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    "<svg onload='window.pwned = 1'></svg>",
    "<svg><script>window.pwned = 1</script></svg>",
    "<iframe srcdoc='<script>parent.pwned = 1</script>'></iframe>",
    '<iframe src="https://www.youtube.com/embed/x" srcdoc="<script>parent.pwned = 1</script>"></iframe>',
    "<style>body { display: none }</style>",
    "<img src='http://beacon.invalid/a.png'>",
    "<a href='javascript:window.pwned = 1'>a link</a>",
    "<object data='http://beacon.invalid/b'></object><embed src='http://beacon.invalid/c'>",
    "<form action='http://beacon.invalid/d'><button autofocus onfocus='window.pwned = 1'>go</button></form>",
    "<meta http-equiv='refresh' content='0;url=http://beacon.invalid/e'>",
    "<link rel='stylesheet' href='http://beacon.invalid/f.css'>",
    "<details open ontoggle='window.pwned = 1'><summary>more</summary></details>",
    "![a picture](http://beacon.invalid/g.png) [a link](javascript:window.pwned=1)",
]


@pytest.mark.parametrize("kind", ["pair", "best_of_k", "ranking", "rating", "evaluation", "demonstration"])
def test_nothing_in_a_text_runs_loads_or_styles(page, label_studio, kind) -> None:
    """Every payload in the prompt and in every response, alone and in a Markdown paragraph."""
    text = "\n\n".join(PAYLOADS) + "\n\nand within a line: " + " ".join(PAYLOADS)
    purpose = {"evaluation": "evaluation", "demonstration": "demonstrations"}.get(kind, "train")
    responses = () if kind == "demonstration" else (text, text + " again")
    opened = page("pair" if kind == "evaluation" else kind, purpose, responses, prompt=text)
    driver = opened.driver
    wait_for(driver, "window.pwned = 1")
    ActionChains(driver).move_to_element(driver.find_element(By.TAG_NAME, "body")).perform()
    assert driver.execute_script("return window.pwned") is None
    assert driver.execute_script("return getComputedStyle(document.body).display") != "none"
    loaded = driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert loaded
    assert [address for address in loaded if not address.startswith((label_studio.url, "data:", "blob:"))] == []
    assert body(driver).count("<script>") >= 2


def drag(driver: WebDriver, item: str, rank: int) -> None:
    """Drag a response into the column of a rank, in the small steps that the page needs."""
    source = driver.find_element(By.CSS_SELECTOR, f'[data-ranker-id="{item}"]')
    column = driver.find_elements(By.CSS_SELECTOR, ".htx-ranker-column")[rank]
    end = column.rect
    actions = ActionChains(driver, duration=20)
    actions.move_to_element_with_offset(source, 0, -source.rect["height"] / 2 + 12).click_and_hold()
    start = source.rect
    across = end["x"] + end["width"] / 2 - (start["x"] + start["width"] / 2)
    down = end["y"] + 80 - (start["y"] + 12)
    for _ in range(20):
        actions.move_by_offset(across / 20, down / 20)
    actions.pause(0.5).release().pause(0.7).perform()
