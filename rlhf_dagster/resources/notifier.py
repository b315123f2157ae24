"""Where messages about failed runs go: the daemon's log, a webhook, or Slack."""

import logging
import os
from typing import Literal

import dagster as dg
from pydantic import Field

from rlhf_dagster.common.extras import install_extras
from rlhf_dagster.errors import UserError

TIMEOUT = 10.0
"""Seconds that a message may take."""


class Notifier(dg.ConfigurableResource):
    """Sends one message; the address or token comes from the environment and is never shown.

    Replace it in definitions of your own to send messages anywhere else: `send` is all that is called.
    """

    kind: Literal["log", "webhook", "slack"] = Field("log", description="`log`, `webhook` or `slack`.")
    variable: str = Field("RLHF_NOTIFY", description="Environment variable with the webhook's URL or Slack's token.")
    channel: str = Field("", description="Slack channel.")

    def send(self, text: str, facts: dict[str, str], log: logging.Logger) -> None:
        """Send ``text``; a webhook gets it as JSON, with the ``facts`` (job, stage, round, reason, link) beside it.

        Raises UserError, without the address, where the message could not be delivered.
        """
        if self.kind == "log":
            log.error(text)
            return
        secret = os.environ.get(self.variable)
        if not secret:
            raise UserError(f"{self.variable} is not set, so no message can be sent; set it where the daemon runs.")
        if self.kind == "webhook":
            _post(secret, {"text": text, **facts}, self.variable)
        else:
            _slack(secret, self.channel, text)


def _post(url: str, message: dict[str, str], variable: str) -> None:
    import requests

    try:
        # What it would be sent on to is not the address that was given.
        answer = requests.post(url, json=message, timeout=TIMEOUT, allow_redirects=False)
        answer.raise_for_status()
    except requests.RequestException as error:
        status = error.response.status_code if error.response is not None else type(error).__name__
        raise UserError(
            f"The webhook of {variable} did not take the message ({status}); look at its service."
        ) from None
    if answer.is_redirect:
        raise UserError(
            f"The webhook of {variable} sends messages on elsewhere ({answer.status_code}); give the address where it "
            "really is."
        )


def _slack(token: str, channel: str, text: str) -> None:
    try:
        from dagster_slack import SlackResource
        from slack_sdk.errors import SlackApiError
    except ImportError:
        raise UserError(f"automation.notify is `slack`; `{install_extras('slack')}`.") from None
    try:
        SlackResource(token=token).get_client().chat_postMessage(channel=channel, text=text)
    except SlackApiError as error:
        raise UserError(f"Slack did not take the message for {channel}: {error.response['error']}.") from None
    except OSError as error:
        raise UserError(
            f"Slack cannot be reached ({type(error).__name__}); the message waits for the next try."
        ) from None
