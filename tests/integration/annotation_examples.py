"""The labelling pages that are tried in a browser, and long texts to show on them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from integration.annotation_pages import Work, comparison
from selenium.webdriver.common.keys import Keys

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.label_studio.results import decode

FOUR = ["One answer.", "Another answer.", "A third answer.", "The last answer."]
TWO = FOUR[:2]
RATING = LabelingSettings(kind="rating", responses_per_prompt=2, rating_axes=["overall", "not_harmful"])


@dataclass(frozen=True)
class Page:
    """A page, how to answer it with the mouse and with the keyboard, and what both say."""

    kind: str
    purpose: str
    settings: LabelingSettings
    responses: list[str]
    refusal: str
    click: Callable[[Work], None]
    type: Callable[[Work], None]
    clicked: dict[str, Any]
    typed: dict[str, Any]

    def rows(self, n: int) -> list[dict[str, Any]]:
        return [comparison(self.kind, self.purpose, number, self.responses) for number in range(1, n + 1)]


def click_pair(work: Work) -> None:
    work.choose("B is slightly better", "Unsafe content", "All are bad")
    work.write("rationale", "It is <b>shorter</b>.")


def type_pair(work: Work) -> None:
    work.press_until_chosen("1", "A is much better")
    work.press("e")
    work.type_into("rationale", *"2 is right")


def type_best(work: Work) -> None:
    work.press_until_chosen("4", "D")
    work.press("2")


def click_ranking(work: Work) -> None:
    for letter, rank in (("c", 1), ("a", 2), ("d", 2), ("b", 4)):
        work.drag(letter, rank)
    work.choose("Order is final")


def type_ranking(work: Work) -> None:
    for letter, rank in (("b", 1), ("d", 2), ("a", 2), ("c", 3)):
        work.carry(letter, rank)
    # Out of the ranker, where the space bar lifts.
    work.driver.execute_script("document.activeElement.blur()")
    work.press_until_chosen("1", "Order is final")


def click_rating(work: Work) -> None:
    for row, stars in enumerate((7, 2, 4, 1)):
        work.rate(row, stars)


def type_rating(work: Work) -> None:
    work.press_until_chosen("q", "All are bad")
    work.press(*"1223334444")


def click_ab(work: Work) -> None:
    work.choose("A is better", row=0)
    work.choose("Tie", row=1)
    work.choose("B is better", row=2)


def type_ab(work: Work) -> None:
    work.press_until_chosen("8", "Tie")
    work.press("3", "4")
    work.press_until_chosen("p", "Stop the training: something is badly wrong")


def type_demonstration(work: Work) -> None:
    work.type_into("demonstration", *"1 or 2", Keys.ENTER, *"all")


PAGES = {
    "pair": Page(
        "pair",
        "train",
        LabelingSettings(kind="pair"),
        TWO,
        "Choose one, or skip the task.",
        click_pair,
        type_pair,
        {"choice": 1, "strength": 0.5, "flags": ["both_bad", "unsafe"], "reason": "It is <b>shorter</b>."},
        {"choice": 0, "strength": 1.0, "flags": ["bad_prompt"], "reason": "2 is right"},
    ),
    "pair without strength": Page(
        "pair",
        "train",
        LabelingSettings(kind="pair", strength=False),
        TWO,
        "Choose one, or skip the task.",
        lambda work: work.choose("B is better"),
        lambda work: work.press_until_chosen("2", "Tie"),
        {"choice": 1},
        {"choice": "tie"},
    ),
    "best of four": Page(
        "best_of_k",
        "train",
        LabelingSettings(kind="best_of_k"),
        FOUR,
        "Mark the best response, or skip the task.",
        lambda work: work.choose("C"),
        type_best,
        {"best": 2},
        {"best": [1, 3]},
    ),
    "ranking": Page(
        "ranking",
        "train",
        LabelingSettings(kind="ranking"),
        FOUR,
        "Say whether the order is final, or skip the task.",
        click_ranking,
        type_ranking,
        {"ranks": [2, 3, 1, 2]},
        {"ranks": [2, 1, 3, 2]},
    ),
    "rating": Page(
        "rating",
        "train",
        RATING,
        TWO,
        "Rate Overall of response A too, or skip the task.",
        click_rating,
        type_rating,
        {"ratings": {"overall": [7, 4], "not_harmful": [2, 1]}},
        {"ratings": {"overall": [1, 3], "not_harmful": [2, 4]}, "flags": ["both_bad"]},
    ),
    "A/B": Page(
        "pair",
        "evaluation",
        LabelingSettings(evaluation_axes=["helpful", "honest"]),
        TWO,
        "Choose for Helpful too, or skip the task.",
        click_ab,
        type_ab,
        {"choice": 1, "axes": {"helpful": 0, "honest": "tie"}},
        {"choice": "tie", "axes": {"helpful": 1, "honest": 0}, "flags": ["stop"]},
    ),
    "demonstration": Page(
        "demonstration",
        "demonstrations",
        LabelingSettings(),
        [],
        "Write a response, or skip the task.",
        lambda work: work.write("demonstration", "Because **2 + 2** is 4.\n\nThat is all."),
        type_demonstration,
        {"text": "Because **2 + 2** is 4.\n\nThat is all."},
        {"text": "1 or 2\nall"},
    ),
}


def pages(*short: str, without: str = "") -> list[Any]:
    """The pages' names as parameters. Those that are not named are built of the same parts: the long run tries them."""
    names = [name for name in PAGES if name != without]
    return [pytest.param(name, marks=[] if name in short else [pytest.mark.long]) for name in names]


def said(work: Work, number: int, page: Page, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the annotation of question ``number`` says, as our tables have it."""
    return decode(work.stored(number)["result"], rows[number - 1], page.settings)


QUESTION = """User: How do I remove duplicates from a list in Python?
Assistant: Does the order of the items matter to you?
User: Yes, keep the first of each. Please explain your code, and say how fast it is for **1,000,000** items."""
LONG = [
    """A dictionary keeps its keys in the order in which they came, and every key only once:

```python
def without_duplicates(items):
    return list(dict.fromkeys(items))

print(without_duplicates([3, 1, 3, 2, 1]))  # [3, 1, 2]
```

How it works:

1. `dict.fromkeys(items)` makes a dictionary with the items as keys. A key that is there already stays where it is.
2. `list(...)` takes the keys out again, in order.

| items | time |
|---|---|
| 1,000 | 0.03 ms |
| 1,000,000 | 45 ms |

The time grows with the number of items, not with its square. The items must be *hashable*: numbers, texts and tuples \
are, lists and dictionaries are not.
""",
    """Use a set to remember what you have seen:

```python
def without_duplicates(items):
    seen = set()
    result = []
    for item in items:
        if item not in seen:
            seen.add(item)
            result.append(item)
    return result
```

- `seen` answers *was this here before?* in constant time.
- `result` keeps the order.

For a million items this takes about 80 ms on a laptop. If you need it in one line, \
`sorted(set(items), key=items.index)` gives the same list, **but it is slow**: `items.index` searches from the start \
each time.

> Tip: for items that are not hashable, keep `repr(item)` in the set instead.
""",
    "Call `set(items)`. That removes the duplicates and is very fast.",
    """You can do it with a list comprehension:

```python
result = []
[result.append(item) for item in items if item not in result]
```

It looks at each item and appends it unless it is there. This is quick enough for most lists.
""",
]
