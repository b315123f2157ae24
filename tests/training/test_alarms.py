import pytest

from rlhf_dagster.training.ppo.alarms import alarms

HEALTHY = {
    "ratio_first": [1.0, 0.99999],
    "kl": [0.0, 3.0],
    "distinct_responses": [1.0, 0.9],
    "entropy": [3.0] * 5 + [0.31] * 5,
    "response_length": [10.0] * 5 + [20.0] * 5,
    "value_loss": [0.1] * 5 + [1.0] * 5,
    "sampler_kl": [0.5] * 5 + [0.009] * 5,
}


def test_healthy_curves_raise_no_alarm() -> None:
    assert alarms(HEALTHY) == []
    # Sampling noise makes the first estimates of a KL near 0 negative now and then.
    assert alarms(HEALTHY | {"kl": [-0.05] * 20 + [3.0]}) == []
    assert alarms(HEALTHY | {"kl": [-1.0] * 4 + [3.0] + [-1.0] * 4}) == []
    # Too few updates to compare, and no values at all.
    short = {"entropy": [3.0, 0.01], "response_length": [1.0, 9.0], "value_loss": [0.1, 9.0]}
    assert alarms(HEALTHY | short) == []
    without = ("value_loss", "sampler_kl")
    assert alarms({name: curve for name, curve in HEALTHY.items() if name not in without}) == []


@pytest.mark.parametrize(
    ("curve", "sentence"),
    [
        ({"ratio_first": [1.0, 1.2]}, "ratio was 1.2000 instead of 1 at the first step of update 2"),
        ({"kl": [0.0, *[-0.5] * 6, 1.0]}, "negative for 6 updates in a row"),
        ({"distinct_responses": [1.0, 0.05]}, "Only 5%"),
        ({"entropy": [3.0] * 5 + [0.29] * 5}, "entropy fell from 3.00 to 0.29 nats"),
        ({"response_length": [10.0] * 5 + [20.1] * 5}, "grew from 10.0 to 20.1 tokens"),
        ({"sampler_kl": [0.0] * 5 + [0.02] * 5}, "0.020 nats a token away from the one that is trained"),
        ({"value_loss": [0.1] * 5 + [1.1] * 5}, "value loss rose to 1.1, from 0.1 before"),
    ],
)
def test_each_problem_has_its_sentence(curve: dict[str, list[float]], sentence: str) -> None:
    found = alarms(HEALTHY | curve)
    assert len(found) == 1
    assert sentence in found[0]


def test_ahead_the_first_update_s_ratio_alone_is_looked_at() -> None:
    moved = HEALTHY | {"ratio_first": [1.0, 1.4], "log_ratio_first": [0.0, 0.3]}
    assert alarms(moved, ahead=1) == alarms(moved, "bf16", 1) == []
    wrong = HEALTHY | {"ratio_first": [1.2, 1.0], "log_ratio_first": [0.3, 0.0]}
    for precision in ("fp32", "bf16"):
        (sentence,) = alarms(wrong, precision, 1)
        assert "first step of update 1" in sentence


def test_in_bf16_single_tokens_may_be_off_and_all_together_not() -> None:
    rounded = HEALTHY | {"ratio_first": [1.0, 0.7, 1.4], "log_ratio_first": [0.0, 0.03, 0.05]}
    assert alarms(rounded, "bf16") == []
    assert len(alarms(rounded)) == 1
    (sentence,) = alarms(rounded | {"log_ratio_first": [0.0, 0.03, 0.12]}, "bf16")
    assert "first step of update 3" in sentence
    assert "0.12 nats on average" in sentence
    (sentence,) = alarms(rounded | {"ratio_first": [1.0, 0.3, 1.4]}, "bf16")
    assert "first step of update 2" in sentence
    assert "1.20 nats at one token" in sentence
    # A run of version 0.1 that goes on has no means for its first updates, or none at all.
    assert alarms(HEALTHY | {"ratio_first": [0.8, 1.3]}, "bf16") == []
