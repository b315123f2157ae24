"""The client against a real Label Studio, with both kinds of token, and against servers that do what it must not."""

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from fake_server import NO_ANSWER, Answer, Asked, FakeServer, serving
from label_studio import LabelStudioServer, free_port

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.transport.errors import (
    LabelStudioError,
    LabelStudioGone,
    LabelStudioTimeout,
    LabelStudioUnreachable,
)

LEGACY = "0123456789abcdef0123456789abcdef01234567"
CONFIG = """<View><HyperText name="prompt" value="$prompt_html"/>
<Choices name="preference" toName="prompt"><Choice value="A"/><Choice value="B"/></Choices></View>"""
CHOICE = [{"from_name": "preference", "to_name": "prompt", "type": "choices", "value": {"choices": ["A"]}}]


@pytest.fixture(scope="module")
def personal_token(label_studio: LabelStudioServer) -> str:
    """A personal access token of a member who has nothing else to do."""
    return label_studio.personal_token("personal@example.com")


@pytest.fixture(params=["legacy", "personal"])
def client(request, label_studio: LabelStudioServer) -> LabelStudioClient:
    token = label_studio.token if request.param == "legacy" else request.getfixturevalue("personal_token")
    return LabelStudioClient(label_studio.url, token)


@pytest.fixture
def project(client: LabelStudioClient) -> Iterator[int]:
    identity = client.create_project("client test", CONFIG, "<p>How to</p>", 2, "marker-1")
    yield identity
    with suppress(LabelStudioGone):
        client.delete_project(identity)


def tasks(n: int, first: int = 0) -> list[dict[str, dict[str, str]]]:
    return [{"data": {"comparison": f"c{i}", "prompt_html": f"<p>{i} é</p>"}} for i in range(first, first + n)]


def test_version_user_members_and_invitation(client: LabelStudioClient, label_studio: LabelStudioServer) -> None:
    assert client.check() == "1.23.2"
    me = client.me()
    assert me["email"] in (label_studio.email, "personal@example.com")
    assert (me["id"], me["email"]) in {(user["id"], user["email"]) for user in client.users()}
    assert client.invite_url().startswith(f"{label_studio.url}/user/signup/?token=")


def test_a_project_has_what_it_was_made_with(client: LabelStudioClient, project: int) -> None:
    (found,) = [entry for entry in client.projects("client test") if entry["id"] == project]
    assert (found["title"], found["description"]) == ("client test", "marker-1")
    assert client.projects("no such title") == []
    assert client.project_config(project) == CONFIG
    made = client._json("GET", f"api/projects/{project}/")
    assert (made["maximum_annotations"], made["sampling"]) == (2, "Sequential sampling")
    assert (made["show_instruction"], made["expert_instruction"]) == (True, "<p>How to</p>")


def test_tasks_go_in_and_come_out_in_order_page_by_page(client: LabelStudioClient, project: int) -> None:
    ids = client.import_tasks(project, tasks(7))
    assert ids == sorted(ids)
    pages = [client.task_page(project, page_size=3)]
    while pages[-1]:
        pages.append(client.task_page(project, after_id=pages[-1][-1]["id"], full=False, page_size=3))
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    back = [task for page in pages for task in page]
    assert [task["id"] for task in back] == ids
    assert [task["data"] for task in back] == [task["data"] for task in tasks(7)]
    assert [task["annotations"] for task in pages[0]] == [[], [], []]
    assert all("annotations" not in task for page in pages[1:] for task in page)


def test_one_bad_task_leaves_none_of_its_request(client: LabelStudioClient, project: int) -> None:
    bad = [*tasks(3), {"data": {"comparison": "c3"}}]
    with pytest.raises(LabelStudioError, match=r"status 400.*prompt_html"):
        client.import_tasks(project, bad)
    assert client.probe(project) == (0, None)


def test_a_change_is_found_by_when_it_was_made(client: LabelStudioClient, project: int) -> None:
    ids = client.import_tasks(project, tasks(3))
    total, newest = client.probe(project)
    assert total == 3
    before = datetime.fromisoformat(newest or "").astimezone(UTC) + timedelta(microseconds=1)
    assert client.task_page(project, updated_since=before) == []
    made = client.annotate(ids[1], CHOICE, 2.5)
    (changed,) = client.task_page(project, updated_since=before)
    assert changed["id"] == ids[1]
    assert client.probe(project) == (3, changed["updated_at"])
    (annotation,) = changed["annotations"]
    assert (annotation["id"], annotation["result"], annotation["lead_time"]) == (made["id"], CHOICE, 2.5)
    assert (annotation["completed_by"], annotation["was_cancelled"]) == (client.me()["id"], False)
    assert datetime.fromisoformat(annotation["created_at"]) >= before


def test_skip_unskip_and_deletion_are_seen(client: LabelStudioClient, project: int) -> None:
    (task,) = client.import_tasks(project, tasks(1))
    assert client.is_untouched(task)
    skip = client.annotate(task, [], 1.0, was_cancelled=True)["id"]
    assert [entry["was_cancelled"] for entry in client.task_page(project)[0]["annotations"]] == [True]
    assert not client.is_untouched(task)
    client.update_annotation(skip, was_cancelled=False, result=CHOICE)
    assert [entry["result"] for entry in client.task_page(project)[0]["annotations"]] == [CHOICE]
    client.delete_annotation(skip)
    assert client.task_page(project)[0]["annotations"] == []
    client.delete_tasks(project, [task])
    assert client.task_page(project) == []


def test_the_overlap_of_one_task_can_differ(client: LabelStudioClient, project: int) -> None:
    (task,) = client.import_tasks(project, tasks(1))
    client.set_overlap(task, 5)
    assert client._json("GET", f"api/tasks/{task}/")["overlap"] == 5


def test_what_is_gone_is_named(client: LabelStudioClient, project: int) -> None:
    client.delete_project(project)
    for request in (lambda: client.task_page(project), lambda: client.probe(project)):
        with pytest.raises(LabelStudioGone, match=rf"no project {project} \(any more\)"):
            request()
    for request in (
        lambda: client.import_tasks(project, tasks(1)),
        lambda: client.delete_project(project),
        lambda: client.annotate(10**8, CHOICE, 1.0),
        lambda: client.update_annotation(10**8, lead_time=1.0),
    ):
        with pytest.raises(LabelStudioGone, match="was it deleted there"):
            request()


def test_a_config_that_the_server_refuses_is_quoted(client: LabelStudioClient) -> None:
    with pytest.raises(LabelStudioError, match=r"status 400: .*label_config"):
        client.create_project("client test", "<View><Choices/></View>", "", 1, "")


def test_legacy_tokens_disabled_is_a_sentence_of_its_own(label_studio: LabelStudioServer, personal_token: str) -> None:
    legacy = LabelStudioClient(label_studio.url, label_studio.token)
    personal = LabelStudioClient(label_studio.url, personal_token)
    personal._request("POST", "api/jwt/settings", body={"legacy_api_tokens_enabled": False})
    try:
        with pytest.raises(LabelStudioError, match="has legacy tokens disabled; use a personal access token"):
            legacy.me()
        assert personal.me()["email"] == "personal@example.com"
    finally:
        personal._request("POST", "api/jwt/settings", body={"legacy_api_tokens_enabled": True})
    assert legacy.me()["email"] == label_studio.email


def expired() -> str:
    return jwt.encode({"token_type": "refresh", "exp": 1_000_000_000}, "k" * 32)


def unsigned() -> str:
    return jwt.encode({"token_type": "refresh", "exp": 8_000_000_000, "user_id": "1"}, "k" * 32)


@pytest.mark.parametrize(
    "token",
    [LEGACY, "abc", "", "two words", "line\nbreak", "naïve", expired(), unsigned(), jwt.encode({}, "k" * 32)],
    ids=["legacy", "short", "empty", "blank", "newline", "not-ascii", "expired", "forged", "no-expiry"],
)
def test_a_wrong_token_is_one_sentence_without_it(label_studio: LabelStudioServer, token: str) -> None:
    with pytest.raises(LabelStudioError, match="does not accept the token") as caught:
        LabelStudioClient(label_studio.url, token).me()
    assert not token or token not in str(caught.value)


def test_a_token_copied_with_its_line_end_is_accepted(label_studio: LabelStudioServer) -> None:
    assert LabelStudioClient(label_studio.url, f" {label_studio.token}\n").me()["email"] == label_studio.email


def test_no_token_is_logged_or_shown(label_studio: LabelStudioServer, personal_token: str, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    shown = []
    for token in (label_studio.token, personal_token):
        client = LabelStudioClient(label_studio.url, token)
        client.me()
        shown += [repr(client), str(client)]
        for request in (lambda: client.task_page(10**8), lambda: client.create_project("t", "<", "", 1, "")):  # noqa: B023
            with pytest.raises(LabelStudioError) as caught:
                request()
            shown += [str(caught.value), repr(caught.value), "".join(traceback.format_exception(caught.value))]
    assert "/api/token/refresh/" in caplog.text  # the log does hold the requests
    for secret in (label_studio.token, personal_token):
        assert secret not in caplog.text
        assert not [text for text in shown if secret in text]


@contextmanager
def asked_of(answer: Callable[[Asked], Answer], token: str = LEGACY) -> Iterator[tuple[LabelStudioClient, FakeServer]]:
    with serving(answer) as fake:
        yield LabelStudioClient(fake.url, token, timeout=5), fake


@pytest.mark.parametrize("version", ["1.20.0", "0.9", "2.0.0", "10.1"])
def test_a_version_that_is_not_supported_is_named(version: str) -> None:
    sentence = f"is version {version}; versions from 1.21 to below 2.0"
    with asked_of(lambda _: (200, {"release": version})) as (client, _), pytest.raises(LabelStudioError) as caught:
        client.check()
    assert sentence in str(caught.value)


@pytest.mark.parametrize("version", ["1.21.0", "1.99.1rc2"])
def test_a_version_that_is_supported(version: str) -> None:
    with asked_of(lambda _: (200, {"release": version})) as (client, _):
        assert client.check() == version


@pytest.mark.parametrize("answer", ["<html>hello</html>", {}, {"release": "next"}, ["1.23.2"], "null"])
def test_what_is_no_label_studio_is_said_to_be_none(answer) -> None:
    with asked_of(lambda _: (200, answer)) as (client, _), pytest.raises(LabelStudioError) as caught:
        client.check()
    assert "is no Label Studio; correct label_store.url" in str(caught.value)


def test_an_address_that_only_sends_on_is_not_followed() -> None:
    with asked_of(lambda _: (301, "", {"Location": "https://other.example.com/"})) as (client, fake):
        with pytest.raises(LabelStudioError, match=r"sends requests on to https://other\.example\.com/; correct"):
            client.check()
        assert len(fake.asked) == 1


def test_nothing_there_is_said_to_be_unreachable() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(LabelStudioUnreachable, match=f"{url} cannot be reached .*rlhf label-studio up"):
        LabelStudioClient(url, LEGACY).check()


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[::1", "http://:80"])
def test_what_is_no_address_is_said_to_be_none(url: str) -> None:
    with pytest.raises(LabelStudioError, match=r"is no address; correct label_store.url"):
        LabelStudioClient(url, LEGACY).check()


@pytest.mark.parametrize("token", [LEGACY, unsigned()], ids=["legacy", "personal"])
def test_no_answer_in_time_is_a_timeout_and_is_not_asked_again(token: str) -> None:
    def hang(_: Asked) -> Answer:
        fake.released.wait()
        return NO_ANSWER, ""

    with serving(hang) as fake, pytest.raises(LabelStudioTimeout, match=r"no answer within 0\.2 s"):
        LabelStudioClient(fake.url, token, timeout=0.2).import_tasks(1, tasks(1))
    assert len(fake.asked) == 1


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, NO_ANSWER])
def test_nothing_is_asked_twice(status: int) -> None:
    with asked_of(lambda _: (status, {"detail": "later"}, {"Retry-After": "1"})) as (client, fake):
        with pytest.raises(LabelStudioError) as caught:
            client.import_tasks(1, tasks(1))
        assert len(fake.asked) == 1
    assert isinstance(caught.value, LabelStudioUnreachable) == (status == NO_ANSWER)
    assert status == NO_ANSWER or f"status {status}: later." in str(caught.value)


@dataclass
class Doorkeeper:
    """Gives an access token that lasts ``seconds`` for each personal one, and takes only the newest."""

    seconds: float
    prefix: str = ""
    given: int = 0

    def __call__(self, asked: Asked) -> Answer:
        if asked.path == f"{self.prefix}/api/token/refresh/":
            self.given += 1
            expires = datetime.now(UTC) + timedelta(seconds=self.seconds)
            return 200, {"access": jwt.encode({"exp": expires, "n": self.given}, "k" * 32)}
        name = asked.headers["Authorization"].removeprefix("Bearer ")
        number = jwt.decode(name, options={"verify_signature": False})["n"]
        return (200, {"release": "1.23.2"}) if number == self.given else (401, {"detail": "stale"})


def test_an_access_token_is_kept_while_it_lasts_and_then_replaced() -> None:
    for seconds, given in ((300.0, 1), (-1.0, 3)):
        keeper = Doorkeeper(seconds)
        with asked_of(keeper, unsigned()) as (client, _):
            assert [client.check() for _ in range(3)] == ["1.23.2"] * 3
        assert keeper.given == given


@pytest.mark.parametrize("token", [LEGACY, unsigned()], ids=["legacy", "personal"])
def test_a_server_below_a_path_gets_every_request_there(token: str) -> None:
    keeper = Doorkeeper(300, prefix="/tools/annotation")
    answer = keeper if token != LEGACY else lambda _: (200, {"release": "1.23.2"})
    with serving(answer) as fake:
        assert LabelStudioClient(f"{fake.url}/tools/annotation", token).check() == "1.23.2"
    assert {asked.path.partition("/api/")[0] for asked in fake.asked} == {"/tools/annotation"}


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_cannot_refresh_a_token_does_not_put_it_down_to_the_token(status: int) -> None:
    with asked_of(lambda _: (status, {"detail": "out of order"}), unsigned()) as (client, _):  # noqa: SIM117
        with pytest.raises(LabelStudioError, match=f"refresh/ with status {status}: out of order"):
            client.check()


def test_a_server_that_repeats_the_token_does_not_get_it_into_our_sentence() -> None:
    with asked_of(lambda asked: (418, {"detail": f"I read {asked.headers['Authorization']}!"})) as (client, _):  # noqa: SIM117
        with pytest.raises(LabelStudioError, match=r"status 418: I read Token \.\.\.!"):
            client.check()


def test_a_proxy_is_asked_for_other_machines_alone(monkeypatch) -> None:
    with serving(lambda _: (200, {"release": "1.23.2"})) as fake:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
        assert LabelStudioClient(fake.url, LEGACY).check() == "1.23.2"
        monkeypatch.setenv("http_proxy", fake.url)
        assert LabelStudioClient("http://labels.example.com", LEGACY).check() == "1.23.2"
    assert [asked.path for asked in fake.asked] == ["/api/version", "http://labels.example.com/api/version"]


def test_connections_are_not_kept_and_cookies_are_not_taken() -> None:
    answer = (200, {"release": "1.23.2"}, {"Set-Cookie": "sessionid=abc; Path=/"})
    with asked_of(lambda _: answer) as (client, fake):
        client.check()
        client.check()
    assert [asked.headers["Connection"] for asked in fake.asked] == ["close", "close"]
    assert not [asked for asked in fake.asked if "Cookie" in asked.headers]


def test_passwords_of_simulated_annotators_are_told_by_the_token_alone() -> None:
    one, same, other = (LabelStudioClient("http://127.0.0.1:9", token) for token in (LEGACY, LEGACY, "f" * 40))
    assert one.secret_for("ann") == same.secret_for("ann")
    assert len({one.secret_for("ann"), one.secret_for("ben"), other.secret_for("ann")}) == 3
    assert LEGACY not in one.secret_for("ann")


def test_every_error_is_one_for_the_person_at_the_keyboard() -> None:
    assert issubclass(LabelStudioError, UserError)
