"""`import rlhf_dagster`: what people use from Python, imported when it is asked for."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rlhf_dagster
from rlhf_dagster import EXPORTS
from rlhf_dagster.compute.trainings import TRAININGS

SOURCE = Path(rlhf_dagster.__file__).read_text(encoding="utf-8")
NEED_TORCH = {name for name in EXPORTS if name.startswith("train_")} | {"sample", "score_responses"}
HEAVY = "{'torch', 'transformers', 'peft', 'accelerate'}"


def python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False)


def printed(code: str) -> str:
    result = python(code)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def type_only_imports() -> Iterator[tuple[str, str]]:
    """Name and module of each import that type checkers alone see."""
    (block,) = (node for node in ast.parse(SOURCE).body if isinstance(node, ast.If))
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        (alias,) = statement.names
        assert alias.name == alias.asname  # which makes it a name of this module for type checkers
        yield alias.name, str(statement.module)


@pytest.mark.parametrize("name", EXPORTS)
def test_each_name_is_what_its_module_defines(name) -> None:
    value = getattr(rlhf_dagster, name)
    assert value.__name__ == name
    assert value.__module__ == f"rlhf_dagster.{EXPORTS[name]}"
    assert value.__doc__ and not value.__doc__.startswith(f"{name}(")  # a sentence, not a dataclass's signature


def test_type_checkers_see_the_same_names() -> None:
    seen = list(type_only_imports())
    assert dict(seen) == {name: f"rlhf_dagster.{module}" for name, module in EXPORTS.items()}
    assert len(seen) == len(EXPORTS)


def test_they_are_listed() -> None:
    assert set(rlhf_dagster.__all__) == {*EXPORTS, "__version__"}
    assert set(rlhf_dagster.__all__) <= set(dir(rlhf_dagster))
    everything: dict[str, Any] = {}
    exec("from rlhf_dagster import *", everything)
    assert set(rlhf_dagster.__all__) <= everything.keys()


def test_a_submodule_does_not_take_the_place_of_a_name() -> None:
    """`import rlhf_dagster.x` sets the attribute `x` of the package."""
    own = {path.stem for path in Path(rlhf_dagster.__file__).parent.iterdir()}
    assert not own & set(EXPORTS)


def test_each_training_has_its_function_spec_and_settings() -> None:
    for kind, spec in ((name, training.spec) for name, training in TRAININGS.items()):
        assert f"train_{kind}" in EXPORTS
        assert spec.__name__ in EXPORTS
        assert spec.__name__.replace("Spec", "Settings") in EXPORTS


def test_a_name_that_is_not_there_is_an_attribute_error_with_a_hint() -> None:
    with pytest.raises(AttributeError, match="module 'rlhf_dagster' has no attribute 'LopConfig'"):
        rlhf_dagster.LopConfig  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'LopConfig' from 'rlhf_dagster'"):
        exec("from rlhf_dagster import LopConfig")
    result = python("import rlhf_dagster; rlhf_dagster.LopConfig")
    assert result.stderr.strip().endswith("Did you mean: 'LoopConfig'?")


def test_importing_the_package_imports_nothing_but_its_version() -> None:
    """Another package's modules may be there before: editable installations and `.pth` files import some."""
    loaded = printed("import sys; before = set(sys.modules); import rlhf_dagster; print(*set(sys.modules) - before)")
    ours = {name for name in loaded.split() if name.startswith("rlhf_dagster")}
    assert ours == {"rlhf_dagster", "rlhf_dagster.common", "rlhf_dagster.common.version"}
    others = {name.partition(".")[0] for name in set(loaded.split()) - ours}
    assert others <= sys.stdlib_module_names


def test_only_what_computes_imports_torch() -> None:
    light = sorted(EXPORTS.keys() - NEED_TORCH)
    code = f"import sys; from rlhf_dagster import {', '.join(light)}; print(*{HEAVY} & set(sys.modules))"
    assert printed(code) == ""


def test_the_version_is_the_installed_packages() -> None:
    version = importlib.import_module("rlhf_dagster.common.version").__version__
    assert rlhf_dagster.__version__ == version == importlib.metadata.version("rlhf-dagster")
