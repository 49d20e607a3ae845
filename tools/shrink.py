"""`shrink.py RUN SHARE START`: keep a share of what a run has learned since its start (see `fit_filter.py`).

A network trained on few scenes learns part of what it adds by heart. A part of it keeps some of the gain on scenes like
those of the training, and loses less on others: weights between those before and after a fine-tuning are the more
robust ones (Wortsman et al. 2022, doi:10.48550/arXiv.2109.01903). The weights as trained stay in the run as
trained.weights.h5.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from s2sr_qgis.core.training.fit import BEST
from s2sr_qgis.core.training.run_card import read_run_card
from s2sr_qgis.core.training.train import load_network


def main(run: Path, share: float, start: Path) -> None:
    """Scale the last convolution, which started from zero, and its 8-bit ranges, and move the filter; once."""
    kept = run / "trained.weights.h5"
    if kept.exists():
        return
    card = read_run_card(run)
    network, copy = load_network(run, card)
    before = card.build().model
    before.load_weights(start)
    learned = (copy or network.model).get_layer("guide_filter")
    old, new = before.get_layer("guide_filter").get_weights()[0], learned.get_weights()[0]
    learned.set_weights([old + share * (new - old)])
    layer = (copy or network.model).get_layer("last")
    for weight in (layer.kernel, layer.bias):
        weight.assign(weight * share)
    if copy is not None:
        layer.output_scale.assign(layer.output_scale + np.log(share))
    part = run / "shrunk.weights.h5"
    (copy or network.model).save_weights(part)
    (run / BEST).replace(kept)
    part.replace(run / BEST)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))
