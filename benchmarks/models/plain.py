"""What plain transformers says of a checkpoint, one row at a time: no padding, no mask, no positions, no cache."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

TokenIds = list[int]
AGREEING = 1e-4
"""By how much two ways of transformers to compute the same score may differ."""


class Plain:
    """A checkpoint that transformers alone opens and runs."""

    def __init__(self, folder: Path, tokenizer: Path | None = None) -> None:
        """The tokenizer may be in another folder than the model."""
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        self.model: Any = model.eval()
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer or folder, local_files_only=True)
        self.never = [self.tokenizer.pad_token_id, self.tokenizer.unk_token_id]

    def ids(self, text: str) -> TokenIds:
        """A prompt's tokens."""
        ids: TokenIds = self.tokenizer(text)["input_ids"]
        return ids

    def answer(self, text: str) -> TokenIds:
        """A given response's tokens, which end with end-of-text."""
        ids: TokenIds = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, self.tokenizer.eos_token_id]

    @torch.no_grad()
    def logits(self, ids: TokenIds) -> Tensor:
        """[L, V]."""
        logits: Tensor = self.model(input_ids=torch.tensor([ids])).logits[0]
        return logits.float()

    def distributions(self, prompt: TokenIds, response: TokenIds, whole: bool = False, endless: bool = False) -> Tensor:
        """Log-probs [T, V] before each token of a response.

        Without the tokens that are never drawn, unless ``whole``; ``endless`` responses never end either.
        """
        logits = self.logits(prompt + response)[len(prompt) - 1 : -1]
        if not whole:
            logits[:, self.never + [self.tokenizer.eos_token_id] * endless] = -torch.inf
        return logits.log_softmax(dim=-1)

    def log_probs(
        self, prompt: TokenIds, response: TokenIds, whole: bool = False, endless: bool = False
    ) -> list[float]:
        """The log-prob of each token of a response, in nats."""
        distributions = self.distributions(prompt, response, whole, endless)
        picked: list[float] = distributions.gather(1, torch.tensor(response)[:, None])[:, 0].tolist()
        return picked

    def loss(self, pairs: Sequence[tuple[str, str]]) -> float:
        """Mean negative log-likelihood of the response tokens of all ``pairs`` of prompt and response."""
        rows = [self.log_probs(self.ids(prompt), self.answer(answer), whole=True) for prompt, answer in pairs]
        every = [number for row in rows for number in row]
        return -sum(every) / len(every)

    @torch.no_grad()
    def head_inputs(self, ids: TokenIds) -> Tensor:
        """Hidden states [L, d] that the output head reads."""
        states: list[Tensor] = []
        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda module, inputs: states.append(inputs[0]))
        self.logits(ids)
        hook.remove()
        return states[0].reshape(len(ids), -1)

    def values(self, prompt: TokenIds, response: TokenIds, head: Path) -> list[float]:
        """The value before each token of a response, by the linear head saved in the file ``head``."""
        weights = load_file(head)
        states = self.head_inputs(prompt + response)[len(prompt) - 1 : -1]
        values: list[float] = (states @ weights["weight"].T + weights["bias"])[:, 0].tolist()
        return values


class PlainScores(Plain):
    """A reward model as transformers alone reads it: the language model's trunk, and the head `score` on its states."""

    def __init__(self, folder: Path, tokenizer: Path | None = None) -> None:
        super().__init__(folder, tokenizer)
        self.trunk = getattr(self.model, self.model.base_model_prefix, None) or self.model.model
        self.head = tensors_of(folder)["score.weight"]
        self.bias = torch.as_tensor(self.model.config.score_bias)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.classifier = _classifier(folder) if "Classification" in config["architectures"][0] else None

    def scores(self, prompt: TokenIds, response: TokenIds) -> list[float]:
        """The mean score of all heads before each token of a response: of the row that ends there."""
        return [self.score((prompt + response)[: len(prompt) + done]) for done in range(len(response))]

    @torch.no_grad()
    def score(self, ids: TokenIds) -> float:
        """The mean score of all heads at the end of a row; NaN where transformers' classifier contradicts."""
        states = self.trunk(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        outputs = self.head @ states.float()
        if self.classifier is not None:
            other = self.classifier(input_ids=torch.tensor([ids])).logits[0].float()
            outputs = torch.where((outputs - other).abs() < AGREEING, outputs, torch.nan)
        return float((outputs + self.bias).mean())


def _classifier(folder: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """All tensors in the safetensors files of a checkpoint, by name."""
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}
