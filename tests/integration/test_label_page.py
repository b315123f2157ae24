"""A person judges in a real browser, by keyboard, every kind of comparison."""

from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

pytest.importorskip("selenium", reason="The browser tests need selenium: pip install 'rlhf-dagster[dev]'.")

from integration.ui import browsing, require_browser
from label_loops import loop_of_kind
from loops import ROUND
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from rlhf_dagster.label_page.desk import Desk
from rlhf_dagster.label_page.server import make_label_server
from rlhf_dagster.loop.folder import LoopFolder

KEYS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "pair": (["5"], {"choice": 1, "strength": 1}),
    "best_of_k": (["1", "3"], {"best": [0, 2]}),
    "ranking": (["2", "1", "shift 3"], {"ranks": [2, 1, 2]}),
    "rating": (list("717171"), {"ratings": {"overall": [7, 7, 7], "honest": [1, 1, 1]}}),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    require_browser()
    with browsing() as driver:
        yield driver


def judge(loop: LoopFolder, browser: WebDriver, keys: list[str], n: int) -> None:
    server, address = make_label_server(Desk(loop, "Ada"), 0)
    with server:
        Thread(target=server.serve_forever, daemon=True).start()
        browser.get("about:blank")
        browser.get(address)
        for done in range(n):
            WebDriverWait(browser, 30).until(lambda driver, done=done: f" {done} judged by you" in text_of(driver))
            chain = ActionChains(browser)
            for key in [*keys, Keys.ENTER]:
                shifted = key.startswith("shift ")
                chain = chain.key_down(Keys.SHIFT) if shifted else chain
                chain.send_keys(key.removeprefix("shift "))
                chain = chain.key_up(Keys.SHIFT) if shifted else chain
            chain.perform()
        WebDriverWait(browser, 30).until(lambda driver: "Nothing is left for you." in text_of(driver))
        assert f"rlhf run train_round --round {ROUND}" in text_of(browser)
        server.shutdown()


def text_of(browser: WebDriver) -> str:
    return str(browser.execute_script("return document.body.innerText"))


@pytest.mark.parametrize("kind", KEYS)
def test_ten_comparisons_are_judged_by_keyboard(kind: str, browser: WebDriver, tmp_path: Path) -> None:
    keys, result = KEYS[kind]
    loop = loop_of_kind(tmp_path, kind, n=10)
    judge(loop, browser, keys, 10)
    annotations, _ = loop.ledger.read(ROUND, "train")
    assert [one.result for one in annotations] == [result] * 10
    assert all(one.seconds is not None for one in annotations)
    wrong = [
        entry
        for entry in browser.get_log("browser")
        if entry["level"] == "SEVERE" and "favicon" not in entry["message"]
    ]
    assert wrong == []
