"""The file given with ``--config``: how stores are reached, where the work runs. It may hold secrets: nothing quotes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cube.errors import ConfigError


class Config(BaseModel):
    """What a config file says."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    storage: dict[str, dict[str, Any]] = Field(default_factory=dict, repr=False)
    """URL prefix → fsspec options, such as ``s3://bucket: {anon: true}``. The longest prefix that fits holds."""
    cluster: dict[str, Any] | None = Field(default=None, repr=False)
    """Where the work runs."""

    @field_validator("storage")
    @classmethod
    def _prefixes(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for prefix in value:
            scheme, mark, rest = prefix.partition("://")
            if not scheme or not mark or "@" in rest.partition("/")[0]:
                raise ValueError("a key is no URL prefix; expected one such as s3://bucket or s3://bucket/folder")
        return value

    def options(self, url: str) -> dict[str, Any]:
        """Return the options of the longest prefix that ``url`` is or lies below; none where no prefix fits."""
        fitting = [prefix for prefix in self.storage if f"{url}/".startswith(f"{prefix.rstrip('/')}/")]
        return dict(self.storage[max(fitting, key=len)]) if fitting else {}


def read_config(path: str | Path | None) -> Config:
    """Read a config file; an empty config where ``path`` is None.

    Raises ``ConfigError`` naming the file and the place, and never a value that stands there.
    """
    if path is None:
        return Config()
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return Config.model_validate(data if data is not None else {})
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: not YAML") from None  # what YAML itself says quotes the line
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not YAML: it is no UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in problem["loc"][:1])
        known = "; expected storage and cluster" if problem["type"] == "extra_forbidden" else ""
        message = problem["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{path}: {place + ': ' if place else ''}{message}{known}") from None
