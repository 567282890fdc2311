"""Readable errors at the public boundary: they name who, what was expected, what was found, and where they can, why."""

from pathlib import Path

import pytest
import torch

from rlmin.checks import check, check_names, require

T, B, D = 7, 3, 5


def test_matching_axes_are_returned_by_name() -> None:
    assert check("x", torch.zeros(T, B, D), "T B D") == {"T": T, "B": B, "D": D}
    assert check("x", torch.zeros(T, B, D), "T B ...") == {"T": T, "B": B}
    assert check("x", torch.zeros(T, B), "T B ...") == {"T": T, "B": B}
    assert check("x", torch.zeros(T, B), "T B", B=B) == {"T": T, "B": B}


def test_sizes_of_other_axes_are_passed_on() -> None:
    assert check("start", torch.zeros(T, B), "T B", **check("x", torch.zeros(T, B, D), "T B D"))["D"] == D


@pytest.mark.parametrize(
    ("shape", "axes", "size", "message"),
    [
        ((T,), "T B", {}, "x: expected [T, B], got [7]"),
        ((T, B, D), "T B", {}, "x: expected [T, B], got [7, 3, 5]"),
        ((T,), "T B ...", {}, "x: expected [T, B, ...], got [7]"),
        ((T, D), "T B", {"B": B}, "x: expected [T, B=3], got [7, 5]"),
        ((T, B, D), "T B D", {"D": 4}, "x: expected [T, B, D=4], got [7, 3, 5]"),
    ],
)
def test_a_wrong_shape_is_named_with_the_axes_wanted(
    shape: tuple[int, ...], axes: str, size: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        check("x", torch.zeros(shape), axes, **size)
    assert str(caught.value) == message


def test_only_batch_first_input_is_called_so() -> None:
    with pytest.raises(ValueError, match="rlmin is time-major, this looks like"):
        check("x", torch.zeros(B, T), "T B", B=B)
    with pytest.raises(ValueError) as caught:
        check("x", torch.zeros(T, T), "T B", B=B)
    assert "time-major" not in str(caught.value)


def test_an_unknown_name_is_answered_with_the_nearest_one() -> None:
    check_names("setting", ["gamma"], ["gamma", "lam"])
    check_names("setting", [], [])
    with pytest.raises(ValueError, match="no setting 'gama'; did you mean 'gamma'"):
        check_names("setting", ["lam", "gama"], ["gamma", "lam"])
    with pytest.raises(ValueError, match="no setting 'xyz'; known: gamma, lam"):
        check_names("setting", ["xyz"], iter(["lam", "gamma"]))


def test_a_package_that_is_missing_names_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert require("torch.nn", extra="export") is torch.nn
    with pytest.raises(ImportError, match=r"no_such_package is not installed; .*rlmin\[export\]"):
        require("no_such_package", extra="export")
    with pytest.raises(ImportError, match=r"rlmin\[hub\]"):
        require("no_such_package.part", extra="hub")
    (tmp_path / "lame.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="No module named 'no_such_package'"):
        require("lame", extra="hub")  # it is installed; what it misses is not ours to name
