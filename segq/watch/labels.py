"""The labels of a topic, read from their files without changing them."""

from __future__ import annotations

import os

from segq._core.base.errors import DamagedError, StorageError
from segq._core.directory.label import SeenLabel
from segq._core.format import format as fmt
from segq._core.format.format import LabelWord
from segq._core.system import fs
from segq._core.system.mapped import MappedFile


class WatchedLabel:
    """One label: what its file says, and the words in it that change."""

    def __init__(self, path: str) -> None:
        """Raises FileNotFoundError or DamagedError."""
        seen = SeenLabel.read(path)
        self.text, self.id, self.start_in = seen.text, seen.id, seen.start_in
        self._file = MappedFile.look(path, fmt.PAGE)

    @property
    def settled(self) -> tuple[int, int]:
        """(acknowledged, missed) of segments that are gone."""
        words = self._file.words
        return words[LabelWord.DONE], words[LabelWord.MISSED]

    @property
    def there(self) -> bool:
        return not self._file.words[LabelWord.REMOVED] and self._file.same_file()


class WatchedLabels:
    """All labels of a topic, look after look."""

    def __init__(self, queue: str) -> None:
        self._directory = os.path.join(queue, fmt.LABELS_DIR)
        self._known: dict[str, WatchedLabel] = {}

    def look(self) -> list[WatchedLabel]:
        """In the order of their text."""
        try:
            entries = fs.listing(self._directory)
        except FileNotFoundError:
            entries = []
        known: dict[str, WatchedLabel] = {}
        for entry in entries:
            label = self._known.get(entry)
            if entry == fmt.UNFINISHED:
                continue
            try:
                if label is None or not label.there:
                    label = WatchedLabel(os.path.join(self._directory, entry))
            except (FileNotFoundError, DamagedError, StorageError):
                continue
            known[entry] = label
        self._known = known
        return sorted(known.values(), key=lambda label: label.text)
