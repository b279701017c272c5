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

# Keys that only some kinds read, at the values they have in a file without them.
KIND_DEFAULTS = {
    "router.capacity": 0.0, "router.two_stage": False, "router.switch_step": 0, "router.k_min": 0, "router.k_max": 0,
    "router.clusters": 0, "router.samples": 0, "router.tau": 1.0, "router.dense_width": 1,
    "quantizer.width": 0, "quantizer.decay": 0.99, "optim.decay_steps": 0, "train.steps": 0,
    "model.softmax": "full", "model.cutoffs": "20000,40000,200000", "model.tied": True,
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


def uniform(seed, step, site, row, column, layer):
    return (random_words(seed, step, site, row, column, layer, 0) + 0.5) / 2**32


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

class Sizes:
    """The sizes that the tables of shapes speak of, zeros of the configuration resolved."""

    def __init__(self, cfg, vocabulary):
        self.V, self.d, self.h, self.E = vocabulary, cfg["model.d_model"], cfg["model.d_inner"], cfg["moe.experts"]
        self.K = cfg["quantizer.codes"] or self.E
        self.width = cfg["quantizer.width"] or self.E
        self.C = cfg["router.clusters"] or self.E
        self.two_stage = cfg["router.two_stage"]
        self.dense = self.h * cfg["router.dense_width"]


def cutoffs(cfg):
    return [int(c) for c in cfg["model.cutoffs"].split(",")] if cfg["model.softmax"] == "adaptive" else []


def cluster_names(cfg, what):
    """Names of the head's and of the tails' weights or biases."""
    owner = "embedding" if what == "weight" and cfg["model.tied"] else "softmax"
    return [f"{owner}.{what}"] + [f"{owner}.tail_{t + 1}.{what}" for t in range(len(cutoffs(cfg)))]


def vocabulary_shapes(cfg, vocabulary, d):
    edges = [*cutoffs(cfg), vocabulary]
    rows = [edges[0] + len(cutoffs(cfg))] + [b - a for a, b in zip(edges, edges[1:])]
    found = {} if cfg["model.tied"] else {"embedding.weight": (vocabulary, d)}
    found.update({name: (n, d) for name, n in zip(cluster_names(cfg, "weight"), rows)})
    return {**found, **{name: (n,) for name, n in zip(cluster_names(cfg, "bias"), rows)}}


def vocabulary_of(parameters):
    tables = [value.shape[0] - (".tail_" in name) for name, value in parameters.items() if name.startswith("embedding.")]
    return sum(tables)


def ffn_shapes(name, E, h, d):
    return {f"{name}.w1": (E, h, d), f"{name}.b1": (E, h), f"{name}.w2": (E, d, h), f"{name}.b2": (E, d)}


# kind: from Sizes to (parameters, state) of a layer
ROUTER_SHAPES = {
    "smoe": lambda n: ({"router.weight": (n.E, n.d), "router.bias": (n.E,)}, {}),
    "stablemoe": lambda n: ({"router.embedding": (n.E, n.d), **(
        {"router.token_embedding": (n.V, 50), "router.centroids": (n.E, 50)} if n.two_stage else {})}, {}),
    "xmoe": lambda n: ({"router.reduction": (8, n.d), "router.embedding": (n.E, 8)}, {}),
    "smoe_dropout": lambda n: ({}, {"router.weight": (n.E, n.d), "router.bias": (n.E,)}),
    "hash": lambda n: ({}, {}),
    "cluster": lambda n: ({"router.weight": (n.E, n.d), "router.bias": (n.E,), "router.clusters": (n.C, n.d),
                           **ffn_shapes("shared", 1, n.h, n.d)},
                          {"router.centroids": (n.C, n.d), "router.fitted": (1,)}),
    "dense": lambda n: (ffn_shapes("ffn", 1, n.dense, n.d), {}),
}
QUANTIZER_SHAPES = {
    "vq": lambda n: ({"quantizer.codes": (n.K, n.d)}, {}),
    "cosine": lambda n: ({"quantizer.codes": (n.K, n.d)}, {}),
    "factorized": lambda n: ({"quantizer.codes": (n.K, n.width), "quantizer.down": (n.width, n.d),
                              "quantizer.up": (n.d, n.width)}, {}),
    "ema": lambda n: ({}, {"quantizer.codes": (n.K, n.d), "quantizer.count": (n.K,), "quantizer.sum": (n.K, n.d)}),
    "frozen_linear": lambda n: ({"quantizer.weight": (n.d, n.d), "quantizer.bias": (n.d,)},
                                {"quantizer.basis": (n.K, n.d)}),
    "online_clustered": lambda n: ({"quantizer.codes": (n.K, n.d)}, {"quantizer.usage": (n.K,)}),
}


def shapes(cfg, vocabulary):
    """Names and shapes of all parameters, and of all state."""
    d, hd = cfg["model.d_model"], cfg["model.heads"] * cfg["model.d_head"]
    mode, n = cfg["moe.mode"], Sizes(cfg, vocabulary)
    relative = cfg["model.attention"] == "relative"
    parameters = vocabulary_shapes({**KIND_DEFAULTS, **cfg}, vocabulary, d)
    state = {}
    if relative:
        parameters["attention.bias_w"] = parameters["attention.bias_r"] = (cfg["model.heads"], cfg["model.d_head"])
    for i in range(cfg["model.layers"]):
        layer = {f"attention.{n}": (hd, d) for n in ("query", "key", "value") + (("position",) if relative else ())}
        layer["attention.output"] = (d, hd)
        norms = ["attention_norm", "moe_norm"]
        if mode != "continuous" and cfg["moe.discrete_norm"] and not cfg["moe.share_norm"]:
            norms += ["moe.input_norm", "moe.output_norm"]
        for norm in norms:
            layer[norm + ".weight"] = layer[norm + ".bias"] = (d,)
        if cfg["router.kind"] != "dense":
            layer.update(ffn_shapes("moe", n.E, n.h, d))
        kinds = []
        if mode != "discrete":
            kinds.append(ROUTER_SHAPES[cfg["router.kind"]])
        if mode != "continuous":
            kinds.append(QUANTIZER_SHAPES[cfg["quantizer.kind"]])
        for kind in kinds:
            more, kept = kind(n)
            layer.update(more)
            state.update({f"layer.{i}.{name}": shape for name, shape in kept.items()})
        if mode == "joint":
            layer.update({"mix.weight": (2, d), "mix.bias": (2,)})
        parameters.update({f"layer.{i}.{name}": shape for name, shape in layer.items()})
    return parameters, state


def of_layer(values, layer):
    """The values of one layer, by their names within it."""
    prefix = f"layer.{layer}."
    return {name[len(prefix):]: value for name, value in values.items() if name.startswith(prefix)}


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


# ---------------------------------------------------------------- routers

def decay_steps(cfg):
    return cfg["optim.decay_steps"] or cfg["train.steps"]


def switch_step(cfg):
    return cfg["router.switch_step"] or max(1, decay_steps(cfg) // 10)


def scheduled_k(cfg, step):
    """smoe_dropout: from k_min to k_max over the N steps."""
    E, N = cfg["moe.experts"], decay_steps(cfg)
    low, high = cfg["router.k_min"] or (E + 1) // 2, cfg["router.k_max"] or E
    return round((high - low) * min(step, N) / N) + low                          # Python rounds halves to even


def splitmix64(x):
    mask = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def linear_scores(x, q):
    return x @ q["router.weight"].T + q["router.bias"]


def embedding_scores(x, q):
    m = q["router.embedding"]
    return x @ (m / m.norm(dim=1, keepdim=True).clamp(min=1e-4)).T


def reduced_scores(x, q):
    return embedding_scores(x @ q["router.reduction"].T, q)


# kind: scores, and the temperature of the balance loss (None: it has no such loss)
SCORES = {"smoe": (linear_scores, 1.0), "smoe_dropout": (linear_scores, None), "stablemoe": (embedding_scores, 0.3),
          "xmoe": (reduced_scores, 0.3)}


def balance_loss(s, experts, tau):
    E = s.shape[1]
    f = torch.bincount(experts.flatten(), minlength=E) / experts.numel()
    return E * (f * (s / tau).softmax(dim=1).mean(dim=0)).sum()


def route_by_scores(x, ids, q, layer, cfg, step):
    score, tau = SCORES[cfg["router.kind"]]
    s = score(x, q)
    choosing, found = s.detach(), {}
    if cfg["router.two_stage"]:
        light = q["router.token_embedding"][ids] @ q["router.centroids"].T
        if step < switch_step(cfg):
            found["distill"] = cross_entropy(light, choosing.argmax(dim=1))
        else:
            choosing = light.detach()
    second_stage = cfg["router.two_stage"] and "distill" not in found
    k = scheduled_k(cfg, step) if cfg["router.kind"] == "smoe_dropout" else cfg["router.top_k"]
    order = choosing.sort(dim=1, descending=True, stable=True).indices           # stable: ties to the lower expert
    experts = order[:, :k]
    if cfg["router.normalize"] == "all":
        weights = s.softmax(dim=1).gather(1, experts)
    else:
        weights = s.gather(1, experts).softmax(dim=1)
    if tau is not None and not second_stage:
        found["balance"] = balance_loss(s, experts, tau)
    return {**found, "experts": experts, "weights": weights, "scores": choosing}


def route_by_hash(x, ids, q, layer, cfg, step):
    salt = (cfg["run.seed"] % 2**64) ^ (layer * 0x9E3779B97F4A7C15 % 2**64)
    experts = torch.tensor([splitmix64(i ^ salt) % cfg["moe.experts"] for i in ids.tolist()])[:, None]
    return {"experts": experts, "weights": torch.ones(experts.shape)}


def route_by_cluster(x, ids, q, layer, cfg, step):
    if q["router.fitted"].item() == 0:                                           # the shared expert alone
        nothing = torch.zeros(len(x), 1)
        return {"experts": nothing.long(), "weights": nothing, "shared": torch.ones(len(x), 1), "unrouted": True}
    distance = ((x.detach()[:, None] - q["router.centroids"])**2).sum(dim=2)
    cluster = distance.sort(dim=1, stable=True).indices[:, 0]                    # ties to the lowest cluster
    s = (q["router.clusters"][cluster] @ q["router.weight"].T + q["router.bias"]) / cfg["router.tau"]
    experts = s.detach().sort(dim=1, descending=True, stable=True).indices[:, :1]
    p = s.softmax(dim=1).gather(1, experts)
    return {"experts": experts, "weights": p, "shared": 1 - p, "scores": s.detach(), "cluster_distance": distance}


ROUTERS = {**{kind: route_by_scores for kind in SCORES}, "hash": route_by_hash, "cluster": route_by_cluster}


def admitted(experts, E, capacity):
    """1.0 for each slot [T, k] that its expert takes, in the order of slots; 0.0 for the others."""
    if capacity == 0:
        return torch.ones(experts.shape)
    limit = math.ceil(capacity * experts.numel() / E)
    flat = experts.flatten()
    place = torch.nn.functional.one_hot(flat, E).cumsum(dim=0).gather(1, flat[:, None])
    return (place <= limit).reshape(experts.shape).double()


def ffn(x, g, q, name, layer, drop, lanes):
    """Every network of NAME on every token: outputs [T, E, d] and ReLU inputs [T, E, h]."""
    w1, b1, w2, b2 = (q[f"{name}.{n}"] for n in ("w1", "b1", "w2", "b2"))
    pre = torch.einsum("td,ehd->teh", x, w1) + b1
    hidden = drop(pre.relu(), 5, row=g.reshape(-1, 1, 1), column=np.arange(w1.shape[1]), layer=layer,
                  lane=np.asarray(lanes).reshape(-1, 1))
    return torch.einsum("teh,edh->ted", hidden, w2) + b2, pre.detach()


def continuous_path(x, ids, g, q, layer, cfg, drop):
    if cfg["router.kind"] == "dense":
        out, pre = ffn(x, g, q, "ffn", layer, drop, [0])
        return out[:, 0], {"pre": pre}
    E, tokens = cfg["moe.experts"], torch.arange(x.shape[0])
    record = ROUTERS[cfg["router.kind"]](x, ids, q, layer, cfg, drop.step)
    experts, weights, shared = record["experts"], record.pop("weights"), record.pop("shared", None)
    kept = admitted(experts, E, cfg["router.capacity"])
    out, pre = ffn(x, g, q, "moe", layer, drop, range(E))
    y = 0
    for slot in range(experts.shape[1]):
        y = y + (weights * kept)[:, slot, None] * out[tokens, experts[:, slot]]
    pre = pre.gather(1, experts[:, :, None].expand(-1, -1, pre.shape[2]))
    if shared is not None:
        out, more = ffn(x, g, q, "shared", layer, drop, [E])
        y, pre = y + shared * out[:, 0], torch.cat([pre, more], dim=1)
    if not record.pop("unrouted", False):
        record["kept"] = kept
    return y, {**record, "pre": pre}


# ---------------------------------------------------------------- quantizers

def straight_through(x, v, cfg):
    if cfg["quantizer.straight_through"] == "full":
        return v.detach() + (x - x.detach())                                     # the bracket is exactly zero
    c = cfg["quantizer.contribution"]
    return (1 - c) * x + c * (v - x).detach()


def unit(x):
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def nearest(z, codes):
    """The nearest code, and what the choice was made of."""
    z, codes = z.detach(), codes.detach()
    distance = (codes**2).sum(dim=1) - 2 * z @ codes.T
    k = distance.sort(dim=1, stable=True).indices[:, 0]                          # ties to the lowest code
    return k, {"codes": k, "distance": distance, "distance_from": z}


def commitment_loss(z, v, cfg):
    return cfg["quantizer.beta"] * ((v.detach() - z)**2).mean()


def vq_loss(z, v, cfg):
    return ((v - z.detach())**2).mean() + commitment_loss(z, v, cfg)


def quantize_euclidean(x, codes, cfg, loss=vq_loss):
    k, record = nearest(x, codes)
    return straight_through(x, codes[k], cfg), {**record, "vq": loss(x, codes[k], cfg)}


def quantize_online(x, codes, cfg):
    k, record = nearest(unit(x), unit(codes))
    return straight_through(x, codes[k], cfg), {**record, "vq": vq_loss(x, codes[k], cfg)}


def quantize_cosine(z, codes, cfg):
    z, codes = unit(z), unit(codes)
    k, record = nearest(z, codes)
    return codes[k].detach() + (z - z.detach()), {**record, "vq": vq_loss(z, codes[k], cfg)}


def quantize_factorized(x, q, cfg):
    zq, record = quantize_cosine(x @ q["quantizer.down"].T, q["quantizer.codes"], cfg)
    return zq @ q["quantizer.up"].T, record


# kind: quantized input [T, d], and a record with codes and loss
QUANTIZERS = {
    "vq": lambda x, q, cfg: quantize_euclidean(x, q["quantizer.codes"], cfg),
    "ema": lambda x, q, cfg: quantize_euclidean(x, q["quantizer.codes"], cfg, commitment_loss),
    "frozen_linear": lambda x, q, cfg: quantize_euclidean(
        x, q["quantizer.basis"] @ q["quantizer.weight"].T + q["quantizer.bias"], cfg),
    "online_clustered": lambda x, q, cfg: quantize_online(x, q["quantizer.codes"], cfg),
    "cosine": lambda x, q, cfg: quantize_cosine(x, q["quantizer.codes"], cfg),
    "factorized": quantize_factorized,
}


def discrete_path(x, q, cfg):
    u, record = QUANTIZERS[cfg["quantizer.kind"]](x, q, cfg)
    e = record["codes"] % cfg["moe.experts"]
    names = ("moe_norm", "moe_norm") if cfg["moe.share_norm"] else ("moe.input_norm", "moe.output_norm")
    if cfg["moe.discrete_norm"]:
        u = norm(u, q, names[0])
    pre = torch.einsum("td,thd->th", u, q["moe.w1"][e]) + q["moe.b1"][e]
    y = torch.einsum("th,tdh->td", pre.relu(), q["moe.w2"][e]) + q["moe.b2"][e]
    if cfg["moe.discrete_norm"]:
        y = norm(y, q, names[1])
    return y, {**record, "pre_discrete": pre.detach()}


# ---------------------------------------------------------------- state after the step

def after_ema(q, record, cfg, step, layer):
    x, K, decay, eps = record["moe_input"], len(q["quantizer.count"]), cfg["quantizer.decay"], 1e-5
    chosen = record["codes"][:, None] == np.arange(K)                            # [T, K]
    count = decay * q["quantizer.count"] + (1 - decay) * chosen.sum(axis=0)
    total = decay * q["quantizer.sum"] + (1 - decay) * chosen.T.astype(float) @ x
    smoothed = (count + eps) / (count.sum() + K * eps) * count.sum()
    return {"quantizer.count": count, "quantizer.sum": total, "quantizer.codes": total / smoothed[:, None]}


def after_online(q, record, cfg, step, layer):
    x, v, decay = record["moe_input"], q["quantizer.codes"], cfg["quantizer.decay"]
    T, K = len(x), len(v)
    usage = decay * q["quantizer.usage"] + (1 - decay) * np.bincount(record["codes"], minlength=K) / T
    a = np.exp(-10 * K * usage / (1 - decay) - 1e-3)
    u = uniform(cfg["run.seed"], step, 9, np.arange(T)[:, None], np.arange(K), layer)
    cosine = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (v / np.linalg.norm(v, axis=1, keepdims=True)).T
    noisy = cosine - np.log(-np.log(u))
    anchor = noisy.argmax(axis=0)
    ordered = np.sort(noisy, axis=0)
    record.update(anchor=anchor, anchor_weight=a, anchor_gap=(ordered[-1] - ordered[-2]).min())
    return {"quantizer.usage": usage, "quantizer.codes": v * (1 - a[:, None]) + a[:, None] * x[anchor]}


def squared_distances(samples, centroids):
    return ((samples[:, None] - centroids)**2).sum(axis=2)


def choice_gap(samples, centroids, distance, own):
    """Smallest lead of the nearest centroid; one with the same coordinates is no rival."""
    rival = np.where((centroids[own][:, None] == centroids).all(axis=2), np.inf, distance).min(axis=1)
    scale = np.maximum(rival, (samples**2).sum(axis=1))
    lead = rival - distance[np.arange(len(samples)), own]
    return (lead[np.isfinite(rival)] / scale[np.isfinite(rival)]).min(initial=np.inf)


def first_centroids(samples, uniforms):
    """k-means++ from one uniform number per centroid: the chosen samples, and the smallest relative lead of a choice."""
    N, gap = len(samples), math.inf
    chosen = [math.floor(uniforms[0] * N)]
    for c, u in list(enumerate(uniforms))[1:]:
        cumulated = squared_distances(samples, samples[chosen]).min(axis=1).cumsum()
        if cumulated[-1] == 0:
            chosen.append(c % N)
        else:
            chosen.append(int(np.argmax(cumulated > u * cumulated[-1])))
            gap = min(gap, np.abs(cumulated / cumulated[-1] - u).min())
    return samples[chosen], gap


def lloyd_step(samples, centroids):
    """The next centroids, and the smallest relative lead of a choice."""
    distance = squared_distances(samples, centroids)
    own = distance.argmin(axis=1)                                                # the first of equal ones
    gap = choice_gap(samples, centroids, distance, own)
    spread = distance.min(axis=1)
    far = np.argsort(-spread, kind="stable")                                     # farthest first, ties to the lowest
    result, empty = centroids.copy(), 0
    for c in range(len(centroids)):
        if (own == c).any():
            result[c] = samples[own == c].mean(axis=0)
        else:
            result[c] = samples[far[empty]]
            rest = far[empty + 1:][(samples[far[empty + 1:]] != samples[far[empty]]).any(axis=1)]
            if spread.max() > 0 and len(rest):
                gap = min(gap, (spread[far[empty]] - spread[rest[0]]) / spread.max())
            empty += 1
    return result, gap


def kmeans(samples, uniforms, steps=20):
    centroids, gap = first_centroids(samples, uniforms)
    for _ in range(steps):
        centroids, lead = lloyd_step(samples, centroids)
        gap = min(gap, lead)
    return centroids, gap


def after_cluster(q, record, cfg, step, layer):
    if step != switch_step(cfg) - 1:
        return {}
    x, seed, C = record["moe_input"], cfg["run.seed"], len(q["router.centroids"])
    words = random_words(seed, step, 10, np.arange(cfg["router.samples"]), np.zeros(1, int), layer, 0)
    samples = x[(words % np.uint64(len(x))).astype(np.int64)]
    centroids, record["fit_gap"] = kmeans(samples, uniform(seed, step, 11, np.arange(C), np.zeros(1, int), layer))
    return {"router.centroids": centroids, "router.fitted": np.ones(1)}


# kind of router or quantizer: from the values before the step and the record of the global batch to what changes
AFTER = {"ema": after_ema, "online_clustered": after_online, "cluster": after_cluster}


def after_step(cfg, values, state, records, step):
    """All state after the step's own updates, and the parameters that these change."""
    result = dict(state)
    kinds = {"joint": ("router.kind", "quantizer.kind"), "discrete": ("quantizer.kind",), "continuous": ("router.kind",)}
    for kind in kinds[cfg["moe.mode"]]:
        if cfg[kind] in AFTER and (kind != "quantizer.kind" or cfg["quantizer.alpha"] > 0):   # 0 freezes the codes
            for i, record in enumerate(records):
                changed = AFTER[cfg[kind]](of_layer(values, i), record, cfg, step, i)
                result.update({f"layer.{i}.{name}": value for name, value in changed.items()})
    return result


# ---------------------------------------------------------------- the whole step

def moe(x, ids, g, q, layer, cfg, drop):
    """x: [T, d], ids and g: [T]; q: values of the layer. Returns the output [T, d] and a record of the layer."""
    mode, record = cfg["moe.mode"], {"moe_input": x.detach()}
    if mode != "discrete":
        continuous, more = continuous_path(x, ids, g, q, layer, cfg, drop)
        record.update(more)
    if mode != "continuous":
        discrete, more = discrete_path(x, q, cfg)
        record.update(more)
    if mode == "continuous":
        return continuous, record
    if mode == "discrete":
        return discrete, record
    mix = (x @ q["mix.weight"].T + q["mix.bias"]).softmax(dim=1)
    return mix[:, 0:1] * continuous + mix[:, 1:2] * discrete, record


def embedding_rows(p, cfg):
    """[V, d]: the row of each symbol."""
    if not cfg["model.tied"] or not cutoffs(cfg):
        return p["embedding.weight"]
    head, *tails = (p[name] for name in cluster_names(cfg, "weight"))
    return torch.cat([head[:cutoffs(cfg)[0]], *tails])


def scores(x, p, cfg):
    """[..., V]: logits, or of adaptive softmax logs of probabilities."""
    head, *tails = (x @ p[weight].T + p[bias] for weight, bias in
                    zip(cluster_names(cfg, "weight"), cluster_names(cfg, "bias")))
    if not tails:
        return head
    head, first = head.log_softmax(dim=-1), cutoffs(cfg)[0]
    return torch.cat([head[..., :first]] + [head[..., first + t, None] + tail.log_softmax(dim=-1)
                                            for t, tail in enumerate(tails)], dim=-1)


def forward(p, cfg, tokens, memory, drop, first_row):
    """p: parameters and state; tokens: [B, L], rows first_row.. of the global batch; memory: a list of [B, M', d].
    Returns logits and records."""
    B, L = tokens.shape
    d = cfg["model.d_model"]
    relative = cfg["model.attention"] == "relative"
    pre_norm = cfg["model.norm"] == "pre"
    g = (first_row + np.arange(B)).reshape(B, 1) * L + np.arange(L)
    columns = np.arange(d)
    at = {"row": g[:, :, None], "column": columns}

    x = drop(embedding_rows(p, cfg)[tokens] * math.sqrt(d), 1, **at)
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
        out, record = moe(z.reshape(B * L, d), tokens.reshape(-1), g.reshape(-1), of_layer(p, i), i, cfg, drop)
        x = u + drop(out.view(B, L, d), 6, layer=i, **at)
        if not pre_norm:
            x = norm(x, p, name + "moe_norm")
        record["input"] = layer_input.detach()
        records.append(record)

    x = drop(x, 7, **at)
    return scores(x, p, cfg), records


def micro_batches(rows, count):
    """Contiguous (first, end) pairs; the first rows mod count get one row more."""
    ends = np.cumsum([rows // count + (n < rows % count) for n in range(count)])
    return [(a, b) for a, b in zip([0, *ends[:-1]], ends) if b > a]


def rescaled(cfg, parameters):
    """Parameters as the step's forward finds them: xmoe first brings its embeddings to norm 1.5."""
    if cfg["router.kind"] != "xmoe":
        return parameters
    return {name: 1.5 * value / np.linalg.norm(value, axis=1, keepdims=True) if name.endswith("router.embedding") else value
            for name, value in parameters.items()}


def run_step(cfg, parameters, state, tokens, targets, memory, step):
    """One step. All arrays are numpy; returns a dictionary named like the objects of a step file, and the records."""
    cfg = {**KIND_DEFAULTS, **cfg}
    parameters = rescaled(cfg, parameters)
    p = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in parameters.items()}
    values = {**p, **{name: torch.tensor(value, dtype=torch.float64) for name, value in state.items()}}
    tokens, targets = torch.as_tensor(tokens), torch.as_tensor(targets)
    memory = [torch.as_tensor(m, dtype=torch.float64) for m in memory]
    B, L = tokens.shape
    d, layers = cfg["model.d_model"], range(cfg["model.layers"])
    drop = Dropout(cfg, step)

    zero = torch.zeros(())
    task, vq, balance, distill, logits, records = zero, zero, zero, zero, [], []
    for a, b in micro_batches(B, cfg["train.accumulate"]):
        share = (b - a) / B
        out, rec = forward(values, cfg, tokens[a:b], [m[a:b] for m in memory], drop, a)
        task = task + share * cross_entropy(out.reshape((b - a) * L, -1), targets[a:b].reshape(-1))
        vq = vq + share * sum(r.get("vq", zero) for r in rec)
        balance = balance + share * sum(r.get("balance", zero) for r in rec)
        distill = distill + share * sum(r.get("distill", zero) for r in rec)
        logits.append(out.detach())
        records.append(rec)
    loss = task + cfg["quantizer.alpha"] * vq + cfg["router.balance"] * balance + distill
    loss.backward()

    result = {"loss": loss.item(), "task_loss": task.item(), "vq_loss": vq.item(), "balance_loss": balance.item(),
              "distill_loss": distill.item(), "/logits": torch.cat(logits).numpy()}
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
    after = after_step(cfg, {**parameters, **state}, state, joined, step)
    result.update({"/after/" + name: value for name, value in after.items()})
    return result, joined


# ---------------------------------------------------------------- step files

COVERED = {"model.kind": ("lm",), "model.attention": ("relative", "absolute"), "model.norm": ("post", "pre"),
           "model.softmax": ("full", "adaptive"),
           "moe.mode": ("joint", "discrete", "continuous"), "router.kind": tuple(ROUTER_SHAPES),
           "router.normalize": ("all", "topk"), "router.balance_scope": ("global",),
           "quantizer.kind": tuple(QUANTIZER_SHAPES), "quantizer.straight_through": ("full", "blend")}
LOSSES = ("loss", "task_loss", "vq_loss", "balance_loss", "distill_loss")


def read_datasets(group):
    found = {}
    group.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def read_inputs(file):
    text = file.attrs["configuration"]
    text = text.decode() if isinstance(text, bytes) else str(text)
    cfg = {**KIND_DEFAULTS, **{k: 0 if v in ("auto", "none") else v for k, v in json.loads(text).items()}}
    cfg["run.seed"] = int(file.attrs["seed"])
    for name, known in COVERED.items():
        if cfg[name] not in known:
            raise SystemExit(f"{name} = {cfg[name]!r}: this reference covers only {', '.join(known)}")
    if cfg["router.kind"] == "dense" and cfg["moe.mode"] != "continuous":
        raise SystemExit(f"router.kind = 'dense' has no experts for moe.mode = {cfg['moe.mode']!r}")
    parameters, state = ({name: value.astype(np.float64) for name, value in read_datasets(file[group]).items()}
                         if group in file else {} for group in ("parameters", "state"))
    tokens, targets = file["tokens"][()].astype(np.int64), file["targets"][()].astype(np.int64)
    empty = np.zeros((tokens.shape[0], 0, cfg["model.d_model"]))
    memory = [file[f"memory/{i}"][()].astype(np.float64) if f"memory/{i}" in file else empty
              for i in range(cfg["model.layers"])]
    return cfg, parameters, state, tokens, targets, memory, int(file.attrs["step"])


def write_step(path, cfg, parameters, state, tokens, targets, memory, step, result):
    with h5py.File(path, "w", libver=("v110", "v110")) as file:        # smaller tables than the default
        file.attrs["configuration"] = json.dumps(cfg)
        file.attrs["step"], file.attrs["seed"] = np.int64(step), np.int64(cfg["run.seed"])
        for name in LOSSES:
            file.attrs[name] = np.float64(result[name])
        arrays = {"/tokens": tokens, "/targets": targets}
        arrays.update({"/parameters/" + name: value for name, value in parameters.items()})
        arrays.update({"/state/" + name: value for name, value in state.items()})
        arrays.update({f"/memory/{i}": m for i, m in enumerate(memory) if m.size})
        arrays.update({name: value for name, value in result.items() if name.startswith("/")})
        for name, value in arrays.items():
            file.create_dataset(name, data=value, track_times=False)       # contiguous, as vqmoe reads it


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
        cfg, parameters, state = inputs[:3]
        expected = shapes(cfg, vocabulary_of(parameters))
        wrong = False
        for what, want, have in zip(("parameter", "state"), expected, (parameters, state)):
            for name in sorted(set(want) | set(have)):
                shape = have[name].shape if name in have else None
                if want.get(name) != shape:
                    print(f"{path}: {what} {name}: expected {want.get(name)}, found {shape}")
                    wrong = True
        if wrong:
            return False
        result, _ = run_step(*inputs)
        found = {"/" + name: value for name, value in read_datasets(file).items()}
        found.update({name: file.attrs[name] for name in LOSSES if name in file.attrs})
    unknown = [name for name in found if name.startswith(("/gradients/", "/routes/", "/memory_after/", "/after/"))
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
    """Configuration keys from their last part: dropout=0.1 is model.dropout. `router` is router.kind, and so on."""
    sections = {name.split(".")[1]: name for name in {**DEFAULTS, **KIND_DEFAULTS}}
    sections.update(router="router.kind", quantizer="quantizer.kind")
    return {sections[name]: value for name, value in short.items()}


DROP = {"dropout": 0.2, "attention_dropout": 0.15}

# name: (configuration beside DEFAULTS, positions of memory before the step, step); a cluster router is fitted already
# in the state of steps from router.switch_step on
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

    "quantizers-cosine-codes6": (keys(quantizer="cosine", codes=6, memory=4), 4, 1),
    "quantizers-cosine-discrete-pre-ownnorm-codes3-accumulate2": (
        keys(quantizer="cosine", codes=3, mode="discrete", norm="pre", share_norm=False, accumulate=2, **DROP), 0, 2),
    "quantizers-factorized-width3-codes6": (keys(quantizer="factorized", width=3, codes=6, memory=4), 4, 3),
    "quantizers-factorized-pre-nonorm-top2-dropout": (
        keys(quantizer="factorized", norm="pre", discrete_norm=False, top_k=2, experts=5, d_model=8, **DROP), 0, 4),
    "quantizers-factorized-discrete-absolute-ownnorm-width6-codes3-accumulate2": (
        keys(quantizer="factorized", width=6, codes=3, mode="discrete", attention="absolute", share_norm=False,
             accumulate=2), 0, 5),
    "quantizers-ema-full-codes6-accumulate2": (keys(quantizer="ema", codes=6, accumulate=2, memory=4), 4, 6),
    "quantizers-ema-blend-pre-top2-codes3-dropout": (
        keys(quantizer="ema", codes=3, straight_through="blend", norm="pre", top_k=2, contribution=0.3, decay=0.9,
             **DROP), 0, 7),
    "quantizers-ema-discrete-full-codes5": (keys(quantizer="ema", codes=5, mode="discrete", memory=4), 2, 8),
    "quantizers-frozen_linear-full-codes6": (keys(quantizer="frozen_linear", codes=6, memory=4), 4, 9),
    "quantizers-frozen_linear-blend-codes3-accumulate2": (
        keys(quantizer="frozen_linear", codes=3, straight_through="blend", contribution=0.3, accumulate=2), 0, 10),
    "quantizers-frozen_linear-discrete-full-pre-ownnorm-dropout": (
        keys(quantizer="frozen_linear", mode="discrete", norm="pre", share_norm=False, **DROP), 0, 11),
    "quantizers-online_clustered-full-codes12-accumulate2": (
        keys(quantizer="online_clustered", codes=12, accumulate=2, memory=4), 4, 12),
    "quantizers-online_clustered-blend-codes3-dropout": (
        keys(quantizer="online_clustered", codes=3, straight_through="blend", contribution=0.3, decay=0.95,
             seed=5 * 2**32 + 77, **DROP), 0, 13),
    "quantizers-online_clustered-discrete-full-pre-codes9": (
        keys(quantizer="online_clustered", codes=9, mode="discrete", norm="pre"), 0, 14),

    "routers-smoe-capacity-top2-topk-accumulate2": (
        keys(top_k=2, normalize="topk", capacity=0.75, accumulate=2, memory=4), 4, 20),
    "routers-stablemoe-capacity-top2-accumulate2": (
        keys(router="stablemoe", top_k=2, capacity=1.0, accumulate=2, experts=5, d_model=8), 0, 21),
    "routers-stablemoe-firststage-top2-topk-dropout": (
        keys(router="stablemoe", two_stage=True, switch_step=23, top_k=2, normalize="topk", memory=4, **DROP), 4, 22),
    "routers-stablemoe-firststage-continuous-pre-top1-accumulate2": (
        keys(router="stablemoe", two_stage=True, switch_step=1, mode="continuous", norm="pre", accumulate=2), 0, 0),
    "routers-stablemoe-secondstage-top2-topk-dropout": (
        keys(router="stablemoe", two_stage=True, switch_step=23, top_k=2, normalize="topk", memory=4, **DROP), 4, 23),
    "routers-stablemoe-secondstage-continuous-absolute-top1-capacity-accumulate2": (
        keys(router="stablemoe", two_stage=True, switch_step=0, decay_steps=40, mode="continuous",
             attention="absolute", capacity=1.0, accumulate=2), 0, 4),
    "routers-xmoe-top2-topk-dropout": (
        keys(router="xmoe", top_k=2, normalize="topk", memory=4, codes=6, **DROP), 4, 24),
    "routers-xmoe-capacity-top2-accumulate2": (
        keys(router="xmoe", top_k=2, capacity=0.75, accumulate=2, experts=5, d_model=12), 0, 25),
    "routers-xmoe-continuous-pre-top1": (keys(router="xmoe", mode="continuous", norm="pre", balance=0.1), 0, 26),
    "routers-smoe_dropout-topk-dropout": (
        keys(router="smoe_dropout", k_min=1, k_max=5, decay_steps=40, experts=5, normalize="topk", balance=0.0,
             memory=4, **DROP), 4, 25),           # 4 . 25 / 40 is 2.5: rounds to 2, k is 3
    "routers-smoe_dropout-continuous-capacity-accumulate2": (
        keys(router="smoe_dropout", decay_steps=30, experts=5, balance=0.0, mode="continuous", capacity=0.75,
             accumulate=2), 0, 16),
    "routers-hash-dropout": (keys(router="hash", memory=4, experts=5, seed=2**52 + 987654321, **DROP), 4, 27),
    "routers-hash-capacity-accumulate2": (keys(router="hash", capacity=0.75, accumulate=2, norm="pre"), 0, 28),
    "routers-hash-continuous-absolute": (keys(router="hash", mode="continuous", attention="absolute"), 0, 29),
    "routers-cluster-before-dropout": (
        keys(router="cluster", clusters=0, samples=12, switch_step=40, memory=4, **DROP), 4, 30),
    "routers-cluster-fit-accumulate2": (
        keys(router="cluster", clusters=3, samples=12, switch_step=32, accumulate=2, memory=4), 4, 31),
    "routers-cluster-fit-continuous-pre-clusters5-dropout": (
        keys(router="cluster", clusters=5, samples=24, switch_step=1, mode="continuous", norm="pre", **DROP), 0, 0),
    "routers-cluster-fit-continuous-repeatedsamples": (       # 4 tokens, 2 of them twice: total 0, empty clusters
        keys(router="cluster", clusters=6, samples=6, switch_step=129, mode="continuous", seed=151), 0, 128),
    "routers-cluster-fitted-dropout": (
        keys(router="cluster", clusters=6, samples=12, tau=0.5, switch_step=33, memory=4, **DROP), 4, 33),
    "routers-cluster-fitted-capacity-accumulate2": (
        keys(router="cluster", clusters=5, samples=12, tau=2.0, switch_step=33, capacity=0.75, accumulate=2,
             norm="pre"), 0, 34),
    "routers-cluster-fitted-continuous-absolute": (
        keys(router="cluster", clusters=3, samples=12, tau=0.3, switch_step=1, mode="continuous",
             attention="absolute"), 0, 35),
    "routers-dense-pre-width2-dropout-accumulate2": (
        keys(router="dense", mode="continuous", norm="pre", dense_width=2, accumulate=2, memory=4, **DROP), 4, 36),
    "routers-dense-absolute": (keys(router="dense", mode="continuous", attention="absolute", dense_width=1), 0, 37),

    "softmax-adaptive-tied-dropout-accumulate2": (
        keys(softmax="adaptive", cutoffs="3,6,9", accumulate=2, memory=4, **DROP), 4, 38),
    "softmax-adaptive-tied-continuous": (keys(softmax="adaptive", cutoffs="1,5,10", mode="continuous"), 0, 39),
    "softmax-adaptive-untied-continuous-absolute": (
        keys(softmax="adaptive", cutoffs="4", tied=False, mode="continuous", attention="absolute", top_k=2), 0, 40),
    "softmax-full-untied-continuous-pre": (keys(tied=False, mode="continuous", norm="pre", memory=4), 4, 41),
}
VOCABULARY = 11


def draw(cfg, filled, step, seed):
    """Generic random inputs on a grid of 2^-12: exact in float32, and they compress."""
    cfg = {**KIND_DEFAULTS, **cfg}
    rng = np.random.default_rng(seed)

    def normal(shape, mean=0.0, spread=1.0):
        return np.round((mean + spread * rng.standard_normal(shape)) * 4096) / 4096

    def usage(shape):                              # from hardly used, where anchors count, to well used; a finer grid
        return np.round(0.2 * 10 ** rng.uniform(-4.5, -1.5, shape) * 2**24) / 2**24

    special = {                                    # state and parameters of other than the usual spread
        "quantizer.count": lambda shape: np.round(rng.uniform(0.2, 3.0, shape) * 4096) / 4096,
        "quantizer.sum": normal,
        "quantizer.usage": usage,
        "quantizer.basis": normal,
        "router.fitted": lambda shape: np.full(shape, float(step >= switch_step(cfg))),
    }
    B, L, d, layers = cfg["train.batch"], cfg["model.segment"], cfg["model.d_model"], cfg["model.layers"]
    parameters, state = {}, {}
    for values, wanted in zip((parameters, state), shapes(cfg, VOCABULARY)):
        for name, shape in wanted.items():
            is_norm_weight = "norm.weight" in name
            kind = name.split(".", 2)[-1]
            values[name] = special[kind](shape) if kind in special else \
                normal(shape, 1.0 if is_norm_weight else 0.0, 0.2 if is_norm_weight else 0.3)
    tokens, targets = rng.integers(0, VOCABULARY, (2, B, L))
    memory = [normal((B, filled, d)) for _ in range(layers)]
    for i in range(layers):                        # codes and centroids: some of the layer's own inputs, blurred
        for values in (parameters, state):
            for name in (f"layer.{i}.quantizer.codes", f"layer.{i}.router.centroids"):
                if name in values and values[name].shape[1] == d:
                    _, records = run_step(cfg, parameters, state, tokens, targets, memory, step)
                    K = values[name].shape[0]
                    chosen = records[i]["moe_input"][rng.choice(B * L, K, replace=K > B * L)]
                    values[name] = np.round(chosen * 4096) / 4096 + normal((K, d), 0.0, 0.4)
    return cfg, parameters, state, tokens, targets, memory, step


def margins(records):
    """Smallest relative gap between what was chosen and the next, of all choices; smallest |ReLU input|."""
    gap, kink = math.inf, math.inf

    def nearest_gap(squared, z):
        squared, size = np.sort(squared, axis=1), (z**2).sum(axis=1)
        return ((squared[:, 1] - squared[:, 0]) / np.maximum(squared[:, 1], size)).min()

    for r in records:
        if "scores" in r:
            s, k = -np.sort(-r["scores"], axis=1), r["experts"].shape[1]
            gap = min(gap, ((s[:, :-1] - s[:, 1:])[:, :k] / np.abs(s).max(axis=1, keepdims=True)).min())
        if "cluster_distance" in r:
            gap = min(gap, nearest_gap(r["cluster_distance"], r["moe_input"]))
        if "distance" in r:
            z = r["distance_from"]
            gap = min(gap, nearest_gap(r["distance"] + (z**2).sum(axis=1, keepdims=True), z))
        gap = min(gap, r.get("anchor_gap", math.inf), r.get("fit_gap", math.inf))
        kink = min([kink] + [np.abs(r[name]).min() for name in ("pre", "pre_discrete") if name in r])
    return gap, kink


def telling(cfg, records):
    """Whether what the fixture is for happens: enough codes in use, anchors that count, slots dropped and not."""
    good = True
    for r in records:
        if "anchor_weight" in r:                   # some codes move half, some stay
            a = r["anchor_weight"]
            good &= ((a > 0.05) & (a < 0.9)).any() and (a > 0.05).sum() >= min(2, len(a) // 3)
            good &= len(np.unique(r["codes"])) >= 2
        elif "codes" in r:
            good &= len(np.unique(r["codes"])) >= 3
        if "cluster_distance" in r:
            good &= len(np.unique(r["cluster_distance"].argmin(axis=1))) >= 3 and len(np.unique(r["experts"])) >= 2
        if cfg["router.capacity"] and "kept" in r:
            used = np.bincount(r["experts"][r["kept"] > 0], minlength=cfg["moe.experts"])
            good &= (r["kept"] == 0).any() and used.min() < used.max() and (r["kept"] > 0).sum() > r["kept"].size / 2
    return good


def fixtures(folder, only=""):
    os.makedirs(folder, exist_ok=True)
    for number, (name, (changes, filled, step)) in enumerate(FIXTURES.items()):
        if only not in name:
            continue
        cfg = {**DEFAULTS, "run.seed": 100 + number, **changes}
        for seed in range(1000 * number, 1000 * number + 1000):      # redraw until float32 chooses alike
            inputs = draw(cfg, filled, step, seed)
            result, records = run_step(*inputs)
            gap, kink = margins(records)
            if gap > 2e-3 and kink > 1e-4 and telling(inputs[0], records):
                break
        else:
            raise SystemExit(f"{name}: no draw with a safe margin")
        path = os.path.join(folder, name + ".h5")
        write_step(path, cfg, *inputs[1:], result)
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
        gap, kink = margins(records)
        if gap > 1e-3 and kink > 2e-4:
            break
    parameters = rescaled(cfg, inputs[1])
    rng = np.random.default_rng(5)
    worst = 0.0
    for parameter in filter(parameter_filter, parameters):
        direction = rng.standard_normal(parameters[parameter].shape)
        direction *= 1e-5 / np.linalg.norm(direction)
        loss = [run_step(inputs[0], {**parameters, parameter: parameters[parameter] + sign * direction}, *inputs[2:])[0]["loss"]
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
    _, p, _, tokens, _, memory, _ = inputs
    _, records = run_step(*inputs)
    B, L, d, H, dh = (cfg[k] for k in ("train.batch", "model.segment", "model.d_model", "model.heads", "model.d_head"))
    E = cfg["moe.experts"]
    w = {name[len("layer.0."):]: value for name, value in p.items() if name.startswith("layer.0.")}

    def plain_norm(x, name):
        x = x - x.sum() / d
        return x / math.sqrt((x * x).sum() / d + 1e-5) * w[name + ".weight"] + w[name + ".bias"]

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


def softmax(s):
    s = np.exp(np.array(s) - max(s))
    return s / s.sum()


def test_adaptive():
    """Adaptive softmax symbol by symbol."""
    rng, V, d, T = np.random.default_rng(12), 11, 6, 5
    cfg = {**DEFAULTS, **KIND_DEFAULTS, **keys(softmax="adaptive", cutoffs="3,6,10")}
    p = {name: rng.standard_normal(shape) for name, shape in vocabulary_shapes(cfg, V, d).items()}
    x, worst = rng.standard_normal((T, d)), 0.0
    found = scores(torch.tensor(x), {name: torch.tensor(value) for name, value in p.items()}, cfg).numpy()
    rows = embedding_rows({name: torch.tensor(value) for name, value in p.items()}, cfg).numpy()
    for t in range(T):
        head = softmax(p["embedding.weight"] @ x[t] + p["softmax.bias"])
        for v in range(V):
            if v < 3:
                want, row = head[v], p["embedding.weight"][v]
            else:
                tail, first = next((n, a) for n, a, b in ((1, 3, 6), (2, 6, 10), (3, 10, 11)) if v < b)
                inside = softmax(p[f"embedding.tail_{tail}.weight"] @ x[t] + p[f"softmax.tail_{tail}.bias"])
                want, row = head[3 + tail - 1] * inside[v - first], p[f"embedding.tail_{tail}.weight"][v - first]
            worst = max(worst, abs(found[t, v] - math.log(want)), np.abs(rows[v] - row).max())
    worst = max(worst, np.abs(np.exp(found).sum(axis=1) - 1).max())
    return report("plain loops: adaptive softmax", worst, 1e-13)


def test_splitmix():
    vectors = [(0, 0xE220A8397B1DCDAF), (1234567, 6457827717110365317)]
    return report("splitmix64 test vectors that differ", sum(splitmix64(a) != b for a, b in vectors), 0)


def test_schedule():
    """k of smoe_dropout in whole numbers."""
    cfg, wrong = {**DEFAULTS, **KIND_DEFAULTS, "moe.experts": 5, "optim.decay_steps": 40}, 0
    for (k_min, k_max), (low, high) in (((0, 0), (3, 5)), ((1, 5), (1, 5)), ((2, 3), (2, 3))):
        for s in range(41):
            whole, rest = divmod((high - low) * s, 40)
            up = rest > 20 or (rest == 20 and whole % 2 == 1)
            wrong += scheduled_k({**cfg, "router.k_min": k_min, "router.k_max": k_max}, s) != low + whole + up
    return report("smoe_dropout: steps with a wrong k", wrong, 0)


def plain_routes(cfg, q, x, ids, layer, step):
    """Per token: its (expert, weight) pairs by rank of choice, and the weight of the shared expert."""
    kind, E, result = cfg["router.kind"], cfg["moe.experts"], []

    def cosine_like(r):
        return [r @ m / max(math.sqrt(m @ m), 1e-4) for m in q["router.embedding"]]

    for t in range(len(x)):
        if kind == "hash":
            salt = int(cfg["run.seed"]) ^ (layer * 0x9E3779B97F4A7C15 & (2**64 - 1))
            result.append(([(splitmix64(int(ids[t]) ^ salt) % E, 1.0)], 0.0))
            continue
        if kind == "cluster":
            if q["router.fitted"][0] == 0:
                result.append(([], 1.0))
                continue
            j = min(range(len(q["router.centroids"])), key=lambda j: ((x[t] - q["router.centroids"][j])**2).sum())
            p = softmax((q["router.weight"] @ q["router.clusters"][j] + q["router.bias"]) / cfg["router.tau"])
            best = max(range(E), key=lambda e: p[e])
            result.append(([(best, p[best])], 1 - p[best]))
            continue
        s = {"smoe": lambda: q["router.weight"] @ x[t] + q["router.bias"],
             "smoe_dropout": lambda: q["router.weight"] @ x[t] + q["router.bias"],
             "stablemoe": lambda: cosine_like(x[t]),
             "xmoe": lambda: cosine_like(q["router.reduction"] @ x[t])}[kind]()
        choosing = s
        if cfg["router.two_stage"] and step >= cfg["router.switch_step"]:
            choosing = [q["router.token_embedding"][ids[t]] @ c for c in q["router.centroids"]]
        k = scheduled_k(cfg, step) if kind == "smoe_dropout" else cfg["router.top_k"]
        best = sorted(range(E), key=lambda e: -choosing[e])[:k]
        p = [softmax(s)[e] for e in best] if cfg["router.normalize"] == "all" else softmax([s[e] for e in best])
        result.append((list(zip(best, p)), 0.0))
    return result


def plain_ffn(q, name, e, x):
    return q[name + ".w2"][e] @ np.maximum(q[name + ".w1"][e] @ x + q[name + ".b1"][e], 0) + q[name + ".b2"][e]


def test_router_loops():
    """Outputs of the continuous path, token by token and slot by slot, with and without capacity."""
    rng, good = np.random.default_rng(8), True
    cases = [("smoe", {}), ("stablemoe", {}), ("stablemoe", {"two_stage": True, "switch_step": 8}),
             ("stablemoe", {"two_stage": True, "switch_step": 7}), ("xmoe", {}), ("hash", {}), ("cluster", {}),
             ("smoe_dropout", {"decay_steps": 20}), ("dense", {"dense_width": 2})]
    for kind, changes in cases:
        worst = 0.0
        for capacity, normalize in ((0.0, "all"), (0.7, "topk"), (1.3, "all")):
            cfg = {**DEFAULTS, **KIND_DEFAULTS,
                   **keys(router=kind, mode="continuous", top_k=2, capacity=capacity, normalize=normalize, tau=0.7, **changes)}
            E, T, step = cfg["moe.experts"], 13, 7
            x, ids = rng.standard_normal((T, cfg["model.d_model"])), rng.integers(0, VOCABULARY, T)
            q = {name: rng.standard_normal(shape) for part in shapes(cfg, VOCABULARY)
                 for name, shape in of_layer(part, 1).items()}
            if kind == "cluster":
                q["router.fitted"] = np.array([float(capacity < 1)])
            y, _ = continuous_path(torch.tensor(x), torch.tensor(ids), np.arange(T),
                                   {name: torch.tensor(value) for name, value in q.items()}, 1, cfg, Dropout(cfg, step))
            if kind == "dense":
                routes = [([], 1.0)] * T
            else:
                routes = plain_routes(cfg, q, x, ids, 1, step)
            k = len(routes[0][0])
            limit = -(-round(capacity * 10) * k * T // (10 * E)) if capacity else T
            taken = [0] * E
            for t, (slots, shared) in enumerate(routes):
                want = shared * plain_ffn(q, "ffn" if kind == "dense" else "shared", 0, x[t]) if shared else 0
                for e, weight in slots:
                    if taken[e] < limit:
                        taken[e] += 1
                        want = want + weight * plain_ffn(q, "moe", e, x[t])
                worst = max(worst, np.abs(y[t].numpy() - want).max())
        good &= report(f"plain loops: router {kind} {changes or ''}", worst, 1e-12)
    return good


def test_quantizer_loops():
    """Codes, quantized input, loss and its gradients, per kind: the two halves of L_vq have equal values, so that what
    moves only codes has 1 / (1 + beta) of the slope of the value, and what moves only features beta / (1 + beta)."""
    rng, good, T = np.random.default_rng(9), True, 9
    for kind in QUANTIZERS:
        cfg = {**DEFAULTS, **KIND_DEFAULTS, **keys(quantizer=kind, mode="discrete", codes=6, width=3)}
        d, beta = cfg["model.d_model"], cfg["quantizer.beta"]
        q = {name[10:]: rng.standard_normal(shape) for part in shapes(cfg, VOCABULARY)
             for name, shape in of_layer(part, 0).items() if name.startswith("quantizer.")}
        q["x"] = rng.standard_normal((T, d))

        def run(q, **grad):
            values = {name: torch.tensor(value, **grad) for name, value in q.items()}
            out = QUANTIZERS[kind](values["x"], {"quantizer." + name: value for name, value in values.items()}, cfg)
            return out, values

        (xq, record), values = run(q, requires_grad=True)
        # values, by loops
        codes = q.get("codes")
        if kind == "frozen_linear":
            codes = np.array([q["weight"] @ c + q["bias"] for c in q["basis"]])
        worst = loss = 0.0
        wrong = 0
        for t in range(T):
            z = q["down"] @ q["x"][t] if kind == "factorized" else q["x"][t]
            plain = codes, z
            normal = [c / math.sqrt(c @ c) for c in codes], z / math.sqrt(z @ z)
            v, z = plain if kind in ("vq", "ema", "frozen_linear") else normal
            k = min(range(6), key=lambda k: ((v[k] - z)**2).sum())
            wrong += int(record["codes"][t]) != k
            v, z = normal if kind in ("cosine", "factorized") else plain
            loss += ((v[k] - z)**2).sum() * (beta if kind == "ema" else 1 + beta) / (T * len(z))
            want = q["up"] @ v[k] if kind == "factorized" else v[k]
            worst = max(worst, np.abs(xq[t].detach().numpy() - want).max())
        good &= report(f"quantizer {kind}: wrong codes", wrong, 0)
        good &= report(f"quantizer {kind}: loss and quantized input", max(worst, abs(loss - record["vq"].item())), 1e-12)
        # gradients of the loss
        record["vq"].backward()
        worst = 0.0
        for name in q:
            share = {"up": 0, "x": beta / (1 + beta), "down": beta / (1 + beta)}.get(name, 1 / (1 + beta))
            if kind == "ema":
                share = 1 if name == "x" else 0
            if name == "basis":
                continue                                   # state
            direction = 1e-6 * rng.standard_normal(q[name].shape)
            ends = [run({**q, name: q[name] + sign * direction})[0][1]["vq"].item() for sign in (1, -1)]
            slope = 0.0 if values[name].grad is None else (values[name].grad.numpy() * direction).sum()
            worst = max(worst, abs(share * (ends[0] - ends[1]) / 2 - slope) / 1e-6)
        good &= report(f"quantizer {kind}: finite differences of the loss", worst, 1e-7)
        # the way through: as if the (normalised) features themselves went on
        weight = torch.tensor(rng.standard_normal((T, d)))
        (xq, _), values = run(q, requires_grad=True)
        inputs = [values[name] for name in ("x", "down", "up") if name in values]
        found = torch.autograd.grad((xq * weight).sum(), inputs + [values["codes" if "codes" in values else "weight"]],
                                    allow_unused=True)
        twin = {name: torch.tensor(value, requires_grad=True) for name, value in q.items()}
        z = twin["x"] @ twin["down"].T if kind == "factorized" else twin["x"]
        z = z / (z**2).sum(dim=1, keepdim=True).sqrt() if kind in ("cosine", "factorized") else z
        z = z @ twin["up"].T if kind == "factorized" else z
        want = torch.autograd.grad((z * weight).sum(), [twin[name] for name in ("x", "down", "up") if name in twin])
        pairs = list(zip(found, want))[:2]                 # `up` sees the code instead
        if kind == "factorized":
            normal = (values["codes"] / (values["codes"]**2).sum(dim=1, keepdim=True).sqrt())[record["codes"]]
            pairs.append((found[2], weight.T @ normal))
        good &= report(f"quantizer {kind}: gradient through", max((a - b).abs().max().item() for a, b in pairs), 1e-12)
        good &= report(f"quantizer {kind}: gradient to codes through the output", 0 if found[-1] is None else 1, 0)
    return good


def test_updates():
    """Moving averages and anchors by loops."""
    rng, good, T, K, d = np.random.default_rng(10), True, 11, 5, 4
    cfg = {**DEFAULTS, **KIND_DEFAULTS, "quantizer.decay": 0.9, "run.seed": 2**33 + 5}
    x, codes = rng.standard_normal((T, d)), rng.integers(0, K - 1, T)
    q = {"quantizer.codes": rng.standard_normal((K, d)), "quantizer.count": rng.uniform(0.5, 2, K),
         "quantizer.sum": rng.standard_normal((K, d)), "quantizer.usage": 10 ** rng.uniform(-5, -3, K)}
    record = {"moe_input": x, "codes": codes}
    ema, online = (after(q, record, cfg, 6, 1) for after in (after_ema, after_online))
    worst_ema = worst_online = 0.0
    count = [0.9 * q["quantizer.count"][k] + 0.1 * sum(int(c) == k for c in codes) for k in range(K)]
    for k in range(K):
        total = 0.9 * q["quantizer.sum"][k]
        for t in range(T):
            if codes[t] == k:
                total = total + 0.1 * x[t]
        v = total / ((count[k] + 1e-5) / (sum(count) + K * 1e-5) * sum(count))
        worst_ema = max(worst_ema, abs(ema["quantizer.count"][k] - count[k]), np.abs(ema["quantizer.sum"][k] - total).max(),
                        np.abs(ema["quantizer.codes"][k] - v).max())
        v = q["quantizer.codes"][k]
        noisy = []
        for t in range(T):
            word = philox((k // 4, t, 6, 9 + 256), (5, 2))[k % 4]
            gumbel = -math.log(-math.log((int(word) + 0.5) / 2**32))
            noisy.append(x[t] @ v / math.sqrt((x[t] @ x[t]) * (v @ v)) + gumbel)
        u = 0.9 * q["quantizer.usage"][k] + 0.1 * sum(int(c) == k for c in codes) / T
        a = math.exp(-10 * K * u / (1 - 0.9) - 1e-3)
        v = v * (1 - a) + a * x[noisy.index(max(noisy))]
        worst_online = max(worst_online, abs(online["quantizer.usage"][k] - u), np.abs(online["quantizer.codes"][k] - v).max())
    good &= report("plain loops: moving averages of ema", worst_ema, 1e-13)
    return report("plain loops: anchors of online_clustered", worst_online, 1e-13) & good


def test_kmeans():
    """k-means++ and Lloyd steps by loops, from bad centroids too, that leave clusters empty."""
    rng, worst_first, worst_step, empties = np.random.default_rng(11), 0.0, 0.0, 0

    def square(a, b):
        return float(sum((p - q)**2 for p, q in zip(a, b)))

    for case in range(40):
        samples = rng.standard_normal((12, 3))[rng.integers(0, 3 if case % 4 == 0 else 12, 12)]
        uniforms = rng.uniform(size=5)
        # k-means++
        chosen = [int(uniforms[0] * 12)]
        for c in range(1, 5):
            weight = [min(square(s, samples[j]) for j in chosen) for s in samples]
            if sum(weight) == 0:
                chosen.append(c % 12)
                continue
            running, j = weight[0], 0
            while running <= uniforms[c] * sum(weight):
                j += 1
                running += weight[j]
            chosen.append(j)
        worst_first = max(worst_first, np.abs(first_centroids(samples, uniforms)[0] - samples[chosen]).max())
        # one Lloyd step, every other time from centroids of which some are far away
        centroids = samples[chosen] + (rng.uniform(size=(5, 1)) < 0.5) * (50.0 if case % 2 else 0.0)
        own = []
        for s in samples:
            best = 0
            for c in range(1, 5):
                if square(s, centroids[c]) < square(s, centroids[best]):
                    best = c
            own.append(best)
        away = [square(s, centroids[c]) for s, c in zip(samples, own)]
        free = list(range(12))
        for c in range(5):
            members = [s for s, o in zip(samples, own) if o == c]
            if members:
                want = sum(members) / len(members)
            else:
                farthest = max(free, key=lambda j: (away[j], -j))
                free.remove(farthest)
                want, empties = samples[farthest], empties + 1
            worst_step = max(worst_step, np.abs(lloyd_step(samples, centroids)[0][c] - want).max())
    return report("plain loops: k-means++", worst_first, 0) & report(
        f"plain loops: Lloyd step ({empties} empty clusters)", worst_step if empties > 20 else 1.0, 1e-14)


def selftest():
    def everything(name):
        return True

    def no_way_to_a_code(name):                 # behind the last quantizer, or beside it
        return name == "softmax.bias" or name.startswith((
            "layer.1.moe.", "layer.1.router.", "layer.1.shared.", "layer.1.mix.", "layer.1.moe_norm.", "layer.1.quantizer.up"))

    good = test_philox() & test_splitmix() & test_schedule() & test_straight_through() & test_plain_loops()
    good &= test_adaptive() & test_router_loops() & test_quantizer_loops() & test_updates() & test_kmeans()
    for name in FIXTURES:
        if "continuous" in name or "dense" in name:
            good &= test_finite_differences(name, everything, "all parameters")
    for name in ("joint-relative-full-top1-smoe", "joint-relative-longmemory-full-top2-stablemoe-topk-codes7",
                 "joint-relative-growingmemory-full-ownnorm-top1-stablemoe", "discrete-relative-memory-full-codes6",
                 "joint-absolute-blend-ownnorm-top2-smoe-topk-dropout", "quantizers-factorized-width3-codes6",
                 *(name for name in FIXTURES if name.startswith("routers-") and FIXTURES[name][0].get("moe.mode") is None)):
        pre_norm = FIXTURES[name][0].get("model.norm") == "pre"          # its MoE norm is before the code
        good &= test_finite_differences(name, lambda parameter: no_way_to_a_code(parameter) and not (
            pre_norm and "moe_norm" in parameter), "behind the last code")
    print("selftest", "ok" if good else "FAILED")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("check")
    command.add_argument("file", nargs="+")
    command.add_argument("--tolerance", type=float, default=1e-9)
    command.add_argument("--quiet", action="store_true", help="print only what is beyond the tolerance")
    command = commands.add_parser("fixtures")
    command.add_argument("folder")
    command.add_argument("--only", default="", help="part of the names to write")
    commands.add_parser("selftest")
    a = parser.parse_args()
    if a.command == "check":
        good = all([check(path, a.tolerance, a.quiet) for path in a.file])
    elif a.command == "fixtures":
        good = fixtures(a.folder, a.only) is None
    else:
        good = selftest()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
