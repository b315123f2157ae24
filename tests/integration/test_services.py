"""What `rlhf ui` runs is started again when it dies, and nothing of it is left when it stops."""

import os
import signal
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from integration.dagster_api import DagsterApi, wait_until
from integration.ui import serving

from rlhf_dagster.cli.runner import LoopRunner

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="Processes are looked up in /proc."),
]
SERVICES = {
    "daemon": "dagster._daemon",
    "code server": "dagster code-server start",
    "web server": "rlhf_dagster.automation.web_server",
    "page server": "rlhf_dagster.pages.server",
}
LOCATION = """
query { workspaceOrError { ... on Workspace { locationEntries {
  locationOrLoadError { ... on RepositoryLocation { repositories { sensors { name } schedules { name } } } }
} } } }
"""


def of(root: Path, sign: str = "") -> list[int]:
    """Processes that were given the loop in their environment and have ``sign`` in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            ours = f"RLHF_LOOP={root}\0".encode() in (path / "environ").read_bytes()
        except OSError:
            continue
        if ours and sign in command:
            found.append(int(path.name))
    return found


def sensors(api: DagsterApi) -> list[str]:
    """Sensors of the code location, empty while it cannot be loaded."""
    entries = api.ask(LOCATION)["workspaceOrError"]["locationEntries"]
    location = entries[0]["locationOrLoadError"] or {}
    return [sensor["name"] for found in location.get("repositories", []) for sensor in found["sensors"]]


def test_every_service_is_started_again(two_rounds: LoopRunner) -> None:
    root = two_rounds.loop.root
    with serving(root) as server:
        api = DagsterApi(server.address)
        wait_until(lambda: "new_labels" in sensors(api))
        for name, sign in SERVICES.items():
            before = of(root, sign)
            assert before, name
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda sign=sign, before=before: of(root, sign) and not set(of(root, sign)) & set(before))
        wait_until(lambda: answers(server.address))
        wait_until(lambda: "new_labels" in sensors(api))
        code, rest = server.stop()
    assert code == 0
    assert [
        name for name in SERVICES if f"The {name} ended (killed by signal 9); it is started again." not in rest
    ] == []
    wait_until(lambda: of(root) == [])


def test_it_takes_its_services_along_when_it_is_killed(two_rounds: LoopRunner) -> None:
    root = two_rounds.loop.root
    with serving(root) as server:
        wait_until(lambda: all(of(root, sign) for sign in SERVICES.values()))
        server.process.kill()
        wait_until(lambda: of(root) == [])


def answers(address: str) -> bool:
    try:
        return urlopen(f"{address}/server_info").status == 200
    except OSError:
        return False
