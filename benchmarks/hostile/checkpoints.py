"""Checkpoints that are damaged, foreign, endless, or bring code."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.hostile.case import Case, Place, rlhf, tests_of, values_of
from rlhf_dagster.config.training import BaseModelSettings
from rlhf_dagster.training.pretraining.base_model import load_base_model

Damage = Callable[[Path], object]
DAMAGED = tests_of("training/test_damaged_checkpoints.py")
OPENING = tests_of("training/test_opening.py")


class Pickled:
    """Runs code where it is unpickled."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, (self.code,)


def pickled(place: Place) -> bytes:
    return pickle.dumps({"weights": Pickled(place.code())})


def made(place: Place) -> Path:
    """A small Llama's checkpoint."""
    from small_models import make_checkpoint

    return make_checkpoint("llama", place.folder / "model")


def loaded(place: Place) -> None:
    load_base_model(BaseModelSettings(source="folder", name=str(place.folder / "model")), place.folder / "base")


def checked(place: Place) -> None:
    rlhf("check-model", place.folder / "model")


def damaged(name: str) -> Case:
    damage, says = DAMAGED.CASES[name]
    return Case(name, loaded, lambda place: damage(made(place)), says)


def without_tokenizer(name: str, content: str, place: Place) -> None:
    OPENING.in_place_of_its_tokenizer(made(place), name, content)


def changed(change: Callable[[Place, Path], object]) -> Callable[[Place], None]:
    def prepare(place: Place) -> None:
        change(place, made(place))

    return prepare


def in_place_of(file: Path) -> Path:
    file.unlink(missing_ok=True)
    return file


def header(values: Any) -> bytes:
    """A safetensors file without a tensor's bytes."""
    text = json.dumps(values).encode()
    return struct.pack("<Q", len(text)) + text


def long_file(file: Path, size: int, begin: bytes = b"") -> None:
    """Zeros without end, which take no room on the disk."""
    in_place_of(file).write_bytes(begin)
    os.truncate(file, size)


def own_code(place: Place, folder: Path, elsewhere: str = "") -> None:
    own = f"{elsewhere}own.Own"
    classes = {"AutoConfig": own, "AutoModelForCausalLM": own, "AutoTokenizer": [own, own]}
    for name in ("config.json", "tokenizer_config.json"):
        DAMAGED.configured(name, auto_map=classes)(folder)
    for name in ("own.py", "__init__.py", "modeling_llama.py", "configuration_llama.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{place.code()}class Own: pass\ndef generate(model, **options): pass\n")


def modules(place: Place, folder: Path) -> None:
    """Python files called like modules, in the folder in which the command is started."""
    for name in ("torch", "transformers", "json", "sitecustomize", "usercustomize", "conftest"):
        (folder / f"{name}.py").write_text(place.code())
    os.chdir(folder)


def pickles_beside(place: Place, folder: Path) -> None:
    for name in (
        "training_args.bin",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "pytorch_model.bin",
        "model.pkl",
    ):
        (folder / name).write_bytes(pickled(place))


def pickle_index(place: Place, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model-00001-of-00001.bin").write_bytes(pickled(place))
    weights = {"lm_head.weight": "pytorch_model-00001-of-00001.bin"}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weights}))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))


def many_tokens(place: Place, folder: Path) -> None:
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"] |= {f"token {number}": number + 20 for number in range(300_000)}
    file.write_text(json.dumps(content))


Change = Callable[[Place, Path], object]
PICKLES: dict[str, Change] = {
    "pickled weights that run code": lambda place, folder: [
        DAMAGED.only("x.bin")(folder),
        (folder / "pytorch_model.bin").write_bytes(pickled(place)),
    ],
    "a pickle called safetensors": lambda place, folder: (folder / "model.safetensors").write_bytes(pickled(place)),
    "an index of pickles": pickle_index,
    "a pickled tokenizer": lambda place, folder: [
        OPENING.in_place_of_its_tokenizer(folder, "tokenizer.model", ""),
        (folder / "tokenizer.model").write_bytes(pickled(place)),
    ],
    "a pickled config": lambda place, folder: (folder / "config.json").write_bytes(pickled(place)),
    "code of another repository": lambda place, folder: [
        own_code(place, folder, "evil/code--"),
        DAMAGED.configured(model_type="mine")(folder),
    ],
}
TENSORS: dict[str, Any] = {
    "a tensor of a negative length": {"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, -16]}},
    "a tensor longer than all memory": {"a": {"dtype": "F32", "shape": [2**61], "data_offsets": [0, 2**63]}},
    "a tensor of a huge shape and no bytes": {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 0]}},
    "a tensor that begins before the file": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}},
    "tensors over one another": {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 0]} for name in ("a", "b", "lm_head.weight")
    },
    "a type of numbers that is none": {"a": {"dtype": "os.system", "shape": [1], "data_offsets": [0, 0]}},
    "a header that is a list": [1, 2],
    "a header without offsets": {"a": {"dtype": "F32", "shape": [1]}},
}
ENDLESS = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
"""Files that a checkpoint has, and that may be something else than files."""


def as_pipe(name: str, place: Place, folder: Path) -> None:
    os.mkfifo(in_place_of(folder / name))


def as_device(name: str, place: Place, folder: Path) -> None:
    in_place_of(folder / name).symlink_to("/dev/zero")


def as_long_file(name: str, place: Place, folder: Path) -> None:
    long_file(folder / name, 3 << 30, b"{")


def as_folder(name: str, place: Place, folder: Path) -> None:
    in_place_of(folder / name).mkdir()


def of_endless(what: str, make: Callable[[str, Place, Path], object], name: str) -> list[Case]:
    prepare = changed(partial(make, name))
    return [Case(f"{name} is {what}", loaded, prepare), Case(f"{name} is {what}, by command", checked, prepare)]


HARMLESS: dict[str, Change] = {
    "pickles beside the weights": pickles_beside,
    "code beside a known model": own_code,
    "modules in the working folder": modules,
    "links to files of the system": lambda place, folder: (folder / "notes.txt").symlink_to("/etc/passwd"),
    "names of files that lead out": lambda place, folder: DAMAGED.configured(_name_or_path="../../../etc")(folder),
    "a longest text below none": lambda place, folder: DAMAGED.configured("tokenizer_config.json", model_max_length=-1)(
        folder
    ),
}
CASES: list[Case] = [
    *(damaged(name) for name in DAMAGED.CASES),
    *(
        Case(f"a tokenizer: {name} {number}", loaded, partial(without_tokenizer, name, content), says)
        for number, (name, content, says) in enumerate(
            values_of(OPENING.test_a_tokenizer_that_does_not_open_is_refused)
        )
    ),
    *(Case(name, loaded, changed(change)) for name, change in PICKLES.items()),
    *(
        Case(
            name,
            loaded,
            changed(lambda _, folder, values=values: (folder / "model.safetensors").write_bytes(header(values))),
        )
        for name, values in TENSORS.items()
    ),
    Case(
        "a header of a gigabyte",
        loaded,
        changed(lambda _, folder: long_file(folder / "model.safetensors", 2 << 30, struct.pack("<Q", 1 << 30) + b"{")),
    ),
    Case("many tokens without a row", loaded, changed(many_tokens), "another model's tokenizer"),
    *(case for name in ENDLESS for case in of_endless("a pipe", as_pipe, name)),
    *(case for name in ENDLESS for case in of_endless("a device", as_device, name)),
    *(case for name in ENDLESS for case in of_endless("3 GiB long", as_long_file, name)),
    *(case for name in ENDLESS[:4] for case in of_endless("a folder", as_folder, name)[:1]),
    *(Case(name, loaded, changed(change), harmless=True) for name, change in HARMLESS.items()),
]
