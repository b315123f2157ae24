"""Every kind of labelling page in a real Label Studio and a real browser, from login to what is stored."""

from collections.abc import Iterator

import pytest

pytest.importorskip("selenium", reason="The tests of the pages need selenium: pip install 'rlhf-dagster[dev]'.")

from integration.annotation_examples import FOUR, LONG, PAGES, QUESTION, RATING, TWO, pages, said
from integration.annotation_pages import Work, annotating, comparison
from integration.ui import screenshot
from label_studio import LabelStudioServer
from selenium.webdriver.remote.webdriver import WebDriver

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def browser(label_studio: LabelStudioServer) -> Iterator[WebDriver]:
    with annotating(label_studio) as driver:
        yield driver


@pytest.mark.parametrize("name", pages("best of four", "ranking", "rating", "A/B", "demonstration"))
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


@pytest.mark.parametrize("name", pages("pair", "rating", without="demonstration"))
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


@pytest.mark.parametrize("name", [pytest.param("best of four", marks=pytest.mark.long), "ranking"])
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


def test_stars_are_gone_where_it_cannot_be_decided(browser: WebDriver, label_studio: LabelStudioServer) -> None:
    work = Work.on(browser, label_studio, RATING, PAGES["rating"].rows(1))
    work.begin()
    work.rate(0, 5)
    work.choose("Cannot decide")
    assert not [scale for scale in browser.find_elements("css selector", ".ant-rate") if scale.is_displayed()]
    work.choose("Cannot decide")
    assert len([scale for scale in browser.find_elements("css selector", ".ant-rate") if scale.is_displayed()]) == 4


@pytest.mark.parametrize("name", pages("best of four", "ranking", "rating", "demonstration"))
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


def cards(browser: WebDriver) -> list[str]:
    """The titles of the responses that are to be seen."""
    found = browser.find_elements("css selector", ".rl-card > h4")
    return [title.text for title in found if title.is_displayed()]
