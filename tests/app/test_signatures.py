"""Signatures of weights: downloaded beside them, and kept in order by the scrub."""

from collections.abc import Callable
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from app.artifacts import ArtifactStore
from app.scrub import leftovers
from app.scrub.leftovers import Kind
from app.settings import settings
from tests.app.scrubbing import DAY, check, look, make_old, orphan, publish

BUNDLE = b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}'
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def store() -> ArtifactStore:
    return ArtifactStore(settings().artifacts_folder)


def sign(digest: str) -> None:
    with store().incoming() as file:
        file.write(BUNDLE)
        file.keep_as_signature_of(digest)


def test_the_signature_of_the_current_weights_is_downloaded_and_that_of_no_others(
    client: TestClient, register: Callable[..., UUID]
) -> None:
    model_id = register("m")
    assert client.get("/v1/models/m/current/signature").status_code == 409
    first = check(model_id)
    unsigned = client.get("/v1/models/m/current/signature")
    assert unsigned.status_code == 404
    assert "lethe weights sign" in unsigned.json()["detail"]
    sign(first.digest)
    for place in ("current", "versions/1"):
        answer = client.get(f"/v1/models/m/{place}/signature")
        assert (answer.status_code, answer.content) == (200, BUNDLE)
        assert answer.headers["Content-Type"] == MEDIA_TYPE
        assert 'filename="m-1.safetensors.sig"' in answer.headers["Content-Disposition"]
    publish(first, b"others")
    assert client.get("/v1/models/m/versions/1/signature").status_code == 410
    assert client.get("/v1/models/m/versions/2/signature").status_code == 404
    assert client.get("/v1/models/m/versions/3/signature").status_code == 404
    assert client.get("/v1/models/none/current/signature").status_code == 404
    without_key = client.get("/v1/models/m/current/signature", headers={"Authorization": ""})
    assert without_key.status_code == 401


@pytest.mark.usefixtures("environment")
def test_a_signature_goes_with_its_file_and_is_nothing_strange() -> None:
    digest = orphan()
    sign(digest)
    report = look()
    assert [(each.kind, each.digest) for each in report.leftovers] == [(Kind.UNREFERENCED, digest)]
    assert (report.foreign, report.young) == ((), 0)
    look(remove_leftovers=True)
    assert [path for path in store().folder.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("environment")
def test_a_signature_without_its_file_is_a_leftover_once_it_is_old() -> None:
    digest = orphan()
    sign(digest)
    store().path_of(digest).unlink()
    path = store().signature_path_of(digest)
    assert (look().leftovers, look(remove_leftovers=True).young) == ((), 1)
    make_old(path)
    (found,) = look().leftovers
    assert (found.kind, found.path, found.removed) == (Kind.SIGNATURE, path, False)
    # Its file comes back before it is removed, and with it somebody who needs both.
    store().put([b"of a superseded attempt"])
    assert leftovers.remove(store(), [found], DAY) == []
    assert path.is_file()
    store().path_of(digest).unlink()
    (done,) = look(remove_leftovers=True).leftovers
    assert (done.removed, path.exists()) == (True, False)


@pytest.mark.usefixtures("environment")
def test_a_signature_of_a_file_that_was_moved_away_by_a_link_is_no_leftover() -> None:
    digest = orphan()
    sign(digest)
    make_old(store().signature_path_of(digest))
    path = store().path_of(digest)
    path.rename(store().folder.parent / "another-disk")
    path.symlink_to(store().folder.parent / "another-disk")
    assert look().leftovers == ()


@pytest.mark.usefixtures("environment")
def test_a_name_like_that_of_a_signature_is_not_taken_for_one() -> None:
    digest = orphan()
    path = store().path_of(digest)
    for name in (path.name + ".sig.sig", "g" + path.name[1:] + ".sig", path.name[:-1] + ".sig"):
        (path.parent / name).write_bytes(b"")
    assert len(look().foreign) == 3
    assert store().find_signature("../" + digest) is None
