"""The provider's algorithms, one a file: each declares parameters, builds a job of `core.jobs` and hands it on."""

from __future__ import annotations


def all_algorithms() -> list:
    """One of each algorithm."""
    from .checkenvironment import CheckEnvironment
    from .createcrosssensordataset import CreateCrossSensorDataset
    from .createsharpeningdataset import CreateSharpeningDataset
    from .evaluatemodel import EvaluateModel
    from .imagesimilarity import ImageSimilarity
    from .importmodel import ImportModel
    from .searchscenes import SearchScenes
    from .setupenvironment import SetUpEnvironment
    from .simulatescene import SimulateScene
    from .superresolve import SuperResolve
    from .trainmodel import TrainModel

    return [
        SearchScenes(),
        CreateSharpeningDataset(),
        CreateCrossSensorDataset(),
        SimulateScene(),
        TrainModel(),
        ImportModel(),
        SuperResolve(),
        EvaluateModel(),
        ImageSimilarity(),
        SetUpEnvironment(),
        CheckEnvironment(),
    ]
