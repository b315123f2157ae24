"""What PPO trains: a language model, alone or with values from a head on its trunk or from a model of its own.

The values and the KL coefficient, from which a later run goes on, are saved beside the language model.
"""

import json
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.training.models.log_probs import Decoding
from rlhf_dagster.training.models.own_adapters import own_adapters, write_adapters
from rlhf_dagster.training.models.passes.logit_pieces import log_probs_of
from rlhf_dagster.training.models.sharding.weights import reshard
from rlhf_dagster.training.ppo.frozen_layers import replayed
from rlhf_dagster.training.ppo.kl_penalty import AdaptiveKl, KlController
from rlhf_dagster.training.reward.scores import with_bias
from rlhf_dagster.training.scorers.sequence_scorer import trunk_states
from rlhf_dagster.training.scorers.trunk import head_width
from rlhf_dagster.training.texts.tokens import PaddedBatch

VALUE_HEAD_FILE = "value_head.safetensors"
VALUE_MODEL_FOLDER = "value_model"
KL_CONTROLLER_FILE = "kl_controller.json"


class PpoPolicy(nn.Module):
    """A language model without values, for estimators that compare responses; the base of those with values."""

    def __init__(self, model: PreTrainedModel, value_head: nn.Linear | None = None) -> None:
        super().__init__()
        self.model, self.value_head = model, value_head

    def forward(
        self, batch: PaddedBatch, tokens: Tensor, mask: Tensor, decoding: Decoding, trunk: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probs [B, T] of the last ``tokens`` [B, T] of [B, Q + T] ids, 0 where ``mask`` [B, T] is, and values
        [B, T] before them.

        ``trunk`` [B, Q + T - 1, d] are the states that frozen layers have computed before.
        """
        return self.log_probs(batch, tokens, mask, decoding, trunk), None

    def log_probs(
        self, batch: PaddedBatch, tokens: Tensor, mask: Tensor, decoding: Decoding, trunk: Tensor | None = None
    ) -> Tensor:
        """Those of :meth:`forward`, without values."""
        with replayed(self.model, trunk):
            log_probs, _ = log_probs_of(self.model, batch, tokens, mask, decoding)
        return log_probs

    def values(self, batch: PaddedBatch, response_tokens: int) -> Tensor | None:
        """Values [B, T] of a rollout, computed after sampling where no head recorded them; None without values."""
        return None

    def language_models(self) -> list[PreTrainedModel]:
        """The models that are trained: the policy's, and that of its values where they have their own."""
        return [self.model]

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name."""
        reshard(self)  # of a part that is whole others would be listed, which the optimiser does not know
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}


class PolicyWithValue(PpoPolicy):
    """A language model and a linear value head.

    The head begins at 0 (Ziegler et al. 2019, lm-human-preferences `policy.py`). The shared trunk takes half the work
    that a separate value network would.
    """

    value_head: nn.Linear

    def __init__(self, model: PreTrainedModel) -> None:
        head = nn.Linear(head_width(model), 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        super().__init__(model, head)

    def forward(
        self, batch: PaddedBatch, tokens: Tensor, mask: Tensor, decoding: Decoding, trunk: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        with replayed(self.model, trunk):
            log_probs, hidden = log_probs_of(self.model, batch, tokens, mask, decoding, hidden=True)
        return log_probs, self.value_head(hidden)[..., 0].float()


class PolicyWithValueModel(PpoPolicy):
    """A language model and a value model of its own, a sequence scorer that begins as the reward model.

    The value before a token is the score of the text so far (InstructGPT, appendix C.4; Huang et al. 2024).
    """

    def __init__(self, model: PreTrainedModel, value_model: PreTrainedModel) -> None:
        super().__init__(model)
        self.value_model = value_model

    def forward(
        self, batch: PaddedBatch, tokens: Tensor, mask: Tensor, decoding: Decoding, trunk: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.log_probs(batch, tokens, mask, decoding, trunk), self.values(batch, tokens.shape[1])

    def language_models(self) -> list[PreTrainedModel]:
        return [self.model, self.value_model]

    def values(self, batch: PaddedBatch, response_tokens: int) -> Tensor:
        return response_values(self.value_model, batch, response_tokens)


def response_values(value_model: PreTrainedModel, batch: PaddedBatch, response_tokens: int) -> Tensor:
    """Values [B, T] before each of the last T tokens of [B, Q + T] ids; the mean over an ensemble's heads."""
    read = PaddedBatch(batch.input_ids[:, :-1], batch.attention_mask[:, :-1])
    hidden = trunk_states(value_model, read)[:, -response_tokens:]
    return with_bias(cast("nn.Module", value_model.score)(hidden), value_model.config).mean(dim=-1)


def save_value_head(head: nn.Linear, folder: Path) -> None:
    """Write the head beside the language model, which stays a plain checkpoint."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    save_file(state, folder / VALUE_HEAD_FILE)


def load_value_head(policy: PolicyWithValue, folder: Path) -> None:
    policy.value_head.load_state_dict(load_file(folder / VALUE_HEAD_FILE))
    policy.value_head.to(torch.device(policy.model.device))


def save_ppo_state(policy: PpoPolicy, controller: KlController, folder: Path) -> None:
    """Write values and KL coefficient beside the language model."""
    if policy.value_head is not None:
        save_value_head(policy.value_head, folder)
    if isinstance(policy, PolicyWithValueModel):
        _save_value_model(policy.value_model, folder / VALUE_MODEL_FOLDER)
    (folder / KL_CONTROLLER_FILE).write_text(json.dumps(controller.state_dict()) + "\n", encoding="utf-8")


def _save_value_model(model: PreTrainedModel, folder: Path) -> None:
    if own_adapters(model) is None:
        model.save_pretrained(folder)
    else:
        write_adapters(model, folder)


def resume_ppo_state(policy: PpoPolicy, controller: KlController, folder: Path) -> None:
    """Take over value head and KL coefficient from the checkpoint that ``policy`` was opened from, where it has them.

    A fixed coefficient stays the one of the settings. Raises UserError where the files are damaged.
    """
    head, state = folder / VALUE_HEAD_FILE, folder / KL_CONTROLLER_FILE
    try:
        if head.is_file() and isinstance(policy, PolicyWithValue):
            load_value_head(policy, folder)
        if state.is_file() and isinstance(controller, AdaptiveKl):
            controller.load_state_dict(json.loads(state.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder}: PPO cannot go on from its value head and KL ({first_line(error)}); make it again."
        ) from None
