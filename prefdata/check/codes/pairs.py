"""PD3..: whether a pair prefers one answer to another, and whether it is the right one."""

from prefdata.check.code import Check

PAIRS = (
    Check(
        "PD301",
        "same_completion",
        "E",
        "row",
        "checking",
        "Chosen and rejected are equal but for spaces and Unicode forms.",
        "Remove the row: it prefers nothing.",
        '{"prompt": "q", "chosen": "a b", "rejected": "a  b"}',
    ),
    Check(
        "PD302",
        "near_completion",
        "W",
        "row",
        "checking",
        "Chosen and rejected are nearly the same text: 2 × common characters in order / all "
        "characters is at least `checks.min_similarity` (0.95).",
        "Look whether the difference is what you want to teach; DPO lowers both log-probs where "
        "sides are this close (arXiv 2402.13228).",
        '"The answer is 12, as shown above." and "The answer is 13, as shown above."',
    ),
    Check(
        "PD303",
        "tie",
        "E",
        "row",
        "reading",
        "The two completions rank the same, so neither is preferred.",
        "Nothing to mend; another pairing strategy may find pairs in the same row.",
        '{"completions": [{"text": "a", "rank": 1}, {"text": "b", "rank": 1}]}',
    ),
    Check(
        "PD304",
        "score_against_label",
        "E",
        "row",
        "checking",
        "The rejected side has the higher score, or the margin is negative: scores and label "
        "contradict each other.",
        "Find out which is right; where low is best, say so in the layout, or name no scores.",
        '{"score_chosen": 3, "score_rejected": 8}',
    ),
    Check(
        "PD305",
        "score_out_of_range",
        "E",
        "row",
        "checking",
        "A score lies outside of the range that the config declares in `checks.score_range`.",
        "Mend the score, or widen the range.",
        "checks: {score_range: [1, 10]} and a score of 55",
    ),
    Check(
        "PD306",
        "score_against_aspects",
        "W",
        "row",
        "checking",
        "The overall score is far above the mean of the row's aspects (more than twice it plus "
        "one; aspects go from 1 to 5, scores from 1 to 10): a 10 may be a misread 1, as in 2,628 "
        "completions of UltraFeedback.",
        "Order such rows by the mean of their aspects.",
        "an overall score of 10 and aspects 1, 2, 1 and 1",
    ),
    Check(
        "PD307",
        "rank_against_label",
        "E",
        "row",
        "checking",
        "The chosen side ranks behind the rejected one (1 is best). A layout must say which end "
        "of a rank is best; one whose ends are swapped turns every pair round.",
        "Set `rank: {best: low}` or `high` in the layout.",
        '{"chosen_rank": 4, "rejected_rank": 1}',
    ),
    Check(
        "PD308",
        "small_margin",
        "I",
        "row",
        "checking",
        "The score of chosen is less than `checks.min_margin` above that of rejected.",
        "Raise the code to E to leave such pairs out: they are the ones that raters disagree on.",
        "checks: {min_margin: 1} and scores of 7.5 and 7",
    ),
    Check(
        "PD309",
        "chosen_refuses",
        "W",
        "row",
        "checking",
        "The chosen side begins as a refusal and the rejected one does not. (The profile counts "
        "both directions.)",
        "Nothing to mend in sets about harmlessness; elsewhere, such pairs teach to refuse.",
        "\"I'm sorry, but I can't help with that.\" preferred to an answer",
    ),
    Check(
        "PD310",
        "extreme_length",
        "W",
        "row",
        "checking",
        "A text is longer than `checks.max_chars`, or the longer side is more than "
        "`checks.max_length_ratio` times as long as the other and has over 1,000 characters.",
        "Look whether the long one is an answer at all; a tokenizer's max_length drops it anyway.",
        "chosen has 9 characters, rejected 4,000",
    ),
    Check(
        "PD311",
        "cut_completion",
        "I",
        "row",
        "checking",
        "A completion of more than 200 characters ends in the middle: with a letter, a digit or "
        "a comma, or inside of a code block.",
        "Raise the number of new tokens of what generated it; cut ends teach not to stop.",
        "... and the third reason is that the",
    ),
    Check(
        "PD312",
        "other_language",
        "I",
        "row",
        "checking",
        "A completion is written in another script or language than the prompt's last turn or "
        "the other completion (best effort: scripts, and stop words of nine languages).",
        "Look whether the answer's language is what the row is about.",
        "a question in French and an answer in English",
    ),
    Check(
        "PD313",
        "degenerate_repetition",
        "W",
        "row",
        "checking",
        "More than half of a completion is the same few words again and again (repeated 10-grams, "
        "as in the Gopher rules, arXiv 2112.11446, table A1).",
        "Leave the row out where it is chosen; as rejected it does little harm.",
        "I do not know. I do not know. I do not know. I do not know. ...",
    ),
)
