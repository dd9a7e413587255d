"""A small Llama: RMSNorm, rotary attention by ropewalk, SwiGLU, and one matrix for the embedding and the output."""

import ropewalk as rw
import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, width, heads):
        super().__init__()
        self.shape = (3, heads, width // heads)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, rotary, tail):
        q, k, v = self.qkv(x).unflatten(-1, self.shape).unbind(2)
        q, k = rotary(q, k)
        q, k, v = q[:, -tail:].transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if q.shape[2] == k.shape[2]:
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            seen = torch.ones(tail, k.shape[2], dtype=torch.bool, device=x.device).tril(k.shape[2] - tail)
            y = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """One decoder layer."""

    def __init__(self, width, heads, hidden):
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.attention = Attention(width, heads)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x, rotary, tail):
        x = x[:, -tail:] + self.attention(self.attention_norm(x), rotary, tail)
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.down(functional.silu(gate) * up)


class TinyLlama(nn.Module):
    """A decoder whose rotary encoding can be exchanged at any time: `set_encoding()`.

    Args:
        vocabulary: Number of tokens.
        layers, width, heads, hidden: Sizes as in Llama.
        base: Base of the rotary frequencies.
    """

    def __init__(self, vocabulary, layers, width, heads, hidden, base):
        super().__init__()
        self.head_dim, self.base = width // heads, base
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList([Block(width, heads, hidden) for _ in range(layers)])
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.set_encoding("default")
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def set_encoding(self, policy, layout="half_split"):
        """Encode with another policy from now on. The weights stay."""
        self.rotary = rw.RotaryEmbedding(self.head_dim, policy, base=self.base, layout=layout, order="bshd")

    def forward(self, tokens, tail=None):
        """Return normalized states [batch, tail, width] of the last `tail` tokens, by default of all tokens.

        The last layer computes only these. logits() takes them.
        """
        x = self.embedding(tokens)
        for i, block in enumerate(self.blocks):
            last = i == len(self.blocks) - 1
            x = block(x, self.rotary, tail if last and tail is not None else x.shape[1])
        return self.norm(x)

    def logits(self, states):
        """Return logits in float32, also under autocast: bfloat16 would make ties among the values."""
        with torch.autocast(states.device.type, enabled=False):
            return states.float() @ self.embedding.weight.T
