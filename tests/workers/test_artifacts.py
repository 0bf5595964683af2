"""Weights survive the way to disk and back bit by bit, and nothing else is ever loaded."""

import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from workers import artifacts
from workers.artifacts import Corrupted, digest_of, dump_state, load_state, write_state

torch.set_num_threads(1)


def bits(tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    flat = tensor.contiguous().reshape(-1).view(torch.uint8)
    return tensor.dtype, tuple(tensor.shape), bytes(flat.tolist())


STATE = {
    "weight": torch.tensor([[1.5, float("nan")], [float("-inf"), -0.0]]),
    "half": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
    "double": torch.tensor([1e-300], dtype=torch.float64),
    "steps": torch.tensor([7], dtype=torch.int64),
    "mask": torch.tensor([True, False]),
    "none": torch.empty(0, 3),
}


def test_a_state_comes_back_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    loaded = load_state(path, write_state(STATE, path))
    assert {name: bits(tensor) for name, tensor in loaded.items()} == {
        name: bits(tensor) for name, tensor in STATE.items()
    }


def test_a_scalar_comes_back_as_a_scalar(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    loaded = load_state(path, write_state({"batches": torch.tensor(3)}, path))
    assert loaded["batches"].shape == ()
    assert int(loaded["batches"]) == 3


def test_the_order_of_the_names_does_not_change_the_bytes() -> None:
    assert dump_state(dict(reversed(STATE.items()))) == dump_state(STATE)


def test_another_process_writes_the_same_bytes() -> None:
    program = (
        "import sys, torch; from workers.artifacts import dump_state;"
        "sys.stdout.buffer.write(dump_state({n: torch.arange(4.) for n in {'b', 'a', 'c', 'd'}}))"
    )
    other = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        check=True,
    )
    assert other.stdout == dump_state({name: torch.arange(4.0) for name in "abcd"})


def test_tied_and_strided_tensors_are_written_whole(tmp_path: Path) -> None:
    table = torch.arange(6.0).reshape(2, 3)
    state = {"in": table, "out": table, "transposed": table.T, "row": table[1]}
    path = tmp_path / "weights"
    loaded = load_state(path, write_state(state, path))
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_a_model_with_tied_weights_is_tied_again_after_loading(tmp_path: Path) -> None:
    def build() -> nn.Module:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    one, other = build(), build()
    path = tmp_path / "weights"
    other.load_state_dict(load_state(path, write_state(one.state_dict(), path)))
    assert other[1].weight is other[0].weight
    assert torch.equal(other[0].weight, one[0].weight)


def test_dumping_leaves_gradients_and_values_alone() -> None:
    weight = nn.Parameter(torch.ones(2))
    dump_state({"weight": weight})
    assert weight.requires_grad
    assert torch.equal(weight, torch.ones(2))


@pytest.mark.parametrize("value", [{"nested": 1}, None, torch.eye(2).to_sparse()])
def test_what_is_no_dense_tensor_is_refused_by_name(value: object) -> None:
    with pytest.raises(TypeError, match=r"'extra'.*dense"):
        dump_state({"extra": value})  # type: ignore[dict-item]


def test_a_file_with_another_digest_is_refused_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    digest = write_state(STATE, path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(artifacts.safetensors.torch, "load", lambda _: pytest.fail("parsed"))
    with pytest.raises(Corrupted, match=digest) as refused:
        load_state(path, digest)
    assert digest_of(bytes(content)) in str(refused.value)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        pickle.dumps(Bomb()),
        b"\xff" * 64,
        dump_state(STATE)[:-1],
        dump_state(STATE) + b"\0",
        (58).to_bytes(8, "little")
        + b'{"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}'
        + bytes(3),
    ],
    ids=["empty", "pickle", "noise", "cut", "longer", "unknown dtype"],
)
def test_only_safetensors_are_loaded_even_under_the_right_digest(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(Corrupted) as refused:
        load_state(path, digest_of(content))
    assert (
        str(refused.value) == f"{digest_of(content)} is no safetensors file that PyTorch can load"
    )


def test_who_reads_the_old_file_during_a_write_reads_it_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    write_state(STATE, path)
    with path.open("rb") as reader:
        beginning = reader.read(20)
        write_state({"other": torch.zeros(100)}, path)
        assert beginning + reader.read() == dump_state(STATE)


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    digest = write_state(STATE, path)

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_state({"other": torch.zeros(1)}, path)
    assert [found.name for found in tmp_path.iterdir()] == ["weights"]
    assert load_state(path, digest).keys() == STATE.keys()


def test_the_service_may_read_what_another_user_wrote(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    write_state(STATE, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
