"""A model at work: its card, its ONNX Runtime session, prediction in memory."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, MissingPackageError, ModelError, first_line
from ..jobs import Device
from ..processors import available_threads
from ..raster.grid import Window
from ..raster.tiles import Tile, crop, fill, mirrored, tiles
from .card import CARD_NAME, MAX_LOSS, ModelCard, ModelFile, TensorCard, read_card, sha256
from .pipeline import ordered
from .processor import has_dot_products
from .tile_size import plan_model

if TYPE_CHECKING:
    import onnxruntime

Float = NDArray[np.float32]

MODELS = Path(__file__).parents[2] / "models"
"""Where the bundled models lie."""

REACH = 96
"""How far, in pixels of the finest input, an invalid pixel looks for a valid one to be filled with."""

PROVIDERS: dict[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
"""ONNX Runtime's name of each device."""


class Model:
    """A loaded model; made by `load_model`.

    ``card``: what it takes and gives. ``device``, ``precision``: what it really runs on. ``threads``: how many tiles
    `predict` works on at once.
    """

    def __init__(
        self, card: ModelCard, session: onnxruntime.InferenceSession, device: str, precision: str, threads: int = 1
    ):
        self.card = card
        self.device = device
        self.precision = precision
        self.threads = threads
        self.seconds = 0.0
        """What the network has taken: the processor time of the threads that ran it; elsewhere than on it, time."""
        self._clock = time.thread_time if device == "cpu" else time.perf_counter
        self._lock = threading.Lock()
        self._session = session
        self._types = {i.name: np.float16 if "float16" in i.type else np.float32 for i in session.get_inputs()}
        _check_tensors(card, set(self._types), {o.name for o in session.get_outputs()})

    @property
    def finest(self) -> float:
        """Pixel size of the finest input in metres; the outputs' is `scale` times smaller."""
        return self.card.finest

    @property
    def scale(self) -> int:
        """How many times finer than the finest input the outputs are: 1 for sharpening, the ratio of cross-sensor."""
        return self.card.scale

    @property
    def multiple(self) -> int:
        """What the sides of the finest input must be multiples of: the network's own demand and the coarsest band's."""
        return math.lcm(self.card.multiple, *(t.coarser(self.finest) for t in self.card.inputs))

    @property
    def halo(self) -> int:
        """Pixels of the finest input around a window that the network must see and the output drops."""
        return math.ceil(self.card.radius / self.multiple) * self.multiple

    def factor(self, band: str) -> int:
        """How many times coarser than the finest an input band is."""
        for tensor in self.card.inputs:
            if band in tensor.bands:
                return tensor.coarser(self.finest)
        raise ModelError(f"The model {self.card.name} takes no {band}; it takes {', '.join(self.card.input_bands)}.")

    def infer(self, bands: dict[str, Float]) -> dict[str, Float]:
        """Run the network, in both orientations where the card says so: no NaN, sides multiples of `multiple`.

        ``bands``: reflectance, float32 (h, w) at native resolution. Returns reflectance, float32 (H, W) at the finest,
        times `scale`: views of one array, so who keeps one keeps all. Thread-safe.
        """
        feed = {t.name: self._tensor(t, bands) for t in self.card.inputs}
        results = self._run(feed)
        if self.card.orientations == 2:
            # Self-ensemble: Timofte, Rothe, Van Gool 2016, doi:10.1109/CVPR.2016.206.
            again = self._run({name: np.ascontiguousarray(turned(tensor)) for name, tensor in feed.items()})
            results = [(one + turned(other)) / 2 for one, other in zip(results, again, strict=True)]
        sharpened: dict[str, Float] = {}
        for tensor, result in zip(self.card.outputs, results, strict=True):
            if not np.isfinite(result).all():
                raise ModelError(
                    f"The model {self.card.name} ({self.precision}) gave values that are not numbers; "
                    "use float32 precision or export the model again."
                )
            # In place: fresh memory costs more than the product.
            scaled = result.astype(np.float32, copy=False)
            scaled *= np.float32(self.card.scaling)
            sharpened.update(zip(tensor.bands, np.moveaxis(scaled[0], -1, 0), strict=True))
        return sharpened

    def _run(self, feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        begin = self._clock()
        try:
            results: list[NDArray[Any]] = self._session.run([t.name for t in self.card.outputs], feed)
        except Exception as error:  # ONNX Runtime's own classes are private
            raise ModelError(
                f"The model {self.card.name} failed on {self.device}: {first_line(error)}; try smaller tiles."
            ) from error
        with self._lock:
            self.seconds += self._clock() - begin
        return results

    def predict(self, bands: dict[str, NDArray[np.floating[Any]]], tile_size: int | None = None) -> dict[str, Float]:
        """Sharpen bands that lie in memory.

        ``bands``: reflectance (radiometric offset applied; 0.1 is 10 %), float (h, w) for each of
        ``card.input_bands``, each at its native resolution over the same ground: with 10 m bands of 600 × 600, 20 m
        bands are 300 × 300 and 60 m bands 100 × 100; upper-left corners coincide. NaN is invalid: it is filled for the
        network. Further bands are ignored. The ratio of the sizes counts, not the metres, so bands degraded by Wald's
        protocol fit as well. ``tile_size``: side of a window in pixels of the finest input (not given: what is fastest,
        see `tile_size`); it changes memory and speed, not the result.

        Returns reflectance, float32 (H, W) at the finest resolution, or `scale` times finer, for each of
        ``card.output_bands``; NaN exactly where that band's own coarse pixel is NaN. Raises `ModelError` when bands are
        missing or sizes do not fit.
        """
        area = self._area(bands)
        valid = {band: np.isfinite(bands[band]) for band in self.card.input_bands}
        filled = {
            band: fill(np.asarray(bands[band], np.float32), ok, REACH / self.factor(band)) for band, ok in valid.items()
        }
        scale = self.scale
        fine = area.finer(scale)
        out = {band: np.empty(fine.shape, np.float32) for band in self.card.output_bands}

        def work(tile: Tile) -> None:
            have = tile.padded.clipped(area.width, area.height)
            seen = {}
            for band, image in filled.items():
                f = self.factor(band)
                part = crop(image, area.scaled(f), have.scaled(f))
                seen[band] = mirrored(part, have.scaled(f), tile.padded.scaled(f))
            for band, image in self.infer(seen).items():
                core = tile.core.finer(scale)
                crop(out[band], fine, core)[...] = crop(image, tile.padded.finer(scale), core)

        size, workers = plan_model(self, area, self.threads, tile_size)
        with closing(ordered(tiles(area, size, self.halo, self.multiple), work, workers)) as done:
            for _ in done:
                pass
        for band, image in out.items():
            if band in valid and not valid[band].all():
                f = self.factor(band) * scale
                image[~valid[band].repeat(f, axis=0).repeat(f, axis=1)] = np.nan
        return out

    def _tensor(self, tensor: TensorCard, bands: dict[str, Float]) -> NDArray[Any]:
        stack = np.empty((1, *bands[tensor.bands[0]].shape, len(tensor.bands)), self._types[tensor.name])
        for channel, band in enumerate(tensor.bands):
            np.divide(bands[band], np.float32(self.card.scaling), out=stack[0, :, :, channel], casting="same_kind")
        return stack

    def _area(self, bands: dict[str, NDArray[Any]]) -> Window:
        """The window of the finest grid that the bands cover together."""
        check_bands(self.card, bands)
        shapes = {band: np.shape(bands[band]) for band in self.card.input_bands}
        sizes = {
            tuple(side * self.factor(band) for side in shape) if len(shape) == 2 else shape
            for band, shape in shapes.items()
        }
        if len(sizes) > 1 or any(len(size) != 2 or 0 in size for size in sizes):
            listed = ", ".join(f"{band} {' x '.join(map(str, shape))}" for band, shape in shapes.items())
            raise ModelError(f"The bands do not cover the same ground at their native resolutions: {listed}.")
        height, width = sizes.pop()
        return Window(0, 0, width, height)


def turned(images: NDArray[Any]) -> NDArray[Any]:
    """Images (n, h, w, channels) turned by half a turn, without a copy."""
    return images[:, ::-1, ::-1]


def check_bands(card: ModelCard, bands: Collection[str]) -> None:
    """Raise `ModelError`, naming both lists, when a model takes a band that is not among ``bands``."""
    missing = [band for band in card.input_bands if band not in bands]
    if missing:
        raise ModelError(
            f"The model {card.name} takes {', '.join(card.input_bands)}, but there are only "
            f"{', '.join(bands) or 'no bands'}: {', '.join(missing)} missing."
        )


def bundled_models() -> dict[str, Path]:
    """The folder of each model that comes with the package, by name, in alphabetical order."""
    if not MODELS.is_dir():
        return {}
    return {folder.name: folder for folder in sorted(MODELS.iterdir()) if (folder / CARD_NAME).is_file()}


def find_model(name: str | Path) -> Path:
    """The folder of a bundled name or a path. Raises `ModelError` when it is neither."""
    bundled = bundled_models()
    if str(name) in bundled:
        return bundled[str(name)]
    folder = Path(name).expanduser()
    if not folder.is_dir():
        names = ", ".join(bundled) or "none"
        raise ModelError(f"'{name}' is neither a bundled model ({names}) nor a model folder.")
    return folder


def load_model(source: str | Path, device: str = "auto", threads: int | None = None, precision: str = "auto") -> Model:
    """Load a bundled model by name, or a model folder (``card.yaml`` and ONNX files).

    ``device``: auto (CUDA, DirectML, else the processor), cpu, cuda, directml, coreml. ``threads``: tiles at once on
    the processor, a thread for each (faster than one tile in several threads, whose layers wait for each other, and the
    pixels do not depend on how many there are); None: all cores. ``precision``: float32, float16, int8; auto: see
    `choose`. Raises `ModelError` (no or damaged model, card and ONNX that do not belong together, no variant of that
    precision), `MissingPackageError` (device not available), `InputError` (no such device).
    """
    folder = find_model(source)
    card = read_card(folder)
    wanted = automatic_device() if device == "auto" else device
    file = choose(card, wanted, precision)
    session, used = _session(_checked(folder, file), device)
    if used != wanted and precision == "auto" and (other := choose(card, used, precision)) != file:
        # A device that is installed and could not be started: what runs now may have a better variant.
        file, (session, used) = other, _session(_checked(folder, other), used)
    return Model(card, session, used, file.precision, (threads or available_threads()) if used == "cpu" else 1)


def devices() -> list[str]:
    """The devices that the installed ONNX Runtime can use, best first. Raises `MissingPackageError` without it."""
    available = _runtime().get_available_providers()
    return [device for device in ("cuda", "directml", "coreml", "cpu") if PROVIDERS[device] in available]


def automatic_device() -> str:
    """The device that `auto` means: the best one that is there. Raises `MissingPackageError` without ONNX Runtime."""
    # CoreML compiles for every tile shape anew, so it is used only when asked for.
    return next(device for device in devices() if device != "coreml")


def choose(card: ModelCard, device: str = "cpu", precision: str = "auto") -> ModelFile:
    """The variant of a model that runs on a device.

    auto: float16 on CUDA and DirectML, int8 on a processor that is fast at it (see `processor`) unless its figures in
    the card say that it loses more than `MAX_LOSS`, else float32; float32 also where the model lacks the variant.
    Raises `ModelError` when the model has no variant of the precision that is asked for.
    """
    files = {file.precision: file for file in card.files}
    if precision == "auto" and files:
        if device in ("cuda", "directml") and "float16" in files:
            return files["float16"]
        if device == "cpu" and "int8" in files and files["int8"].loss <= MAX_LOSS and has_dot_products():
            return files["int8"]
        return files.get("float32", card.files[0])
    for name, file in files.items():
        if name == precision:
            return file
    names = ", ".join(files) or "none"
    raise ModelError(f"The model {card.name} has no {precision} variant; it has {names}: choose one or 'auto'.")


def _checked(folder: Path, file: ModelFile) -> Path:
    path = folder / file.file
    if Path(file.file).name != file.file or not path.is_file():
        raise ModelError(f"{folder} lacks the file {file.file} that its card names; copy or export the model again.")
    if sha256(path) != file.sha256.lower():
        raise ModelError(f"{path} does not match its card (SHA-256 differs); copy or export the model again.")
    return path


def _session(path: Path, device: str) -> tuple[onnxruntime.InferenceSession, str]:
    runtime = _runtime()
    available = devices()
    if device not in get_args(Device):
        raise InputError(f"'{device}' is no device; the devices are {', '.join(get_args(Device))}.")
    if device != "auto" and device not in available:
        raise MissingPackageError(
            f"The device '{device}' is not available: the installed ONNX Runtime offers {', '.join(available)}; choose "
            "one of these or 'auto', or install the ONNX Runtime package for that device."
        )
    wanted = [automatic_device() if device == "auto" else device]
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if not has_dot_products():
        # Without them, sums of bytes on x86 overflow in 16 bits; this takes the slower way that does not. With them it
        # would cost more than half the speed and gain nothing.
        options.add_session_config_entry("session.x64quantprecision", "1")
    if _share_memory():
        options.add_session_config_entry("session.use_env_allocators", "1")
    options.intra_op_num_threads = 1
    # DirectML does not take it, and on the processor it keeps twice the memory that a network needs.
    options.enable_mem_pattern = False
    names = [PROVIDERS[d] for d in dict.fromkeys([*wanted, "cpu"])]
    try:
        session = runtime.InferenceSession(str(path), options, providers=names)
    except Exception as error:  # ONNX Runtime's own classes are private
        raise ModelError(
            f"{path} cannot be loaded by ONNX Runtime: {first_line(error)}; export the model again."
        ) from error
    used = next(d for d, provider in PROVIDERS.items() if provider == session.get_providers()[0])
    if device not in ("auto", used):
        raise MissingPackageError(
            f"The device '{device}' could not be started (its driver or libraries are missing); choose 'cpu' or 'auto'."
        )
    return session, used


def onnx_function(path: Path, output: str) -> Callable[[dict[str, NDArray[Any]]], NDArray[Any]]:
    """One output of an ONNX file on the processor, as a function of tensors by input name.

    Raises `ModelError` for a file that cannot be loaded; so does the function for tensors that the network does not
    take, and for results that are not numbers.
    """
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(str(path), options, providers=[PROVIDERS["cpu"]])
    except Exception as error:  # ONNX Runtime's own classes are private
        raise ModelError(f"ONNX Runtime cannot load the network: {first_line(error)}.") from error
    names = [value.name for value in session.get_inputs()]

    def run(tensors: dict[str, NDArray[Any]]) -> NDArray[Any]:
        try:
            (result,) = session.run([output], {name: tensors[name] for name in names})
        except Exception as error:  # of the same private classes
            sizes = ", ".join("x".join(map(str, tensor.shape[1:3])) for tensor in tensors.values())
            raise ModelError(f"it does not run on images of {sizes} pixels") from error
        if not np.isfinite(result).all():
            raise ModelError("it gives values that are not numbers")
        return np.asarray(result)

    return run


@cache
def _share_memory() -> bool:
    """Let all models of the process take turns with one arena: each would keep the most that it ever took."""
    runtime = _runtime()
    kind, use = runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, runtime.OrtMemType.DEFAULT
    try:
        runtime.create_and_register_allocator(runtime.OrtMemoryInfo("Cpu", kind, 0, use), None)
    except Exception:  # ONNX Runtime's own classes are private; without it, each model has an arena of its own
        return False
    return True


def _check_tensors(card: ModelCard, inputs: set[str], outputs: set[str]) -> None:
    named_in, named_out = {t.name for t in card.inputs}, {t.name for t in card.outputs}
    if named_in != inputs or not named_out <= outputs:
        raise ModelError(
            f"The card of {card.name} names the tensors {', '.join(sorted(named_in | named_out))}, but its ONNX file "
            f"has {', '.join(sorted(inputs | outputs))}; export the model again."
        )


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError("This needs the package onnxruntime; set up the environment again.") from error
    return onnxruntime
