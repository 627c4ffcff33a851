"""Where the words lie that Python and compiled code share: the team's cells and a program's entries.

Offsets are in bytes. Words that threads write while others wait have a cache line of their own.
"""

from __future__ import annotations

LINE = 64

# The team: one block of int64 cells.
THREADS, SPINS, YIELD_FUNCTION, SYSCALL_FUNCTION, FUTEX_NUMBER, NAP_FUNCTION = (8 * i for i in range(6))
NAP = 8 * 6  # what the nap function takes
NAP_TIME = 8 * 7  # a struct timespec: two words
SLEEP_TIME = 8 * 9  # the same: how long a thread sleeps for others' items at most
GO = 2 * LINE  # the epoch: counts programs started
PROGRAM = 3 * LINE  # address of the present program
SLEEPERS = 4 * LINE  # threads asleep, or about to be
LEAVE = 5 * LINE  # workers end when they wake and this is not 0
STOP = 6 * LINE  # set from outside: skip what is left of the program
STATUS = 7 * LINE  # first error: code in the low half, index of the operation in the high half
SKIPPED = 8 * LINE  # set when operations were skipped
INSIDE = 9 * LINE  # a line a thread: the epoch whose program it walks through, 0 when it waits
MAXIMUM_THREADS = 256
TEAM_BYTES = INSIDE + LINE * MAXIMUM_THREADS

YIELDS = 32  # times a waiting thread gives way before it sleeps
SHARES = 2  # a thread takes this share, times the number of threads, of the items that are left
LEAD, WORK, DISMISS, SETTLE = 0, 1, 2, 3  # roles of a thread that enters the executor

# A program: a head whose first word is the number of entries, then the entries, a cache line each.
HEAD_BYTES = 64
ENTRY_KERNEL, ENTRY_ARGS, ENTRY_ITEMS, ENTRY_GRAIN = (8 * i for i in range(4))
ENTRY_STAGE = 8 * 4  # index of the first entry that must be done before the next one starts; -1 when none must
ENTRY_TICKET, ENTRY_DONE = 8 * 5, 8 * 6  # epoch in the high half; items handed out, items done in the low half
ENTRY_WORDS, ENTRY_BYTES = 8, 64

# Error codes of kernels.
OK, BAD_ID, BAD_PAGE, BAD_GUARD, BAD_STATE = 0, 1, 2, 3, 4
MESSAGES = {
    BAD_ID: "a token id lies outside the vocabulary",
    BAD_PAGE: "a row has no page",
    BAD_STATE: "a sequence has no slot for its state",
    BAD_GUARD: "something wrote outside its buffer",
}
