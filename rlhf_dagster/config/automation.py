"""When rounds open, when training starts, who is told what, and what runs are tagged with. This imports no Dagster."""

import json
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from rlhf_dagster.config.base import Settings
from rlhf_dagster.config.cron import cron_problem


class AutomationSettings(Settings):
    """The schedule and the sensors of a loop. They act while a Dagster daemon runs (`rlhf ui`)."""

    running: bool = False
    """Whether schedule and sensors are on from the start; otherwise people switch them on in the UI (Automation)."""
    open_round_cron: str = "0 6 * * 1"
    """When the schedule opens the next round: minute, hour, day of month, month, day of week."""
    timezone: str = "UTC"
    """Time zone of `open_round_cron`, such as `Europe/Berlin`."""
    max_rounds_in_progress: int = Field(1, ge=1)
    """No round is opened while this many have no decision yet: with 1, every round samples from the latest champion."""
    max_unlabelled: int = Field(100, ge=0)
    """No round is opened while more comparisons than this still want labels."""
    min_new_labels: int = Field(500, ge=1)
    """Usable labels that the last successful training did not use, from which a round is trained; a round whose
    comparisons all have their labels is trained with fewer."""
    quiet_minutes: float = Field(10.0, ge=0)
    """Training waits until no usable label has arrived for this long, so that annotators can finish."""
    longest_wait_hours: float = Field(24.0, gt=0)
    """Annotators who are never quiet hold up training for this long at most, counted from the oldest label not used.
    A/B judgments that stay incomplete are decided on after the same time without a new one."""
    poll_seconds: int = Field(30, ge=1)
    """Least seconds between two looks of a sensor. Dagster's daemon looks every 5 seconds at most."""
    stop_requests: int | None = Field(3, ge=1)
    """The stop cord is pulled when this many annotators have marked `stop` on a round's tasks; null never does."""
    notify: Literal["log", "webhook", "slack"] = "log"
    """Where the message about a failed run goes: the daemon's log, a URL (JSON by POST), or a Slack channel."""
    notify_variable: str = Field("RLHF_NOTIFY", pattern=r"^[A-Z][A-Z0-9_]*$")
    """Environment variable that holds the webhook's URL (`webhook`) or the bot token (`slack`)."""
    slack_channel: str = ""
    """Channel of the messages (`notify: slack`)."""
    ui_url: str = Field("http://127.0.0.1:3000", pattern=r"^https?://[^\s]+[^/\s]$")
    """Address of the Dagster UI, for the links in messages. Where a proxy serves `rlhf ui` under a name of its own, the
    UI answers under that name and those of this machine, and under no other."""
    pages_url: str = Field("", pattern=r"^(https?://[^\s]+[^/\s])?$")
    """Address of a server of the loop's pages, for the links to them. Empty: `rlhf ui` serves them with the UI, under
    the same name, and of a loop in a Dagster project the assets show what the pages say, in Markdown."""

    @model_validator(mode="after")
    def _slack_has_a_channel(self) -> Self:
        if self.notify == "slack" and not self.slack_channel:
            raise ValueError("automation.slack_channel is missing; `notify: slack` needs one")
        return self

    @model_validator(mode="after")
    def _cron_can_be_followed(self) -> Self:
        if problem := cron_problem(self.open_round_cron):
            raise ValueError(f"automation.open_round_cron {problem}")
        return self

    @model_validator(mode="after")
    def _timezone_is_known(self) -> Self:
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(
                f"automation.timezone {self.timezone!r} is not known; give a name such as `UTC` or `Europe/Berlin`"
            ) from None
        return self


class TagSettings(Settings):
    """Dagster tags by which run launchers and executors learn what the steps that train or sample need.

    Where each run is a pod (K8sRunLauncher), set `jobs`; where each step is one (k8s_job_executor), set `steps`.
    """

    steps: dict[str, Any] = Field({})
    """Tags of each step that trains or samples, such as `dagster-k8s/config: {container_config: {resources: {limits:
    {nvidia.com/gpu: 1}}}}`; an executor with a pod for each step reads them."""
    jobs: dict[str, Any] = Field({})
    """Tags of the jobs with such a step; the run launcher reads them. Runs of assets that are chosen by hand in the UI
    have none, unless they are given there."""

    @field_validator("steps", "jobs")
    @classmethod
    def _can_be_written(cls, tags: dict[str, Any]) -> dict[str, Any]:
        for name, value in tags.items():
            try:
                same = json.loads(json.dumps(value)) == value
            except (TypeError, ValueError):
                same = False
            if not same:
                raise ValueError(f"the value of `{name}` is none that JSON can hold")
        return tags
