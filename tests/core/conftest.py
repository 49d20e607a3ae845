"""Trainings that several tests look at: each is run once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny_training import make_dataset, train

from s2sr_qgis.core import jobs

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(scope="session")
def dataset20(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "d20", "20m")


@pytest.fixture(scope="session")
def dataset60(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "d60", "60m")


@pytest.fixture(scope="session")
def run20(dataset20, tmp_path_factory) -> Path:
    """AdamW, cosine, L1, running mean of weights."""
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("runs") / "r20"
    train(dataset20, folder)
    return folder


@pytest.fixture(scope="session")
def run60(dataset60, tmp_path_factory) -> Path:
    """The other choices: Nadam, plateau, L2, no running mean, no balance, no augmentation."""
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("runs") / "r60"
    other = {"optimizer": "nadam", "schedule": "plateau", "loss": "l2", "ema": 0, "balance": False, "images": 0}
    train(dataset60, folder, **other, dihedral=False, gain=0, band_gain=0)
    return folder


@pytest.fixture(scope="session")
def model20(run20, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "m20"
    jobs.run(jobs.ExportJob(run=run20, output=folder))
    return folder


@pytest.fixture(scope="session")
def model60(run60, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "m60"
    jobs.run(jobs.ExportJob(run=run60, output=folder, saved_model=False, checkpoint="last"))
    return folder
