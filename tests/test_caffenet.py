"""CaffeNet is Caffe's network, and its published files are read as Caffe wrote them or refused by name."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from caffe import CAFFENET, Form, Layers, caffemodel, caffenet, message, number, text, varint
from fttune.backbones import catalog
from fttune.backbones.caffemodel import read_caffemodel
from fttune.backbones.staged import check_staged, output_shapes
from fttune.errors import UsageError, WeightsError
from fttune.layers import LayerSpec
from fttune.training.surgery import apply_spec

RNG = np.random.default_rng(0)
SMALL: Layers = {
    "conv1": (RNG.standard_normal((4, 3, 5, 5), np.float32), RNG.standard_normal(4, np.float32)),
    "conv2": (RNG.standard_normal((6, 2, 3, 3), np.float32), RNG.standard_normal(6, np.float32)),
    "fc3": (RNG.standard_normal((7, 24), np.float32), RNG.standard_normal(7, np.float32)),
}


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> nn.Sequential:
    path = tmp_path_factory.mktemp("caffe") / "made.caffemodel"
    path.write_bytes(caffemodel(caffenet()))
    return catalog.load("caffenet", weights=path)


def read(folder: Path, content: bytes) -> dict[str, Tensor]:
    path = folder / "net.caffemodel"
    path.write_bytes(content)
    return read_caffemodel(path)


def caffe_forward(layers: Layers, images: Tensor) -> Tensor:
    """The prototxt of bvlc_reference_caffenet, line by line, on BGR images less their mean; logits."""

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
        weight, bias = map(torch.from_numpy, layers[name])
        return functional.conv2d(x, weight, bias, stride, padding, 1, groups).relu()

    def linear(x: Tensor, name: str) -> Tensor:
        weight, bias = map(torch.from_numpy, layers[name])
        return functional.linear(x, weight, bias)

    def pool(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, 2, ceil_mode=True)

    def lrn(x: Tensor) -> Tensor:
        squares = functional.pad(x.square(), (0, 0, 0, 0, 2, 2))
        summed = torch.stack([squares[:, start : start + x.shape[1]] for start in range(5)]).sum(0)
        return x / (1 + 1e-4 / 5 * summed) ** 0.75

    x = lrn(pool(conv(images, "conv1", stride=4)))
    x = lrn(pool(conv(x, "conv2", padding=2, groups=2)))
    x = conv(conv(x, "conv3", padding=1), "conv4", padding=1, groups=2)
    x = pool(conv(x, "conv5", padding=1, groups=2)).flatten(1)
    return linear(linear(linear(x, "fc6").relu(), "fc7").relu(), "fc8")


def test_the_network_in_rgb_is_caffe_s_network_in_bgr(net: nn.Sequential) -> None:
    pixels = torch.randint(0, 256, (2, 3, 227, 227), generator=torch.Generator().manual_seed(0)).float()
    row = catalog.find("caffenet")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (row.mean, row.std))
    with torch.no_grad():
        ours = net((pixels / 255 - mean) / std)
        theirs = caffe_forward(caffenet(), pixels[:, [2, 1, 0]] - torch.tensor([104.0, 117, 123]).view(3, 1, 1))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert ours.std() > 0.01


def test_it_has_eight_layers_and_60_965_224_values(net: nn.Sequential) -> None:
    check_staged(net, depth=8, image_size=227)
    counts = [sum(p.numel() for p in stage.parameters()) for stage in net]
    assert counts == [34_944, 307_456, 885_120, 663_936, 442_624, 37_752_832, 16_781_312, 4_097_000]
    assert sum(counts) == 60_965_224


def test_at_227_pixels_nothing_is_rounded() -> None:
    net = catalog.outline("caffenet")
    assert output_shapes(net, 227)[:6] == [
        (96, 27, 27), (256, 13, 13), (384, 13, 13), (384, 13, 13), (9216,), (4096,),
    ]  # fmt: skip


def test_the_sizes_of_the_row_are_those_the_network_takes() -> None:
    row, net = catalog.find("caffenet"), catalog.outline("caffenet")
    assert row.max_image_size is not None
    fits = []
    for size in range(180, 250):
        try:
            output_shapes(net, size)
        except RuntimeError:
            continue
        fits.append(size)
    assert fits == list(range(row.min_image_size, row.max_image_size + 1))
    with pytest.raises(UsageError, match=r"train\.image_size: caffenet takes at most 230 px, but got 256"):
        row.check_size("train.image_size", 256)


def test_new_layers_start_from_caffe_s_fillers(net: nn.Sequential) -> None:
    spec = LayerSpec.parse("T(1-3)R(4-8)", depth=8)
    student = apply_spec(net, spec, classes=5, bn="source", seed=1, fills=catalog.find("caffenet").fills)
    for stage, (name, (_, std, bias)) in zip(student.trained, CAFFENET.items(), strict=True):
        values = dict(stage.named_parameters())
        weight = next(value for key, value in values.items() if key.endswith("weight"))
        if int(name[-1]) > 3:
            assert weight.std().item() == pytest.approx(std, rel=0.05), name
            assert all((value == bias).all() for key, value in values.items() if key.endswith("bias")), name


def test_fresh_values_are_caffe_s_too() -> None:
    built = catalog.build("caffenet").state_dict()
    for name, (shape, std, bias) in CAFFENET.items():
        place = {"fc7": "6.1", "fc8": "7.1"}.get(name, f"{int(name[-1]) - 1}.0")
        assert built[f"{place}.weight"].shape == shape
        assert built[f"{place}.weight"].std().item() == pytest.approx(std, rel=0.05)
        assert (built[f"{place}.bias"] == bias).all()


@pytest.mark.parametrize("form", ["v1", "v2", "unpacked", "double"])
def test_every_form_of_the_file_gives_the_same_values(tmp_path: Path, form: Form) -> None:
    values = read(tmp_path, caffemodel(SMALL, form))
    assert list(values) == [f"{name}.{part}" for name in SMALL for part in ("weight", "bias")]
    for name, (weight, bias) in SMALL.items():
        np.testing.assert_array_equal(values[f"{name}.bias"], bias)
        if name != "conv1":
            np.testing.assert_array_equal(values[f"{name}.weight"], weight)


def test_the_layer_that_sees_images_is_turned_from_bgr_to_rgb(tmp_path: Path) -> None:
    values = read(tmp_path, caffemodel(SMALL))
    np.testing.assert_array_equal(values["conv1.weight"].flip(1), SMALL["conv1"][0])


def fc(dimensions: bytes, values: bytes = b"") -> bytes:
    """A layer `fc` of one blob, in the new form."""
    return message(100, text(1, "fc") + message(7, message(7, dimensions) + values))


LAYER = text(1, "fc") + message(7, message(7, message(1, varint(2) + varint(3))) + message(5, bytes(4 * 5)))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a whole caffemodel: cannot mmap an empty file"),
        (b"PK\x03\x04" + bytes(20), "not a caffemodel with weights|unknown wire type|cut short"),
        (caffemodel(SMALL)[:-3], "a field of .* bytes, but .* are left: it is cut short"),
        (text(1, "CaffeNet"), "no layer has any"),
        (message(100, LAYER), "layer 'fc', weight: the shape .2, 3. needs 6 values, but 5 are there"),
        (caffemodel(SMALL) + caffemodel(SMALL), "layer 'conv1' stands twice"),
        (caffemodel({"bn": [np.ones(2, np.float32)] * 3}), "layer 'bn' has more than two blobs, not weights and"),
        (fc(number(1, 2**63)), "layer 'fc', weight: a dimension of 9223372036854775808"),
        (fc(number(1, 2**31 - 1)), "layer 'fc', weight: the shape .2147483647. needs 2147483647 values, but 0 are"),
        (fc(number(1, 0)), "layer 'fc', weight: a dimension of 0"),
        (fc(message(1, varint(2**62) * 100_000)), "layer 'fc', weight: a shape of more than 32 dimensions"),
        (fc(number(1, 1), message(5, bytes(2)) * 2), "layer 'fc', weight: 2 bytes of values of 4 bytes each"),
        (message(100, text(1, "a\nb")), "a layer's name is not text: 'a.nb'"),
        (varint(100 << 3 | 2) + varint(2**62), "a field of 4611686018427387904 bytes, but 0 are left"),
        (b"\xff" * 12, "a number is longer than ten bytes"),
        (caffemodel({"fc": [np.full(2, 1e300)]}, "double"), "layer 'fc', weight: a value is too large for 32 bits"),
    ],
)
def test_what_is_no_whole_caffemodel_is_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(WeightsError, match=says) as error:
        read(tmp_path, content)
    assert str(tmp_path / "net.caffemodel") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ({"conv1": SMALL["conv1"]}, r"weights of another network: no value for 1\.0\.weight"),
        (SMALL, "weights of another network: no value for .* and no place for caffe.fc3.weight"),
        (
            {name: (np.zeros((2, *shape[1:3], 1)[: len(shape)], np.float32), np.zeros(2, np.float32))
             for name, (shape, _, _) in CAFFENET.items() if name != "fc6"} | {"fc6": SMALL["fc3"]},
            r"weights of another network: 0\.0\.weight must be \[96, 3, 11, 11\], but is \[2, 3, 11, 1\]",
        ),
    ],
)  # fmt: skip
def test_weights_of_another_network_are_refused(tmp_path: Path, layers: Layers, says: str) -> None:
    path = tmp_path / "other.caffemodel"
    path.write_bytes(caffemodel(layers))
    with pytest.raises(WeightsError, match=says):
        catalog.load("caffenet", weights=path)


def test_caffes_names_in_another_kind_of_file_are_refused_for_their_channels(tmp_path: Path) -> None:
    """Nobody turned their first layer from BGR to RGB."""
    path = tmp_path / "converted.pth"
    torch.save({"conv1.weight": torch.zeros(96, 3, 11, 11)}, path)
    with pytest.raises(WeightsError, match=r"no place for conv1\.weight"):
        catalog.load("caffenet", weights=path)


def test_a_missing_file_is_named_with_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        WeightsError,
        match=r"bvlc_reference_caffenet.caffemodel: put BVLC's file \(SHA-1 4c8d77de\w{32}\) there, or name a file",
    ):
        catalog.load("caffenet")
    with pytest.raises(WeightsError, match=r"none.caffemodel: cannot read the weights: No such file"):
        catalog.load("caffenet", weights=tmp_path / "none.caffemodel")


def test_reading_takes_no_more_memory_than_a_few_times_the_file(tmp_path: Path) -> None:
    content = caffemodel({"fc": [np.ones((100, 1000), np.float32)]}, "unpacked")
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    read_caffemodel(path)  # torch is imported by now
    tracemalloc.start()
    read_caffemodel(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(content)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_never_more(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    form: Form = data.draw(st.sampled_from(["v1", "v2", "unpacked", "double"]))
    content = bytearray(caffemodel({"fc3": (SMALL["fc3"][0][:2, :3], SMALL["fc3"][1][:2])}, form))
    content = content[: data.draw(st.integers(0, len(content)))]
    for place in data.draw(st.lists(st.integers(0, max(0, len(content) - 1)), max_size=3)):
        content[place : place + 1] = [data.draw(st.integers(0, 255))]
    path = tmp_path_factory.getbasetemp() / "damaged.caffemodel"
    path.write_bytes(content)
    try:
        values = read_caffemodel(path)
    except WeightsError as error:
        values, said = {}, str(error)
    else:
        said = f"{path}: read"
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    assert sum(value.numel() for value in values.values()) <= len(content) / 4
