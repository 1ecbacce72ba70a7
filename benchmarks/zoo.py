"""How much of well-known networks is cut with half of their structures dead.

    python benchmarks/zoo.py                        # all of them
    python benchmarks/zoo.py --networks=vgg,vit     # names with one of these

For each network, half of the structures of every family are set to zero at
random (seed 0), and `shrink` cuts them. A row says what share of the parameters
went, beside the ideal: that every kernel loses half of its inputs and half of
its outputs, but for what touches the inputs and outputs of the network. Each
network is measured in a process of its own and written down as it ends;
networks that have a row are left out. The table is `docs/results/zoo.md`.
Networks with layer normalizations of a pre-norm stream are first turned into
ones with RMS normalizations, which is exact (`ks.to_rms_normalization`); their
rows say so.

Some rows need packages that nothing else here does: `keras_hub`, and `mtcnn`
with `joblib` and `lz4`. The networks of mtcnn have their trained weights.
"""

import gc
import json
import math
import multiprocessing
import pathlib
import resource
import sys
import time

import keras
import numpy as np
from absl import app, flags

import keras_sgl0 as ks
from keras_sgl0.network.graph import tensors
from keras_sgl0.network.layer_table import all_layers, layouts_of
from keras_sgl0.network.layer_table import layouts as layouts_in
from keras_sgl0.network.unfolding import trace
from keras_sgl0.structures.selection import random_half

FOLDER = pathlib.Path(__file__).parent.parent / "docs" / "results"
FLAGS = flags.FLAGS
flags.DEFINE_list("networks", [], "Names, or parts of them; empty for all.")
flags.DEFINE_string("out", str(FOLDER / "zoo.json"), "Where the rows are kept.")
flags.DEFINE_boolean("again", False, "Whether to measure what has a row anew.")
flags.DEFINE_integer("seed", 0, "Which structures are set to zero.")


def randomise(model: keras.Model, seed: int):
    """Gives biases, scales and statistics values that outputs depend on."""
    rng = np.random.default_rng(seed)
    for v in model.weights:
        if not keras.backend.is_float_dtype(v.dtype):
            continue
        if v.name.endswith(("gamma", "scale", "variance")):
            v.assign(rng.uniform(0.5, 1.5, v.shape))
        elif len(v.shape) == 1:
            v.assign(rng.normal(0, 0.1, v.shape))


def _with_rms(model: keras.Model) -> tuple[keras.Model, bool]:
    """Returns a network with RMS normalizations, and whether it was changed.

    The width of a stream with layer normalizations can only be cut then.
    """
    if not any(
        isinstance(layer, keras.layers.LayerNormalization)
        for layer in all_layers(model)
    ):
        return model, False
    try:
        return ks.to_rms_normalization(model), True
    except ValueError:  # it has others, and stays as it is
        return model, False


def ideal(model: keras.Model) -> float:
    """Returns the share of the parameters that half of all channels are.

    Every kernel loses half along its inputs and half along its outputs, every
    other variable half, but for the inputs of the layers that read an input of
    the network and the outputs of those that make an output of it. It is found
    from the layers, not from the rules that `shrink` goes by.
    """
    graph = trace(model)
    kinds = ("kernel", "recurrent")
    layouts = layouts_of(model, kinds)
    for node in graph.nodes:  # weights of a layer may be seen as a layer
        if isinstance(node.operation, keras.layers.Layer):
            for own in layouts_in((node.operation,), kinds):
                kernel = getattr(node.operation, own.kernel)
                layouts[id(kernel)] = own
    first = _ends(graph, forward=True)
    last = _ends(graph, forward=False)
    before = after = 0.0
    seen: set[int] = set()
    for node in graph.nodes:
        for layer in all_layers(node.operation):
            for v in layer.weights:
                if id(v) in seen:
                    continue
                seen.add(id(v))
                size = math.prod(v.shape)
                before += size
                groups = getattr(layer, "groups", 1)
                ends = node in first, node in last
                after += size * _left(v, layouts, groups, *ends)
    return 1 - after / before


def _left(variable, layouts, groups, reads_inputs, makes_outputs) -> float:
    """Returns what share of a variable is left."""
    layout = layouts.get(id(variable))
    sums = layout is not None and layout.applied != "lookup"
    sums = sums and len(layout.unsummed) < len(variable.shape)
    if layout is None and len(variable.shape) > 1:
        # A kernel of an unknown layout, or a table of positions.
        sums = variable.name.endswith("kernel")
    left = 1.0 if makes_outputs else 0.5
    if groups > 1:  # whole groups go, with their inputs and outputs
        return left
    reads_inputs = reads_inputs and variable.name != "recurrent_kernel"
    return left if not sums or reads_inputs else left / 2


def _ends(graph, forward: bool) -> set:
    """Returns the first (last) calls with kernels from the inputs (outputs)."""
    found = set()
    touched = set(tensors(graph.inputs if forward else graph.outputs))
    for node in graph.nodes if forward else reversed(graph.nodes):
        near, far = node.inputs, node.outputs
        if not forward:
            near, far = far, near
        if not touched.intersection(near) or node.type == "ZerosLike":
            continue
        # A mask is no channel: it is made of inputs, and is no float.
        far = [x for x in far if keras.backend.is_float_dtype(x.spec.dtype)]
        has_kernel = any(
            len(v.shape) > 1 for v in getattr(node.operation, "weights", ())
        )
        if has_kernel:
            found.add(node)
        else:
            touched.update(far)
            found.update(
                [node] if getattr(node.operation, "weights", ()) else []
            )
    return found


def measure(name: str, seed: int) -> dict:
    """Returns the row of one network."""
    import networks

    keras.utils.set_random_seed(seed)
    model = networks.NETWORKS[name]()
    weights = sum(v.nbytes for v in model.get_weights())
    if name not in networks.TRAINED:
        randomise(model, seed)
    model, centred = _with_rms(model)
    best = ideal(model)
    start = time.perf_counter()
    found = ks.structures(model)
    seconds = time.perf_counter() - start
    dead = random_half(found, np.random.default_rng(seed))
    found.zero(dead)
    predicted = found.cost(~dead)
    whole = found.cost()
    gc.collect()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start = time.perf_counter()
    small, report = ks.shrink(model, 0)
    after = time.perf_counter() - start
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - memory
    left = ks.structures(small).cost()
    stays = [entry for entry in report.layers if entry.note]
    kept = sum(entry.parameters for entry in stays)
    return {
        "network": name,
        "parameters": whole.parameters,
        "relative_difference": report.relative_difference,
        "parameters_cut": 1 - left.parameters / whole.parameters,
        "macs_cut": None if not whole.macs else 1 - left.macs / whole.macs,
        "ideal": best,
        "as_predicted": left.parameters == predicted.parameters,
        "whole": kept / whole.parameters,
        "rms": centred,
        "why": sorted({f"{e.type}: {e.note}" for e in stays if e.parameters}),
        "seconds_structures": round(seconds, 2),
        "seconds_shrink": round(after, 2),
        "memory": round(max(more, 0) / weights, 2),
        "seed": seed,
    }


def _main_of_process(name, seed, queue):
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    try:
        queue.put(measure(name, seed))
    except Exception as error:
        queue.put(
            {"network": name, "error": f"{type(error).__name__}: {error}"}
        )


def table(rows: list[dict]) -> str:
    """Returns the rows as a table in Markdown."""
    lines = [
        "| network | parameters | difference | cut | ideal | MACs cut | whole "
        "| seconds | why |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "error" in row:
            line = f"| {row['network']} | | | | | | | | {row['error'][:200]} |"
            lines.append(line)
            continue
        macs = row["macs_cut"]
        lines.append(
            f"| {row['network']} | {row['parameters']:,} "
            f"| {row['relative_difference']:.0e} "
            f"| {100 * row['parameters_cut']:.1f} | {100 * row['ideal']:.1f} "
            f"| {'' if macs is None else f'{100 * macs:.1f}'} "
            f"| {100 * row['whole']:.1f} | {row['seconds_shrink']:.1f} "
            f"| {'; '.join(['to RMS'] * row['rms'] + row['why'])[:200]} |"
        )
    return "\n".join(lines) + "\n"


def summary(rows: list[dict]) -> str:
    """Returns how many networks reach what was aimed at."""
    done = [row for row in rows if "error" not in row]
    near = sum(r["parameters_cut"] >= r["ideal"] - 0.02 for r in done)
    half = sum(r["parameters_cut"] < r["ideal"] / 2 for r in done)
    exact = sum(r["relative_difference"] <= 1e-5 for r in done)
    right = sum(r["as_predicted"] for r in done)
    return (
        f"{len(rows)} networks, {exact} exact to 1e-5, {right} with as many "
        f"parameters as predicted, {near} within 2 points of the ideal or "
        f"better, {half} below half of it, {len(rows) - len(done)} refused."
    )


def page(rows: list[dict]) -> str:
    """Returns the page with the summary and the table."""
    return (
        "# Networks with half of their structures dead\n\n"
        "Made by `python benchmarks/zoo.py`, which says what the columns are. "
        "*difference* is that of the outputs, relative to the largest; *cut* "
        "and *ideal* are shares of the parameters in percent, *whole* is the "
        "share in layers that stay as they are.\n\n"
        f"{summary(rows)}\n\n{table(rows)}"
    )


def main(arguments):
    """Measures what has no row yet, and writes it down."""
    del arguments
    import networks

    path = pathlib.Path(FLAGS.out)
    rows = json.loads(path.read_text()) if path.exists() else []
    chosen = [
        name
        for name in networks.NETWORKS
        if not FLAGS.networks or any(part in name for part in FLAGS.networks)
    ]
    context = multiprocessing.get_context("spawn")
    for name in chosen:
        known = {row["network"] for row in rows}
        if name in known and not FLAGS.again:
            continue
        queue = context.Queue()
        work = context.Process(
            target=_main_of_process, args=(name, FLAGS.seed, queue)
        )
        work.start()
        row = queue.get()
        work.join()
        rows = [r for r in rows if r["network"] != name] + [row]
        order = list(networks.NETWORKS)
        rows.sort(key=lambda r: order.index(r["network"]))
        path.write_text(json.dumps(rows, indent=1) + "\n")
        path.with_suffix(".md").write_text(page(rows))
        print(table([row]).splitlines()[-1], flush=True)
    print(summary(rows))


if __name__ == "__main__":
    app.run(main)
