"""What a loop writes, as small commands of their own: each can be repeated, and its folder can be looked at."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_dagster.common.sealed import unseal
from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.data.import_file import import_file
from rlhf_dagster.data.imported import imported_key
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.manifest import write_manifest
from rlhf_dagster.lineage.models import Checkpoint, ModelStore, opened
from rlhf_dagster.lineage.registry import PolicyRegistry
from rlhf_dagster.lineage.stop_cord import pull, read_stop, reserve, reset, resumes
from rlhf_dagster.records.ids import prompt_id
from rlhf_dagster.records.parquet import read_parquet
from rlhf_dagster.storage.local import LocalStore

if TYPE_CHECKING:
    from rlhf_dagster.training.runtime.state_keeper import StateKeeper

ROUND = "round-0001"
REASON = "odd\u2028answers\u0085since Tuesday"


@dataclass(frozen=True)
class Case:
    """``prepare`` makes a loop's folder, ``act`` is the command, ``look`` raises where the folder is not whole.

    ``look`` returns what is there as text: ``before`` the command and ``after`` it are the only two answers.
    """

    name: str
    prepare: Callable[[Path], None]
    act: Callable[[Path], None]
    look: Callable[[Path], str]
    before: str
    after: str
    may_skip: bool = False
    """Whether the command may end well without having written: a training does not end for its state."""


def registry_of(root: Path) -> PolicyRegistry:
    return PolicyRegistry(LocalStore(root))


def prepare_registry(root: Path) -> None:
    registry = registry_of(root)
    registry.register("sft", "models/sft", "sft", "")
    registry.register("ppo", "models/ppo", "ppo", ROUND, ["sft"])
    registry.set_initial("sft")


def promote(root: Path) -> None:
    registry_of(root).promote("ppo", ROUND, "gate", REASON)


def champions(root: Path) -> str:
    registry = registry_of(root)
    require(registry.policies() == ["ppo", "sft"], "a policy is gone")
    require(not [said for journal in registry.journals() for said in journal.problems()], "the history has a problem")
    return " ".join(entry.policy_id for entry in registry.history())


def pin(root: Path) -> None:
    registry_of(root).pin(ROUND)


def pinned(root: Path) -> str:
    return registry_of(root).pinned(ROUND) or "none"


def stop(root: Path) -> None:
    pull(LocalStore(root), "Ada", REASON)


def prepare_stopped(root: Path) -> None:
    prepare_reserve(root)
    stop(root)


def prepare_reserve(root: Path) -> None:
    reserve(LocalStore(root))


def resume(root: Path) -> None:
    reset(LocalStore(root), "Ben")


def stopped(root: Path) -> str:
    resumes(LocalStore(root))
    return "stopped" if read_stop(LocalStore(root)) else "free"


MODEL = {"config.json": b"{}" * 50, "model.safetensors": bytes(range(256)) * 40, "tokenizer/vocabulary.json": b"[]"}


def prepare_nothing(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)


def keep_model(root: Path) -> None:
    """As a stage does it: train (here: write the files) where the model is not there, keep it, point to it."""
    models = ModelStore(LocalStore(root), root / "work")
    folder = models.work_folder("sft")
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in MODEL.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:  # a training's own words
            raise UserError(f"{path}: cannot write here ({error.strerror}).") from None
    try:
        write_manifest(folder, kind="sft", round_key="", parents={}, label_ids=[], seed=1, config={}, metrics={})
        checkpoint = models.identify(folder, "sft")
    except OSError as error:  # as above: a work folder, to which nothing points
        raise UserError(f"{folder}: cannot write here ({error.strerror}).") from None
    models.keep(folder, checkpoint)
    models.store.put("assets/sft_checkpoint.json", json.dumps(checkpoint.as_pointer()).encode())


def model(root: Path) -> str:
    store = LocalStore(root)
    for manifest in [key for key in store.list("models") if key.endswith("/manifest.json")]:
        require_whole_model(store, manifest.removesuffix("/manifest.json"))
    pointer = store.get("assets/sft_checkpoint.json")
    if pointer is None:
        return "none"
    folder = opened(store, Checkpoint(**json.loads(pointer.data), root=store.address))
    return "whole" if (folder / "model.safetensors").read_bytes() == MODEL["model.safetensors"] else "another"


def require_whole_model(store: LocalStore, path: str) -> None:
    for name, data in MODEL.items():
        require((store.root / path / name).read_bytes() == data, f"{path}/{name} is not whole")


def prepare_prompts(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"prompt": f"prompt {number}\u2028of many"}, ensure_ascii=False) for number in range(20)]
    (root / "prompts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    first = root / "first.jsonl"
    first.write_text(lines[0] + "\n", encoding="utf-8")
    import_file("prompts", first, LocalStore(root))


def import_prompts(root: Path) -> None:
    import_file("prompts", root / "prompts.jsonl", LocalStore(root))


def imported_prompts(root: Path) -> str:
    found = LocalStore(root).get(imported_key("prompts"))
    return str(read_parquet(found.data, "prompts").num_rows if found else 0)


def write_table(root: Path, number: int = 2) -> None:
    import dagster as dg  # here and below: a light case does not wait for it

    from rlhf_dagster.resources.io_managers import ParquetFiles

    text = f"prompt {number}"
    row = {"prompt_id": prompt_id(text), "text": text, "source": "task", "user": "", "split": "train"}
    context = dg.build_output_context(asset_key=dg.AssetKey("prompts"))
    ParquetFiles(str(root)).handle_output(context, [row] * number)


def prepare_table(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    write_table(root, 1)


def table_rows(root: Path) -> str:
    found = LocalStore(root).get("assets/prompts.parquet")
    require(found is not None, "the table is gone")
    return str(read_parquet(found.data, "prompts").num_rows)  # type: ignore[union-attr]


def keeper_in(root: Path) -> "StateKeeper":
    from rlhf_dagster.training.runtime.resuming import Checkpointing
    from rlhf_dagster.training.runtime.state_keeper import StateKeeper

    return StateKeeper(Checkpointing(root / "work" / "state", 0.0), "identity")


def write_state(root: Path, step: int = 2) -> None:
    import torch

    keeper_in(root).after_step(step, lambda: {"step": step, "weights": torch.full([100], float(step))})


def prepare_state(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    write_state(root, 1)


def state(root: Path) -> str:
    import torch

    loaded: dict[str, Any] | None = keeper_in(root).load(torch.device("cpu"))
    require(loaded is not None, "there is no whole state")
    assert loaded is not None  # noqa: S101  # for the type checker
    require(bool((loaded["weights"] == loaded["step"]).all()), "the state is not one that was written")
    return str(loaded["step"])


def prepare_loop(root: Path) -> None:
    # Once, before the processes that make a backup each are forked.
    import rlhf_dagster.loop.upkeep.backup  # noqa: F401

    prepare_registry(root / "loop")
    (root / "loop" / CONFIG_FILE).write_text("name: faults\n", encoding="utf-8")
    store = LocalStore(root / "loop")
    for name, data in MODEL.items():
        store.put(f"models/sft/{name}", data)
    store.put("assets/prompts.parquet", MODEL["model.safetensors"])


def make_backup(root: Path) -> None:
    from rlhf_dagster.loop.folder import LoopFolder
    from rlhf_dagster.loop.upkeep.backup import back_up

    if not (root / "backup" / "manifest.json").is_file():  # a whole backup is not made again
        back_up(LoopFolder.open(root / "loop"), str(root / "backup"), lambda _: None)


def backup(root: Path) -> str:
    store = LocalStore(root / "backup")
    found = store.get("manifest.json")
    if found is None:
        return "none"
    files = unseal(found.data, "manifest.json")["files"]
    for key, digest in files.items():
        there = store.get(key)
        require(there is not None and sha256(there.data).hexdigest() == digest, f"{key} is not whole")
    return f"{len(files)} files"


def require(holds: bool, sentence: str) -> None:
    if not holds:
        raise AssertionError(sentence)


_ROWS = (
    Case("promotion", prepare_registry, promote, champions, "sft", "sft ppo"),
    Case("pin", prepare_registry, pin, pinned, "none", "sft"),
    Case("stop", prepare_reserve, stop, stopped, "free", "stopped"),
    Case("resume", prepare_stopped, resume, stopped, "stopped", "free"),
    Case("model", prepare_nothing, keep_model, model, "none", "whole"),
    Case("import", prepare_prompts, import_prompts, imported_prompts, "1", "20"),
    Case("table", prepare_table, write_table, table_rows, "1", "2"),
    Case("state", prepare_state, write_state, state, "1", "2", may_skip=True),
    Case("backup", prepare_loop, make_backup, backup, "none", "9 files"),
)
CASES = {case.name: case for case in _ROWS}
