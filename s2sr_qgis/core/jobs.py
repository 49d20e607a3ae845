"""What can be asked for: one pydantic model per job, and `run`. The only door into the core.

The command line, the worker process and the tests all fill in one of these models and call `run`; a feature that is
not a field here does not exist. Importing this module is cheap: the rooms are imported when a job runs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .errors import InputError, MissingPackageError
from .progress import Once, Progress, running

Task = Literal["20m", "60m"]
Engine = Literal["auto", "native", "otb"]
Device = Literal["auto", "cpu", "cuda", "directml", "coreml"]
Precision = Literal["auto", "float32", "float16", "int8"]
MeasureName = Literal[
    "rmse", "psnr", "ssim", "fsim", "issm", "sre", "sam", "uiq", "ergas", "q2n", "spectral_correlation", "spatial_shift"
]

NETWORK_OPTIONS = (
    "Option of the network. Defaults: "
    "coarsenet guides=null, guide_radius=5, guide_kernel=null, consistent=false, blocks=8, features=64, context=8, "
    "spectrum=true, hidden=null; "
    "dsen2 blocks=6, features=128; "
    "vdsen2 blocks=32, features=256; "
    "srresnet blocks=16, features=64, ratio=null; "
    "crossnet ratio=null, blocks=8, features=64, context=8, spectrum=true, hidden=null."
)
"""Help of the networks' options; a test compares it with the networks, whose import takes seconds."""

TRAINING_PACKAGES = ("tensorflow", "keras", "tf2onnx", "onnx", "h5py", "tensorboard")
"""What the extra `train` installs; without it datasets, inference and evaluation still work."""

ROI = (
    "'xmin,ymin,xmax,ymax EPSG:n', QGIS's 'xmin,xmax,ymin,ymax [EPSG:n]', WKT, or a vector file (file|layername=name)."
)


class _Job(BaseModel):
    # Validators are built when a job is made: help on the command line needs none of them.
    model_config = ConfigDict(extra="forbid", validate_assignment=True, defer_build=True)


class SceneOptions(_Job):
    """How to read a scene where its own metadata does not say it (stacked GeoTIFF, folder of bands)."""

    band_names: list[str] | None = Field(None, description="Names of a stacked raster's bands, in file order.")
    radiometric_offset: int | None = Field(None, description="DN added before scaling (-1000 from baseline 04.00 on).")
    quantification: float | None = Field(
        None, gt=0, description="Stored value of reflectance 1: 10000; 100 for percent, 1."
    )
    processing_level: Literal["L1C", "L2A"] | None = Field(None, description="Where the product does not say it.")


class CreateSharpeningDatasetJob(_Job):
    """Cut training pairs out of scenes by Wald's protocol (degrade, then the original is the target)."""

    job: Literal["create_sharpening_dataset"] = "create_sharpening_dataset"
    scenes: list[str] = Field(min_length=1, description="SAFE, zip, folder of bands, stacked GeoTIFF, STAC item.")
    output: Path = Field(description="Folder of the dataset.")
    task: Task = Field("20m", description="Which bands are to be sharpened.")
    scene_options: SceneOptions = Field(default_factory=SceneOptions, description="How to read the scene.")
    roi: str | None = Field(None, description=ROI)
    patch_size: int | None = Field(None, ge=6, description="Patch side on the target grid; 32 (20m), 96 (60m).")
    step: int | None = Field(None, ge=1, description="Distance between patches on the target grid; the patch size.")
    scales: int = Field(1, ge=1, le=4, description="1: native scale only; 2: also the scene reduced by 2; and so on.")
    clouds: int = Field(0, ge=0, le=8, description="Copies of each scene under simulated clouds.")
    teacher: str | None = Field(
        None, description="Model whose result on the scenes as they are is a further target (distillation)."
    )
    teacher_variants: int = Field(
        0, ge=0, le=64, description="Recoloured copies of each scene that the teacher is asked about too."
    )
    mixtures: int = Field(
        0, ge=0, description="Further training pairs that are two places mixed; with a teacher also band by band."
    )
    sigma: float | None = Field(None, gt=0, description="Gaussian blur in fine pixels; None: 1/factor (DSen2).")
    sensor_mtf: bool = Field(False, description="Blur with each band's own MTF instead of one sigma.")
    train: float = Field(0.8, ge=0, le=1, description="Share of the patches for training.")
    valid: float = Field(0.1, ge=0, le=1, description="Share for validation while training.")
    test: float = Field(0.1, ge=0, le=1, description="Share kept for the figures of the finished model.")
    split: Literal["auto", "blocks", "scenes"] = Field("auto", description="auto: by scene from three scenes on.")
    block_size: int = Field(8, ge=1, description="Side of a spatial block, in patches.")
    licence: str | None = Field(None, description="Licence of the pixels, written into the card.")
    seed: int = Field(0, description="Seed of every random choice.")


class SearchScenesJob(_Job):
    """Find Sentinel-2 scenes over an area in a STAC catalogue, those with the least cloud over the area first."""

    job: Literal["search_scenes"] = "search_scenes"
    output: Path = Field(description="GeoJSON or GeoPackage of footprints to write.")
    area: str = Field(
        description="'xmin,ymin,xmax,ymax EPSG:n', QGIS's 'xmin,xmax,ymin,ymax [EPSG:n]', WKT, or a file."
    )
    start: str = Field(description="First day, 2022-06-15.")
    end: str = Field(description="Last day, 2022-08-15.")
    catalog: str = Field(
        "planetary-computer", description="planetary-computer, earth-search, copernicus, or the URL of a STAC API."
    )
    collection: str = Field("sentinel-2-l2a", description="Collection of the catalogue.")
    max_cloud: float = Field(30, ge=0, le=100, description="Most cloud over the whole scene, in percent.")
    max_area_cloud: float = Field(
        100, ge=0, le=100, description="Most cloud, cloud shadow and nodata over the area, in percent (from SCL)."
    )
    limit: int = Field(100, ge=1, description="Most scenes to look at.")
    best: int | None = Field(None, ge=1, description="Keep only so many, the best ones.")


class CreateCrossSensorDatasetJob(_Job):
    """Cut pairs of a Sentinel-2 scene and a finer sensor's image: OTBTF's super-resolution tutorial in one run."""

    job: Literal["create_cross_sensor_dataset"] = "create_cross_sensor_dataset"
    xs: str = Field(description="Multispectral image of the finer sensor: GeoTIFF or DIMAP (DIM_*.XML).")
    pan: str | None = Field(None, description="Its panchromatic image; without it the XS image itself is the target.")
    output: Path = Field(description="Folder of the dataset.")
    scene: str | None = Field(
        None, description="The Sentinel-2 scene; not given: the clearest one over the XS image is searched."
    )
    scene_options: SceneOptions = Field(default_factory=SceneOptions, description="How to read the scene.")
    start: str | None = Field(None, description="Search: first day, 2022-06-15; max_days before the reference's date.")
    end: str | None = Field(None, description="Search: last day, 2022-08-15; max_days after the reference's date.")
    catalog: str = Field("planetary-computer", description="Search: name or URL of the STAC API.")
    max_area_cloud: float = Field(5, ge=0, le=100, description="Search: most cloud over the XS image, in percent.")
    bands: list[str] = Field(
        default=["B04", "B03", "B02", "B08"], min_length=1, description="Sentinel-2 bands in the order of the XS bands."
    )
    ratio: int | None = Field(None, ge=1, description="Without PAN: how much coarser the low-resolution patches are.")
    interpolation: Literal["bicubic", "linear", "nearest"] = Field("bicubic", description="Superimpose's interpolator.")
    pansharpening: Literal["rcs", "lmvm", "bayes"] = Field("rcs", description="BundleToPerfectSensor's method.")
    patch_size: int = Field(
        32, ge=4, description="Side of a low-resolution patch; the target's is that times the ratio."
    )
    step: int | None = Field(None, ge=1, description="Distance between patches, low-resolution pixels; the patch size.")
    strategy: Literal["split", "chessboard", "all"] = Field("split", description="Which split a patch goes to.")
    train: float = Field(0.8, ge=0, le=1, description="Share of the patches for training.")
    valid: float = Field(0.1, ge=0, le=1, description="Share for validation while training.")
    test: float = Field(0.1, ge=0, le=1, description="Share kept for the figures of the finished model.")
    block_size: int = Field(4, ge=1, description="Side of a spatial block, in patches.")
    mask: str | None = Field(None, description="Raster on the XS grid: patches only where it is not 0.")
    nodata: float | None = Field(None, description="Nodata of XS and PAN where the files do not say it.")
    engine: Engine = Field("auto", description="native (rasterio, NumPy) or otb (Orfeo ToolBox); auto: native.")
    compat: Literal["none", "otbtf"] = Field("none", description="otbtf: OTBTF's own patches, its quirks included.")
    coregister: bool = Field(False, description="Shift the Sentinel-2 scene by the median shift that was measured.")
    harmonize: bool = Field(False, description="Bring the reference's bands to the scene's radiometry (slope, offset).")
    max_shift: float = Field(1.0, gt=0, description="Largest median shift of the pair, in Sentinel-2 pixels.")
    max_days: float = Field(60, gt=0, description="Most days between the two images.")
    min_correlation: float = Field(0.3, ge=0, le=1, description="Least correlation of each pair of bands.")
    force: bool = Field(False, description="Make the dataset though the pair is beyond these limits.")
    licence: str | None = Field(None, description="Licence of the reference's pixels, written into the card.")
    seed: int = Field(0, description="Seed of every random choice.")


class SimulateJob(_Job):
    """Make a Sentinel-2 image out of a finer one: the sensor's MTF, its sampling, its noise."""

    job: Literal["simulate"] = "simulate"
    image: str = Field(description="The finer image; its bands are Sentinel-2's by name, see bands.")
    output: Path = Field(description="GeoTIFF to write: the Sentinel-2 bands at their own spacing.")
    bands: list[str] = Field(
        default=["B04", "B03", "B02", "B08"], min_length=1, description="What each band of the image stands for."
    )
    spacing: float = Field(10.0, gt=0, description="Pixel size of the simulated image in metres.")
    gain: float = Field(1.0, gt=0, description="Image values times this are DN (reflectance times 10000).")
    noise: bool = Field(True, description="Add the instrument's noise.")
    seed: int = Field(0, description="Seed of the noise.")


class TrainJob(_Job):
    """Train a network on a dataset. Every field is also a key of the run's YAML file."""

    job: Literal["train"] = "train"
    datasets: list[Path] = Field(min_length=1, description="Dataset folders of one task, mixed by patch.")
    output: Path = Field(description="Folder of the run: configuration, logs, checkpoints, test figures.")
    network: str = Field(
        "auto",
        description="auto: coarsenet for sharpening, crossnet for cross-sensor. Sharpening: coarsenet, dsen2, vdsen2; "
        "cross-sensor: crossnet, srresnet.",
    )
    network_options: dict[str, Any] = Field(default_factory=dict, description=NETWORK_OPTIONS)
    initial_weights: Path | None = Field(
        None, description="Weights file (.weights.h5) or run to start from; a run may have more and wider blocks."
    )
    loss: Literal["l1", "l2"] = Field("l1", description="Mean absolute or mean squared error.")
    optimizer: Literal["adamw", "nadam"] = Field("adamw", description="How weights follow the gradient.")
    learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate.")
    schedule: Literal["cosine", "plateau"] = Field("cosine", description="How the learning rate falls.")
    warmup_steps: int = Field(200, ge=0, description="Steps in which the learning rate rises from zero.")
    weight_decay: float = Field(1e-4, ge=0, description="Decoupled weight decay (AdamW).")
    clip_norm: float = Field(0.5, gt=0, description="Largest norm of a step's gradient.")
    ema: float = Field(0.999, ge=0, lt=1, description="Decay of the running mean of weights; 0: none.")
    batch_size: int = Field(16, ge=1, description="Patches a step.")
    epochs: int = Field(100, ge=1, description="Passes over the training patches.")
    steps_per_epoch: int | None = Field(None, ge=1, description="None: as many as there are batches.")
    early_stopping: int = Field(20, ge=0, description="Epochs without a better validation RMSE; 0: never stop early.")
    dihedral: bool = Field(True, description="Eight orientations.")
    gain: float = Field(0.25, ge=0, description="Sigma of the log-normal gain common to all bands; 0: none.")
    band_gain: float = Field(0.15, ge=0, description="Sigma of the log-normal gain of each band; 0: none.")
    relations: float = Field(
        0.0, ge=0, description="Sigma of random shares of the fine bands that are added to the target's bands; 0: none."
    )
    balance: bool = Field(True, description="Divide each patch's loss by its mean absolute detail.")
    mixed_precision: Literal["auto", "off", "float16", "bfloat16"] = Field(
        "auto", description="Narrow numbers in training; auto: where the device gains by it."
    )
    quantized: bool = Field(
        False, description="Round weights and activations to 8 bits in the loop; start from a trained run's weights."
    )
    max_minutes: float | None = Field(None, gt=0, description="Bound on training time; the schedule follows it.")
    resume: bool = Field(False, description="Go on from the last checkpoint of the run's folder.")
    images: int = Field(4, ge=0, description="Patches shown in TensorBoard.")
    seed: int = Field(0, description="Seed of every random choice.")


class ExportJob(_Job):
    """Turn a finished run into a model folder: SavedModel, ONNX with a parity check, card."""

    job: Literal["export"] = "export"
    run: Path = Field(description="Folder of the run.")
    output: Path = Field(description="Model folder to write.")
    checkpoint: Literal["best", "last"] = Field("best", description="Which weights: best on validation, or last.")
    quantize: bool = Field(
        False, description="Also write model.int8.onnx; its ranges are a quantized run's, else calibrated on patches."
    )
    saved_model: bool = Field(True, description="Also write the TensorFlow SavedModel (OTBTF contract).")
    name: str | None = Field(None, description="Name in the card; the folder's name.")
    title: str | None = Field(None, description="One line in the card that says what the model does.")
    orientations: Literal[1, 2] = Field(
        1, description="2: also ask the network about the image turned by half, and average (twice the operations)."
    )


class AdaptJob(_Job):
    """Fine-tune a model on a scene itself at reduced scale; keeps the model where a held-out block does not gain."""

    job: Literal["adapt"] = "adapt"
    model: str = Field(description="Bundled name or model folder.")
    scene: str = Field(description="SAFE, zip, folder of bands, stacked GeoTIFF, STAC item (file or URL).")
    output: Path = Field(description="Model folder to write.")
    scene_options: SceneOptions = Field(default_factory=SceneOptions, description="How to read the scene.")
    roi: str | None = Field(None, description=ROI)
    max_minutes: float = Field(5.0, gt=0, description="Bound on the time of fine-tuning.")
    name: str | None = Field(None, description="Name in the card; the folder's name.")
    threads: int | None = Field(None, ge=1, description="Threads of the processor; all of them where not given.")
    allow_other_level: bool = Field(False, description="Use an L1C model on L2A or the reverse, with a warning.")
    seed: int = Field(0, description="Seed of every random choice.")


class ImportModelJob(_Job):
    """Make a model folder of another tool's network: otbtf's Python API, Keras, ONNX, published DSen2 weights."""

    job: Literal["import_model"] = "import_model"
    source: Path = Field(
        description="SavedModel folder, Keras file (.keras, .h5), ONNX file, or published DSen2 weights (HDF5)."
    )
    output: Path = Field(description="Model folder to write.")
    bands: list[str] = Field(
        default_factory=list, description="Bands of the input, in channel order; several inputs: NAME=B04,B03,..."
    )
    output_bands: list[str] = Field(default_factory=list, description="Bands of the output, in channel order.")
    output_name: str | None = Field(None, description="Which output, where the network has several.")
    scaling: float | None = Field(
        None, gt=0, description="A tensor's value times this is reflectance: 0.0001 for DN, 1 for reflectance."
    )
    output_scaling: float | None = Field(None, gt=0, description="The output's, where it is another than the input's.")
    resolution: float | None = Field(
        None, gt=0, description="Pixel size of the input in metres, where the output is finer than the input."
    )
    processing_level: Literal["L1C", "L2A"] | None = Field(None, description="What the network was trained on.")
    licence: str = Field("", description="Licence of the weights, written into the card.")
    transpose: bool = Field(False, description="DSen2 weights trained on transposed images (UP42's were).")
    saved_model: bool = Field(False, description="Also write the TensorFlow SavedModel (OTBTF contract).")
    name: str | None = Field(None, description="Name in the card; the folder's name.")


class SuperResolveJob(_Job):
    """Sharpen a scene's 20 m and 60 m bands to 10 m."""

    job: Literal["super_resolve"] = "super_resolve"
    scene: str = Field(description="SAFE, zip, folder of bands, stacked GeoTIFF, STAC item (file or URL).")
    output: Path = Field(description="GeoTIFF to write.")
    models: list[str] = Field(default_factory=list, description="Bundled names or folders; empty: what fits.")
    scene_options: SceneOptions = Field(default_factory=SceneOptions, description="How to read the scene.")
    roi: str | None = Field(None, description=ROI)
    bands: list[str] = Field(default_factory=list, description="Bands to write; empty: all that can be had.")
    device: Device = Field("auto", description="Where the network runs; auto: the fastest that is there.")
    threads: int | None = Field(None, ge=1, description="Threads of the processor; all of them where not given.")
    tile_size: int | None = Field(None, ge=60, description="Side of a window in 10 m pixels.")
    memory: int | None = Field(None, ge=200, description="MB that the process may use.")
    precision: Precision = Field("auto", description="Which of the model's variants; auto: the device's best.")
    format: Literal["gtiff", "cog"] = Field("gtiff", description="Tiled GeoTIFF or cloud-optimised GeoTIFF.")
    compression: Literal["deflate", "zstd"] = Field("deflate", description="Lossless compression of the pixels.")
    data_type: Literal["uint16", "float32"] = Field("uint16", description="DN as the input's, or reflectance.")
    consistency: int = Field(0, ge=0, le=2, description="Passes of back-projection.")
    adapt: float | None = Field(
        None, gt=0, description="Minutes to fine-tune the models on the scene first; needs the training packages."
    )
    allow_other_level: bool = Field(False, description="Use an L1C model on L2A or the reverse, with a warning.")
    engine: Engine = Field(
        "auto", description="otb: a cross-sensor model's SavedModel through OTBTF's TensorflowModelServe; auto: native."
    )


class EvaluateJob(_Job):
    """Wald's protocol on a real scene: degrade, super-resolve, compare with the original bands."""

    job: Literal["evaluate"] = "evaluate"
    model: str = Field(description="Bundled name or model folder.")
    scene: str = Field(description="SAFE, zip, folder of bands, stacked GeoTIFF, STAC item (file or URL).")
    scene_options: SceneOptions = Field(default_factory=SceneOptions, description="How to read the scene.")
    roi: str | None = Field(None, description=ROI)
    border: int = Field(6, ge=0, description="Pixels of the target grid left out along the scene's edge.")
    sigma: float | None = Field(None, gt=0, description="As in the dataset job; None: 1/factor.")
    json_file: Path | None = Field(None, description="Figures as JSON.")
    report: Path | None = Field(None, description="Report as one HTML page: figures, maps, histograms.")
    device: Device = Field("auto", description="Where the network runs; auto: the fastest that is there.")
    threads: int | None = Field(None, ge=1, description="Threads of the processor; all of them where not given.")
    precision: Precision = Field("auto", description="Which of the model's variants; auto: the device's best.")
    allow_other_level: bool = Field(False, description="Use an L1C model on L2A or the reverse, with a warning.")


class SimilarityJob(_Job):
    """How alike two images are; with ``consistency``, how well a super-resolved image keeps what its source shows."""

    job: Literal["similarity"] = "similarity"
    reference: str = Field(description="Raster to compare with; with --consistency the source: a scene or a raster.")
    image: str = Field(description="Raster to judge.")
    measures: list[MeasureName] = Field(default_factory=list, description="Measures; empty: all of the definition.")
    definition: Literal["reference", "up42"] = Field(
        "reference", description="The papers' formulas, or those of image-similarity-measures 0.3.6."
    )
    bands: list[str] = Field(default_factory=list, description="Bands by name or number; empty: all.")
    mask: str | None = Field(None, description="Raster on the reference's grid: only pixels where it is not 0 count.")
    nodata: float | None = Field(None, description="Nodata of both rasters where the files do not say it.")
    data_range: float | None = Field(
        None, gt=0, description="Largest minus smallest value that the images can have; not given: by type and scale."
    )
    ratio: float = Field(1.0, gt=0, description="How many times finer the image is than what it was made from (ERGAS).")
    resample: Literal["none", "nearest", "linear", "bicubic"] = Field(
        "none", description="Bring the image to the reference's grid; none: refuse images that differ in grid."
    )
    consistency: bool = Field(
        False, description="The reference is the source: degrade the image by the sensor's MTF, then compare."
    )
    source: str | None = Field(
        None, description="What the image was made from, a scene or a raster: adds the quantities of opensr-test."
    )
    json_file: Path | None = Field(None, description="Figures as JSON.")
    report: Path | None = Field(None, description="Report as one HTML page: figures, maps, histograms.")
    map: Path | None = Field(None, description="GeoTIFF of the measure in every place, see map_measure.")
    map_measure: Literal["uiq", "ssim", "sam"] = Field("uiq", description="What the map shows.")
    threads: int | None = Field(
        None, ge=1, description="Threads of the processor, some 100 MB each; not given: all of them, 4 at most."
    )


class CheckEnvironmentJob(_Job):
    """Versions, devices and bundled models of the environment that runs this job."""

    job: Literal["check_environment"] = "check_environment"


Job = Annotated[
    CreateSharpeningDatasetJob
    | SearchScenesJob
    | CreateCrossSensorDatasetJob
    | SimulateJob
    | TrainJob
    | ExportJob
    | ImportModelJob
    | AdaptJob
    | SuperResolveJob
    | EvaluateJob
    | SimilarityJob
    | CheckEnvironmentJob,
    Field(discriminator="job"),
]


@cache
def _adapter() -> TypeAdapter[Job]:
    return TypeAdapter(Job)


def parse(data: dict[str, Any]) -> Job:
    """The job that a dictionary (JSON from the plugin, YAML of a run) describes. Raises `InputError`."""
    try:
        job = _adapter().validate_python(data)
    except ValidationError as error:
        raise InputError(_sentence(error)) from error
    _check_names(job)
    return job


_NO_FILES = ("roi", "area", "licence", "title")
"""Fields of long text that is no name of a file."""


def _check_names(job: BaseModel) -> None:
    """Raise `InputError` for text that cannot name a file here: not UTF-8, or the home folder of nobody."""
    for name in type(job).model_fields:
        value = getattr(job, name)
        for text in map(str, value if isinstance(value, list) else [value]):
            if any(0xD800 <= ord(letter) <= 0xDFFF for letter in text):
                shown = text.encode("utf-8", "backslashreplace").decode()
                raise InputError(
                    f"The option '{name}' has a name that is not UTF-8 ({shown}), which GDAL cannot open; rename the "
                    "file or folder (convmv does that for many)."
                )
            if "\0" in text:
                raise InputError(f"The option '{name}' contains a null character, which no name of a file has.")
            longest = max((len(part.encode()) for part in text.replace("\\", "/").split("/")), default=0)
            if (
                longest > 255
                and name not in _NO_FILES
                and not isinstance(value, dict | BaseModel)
                and "://" not in text
            ):
                raise InputError(f"The option '{name}' has a name of {longest} bytes; names of files have 255 at most.")
            if text.startswith("~"):
                try:
                    Path(text).expanduser()
                except RuntimeError as error:
                    raise InputError(f"The option '{name}' is {text}, but there is no such home folder.") from error


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "job"
    value = first.get("input")
    shown = f" (got {value!r})" if isinstance(value, str | int | float) else ""
    return f"The option '{where}' is not usable{shown}: {first['msg'].lower()}."


def run(job: Job, progress: Progress | None = None) -> dict[str, Any]:
    """Run a job to its end and return its outputs (paths as strings, figures as numbers).

    ``assumptions`` are sentences on what was assumed about the inputs, each of which was logged as a warning, once.

    Raises a `core.errors.S2SRError` whose message is for the user; `Cancelled` when the user asked to stop.
    """
    progress = Once(progress or Progress())
    with running(progress):
        return _run(job, progress)


def _run(job: Job, progress: Progress) -> dict[str, Any]:
    if isinstance(job, CreateSharpeningDatasetJob):
        from .dataset.sharpening import create_sharpening_dataset

        return create_sharpening_dataset(job, progress)
    if isinstance(job, SearchScenesJob):
        from .scene.search import search_scenes

        return search_scenes(job, progress)
    if isinstance(job, CreateCrossSensorDatasetJob):
        from .dataset.cross_sensor import create_cross_sensor_dataset

        return create_cross_sensor_dataset(job, progress)
    if isinstance(job, SimulateJob):
        from .dataset.simulate import simulate

        return simulate(job, progress)
    if isinstance(job, TrainJob | ExportJob | ImportModelJob | AdaptJob):
        with _training_packages():
            return _run_training(job, progress)
    if isinstance(job, SuperResolveJob) and job.adapt:
        with _training_packages():
            from .training.adapted import super_resolve_adapted

            return super_resolve_adapted(job, progress)
    if isinstance(job, SuperResolveJob):
        from .inference.super_resolve import super_resolve

        return super_resolve(job, progress)
    if isinstance(job, EvaluateJob):
        from .inference.evaluate import evaluate

        return evaluate(job, progress)
    if isinstance(job, SimilarityJob):
        from .similarity.compare import compare

        return compare(job, progress)
    from .environment import check_environment

    return check_environment(progress)


def _run_training(job: TrainJob | ExportJob | ImportModelJob | AdaptJob, progress: Progress) -> dict[str, Any]:
    from .networks.base import CONTRACT_PROBLEM

    if CONTRACT_PROBLEM:
        progress.log(CONTRACT_PROBLEM, "warning")
    if isinstance(job, TrainJob):
        from .training.train import train

        return train(job, progress)
    if isinstance(job, ExportJob):
        from .training.export import export

        return export(job, progress)
    if isinstance(job, AdaptJob):
        from .training.adapt import adapt

        return adapt(job, progress)
    from .training.import_model import import_model

    return import_model(job, progress)


@contextmanager
def _training_packages() -> Iterator[None]:
    """Say in one sentence that the extra `train` is not installed. Raises `MissingPackageError`."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in TRAINING_PACKAGES:
            raise
        raise MissingPackageError(
            f"Training, export and adapting need the package {name}, which the Python at {sys.executable} lacks; run "
            "pip install 's2sr[train]' there, or 'Set up the environment' with training in QGIS."
        ) from error
