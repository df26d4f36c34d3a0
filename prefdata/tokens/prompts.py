"""Encoding of single dialogues, for sampling and scoring, with the renderer of a build."""

from functools import partial

from prefdata.records.secrets import quote
from prefdata.tokens.chat_template import TEMPLATE_FAULTS, Message
from prefdata.tokens.encode import encode_texts
from prefdata.tokens.escape import NO_ID, ControlTokenEscaper
from prefdata.tokens.options import TokenOptions
from prefdata.tokens.template.checks import find_lost
from prefdata.tokens.template.render import Refusal, Renderer
from prefdata.tokens.tokenizer import TokenizerSpec

_SPELLED = Refusal("PD210", "spells a control token of the tokenizer")


class PromptEncoder:
    """Encoder of prompts that gives the same ids as a build with these options."""

    def __init__(self, target: TokenizerSpec, options: TokenOptions) -> None:
        self.target, self.options = target, options
        self._renderer = Renderer(target, options)
        self._escaper = ControlTokenEscaper(target)

    def spells_token(self, prompt: str | list[Message]) -> bool:
        """Return whether a prompt's content spells a control token."""
        return self._escaper.spells(prompt)

    def encode(
        self, prompt: str | list[Message], *, is_answered: bool = False
    ) -> list[int] | Refusal:
        """Return the ids of a dialogue before its answer, or of a verbatim text.

        `is_answered` is for dialogues that end in the answer.
        """
        spells = self.spells_token(prompt)
        if spells and self.options.control_tokens == "reject":
            return _SPELLED
        hides = self.options.control_tokens == "encode" and (spells or self._escaper.hides_all_rows)
        escaper = self._escaper if hides else None
        text = (
            prompt
            if isinstance(prompt, str)
            else self._render(prompt, escaper, is_open=not is_answered)
        )
        if isinstance(text, Refusal):
            return text
        encode = escaper.encode if escaper else partial(encode_texts, self.target.backend)
        rows = encode([text], add_special_tokens=isinstance(prompt, str))
        ids: list[int] = rows.row(0).tolist()
        if NO_ID in ids:
            return Refusal("PD210", "the tokenizer's vocabulary makes its text a control token")
        return ids

    def _render(
        self, prompt: list[Message], escaper: ControlTokenEscaper | None, *, is_open: bool
    ) -> str | Refusal:
        try:
            shown = escaper.hide(prompt) if escaper else prompt
            used = self._renderer.without_empty_system(shown, None)
            text = self._renderer.render(used, None, add_generation_prompt=is_open)
        except TEMPLATE_FAULTS as error:
            return Refusal("PD711", quote(" ".join(str(error).split()), 200))
        text = escaper.rename(text) if escaper else text
        lost = find_lost(text, prompt[len(prompt) - len(used) :], self._renderer)
        return Refusal("PD707", lost) if lost else text
