"""JSON text of many small values."""

import json
from collections.abc import Callable
from typing import Any


def json_encoding(
    *,
    sort_keys: bool = False,
    compact: bool = False,
    ascii_only: bool = False,
    default: Callable[[Any], Any] | None = None,
) -> Callable[[Any], str]:
    """``json.dumps`` with these options: ``compact`` leaves out the blanks, ``default`` is for what JSON does not have.

    ``json.JSONEncoder.encode`` makes its encoder in C anew at each call, which takes longer than to encode a few
    texts; here it is made once. A value that holds itself raises RecursionError.
    """
    encoder = json.JSONEncoder(
        sort_keys=sort_keys, ensure_ascii=ascii_only, separators=(",", ":") if compact else None, default=default
    )
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without it
        return encoder.encode
    text = json.encoder.encode_basestring_ascii if ascii_only else json.encoder.encode_basestring
    separators = encoder.key_separator, encoder.item_separator
    chunks = make(None, encoder.default, text, None, *separators, sort_keys, encoder.skipkeys, encoder.allow_nan)
    return lambda value: "".join(chunks(value, 0))
