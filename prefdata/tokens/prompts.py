"""Encoding of prompts without answers, for sampling, with the renderer of a build."""

from typing import Any

from prefdata.tokens.chat_template import TEMPLATE_FAULTS, Message
from prefdata.tokens.encode import encode_texts
from prefdata.tokens.escape import NO_ID, EscapingRenderer, disguise_of
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
        self._disguise = disguise_of(target)

    def spells_token(self, prompt: str | list[Message]) -> bool:
        """Return whether a prompt's content spells a control token."""
        return self._disguise is not None and self._disguise.spells(prompt)

    def encode(self, prompt: str | list[Message]) -> list[int] | Refusal:
        """Return the ids of a dialogue before its answer, or of a verbatim text."""
        spells = self.spells_token(prompt)
        if spells and self.options.control_tokens == "reject":
            return _SPELLED
        hides = self.options.control_tokens == "encode" and (
            spells or (self._disguise is not None and self._disguise.hides_all_rows)
        )
        hidden = self._disguise if hides else None
        is_text = isinstance(prompt, str)
        text = prompt if isinstance(prompt, str) else self._render(prompt, hides=hides)
        if isinstance(text, Refusal):
            return text
        if hidden is None:
            rows = encode_texts(self.target.backend, [text], add_special_tokens=is_text)
        else:
            rows = hidden.encode([text], add_special_tokens=is_text)
        ids: list[int] = rows.row(0).tolist()
        if NO_ID in ids:
            return Refusal("PD210", "the tokenizer's vocabulary makes its text a control token")
        return ids

    def _render(self, prompt: list[Message], *, hides: bool) -> str | Refusal:
        way: Any = self._renderer
        if hides and self._disguise is not None:
            way = EscapingRenderer(self._renderer, self._disguise)
        try:
            used = way.without_empty_system(prompt, None)
            text: str = way.render(used, None, add_generation_prompt=True)
        except TEMPLATE_FAULTS as error:
            return Refusal("PD711", " ".join(str(error).split())[:200])
        lost = find_lost(text, used, self._renderer)
        return Refusal("PD707", lost) if lost else text
