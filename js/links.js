// @ts-check
/** The way along the links of a workflow, also into subgraphs and out of them. */
import { app } from "../../scripts/app.js";

/**
 * @typedef {object} End One end of a link.
 * @property {any} node
 * @property {number} slot of the node
 */

/** The ids of a subgraph's own inputs and outputs; the frontend has them as numbers or as text. */
const INPUTS = -10;
const OUTPUTS = -20;

/**
 * Returns the inputs that an output leads to.
 * @param {any} node
 * @param {number} slot of its outputs
 * @returns {End[]}
 */
export function targetsOf(node, slot) {
  return (node?.outputs?.[slot]?.links ?? []).flatMap((/** @type {any} */ id) => endsOf(node.graph, id));
}

/**
 * @param {any} graph
 * @param {any} id of a link in it
 * @returns {End[]}
 */
function endsOf(graph, id) {
  const link = graph.getLink(id);
  if (!link) return [];
  if (Number(link.target_id) === OUTPUTS) return holdersOf(graph).flatMap((holder) => targetsOf(holder, link.target_slot));
  const node = graph.getNodeById(link.target_id);
  if (!node) return [];
  if (!node.subgraph) return [{ node, slot: link.target_slot }];
  const inside = node.subgraph.inputs[link.target_slot]?.linkIds ?? [];
  return inside.flatMap((/** @type {any} */ other) => endsOf(node.subgraph, other));
}

/**
 * Returns the output that an input is linked to; of a subgraph's own input without a link outside, the
 * node that stands for the subgraph and the input's place on it.
 * @param {any} node
 * @param {number} slot of its inputs
 * @returns {(End & { isInput?: boolean }) | undefined}
 */
export function sourceOf(node, slot) {
  const link = node.graph.getLink(node.inputs?.[slot]?.link);
  if (!link) return undefined;
  if (Number(link.origin_id) === INPUTS) {
    const [holder] = holdersOf(node.graph);
    if (!holder) return undefined;
    return sourceOf(holder, link.origin_slot) ?? { node: holder, slot: link.origin_slot, isInput: true };
  }
  return insideOf(node.graph.getNodeById(link.origin_id), link.origin_slot);
}

/**
 * Returns the node in a subgraph that gives one of its outputs; any other node as it is.
 * @param {any} node
 * @param {number} slot of its outputs
 * @returns {End | undefined}
 */
function insideOf(node, slot) {
  if (!node?.subgraph) return node ? { node, slot } : undefined;
  const link = node.subgraph.getLink(node.subgraph.outputs[slot]?.linkIds?.[0]);
  return link && insideOf(node.subgraph.getNodeById(link.origin_id), link.origin_slot);
}

/**
 * Returns the nodes that stand for a subgraph.
 * @param {any} subgraph
 * @returns {any[]}
 */
function holdersOf(subgraph) {
  const graphs = [app.rootGraph, ...app.rootGraph.subgraphs.values()];
  return graphs.flatMap(({ nodes }) => nodes.filter((/** @type {any} */ node) => node.subgraph === subgraph));
}
