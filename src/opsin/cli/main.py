"""The command `opsin`: reads the command line, runs one subcommand, and tells errors in a line.

Nothing heavy is imported before a subcommand runs: `opsin --help` must not wait for NumPy or LLVM.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import opsin
from opsin.cli import bench, cache, chat, convert, demo, doctor, inspect, key, merge, quantize, serve, transcribe
from opsin.cli.parser import Parser
from opsin.cli.streams import OutputLost, open_streams, visible
from opsin.config import tell_blas
from opsin.errors import DeviceError, OpsinError, RequestError, is_out_of_memory

WRONG_USE = 2
INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 + the signal, as shells count
INTERNAL, OUT_OF_MEMORY = 70, 71  # EX_SOFTWARE and EX_OSERR of sysexits.h
_DESCRIPTION = "Answers questions about pictures and text with GGUF models."
_COMMANDS = (chat, transcribe, serve, demo, bench, inspect, convert, quantize, merge, key, cache, doctor)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = Parser(prog="opsin", description=_DESCRIPTION)
    top.add_argument("--version", action="version", version=f"opsin {opsin.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return top


def main() -> NoReturn:
    """The process: run the command and end at once.

    Python's own end visits every object to free what the system frees anyway: half a second of a busy machine, in
    which Ctrl-C seems not to have worked.
    """
    open_streams()
    tell_blas()
    code = run()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, OutputLost):
            stream.flush()
    os._exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code."""
    try:
        code = _obey(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read our output is gone
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - a person must not meet a traceback
        return _fail(error, *_explained(error))


def _obey(arguments: list[str]) -> int:
    if arguments[:1] == ["help"]:
        arguments = [name for name in arguments[1:2] if name != "help"] + ["--help"]
    if arguments and not arguments[0].startswith("-"):
        _check_command(arguments[0])
    try:
        args = parser().parse_args(arguments)
    except SystemExit as end:  # argparse has helped, or said what is wrong
        return end.code if isinstance(end.code, int) else WRONG_USE
    code: int = args.run(args)
    return code


def _check_command(name: str) -> None:
    """Raises RequestError for a command that there is not."""
    known = [module.__name__.rpartition(".")[2] for module in _COMMANDS]
    if name in known:
        return
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    raise RequestError(f"there is no command {name!r:.80}", hint=hint)


def _explained(error: Exception) -> tuple[str, int]:
    """What a person is told of an error, and the exit code."""
    if isinstance(error, OutputLost):
        return str(error), DeviceError.exit_code
    if is_out_of_memory(error):
        return "out of memory (a smaller --context or --cache-type q8_0 needs less)", OUT_OF_MEMORY
    if isinstance(error, OpsinError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.strerror:  # a full disk, too many open files
        where = f": {error.filename}" if error.filename else ""
        return f"the machine says: {error.strerror}{where}", DeviceError.exit_code
    return f"internal error: {error!r} (OPSIN_DEBUG=1 shows where)", INTERNAL


def _fail(error: BaseException, line: str, code: int) -> int:
    from opsin.config import is_debugging

    if is_debugging():
        raise error
    print(visible(f"opsin: {' '.join(line.splitlines())}"), file=sys.stderr)
    return code
