"""The policy that PPO trains: a causal language model with a value head on the same trunk."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_dagster.training.log_probs import response_outputs

VALUE_HEAD_FILE = "value_head.safetensors"


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
        return logits, self.value_head(hidden)[..., 0]


def save_value_head(policy: PolicyWithValue, folder: Path) -> None:
    """Write the head beside the language model, which stays a plain checkpoint."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in policy.value_head.state_dict().items()}
    save_file(state, folder / VALUE_HEAD_FILE)


def load_value_head(policy: PolicyWithValue, folder: Path) -> None:
    policy.value_head.load_state_dict(load_file(folder / VALUE_HEAD_FILE))
    policy.value_head.to(torch.device(policy.model.device))
