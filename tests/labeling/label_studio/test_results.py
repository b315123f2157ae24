"""What Label Studio holds to our forms of a result and back: nothing is guessed, and nothing makes reading stop."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.forms import FLAGS, is_ab, read_answer, read_extras
from rlhf_dagster.labeling.label_studio.kinds.known import page_of
from rlhf_dagster.labeling.label_studio.results import decode, encode

SETTINGS = LabelingSettings(
    kind="rating", strength=True, rating_axes=["overall", "helpful"], evaluation_axes=["helpful", "honest"]
)
PAGES = ["pair", "best_of_k", "ranking", "rating", "a/b", "demonstration"]


def comparison(page: str, k: int = 4) -> dict[str, Any]:
    if page == "a/b":
        return {"kind": "pair", "purpose": "evaluation", "display_order": [1, 0]}
    purpose = "demonstrations" if page == "demonstration" else "train"
    order = {"pair": [0, 1], "demonstration": []}.get(page, list(range(k)))
    return {"kind": page, "purpose": purpose, "display_order": order}


def region(name: str, type_: str, held: Any, to_name: str = "prompt") -> dict[str, Any]:
    """As the browser submits it, with an id and an origin."""
    key = {"choices": "choices", "textarea": "text", "rating": "rating", "ranker": "ranker"}[type_]
    value = {key: held}
    return {
        "id": "EQ1JPw94hS",
        "origin": "manual",
        "from_name": name,
        "to_name": to_name,
        "type": type_,
        "value": value,
    }


def choice(name: str, *aliases: Any) -> dict[str, Any]:
    return region(name, "choices", list(aliases))


def ranker(**buckets: list[str]) -> dict[str, Any]:
    return region("rank", "ranker", buckets, "responses")


def stars(**ratings: Any) -> list[dict[str, Any]]:
    return [region(name, "rating", rating, name[0]) for name, rating in ratings.items()]


FULL = {"a_overall": 5, "b_overall": 3, "a_helpful": 6, "b_helpful": 2}
FINAL = choice("rank_status", "final")
ORDERED = ["r-b", "r-a", "r-d", "r-c"]


@pytest.mark.parametrize(
    ("page", "regions", "result"),
    [
        ("pair", [choice("preference", "A2")], {"choice": 0, "strength": 1.0}),
        ("pair", [choice("preference", "A1")], {"choice": 0, "strength": 0.5}),
        ("pair", [choice("preference", "B1")], {"choice": 1, "strength": 0.5}),
        ("pair", [choice("preference", "B2")], {"choice": 1, "strength": 1.0}),
        ("pair", [choice("preference", "tie")], {"choice": "tie"}),
        ("pair", [choice("preference", "cannot_decide")], {"cannot_decide": True}),
        (
            "pair",
            [
                choice("flags", "both_bad", "unsafe", "stop"),
                choice("preference", "B1"),
                region("rationale", "textarea", ["Ok"]),
            ],
            {"choice": 1, "strength": 0.5, "flags": ["both_bad", "unsafe", "stop"], "reason": "Ok"},
        ),
        ("best_of_k", [choice("best", "C")], {"best": 2}),
        ("best_of_k", [choice("best", "D", "A")], {"best": [0, 3]}),
        ("best_of_k", [choice("best", "cannot_decide")], {"cannot_decide": True}),
        ("ranking", [ranker(rank=ORDERED), FINAL], {"ranks": [2, 1, 4, 3]}),
        (
            "ranking",
            [FINAL, ranker(_=[], rank_1=["r-c"], rank_2=["r-a", "r-d"], rank_3=[], rank_4=["r-b"])],
            {"ranks": [2, 3, 1, 2]},
        ),
        ("ranking", [choice("rank_status", "cannot_decide")], {"cannot_decide": True}),
        ("ranking", [choice("rank_status", "cannot_decide"), ranker(rank=sorted(ORDERED))], {"cannot_decide": True}),
        (
            "ranking",
            [choice("rank_status", "cannot_decide"), ranker(_=["r-a", "r-b", "r-c"], rank_1=["r-d"])],
            {"cannot_decide": True},
        ),
        ("rating", stars(**FULL), {"ratings": {"overall": [5, 3], "helpful": [6, 2]}}),
        ("rating", [choice("rating_status", "cannot_decide")], {"cannot_decide": True}),
        ("a/b", [choice("overall", "B")], {"choice": 1}),
        (
            "a/b",
            [choice("axis_helpful", "A"), choice("axis_honest", "tie"), choice("overall", "cannot_decide")],
            {"cannot_decide": True, "axes": {"helpful": 0, "honest": "tie"}},
        ),
        ("demonstration", [region("demonstration", "textarea", ["Four.\n\nBecause."])], {"text": "Four.\n\nBecause."}),
    ],
)
def test_what_each_page_submits(page: str, regions: list, result: dict) -> None:
    assert decode(regions, comparison(page, k=2 if page == "rating" else 4), SETTINGS) == result


@pytest.mark.parametrize(("alias", "choice_made"), [("A", 0), ("B", 1), ("tie", "tie")])
def test_a_pair_without_strength(alias: str, choice_made: Any) -> None:
    settings = SETTINGS.changed(strength=False)
    assert decode([choice("preference", alias)], comparison("pair"), settings) == {"choice": choice_made}
    assert "unreadable" in decode([choice("preference", "A2")], comparison("pair"), settings)


@pytest.mark.parametrize(
    ("page", "regions", "part"),
    [
        ("pair", [], "is empty"),
        ("pair", None, "nothing, not a list"),
        ("pair", {"result": []}, "an object, not a list"),
        ("pair", ["A"], "a text, not an object"),
        ("pair", [{}], "does not name its control"),
        ("pair", [choice("pw", "left")], "no control 'pw'"),
        ("pair", [choice("best", "A")], "no control 'best'"),
        ("pair", [choice("flags", "unsafe")], "`preference` has 0 choices"),
        ("pair", [choice("preference", "left")], "no choice 'left'"),
        ("pair", [choice("preference", "A")], "no choice 'A'"),
        ("pair", [choice("preference")], "0 choices"),
        ("pair", [choice("preference", "A1", "B1")], "2 choices"),
        ("pair", [choice("preference", "A1", "cannot_decide")], "2 choices"),
        ("pair", [choice("preference", "A1"), choice("preference", "A1")], "more than one answer"),
        ("pair", [choice("preference", "A1"), choice("flags", "rude")], "no choice 'rude'"),
        ("pair", [region("preference", "textarea", ["A1"])], "not of the type choices"),
        ("pair", [region("preference", "choices", ["A1"], "a")], "not about `prompt`"),
        ("pair", [region("preference", "choices", "A1")], "not a list of texts"),
        ("pair", [choice("preference", 1)], "not a list of texts"),
        ("pair", [choice("preference", "A1") | {"value": None}], "holds `choices` alone"),
        ("pair", [choice("preference", "A1") | {"value": {"choices": ["A1"], "text": "x"}}], "holds `choices` alone"),
        ("pair", [choice("preference", "A1"), region("rationale", "textarea", "why")], "not a list of texts"),
        ("pair", [choice("preference", "A1"), region("rationale", "textarea", ["\ud800"])], "Unicode"),
        ("best_of_k", [choice("best", "E")], "no choice 'E'"),
        ("best_of_k", [choice("best", "a")], "no choice 'a'"),
        ("best_of_k", [choice("best")], "names no response"),
        ("best_of_k", [choice("best", "A", "A")], "twice"),
        ("best_of_k", [choice("best", "A", "cannot_decide")], "cannot be decided and names"),
        ("ranking", [ranker(rank=ORDERED)], "`rank_status` has 0 choices"),
        ("ranking", [FINAL], "not finished"),
        ("ranking", [FINAL, ranker(_=ORDERED, rank_1=[])], "not finished"),
        ("ranking", [FINAL, ranker(_=["r-a"], rank_1=["r-b", "r-c", "r-d"])], "not finished"),
        ("ranking", [choice("rank_status", "cannot_decide"), ranker(rank=ORDERED)], "holds a ranking"),
        ("ranking", [choice("rank_status", "cannot_decide"), ranker(rank_1=ORDERED)], "holds a ranking"),
        ("ranking", [FINAL, ranker(rank=["1", "0", "3", "2"])], "item '1', which was not shown"),
        ("ranking", [FINAL, ranker(rank=["r-a", "r-b", "r-c", "r-e"])], "item 'r-e', which was not shown"),
        ("ranking", [FINAL, ranker(rank=["r-a", "r-b", "r-c"])], "r-d 0 times"),
        ("ranking", [FINAL, ranker(rank_1=["r-a", "r-b"], rank_2=["r-c", "r-d", "r-a"])], "r-a 2 times"),
        ("ranking", [FINAL, ranker(good=ORDERED)], "no bucket 'good'"),
        ("ranking", [FINAL, ranker(rank_10=ORDERED)], "no bucket 'rank_10'"),
        ("ranking", [FINAL, ranker(rank=ORDERED, rank_1=[])], "without buckets"),
        ("ranking", [FINAL, ranker(rank=[0, 1, 2, 3])], "not a list of items"),
        ("ranking", [FINAL, region("rank", "ranker", ORDERED, "responses")], "not a ranker's object"),
        ("ranking", [FINAL, region("rank", "ranker", {"rank": ORDERED})], "not about `responses`"),
        ("rating", [], "is empty"),
        ("rating", stars(**FULL | {"a_overall": 8}), "from 1 to 7"),
        ("rating", stars(**FULL | {"a_overall": 0}), "from 1 to 7"),
        ("rating", stars(**FULL | {"a_overall": "5"}), "from 1 to 7"),
        ("rating", stars(**FULL | {"a_overall": 5.0}), "from 1 to 7"),
        ("rating", stars(**FULL | {"a_overall": True}), "from 1 to 7"),
        ("rating", stars(a_overall=5, b_overall=3, a_helpful=6), "`b_helpful` was not rated"),
        ("rating", stars(**FULL, c_overall=4), "no control 'c_overall'"),
        ("rating", stars(**FULL, a_harmless=4), "no control 'a_harmless'"),
        ("rating", [*stars(**FULL), choice("rating_status", "final")], "no choice 'final'"),
        ("a/b", [choice("axis_helpful", "A")], "`overall` has 0 choices"),
        ("a/b", [choice("overall", "A"), choice("axis_helpful", "A")], "`axis_honest` was not answered"),
        ("a/b", [choice("overall", "A"), choice("axis_kind", "A")], "no control 'axis_kind'"),
        (
            "a/b",
            [choice("overall", "A"), choice("axis_helpful", "cannot_decide"), choice("axis_honest", "A")],
            "no choice 'cannot_decide'",
        ),
        ("demonstration", [choice("flags", "bad_prompt")], "0 texts"),
        ("demonstration", [region("demonstration", "textarea", ["a", "b"])], "2 texts"),
        ("demonstration", [region("demonstration", "textarea", [" "])], "empty"),
        ("demonstration", [region("demonstration", "textarea", "Four.")], "not a list of texts"),
        ("poll", [choice("best", "A")], "'poll' is no kind"),
    ],
)
def test_what_no_page_submits_is_kept_with_a_sentence(page: str, regions: Any, part: str) -> None:
    result = decode(regions, comparison(page, k=2 if page == "rating" else 4), SETTINGS)
    assert set(result) == {"unreadable", "raw"}
    assert part in result["unreadable"]
    assert result["unreadable"].endswith(".")
    assert result["raw"] is regions


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
CONTROLS = ("preference", "best", "rank", "rank_status", "a_overall", "b_helpful", "rating_status", "overall")
names = st.sampled_from([*CONTROLS, "axis_honest", "demonstration", "flags", "rationale", "nothing"])
ALIASES = ("A", "B", "A2", "tie", "cannot_decide", "final", "unsafe")
words = st.sampled_from([*ALIASES, "r-a", "r-b", "1", "rank_1", "_", "rank", "x"])
near_misses = st.fixed_dictionaries(
    {"from_name": names},
    optional={
        "to_name": st.sampled_from(["prompt", "responses", "a", "b"]) | json_values,
        "type": st.sampled_from(["choices", "rating", "ranker", "textarea"]) | json_values,
        "value": st.dictionaries(
            st.sampled_from(["choices", "rating", "ranker", "text"]),
            st.lists(words, max_size=4) | st.dictionaries(words, st.lists(words) | json_values) | json_values,
            max_size=2,
        )
        | json_values,
    },
)


@given(st.sampled_from(PAGES), json_values | st.lists(near_misses | json_values, max_size=5))
def test_any_json_is_a_result_or_unreadable(page: str, regions: Any) -> None:
    result = decode(regions, comparison(page), SETTINGS)
    assert isinstance(result, dict)
    assert result


def answers_to(about: dict[str, Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Answers of the right type to some controls of a page, many of which no page would submit."""
    k = len(about["display_order"])
    known = page_of(about["kind"], about["purpose"], SETTINGS).controls(k)
    held: dict[str, st.SearchStrategy[Any]] = {
        "choices": st.lists(st.sampled_from([*ALIASES, "B2", "C", "D", *FLAGS]), max_size=2),
        "textarea": st.lists(st.sampled_from(["", " ", "Four.", "\ud800"]), max_size=2),
        "rating": st.integers(1, 7) | st.sampled_from([0, 8, True, "5"]),
        "ranker": st.permutations(ORDERED).map(lambda items: {"rank_1": items[:2], "rank_3": items[2:]})
        | st.dictionaries(words, st.lists(words, max_size=4), max_size=2),
    }
    regions = {
        name: held[control.type].map(
            lambda value, name=name, control=control: region(name, control.type, value, control.to_name)
        )
        for name, control in known.items()
    }
    extra = {"flags": held["choices"].map(lambda value: choice("flags", *value))}
    extra["rationale"] = held["textarea"].map(lambda value: region("rationale", "textarea", value))
    return st.fixed_dictionaries({}, optional=regions | extra).map(lambda answers: list(answers.values()))


@pytest.mark.parametrize("page", PAGES)
@hypothesis_settings(deadline=None)
@given(data=st.data())
def test_what_is_decoded_can_be_read_and_holds_nothing_that_was_not_checked(page: str, data: st.DataObject) -> None:
    about = comparison(page, k=2 if page == "rating" else 4)
    result = decode(data.draw(answers_to(about)), about, SETTINGS)
    if "unreadable" not in result:
        answer = read_answer(result, about, SETTINGS.rating_axes)
        read_extras(result)
        decided = answer.ranks is not None or answer.text != ""
        assert decided != ("cannot_decide" in result)
        assert set(answer.axes) == set(result.get("axes" if is_ab(about["kind"], about["purpose"]) else "ratings", {}))


def results(page: str, k: int) -> st.SearchStrategy[dict[str, Any]]:
    """Every answer that the page can take, but for flags and reason."""
    sides = st.sampled_from([0, 1, "tie"])
    ratings = st.lists(st.integers(1, 7), min_size=k, max_size=k)
    axes = st.fixed_dictionaries({"helpful": sides, "honest": sides})
    answers: dict[str, st.SearchStrategy[dict[str, Any]]] = {
        "pair": st.just({"choice": "tie"})
        | st.fixed_dictionaries({"choice": st.integers(0, 1), "strength": st.sampled_from([0.5, 1.0])}),
        "best_of_k": st.sets(st.integers(0, k - 1), min_size=1).map(
            lambda best: {"best": sorted(best) if len(best) > 1 else min(best)}
        ),
        "ranking": ratings.map(lambda values: {"ranks": [sorted(set(values)).index(value) + 1 for value in values]}),
        "rating": st.fixed_dictionaries({"ratings": st.fixed_dictionaries({"overall": ratings, "helpful": ratings})}),
        "a/b": st.fixed_dictionaries({"choice": sides}, optional={"axes": axes}),
        "demonstration": st.fixed_dictionaries({"text": st.text(min_size=1).filter(str.strip)}),
    }
    undecided = st.fixed_dictionaries(
        {"cannot_decide": st.just(True)}, optional={"axes": axes} if page == "a/b" else {}
    )
    return answers[page] if page == "demonstration" else answers[page] | undecided


extras = st.fixed_dictionaries(
    {},
    optional={
        "reason": st.text(min_size=1),
        "flags": st.lists(st.sampled_from(FLAGS), min_size=1, max_size=3, unique=True),
    },
)


@given(st.sampled_from(PAGES), st.integers(2, 9), st.data())
def test_what_is_encoded_is_decoded_to_the_same(page: str, k: int, data: st.DataObject) -> None:
    result = data.draw(results(page, k)) | data.draw(extras)
    about = comparison(page, k)
    assert decode(encode(result, about, SETTINGS), about, SETTINGS) == result


@pytest.mark.parametrize(
    ("page", "result"),
    [
        ("best_of_k", {"best": 77}),
        ("best_of_k", {"best": 0, "flags": ["rude"]}),
        ("ranking", {"ranks": [1, 2, 3]}),
        ("rating", {"ratings": {"helpful": [1, 2, 3, 4]}}),
        ("pair", {}),
        ("demonstration", {"text": ""}),
        ("poll", {"best": 0}),
    ],
)
def test_what_cannot_be_read_cannot_be_read_after_encoding_either(page: str, result: dict) -> None:
    assert "unreadable" in decode(encode(result, comparison(page), SETTINGS), comparison(page), SETTINGS)


def test_a_page_leaves_out_what_it_does_not_ask() -> None:
    settings = SETTINGS.changed(strength=False, evaluation_axes=[])
    assert encode({"choice": 1, "strength": 1.0}, comparison("pair"), settings) == [
        {"from_name": "preference", "to_name": "prompt", "type": "choices", "value": {"choices": ["B"]}}
    ]
    regions = encode({"choice": 0, "axes": {"kind": 1}}, comparison("a/b"), settings)
    assert [region["from_name"] for region in regions] == ["overall"]
