"""Direct preference optimisation."""

import math

from torch import tensor
from torch.nn import functional as F

from benchmarks.models.inputs import COMPUTE, ROWS, SAMPLING
from benchmarks.models.plain import Plain
from benchmarks.models.trial import Trial, require_close
from rlhf_dagster.config.training import DpoSettings, LoraSettings
from rlhf_dagster.training.dpo.train import train_dpo
from rlhf_dagster.training.specs import DpoSpec

DPO = DpoSettings(epochs=2, batch_size=ROWS, learning_rate=1e-3)


def plain_dpo(trial: Trial) -> None:
    """The first loss is ln 2, the last that of the checkpoint."""
    _train(trial, "dpo", DPO)


def adapted_dpo(trial: Trial) -> None:
    """Adapters, merged at the end."""
    _train(trial, "adapted_dpo", DPO.changed(lora=LoraSettings(rank=2)))


def _train(trial: Trial, name: str, settings: DpoSettings) -> None:
    spec = DpoSpec(trial.base, trial.inputs.preferences, trial.new(name), settings, SAMPLING, seed=3, compute=COMPUTE)
    result = train_dpo(spec)
    require_close("first loss", result.curves["loss"][:1], [math.log(2)])
    trained, start = _margins(Plain(spec.output), trial), _margins(trial.plain, trial)
    gained = tensor([one - other for one, other in zip(trained, start, strict=True)])
    require_close("loss after", [result.metrics["loss_train"]], [float(-F.logsigmoid(DPO.beta * gained).mean())])


def _margins(plain: Plain, trial: Trial) -> list[float]:
    """Log-prob of the better response minus that of the worse one, of each comparison."""
    return [
        _log_prob(plain, prompt, better) - _log_prob(plain, prompt, worse)
        for prompt, better, worse in trial.inputs.comparisons
    ]


def _log_prob(plain: Plain, prompt: str, response: str) -> float:
    """Of a response as DPO reads it: cut, without end-of-text then, where it is longer than what is sampled."""
    return sum(plain.log_probs(plain.ids(prompt), plain.answer(response)[: SAMPLING.response_tokens]))
