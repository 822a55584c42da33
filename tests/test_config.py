"""The sweep file is checked as a whole, and each mistake is one line that says what to write."""

from pathlib import Path

import pytest

from fttune.config import load_sweep
from fttune.errors import ConfigError
from fttune.recipe import load_recipe

GOOD = """
name: small
grid:
  datasets: {digits: [5, 20], mine: {path: photos, images_per_class: 3, val: 2}}
  backbones: [tiny]
  random_top: [1, 2]
  seeds: [0, 1]
train: {lr: 1e-2, steps: 30}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


def test_defaults_that_depend_on_steps_are_filled_in(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path, GOOD))
    hparams = sweep.train.hparams()
    assert (hparams.lr, hparams.steps, hparams.lr_drop_steps, hparams.report_every) == (0.01, 30, (20,), 3)


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path, GOOD))
    assert sweep.grid.datasets["mine"].path == tmp_path / "photos"
    assert sweep.grid.datasets["mine"].images_per_class == (3,)


def test_overrides_change_one_value_each(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path, GOOD), ["train.steps=90", "grid.seeds=[7]", "tracking.experiment=other"])
    assert (sweep.train.steps, sweep.grid.seeds, sweep.tracking.experiment) == (90, (7,), "other")


def test_the_profile_of_the_paper_is_one_block_and_keys_beside_it_go_first(tmp_path: Path) -> None:
    hparams = load_sweep(write(tmp_path, GOOD), ["train={profile: paper}"]).train.hparams()
    assert (hparams.lr, hparams.copied_lr_scale, hparams.momentum, hparams.weight_decay) == (0.01, 0.2, 0.9, 5e-4)
    assert (hparams.batch_size, hparams.steps, hparams.lr_drop_steps) == (50, 2000, (444, 888, 1333, 1777))
    assert (hparams.views, hparams.image_size, hparams.resize) == ("crop", 227, "warp")
    assert (hparams.biases, hparams.dropout) == ("caffe", "all")
    short = load_sweep(write(tmp_path, GOOD), ["train={profile: paper, steps: 90, biases: plain}"]).train.hparams()
    assert (short.steps, short.lr_drop_steps, short.biases, short.batch_size) == (90, (20, 40, 60, 80), "plain", 50)


def test_images_come_from_one_place(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"grid\.datasets\.mine: images come from one place, but path and hf are given"
    ):
        load_sweep(write(tmp_path, GOOD), ["grid.datasets.mine.hf=x"])


def test_specs_written_out_join_the_product(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path, GOOD), ["grid.specs=['F(1)T(2-3)R(4)']"])
    assert [str(spec) for spec, _ in sweep.grid.asked(4)] == [
        "F(1-3)R(4)",
        "T(1-3)R(4)",
        "F(1-2)R(3-4)",
        "T(1-2)R(3-4)",
        "F(1)T(2-3)R(4)",
    ]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trian.lr=1", "unknown key in the sweep file 'trian'; did you mean 'train'?"),
        ("train.momentun=1", "unknown key in train 'momentun'; did you mean 'momentum'?"),
        ("grid.datasets.mine.pth=x", "unknown key in grid.datasets.mine 'pth'; did you mean 'path'?"),
        ("resources.gpu=1.5", "resources.gpu: must be 'auto', a fraction <= 1 or a whole number, but got 1.5"),
        ("resources.gpu=-1", "resources.gpu: must be 'auto', a fraction <= 1 or a whole number, but got -1"),
        ("resources.gpu=lots", "resources.gpu:"),
        ("grid.seeds=[0, 0]", "grid.seeds: '0' stands twice, which would make duplicate trials"),
        ("grid.datasets.digits=[5, 5]", "'5' stands twice"),
        ("grid.datasets={}", "grid.datasets:"),
        ("grid.random_top=[]", "needs random_top (with modes) or specs"),
        ("train.views=random", "train.views: unknown value 'random'; known: center, crop, fixed-K, flip"),
        ("train.dropout=all", "train.dropout: all needs train.views: crop (other views are cached), but got fixed-2"),
        ("train.profile=papr", "train.profile:"),
        ("train.lr=-1", "train.lr must be > 0, but got -1"),
        ("search.space={lr: [0, 1]}", "search.space.lr: a range is drawn log-uniformly, so 0 < low < high must hold"),
        ("search.space={weight_decay: [0, 1e-3]}", "a value of 0 is written {choices: [0, ...]}"),
        ("search.space={lr: [0.1, 0.01]}", "0 < low < high must hold, but got [0.1, 0.01]"),
        ("search.space={lr: [0.1, 0.1]}", "0 < low < high must hold, but got [0.1, 0.1]"),
        (
            "search.space={lr: {low: 0.1, high: 0.01}}",
            "search.space.lr: a range is drawn log-uniformly, so 0 < low < high must hold, but got [0.1, 0.01]",
        ),
        ("search.space={weight_decay: {low: 0, high: 1e-3}}", "must hold, but got [0, 0.001]; a value of 0 is written"),
        ("search.space={lr: {low: a, high: 1}}", "search.space.lr.Range.low: input should be a valid number"),
        ("search.space={lr: []}", "search.space.lr: needs [low, high] or a list of values to choose from, but got []"),
        (
            "search.space={lr: 0.1}",
            "search.space.lr: needs [low, high] or a list of values to choose from, but got 0.1",
        ),
        ("search.space={lr: {min: 0.1}}", "search.space.lr: needs [low, high] or a list of values to choose from"),
        ("search.space={lr: [0.1, .inf]}", "0 < low < high must hold, but got [0.1, inf]"),
        ("search.space={lrr: [0.1, 1]}", "unknown key in search.space 'lrr'; did you mean 'lr'?"),
        ("search.space={bn: [source, bach]}", "search.space.bn: input should be 'source' or 'batch', but got 'bach'"),
        ("search.space={momentum: [0.5, 1.5]}", "search.space.momentum: momentum must be in [0, 1), but got 1.5"),
        ("search.space={batch_size: [1.5, 8]}", "batch_size is a whole number, but got 1.5"),
        ("search.space={lr: [0.1, 0.1, 0.2]}", "a value stands twice in [0.1, 0.1, 0.2]"),
        ("search.space={lr: [true, 0.1, 0.2]}", "lr: a value to choose is a number or a word, but got True"),
        ("search.space={weight_decay: [.nan, 0.1, 0.2]}", "a value to choose is finite, but got nan"),
        ("search={sampler: tpe, space: {}}", "space has nothing to search in"),
        ("search={sampler: tpe, pruner: median, space: {steps: [10, 100]}}", "but steps are searched"),
        ("search.sampler=tpee", "search.sampler: input should be 'fixed', 'shared' or 'tpe', but got 'tpee'"),
        ("search.settings=0", "search.settings: input should be greater than or equal to 1, but got 0"),
        ("search.draws=0", "search.draws: input should be greater than or equal to 1, but got 0"),
        ("search.folds=1", "search.folds: input should be greater than or equal to 2, but got 1"),
        ("search.pruner=best", "search.pruner: input should be 'none' or 'median', but got 'best'"),
        ("grid.seeds=[-1]", "grid.seeds.0: input should be greater than or equal to 0, but got -1"),
        ("name=a/b", "name:"),
        ("grid.datasets.digits=yes", "should be a valid"),
        ("grid.seeds=5", "grid.seeds: input should be a list, but got 5"),
        ("analysis.image_bands=[50, 10]", "medium must begin above 0 and high above medium, but got [50.0, 10.0]"),
        ("train", "must read key.path=value"),
        ("name.x=1", "'name' holds a str, not keys"),
    ],
)
def test_a_mistake_is_one_line_with_the_nearest_right_thing(tmp_path: Path, override: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_sweep(write(tmp_path, GOOD), [override])
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n- b\n", "a sweep file is a mapping that starts with 'name:' and 'grid:', but got a list"),
        ("", "but got nothing"),
        ("name: [", "not YAML"),
        ("name: a\nname: b\n", "the key 'name' stands twice"),
        ("name: a\n", "grid: this key is required"),
    ],
)
def test_a_file_that_is_no_sweep_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_sweep(write(tmp_path, text))
    assert says in str(error.value)
    assert str(tmp_path / "sweep.yaml") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named_and_the_one_that_may_be_meant(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").touch()
    with pytest.raises(ConfigError, match=r"No such file or directory; did you mean '\S+/quickstart.yaml'\?$"):
        load_sweep(tmp_path / "quikstart.yaml")
    with pytest.raises(ConfigError, match=r"No such file or directory$"):
        load_sweep(tmp_path / "other.yaml")


SWEEPS = Path(__file__).parents[1] / "sweeps"
RECIPES = sorted(SWEEPS.glob("pretrain*.yaml"))


@pytest.mark.parametrize("path", sorted({*SWEEPS.glob("*.yaml")} - {*RECIPES}), ids=lambda p: p.stem)
def test_every_sweep_of_the_project_loads(path: Path) -> None:
    assert load_sweep(path).name == path.stem


def test_every_recipe_of_the_project_trains_a_network_that_a_sweep_names() -> None:
    wanted = {name for path in SWEEPS.glob("yosinski*.yaml") for name in load_sweep(path).grid.backbones}
    assert {load_recipe(path).network for path in RECIPES} == wanted


RECIPE = "name: mine\nbackbone: tiny\ndataset: digits\ntrain: {steps: 9, lr_drop_steps: [3]}\n"


def test_a_recipe_reads_paths_from_its_folder_and_names_its_source(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, RECIPE), ["dataset={path: photos, half: b}", "data.root=all"])
    assert (recipe.dataset.path, recipe.data.root) == (tmp_path / "photos", tmp_path / "all")
    assert (recipe.network, recipe.source) == ("tiny@mine", "photos half b")
    assert load_recipe(write(tmp_path, RECIPE)).source == "digits"
    assert recipe.train.hparams().views == "crop"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trian.lr=1", "unknown key in the recipe 'trian'; did you mean 'train'?"),
        ("train.momentun=1", "unknown key in train 'momentun'; did you mean 'momentum'?"),
        ("train.copied_lr_scale=1", "unknown key in train 'copied_lr_scale'"),
        ("dataset={paht: x}", "unknown key in dataset 'paht'; did you mean 'path'?"),
        ("dataset={}", "dataset needs the name of a dataset or one of of, path, torchvision, hf, parquet"),
        ("dataset={of: a, path: b}", "images come from one place, but of and path are given"),
        ("dataset={of: a, half: c}", "dataset.half: input should be 'a' or 'b', but got 'c'"),
        ("backbone=tiny@other", "backbone: string should match pattern"),
        ("name=a/b", "name:"),
        ("train={lr: 1}", "train.steps: this key is required"),
        ("train.lr=0", "train.lr must be > 0, but got 0"),
        ("checkpoint_every=0", "checkpoint_every: input should be greater than or equal to 1"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line(tmp_path: Path, override: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe(write(tmp_path, RECIPE), [override])
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_recipe_that_is_no_mapping_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a recipe is a mapping that starts with 'name:' and 'backbone:'"):
        load_recipe(write(tmp_path, "- a\n"))


@pytest.mark.parametrize(("name", "source"), [("paper", "imagenet"), ("yosinski", "imagenet500a")])
def test_every_row_of_table_2_is_measured_by_every_metric_from_the_papers_source(name: str, source: str) -> None:
    distance = load_sweep(SWEEPS / f"{name}.yaml").distance
    assert (distance.metrics, distance.source) == (("cosine", "mmd", "svm", "cnn"), source)
