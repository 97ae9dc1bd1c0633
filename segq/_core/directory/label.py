"""A label: a mapped file in `labels/` that notes where the label began, counts acks and misses, and wakes consumers."""

from __future__ import annotations

import dataclasses
import os

from segq._core.base.errors import DamagedError
from segq._core.directory.index import Bell, Index
from segq._core.format import format as fmt
from segq._core.format.format import IndexWord, LabelWord, SegmentName
from segq._core.system import fs
from segq._core.system.mapped import MappedFile

_MOST_JSON = 64 << 20  # far more segments than a directory can hold in practice
_MOST_WORD = (1 << 64) - 1  # adding to damaged counters must not overflow


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SeenLabel:
    """A label as its file describes it, for read-only use."""

    text: str
    id: str
    cut: int
    starts: dict[str, int]
    half_booked: bool

    @classmethod
    def read(cls, path: str) -> SeenLabel:
        """Raises FileNotFoundError or DamagedError."""
        file = MappedFile.look(path, fmt.PAGE)
        file.close()
        words, size = file.words, file.words[LabelWord.SIZE]
        if words[LabelWord.MAGIC] != fmt.LABEL_MAGIC or file.size < fmt.PAGE + size:
            raise DamagedError(f"{path} is not a label's file", path=path)
        text, label_id, cut, starts = fmt.decode_label(bytes(file.view[fmt.PAGE : fmt.PAGE + size]), path)
        booked = (words[LabelWord.DONE], words[LabelWord.MISSED])
        half = words[LabelWord.JOURNAL] != 0 and booked != (words[LabelWord.DONE_AFTER], words[LabelWord.MISSED_AFTER])
        return cls(text=text, id=label_id, cut=cut, starts=starts, half_booked=half)

    def start_in(self, name: SegmentName) -> int:
        """How many items at the start of a segment this label skips."""
        return self.starts.get(name.identity, 0) if name.stamp <= self.cut else 0


class Label:
    """One handle's mapping of a label's file."""

    def __init__(self, file: MappedFile, index: Index) -> None:
        """Raises DamagedError."""
        words, size = file.words, file.words[LabelWord.SIZE]
        if words[LabelWord.MAGIC] != fmt.LABEL_MAGIC or file.size < fmt.PAGE + size or size > _MOST_JSON:
            raise DamagedError(f"{file.path} is not a label's file", path=file.path)
        self.text, self.id, self.cut, self._starts = fmt.decode_label(bytes(file.view[fmt.PAGE : fmt.PAGE + size]), file.path)
        if fmt.label_file(self.text) != os.path.basename(file.path):
            raise DamagedError(f"{file.path} is the file of another label, {self.text!r}", path=file.path)
        self._file, self.words = file, words
        self.bell = LabelBell(file, index)

    @classmethod
    def open(cls, path: str, index: Index) -> Label:
        """Raises FileNotFoundError or DamagedError."""
        file = MappedFile.open(path, fmt.PAGE)
        file.close()  # the file needs no lock; the mapping stays
        return cls(file, index)

    @classmethod
    def create(
        cls, path: str, text: str, label_id: str, cut: int, starts: dict[str, int], index: Index, *, durable: bool
    ) -> Label:
        """Creates a label; its file appears complete. Under the structure lock. Raises StorageError and leaves none."""
        data = fmt.encode_label(text, label_id, cut, starts)
        size = fmt.PAGE + -(-len(data) // 8) * 8
        unfinished = os.path.join(os.path.dirname(path), fmt.UNFINISHED)
        fs.unlink(unfinished)
        file = MappedFile.create(unfinished, size, [(0, size)])
        file.view[fmt.PAGE : fmt.PAGE + len(data)] = data
        file.words[LabelWord.SIZE] = len(data)
        file.words[LabelWord.MAGIC] = fmt.LABEL_MAGIC
        if durable:
            file.sync()
        file.close()
        file.path = path
        label = cls(file, index)
        fs.rename(unfinished, path)
        if durable:
            try:
                fs.sync_directory(os.path.dirname(path))
            except BaseException:
                fs.unlink(path)
                raise
        return label

    def start_in(self, name: SegmentName) -> int:
        """How many items at the start of a segment this label skips: they were there before it began."""
        return self._starts.get(name.identity, 0) if name.stamp <= self.cut else 0

    @property
    def removed(self) -> bool:
        return self.words[LabelWord.REMOVED] != 0

    def mark_removed(self) -> None:
        self.words[LabelWord.REMOVED] = 1
        self.bell.ring_all()

    @property
    def settled(self) -> tuple[int, int]:
        """(acknowledged, missed) items of removed segments."""
        return self.words[LabelWord.DONE], self.words[LabelWord.MISSED]

    def booked(self, stamp: int) -> bool:
        """Whether `settled` contains this segment's counts. Known only of the last segment that was booked.

        Finishes a booking that a dying process left half done.
        """
        words = self.words
        if words[LabelWord.JOURNAL] != stamp:
            return False
        words[LabelWord.DONE], words[LabelWord.MISSED] = words[LabelWord.DONE_AFTER], words[LabelWord.MISSED_AFTER]
        return True

    def book(self, stamp: int, done: int, missed: int) -> None:
        """Adds a segment's counts to `settled`. Under the structure lock, one segment at a time."""
        words = self.words
        if last := words[LabelWord.JOURNAL]:
            self.booked(last)
        words[LabelWord.JOURNAL] = 0  # else, after a death here, the new sums would count for the last segment
        words[LabelWord.DONE_AFTER] = (words[LabelWord.DONE] + done) & _MOST_WORD
        words[LabelWord.MISSED_AFTER] = (words[LabelWord.MISSED] + missed) & _MOST_WORD
        words[LabelWord.JOURNAL] = stamp
        self.booked(stamp)


class LabelBell(Bell):
    """Where the consumers of one label sleep. A flag in the index says that a consumer sleeps at any label."""

    __slots__ = ("_summary",)

    def __init__(self, file: MappedFile, index: Index) -> None:
        super().__init__(file, LabelWord.WAKE, LabelWord.SLEEPERS, LabelWord.DUE)
        self._summary = index.words

    def listen(self) -> int:
        heard = super().listen()
        self._summary[IndexWord.ITEMS_SLEEPERS] = 1
        return heard

    def awake(self) -> None:
        super().awake()
        self._summary[IndexWord.ITEMS_SLEEPERS] = 1
