"""Logic, comparison and arithmetic as expressions of DuckDB."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

from fhirpath_otel.databases.duckdb_fragments import ABSENT, Fragment, element_of
from fhirpath_otel.databases.duckdb_numbers import INTEGER_DIGITS, Number, aligned, computed, decimal_type
from fhirpath_otel.databases.duckdb_paths import PathPrinter
from fhirpath_otel.evaluator import plan
from fhirpath_otel.evaluator.operand_types import family, is_integer
from fhirpath_otel.evaluator.plan import NotExpressible, Operator


class OperatorPrinter(PathPrinter):
    """Prints the operators over single items."""

    def not_(self, operator: plan.Not) -> Fragment:
        item = self.single(operator.input)
        return Fragment(f"(NOT {item.sql})", "BOOLEAN") if item.sql is not None else ABSENT

    def logic(self, operator: plan.Logic) -> Fragment:
        operands = [self.single(operand) for operand in operator.operands]
        texts = [one.sql or "CAST(NULL AS BOOLEAN)" for one in operands]
        if operator.operator == "implies":
            return Fragment(f"(NOT {texts[0]} OR {texts[1]})", "BOOLEAN")
        if operator.operator == "xor":
            return Fragment(reduce(lambda one, other: f"({one} <> {other})", texts), "BOOLEAN")
        return Fragment(f"({f' {operator.operator.upper()} '.join(texts)})", "BOOLEAN")

    def conditional(self, operator: plan.Conditional) -> Fragment:
        criterion = self.single(operator.criterion)
        if family(operator) == "Number":
            then, otherwise = self.branch_numbers(operator)
        else:
            then, otherwise = self.value(operator.then), self.value(operator.otherwise)
        if criterion.sql is None:
            return otherwise
        structure = then.structure or otherwise.structure
        if structure is None:
            return ABSENT
        if then.structure != otherwise.structure and None not in (then.structure, otherwise.structure):
            reason = "its branches are stored differently"
            raise NotExpressible("iif()", reason, operator.start, operator.end)
        sql = f"CASE WHEN {criterion.sql} THEN {then.sql or 'NULL'} ELSE {otherwise.sql or 'NULL'} END"
        return Fragment(sql, structure, digits=then.digits or otherwise.digits)

    def branch_numbers(self, operator: plan.Conditional) -> tuple[Fragment, Fragment]:
        """Both branches as one kind of decimal."""
        numbers = [self.number(branch) for branch in (operator.then, operator.otherwise)]
        known = [one.digits for one in numbers if one is not None]
        digits = max((whole for whole, _ in known), default=1), max((part for _, part in known), default=0)
        kind = decimal_type(*digits, operator)
        then, otherwise = (
            Fragment(one.cast(kind), "DECIMAL", digits=digits) if one else ABSENT for one in numbers
        )
        return then, otherwise

    def type_test(self, operator: plan.TypeTest) -> Fragment:
        item = self.only(self.fragment(operator.input), operator.input)
        if not item.alternatives:
            answer = "TRUE" if operator.matching else "FALSE"
            test = self.presence(item)
            return Fragment(f"CASE WHEN {test.sql} THEN {answer} END", "BOOLEAN")
        cases = [
            f"WHEN {self.presence(one).sql} THEN {'TRUE' if kind in operator.matching else 'FALSE'}"
            for kind, one in item.alternatives
        ]
        return Fragment(f"CASE {' '.join(cases)} END", "BOOLEAN")

    def compare(self, operator: plan.Compare) -> Fragment:
        left, right = self.value(operator.left), self.value(operator.right)
        if left.sql is None or right.sql is None:
            return ABSENT
        if operator.operator in ("=", "!=") and (left.many or right.many):
            return self.equal_collections(operator, left, right)
        return self.compare_items(operator, self.only(left, operator.left), self.only(right, operator.right))

    def compare_items(self, operator: plan.Compare, left: Fragment, right: Fragment) -> Fragment:
        """The comparison of two items that are printed already."""
        symbol = "<>" if operator.operator == "!=" else operator.operator
        if operator.family == "Date":
            return Fragment(
                self.once_each(left, right, lambda one, other: _compare_dates(one, symbol, other)), "BOOLEAN"
            )
        one, other = left.sql, right.sql
        if operator.family == "Number":
            numbers = self.as_number(left, operator.left), self.as_number(right, operator.right)
            one, other = aligned(*numbers, operator)
        return Fragment(f"({one} {symbol} {other})", "BOOLEAN")

    def equal_collections(self, operator: plan.Compare, left: Fragment, right: Fragment) -> Fragment:
        """`=` over collections: empty if one is empty, false if the counts differ, else item by item."""
        if left.many and right.many:
            if operator.family != "String":
                reason = f"two collections of {operator.family} values are not compared in SQL yet"
                raise NotExpressible(operator.operator, reason, operator.start, operator.end)
            sql = self.once_each(left, right, lambda one, other: _equal_lists(operator.operator, one, other))
            return Fragment(sql, "BOOLEAN")
        items, item = (left, right) if left.many else (right, left)
        equality = replace(operator, operator="=")

        def equal(name: str) -> str:
            first = replace(items, sql=f"({name})[1]", many=False, structure=element_of(items.structure))
            both = (first, item) if left.many else (item, first)
            test = f"(len({name}) = 1 AND {self.compare_items(equality, *both).sql})"
            test = test if operator.operator == "=" else f"(NOT {test})"
            return f"(CASE WHEN len({name}) > 0 AND {item.sql} IS NOT NULL THEN {test} END)"

        return Fragment(self.once(str(items.sql), equal), "BOOLEAN")

    def membership(self, operator: plan.Membership) -> Fragment:
        item = self.single(operator.item)
        if item.sql is None:
            return ABSENT
        if isinstance(operator.collection, plan.Constants | plan.Constant):
            one = operator.collection
            values = one.values if isinstance(one, plan.Constants) else (one.value,)
            listed = ", ".join(str(self.literal(value, one).sql) for value in values)
            return Fragment(f"({item.sql} IN ({listed}))", "BOOLEAN")
        collection = self.value(operator.collection)

        def found(name: str) -> str:
            if collection.sql is None:
                test = "FALSE"
            elif collection.many:
                test = f"coalesce(list_contains({collection.sql}, {name}), FALSE)"
            else:
                test = f"coalesce({collection.sql} = {name}, FALSE)"
            return f"(CASE WHEN {name} IS NOT NULL THEN {test} END)"

        return Fragment(self.once(item.sql, found), "BOOLEAN")

    def arithmetic(self, operator: plan.Arithmetic) -> Fragment:
        number = self.number(operator)
        return Fragment(number.sql, "DECIMAL", digits=number.digits) if number else ABSENT

    def number(self, operator: Operator) -> Number | None:
        """A number and its digits; None where it is empty for every resource."""
        if isinstance(operator, plan.Arithmetic):
            left, right = self.number(operator.left), self.number(operator.right)
            return computed(operator, left, right, self.once) if left and right else None
        item = self.single(operator)
        return self.as_number(item, operator) if item.sql is not None else None

    def as_number(self, item: Fragment, operator: Operator) -> Number:
        """The number that the operator's item is, as exact as it is stored."""
        if item.digits is not None:
            return Number(str(item.sql), item.digits, is_integer(operator))
        if item.structure == "INTEGER":
            return Number(str(item.sql), INTEGER_DIGITS, is_integer(operator))
        digits = self.widths.get(".".join(item.path))
        if digits is None:
            reason = "the data has decimals that are not written as plain digits"
            raise NotExpressible((item.path or ("number",))[-1], reason, operator.start, operator.end)
        return Number(f"CAST({item.sql} AS {decimal_type(*digits, operator)})", digits, False)


def _compare_dates(left: str, operator: str, right: str) -> str:
    """Dates as text, `2012` or `2012-05` or `2012-05-03`: where one is the other's beginning, it is not known."""
    known = f"length({left}) = length({right}) OR NOT (starts_with({left}, {right}) OR starts_with({right}, {left}))"
    return f"CASE WHEN {known} THEN {left} {operator} {right} END"


def _equal_lists(operator: str, left: str, right: str) -> str:
    same = f"{left} = {right}" if operator == "=" else f"{left} <> {right}"
    return f"(CASE WHEN len({left}) > 0 AND len({right}) > 0 THEN {same} END)"
