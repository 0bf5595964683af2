"""What the fuzzer cannot know: how our media types are written, and what is on the server.

Only cases that are to be accepted are changed; those that are to be refused stay as drawn.
"""

import json
import os
import struct
from collections.abc import Callable
from itertools import count
from typing import Any
from uuid import uuid4

import schemathesis
from schemathesis import Case, HookContext, SerializationContext
from schemathesis.generation import GenerationMode
from schemathesis.generation.meta import TestPhase
from schemathesis.transport.requests import REQUESTS_TRANSPORT

NDJSON = "application/x-ndjson"
SAFETENSORS = "application/vnd.safetensors"
# The smallest checkpoint: the length of a header, the header, and one number.
HEADER = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
CHECKPOINT = struct.pack("<Q", len(HEADER)) + HEADER + bytes(4)
URL = "https://hooks.example.com/lethe"
IDENTITY = {
    "identity_type": "controller_customer_id",
    "identity_format": "raw",
    "identity_value": "a",
}
# What exists, by the names of path parameters.
THERE: dict[str, list[str]] = json.loads(os.environ.get("LETHE_FUZZING", "{}"))
_turn = count()


@REQUESTS_TRANSPORT.serializer(NDJSON)
def lines_of_json(_: SerializationContext, value: Any) -> dict[str, Any]:
    lines = value if isinstance(value, list) else [value]
    return {"data": b"".join(json.dumps(line).encode() + b"\n" for line in lines)}


@REQUESTS_TRANSPORT.serializer(SAFETENSORS)
def weights(_: SerializationContext, value: Any) -> dict[str, Any]:
    return {"data": value if isinstance(value, bytes) else str(value).encode()}


@schemathesis.deserializer(NDJSON)
def read_lines(_: Any, response: Any) -> Any:
    # The description is of one line.
    return json.loads(response.content.splitlines()[-1])


@schemathesis.hook
def before_call(_: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    for adapt in ADAPTATIONS:
        adapt(case)


def _a_key_of_its_own(case: Case) -> None:
    # Two drawn ones may be equal, with bodies that differ.
    if case.headers and "idempotency-key" in case.headers:
        case.headers["idempotency-key"] = str(uuid4())


def _a_model_that_is_there(case: Case) -> None:
    if case.path != "/v1/deletion-requests" or not isinstance(case.body, dict):
        return
    if isinstance(case.body.get("model"), str):
        case.body["model"] = "digits"


def _an_opendsr_request_of_its_own(case: Case) -> None:
    if case.path == "/opendsr/2.0/requests" and isinstance(case.body, dict):
        case.body["subject_request_id"] = str(uuid4())
        # An erasure of nothing is refused, and samples may stand in two places.
        case.body["subject_identities"] = case.body.get("subject_identities") or [IDENTITY]
        if case.body.get("status_callback_urls"):
            case.body["status_callback_urls"] = [URL]


def _what_is_there(case: Case) -> None:
    # A sequence of calls brings what the calls before it made.
    if case.meta is None or case.meta.phase.name is TestPhase.STATEFUL:
        return
    # In turn, and sometimes something else, so that 404 is met as well.
    for name in case.path_parameters or {}:
        known = [*THERE.get(name, []), None]
        chosen = known[next(_turn) % len(known)]
        if chosen is not None:
            case.path_parameters[name] = chosen


def _a_checkpoint_that_is_there(case: Case) -> None:
    if case.path == "/v1/models" and isinstance(case.body, dict) and "checkpoint" in case.body:
        case.body["checkpoint"] = THERE["digest"][0]


def _a_position_of_the_log(case: Case) -> None:
    for given, name in ((case.query, "after"), (case.headers, "Last-Event-ID")):
        if given and name in given:
            given[name] = "0"


def _an_address_outside(case: Case) -> None:
    if isinstance(case.body, dict) and isinstance(case.body.get("url"), str):
        case.body["url"] = URL


def _a_period_that_ends_after_it_began(case: Case) -> None:
    query = case.query or {}
    if case.path.startswith("/v1/exports/") and {"from", "to"} <= query.keys():
        query |= {"from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"}


def _a_cursor_of_its_own_list(case: Case) -> None:
    query = case.query or {}
    cursor, nearest = query.get("cursor"), query.get("order") == "due"
    if isinstance(cursor, str) and (cursor.startswith("nearest-") != nearest or "never" in cursor):
        del query["cursor"]


def _durations_of_a_policy(case: Case) -> None:
    # Within a year, which the format does not say.
    if case.path == "/v1/models" and isinstance(case.body, dict):
        for part in (case.body.get("policy") or {}).values():
            if isinstance(part, dict):
                part |= {name: "PT1H" for name, value in part.items() if _is_duration(value)}


def _is_duration(value: object) -> bool:
    return isinstance(value, str) and value.lstrip("-+").startswith("P")


ADAPTATIONS: tuple[Callable[[Case], None], ...] = (
    _a_key_of_its_own,
    _a_model_that_is_there,
    _an_opendsr_request_of_its_own,
    _what_is_there,
    _a_checkpoint_that_is_there,
    _a_position_of_the_log,
    _an_address_outside,
    _a_period_that_ends_after_it_began,
    _a_cursor_of_its_own_list,
    _durations_of_a_policy,
)
