"""The report of a training, read as a browser would: one file, its verdict, curves, figures and pictures."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_training import Recorder, train

pytestmark = pytest.mark.train
pytest.importorskip("tensorflow")


def test_the_report_shows_the_training(run20) -> None:
    page = (run20 / "report.html").read_text(encoding="utf-8")
    card = yaml.safe_load((run20 / "run.yaml").read_text())
    assert not re.findall(r'(?:src|href)="(?!data:)', page), "it must open anywhere, without a network"
    mine, bicubic = card["test"]["rmse_mean"], card["test"]["bicubic"]["rmse_mean"]
    assert ("Better" if mine < bicubic else "Worse") + " than bicubic" in page
    assert f"RMSE {mine:.1f} DN against {bicubic:.1f} DN" in page
    for band, value in card["test"]["rmse"].items():
        assert f'<td>{band}</td><td class="number">{value:.1f}</td>' in page
    pictures = [base64.b64decode(text) for text in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]
    assert len(pictures) == 3 + min(4, card["test"]["patches"]), "loss, RMSE, learning rate, and the patches"
    for picture in pictures:
        assert np.asarray(Image.open(io.BytesIO(picture)).convert("L")).std() > 1, "not one colour"
    assert card["network"] in page
    assert "early_stopping" in page


def test_the_training_outlives_its_report(dataset20, tmp_path, monkeypatch) -> None:
    from s2sr_qgis.core.training import report

    def broken(*_: object) -> None:
        raise MemoryError("no room for a picture")

    monkeypatch.setattr(report, "_pictures", broken)
    progress = Recorder()
    result = train(dataset20, tmp_path / "r", progress, epochs=1)
    assert result["report"] is None
    assert (tmp_path / "r" / "model.keras").is_file()
    assert any(level == "warning" and "no room for a picture" in text for level, text in progress.lines)


@pytest.mark.parametrize(
    ("mine", "words"),
    [(50.0, "Better than bicubic by 50.0%"), (150.0, "Worse than bicubic by 50.0%"), (100.0, "As good as bicubic")],
)
def test_the_verdict_is_plain(mine, words) -> None:
    from s2sr_qgis.core.training.report import verdict

    kind, text = verdict({"rmse_mean": mine, "bicubic": {"rmse_mean": 100.0}, "patches": 8})
    assert words in text
    assert kind == ("good" if mine < 100 else "bad")
