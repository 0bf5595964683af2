"""The rows of the planner's benchmark, made by PostgreSQL itself: synthetic, all of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from app.privacy import digest_sample_id
from embedded.servers import Servers

MODELS = """
    INSERT INTO registered_models (id, name, recipe, checkpoint_digest, policy, status,
        check_attempts, data_fingerprint, id_key_id, sample_count, current_version_id, created_at)
    SELECT md5('model ' || i)::uuid, 'synthetic-' || i, 'synthetic', 'sha256:none', '{}', 'ready',
        1, 'sha256:none', 'synthetic', %(samples)s, md5('version ' || i)::uuid, now()
    FROM generate_series(1, %(models)s) i
"""
VERSIONS = """
    INSERT INTO model_versions (id, model_id, number, digest, size_bytes, debt_samples, debt_drift,
        status, created_at)
    SELECT md5('version ' || i)::uuid, md5('model ' || i)::uuid, 1, 'sha256:' || i, 1, 0, 0,
        'current', now()
    FROM generate_series(1, %(models)s) i
"""
MANIFESTS = """
    INSERT INTO manifest_entries (model_id, sample_digest)
    SELECT md5('model ' || i)::uuid, sha256(('sample ' || i || '/' || j)::bytea)
    FROM generate_series(1, %(models)s) i CROSS JOIN generate_series(1, %(samples)s) j
"""
KNOWN = """
    INSERT INTO manifest_entries (model_id, sample_digest)
    VALUES (md5('model ' || %(n)s %% %(models)s + 1)::uuid, %(digest)s)
"""
INDEX = "CREATE INDEX ix_manifest_entries_sample_digest ON manifest_entries (sample_digest)"
# Requests of the last twenty days, with one sample of one model each.
ASKED = """
    CREATE TEMPORARY TABLE asked AS
    SELECT md5('request ' || n)::uuid AS id, md5('model ' || i)::uuid AS model_id, at, regulation,
        sha256(('sample ' || i || '/' || n / %(models)s + 1)::bytea) AS digest,
        CASE regulation WHEN 'gdpr' THEN at + interval '1 month'
            WHEN 'ccpa' THEN at + interval '45 days' END AS due_at
    FROM generate_series(0, %(pending)s - 1) n
    CROSS JOIN LATERAL (SELECT n %% %(models)s + 1 AS i, (ARRAY['gdpr', 'ccpa', 'none'])[n %% 3 + 1]
        AS regulation, now() - interval '20 days' * (n::bigint * 7919 %% 99991) / 99991 AS at) drawn
"""
REQUESTS = """
    INSERT INTO deletion_requests (id, client, body_digest, regulation, sample_count, id_key_id,
        status, received_at, due_at)
    SELECT id, 'synthetic', digest, regulation, 1, 'synthetic', 'pending', at, due_at FROM asked
"""
SAMPLES = "INSERT INTO requested_samples SELECT id, digest FROM asked"
ERASURES = """
    INSERT INTO erasures (id, request_id, model_id, sample_count, status, created_at, due_at)
    SELECT gen_random_uuid(), id, model_id, 1, 'pending', at, due_at FROM asked
"""
FILLED = """registered_models, model_versions, manifest_entries, deletion_requests,
    requested_samples, erasures"""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is loaded: erasures and samples over all models."""

    models: int
    pending: int
    manifest: int


def load(servers: Servers, size: Size, known: list[str], id_key: bytes) -> None:
    """Fill the migrated database ``full``, and make ``tenth`` with a tenth of the erasures.

    The samples of the known ids come on top, in the manifest of one model each.
    """
    numbers = {"models": size.models, "samples": size.manifest // size.models}
    with _loading(servers, "full") as run:
        run(MODELS, numbers)
        run(VERSIONS, numbers)
        run("DROP INDEX ix_manifest_entries_sample_digest", {})
        run(MANIFESTS, numbers)
        for position, id_ in enumerate(known):
            run(KNOWN, {**numbers, "n": position, "digest": digest_sample_id(id_key, id_)})
        run(INDEX, {})
    servers.create_database("tenth", template="full")
    for database, share in (("full", 1), ("tenth", 10)):
        with _loading(servers, database) as run:
            run(ASKED, {**numbers, "pending": size.pending // share})
            for statement in (REQUESTS, SAMPLES, ERASURES):
                run(statement, {})


@contextmanager
def _loading(servers: Servers, database: str) -> Iterator[Callable[[str, dict[str, Any]], Any]]:
    with servers.postgres.connect_as_admin(database) as connection:
        # Without a look at each foreign key: they hold by construction.
        connection.execute("SET session_replication_role = replica")
        # What is not flushed yet would not count as visible to all, and index-only scans need that.
        connection.execute("SET synchronous_commit = on")
        yield connection.execute
        # Not those that are still empty: PostgreSQL would take them for empty ever after, and look
        # through all of the log for each entry that refers to another one.
        connection.execute(f"VACUUM (ANALYZE) {FILLED}")
