"""A team's Dagster project with assets of its own, to which loops are added as components."""

import sys
from pathlib import Path
from typing import Any

import yaml

PROJECT = """
[project]
name = "{name}"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "{name}"
"""
DEFINITIONS = """
from pathlib import Path

import dagster as dg


@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
OWN_ASSETS = 20
OWN = """
import dagster as dg


class Json(dg.ConfigurableResource):
    indent: int = 2


def own_asset(number):
    @dg.asset(name="prompts" if number == 0 else f"table_{number}", group_name="data")
    def made(json: Json) -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"indent": json.indent})

    return made


@dg.definitions
def defs():
    return dg.Definitions(
        assets=[own_asset(number) for number in range(OWN_ASSETS)],
        jobs=[dg.define_asset_job("prepare", selection=["prompts"])],
        resources={"json": Json()},
        executor=dg.multiprocess_executor,
    )
""".replace("OWN_ASSETS", str(OWN_ASSETS))
"""Assets, a resource, a job and a group that are called as a lone loop's are, and an executor."""


def write_project(folder: Path, name: str, loops: dict[str, dict[str, Any]], own: str = OWN) -> Path:
    """A project of a team in ``folder``, importable as ``name`` in this process, with loops by the attributes given."""
    module = folder / name
    for component, attributes in loops.items():
        text = yaml.safe_dump({"type": "rlhf_dagster.component.RlhfLoop", "attributes": attributes})
        _write(module / "defs" / component / "defs.yaml", text)
    _write(module / "__init__.py", "")
    _write(module / "defs" / "__init__.py", "")
    _write(module / "defs" / "own.py", own)
    _write(module / "definitions.py", DEFINITIONS)
    _write(folder / "pyproject.toml", PROJECT.format(name=name))
    sys.path.insert(0, str(folder))
    return folder


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
