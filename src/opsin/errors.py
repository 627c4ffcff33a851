"""What can go wrong, said to a person: what happened, to which value, and what to do about it.

Every error knows the HTTP status that a server answers with, what a stranger may hear of it, and the exit code that the
command ends with.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class OpsinError(Exception):
    """An error meant for the person who asked. `hint` says what to do.

    `stranger` is what a client hears in place of message and hint, which may name files; None where it hears these.
    """

    status = 500
    exit_code = 1
    stranger: ClassVar[str | None] = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        """So that it reaches another process, whatever its kind is made of."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[OpsinError], args: tuple[object, ...], state: dict[str, object]) -> OpsinError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class FileError(OpsinError):
    """A model file is missing, damaged or of a kind that we cannot read."""

    exit_code = 3
    stranger = "a file of the model is damaged or cannot be read"


class ModelError(OpsinError):
    """A readable file whose model we cannot run: unknown family, missing tensor, impossible shape."""

    exit_code = 4
    stranger: ClassVar[str | None] = "the model cannot do this"


class TemplateError(ModelError):
    """A model's template that fails for a conversation. Others may pass, so a client hears why."""

    status = 400
    stranger = None


class RequestError(OpsinError):
    """A request that cannot be served as asked: too long, out of range, contradictory.

    `param` is the path of the part that is at fault, as messages[0].content[1]; None where none is more than others.
    """

    status = 400
    exit_code = 2
    param: str | None = None


class FieldError(RequestError):
    """A part of a request that cannot be taken; the message begins with its path."""

    param: str

    def __init__(self, param: str, what: str, *, hint: str | None = None) -> None:
        super().__init__(f"{param}: {what}", hint=hint)
        self.param, self.what = param, what

    def below(self, path: str) -> FieldError:
        """The same of a part that stands below another: `path` comes before its own."""
        return FieldError(path + self.param, self.what, hint=self.hint)


class ContextError(RequestError):
    """A prompt that the context cannot hold.

    Attributes:
        prompt_tokens: how many it has at least; counting ends where it is sure that they are too many.
        context_tokens: how many the context holds.
    """

    def __init__(
        self, message: str, *, prompt_tokens: int, context_tokens: int, hint: str | None = None,
        param: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message, hint=hint or "shorten it, or load the model with a larger context")
        self.param = param
        self.prompt_tokens = prompt_tokens
        self.context_tokens = context_tokens


class DeviceError(OpsinError):
    """The machine failed us: a kernel reported an error, memory ran out, a process was forked."""

    exit_code = 5
    stranger = "the machine failed"


class OutOfMemoryError(OpsinError):
    """Memory ran out; less at once, or the same later, may do."""

    status = 503
    exit_code = 71
    stranger = "memory ran out"


class BusyError(OpsinError):
    """Too much is asked at once; the same request may succeed later."""

    status = 503
    exit_code = 6


_EXHAUSTED = ("can't start new thread", "annot allocate", "failed to map segment", "ot enough memory", "ut of memory")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, in the words of Python, of the system's loader or of LLVM, or that caused it."""
    for _ in range(8):  # causes may go round in a circle
        if error is None:
            return False
        if isinstance(error, MemoryError | OutOfMemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        if isinstance(error, OSError | ImportError | RuntimeError) and any(word in str(error) for word in _EXHAUSTED):
            return True
        error = error.__cause__ or error.__context__
    return False


def known(error: Exception, what: str) -> OpsinError:
    """What whoever waits for work hears of an error in it: one of ours as it is, others as `what`, with their cause."""
    if isinstance(error, OpsinError):
        return error
    made: OpsinError
    if is_out_of_memory(error):
        made = OutOfMemoryError("memory ran out", hint="ask for less at once, or load with a smaller context")
    else:  # without its text, which strangers may read
        made = DeviceError(f"{what}: {type(error).__name__}", hint="the error's cause says more")
    made.__cause__ = error
    return made
