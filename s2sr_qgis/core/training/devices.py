"""The devices that TensorFlow can train on."""

from __future__ import annotations


def training_devices() -> list[str]:
    """Names of the graphics cards that TensorFlow finds, then the processor. Needs TensorFlow."""
    import tensorflow as tf

    cards = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(card).get("device_name", card.name) for card in cards]
    return [*map(str, names), "cpu"]
