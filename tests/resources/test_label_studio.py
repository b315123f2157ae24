"""The Label Studio resource in an asset and in a sensor, and what Dagster shows of its token."""

import dagster as dg
import pytest
from pydantic import ValidationError

from rlhf_dagster.errors import UserError
from rlhf_dagster.resources.label_studio import LabelStudio

VARIABLE = "RLHF_TEST_TOKEN"
SECRET = "0123456789abcdef0123456789abcdef01234567"


@dg.asset
def server_version(label_studio: LabelStudio) -> str:
    return label_studio.client().check()


def test_an_asset_reaches_the_server(label_studio, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, label_studio.token)
    resource = LabelStudio(url=label_studio.url, token=dg.EnvVar(VARIABLE))
    outcome = dg.materialize([server_version], resources={"label_studio": resource})
    assert outcome.output_for_node("server_version") == "1.23.2"


def test_a_sensor_reaches_the_server(label_studio) -> None:
    @dg.sensor(target=[server_version])
    def on_members(label_studio: LabelStudio) -> dg.SkipReason:
        return dg.SkipReason(label_studio.client().me()["email"])

    resource = LabelStudio(url=label_studio.url, token=label_studio.token)
    context = dg.build_sensor_context(resources={"label_studio": resource})
    assert on_members(context).skip_message == label_studio.email


def test_a_server_that_is_down_fails_the_asset_with_a_sentence_without_the_token(monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, SECRET)
    resource = LabelStudio(url="http://127.0.0.1:9", token=dg.EnvVar(VARIABLE))
    with dg.instance_for_test() as instance:
        outcome = dg.materialize(
            [server_version], resources={"label_studio": resource}, raise_on_error=False, instance=instance
        )
        (failure,) = [event for event in outcome.all_events if event.is_step_failure]
        assert "http://127.0.0.1:9 cannot be reached" in str(failure.step_failure_data)
        events = [str(record) for record in instance.all_logs(outcome.run_id)]
    assert len(events) > 5
    assert not [event for event in events if SECRET in event]


def test_the_token_is_marked_as_secret_and_not_in_the_representation() -> None:
    resource = LabelStudio(token=SECRET)
    assert SECRET not in repr(resource) + str(resource) + repr(resource.client())
    definitions = dg.Definitions(assets=[server_version], resources={"label_studio": LabelStudio(token=dg.EnvVar("X"))})
    field = definitions.get_repository_def().get_top_level_resources()["label_studio"].config_schema.config_type
    assert field.fields["token"].is_secret
    assert not field.fields["url"].is_secret


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValidationError):
        LabelStudio(token=SECRET, timeout=0)
    with pytest.raises(UserError, match="does not accept the token"):
        LabelStudio(token="").client()
