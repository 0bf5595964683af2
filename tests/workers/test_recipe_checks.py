"""Each fault of a recipe is named, alone and together with all others, and no sample ID ever is."""

from typing import Any

import pytest
import torch

from lethe.recipe import MapDataset, Recipe
from tests.workers.faulty_recipes import (
    MARK,
    RECORDS,
    Tiny,
    codes,
    failing,
    ids,
    message,
    problems,
    records,
    squared,
    state_of,
    variant,
)


def test_nothing_is_wrong_with_a_good_recipe() -> None:
    assert problems(Tiny()) == []


@pytest.mark.parametrize(
    ("code", "method"),
    [
        ("ids.read", failing),
        ("ids.sequence", lambda _: "a" * RECORDS),
        ("ids.sequence", lambda _: None),
        ("ids.sequence", lambda _: (f"{MARK}-{index}" for index in range(RECORDS))),
        ("ids.sequence", lambda _: {f"{MARK}-{index}": index for index in range(RECORDS)}),
        ("ids.type", ids(at3=17)),
        ("ids.type", ids(at3=MARK.encode())),
        ("ids.empty", ids(at3="")),
        ("ids.long", ids(at3=MARK + "é" * 128)),
        ("ids.nul", ids(at3=MARK + "\0")),
        ("ids.surrogate", ids(at3=MARK + "\ud83d")),
        ("ids.duplicate", ids(at3=f"{MARK}-4")),
        ("ids.count", lambda _: [f"{MARK}-{index}" for index in range(RECORDS - 1)]),
    ],
)
def test_a_fault_of_the_sample_ids_is_named_alone(code: str, method: Any) -> None:
    assert codes(variant(sample_ids=method)) == [code]


def test_an_id_of_exactly_256_bytes_is_fine() -> None:
    assert codes(variant(sample_ids=ids(at3="é" * 128))) == []


def test_ids_in_a_new_order_each_time_are_noticed() -> None:
    calls = iter(range(100))
    method = lambda _: [f"{MARK}-{(index + next(calls)) % 9}-{index}" for index in range(RECORDS)]  # noqa: E731
    assert codes(variant(sample_ids=method)) == ["ids.order"]


def test_faulty_ids_are_counted_and_their_positions_listed_up_to_ten() -> None:
    assert message(variant(sample_ids=lambda _: [""] + [f"{MARK}{i}" for i in range(11)])) == (
        "1 sample IDs are empty; at index 0"
    )
    numbers = variant(sample_ids=lambda _: list(range(12)))
    assert message(numbers) == (
        "12 sample IDs are not str; at index 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
    )


def test_duplicates_are_counted_beyond_the_first_of_each() -> None:
    repeated = [f"{MARK}-{index % 5}" for index in range(RECORDS)]
    assert message(variant(sample_ids=lambda _: repeated)).startswith("7 sample IDs repeat")


class Broken:
    """A dataset that has a length and no readable record."""

    def __len__(self) -> int:
        return RECORDS

    def __getitem__(self, index: int) -> Any:
        return failing()


class Endless:
    """A dataset without a length."""

    def __len__(self) -> int:
        return int(failing())

    def __getitem__(self, index: int) -> Any:
        return records()[index % RECORDS]


class Noisy:
    """A dataset that augments what it reads."""

    def __len__(self) -> int:
        return RECORDS

    def __getitem__(self, index: int) -> Any:
        image, label = records()[index]
        return image + torch.randn(3), label


@pytest.mark.parametrize(
    ("expected", "methods"),
    [
        (["data.read"], {"training_data": failing}),
        (["data.read"], {"holdout_data": failing}),
        (["data.length"], {"training_data": lambda _: Endless()}),
        (["data.empty", "ids.count"], {"training_data": lambda _: []}),
        (["data.empty"], {"holdout_data": lambda _: []}),
        (["data.items"], {"training_data": lambda _: Broken()}),
        (["data.order"], {"training_data": lambda _: Noisy()}),
        (["batch_size"], {"batch_size": 0, "metric": lambda *_: 1.0}),
        (["batch_size"], {"batch_size": "64", "metric": lambda *_: 1.0}),
    ],
)
def test_a_fault_of_the_data_is_named_alone(expected: list[str], methods: dict[str, Any]) -> None:
    assert codes(variant(**methods)) == expected


def test_an_empty_holdout_does_not_hide_a_broken_metric() -> None:
    assert codes(variant(holdout_data=lambda _: [], metric=failing)) == [
        "data.empty",
        "metric.run",
    ]


def test_a_dataset_shuffled_at_each_call_is_noticed() -> None:
    calls = iter(range(1, 100))

    def shuffled(_: Recipe) -> MapDataset:
        shift = next(calls)
        return [records()[(index + shift) % RECORDS] for index in range(RECORDS)]

    assert codes(variant(training_data=shuffled)) == ["data.order"]


def test_nested_records_with_missing_values_count_as_the_same_when_they_are() -> None:
    def nested(_: Recipe) -> MapDataset:
        return [
            {"x": x, "more": (float("nan"), ["text", torch.tensor(float("nan"))]), "y": y}
            for x, y in records()
        ]

    recipe = variant(
        training_data=nested,
        holdout_data=nested,
        losses=lambda _, model, batch: (model(batch["x"]) - batch["y"]) ** 2,
    )
    assert codes(recipe) == []


def test_a_collate_that_was_not_made_static_is_named() -> None:
    def collate(items: list[Any]) -> Any:
        return torch.utils.data.default_collate(items)

    found = problems(variant(collate=collate, metric=lambda *_: 1.0))
    assert {problem.code for problem in found} == {"data.batch"}
    assert "staticmethod" in found[0].message
    assert codes(variant(collate=staticmethod(collate))) == []


def test_all_problems_are_reported_at_once() -> None:
    faulty: list[Any] = [f"{MARK}-0"] * 3 + ["", 5, MARK * 20, MARK + "\0", MARK + "\ud800"]
    calls = iter(range(100))
    recipe = variant(
        sample_ids=lambda _: [*faulty, f"{MARK}-{next(calls)}"],
        training_data=lambda _: Noisy(),
        holdout_data=lambda _: [],
        losses=lambda *a: squared(*a).detach().unsqueeze(1) / 0,
        entropies=lambda *_: torch.zeros(2, 2, dtype=torch.int64),
        metric=lambda *_: float("nan"),
        batch_size=-1,
    )
    state = state_of()
    del state["1.bias"]
    state |= {
        "1.weight": torch.zeros(9),
        "0.weight": torch.full((3,), torch.nan, dtype=torch.float64),
        "extra": torch.zeros(1),
    }
    assert sorted(codes(recipe, state)) == [
        "batch_size",
        "data.empty",
        "data.order",
        "entropies.dtype",
        "entropies.shape",
        "ids.count",
        "ids.duplicate",
        "ids.empty",
        "ids.long",
        "ids.nul",
        "ids.order",
        "ids.surrogate",
        "ids.type",
        "losses.finite",
        "losses.gradient",
        "losses.shape",
        "metric.finite",
        "weights.dtype",
        "weights.finite",
        "weights.missing",
        "weights.shape",
        "weights.unexpected",
    ]


def test_when_every_method_raises_each_is_named_once() -> None:
    names = ("sample_ids", "training_data", "holdout_data", "build_model", "losses", "metric")
    found = problems(variant(**dict.fromkeys(names, failing)))
    assert [problem.code for problem in found] == [
        "ids.read",
        "model.build",
        "data.read",
        "data.read",
    ]


def test_a_recipe_that_exits_does_not_take_the_worker_with_it() -> None:
    def leave(_: Recipe) -> Any:
        raise SystemExit(MARK)

    assert codes(variant(training_data=leave)) == ["data.read"]
