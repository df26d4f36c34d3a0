"""Progress of long work if the console is not a terminal."""

from pathlib import Path

import pytest

from dpo.display import PULSE, Bars, TrainingBar

METRICS = {"loss": 0.5, "rewards/margins": 1.0, "rewards/accuracies": 0.75}


def work(out: Path, pulse: float = PULSE) -> None:
    with Bars(pulse=pulse) as bars:
        for title, total in (("reference", 3), ("policy", 2)):
            with bars.bar(title, total) as advance:
                for _ in range(total):
                    advance(1)
    with TrainingBar(out, pulse=pulse) as shown:
        shown.report(7, 9, METRICS)


def test_a_log_file_gets_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work(tmp_path, pulse=0.0)
    printed = capsys.readouterr().err

    for line in ("reference 2 of 3", "policy 1 of 2", "step 7 of 9: loss 0.5000  margin 1.000"):
        assert f"{line}" in printed
    assert "\x1b" not in printed


def test_a_minute_is_between_them_and_a_terminal_has_only_bars(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work(tmp_path)
    assert "reference 2 of 3" not in capsys.readouterr().err

    monkeypatch.setenv("FORCE_COLOR", "1")
    work(tmp_path, pulse=0.0)
    assert "reference 2 of 3" not in capsys.readouterr().err
