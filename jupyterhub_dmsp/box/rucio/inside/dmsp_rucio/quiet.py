"""Keeps warnings out of the logs that say nothing and that no option of Rucio turns off."""

from __future__ import annotations

import logging


class Without(logging.Filter):
    """Leaves out the records whose message has this in it (before its values are put in).

    A filter of a logger sees only what is logged through that very logger.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is kept."""
        return self._text not in str(record.msg)
