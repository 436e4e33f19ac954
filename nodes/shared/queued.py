"""The prompt that was queued, and the part of it that a training depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io
from server import PromptServer

from ...ziplora_core.training import registry
from .shown import without_effect

_SAVERS = ("SaveTrainedLoRA", "SaveMergedLoRA")
_LONGEST, _MOST = 1000, 200
"""Most letters of a setting, and most settings, in a record."""

Prompt = Mapping[str, Mapping[str, Any]]
"""ComfyUI's prompt: `class_type` and `inputs` of each node, by its id."""


class Trainer(io.ComfyNode):
    """A node whose training can go on after it was stopped, though its inputs are the same."""

    @classmethod
    def fingerprint_inputs(cls, **_inputs: Any) -> int:
        node_id = str(cls.hidden.unique_id)
        return registry.continued(Queued(node_id, _prompt_with(node_id)).key)


@dataclass(frozen=True)
class Queued:
    """A node in the prompt that was queued.

    Args:
        node_id: its id.
        prompt: the whole prompt; empty where it is not known.
        workflow: the workflow in the page; None where a program has queued a prompt alone.
        unused: its inputs that have no effect beside the others.
    """

    node_id: str
    prompt: Prompt
    workflow: Mapping[str, Any] | None = None
    unused: Set[str] = frozenset()

    @classmethod
    def of(cls, node: type[io.ComfyNode]) -> Queued:
        """Read a running node's hidden inputs: `unique_id`, `prompt` and `extra_pnginfo`."""
        pnginfo, node_id = node.hidden.extra_pnginfo, str(node.hidden.unique_id)
        workflow = pnginfo.get("workflow") if isinstance(pnginfo, dict) else None
        prompt = node.hidden.prompt or {}
        unused = without_effect(node, prompt.get(node_id, {}).get("inputs", {}))
        return cls(node_id, prompt, workflow if isinstance(workflow, dict) else None, unused)

    @property
    def key(self) -> str:
        """Identify the node by all that it and those before it were given; see `continued`."""
        said = ("class_type", "inputs")
        given = {each: [self.prompt[each].get(key) for key in said] for each in self._ancestry()}
        text = json.dumps(given, sort_keys=True)
        return hashlib.blake2b(text.encode(errors="replace")).hexdigest()[:16]

    @property
    def workflow_id(self) -> str:
        """The workflow's id; empty without one."""
        return "" if self.workflow is None else str(self.workflow.get("id", ""))

    @property
    def kind(self) -> str:
        """The node's class; empty where the prompt is not known."""
        return str(self.prompt.get(self.node_id, {}).get("class_type", ""))

    def title(self, node_id: str = "") -> str:
        """Return the title of a node, this one by default; of one without, its class."""
        node = self.prompt.get(node_id or self.node_id, {})
        return str(node.get("_meta", {}).get("title") or node.get("class_type", ""))

    def as_sent(self) -> Prompt:
        """Return the prompt without what ComfyUI notes in it: that a node has not changed."""
        sent = ("class_type", "inputs", "_meta")
        return {
            node_id: {key: node[key] for key in sent if key in node}
            for node_id, node in self.prompt.items()
        }

    def settings(self) -> list[dict[str, Any]]:
        """List the values that the node and those before it were given: `node`, `input`, `value`.

        Those of the node itself come first, with an empty `node`, and without `unused`.
        """
        rows = [
            {"node": "" if found == self.node_id else self.title(found), "input": name,
             "value": value if not isinstance(value, str) else value[:_LONGEST]}
            for found in self._ancestry()
            for name, value in self.prompt[found]["inputs"].items()
            if isinstance(value, str | int | float)
            and not (found == self.node_id and name in self.unused)
        ]  # fmt: skip
        return rows[:_MOST]

    def words(self, name: str) -> str | None:
        """Return the text of the prompt that an input is linked to; None where it is not known."""
        link = self.prompt.get(self.node_id, {}).get("inputs", {}).get(name)
        encoder = self.prompt.get(str(link[0]), {}) if isinstance(link, list) else {}
        if encoder.get("class_type") != "CLIPTextEncode":
            return None
        text = encoder["inputs"].get("text")
        return text if isinstance(text, str) else None

    def file_name(self) -> str:
        """Return the name that the LoRA will be saved by; empty if no node saves it.

        If a merge of it is saved, too, the nearest node counts. Where several are as near, as for
        a content and a style LoRA, the name is the words that theirs have in common.
        """
        found: list[tuple[int, str]] = []
        for saver, node in self.prompt.items():
            if node.get("class_type") in _SAVERS:
                before, prefix = self._ancestry(saver), node["inputs"].get("filename_prefix")
                if self.node_id in before and isinstance(prefix, str):
                    name = prefix.replace("\\", "/").split("/")[-1]
                    found.append((before.index(self.node_id), name))
        names = [name for far, name in found if far == min(found)[0]]
        words = zip(*(name.split("_") for name in names), strict=False)
        common = [first for first, *others in words if all(w == first for w in others)]
        return "_".join(common) or next(iter(names), "")

    def _ancestry(self, node_id: str | None = None) -> list[str]:
        """List a node, this one by default, and all before it; the nearest come first."""
        found = [node_id or self.node_id]
        for each in found:
            found += [link for link in dict.fromkeys(self._links(each)) if link not in found]
        return [each for each in found if each in self.prompt]

    def _links(self, node_id: str) -> Iterator[str]:
        for value in self.prompt.get(node_id, {}).get("inputs", {}).values():
            if isinstance(value, list) and len(value) == 2:
                yield str(value[0])


def _prompt_with(node_id: str) -> Prompt:
    """Return the prompt with this node that the server has begun; empty if there is none.

    ComfyUI asks for a node's fingerprint without telling what it is linked to.
    """
    running, _ = PromptServer.instance.prompt_queue.get_current_queue_volatile()
    return next((prompt for _, _, prompt, *_ in running if node_id in prompt), {})
