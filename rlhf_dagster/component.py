"""`RlhfLoop`: the loop as a Dagster component, configured in YAML."""

import os
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import BaseModel, field_validator

from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.storage.known import is_remote


class RlhfLoopAttributes(LoopConfig):
    """The loop's config, and where its files live."""

    root: str | None = None
    """The loop's folder; by default `$RLHF_ROOT`, or `.rlhf/<name>` in the working folder. An address such as
    `s3://bucket/loop` keeps there what the loop makes, and only unfinished work in the default folder."""

    @field_validator("root")
    @classmethod
    def _is_an_address(cls, root: str | None) -> str | None:
        """Folders as well, here."""
        return root

    @field_validator("owner")
    @classmethod
    def _known_to_dagster(cls, owner: str) -> str:
        """In YAML the owner may be a template such as `{{ env.OWNER }}`; its value is checked once it is resolved."""
        return owner


class RlhfLoopScaffolder(dg.Scaffolder):
    """Writes a first `defs.yaml` that loads as it is."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        name = request.target_path.name.replace("-", "_")
        dg.scaffold_component(
            request, {"name": name, "seed": 0, "preset": "tiny", "data": {"source": "task", "task": "sentiment"}}
        )


@dg.scaffold_with(RlhfLoopScaffolder)
class RlhfLoop(dg.Component):
    """Reinforcement learning from human feedback, round after round, as one asset graph."""

    def __init__(self, config: LoopConfig, root: Path):
        self.config = config
        self.root = root

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return RlhfLoopAttributes

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "RlhfLoop":
        given: dict[str, Any] = attributes.model_dump(exclude_unset=True) if attributes else {}
        resolved = context.resolution_context.at_path("attributes").resolve_value(given)
        if not is_remote(resolved.get("root") or ""):
            root = resolved.pop("root", None) or os.environ.get("RLHF_ROOT")
        else:
            root = os.environ.get("RLHF_ROOT")
        try:
            config = LoopConfig.parse(resolved, str(context.path))
        except UserError as error:
            raise dg.DagsterInvalidDefinitionError(str(error)) from None
        return cls(config, Path(root) if root else Path(".rlhf", config.name))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        from rlhf_dagster.build import build_loop

        return build_loop(self.config, self.root)
