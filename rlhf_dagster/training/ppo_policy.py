"""The policy that PPO trains: a causal language model with a value head on the same trunk.

What a later run goes on from besides the language model, the value head and the KL coefficient, is kept in two files
beside it.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.kl import AdaptiveKl, KlController
from rlhf_dagster.training.log_probs import response_outputs

VALUE_HEAD_FILE = "value_head.safetensors"
KL_CONTROLLER_FILE = "kl_controller.json"


class PolicyWithValue(nn.Module):
    """A language model and a linear value head.

    The head begins at 0 (Ziegler et al. 2019, lm-human-preferences `policy.py`). One trunk for both halves the work of
    a separate value network.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.value_head = nn.Linear(model.config.get_text_config().hidden_size, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, response_tokens: int) -> tuple[Tensor, Tensor]:
        """Logits [B, T, V] that predict the last T tokens of [B, Q + T] ids, and values [B, T] before them."""
        logits, hidden = response_outputs(self.model, input_ids, attention_mask, response_tokens, hidden=True)
        return logits, self.value_head(hidden)[..., 0].float()


def save_value_head(policy: PolicyWithValue, folder: Path) -> None:
    """Write the head beside the language model, which stays a plain checkpoint."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in policy.value_head.state_dict().items()}
    save_file(state, folder / VALUE_HEAD_FILE)


def load_value_head(policy: PolicyWithValue, folder: Path) -> None:
    policy.value_head.load_state_dict(load_file(folder / VALUE_HEAD_FILE))
    policy.value_head.to(torch.device(policy.model.device))


def save_ppo_state(policy: PolicyWithValue, controller: KlController, folder: Path) -> None:
    """Write value head and KL coefficient beside the language model."""
    save_value_head(policy, folder)
    (folder / KL_CONTROLLER_FILE).write_text(json.dumps(controller.state_dict()) + "\n", encoding="utf-8")


def resume_ppo_state(policy: PolicyWithValue, controller: KlController, folder: Path) -> None:
    """Take over value head and KL coefficient from the checkpoint that ``policy`` was opened from, where it has them.

    A fixed coefficient stays the one of the settings. Raises UserError where the files are damaged.
    """
    head, state = folder / VALUE_HEAD_FILE, folder / KL_CONTROLLER_FILE
    try:
        if head.is_file():
            load_value_head(policy, folder)
        if state.is_file() and isinstance(controller, AdaptiveKl):
            controller.load_state_dict(json.loads(state.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{folder}: PPO cannot go on from its value head and KL ({reason}); make it again.") from None
