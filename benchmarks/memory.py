"""Peak memory of each stage beside its estimate: ``python -m benchmarks.memory --help``.

Every stage trains for two steps in a process of its own, on texts that are as long as the settings allow but for one
row of each table, so that rows have padding as they mostly do. Measured is what the process grows by, on a GPU what
PyTorch has allocated there at most.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from benchmarks.training.inputs import Shape as Words
from benchmarks.training.inputs import make_tokenizer, preference_row, prompt_row, write_rows
from benchmarks.training.sides.measuring import peak_bytes
from rlhf_dagster.compute.memory import BUFFERS, placed
from rlhf_dagster.compute.trainings import TRAININGS
from rlhf_dagster.config.training import (
    ComputeSettings,
    DpoSettings,
    PpoSettings,
    RewardModelSettings,
    SamplingSettings,
    SftSettings,
)
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.schemas import DEMONSTRATIONS, PREFERENCES, PROMPTS
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING
from rlhf_dagster.training.specs import (
    DpoSpec,
    PpoSpec,
    RewardModelSpec,
    SftSpec,
    Spec,
    silent,
    spec_from_json,
    spec_to_json,
)

Specs = dict[str, Spec]
STAGES = ("sft", "reward_model", "ppo", "dpo")
STEPS = 2
"""The second has the optimiser's state from its beginning."""
ONE = "--one"
"""Of a process that runs a single stage."""


def main() -> None:
    if sys.argv[1:2] == [ONE]:
        print(growth(*sys.argv[2:]))
        return
    arguments = parse()
    with TemporaryDirectory() as name:
        results = list(measured(arguments, Path(name)))
    print(json.dumps({"settings": arguments.set, "stages": results}, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--model", type=Path, help="a folder with a model; default: a Llama of the sizes below")
    for size, default in (("layers", 6), ("width", 512), ("heads", 8), ("key-value-heads", 4), ("inner", 1376)):
        parser.add_argument(f"--{size}", type=int, default=default)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=8, help="of a batch, all its responses counted")
    parser.add_argument("--prompt", type=int, default=64, help="tokens")
    parser.add_argument("--response", type=int, default=64, help="tokens")
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES)
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="such as compute.precision=bf16 or lora={rank: 8}"
    )
    arguments = parser.parse_args()
    for setting in arguments.set:
        section, dot, _ = setting.split("=", 1)[0].rpartition(".")
        if dot and section not in ("compute", *STAGES):
            parser.error(f"--set {setting}: no stage is called {section}; settings of all stages are named without one")
    return arguments


def make_model(folder: Path, sizes: argparse.Namespace) -> Path:
    """A Llama with random weights, and a tokenizer of words; on a GPU it is drawn there, and saved in bf16."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    context = sizes.prompt + sizes.response + 1
    make_tokenizer(Words(0, 0, 0, sizes.vocabulary, context)).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.width,
        intermediate_size=sizes.inner,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_value_heads,
        max_position_embeddings=context,
        tie_word_embeddings=not getattr(sizes, "untied", False),
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=1,
    )
    on_gpu = getattr(sizes, "device", "cpu") == "cuda"
    with torch.device("cuda" if on_gpu else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if on_gpu else torch.float32)
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    return folder


def measured(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Stage, estimate and measurement in bytes, and their ratio, one stage after the other."""
    model = arguments.model or make_model(folder / "model", arguments)
    for stage, spec in make_specs(arguments, model, folder).items():
        command = [sys.executable, "-m", "benchmarks.memory", ONE, stage, spec_to_json(spec)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if ran.returncode:
            raise SystemExit(ran.stderr)
        estimate, found = TRAININGS[stage].peak_memory(placed(spec)).total + BUFFERS, int(ran.stdout.split()[-1])
        yield {"stage": stage, "estimate": round(estimate), "measured": found, "ratio": round(estimate / found, 3)}


def growth(stage: str, spec_json: str) -> int:
    """Bytes that a training takes at most beyond what the process had with all its libraries loaded."""
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401

    train = TRAININGS[stage].load()
    spec = spec_from_json(TRAININGS[stage].spec, spec_json, "spec")
    before = peak_bytes()
    train(spec, silent, KEEP_NOTHING)
    on_gpu = torch.cuda.is_available() and spec.compute.device != "cpu"
    return torch.cuda.max_memory_allocated() if on_gpu else peak_bytes() - before


def make_specs(arguments: argparse.Namespace, model: Path, folder: Path) -> Specs:
    """The spec of each stage that is asked for, in the order in which they train.

    Adapters that stay adapters begin with SFT's, so that the later stages share one base.
    """
    rows, changes = arguments.rows, [setting.split("=", 1) for setting in arguments.set]
    sampling = SamplingSettings(
        prompt_tokens=arguments.prompt, response_tokens=arguments.response, batch_size=rows, fixed_length=True
    )
    length = arguments.prompt + arguments.response
    compute = _changed(ComputeSettings(threads=1), "compute", changes)
    own: dict[str, Any] = {"sampling": sampling, "compute": compute}
    sft = SftSettings(batch_size=rows, max_tokens=length, epochs=STEPS)
    rewards = RewardModelSettings(
        batch_size=rows // 2, max_tokens=length, epochs=STEPS, normalisation_samples=max(rows, 8)
    )
    ppo = PpoSettings(batch_size=rows, minibatches=1, epochs=1, updates=STEPS)
    dpo = DpoSettings(batch_size=rows // 2, epochs=STEPS)
    tables = write_tables(arguments, model, folder)
    prompts, demonstrations, preferences = tables
    begun = folder / "sft" if _stays(arguments.set) else model
    specs: Specs = {
        "sft": SftSpec(model, demonstrations, folder / "sft", _changed(sft, "sft", changes), **own),
        "reward_model": RewardModelSpec(
            begun, preferences, prompts, folder / "reward_model", _changed(rewards, "reward_model", changes), **own
        ),
        "ppo": PpoSpec(
            begun, begun, folder / "reward_model", prompts, None, folder / "ppo", _changed(ppo, "ppo", changes), **own
        ),
        "dpo": DpoSpec(begun, preferences, folder / "dpo", _changed(dpo, "dpo", changes), **own),
    }
    needed = set(arguments.stages) | ({"reward_model"} if "ppo" in arguments.stages else set())
    needed |= {"sft"} if _stays(arguments.set) else set()
    return {stage: spec for stage, spec in specs.items() if stage in needed}


def _stays(settings: Sequence[str]) -> bool:
    return any(setting.startswith("lora=") and "merge: false" in setting for setting in settings)


def _changed(settings: Any, section: str, changes: Sequence[Sequence[str]]) -> Any:
    """``settings`` with the changes that name their section, or with `lora`, which is of all stages."""
    own: dict[str, Any] = {}
    for name, value in changes:
        first, _, setting = name.rpartition(".")
        if first == section or (not first and section != "compute"):
            own[setting] = yaml.safe_load(value)
    return settings.changed(**own)


def write_tables(arguments: argparse.Namespace, model: Path, folder: Path) -> tuple[Path, Path, Path]:
    """Prompts, demonstrations and preferences of a batch, all of them longer than what is read but for the first."""
    rows = [_row(arguments, model, index) for index in range(arguments.rows)]
    paths = folder / "prompts.parquet", folder / "demonstrations.parquet", folder / "preferences.parquet"
    write_rows(paths[0], [prompt_row(row["prompt"]) for row in rows], PROMPTS)
    write_rows(paths[1], [_demonstration_row(row) for row in rows], DEMONSTRATIONS)
    write_rows(paths[2], [preference_row(index, row) for index, row in enumerate(rows[::2])], PREFERENCES)
    return paths


def _row(arguments: argparse.Namespace, model: Path, index: int) -> dict[str, Any]:
    prompt, response = (2 * tokens if index else tokens // 2 for tokens in (arguments.prompt, arguments.response))
    return {
        "prompt": _words(model, index, prompt),
        "responses": [_words(model, seed, response) for seed in (1000 + index, 2000 + index)],
    }


def _words(model: Path, seed: int, tokens: int) -> str:
    """Random words of the model's vocabulary, ``tokens`` of them or more where words have several tokens."""
    known = sorted(word for word in _vocabulary(model) if word.isascii() and word.isalnum())
    return " ".join(random.Random(seed).choices(known, k=tokens))


@cache
def _vocabulary(model: Path) -> tuple[str, ...]:
    from transformers import AutoTokenizer

    return tuple(AutoTokenizer.from_pretrained(model).get_vocab())


def _demonstration_row(row: dict[str, Any]) -> dict[str, str]:
    own = {"demonstration_id": content_hash(row["prompt"], row["responses"][0]), "response": row["responses"][0]}
    prompt = prompt_row(row["prompt"])
    return own | {"prompt": row["prompt"], **{name: prompt[name] for name in ("prompt_id", "source", "split")}}


if __name__ == "__main__":
    main()
