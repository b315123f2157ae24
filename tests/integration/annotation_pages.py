"""An annotator at work on Label Studio's pages, in a browser: looks, clicks and types as a person does."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from integration.ui import PATIENCE, browsing, require_browser, screenshot
from label_studio import LabelStudioServer
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.configs import instructions_html, labelling_config
from rlhf_dagster.labeling.label_studio.tasks import task_data

FEW_SECONDS = 5
"""After which a key is believed lost: Label Studio binds its keys a moment after it shows a page."""
TABS = 120
"""Stops of the Tab key before we believe that something cannot be reached."""


@contextmanager
def annotating(server: LabelStudioServer) -> Iterator[WebDriver]:
    """A browser in which somebody has logged in."""
    require_browser()
    with browsing() as driver:
        driver.get(f"{server.url}/user/login/")
        driver.find_element(By.NAME, "email").send_keys(server.email)
        driver.find_element(By.NAME, "password").send_keys(server.password)
        driver.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
        WebDriverWait(driver, PATIENCE).until(lambda _: "/login" not in driver.current_url)
        yield driver


def comparison(kind: str, purpose: str, number: int, responses: Sequence[str], prompt: str = "") -> dict[str, Any]:
    """A row of COMPARISONS as far as a page is concerned; shown in the opposite order."""
    return {
        "comparison_id": f"comparison-{number}",
        "kind": kind,
        "purpose": purpose,
        "prompt": prompt or f"Question {number}",
        "responses": list(responses),
        "display_order": list(range(len(responses)))[::-1],
    }


@dataclass
class Work:
    """A project, and an annotator who goes through its tasks."""

    driver: WebDriver
    client: LabelStudioClient
    project: int

    @classmethod
    def on(
        cls, driver: WebDriver, server: LabelStudioServer, settings: LabelingSettings, rows: Sequence[dict[str, Any]]
    ) -> "Work":
        kind, purpose = rows[0]["kind"], rows[0]["purpose"]
        client = server.client()
        xml, told = labelling_config(kind, purpose, settings), instructions_html(kind, purpose, settings)
        work = cls(driver, client, client.create_project(f"Pages: {kind} {purpose}", xml, told, 1, ""))
        work.add([task_data(row, settings) for row in rows])
        return work

    def add(self, data: Sequence[dict[str, Any]]) -> None:
        self.client.import_tasks(self.project, [{"data": task} for task in data])

    def begin(self, picture: str = "") -> None:
        """Open the queue and read the instructions."""
        self.driver.get(f"{self.client.url}/projects/{self.project}/data?labeling=1")
        self.find(".lsf-modal-ls_visible .rl-text")
        if picture:
            screenshot(self.driver, f"{picture}_instructions")
        self.find(".rl-prompt p")
        self.press(Keys.ESCAPE)
        self.until(lambda: not self.driver.find_elements(By.CSS_SELECTOR, ".lsf-modal-ls_visible"), "instructions gone")

    def on_question(self, number: int) -> None:
        self.until(lambda: f"Question {number}" in self.find(".rl-prompt").text, f"question {number}")

    def find(self, css: str) -> WebElement:
        return self.until(lambda: next(iter(self.driver.find_elements(By.CSS_SELECTOR, css)), None), css)

    def until(self, condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
        try:
            # What is redrawn while we look at it is looked at again.
            wait = WebDriverWait(self.driver, patience, 0.1, [StaleElementReferenceException])
            return wait.until(lambda _: condition())
        except TimeoutException:
            page = self.driver.execute_script("return document.body.innerText")
            raise AssertionError(f"{what} did not happen:\n{page}") from None

    # With the mouse.

    def choose(self, *words: str, row: int = -1) -> None:
        """Click a choice; ``row`` of those that are called so."""
        for name in words:
            inputs = self.driver.find_elements(By.CSS_SELECTOR, f"input[name='{name}']")
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", inputs[row])
            inputs[row].click()

    def rate(self, row: int, stars: int) -> None:
        """Click a star of a scale; scales are counted over the page."""
        scales = [scale for scale in self.driver.find_elements(By.CSS_SELECTOR, ".ant-rate") if scale.is_displayed()]
        star = scales[row].find_elements(By.CSS_SELECTOR, "li")[stars - 1]
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", star)
        star.click()

    def drag(self, letter: str, rank: int) -> None:
        """Drag a response into a rank; once more where a busy machine dropped it on the way."""
        for patience in (FEW_SECONDS, FEW_SECONDS, PATIENCE):
            item, column = self.find(f"[data-ranker-id=r-{letter}]"), self.columns()[rank]
            hold = ActionChains(self.driver).click_and_hold(item).move_by_offset(6, 6).pause(0.2)
            hold.move_to_element(column).move_by_offset(1, 1).pause(0.4).release().perform()
            with suppress(AssertionError):
                self.until(lambda: self.is_in(letter, rank), "", patience)
            if self.is_in(letter, rank):
                return
        raise AssertionError(f"{letter} cannot be dragged into rank {rank}")

    def write(self, name: str, text: str) -> None:
        self.find(f"textarea[name={name}]").send_keys(text)

    def submit(self) -> None:
        self.find("button[aria-label='Submit current annotation']").click()

    def skip(self) -> None:
        self.find("button[aria-label='skip-task']").click()

    # With the keyboard.

    def press(self, *keys: str) -> None:
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def press_until_chosen(self, key: str, words: str) -> None:
        """Press a key that makes a choice; once more where it was lost."""
        self.press(key)
        with suppress(AssertionError):
            self.until(lambda: self.chosen(words), "", FEW_SECONDS)
        if not self.chosen(words):
            self.press(key)
        self.until(lambda: self.chosen(words), f"`{key}` chooses {words!r}")

    def tab_to(self, css: str) -> None:
        for _ in range(TABS):
            if self.driver.execute_script("return document.activeElement.matches(arguments[0])", css):
                return
            self.press(Keys.TAB)
        raise AssertionError(f"The Tab key does not lead to {css}.")

    def carry(self, letter: str, rank: int) -> None:
        """Lift a response that has no rank, move it to a rank, and drop it."""
        self.tab_to(f"[data-ranker-id=r-{letter}]")
        self.press(Keys.SPACE)
        for _ in range(rank):
            ActionChains(self.driver).pause(0.4).send_keys(Keys.ARROW_RIGHT).perform()
        ActionChains(self.driver).pause(0.4).send_keys(Keys.SPACE).perform()
        self.until(lambda: self.is_in(letter, rank), f"{letter} in rank {rank}")

    def press_with(self, modifier: str, key: str) -> None:
        ActionChains(self.driver).key_down(modifier).send_keys(key).key_up(modifier).perform()

    def type_into(self, name: str, *keys: str) -> None:
        """Write a text and leave the field; inside it, no key does anything but write."""
        self.tab_to(f"textarea[name={name}]")
        self.press(*keys)
        self.press_with(Keys.SHIFT, Keys.ENTER)
        gone = f"textarea[name={name}]"
        self.until(lambda: not self.driver.find_elements(By.CSS_SELECTOR, gone), f"{name} is written")

    def press_submit(self) -> None:
        self.press_with(Keys.CONTROL, Keys.ENTER)

    def press_skip(self) -> None:
        self.press_with(Keys.CONTROL, Keys.SPACE)

    # What is there.

    def chosen(self, words: str, row: int = -1) -> bool:
        inputs = self.driver.find_elements(By.CSS_SELECTOR, f"input[name='{words}']")
        return bool(inputs) and inputs[row].is_selected()

    def columns(self) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, ".htx-ranker-column")

    def is_in(self, letter: str, rank: int) -> bool:
        return bool(self.columns()[rank].find_elements(By.CSS_SELECTOR, f"[data-ranker-id=r-{letter}]"))

    def refused(self, sentence: str) -> None:
        """The page says why it does not submit; close that."""
        self.until(lambda: _visible(self.driver, sentence), sentence)
        self.press(Keys.ESCAPE)
        self.until(lambda: not _visible(self.driver, sentence), f"{sentence} closed")

    def stored(self, number: int) -> dict[str, Any]:
        """The annotation that arrived for question ``number``."""
        return self.until(lambda: self._annotation(number), f"an annotation of question {number} arrives")

    def count(self) -> int:
        return sum(len(task["annotations"]) for task in self.client.task_page(self.project))

    def _annotation(self, number: int) -> dict[str, Any] | None:
        tasks = self.client.task_page(self.project)
        task = next(task for task in tasks if task["data"]["comparison"] == f"comparison-{number}")
        return next(iter(task["annotations"]), None)


def _visible(driver: WebDriver, words: str) -> WebElement | None:
    found = driver.find_elements(By.XPATH, f"//*[contains(text(), '{words}')]")
    return next((element for element in found if element.is_displayed()), None)
