"""What can stop a method.

::

    UnlearningError
    ├── Cancelled    the caller no longer wants the result; another attempt may go through
    ├── EmptySet     permanent: a set of records that the method needs holds none
    ├── NoReferences permanent: the method is to use reference losses, and none are known
    ├── NotFinite    permanent: a loss, a gradient or a weight became NaN or infinite
    └── StaleLedger  permanent: the gradient ledger is not that of these weights and this data

*Permanent*: the same method on the same weights and data ends the same way again; another method
may still do it. ``lethe.recipe.CannotTrain`` passes through and is permanent too. No message names
a parameter: a model may keep one for each person, under that person's sample ID.
"""


class UnlearningError(Exception):
    """A method did not finish; no weights came out of it."""


class Cancelled(UnlearningError):
    """The caller asked to stop."""

    def __init__(self, message: str = "cancelled by the caller") -> None:
        """Take a message, so that it may also be raised without one."""
        super().__init__(message)


class EmptySet(UnlearningError):
    """A set of records that the method needs is empty."""

    def __init__(self, which: str) -> None:
        """Name the set: forget, retain or holdout."""
        super().__init__(f"the {which} set holds no records, and the method needs some of them")


class NoReferences(UnlearningError):
    """No reference loss is known for any record to forget."""

    def __init__(self) -> None:
        """Say what to do about it."""
        super().__init__(
            "no reference loss is known for any record of the forget set; have the model's "
            "references made, or let the method's targets be 'auto' or 'validation'"
        )


class NotFinite(UnlearningError):
    """A number that must be finite is not."""

    def __init__(self, what: str) -> None:
        """Name the quantity, as in "the mean loss of the retain set"."""
        super().__init__(f"{what} is not finite; try a smaller learning rate")


class StaleLedger(UnlearningError):
    """A gradient ledger does not fit, and so is not used."""

    def __init__(self, why: str) -> None:
        """Say what does not fit, as in "the weights differ"."""
        super().__init__(f"the gradient ledger does not fit: {why}; have it computed anew")
