"""Completions and comparisons of imported judgments, and what a judgment says of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlhf_dagster.data.line_records import Decision, Listing
from rlhf_dagster.labeling.comparisons import comparison_row
from rlhf_dagster.labeling.forms import result_of
from rlhf_dagster.labeling.ledger.writer import project_name
from rlhf_dagster.records.chats import Prompt, messages_of, prompt_of_row
from rlhf_dagster.records.ids import comparison_id, completion_id, prompt_id
from rlhf_dagster.records.json_text import json_encoding
from rlhf_dagster.records.outcome import to_canonical, to_display
from rlhf_dagster.records.round_keys import IMPORT_ROUND, IMPORTED_POLICY
from rlhf_dagster.records.tables import Row

IMPORT_PURPOSE = "train"
PROJECT = project_name(IMPORT_ROUND, IMPORT_PURPOSE)
Response = tuple[str, str]
"""A text and the policy that wrote it; IMPORTED_POLICY where that is not known."""
_as_json = json_encoding()
_NOT_DRAWN: Row = {"token_ids": [], "log_probs": [], "reference_log_probs": [], "seed": 0, "tokenizer": ""}


def responses_of(listing: Listing) -> list[Response]:
    """In the order in which the line lists them."""
    policies = listing.policies or ("",) * len(listing.responses)
    return [(text, policy or IMPORTED_POLICY) for text, policy in zip(listing.responses, policies, strict=True)]


def completions_of(name: str, prompt: Prompt, responses: Iterable[Response]) -> list[Row]:
    """A row of COMPLETIONS for each response of the comparison ``name``, sorted by text and policy.

    The comparison's name in the file is part of their identity: people may judge the same two texts under two names,
    and these are two judgments.
    """
    about = {"prompt_id": prompt_id(prompt), "prompt": str(prompt), "messages": messages_of(prompt), **_NOT_DRAWN}
    about["decoding"] = _as_json({"comparison": name})
    return [
        about
        | {
            "completion_id": completion_id(about["prompt_id"], policy, {"comparison": name, "text": text}, 0, index),
            "policy_id": policy,
            "index": index,
            "text": text,
        }
        for index, (text, policy) in enumerate(sorted(responses))
    ]


def comparison_of_line(name: str, listing: Listing, kind: str, members: Sequence[Row]) -> Row:
    """The row of COMPARISONS, shown in the order of ``listing``; ``members`` are its completions."""
    shown = _in_order(responses_of(listing), [(row["text"], row["policy_id"]) for row in members])
    ids = [members[index]["completion_id"] for index in shown]
    return comparison_row(members, kind, IMPORT_ROUND, IMPORT_PURPOSE, seed=0, shown=ids) | {"name": name}


def repeat_of(row: Mapping[str, Any], showing: int, listing: Listing) -> Row:
    """The comparison ``row`` shown to the same person once more, for the ``showing``-th time after the first."""
    return {
        **row,
        "comparison_id": repeat_id(row, showing),
        "role": "repeat",
        "repeat_of": row["comparison_id"],
        "display_order": listed_order(row, listing),
        "labels_wanted": 1,
    }


def repeat_id(row: Mapping[str, Any], showing: int) -> str:
    again = " ".join(["repeat", *([str(showing)] if showing > 1 else []), "again"])
    return comparison_id(row["completion_ids"], row["kind"], row["round"], again)


def listed_order(row: Mapping[str, Any], listing: Listing) -> list[int]:
    """The display order in which ``listing`` lists the responses of its comparison; equal ones come as they stand."""
    responses = list(zip(row["responses"], row["policy_ids"], strict=True))
    listed, order = responses_of(listing), list(row["display_order"])
    return order if listed == [responses[index] for index in order] else _in_order(listed, responses)


def answer_of(decision: Decision, row: Mapping[str, Any], order: Sequence[int]) -> Row:
    """What a line decides, in the label store's form; ``order`` is its :func:`listed_order`."""

    def shown(values: Sequence[int]) -> Sequence[int]:
        same = order == row["display_order"]
        return values if same else to_display(to_canonical(values, order), row["display_order"])

    ratings = {axis: shown(given) for axis, given in decision.ratings.items()} if decision.ratings else None
    return result_of(None if decision.ranks is None else shown(decision.ranks), row["kind"], ratings)


def order_of(decision: Decision, row: Mapping[str, Any], order: Sequence[int]) -> Row:
    """The order shown to this annotator, where it is not the comparison's or not known."""
    if not decision.order_known:
        return {"shown_order": []}
    return {} if order == row["display_order"] else {"shown_order": list(order)}


def extras_of(decision: Decision) -> Row:
    """What goes with the answer."""
    given = {"reason": decision.reason, "strength": decision.strength, "flags": list(decision.flags)}
    kept = {key: value for key, value in given.items() if value not in ("", None, [])}
    return kept | ({"metadata": dict(decision.metadata)} if decision.metadata else {})


def members_of(row: Mapping[str, Any]) -> list[Row]:
    """The completions of an imported comparison (a row of COMPARISONS); none of a repeat, which has those of another.

    None either where the comparison was imported by version 0.1, which did not keep its name.
    """
    if row["repeat_of"] or not row["name"]:
        return []
    responses = zip(row["responses"], row["policy_ids"], strict=True)
    return completions_of(row["name"], prompt_of_row(row), responses)


def _in_order(listed: Iterable[Response], responses: Sequence[Response]) -> list[int]:
    """The index of each listed response among ``responses``."""
    places: dict[Response, list[int]] = {}
    for index, response in enumerate(responses):
        places.setdefault(response, []).append(index)
    return [places[response].pop(0) for response in listed]
