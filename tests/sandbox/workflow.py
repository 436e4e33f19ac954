"""Convert a workflow file (UI format) to a prompt (API format), as the frontend does.

Follows `graphToPrompt` of ComfyUI's frontend as far as the shipped workflows need it: widgets are
positional, links are followed through Reroute, PrimitiveNode and bypassed nodes, muted nodes are
left out, subgraphs are replaced by their nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .subgraphs import flat

Json = dict[str, Any]
Overrides = Mapping[str, Mapping[str, Any]]

WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR"}
NOTES = {"Note", "MarkdownNote"}
VIRTUAL = {"Reroute", "PrimitiveNode", *NOTES}
ACTIVE, MUTED, BYPASSED = 0, 2, 4


class WorkflowError(ValueError):
    """The workflow file does not fit the nodes of the running ComfyUI."""


@dataclass(frozen=True)
class Link:
    """The origin of a link: an output slot of a node."""

    node: str
    slot: int
    type: str


def to_prompt(workflow: Json, object_info: Json, overrides: Overrides | None = None) -> Json:
    """Convert a workflow.

    Args:
        object_info: the server's `/object_info`.
        overrides: input values by class type or by node title; the title takes precedence.

    Raises:
        WorkflowError: for an unknown node, a wrong number of widget values, a value that its combo
            does not offer, or an override of an input the node does not have.
    """
    workflow = flat(workflow)
    graph = _Graph(workflow)
    prompt: Json = {}
    for node in workflow["nodes"]:
        if node["type"] in VIRTUAL or node.get("mode", ACTIVE) in (MUTED, BYPASSED):
            continue
        name = describe(node)
        if node["type"] not in object_info:
            raise WorkflowError(f"{name}: ComfyUI does not know this node.")
        specs = _input_specs(object_info[node["type"]])
        inputs, linked = _widget_values(node, specs), graph.linked_inputs(node)
        for key, value in _overrides_of(node, overrides or {}).items():
            if key not in specs:
                raise WorkflowError(
                    f"{name}: the overrides name an input `{key}` it does not have."
                )
            inputs[key] = value
            if not isinstance(linked.get(key), list):
                linked.pop(key, None)  # a value that a primitive gives
        _check_combos(name, inputs, specs)
        inputs |= linked
        title = node.get("title") or node["type"]
        prompt[str(node["id"])] = {
            "class_type": node["type"],
            "inputs": inputs,
            "_meta": {"title": title},
        }
    return prompt


def describe(node: Json) -> str:
    """Name a node for a message."""
    return f"node {node['id']} ({node.get('title') or node['type']})"


class _Graph:
    """Follows the links of a workflow to the nodes that run."""

    def __init__(self, workflow: Json) -> None:
        self.nodes = {str(node["id"]): node for node in workflow["nodes"]}
        self.links = {
            i: Link(str(node), slot, str(t)) for i, node, slot, _, _, t in workflow["links"]
        }

    def linked_inputs(self, node: Json) -> Json:
        """Return the inputs from other nodes: `[id, slot]`, or a primitive's value."""
        linked: Json = {}
        for slot in node.get("inputs") or ():
            link = self._source(slot.get("link"))
            if link is None:
                continue
            source = self.nodes[link.node]
            if source["type"] == "PrimitiveNode":
                linked[slot["name"]] = source["widgets_values"][0]
            else:
                linked[slot["name"]] = [link.node, link.slot]
        return linked

    def _source(self, link_id: int | None) -> Link | None:
        """Follow a link back to a node that runs; None if it ends at a muted node."""
        while link_id is not None:
            link = self.links[link_id]
            node = self.nodes[link.node]
            mode = node.get("mode", ACTIVE)
            if mode == MUTED:
                return None
            if node["type"] == "Reroute":
                link_id = node["inputs"][0].get("link")
            elif mode == BYPASSED:
                link_id = _bypass(node, link)
            else:
                return link
        return None


def _bypass(node: Json, link: Link) -> int | None:
    """Find the input link that a bypassed node passes on: the same slot, else the same type."""
    inputs = node.get("inputs") or []
    same_slot = inputs[link.slot : link.slot + 1]
    for slot in (*same_slot, *inputs):
        if slot["type"] == link.type:
            return slot.get("link")
    return None


def _input_specs(info: Json) -> dict[str, list[Any]]:
    """List the inputs in the order in which the frontend makes their widgets."""
    order = info["input_order"]
    return {
        name: info["input"][group][name]
        for group in ("required", "optional")
        for name in order.get(group, ())
    }


def _widget_values(node: Json, specs: dict[str, list[Any]]) -> Json:
    """Read the value of each widget; skip those that the frontend adds itself."""
    stored = node.get("widgets_values") or []
    if isinstance(stored, dict):
        return {name: stored[name] for name, spec in specs.items() if name in stored}
    names: list[str | None] = []  # None: the frontend's own
    for name, spec in specs.items():
        if _is_widget(spec):
            names += [name, *_extra_widgets(name, spec)]
    values = list(stored)
    while len(values) > len(names) and values[-1] is None:
        values.pop()
    if len(values) != len(names):
        own = [name or "(the frontend's own)" for name in names]
        raise WorkflowError(
            f"{describe(node)}: found {len(values)} widget values {values}, expected {len(names)}: "
            f"{', '.join(own) or 'none'}. Save the workflow again in ComfyUI."
        )
    return {name: value for name, value in zip(names, values, strict=True) if name is not None}


def _is_widget(spec: list[Any]) -> bool:
    kind, options = spec[0], _options(spec)
    return not options.get("forceInput") and (isinstance(kind, list) or kind in WIDGET_TYPES)


def _extra_widgets(name: str, spec: list[Any]) -> list[None]:
    """List the widgets that the frontend adds: `control_after_generate`, or an upload button."""
    options = _options(spec)
    if spec[0] == "INT":
        return [None] * bool(options.get("control_after_generate", name in ("seed", "noise_seed")))
    if spec[0] in ("FLOAT", "STRING", "BOOLEAN"):
        return []
    return [None] * (2 * bool(options.get("control_after_generate")) + bool(_uploads(options)))


def _uploads(options: Json) -> bool:
    return any(options.get(f"{medium}_upload") for medium in ("image", "video", "animated_image"))


def _check_combos(name: str, inputs: Json, specs: dict[str, list[Any]]) -> None:
    for key, value in inputs.items():
        choices = _choices(specs[key])
        if choices is not None and value not in choices:
            raise WorkflowError(f"{name}: `{key}` is {value!r}, expected one of {choices}.")


def _choices(spec: list[Any]) -> list[Any] | None:
    if isinstance(spec[0], list):
        return spec[0]
    return _options(spec).get("options") if spec[0] == "COMBO" else None


def _options(spec: list[Any]) -> Json:
    return spec[1] if len(spec) > 1 else {}


def _overrides_of(node: Json, overrides: Overrides) -> Json:
    by_title = overrides.get(node.get("title") or "", {})
    return {**overrides.get(node["type"], {}), **by_title}
