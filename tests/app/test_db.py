"""One engine for each process."""

import threading
from typing import Any

import pytest

from app import db

THREADS = 8


def test_threads_that_ask_at_once_share_one_engine(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    create, second = db.create_engine, threading.Event()
    begun: list[int] = []

    def slowly(*arguments: Any, **options: Any) -> Any:
        begun.append(threading.get_ident())
        # Whoever gets in beside the first ends the waiting; nobody should.
        if len(begun) > 1:
            second.set()
        second.wait(0.3)
        return create(*arguments, **options)

    monkeypatch.setattr(db, "create_engine", slowly)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(db.engine())) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 1
    assert len(found) == THREADS
    assert {id(engine) for engine in found} == {id(db.engine())}
