"""Tiny models in a loop's store, registered as its policies, without a training."""

from collections.abc import Sequence
from pathlib import Path

from chat_models import CHATML, chat_tokenizer
from loops import write_loop

from rlhf_dagster.lineage.manifest import write_manifest
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder

SHORT = {"prompt_tokens": 60, "response_tokens": 5, "fixed_length": False, "batch_size": 4}


def loop_of_policies(folder: Path, **sections: object) -> LoopFolder:
    """A loop whose SFT policy is the champion, and that has the policy of a first round."""
    loop = LoopFolder.open(write_loop(folder, **{"sampling": SHORT, **sections}))
    base, sft = kept(loop, "base"), kept(loop, "sft")
    loop.write_json("base_model", "", base.as_pointer())
    loop.write_json("sft_checkpoint", "", sft.as_pointer())
    loop.registry.register(sft.model_id, sft.path, "sft", "", [], sft.digest)
    loop.registry.set_initial(sft.model_id)
    policy = kept(loop, "ppo", "round-0001")
    loop.write_json("ppo_policy", "round-0001", policy.as_pointer())
    loop.registry.register(policy.model_id, policy.path, "ppo", "round-0001", [sft.model_id], policy.digest)
    return loop


def kept(loop: LoopFolder, kind: str, round_key: str = "") -> Checkpoint:
    """A folder with no model in it, kept as one of this kind would be."""
    folder = loop.models.work_folder(kind, round_key)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(f'{{"kind": "{kind}"}}')
    return keep(loop, folder, kind, round_key)


def kept_chat_model(
    loop: LoopFolder, kind: str, chat: bool, round_key: str = "", beside: Sequence[str] = ()
) -> Checkpoint:
    """A random model of one layer, kept; it reads chats where ``chat``. ``beside`` are further files in its folder."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from rlhf_dagster.training.texts.chats.encoding import set_chat

    tokenizer = chat_tokenizer(CHATML)
    set_chat(tokenizer, chat)
    folder = loop.models.work_folder(kind, round_key)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=128, n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name in beside:
        (folder / name).write_text("{}")
    return keep(loop, folder, kind, round_key)


def keep(loop: LoopFolder, folder: Path, kind: str, round_key: str = "") -> Checkpoint:
    write_manifest(folder, kind=kind, round_key=round_key)
    checkpoint = loop.models.identify(folder, kind, round_key)
    loop.models.keep(folder, checkpoint)
    return checkpoint
