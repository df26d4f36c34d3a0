"""Pairs that break each code of rows, and pairs that nearly do."""

from typing import Any

GOOD = {"prompt": "q", "chosen": "a", "rejected": "b"}
LIGHT = {"type": "function", "function": {"name": "light", "arguments": {"room": "x"}}}
TOOLS = [{"type": "function", "function": {"name": "light"}}]
VERBATIM = {"prefdata_form": "text"}
LONG = (
    "The river runs through the old town, past the mill and under two bridges. In spring it "
    "carries ice from the hills, and the children count the floes from the market square until "
    "the bell calls them home. Nobody has ever counted them all. "
)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text} | more


def calling(call: Any) -> dict[str, Any]:
    return GOOD | {"chosen": [assistant("", tool_calls=[call])], "tools": TOOLS}


BROKEN: dict[str, list[dict[str, Any]]] = {
    "PD106": [
        {"chosen": "a caf\ufffd"},
        {"prompt": "It\u00e2\u20ac\u2122s"},
        {"rejected": "caf\u00c3\u00a9"},
        {"chosen": "a\x07b"},
        {"chosen": "x\ufeffy"},
    ],
    "PD107": [
        {"chosen": "It depends.\n\nHuman"},
        {"prompt": "q\n\nAssistants are nice"},
        {"chosen": "Hum: what"},
    ],
    "PD201": [{"prompt": " \n"}, {"prompt": []}, {"prompt": [user(""), user("\u3000")]}],
    "PD202": [{"chosen": ""}, {"rejected": " \t\n"}, {"chosen": []}, {"rejected": []}],
    "PD203": [
        {"chosen": [user("a")]},
        {"rejected": [assistant("b"), user("c")]},
        {"rejected": [{"role": "tool", "name": "x", "content": "b"}]},
    ],
    "PD204": [
        {"prompt": [{"role": "narrator", "content": "Once"}]},
        {"chosen": [{"role": "Assistant", "content": "a"}]},
    ],
    "PD205": [
        {"prompt": [user("q"), user("p")]},
        {"prompt": [user("q"), assistant("a")]},
        {"chosen": [assistant("a"), assistant("b")]},
    ],
    "PD206": [
        {"prompt": [user("q"), system("s"), user("p")]},
        {"prompt": [system("s"), system("t"), user("q")]},
    ],
    "PD208": [{"chosen": [assistant("a"), user("q"), assistant("b")]}],
    "PD209": [{"chosen": "No.  Human: why"}, {"rejected": "Assistant: yes"}],
    "PD210": [{"prompt": "see <|stop|>"}, {"chosen": "<|stop|>"}, {"rejected": "x<|stop|>y"}],
    "PD211": [
        calling({"type": "function", "function": {"name": "light", "arguments": "{"}}),
        calling({"type": "function", "function": {"name": "light", "arguments": "[1]"}}),
        calling({"type": "function", "function": {"arguments": {}}}),
        calling("light"),
        calling(LIGHT) | {"tools": None},
        {"prompt": [user("q"), {"role": "tool", "content": "on"}]},
    ],
    "PD214": [
        VERBATIM | {"prompt": "Think step by step.", "chosen": "Subtract 6.", "rejected": " No."},
        VERBATIM | {"prompt": "Answer:", "chosen": " yes", "rejected": "no"},
    ],
    "PD212": [{"prompt": "<image>\nWhat is this?"}, {"prompt": '[{"type": "image_url"}] what'}],
    "PD213": [
        {"prompt": "<|im_start|>user\nq<|im_end|>"},
        {"chosen": "<start_of_turn>model\na"},
        {"prompt": "<|start_header_id|>user<|end_header_id|>\n\nq"},
        {"prompt": "<s>[INST] q [/INST]"},
    ],
    "PD301": [
        {"rejected": "a"},
        {"chosen": "a  b", "rejected": " a\nb "},
        {"chosen": "caf\u00e9, or. so", "rejected": "cafe\u0301, or.  so"},
    ],
    "PD302": [{"chosen": f"{LONG}12", "rejected": f"{LONG}13"}],
    "PD304": [{"score_chosen": 3.0, "score_rejected": 8.0}, {"margin": -0.5}],
    "PD305": [{"score_chosen": 55.0, "score_rejected": 2.0}],
    "PD306": [{"score_chosen": 10.0, "meta": '{"chosen_aspects":{"helpfulness":1,"truth":2}}'}],
    "PD307": [{"chosen_rank": 4, "rejected_rank": 1}],
    "PD308": [{"score_chosen": 7.5, "score_rejected": 7.0}, {"margin": 0.25}],
    "PD309": [
        {"chosen": "I'm sorry, but I can't help with that."},
        {"chosen": "As an AI language model, I have no opinion.", "rejected": "Tea."},
    ],
    "PD310": [{"chosen": "x" * 4000}, {"prompt": "y " * 60_000}],
    "PD311": [{"chosen": LONG + "and the"}, {"chosen": LONG + "```python\nprint(1)."}],
    "PD312": [
        {"prompt": "Comment est-ce que je peux le faire ?", "chosen": "You can do it with this."},
        {"prompt": "What is this?", "chosen": "\u8fd9\u662f\u4e00\u672c\u4e66"},
    ],
    "PD313": [{"chosen": "I do not know. " * 30}, {"rejected": "na" * 100}],
    "PD607": [{"chosen": "Write to jane.doe@corp.org"}, {"prompt": "My key: AKIAQ4J7XW2LZ5TB3NGH"}],
}

FINE: dict[str, list[dict[str, Any]]] = {
    "PD106": [{"chosen": "\u00e9t\u00e9 \u201cyes\u201d\tand\nmore \u00c3o"}],
    "PD107": [{"chosen": "Human beings and assistants are nice: all of them."}],
    "PD201": [{"prompt": [system(""), user("q")]}],
    "PD202": [calling(LIGHT)],
    "PD203": [{"chosen": [assistant("a"), user("and?"), assistant("b")]}],
    "PD204": [{"prompt": [{"role": r, "content": "q"} for r in ("system", "developer", "user")]}],
    "PD205": [
        {"prompt": [user("q"), assistant("a"), user("p")]},
        {
            "prompt": [user("q"), assistant("", tool_calls=[LIGHT, LIGHT])]
            + [{"role": "tool", "tool_call_id": n, "content": "on"} for n in "12"],
            "tools": TOOLS,
        },
    ],
    "PD206": [{"prompt": [system("s"), user("q")]}],
    "PD208": [{"prompt": [user("q"), assistant("a"), user("p")]}],
    "PD209": [{"prompt": "Human: why"}, {"chosen": "A human: that is me."}],
    "PD210": [{"prompt": "see <|stopp|> and   spaces"}],
    "PD211": [
        {
            "prompt": [
                user("q"),
                assistant("", tool_calls=[LIGHT]),
                {"role": "tool", "tool_call_id": "1", "content": "on"},
            ],
            "tools": TOOLS,
        }
    ],
    "PD214": [
        {"prompt": "Think step by step.", "chosen": "Subtract 6."},
        VERBATIM | {"prompt": "The sky is", "chosen": " blue", "rejected": " up"},
        VERBATIM | {"prompt": "Sky:\n", "chosen": "blue", "rejected": "up"},
        VERBATIM | {"prompt": "[INST] Sky? [/INST]", "chosen": "Blue.", "rejected": "Up."},
        VERBATIM | {"prompt": "空は何色？", "chosen": "青", "rejected": "緑"},
    ],
    "PD212": [{"prompt": "Describe an image of a video."}],
    "PD213": [{"prompt": "What does [INST] or <|user|> or im_start mean?"}],
    "PD301": [{"chosen": "a b", "rejected": "ab"}],
    "PD302": [{"chosen": LONG, "rejected": LONG[::-1]}, {"chosen": "12", "rejected": "13"}],
    "PD304": [{"score_chosen": 8.0, "score_rejected": 8.0}, {"score_rejected": 3.0}],
    "PD305": [{"score_chosen": 10.0, "score_rejected": 0.0}],
    "PD306": [{"score_chosen": 9.0, "meta": '{"chosen_aspects":[4,4.5,null]}'}],
    "PD307": [{"chosen_rank": 1, "rejected_rank": 4}, {"chosen_rank": 2}],
    "PD308": [{"score_chosen": 8.0, "score_rejected": 7.0}],
    "PD309": [
        {"chosen": "I can't help.", "rejected": "Sorry, I cannot help."},
        {"chosen": "I can't believe it!"},
        {"rejected": "I won't answer that."},
    ],
    "PD310": [{"chosen": "x" * 900}, {"chosen": "x" * 4000, "rejected": "y" * 300}],
    "PD311": [{"chosen": LONG}, {"chosen": "and the"}, {"chosen": LONG + "```\nx\n```"}],
    "PD312": [{"prompt": "What is this?", "chosen": "It is what you see."}, {"prompt": "ok"}],
    "PD313": [{"chosen": LONG}, {"chosen": "ha ha ha"}],
    "PD607": [{"prompt": "Order 4111111111111112, call 911, see sk-learn and key: value"}],
}
# Limits for codes that find nothing by default.
LIMITS: dict[str, Any] = {"score_range": (0.0, 10.0), "min_margin": 1.0}
