"""Published JSON schemas judge STAC documents; nothing is fetched. The core schemas come with pystac."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cube.errors import RequestError

_CORE = "https://schemas.stacspec.org/v1.1.0"
CORE = {
    "Catalog": f"{_CORE}/catalog-spec/json-schema/catalog.json",
    "Collection": f"{_CORE}/collection-spec/json-schema/collection.json",
    "Feature": f"{_CORE}/item-spec/json-schema/item.json",
}
"""Type of a document → URL of its schema."""


class SchemaJudge:
    """Knows the core schemas, and those of a folder laid out as host/path: ``stac-extensions.github.io/eo/v2.0.0/schema.json``.

    Raises ``RequestError`` without the extra ``validate``, or for a folder that has no schemas.
    """

    def __init__(self, folder: Path | None = None) -> None:
        try:
            from jsonschema import Draft7Validator
            from pystac.validation.local_validator import get_local_schema_cache
            from referencing import Registry, Resource
        except ImportError as error:
            raise RequestError(f"checking schemas takes the extra: pip install 'patchcube[validate]' ({error})") from None
        schemas = {**_schemas(folder), **get_local_schema_cache()}
        schemas["http://json-schema.org/draft-07/schema"] = Draft7Validator.META_SCHEMA
        self._known = schemas.keys()
        self._registry = Registry().with_resources((url, Resource.from_contents(schema)) for url, schema in schemas.items())

    def knows(self, url: str) -> bool:
        """Tell whether a schema is at hand."""
        return url in self._known

    def complaints(self, document: Mapping[str, Any], url: str) -> Iterator[str]:
        """Yield what a schema has against a document, each with the place in it.

        Raises ``RequestError`` if the schema, or one that it refers to, is not at hand.
        """
        from jsonschema import Draft7Validator, FormatChecker
        from referencing.exceptions import Unresolvable

        validator = Draft7Validator({"$ref": url}, registry=self._registry, format_checker=FormatChecker())
        try:
            for error in validator.iter_errors(document):
                yield f"{'/'.join(map(str, error.absolute_path)) or 'document'}: {error.message[:200]}"
        except Unresolvable as error:
            raise RequestError(f"{url} refers to a schema that is not at hand: {error.ref}") from None


def _schemas(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {}
    found = {f"https://{path.relative_to(folder).as_posix()}": path for path in sorted(folder.rglob("*.json"))}
    if not found:
        raise RequestError(
            f"{folder} holds no schemas: expected files such as {folder}/stac-extensions.github.io/eo/v2.0.0/schema.json"
        )
    return {url: json.loads(path.read_bytes()) for url, path in found.items()}
