#!/usr/bin/env python3
"""Reference of one step of a classifier: texts of different lengths, each by itself, without padding (reference.py has
the blocks; PyTorch, float64, autograd).

    classifier.py check FILE...                  recompute step files, compare everything in them
    classifier.py fixtures FOLDER [--only PART]  write the set of small step files listed in FIXTURES
    classifier.py selftest                       finite differences
"""
import argparse
import json
import os
import sys

import h5py
import numpy as np
import torch
from torch.nn.functional import cross_entropy

import reference
from reference import DROP, KIND_DEFAULTS, LOSSES, VOCABULARY, Dropout, attention, micro_batches, moe, norm, of_layer, \
    sinusoid

DEFAULTS = {**reference.DEFAULTS, "model.kind": "classifier", "classifier.head": "mlp", "moe.mode": "discrete",
            "train.batch": 4}
CLASSES = 3
HEAD = 13                                                                        # site of the head's dropout


def shapes(cfg):
    parameters, state = reference.shapes(cfg, VOCABULARY)
    del parameters["softmax.bias"]
    d = cfg["model.d_model"]
    if cfg["classifier.head"] == "mlp":
        parameters.update({"head.dense.weight": (d, d), "head.dense.bias": (d,)})
    parameters.update({"head.output.weight": (CLASSES, d), "head.output.bias": (CLASSES,)})
    return parameters, state


class Micro:
    """Texts first .. first + len(texts) - 1 of the batch; T: the longest of them; g: the tokens' numbers."""

    def __init__(self, texts, first, first_token):
        self.texts, self.first = texts, first
        self.lengths = [len(text) for text in texts]
        self.T, self.tokens = max(self.lengths), torch.as_tensor(np.concatenate(texts))
        self.g = first_token + np.arange(len(self.tokens))
        self.ends = np.cumsum(self.lengths)

    def rows(self, x):
        """Each text's part of what has a row per token."""
        return x.split(self.lengths)


def attend(x, p, layer, cfg, R, drop, micro):
    """x: [N, d]; each text by itself, its last token at position T - 1 where dropout looks at its place."""
    outs = []
    for b, row in enumerate(micro.rows(x)):
        before = micro.T - len(row)

        def placed(values, site, row, column, **more):
            return drop(values, site, row=row, column=column + before, **more)

        place = (micro.first + b) * micro.T + before + np.arange(len(row))
        outs.append(attention(row[None], row[None], p, layer, cfg, None if R is None else R[:len(row)], placed, place)[0])
    return torch.cat(outs)


def forward(p, cfg, micro, drop):
    """Logits [rows, C] and records of a micro-batch."""
    d, columns = cfg["model.d_model"], np.arange(cfg["model.d_model"])
    at = {"row": micro.g[:, None], "column": columns}
    x = drop(p["embedding.weight"][micro.tokens] * d**0.5, 1, **at)
    R = drop(sinusoid(torch.arange(micro.T), d), 2, row=np.arange(micro.T)[:, None], column=columns)   # by distance
    if cfg["model.attention"] == "absolute":
        x = x + torch.cat([R[:n].flip(0) for n in micro.lengths])                # the last token has distance 0
        R = None
    records = []
    for i in range(cfg["model.layers"]):
        name, pre = f"layer.{i}.", cfg["model.norm"] == "pre"
        seen = norm(x, p, name + "attention_norm") if pre else x
        u = x + drop(attend(seen, p, i, cfg, R, drop, micro), 4, layer=i, **at)
        z = norm(u, p, name + "moe_norm") if pre else (u := norm(u, p, name + "attention_norm"))
        out, record = moe(z, micro.tokens, micro.g, of_layer(p, i), i, cfg, drop)
        x = u + drop(out, 6, layer=i, **at)
        if not pre:
            x = norm(x, p, name + "moe_norm")
        records.append(record)
    return head(p, cfg, drop(x, 7, **at)[micro.ends - 1], micro, drop), records


def head(p, cfg, h, micro, drop):
    if cfg["classifier.head"] == "mlp":
        rows = micro.first + np.arange(len(micro.lengths))
        h = drop((h @ p["head.dense.weight"].T + p["head.dense.bias"]).tanh(), HEAD, row=rows[:, None],
                 column=np.arange(h.shape[1]))
    return h @ p["head.output.weight"].T + p["head.output.bias"]


def run_step(cfg, parameters, state, texts, labels, weights, step):
    """texts: a list of arrays; weights: of the classes. As reference.run_step otherwise."""
    cfg = {**KIND_DEFAULTS, **cfg}
    parameters = reference.rescaled(cfg, parameters)
    p = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in parameters.items()}
    values = {**p, **{name: torch.tensor(value, dtype=torch.float64) for name, value in state.items()}}
    labels, drop, total = torch.as_tensor(labels), Dropout(cfg, step), sum(len(text) for text in texts)
    share = torch.as_tensor(weights, dtype=torch.float64)[labels]
    share = share / share.sum()

    sums = {name: torch.zeros(()) for name in ("task", "vq", "balance", "distill")}
    logits, records, token = [], [], 0
    for a, b in micro_batches(len(texts), cfg["train.accumulate"]):
        micro = Micro(texts[a:b], a, token)
        out, rec = forward(values, cfg, micro, drop)
        sums["task"] = sums["task"] + (share[a:b] * cross_entropy(out, labels[a:b], reduction="none")).sum()
        for name in ("vq", "balance", "distill"):
            for record in rec:
                sums[name] = sums[name] + len(micro.tokens) / total * record.get(name, 0)
        token += len(micro.tokens)
        logits.append(out.detach())
        records.append(rec)
    loss = sums["task"] + cfg["quantizer.alpha"] * sums["vq"] + cfg["router.balance"] * sums["balance"] + sums["distill"]
    loss.backward()

    result = {"loss": loss.item(), **{f"{name}_loss": value.item() for name, value in sums.items()},
              "/logits": torch.cat(logits).numpy()}
    for name, value in p.items():
        result["/gradients/" + name] = np.zeros(value.shape) if value.grad is None else value.grad.numpy()
    joined = [{key: torch.cat([rec[i][key] for rec in records]).numpy() for key in records[0][i]
               if records[0][i][key].dim() > 0} for i in range(cfg["model.layers"])]
    for i, record in enumerate(joined):
        result.update({f"/routes/{i}/{kind}": record[kind] for kind in ("experts", "codes") if kind in record})
    after = reference.after_step(cfg, {**parameters, **state}, state, joined, step)
    result.update({"/after/" + name: value for name, value in after.items()})
    return result, joined


# ---------------------------------------------------------------- step files

def write_step(path, cfg, parameters, state, texts, labels, weights, step, result):
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file.attrs["configuration"] = json.dumps(cfg)
        file.attrs["step"], file.attrs["seed"] = np.int64(step), np.int64(cfg["run.seed"])
        for name in LOSSES:
            file.attrs[name] = np.float64(result[name])
        arrays = {"/lengths": np.array([len(text) for text in texts]), "/tokens": np.concatenate(texts),
                  "/labels": labels, "/class_weights": weights,
                  **{"/parameters/" + name: value for name, value in parameters.items()},
                  **{"/state/" + name: value for name, value in state.items()},
                  **{name: value for name, value in result.items() if name.startswith("/")}}
        for name, value in arrays.items():
            file.create_dataset(name, data=value, track_times=False)


def check(path, tolerance):
    with h5py.File(path, "r") as file:
        cfg = {k: 0 if v in ("auto", "none") else v for k, v in json.loads(file.attrs["configuration"]).items()}
        cfg["run.seed"] = int(file.attrs["seed"])
        found = {"/" + name: value for name, value in reference.read_datasets(file).items()}
        found.update({name: file.attrs[name] for name in LOSSES})
        number = int(file.attrs["step"])
    parameters, state = ({name.split("/", 2)[2]: value.astype(np.float64) for name, value in found.items()
                          if name.startswith(group)} for group in ("/parameters/", "/state/"))
    texts = np.split(found["/tokens"], np.cumsum(found["/lengths"])[:-1])
    result, _ = run_step(cfg, parameters, state, texts, found["/labels"], found["/class_weights"], number)
    outputs = {name for name in found if name.startswith(("/gradients/", "/routes/", "/after/"))}
    wrong = [f"{name}: not expected" for name in outputs - set(result)]
    for name, expected in result.items():
        error = reference.difference(found[name], expected) if name in found else np.inf
        if error > (0 if name.startswith("/routes/") else tolerance):
            wrong.append(f"{name}: relative error {error:.2e}")
    print(f"{path}: " + ("; ".join(wrong) or "ok"))
    return not wrong


# ---------------------------------------------------------------- fixtures

def keys(head="mlp", **short):
    return {"classifier.head": head, **reference.keys(**short)}


# name: (configuration beside DEFAULTS, lengths of the texts, weights of the classes, step)
EVEN = (1, 1, 1)
FIXTURES = {
    "classifier-discrete-relative": (keys(), (5, 1, 7, 3), EVEN, 0),
    "classifier-discrete-relative-pre-linear-weights-dropout": (
        keys(norm="pre", head="linear", straight_through="blend", contribution=0.3, **DROP), (2, 6, 1, 9), (0.5, 2, 1.25), 3),
    "classifier-discrete-absolute-weights-dropout-accumulate2": (
        keys(attention="absolute", accumulate=2, codes=6, batch=5, **DROP), (1, 8, 4, 2, 6), (3, 0.25, 1), 2**32 + 5),
    "classifier-discrete-absolute-pre-ownnorm-linear": (
        keys(attention="absolute", norm="pre", share_norm=False, head="linear"), (4, 4, 4, 4), EVEN, 7),
    "classifier-discrete-fewer-than-parts": (keys(accumulate=4), (3, 6, 5), EVEN, 2),
    "classifier-joint-relative-top2-stablemoe-dropout": (
        keys(mode="joint", router="stablemoe", top_k=2, d_model=8, **DROP), (1, 5, 8, 2), EVEN, 4),
    "classifier-joint-relative-pre-smoe-accumulate2-weights": (
        keys(mode="joint", norm="pre", top_k=2, normalize="topk", accumulate=2), (6, 2, 1, 7), (1, 2, 3), 5),
    "classifier-joint-absolute-capacity-accumulate2": (
        keys(mode="joint", attention="absolute", capacity=0.75, top_k=2, accumulate=2), (7, 5, 3, 6), EVEN, 6),
    "classifier-continuous-relative-top2-dropout": (keys(mode="continuous", top_k=2, **DROP), (3, 9, 1, 4), EVEN, 8),
    "classifier-continuous-absolute-hash": (keys(mode="continuous", attention="absolute", router="hash"), (5, 2, 6, 1), EVEN, 9),
    "classifier-continuous-dense-pre-dropout": (
        keys(mode="continuous", router="dense", norm="pre", **DROP), (2, 5, 7, 1), (1, 4, 1), 10),
    "classifier-continuous-cluster-fit-accumulate2": (
        keys(mode="continuous", router="cluster", clusters=3, samples=12, switch_step=12, accumulate=2), (4, 7, 2, 6), EVEN, 11),
    "classifier-discrete-online_clustered-accumulate2": (
        keys(quantizer="online_clustered", codes=9, accumulate=2), (6, 3, 8, 4), EVEN, 12),
    "classifier-discrete-ema": (keys(quantizer="ema", codes=5), (6, 3, 1, 4), EVEN, 13),
    "classifier-discrete-ema-frozen": (keys(quantizer="ema", codes=5, alpha=0.0), (6, 3, 1, 4), EVEN, 13),
    "classifier-discrete-online_clustered-frozen": (
        keys(quantizer="online_clustered", codes=9, alpha=0.0), (6, 3, 8, 4), EVEN, 14),
    "classifier-discrete-frozen": (keys(alpha=0.0), (2, 8, 5, 4), EVEN, 15),
}


def draw(cfg, lengths, step, seed):
    """Generic random inputs on a grid of 2^-12; codes near some of the layer's own inputs (as reference.draw)."""
    cfg = {**KIND_DEFAULTS, **cfg}
    rng = np.random.default_rng(seed)

    def normal(shape, mean=0.0, spread=0.3):
        return np.round((mean + spread * rng.standard_normal(shape)) * 4096) / 4096

    special = {"quantizer.count": lambda shape: np.round(rng.uniform(0.2, 3.0, shape) * 4096) / 4096,
               "quantizer.usage": lambda shape: np.round(0.2 * 10 ** rng.uniform(-4.5, -1.5, shape) * 2**24) / 2**24,
               "router.fitted": lambda shape: np.full(shape, float(step >= reference.switch_step(cfg)))}
    parameters, state = {}, {}
    for values, wanted in zip((parameters, state), shapes(cfg)):
        for name, shape in wanted.items():
            is_norm_weight, kind = "norm.weight" in name, name.split(".", 2)[-1]
            values[name] = special[kind](shape) if kind in special else \
                normal(shape, 1.0, 0.2) if is_norm_weight else normal(shape)
    texts = [rng.integers(0, VOCABULARY, n) for n in lengths]
    labels = rng.permutation(np.arange(len(lengths)) % CLASSES)
    for i in range(cfg["model.layers"]):
        for values in (parameters, state):
            name = f"layer.{i}.quantizer.codes"
            if name in values:
                _, records = run_step(cfg, parameters, state, texts, labels, EVEN, step)
                K, d = values[name].shape
                chosen = records[i]["moe_input"][rng.choice(sum(lengths), K)]
                values[name] = np.round(chosen * 4096) / 4096 + normal((K, d), 0.0, 0.4)
    return cfg, parameters, state, texts, labels


def safe_draw(name, number):
    """Redrawn until float32 chooses alike: inputs of run_step, and its result."""
    changes, lengths, weights, step = FIXTURES[name]
    cfg = {**DEFAULTS, "run.seed": 300 + number, **changes}
    for seed in range(1000 * number, 1000 * number + 1000):
        inputs = (*draw(cfg, lengths, step, seed), np.array(weights, dtype=np.float64), step)
        result, records = run_step(*inputs)
        gap, kink = reference.margins(records)
        if gap > 2e-3 and kink > 1e-4 and reference.telling(inputs[0], records):
            return cfg, inputs, result
    raise SystemExit(f"{name}: no draw with a safe margin")


def fixtures(folder, only):
    for number, name in enumerate(FIXTURES):
        if only in name:
            cfg, inputs, result = safe_draw(name, number)
            path = os.path.join(folder, name + ".h5")
            write_step(path, cfg, *inputs[1:], result)
            print(f"{os.path.getsize(path):7d} bytes  {name}")
    return True


def selftest():
    """Central differences of the loss along a random direction of each parameter that reaches it past no code."""
    good, rng = True, np.random.default_rng(5)
    for number, name in enumerate(FIXTURES):
        _, inputs, result = safe_draw(name, number)
        parameters, worst = reference.rescaled(inputs[0], inputs[1]), 0.0
        for parameter in parameters:
            if inputs[0]["moe.mode"] != "continuous" and not parameter.startswith("head."):
                continue
            direction = rng.standard_normal(parameters[parameter].shape)
            direction *= 1e-5 / np.linalg.norm(direction)
            loss = [run_step(inputs[0], {**parameters, parameter: parameters[parameter] + sign * direction},
                             *inputs[2:])[0]["loss"] for sign in (1, -1)]
            slope = (result["/gradients/" + parameter] * direction).sum() / 1e-5
            worst = max(worst, abs((loss[0] - loss[1]) / 2e-5 - slope))
        good &= reference.report(f"finite differences: {name}", worst, 1e-8)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("check")
    command.add_argument("file", nargs="+")
    command.add_argument("--tolerance", type=float, default=1e-9)
    command = commands.add_parser("fixtures")
    command.add_argument("folder")
    command.add_argument("--only", default="", help="part of the names to write")
    commands.add_parser("selftest")
    a = parser.parse_args()
    good = all([check(path, a.tolerance) for path in a.file]) if a.command == "check" else \
        fixtures(a.folder, a.only) if a.command == "fixtures" else selftest()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
