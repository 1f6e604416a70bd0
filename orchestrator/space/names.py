"""What a dotted name can mean in a sweep: a parameter, a tie, a key of the job's config or of an option."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from orchestrator.config import job_config, leaf_paths
from orchestrator.schema import SweepConfig
from orchestrator.space.parameter import CHOICE, Parameter

NOTHING = object()
_REFERENCE = re.compile(r"\$\{([^\W\d]\w*(?:\.\w+)*)\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """All that expressions may refer to.

    Attributes:
        job: the job's config, interpolations as written.
        space: the parameters.
        groups: for each parameter that chooses a config group, the content of its options.
        tied: the computed keys with their expressions.
        scaled: the keys that a stage writes.
    """

    job: Mapping[str, Any]
    space: Mapping[str, Parameter]
    groups: Mapping[str, Mapping[str, Any]]
    tied: Mapping[str, str]
    scaled: frozenset[str]

    def group_of(self, name: str) -> str | None:
        """Return the nearest group parameter that a name lies in."""
        return max((group for group in self.groups if name.startswith(f"{group}.")), key=len, default=None)

    def in_options(self, name: str) -> dict[str, Any]:
        """Return what a name holds in each option of its group; options without it are left out."""
        group = self.group_of(name)
        if group is None:
            return {}
        options = {
            option: at(content, name[len(group) + 1 :]) for option, content in self.groups[group].items()
        }
        return {option: value for option, value in options.items() if value is not NOTHING}

    def fixed(self, name: str) -> Any:
        """Return what the job's own config holds; `NOTHING` without the key, or where a group replaces it."""
        return at(self.job, name) if self.group_of(name) is None else NOTHING

    def exists(self, name: str) -> bool:
        """Say whether a trial's config can have such a key."""
        return self.fixed(name) is not NOTHING or bool(self.in_options(name))

    def values(self, name: str) -> tuple[Any, ...] | None:
        """Return the values that comparisons of a name with text may meet; None: there is no such name."""
        if name in self.space:
            return self.space[name].values if self.space[name].kind == CHOICE else ()
        if name in self.tied:
            return ()
        if options := self.in_options(name):
            return tuple(options.values())
        value = self.fixed(name)
        return None if value is NOTHING or isinstance(value, dict) else (value,)

    def everything(self) -> list[str]:
        """List all names, for hints."""
        inside = [
            f"{group}.{path}"
            for group, options in self.groups.items()
            for content in options.values()
            if isinstance(content, dict)
            for path in leaf_paths(content)
        ]
        own = [path for path in leaf_paths(dict(self.job)) if self.group_of(path) is None]
        return list(dict.fromkeys([*self.space, *self.tied, *own, *inside]))


def names_of(config: SweepConfig, space: Sequence[Parameter]) -> Names:
    """Return the names of a sweep."""
    job = OmegaConf.to_container(job_config(config), resolve=False)
    assert isinstance(job, dict)
    parameters = {parameter.name: parameter for parameter in space}
    return Names(
        job={str(key): value for key, value in job.items()},
        space=parameters,
        groups={name: options(config, name) for name in parameters if options(config, name)},
        tied={name: str(text) for name, text in config.tied.items()},
        scaled=frozenset(filter(None, config.jobs.scale.values())),
    )


def options(config: SweepConfig, name: str) -> dict[str, Any]:
    """Return the options of a group by their names; empty for what is no group."""
    given = config.jobs.groups.get(name)
    return {str(option): content for option, content in given.items()} if isinstance(given, dict) else {}


def at(content: Any, path: str) -> Any:
    """Return what lies at a dotted path of nested mappings, or `NOTHING`."""
    for part in path.split("."):
        if not isinstance(content, dict) or part not in content:
            return NOTHING
        content = content[part]
    return content


def reference(value: Any) -> str | None:
    """Return the path that a value refers to as a whole, `${path}`; None for anything else."""
    found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return found[1] if found else None
