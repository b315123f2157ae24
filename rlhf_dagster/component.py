"""`RlhfLoop`: the loop as a Dagster component, configured in YAML."""

import os
import shlex
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import dagster as dg
from dagster.components.utils import TranslatorResolvingInfo
from pydantic import BaseModel, ModelWrapValidatorHandler, PrivateAttr, field_validator, model_validator

from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.loop_names import ALONE, GPU_POOL, LoopNames
from rlhf_dagster.storage.known import is_remote

if TYPE_CHECKING:
    from rlhf_dagster.build import Translate
    from rlhf_dagster.loop.folder import LoopFolder


class RlhfLoopAttributes(LoopConfig):
    """The loop's config, and where its files live."""

    root: str | None = None
    """The loop's folder; by default `$RLHF_ROOT` with the `key_prefix`, or `.rlhf/<name>` in the working folder. An
    address such as `s3://bucket/loop` keeps there what the loop makes, and only unfinished work in the default folder.
    """
    key_prefix: str | list[str] | None = None
    """Begins the keys of the loop's assets and the names of all that it has, as `support` or `nlp/support`; each loop
    of a code location needs one of its own, save one that stands alone among other assets."""
    pool: str = GPU_POOL
    """The pool of the steps that need a device; loops that share their devices share it."""
    translation: dg.AssetAttributesModel | str | None = None  # type: ignore[valid-type]
    """Changes what assets look like: `owners`, `tags`, `group_name`, `automation_condition`, `key_prefix` ...; `spec`
    is the asset's spec in templates."""

    @field_validator("root")
    @classmethod
    def _is_an_address(cls, root: str | None) -> str | None:
        """Folders as well, here."""
        return root

    _given: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _templates_first(cls, values: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        """In YAML any setting may be a template such as `{{ env.OWNER }}`; all are checked once it is resolved."""
        if not isinstance(values, dict):
            return check(values)
        given = {name: value for name, value in values.items() if name != "translation"}
        later = _holds_template(given)
        model = check({name: values[name] for name in values.keys() - given.keys()} if later else values)
        model._given = given if later else model.model_dump(exclude_unset=True, exclude={"translation"})
        return model

    def given(self) -> dict[str, Any]:
        """The settings that the YAML has, before its templates are resolved."""
        return self._given


class RlhfLoopScaffolder(dg.Scaffolder):
    """Writes a first `defs.yaml` that loads as it is."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        name = request.target_path.name.replace("-", "_")
        dg.scaffold_component(
            request,
            {"name": name, "key_prefix": name, "seed": 0, "preset": "tiny"}
            | {"data": {"source": "task", "task": "sentiment"}},
        )


@dg.scaffold_with(RlhfLoopScaffolder)
class RlhfLoop(dg.Component):
    """Reinforcement learning from human feedback, round after round, as one asset graph."""

    def __init__(
        self, config: LoopConfig, root: Path, names: LoopNames = ALONE, translation: "Translate | None" = None
    ):
        self.config = config
        self.root = root
        self.names = names
        self.translation = translation

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return RlhfLoopAttributes

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "RlhfLoop":
        given = attributes.given() if isinstance(attributes, RlhfLoopAttributes) else {}
        resolved = context.resolution_context.at_path("attributes").resolve_value(given)
        prefix, pool = resolved.pop("key_prefix", None), resolved.pop("pool", GPU_POOL)
        given_root = None if is_remote(resolved.get("root") or "") else resolved.pop("root", None)
        try:
            config = LoopConfig.parse(resolved, str(context.path))
            names = LoopNames(_parts(prefix), pool, said=_said(config, prefix, context.project_root))
        except UserError as error:
            raise dg.DagsterInvalidDefinitionError(str(error)) from None
        translation = _translation(getattr(attributes, "translation", None), context)
        return cls(config, Path(given_root) if given_root else _default_root(config, names), names, translation)

    def get_asset_spec(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        """What an asset is to look like, from what it looks like by itself; override it to change that.

        Key (the last part stays), group, owners, tags, automation condition, description and metadata may change.
        """
        return self.translation(spec) if self.translation else spec

    def get_resources(self) -> Mapping[str, Any]:
        """Resources in the place of the loop's own, as :func:`~rlhf_dagster.build.build_loop` takes them."""
        return {}

    @property
    def address(self) -> str:
        """Where the loop keeps its files."""
        return self.config.root or str(self.root)

    def loop(self) -> "LoopFolder":
        """The loop, with the names that its assets have here."""
        from rlhf_dagster.build import name_assets
        from rlhf_dagster.loop.folder import LoopFolder

        return LoopFolder(self.config, self.root, name_assets(self.config, self.names, self.get_asset_spec).names)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        from rlhf_dagster.build import build_loop

        try:
            require_apart(context.component_tree.get_all_components(of_type=RlhfLoop))
            return build_loop(self.config, self.root, self.get_resources(), self.names, self.get_asset_spec)
        except UserError as error:
            raise dg.DagsterInvalidDefinitionError(str(error)) from None


def require_apart(loops: Sequence[RlhfLoop]) -> None:
    """Raise UserError where two loops of a code location have the same names or the same files."""
    for one, other in combinations(loops, 2):
        both = f"The loops {one.config.name} and {other.config.name}"
        if one.names.prefix == other.names.prefix:
            raise UserError(f"{both} have the same `key_prefix`, or none; give each one of its own.")
        if one.address == other.address:
            raise UserError(f"{both} both keep their files in {one.address}; give each a `root` of its own.")


def _holds_template(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_template, value.values()))
    if isinstance(value, list):
        return any(map(_holds_template, value))
    return isinstance(value, str) and "{{" in value


def _default_root(config: LoopConfig, names: LoopNames) -> Path:
    """`$RLHF_ROOT` is the folder of a loop that is alone; others have folders in it."""
    root = os.environ.get("RLHF_ROOT")
    return Path(root, *names.prefix) if root else Path(".rlhf", config.name)


def _said(config: LoopConfig, prefix: str | list[str] | None, project: Path) -> str:
    return f"{shlex.quote('/'.join(_parts(prefix)) or config.name)} --project {shlex.quote(str(project))}"


def _parts(prefix: str | list[str] | None) -> tuple[str, ...]:
    return tuple(prefix.split("/") if isinstance(prefix, str) else prefix or ())


def _translation(attributes: BaseModel | str | None, context: dg.ComponentLoadContext) -> "Translate | None":
    if attributes is None:
        return None
    info = TranslatorResolvingInfo(attributes, context.resolution_context.at_path("attributes"), "translation")
    return lambda spec: info.get_asset_spec(spec, {"spec": spec})
