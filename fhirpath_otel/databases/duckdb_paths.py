"""Paths, and what filters, counts and picks their items, as list functions of DuckDB."""

from __future__ import annotations

from dataclasses import replace

from fhirpath_otel.databases.duckdb_fragments import (
    ABSENT,
    Fragment,
    FragmentPrinter,
    element_of,
    in_order,
    quoted,
)
from fhirpath_otel.evaluator import plan
from fhirpath_otel.evaluator.operand_types import is_uniform
from fhirpath_otel.evaluator.plan import NotExpressible, Operator


class PathPrinter(FragmentPrinter):
    """Prints the operators over collections."""

    def navigate(self, operator: plan.Navigate) -> Fragment:
        input_ = self.fragment(operator.input)
        if not input_.many:
            return _without_gaps(self.step(input_, operator))
        if input_.sql is None:
            return ABSENT
        variable = f"e{operator.start}_{operator.end}"
        step = self.step(
            replace(input_, sql=variable, many=False, structure=element_of(input_.structure)), operator
        )
        if is_uniform(operator):
            step = self.merged(step, operator)
        if step.alternatives or step.companion:
            reason = "a primitive with extensions" if step.companion else "a choice of types"
            raise NotExpressible(
                operator.name, f"{reason} in a list is not in SQL yet", operator.start, operator.end
            )
        if step.sql is None:
            return ABSENT
        steps = f"list_transform({input_.sql}, lambda {variable}: {step.sql})"
        flat = f"flatten({steps})" if step.many else steps
        flat = f"list_filter({flat}, lambda {variable}: {variable} IS NOT NULL)"
        structure = step.structure if step.many else [step.structure or "VARCHAR"]
        return Fragment(flat, structure, many=True, path=step.path)

    def step(self, item: Fragment, operator: plan.Navigate) -> Fragment:
        """One step from an item to a child element."""
        if len(operator.alternatives) == 1:
            ((_, key),) = operator.alternatives
            return self.child(item, key, operator)
        found = [(kind, self.child(item, key, operator)) for kind, key in operator.alternatives]
        present = tuple((kind, one) for kind, one in found if one.sql is not None or one.companion)
        return Fragment(None, alternatives=present) if present else ABSENT

    def child(self, item: Fragment, key: str, operator: plan.Navigate) -> Fragment:
        owner = item
        if not isinstance(item.structure, dict):
            owner = item.companion or ABSENT
        if owner.sql is None or not isinstance(owner.structure, dict):
            return ABSENT
        structure = owner.structure.get(key)
        path = (*owner.path, key)
        if structure in ("JSON", ["JSON"]):
            reason = "resources inside resources are kept as text only"
            raise NotExpressible(operator.name, reason, operator.start, operator.end)
        if ".".join((self.plan.resource_type, *path)) in self.dropped:
            reason = "the data has values of another shape there"
            raise NotExpressible(operator.name, reason, operator.start, operator.end)
        companion = self.companion(owner, key, operator)
        if structure is None:
            return Fragment(None, companion=companion, path=path) if companion else ABSENT
        sql = f"{owner.sql}.{quoted(key)}"
        return Fragment(sql, structure, isinstance(structure, list), path, companion)

    def companion(self, owner: Fragment, key: str, operator: plan.Navigate) -> Fragment | None:
        assert isinstance(owner.structure, dict)
        structure = owner.structure.get(f"_{key}")
        if structure is None:
            return None
        if isinstance(structure, list):
            reason = "the data has extensions on single values of this list"
            raise NotExpressible(operator.name, reason, operator.start, operator.end)
        return Fragment(f"{owner.sql}.{quoted('_' + key)}", structure, path=(*owner.path, f"_{key}"))

    def of_one_type(self, operator: Operator) -> Fragment:
        """The collection that a criterion is about: a choice of types that are stored alike as one."""
        item = self.fragment(operator)
        if any(one.companion for _, one in item.alternatives):
            reason = "a choice of primitives with extensions is not in SQL here"
            raise NotExpressible("where()", reason, operator.start, operator.end)
        return self.merged(item, operator)

    def filter(self, operator: plan.Filter) -> Fragment:
        input_ = self.of_one_type(operator.input)
        if input_.sql is None:
            return self.absent(input_, operator)
        if input_.companion:
            reason = "a primitive with extensions is not in SQL here"
            raise NotExpressible("where()", reason, operator.start, operator.end)
        if input_.many:
            test, variables = self.lambda_test(operator, input_)
            sql = f"list_filter({input_.sql}, lambda {variables}: {test.sql})"
            return replace(input_, sql=sql)

        def kept(name: str) -> str:
            return f"(CASE WHEN {self.of_one(operator, replace(input_, sql=name))} THEN {name} END)"

        return replace(input_, sql=self.once(input_.sql, kept))

    def of_one(self, operator: plan.Filter | plan.All, item: Fragment) -> str:
        """Whether there is the item, and the criterion holds for it."""
        return in_order([self.presence(item), self.with_item(operator.level, item, "0", operator.criterion)])

    def lambda_test(self, operator: plan.Filter | plan.All, input_: Fragment) -> tuple[Fragment, str]:
        variable, counter = f"x{operator.level}", f"i{operator.level}"
        item = Fragment(variable, element_of(input_.structure), path=input_.path, digits=input_.digits)
        test = self.with_item(operator.level, item, f"({counter} - 1)", operator.criterion)
        indexed = plan.mentions(operator.criterion, plan.Index, operator.level)
        return test, f"{variable}, {counter}" if indexed else variable

    def absent(self, item: Fragment, operator: Operator) -> Fragment:
        """Nothing is stored there: the empty collection, unless only extensions are."""
        if item.companion:
            reason = "an element with extensions only is not in SQL here"
            raise NotExpressible("where()", reason, operator.start, operator.end)
        return ABSENT

    def exists(self, operator: plan.Exists) -> Fragment:
        filtered = operator.input
        if not isinstance(filtered, plan.Filter) or filtered.input.many:
            return self.presence(self.fragment(filtered))
        item = self.of_one_type(filtered.input)
        if item.sql is None:
            return self.presence(self.absent(item, filtered))

        def found(name: str) -> str:
            return f"coalesce({self.of_one(filtered, replace(item, sql=name))}, FALSE)"

        return Fragment(self.once(item.sql, found), "BOOLEAN")

    def all(self, operator: plan.All) -> Fragment:
        input_ = self.of_one_type(operator.input)
        if input_.sql is None:
            self.absent(input_, operator)
            return Fragment("TRUE", "BOOLEAN")
        if not input_.many:
            return self.holds_for(operator, input_)
        test, variables = self.lambda_test(operator, input_)
        present = f"x{operator.level} IS NOT NULL"
        failing = (
            f"list_filter({input_.sql}, lambda {variables}: {present} AND NOT coalesce({test.sql}, FALSE))"
        )
        return Fragment(f"(coalesce(len({failing}), 0) = 0)", "BOOLEAN")

    def holds_for(self, operator: plan.All, item: Fragment) -> Fragment:
        """Whether the criterion holds for the item, if there is one."""

        def holds(name: str) -> str:
            one = replace(item, sql=name)
            test = self.with_item(operator.level, one, "0", operator.criterion)
            return f"(CASE WHEN {self.presence(one).sql} THEN coalesce({test.sql}, FALSE) ELSE TRUE END)"

        return Fragment(self.once(str(item.sql), holds), "BOOLEAN")

    def count(self, operator: plan.Count) -> Fragment:
        item = self.fragment(operator.input)
        if item.many and item.sql is not None:
            return Fragment(f"coalesce(len({item.sql}), 0)", "INTEGER")
        presence = self.presence(item)
        return Fragment(f"CASE WHEN {presence.sql} THEN 1 ELSE 0 END", "INTEGER")

    def pick(self, operator: plan.Pick) -> Fragment:
        item = self.fragment(operator.input)
        if not item.many:
            return item if operator.position <= 0 else ABSENT
        if item.sql is None:
            return ABSENT
        position = operator.position if operator.position < 0 else operator.position + 1
        return replace(
            item, sql=f"({item.sql})[{position}]", many=False, structure=element_of(item.structure)
        )


def _without_gaps(item: Fragment) -> Fragment:
    """A list of primitives without what is null in it; of objects, null is told when they are loaded."""
    if item.sql is None or not isinstance(item.structure, list) or not isinstance(item.structure[0], str):
        return item
    return replace(item, sql=f"list_filter({item.sql}, lambda e: e IS NOT NULL)")
