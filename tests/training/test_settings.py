import pytest

from rlhf_dagster.config.base import Settings
from rlhf_dagster.config.training import PpoSettings, SamplingSettings, TinyModelSettings
from rlhf_dagster.errors import UserError


class Mixed(Settings):
    count: int = 0
    share: float | None = None
    either: bool | int = 0
    names: tuple[str, ...] = ()
    tiny: TinyModelSettings = TinyModelSettings()


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize(
    ("path", "kind"), [("count", "integer"), ("share", "number"), ("tiny.seed", "integer"), ("tiny.width", "integer")]
)
def test_a_boolean_is_no_number(path: str, kind: str, value: bool) -> None:
    *section, name = path.split(".")
    values = {section[0]: {name: value}} if section else {name: value}
    with pytest.raises(UserError) as caught:
        Mixed.parse(values, "loop.yaml")
    assert str(caught.value) == f"loop.yaml: `{path}`: input should be a valid {kind} (found {value})."


def test_a_boolean_stays_one_where_it_may_be_one() -> None:
    assert Mixed.parse({"either": True}, "loop.yaml").either is True
    assert SamplingSettings.parse({"fixed_length": False}, "loop.yaml").fixed_length is False
    with pytest.raises(UserError, match=r"`names`: input should be a valid tuple \(found True\)"):
        Mixed.parse({"names": True}, "loop.yaml")


def test_numbers_are_read_as_yaml_writes_them() -> None:
    # YAML 1.1 reads 1e-3, without a point, as a string.
    assert PpoSettings.parse({"learning_rate": "1e-3", "kl_target": 6, "updates": 3}, "loop.yaml") == PpoSettings(
        learning_rate=1e-3, kl_target=6.0, updates=3
    )
