"""The command `opsin`: reads the command line, runs one subcommand, and tells errors in a line.

Nothing heavy is imported before a subcommand runs: `opsin --help` must not wait for NumPy or LLVM.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import opsin
from opsin.cli import bench, chat, convert, demo, doctor, inspect, merge, quantize, serve
from opsin.cli.parser import Parser
from opsin.errors import OpsinError, is_out_of_memory

INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 + the signal, as shells count
INTERNAL, OUT_OF_MEMORY = 70, 71  # EX_SOFTWARE and EX_OSERR of sysexits.h
_DESCRIPTION = "Answers questions about pictures and text with GGUF models."
_COMMANDS = (chat, serve, demo, bench, inspect, convert, quantize, merge, doctor)


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
    code = run()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command and give its exit code."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        args = parser().parse_args(arguments)
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _reader_left()
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - a person must not meet a traceback
        if is_out_of_memory(error):
            return _fail(error, "out of memory (a smaller --context or --cache-type q8_0 needs less)", OUT_OF_MEMORY)
        if isinstance(error, OpsinError):
            return _fail(error, str(error), error.exit_code)
        return _fail(error, f"internal error: {error!r} (OPSIN_DEBUG=1 shows where)", INTERNAL)


def _fail(error: BaseException, line: str, code: int) -> int:
    from opsin.config import is_debugging

    if is_debugging():
        raise error
    print(f"opsin: {' '.join(line.splitlines())}", file=sys.stderr)
    return code


def _reader_left() -> int:
    """Whoever read our output is gone. Python would complain about the rest when it ends: send that nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    return BROKEN_PIPE
