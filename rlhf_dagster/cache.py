"""Where things are kept that all loops of a user share."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$RLHF_CACHE``, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rlhf_dagster"
    return Path(os.environ.get("RLHF_CACHE", default))
