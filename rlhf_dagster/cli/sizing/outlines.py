"""Folders with a model's config and at least the header of its weights, which is what estimates read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rlhf_dagster.config.training import BaseModelSettings, TinyModelSettings
from rlhf_dagster.planning.known_models import shape_settings
from rlhf_dagster.training.input_sizes import parameters_of


@contextmanager
def outline_of_model(settings: BaseModelSettings) -> Iterator[Path]:
    """A folder with the model's config and at least the header of its weights."""
    with TemporaryDirectory() as name:
        if settings.source == "tiny":
            yield _tiny_outline(settings.tiny, Path(name))
        else:
            yield _outline(settings, Path(name))


@contextmanager
def outline_of_size(size: str) -> Iterator[Path]:
    """The outline of the published model of a size such as `70B`; raises UserError where there is none."""
    settings = shape_settings(size)
    from transformers import LlamaConfig

    from rlhf_dagster.training.checkpoints.outlines import write_outline

    with TemporaryDirectory() as name:
        yield write_outline(LlamaConfig(**settings), Path(name))


def named_model(what: str, revision: str = "") -> BaseModelSettings:
    """A model by its folder, or else by its name on the Hub."""
    kind = "folder" if Path(what).is_dir() else "hub"
    return BaseModelSettings(source=kind, name=what, revision=revision)


def _outline(settings: BaseModelSettings, folder: Path) -> Path:
    """The model's own folder where its weights are there; of a model on the Hub, the config alone is fetched."""
    place = Path(settings.name)
    if settings.source == "folder" and parameters_of(place):
        return place
    from transformers import AutoConfig

    from rlhf_dagster.training.checkpoints.outlines import write_outline
    from rlhf_dagster.training.checkpoints.sources import Source, foreign_errors

    source = Source(settings.name, (settings.revision or "main") if settings.source == "hub" else None)
    with foreign_errors(source.place, "the config", "check the name, the revision and the network"):
        return write_outline(AutoConfig.from_pretrained(**source.arguments), folder)


def _tiny_outline(tiny: TinyModelSettings, folder: Path) -> Path:
    from transformers import GPT2Config

    from rlhf_dagster.training.checkpoints.outlines import write_outline

    config = GPT2Config(
        vocab_size=tiny.vocabulary,
        n_positions=tiny.context,
        n_embd=tiny.width,
        n_layer=tiny.layers,
        n_head=tiny.heads,
        bos_token_id=0,
        eos_token_id=0,
    )
    return write_outline(config, folder)
