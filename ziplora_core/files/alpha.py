"""The alpha of a module, from its own tensor or from PEFT's configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..errors import ZipLoRAError, problem
from .key_formats import ModuleKeys
from .peft_patterns import NamePattern, name_patterns

COMPONENTS = {"lora_unet_": "unet", "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2"}
"""Prefix of a module's name → the network's name in diffusers' adapter metadata."""

REFUSED_FIELDS = (
    *("use_dora", "lora_bias", "fan_in_fan_out", "modules_to_save", "trainable_token_indices"),
    *("layer_replication", "target_parameters", "use_qalora", "use_bdlora", "arrow_config"),
    *("velora_config", "kasa_config", "monteclora_config", "alora_invocation_tokens"),
)
"""Fields of PEFT's configuration that, when set, change more than down and up."""

MOST_TRIES = 4_000_000
"""Largest number of patterns times modules: those of SDXL are a million, with one for each."""
BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations that change the model's own weights, too, so that the factors alone are wrong."""


@dataclass(frozen=True)
class PeftConfig:
    """The part of a PEFT configuration that decides the scale.

    Args:
        source: file or header field, for messages.
        alpha: `lora_alpha` (`alpha` for LoHa and LoKr), None if absent.
        patterns: patterns for the end of a module's path with their alphas; the first match wins.
        rank_stabilized: whether scale = alpha / √rank instead of alpha / rank.
    """

    source: str
    alpha: object
    patterns: tuple[tuple[NamePattern, object], ...]
    rank_stabilized: bool

    def alpha_for(self, path: str, rank: int) -> float | None:
        """Return the alpha for which alpha / rank is the scale PEFT applies."""
        matching = (alpha for pattern, alpha in self.patterns if pattern.matches(path))
        alpha = next(matching, self.alpha)
        if alpha is None:
            return None
        alpha = checked_alpha(alpha, f"{self.source}, alpha of {path}")
        return alpha * math.sqrt(rank) if self.rank_stabilized else alpha


def peft_configs(text: str, source: str) -> dict[str, PeftConfig]:
    """Read PEFT's configuration of each network, from `adapter_config.json` or a header.

    Raises:
        ZipLoRAError: the text is not JSON, or a field makes it more than a plain LoRA.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(source, f"damaged JSON ({error})", "PEFT's configuration") from error
    if not isinstance(fields, dict):
        raise _bad(source, type(fields).__name__, "a JSON object")
    configs: dict[str, dict[str, object]] = {}
    for name, value in fields.items():
        component, dot, rest = name.partition(".")
        if not dot:  # a configuration of one network has no prefix
            component, rest = "unet", name
        configs.setdefault(component, {})[rest] = value
    return {component: _peft_config(config, source) for component, config in configs.items()}


def check_patterns(configs: Mapping[str, PeftConfig], modules: int, source: str) -> None:
    """Refuse more patterns than can be tried with every module in a second or so.

    Raises:
        ZipLoRAError: there are too many.
    """
    most = max((len(config.patterns) for config in configs.values()), default=0)
    if most * modules > MOST_TRIES:
        found = f"{most} patterns for {modules} modules"
        raise _bad(f"{source}, alpha_pattern", found, f"at most {MOST_TRIES} of both multiplied")


def module_alpha(
    module: ModuleKeys,
    rank: int,
    tensor: Tensor | None,
    configs: Mapping[str, PeftConfig],
    source: str,
) -> float | None:
    """Return a module's alpha, or None when the file has none and the scale is 1.

    Args:
        module: the module.
        rank: rank of its factors in the file.
        tensor: its own alpha, a single number of any dtype.
        configs: PEFT's configurations by network; they take precedence, as in diffusers.
        source: the file's name, for messages.

    Raises:
        ZipLoRAError: alpha is NaN or infinite, or has more than one number.
    """
    component = next((c for p, c in COMPONENTS.items() if module.name.startswith(p)), "")
    if component in configs:
        return configs[component].alpha_for(module.path, rank)
    if tensor is None:
        return None
    subject = f"{source}, key {module.keys['alpha']}"
    if tensor.numel() != 1:
        raise _bad(subject, f"a tensor of shape {list(tensor.shape)}", "one number")
    return checked_alpha(tensor.item(), subject)


def checked_alpha(value: object, subject: str) -> float:
    """Return alpha as a float; a negative alpha inverts a module, and 0 switches it off.

    Raises:
        ZipLoRAError: alpha is not a number, or not finite.
    """
    # NaN fails the comparison, and a JSON integer may be too large for a float
    if not isinstance(value, int | float) or not abs(value) < 1e30:
        raise _bad(subject, f"alpha {str(value)[:40]}", "a finite alpha")
    return float(value)


def _peft_config(fields: Mapping[str, object], source: str) -> PeftConfig:
    """Return the fields that decide the scale; refuse what cannot be read exactly."""
    for name in REFUSED_FIELDS:
        if fields.get(name):
            raise _bad(f"{source}, {name}", f"{fields[name]}", "a plain LoRA without it")
    kind = str(fields.get("peft_type", "LORA")).rpartition(".")[2]
    if kind not in ("LORA", "LOHA", "LOKR"):
        raise _bad(f"{source}, peft_type", kind, "LORA, LOHA or LOKR")
    if fields.get("bias") not in (None, "none"):
        raise _bad(f"{source}, bias", f"{fields['bias']}", "none")
    start = str(fields.get("init_lora_weights", "")).lower()
    if start.startswith(BASE_CHANGING_INITS):
        raise _bad(f"{source}, init_lora_weights", start, "a base model left unchanged")
    alpha = fields.get("lora_alpha", fields.get("alpha"))
    patterns = _alpha_patterns(fields.get("alpha_pattern") or {}, f"{source}, alpha_pattern")
    return PeftConfig(source, alpha, patterns, bool(fields.get("use_rslora")))


def _alpha_patterns(fields: object, subject: str) -> tuple[tuple[NamePattern, object], ...]:
    """Read the alphas by pattern, each pattern in a form that is matched in linear time."""
    if not isinstance(fields, dict):
        raise _bad(subject, type(fields).__name__, "alphas by module name")
    found = []
    for text, alpha in fields.items():
        patterns = name_patterns(text)
        if patterns is None:
            expected = "module names, in which .* or a group (a|b) may stand for a part"
            raise _bad(subject, f"the pattern {text}", expected)
        found += [(pattern, alpha) for pattern in patterns]
    return tuple(found)


def _bad(subject: str, found: str, expected: str) -> ZipLoRAError:
    advice = "Save the LoRA again as a plain one, with the alpha it was trained with."
    return problem(subject, found=found, expected=expected, advice=advice)
