"""`rlhf check-model`: what each stage does with a model, and the memory that it takes, before a loop is made."""

import textwrap
from pathlib import Path

from rlhf_dagster.compute.memory import required_bytes
from rlhf_dagster.compute.stages import loop_specs
from rlhf_dagster.config.loop import LoopConfig, load_config
from rlhf_dagster.config.training import BaseModelSettings

_LABEL, _WIDTH = 30, 90


def print_examination(name: str, revision: str, loop: Path | None) -> int:
    """Print a model's examination; returns the exit code: 0 where a loop can be run on it, 2 where not.

    Raises:
        UserError: the model cannot be opened.
    """
    from transformers.utils import logging

    from rlhf_dagster.training.checkpoints.context import context_of
    from rlhf_dagster.training.checkpoints.sources import snapshot
    from rlhf_dagster.training.models.policies import open_unpadded_policy
    from rlhf_dagster.training.pretraining.base_model import base_model_source
    from rlhf_dagster.training.probe.examination import examine

    logging.set_verbosity_error()
    config = LoopConfig() if loop is None else load_config(loop)
    kind = "folder" if Path(name).is_dir() else "hub"
    source = base_model_source(BaseModelSettings(source=kind, name=name, revision=revision))
    policy = open_unpadded_policy(source)
    print(f"{name}: {type(policy.model).__name__}, {policy.model.num_parameters():,} parameters")
    context = context_of(policy.model.config)
    _print("context", "unlimited" if context is None else f"{context:,} tokens")
    usable = True
    for answer in examine(policy):
        usable = usable and (answer.can or not answer.needed)
        _print(answer.about, answer.said if answer.can else f"no: {answer.said}")
    if not usable:
        return 2
    for title, spec in loop_specs(snapshot(source), config.changed(base_model=BaseModelSettings(source=kind))).items():
        _print(f"memory, {title}", f"{required_bytes(spec) / 1e9:.2f} GB")
    print(f"Memory is for the settings of {loop or 'a new loop'}, with every text at its longest.")
    return 0


def _print(about: str, said: str) -> None:
    first, *rest = textwrap.wrap(said, _WIDTH)
    print(f"  {about:<{_LABEL}} {first}")
    for line in rest:
        print(" " * (_LABEL + 3) + line)
