r"""Common prefix of two texts, up to the end of a line, a turn or a marker.

    "Q: What color is the sky?\nA: It is blue."
    "Q: What color is the sky?\nA: It is green."

share "Q: What color is the sky?\nA:". Their common words end later, at "A: It is", but "It is"
begins both answers and is not a part of the prompt.
"""

import re
from os.path import commonprefix

CONTROL = r"<\|[^|<>\n]{1,40}\|>|</?(?:s|bos|eos|start_of_turn|end_of_turn)>|\[/?[A-Z_]{2,20}\]"
ROLE = r"(?:(?:system|user|assistant|model|tool|bot|gpt)\b)?"  # as in <|im_start|>assistant
LABEL = r"(?:^|(?<=\n))[#* ]{0,5}(?:[\w.-]{1,20} ?){1,3}:(?=[ \t\n*]|$)"  # opens a line: "Bob:"
KNOWN = r"(?<!\S)(?:Assistant|Answer|Response|Output|Completion|Summary|TL;DR|AI|Bot|A):"
TURN = re.compile(rf"(?:(?:{CONTROL}){ROLE}|{LABEL}|{KNOWN})\n*")
LINE = re.compile(r"\n+")


def shared_beginning(first: str, second: str) -> int:
    r"""Return the length of the common prefix up to the last line, turn or marker, or 0.

    >>> shared_beginning("Q: a\nA: It is b", "Q: a\nA: It is c")
    7
    >>> shared_beginning("The sky is blue", "The sky is black")
    0
    """
    common = commonprefix([first, second])  # noqa: RUF071 - characters are meant
    for ends in (TURN, LINE):  # lines after the last turn's marker belong to the answers
        places = [one for one in ends.finditer(common) if common[: one.start()].strip()]
        if places:
            return places[-1].end()
    return 0
