"""Text of models and people as HTML in which nothing can run, load or link.

Label Studio's own Markdown and HTML tags let scripts through, so we render: Markdown without raw HTML, then an
allow-list. Links and pictures are shown as they are written: annotators see what the model wrote, and nothing loads.
"""

import re
from functools import cache
from html import escape
from typing import Any

from rlhf_dagster.records.chats import ROLE_NAMES, Chat, Prompt

TAGS = {"p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em"}
TAGS |= {"strong", "del", "s", "table", "thead", "tbody", "tr", "th", "td"}
EMPTY = '<p><span class="rl-empty">(empty {what})</span></p>'
_MARKDOWN = re.compile(
    r"[*_`#~|\[\]<>&\\]|^\s*(?:[-+]|\d+[.)])(?:\s|$)|^(?: {4}| {0,3}\t)|^\s*[-=][-=\s]*$",
    re.MULTILINE,
)
"""Whatever has a meaning in Markdown; a text without any of it need not be rendered."""
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""No database takes these: NUL, and halves of characters that cannot be encoded."""
_TURN = re.compile(r"^(Human|User|Assistant|System): ?", re.MULTILINE)


def to_html(text: str, what: str = "response") -> str:
    """Markdown as safe HTML. Line breaks are kept; a text without Markdown takes a short cut.

    Where there is no text, the page says that ``what`` it shows is empty.
    """
    if not text.strip():
        return EMPTY.format(what=what)
    text = _UNSTORABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
    if not _MARKDOWN.search(text):
        paragraphs = re.split(r"\n\s*\n", text.strip())
        return "".join(f"<p>{escape(part, quote=False).replace(chr(10), '<br>')}</p>" for part in paragraphs)
    import nh3

    rendered = _markdown().render(text)
    return nh3.clean(rendered, tags=TAGS, attributes={"ol": {"start"}}, url_schemes=set(), link_rel=None)


def conversation_html(prompt: Prompt) -> str:
    """A prompt as HTML, as turns where it is a conversation.

    That is a chat, or a text whose first line begins with ``User:``, ``Human:`` or ``System:`` and that has an
    ``Assistant:`` turn. A text that looks like messages in JSON is a text: the policy reads it as one.
    """
    turns = _turns(prompt) if isinstance(prompt, Chat) else _marked_turns(prompt)
    if not turns:
        return to_html(str(prompt), "prompt")
    return "".join(
        f'<div class="rl-turn"><div class="rl-role">{role}</div>{to_html(text) if text.strip() else ""}</div>'
        for role, text in turns
    )


def _turns(chat: Chat) -> list[tuple[str, str]]:
    return [(ROLE_NAMES[message.role], message.content) for message in chat.messages]


def _marked_turns(prompt: str) -> list[tuple[str, str]]:
    text = prompt.lstrip()
    parts = _TURN.split(text)
    roles = parts[1::2]
    if not roles or parts[0] or roles[0] == "Assistant" or "Assistant" not in roles:
        return []
    return [(role, body.strip("\n")) for role, body in zip(roles, parts[2::2], strict=True)]


@cache
def _markdown() -> Any:
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    return markdown.disable(["link", "image", "autolink", "reference"])
