"""JSON read value by value is the same JSON, wherever the text is cut."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comir_batch.io import json_stream
from comir_batch.io.json_stream import JsonStream

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def items(text):
    stream = JsonStream(io.StringIO(text))
    stream.expect("[")
    found = [stream.value() for _ in stream.items("]")]
    stream.end()
    return found


@settings(max_examples=40, deadline=None)
@given(values=st.lists(_VALUES, max_size=5), indent=st.sampled_from([None, 1]), window=st.integers(1, 12))
def test_any_list_in_any_window(values, indent, window):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_READ", window)
        assert items(json.dumps(values, indent=indent)) == values


@pytest.mark.parametrize("text", ["", "[", "[1", "[1,", "[1 2]", "[1] 2", '["a]', "{}", "[nul]"])
def test_what_is_no_list_is_refused(text):
    with pytest.raises(ValueError, match=r"at character \d"):
        items(text)


def test_a_fault_near_the_start_does_not_read_the_whole_file():
    text = io.StringIO("[{]" + " " * 2**23)
    stream = JsonStream(text)
    stream.expect("[")
    with pytest.raises(ValueError, match="at character 2"):
        stream.value()
    assert text.tell() <= 2**21
