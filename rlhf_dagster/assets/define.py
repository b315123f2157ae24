"""How assets and checks of a loop are declared. A loop gives the declarations its names."""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from rlhf_dagster.assets.backfill_order import ONE_ROUND_A_RUN
from rlhf_dagster.assets.one_sentence import in_one_sentence
from rlhf_dagster.assets.rounds import rounds_of
from rlhf_dagster.common.progress import Progress
from rlhf_dagster.records.loop_names import LoopNames, asset_of
from rlhf_dagster.records.schemas import meaning
from rlhf_dagster.resources.column_lineage import COLUMN_LINEAGE, column_lineage
from rlhf_dagster.resources.io_managers import TABLES
from rlhf_dagster.resources.own_keys import RESOURCES, with_own_resources

JSON: dict[str, Any] = {"kinds": {"json"}, "io_manager_key": "json"}
MODEL: dict[str, Any] = {"kinds": {"huggingface"}, "io_manager_key": "models"}
TABLE: dict[str, Any] = {"kinds": {"parquet"}, "io_manager_key": "tables"}
NO_TAGS: Mapping[str, Any] = {}
_NO_INPUTS = {"context", "config", *RESOURCES}


@dataclass(frozen=True)
class LoopAsset:
    """An asset of every loop: io manager and schema by kind of output, round partition, GPU pool."""

    name: str
    compute: Callable[..., Any]
    group: str
    kinds: frozenset[str]
    io_manager_key: str
    by_round: bool = False
    gpu: bool = False
    code_version: str = "1"
    deps: tuple[str, ...] = ()
    """Assets that it waits for besides its inputs, which are the function's parameters."""
    reads_policies: bool = False
    """Whether it waits for the policies of the round, which the loop's config names."""

    def of(
        self, names: LoopNames, policies: Sequence[str] = (), device_tags: Mapping[str, Any] = NO_TAGS
    ) -> dg.AssetsDefinition:
        """The asset of one loop. ``policies`` are no inputs: an asset reads those alone that the round is judged by.

        ``device_tags`` are for its step, if it needs a device.
        """
        waits_for = [*self.deps, *(policies if self.reads_policies else ())]
        with warnings.catch_warnings():
            # Policies of backfills are in beta.
            warnings.simplefilter("ignore", dg.BetaWarning)
            return self._declared(names, waits_for, device_tags)

    def _declared(self, names: LoopNames, waits_for: list[str], device_tags: Mapping[str, Any]) -> dg.AssetsDefinition:
        return dg.asset(
            key=_key(names, self.name),
            ins={one: dg.AssetIn(key=_key(names, one)) for one in self._inputs()},
            deps=[_key(names, one) for one in waits_for],
            group_name=names.own(self.group),
            kinds=set(self.kinds) | ({"torch"} if self.gpu else set()),
            io_manager_key=names.own(self.io_manager_key),
            partitions_def=rounds_of(names) if self.by_round else None,
            backfill_policy=ONE_ROUND_A_RUN if self.by_round else None,
            pool=names.pool if self.gpu else None,
            op_tags=device_tags if self.gpu else None,
            code_version=self.code_version,
            metadata=_of_columns(self.name, names) if self.name in TABLES else None,
        )(with_own_resources(in_one_sentence(self.compute), names))

    def _inputs(self) -> list[str]:
        return [name for name in inspect.signature(self.compute).parameters if name not in _NO_INPUTS]


def loop_asset(group: str, **options: Any) -> Callable[[Callable[..., Any]], LoopAsset]:
    """Declare the asset that a function makes; the options are those of :class:`LoopAsset`.

    It is called as the function is, unless ``name`` says otherwise.
    """

    def declare(compute: Callable[..., Any]) -> LoopAsset:
        chosen = {"name": compute.__name__} | options
        kind = TABLE if chosen["name"] in TABLES else {}
        return LoopAsset(compute=compute, group=group, **_frozen(chosen | kind))

    return declare


def after_policies(group: str, **options: Any) -> Callable[[Callable[..., Any]], LoopAsset]:
    """As :func:`loop_asset`, of a round, for what reads its policies."""
    return loop_asset(group, by_round=True, reads_policies=True, **options)


def _frozen(options: Mapping[str, Any]) -> dict[str, Any]:
    return {**options, "kinds": frozenset(options["kinds"]), "deps": tuple(options.get("deps", ()))}


@dataclass(frozen=True)
class LoopCheck:
    """A check of an asset of every loop."""

    compute: Callable[..., dg.AssetCheckResult]
    asset: str
    by_round: bool = True
    """A check of one round; without partitions it would be handed those of all rounds."""
    blocking: bool = True

    @property
    def name(self) -> str:
        return self.compute.__name__

    def of(self, names: LoopNames) -> dg.AssetChecksDefinition:
        """The check of one loop."""
        with warnings.catch_warnings():
            # Partitions of checks are in preview.
            warnings.simplefilter("ignore", dg.PreviewWarning)
            return dg.asset_check(
                asset=_key(names, self.asset),
                blocking=self.blocking,
                partitions_def=rounds_of(names) if self.by_round else None,
            )(with_own_resources(self.compute, names))

    def is_of(self, key: dg.AssetCheckKey) -> bool:
        """Whether a key is that of this check, in whichever loop."""
        return key.name == self.name and asset_of(key.asset_key.path) == self.asset


def loop_check(asset: str) -> Callable[[Callable[..., dg.AssetCheckResult]], LoopCheck]:
    """Declare a check of an asset that belongs to no round; what follows does not wait for it."""
    return lambda compute: LoopCheck(compute, asset, by_round=False, blocking=False)


def round_check(asset: str) -> Callable[[Callable[..., dg.AssetCheckResult]], LoopCheck]:
    """Declare a blocking check of one round of an asset."""
    return lambda compute: LoopCheck(compute, asset)


def _key(names: LoopNames, asset: str) -> dg.AssetKey:
    return dg.AssetKey(names.path(asset))


def _of_columns(table: str, names: LoopNames) -> dict[str, Any]:
    """What the columns of a table mean, and from which others they come."""
    columns = [dg.TableColumn(column.name, str(column.type), description=meaning(column)) for column in TABLES[table]]
    return {"dagster/column_schema": dg.TableSchema(columns), COLUMN_LINEAGE: column_lineage(table, names)}


def stage_progress(context: dg.AssetExecutionContext) -> Progress:
    """Progress as lines in the run's log. Each line also checks whether the run is being cancelled, or was ended.

    Dagster's signal alone is not enough: where it arrives while Python collects garbage, its exception is dropped, and
    a host that cannot reach this one sends none. A run that others gave up for dead ends as well: it may be taken up
    again elsewhere.
    """

    def say(text: str) -> None:
        context.log.info(text)
        run = context.instance.get_run_by_id(context.run.run_id)
        if run is not None and (run.status == dg.DagsterRunStatus.CANCELING or run.is_finished):
            raise dg.DagsterExecutionInterruptedError

    return Progress(asset_of(context.asset_key.path), say)
