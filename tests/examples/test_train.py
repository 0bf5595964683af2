"""The training program as somebody runs it: a process, its output and the file it leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lethe_examples.digits import Digits
from lethe_examples.train import main
from workers.artifacts import load_state

FAST_RECIPE = """
from lethe_examples import digits
digits.EPOCHS = 2
class Fast(digits.Digits): pass
"""


def run(
    folder: Path, *arguments: str, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(path or "")}
    return subprocess.run(
        [sys.executable, "-m", "lethe_examples.train", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def install(folder: Path) -> Path:
    """Lay out an installed package with one entry point, as pip would."""
    (folder / "acme_fast.py").write_text(FAST_RECIPE)
    info = folder / "acme_fast-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-fast\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lethe.recipes]\nfast = acme_fast:Fast\n")
    return folder


def test_one_line_of_json_on_stdout_progress_on_stderr_and_weights_in_the_file(
    tmp_path: Path,
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    done = run(
        tmp_path, "fast", "--seed", "5", "--out", "model.safetensors", path=install(packages)
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert done.stderr.splitlines()[-1].startswith("epoch 2 of 2: mean loss ")
    recipe, model = Digits(), Digits().build_model()
    model.load_state_dict(load_state(tmp_path / "model.safetensors", report["digest"]))
    assert report["holdout_metric"] == recipe.metric(model, recipe.holdout_data())
    assert report["training_metric"] == recipe.metric(model, recipe.training_data())
    assert (report["recipe"], report["seed"], report["records"]) == ("fast", 5, 600)
    assert 0 < report["seconds"] < 60
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["model.safetensors", "packages"]
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_an_unknown_recipe_names_the_installed_ones_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dogits", "--out", str(tmp_path / "model.safetensors")]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "'dogits'" in output.err
    assert "digits, fashion_mnist" in output.err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_noticed_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["digits", "--out", str(tmp_path / "absent" / "model.safetensors")])
    assert f"there is no folder {tmp_path / 'absent'}" in capsys.readouterr().err
