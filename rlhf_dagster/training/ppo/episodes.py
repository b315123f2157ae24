"""An update's episodes, drawn for all ranks: when the update needs them, or one update ahead.

With `rollouts_ahead: 1` update k draws the episodes of update k + 1 from the policy that update k - 1 has left, before
it changes that policy. A sampler in this process draws them first, and the update begins afterwards; one in another
process draws them while the update trains. The numbers are the same.
"""

from collections.abc import Callable
from typing import Any

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.training.ppo.rollout import Episodes, Rollout, begin_collecting, collect
from rlhf_dagster.training.ppo.state import PpoRun
from rlhf_dagster.training.runtime.distributed import own_slice
from rlhf_dagster.training.sampling.backend import OutsideBackend
from rlhf_dagster.training.sampling.native import draw_uniforms
from rlhf_dagster.training.texts.tokens import PaddedBatch, pad


def draw_episodes(run: PpoRun, episodes: Episodes, settings: PpoSettings) -> Rollout:
    """Episodes of the policy as it is. Each rank samples and scores its part; prompts and random numbers are drawn for
    all."""
    return _checked(collect(run.policy, episodes, **_asked(run, episodes, settings)), settings)


def episodes_ahead(run: PpoRun, episodes: Episodes, settings: PpoSettings) -> Callable[[], Rollout]:
    """Draw the next update's episodes from the policy as it is, whatever it becomes until they are asked for.

    Where the sampler is another process this returns at once. What is returned then waits for it, and measures the
    responses under a copy of the trained weights of now, which is held until then.
    """
    if not isinstance(episodes.backend, OutsideBackend):
        drawn = draw_episodes(run, episodes, settings)
        return lambda: drawn
    finish = begin_collecting(run.policy, episodes, episodes.backend, **_asked(run, episodes, settings))
    weights = {name: weight.clone() for name, weight in run.weights().items()}

    def measured() -> Rollout:
        with run.having(weights):
            rollout = finish()
        return _checked(rollout, settings)

    return measured


def _asked(run: PpoRun, episodes: Episodes, settings: PpoSettings) -> dict[str, Any]:
    """This rank's part of the next prompts, with their random numbers."""
    device, own, count = run.policy.model.device, own_slice(settings.batch_size), settings.samples_per_prompt
    rows = [row for row in run.prompts.take(settings.batch_size // count) for _ in range(count)]
    ids, mask = pad([episodes.prompts[row] for row in rows], episodes.decoding.pad_id, "left")
    uniforms = draw_uniforms(settings.batch_size, episodes.decoding.max_tokens, run.generator)
    return {
        "prompts": PaddedBatch(ids[own], mask[own]).to(device),
        "uniforms": uniforms[own].to(device),
        "settings": settings,
        "texts": [episodes.texts[row] for row in rows[own]] if episodes.texts else (),
    }


def _checked(own: Rollout, settings: PpoSettings) -> Rollout:
    """The episodes of all ranks."""
    return own.of_all_ranks(settings.batch_size).checked()
