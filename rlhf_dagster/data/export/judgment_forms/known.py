"""All forms in which judgments go out."""

from rlhf_dagster.data.export.judgment_forms.base import OutgoingForm
from rlhf_dagster.data.export.judgment_forms.label_studio import LABEL_STUDIO
from rlhf_dagster.data.export.judgment_forms.own import OWN, PAIR_ROWS
from rlhf_dagster.data.export.judgment_forms.pairs import PAIR_FORMS

OUTGOING_FORMS: dict[str, OutgoingForm] = {form.name: form for form in (OWN, PAIR_ROWS, *PAIR_FORMS, LABEL_STUDIO)}
"""By name, as `--form` takes it."""
