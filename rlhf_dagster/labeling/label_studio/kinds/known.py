"""Which page belongs to which kind of comparison: the one list of all pages."""

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.forms import is_ab, kind_named
from rlhf_dagster.labeling.label_studio.kinds.base import Page
from rlhf_dagster.labeling.label_studio.kinds.best_of_k import BestPage
from rlhf_dagster.labeling.label_studio.kinds.demonstration import DemonstrationPage
from rlhf_dagster.labeling.label_studio.kinds.evaluation import AbPage
from rlhf_dagster.labeling.label_studio.kinds.pair import PairPage
from rlhf_dagster.labeling.label_studio.kinds.ranking import RankingPage
from rlhf_dagster.labeling.label_studio.kinds.rating import RatingPage

PAGE_OF_KIND: dict[str, type[Page]] = {
    "pair": PairPage,
    "best_of_k": BestPage,
    "ranking": RankingPage,
    "rating": RatingPage,
    "demonstration": DemonstrationPage,
}


def page_of(kind: str, purpose: str, settings: LabelingSettings) -> Page:
    """The page of a kind of comparison in a project that is made with ``settings``; A/B judgments have their own.

    Raises :class:`~rlhf_dagster.records.answers.UnreadableError` for a kind that does not exist.
    """
    page = AbPage if is_ab(kind, purpose) else PAGE_OF_KIND[kind_named(kind).name]
    return page(settings)
