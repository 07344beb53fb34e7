"""What telemetry may say: deny by default.

Nothing a user or a data source wrote goes out as it came. Expressions go out as templates (made from the syntax
tree by `evaluator/template.py`), names only where the model has them, errors as names of classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from fhirpath_otel import semconv

MAX_TEMPLATE_BYTES = 1024
MAX_EXPRESSION_CHARACTERS = 16_384

_ERROR_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,127}")
_OPERATION = re.compile(r"[A-Z]{1,32}")


@dataclass(frozen=True, slots=True)
class Template:
    """What stands for an expression: `text` without any value (None where it could not be parsed), and a hash."""

    text: str | None
    hash: str


def template_from(text: str) -> Template:
    """The template with this text. The hash covers all of it; what is shown is cut at 1 kB."""
    shown = text.encode("utf-8", "replace")[:MAX_TEMPLATE_BYTES].decode("utf-8", "ignore")
    return Template(shown, digest(text))


def unparsable(expression: str) -> Template:
    """What stands for a text that could not be parsed: a hash only."""
    return Template(None, digest(expression))


def digest(text: str) -> str:
    """16 hexadecimal digits of SHA-256; any text has them, unpaired surrogates included."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def error_type(name: str) -> str:
    """The name of an error's class or our code for it; `_OTHER` for anything that could be a message."""
    return name if _ERROR_TYPE.fullmatch(name) else "_OTHER"


def _no_name(_: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Disclosure:
    """How much this process shows: of expressions (the setting CAPTURE_EXPRESSION), and which names.

    They are those of types and of operators.
    """

    capture_expression: str = "template"
    is_type: Callable[[str], bool] = _no_name
    is_operator: Callable[[str], bool] = _no_name

    def type_name(self, name: str | None) -> str | None:
        """The name, if it is one of the model's."""
        return name if name is not None and self.is_type(name) else None

    def operator_name(self, name: str) -> str:
        """The name, if it is known; `?` for any other."""
        return name if name == semconv.OTHER or self.is_operator(name) else semconv.UNKNOWN

    def template(self, template: Template) -> str | None:
        """The text of the template, if it may be shown."""
        return None if self.capture_expression == "hash" else template.text

    def expression(self, text: str | None) -> str | None:
        """The expression itself, which only the setting `full` allows."""
        if text is None or self.capture_expression != "full":
            return None
        return text[:MAX_EXPRESSION_CHARACTERS].encode("utf-8", "replace").decode("utf-8")

    def statement(self, summary: str) -> tuple[str, str | None]:
        """Operation and collection of a summary such as `SELECT Patient`."""
        operation, _, collection = summary.partition(" ")
        return operation if _OPERATION.fullmatch(operation) else "?", self.type_name(collection)
