"""The file given with ``--config``: how stores are reached, where the work runs. It may hold secrets: nothing quotes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from cube.errors import ConfigError

_DOTTED = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$"


class _Part(BaseModel):
    """Unknown keys and other types than those named are refused; a value cannot change and is not shown in errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Adapt(_Part):
    """Bounds within which a cluster follows the work."""

    minimum: Annotated[int, Field(ge=1)] = 1
    """Fewest workers; the run begins when the first is there."""
    maximum: Annotated[int, Field(ge=1)]
    """Most workers."""


class ClusterProfile(_Part):
    """A Dask cluster to start for one run and to close at its end."""

    class_path: Annotated[str, Field(alias="class", pattern=_DOTTED)]
    """Dotted path of a Dask cluster class, such as ``dask_gateway.GatewayCluster``."""
    options: dict[str, Any] = Field(default_factory=dict, repr=False)
    """Keyword arguments of the class."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Workers to ask for; where neither this nor ``adapt`` is given, the class starts as many as its options say."""
    adapt: Adapt | None = None
    """Let the cluster add and remove workers as the work asks for them."""
    wait: Annotated[float, Field(gt=0)] = 600
    """Seconds to wait for the first worker."""

    @model_validator(mode="after")
    def _consistent(self) -> ClusterProfile:
        if self.workers is not None and self.adapt is not None:
            raise ValueError("workers and adapt exclude each other")
        if self.adapt is not None and self.adapt.minimum > self.adapt.maximum:
            raise ValueError(f"adapt: the minimum {self.adapt.minimum} is more than the maximum {self.adapt.maximum}")
        return self


class Config(_Part):
    """What a config file says."""

    storage: dict[str, dict[str, Any]] = Field(default_factory=dict, repr=False)
    """URL prefix → fsspec options, such as ``s3://bucket: {anon: true}``. The longest prefix that fits holds."""
    cluster: ClusterProfile | None = None
    """Where the work runs; on this machine where None."""

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


def read_config(path: str | Path) -> Config:
    """Read a config file.

    Raises ``ConfigError`` naming the file and the place, and never a value that stands there.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return Config.model_validate(data if data is not None else {})
    except RecursionError:
        raise ConfigError(f"{path}: too many levels within each other") from None
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
        raise ConfigError(f"{path}: {_explained(problem)}") from None


def _explained(problem: ErrorDetails) -> str:
    """Return what is wrong and where; no URL, no option and no value is quoted."""
    first, *rest = (str(part) for part in problem["loc"]) if problem["loc"] else ("",)
    models: dict[tuple[str, ...], type[BaseModel]] = {(): Config, ("cluster",): ClusterProfile, ("cluster", "adapt"): Adapt}
    place = ".".join((first, *rest)) if first == "cluster" else first
    known = ""
    if problem["type"] == "extra_forbidden":
        fields = models[(first, *rest)[:-1]].model_fields.items()
        known = f"; expected {' and '.join(field.alias or name for name, field in fields)}"
    return f"{place + ': ' if place else ''}{problem['msg'].removeprefix('Value error, ')}{known}"
