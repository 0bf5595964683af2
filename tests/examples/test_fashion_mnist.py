"""Reading IDX files strictly, and the recipe on top. The small files made here are synthetic."""

import gzip
import struct
from pathlib import Path

import pytest
import torch

from lethe_examples.fashion_mnist import DEBIAN_FOLDER, DatasetMissing, FashionMnist
from lethe_examples.idx import NotIdx, read_idx
from workers.recipe_checks import check_recipe


def idx(shape: tuple[int, ...], values: bytes, type_code: int = 8) -> bytes:
    return bytes([0, 0, type_code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + values


def synthetic_folder(folder: Path, training: int = 40, holdout: int = 20) -> Path:
    """Write four small synthetic IDX files: an image of class c is a stripe at row 2 c."""
    for name, count, pack in (
        ("train", training, gzip.compress),
        ("t10k", holdout, bytes),
    ):
        images = torch.zeros(count, 28, 28, dtype=torch.uint8)
        labels = torch.arange(count, dtype=torch.uint8) % 10
        for row, label in enumerate(labels):
            images[row, 2 * int(label)] = 255 - row
        suffix = ".gz" if pack is gzip.compress else ""
        (folder / f"{name}-images-idx3-ubyte{suffix}").write_bytes(
            pack(idx((count, 28, 28), images.numpy().tobytes()))
        )
        (folder / f"{name}-labels-idx1-ubyte{suffix}").write_bytes(
            pack(idx((count,), labels.numpy().tobytes()))
        )
    return folder


def test_an_idx_file_is_read_in_row_major_order(tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    path.write_bytes(idx((2, 3), bytes([1, 2, 3, 4, 5, 255])))
    assert read_idx(path, (None, 3)).tolist() == [[1, 2, 3], [4, 5, 255]]
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert read_idx(path, (2, None)).tolist() == [[1, 2, 3], [4, 5, 255]]


def test_an_empty_idx_file_is_read_as_no_records(tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    path.write_bytes(idx((0, 3), b""))
    assert read_idx(path, (None, 3)).shape == (0, 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "starts with"),
        (idx((4,), bytes(4)), "starts with"),
        (idx((2, 2), bytes(16), type_code=0x0D), "starts with"),
        (idx((2, 2), bytes(4))[:7], "ends within its header"),
        (idx((2, 3), bytes(6)), "dimensions"),
        (idx((2, 2), bytes(3)), "truncated"),
        (idx((2, 2), bytes(5)), "truncated or damaged"),
        (idx((4_000_000_000, 2), b""), "truncated"),
        (gzip.compress(idx((2, 2), bytes(4)), mtime=0)[:-9], "gzip"),
        (gzip.compress(idx((2, 2), bytes(4)), mtime=0)[:-8] + bytes(8), "gzip"),
        (b"\x1f\x8bnothing", "gzip"),
    ],
)
def test_what_is_not_exactly_the_file_expected_is_refused(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "numbers"
    path.write_bytes(content)
    with pytest.raises(NotIdx, match=reason):
        read_idx(path, (None, 2))


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    whole = idx((2, 2), bytes([9, 8, 7, 6]))
    path = tmp_path / "numbers"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(NotIdx):
            read_idx(path, (None, 2))


def test_plain_and_gzipped_files_give_the_same_records(tmp_path: Path) -> None:
    recipe = FashionMnist(synthetic_folder(tmp_path))
    image, label = recipe.holdout_data()[3]
    twin, twin_label = recipe.training_data()[3]
    assert torch.equal(image, twin)
    assert int(label) == int(twin_label) == 3
    assert image.shape == (1, 28, 28)
    assert float(image.max()) == pytest.approx(252 / 255)


def test_absent_files_name_the_package_that_brings_them(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match=r"dataset-fashion-mnist.*FASHION_MNIST_FOLDER"):
        FashionMnist(tmp_path).training_data()


def test_the_environment_names_folder_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASHION_MNIST_FOLDER", str(synthetic_folder(tmp_path)))
    monkeypatch.setenv("FASHION_MNIST_TRAINING_RECORDS", "15")
    recipe = FashionMnist()
    assert len(recipe.training_data()) == len(set(recipe.sample_ids())) == 15
    assert len(recipe.holdout_data()) == 20
    assert recipe.sample_ids()[14] == "article/train-00014"


@pytest.mark.parametrize("count", [0, -1])
def test_a_training_set_without_records_is_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        FashionMnist(tmp_path, training_records=count)


def test_images_and_labels_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    folder = synthetic_folder(tmp_path)
    labels = folder / "t10k-labels-idx1-ubyte"
    labels.write_bytes(idx((19,), bytes(19)))
    with pytest.raises(NotIdx, match="20 images and 19 labels"):
        FashionMnist(folder).holdout_data()
    labels.write_bytes(idx((20,), bytes([*range(19), 10])))
    with pytest.raises(NotIdx, match="label of 18"):
        FashionMnist(folder).holdout_data()


def test_it_learns_the_synthetic_stripes_the_same_way_for_the_same_seed(tmp_path: Path) -> None:
    recipe = FashionMnist(synthetic_folder(tmp_path, 200), epochs=25)
    models = [recipe.build_model() for _ in range(2)]
    for model in models:
        recipe.train(model, recipe.training_data(), seed=3)
    assert all(
        torch.equal(one, other)
        for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True)
    )
    assert recipe.metric(models[0], recipe.holdout_data()) == 1.0
    assert check_recipe(recipe, models[0].state_dict(), torch.device("cpu")) == []


def test_the_real_files_hold_what_zalando_published() -> None:
    if not DEBIAN_FOLDER.is_dir():
        pytest.skip("install Debian's package dataset-fashion-mnist to run this")
    recipe = FashionMnist(DEBIAN_FOLDER)
    training, holdout = recipe.training_data(), recipe.holdout_data()
    assert (len(training), len(holdout)) == (60_000, 10_000)
    for data in (training, holdout):
        counts = torch.bincount(data.tensors[1], minlength=10)
        assert counts.tolist() == [len(data) // 10] * 10
    assert [int(training[index][1]) for index in range(5)] == [9, 0, 0, 3, 0]
    # The normalisation constants that public code for this data set uses.
    assert float(training.tensors[0].mean()) == pytest.approx(0.2860, abs=5e-5)
    assert float(training.tensors[0].std()) == pytest.approx(0.3530, abs=5e-5)
