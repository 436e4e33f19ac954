"""Replace the subgraphs of a workflow file by their nodes, as the frontend does for a prompt."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

INPUTS, OUTPUTS = -10, -20
"""The ids of a subgraph's own two ends."""


def flat(workflow: Json) -> Json:
    """Return a workflow without subgraphs; a node 10 within node 27 becomes node `27:10`.

    A value that is set on the outside is given to the node inside by a PrimitiveNode. Subgraphs
    within subgraphs are not supported.
    """
    definitions = (workflow.get("definitions") or {}).get("subgraphs", ())
    subgraphs = {subgraph["id"]: subgraph for subgraph in definitions}
    nodes = [node for node in workflow["nodes"] if node["type"] not in subgraphs]
    links = [_as_list(link) for link in workflow["links"]]
    for node in workflow["nodes"]:
        if node["type"] in subgraphs:
            _unpack(node, subgraphs[node["type"]], nodes, links)
    return {**workflow, "nodes": nodes, "links": links}


def _as_list(link: list[Any] | Json) -> list[Any]:
    """Return a link of either schema as `[id, node, slot, to node, to slot, type]`."""
    if isinstance(link, list):
        return list(link)
    ends = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return [link[name] for name in ends]


def _unpack(outer: Json, subgraph: Json, nodes: list[Json], links: list[list[Any]]) -> None:
    """Add the nodes and links inside `outer`, and let the links that leave it begin inside."""
    values = iter(outer.get("widgets_values") or ())
    given: dict[int, Any] = {}  # by input slot: the link that brings its value
    for slot, entry in enumerate(outer["inputs"]):
        value = next(values) if "widget" in entry else None
        given[slot] = entry.get("link")
        if given[slot] is None and "widget" in entry:
            given[slot] = name = f"{outer['id']}:{entry['name']}"
            nodes.append({"id": name, "type": "PrimitiveNode", "widgets_values": [value]})
            links.append([name, name, 0, None, None, entry["type"]])
    inside: dict[int, Any] = {}  # by id: the link's new id
    for link in subgraph["links"]:
        origin, slot = link["origin_id"], link["origin_slot"]
        if link["target_id"] == OUTPUTS:
            for outgoing in links:
                if outgoing[1:3] == [outer["id"], link["target_slot"]]:
                    outgoing[1:3] = [f"{outer['id']}:{origin}", slot]
        elif origin == INPUTS:
            inside[link["id"]] = given[slot]
        else:
            inside[link["id"]] = name = f"{outer['id']}:{link['id']}"
            links.append([name, f"{outer['id']}:{origin}", slot, None, None, link["type"]])
    for node in subgraph["nodes"]:
        entries = [{**e, "link": inside.get(e.get("link"))} for e in node.get("inputs") or ()]
        nodes.append({**node, "id": f"{outer['id']}:{node['id']}", "inputs": entries})
