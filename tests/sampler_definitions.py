"""Samplers by the book, in float64 and plain loops: lists of (id, logit) in, lists out, likeliest first.

Written from llama.cpp's documented behaviour and the papers that `Sampling` names; nothing of the engine is used.
"""

from __future__ import annotations

import math

OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def ordered(pairs):
    return sorted(((i, x) for i, x in pairs if x > -math.inf), key=lambda pair: (-pair[1], pair[0]))


def shares(pairs):
    largest = max(x for _, x in pairs)
    powers = [math.exp(x - largest) for _, x in pairs]
    return [p / sum(powers) for p in powers]


def surprise(p):
    return -math.log(p) if p > 0 else 1e4


def penalties(pairs, s, seen):
    window = seen[-s.repeat_last_n :] if s.repeat_last_n > 0 else seen if s.repeat_last_n < 0 else []
    made = []
    for id, x in pairs:
        count = window.count(id)
        if count:
            x = x * s.repeat_penalty if x <= 0 else x / s.repeat_penalty
            x -= count * s.frequency_penalty + s.presence_penalty
        made.append((id, x))
    return made


def dry(pairs, s, seen, breakers=()):
    """`breakers` are runs of ids."""
    window = seen[-s.dry_penalty_last_n :] if s.dry_penalty_last_n > 0 else seen if s.dry_penalty_last_n < 0 else []
    count, allowed = len(window), s.dry_allowed_length
    limit = count
    for back in range(count):
        place = count - 1 - back
        lengths = [len(run) for run in breakers if tuple(window[place : place + len(run)]) == tuple(run)]
        if lengths:
            limit = back - (max(lengths) - 1)
            break
    if s.dry_multiplier == 0 or count <= allowed or limit < allowed:
        return list(pairs)
    longest = {}
    for place in range(count - 1):
        run = 0
        while run < limit and run <= place and window[place - run] == window[count - 1 - run]:
            run += 1
        if run >= allowed:
            longest[window[place + 1]] = max(run, longest.get(window[place + 1], 0))
    most = math.floor(88.7228391 / math.log(s.dry_base)) if s.dry_base > 1.000001 else 10**9
    single = {run[0] for run in breakers if len(run) == 1}
    return [
        (id, x - s.dry_multiplier * s.dry_base ** min(longest[id] - allowed, most) if id in longest and id not in single
         else x)
        for id, x in pairs
    ]  # fmt: skip


def top_n_sigma(pairs, s):
    if s.top_n_sigma <= 0:
        return pairs
    values = [x for _, x in pairs]
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in values) / len(values))
    return [(i, x) for i, x in pairs if x >= max(values) - s.top_n_sigma * deviation]


def top_k(pairs, s):
    return pairs[: s.top_k or len(pairs)]


def typ_p(pairs, s):
    if s.typical_p >= 1:
        return pairs
    p = shares(pairs)
    entropy = sum(q * surprise(q) for q in p)
    order = sorted(range(len(p)), key=lambda i: (abs(surprise(p[i]) - entropy), i))
    kept, reached = [], 0.0
    for i in order:
        kept.append(i)
        reached += p[i]
        if reached > s.typical_p and len(kept) >= s.min_keep:
            break
    return [pairs[i] for i in sorted(kept)]


def top_p(pairs, s):
    if s.top_p >= 1:
        return pairs
    kept, reached = [], 0.0
    for pair, p in zip(pairs, shares(pairs), strict=True):
        kept.append(pair)
        reached += p
        if reached >= s.top_p and len(kept) >= s.min_keep:
            break
    return kept


def min_p(pairs, s):
    if s.min_p <= 0:
        return pairs
    least = pairs[0][1] + math.log(s.min_p)
    return [pair for n, pair in enumerate(pairs) if pair[1] >= least or n < s.min_keep]


def xtc(pairs, s):
    """Where chance has it."""
    if s.xtc_threshold > 0.5 or len(pairs) < 2:
        return pairs
    likely = sum(p >= s.xtc_threshold for p in shares(pairs))
    return pairs[likely - 1 :] if likely >= 2 and len(pairs) - (likely - 1) >= s.min_keep else pairs


def temperature(pairs, s):
    t = s.temperature
    if s.dynatemp_range > 0 and len(pairs) > 1:
        entropy = sum(p * surprise(p) for p in shares(pairs) if p > 0) / math.log(len(pairs))
        low = max(0.0, t - s.dynatemp_range)
        t = low + (t + s.dynatemp_range - low) * entropy**s.dynatemp_exponent
    return [(i, x / t) for i, x in pairs] if t > 0 else pairs[:1]


def mirostat_1(pairs, s, mu, vocabulary):
    p = shares(pairs)
    products = squares = 0.0
    for i in range(min(99, len(p) - 1)):
        t = math.log((i + 2) / (i + 1))
        products += t * math.log(p[i] / p[i + 1])
        squares += t * t
    slope = products / squares
    count = ((slope - 1) * 2**mu / (1 - vocabulary ** -(slope - 1))) ** (1 / slope)
    return pairs[: max(1, int(count))]


def mirostat_2(pairs, mu):
    bits = [surprise(p) / math.log(2) for p in shares(pairs)]
    kept = next((n for n, b in enumerate(bits) if b > mu), len(pairs))
    return pairs[: max(1, kept)]


def adaptive_p(pairs, target):
    """Probabilities, of which those near the target are raised."""
    distances = [abs(p - target) / 0.3 for p in shares(pairs)]
    return shares([(i, 5 - 10 * d * d / (1 + d)) for (i, _), d in zip(pairs, distances, strict=True)])


CUTS = {
    "top_n_sigma": top_n_sigma, "top_k": top_k, "typ_p": typ_p, "top_p": top_p, "min_p": min_p,
    "temperature": temperature,
}  # fmt: skip


def chain(logits, s, seen=(), breakers=(), *, leaves_out=False):
    """{id: probability} of what is drawn from. `leaves_out`: whether chance has XTC act."""
    added = dict(s.biases)
    pairs = [(i, float(x) + added.get(i, 0.0)) for i, x in enumerate(logits)]
    for name in s.samplers:
        pairs = ordered(pairs)
        if name == "penalties":
            pairs = penalties(pairs, s, list(seen))
        elif name == "dry":
            pairs = dry(pairs, s, list(seen), breakers)
        elif name == "xtc":
            pairs = xtc(pairs, s) if leaves_out else pairs
        elif name in CUTS:
            pairs = CUTS[name](pairs, s)
    pairs = ordered(pairs)
    return {i: p for (i, _), p in zip(pairs, shares(pairs), strict=True)}
