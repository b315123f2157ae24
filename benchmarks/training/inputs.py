"""Models and data that both sides of a case read: a folder for each shape and kind of text, made once."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast

from rlhf_dagster.records.ids import content_hash, prompt_id
from rlhf_dagster.records.schemas import DEMONSTRATIONS, PREFERENCES, PROMPTS, table

PAD, END, UNKNOWN = "<pad>", "<eos>", "<unk>"
VERSION = 1
"""Of what this module makes; a change makes everything again."""


@dataclass(frozen=True)
class Shape:
    """A GPT-2 with random weights."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    context: int
    activation: str = "gelu_new"
    """GPT-2's own by default."""
    end_probability: float = 0.0
    """Of end-of-text at every token; 0 leaves it to the random weights."""


@dataclass(frozen=True)
class Texts:
    """Random words, a token each."""

    rows: int
    prompt: tuple[int, int]
    """Fewest and most tokens of a prompt."""
    response: tuple[int, int]
    compared: int = 0
    """Responses of a comparison, for the reward model."""


def make_inputs(shape: Shape, texts: Texts, cache: Path) -> Path:
    """The folder with `sft`, `reward` and the tables of ``texts`` as Parquet (ours) and JSON (peers)."""
    folder = cache / content_hash("training benchmark", VERSION, asdict(shape), asdict(texts))[:16]
    if (folder / "data.json").is_file():
        return folder
    torch.manual_seed(0)
    tokenizer = make_tokenizer(shape)
    policy = _policy(shape, tokenizer)
    policy.save_pretrained(folder / "sft")
    tokenizer.save_pretrained(folder / "sft")
    reward_model = _reward_model(policy, shape)
    reward_model.save_pretrained(folder / "reward")
    tokenizer.save_pretrained(folder / "reward")
    _write_texts(shape, texts, folder)
    return folder


def make_tokenizer(shape: Shape) -> PreTrainedTokenizerFast:
    """Words `w3`, `w4`, ... behind the three special tokens."""
    names = [PAD, END, UNKNOWN, *(f"w{index}" for index in range(3, shape.vocabulary))]
    backend = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": PAD, "eos_token": END, "unk_token": UNKNOWN}
    return PreTrainedTokenizerFast(tokenizer_object=backend, padding_side="left", **special)


def _config(shape: Shape, **changes: Any) -> GPT2Config:
    return GPT2Config(
        vocab_size=shape.vocabulary,
        n_positions=shape.context,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        activation_function=shape.activation,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=1,
        **changes,
    )


def _policy(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    model = GPT2LMHeadModel(_config(shape))
    if shape.end_probability:
        _set_end_probability(model, shape.end_probability, tokenizer.eos_token_id)
    return model


@torch.no_grad()
def _set_end_probability(model: GPT2LMHeadModel, probability: float, end_id: int) -> None:
    """A constant direction in the last norm's bias, which end-of-text's row of the head alone points to."""
    table, norm = model.transformer.wte.weight, model.transformer.ln_f
    direction = torch.nn.functional.normalize(torch.randn(table.shape[1]), dim=0)
    table.sub_(torch.outer(table @ direction, direction))
    logit = torch.log(torch.tensor(probability / (1 - probability) * len(table)))
    norm.bias.add_(20 * direction)
    table[end_id] = direction * logit / 20


def _reward_model(policy: GPT2LMHeadModel, shape: Shape) -> GPT2ForSequenceClassification:
    config = _config(shape, num_labels=1, score_bias=0.0, score_max_tokens=shape.context)
    model = GPT2ForSequenceClassification(config)
    model.transformer.load_state_dict(policy.transformer.state_dict())
    return model


def _write_texts(shape: Shape, texts: Texts, folder: Path) -> None:
    rng = random.Random(0)
    rows = [_row(rng, shape, texts) for _ in range(texts.rows)]
    write_rows(folder / "prompts.parquet", [prompt_row(row["prompt"]) for row in rows], PROMPTS)
    if texts.compared:
        write_rows(folder / "preferences.parquet", [preference_row(i, row) for i, row in enumerate(rows)], PREFERENCES)
    else:
        write_rows(folder / "demonstrations.parquet", [_demonstration_row(row) for row in rows], DEMONSTRATIONS)
    (folder / "data.json").write_text(json.dumps(rows), encoding="utf-8")


def _row(rng: random.Random, shape: Shape, texts: Texts) -> dict[str, Any]:
    """`prompt` and, best first, `responses`."""
    return {
        "prompt": _words(rng, shape, texts.prompt),
        "responses": [_words(rng, shape, texts.response) for _ in range(max(texts.compared, 1))],
    }


def _words(rng: random.Random, shape: Shape, length: Sequence[int]) -> str:
    return " ".join(f"w{rng.randrange(3, shape.vocabulary)}" for _ in range(rng.randint(*length)))


def prompt_row(text: str) -> dict[str, str]:
    return {"prompt_id": prompt_id(text), "text": text, "source": "random", "user": "", "split": "train"}


def _demonstration_row(row: dict[str, Any]) -> dict[str, str]:
    prompt, response = row["prompt"], row["responses"][0]
    return {
        "demonstration_id": content_hash(prompt, response),
        "prompt_id": prompt_id(prompt),
        "prompt": prompt,
        "response": response,
        "source": "random",
        "split": "train",
    }


def preference_row(index: int, row: dict[str, Any]) -> dict[str, Any]:
    """A full order without ties: it says of every pair which is better."""
    k = len(row["responses"])
    return {
        "label_id": str(index),
        "comparison_id": str(index),
        "round": "benchmark",
        "kind": "ranking" if k > 2 else "pair",
        "prompt_id": prompt_id(row["prompt"]),
        "prompt": row["prompt"],
        "responses": row["responses"],
        "policy_ids": ["sft"] * k,
        "ranks": list(range(1, k + 1)),
        "target": [1.0] + [0.0] * (k - 1),
        "annotator": "ann-01",
        "weight": 1.0,
        "split": "train",
    }


def write_rows(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(rows, schema), path)
