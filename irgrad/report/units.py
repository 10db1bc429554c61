"""Numbers as people read them."""

from __future__ import annotations

__all__ = ["bytes_text", "count_text", "flops_text", "round_bytes_text"]

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def bytes_text(size: float) -> str:
    """``166 MB``, in powers of 1000."""
    return _scaled(size, "B")


def round_bytes_text(size: float) -> str:
    """A round number of bytes: ``80 MB``, ``1.2 GB``."""
    number, space, unit = bytes_text(size).partition(" ")
    return f"{float(number):g}{space}{unit}"


def flops_text(flops: float) -> str:
    """``8.22 GFLOP``."""
    return _scaled(flops, "FLOP")


def count_text(number: int) -> str:
    """``25.6 M``; small numbers as they are."""
    return f"{number:,}" if number < 100_000 else _scaled(number, "")


def _scaled(number: float, unit: str) -> str:
    power = 0
    while number >= 999.5 and power < len(_PREFIXES) - 1:
        number, power = number / 1000, power + 1
    digits = 0 if power == 0 and number == int(number) else 0 if number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f} {_PREFIXES[power]}{unit}".rstrip()
