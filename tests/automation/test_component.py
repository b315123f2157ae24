import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.testing import create_defs_folder_sandbox

from rlhf_dagster.component import RlhfLoop

# Dagster warns of its own classes in beta.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
TYPE = "rlhf_dagster.component.RlhfLoop"


@pytest.fixture
def load() -> Callable[..., tuple[RlhfLoop, dg.Definitions]]:
    """``load(**attributes)`` loads the component from a defs folder of its own."""

    def run(**attributes: Any) -> tuple[RlhfLoop, dg.Definitions]:
        with create_defs_folder_sandbox() as sandbox:
            contents = {"type": TYPE, "attributes": attributes}
            path = sandbox.scaffold_component(component_cls=RlhfLoop, defs_path="mine", defs_yaml_contents=contents)
            with sandbox.load_component_and_build_defs(defs_path=path) as (component, definitions):
                assert isinstance(component, RlhfLoop)
                return component, definitions

    return run


def innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


def test_a_component_is_a_loop_with_its_config(load, monkeypatch) -> None:
    monkeypatch.delenv("RLHF_ROOT", raising=False)
    component, definitions = load(name="mine", owner="team:lab", preset="ziegler2019", ppo={"updates": 7})
    assert component.config.ppo.updates == 7
    assert component.config.ppo.kl_target == 6.0
    assert component.root == Path(".rlhf/mine")
    specs = list(definitions.resolve_all_asset_specs())
    assert {owner for spec in specs for owner in spec.owners} == {"team:lab"}
    assert len(specs) >= 20


def test_files_go_to_the_attribute_or_else_the_environment(load, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("RLHF_ROOT", str(tmp_path / "env"))
    assert load()[0].root == tmp_path / "env"
    assert load(root=str(tmp_path / "own"))[0].root == tmp_path / "own"


@pytest.mark.parametrize(
    ("attributes", "parts"),
    [
        ({"sead": 1}, ["attributes.sead", "defs.yaml:2", "not permitted"]),
        ({"seed": "five"}, ["attributes.seed", "defs.yaml:2", "valid integer"]),
        (
            {"name": "mine", "ppo": {"updates": 0}},
            ["attributes.ppo.updates", "defs.yaml:4", "greater than or equal to"],
        ),
        (
            {"data": {"source": "imports"}},
            ["attributes", "defs.yaml", "simulated_annotators needs `data.source: task`"],
        ),
    ],
)
def test_a_wrong_attribute_is_named_with_its_line(load, attributes, parts) -> None:
    with pytest.raises(Exception) as caught:  # Dagster's own wrapper is not public
        load(**attributes)
    text = innermost(caught.value)
    assert all(part in text for part in parts), text


def test_a_template_is_checked_once_it_is_resolved(load, monkeypatch) -> None:
    monkeypatch.setenv("LOOP_OWNER", "team:env")
    assert load(owner="{{ env.LOOP_OWNER }}")[0].config.owner == "team:env"
    monkeypatch.setenv("LOOP_OWNER", "nobody")
    with pytest.raises(Exception) as caught:
        load(owner="{{ env.LOOP_OWNER }}")
    text = innermost(caught.value)
    assert "`owner`: must be an e-mail address or `team:NAME` (found 'nobody')." in text


def test_every_setting_may_be_a_template(load, monkeypatch) -> None:
    monkeypatch.setenv("LABELS", "https://labels.example.com")
    monkeypatch.setenv("UPDATES", "7")
    attributes = {
        "label_store": {"kind": "label_studio", "url": "{{ env.LABELS }}"},
        "ppo": {"updates": "{{ env.UPDATES }}"},
    }
    config = load(**attributes)[0].config
    assert (config.label_store.url, config.ppo.updates) == ("https://labels.example.com", 7)
    monkeypatch.setenv("UPDATES", "0")
    for wrong, sentence in (
        (attributes, "`ppo.updates`: input"),
        (attributes | {"sead": 1}, "`sead` is not a setting"),
    ):
        with pytest.raises(Exception) as caught:
            load(**wrong)
        assert sentence in innermost(caught.value)


def test_the_scaffolder_writes_a_file_that_loads() -> None:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=RlhfLoop, defs_path="my-loop")
        written = yaml.safe_load((path / "defs.yaml").read_text())
        assert written["type"] == TYPE
        with sandbox.load_component_and_build_defs(defs_path=path) as (component, definitions):
            assert isinstance(component, RlhfLoop)
            assert component.config.name == written["attributes"]["name"] == "my_loop"
            dg.Definitions.validate_loadable(definitions)


def test_a_project_without_a_loop_imports_no_library_of_loops() -> None:
    """Dagster imports the component wherever the package is installed, to list it."""
    code = (
        "import sys, rlhf_dagster.component; print(*sorted(set(sys.modules) & {'pandas', 'pyarrow', 'numpy', 'torch'}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert loaded.stdout.strip() == ""
