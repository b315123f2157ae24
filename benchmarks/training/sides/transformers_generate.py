"""Rollouts with the `generate` of transformers."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.training.sides.measuring import Laps, main


@torch.no_grad()
def rollouts(inputs: Path, options: dict[str, Any], laps: Laps) -> dict[str, Any]:
    """Sampling alone: the peer need not return log-probs."""
    model = AutoModelForCausalLM.from_pretrained(inputs / "sft").eval()
    tokenizer = AutoTokenizer.from_pretrained(inputs / "sft")
    prompts = [row["prompt"] for row in json.loads((inputs / "data.json").read_text())][: options["batch_size"]]
    lengths: list[int] = []
    laps.mark()
    for seed in range(options["batches"]):
        torch.manual_seed(seed)
        batch = tokenizer(prompts, return_tensors="pt", padding=True)
        drawn = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=options["response_tokens"],
            suppress_tokens=[tokenizer.pad_token_id, tokenizer.unk_token_id],
        )[:, batch["input_ids"].shape[1] :]
        tokenizer.batch_decode(drawn, skip_special_tokens=True)
        lengths += (drawn != tokenizer.pad_token_id).sum(dim=1).tolist()
        laps.mark()
    return {"mean_length": sum(lengths) / len(lengths)}


if __name__ == "__main__":
    main({"rollouts": rollouts})
