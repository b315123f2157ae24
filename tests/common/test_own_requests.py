"""Which requests a server of ours answers, by their headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.common.http.own_requests import OWN_NAMES, host_name, refusal

HOST = "127.0.0.1:3000"
PAGE = {"Host": HOST, "Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
LINK = {"Host": HOST, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def status(method: str, headers: dict[str, str], *names: str, websocket: bool = False) -> int:
    refused = refusal(method, headers.items(), (*OWN_NAMES, *names), websocket)
    assert refused is None or refused.sentence.endswith(".")
    return int(refused.status) if refused else 200


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", PAGE),
        ("POST", PAGE | {"Content-Type": "application/json; charset=utf-8"}),
        ("POST", {"Host": HOST, "Content-Type": "application/json"}),
        ("GET", {"Host": HOST}),
        ("GET", {"Host": "localhost"}),
        ("GET", {"Host": "LOCALHOST:8080"}),
        ("GET", LINK),
        ("HEAD", LINK | {"Sec-Fetch-Site": "same-site"}),
        ("GET", {"Host": HOST, "Sec-Fetch-Site": "none"}),
    ],
)
def test_own_pages_programs_and_people_who_follow_a_link_are_answered(method, headers) -> None:
    assert status(method, headers) == 200


@pytest.mark.parametrize(
    ("expected", "method", "headers"),
    [
        (421, "GET", {}),
        (421, "GET", {"Host": "evil.example"}),
        (421, "GET", {"Host": "evil.example:3000"}),
        (421, "GET", {"Host": "127.0.0.1.evil.example"}),
        (421, "GET", {"Host": "localhost.evil.example"}),
        (421, "GET", {"Host": "evil.example@127.0.0.1"}),
        (421, "GET", {"Host": "127.0.0.1/evil.example"}),
        (421, "GET", {"Host": "["}),
        (421, "GET", {"Host": "0.0.0.0"}),
        (403, "POST", PAGE | {"Origin": "http://evil.example"}),
        (403, "POST", PAGE | {"Origin": "null"}),
        (403, "POST", PAGE | {"Origin": ""}),
        (403, "POST", PAGE | {"Origin": "http://127.0.0.1:3001"}),
        (403, "POST", PAGE | {"Origin": "http://127.0.0.1"}),
        (403, "POST", PAGE | {"Origin": "file://127.0.0.1:3000"}),
        (403, "POST", PAGE | {"Sec-Fetch-Site": "cross-site"}),
        (403, "POST", PAGE | {"Sec-Fetch-Site": "same-site"}),
        (403, "GET", {"Host": HOST, "Origin": "http://evil.example"}),
        (403, "GET", LINK | {"Sec-Fetch-Dest": "iframe"}),
        (403, "GET", LINK | {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}),
        (403, "POST", LINK | {"Content-Type": "application/json"}),
        (403, "OPTIONS", {"Host": HOST, "Origin": "http://evil.example"}),
        (415, "POST", {"Host": HOST}),
        (415, "POST", PAGE | {"Content-Type": "text/plain"}),
        (415, "POST", PAGE | {"Content-Type": "text/plain; application/json"}),
        (415, "POST", PAGE | {"Content-Type": "application/graphql"}),
        (415, "DELETE", {"Host": HOST, "Origin": f"http://{HOST}"}),
    ],
)
def test_what_another_page_brings_about_is_refused(expected, method, headers) -> None:
    assert status(method, headers) == expected


def test_a_websocket_is_asked_for_by_an_own_page() -> None:
    assert status("GET", PAGE, websocket=True) == 200
    assert status("GET", {"Host": HOST}, websocket=True) == 200
    assert status("GET", LINK, websocket=True) == 403
    assert status("GET", {"Host": HOST, "Origin": "http://evil.example"}, websocket=True) == 403


def test_two_hosts_or_two_origins_are_not_chosen_between() -> None:
    assert refusal("GET", [("Host", HOST), ("host", "evil.example")]).status == 421
    assert refusal("GET", [("Host", HOST), ("Origin", f"http://{HOST}"), ("origin", "null")]).status == 403
    two = [("Host", HOST), ("Content-Type", "application/json"), ("Content-Type", "text/plain")]
    assert refusal("POST", two).status == 415


def test_a_name_behind_a_proxy_is_answered_when_it_is_ours() -> None:
    asked = PAGE | {"Host": "rlhf.example.org", "Origin": "https://rlhf.example.org"}
    assert status("POST", asked) == 421
    assert status("POST", asked, "rlhf.example.org") == 200
    assert status("POST", asked | {"Origin": "https://rlhf.example.org.evil.example"}, "rlhf.example.org") == 403


@given(st.text(alphabet="a1.:@/?#[]%\\ -", max_size=12))
def test_no_host_raises(host: str) -> None:
    assert host_name(host) is None or isinstance(host_name(host), str)
