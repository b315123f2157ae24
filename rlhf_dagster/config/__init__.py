"""Every setting of a loop, typed and documented. Importing it imports no torch."""

from rlhf_dagster.config.loop import LoopConfig, load_config

__all__ = ["LoopConfig", "load_config"]
