"""The queue's `index`: a small mapped file of words that all handles share, for waking, and for what people look at.

Nothing in it is the truth: it is made anew when it is missing or damaged, and of those who sleep on it somebody looks again
within a second. The lock on it guards reservations of capacity.

Sleeping and waking without counting sleepers: a sleeper reads the wake word, raises the sleepers flag, looks once more for
what it wants, and sleeps while the wake word is unchanged. A waker lowers the flag, changes the word, wakes one. Who wakes up
raises the flag again, since more may sleep, and looks; who finds more than it takes wakes the next. So with nobody asleep, or
one on its way, a put costs one load, and several quick items are one waking. A sleeper that is killed leaves nothing behind to
clean up; if it was killed (or stopped) on its way, others come when they look again.
"""

from __future__ import annotations

import os
import time

from segq._core.base.errors import DamagedError
from segq._core.format import format as fmt
from segq._core.format.format import IndexWord, OwnerWord
from segq._core.system.fs import clear_away, unlink
from segq._core.system.futex import Word
from segq._core.system.locks import FileMutex, Rank
from segq._core.system.mapped import MappedFile

LOOK_AGAIN = 1.0  # seconds, the bound of a sleep; of many consumers that of one of them:
AT_LEISURE = 4  # times that is the bound for the others
EVERYBODY = 1 << 30
_FIRST, _OF_LATE_MS = 64, 6000  # how many handles `waiting` looks at, and what is of late for it
_MOST_WORD = (1 << 64) - 1  # a damaged counter must not stop who adds to it


class Bell:
    """A place to sleep, and to be woken at: one wake word and its flag.

    `alarm`: where, in `words`, the time stands at which whoever sleeps here has to get up (see `alarm`); 0 if there is none.
    """

    __slots__ = ("_flag", "_half", "_halves", "alarm", "word", "words")

    def __init__(self, file: MappedFile, word: int, flag: int, alarm: int = 0) -> None:
        self.words, self._halves, self.alarm = file.words, file.halves, int(alarm)
        self._half, self._flag = 2 * int(word), int(flag)
        self.word = Word(file.halves, self._half)

    def listen(self) -> int:
        """To be called before the last look; the result goes to `sleep`."""
        heard = self._halves[self._half]
        self.words[self._flag] = 1
        return heard

    def sleep(self, heard: int, seconds: float) -> None:
        """Sleeps up to `seconds` unless rung since `listen`."""
        try:
            self.word.wait(heard, seconds)
        except BaseException:  # a signal's: what it may have been woken for is for another
            self.awake()
            self.ring()
            raise
        self.awake()

    def awake(self) -> None:
        """Says that there may be others asleep; for one who slept, before it looks."""
        self.words[self._flag] = 1

    def rung_since(self, heard: int) -> bool:
        return self._halves[self._half] != heard

    def ring(self, count: int = 1) -> None:
        """Wakes up to `count` sleepers, if there may be any."""
        words = self.words
        if words[self._flag]:
            words[self._flag] = 0
            halves, half = self._halves, self._half
            halves[half] = (halves[half] + 1) & 0xFFFFFFFF
            self.word.wake(count)

    def ring_all(self) -> None:
        """Wakes everybody, also who has not raised the flag yet."""
        self.words[self._flag] = 1
        self.ring(EVERYBODY)

    @property
    def flagged(self) -> bool:
        """Whether somebody may be asleep."""
        return self.words[self._flag] != 0


class Index:
    """One handle's mapping of `index`."""

    def __init__(self, queue: str, file: MappedFile) -> None:
        self.queue = queue
        self._file = file
        self.words, self.halves = file.words, file.halves
        self.lock = FileMutex(file.descriptor, Rank.INDEX)
        self.items = Bell(file, IndexWord.ITEMS_WAKE, IndexWord.ITEMS_SLEEPERS, IndexWord.DUE)
        self.room = Bell(file, IndexWord.ROOM_WAKE, IndexWord.ROOM_SLEEPERS)
        self.recalls = Bell(file, IndexWord.RECALL_WAKE, IndexWord.RECALL_SLEEPERS)
        self.joins = Bell(file, IndexWord.JOIN_WAKE, IndexWord.JOIN_SLEEPERS)

    @classmethod
    def open(cls, queue: str) -> Index:
        """The index of `queue`, made anew if there is none that can be used. Under the structure lock."""
        path = os.path.join(queue, fmt.INDEX_FILE)
        try:
            file = MappedFile.open(path, fmt.INDEX_SIZE)
            if file.words[IndexWord.MAGIC] == fmt.INDEX_MAGIC:
                return cls(queue, file)
            file.close()
            unlink(path)
        except DamagedError as error:
            clear_away(queue, fmt.INDEX_FILE, str(error))
        except FileNotFoundError:
            pass
        file = MappedFile.create(path, fmt.INDEX_SIZE, [(0, fmt.INDEX_SIZE)])
        file.words[IndexWord.GENERATION] = time.time_ns() & ~1  # unlike any that a handle remembers
        file.words[IndexWord.MAGIC] = fmt.INDEX_MAGIC
        return cls(queue, file)

    @property
    def generation(self) -> int:
        return self.words[IndexWord.GENERATION]

    def changed(self) -> None:
        """Says that names in the directory have changed. Under the structure lock."""
        self.words[IndexWord.GENERATION] = ((self.words[IndexWord.GENERATION] | 1) + 1) & (2**63 - 1)

    def changing(self) -> None:
        """Says that a name is about to change, until `changed`: a list made meanwhile may miss it, or show it twice."""
        self.words[IndexWord.GENERATION] |= 1

    @property
    def shutdown(self) -> int:
        return self.words[IndexWord.SHUTDOWN]

    @shutdown.setter
    def shutdown(self, value: int) -> None:
        self.words[IndexWord.SHUTDOWN] = value

    def freed(self, count: int = 1) -> None:
        """Says that `count` items are done. Worth a call only while ROOM_SLEEPERS is up, which those in `join` raise too."""
        self.room.ring(count)
        self.joins.ring(EVERYBODY)

    def listen_for_done(self) -> int:
        """`joins.listen()`, and makes sure that whoever finishes an item calls `freed`."""
        heard = self.joins.listen()
        self.words[IndexWord.ROOM_SLEEPERS] = 1
        return heard

    def add(self, word: IndexWord, count: int) -> None:
        """Adds to a counter that people look at. Under the structure lock, or let an addition now and then be lost."""
        self.words[word] = (self.words[word] + count) & _MOST_WORD

    def owner_word(self, slot: int, word: OwnerWord) -> int:
        """Where `word` of `slot` lies in `words`."""
        return (fmt.PAGE + slot * fmt.OWNER_SIZE) // 8 + int(word)

    def clear_owner(self, slot: int) -> None:
        for word in OwnerWord:
            self.words[self.owner_word(slot, word)] = 0

    def waiting(self, now_ms: int) -> int:
        """How many of the first handles have waited for items of late: a hint. `now_ms` is monotonic."""
        at, step = self.owner_word(1, OwnerWord.WAITED), fmt.OWNER_SIZE // 8
        return sum(0 <= now_ms - waited < _OF_LATE_MS for waited in self.words[at : at + _FIRST * step : step].tolist())

    def outstanding(self, slot: int) -> int:
        """Items got by `slot` for which task_done was not called."""
        words = self.words
        return words[self.owner_word(slot, OwnerWord.GETS)] - words[self.owner_word(slot, OwnerWord.FINISHED)]

    def turn_to_rescue(self) -> bool:
        """True for one caller each second: it looks for dead owners on behalf of all."""
        return self._turn(IndexWord.RESCUED_AT, RESCUE_EVERY_NS)

    def turn_to_tidy(self, seconds: float) -> bool:
        """True for one caller in this time: it looks for what has expired, on behalf of all."""
        return self._turn(IndexWord.TIDIED_AT, int(seconds * 1e9))

    def _turn(self, word: IndexWord, every_ns: int) -> bool:
        now, last = time.monotonic_ns(), self.words[word]
        if last <= now < last + every_ns:
            return False
        self.words[word] = now
        return True

    def close(self) -> None:
        self._file.close()


RESCUE_EVERY_NS = 500_000_000  # half the second within which a dead owner's items are to be claimable again
