"""Users of a served policy by a keyed hash: without the key nobody can tell from a log who wrote, not even by trying
names.
"""

import hmac
import os
import secrets
from hashlib import sha256
from pathlib import Path

from rlhf_dagster.common.files import reading, write_once
from rlhf_dagster.errors import UserError

USERS_KEY, KEY_VARIABLE = "users.key", "RLHF_USERS_KEY"
"""The file in a loop's folder that holds the key, and the environment variable that goes before it."""
_BYTES, _DIGITS = 32, 20


def users_key(folder: Path) -> bytes:
    """The key of a loop's folder, which is made where there is none; its owner alone can read it.

    Several machines that serve one loop are given the same one in ``RLHF_USERS_KEY``: else a person has several names.
    Raises UserError where the key is too short to be one.
    """
    if given := os.environ.get(KEY_VARIABLE, "").encode():
        return _long_enough(given, KEY_VARIABLE)
    path = folder / USERS_KEY
    if not path.exists():
        write_once(path, secrets.token_hex(_BYTES).encode(), private=True)
    with reading(path):
        return _long_enough(path.read_bytes().strip(), str(path))


def user_hash(name: str, key: bytes) -> str:
    """20 hex digits (80 bits) of HMAC-SHA-256; empty for the empty name."""
    return hmac.new(key, name.encode(), sha256).hexdigest()[:_DIGITS] if name else ""


def _long_enough(key: bytes, place: str) -> bytes:
    if len(key) < _BYTES:
        raise UserError(f"{place}: a key has at least {_BYTES} characters; `openssl rand -hex {_BYTES}` makes one.")
    return key
