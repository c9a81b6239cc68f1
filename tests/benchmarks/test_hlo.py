"""Counting in the text of optimized programs, written by hand with known answers."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks.hlo import size_of, tally

pytestmark = pytest.mark.usefixtures("compiled_afresh")


BRANCHES = """\
HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[3])->f32[3]}

%fused (p: f32[3]) -> f32[3] {
  %p = f32[3]{0} parameter(0)
  %m = f32[3]{0} multiply(%p, %p)
  ROOT %a = f32[3]{0} add(%m, %p)
}

%one (t.1: (f32[3])) -> (f32[3]) {
  %t.1 = (f32[3]{0}) parameter(0)
  %g.1 = f32[3]{0} get-tuple-element(%t.1), index=0
  %f.1 = f32[3]{0} fusion(%g.1), kind=kLoop, calls=%fused
  %f.2 = f32[3]{0} fusion(%f.1), kind=kLoop, calls=%fused
  ROOT %r.1 = (f32[3]{0}) tuple(%f.2)
}

%other (t.2: (f32[3])) -> (f32[3]) {
  ROOT %t.2 = (f32[3]{0}) parameter(0)
}

%command_buffer (q: f32[3]) -> f32[3] {
  %q = f32[3]{0} parameter(0)
  ROOT %f.3 = f32[3]{0} fusion(%q), kind=kLoop, calls=%fused, metadata={op_name="jit(f)/add"}
}

ENTRY %main (x: f32[3], i: s32[]) -> f32[3] {
  %x = f32[3]{0} parameter(0)
  %i = s32[] parameter(1)
  %t = (f32[3]{0}) tuple(%x)
  %c = (f32[3]{0}) conditional(%i, %t, %t), branch_computations={%one, %other}
  %g = f32[3]{0} get-tuple-element(%c), index=0
  %call = f32[3]{0} call(%g), to_apply=%command_buffer
  %k = (f32[3]{0}, u8[64]{0}) custom-call(%call), custom_call_target="gemm"
  ROOT %y = f32[3]{0} get-tuple-element(%k), index=0
}
"""


def test_calls_and_every_branch_count():
    counted = tally(BRANCHES)
    assert counted.kernels == 2 + 1 + 1
    # Three fusions of 12 bytes each way, and a library call with 64 bytes beside.
    assert counted.bytes == 3 * 24 + 24 + 64
    assert not counted.collectives


def test_one_path_through_the_branches():
    quiet, due = (tally(BRANCHES, due=levels) for levels in (0, 1))
    assert (quiet.kernels, quiet.bytes) == (2, 24 + 24 + 64)
    assert due == tally(BRANCHES)


NESTED = """\
HloModule jit_f, is_scheduled=true

%rare (r: f32[3]) -> f32[3] {
  %r = f32[3]{0} parameter(0)
  ROOT %r.2 = f32[3]{0} negate(%r)
}

%never (n: f32[3]) -> f32[3] {
  ROOT %n = f32[3]{0} parameter(0)
}

%turn (s: (pred[], f32[3])) -> (pred[], f32[3]) {
  %s = (pred[], f32[3]{0}) parameter(0)
  %done = pred[] constant(false)
  %x.1 = f32[3]{0} get-tuple-element(%s), index=1
  %x.2 = f32[3]{0} add(%x.1, %x.1)
  %x.3 = f32[3]{0} conditional(%done, %x.2, %x.2), true_computation=%rare, false_computation=%never
  ROOT %t.1 = (pred[], f32[3]{0}) tuple(%done, %x.3)
}

%goes_on (s.3: (pred[], f32[3])) -> pred[] {
  %s.3 = (pred[], f32[3]{0}) parameter(0)
  ROOT %flag = pred[] get-tuple-element(%s.3), index=0
}

ENTRY %main (x: f32[3], due: pred[]) -> f32[3] {
  %x = f32[3]{0} parameter(0)
  %due = pred[] parameter(1)
  %t = (pred[], f32[3]{0}) tuple(%due, %x)
  %w = (pred[], f32[3]{0}) while(%t), condition=%goes_on, body=%turn
  ROOT %y = f32[3]{0} get-tuple-element(%w), index=1
}
"""


def test_a_loop_of_at_most_one_turn_is_a_branch_and_what_is_rarer_lies_inside():
    assert [tally(NESTED, due=levels).kernels for levels in (0, 1, 2)] == [0, 1, 2]
    # A loop that counts its turns is none: it runs in every step.
    assert tally(LOOP, due=0) == tally(LOOP)


LOOP = """\
HloModule jit_f, is_scheduled=true

%body (s: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %s = (s32[], f32[8,4]{1,0:T(8,128)}) parameter(0)
  %i.1 = s32[] get-tuple-element(%s), index=0
  %x.1 = f32[8,4]{1,0:T(8,128)} get-tuple-element(%s), index=1
  %one = s32[]{:T(128)} constant(1)
  %i.2 = s32[] add(%i.1, %one)
  %x.2 = f32[8,4]{1,0:T(8,128)} multiply(%x.1, %x.1), metadata={op_name="jit(f)/mul(a, b)"}
  ROOT %n = (s32[], f32[8,4]{1,0:T(8,128)}) tuple(%i.2, %x.2)
}

%condition (s.3: (s32[], f32[8,4])) -> pred[] {
  %s.3 = (s32[], f32[8,4]{1,0:T(8,128)}) parameter(0)
  %i.3 = s32[] get-tuple-element(%s.3), index=0
  %two = s32[] constant(2)
  ROOT %less = pred[] compare(%i.3, %two), direction=LT
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0:T(8,128)} parameter(0)
  %zero = s32[] constant(0)
  %t = (s32[], f32[8,4]{1,0:T(8,128)}) tuple(%zero, %x)
  %w = (s32[], f32[8,4]{1,0:T(8,128)}) while(%t), condition=%condition, body=%body
  ROOT %y = f32[8,4]{1,0:T(8,128)} get-tuple-element(%w), index=1
}
"""


def test_a_loop_counts_once():
    counted = tally(LOOP)
    assert counted.kernels == 2 + 1
    # An array that is read twice by one kernel counts once.
    # In memory it is a whole tile.
    assert counted.bytes == (4 + 4 + 4) + 2 * (8 * 128 * 4) + (4 + 4 + 1)


COLLECTIVES = """\
HloModule jit_f, is_scheduled=true, num_partitions=4

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

%scatter (q: bf16[16]) -> bf16[4] {
  %q = bf16[16]{0} parameter(0)
  ROOT %rs = bf16[4]{0} reduce-scatter(%q), replica_groups={{0,1,2,3}}, to_apply=%sum
}

ENTRY %main (x: bf16[4]) -> bf16[4] {
  %x = bf16[4]{0} parameter(0)
  %start = (bf16[4]{0}, bf16[16]{0}) all-gather-start(%x), replica_groups={{0,1,2,3}}
  %done = bf16[16]{0} all-gather-done(%start)
  %r = bf16[16]{0} all-reduce(%done), replica_groups=[1,4]<=[4], to_apply=%sum
  %r.2 = bf16[16]{0} all-reduce(%r), replica_groups=[1,4]<=[4], to_apply=%sum
  %rs.start = ((bf16[16]{0}), bf16[4]{0}, u32[]) async-start(%r.2), calls=%scatter
  ROOT %rs.done = bf16[4]{0} async-done(%rs.start)
}
"""


def test_collectives_count_once_whether_they_wait_or_not():
    counted = tally(COLLECTIVES)
    assert counted.collectives == {"all-gather": 1, "all-reduce": 2, "reduce-scatter": 1}
    assert counted.kernels == 4
    assert counted.bytes == (8 + 32) + 2 * (32 + 32) + (32 + 8)


KERNELS = """\
HloModule jit_f, is_scheduled=true

ENTRY %main (x: s8[64], y: f32[64]) -> f32[64] {
  %x = s8[64]{0:T(256)(4,1)} parameter(0)
  %y = f32[64]{0:T(128)} parameter(1)
  %k = (s8[64]{0}, f32[64]{0}) custom-call(%x, /*index=1*/%y), custom_call_target="tpu_custom_call"
  %z = f32[64]{0} get-tuple-element(%k), index=1
  ROOT %c = f32[64]{0} custom-call(%z), custom_call_target="Cholesky"
}
"""


def test_kernels_that_xla_knows_nothing_of():
    assert tally(KERNELS).kernels == 2
    assert tally(KERNELS).bytes == (256 + 512) + (64 + 256) + 2 * 256


FETCHED = """\
HloModule jit_f, is_scheduled=true

ENTRY %main (x: f32[256], y: f32[256]) -> f32[256] {
  %x = f32[256]{0:T(128)} parameter(0)
  %y = f32[256]{0:T(128)} parameter(1)
  %s.1 = ((f32[256]{0:T(128)}), f32[128]{0:T(128)S(1)}, s32[]{:S(2)}) slice-start(%x)
  %s.2 = ((f32[256]{0:T(128)}), f32[128]{0:T(128)S(1)}, s32[]{:S(2)}) slice-start(%x)
  %d.1 = f32[128]{0:T(128)S(1)} slice-done(%s.1)
  %d.2 = f32[128]{0:T(128)S(1)} slice-done(%s.2)
  %v = f32[256]{0:T(128)S(1)} custom-call(%d.1, %d.2), custom_call_target="ConcatBitcast"
  %z = f32[256]{0:T(128)S(1)} add(%v, %y)
  %s.3 = (f32[256]{0:T(128)}, f32[256]{0:T(128)S(1)}, u32[]{:S(2)}) copy-start(%z)
  ROOT %d.3 = f32[256]{0:T(128)} copy-done(%s.3)
}
"""


def test_what_is_fetched_into_fast_memory_is_read_once():
    counted = tally(FETCHED)
    assert counted.kernels == 1
    assert counted.bytes == 3 * 1024


PARTS = """\
HloModule jit_f, is_scheduled=true

%inner (p.1: f32[100,8], i.1: s32[]) -> f32[1,8] {
  %p.1 = f32[100,8]{1,0} parameter(0)
  %i.1 = s32[] parameter(1)
  ROOT %d.1 = f32[1,8]{1,0} dynamic-slice(%p.1, %i.1, %i.1), dynamic_slice_sizes={1,8}
}

%fused (p.2: f32[100,8], q.2: f32[100,8], i.2: s32[]) -> (f32[800], f32[1,8]) {
  %p.2 = f32[100,8]{1,0} parameter(0)
  %q.2 = f32[100,8]{1,0} parameter(1)
  %i.2 = s32[] parameter(2)
  %row.2 = f32[1,8]{1,0} fusion(%p.2, %i.2), kind=kLoop, calls=%inner
  %d.2 = f32[100,8]{1,0} dynamic-update-slice(%q.2, %row.2, %i.2, %i.2)
  %b.2 = f32[800]{0} bitcast(%d.2)
  ROOT %t.2 = (f32[800]{0}, f32[1,8]{1,0}) tuple(%b.2, %row.2)
}

ENTRY %main (x: f32[100,8], y: f32[100,8], i: s32[]) -> f32[800] {
  %x = f32[100,8]{1,0} parameter(0)
  %y = f32[100,8]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %f = (f32[800]{0}, f32[1,8]{1,0}) fusion(%x, %y, %i), kind=kLoop, calls=%fused
  ROOT %g = f32[800]{0} get-tuple-element(%f), index=0
}
"""


def test_of_what_is_sliced_or_updated_in_place_the_part_counts():
    # A row read, written into another array, and written by itself; and the index.
    assert tally(PARTS).bytes == 32 + 32 + 32 + 4


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[]", 4),
        ("f32[2,3]{1,0}", 24),
        ("f32[2,3]{1,0:T(8,128)S(1)}", 8 * 128 * 4),
        ("f32[130,3]{0,1:T(8,128)}", 8 * 256 * 4),
        ("f32[5,2,128]{2,1,0:T(2,128)}", 10 * 128 * 4),
        ("s8[3,300]{1,0:T(32,128)(4,1)}", 32 * 384),
        ("bf16[5]{0}", 10),
        ("s4[6]{0:E(4)}", 3),
        ("u4[3]", 1.5),
        ("f8e4m3fn[7]", 7),
        ("f8e5m2[7]", 7),
        ("pred[9]", 9),
        ("c64[2]", 16),
        ("(f32[2]{0}, (s8[3], u32[]))", 8 + 3 + 4),
        ("f32[0,5]", 0),
        ("token[]", 0),
        ("()", 0),
    ],
)
def test_bytes_of_a_shape(shape, size):
    assert size_of(shape) == size


def test_of_a_compiled_program():
    def f(p, x):
        return jax.lax.cond(p, lambda: x * 2, lambda: x / 3)

    counted = tally(jax.jit(f).lower(True, jnp.ones(8)).compile().as_text())
    assert 1 <= counted.kernels <= 4
    assert counted.bytes >= 2 * 8 * 4
