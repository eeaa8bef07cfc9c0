"""Segmentation: what a piece is, and that strings and tensors are cut alike."""

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import segmentation

quick = settings(max_examples=60, deadline=None)
# Text that has what the levels tell apart more often than chance would: white space, apostrophes, Han, emoji, marks.
any_text = st.text(
    st.sampled_from(list(" \n\t\r'’.-a1é\u0301\u00a0\u3000\x00\x1c\u2581我々かカ😀\u200d"))
    | st.characters(codec="utf-8")
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I don't know God’s law.", ["I", " don't", " know", " God’s", " law", "."]),
        ("'tis 'em dogs' a''b", ["'", "tis", " '", "em", " dogs", "'", " a", "'", "'", "b"]),
        ("a  b \n\tc ", ["a", " ", " b", " ", "\n", "\t", "c", " "]),
        ("x = (y+1)...", ["x", " =", " (", "y", "+", "1", ")", ".", ".", "."]),
        ("the 我a喜 々〇", ["the", " ", "我", "a", "喜", " ", "々", "〇"]),
        ("한국어 좋다", ["한국어", " 좋다"]),
        ("カタカナと漢字", ["カタカナと", "漢", "字"]),
        ("naïve cafe\u0301 3.14 हिन्दी", ["naïve", " cafe\u0301", " 3", ".", "14", " हिन्दी"]),
        ("a\u00a0b\u3000c", ["a", "\u00a0", "b", "\u3000", "c"]),
        ("ok 😀😀", ["ok", " 😀", "😀"]),
    ],
)
def test_words(text, expected):
    pieces = segmentation.split_words(tf.constant([text])).to_list()[0]
    assert [piece.decode() for piece in pieces] == expected


def test_rows_do_not_touch():
    rows = ["", "a", "'", "b ", "", "", " c", "d'", "e", ""]
    together = segmentation.split_words(tf.constant(rows)).to_list()
    assert together == [segmentation.split_words(tf.constant([row])).to_list()[0] for row in rows]


@quick
@given(st.lists(any_text, max_size=6))
@pytest.mark.parametrize("level", segmentation.SPLITTERS)
def test_strings_are_cut_as_tensors_are(level, texts):
    cut = segmentation.split_strings(level, texts)
    expected = segmentation.SPLITTERS[level](tf.constant(texts, tf.string))
    assert cut.to_list() == expected.to_list()
    assert (cut.dtype, cut.row_splits.dtype) == (expected.dtype, expected.row_splits.dtype)
