"""Inputs that are nearly right: edits of seeds, in bytes or in the values of a JSON document, and cuts into pieces."""

import copy
import json
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["9" * 5000, "x" * 3000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def edited(draw: st.DrawFn, seeds: list[bytes], words: tuple[bytes, ...] = ()) -> bytes:
    """One of the seeds with a few places cut out, doubled, or filled with noise or one of the words."""
    data = draw(st.sampled_from(seeds))
    noise = st.one_of(st.binary(max_size=6), st.sampled_from([b"", b"\0", b"\xff", b"9" * 5000, *words]))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 0, 1, 2, 8, 64])))
        data = data[:start] + draw(st.one_of(noise, st.just(data[start:end] * 2))) + data[end:]
    return data


@st.composite
def revalued(draw: st.DrawFn, seeds: list[Any]) -> bytes:
    """One of the documents with a few values replaced by others, of any kind and anywhere, or taken away."""
    document = copy.deepcopy(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 3))):
        at = document
        while isinstance(at, dict | list) and at:
            key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
            if isinstance(at[key], dict | list) and at[key] and draw(st.booleans()):
                at = at[key]
                continue
            if draw(st.integers(0, 5)):
                at[key] = draw(JSON)
            else:
                del at[key]
            break
    return json.dumps(document).encode()


@st.composite
def in_pieces(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> list[bytes]:
    """The bytes as a network brings them."""
    data = draw(whole)
    ends = [0, *sorted(draw(st.lists(st.integers(0, len(data)), max_size=5))), len(data)]
    return [piece for start, end in pairwise(ends) if (piece := data[start:end])]
