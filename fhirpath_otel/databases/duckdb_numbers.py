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
INTEGER_DIGITS: Digits = (10, 0)  # of a FHIRPath Integer, which has 32 bits
QUOTIENT_SCALE = 8  # the specification's step size of decimals is 10^-8


@dataclass(frozen=True, slots=True)
class Number:
    """An SQL expression of an integer type or DECIMAL; `integer` where FHIRPath calls it an Integer."""

    sql: str
    digits: Digits
    integer: bool

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


def aligned(left: Number, right: Number, operator: Operator) -> tuple[str, str]:
    """Both numbers as one type that holds either exactly."""
    whole = max(left.digits[0], right.digits[0])
    fraction = max(left.digits[1], right.digits[1])
    if left.integer and right.integer and whole <= FAST_DIGITS:
        return left.sql, right.sql
    kind = decimal_type(whole, fraction, operator)
    return left.cast(kind), right.cast(kind)


def computed(operator: Arithmetic, left: Number, right: Number, once: Once) -> Number:
    """`+`, `-`, `*`, `/`, `div` and `mod`; division by zero gives NULL."""
    symbol = operator.operator
    if symbol in ("/", "div"):
        return within_integer(_quotient(operator, left, right, once))
    integer = left.integer and right.integer
    (whole_1, fraction_1), (whole_2, fraction_2) = left.digits, right.digits
    if symbol == "*":
        whole, fraction = whole_1 + whole_2, fraction_1 + fraction_2
        decimal_type(whole, fraction, operator)
        sql = product(left, right)
        return within_integer(Number(sql, (whole, fraction), integer))
    whole, fraction = max(whole_1, whole_2) + 1, max(fraction_1, fraction_2)
    kind = decimal_type(whole, fraction, operator)
    one, other = left.cast(kind), right.cast(kind)
    if symbol == "mod":
        return Number(f"({one} % nullif({other}, 0))", (whole, fraction), integer)
    return within_integer(Number(f"({one} {symbol} {other})", (whole, fraction), integer))


def within_integer(number: Number) -> Number:
    """An Integer beyond 32 bits is nothing (https://hl7.org/fhirpath/N1/#math)."""
    if not number.integer or sum(number.digits) < sum(INTEGER_DIGITS):
        return number
    return Number(f"TRY_CAST({number.sql} AS INTEGER)", INTEGER_DIGITS, True)


def product(left: Number, right: Number) -> str:
    """The exact product. DuckDB makes it a DECIMAL(18) unless a factor is wider, and then it can overflow."""
    widths = [sum(left.digits), sum(right.digits)]
    if sum(widths) > FAST_DIGITS:
        widths[0] = max(widths[0], FAST_DIGITS + 1)
    factors = (
        side.cast(f"DECIMAL({width}, {side.digits[1]})")
        for side, width in zip((left, right), widths, strict=True)
    )
    return f"({' * '.join(factors)})"


def _quotient(operator: Arithmetic, left: Number, right: Number, once: Once) -> Number:
    """Division in whole numbers, as DuckDB's `/` on decimals is binary floating point.

    `div` truncates; `/` is rounded half away from zero at the eighth decimal place.
    """
    fraction = max(left.digits[1], right.digits[1])
    numerator, denominator = (_scaled(side, fraction, operator) for side in (left, right))
    whole = left.digits[0] + right.digits[1]
    if operator.operator == "div":
        return Number(f"({numerator} // nullif({denominator}, 0))", (whole, 0), True)
    decimal_type(whole + fraction, 2 * QUOTIENT_SCALE, operator)

    def steps(n: str, d: str) -> str:
        """The quotient in units of the last place, rounded."""
        sign = f"CASE WHEN ({n} < 0) <> ({d} < 0) THEN -1 ELSE 1 END"
        return f"((2 * abs({n}) * {10**QUOTIENT_SCALE} + abs({d})) // nullif(2 * abs({d}), 0) * {sign})"

    counted = once(numerator, lambda n: once(denominator, lambda d: steps(n, d)))
    step = f"CAST('{Decimal(10) ** -QUOTIENT_SCALE:f}' AS DECIMAL({QUOTIENT_SCALE}, {QUOTIENT_SCALE}))"
    sql = f"(CAST({counted} AS DECIMAL({MOST_DIGITS - QUOTIENT_SCALE}, 0)) * {step})"
    return Number(sql, (whole, QUOTIENT_SCALE), False)


def _scaled(number: Number, fraction: int, operator: Operator) -> str:
    """The number times 10^fraction, as a whole number of up to 38 digits."""
    whole = number.digits[0]
    if fraction == 0:
        return f"CAST({number.sql} AS HUGEINT)"
    decimal_type(whole + fraction, fraction + 1, operator)
    exact = Number(number.sql, (whole, fraction), False)
    return f"CAST({product(exact, Number(str(10**fraction), (fraction + 1, 0), True))} AS HUGEINT)"
