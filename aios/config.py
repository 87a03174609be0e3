"""Settings, typed and validated: flag > environment > project `aios.toml` > user `aios.toml` > default.

Owns where things live (`AIOS_HOME`) and every tunable. Knows no other part of the system.
A bad value is an error that names the setting and where it came from.
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from aios import env
from aios.env import home as home  # noqa: PLC0414  # part of this module's surface too
from aios.errors import ConfigError

Durability = Literal["crash", "power", "none"]


class EngineSettings(BaseSettings):
    """The engine host: model, threads and the KV pool."""

    model_config = SettingsConfigDict(env_prefix="AIOS_", extra="forbid")

    model: str = "smollm2-135m"
    """Name in the model store, path of a GGUF file or of a safetensors folder."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    load_anyway: bool = False
    """Load a model although the memory will probably not suffice."""
    threads: int = Field(default=0, ge=0, le=1024)
    """Compute threads; 0 = physical cores."""
    page_tokens: int = Field(default=16, ge=1, le=256)
    pool_pages: int = Field(default=0, ge=0)
    """Pages of the device pool; 0 = as many as fit beside the weights."""
    host_pages: int = Field(default=0, ge=0)
    """Pages of the host tier; 0 = four times the device pool."""
    step_tokens: int = Field(default=256, ge=16)
    """Most tokens (prefill chunks and decodes) in one forward step."""
    max_rows: int = Field(default=32, ge=1)
    """Most contexts in one forward step."""
    decode_slowdown: float = Field(default=2.5, ge=1, le=1e6)
    """How many times as long a step of decoding contexts may take because prompts are read in it (longer where more
    wait for their first token than for the next one). At 1 prompts are read page by page, at 1000 they go first."""
    native: bool = True
    """On a CPU use the native operations, built once where a C++ compiler is found; torch's otherwise."""
    deterministic: bool = False
    """The same tokens whatever else runs and however often a context is preempted or recomputed; slower."""
    prefix_sharing: bool = True
    """Processes of a tenant compute a common beginning of their prompts once. In deterministic mode this changes no
    token; otherwise it can, by the last bits of what was computed beside other neighbours."""
    tenant_pages: int = Field(default=0, ge=0)
    """Pages in a tenant's prefix tree that no other tenant can push out; 0 = an equal share of the device pool, which
    is also the most."""
    check_host_pages: bool = False
    """Whether pages on the host have checksums, as those on disk always do."""
    quantum_tokens: int = Field(default=32, ge=1)
    """Decode steps granted before another context may take the place (round robin)."""
    policy: Literal["fifo", "rr", "priority"] = "rr"
    call_format: Literal["auto", "hermes", "llama3", "gemma", "mistral", "mistral_v3", "mistral_tekken"] = "auto"
    """How the model writes tool calls; `auto`: as the family of its chat template does."""
    speculation: Literal["off", "ngram"] = "off"
    """Guess tokens from what the context has shown before; a guess never changes a token, only the number of steps."""
    jump_forward: Literal["off", "exact", "canonical"] = "exact"
    """Take tokens that the grammar forces without a step of their own; `canonical` may spell the same text in other
    tokens, and replies say so."""


class CoreSettings(BaseModel):
    """One place where model calls run: our engine host (`kind = "local"`) or an OpenAI-compatible endpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["local", "url"] = "url"
    url: str = Field(default="", pattern=r"^(https?://[^@\s]+)?$")
    """Up to and without `/chat/completions`, mostly ending in `/v1`; a key does not belong here."""
    model: str = ""
    """As the endpoint calls it; programs may ask for it by this name. A local core serves the setting `model`."""
    aliases: tuple[str, ...] = ()
    """Other names by which programs may ask for its model."""
    key: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    """Name of the environment variable that holds the API key; empty = none is sent."""
    concurrency: int = Field(default=8, ge=1, le=4096)
    """Calls under way at once; more wait here, by class."""
    attempts: int = Field(default=4, ge=1, le=100)
    retry_wait_s: float = Field(default=0.25, gt=0)
    """Before the second attempt; it doubles with each."""
    longest_retry_wait_s: float = Field(default=30.0, gt=0)
    """An endpoint that wants to be left alone for longer (Retry-After) is not waited for."""
    connect_s: float = Field(default=10.0, gt=0)
    silence_s: float = Field(default=120.0, gt=0)
    """Longest time between two bytes of an answer."""
    timeout_s: float = Field(default=1800.0, gt=0)
    """Longest time for one answer."""
    continuation: Literal["none", "prefill", "flag"] = "none"
    """How it goes on with an answer that was begun: `prefill` = a last message of the assistant is gone on with
    (llama-server), `flag` = that with `continue_final_message` (vLLM, SGLang), `none` = it begins anew."""
    max_context: int = Field(default=131_072, ge=1)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "url" and not (self.url and self.model):
            raise ValueError("a core of kind 'url' needs `url` and `model`")
        return self


class Settings(EngineSettings):
    """All settings of a kernel."""

    name: str = Field(default="default", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    store: str = ""
    """Database URL; empty = SQLite in the kernel's own folder."""
    durability: Durability = "crash"
    rules: Annotated[tuple[Path, ...], NoDecode] = ()
    """Rule files; as text (in the environment), a list with the separator of PATH, or a JSON list."""
    guard_mode: Literal["mask", "resample", "hybrid"] = "mask"
    """How the rules steer the decoding of calls where a request does not say: forbidden tokens are masked; or a refused
    call is drawn again, a few times; or it is masked only after a refusal. The gate judges every call in any case."""
    cores: dict[str, CoreSettings] = Field(default_factory=dict)
    """Where model calls run, by name; empty = one engine host of our own. A call that names a model runs on a core that
    serves it, one that names none on any of them."""
    listen: str = Field(default="", pattern=r"^((127\.0\.0\.1|localhost|\[::1\]):[0-9]{1,5})?$")
    """Loopback address (HOST:PORT) where processes reach the kernel, OpenAI clients too; empty: the socket alone."""
    core_policy: Literal["first", "least-loaded", "prefix-affinity"] = "first"
    """Which of several cores a generation runs on: the first that is up, the one with the fewest calls, or the one
    that has had the longest common beginning of its prompt. When it cannot, another one goes on."""
    max_processes: int = Field(default=10_000, ge=1)
    max_depth: int = Field(default=16, ge=1)
    max_children: int = Field(default=256, ge=1)
    approval_timeout_s: float = Field(default=3600.0, gt=0)
    tool_timeout_s: float = Field(default=60.0, gt=0)
    debug: int = Field(default=0, ge=0, le=4)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the sources: flags first, defaults last."""
        return (init_settings, env_settings, *(TomlConfigSettingsSource(settings_cls, path) for path in files()))

    @field_validator("rules", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return json.loads(value) if value.startswith("[") else tuple(filter(None, value.split(os.pathsep)))

    def models_of(self, name: str) -> tuple[str, ...]:
        """Return the names by which the model of the core `name` can be asked for."""
        core = self.cores[name]
        return (self.own_model if core.kind == "local" else core.model, *core.aliases)

    @property
    def own_model(self) -> str:
        """Name of our own engine's model; of one that is given as a path, the file's name without its ending."""
        return Path(self.model).stem if os.sep in self.model else self.model

    @property
    def models(self) -> dict[str, tuple[str, ...]]:
        """Model name → the cores that serve it, in the order of the settings. Without cores the own engine serves."""
        found: dict[str, tuple[str, ...]] = {}
        for core in self.cores:
            for model in self.models_of(core):
                found[model] = (*found.get(model, ()), core)
        return found or {self.own_model: ("engine",)}

    @property
    def folder(self) -> Path:
        """This kernel's own folder: store, disk tier of the KV cache, lock."""
        return home() / "kernels" / self.name

    @property
    def store_url(self) -> str:
        """The database URL, with the default filled in."""
        return self.store or f"sqlite:///{self.folder / 'journal.db'}"


def files() -> tuple[Path, Path]:
    """Return where settings files may lie: the project's, which goes first, and the user's."""
    return Path("aios.toml").absolute(), home() / "aios.toml"


def load(defaults: Mapping[str, Any] | None = None, **flags: Any) -> Settings:
    """Read the settings; `flags` that are None were not given.

    `defaults` are a program's own wishes: they rank below every source, above the built-in defaults.
    Raises ConfigError naming each wrong setting, where it came from, what was found and what would work.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    _refuse_unknown_variables()
    in_files = {path: _read(path) for path in files()}
    try:
        settings = Settings(**given)
        wishes = {name: value for name, value in (defaults or {}).items() if name not in settings.model_fields_set}
        return Settings(**given, **wishes) if wishes else settings
    except ValidationError as error:
        lines = [_explain(item, given, in_files) for item in error.errors()]
        raise ConfigError("settings refused: " + "; ".join(lines)) from error


def _read(path: Path) -> dict[str, Any]:
    """Read a settings file; nothing if there is none. Raises ConfigError."""
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"settings file {path} cannot be read: {error}") from error


def _refuse_unknown_variables() -> None:
    """A misspelt variable would otherwise be ignored. Raises ConfigError."""
    settings = {f"AIOS_{name.upper()}" for name in Settings.model_fields}
    others = {value for name, value in vars(env).items() if name.isupper() and isinstance(value, str)}
    known = settings | others
    unknown = sorted(name for name in os.environ if name.startswith("AIOS_") and name.upper() not in known)
    if unknown:
        told = "; ".join(f"{name}: no such variable{_nearest(name, known)}" for name in unknown)
        raise ConfigError(f"environment refused: {told}")


def _explain(item: ErrorDetails, given: Mapping[str, Any], in_files: Mapping[Path, Mapping[str, Any]]) -> str:
    name = str(item["loc"][0]) if item["loc"] else "settings"
    path = ".".join(str(part) for part in item["loc"])
    problem = (
        f"no such setting{_nearest(name, Settings.model_fields)}" if item["type"] == "extra_forbidden" else item["msg"]
    )
    return f"{path} = {item['input']!r} ({_origin(name, given, in_files)}): {problem}"


def _origin(name: str, given: Mapping[str, Any], in_files: Mapping[Path, Mapping[str, Any]]) -> str:
    """Say which source won, in the order of precedence."""
    if name in given:
        return f"flag --{name.replace('_', '-')}"
    variable = f"AIOS_{name.upper()}"
    if variable in map(str.upper, os.environ) and name in Settings.model_fields:
        return f"environment variable {variable}"
    for path, values in in_files.items():
        if name in values:
            return str(path)
    return "the program's default"


def _nearest(name: str, known: Mapping[str, Any] | set[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"


def valid_name(text: str) -> str:
    """Make a kernel's name from a script's stem or another text."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:64] or "default"
