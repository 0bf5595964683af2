"""Says everything that is wrong with a recipe and its checkpoint, in one list.

The rule of ``workers.recipes`` holds here, too: no message quotes what came out of the data.
"""

import math
from collections.abc import Callable, Mapping, Sequence, Sized
from functools import partial
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import Subset, default_collate

from app.privacy import LONGEST_SAMPLE_ID_BYTES
from lethe._passes import to_device
from lethe.recipe import MapDataset, Recipe
from workers.recipe_weights import check_weights, layout, listed
from workers.recipes import Findings, Problem, attempt

T = TypeVar("T")

PROBED_RECORDS = 8  # enough to see a fault of every record, cheap for the largest model
LOSS_TOLERANCE = 1e-3
"""Largest |difference| / (1 + |loss|) between an example alone and the same one in a batch.

Kernels sum in another order for another batch size, TF32 rounds at 5e-4; batch statistics and
dropout move a loss by far more. Half precision gets the square package of its own epsilon.
"""


def check_recipe(
    recipe: Recipe, state: Mapping[str, Tensor], device: torch.device
) -> list[Problem]:
    """Return everything that is wrong with a recipe and its checkpoint; empty if nothing is.

    Raises nothing for the user's faults. Reads all sample IDs, a few training records, and the
    metric of the holdout data. Where the weights do not fit, losses are checked untrained.
    """
    found = Findings(type(recipe).__module__.partition(".")[0])
    ids = _check_ids(found, recipe)
    model = _check_model(found, recipe)
    check_weights(found, model, state, set(ids or ()))
    training = _check_data(found, "training_data()", recipe.training_data)
    holdout = _check_data(found, "holdout_data()", recipe.holdout_data)
    if training is not None and ids is not None and len(training) != len(ids):
        found.add("ids.count", f"{len(ids)} sample IDs for {len(training)} training records")
    size = found.run("batch_size", "batch_size", lambda: recipe.batch_size)
    if not isinstance(size, Problem | int) or (isinstance(size, int) and size < 1):
        found.add("batch_size", "batch_size is not a positive int")
    if model is not None:
        moved = partial(model.to, device)
        if isinstance(found.run("model.device", f"moving the model to {device}", moved), Problem):
            model = None
        else:
            model.eval()
    if training is not None and len(training) > 0:
        count = min(PROBED_RECORDS, len(training))
        indices = [i * len(training) // count for i in range(count)]
        items = _check_items(found, recipe, training, indices)
        if model is not None and items is not None:
            _check_outputs(found, recipe, model, items, device)
        # An empty holdout must not hide a fault of the metric.
        if holdout is None or len(holdout) == 0:
            holdout = Subset(training, indices)  # type: ignore[arg-type]
    if model is not None and holdout is not None and len(holdout) > 0:
        _check_metric(found, recipe, model, holdout)
    return found.problems


def _check_ids(found: Findings, recipe: Recipe) -> list[str | None] | None:
    reads = [found.run("ids.read", "sample_ids()", lambda: _ids(recipe)) for _ in range(2)]
    ids = reads[0]
    if isinstance(ids, Problem):
        return None
    if ids is None:
        found.add("ids.sequence", "sample_ids() is not a sequence of str; return a list or tuple")
        return None
    if not isinstance(reads[1], Problem) and ids != reads[1]:
        found.add("ids.order", "two calls of sample_ids() differ; index i must keep its sample")
    texts = [(index, id_) for index, id_ in enumerate(ids) if id_ is not None]
    octets = [(index, id_.encode("utf-8", "surrogatepass")) for index, id_ in texts]
    faults = {
        "ids.type": ("are not str", [i for i, id_ in enumerate(ids) if id_ is None]),
        "ids.empty": ("are empty", [i for i, id_ in texts if not id_]),
        "ids.long": (
            f"are longer than {LONGEST_SAMPLE_ID_BYTES} bytes of UTF-8",
            [i for i, id_ in octets if len(id_) > LONGEST_SAMPLE_ID_BYTES],
        ),
        "ids.nul": ("hold a NUL character", [i for i, id_ in octets if b"\0" in id_]),
        "ids.surrogate": (
            "hold a lone surrogate, which UTF-8 cannot encode",
            [i for i, id_ in texts if any("\ud800" <= letter <= "\udfff" for letter in id_)],
        ),
    }
    for code, (what, where) in faults.items():
        if where:
            found.add(code, f"{len(where)} sample IDs {what}; at index {listed(where)}")
    repeated = len(texts) - len({id_ for _, id_ in texts})
    if repeated:
        found.add("ids.duplicate", f"{repeated} sample IDs repeat an earlier one; make each unique")
    return ids


def _ids(recipe: Recipe) -> list[str | None] | None:
    """Return the IDs with None in place of each that is no str, or None for no sequence."""
    ids: object = recipe.sample_ids()
    if isinstance(ids, str | bytes | Mapping) or not isinstance(ids, Sized):
        return None
    # What is not even iterable raises here, and what raises here is a Problem.
    return [id_ if isinstance(id_, str) else None for id_ in ids]  # type: ignore[attr-defined]


def _check_model(found: Findings, recipe: Recipe) -> nn.Module | None:
    built = [found.run("model.build", "build_model()", recipe.build_model) for _ in range(2)]
    models = [model for model in built if isinstance(model, nn.Module)]
    if len(models) + sum(isinstance(model, Problem) for model in built) < 2:
        found.add("model.type", "build_model() does not return a torch.nn.Module")
    if len(models) < 2:
        return models[0] if models else None
    first, second = models
    if first is second:
        found.add("model.shared", "build_model() returned one object twice; build a new one")
    layouts = found.run("model.state", "state_dict()", lambda: [layout(m) for m in models])
    if not isinstance(layouts, Problem) and layouts[0] != layouts[1]:
        found.add("model.varies", "two calls of build_model() differ in names, shapes or dtypes")
    if any(tensor.device.type != "cpu" for tensor in [*first.parameters(), *first.buffers()]):
        found.add("model.cpu", "build_model() does not leave the model on the CPU")
    return first


def _check_data(found: Findings, what: str, read: Callable[[], MapDataset]) -> MapDataset | None:
    dataset = found.run("data.read", what, read)
    if isinstance(dataset, Problem):
        return None
    length = found.run("data.length", f"len({what})", lambda: len(dataset))
    if isinstance(length, Problem):
        return None
    if length == 0:
        found.add("data.empty", f"{what} holds no records")
    return dataset


def _batch(recipe: Recipe, items: list[Any], device: torch.device) -> Any:
    return to_device((recipe.collate or default_collate)(items), device)


def _check_items(
    found: Findings, recipe: Recipe, training: MapDataset, indices: Sequence[int]
) -> list[Any] | None:
    """Read the same records twice from one dataset and once from another; return the first read.

    Compared as batches, since the items may be of any type.
    """
    cpu = torch.device("cpu")
    sources: list[Callable[[], MapDataset]] = [lambda: training] * 2 + [recipe.training_data]
    reads, batches = [], []
    for source in sources:
        items = found.run("data.items", "reading training records", partial(_read, source, indices))
        if isinstance(items, Problem):
            continue
        doing = "collating training records (is collate a staticmethod?)"
        batch = found.run("data.batch", doing, partial(_batch, recipe, items, cpu))
        reads.append(items)
        batches.append(batch)
    doing = "comparing training records"
    if found.run("data.items", doing, lambda: all(_same(batches[0], b) for b in batches)) is False:
        found.add(
            "data.order",
            "reading an index of training_data() twice gave two records; remove shuffling, "
            "augmentation and other randomness",
        )
    return reads[0] if reads else None


def _read(source: Callable[[], MapDataset], indices: Sequence[int]) -> list[Any]:
    dataset = source()
    return [dataset[index] for index in indices]


def _same(one: Any, other: Any) -> bool:
    """Compare what reaches the model, tensors and numbers; objects of other types pass."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and bool(((one == other) | ((one != one) & (other != other))).all())
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, str | bytes | int | float):
        return bool(one == other or (one != one and other != other))
    return type(one) is type(other)


def _check_outputs(
    found: Findings, recipe: Recipe, model: nn.Module, items: list[Any], device: torch.device
) -> None:
    """Check losses and entropies of a batch, and each loss against the example's alone."""
    batch = attempt(found.package, "", "", lambda: _batch(recipe, items, device))
    if isinstance(batch, Problem):  # named already when the items were read
        return
    count = len(items)
    entropies = found.run("entropies.run", "entropies()", lambda: recipe.entropies(model, batch))
    if entropies is not None:
        _check_values(entropies, found, "entropies", count)
    losses = found.run("losses.run", "losses()", lambda: recipe.losses(model, batch))
    if not isinstance(losses, Tensor):
        _check_values(losses, found, "losses", count)
        return
    _check_gradient(found, model, losses)
    if not _check_values(losses, found, "losses", count):
        return
    tolerance = max(LOSS_TOLERANCE, torch.finfo(losses.dtype).eps ** 0.5)

    def loss_alone(item: Any) -> Tensor:
        return recipe.losses(model, _batch(recipe, [item], device))

    for row, item in enumerate(items):
        doing = "losses() of a batch of one"
        alone = found.run("losses.run", doing, partial(loss_alone, item))
        if not _check_values(alone, found, "losses", 1):
            return
        if (alone[0] - losses[row]).abs() > tolerance * (1 + losses[row].abs()):
            found.add(
                "losses.companions",
                "the loss of an example alone differs from its loss in a batch, in eval mode; "
                "remove batch statistics, dropout and division by the batch's size",
            )
            return


def _check_values(values: object, found: Findings, what: str, count: int) -> TypeGuard[Tensor]:
    """Tell whether losses or entropies are as they should be: (B,), floating, finite."""
    before = len(found.problems)
    if isinstance(values, Problem):
        return False
    if not isinstance(values, Tensor):
        found.add(f"{what}.type", f"{what}() returns no Tensor but {type(values).__name__}")
        return False
    shape = tuple(values.shape)
    if shape != (count,):
        found.add(f"{what}.shape", f"{what}() has shape {shape} for {count} examples, not (B,)")
    if not values.is_floating_point():
        found.add(f"{what}.dtype", f"{what}() is {values.dtype}, not floating point")
    if not torch.isfinite(values).all():
        found.add(f"{what}.finite", f"{what}() of training records is not finite")
    return len(found.problems) == before


def _check_gradient(found: Findings, model: nn.Module, losses: Tensor) -> None:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    gradients: Any = ()
    if weights and losses.requires_grad:
        gradients = found.run(
            "losses.backward",
            "backward from losses()",
            lambda: torch.autograd.grad(losses.sum(), weights, allow_unused=True),
        )
    if isinstance(gradients, Problem):
        return
    gradients = [gradient for gradient in gradients if gradient is not None]
    if not gradients:
        found.add("losses.gradient", "losses() has no gradient in any parameter of the model")
    if not all(torch.isfinite(gradient).all() for gradient in gradients):
        found.add("losses.gradient_finite", "the gradient of losses() is not finite")


def _check_metric(found: Findings, recipe: Recipe, model: nn.Module, holdout: MapDataset) -> None:
    value = found.run("metric.run", "metric()", lambda: float(recipe.metric(model, holdout)))
    if not isinstance(value, Problem) and not math.isfinite(value):
        found.add("metric.finite", f"metric() of the holdout data is {value}")
