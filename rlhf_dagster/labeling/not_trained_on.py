"""Why labels are not trained on, each reason with the words for people."""

from collections.abc import Mapping

HELD_OUT_PROMPT, HELD_OUT_COMPARISON, HELD_OUT_PERSON = "held_out_prompt", "held_out_comparison", "held_out_annotator"
KEPT_COMPARISON, LEFT_OUT_PERSON, TEST_PROMPT = "kept_comparison", "left_out_annotator", "test_prompt"
MEASURES_PEOPLE, UNDECIDED, SKIPPED, UNREADABLE = "measures_annotators", "undecided", "skipped", "unreadable"

NOT_TRAINED_ON = {
    HELD_OUT_PROMPT: "on prompts held out",
    HELD_OUT_COMPARISON: "on comparisons held out",
    HELD_OUT_PERSON: "by annotators held out",
    KEPT_COMPARISON: "on comparisons kept for annotators held out",
    LEFT_OUT_PERSON: "by annotators left out",
    TEST_PROMPT: "on prompts of the test split",
    MEASURES_PEOPLE: "on questions that measure annotators",
    UNDECIDED: "that name no best response",
    SKIPPED: "skipped",
    UNREADABLE: "that cannot be read",
}
"""By reason, in the order in which they are told. Those who are held out are measured on, as far as :mod:`dataset`
keeps comparisons for it."""


def reasons_in_order(reasons: Mapping[str, int]) -> dict[str, int]:
    """The counts that are not 0, in the order of :data:`NOT_TRAINED_ON`."""
    return {reason: reasons[reason] for reason in NOT_TRAINED_ON if reasons.get(reason)}


def not_trained_on_sentence(trained: int, reasons: Mapping[str, int]) -> str:
    """How many labels are trained on, and how many are not and why: "30 of 40 labels are trained on; not 10 ..."."""
    counts = reasons_in_order(reasons)
    begins = f"{trained:,} of {trained + sum(counts.values()):,} labels are trained on"
    if not counts:
        return f"{begins}."
    return f"{begins}; not {', '.join(f'{count:,} {NOT_TRAINED_ON[reason]}' for reason, count in counts.items())}."
