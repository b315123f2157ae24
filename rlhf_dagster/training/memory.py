"""Whether a training fits into memory, said before it starts. Importing this imports no torch."""

import json
import struct
from pathlib import Path

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.specs import PpoSpec, RewardModelSpec, SftSpec, TinyModelSpec

TRAINED = 16
"""Bytes for each parameter that is trained: weight, gradient and Adam's two moments in float32."""
FROZEN = 4
BYTES = 4
ACTIVATIONS = 24
"""Activations that a layer keeps for its backward pass, in multiples of tokens x width: Korthikanti et al. 2022, section
4.1, counts 34 bytes in 16 bits without dropout masks; float32 and a fused attention come to about 24 numbers."""
LOGITS = 4
"""Copies of the logits of a batch at once: logits, log-softmax, and their gradients."""

Spec = TinyModelSpec | SftSpec | RewardModelSpec | PpoSpec


def require_memory(spec: Spec) -> None:
    """Raise UserError where a training needs more memory than is free on its device."""
    needed, (free, where) = required_bytes(spec), free_bytes(spec)
    if needed > free:
        stage = type(spec).__name__.removesuffix("Spec")
        raise UserError(
            f"{_STAGES[stage]} needs about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free on {where}; lower "
            f"{_LOWER[stage]}, or take a smaller base model."
        )


_STAGES = {"TinyModel": "Pretraining", "Sft": "SFT", "RewardModel": "Reward-model training", "Ppo": "PPO"}
_LOWER = {
    "TinyModel": "base_model.tiny.batch_size",
    "Sft": "sft.batch_size or sft.max_tokens",
    "RewardModel": "reward_model.batch_size or reward_model.max_tokens",
    "Ppo": "ppo.batch_size, raise ppo.minibatches, or lower sampling.response_tokens",
}


def required_bytes(spec: Spec) -> int:
    """An estimate of a stage's peak memory in bytes: weights, gradients, optimiser, and the activations of a batch.

    From the checkpoints' headers and the settings; nothing is loaded.
    """
    if isinstance(spec, TinyModelSpec):
        tiny = spec.settings
        parameters = tiny.vocabulary * tiny.width + tiny.layers * 12 * tiny.width**2
        shape = (tiny.layers, tiny.width, tiny.vocabulary)
        return TRAINED * parameters + _batch_bytes(shape, tiny.batch_size * tiny.context)
    if isinstance(spec, SftSpec):
        tokens = spec.settings.batch_size * spec.settings.max_tokens
        return TRAINED * parameters_of(spec.model) + _batch_bytes(shape_of(spec.model), tokens)
    if isinstance(spec, RewardModelSpec):
        layers, width, _ = shape_of(spec.sft)
        # Of each comparison two responses at least; a label's responses are scored in one pass.
        tokens = 2 * spec.settings.batch_size * spec.settings.max_tokens
        # The SFT policy is loaded too, to sample what scores are normalised on.
        return (TRAINED + FROZEN) * parameters_of(spec.sft) + _batch_bytes((layers, width, 0), tokens)
    length = spec.sampling.prompt_tokens + spec.sampling.response_tokens
    rows = -(-spec.settings.batch_size // spec.settings.minibatches)
    weights = TRAINED * parameters_of(spec.start) + FROZEN * (
        parameters_of(spec.sft) + parameters_of(spec.reward_model)
    )
    layers, width, vocabulary = shape_of(spec.start)
    training = _batch_bytes((layers, width, 0), rows * length) + _logit_bytes(
        vocabulary, rows * spec.sampling.response_tokens
    )
    # Keys and values of the episodes that are sampled at once.
    cache = 2 * BYTES * layers * width * spec.settings.batch_size * length
    return weights + max(training, cache)


def parameters_of(folder: Path) -> int:
    """Numbers in a checkpoint's safetensors files, from their headers; 0 for a folder without any."""
    return sum(_numbers_in(file) for file in Path(folder).glob("*.safetensors"))


def shape_of(folder: Path) -> tuple[int, int, int]:
    """Layers, width and vocabulary by a checkpoint's config; 0 for what it does not say."""
    path = Path(folder, "config.json")
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    config = config.get("text_config", config)
    names = (("num_hidden_layers", "n_layer"), ("hidden_size", "n_embd"), ("vocab_size",))
    layers, width, vocabulary = (next((int(config[name]) for name in group if name in config), 0) for group in names)
    return layers, width, vocabulary


def free_bytes(spec: Spec) -> tuple[int, str]:
    """Free memory of the device that a spec's training uses, and what that is called."""
    compute = spec.compute
    if compute.device != "cpu":
        import torch

        if torch.cuda.is_available():
            return int(torch.cuda.mem_get_info()[0]), f"the GPU {torch.cuda.get_device_name()}"
    return _free_on_machine(), "this machine"


def _free_on_machine() -> int:
    """What Linux says is available, or what the control group leaves where that is less; no limit elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 1 << 62
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        stat = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
    except OSError:
        return free
    # Files in the cache count as used, and are dropped when memory is needed.
    return free if limit == "max" else min(free, int(limit) - used + int(stat.get("inactive_file", 0)))


def _batch_bytes(shape: tuple[int, int, int], tokens: int) -> int:
    layers, width, vocabulary = shape
    return BYTES * ACTIVATIONS * layers * width * tokens + _logit_bytes(vocabulary, tokens)


def _logit_bytes(vocabulary: int, tokens: int) -> int:
    return BYTES * LOGITS * vocabulary * tokens


def _numbers_in(file: Path) -> int:
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header = json.loads(opened.read(length))
    tensors = (entry for name, entry in header.items() if name != "__metadata__")
    return sum(_product(entry["shape"]) for entry in tensors)


def _product(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
