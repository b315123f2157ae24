"""Jobs of a Ray cluster, through its Jobs API: submitted, looked at, ended. Importing this imports no Ray."""

import logging
import os
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from rlhf_dagster.common.extras import install_extras
from rlhf_dagster.errors import UserError, first_line

_ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
_HERE = "http://127.0.0.1:8265"
SUCCEEDED = "SUCCEEDED"
GOING = ("PENDING", "RUNNING")
NO_SUCH_JOB = "NO_SUCH_JOB"
"""Of a job that this cluster does not know, such as one of a cluster that was started anew."""
SUBMIT_PATIENCE, _AGAIN = 60.0, 1.0
"""Seconds for which a cluster may refuse a job, and between two tries."""
_log = logging.getLogger("rlhf_dagster.training")


class Unreachable(Exception):  # noqa: N818
    """The cluster gives no answer now."""


def require_ray() -> None:
    """Raise UserError where Ray is not installed."""
    if find_spec("ray") is None:
        raise UserError(f"`compute.launch: ray` needs Ray: {install_extras('ray')}")


@dataclass(frozen=True)
class RayJobs:
    """The jobs of the cluster at ``address``."""

    address: str
    client: Any

    @classmethod
    def at(cls, address: str) -> "RayJobs":
        """Those of the cluster whose Jobs API is at ``address`` (empty: the environment's, or this machine's).

        Raises UserError where it does not answer, or not to us.
        """
        require_ray()
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        place = address or os.environ.get(_ADDRESS_VARIABLE) or _HERE
        try:
            return cls(place, JobSubmissionClient(place))
        except AuthenticationError:
            raise UserError(
                f"Ray at {place} does not let us in; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH (or "
                "RAY_AUTH_TOKEN) in the environment of runs as its nodes have them."
            ) from None
        except (ConnectionError, RuntimeError, OSError, ValueError) as error:
            raise UserError(
                f"Ray at {place} does not answer ({first_line(error)}); start it, or set compute.ray.address."
            ) from None

    def submit(self, job: str, command: str, environment: dict[str, str], about: dict[str, str]) -> None:
        """Start ``command`` as the job ``job``; raises UserError where Ray takes no job.

        A head that has just started takes none for some seconds, and an answer may be lost on the way.
        """
        end = time.monotonic() + SUBMIT_PATIENCE
        while refused := self._refusal(job, command, environment, about):
            if time.monotonic() > end:
                raise UserError(f"Ray at {self.address} took no job ({refused}); look at its dashboard.")
            time.sleep(_AGAIN)

    def _refusal(self, job: str, command: str, environment: dict[str, str], about: dict[str, str]) -> str:
        """Why Ray has not taken a job now; empty where it has."""
        try:
            self.client.submit_job(
                entrypoint=command, submission_id=job, runtime_env={"env_vars": environment}, metadata=about
            )
        except (ConnectionError, RuntimeError, OSError) as error:
            try:
                return first_line(error) if self.status(job) == NO_SUCH_JOB else ""
            except Unreachable as away:
                return str(away)
        return ""

    def status(self, job: str) -> str:
        """The job's status, :data:`NO_SUCH_JOB` where there is no such job; raises Unreachable."""
        try:
            return str(self.client.get_job_status(job).value)
        except (ConnectionError, RuntimeError, OSError) as error:
            if isinstance(error, RuntimeError) and "status code 404" in str(error):
                return NO_SUCH_JOB
            raise Unreachable(first_line(error)) from None

    def exit_code(self, job: str) -> int | None:
        """Of the job's driver; None where nobody knows."""
        try:
            code = self.client.get_job_info(job).driver_exit_code
        except (ConnectionError, RuntimeError, OSError):
            return None
        return None if code is None else int(code)

    def log(self, job: str) -> str:
        """What the job has printed; empty where it cannot be had."""
        try:
            return str(self.client.get_job_logs(job))
        except (ConnectionError, RuntimeError, OSError):
            return ""

    def stop(self, job: str, patience: float) -> bool:
        """Stop a job, and wait until it has ended; False where it may still be there after ``patience`` seconds."""
        try:
            self.client.stop_job(job)
        except (ConnectionError, RuntimeError, OSError) as error:
            _log.warning("Ray at %s did not stop the job %s: %s", self.address, job, first_line(error))
        return self.wait(job, patience)

    def wait(self, job: str, patience: float, every: float = 0.5) -> bool:
        """Wait until a job has ended; False where it may still be there after ``patience`` seconds."""
        end = time.monotonic() + patience
        while True:
            try:
                if self.status(job) not in GOING:
                    return True
            except Unreachable:
                pass
            if time.monotonic() >= end:
                return False
            time.sleep(every)
