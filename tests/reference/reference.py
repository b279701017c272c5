#!/usr/bin/env python3
"""Reference of one VQMoE training step, written from the method's definition alone (PyTorch, float64, autograd).

    reference.py check FILE [--tolerance 1e-9]   recompute a step file, compare everything in it
    reference.py fixtures FOLDER                 write the set of small step files listed in FIXTURES
    reference.py selftest                        random numbers, finite differences, plain loops

The format of a step file and all names are those of docs/step-file.md.
"""
import argparse
import json
import math
import os
import sys

import h5py
import numpy as np
import torch
from torch.nn.functional import cross_entropy, layer_norm

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)

DEFAULTS = {
    "model.kind": "lm", "model.attention": "relative", "model.norm": "post", "model.layers": 2, "model.d_model": 10,
    "model.heads": 2, "model.d_head": 4, "model.d_inner": 7, "model.segment": 5, "model.memory": 0,
    "model.dropout": 0.0, "model.attention_dropout": 0.0,
    "moe.mode": "joint", "moe.experts": 4, "moe.share_norm": True, "moe.discrete_norm": True,
    "router.kind": "smoe", "router.top_k": 1, "router.normalize": "all", "router.balance": 0.01,
    "router.balance_scope": "global",
    "quantizer.kind": "vq", "quantizer.codes": 0, "quantizer.straight_through": "full",
    "quantizer.contribution": 0.05, "quantizer.alpha": 0.08, "quantizer.beta": 0.25,
    "train.batch": 3, "train.accumulate": 1, "run.seed": 1,
}


# ---------------------------------------------------------------- random numbers

def philox(counter, key):
    """Philox4x32-10. counter: 4 and key: 2 integers or arrays of them; returns 4 arrays of 32-bit words."""
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    c0, c1, c2, c3 = (np.asarray(c, dtype=np.uint64) for c in counter)
    k0, k1 = key
    for _ in range(10):
        m0 = np.uint64(0xD2511F53) * c0
        m1 = np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (m1 >> half) ^ c1 ^ np.uint64(k0), m1 & low, (m0 >> half) ^ c3 ^ np.uint64(k1), m0 & low
        k0 = (k0 + 0x9E3779B9) % 2**32
        k1 = (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def random_words(seed, step, site, row, column, layer, lane):
    """One word per place; row, column and lane are integer arrays that broadcast against each other."""
    row, column, lane = np.broadcast_arrays(row, column, lane)
    place = np.asarray(site + 256 * layer + 65536 * lane)
    seed = seed % 2**64
    words = philox((column // 4, row, np.full_like(row, step % 2**32), place), (seed % 2**32, seed // 2**32))
    return np.choose(column % 4, words)


class Dropout:
    """Inverted dropout whose mask depends on the place alone."""

    def __init__(self, cfg, step):
        self.cfg, self.step = cfg, step

    def __call__(self, x, site, row, column, layer=0, lane=0):
        p = self.cfg["model.attention_dropout" if site == 3 else "model.dropout"]
        if p == 0:
            return x
        words = random_words(self.cfg["run.seed"], self.step, site, row, column, layer, np.asarray(lane))
        keep = torch.from_numpy(words >= np.uint64(math.floor(p * 2**32)))
        assert keep.shape == x.shape
        return x * keep / (1 - p)


# ---------------------------------------------------------------- the model

def parameter_shapes(cfg, vocabulary):
    d, hd = cfg["model.d_model"], cfg["model.heads"] * cfg["model.d_head"]
    E, h, mode = cfg["moe.experts"], cfg["model.d_inner"], cfg["moe.mode"]
    relative = cfg["model.attention"] == "relative"
    shapes = {"embedding.weight": (vocabulary, d), "softmax.bias": (vocabulary,)}
    if relative:
        shapes["attention.bias_w"] = shapes["attention.bias_r"] = (cfg["model.heads"], cfg["model.d_head"])
    for i in range(cfg["model.layers"]):
        layer = {f"attention.{n}": (hd, d) for n in ("query", "key", "value") + (("position",) if relative else ())}
        layer["attention.output"] = (d, hd)
        norms = ["attention_norm", "moe_norm"]
        if mode != "continuous" and cfg["moe.discrete_norm"] and not cfg["moe.share_norm"]:
            norms += ["moe.input_norm", "moe.output_norm"]
        for norm in norms:
            layer[norm + ".weight"] = layer[norm + ".bias"] = (d,)
        layer.update({"moe.w1": (E, h, d), "moe.b1": (E, h), "moe.w2": (E, d, h), "moe.b2": (E, d)})
        if mode != "discrete":
            if cfg["router.kind"] == "smoe":
                layer.update({"router.weight": (E, d), "router.bias": (E,)})
            else:
                layer["router.embedding"] = (E, d)
        if mode != "continuous":
            layer["quantizer.codes"] = (cfg["quantizer.codes"] or E, d)
        if mode == "joint":
            layer.update({"mix.weight": (2, d), "mix.bias": (2,)})
        shapes.update({f"layer.{i}.{name}": shape for name, shape in layer.items()})
    return shapes


def sinusoid(positions, d):
    frequencies = 10000.0 ** (-2.0 * torch.arange(d // 2) / d)
    angles = positions[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def norm(x, p, name):
    return layer_norm(x, x.shape[-1:], p[name + ".weight"], p[name + ".bias"], eps=1e-5)


def attention(x, context, p, layer, cfg, R, drop, g):
    """x: [B, L, d] queries; context: [B, M' + L, d] keys and values; R: [M' + L, d], row = distance, or None."""
    B, L, _ = x.shape
    S = context.shape[1]
    H, dh = cfg["model.heads"], cfg["model.d_head"]
    name = f"layer.{layer}.attention."
    q = (x @ p[name + "query"].T).view(B, L, H, dh)
    k = (context @ p[name + "key"].T).view(B, S, H, dh)
    v = (context @ p[name + "value"].T).view(B, S, H, dh)
    distance = (S - L) + torch.arange(L)[:, None] - torch.arange(S)[None, :]     # [L, S], negative: the future
    if R is None:
        scores = torch.einsum("bthe,bshe->bhts", q, k)
    else:
        r = (R @ p[name + "position"].T).view(S, H, dh)
        r = r[distance.clamp(min=0)]                                             # [L, S, H, dh]
        scores = torch.einsum("bthe,bshe->bhts", q + p["attention.bias_w"], k)
        scores = scores + torch.einsum("bthe,tshe->bhts", q + p["attention.bias_r"], r)
    scores = (scores / math.sqrt(dh)).masked_fill(distance < 0, -math.inf)
    probabilities = drop(scores.softmax(dim=-1), 3, row=g.reshape(B, 1, L, 1), column=np.arange(S),
                         layer=layer, lane=np.arange(H).reshape(H, 1, 1))
    return torch.einsum("bhts,bshe->bthe", probabilities, v).reshape(B, L, H * dh) @ p[name + "output"].T


def route(x, p, layer, cfg):
    """Scores [T, E], chosen experts [T, k] by descending score, their weights [T, k]."""
    if cfg["router.kind"] == "smoe":
        s = x @ p[f"layer.{layer}.router.weight"].T + p[f"layer.{layer}.router.bias"]
    else:
        m = p[f"layer.{layer}.router.embedding"]
        s = x @ (m / m.norm(dim=1, keepdim=True).clamp(min=1e-4)).T
    order = s.detach().sort(dim=1, descending=True, stable=True).indices         # stable: ties to the lower expert
    experts = order[:, :cfg["router.top_k"]]
    if cfg["router.normalize"] == "all":
        weights = s.softmax(dim=1).gather(1, experts)
    else:
        weights = s.gather(1, experts).softmax(dim=1)
    return s, experts, weights


def balance_loss(s, experts, cfg):
    E = s.shape[1]
    tau = 1.0 if cfg["router.kind"] == "smoe" else 0.3
    f = torch.bincount(experts.flatten(), minlength=E) / experts.numel()
    return E * (f * (s / tau).softmax(dim=1).mean(dim=0)).sum()


def straight_through(x, v, cfg):
    if cfg["quantizer.straight_through"] == "full":
        return v.detach() + (x - x.detach())                                     # the bracket is exactly zero
    c = cfg["quantizer.contribution"]
    return (1 - c) * x + c * (v - x).detach()


def moe(x, p, layer, cfg, drop, g):
    """x: [T, d], g: [T]; returns the output [T, d] and a record of the layer."""
    record = {"moe_input": x.detach()}
    w1, b1, w2, b2 = (p[f"layer.{layer}.moe.{n}"] for n in ("w1", "b1", "w2", "b2"))
    h, E = w1.shape[1], w1.shape[0]
    mode = cfg["moe.mode"]
    tokens = torch.arange(x.shape[0])

    if mode != "discrete":
        s, experts, weights = route(x, p, layer, cfg)
        pre = torch.einsum("td,ehd->teh", x, w1) + b1                            # every expert on every token
        hidden = drop(pre.relu(), 5, row=g.reshape(-1, 1, 1), column=np.arange(h), layer=layer,
                      lane=np.arange(E).reshape(E, 1))
        out = torch.einsum("teh,edh->ted", hidden, w2) + b2
        continuous = 0
        for slot in range(experts.shape[1]):
            continuous = continuous + weights[:, slot, None] * out[tokens, experts[:, slot]]
        record.update(scores=s.detach(), experts=experts, balance=balance_loss(s, experts, cfg),
                      pre=pre.detach().gather(1, experts[:, :, None].expand(-1, -1, h)))

    if mode != "continuous":
        codes = p[f"layer.{layer}.quantizer.codes"]
        distance = ((codes**2).sum(dim=1) - 2 * x @ codes.T).detach()
        k = distance.sort(dim=1, stable=True).indices[:, 0]                      # ties to the lowest code
        v = codes[k]
        vq = ((v - x.detach())**2).mean() + cfg["quantizer.beta"] * ((v.detach() - x)**2).mean()
        e = k % E
        names = ("moe_norm", "moe_norm") if cfg["moe.share_norm"] else ("moe.input_norm", "moe.output_norm")
        u = straight_through(x, v, cfg)
        if cfg["moe.discrete_norm"]:
            u = norm(u, p, f"layer.{layer}.{names[0]}")
        pre = torch.einsum("td,thd->th", u, w1[e]) + b1[e]
        discrete = torch.einsum("th,tdh->td", pre.relu(), w2[e]) + b2[e]
        if cfg["moe.discrete_norm"]:
            discrete = norm(discrete, p, f"layer.{layer}.{names[1]}")
        record.update(codes=k, vq=vq, distance=distance, pre_discrete=pre.detach())

    if mode == "continuous":
        return continuous, record
    if mode == "discrete":
        return discrete, record
    mix = (x @ p[f"layer.{layer}.mix.weight"].T + p[f"layer.{layer}.mix.bias"]).softmax(dim=1)
    return mix[:, 0:1] * continuous + mix[:, 1:2] * discrete, record


def forward(p, cfg, tokens, memory, drop, first_row):
    """tokens: [B, L], rows first_row.. of the global batch; memory: a list of [B, M', d]. Returns logits, records."""
    B, L = tokens.shape
    d = cfg["model.d_model"]
    relative = cfg["model.attention"] == "relative"
    pre_norm = cfg["model.norm"] == "pre"
    g = (first_row + np.arange(B)).reshape(B, 1) * L + np.arange(L)
    columns = np.arange(d)
    at = {"row": g[:, :, None], "column": columns}

    x = drop(p["embedding.weight"][tokens] * math.sqrt(d), 1, **at)
    if relative:
        distance = torch.arange(memory[0].shape[1] + L)
    else:
        distance = torch.arange(L - 1, -1, -1)
    encodings = drop(sinusoid(distance, d), 2, row=distance.numpy()[:, None], column=columns)
    if not relative:
        x = x + encodings

    records = []
    for i in range(cfg["model.layers"]):
        name = f"layer.{i}."
        layer_input = x
        context = torch.cat([memory[i], x], dim=1)
        R = encodings if relative else None
        if pre_norm:
            context = norm(context, p, name + "attention_norm")
        out = attention(context[:, -L:], context, p, i, cfg, R, drop, g)
        u = x + drop(out, 4, layer=i, **at)
        if not pre_norm:
            u = norm(u, p, name + "attention_norm")

        z = norm(u, p, name + "moe_norm") if pre_norm else u
        out, record = moe(z.reshape(B * L, d), p, i, cfg, drop, g.reshape(-1))
        x = u + drop(out.view(B, L, d), 6, layer=i, **at)
        if not pre_norm:
            x = norm(x, p, name + "moe_norm")
        record["input"] = layer_input.detach()
        records.append(record)

    x = drop(x, 7, **at)
    return x @ p["embedding.weight"].T + p["softmax.bias"], records


def micro_batches(rows, count):
    """Contiguous (first, end) pairs; the first rows mod count get one row more."""
    ends = np.cumsum([rows // count + (n < rows % count) for n in range(count)])
    return [(a, b) for a, b in zip([0, *ends[:-1]], ends) if b > a]


def run_step(cfg, parameters, tokens, targets, memory, step):
    """One step. All arrays are numpy; returns a dictionary named like the objects of a step file, and the records."""
    p = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in parameters.items()}
    tokens, targets = torch.as_tensor(tokens), torch.as_tensor(targets)
    memory = [torch.as_tensor(m, dtype=torch.float64) for m in memory]
    B, L = tokens.shape
    d, layers = cfg["model.d_model"], range(cfg["model.layers"])
    drop = Dropout(cfg, step)

    zero = torch.zeros(())
    task, vq, balance, logits, records = zero, zero, zero, [], []
    for a, b in micro_batches(B, cfg["train.accumulate"]):
        share = (b - a) / B
        out, rec = forward(p, cfg, tokens[a:b], [m[a:b] for m in memory], drop, a)
        task = task + share * cross_entropy(out.reshape((b - a) * L, -1), targets[a:b].reshape(-1))
        vq = vq + share * sum(r.get("vq", zero) for r in rec)
        balance = balance + share * sum(r.get("balance", zero) for r in rec)
        logits.append(out.detach())
        records.append(rec)
    loss = task + cfg["quantizer.alpha"] * vq + cfg["router.balance"] * balance
    loss.backward()

    result = {"loss": loss.item(), "task_loss": task.item(), "vq_loss": vq.item(), "balance_loss": balance.item(),
              "/logits": torch.cat(logits).numpy()}
    for name, value in p.items():
        result["/gradients/" + name] = np.zeros(value.shape) if value.grad is None else value.grad.numpy()
    joined = [{key: torch.cat([rec[i][key] for rec in records]).numpy() for key in records[0][i]
               if records[0][i][key].dim() > 0} for i in layers]
    for i in layers:
        for kind in ("experts", "codes"):
            if kind in joined[i]:
                result[f"/routes/{i}/{kind}"] = joined[i][kind]
        if cfg["model.memory"] > 0 and cfg["model.attention"] == "relative":
            both = np.concatenate([memory[i].numpy(), joined[i]["input"].reshape(B, L, d)], axis=1)
            result[f"/memory_after/{i}"] = both[:, -cfg["model.memory"]:]
    return result, joined


# ---------------------------------------------------------------- step files

COVERED = {"model.kind": ("lm",), "model.attention": ("relative", "absolute"), "model.norm": ("post", "pre"),
           "moe.mode": ("joint", "discrete", "continuous"), "router.kind": ("smoe", "stablemoe"),
           "router.normalize": ("all", "topk"), "router.balance_scope": ("global",),
           "quantizer.kind": ("vq",), "quantizer.straight_through": ("full", "blend")}
LOSSES = ("loss", "task_loss", "vq_loss", "balance_loss")


def read_datasets(group):
    found = {}
    group.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def read_inputs(file):
    text = file.attrs["configuration"]
    text = text.decode() if isinstance(text, bytes) else str(text)
    cfg = json.loads(text)
    cfg["run.seed"] = int(file.attrs["seed"])
    for name, known in COVERED.items():
        if cfg[name] not in known:
            raise SystemExit(f"{name} = {cfg[name]!r}: this reference covers only {', '.join(known)}")
    parameters = {name: value.astype(np.float64) for name, value in read_datasets(file["parameters"]).items()}
    tokens, targets = file["tokens"][()].astype(np.int64), file["targets"][()].astype(np.int64)
    empty = np.zeros((tokens.shape[0], 0, cfg["model.d_model"]))
    memory = [file[f"memory/{i}"][()].astype(np.float64) if f"memory/{i}" in file else empty
              for i in range(cfg["model.layers"])]
    return cfg, parameters, tokens, targets, memory, int(file.attrs["step"])


def write_step(path, cfg, parameters, tokens, targets, memory, step, result):
    with h5py.File(path, "w", libver=("v110", "v110")) as file:        # smaller tables than the default
        file.attrs["configuration"] = json.dumps(cfg)
        file.attrs["step"], file.attrs["seed"] = np.int64(step), np.int64(cfg["run.seed"])
        for name in LOSSES:
            file.attrs[name] = np.float64(result[name])
        arrays = {"/tokens": tokens, "/targets": targets}
        arrays.update({"/parameters/" + name: value for name, value in parameters.items()})
        arrays.update({f"/memory/{i}": m for i, m in enumerate(memory) if m.size})
        arrays.update({name: value for name, value in result.items() if name.startswith("/")})
        for name, value in arrays.items():
            # compress what is worth it
            options = {"compression": "gzip", "compression_opts": 9, "shuffle": True} if value.nbytes > 500 else {}
            file.create_dataset(name, data=value, track_times=False, **options)


def difference(value, reference):
    """Relative L2 error; absolute where the reference is zero."""
    value, reference = np.asarray(value, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if value.shape != reference.shape:
        return math.inf
    size = np.linalg.norm(reference)
    error = np.linalg.norm(value - reference) / (size if size > 1e-12 else 1.0)
    return error if math.isfinite(error) else math.inf


def check(path, tolerance, quiet=False):
    with h5py.File(path, "r") as file:
        inputs = read_inputs(file)
        cfg, parameters = inputs[:2]
        shapes = parameter_shapes(cfg, parameters["embedding.weight"].shape[0])
        if shapes != {name: value.shape for name, value in parameters.items()}:
            for name in sorted(set(shapes) | set(parameters)):
                have = parameters[name].shape if name in parameters else None
                if shapes.get(name) != have:
                    print(f"{path}: parameter {name}: expected {shapes.get(name)}, found {have}")
            return False
        result, _ = run_step(*inputs)
        found = {"/" + name: value for name, value in read_datasets(file).items()}
        found.update({name: file.attrs[name] for name in LOSSES if name in file.attrs})
    unknown = [name for name in found if name.startswith(("/gradients/", "/routes/", "/memory_after/"))
               and name not in result and np.size(found[name])]
    rows = [(math.inf, name, "not expected") for name in unknown]
    for name, reference in result.items():
        if name not in found:
            if name != "/logits":
                rows.append((math.inf, name, "missing"))
        elif name.startswith("/routes/"):
            same = found[name].shape == reference.shape
            wrong = int((found[name] != reference).sum()) if same else reference.size
            rows.append((math.inf if wrong else 0.0, name, f"{wrong} of {reference.size} differ"))
        else:
            rows.append((difference(found[name], reference), name, f"norm {np.linalg.norm(reference):.3e}"))
    good = all(error <= tolerance for error, _, _ in rows)
    for error, name, note in rows:
        if not quiet or error > tolerance:
            print(f"{error:10.2e}  {name:42s} {note}{'' if error <= tolerance else '   BEYOND TOLERANCE'}")
    print(f"{path}: {'ok' if good else 'FAILED'}, largest {max(row[0] for row in rows):.2e}")
    return good


# ---------------------------------------------------------------- fixtures

def keys(**short):
    """Configuration keys from their last part: dropout=0.1 is model.dropout. `router` is router.kind."""
    sections = {name.split(".")[1]: name for name in DEFAULTS if name != "quantizer.kind"}
    sections["router"] = "router.kind"
    return {sections[name]: value for name, value in short.items()}


DROP = {"dropout": 0.2, "attention_dropout": 0.15}

# name: (configuration beside DEFAULTS, positions of memory before the step, step)
FIXTURES = {
    "joint-relative-full-top1-smoe": (keys(), 0, 0),
    "joint-relative-memory-blend-top1-smoe": (keys(memory=4, straight_through="blend"), 4, 3),
    "joint-relative-longmemory-full-top2-stablemoe-topk-codes7": (
        keys(memory=7, router="stablemoe", top_k=2, normalize="topk", codes=7, d_head=3, d_model=8), 7, 5),
    "joint-relative-memory-full-pre-top1-smoe": (keys(memory=4, norm="pre", experts=3, d_head=3), 4, 1),
    "joint-relative-memory-blend-pre-ownnorm-top2-smoe-dropout": (
        keys(memory=4, norm="pre", straight_through="blend", contribution=0.3, share_norm=False, top_k=2, **DROP), 4, 17),
    "joint-relative-growingmemory-full-ownnorm-top1-stablemoe": (
        keys(memory=9, router="stablemoe", share_norm=False, d_model=8, d_head=5), 2, 2),
    "joint-relative-emptymemory-full-nonorm-top2-smoe-codes3": (
        keys(memory=4, discrete_norm=False, share_norm=False, top_k=2, codes=3), 0, 0),
    "joint-relative-longmemory-full-top1-smoe-dropout-accumulate2-codes6": (
        keys(memory=7, accumulate=2, codes=6, segment=6, d_model=8, d_head=3, **DROP), 7, 1000),
    "joint-relative-longmemory-blend-pre-top2-stablemoe-topk-dropout-accumulate2-codes3": (
        keys(memory=7, norm="pre", straight_through="blend", router="stablemoe", top_k=2, normalize="topk", codes=3,
             experts=5, d_model=8, d_head=3, d_inner=5, accumulate=2, seed=3 * 2**32 + 12345, **DROP), 7, 2**32 + 9),
    "joint-absolute-full-top1-stablemoe": (keys(attention="absolute", router="stablemoe"), 0, 4),
    "joint-absolute-blend-ownnorm-top2-smoe-topk-dropout": (
        keys(attention="absolute", straight_through="blend", share_norm=False, top_k=2, normalize="topk",
             balance=0.0, segment=6, **DROP), 0, 8),
    "joint-absolute-full-pre-ownnorm-top2-smoe-accumulate2": (
        keys(attention="absolute", norm="pre", share_norm=False, top_k=2, accumulate=2, experts=3, codes=5), 0, 6),
    "discrete-relative-memory-full-codes6": (keys(mode="discrete", memory=4, codes=6), 4, 11),
    "discrete-relative-memory-blend-pre-ownnorm": (
        keys(mode="discrete", memory=4, norm="pre", straight_through="blend", share_norm=False), 4, 12),
    "discrete-absolute-full-pre-dropout-accumulate2": (
        keys(mode="discrete", attention="absolute", norm="pre", accumulate=2, **DROP), 0, 13),
    "continuous-relative-memory-top2-smoe": (keys(mode="continuous", memory=4, top_k=2, d_model=12, d_head=5, d_inner=5), 4, 14),
    "continuous-relative-longmemory-top1-stablemoe-topk-balance": (
        keys(mode="continuous", memory=7, router="stablemoe", normalize="topk", balance=0.1), 7, 15),
    "continuous-relative-top1-smoe-topk-nobalance": (keys(mode="continuous", normalize="topk", balance=0.0), 0, 16),
    "continuous-relative-memory-pre-top2-smoe-topk-dropout": (
        keys(mode="continuous", memory=4, norm="pre", top_k=2, normalize="topk", **DROP), 4, 18),
    "continuous-absolute-top2-stablemoe-dropout-accumulate2": (
        keys(mode="continuous", attention="absolute", router="stablemoe", top_k=2, accumulate=2, experts=5, d_model=8,
             d_head=3, **DROP), 0, 19),
}
VOCABULARY = 11


def draw(cfg, filled, step, seed):
    """Generic random inputs on a grid of 2^-12: exact in float32, and they compress."""
    rng = np.random.default_rng(seed)

    def normal(shape, mean=0.0, spread=1.0):
        return np.round((mean + spread * rng.standard_normal(shape)) * 4096) / 4096

    B, L, d, layers = cfg["train.batch"], cfg["model.segment"], cfg["model.d_model"], cfg["model.layers"]
    parameters = {}
    for name, shape in parameter_shapes(cfg, VOCABULARY).items():
        is_norm_weight = "norm.weight" in name
        parameters[name] = normal(shape, 1.0 if is_norm_weight else 0.0, 0.2 if is_norm_weight else 0.3)
    tokens, targets = rng.integers(0, VOCABULARY, (2, B, L))
    memory = [normal((B, filled, d)) for _ in range(layers)]
    for i in range(layers):
        name = f"layer.{i}.quantizer.codes"
        if name in parameters:                     # codes: some of the layer's own inputs, blurred
            _, records = run_step(cfg, parameters, tokens, targets, memory, step)
            K = parameters[name].shape[0]
            chosen = records[i]["moe_input"][rng.choice(B * L, K, replace=K > B * L)]
            parameters[name] = np.round(chosen * 4096) / 4096 + normal((K, d), 0.0, 0.4)
    return cfg, parameters, tokens, targets, memory, step


def margins(records, top_k):
    """Smallest relative gap between what was chosen and the next, of routes and codes; smallest |ReLU input|;
    smallest number of codes in use."""
    gap, kink, used = math.inf, math.inf, 99
    for r in records:
        if "scores" in r:
            s = -np.sort(-r["scores"], axis=1)
            gap = min(gap, ((s[:, :-1] - s[:, 1:])[:, :top_k] / np.abs(s).max(axis=1, keepdims=True)).min())
            kink = min(kink, np.abs(r["pre"]).min())
        if "distance" in r:
            squared = np.sort(r["distance"] + (r["moe_input"]**2).sum(axis=1, keepdims=True), axis=1)
            scale = np.maximum(squared[:, 1], (r["moe_input"]**2).sum(axis=1))
            gap = min(gap, ((squared[:, 1] - squared[:, 0]) / scale).min())
            kink = min(kink, np.abs(r["pre_discrete"]).min())
            used = min(used, len(np.unique(r["codes"])))
    return gap, kink, used


def fixtures(folder):
    os.makedirs(folder, exist_ok=True)
    for number, (name, (changes, filled, step)) in enumerate(FIXTURES.items()):
        cfg = {**DEFAULTS, "run.seed": 100 + number, **changes}
        for seed in range(1000 * number, 1000 * number + 1000):      # redraw until float32 chooses alike
            inputs = draw(cfg, filled, step, seed)
            result, records = run_step(*inputs)
            gap, kink, used = margins(records, cfg["router.top_k"])
            if gap > 2e-3 and kink > 1e-4 and used >= 3:
                break
        else:
            raise SystemExit(f"{name}: no draw with a safe margin")
        path = os.path.join(folder, name + ".h5")
        write_step(path, *inputs, result)
        print(f"{os.path.getsize(path):7d} bytes  draw {seed % 1000:3d}  gap {gap:.1e}  kink {kink:.1e}  {name}")


# ---------------------------------------------------------------- self checks

def report(what, error, limit):
    print(f"{error:10.2e}  {what}{'' if error <= limit else '   FAILED'}")
    return error <= limit


def test_philox():
    vectors = [((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
               ((2**32 - 1,) * 4, (2**32 - 1,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
               ((0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344), (0xa4093822, 0x299f31d0),
                "d16cfe09 94fdcceb 5001e420 24126ea1")]
    wrong = sum(" ".join(f"{int(w):08x}" for w in philox(c, k)) != text for c, k, text in vectors)
    return report("philox4x32-10 test vectors that differ", wrong, 0)


def test_finite_differences(name, parameter_filter, what):
    """Central differences of the total loss along one random direction per parameter."""
    changes, filled, step = FIXTURES[name]
    cfg = {**DEFAULTS, **changes}
    for seed in range(50):
        inputs = draw(cfg, filled, step, 77 + seed)
        result, records = run_step(*inputs)
        gap, kink, _ = margins(records, cfg["router.top_k"])
        if gap > 1e-3 and kink > 2e-4:
            break
    parameters = inputs[1]
    rng = np.random.default_rng(5)
    worst = 0.0
    for parameter in filter(parameter_filter, parameters):
        direction = rng.standard_normal(parameters[parameter].shape)
        direction *= 1e-5 / np.linalg.norm(direction)
        loss = [run_step(cfg, {**parameters, parameter: parameters[parameter] + sign * direction}, *inputs[2:])[0]["loss"]
                for sign in (1, -1)]
        slope = (result["/gradients/" + parameter] * direction).sum() / 1e-5
        worst = max(worst, abs((loss[0] - loss[1]) / 2e-5 - slope))
    return report(f"finite differences, {what}: {name}", worst, 1e-8)


def test_straight_through():
    generator = torch.Generator().manual_seed(1)
    x, v, weight = (torch.randn(6, 4, generator=generator) for _ in range(3))
    x.requires_grad_(), v.requires_grad_()
    good = True
    for kind, c in (("full", 1.0), ("blend", 0.3)):
        xq = straight_through(x, v, {"quantizer.straight_through": kind, "quantizer.contribution": c})
        gx, gv = torch.autograd.grad((xq * weight).sum(), (x, v), allow_unused=True)
        value, slope = (v, 1.0) if kind == "full" else ((1 - 2 * c) * x + c * v, 1 - c)
        error = max((xq - value).abs().max().item(), (gx - slope * weight).abs().max().item())
        good &= report(f"straight-through {kind}: value, gradient to x", error, 0 if kind == "full" else 1e-14)
        good &= report(f"straight-through {kind}: gradient to the code is none", 0 if gv is None else 1, 0)
    return good


def test_plain_loops():
    """The first block again, token by token in numpy: relative attention with memory, router, codes and mix."""
    changes, filled, step = FIXTURES["joint-relative-longmemory-full-top2-stablemoe-topk-codes7"]
    cfg = {**DEFAULTS, **changes}
    inputs = draw(cfg, filled, step, 3)
    _, p, tokens, _, memory, _ = inputs
    _, records = run_step(*inputs)
    B, L, d, H, dh = (cfg[k] for k in ("train.batch", "model.segment", "model.d_model", "model.heads", "model.d_head"))
    E = cfg["moe.experts"]
    w = {name[len("layer.0."):]: value for name, value in p.items() if name.startswith("layer.0.")}

    def plain_norm(x, name):
        x = x - x.sum() / d
        return x / math.sqrt((x * x).sum() / d + 1e-5) * w[name + ".weight"] + w[name + ".bias"]

    def softmax(s):
        s = np.exp(np.array(s) - max(s))
        return s / s.sum()

    def encoding(n):
        angle = [n / 10000 ** (2 * i / d) for i in range(d // 2)]
        return np.array([math.sin(a) for a in angle] + [math.cos(a) for a in angle])

    def expert(e, x):
        return w["moe.w2"][e] @ np.maximum(w["moe.w1"][e] @ x + w["moe.b1"][e], 0) + w["moe.b2"][e]

    worst_in = worst_out = 0.0
    for b in range(B):
        rows = list(memory[0][b]) + [math.sqrt(d) * p["embedding.weight"][t] for t in tokens[b]]
        for t in range(L):
            x, heads = rows[filled + t], []
            for n in range(H):
                head = slice(n * dh, (n + 1) * dh)
                query = w["attention.query"][head] @ x
                scores = [((query + p["attention.bias_w"][n]) @ (w["attention.key"][head] @ rows[s])
                           + (query + p["attention.bias_r"][n]) @ (w["attention.position"][head] @ encoding(filled + t - s)))
                          / math.sqrt(dh) for s in range(filled + t + 1)]
                heads.append(sum(a * (w["attention.value"][head] @ rows[s]) for s, a in enumerate(softmax(scores))))
            u = plain_norm(x + w["attention.output"] @ np.concatenate(heads), "attention_norm")
            worst_in = max(worst_in, np.abs(u - records[0]["moe_input"][b * L + t]).max())

            s = [u @ m / math.sqrt(m @ m) for m in w["router.embedding"]]
            best = sorted(range(E), key=lambda e: -s[e])[:2]
            y_c = sum(a * expert(e, u) for a, e in zip(softmax([s[e] for e in best]), best))
            k = min(range(7), key=lambda k: ((u - w["quantizer.codes"][k])**2).sum())
            y_d = plain_norm(expert(k % E, plain_norm(w["quantizer.codes"][k], "moe_norm")), "moe_norm")
            mix = softmax(list(w["mix.weight"] @ u + w["mix.bias"]))
            out = plain_norm(u + mix[0] * y_c + mix[1] * y_d, "moe_norm")
            worst_out = max(worst_out, np.abs(out - records[1]["input"][b, t]).max())
    return report("plain loops: input of the first MoE", worst_in, 1e-12) & \
        report("plain loops: output of the first block", worst_out, 1e-12)


def selftest():
    def everything(name):
        return True

    def no_way_to_a_code(name):                 # behind the last quantizer, or beside it
        return name == "softmax.bias" or name.startswith(("layer.1.moe.", "layer.1.router.", "layer.1.mix.", "layer.1.moe_norm."))

    good = test_philox() & test_straight_through() & test_plain_loops()
    for name in FIXTURES:
        if name.startswith("continuous"):
            good &= test_finite_differences(name, everything, "all parameters")
    for name in ("joint-relative-full-top1-smoe", "joint-relative-longmemory-full-top2-stablemoe-topk-codes7",
                 "joint-relative-growingmemory-full-ownnorm-top1-stablemoe", "discrete-relative-memory-full-codes6",
                 "joint-absolute-blend-ownnorm-top2-smoe-topk-dropout"):
        good &= test_finite_differences(name, no_way_to_a_code, "behind the last code")
    print("selftest", "ok" if good else "FAILED")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("check")
    command.add_argument("file", nargs="+")
    command.add_argument("--tolerance", type=float, default=1e-9)
    command.add_argument("--quiet", action="store_true", help="print only what is beyond the tolerance")
    commands.add_parser("fixtures").add_argument("folder")
    commands.add_parser("selftest")
    a = parser.parse_args()
    if a.command == "check":
        good = all([check(path, a.tolerance, a.quiet) for path in a.file])
    elif a.command == "fixtures":
        good = fixtures(a.folder) is None
    else:
        good = selftest()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
