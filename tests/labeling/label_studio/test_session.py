"""An annotator at work in a real Label Studio: what is done there is the annotator's own."""

import logging
from collections.abc import Iterator

import pytest
from fake_server import serving
from label_studio import MEMBER_PASSWORD, LabelStudioServer, free_port

from rlhf_dagster.labeling.label_studio.session import AnnotatorSession
from rlhf_dagster.labeling.label_studio.transport.errors import (
    LabelStudioError,
    LabelStudioGone,
    LabelStudioTimeout,
    LabelStudioUnreachable,
)

CONFIG = """<View><HyperText name="prompt" value="$prompt_html"/>
<Choices name="preference" toName="prompt"><Choice value="A"/><Choice value="B"/></Choices></View>"""
A, B = (
    [{"from_name": "preference", "to_name": "prompt", "type": "choices", "value": {"choices": [choice]}}]
    for choice in "AB"
)
EMAIL = "ada@example.com"


@pytest.fixture(scope="module")
def ada(label_studio: LabelStudioServer) -> Iterator[AnnotatorSession]:
    session = label_studio.member(EMAIL)
    yield session
    session.close()


@pytest.fixture
def task(label_studio: LabelStudioServer) -> Iterator[tuple[int, int]]:
    """A project and its only task."""
    client = label_studio.client()
    project = client.create_project("session test", CONFIG, "", 2, "")
    yield project, client.import_tasks(project, [{"data": {"prompt_html": "<p>1</p>"}}])[0]
    client.delete_project(project)


def annotations(server: LabelStudioServer, project: int) -> list[dict]:
    return server.client().task_page(project)[0]["annotations"]


def test_what_an_annotator_does_is_the_annotators_own(ada, label_studio, task) -> None:
    project, identity = task
    (user,) = [user["id"] for user in label_studio.client().users() if user["email"] == EMAIL]
    made = ada.annotate(identity, A, 3.25)
    (held,) = annotations(label_studio, project)
    assert (held["id"], held["completed_by"], held["lead_time"]) == (made["id"], user, 3.25)
    assert (held["result"], held["was_cancelled"]) == (A, False)
    ada.update_annotation(made["id"], result=B)
    (held,) = annotations(label_studio, project)
    assert (held["id"], held["completed_by"], held["result"]) == (made["id"], user, B)


def test_a_skipped_task_is_a_cancelled_annotation(ada, label_studio, task) -> None:
    project, identity = task
    ada.annotate(identity, [], 1.0, was_cancelled=True)
    (held,) = annotations(label_studio, project)
    assert (held["was_cancelled"], held["result"]) == (True, [])


def test_who_has_joined_logs_in_from_then_on(ada, label_studio, task) -> None:
    _, identity = task
    again = AnnotatorSession.login(label_studio.url, EMAIL, MEMBER_PASSWORD)
    assert again.annotate(identity, A, 1.0)["completed_by"] == ada.annotate(identity, A, 1.0)["completed_by"]
    again.close()


def test_nobody_joins_without_a_valid_invitation(label_studio) -> None:
    before = label_studio.client().users()
    for invitation in ("user/signup/", "user/signup/?token=guessed"):
        with pytest.raises(LabelStudioError, match=r"eve@example\.com"):
            AnnotatorSession.join(label_studio.url, f"{label_studio.url}/{invitation}", "eve@example.com", "x" * 20)
    assert label_studio.client().users() == before


def test_nobody_joins_twice(ada, label_studio) -> None:
    with pytest.raises(LabelStudioError, match=r"did not let ada@example\.com sign up"):
        label_studio.member(EMAIL)


def test_a_wrong_password_is_one_sentence_without_it(ada, label_studio, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    for email, password in ((EMAIL, "wrong-and-secret"), ("nobody@example.com", MEMBER_PASSWORD)):
        with pytest.raises(LabelStudioError, match=f"{email} cannot log in") as caught:
            AnnotatorSession.login(label_studio.url, email, password)
        assert password not in str(caught.value) + caplog.text
    assert MEMBER_PASSWORD not in repr(ada)


def test_what_is_gone_is_named(ada) -> None:
    with pytest.raises(LabelStudioGone, match="was it deleted there"):
        ada.annotate(10**8, A, 1.0)


def test_a_server_that_is_down_slow_or_another_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(LabelStudioUnreachable, match=url):
        AnnotatorSession.login(url, EMAIL, "x")
    with pytest.raises(LabelStudioError, match="is no address"):
        AnnotatorSession.login("http://127.0.0.1:99999", EMAIL, "x")
    with (
        serving(lambda _: (200, "<html>hello</html>")) as fake,
        pytest.raises(LabelStudioError, match="no Label Studi"),
    ):
        AnnotatorSession.login(fake.url, EMAIL, "x")
    with serving(lambda _: (200, str(fake.released.wait()))) as fake, pytest.raises(LabelStudioTimeout):
        AnnotatorSession.login(fake.url, EMAIL, "x", timeout=0.2)
