"""A clock that the test winds."""


class Clock:
    """Stands still until it is set forward, in seconds."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at
