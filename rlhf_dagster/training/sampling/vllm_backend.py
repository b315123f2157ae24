"""Rollouts by vLLM, in this process and on this process's device, with the policy's weights of the moment."""

import copy
import gc
import math
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from rlhf_dagster.common.extras import install_extras
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.training.models.log_probs import Decoding
from rlhf_dagster.training.models.low_precision.quantised import QuantisedLinear
from rlhf_dagster.training.runtime.seeding import random_state, restore_random_state
from rlhf_dagster.training.sampling.backend import Responses
from rlhf_dagster.training.sampling.foreign_responses import as_responses, rows_of, seeds
from rlhf_dagster.training.texts.tokens import PaddedBatch

BLOCK = 128
"""Tokens to which a sequence's cache is rounded up: the largest block of vLLM's attention kernels."""
CHECKED_SHARE = 0.05
"""Share of the device's memory that vLLM demands to be free when the engine starts. It is small because the cache gets
a given size, not what is free, and because vLLM does not know what the trainer needs."""


class VllmRollouts:
    """An engine made at the first call. Every call gives it the weights anew, since PPO changes them between two calls.

    The engine stays on the device while the trainer works: a copy of the weights, and a cache for ``rows`` responses.
    """

    own_arithmetic = False

    def __init__(self, compute: ComputeSettings, rows: int) -> None:
        self.compute, self.rows = compute, rows
        self.vllm = _installed()
        self.engine: Any = None
        self.longest = 0
        """Tokens of prompt and response for which the engine was made."""

    def generate(
        self,
        model: PreTrainedModel,
        prompts: PaddedBatch,
        uniforms: Tensor | None,
        decoding: Decoding,
        value_head: nn.Module | None = None,
    ) -> Responses:
        before = random_state()  # the engine seeds the same generators
        try:
            self._need_room(model, prompts.input_ids.shape[1] + decoding.max_tokens)
            self.engine.collective_rpc("reload_weights", kwargs={"weights_iterator": plain_weights(model)})
            outputs = self.engine.generate(
                [{"prompt_token_ids": ids} for ids in rows_of(prompts)],
                self._parameters(uniforms, len(prompts.input_ids), decoding, model.config),
                use_tqdm=False,
            )
        except (ValueError, RuntimeError, NotImplementedError, ImportError) as error:
            raise UserError(
                f"vLLM cannot sample from {type(model).__name__} here ({first_line(error)}); "
                "set `compute.rollout_backend: native`."
            ) from error
        finally:
            restore_random_state(before)
        drawn = [output.outputs[0] for output in outputs]
        tokens = [list(one.token_ids) for one in drawn]
        log_probs = [
            [step[token].logprob for token, step in zip(ids, one.logprobs, strict=True)]
            for ids, one in zip(tokens, drawn, strict=True)
        ]
        return as_responses(tokens, log_probs, decoding, prompts.input_ids.device)

    def close(self) -> None:
        if self.engine is None:
            return
        self.engine.llm_engine.engine_core.shutdown()
        self.engine, self.longest = None, 0
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _need_room(self, model: PreTrainedModel, tokens: int) -> None:
        """Make the engine, or another one where sequences have become longer."""
        if self.engine is not None and tokens <= self.longest:
            return
        self.close()
        # The engine's core in this process: weights go to it without a copy in another format or process.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        dtype = torch.bfloat16 if self.compute.precision == "bf16" else torch.float32
        with tempfile.TemporaryDirectory() as folder:
            _save_config(model, folder)
            self.engine = self.vllm.LLM(
                model=folder,
                load_format="dummy",  # the weights come with the first call
                skip_tokenizer_init=True,
                dtype=str(dtype).removeprefix("torch."),
                max_model_len=tokens,
                max_num_seqs=self.rows,
                kv_cache_memory_bytes=cache_bytes(model.config, self.rows, tokens, dtype),
                gpu_memory_utilization=CHECKED_SHARE,
                enable_prefix_caching=False,  # a prefix computed before an update would be stale
                logprobs_mode="processed_logprobs",  # at the temperature, without what cannot be drawn
                generation_config="vllm",  # none of the defaults that a checkpoint may bring, such as top-k
                seed=0,
            )
        self.longest = tokens

    def _parameters(
        self, uniforms: Tensor | None, rows: int, decoding: Decoding, config: PreTrainedConfig
    ) -> list[Any]:
        """Each row has its own seed, so that what it draws does not depend on the rows beside it."""
        width = config.get_text_config().vocab_size
        never = set(decoding.never_drawn(width))
        allowed = [token for token in range(width) if token not in never]
        common = {
            "temperature": 0.0 if uniforms is None else decoding.temperature,
            "top_p": 1.0,
            "top_k": 0,
            "max_tokens": decoding.max_tokens,
            "ignore_eos": True,
            "stop_token_ids": None if decoding.fixed_length else list(decoding.end_ids),
            "allowed_token_ids": allowed,
            "logprobs": 0,
            "detokenize": False,
        }
        row_seeds = [None] * rows if uniforms is None else seeds(uniforms)
        return [self.vllm.SamplingParams(seed=seed, **common) for seed in row_seeds]


def plain_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Names and weights of ``model`` as a checkpoint has them, with adapters added in; the model stays as it is.

    A head that shares its weight with the embeddings is there under both names: vLLM may keep a copy of its own.
    """
    adapted = {name: layer for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        place, _, leaf = name.rpartition(".")
        owner, _, inner = place.rpartition(".base_layer")
        if isinstance(coded := model.get_submodule(place), QuantisedLinear) and leaf == "weight":
            whole = coded.decoded(torch.float32) + (_delta(adapted[owner]) if owner in adapted else 0)
            yield f"{owner or place}.{leaf}", whole.t() if coded.turned else whole
        elif not inner and owner in adapted:
            weight = parameter.detach()
            yield f"{owner}.{leaf}", weight + _delta(adapted[owner]) if leaf == "weight" else weight
        elif not any(name.startswith(f"{layer}.") for layer in adapted):
            yield name, parameter.detach()


def _delta(layer: Any) -> Tensor:
    """What the active adapters add to a layer's weight, in float32 in a training in bfloat16 too."""
    with torch.autocast(layer.get_base_layer().weight.device.type, enabled=False):
        return sum(layer.get_delta_weight(name).detach() for name in layer.active_adapters)


def cache_bytes(config: PreTrainedConfig, rows: int, tokens: int, dtype: torch.dtype) -> int:
    """Keys and values of ``rows`` sequences of ``tokens``, and of one more that the engine sets aside."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    token = 2 * text.num_hidden_layers * heads * width * dtype.itemsize
    return (rows + 1) * BLOCK * math.ceil((tokens + 1) / BLOCK) * token


def _save_config(model: PreTrainedModel, folder: str) -> None:
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)


def _installed() -> Any:
    try:
        import vllm
    except ImportError:
        raise UserError(
            f"`compute.rollout_backend: vllm` needs vLLM; `{install_extras('vllm')}`, or set it to `native`."
        ) from None
    return vllm
