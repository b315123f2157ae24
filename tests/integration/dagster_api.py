"""What a person does in the Dagster UI, by the requests that the UI makes."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
TERMINATE = """
mutation Terminate($run: String!) {
  terminateRun(runId: $run) { __typename ... on TerminateRunFailure { message } ... on PythonError { message } }
}
"""
STATUS = "query Status($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"
RUNS = "query { runsOrError { ... on Runs { results { runId jobName status } } } }"
FINISHED = ("SUCCESS", "FAILURE", "CANCELED")


@dataclass(frozen=True)
class DagsterApi:
    address: str
    location: str = "rlhf_dagster"

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = Request(f"{self.address}/graphql", body, {"Content-Type": "application/json"})
        with urlopen(request) as answer:
            found: dict[str, Any] = json.load(answer)
        assert not found.get("errors"), found
        return found["data"]

    def launch(self, job: str, round_key: str = "", *assets: str) -> str:
        """Launch a job, or some of its assets, for a round if there is one; the run's id."""
        selector = {
            "repositoryLocationName": self.location,
            "repositoryName": "__repository__",
            "pipelineName": job,
            "assetSelection": [{"path": [asset]} for asset in assets] or None,
        }
        tags = [{"key": "dagster/partition", "value": round_key}] if round_key else []
        params = {"selector": selector, "runConfigData": {}, "mode": "default", "executionMetadata": {"tags": tags}}
        found = self.ask(LAUNCH, params=params)["launchRun"]
        assert found["__typename"] == "LaunchRunSuccess", found
        return str(found["run"]["runId"])

    def terminate(self, run: str) -> None:
        found = self.ask(TERMINATE, run=run)["terminateRun"]
        assert found["__typename"] == "TerminateRunSuccess", found

    def status(self, run: str) -> str:
        return str(self.ask(STATUS, run=run)["runOrError"]["status"])

    def runs(self) -> dict[str, tuple[str, str]]:
        """Job and status of each run, by its id."""
        found = self.ask(RUNS)["runsOrError"]["results"]
        return {run["runId"]: (run["jobName"], run["status"]) for run in found}

    def wait(self, run: str) -> str:
        """The status in which the run ends."""
        wait_until(lambda: self.status(run) in FINISHED)
        return self.status(run)


def wait_until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.2)
