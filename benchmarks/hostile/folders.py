"""Loops' folders of strangers: settings that mean harm, odd names, and what is no file in a file's place."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.hostile.case import Case, Place, rlhf, rlhf_done, tests_of, values_of
from benchmarks.hostile.checkpoints import long_file, pickled
from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.lineage.registry import HISTORY, PINS, POLICIES
from rlhf_dagster.lineage.stop_cord import STOP_FILE

YAML = tests_of("config/test_yaml_files.py")
CONFIGS = tests_of("config/test_loop_config.py")
INPUT = tests_of("cli/test_wrong_input.py")
Make = Callable[[Place, Path], object]
NAMES = [
    *("#", "100%", "a b", "[bold]", "-x", "~", "$HOME", "`touch ran`", "$(touch ran)", "a;touch ran", "'", '"', "\\"),
    *("new\nline", "tab\t", "é", "e\u0301", "\u202egnp", "a" * 200, "..a", "*", "{}", "%s", "|", "&"),
]
"""Of folders that are folders like any other."""
FILES = (
    "place.json",
    "format.json",
    "label_store.sqlite",
    STOP_FILE,
    "people.json",
    *(f"{name}/000001.json" for name in (HISTORY, PINS, POLICIES)),
)
"""What a loop keeps, below its folder."""
INSTEAD: dict[str, Make] = {
    "a pipe": lambda _, file: os.mkfifo(file),
    "a device": lambda _, file: file.symlink_to("/dev/zero"),
    "a folder": lambda _, file: file.mkdir(),
    "a link to itself": lambda _, file: file.symlink_to(file),
    "a pickle": lambda place, file: file.write_bytes(pickled(place)),
    "3 GiB of zeros": lambda _, file: long_file(file, 3 << 30),
}


def own(place: Place) -> Path:
    return place.folder / "own"


def status(place: Place) -> None:
    rlhf("round", "status", "--loop", own(place))


def with_settings(text: str | bytes, place: Place) -> None:
    own(place).mkdir()
    (own(place) / CONFIG_FILE).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))


def settings(name: str, text: str | bytes) -> Case:
    return Case(name, status, partial(with_settings, text), f"{CONFIG_FILE}")


def in_place_of_settings(make: Make, place: Place) -> None:
    own(place).mkdir()
    make(place, own(place) / CONFIG_FILE)


def a_loop(place: Place) -> None:
    from loops import write_loop

    write_loop(own(place))
    rlhf_done("round", "status", "--loop", own(place))


def in_place_of(file: str, make: Make, place: Place) -> None:
    a_loop(place)
    path = own(place) / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    make(place, path)


def with_modules(place: Place) -> None:
    """A loop's folder in which a stranger has put files that are called like modules, and where a command starts."""
    a_loop(place)
    for name in ("yaml", "queue", "sitecustomize", "dagster", "conftest", "definitions", "tasks", "workspace"):
        (own(place) / f"{name}.py").write_text(place.code())
    os.chdir(own(place))


def named(name: str, place: Place) -> None:
    rlhf("init", place.folder / name / "loop", "--source", "imports")


def one_of(values: Any) -> str:
    return json.dumps(values)


CASES: list[Case] = [
    *(
        settings(f"settings: {part[:40]} {number}", text)
        for number, (text, part) in enumerate(values_of(YAML.test_what_is_beyond_bounds_or_no_yaml_is_a_sentence))
    ),
    *(settings(f"broken settings {text!r}", text) for text in values_of(CONFIGS.test_broken_yaml_is_one_sentence)),
    *(
        settings(f"settings that are {text}", text)
        for text in values_of(CONFIGS.test_a_file_without_a_mapping_is_refused_also_where_it_is_falsy)
    ),
    *(
        settings(f"wrong settings {values!r}", one_of(values))
        for values, *_ in (
            *values_of(CONFIGS.test_an_unknown_key_is_named_with_a_suggestion),
            *values_of(CONFIGS.test_a_wrong_value_is_named_with_what_was_found),
            *values_of(CONFIGS.test_settings_that_do_not_fit_together),
        )
    ),
    *(Case(f"settings that are {what}", status, partial(in_place_of_settings, make)) for what, make in INSTEAD.items()),
    *(
        Case(f"{file} is {what}", status, partial(in_place_of, file, make), harmless=None)
        for file in FILES
        for what, make in INSTEAD.items()
        if what != "3 GiB of zeros"
    ),
    Case("modules in a loop's folder", status, with_modules, harmless=True),
    *(
        Case(f"a folder called {name!r}", partial(named, name), says="rename it")
        for name in values_of(INPUT.test_a_folder_whose_name_dagster_would_misread)
    ),
    *(Case(f"a folder called {name!r}", partial(named, name), harmless=True) for name in NAMES),
    *(
        Case(f"no folder {name!r}", lambda _, name=name: rlhf("init", name, "--source", "imports"))
        for name in ("/dev/null", "/proc/loop", "/dev/null/loop", "a" * 300)
    ),
]
