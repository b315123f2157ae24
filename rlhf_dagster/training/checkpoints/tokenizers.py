"""Opening a tokenizer, and whether the model has a row for each token."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import VOCABULARIES
from rlhf_dagster.lineage.weight_files import require_no_pointer
from rlhf_dagster.training.checkpoints.sources import Source, foreign_errors

_REMEDY = "save it with a tokenizer.json where transformers opens it"


def open_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """Raises UserError where it is missing or cannot be opened, knows no words or has no end-of-text token."""
    if source.folder is not None:
        _require_readable(source.folder)
    with foreign_errors(source.place, "the tokenizer", _REMEDY):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(**source.arguments)
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        # Transformers makes such a tokenizer where it finds no vocabulary.
        raise UserError(f"{source.place}: the tokenizer has no vocabulary; put the model's tokenizer files beside it.")
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"{source.place}: the tokenizer has no end-of-text token; set `eos_token` in tokenizer_config.json."
        )
    return tokenizer


def vocabulary_rows(model: PreTrainedModel) -> int:
    """Ids that the model can both read and predict."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    rows = [len(weight) for layer in layers if (weight := getattr(layer, "weight", None)) is not None]
    return min(rows, default=int(model.config.get_text_config().vocab_size))


def require_rows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, place: str) -> None:
    """Raise UserError where a token, but for padding, has an id beyond the model's embedding.

    Padding is neither read nor drawn, so a row can be made for it; rows of other tokens would be random numbers.
    """
    rows, added = vocabulary_rows(model), tokenizer.get_added_vocab()
    beyond = {
        token: number
        for token, number in tokenizer.get_vocab().items()
        if number >= rows and number != tokenizer.pad_token_id
    }
    if not beyond:
        return
    token = min(beyond, key=lambda name: beyond[name])
    said = f"the tokenizer has {token!r} (id {beyond[token]}){_others(beyond)} and the embedding only {rows} rows"
    if beyond.keys() <= added.keys():
        raise UserError(
            f"{place}: {said}, so that the model never learned what they mean; take them out of the tokenizer, or "
            "enlarge the embedding with `resize_token_embeddings`, which they begin in with random rows."
        )
    raise UserError(f"{place}: {said}, so it is another model's tokenizer; put this model's tokenizer files there.")


def _others(beyond: dict[str, int]) -> str:
    return f" and {len(beyond) - 1} more tokens" if len(beyond) > 1 else ""


def _require_readable(folder: Path) -> None:
    files = [path for path in sorted(folder.iterdir()) if path.name in _FILES or path.suffix in _MODELS]
    if not files:
        raise UserError(f"{folder}: there is no tokenizer; put the model's tokenizer files beside its weights.")
    for file in files:
        require_no_pointer(file)


_FILES = ("tokenizer.json", "tokenizer_config.json", *VOCABULARIES)
_MODELS = (".model", ".tiktoken", ".spm", ".bpe")
