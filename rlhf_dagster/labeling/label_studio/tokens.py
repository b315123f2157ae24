"""Which token goes to a Label Studio server, and that it goes to no other.

A `loop.yaml` of somebody else may name any address, and another user of this machine may listen where our server did.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.common.files import cache_folder, locked, write_atomically
from rlhf_dagster.common.ports import strangers_at
from rlhf_dagster.config.labeling import LabelStoreSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.label_studio.server import SERVER_FOLDER, is_local, local_credentials

ADDRESS_VARIABLE = "LABEL_STUDIO_URL"
"""Environment variable with the one address that the token of the environment is for."""
KNOWN = "label_studio_addresses.json"
"""File in the user's cache folder: to which server each token has gone, by the token's hash."""


def token_for(settings: LabelStoreSettings, folder: Path) -> str:
    """The token for the server that ``settings`` name, of the environment or of the server in the loop's ``folder``.

    Raises UserError where there is none, or where it is not to go there.
    """
    given = os.environ.get(settings.token_variable, "").strip()
    token = given or _own_token(settings.url, folder)
    if not token:
        raise UserError(
            f"There is no token for Label Studio at {settings.url}; set {settings.token_variable} to an access token "
            "of your account there, or start a local server with `rlhf label-studio up`."
        )
    _require_named(settings, given)
    if is_local(settings.url):
        _require_own_listener(settings.url)
    elif given:
        _require_known(settings, given)
    return token


def _own_token(url: str, folder: Path) -> str:
    """The token of the loop's own server, which no other server may see."""
    credentials = local_credentials(folder / SERVER_FOLDER) if is_local(url) else None
    return credentials["LABEL_STUDIO_API_KEY"] if credentials else ""


def _require_named(settings: LabelStoreSettings, given: str) -> None:
    named = os.environ.get(ADDRESS_VARIABLE, "").strip().rstrip("/")
    if given and named and named != settings.url:
        raise UserError(
            f"The token in {settings.token_variable} is for {named}, by {ADDRESS_VARIABLE}, and label_store.url is "
            f"{settings.url}; correct the one that is wrong."
        )


def _require_own_listener(url: str) -> None:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if strangers := strangers_at(port):
        who = ", ".join(map(str, sorted(strangers)))
        raise UserError(
            f"Another user of this machine (uid {who}) listens on port {port}, so the token is not sent to {url}; have "
            "label_store.url name a port of your own server."
        )


def _require_known(settings: LabelStoreSettings, token: str) -> None:
    """Raise UserError where the token has gone to another server before, and nobody says that it is for this one."""
    place, key = _origin(settings.url), hashlib.sha256(token.encode()).hexdigest()
    file = cache_folder() / KNOWN
    known = _read(file)
    if known.get(key, place) != place and not _is_named(settings.url):
        raise UserError(
            f"The token in {settings.token_variable} went to {known[key]} until now, and label_store.url is "
            f"{settings.url}; where it is meant for that one, set {ADDRESS_VARIABLE}={settings.url}."
        )
    if known.get(key) != place:
        _keep(file, key, place)


def _is_named(url: str) -> bool:
    return os.environ.get(ADDRESS_VARIABLE, "").strip().rstrip("/") == url


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def _keep(file: Path, key: str, place: str) -> None:
    """Keep where a token goes; without a folder to write to, as in some containers, nothing is known next time."""
    with suppress(OSError, UserError), locked(file.with_suffix(".lock")):
        write_atomically(file, json.dumps(_read(file) | {key: place}).encode(), private=True)


def _read(file: Path) -> dict[str, str]:
    with suppress(OSError, ValueError):
        found = parse_json(file.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return {key: value for key, value in found.items() if isinstance(value, str)}
    return {}
