"""One pyarrow schema for each table, with a description on every column."""

from collections.abc import Iterable

import pandas as pd
import pyarrow as pa

from rlhf_dagster.errors import UserError
from rlhf_dagster.records.kinds import ALL_KINDS, RANKED_KINDS

STRING, INT, FLOAT, TIME = pa.string(), pa.int32(), pa.float64(), pa.timestamp("us", tz="UTC")
STRINGS, INTS, FLOATS = pa.list_(STRING), pa.list_(INT), pa.list_(pa.float32())
_MESSAGES = pa.list_(pa.struct([("role", STRING), ("content", STRING)]))
_LATER = b"later"
"""Marks, in a column's metadata, one that tables of version 0.1 lack; it is null there."""


def _schema(**columns: tuple[pa.DataType, str]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, metadata={"description": text}) for name, (kind, text) in columns.items()])


def _with_later(schema: pa.Schema, **columns: tuple[pa.DataType, str]) -> pa.Schema:
    """``schema`` with columns behind it that older tables lack (:func:`with_later_columns`)."""
    later = _schema(**columns)
    return pa.schema([*schema, *(column.with_metadata({**column.metadata, _LATER: b"yes"}) for column in later)])


def meaning(column: pa.Field) -> str:
    """What a column means; empty if its schema does not say."""
    return (column.metadata or {}).get(b"description", b"").decode()


def _any_of(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"


_CHAT = {"messages": (_MESSAGES, "the prompt's messages, where it is a chat; null where it is a text")}
PROMPTS = _with_later(
    _schema(
        prompt_id=(STRING, "hash of the text, or of the messages"),
        text=(STRING, "what the policy continues or answers; of a chat, what people read"),
        source=(STRING, "where the prompt came from"),
        user=(STRING, "who wrote it, as a pseudonym; splits keep a user together"),
        split=(STRING, "train, validation or test"),
    ),
    **_CHAT,
)
DEMONSTRATIONS = _with_later(
    _schema(
        demonstration_id=(STRING, "hash of prompt and response"),
        prompt_id=(STRING, "the prompt"),
        prompt=(STRING, "the prompt's text"),
        response=(STRING, "what a person wrote for it"),
        source=(STRING, "where the demonstration came from"),
        split=(STRING, "train or validation"),
    ),
    **_CHAT,
)
IMPORTED_PROMPTS = PROMPTS.remove(PROMPTS.get_field_index("split"))
"""Imported tables have no split: it depends on the loop's shares, and is drawn where the data assets are made."""
IMPORTED_DEMONSTRATIONS = DEMONSTRATIONS.set(DEMONSTRATIONS.get_field_index("split"), PROMPTS.field("user"))
IMPORTED_GOLD = _with_later(
    _schema(
        gold_id=(STRING, "hash of prompt and responses"),
        prompt=(STRING, "the prompt's text"),
        responses=(STRINGS, "the responses"),
        best=(INT, "index of the best response"),
    ),
    **_CHAT,
)
FEEDBACK = _schema(
    feedback_id=(STRING, "hash of prompt, response, what was thought of it and by whom"),
    prompt_id=(STRING, "the prompt"),
    prompt=(STRING, "the prompt's text"),
    messages=(_MESSAGES, "the prompt's messages, where it is a chat; null where it is a text"),
    response=(STRING, "the response"),
    liked=(pa.bool_(), "whether somebody liked it"),
    weight=(FLOAT, "weight in the loss"),
    user=(STRING, "who said so, as a pseudonym; empty where it is not known"),
    source=(STRING, "where the feedback came from"),
    split=(STRING, "split of its prompt, or of its user"),
)
IMPORTED_FEEDBACK = FEEDBACK.remove(FEEDBACK.get_field_index("split"))
PROMPT_LINEAGE = _schema(
    prompt_id=(STRING, "the prompt"),
    log=(STRING, "the log, as `data.feedback.logs` names it"),
    line=(INT, "the conversation's line there, counted from 1"),
    user=(STRING, "who asked, as in the table of prompts; empty where it is not known"),
    policy_id=(STRING, "who answered; empty where it is not known"),
    conversation=(STRING, "the response's id; empty where it has none"),
)
PRETRAINING_TEXT = _schema(
    text_id=(STRING, "hash of the text"),
    text=(STRING, "one document"),
    source=(STRING, "where the document came from"),
    split=(STRING, "train or validation"),
)
_DRAWN = {
    "token_ids": (
        pa.list_(INTS),
        "the tokens that were drawn for each response, end-of-text included; null where none were, as for a text that "
        "a person wrote",
    ),
    "tokenizers": (STRINGS, "the tokenizer that each of token_ids is of, as a hash; empty where there are none"),
}
"""What was drawn of the responses that a row compares, in their order."""
COMPLETIONS = _with_later(
    _schema(
        completion_id=(STRING, "hash of prompt, policy, decoding settings, seed and index"),
        prompt_id=(STRING, "the prompt"),
        prompt=(STRING, "the prompt's text"),
        policy_id=(STRING, "the policy that sampled it; `imported` for responses that came with imported judgments"),
        index=(INT, "counts the samples of one prompt"),
        text=(STRING, "the response"),
        token_ids=(INTS, "the response's tokens"),
        log_probs=(FLOATS, "log-probability of each token under the policy, at the sampling temperature, in nats"),
        reference_log_probs=(FLOATS, "the same under the SFT policy; empty where it was not measured"),
        decoding=(STRING, "sampling settings, as JSON"),
        seed=(INT, "seed of the sampling run"),
    ),
    tokenizer=(STRING, "the tokenizer that token_ids is of, as a hash; empty where there are none"),
    **_CHAT,
)
EVALUATION_COMPLETIONS = COMPLETIONS.append(
    pa.field(
        "role",
        STRING,
        metadata={"description": "policy, sft, behaviour, or the name of another arm: whom the response stands for"},
    )
)
COMPARISONS = _with_later(
    _schema(
        comparison_id=(STRING, "hash of the completions, kind and round"),
        round=(STRING, "the labelling round"),
        kind=(STRING, _any_of(ALL_KINDS)),
        purpose=(STRING, "train (reward-model data), evaluation (A/B judgments) or demonstrations (writing)"),
        role=(STRING, "why it is asked: label, gold, repeat, challenger or drift; only label and challenger train"),
        prompt_id=(STRING, "the prompt"),
        prompt=(STRING, "the prompt's text"),
        completion_ids=(STRINGS, "the completions compared, sorted by id"),
        responses=(STRINGS, "their texts, in the order of completion_ids"),
        policy_ids=(STRINGS, "who sampled them, in the order of completion_ids; never shown to annotators"),
        display_order=(INTS, "display_order[position] is the index into completion_ids shown there"),
        gold_ranks=(
            INTS,
            "the known answer of a gold question, in the order of completion_ids; null where there is none",
        ),
        repeat_of=(STRING, "the comparison whose responses are shown again, or in the other order; empty where none"),
        labels_wanted=(INT, "how many annotators should judge it"),
        project=(STRING, "the label store's project"),
        task_id=(STRING, "the label store's task"),
    ),
    **_DRAWN,
    **_CHAT,
    name=(STRING, "what the file calls an imported comparison, or a hash where it has no name for it; empty elsewhere"),
)
LABELS = _with_later(
    _schema(
        label_id=(STRING, "hash of comparison, annotator, annotation and version"),
        comparison_id=(STRING, "the comparison judged"),
        round=(STRING, "the labelling round"),
        kind=(STRING, _any_of(ALL_KINDS)),
        purpose=(STRING, "train, evaluation or demonstrations"),
        annotator=(STRING, "pseudonym"),
        annotation_id=(STRING, "the label store's id"),
        version=(INT, "counts the edits of one annotation, from 1"),
        latest=(pa.bool_(), "whether this is the annotation's last version"),
        status=(STRING, "submitted, skipped or deleted"),
        ranks=(
            INTS,
            "rank of each response in the order of completion_ids, 1 is best, equal ranks tie; null: cannot decide",
        ),
        chosen_position=(
            INT,
            "display position of the single best response; null where there is none, or no order is known",
        ),
        strength=(FLOAT, "how much better, 0 to 1; null where it was not asked"),
        axes=(
            STRING,
            "what was judged on each axis, as JSON, in the order of completion_ids: ratings, or ranks (A/B); empty if "
            "none",
        ),
        text=(STRING, "the response written (demonstration); empty elsewhere"),
        flags=(STRINGS, "problems the annotator marked: both_bad, unsafe, bad_prompt, stop"),
        reason=(STRING, "the annotator's words"),
        seconds=(FLOAT, "time spent, in seconds"),
        created_at=(TIME, "when the annotation was made"),
        updated_at=(TIME, "when this version was made"),
        position=(pa.int64(), "the version's place in the ledger; versions with a greater one came later"),
    ),
    display_order=(
        INTS,
        "display_order[position] is the index into completion_ids that this annotator saw there; null: as the "
        "comparison says; empty: not known",
    ),
    metadata=(STRING, "what else the file says of an imported label, as JSON; empty where it says nothing"),
)
QUARANTINE = _schema(
    annotation_id=(STRING, "the label store's id"),
    comparison_id=(STRING, "the comparison it claims to judge"),
    annotator=(STRING, "pseudonym"),
    problem=(STRING, "why it cannot be used"),
    raw=(STRING, "what the label store returned, as JSON"),
)
PREFERENCES = _with_later(
    _schema(
        label_id=(STRING, "the label this row comes from"),
        comparison_id=(STRING, "the comparison judged"),
        round=(STRING, "the round it was labelled in"),
        kind=(STRING, _any_of(RANKED_KINDS)),
        prompt_id=(STRING, "the prompt"),
        prompt=(STRING, "the prompt's text"),
        responses=(STRINGS, "the texts compared"),
        policy_ids=(STRINGS, "who sampled them"),
        ranks=(INTS, "rank of each response, 1 is best, equal ranks tie"),
        target=(FLOATS, "probability that each response is the best, 1 in all; ties share"),
        annotator=(STRING, "pseudonym"),
        weight=(FLOAT, "weight in the loss"),
        split=(
            STRING,
            "train, validation (other prompts) or held_out_annotators (people never trained on, other comparisons)",
        ),
    ),
    strength=(FLOAT, "how much better the better of a pair is, 0 to 1; null where it was not asked"),
    ratings=(FLOATS, "rating of each response on the axis that decides the ranks; null where none was asked"),
    **_DRAWN,
    **_CHAT,
)
QUALITY = _with_later(
    _schema(
        annotator=(STRING, "pseudonym"),
        labels=(INT, "labels given"),
        share_undecided=(FLOAT, "share of ties at the top and of `cannot decide`"),
        share_skipped=(FLOAT, "skips, as a share of labels and skips"),
        share_flagged=(FLOAT, "share of labels that mark a problem"),
        agreement=(FLOAT, "share of decided comparisons on which another annotator chose the same best response"),
        agreement_low=(FLOAT, "lower end of its 95% interval, which allows for labels that pairs share"),
        agreement_high=(FLOAT, "upper end"),
        agreement_n=(INT, "pairs of judgments compared"),
        gold_accuracy=(FLOAT, "share of gold questions answered as known"),
        gold_low=(FLOAT, "lower end of its 95% Wilson interval"),
        gold_high=(FLOAT, "upper end"),
        gold_n=(INT, "gold questions answered"),
        consistency=(FLOAT, "share of comparisons judged twice that got the same answer"),
        consistency_low=(FLOAT, "lower end of its 95% Wilson interval"),
        consistency_high=(FLOAT, "upper end"),
        consistency_n=(INT, "comparisons judged twice"),
        first_position_share=(FLOAT, "share of decided labels that chose the first position shown"),
        first_position_low=(FLOAT, "lower end of its 95% Wilson interval"),
        first_position_high=(FLOAT, "upper end"),
        chance_first=(FLOAT, "what that share would be with no side preference"),
        share_untouched=(FLOAT, "share of rankings without ties left in the order shown; null where none was asked"),
        median_seconds=(FLOAT, "median time for a label, in seconds"),
        competence=(FLOAT, "estimated probability of naming the best response; null where nobody can be compared"),
        review=(STRING, "why somebody should look at this annotator's work; empty if nothing stands out"),
    ),
    share_tied=(FLOAT, "share of ties at the top; what is left of share_undecided is `cannot decide`"),
)


def table(rows: pd.DataFrame | list[dict], schema: pa.Schema) -> pa.Table:
    """A table of exactly this schema: columns are ordered, types cast, and a missing or surplus column is an error."""
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows, columns=schema.names)
    frame = with_later_columns(frame, schema)
    wrong = sorted(set(frame.columns) ^ set(schema.names))
    if wrong:
        raise UserError(f"The table's columns do not fit its schema: {', '.join(wrong)} missing or unknown.")
    # Pandas makes a column of NaN out of a list column that is null everywhere.
    empty = [field.name for field in schema if pa.types.is_list(field.type) and frame[field.name].isna().all()]
    frame = frame.assign(**{name: pd.Series(None, index=frame.index, dtype=object) for name in empty})
    return pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)


def later_columns(schema: pa.Schema) -> list[str]:
    """Columns that tables of version 0.1 lack."""
    return [column.name for column in schema if _LATER in (column.metadata or {})]


def with_later_columns(frame: pd.DataFrame, schema: pa.Schema) -> pd.DataFrame:
    """``frame`` with the :func:`later_columns` that it lacks, which are null."""
    lacking = [name for name in later_columns(schema) if name not in frame.columns]
    nothing = pd.Series([None] * len(frame), index=frame.index, dtype=object)
    return frame.assign(**dict.fromkeys(lacking, nothing))


def cast_to(found: pa.Table, schema: pa.Schema) -> pa.Table:
    """``found`` as a table of this schema, which it may lack :func:`later_columns` of; raises what `cast` raises."""
    for name in later_columns(schema):
        if name not in found.column_names:
            found = found.append_column(name, pa.nulls(len(found), schema.field(name).type))
    ordered = sorted(found.column_names, key=lambda name: schema.names.index(name) if name in schema.names else -1)
    return found.select(ordered).cast(schema)
