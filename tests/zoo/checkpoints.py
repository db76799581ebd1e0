"""Small Whisper checkpoints in CTranslate2's format, with random weights."""

import struct

import numpy as np
from scipy.special import erf

KINDS = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def text(value):
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def packed(variables, *, version=6, specification="WhisperSpec"):
    """The file of `variables`: name -> array."""
    parts = [struct.pack("<I", version), text(specification), struct.pack("<II", 3, len(variables))]
    for name, value in variables.items():
        kind, data = KINDS[value.dtype.name], value.tobytes()
        parts += [text(name), struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)]
        parts += [struct.pack("<BI", kind, len(data)), data]
    return b"".join([*parts, struct.pack("<I", 0)])


def whisper(width=128, layers=2, vocabulary=70):
    """The variables of a small Whisper."""
    random = np.random.default_rng(1)
    made = {f"{side}/num_heads": np.array(width // 64, np.int16) for side in ("encoder", "decoder")}

    def add(name, *shape, scale=1.0, shift=0.0):
        value = random.standard_normal(shape) * scale + shift
        made[name] = value.astype(np.float16)

    def linear(name, out, into, *, bias=True):
        add(f"{name}/weight", out, into, scale=into**-0.5)
        add(f"{name}/bias", out, scale=0.1 if bias else 0.0)

    def norm(name):
        add(f"{name}/layer_norm/gamma", width, scale=0.1, shift=1.0)
        add(f"{name}/layer_norm/beta", width, scale=0.1)

    for index, bands in enumerate((80, width), start=1):
        add(f"encoder/conv{index}/weight", width, bands, 3, scale=(3 * bands) ** -0.5)
        add(f"encoder/conv{index}/bias", width, scale=0.1)
    add("encoder/position_encodings/encodings", 1500, width, scale=0.3)
    add("decoder/position_encodings/encodings", 448, width, scale=0.3)
    add("decoder/embeddings/weight", vocabulary, width)
    for side in ("encoder", "decoder"):
        norm(side)
        for layer in range(layers):
            base = f"{side}/layer_{layer}"
            linear(f"{base}/self_attention/linear_0", 3 * width, width)
            linear(f"{base}/self_attention/linear_1", width, width)
            linear(f"{base}/ffn/linear_0", 4 * width, width)
            linear(f"{base}/ffn/linear_1", width, 4 * width)
            for part in ("self_attention", "ffn", *(("attention",) if side == "decoder" else ())):
                norm(f"{base}/{part}")
            if side == "decoder":
                linear(f"{base}/attention/linear_0", width, width)
                linear(f"{base}/attention/linear_1", 2 * width, width)
                made[f"{base}/attention/linear_1/bias"][:width] = 0
                linear(f"{base}/attention/linear_2", width, width)
    return made


class Plain:
    """The same network written down plainly, in float64, for one row at a time."""

    def __init__(self, variables, layers=2):
        self.layers = layers
        self.w = {name: value.astype(np.float64) for name, value in variables.items()}
        self.heads = int(variables["encoder/num_heads"])

    def encode(self, mel):
        x = mel.astype(np.float64)
        for index, stride in ((1, 1), (2, 2)):
            padded = np.pad(x, ((0, 0), (1, 1)))
            count = (x.shape[1] - 1) // stride + 1
            columns = [padded[:, stride * t : stride * t + 3] for t in range(count)]
            weight = self.w[f"encoder/conv{index}/weight"]
            x = np.stack([np.tensordot(weight, column, 2) for column in columns], 1)
            x = gelu(x + self.w[f"encoder/conv{index}/bias"][:, np.newaxis])
        x = x.T + self.w["encoder/position_encodings/encodings"][: x.shape[1]]
        for layer in range(self.layers):
            base = f"encoder/layer_{layer}"
            query, key, value = np.split(self.linear(f"{base}/self_attention/linear_0", self.norm(base, x)), 3, 1)
            x = x + self.linear(f"{base}/self_attention/linear_1", self.attend(query, key, value))
            x = self.feed(base, x)
        return self.layer_norm("encoder", x)

    def decode(self, tokens, states):
        """Logits [n, vocabulary], and keys and values [2 * layers, heads, n, 64]."""
        n, kept = len(tokens), []
        x = self.w["decoder/embeddings/weight"][tokens] + self.w["decoder/position_encodings/encodings"][:n]
        for layer in range(self.layers):
            base = f"decoder/layer_{layer}"
            query, key, value = np.split(self.linear(f"{base}/self_attention/linear_0", self.norm(base, x)), 3, 1)
            kept += [self.split(key), self.split(value)]
            x = x + self.linear(f"{base}/self_attention/linear_1", self.attend(query, key, value, causal=True))
            query = self.linear(f"{base}/attention/linear_0", self.layer_norm(f"{base}/attention", x))
            key, value = np.split(self.linear(f"{base}/attention/linear_1", states.astype(np.float64)), 2, 1)
            x = x + self.linear(f"{base}/attention/linear_2", self.attend(query, key, value))
            x = self.feed(base, x)
        return self.layer_norm("decoder", x) @ self.w["decoder/embeddings/weight"].T, np.stack(kept)

    def linear(self, name, x):
        return x @ self.w[f"{name}/weight"].T + self.w[f"{name}/bias"]

    def layer_norm(self, name, x):
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        return x * self.w[f"{name}/layer_norm/gamma"] + self.w[f"{name}/layer_norm/beta"]

    def norm(self, base, x):
        return self.layer_norm(f"{base}/self_attention", x)

    def feed(self, base, x):
        wide = gelu(self.linear(f"{base}/ffn/linear_0", self.layer_norm(f"{base}/ffn", x)))
        return x + self.linear(f"{base}/ffn/linear_1", wide)

    def split(self, x):
        return x.reshape(len(x), self.heads, 64).transpose(1, 0, 2)

    def attend(self, query, key, value, *, causal=False):
        scores = self.split(query) @ self.split(key).transpose(0, 2, 1) / 8
        if causal:
            scores = np.where(np.tri(len(query), dtype=bool), scores, -np.inf)
        shares = np.exp(scores - scores.max(2, keepdims=True))
        mixed = (shares / shares.sum(2, keepdims=True)) @ self.split(value)
        return mixed.transpose(1, 0, 2).reshape(len(query), -1)


def gelu(x):
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))
