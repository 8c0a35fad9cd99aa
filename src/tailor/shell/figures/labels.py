"""Names and numbers as they are written in and around figures."""

from decimal import ROUND_CEILING, Decimal


def percent(share: float, digits: int = 1) -> str:
    r"""A share as a percentage, rounded to the nearest.

    >>> percent(0.0694)
    '6.9\xa0%'
    """
    return f"{100 * share:.{digits}f}\u00a0%"


def percent_up(share: float, digits: int = 1) -> str:
    r"""A share as a percentage that is never below it, as a bound has to be shown.

    >>> percent_up(0.40901)
    '41.0\xa0%'
    """
    step = Decimal(1).scaleb(-digits)
    return f"{(100 * Decimal(repr(share))).quantize(step, ROUND_CEILING)}\u00a0%"


def plain(text: str) -> str:
    """Text that plotly shows as it is: its markup and its templates are made harmless."""
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("%{", "%&#123;")):
        text = text.replace(sign, entity)
    return text


def brief(text: str, most: int = 36) -> str:
    """A long name without its middle, for legends.

    >>> brief("checkpoints/a-very-long-name-of-a-model-at-step-1000.pt")
    'checkpoints/a-ver…l-at-step-1000.pt'
    """
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def tick(value: Decimal) -> str:
    """A plain number, or a power of ten where that would be long.

    >>> tick(Decimal("0.02")), tick(Decimal("1e-7"))
    ('0.02', '10⁻⁷')
    """
    power = value.adjusted()
    if -3 <= power <= 3:
        return f"{value:f}"
    digit = "" if value == Decimal(1).scaleb(power) else f"{value.scaleb(-power):f}·"
    return f"{digit}10{str(power).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def kilo(size: Decimal) -> str:
    """Bytes, in thousands from there on.

    >>> kilo(Decimal(500)), kilo(Decimal(2000))
    ('500', '2k')
    """
    return f"{size / 1000:f}k" if size >= 1000 else f"{size:f}"


def short(value: float, digits: int = 6) -> float:
    """Few digits: finer than any screen, and the page stays small."""
    return float(f"{value:.{digits}g}")
