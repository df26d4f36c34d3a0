"""Difference of two texts: nothing is lost, equal runs are equal, noise is not a match."""

from hypothesis import given
from hypothesis import strategies as st

from prefdata.report.diff import Span, compare

WORDS = st.lists(st.sampled_from(["a", "b", "the", "cat", " ", "\n", ".", "é"]), max_size=40)
TEXTS = st.one_of(st.text(max_size=80), WORDS.map(" ".join))


def whole(spans: list[Span]) -> str:
    return "".join(span.text for span in spans)


def equal_runs(spans: list[Span]) -> str:
    return "".join(span.text for span in spans if not span.differs)


@given(TEXTS, TEXTS)
def test_the_spans_of_a_text_are_the_text_and_equal_runs_are_equal(left: str, right: str) -> None:
    found = compare(left, right)

    assert (whole(found.left), whole(found.right)) == (left, right)
    assert equal_runs(found.left) == equal_runs(found.right)
    assert 0 <= found.shared <= 1


@given(TEXTS)
def test_a_text_does_not_differ_from_itself(text: str) -> None:
    found = compare(text, text)

    assert not any(span.differs for span in found.left + found.right)
    assert found.shared == 1


def test_one_changed_word_is_the_difference() -> None:
    found = compare("Water it when the soil is dry.", "Water it when the soil is wet.")

    assert [span.text for span in found.left if span.differs] == ["dry"]
    assert [span.text for span in found.right if span.differs] == ["wet"]


def test_a_word_between_different_words_is_not_a_match() -> None:
    found = compare("cats like the warm sun", "most dogs eat the red meat")

    assert all(span.differs for span in found.left + found.right)
    assert found.shared == 0


def test_a_shared_sentence_is_found_between_differences() -> None:
    found = compare(
        "Yes indeed. It boils at one hundred degrees here.",
        "No, never! It boils at one hundred degrees there.",
    )

    assert "It boils at one hundred degrees" in equal_runs(found.left)


def test_texts_too_long_to_compare_share_only_their_ends() -> None:
    middle = [" ".join(f"{side}{n % 97}" for n in range(3_000)) for side in "lr"]
    found = compare(f"The same start {middle[0]} same end", f"The same start {middle[1]} same end")

    assert equal_runs(found.left) == "The same start  same end"
