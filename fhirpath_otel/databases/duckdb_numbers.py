"""Exact numbers in DuckDB: every expression knows how many digits it needs, so nothing passes through a float.

DuckDB's DECIMAL has at most 38 digits and rounds or fails in silence or by surprise where two of different scale meet.
So each operand is cast to a type that holds the result of the operation exactly, and what needs more digits is not
expressible in SQL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from fhirpath_otel.evaluator.plan import Arithmetic, NotExpressible, Operator

Once = Callable[[str, Callable[[str], str]], str]
"""Puts an expression into a body that uses it several times."""

Digits = tuple[int, int]
"""How many digits stand before and after the decimal point, at most."""

MOST_DIGITS = 38  # of a DuckDB DECIMAL
FAST_DIGITS = 18  # on DuckDB 1.5 a cast to 38 digits costs 50 times one to 18
QUOTIENT_SCALE = 8  # the specification's step size of decimals is 10^-8


@dataclass(frozen=True, slots=True)
class Number:
    """An SQL expression of an integer type or DECIMAL; `integer` where FHIRPath calls it an Integer."""

    sql: str
    digits: Digits
    integer: bool
    raises: bool = False

    def cast(self, kind: str) -> str:
        """The number as this type."""
        return self.sql if self.sql.endswith(f" AS {kind})") else f"CAST({self.sql} AS {kind})"


def digits_of(value: int | Decimal) -> Digits:
    """`12.50` has two digits before the point and two after it."""
    _, digits, exponent = Decimal(value).as_tuple()
    assert isinstance(exponent, int)
    return max(1, len(digits) + exponent), max(0, -exponent)


def decimal_type(whole: int, fraction: int, operator: Operator) -> str:
    """The narrowest fast DECIMAL that holds these digits. Raises NotExpressible where none does."""
    if whole + fraction > MOST_DIGITS:
        reason = f"its numbers need more than {MOST_DIGITS} digits"
        raise NotExpressible(getattr(operator, "operator", "number"), reason, operator.start, operator.end)
    return f"DECIMAL({FAST_DIGITS if whole + fraction <= FAST_DIGITS else MOST_DIGITS}, {fraction})"


def aligned(left: Number, right: Number, operator: Operator) -> tuple[str, str, Digits]:
    """Both numbers as one type that holds either exactly."""
    whole = max(left.digits[0], right.digits[0])
    fraction = max(left.digits[1], right.digits[1])
    if left.integer and right.integer and whole <= FAST_DIGITS:
        return left.sql, right.sql, (whole, 0)
    kind = decimal_type(whole, fraction, operator)
    return left.cast(kind), right.cast(kind), (whole, fraction)


def computed(operator: Arithmetic, left: Number, right: Number, once: Once) -> Number:
    """`+`, `-`, `*`, `/`, `div` and `mod`; division by zero gives NULL."""
    symbol = operator.operator
    if symbol in ("/", "div"):
        return _quotient(operator, left, right, once)
    raises = left.raises or right.raises
    integer = left.integer and right.integer
    (whole_1, fraction_1), (whole_2, fraction_2) = left.digits, right.digits
    if symbol == "*":
        whole, fraction = whole_1 + whole_2, fraction_1 + fraction_2
        decimal_type(whole, fraction, operator)
        factors = (one.cast(f"DECIMAL({sum(one.digits)}, {one.digits[1]})") for one in (left, right))
        return Number(f"({' * '.join(factors)})", (whole, fraction), integer, raises)
    whole, fraction = max(whole_1, whole_2) + 1, max(fraction_1, fraction_2)
    kind = decimal_type(whole, fraction, operator)
    one, other = left.cast(kind), right.cast(kind)
    if symbol == "mod":
        return Number(f"({one} % nullif({other}, 0))", (whole, fraction), integer, raises)
    return Number(f"({one} {symbol} {other})", (whole, fraction), integer, raises)


def _quotient(operator: Arithmetic, left: Number, right: Number, once: Once) -> Number:
    """Division in whole numbers, as DuckDB's `/` on decimals is binary floating point.

    `div` truncates; `/` is rounded half away from zero at the eighth decimal place.
    """
    raises = left.raises or right.raises
    fraction = max(left.digits[1], right.digits[1])
    numerator, denominator = (_scaled(side, fraction, operator) for side in (left, right))
    whole = left.digits[0] + right.digits[1]
    if operator.operator == "div":
        return Number(f"({numerator} // nullif({denominator}, 0))", (whole, 0), True, raises)
    decimal_type(whole + fraction, 2 * QUOTIENT_SCALE, operator)

    def steps(n: str, d: str) -> str:
        """The quotient in units of the last place, rounded."""
        sign = f"CASE WHEN ({n} < 0) <> ({d} < 0) THEN -1 ELSE 1 END"
        return f"((2 * abs({n}) * {10**QUOTIENT_SCALE} + abs({d})) // nullif(2 * abs({d}), 0) * {sign})"

    counted = once(numerator, lambda n: once(denominator, lambda d: steps(n, d)))
    step = f"CAST('{Decimal(10) ** -QUOTIENT_SCALE:f}' AS DECIMAL({QUOTIENT_SCALE}, {QUOTIENT_SCALE}))"
    sql = f"(CAST({counted} AS DECIMAL({MOST_DIGITS - QUOTIENT_SCALE}, 0)) * {step})"
    return Number(sql, (whole, QUOTIENT_SCALE), False, raises)


def _scaled(number: Number, fraction: int, operator: Operator) -> str:
    """The number times 10^fraction, as a whole number of up to 38 digits."""
    whole = number.digits[0]
    if fraction == 0:
        return f"CAST({number.sql} AS HUGEINT)"
    decimal_type(whole + fraction, fraction + 1, operator)
    exact = f"CAST({number.sql} AS DECIMAL({whole + fraction}, {fraction}))"
    return f"CAST({exact} * CAST({10**fraction} AS DECIMAL({fraction + 1}, 0)) AS HUGEINT)"
