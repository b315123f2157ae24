"""The Label Studio store of a loop: address and token, and what the store needs to know of the config."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.label_studio.server import SERVER_FOLDER, is_local

if TYPE_CHECKING:
    from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
    from rlhf_dagster.labeling.label_studio.store import LabelStudioStore


def open_label_studio(config: LoopConfig, root: Path, ledger: Path) -> "LabelStudioStore":
    """The store; nothing is asked of the server, and no token is needed, before the first request."""
    from rlhf_dagster.labeling.label_studio.store import LabelStudioStore

    return LabelStudioStore(
        ledger,
        config.label_store.url,
        client=lambda: label_studio_client(config, root),
        settings=config.labeling,
        loop_name=config.name,
    )


def label_studio_client(config: LoopConfig, root: Path) -> "LabelStudioClient":
    """A client of the loop's server; raises UserError where no token is to be found."""
    from rlhf_dagster.labeling.label_studio.client import LabelStudioClient

    settings = config.label_store
    token = os.environ.get(settings.token_variable) or _local_token(settings.url, root)
    if not token:
        raise UserError(
            f"There is no token for Label Studio at {settings.url}; set {settings.token_variable} to an access token "
            "of your account there, or start a local server with `rlhf label-studio up`."
        )
    return LabelStudioClient(settings.url, token, settings.timeout)


def _local_token(url: str, root: Path) -> str | None:
    """The token of the loop's own server, which no other server may see."""
    from rlhf_dagster.labeling.label_studio.server import local_credentials

    credentials = local_credentials(root / SERVER_FOLDER) if is_local(url) else None
    return credentials["LABEL_STUDIO_API_KEY"] if credentials else None
