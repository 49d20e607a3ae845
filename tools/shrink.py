"""`shrink.py RUN SHARE START`: keep a share of what a run has learned since its start.

A network trained on few scenes learns part of what it adds by heart. A part of it keeps some of the gain on scenes like
those of the training, and loses less on others: weights between those before and after a fine-tuning are the more
robust ones (Wortsman et al. 2022, doi:10.48550/arXiv.2109.01903). START is the run that it began with, or the weights
that `fit_filter.py` has written. The weights as trained stay in the run as trained.weights.h5.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from s2sr_qgis.core.training.fit import BEST
from s2sr_qgis.core.training.run_card import read_run_card
from s2sr_qgis.core.training.train import load_network


def main(run: Path, share: float, start: Path) -> None:
    """Move a run's weights back towards its start; once."""
    kept = run / "trained.weights.h5"
    if kept.exists():
        return
    card = read_run_card(run)
    network, copy = load_network(run, card)
    learned = copy or network.model
    if start.is_dir():
        between(learned, load_network(start, read_run_card(start))[0].model, share)
    else:
        before = card.build().model
        before.load_weights(start)
        scale_end(learned, before, share)
    part = run / "shrunk.weights.h5"
    learned.save_weights(part)
    (run / BEST).replace(kept)
    part.replace(run / BEST)


def between(learned: Any, before: Any, share: float) -> None:
    """Move all weights; 8-bit ranges stay as trained."""
    for layer in before.layers:
        for name in ("kernel", "bias"):
            if (old := getattr(layer, name, None)) is not None:
                new = getattr(learned.get_layer(layer.name), name)
                new.assign(old + share * (new - old))


def scale_end(learned: Any, before: Any, share: float) -> None:
    """Scale the last convolution, which started from zero, and its 8-bit ranges, and move the filter."""
    old, new = (model.get_layer("guide_filter").get_weights()[0] for model in (before, learned))
    learned.get_layer("guide_filter").set_weights([old + share * (new - old)])
    layer = learned.get_layer("last")
    for weight in (layer.kernel, layer.bias):
        weight.assign(weight * share)
    if hasattr(layer, "output_scale"):
        layer.output_scale.assign(layer.output_scale + np.log(share))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))
