"""Who judges, and where what they decide is kept."""

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.planning import constants
from rlhf_dagster.planning.arithmetic import Sheet, Term, rounded_up
from rlhf_dagster.planning.question import PlanQuestion

HOUR, DAY = Term.of(3600), Term.of(86_400)
BILLION, MEGA = Term.of(1e9), Term.of(1e6)
ONE = Term.of(1)


def people_sheet(question: PlanQuestion) -> Sheet:
    """The annotators that so many labels a day need."""
    sheet = Sheet("People")
    labels = sheet.given("labels a day", question.labels_per_day, "")
    seconds = sheet.given(
        "seconds for a label", question.seconds_per_label, "s", "asked for; a loop's own median is on its round page"
    )
    hours, share = sheet.known(constants.SHIFT), sheet.known(constants.LABELLING_SHARE)
    sheet.result("annotators", "people", rounded_up(labels * seconds / (hours * HOUR * share)))
    return sheet


def ledger_sheet(question: PlanQuestion, labeling: LabelingSettings) -> Sheet:
    """Rows and bytes of the ledger, and the rate at which labels come."""
    sheet = Sheet("Ledger and label server")
    labels = Term.of(question.labels_per_day)
    each = _labels_of_a_comparison(sheet, labeling)
    comparisons = sheet.result("comparisons a day", "rows", labels / each)
    sheet.result("rows of the ledger a day", "rows", comparisons + labels)
    texts = _characters(sheet, question, labeling)
    of_comparison = sheet.known(constants.COMPARISON_BYTES) + sheet.known(constants.CHARACTER_BYTES) * texts
    of_comparison = sheet.result("bytes of a comparison", "B", of_comparison)
    annotation = sheet.known(constants.ANNOTATION_BYTES)
    daily = sheet.result("ledger a day", "GB", (comparisons * of_comparison + labels * annotation) / BILLION)
    sheet.result("ledger a year", "GB", daily * Term.of(365))
    sheet.result("labels a second over the day", "/s", labels / DAY)
    sheet.result("labels a second in one shift", "/s", labels / (sheet.known(constants.SHIFT) * HOUR))
    reads = sheet.known(constants.LABEL_STUDIO_READS)
    sheet.result("hours a day to read them", "h", labels / reads / HOUR)
    return sheet


def _labels_of_a_comparison(sheet: Sheet, labeling: LabelingSettings) -> Term:
    share = sheet.given("share judged several times", labeling.overlap, "", "labeling.overlap")
    several = sheet.given("labels of each of these", labeling.overlap_labels, "", "labeling.overlap_labels")
    return sheet.result("labels of a comparison", "", ONE + share * (several - ONE))


def _characters(sheet: Sheet, question: PlanQuestion, labeling: LabelingSettings) -> Term:
    prompt = sheet.given("tokens of a prompt", question.prompt_tokens, "")
    response = sheet.given("tokens of a response", question.response_tokens, "")
    compared = sheet.given("responses compared", labeling.responses, "", "labeling.kind and responses_per_prompt")
    each = sheet.known(constants.CHARACTERS)
    return sheet.result("characters of a comparison", "", (prompt + compared * response) * each)
