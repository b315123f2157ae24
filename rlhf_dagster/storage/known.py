"""A store by its address."""

from functools import lru_cache
from pathlib import Path

from rlhf_dagster.errors import UserError
from rlhf_dagster.storage.base import Store
from rlhf_dagster.storage.local import LocalStore

CLOUD_VARIABLES = ("AWS_", "GOOGLE_", "GCS_", "AZURE_", "MSI_", "IDENTITY_", "OBJECT_STORE_")
"""How environment variables begin that hold keys and endpoints of object stores."""


def open_store(address: str) -> Store:
    """The store at a folder, or at ``s3://``, ``gs://``, ``az://`` or ``memory://``; raises UserError for others."""
    if not is_remote(address):
        return LocalStore(Path(address))
    return _object_store(address)


def is_remote(address: str) -> bool:
    """Whether an address is a URL and not a folder."""
    return "://" in address


@lru_cache(maxsize=32)
def _object_store(address: str) -> Store:
    from rlhf_dagster.storage.objects import SCHEMES, ObjectStore

    scheme, _, rest = address.partition("://")
    if scheme not in SCHEMES or not rest:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise UserError(f"{address}: a loop can be in a folder or at {known}; correct `root`.")
    return ObjectStore(address)
