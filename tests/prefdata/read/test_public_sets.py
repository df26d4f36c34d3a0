"""Public sets, by hand: `validate` names the layout, lists unread columns, shows the first pair.

The columns are those of the sets' cards on huggingface.co, written down from memory without the
cards being open; the values are invented.
"""

from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from click.testing import CliRunner

import prefdata
from prefdata.cli import main

Q, A, B = "How high is Mont Blanc?", "It is 4,806 metres high, in France.", "No idea at all, sorry."
ASK = {"role": "user", "content": Q}
GOOD = [ASK, {"role": "assistant", "content": A}]
BAD = [ASK, {"role": "assistant", "content": B}]


def hh(answer: str) -> str:
    return f"\n\nHuman: {Q}\n\nAssistant: {answer}"


class Public(NamedTuple):
    """Rows of a public set, the layout that reads them, and the columns that it leaves."""

    layout: str
    rows: list[dict[str, Any]]
    unread: tuple[str, ...] = ()


def ratings(helpful: int) -> dict[str, int]:
    return {"helpfulness": helpful, "correctness": 3, "coherence": 4, "complexity": 1,
            "verbosity": 2}  # fmt: skip


TEXT = {
    "Intel/orca_dpo_pairs": Public(
        "orca-dpo-pairs", [{"system": "Be brief.", "question": Q, "chosen": A, "rejected": B}]
    ),
    "jondurbin/truthy-dpo-v0.1": Public(
        "axolotl-prompt-pairs",
        [{"id": "a1", "source": "truthy_dpo", "system": "Be brief.", "prompt": Q, "chosen": A,
          "rejected": B}], ("id", "source"),
    ),
    "lvwerra/stack-exchange-paired": Public(
        "stack-exchange-paired",
        [{"qid": 7, "question": Q, "date": "2012/01/01", "metadata": ["https://math.example"],
          "response_j": A, "response_k": B}], ("qid", "date", "metadata"),
    ),
}  # fmt: skip
TRANSCRIPTS = {
    "Anthropic/hh-rlhf": Public("hh", [{"chosen": hh(A), "rejected": hh(B)}]),
    "Dahoas/static-hh, its whole dialogues": Public(
        "hh", [{"chosen": hh(A), "rejected": hh(B)}, {"chosen": hh(A + "!"), "rejected": hh(B)}]
    ),
    "berkeley-nest/Nectar": Public(
        "nectar",
        [{"prompt": hh(""), "answers": [
            {"answer": A, "model": "gpt-4", "rank": 1.0},
            {"answer": B, "model": "llama-2-7b-chat", "rank": 2.0}],
          "turns": 1, "num_responses": 2, "source": ["lmsys-chat-1m"], "good_natured": True}],
        ("turns", "num_responses", "source", "good_natured"),
    ),
}  # fmt: skip
DIALOGUES = {
    "HuggingFaceH4/ultrafeedback_binarized": Public(
        "ultrafeedback-binarized",
        [{"prompt": Q, "prompt_id": "f0", "chosen": GOOD, "rejected": BAD, "messages": GOOD,
          "score_chosen": 8.5, "score_rejected": 4.0}], ("prompt_id", "messages"),
    ),
    "argilla/distilabel-capybara-dpo-7k-binarized": Public(
        "argilla-capybara",
        [{"source": "Dove", "conversation": [{"input": Q, "output": A}],
          "original_response": A, "generation_prompt": ["x"], "raw_generation_responses": [A],
          "new_generations": [B], "prompt": "rate them", "chosen": GOOD, "rejected": BAD,
          "rating_chosen": 5, "rating_rejected": 2, "chosen_model": "m1", "rejected_model": "m2"}],
        ("source", "conversation", "original_response", "generation_prompt",
         "raw_generation_responses", "new_generations", "prompt"),
    ),
    "Skywork/Skywork-Reward-Preference-80K-v0.2": Public(
        "skywork", [{"chosen": GOOD, "rejected": BAD, "source": "magpie_ultra"}]
    ),
    "allenai/llama-3.1-tulu-3-8b-preference-mixture": Public(
        "tulu-3",
        [{"id": "x1", "source": "ultrafeedback", "prompt": Q, "chosen": GOOD, "rejected": BAD}],
    ),
}  # fmt: skip
JUDGED = {
    "stanfordnlp/SHP": Public(
        "shp",
        [{"post_id": "p", "domain": "askhr_train", "upvote_ratio": 0.9, "history": Q,
          "c_root_id_A": "a", "c_root_id_B": "b", "created_at_utc_A": 1, "created_at_utc_B": 2,
          "score_A": 9, "score_B": 3, "human_ref_A": A, "human_ref_B": B, "labels": 1,
          "seconds_difference": 1.0, "score_ratio": 3.0}],
        ("post_id", "domain", "upvote_ratio", "c_root_id_A", "c_root_id_B", "created_at_utc_A",
         "created_at_utc_B", "seconds_difference", "score_ratio"),
    ),
    "PKU-Alignment/PKU-SafeRLHF": Public(
        "pku-saferlhf:better",
        [{"prompt": Q, "response_0": A, "response_1": B, "prompt_source": "x",
          "response_0_source": "m1", "response_1_source": "m2", "is_response_0_safe": True,
          "is_response_1_safe": True, "better_response_id": 0, "safer_response_id": 0,
          "response_0_severity_level": 0, "response_1_severity_level": 0}],
    ),
    "nvidia/HelpSteer3, preference": Public(
        "helpsteer3-preference",
        [{"domain": "general", "language": "english", "context": [ASK], "response1": A,
          "response2": B, "overall_preference": -2,
          "individual_preference": [{"score": -2, "reasoning": "r", "feedback1": "f",
                                     "feedback2": "g"}]}],
    ),
}  # fmt: skip
RATED = {
    "openbmb/UltraFeedback": Public(
        "ultrafeedback:aspects",
        [{"source": "evol_instruct", "instruction": Q, "models": ["m1", "m2"],
          "completions": [
              {"model": model, "principle": "helpfulness", "custom_system_prompt": "Help.",
               "response": text, "critique": "c", "overall_score": score,
               "fine-grained_score": float(score) / 2,
               "annotations": {name: {"Rating": str(score // 2), "Rationale": "r"} for name in (
                   "instruction_following", "honesty", "truthfulness", "helpfulness")}}
              for model, text, score in (("m1", A, 8), ("m2", B, 4))],
          "correct_answers": ["None"], "incorrect_answers": ["None"]}],
    ),
    "nvidia/HelpSteer2": Public(
        "helpsteer2-ratings:helpfulness",
        [{"prompt": Q, "response": A, **ratings(4)}, {"prompt": Q, "response": B, **ratings(1)}],
    ),
    "openai/webgpt_comparisons": Public(
        "webgpt",
        [{"question": {"dataset": "eli5", "id": "x", "full_text": Q},
          "quotes_0": {"title": ["t"], "extract": ["e"]}, "answer_0": A,
          "tokens_0": {"prefix": [1], "completion": [2]}, "score_0": 0.5,
          "quotes_1": {"title": [], "extract": []}, "answer_1": B,
          "tokens_1": {"prefix": [1], "completion": [3]}, "score_1": -0.5}],
    ),
}  # fmt: skip
UNPAIRED = {
    "trl-lib/kto-mix-14k": Public(
        "trl-unpaired-conv",
        [{"prompt": [ASK], "completion": GOOD[1:], "label": True},
         {"prompt": [ASK], "completion": BAD[1:], "label": False}],
    ),
    "argilla/ultrafeedback-binarized-preferences-cleaned-kto": Public(
        "argilla-uf-kto",
        [{"prompt": Q, "completion": text, "label": good, "model": "m", "average_rating": rating,
          "annotations": {"helpfulness": {"Rating": "4"}}}
         for text, good, rating in ((A, True, 4.5), (B, False, 2.0))],
    ),
    "OpenAssistant/oasst1": Public(
        "oasst-flat",
        [{"message_id": one, "parent_id": above, "user_id": "u", "created_date": "2023-02-05",
          "text": text, "role": role, "lang": "en", "review_count": 3, "review_result": True,
          "deleted": False, "rank": rank, "synthetic": False, "model_name": None,
          "message_tree_id": "t", "tree_state": "ready_for_export"}
         for one, above, role, text, rank in (
             ("m0", None, "prompter", Q, None), ("m1", "m0", "assistant", A, 0),
             ("m2", "m0", "assistant", B, 1))],
    ),
}  # fmt: skip
FAMILIES = (TEXT, TRANSCRIPTS, DIALOGUES, JUDGED, RATED, UNPAIRED)
SETS = {name: one for family in FAMILIES for name, one in family.items()}


@pytest.mark.parametrize("name", SETS)
def test_a_public_set_is_validated_by_its_rows_alone(name: str, tmp_path: Path) -> None:
    one = SETS[name]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in one.rows))
    words = ["validate", str(path), "--fail-on", "never"]
    if name == "PKU-Alignment/PKU-SafeRLHF":  # two dimensions: the user chooses
        asked = CliRunner().invoke(main, words)
        assert "--layout pku-saferlhf:better or pku-saferlhf:safer" in asked.output
        words += ["--layout", one.layout]
    done = CliRunner().invoke(main, words, env={"COLUMNS": "200"})
    (seal,) = prefdata.validate(
        str(path), prefdata.ValidateOptions(layout=one.layout if ":b" in one.layout else None)
    ).inputs

    assert done.exit_code == 0, done.output
    assert seal.layout == one.layout
    assert one.layout in done.output
    unread = [column.name for column in seal.reading.not_read]
    assert set(one.unread) <= set(unread)
    assert all(column in done.output for column in unread)
    shown = done.output[done.output.index("First pair,") :].splitlines()
    assert Q in shown[1]
    assert A in shown[2]
    assert B in shown[3]


def test_each_family_has_three_sets() -> None:
    assert all(len(family) >= 3 for family in FAMILIES)
