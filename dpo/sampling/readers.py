"""Readers of growing texts: a model with its cache, or with whole texts for every token.

Letters in shapes: R rows, H heads, T positions, D size of a head, V vocabulary.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from dpo.model.length_limits import start_afresh

SHARED = 8
"""Tokens that a batch's texts must begin with in common for these to be run once."""

ROOM = 64
"""Tokens for which the cache grows at once: it takes no memory for texts that end early."""


class Reader(Protocol):
    """Model over texts that grow by one token at a time; one row per text."""

    logits_RV: Tensor
    """Logits of the next token of every row."""

    def select(self, index_R: Tensor) -> None:
        """Keep these rows, in this order; a row can be repeated."""

    def step(self, tokens_R: Tensor) -> None:
        """Append a token to every row, and run the model."""


MakeReader = Callable[[PreTrainedModel, Sequence[list[int]], int], Reader]
"""Takes the model, texts, and how many tokens they will grow by."""


class Cached:
    """Rows padded on the left, and the model's cache of all tokens so far.

    What all texts begin with, such as a template's system turn, is run once, before the padding.
    """

    def __init__(self, model: PreTrainedModel, texts: Sequence[list[int]], room: int) -> None:
        self.model, device = model, model.device
        self.cache = DynamicCache(config=model.config)
        num_shared = self._find_shared(texts)
        ids_RT, mask_RT = _pad_left([text[num_shared:] for text in texts], room)
        self.length = num_shared + ids_RT.shape[1]
        self._make_room()
        ones = mask_RT.new_ones(len(texts), num_shared)
        self.mask_RT = torch.cat((ones, mask_RT), 1).to(device)
        self.has_padding = not bool(self.mask_RT.all())
        positions_RT = (self.mask_RT[:, : self.length].cumsum(-1) - 1).clamp(min=0)
        self.positions_R = positions_RT[:, -1]
        if num_shared:
            shared_1T = torch.tensor([texts[0][:num_shared]], device=device)
            self._forward(shared_1T, positions_RT[:1, :num_shared], ones[:1].to(device))
            self.cache.batch_repeat_interleave(len(texts))
        mask_RT = self.mask_RT[:, : self.length]
        self.logits_RV = self._forward(ids_RT.to(device), positions_RT[:, num_shared:], mask_RT)

    def select(self, index_R: Tensor) -> None:
        # not `batch_select_indices`, which layers with a recurrent state do not have or do in part
        self.cache.reorder_cache(cast(torch.LongTensor, index_R))
        self.mask_RT, self.positions_R = self.mask_RT[index_R], self.positions_R[index_R]
        self.logits_RV = self.logits_RV[index_R]

    def step(self, tokens_R: Tensor) -> None:
        self.length += 1
        self.positions_R = self.positions_R + 1
        mask_RT = self.mask_RT[:, : self.length]
        self.logits_RV = self._forward(tokens_R[:, None], self.positions_R[:, None], mask_RT)

    def _find_shared(self, texts: Sequence[list[int]]) -> int:
        """Return the number of tokens to run once; 0 if a gap after them would shift windows."""
        if len(texts) == 1 or any(type(layer) is not DynamicLayer for layer in self.cache.layers):
            return 0
        shortest = min(map(len, texts)) - 1  # each text keeps a token, whose logits are needed
        columns = zip(*(text[:shortest] for text in texts), strict=True)
        differs = (num for num, tokens in enumerate(columns) if len(set(tokens)) > 1)
        num = next(differs, shortest)
        return num if num >= SHARED else 0

    def _make_room(self) -> None:
        """Give the layers of the cache that only append room for the next tokens."""
        for place, layer in enumerate(self.cache.layers):
            if type(layer) is DynamicLayer:
                self.cache.layers[place] = RoomyLayer()

    def _forward(self, ids_RT: Tensor, positions_RT: Tensor, mask_RT: Tensor) -> Tensor:
        """Return the logits of the last position, (R, V)."""
        model: Any = self.model
        logits: Tensor = model(
            input_ids=ids_RT,
            attention_mask=mask_RT if self.has_padding else None,
            position_ids=positions_RT,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values in tensors with room for the next tokens, so that most steps copy none.

    Rows that leave are overwritten in place by those from the end.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.filled = 0
        self.stores: list[Tensor] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append the keys and values (R, H, T, D) of some tokens; return those of all."""
        both = (key_states, value_states)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.stores = [states[..., :0, :] for states in both]
        start, self.filled = self.filled, self.filled + key_states.shape[-2]
        if self.filled > self.stores[0].shape[-2]:
            self.stores = [_with_room(store[..., :start, :], self.filled) for store in self.stores]
        for store, states in zip(self.stores, both, strict=True):
            store[..., start : self.filled, :] = states
        return self._show()

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.is_initialized:
            self.stores = [store.repeat_interleave(repeats, 0) for store in self.stores]
            self._show()

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        if not self.is_initialized:
            return
        num = len(indices)
        if num > len(self.stores[0]):
            self.stores = [store[indices] for store in self.stores]
        else:
            moved = (indices != torch.arange(num, device=indices.device)).nonzero()[:, 0]
            for store in self.stores:
                store[moved, ..., : self.filled, :] = store[indices[moved], ..., : self.filled, :]
            self.stores = [store[:num] for store in self.stores]
        self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        """Set and return the keys and values of the tokens so far."""
        self.keys, self.values = (store[..., : self.filled, :] for store in self.stores)
        return self.keys, self.values


def _with_room(states: Tensor, length: int) -> Tensor:
    """Return a copy of keys or values with room for `length` tokens and `ROOM` more."""
    found = states.new_empty(*states.shape[:-2], length + ROOM, states.shape[-1])
    found[..., : states.shape[-2], :] = states
    return found


class Recomputed:
    """Texts that are run whole for every token, without a cache and without padding.

    For models whose cache does not give the log-probs of a plain pass. A step costs a forward
    pass over the whole text so far. Texts of the same length form a batch.
    """

    def __init__(self, model: PreTrainedModel, texts: Sequence[list[int]], _room: int) -> None:
        self.model = model
        self.texts = [torch.tensor(text, device=model.device) for text in texts]
        self.logits_RV = self._forward()

    def select(self, index_R: Tensor) -> None:
        self.texts = [self.texts[place] for place in index_R.tolist()]
        self.logits_RV = self.logits_RV[index_R]

    def step(self, tokens_R: Tensor) -> None:
        grown = zip(self.texts, tokens_R[:, None], strict=True)
        self.texts = [torch.cat((text, token)) for text, token in grown]
        self.logits_RV = self._forward()

    def _forward(self) -> Tensor:
        """Return the logits of the last position of every text, (R, V)."""
        places: dict[int, list[int]] = {}
        for place, text in enumerate(self.texts):
            places.setdefault(len(text), []).append(place)
        found = [
            last_logits(self.model, torch.stack([self.texts[place] for place in some]), keep=1)
            for some in places.values()
        ]
        order = np.argsort([place for some in places.values() for place in some])
        return torch.cat(found)[torch.from_numpy(order).to(found[0].device)][:, -1]


def last_logits(model: PreTrainedModel, ids_RT: Tensor, *, keep: int) -> Tensor:
    """Return the logits of the last positions of whole texts by a plain pass, (R, keep, V)."""
    start_afresh(model)
    options: dict[str, Any] = {}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = keep
    logits: Tensor = model(input_ids=ids_RT, use_cache=False, **options).logits
    return logits[:, -keep:]


def _pad_left(rows: Sequence[list[int]], room: int) -> tuple[Tensor, Tensor]:
    """Return left-padded ids (B, T), and their mask (B, T + room), with ones in the room."""
    length = max(map(len, rows))
    ids_BT = torch.zeros(len(rows), length, dtype=torch.long)
    mask_BT = torch.ones(len(rows), length + room, dtype=torch.long)
    for place, row in enumerate(rows):
        ids_BT[place, length - len(row) :] = torch.tensor(row)
        mask_BT[place, : length - len(row)] = 0
    return ids_BT, mask_BT
