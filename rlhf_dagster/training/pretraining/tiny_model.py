"""A GPT-2 of about a million parameters, pretrained on the spot."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from rlhf_dagster.config.training import ComputeSettings, TinyModelSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import ROLE_NAMES
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.schemas import PRETRAINING_TEXT
from rlhf_dagster.records.tables import read_table, rows_of_split
from rlhf_dagster.training.models.fast_layers import use_fast_layers
from rlhf_dagster.training.models.passes.logit_pieces import limit_logits
from rlhf_dagster.training.models.policies import Policy, save_policy
from rlhf_dagster.training.models.windows import language_model_loss, text_windows
from rlhf_dagster.training.runtime.device import training_on
from rlhf_dagster.training.runtime.distributed import is_main
from rlhf_dagster.training.runtime.divergence import require_finite_loss
from rlhf_dagster.training.runtime.output import writing_output
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING, Checkpointing
from rlhf_dagster.training.runtime.seeding import seed_everything
from rlhf_dagster.training.runtime.state_keeper import StateKeeper
from rlhf_dagster.training.runtime.weights import misfit
from rlhf_dagster.training.specs import OnStep, TinyModelSpec, TrainingResult, silent

_PAD, _END, _UNKNOWN = "<pad>", "<eos>", "<unk>"
_TURNS = {role: f"<|{role}|>" for role in ROLE_NAMES}
_END_OF_TURN = "<|end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""What a tiny model's chats look like, without a space or a line break that is not in the messages."""
WARM_UP = 0.1


def train_tiny_model(
    spec: TinyModelSpec, progress: OnStep = silent, checkpointing: Checkpointing = KEEP_NOTHING
) -> TrainingResult:
    """Make and pretrain a tiny model from a PRETRAINING_TEXT table (:func:`make_tiny_model`)."""
    frame = read_table(spec.pretraining_text, PRETRAINING_TEXT)
    texts = rows_of_split(frame, "train", spec.pretraining_text)["text"].tolist()
    return make_tiny_model(texts, spec.settings, spec.output, spec.compute, progress, checkpointing)


def make_tiny_model(
    texts: Sequence[str],
    settings: TinyModelSettings,
    output: Path,
    compute: ComputeSettings | None = None,
    progress: OnStep = silent,
    checkpointing: Checkpointing = KEEP_NOTHING,
) -> TrainingResult:
    """Train a tokenizer and a GPT-2 on ``texts`` with the language-modelling loss, and write them to ``output``.

    Each document is a row that begins at position 0, as prompts do later; documents longer than the context are cut in
    windows. With several ranks, each trains the same model: it is too small for exchanging gradients to save time.

    Raises:
        TrainingStopped: `checkpointing.stop` gave a reason.
        UserError: the text or the settings cannot be used, or the training diverged.
    """
    if not any(text.strip() for text in texts):
        raise UserError("The pretraining text is empty; a tiny model needs at least one document.")
    compute = compute or ComputeSettings()
    with training_on(compute) as device:
        seed_everything(settings.seed)
        tokenizer = make_tokenizer(texts, settings)
        windows = text_windows(tokenizer, texts, settings.context)
        model = GPT2LMHeadModel(_config(tokenizer, settings)).to(device)  # type: ignore[arg-type]
        use_fast_layers(model)
        limit_logits(model, compute.logits_mib)
        keeper = StateKeeper(checkpointing, content_hash("tiny_model", settings.recorded(), list(texts)))
        losses = _pretrain(model, windows, settings, progress, keeper)
        with writing_output(output) as folder:
            save_policy(Policy(model.eval(), tokenizer), None, folder)
    metrics = {"loss": sum(losses[-20:]) / len(losses[-20:]), "parameters": float(model.num_parameters())}
    return TrainingResult(output, metrics | {"vocabulary": float(len(tokenizer))}, {"loss": losses})


def make_tokenizer(texts: Sequence[str], settings: TinyModelSettings) -> PreTrainedTokenizerFast:
    """A word-level tokenizer (whitespace separates words) or byte-level BPE, of at most `vocabulary` tokens.

    Those that open and end a turn in :data:`CHAT_TEMPLATE` come on top, where the settings ask for chats.
    """
    backend = (
        _word_level(texts, settings.vocabulary)
        if settings.tokenizer == "word"
        else _byte_level(texts, settings.vocabulary)
    )
    special = {"pad_token": _PAD, "eos_token": _END}
    if settings.tokenizer == "word":
        special["unk_token"] = _UNKNOWN
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        model_max_length=settings.context,
        padding_side="left",
        **special,
    )
    if settings.chat:
        made.add_special_tokens({"additional_special_tokens": [*_TURNS.values(), _END_OF_TURN]})
        made.chat_template = CHAT_TEMPLATE
    return made


def _word_level(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    counts = Counter(word for text in texts for word in text.split())
    # Ties in the count go by the alphabet, so that the order of the texts does not matter.
    words = sorted(counts.keys() - {_PAD, _END, _UNKNOWN}, key=lambda word: (-counts[word], word))
    names = [_PAD, _END, _UNKNOWN, *words][:vocabulary]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def _byte_level(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocabulary < len(alphabet) + 2:
        raise UserError(
            f"base_model.tiny.vocabulary is {vocabulary}; a `bpe` tokenizer needs at least {len(alphabet) + 2}."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[_PAD, _END], initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _config(tokenizer: PreTrainedTokenizerFast, settings: TinyModelSettings) -> GPT2Config:
    if settings.width % settings.heads:
        raise UserError(
            f"base_model.tiny.width is {settings.width}; it must be a multiple of heads ({settings.heads})."
        )
    return GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=settings.context,
        n_embd=settings.width,
        n_layer=settings.layers,
        n_head=settings.heads,
        # The same curve as GPT-2's own `gelu_new` (the tanh form), in one fused kernel.
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.eos_token_id,
    )


def _pretrain(
    model: GPT2LMHeadModel, windows: Tensor, settings: TinyModelSettings, progress: OnStep, keeper: StateKeeper
) -> list[float]:
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_up_then_linear(step, settings.steps))
    run = PretrainingRun(model, optimizer, schedule, generator)
    if (state := keeper.load(torch.device("cpu"), run.misfit)) is not None:
        run.load_state_dict(state)
    del state  # it is copied into model and optimiser, and would take memory until the end
    model.train()
    for step in range(len(run.losses) + 1, settings.steps + 1):
        rows = torch.randint(len(windows), (settings.batch_size,), generator=generator)
        loss = language_model_loss(model, windows[rows].to(model.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        run.losses.append(loss.item())
        require_finite_loss(run.losses[-1], step)
        if is_main():
            progress(step, settings.steps, loss=run.losses[-1])
        if step < settings.steps:
            keeper.after_step(step, run.state_dict)
    return run.losses


@dataclass
class PretrainingRun:
    """Everything that the next step depends on."""

    model: GPT2LMHeadModel
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    generator: torch.Generator
    losses: list[float] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "losses": self.losses,
        }

    def misfit(self, state: dict[str, Any]) -> str:
        """Why this run cannot go on from a state, for a sentence; empty where it can."""
        return misfit(self.model.state_dict(), state["model"])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        self.losses = state["losses"]


def _warm_up_then_linear(step: int, steps: int) -> float:
    warm_up = max(int(WARM_UP * steps), 1)
    return min((step + 1) / warm_up, (steps - step) / max(steps - warm_up, 1))
