"""The champion beside SFT, both opened with plain transformers: which of the two does VADER prefer?

    python examples/smollm2/compare.py FOLDER [PROMPTS]

Each answers the same prompts of the test split once (by default 512), with plain `generate`. Printed are the share that
VADER prefers, ties counting half, with its 95% Wilson interval, and the share of distinct responses.
"""

import sys
from pathlib import Path

import torch
from task import positivity
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_dagster.common.intervals import wilson
from rlhf_dagster.loop.folder import LoopFolder

BATCH = 64


def responses(checkpoint: Path, prompts: list[str], seed: int) -> list[str]:
    """One response to each prompt, sampled as the checkpoint's generation_config.json says."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    torch.manual_seed(seed)
    said = []
    for start in range(0, len(prompts), BATCH):
        asked = tokenizer(prompts[start : start + BATCH], return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            tokens = model.generate(**asked)
        said += tokenizer.batch_decode(tokens[:, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    return said


def compare(folder: Path, most: int) -> None:
    loop = LoopFolder.open(folder)
    champion, sft = loop.registry.champion(), loop.checkpoint("sft_checkpoint")
    prompts = loop.table("prompts")
    if champion is None or sft is None or prompts is None:
        sys.exit(f"{folder}: no round is done yet; run `make demo-real`.")
    asked = list(prompts.loc[prompts["split"] == "test", "text"])[:most]
    new = responses(loop.policy(champion.policy_id).folder, asked, seed=1)
    old = responses(sft.folder, asked, seed=2)
    pairs = [(positivity(one), positivity(other)) for one, other in zip(new, old, strict=True)]
    wins, ties = sum(one > other for one, other in pairs), sum(one == other for one, other in pairs)
    rate = wilson(wins + ties / 2, len(pairs))
    print(f"{champion.policy_id} against {sft.model_id}, {len(pairs)} test prompts, plain transformers:")
    print(f"  VADER prefers the champion on {rate.value:.1%} ({rate.low:.1%} to {rate.high:.1%}), ties half")
    print(f"  {len(set(new)) / len(new):.1%} of its responses are distinct, of SFT's {len(set(old)) / len(old):.1%}")


if __name__ == "__main__":
    compare(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 512)
