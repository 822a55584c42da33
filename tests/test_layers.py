"""Layer specs read and print in the paper's notation, and refuse what has no meaning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fttune.errors import SpecError
from fttune.layers import LayerSpec, Mode

counts = st.integers(min_value=0, max_value=12)
specs = st.builds(LayerSpec, frozen=counts, tuned=counts, random=st.integers(min_value=1, max_value=12))


@given(specs)
def test_a_printed_spec_reads_back_as_itself(spec: LayerSpec) -> None:
    assert LayerSpec.parse(str(spec), depth=spec.depth) == spec


@pytest.mark.parametrize(
    ("text", "spec", "mode"),
    [
        ("T(1-7)R(8)", (0, 7, 1), Mode.TUNE),
        ("F(1-5)R(6-8)", (5, 0, 3), Mode.FREEZE),
        ("F(1-3)T(4-7)R(8)", (3, 4, 1), Mode.MIXED),
        ("F(1)T(2)R(3)", (1, 1, 1), Mode.MIXED),
        ("R(1-8)", (0, 0, 8), Mode.SCRATCH),
        (" t(1 - 7) r(8) ", (0, 7, 1), Mode.TUNE),
    ],
)
def test_the_papers_notation_is_read(text: str, spec: tuple[int, int, int], mode: Mode) -> None:
    parsed = LayerSpec.parse(text)
    assert (parsed.frozen, parsed.tuned, parsed.random) == spec
    assert parsed.mode is mode


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("F(1-3)T(5-7)R(8)", "has a gap: T(5-7) must start at 4"),
        ("F(1-3)T(3-7)R(8)", "has an overlap: T(3-7) must start at 4"),
        ("T(2-7)R(8)", "has a gap: T(2-7) must start at 1"),
        ("T(1-8)", "write T(1-7)R(8)"),
        ("T(1-9)R(10)", "has 10 layers, but the network has 8: write T(1-7)R(8)"),
        ("F(1-9)R(10)", "write F(1-7)R(8)"),
        ("F(1-2)T(3)R(4)", "write F(1-2)T(3-7)R(8)"),
        ("R(1-9)", "write R(1-8)"),
        ("T(7-1)R(8)", "write T(1-7) for T(7-1)"),
        ("R(8)T(1-7)", "must have F before T before R"),
        ("T(1-3)T(4-7)R(8)", "each at most once"),
        ("freeze all", "cannot read layer spec 'freeze all': write groups from the bottom up"),
        ("", "cannot read layer spec ''"),
    ],
)
def test_a_wrong_spec_is_told_what_to_write(text: str, says: str) -> None:
    with pytest.raises(SpecError) as error:
        LayerSpec.parse(text, depth=8)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@given(specs, st.integers(min_value=1, max_value=20))
def test_the_spec_to_write_instead_fits(spec: LayerSpec, depth: int) -> None:
    if spec.depth == depth:
        return
    with pytest.raises(SpecError) as error:
        LayerSpec.parse(str(spec), depth=depth)
    assert LayerSpec.parse(str(error.value).rpartition("write ")[2], depth=depth).depth == depth


@given(specs)
def test_every_layer_is_of_one_kind(spec: LayerSpec) -> None:
    kinds = [spec.kind_of(layer) for layer in range(1, spec.depth + 1)]
    assert kinds == ["frozen"] * spec.frozen + ["tuned"] * spec.tuned + ["random"] * spec.random


def test_a_spec_without_a_new_layer_cannot_be_made() -> None:
    with pytest.raises(SpecError, match=r"write T\(1-7\)R\(8\)"):
        LayerSpec(frozen=0, tuned=8, random=0)
