"""Preview of what the model will see: how texts are read, and one rendered pair."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial

import pyarrow as pa

from prefdata.read.texts import TextMode, TextRule
from prefdata.tokens.options import TokenOptions
from prefdata.tokens.template.probe import Probe
from prefdata.tokens.template.render import Refusal, Renderer, read_pairs
from prefdata.tokens.tokenizer import TokenizerSpec

_SHOWN_TOKENS = 60  # at either end of a part


def text_rule(mode: TextMode, target: TokenizerSpec, options: TokenOptions) -> TextRule:
    """Return the rule for reading plain text for a tokenizer."""
    return TextRule(
        mode,
        has_template=bool(target.templates),
        controls=target.control_tokens,
        preview=partial(preview_chat, target=target, options=options),
    )


def trial_of(target: TokenizerSpec, options: TokenOptions) -> AbstractContextManager[Probe | None]:
    """Start the trial of a tokenizer's templates; the context is None if it has none."""
    if not target.templates:
        return nullcontext()
    variables = {**target.special_tokens, **options.chat_template_kwargs}
    return Probe(target.templates, variables, options.template_date)


def preview_chat(records: pa.Table, target: TokenizerSpec, options: TokenOptions) -> str:
    """Return the first record's prompt and chosen completion as the chat template renders them."""
    texts = Renderer(target, options).chat(read_pairs(records.slice(0, 1))[0])
    return texts.message if isinstance(texts, Refusal) else texts.chosen


def show_ids(target: TokenizerSpec, ids: list[int]) -> str:
    """Return the text of token ids with control tokens; omit the middle of a long text."""
    if len(ids) > 2 * _SHOWN_TOKENS:
        ends = ids[:_SHOWN_TOKENS], ids[-_SHOWN_TOKENS:]
        return " … ".join(target.backend.decode(end, skip_special_tokens=False) for end in ends)
    return target.backend.decode(ids, skip_special_tokens=False)
