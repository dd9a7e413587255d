"""Multi-head latent attention (MLA) with DeepSeek-V3's shapes: one fused call per step against separate steps.

Queries have 128 heads of 192 elements, of which the last 64 are rotated. All heads share one row per token: a latent
vector of 512 elements and a rotated key of 64. The pages of the cache are in bfloat16, then in float8_e4m3fn.
"""

import ropewalk as rw
import torch

HEADS, NOPE_DIM, ROPE_DIM, LATENT_DIM = 128, 128, 64, 512
PAGES, PAGE = 12, 64
SEQUENCES = {0: 100, 1: 33, 2: 64}  # tokens of each sequence that the cache holds already
NEW = [3, 1, 20]  # tokens of each sequence in this step


def unfused(q, k_rope, latent, cache, slots, positions, encoding, scale):
    """Rotation, concatenation and copy by a call each."""
    q_rope, k_rope = rw.rotate(q[..., NOPE_DIM:], k_rope[:, None], encoding=encoding, positions=positions)
    rows = torch.cat((latent, k_rope[:, 0]), -1).float() / scale
    cache.view(-1, LATENT_DIM + ROPE_DIM)[slots] = rows.to(cache.dtype)
    return q_rope


def main():
    torch.manual_seed(0)
    # The scaling of DeepSeek-V3, whose pairs are neighbours.
    encoding = rw.encoding("yarn:40,original_length=4096", head_dim=ROPE_DIM, layout="interleaved")
    pages = torch.randperm(PAGES).view(len(SEQUENCES), -1).int()  # the page table of an engine
    positions = torch.cat([torch.arange(first, first + new) for first, new in zip(SEQUENCES.values(), NEW)])
    sequence = torch.repeat_interleave(torch.arange(len(NEW)), torch.tensor(NEW))
    slots = pages[sequence, positions // PAGE].long() * PAGE + positions % PAGE
    tokens = len(positions)
    q = torch.randn(tokens, HEADS, NOPE_DIM + ROPE_DIM, dtype=torch.bfloat16)
    k_rope, latent = torch.randn(tokens, ROPE_DIM).bfloat16(), torch.randn(tokens, LATENT_DIM).bfloat16()

    for dtype, scale in ((torch.bfloat16, 1.0), (torch.float8_e4m3fn, 0.05)):
        fused, separate = (torch.zeros(PAGES, PAGE, LATENT_DIM + ROPE_DIM).to(dtype) for _ in range(2))
        expected = unfused(q, k_rope, latent, separate, slots, positions, encoding, scale)
        ours = q.clone()
        rw.append_mla(
            *(ours[..., NOPE_DIM:], k_rope, latent),
            **{"encoding": encoding, "cache": fused, "positions": positions, "slot_mapping": slots},
            scale=None if dtype == torch.bfloat16 else scale,
        )
        assert torch.equal(ours[..., NOPE_DIM:], expected) and torch.equal(ours[..., :NOPE_DIM], q[..., :NOPE_DIM])
        fused, separate = fused.float() * scale, separate.float() * scale
        # One rounding instead of two: the stored keys may differ by a step, the latent vectors may not.
        step = 2.0**-7 if dtype == torch.bfloat16 else 2.0**-3
        assert torch.equal(fused[..., :LATENT_DIM], separate[..., :LATENT_DIM])
        torch.testing.assert_close(fused, separate, rtol=step, atol=scale * 2.0**-9)
        changed = (fused != separate).float().mean().item()
        print(
            f"{dtype}: {tokens} rows of {LATENT_DIM + ROPE_DIM} stored; {changed:.1%} of the elements differ by a step"
        )


if __name__ == "__main__":
    main()
