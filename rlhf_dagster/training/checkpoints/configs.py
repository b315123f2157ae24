"""What a checkpoint's config alone tells: whether transformers' own code can open it, and as what."""

from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.lineage.weight_files import CONFIG, require_no_pointer
from rlhf_dagster.training.checkpoints.described import require_described, require_no_fetched_code
from rlhf_dagster.training.checkpoints.randomness import without_dropout
from rlhf_dagster.training.checkpoints.sources import Source, foreign_errors

CAUSAL_ANYWAY = ("gpt_neox", "gpt_neox_japanese", "trocr")
"""Architectures whose attention is causal, though their config has an `is_decoder` that is false."""
SCORER_NAME = "ForSequenceScoring"
"""How the name of a sequence scorer's class ends where transformers has none of its kind."""
OTHER_TASKS = (
    SCORER_NAME,
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForMaskedLM",
    "RewardModel",
)
"""How classes of models end whose output is not the next token."""
_REMEDY = "give a model that the installed transformers opens"


def open_config(auto_class: Any, source: Source) -> PretrainedConfig:
    """The config of a checkpoint that is to be opened by ``auto_class``, all dropout 0.

    Raises:
        UserError: it cannot be read, names code or quantised weights that are not opened here, describes a model of
            another size than its weights, or one that predicts no next token although ``auto_class`` is that of causal
            language models.
    """
    values = _values(source)
    _require_own_code(values, source.place)
    require_no_fetched_code(values, source.place)
    _require_unquantised(values, source.place)
    with foreign_errors(source.place, "the config", _REMEDY):
        config = AutoConfig.from_pretrained(**source.arguments)
    if auto_class is AutoModelForCausalLM:
        _require_causal(config, source.place)
    require_described(auto_class, config, values, source)
    return without_dropout(config)


def _values(source: Source) -> dict[str, Any]:
    """The content of config.json."""
    if source.folder is not None:
        return _content(source.folder / CONFIG)
    remedy = "check the name, the revision and the network"
    with foreign_errors(source.place, "the config", remedy):
        arguments = {name: value for name, value in source.arguments.items() if name != "trust_remote_code"}
        return dict(PretrainedConfig.get_config_dict(**arguments)[0])


def _content(file: Path) -> dict[str, Any]:
    require_no_pointer(file)
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if isinstance(content, dict) and content:
        return content
    raise Damaged(f"{file} is empty or no JSON object, so it is damaged; fetch it again.")


def _require_own_code(values: dict[str, Any], place: str) -> None:
    kind = values.get("model_type")
    if kind in CONFIG_MAPPING:
        return
    if "auto_map" in values:
        raise UserError(
            f"{place}: the model ({kind}) brings code of its own, which is never run here; give a model "
            f"whose code transformers {transformers.__version__} has."
        )
    if kind is None:
        raise UserError(f"{place}: {CONFIG} names no model_type; put back the model's own {CONFIG}.")
    raise UserError(
        f"{place}: the model_type is {kind}, which transformers {transformers.__version__} does not know; {_REMEDY}."
    )


def _require_unquantised(values: dict[str, Any], place: str) -> None:
    parts = [values, *(part for part in values.values() if isinstance(part, dict))]
    found = next((part[name] for part in parts for name in _QUANTISED if part.get(name)), None)
    if found is not None:
        method = found.get("quant_method", "a method it does not name") if isinstance(found, dict) else found
        raise UserError(
            f"{place}: its weights are quantised ({method}), so that they cannot be trained; give the model that it "
            "was made from, in bfloat16, float16 or float32."
        )


_QUANTISED = ("quantization_config", "compression_config")


def _require_causal(config: PretrainedConfig, place: str) -> None:
    """Raise UserError where the config says that the model does not predict the next token from those before it."""
    if wrong := _not_causal(config):
        raise UserError(f"{place}: {wrong}; give a causal language model, as GPT-2's or Llama's kin are.")


def _not_causal(config: PretrainedConfig) -> str | None:
    kind, made_for = config.model_type, getattr(config, "architectures", None) or []
    if config.is_encoder_decoder:
        return f"the model ({kind}) is an encoder with a decoder, which continues no text"
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return f"transformers has no causal language model of the type {kind}"
    if getattr(config, "is_decoder", None) is False and kind not in CAUSAL_ANYWAY:
        return f"the model ({kind}, `is_decoder: false`) reads texts from both sides and predicts no next token"
    if getattr(config, "causal", None) is False:
        return f"the model ({kind}, `causal: false`) reads texts from both sides and predicts no next token"
    if made_for and all(name.endswith(OTHER_TASKS) for name in made_for):
        return f"the model was saved as {made_for[0]}, which predicts no next token"
    return None
