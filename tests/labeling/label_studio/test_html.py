"""Texts as HTML: what they say is shown, and nothing else happens."""

import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlhf_dagster.labeling.label_studio.html import EMPTY, TAGS, conversation_html, to_html
from rlhf_dagster.records.chats import Chat, Message

PIECES = [
    "a",
    " ",
    "\n",
    "\n\n",
    "    ",
    "\t",
    "-",
    "+",
    "=",
    "1.",
    "2)",
    ":",
    ";",
    "é",
    "(",
    "!",
    '"',
    "'",
    "\r",
    "\x00",
    "/",
]


class Elements(HTMLParser):
    """Elements, attributes and text of some HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("Four.", "<p>Four.</p>"),
        ("One\ntwo\n\nthree", "<p>One<br>two</p><p>three</p>"),
        ("One\r\ntwo", "<p>One<br>two</p>"),
        ('Say "4" to them', '<p>Say "4" to them</p>'),
        ("**bold**\nnew line", "<p><strong>bold</strong><br>\nnew line</p>\n"),
        ("`a < b`", "<p><code>a &lt; b</code></p>\n"),
        ("```python\nx = 1\n```", "<pre><code>x = 1\n</code></pre>\n"),
        ("3. c\n4. d", '<ol start="3">\n<li>c</li>\n<li>d</li>\n</ol>\n'),
        ("- a\n- b", "<ul>\n<li>a</li>\n<li>b</li>\n</ul>\n"),
        ("[text](http://example.org)", "<p>[text](http://example.org)</p>\n"),
        ("![alt](http://example.org/a.png)", "<p>![alt](http://example.org/a.png)</p>\n"),
        ("<b>not bold</b>", "<p>&lt;b&gt;not bold&lt;/b&gt;</p>\n"),
        ("", EMPTY.format(what="response")),
        (" \n ", EMPTY.format(what="response")),
    ],
)
def test_texts_are_shown_as_they_were_meant(text: str, html: str) -> None:
    assert to_html(text) == html


def test_tables_are_shown() -> None:
    assert Elements(to_html("| a | b |\n|---|--:|\n| 1 | 2 |")).tags == {"table", "thead", "tbody", "tr", "th", "td"}


@given(st.text())
@example("<script>alert(1)</script>")
@example("<p onclick=x>")
@example("\ud800 half a character")
@example("[x](javascript:alert(1)) <javascript:alert(1)>")
@example('```x" onload="y\ncode\n```')
@example("&lt;script&gt; &#60;script&#62;")
def test_any_text_becomes_harmless_html(text: str) -> None:
    found = Elements(to_html(text) + conversation_html(text) + conversation_html(f"User: {text}\nAssistant: {text}"))
    assert found.tags <= TAGS | {"span", "div"}
    assert found.attributes <= {"class", "start"}


@given(st.lists(st.sampled_from(PIECES)).map("".join))
@example("a\n-")
@example("a\n=")
@example("a\n \tb")
def test_short_cut_shows_what_markdown_would(text: str) -> None:
    """A character that is Markdown's makes the renderer run; in a paragraph of its own it changes nothing before it."""
    if not text.strip():
        return
    rendered = to_html(text.rstrip() + "\n\n&").removesuffix("<p>&amp;</p>\n")
    # The renderer drops the spaces at both ends of a line; a browser shows neither.
    assert _as_seen(to_html(text)) == _as_seen(rendered)


def test_what_no_database_stores_is_replaced() -> None:
    assert to_html("a\x00b \ud800") == "<p>a\ufffdb \ufffd</p>"


@pytest.mark.parametrize("text", ["*" * 20_000, "[" * 20_000, "> " * 5_000 + "x", "`" * 9_999 + "a", "<" * 20_000])
def test_hostile_markdown_is_rendered(text: str) -> None:
    assert Elements(to_html(text)).tags <= TAGS


def test_messages_are_turns() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi, *you*"},
        {"role": "assistant", "content": ""},
    ]
    html = conversation_html(Chat.of(messages))
    assert re.findall(r'"rl-role">(\w+)<', html) == ["System", "User", "Assistant"]
    assert "<em>you</em>" in html
    assert html.endswith('<div class="rl-role">Assistant</div></div>')


def test_a_text_that_looks_like_messages_is_a_text() -> None:
    text = json.dumps([{"role": "user", "content": "Hi"}])
    assert conversation_html(text) == to_html(text)
    assert "rl-turn" not in conversation_html(text)


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text()), min_size=1))
def test_any_chat_becomes_harmless_html(turns: list[tuple[str, str]]) -> None:
    found = Elements(conversation_html(Chat(tuple(Message(*turn) for turn in turns))))
    assert found.tags <= TAGS | {"span", "div"}
    assert found.attributes <= {"class", "start"}


@pytest.mark.parametrize("first", ["User", "Human", "System"])
def test_marked_turns_are_turns(first: str) -> None:
    html = conversation_html(f"\n\n{first}: What is\n\n2+2?\n\nAssistant: 4\nUser: Why: tell me")
    assert re.findall(r'"rl-role">(\w+)<', html) == [first, "Assistant", "User"]
    assert Elements(html).text.split() == [first, "What", "is", "2+2?", "Assistant", "4", "User", "Why:", "tell", "me"]


@pytest.mark.parametrize(
    "prompt",
    [
        "User: hello",
        "Tell me\nUser: hi\nAssistant: ho",
        "Assistant: hi\nUser: ho",
        "The User: field and the Assistant: field",
        "[1, 2]",
        "[]",
        '[{"role": "tool", "content": "x"}]',
        '[{"role": "user", "content": ["x"]}]',
        '[{"role": "user"',
    ],
)
def test_any_other_prompt_is_one_text(prompt: str) -> None:
    assert conversation_html(prompt) == to_html(prompt)


def test_empty_prompt_is_not_called_a_response() -> None:
    assert "(empty prompt)" in conversation_html("")


def _as_seen(html: str) -> str:
    return re.sub(r"\s*(<[^>]+>)\s*", r"\1", re.sub(r"[ \t]+", " ", html)).strip()
