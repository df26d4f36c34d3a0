"""Which language a text is probably in: its script, and a vote of stop words where it is Latin.

Best effort, for a count in a report: short texts have none, and so have most languages.
"""

import re
from collections.abc import Iterable

import polars as pl

SAMPLE_CHARS = 400
MIN_VOTES = 2
# By letters of a script: (name, class). Kana before Han, since Japanese has both.
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
    "pt": "os uma que não para com como mas do da em por você são é mais seu qual isso eu ao "
    "pode",
    "it": "il gli una che non per con come ma della di sono è più anche questo quale cosa nel "
    "può le",
    "nl": "de het een en van ik niet zijn op te dat voor met wat hoe je ook maar kan naar",
    "pl": "nie się jest na że do jak co to ale dla czy jestem który być może przez",
    "id": "yang dan di untuk dengan ini itu adalah tidak dari saya apa bagaimana pada akan",
}
STOP_WORDS = {name: frozenset(words.split()) for name, words in _STOP_WORDS.items()}
_WORD = re.compile(r"[^\W\d_]+")
# One of these is enough for English, and saves the vote for most texts of most sets.
_ENGLISH = [" the ", " and ", " you ", " that ", " what ", "What ", " this ", "I'm "]


def languages(texts: pl.Series) -> pl.Series:
    """The language or script of each text; empty where it cannot be told."""
    is_ascii = texts.str.len_bytes() == texts.str.len_chars()
    is_english = is_ascii & texts.str.contains_any(_ENGLISH)
    rest = texts.filter(~is_english)
    known = pl.Series("language", is_english).replace_strict(True, "en", default="")
    if not len(rest):
        return known
    places = (~is_english).arg_true()
    return known.scatter(places, list(_vote(rest)))


def _vote(texts: Iterable[str]) -> Iterable[str]:
    return (language_of(text[:SAMPLE_CHARS]) for text in texts)


def language_of(text: str) -> str:
    """The language or script of one text.

    >>> language_of("Comment est-ce que je peux le faire ?"), language_of("你好吗"), language_of("ok")
    ('fr', 'zh', '')
    """
    if not text.isascii():
        for script, letters in SCRIPTS.items():
            if len(letters.findall(text)) > SCRIPT_SHARE * len(text):
                return script
    words = set(_WORD.findall(text.lower()))
    votes = sorted(((len(words & stop), name) for name, stop in STOP_WORDS.items()), reverse=True)
    (most, winner), (second, _) = votes[0], votes[1]
    return winner if most >= MIN_VOTES and most > second else ""
