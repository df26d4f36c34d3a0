"""Language of a text: by its script, or by a vote of stop words if the script is Latin.

Best effort, for a count in a report: short texts and most languages are not recognized.
"""

import re
from collections import Counter

import polars as pl

SAMPLE_CHARS = 300
MIN_VOTES = 2
# Letters of each script. Kana come before Han, since Japanese has both.
SCRIPTS = {
    "ja": re.compile("[\u3040-\u30ff]"),
    "ko": re.compile("[\uac00-\ud7af]"),
    "zh": re.compile("[\u3400-\u4dbf\u4e00-\u9fff]"),
    "cyrillic": re.compile("[\u0400-\u04ff]"),
    "arabic": re.compile("[\u0600-\u06ff]"),
    "hebrew": re.compile("[\u0590-\u05ff]"),
    "devanagari": re.compile("[\u0900-\u097f]"),
    "thai": re.compile("[\u0e00-\u0e7f]"),
    "greek": re.compile("[\u0370-\u03ff]"),
}
SCRIPT_SHARE = 0.2  # of the sample's characters; names and quotations stay below
_STOP_WORDS = {
    "en": "the and you of that this is are what how with for not have it to can your do does i "
    "would was",
    "fr": "le la les des est et une dans que pour pas vous qui sur avec ce je il sont du comment "
    "quelle quel",
    "de": "der die das und ist nicht ein eine mit sie ich für auf den zu wie was sind wir kann "
    "auch bitte",
    "es": "el los las una que es en por con para como pero del se su cuál qué está cómo puedo "
    "muy más",
    "pt": "os uma que não para com como mas do da em por você são é mais seu qual isso eu ao pode",
    "it": "il gli una che non per con come ma della di sono è più anche questo quale cosa nel "
    "può le",
    "nl": "de het een en van ik niet zijn op te dat voor met wat hoe je ook maar kan naar",
    "pl": "nie się jest na że do jak co to ale dla czy jestem który być może przez",
    "id": "yang dan di untuk dengan ini itu adalah tidak dari saya apa bagaimana pada akan",
}
_WORD = re.compile(r"[^\W\d_]+")
_LANGUAGES_OF: dict[str, list[str]] = {}
for _name, _words in _STOP_WORDS.items():
    for _word in set(_words.split()):
        _LANGUAGES_OF.setdefault(_word, []).append(_name)
# One of these is enough for English, so that most texts of most sets need no vote.
_ENGLISH = [
    *(" the ", " and ", " you ", " that ", " what ", "What ", " this ", "I'm ", " have ", " with "),
    *(" your", " can ", " are ", "How ", "Why ", " my ", " for ", " from ", " there", "That"),
    *("n't", "n’t", " they", " would ", " about ", "I’m ", " some", " like ", "The ", "You "),
    *("It ", "It's", "It’s", " want ", " think ", " need ", " should ", " could ", " how "),
    *(" just ", " know ", " really ", " people ", " because ", " which ", " where ", " when "),
]
_FOREIGN_BYTES = 0.1  # at most, per character, in such a text: quotes, dashes
KNOWN = ("en", *(name for name in _STOP_WORDS if name != "en"), *SCRIPTS)


def languages(texts: pl.Series) -> pl.Series:
    """Return the language or script of each text; empty if it is unknown."""
    texts = texts.str.head(SAMPLE_CHARS)
    length = texts.str.len_chars()
    latin = (texts.str.len_bytes() - length) <= _FOREIGN_BYTES * length
    is_english = latin & texts.str.contains_any(_ENGLISH)
    known = pl.Series("language", ["", "en"]).gather(is_english.cast(pl.UInt32))
    one_word = latin & ~texts.str.contains(" ", literal=True)  # has one vote at most
    rest = (~(is_english | one_word)).arg_true()
    return known.scatter(rest, [language_of(text) for text in texts.gather(rest)])


def language_of(text: str) -> str:
    """Return the language or script of one text; empty if it is unknown.

    >>> [language_of(text) for text in ("Comment est-ce que je peux le faire ?", "你好吗", "ok")]
    ['fr', 'zh', '']
    """
    enough = SCRIPT_SHARE * len(text)
    if not text.isascii() and len(text.encode()) - len(text) > enough:
        for script, letters in SCRIPTS.items():
            if len(letters.findall(text)) > enough:
                return script
    words = set(_WORD.findall(text.lower()))
    votes = Counter(name for word in words for name in _LANGUAGES_OF.get(word, ()))
    most = max(votes.values(), default=0)
    winners = [name for name, count in votes.items() if count == most]
    return winners[0] if most >= MIN_VOTES and len(winners) == 1 else ""
