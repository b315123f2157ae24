"""Label Studio for assets, sensors and schedules of your own. The loop's own assets go through its label store."""

import dagster as dg
from pydantic import Field

from rlhf_dagster.labeling.label_studio.client import LabelStudioClient


class LabelStudio(dg.ConfigurableResource):
    """A Label Studio server.

    .. code-block:: python

        resources = {"label_studio": LabelStudio(token=dg.EnvVar("LABEL_STUDIO_API_KEY"))}


        @dg.sensor(job=...)
        def on_new_tasks(label_studio: LabelStudio):
            tasks, newest_change = label_studio.client().probe(project=12)

    Give the token as an environment variable, as here: Dagster then shows the variable's name and never its value.
    """

    url: str = Field("http://127.0.0.1:8080", description="Address of Label Studio.")
    token: str = Field(
        description="Access token: a personal or a legacy one.",
        repr=False,
        json_schema_extra={"dagster__is_secret": True},
    )
    timeout: float = Field(60.0, gt=0, description="Seconds to wait for an answer.")

    def client(self) -> LabelStudioClient:
        """A client, before its first request; raises LabelStudioError where the address or the token cannot be one."""
        return LabelStudioClient(self.url, self.token, self.timeout)
