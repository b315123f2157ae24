"""Reinforcement learning from human feedback as a Dagster asset graph.

These are the names to use from Python; docs/python.md has examples. Each is imported when it is first asked for, so
that importing the package alone imports neither torch nor Dagster.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlhf_dagster.common.version import __version__ as __version__

if TYPE_CHECKING:  # the names of EXPORTS once more, for type checkers and the import contracts
    from rlhf_dagster.build import build_loop as build_loop
    from rlhf_dagster.component import RlhfLoop as RlhfLoop
    from rlhf_dagster.config.loop import LoopConfig as LoopConfig
    from rlhf_dagster.config.training import ComputeSettings as ComputeSettings
    from rlhf_dagster.config.training import DpoSettings as DpoSettings
    from rlhf_dagster.config.training import LoraSettings as LoraSettings
    from rlhf_dagster.config.training import PpoSettings as PpoSettings
    from rlhf_dagster.config.training import RewardModelSettings as RewardModelSettings
    from rlhf_dagster.config.training import SamplingSettings as SamplingSettings
    from rlhf_dagster.config.training import SftSettings as SftSettings
    from rlhf_dagster.config.training import TinyModelSettings as TinyModelSettings
    from rlhf_dagster.data.frames import demonstrations_table as demonstrations_table
    from rlhf_dagster.data.frames import preferences_table as preferences_table
    from rlhf_dagster.data.frames import pretraining_table as pretraining_table
    from rlhf_dagster.data.frames import prompts_table as prompts_table
    from rlhf_dagster.errors import UserError as UserError
    from rlhf_dagster.labeling.embedded import EmbeddedLabelStore as EmbeddedLabelStore
    from rlhf_dagster.labeling.label_studio.store import LabelStudioStore as LabelStudioStore
    from rlhf_dagster.labeling.store import Annotation as Annotation
    from rlhf_dagster.labeling.store import LabelCounts as LabelCounts
    from rlhf_dagster.labeling.store import LabelStore as LabelStore
    from rlhf_dagster.labeling.store import SendResult as SendResult
    from rlhf_dagster.labeling.store import Submission as Submission
    from rlhf_dagster.loop.folder import LoopFolder as LoopFolder
    from rlhf_dagster.records.loop_names import LoopNames as LoopNames
    from rlhf_dagster.resources.compute import Compute as Compute
    from rlhf_dagster.resources.label_studio import LabelStudio as LabelStudio
    from rlhf_dagster.resources.notifier import Notifier as Notifier
    from rlhf_dagster.training.dpo.train import train_dpo as train_dpo
    from rlhf_dagster.training.ppo.train import train_ppo as train_ppo
    from rlhf_dagster.training.pretraining.tiny_model import train_tiny_model as train_tiny_model
    from rlhf_dagster.training.reward.scores import score_responses as score_responses
    from rlhf_dagster.training.reward.train import train_reward_model as train_reward_model
    from rlhf_dagster.training.runtime.resuming import Checkpointing as Checkpointing
    from rlhf_dagster.training.sampling.sample import sample as sample
    from rlhf_dagster.training.sft.train import train_sft as train_sft
    from rlhf_dagster.training.specs import DpoSpec as DpoSpec
    from rlhf_dagster.training.specs import PpoSpec as PpoSpec
    from rlhf_dagster.training.specs import RewardModelSpec as RewardModelSpec
    from rlhf_dagster.training.specs import SftSpec as SftSpec
    from rlhf_dagster.training.specs import TinyModelSpec as TinyModelSpec
    from rlhf_dagster.training.specs import TrainingResult as TrainingResult

EXPORTS = {
    # A loop: its settings, its definitions, its folder, its names in Dagster
    "LoopConfig": "config.loop",
    "build_loop": "build",
    "RlhfLoop": "component",
    "LoopFolder": "loop.folder",
    "LoopNames": "records.loop_names",
    "UserError": "errors",
    # Where labels come from
    "LabelStore": "labeling.store",
    "Submission": "labeling.store",
    "Annotation": "labeling.store",
    "LabelCounts": "labeling.store",
    "SendResult": "labeling.store",
    "EmbeddedLabelStore": "labeling.embedded",
    "LabelStudioStore": "labeling.label_studio.store",
    # Dagster resources
    "Compute": "resources.compute",
    "Notifier": "resources.notifier",
    "LabelStudio": "resources.label_studio",
    # Trainings: function, spec and settings of each
    "train_tiny_model": "training.pretraining.tiny_model",
    "TinyModelSpec": "training.specs",
    "TinyModelSettings": "config.training",
    "train_sft": "training.sft.train",
    "SftSpec": "training.specs",
    "SftSettings": "config.training",
    "train_reward_model": "training.reward.train",
    "RewardModelSpec": "training.specs",
    "RewardModelSettings": "config.training",
    "train_ppo": "training.ppo.train",
    "PpoSpec": "training.specs",
    "PpoSettings": "config.training",
    "train_dpo": "training.dpo.train",
    "DpoSpec": "training.specs",
    "DpoSettings": "config.training",
    # What trainings share
    "SamplingSettings": "config.training",
    "ComputeSettings": "config.training",
    "LoraSettings": "config.training",
    "Checkpointing": "training.runtime.resuming",
    "TrainingResult": "training.specs",
    # Data for trainings, and what comes out of them
    "pretraining_table": "data.frames",
    "prompts_table": "data.frames",
    "demonstrations_table": "data.frames",
    "preferences_table": "data.frames",
    "sample": "training.sampling.sample",
    "score_responses": "training.reward.scores",
}
"""The module of the package that each name comes from."""
__all__ = ["__version__", *EXPORTS]  # noqa: PLE0604  # strings, all of them


def __getattr__(name: str) -> Any:
    if name not in EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{EXPORTS[name]}"), name)
    globals()[name] = value  # the next look-up finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *EXPORTS})
