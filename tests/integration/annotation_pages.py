"""Annotators' pages of a real Label Studio in a headless browser: open, decide, submit, and read what was stored."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from integration.ui import PATIENCE, wait_for
from label_studio import LabelStudioServer
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from rlhf_dagster.labeling.label_studio.configs import instructions_html, labelling_config
from rlhf_dagster.labeling.label_studio.results import decode
from rlhf_dagster.labeling.label_studio.tasks import task_data
from rlhf_dagster.labeling.settings import LabelingSettings

SUBMIT = 'button[aria-label="Submit current annotation"]'
SKIP = 'button[aria-label="skip-task"]'


def log_in(driver: WebDriver, server: LabelStudioServer) -> None:
    driver.get(f"{server.url}/user/login/")
    driver.find_element(By.NAME, "email").send_keys(server.email)
    driver.find_element(By.NAME, "password").send_keys(server.password)
    driver.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
    WebDriverWait(driver, PATIENCE).until(lambda _: "/user/login" not in driver.current_url)


@dataclass
class Page:
    """One task of one kind, open for labelling."""

    driver: WebDriver
    server: LabelStudioServer
    settings: LabelingSettings
    row: Mapping[str, Any]
    project: int

    @classmethod
    def open(
        cls, driver: WebDriver, server: LabelStudioServer, settings: LabelingSettings, row: Mapping[str, Any]
    ) -> "Page":
        """Make a project with the one task, and open it as *Label All Tasks* does; the instructions are put away."""
        client, kind, purpose = server.client(), row["kind"], row["purpose"]
        config, instructions = labelling_config(kind, purpose, settings), instructions_html(kind, purpose, settings)
        project = client.create_project(f"page {kind} {purpose}", config, instructions, 1, "")
        client.import_tasks(project, [{"data": task_data(row, settings)}])
        page = cls(driver, server, settings, row, project)
        driver.get(f"{server.url}/projects/{project}/data?labeling=1")
        page.find(SUBMIT)
        wait_for(driver, "Instructions")
        page.press(Keys.ESCAPE)
        # A key that is pressed while the instructions fade away is lost.
        time.sleep(1)
        return page

    def find(self, selector: str) -> WebElement:
        """The first element of a selector, once it is there."""
        found = lambda _: self.driver.find_elements(By.CSS_SELECTOR, selector)  # noqa: E731
        return WebDriverWait(self.driver, PATIENCE).until(found)[0]

    def choose(self, words: str, nth: int = 0) -> None:
        """Click a choice by what it says."""
        path = f"//label[normalize-space(.)='{words}' or starts-with(normalize-space(.), '{words}[')]"
        WebDriverWait(self.driver, PATIENCE).until(lambda _: self.driver.find_elements(By.XPATH, path))
        self.driver.find_elements(By.XPATH, path)[nth].click()

    def press(self, *keys: str) -> None:
        for key in keys:
            ActionChains(self.driver).send_keys(key).pause(0.3).perform()

    def submit(self, with_keys: bool = False) -> None:
        if with_keys:
            ActionChains(self.driver).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
        else:
            self.find(SUBMIT).click()

    def stored(self) -> list[dict[str, Any]]:
        """The annotations on the server, once there is one."""

        def there(_: Any) -> list[dict[str, Any]]:
            return self.server.client().task_page(self.project)[0]["annotations"]

        return WebDriverWait(self.driver, PATIENCE).until(there)

    def nothing_stored(self) -> bool:
        return self.server.client().task_page(self.project)[0]["annotations"] == []

    def outcome(self) -> dict[str, Any]:
        """What was stored, in our form."""
        (annotation,) = self.stored()
        return decode(annotation["result"], self.row, self.settings)
