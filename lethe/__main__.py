"""The command ``lethe``: checks evidence by itself, and finds what else is installed."""

import argparse
import io
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from lethe.verify.keys import NotAKey, VerifyingKey, load_keys
from lethe.verify.log import verify_log
from lethe.verify.reasons import NotProven
from lethe.verify.receipt import verify_receipt
from lethe.verify.report import Report, describe_log, describe_receipt, plain

PROVEN, REFUSED, NOT_CHECKED = 0, 1, 2
GROUP = "lethe.commands"
OWN = {
    "verify": "check a receipt offline",
    "verify-log": "replay an exported log offline",
}
# Which extra brings what a package of ours needs.
EXTRAS = {"app": "server", "workers": "worker", "embedded": "embedded"}

VERIFY = """Check the receipt of a deletion request against keys that you trust, and nothing else.
Exit status: 0 proven, 1 refused, 2 not checked."""
VERIFY_LOG = """Recompute an exported log from its entries, and check every signed head and every
model's chain of versions. Exit status: 0 proven, 1 refused, 2 not checked."""


class _Unusable(Exception):
    """A file beside the evidence cannot be used; nothing was checked."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 proven, 1 refused, 2 not checked."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(_overview())
        return PROVEN if given else NOT_CHECKED
    if given[0] in OWN:
        return _check(_parser().parse_args(given))
    return _run_other(given[0], given[1:])


def _check(asked: argparse.Namespace) -> int:
    try:
        report = _verify(asked) if asked.command == "verify" else _verify_log(asked)
    except NotProven as error:
        refused = {"result": "refused", "reason": error.reason, "detail": plain(error.detail)}
        _print(refused, asked.json, f"REFUSED {error.reason}: {plain(error.detail)}")
        return REFUSED
    except (OSError, NotAKey, _Unusable) as error:
        detail = plain(str(error))
        _print({"result": "not-checked", "detail": detail}, asked.json, f"NOT CHECKED: {detail}")
        return NOT_CHECKED
    told: dict[str, Any] = {
        "result": "proven",
        "proven": list(report.proven),
        "not_proven": list(report.not_proven),
        **report.facts,
    }
    _print(told, asked.json, _lists(report))
    return PROVEN


def _verify(asked: argparse.Namespace) -> Report:
    verified = verify_receipt(
        asked.receipt.read_bytes(),
        _keys(asked.key),
        weights=asked.weights,
        log=asked.log,
        pinned=_pinned(asked.pin),
    )
    return describe_receipt(verified)


def _verify_log(asked: argparse.Namespace) -> Report:
    pinned = _pinned(asked.pin)
    return describe_log(verify_log(asked.log, _keys(asked.key), pinned), pinned)


def _keys(paths: Sequence[Path]) -> list[VerifyingKey]:
    keys: list[VerifyingKey] = []
    for path in paths:
        try:
            keys += load_keys(path.read_bytes())
        except NotAKey as error:
            raise NotAKey(f"{path}: {error}") from None
    return keys


def _pinned(paths: Sequence[Path]) -> list[str]:
    """Return the notes of files that hold one each, or a witness feed as JSON Lines."""
    notes: list[str] = []
    for path in paths:
        try:
            content = path.read_bytes().decode()
            if content.startswith("{"):
                lines = content.removesuffix("\n").split("\n")
                notes += [json.loads(line)["checkpoint"] for line in lines]
            else:
                notes.append(content)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _Unusable(f"{path}: neither a signed note nor a witness feed") from None
    return notes


def _print(told: Mapping[str, Any], as_json: bool, text: str) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that this terminal cannot show is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    print(json.dumps(told, indent=2) if as_json else text)


def _lists(report: Report) -> str:
    proven = "".join(f"\n  + {line}" for line in report.proven)
    not_proven = "".join(f"\n  - {line}" for line in report.not_proven)
    return f"Proven{proven}\nNot proven{not_proven}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lethe")
    commands = parser.add_subparsers(dest="command", required=True)
    verify = commands.add_parser("verify", help=OWN["verify"], description=VERIFY)
    verify.add_argument("receipt", type=Path, metavar="RECEIPT", help="the receipt, as JSON")
    verify.add_argument("--weights", type=Path, metavar="FILE", help="the weights that you serve")
    verify.add_argument("--log", type=Path, metavar="FILE", help="an exported log")
    verify_log = commands.add_parser("verify-log", help=OWN["verify-log"], description=VERIFY_LOG)
    verify_log.add_argument("log", type=Path, metavar="LOG", help="an exported log")
    for each in (verify, verify_log):
        each.add_argument(
            "--key",
            type=Path,
            action="append",
            required=True,
            metavar="FILE",
            help="a key that you trust: PEM, JWK or JWK Set; may be given several times",
        )
        each.add_argument(
            "--pin",
            type=Path,
            action="append",
            default=[],
            metavar="FILE",
            help="tree heads that a witness kept: a signed note, or its feed; several times, too",
        )
        each.add_argument("--json", action="store_true", help="answer in JSON")
    return parser


def _run_other(name: str, arguments: list[str]) -> int:
    found = {each.name: each for each in entry_points(group=GROUP)}.get(name)
    if found is None:
        print(f"lethe has no command {plain(name)!r}.\n{_overview()}", file=sys.stderr)
        return NOT_CHECKED
    try:
        status: int = found.load()(arguments)
    except ModuleNotFoundError as error:
        print(_missing(found, error), file=sys.stderr)
        return NOT_CHECKED
    return status


def _missing(command: EntryPoint, error: ModuleNotFoundError) -> str:
    extra = EXTRAS.get(command.module.partition(".")[0])
    remedy = f"install lethe[{extra}]" if extra else "install what brings it"
    return f"lethe {command.name} needs {error.name}, which is not installed: {remedy}."


def _overview() -> str:
    others = sorted(each.name for each in entry_points(group=GROUP))
    lines = [f"  {name:<12}{what}" for name, what in OWN.items()]
    lines += [f"  {name:<12}lethe {name} --help says more" for name in others]
    return "\n".join(["usage: lethe COMMAND ...", "", *lines])


if __name__ == "__main__":
    sys.exit(main())
