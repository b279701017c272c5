#!/usr/bin/env python3
"""Speed peer: the VQMoE training step of mode `joint` in eager PyTorch, float32, on a CPU.

    peer.py --batch 22 --threads 2        time training steps at the published base setting
    peer.py --check FILE                  recompute a step file (docs/step-file.md, dropout 0): loss and gradients

Transformer-XL attention with memory, post-norm, top-1 router, shared experts and one shared norm, Adam, clipping.
"""
import argparse
import ctypes
import json
import math
import resource
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def keep_freed_memory():
    """glibc returns large blocks to the system at once, so that every step faults all its pages in again: keep them."""
    mmap_max, trim_threshold = -4, -1
    try:
        libc = ctypes.CDLL(None)
        return bool(libc.mallopt(mmap_max, 0) and libc.mallopt(trim_threshold, 2**31 - 1))
    except (OSError, AttributeError):
        return False


# ---------------------------------------------------------------- the model

def initial(*shape, mean=0.0):
    return nn.Parameter(torch.empty(shape).normal_(mean, 0.02))


def zeros(*shape):
    return nn.Parameter(torch.zeros(shape))


def take_rows(x, index):
    """x[index]: the backward of an embedding is parallel, that of index_select is not."""
    return F.embedding(index, x)


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight, self.bias = initial(width, mean=1.0), zeros(width)

    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, eps=1e-5)


class RelativeShift(torch.autograd.Function):
    """Transformer-XL's shift: out[:, i, j] = x[:, i, j + L - 1 - i] for every key that query i may see, as a view.

    Row i + 1 of the view starts at the last element of row i, which lies in the future of query i: its gradient is
    zero behind the mask, so that the backward pass is one copy.
    """

    @staticmethod
    def forward(ctx, x):
        n, L, S = x.shape
        return x.as_strided((n, L, S), (L * S, S - 1, 1), x.storage_offset() + L - 1)

    @staticmethod
    def backward(ctx, grad):
        n, L, S = grad.shape
        out = grad.new_empty(n, L * S)
        out[:, :L - 1] = 0
        out[:, L - 1:-1].view(n, L, S - 1).copy_(grad[:, :, :-1])
        out[:, -1] = grad[:, -1, -1]
        return out.view(n, L, S)


class Attention(nn.Module):
    """Relative attention. Everything is laid out with the heads first, so that r is not repeated for each row."""

    def __init__(self, a):
        super().__init__()
        self.heads, self.d_head, self.drop = a.heads, a.d_head, a.attention_dropout
        inner = a.heads * a.d_head
        self.query, self.position = initial(inner, a.d_model), initial(inner, a.d_model)
        self.key_value = initial(2 * inner, a.d_model)
        self.output = initial(a.d_model, inner)

    def forward(self, x, memory, encodings, bias_w, bias_r, mask):
        """x: [B, L, d]; memory: [B, M, d]; encodings: [M + L, d], from the farthest to distance 0."""
        context = torch.cat([memory, x], dim=1) if memory is not None else x
        (B, L, _), S, H, e = x.shape, context.shape[1], self.heads, self.d_head
        scale = 1 / math.sqrt(e)

        q = F.linear(x, self.query * scale).view(B, L, H, e)
        q_w = (q + bias_w * scale).permute(2, 0, 1, 3).reshape(H * B, L, e)
        q_r = (q + bias_r * scale).permute(2, 0, 1, 3).reshape(H, B * L, e)
        k, v = F.linear(context, self.key_value).view(B, S, 2, H, e).permute(2, 3, 0, 1, 4).reshape(2, H * B, S, e)
        r = F.linear(encodings, self.position).view(S, H, e).permute(1, 2, 0)

        scores = torch.baddbmm(RelativeShift.apply(torch.bmm(q_r, r).view(H * B, L, S)), q_w, k.transpose(1, 2))
        p = F.dropout(scores.add_(mask).softmax(dim=-1), self.drop, self.training)
        del scores
        out = torch.bmm(p, v).view(H, B, L, e).permute(1, 2, 0, 3).reshape(B, L, H * e)
        return F.linear(out, self.output)


class MoE(nn.Module):
    """Continuous and discrete path over the same experts: all 2 T rows are sorted once, each expert runs once."""

    def __init__(self, a):
        super().__init__()
        self.a = a
        d, h = a.d_model, a.d_inner
        self.w1 = nn.ParameterList([initial(h, d) for _ in range(a.experts)])
        self.b1 = nn.ParameterList([zeros(h) for _ in range(a.experts)])
        self.w2 = nn.ParameterList([initial(d, h) for _ in range(a.experts)])
        self.b2 = nn.ParameterList([zeros(d) for _ in range(a.experts)])
        if a.router == "stablemoe":
            self.router_embedding = nn.Parameter(nn.init.orthogonal_(torch.empty(a.experts, d), gain=0.32))
        else:
            self.router_weight, self.router_bias = initial(a.experts, d), zeros(a.experts)
        self.codes = initial(a.codes, d)
        self.mix_weight, self.mix_bias = initial(2, d), zeros(2)

    def route(self, x):
        """The chosen expert, its weight, the balance loss."""
        if self.a.router == "stablemoe":
            m = self.router_embedding
            s, tau = F.linear(x, m / m.norm(dim=1, keepdim=True).clamp(min=1e-4)), 0.3
        else:
            s, tau = F.linear(x, self.router_weight, self.router_bias), 1.0
        expert = s.detach().argmax(dim=1)
        if self.a.normalize == "all":
            weight = s.softmax(dim=1).gather(1, expert[:, None])
        else:
            weight = s.gather(1, expert[:, None]).softmax(dim=1)
        balance = 0.0
        if self.a.balance > 0:
            share = torch.bincount(expert, minlength=s.shape[1]) / expert.numel()
            balance = s.shape[1] * (share * (s / tau).softmax(dim=1).mean(dim=0)).sum()
        return expert, weight, balance

    def quantize(self, x):
        """The expert of the chosen code, the quantized input, the codebook and commitment loss."""
        with torch.no_grad():
            k = torch.addmm((self.codes**2).sum(dim=1), x, self.codes.T, alpha=-2).argmin(dim=1)
        v = take_rows(self.codes, k)
        vq = F.mse_loss(v, x.detach()) + self.a.beta * F.mse_loss(x, v.detach())
        if self.a.straight_through == "full":
            u = v.detach() + (x - x.detach())
        else:
            c = self.a.contribution
            u = torch.add((1 - c) * x, (v - x).detach(), alpha=c)
        return k % self.a.experts, u, vq

    def experts(self, rows, expert):
        """rows: [2 T, d], continuous first; expert: [2 T]."""
        order = expert.argsort(stable=True)                  # stable: within an expert the continuous rows come first
        E, T = self.a.experts, rows.shape[0] // 2
        continuous = torch.bincount(expert[:T], minlength=E).tolist()
        both = torch.bincount(expert, minlength=E).tolist()
        outputs = []
        for e, x in enumerate(take_rows(rows, order).split(both)):
            hidden = F.relu(F.linear(x, self.w1[e], self.b1[e]), inplace=True)
            if self.training and self.a.dropout > 0:         # on the continuous path alone
                first, second = hidden.split([continuous[e], both[e] - continuous[e]])
                outputs.append(F.linear(F.dropout(first, self.a.dropout), self.w2[e], self.b2[e]))
                outputs.append(F.linear(second, self.w2[e], self.b2[e]))
            else:
                outputs.append(F.linear(hidden, self.w2[e], self.b2[e]))
        back = torch.empty_like(order)
        back[order] = torch.arange(order.numel())
        return take_rows(torch.cat(outputs), back)

    def forward(self, x, norm):
        """x: [T, d]; norm: the block's own, shared."""
        expert, weight, balance = self.route(x)
        code_expert, u, vq = self.quantize(x)
        y_c, y_d = self.experts(torch.cat([x, norm(u)]), torch.cat([expert, code_expert])).chunk(2)
        mix = F.linear(x, self.mix_weight, self.mix_bias).softmax(dim=1)
        return torch.addcmul((mix[:, 0:1] * weight) * y_c, mix[:, 1:2], norm(y_d)), vq, balance


class Block(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.a = a
        self.attention, self.attention_norm = Attention(a), Norm(a.d_model)
        self.moe, self.moe_norm = MoE(a), Norm(a.d_model)

    def forward(self, x, *attention):
        if self.a.checkpoint_attention and self.training:
            y = checkpoint(self.attention, x, *attention, use_reentrant=False)
        else:
            y = self.attention(x, *attention)
        u = self.attention_norm(x + F.dropout(y, self.a.dropout, self.training))
        y, vq, balance = self.moe(u.view(-1, u.shape[-1]), self.moe_norm)
        return self.moe_norm(u + F.dropout(y.view_as(u), self.a.dropout, self.training)), vq, balance


class Model(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.a = a
        self.embedding, self.softmax_bias = initial(a.vocabulary, a.d_model), zeros(a.vocabulary)
        self.bias_w, self.bias_r = initial(a.heads, a.d_head), initial(a.heads, a.d_head)
        self.layers = nn.ModuleList([Block(a) for _ in range(a.layers)])
        self.constants = {}

    def encodings_and_mask(self, L, S):
        if (L, S) not in self.constants:
            d = self.a.d_model
            frequencies = 10000.0 ** (-2.0 * torch.arange(d // 2, dtype=torch.float64) / d)
            angles = torch.arange(S - 1, -1, -1, dtype=torch.float64)[:, None] * frequencies
            encodings = torch.cat([angles.sin(), angles.cos()], dim=1).float()
            mask = torch.full((L, S), -math.inf).triu(1 + S - L)
            self.constants[L, S] = encodings, mask
        return self.constants[L, S]

    def forward(self, tokens, targets, memory):
        """memory: a list of [B, M', d] or None per layer. Returns the loss and the memory after the step."""
        a = self.a
        L = tokens.shape[1]
        S = L + (memory[0].shape[1] if memory[0] is not None else 0)
        encodings, mask = self.encodings_and_mask(L, S)
        encodings = F.dropout(encodings, a.dropout, self.training)
        x = F.dropout(F.embedding(tokens, self.embedding) * math.sqrt(a.d_model), a.dropout, self.training)
        memory_after, vq, balance = [], 0.0, 0.0
        for layer, past in zip(self.layers, memory):
            kept = x.detach()
            if L < a.memory and past is not None:
                kept = torch.cat([past, kept], dim=1)
            memory_after.append(kept[:, -a.memory:] if a.memory else None)
            x, layer_vq, layer_balance = layer(x, past, encodings, self.bias_w, self.bias_r, mask)
            vq, balance = vq + layer_vq, balance + layer_balance
        x = F.dropout(x, a.dropout, self.training).view(-1, a.d_model)
        task = F.cross_entropy(F.linear(x, self.embedding, self.softmax_bias), targets.view(-1))
        return task + a.alpha * vq + a.balance * balance, memory_after


# ---------------------------------------------------------------- timing

def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def train(a):
    torch.manual_seed(a.seed)
    model = Model(a)
    parameters = list(model.parameters())
    try:
        optimizer, kind = torch.optim.Adam(parameters, lr=a.rate, fused=True), "fused"
    except (RuntimeError, ValueError, TypeError):
        optimizer, kind = torch.optim.Adam(parameters, lr=a.rate, foreach=True), "foreach"
    filling = -(-a.memory // a.segment)                     # steps until the memory is full
    warm_up = filling + a.warm_up
    tokens = a.batch * a.segment
    print(f"{sum(p.numel() for p in parameters)} parameters, torch {torch.__version__}, {a.threads} threads, "
          f"Adam {kind}, {warm_up} steps before the measurement", flush=True)

    memory, rates = [None] * a.layers, []
    for step in range(warm_up + a.steps):
        text = torch.randint(a.vocabulary, (a.batch, a.segment + 1))
        start = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = a.rate / 2 * (1 + math.cos(math.pi * step / a.schedule))
        optimizer.zero_grad(set_to_none=True)
        loss, memory = model(text[:, :-1].contiguous(), text[:, 1:].contiguous(), memory)
        loss.backward()
        gradient_norm = nn.utils.clip_grad_norm_(parameters, a.clip)
        optimizer.step()
        loss, gradient_norm = loss.item(), gradient_norm.item()
        seconds = time.perf_counter() - start
        measured = step >= warm_up
        if measured:
            rates.append(tokens / seconds)
        print(f"step {step}: loss {loss:.5f}, gradient norm {gradient_norm:.4f}, {seconds:.3f} s, "
              f"{tokens / seconds:.1f} tokens/s{'' if measured else ' (not measured)'}", flush=True)
    print(f"peer: {statistics.median(rates):.1f} tokens/s ({min(rates):.1f} .. {max(rates):.1f}) over {a.steps} steps, "
          f"batch {a.batch}, peak memory {peak_memory():.0f} MiB")


# ---------------------------------------------------------------- the check against a step file

COVERED = {"model.kind": ("lm",), "model.attention": ("relative",), "model.norm": ("post",), "model.dropout": (0,),
           "model.attention_dropout": (0,), "moe.mode": ("joint",), "moe.share_norm": (True,),
           "moe.discrete_norm": (True,), "router.kind": ("smoe", "stablemoe"), "router.top_k": (1,),
           "router.normalize": ("all", "topk"), "quantizer.kind": ("vq",),
           "quantizer.straight_through": ("full", "blend"), "train.accumulate": (1,)}
OPTIONS = {"layers": "model.layers", "d_model": "model.d_model", "heads": "model.heads", "d_head": "model.d_head",
           "d_inner": "model.d_inner", "segment": "model.segment", "memory": "model.memory",
           "dropout": "model.dropout", "attention_dropout": "model.attention_dropout", "experts": "moe.experts",
           "router": "router.kind", "normalize": "router.normalize", "balance": "router.balance",
           "codes": "quantizer.codes", "straight_through": "quantizer.straight_through",
           "contribution": "quantizer.contribution", "alpha": "quantizer.alpha", "beta": "quantizer.beta",
           "batch": "train.batch"}


def named_parameters(model):
    """Name in the step file: the tensors that make it up, by a function of their concatenation or stack."""
    names = {"embedding.weight": [model.embedding], "softmax.bias": [model.softmax_bias],
             "attention.bias_w": [model.bias_w], "attention.bias_r": [model.bias_r]}
    for i, block in enumerate(model.layers):
        attention, moe = block.attention, block.moe
        layer = {"attention.query": [attention.query], "attention.position": [attention.position],
                 "attention.output": [attention.output], "attention_norm.weight": [block.attention_norm.weight],
                 "attention_norm.bias": [block.attention_norm.bias], "moe_norm.weight": [block.moe_norm.weight],
                 "moe_norm.bias": [block.moe_norm.bias], "moe.w1": moe.w1, "moe.b1": moe.b1, "moe.w2": moe.w2,
                 "moe.b2": moe.b2, "quantizer.codes": [moe.codes], "mix.weight": [moe.mix_weight],
                 "mix.bias": [moe.mix_bias]}
        if moe.a.router == "stablemoe":
            layer["router.embedding"] = [moe.router_embedding]
        else:
            layer.update({"router.weight": [moe.router_weight], "router.bias": [moe.router_bias]})
        names.update({f"layer.{i}.{name}": list(tensors) for name, tensors in layer.items()})
    return names


def difference(value, reference):
    """Relative L2 error; absolute where the reference is zero."""
    value, reference = value.double(), reference.double()
    if value.shape != reference.shape:
        return math.inf
    size = reference.norm().item()
    error = (value - reference).norm().item() / (size if size > 1e-12 else 1.0)
    return error if math.isfinite(error) else math.inf


def check(a):
    import h5py
    with h5py.File(a.check, "r") as file:
        cfg = file.attrs["configuration"]
        cfg = json.loads(cfg.decode() if isinstance(cfg, bytes) else str(cfg))
        for name, known in COVERED.items():
            if cfg[name] not in known:
                sys.exit(f"{name} = {cfg[name]!r}: this peer covers only {', '.join(map(str, known))}")
        for option, key in OPTIONS.items():
            setattr(a, option, cfg[key])
        a.codes = a.codes if isinstance(a.codes, int) and a.codes > 0 else a.experts

        def read(group):
            found = {}
            group.visititems(lambda name, item: found.update({name: torch.as_tensor(item[()])})
                             if isinstance(item, h5py.Dataset) else None)
            return found

        values, expected = read(file["parameters"]), read(file["gradients"])
        tokens, targets = (torch.as_tensor(file[n][()]).long() for n in ("tokens", "targets"))
        memory = [torch.as_tensor(file[f"memory/{i}"][()]).float() if f"memory/{i}" in file else None
                  for i in range(a.layers)]
        memory_after = [torch.as_tensor(file[f"memory_after/{i}"][()]) if f"memory_after/{i}" in file else None
                        for i in range(a.layers)]
        expected_loss = float(file.attrs["loss"])

    a.vocabulary = values["embedding.weight"].shape[0]
    model = Model(a)
    names = named_parameters(model)

    def joined(name, tensors):                               # experts are stacked
        return torch.stack(tensors) if ".moe.w" in name or ".moe.b" in name else tensors[0]

    inner = a.heads * a.d_head
    with torch.no_grad():
        for name, tensors in names.items():
            value = values.pop(name)
            for tensor, part in zip(tensors, value if len(tensors) > 1 or ".moe." in name else [value]):
                assert tensor.shape == part.shape, name
                tensor.copy_(part)
        for i, block in enumerate(model.layers):
            for n, name in enumerate(("key", "value")):
                block.attention.key_value[n * inner:(n + 1) * inner] = values.pop(f"layer.{i}.attention.{name}")
    if values:
        sys.exit(f"parameters unknown to this peer: {', '.join(values)}")

    loss, after = model(tokens, targets, memory)
    loss.backward()
    gradients = {name: joined(name, [torch.zeros_like(t) if t.grad is None else t.grad for t in tensors])
                 for name, tensors in names.items()}
    for i, block in enumerate(model.layers):
        both = block.attention.key_value.grad
        gradients[f"layer.{i}.attention.key"], gradients[f"layer.{i}.attention.value"] = both[:inner], both[inner:]
    rows = [(abs(loss.item() - expected_loss) / abs(expected_loss), "loss")]
    rows += [(difference(gradients[name], expected[name]) if name in expected else math.inf, f"gradients/{name}")
             for name in gradients]
    rows += [(math.inf, f"gradients/{name}: not expected") for name in expected if name not in gradients]
    rows += [(difference(after[i], m), f"memory_after/{i}") for i, m in enumerate(memory_after) if m is not None]
    for error, name in rows:
        print(f"{error:10.2e}  {name}")
    whole = [torch.cat([t[n].double().flatten() for n in sorted(gradients)]) for t in (gradients, expected)]
    worst = max(error for error, _ in rows)
    good = worst <= a.tolerance
    print(f"{a.check}: {'ok' if good else 'FAILED'}, loss {rows[0][0]:.2e}, "
          f"all gradients together {difference(*whole):.2e}, largest {worst:.2e}")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    integers = {"layers": 4, "d-model": 256, "heads": 8, "d-head": 64, "d-inner": 512, "experts": 16, "codes": 16,
                "segment": 512, "memory": 512, "batch": 22, "vocabulary": 205, "steps": 5, "threads": 2,
                "warm-up": 1, "seed": 1, "schedule": 100000}
    numbers = {"dropout": 0.1, "attention-dropout": 0.0, "balance": 0.0, "alpha": 0.08, "beta": 0.25,
               "contribution": 0.05, "clip": 0.25, "rate": 3.5e-4, "tolerance": 1e-4}
    for name, default in {**integers, **numbers}.items():
        parser.add_argument("--" + name, type=type(default), default=default, help=f"default {default}")
    parser.add_argument("--router", choices=("stablemoe", "smoe"), default="stablemoe")
    parser.add_argument("--normalize", choices=("topk", "all"), default="topk")
    parser.add_argument("--straight-through", choices=("blend", "full"), default="blend")
    parser.add_argument("--checkpoint-attention", action="store_true", help="recompute attention in the backward pass")
    parser.add_argument("--default-malloc", action="store_true", help="leave the memory allocator as it is")
    parser.add_argument("--check", metavar="STEPFILE", help="compare with a step file instead of timing")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    if a.check:
        sys.exit(0 if check(a) else 1)
    if not a.default_malloc:
        keep_freed_memory()
    train(a)


if __name__ == "__main__":
    main()
