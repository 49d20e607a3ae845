import numpy as np
import pytest
from tiny_model import SIXTIES, TENS, TWENTIES, scene_numbers, tiny_model

from s2sr_qgis.core.errors import InputError, MissingPackageError, ModelError
from s2sr_qgis.core.inference.card import read_card, write_card
from s2sr_qgis.core.inference.model import bundled_models, choose, devices, find_model, load_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder, device="cpu", threads=1)


def reflectance(size=120, seed=1):
    return {band: dn.astype(np.float32) / 10000 for band, dn in scene_numbers(size, seed=seed).items()}


def test_predict_gives_ten_metre_reflectance(model):
    bands = reflectance()
    result = model.predict(bands)
    assert list(result) == TWENTIES
    assert {image.shape for image in result.values()} == {(120, 120)}
    assert {image.dtype for image in result.values()} == {np.dtype("float32")}
    for band, image in result.items():  # the tiny model adds detail to the resized band, so the two stay alike
        assert abs(image.mean() - bands[band].mean()) < 0.05


@pytest.mark.parametrize("task", ["20m", "60m"])
@pytest.mark.parametrize("tile_size", [6, 30, 66, 97])
def test_predict_does_not_depend_on_the_tile_size(tmp_path, task, tile_size):
    model = load_model(tiny_model(tmp_path / task, task), device="cpu", threads=1)
    bands = reflectance()
    whole, tiled = model.predict(bands, tile_size=1000), model.predict(bands, tile_size=tile_size)
    for band in whole:
        np.testing.assert_allclose(tiled[band], whole[band], atol=1e-6)


def test_predict_mirrors_at_the_edge(model):
    """A scene continued by its own mirror image is what the network sees beyond the edge."""
    bands = reflectance(60)
    doubled = {band: np.concatenate([image[:, ::-1], image], axis=1) for band, image in bands.items()}
    alone, inside = model.predict(bands), model.predict(doubled)
    for band in alone:
        np.testing.assert_allclose(inside[band][:, 60:], alone[band], atol=1e-6)


def test_sizes_that_are_no_multiples_are_padded(tmp_path, model):
    bands = reflectance(120)
    odd = {
        band: image[: 66 // (120 // image.shape[0]), : 54 // (120 // image.shape[0])] for band, image in bands.items()
    }
    card = read_card(tiny_model(tmp_path / "eight"))
    card.multiple = 8
    write_card(card, tmp_path / "eight")
    eight = load_model(tmp_path / "eight", device="cpu", threads=1)
    assert eight.multiple == 8
    result, expected = eight.predict(odd), model.predict(odd)
    for band, image in result.items():
        assert image.shape == (66, 54)
        np.testing.assert_allclose(image, expected[band], atol=1e-6)


def test_two_orientations_are_averaged(tmp_path, model):
    bands = reflectance()
    folder = tiny_model(tmp_path / "twice")
    card = read_card(folder)
    card.orientations = 2
    write_card(card, folder)
    turned = model.predict({band: image[::-1, ::-1] for band, image in bands.items()})
    plain = model.predict(bands)
    both = load_model(folder).predict(bands)
    for band, image in both.items():
        np.testing.assert_allclose(image, (plain[band] + turned[band][::-1, ::-1]) / 2, atol=1e-6)
    assert any(np.abs(both[band] - plain[band]).max() > 1e-3 for band in both)


def test_nan_stays_where_it_is(model):
    bands = reflectance()
    clean = model.predict(bands)
    bands["B05"][10:20, 5:9] = np.nan
    bands["B02"][40:60, 80:] = np.nan
    result = model.predict(bands)
    holes = np.zeros((120, 120), bool)
    holes[20:40, 10:18] = True
    np.testing.assert_array_equal(np.isnan(result["B05"]), holes)
    for band in TWENTIES[1:]:
        assert np.isfinite(result[band]).all()
    far = np.s_[70:, :60]  # beyond the radius of every hole nothing changes
    np.testing.assert_allclose(result["B05"][far], clean["B05"][far], atol=1e-6)
    assert np.nanmax(np.abs(result["B05"] - clean["B05"])) < 0.2  # and near one nothing is torn


def test_predict_does_not_depend_on_the_tile_size_with_holes(model):
    bands = reflectance(240, seed=3)
    rng = np.random.default_rng(0)
    for image in bands.values():
        image[rng.random(image.shape) < 0.3] = np.nan
    bands["B11"][:, 30:] = np.nan  # and one band ends earlier than the others
    whole, tiled = model.predict(bands, tile_size=1000), model.predict(bands, tile_size=46)
    for band in whole:
        np.testing.assert_allclose(tiled[band], whole[band], atol=1e-6)


def test_bands_without_a_valid_pixel(model):
    bands = reflectance()
    bands["B12"][:] = np.nan
    result = model.predict(bands)
    assert np.isnan(result["B12"]).all()
    assert np.isfinite(result["B05"]).all()


def test_missing_bands_name_both_lists(model):
    bands = {band: image for band, image in reflectance().items() if band not in ("B8A", "B12")}
    with pytest.raises(ModelError, match=r"takes B02.*B12, but there are only B02.*: B8A, B12 missing"):
        model.predict(bands)


def test_sizes_that_do_not_fit(model):
    bands = reflectance()
    bands["B05"] = bands["B05"][:-1]
    with pytest.raises(ModelError, match="B05 59 x 60"):
        model.predict(bands)


def test_checksum(tmp_path):
    folder = tiny_model(tmp_path / "broken")
    with (folder / "model.onnx").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(ModelError, match="does not match its card"):
        load_model(folder)


def test_file_that_the_card_names_is_missing(tmp_path):
    folder = tiny_model(tmp_path / "empty")
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"lacks the file model\.onnx"):
        load_model(folder)


def test_file_outside_the_folder_is_refused(tmp_path):
    folder = tiny_model(tmp_path / "sly")
    card = read_card(folder)
    card.files[0].file = "../sly/model.onnx"
    write_card(card, folder)
    with pytest.raises(ModelError, match="lacks the file"):
        load_model(folder)


def test_onnx_that_is_none(tmp_path):
    from s2sr_qgis.core.inference.card import sha256

    folder = tiny_model(tmp_path / "text")
    (folder / "model.onnx").write_text("no network")
    card = read_card(folder)
    card.files[0].sha256 = sha256(folder / "model.onnx")
    write_card(card, folder)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(folder)


def test_card_with_other_tensor_names(tmp_path):
    folder = tiny_model(tmp_path / "names")
    card = read_card(folder)
    card.inputs[0].name = "x"
    write_card(card, folder)
    with pytest.raises(ModelError, match="names the tensors"):
        load_model(folder)


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_network_that_gives_nan_is_told(model):
    bands = reflectance()
    bands["B05"][3, 3] = 1e38
    with pytest.raises(ModelError, match="not numbers"):
        model.predict(bands)


def test_devices(folder):
    assert "cpu" in devices()
    assert load_model(folder).device in devices()
    with pytest.raises(InputError, match="'tpu' is no device; the devices are auto, cpu"):
        load_model(folder, device="tpu")
    absent = next(device for device in ("coreml", "directml", "cuda") if device not in devices())
    with pytest.raises(MissingPackageError, match=rf"'{absent}' is not available: .*cpu"):
        load_model(folder, device=absent)


def test_precision(folder):
    assert load_model(folder).precision == "float32"
    with pytest.raises(ModelError, match="has no int8 variant; it has float32: choose one or 'auto'"):
        load_model(folder, precision="int8")


@pytest.fixture
def variants(tmp_path):
    """A model of three variants that differ in their weights, so that one sees which of them ran."""
    folder = tiny_model(tmp_path / "three")
    card = read_card(folder)
    for seed, precision in enumerate(("int8", "float16"), start=1):
        other = tiny_model(tmp_path / precision, seed=seed)
        (other / "model.onnx").rename(folder / f"model.{precision}.onnx")
        file = read_card(other).files[0].model_copy(update={"file": f"model.{precision}.onnx", "precision": precision})
        card.files.append(file)
    write_card(card, folder)
    return folder


@pytest.mark.parametrize("fast", [True, False])
def test_the_processor_decides(variants, monkeypatch, fast):
    monkeypatch.setattr("s2sr_qgis.core.inference.model.has_dot_products", lambda: fast)
    wanted = "int8" if fast else "float32"
    assert load_model(variants, device="cpu").precision == wanted
    bands = reflectance(60)
    automatic, asked = load_model(variants, "cpu").predict(bands), load_model(variants, "cpu", precision=wanted)
    np.testing.assert_array_equal(automatic["B05"], asked.predict(bands)["B05"])
    for precision in ("float32", "float16", "int8"):
        assert load_model(variants, "cpu", precision=precision).precision == precision


def test_a_variant_that_loses_too_much_is_used_only_on_request(variants, monkeypatch):
    monkeypatch.setattr("s2sr_qgis.core.inference.model.has_dot_products", lambda: True)
    card = read_card(variants)
    for loss, chosen in ((1.0, "int8"), (1.2, "float32")):
        card.files[1].metrics = {"loss_percent": loss}
        write_card(card, variants)
        assert load_model(variants, "cpu").precision == chosen
        assert load_model(variants, "cpu", precision="int8").precision == "int8"


@pytest.mark.parametrize(
    ("device", "precision"),
    [("cuda", "float16"), ("directml", "float16"), ("coreml", "float32"), ("cpu", "int8")],
)
def test_the_device_decides(variants, folder, monkeypatch, device, precision):
    monkeypatch.setattr("s2sr_qgis.core.inference.model.has_dot_products", lambda: True)
    assert choose(read_card(variants), device).precision == precision
    assert choose(read_card(folder), device).precision == "float32"  # what lacks the variant has float32


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_device_that_does_not_start_leaves_the_choice_to_the_processor(variants, monkeypatch):
    """ONNX Runtime that offers CUDA on a machine whose driver is missing goes on with the processor."""
    monkeypatch.setattr("s2sr_qgis.core.inference.model.has_dot_products", lambda: True)
    monkeypatch.setattr("s2sr_qgis.core.inference.model.devices", lambda: ["cuda", "cpu"])
    model = load_model(variants)
    assert (model.device, model.precision) == ("cpu", "int8")


def test_a_damaged_variant_is_told(variants, monkeypatch):
    monkeypatch.setattr("s2sr_qgis.core.inference.model.has_dot_products", lambda: True)
    (variants / "model.int8.onnx").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"model\.int8\.onnx does not match its card"):
        load_model(variants, "cpu")
    (variants / "model.int8.onnx").unlink()
    with pytest.raises(ModelError, match=r"lacks the file model\.int8\.onnx"):
        load_model(variants, "cpu")
    assert load_model(variants, "cpu", precision="float32").precision == "float32"


def test_neither_bundled_nor_folder(tmp_path):
    with pytest.raises(ModelError, match="neither a bundled model"):
        find_model("no_such_model")
    with pytest.raises(ModelError, match=r"has no card\.yaml"):
        load_model(tmp_path)


def test_bundled_models_are_found_by_name():
    for name, folder in bundled_models().items():
        assert find_model(name) == folder
        assert read_card(folder).name


def test_tiny_models_cover_the_bands(tmp_path):
    card = read_card(tiny_model(tmp_path / "sixty", "60m"))
    assert card.input_bands == [*TENS, *TWENTIES, *SIXTIES]
    assert card.output_bands == SIXTIES
