"""Files and commands of one round: what a user would type, and what it leaves."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import yaml

from dpo.data.reference_store import read_manifest as read_reference
from dpo.model.fingerprints import WeightsId
from dpo.sampling.files import PromptRow, partial_of, read_prompts
from pipelines.commands import RecipeError
from pipelines.loop.record import StageRecord
from pipelines.loop.settings import WHERE, LoopConfig, changed_keys
from prefdata.store.canonical import to_json
from prefdata.store.commit import sha256_file, write_bytes
from prefdata.store.manifest import read_manifest

Rows = list[dict[str, Any]]


class RoundFiles(NamedTuple):
    """Places of one round; round 0 is the first model."""

    config: LoopConfig
    number: int

    @property
    def folder(self) -> Path:
        return self.config.out / f"round-{self.number}"

    @property
    def prompts(self) -> Path:
        return self.folder / "prompts.jsonl"

    @property
    def samples(self) -> Path:
        return self.folder / "samples.jsonl"

    @property
    def candidates(self) -> Path:
        """File of the completions that are judged."""
        return self.folder / "candidates.jsonl"

    @property
    def verdicts(self) -> Path:
        return self.folder / "verdicts.jsonl"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def figures(self) -> Path:
        return self.folder / "figures.json"

    @property
    def before(self) -> "RoundFiles":
        return self._replace(number=self.number - 1)

    @property
    def model(self) -> str:
        """Return the model that this round leaves."""
        return str(self.run / "model") if self.number else self.config.model

    @property
    def reference(self) -> str:
        return self.before.model if self.config.reference == "previous" else self.config.model

    @property
    def seed(self) -> int:
        return self.config.seed + self.number


def prompt_rows(files: RoundFiles) -> list[PromptRow]:
    """Return the prompts of a round: a part of a seeded order, which starts again at its end."""
    config = files.config
    rows = read_prompts(config.prompts)
    count = config.prompts_per_round
    if count is None:
        return rows
    if count > len(rows):
        problem = f"is {count}, and {config.prompts} has {len(rows)} prompts"
        raise RecipeError(
            "prompts_per_round", problem, "lower it, or remove the key for all prompts"
        )
    order = random.Random(config.seed).sample(range(len(rows)), len(rows))
    first = (files.number - 1) * count
    return [rows[order[at % len(rows)]] for at in range(first, first + count)]


def write_prompts(files: RoundFiles) -> None:
    rows = ({"prompt": row.prompt, **row.rest} for row in prompt_rows(files))
    write_bytes(files.prompts, json_lines(rows))


def write_candidates(files: RoundFiles) -> int:
    """Write the rows with two completions or more that can be judged; return their number."""
    rows = [row for row in map(_candidates(files.config), read_rows(files.samples)) if row]
    if not rows:
        problem = "no prompt has two completions that the model ended"
        raise RecipeError(
            files.samples, problem, "raise max_new_tokens, or set label.only_ended: no"
        )
    write_bytes(files.candidates, json_lines(rows))
    return len(rows)


def _candidates(config: LoopConfig) -> Any:
    def of(row: dict[str, Any]) -> dict[str, Any] | None:
        kept = [
            one
            for one in row["completions"]
            if (one["ended"] or not config.label.only_ended) and "\0" not in one["text"]  # R204
        ]
        return row | {"completions": kept} if len(kept) > 1 else None

    return of


def sample_words(files: RoundFiles) -> list[str]:
    config, how = files.config, files.config.sample
    words = ["dpo-sample", str(files.prompts), "-o", str(files.samples), "-k", str(how.k)]
    words += ["--temperature", str(how.temperature), "--top-p", str(how.top_p)]
    words += ["--max-new-tokens", str(config.max_new_tokens), "--seed", str(files.seed)]
    words += ["--text", config.text]
    if how.server is not None:
        return [*words, *how.server.words()]
    return [*words, "--model", files.before.model, "--batch-size", str(config.batch_size)]


def label_words(files: RoundFiles) -> list[str]:
    how = files.config.label
    words = ["dpo-judge", str(files.candidates), "-o", str(files.verdicts)]
    if how.server is None:
        return [*words, "--scorer", str(how.scorer)]
    given = (("--template", how.template), ("--max-new-tokens", how.max_new_tokens))
    words += [word for name, value in given if value is not None for word in (name, str(value))]
    return [*words, "--seed", str(files.seed), *how.server.words()]


def build_words(files: RoundFiles) -> list[str]:
    """Write the build's config: this round's verdicts and, by weight, those of earlier ones."""
    weights = [1.0, *files.config.earlier_weights][: files.number]
    sources = [
        {"path": str(one.verdicts), "name": f"round {one.number}", "weight": weight}
        for back, weight in enumerate(weights)
        for one in [files._replace(number=files.number - back)]
        if weight > 0
    ]
    values = files.config.build_values(sources, files.data)
    return ["prefdata", "build", _write_yaml(files.folder / "build.yaml", values)]


def reference_words(files: RoundFiles) -> list[str]:
    """Return the command for log-probs in the precision of the training."""
    words = ["dpo-ref", str(files.data), "--model", files.reference]
    run = files.config.train_config
    for name in ("weights", "quantize", "mixed_precision"):
        if (value := getattr(run, name)) is not None:
            words += [f"--{name.replace('_', '-')}", value]
    return words


def train_words(files: RoundFiles) -> list[str]:
    values = files.config.train_values(files.before.model, files.data, files.run)
    return ["dpo-train", _write_yaml(files.folder / "train.yaml", values)]


def _write_yaml(path: Path, values: dict[str, Any]) -> str:
    plain = json.loads(json.dumps(values, default=str))  # words of YAML are strings
    write_bytes(path, yaml.safe_dump(plain, allow_unicode=True, sort_keys=False).encode())
    return str(path)


def sample_decides(files: RoundFiles) -> dict[str, Any]:
    """Return what decides a round's samples."""
    config = files.config
    of_model = config.sample.server is None
    own = {"batch_size": config.batch_size, "weights": weights_of(files.before.model)}
    return {
        **_decides(config.sample.model_dump()), "text": config.text, "seed": files.seed,
        "max_new_tokens": config.max_new_tokens, "prompts": sha256_file(files.prompts),
        **(own if of_model else {}),
    }  # fmt: skip


def label_decides(files: RoundFiles) -> dict[str, Any]:
    """Return what decides a round's verdicts."""
    own = _decides(files.config.label.model_dump())
    return {**own, "seed": files.seed, "candidates": sha256_file(files.candidates)}


def _decides(values: dict[str, Any]) -> dict[str, Any]:
    if values["server"] is not None:
        values["server"] = {k: v for k, v in values["server"].items() if k not in WHERE}
    return values


def begin(manifest: Path, decides: dict[str, Any], made: Path) -> bool:
    """Write what decides a file that its command renames once it is whole; return if it is there.

    Raises RecipeError for a file that other settings, or nobody known, made.
    """
    begun = next((path for path in (made, partial_of(made)) if path.exists()), None)
    if begun is not None:
        before = read_json(manifest) if manifest.is_file() else None
        if before is None:
            problem = f"has no {manifest.name} next to it, so no stage of a loop made it"
            raise RecipeError(begun, problem, "move it away, or name another `out`")
        if changed := list(changed_keys(before, json.loads(to_json(decides)))):
            problem = f"was made with another {', '.join(changed)}"
            raise RecipeError(begun, problem, f"use the same as before, or remove {begun}")
    write_bytes(manifest, to_json(decides))
    return made.exists()


def samples_record(files: RoundFiles) -> StageRecord:
    rows = read_rows(files.samples)
    ended = sum(bool(one["ended"]) for row in rows for one in row["completions"])
    counts = {"completions": sum(len(row["completions"]) for row in rows), "ended": ended}
    return _record({"samples": sha256_file(files.samples)}, counts)


def verdicts_record(files: RoundFiles) -> StageRecord:
    counts = {"candidates": len(read_rows(files.candidates))}
    return _record({"verdicts": sha256_file(files.verdicts)}, counts)


def build_record(files: RoundFiles) -> StageRecord:
    manifest = read_manifest(files.data)
    hashes = {"manifest": manifest.hash, "content": manifest.content_hash}
    rows = {name: split.rows for name, split in manifest.splits.items()}
    counts = {"pairs": sum(rows.values())} | {f"mixture/{m.name}": m.rows for m in manifest.mixture}
    return _record(hashes, counts)


def reference_record(files: RoundFiles) -> StageRecord:
    manifest = read_reference(files.data / "reference" / "default" / "manifest.json")
    return _record({"manifest": manifest.hash, "weights": manifest.weights_sha256})


def train_record(files: RoundFiles) -> StageRecord:
    summary = read_json(files.run / "run.json")
    hashes = {"fingerprint": summary["fingerprint"], "weights": weights_of(files.model)}
    return _record(hashes, {"steps": summary["steps"]})


def figures_record(files: RoundFiles) -> StageRecord:
    return _record({"figures": sha256_file(files.figures)})


def _record(hashes: dict[str, str], counts: dict[str, int] | None = None) -> StageRecord:
    return StageRecord(hashes=hashes, counts=counts or {}, seconds=None)


def weights_of(model: str) -> str:
    """Return the identity of weights, as references have it."""
    return WeightsId(model, None).sha256


def read_json(path: Path) -> Any:
    return _parse(path, path.read_bytes())


def read_rows(path: Path) -> Rows:
    return [_parse(path, line) for line in path.read_bytes().splitlines()]


def _parse(path: Path, data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        problem = f"is not JSON ({error})"
        raise RecipeError(path, problem, "restore it, or name another `out`") from error


def json_lines(rows: Any) -> bytes:
    found: Iterator[bytes] = (orjson.dumps(row) + b"\n" for row in rows)
    return b"".join(found)
