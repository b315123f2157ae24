"""The Dagster UI of a loop and a headless browser to look at it. What is started here is gone afterwards."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 90
"""Seconds before a page that does not show what it must is given up."""
GRACE = 30
"""Seconds that a server has to stop by itself before its process group is killed."""
ERRORS = ("GraphQL error", "Traceback", "went wrong", "Failed to load", "Unable to load", "not found", "could not be")
"""What Dagster's error banners and its empty pages say."""
CHROMIUM_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--window-size=1400,1100",
)


def require_browser() -> None:
    """Skip without Chromium and ChromeDriver, but fail where CI promises them."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if not missing:
        return
    sentence = f"The UI tests need {' and '.join(missing)} on the PATH."
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


@dataclass
class Server:
    """A running `rlhf ui`."""

    address: str
    first_line: str
    pages_line: str
    """Where the loop's own pages are."""
    process: subprocess.Popen[str]

    def stop(self) -> tuple[int, str]:
        """Stop it as Ctrl-C does; returns the exit code and what it printed after these lines."""
        self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate(timeout=GRACE)
        return self.process.returncode, rest


@contextmanager
def serving(loop: Path, folder: Path | None = None) -> Iterator[Server]:
    """`rlhf ui` on a free port, run in ``folder`` or here, ready to answer."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [str(Path(sys.executable).with_name("rlhf")), "ui", "--loop", str(loop), "--port", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, cwd=folder
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while lines[-1] and address not in lines[-1]:  # what is started, and what is waited for
            lines.append(process.stdout.readline())
        line = lines[-1]
        assert address in line, "".join(lines)
        pages = process.stdout.readline()
        yield Server(address, line, pages, process)
    finally:
        _end_group(process)


@contextmanager
def browsing(*further: str) -> Iterator[WebDriver]:
    """A headless Chromium, with ``further`` arguments."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in (*CHROMIUM_ARGUMENTS, *further):
        options.add_argument(argument)
    service = Service(shutil.which("chromedriver"), popen_kw={"start_new_session": True})
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()
        _end_group(service.process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def visit(driver: WebDriver, address: str) -> None:
    """Go to another page of the app that is open, as a link in it does: it is not loaded again."""
    script = "history.pushState({}, '', arguments[0]); dispatchEvent(new PopStateEvent('popstate'))"
    driver.execute_script(script, address)


def wait_for(driver: WebDriver, *texts: str) -> str:
    """The page's text, once it has all of ``texts``; no error may be on it."""

    def missing() -> list[str]:
        page = body(driver)
        return [text for text in texts if text not in page]

    try:
        WebDriverWait(driver, PATIENCE).until(lambda _: not missing())
    except TimeoutException:
        raise AssertionError(f"{driver.current_url} does not show {missing()}:\n{body(driver)}") from None
    page = body(driver)
    assert not [error for error in ERRORS if error in page], page
    return page


def body(driver: WebDriver) -> str:
    return str(driver.execute_script("return document.body.innerText"))


def click(driver: WebDriver, text: str) -> None:
    """Click the innermost element that says exactly ``text``."""
    found = WebDriverWait(driver, PATIENCE).until(lambda _: _with_text(driver, text))
    found[-1].click()


def press(driver: WebDriver, button: str) -> None:
    """Click a button once it can be clicked."""
    xpath = f"//button[not(@disabled) and .//*[normalize-space(text())='{button}']]"
    WebDriverWait(driver, PATIENCE).until(lambda _: driver.find_elements(By.XPATH, xpath))[-1].click()


def write_config(driver: WebDriver, text: str) -> None:
    """Write into the editor of a launchpad."""
    driver.execute_script("document.querySelector('.CodeMirror').CodeMirror.setValue(arguments[0])", text)


def run_is_over(driver: WebDriver) -> None:
    """Wait until the page of a run that was just launched says that it has ended."""
    WebDriverWait(driver, PATIENCE).until(lambda _: "/runs/" in driver.current_url)
    WebDriverWait(driver, 5 * PATIENCE).until(lambda _: any(word in body(driver) for word in ("Success", "Failure")))


def screenshot(driver: WebDriver, name: str) -> None:
    """Save the page as ``$RLHF_SCREENSHOTS/<name>.png`` where the variable is set."""
    folder = os.environ.get("RLHF_SCREENSHOTS")
    if folder:
        with suppress(TimeoutException):  # a spinner that never stops does not hold the picture up
            WebDriverWait(driver, 3).until(lambda _: driver.execute_script("return !document.getAnimations().length"))
        Path(folder).mkdir(parents=True, exist_ok=True)
        driver.save_screenshot(str(Path(folder, f"{name}.png")))


def _with_text(driver: WebDriver, text: str) -> list[WebElement]:
    return driver.find_elements(By.XPATH, f"//*[normalize-space(text())='{text}']")


def _end_group(process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    """Ask the process to stop, then kill what is left of its group."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
