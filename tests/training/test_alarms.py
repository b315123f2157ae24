import pytest

from rlhf_dagster.training.alarms import alarms

HEALTHY = {"ratio_first": [1.0, 0.99999], "kl": [0.0, 3.0], "distinct_responses": [1.0, 0.9]}


def test_healthy_curves_raise_no_alarm() -> None:
    assert alarms(HEALTHY) == []
    # Sampling noise makes the first estimates of a KL near 0 negative now and then.
    assert alarms(HEALTHY | {"kl": [-0.05] * 20 + [3.0]}) == []
    assert alarms(HEALTHY | {"kl": [-1.0] * 4 + [3.0] + [-1.0] * 4}) == []


@pytest.mark.parametrize(
    ("curve", "sentence"),
    [
        ({"ratio_first": [1.0, 1.2]}, "ratio was 1.2000 instead of 1 at the first step of update 2"),
        ({"kl": [0.0, *[-0.5] * 6, 1.0]}, "negative for 6 updates in a row"),
        ({"distinct_responses": [1.0, 0.05]}, "Only 5%"),
    ],
)
def test_each_problem_has_its_sentence(curve: dict[str, list[float]], sentence: str) -> None:
    found = alarms(HEALTHY | curve)
    assert len(found) == 1
    assert sentence in found[0]
