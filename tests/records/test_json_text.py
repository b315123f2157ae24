import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.records.json_text import json_encoding

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(VALUES, st.booleans(), st.booleans(), st.booleans())
def test_a_value_is_encoded_as_by_json(value, sort_keys: bool, compact: bool, ascii_only: bool) -> None:
    encode = json_encoding(sort_keys=sort_keys, compact=compact, ascii_only=ascii_only)
    separators = (",", ":") if compact else None
    assert encode(value) == json.dumps(value, sort_keys=sort_keys, ensure_ascii=ascii_only, separators=separators)


def test_what_json_does_not_have_is_made_by_the_default_or_refused() -> None:
    assert json_encoding(default=sorted)({"a": {3, 1}}) == '{"a": [1, 3]}'
    with pytest.raises(TypeError, match="not JSON serializable"):
        json_encoding()({1, 2})
