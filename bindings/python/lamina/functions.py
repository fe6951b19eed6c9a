"""The operators as functions: the descriptor is made from the arrays' shapes and strides, and the weights are packed in
every call. A layer that runs more than once is better prepared (operators.py)."""

from collections.abc import Sequence
from typing import Any

from ._lamina import Array, Context, InvalidArgument, from_dlpack, same_padding
from .operators import AdditiveAttention, Conv2d, FullyConnected, MultiHeadAttention, SeparableConv2d, Tensor
from .problems import describe

Pair = int | tuple[int, int]
Padding = int | tuple[int, int] | tuple[int, int, int, int] | str


def conv2d(x: Tensor, w: Tensor, bias: Tensor | None = None, *, stride: Pair = 1, padding: Padding = 0,
           dilation: Pair = 1, groups: int = 1, activation: str | None = None, residual: Tensor | None = None,
           residual_at: str = "before", layout: str = "nhwc", weight_layout: str = "ohwi", out: Tensor | None = None,
           context: Context | None = None) -> Any:
    """Convolution: y[n, oh, ow, oc] = act(bias[oc] + sum over kh, kw, c of x[n, oh*stride + kh*dilation - pad, .., c]
    * w[oc, kh, kw, c]).

    x: [n, ih, iw, ic] or, with layout="nchw", [n, ic, ih, iw]; may be a slice of the channels of a wider tensor.
    w: [oc, kh, kw, ic / groups] or, with weight_layout="oihw", [oc, ic / groups, kh, kw]. bias: [oc].
    padding: zeros, on all sides, as (h, w) or (top, left, bottom, right), or by ONNX's rule "same_upper", "same_lower".
    dilation: 1 is dense (PyTorch's convention).
    activation: "relu", "relu6", "clamp(0,6)", "leaky(0.1)", "gelu_erf", ...: the words of include/lamina/types.h.
    residual: a tensor of y's shape, added "before" or "after" the activation (residual_at).
    Raises lamina.Error; see lamina.Conv2d. The formula's source: include/lamina/conv2d.h.
    """
    image, filters = _array("x", x, 4), _array("w", w, 4)
    n, ih, iw, ic = _image(image, layout)
    oc, kh, kw = (filters.shape[i] for i in ((0, 1, 2) if weight_layout == "ohwi" else (0, 2, 3)))
    desc = dict(n=n, ic=ic, oc=oc, groups=groups, bias=bias is not None, activation=activation, layout=layout,
                weight_layout=weight_layout, **_window(dict(ih=ih, iw=iw, kh=kh, kw=kw), stride, padding, dilation),
                **_image_strides(layout, image, residual, residual_at, out))
    return Conv2d(desc, w=w, bias=bias, context=context)(x, residual=residual, out=out)


def separable_conv2d(x: Tensor, depthwise_w: Tensor, project_w: Tensor | None = None,
                     expand_w: Tensor | None = None, *, depthwise_bias: Tensor | None = None,
                     project_bias: Tensor | None = None, expand_bias: Tensor | None = None, stride: Pair = 1,
                     padding: Padding = 0, dilation: Pair = 1, depthwise_activation: str | None = None,
                     project_activation: str | None = None, expand_activation: str | None = None,
                     residual: Tensor | None = None, residual_at: str = "before", layout: str = "nhwc",
                     fusion: str = "auto", out: Tensor | None = None, context: Context | None = None) -> Any:
    """Depthwise-separable convolution: expand (1x1), depthwise (kh x kw), project (1x1).

    The order follows from the weights: depthwise and project, expand and depthwise, or all three (MobileNetV2).
    x: [n, ih, iw, ic] or, with layout="nchw", [n, ic, ih, iw]. expand_w: [hidden, ic].
    depthwise_w: [hidden * depth multiplier, kh, kw]. project_w: [oc, hidden * depth multiplier]. Biases: [rows].
    padding, as for conv2d, is zero of the depthwise step's input; the residual is added at the last step.
    fusion: "auto", "always" (or a refusal), "never". Raises lamina.Error. Source: include/lamina/separable_conv2d.h.
    """
    image, depthwise = _array("x", x, 4), _array("depthwise_w", depthwise_w, 3)
    n, ih, iw, ic = _image(image, layout)
    channels, kh, kw = depthwise.shape  # that leave the depthwise step
    hidden = ic if expand_w is None else _array("expand_w", expand_w, 2).shape[0]
    oc = channels if project_w is None else _array("project_w", project_w, 2).shape[0]
    both = expand_w is not None and project_w is not None
    desc = dict(n=n, ic=ic, hidden=hidden if both else None, oc=oc,
                depth_multiplier=channels // hidden if hidden else None,
                order="pw_dw_pw" if both else "dw_pw" if expand_w is None else "pw_dw", fusion=fusion,
                expand_bias=expand_bias is not None, depthwise_bias=depthwise_bias is not None,
                project_bias=project_bias is not None, expand_activation=expand_activation,
                depthwise_activation=depthwise_activation, project_activation=project_activation, layout=layout,
                **_window(dict(ih=ih, iw=iw, kh=kh, kw=kw), stride, padding, dilation),
                **_image_strides(layout, image, residual, residual_at, out))
    operator = SeparableConv2d(desc, depthwise_w=depthwise_w, project_w=project_w, expand_w=expand_w,
                               depthwise_bias=depthwise_bias, project_bias=project_bias, expand_bias=expand_bias,
                               context=context)
    return operator(x, residual=residual, out=out)


def fully_connected(x: Tensor, w: Tensor, bias: Tensor | None = None, *, activation: str | None = None,
                    residual: Tensor | None = None, residual_at: str = "before", weight_layout: str = "oi",
                    out: Tensor | None = None, context: Context | None = None) -> Any:
    """A fully connected layer: y[m, oc] = act(bias[oc] + sum over ic of x[m, ic] * w[oc, ic]).

    x: [m, ic], its rows at any distance. w: [oc, ic] or, with weight_layout="io", [ic, oc]. bias: [oc].
    residual: [m, oc], added "before" or "after" the activation. Raises lamina.Error.
    Source: include/lamina/fully_connected.h.
    """
    rows, matrix = _array("x", x, 2), _array("w", w, 2)
    desc = dict(m=rows.shape[0], ic=rows.shape[1], oc=matrix.shape[0 if weight_layout == "oi" else 1],
                bias=bias is not None, activation=activation, weight_layout=weight_layout, dtype=rows.dtype,
                **_residual(residual, residual_at), x_stride=_row_stride(rows),
                y_stride=_row_stride(_given("out", out, 2)),
                residual_stride=_row_stride(_given("residual", residual, 2)))
    return FullyConnected(desc, w=w, bias=bias, context=context)(x, residual=residual, out=out)


def additive_attention(query: Tensor, keys: Tensor, query_w: Tensor, key_w: Tensor, v: Tensor,
                       bias: Tensor | None = None, g: Tensor | None = None, *, values: Tensor | None = None,
                       key_lengths: Tensor | None = None, mask: Tensor | None = None,
                       return_weights: bool = False, out: Tensor | None = None,
                       context: Context | None = None) -> Any:
    """Bahdanau's attention: score[i, j] = v . tanh(query_w query[i] + key_w keys[j] + bias), softmax over j, and the
    sum of the values (or keys) with these weights. With g, v is normalised: g * v / ||v||.

    query: [batch, queries, query_dim]. keys: [batch, keys, key_dim]. values: [batch, keys, value_dim].
    query_w: [units, query_dim]. key_w: [units, key_dim]. v, bias: [units]. g: [1].
    key_lengths: int32 [batch]. mask: bool [batch, 1 or queries, keys], true = keep.
    Gives [batch, queries, value_dim or key_dim], and the weights [batch, queries, keys] where return_weights is true.
    Raises lamina.Error. Source: include/lamina/additive_attention.h (Bahdanau, Cho, Bengio 2015).
    """
    q, k, units = _array("query", query, 3), _array("keys", keys, 3), _array("query_w", query_w, 2).shape[0]
    vals, keep = _given("values", values, 3), _given("mask", mask, 3)
    desc = dict(batch=q.shape[0], queries=q.shape[1], keys=k.shape[1], query_dim=q.shape[2], key_dim=k.shape[2],
                units=units, value_dim=vals and vals.shape[2], bias=bias is not None, normalized=g is not None,
                mask=keep is not None, mask_queries=keep and keep.shape[1], dtype=q.dtype,
                query_stride=_row_stride(q), key_stride=_row_stride(k), value_stride=_row_stride(vals),
                context_stride=_row_stride(_given("out", out, 3)))
    operator = AdditiveAttention(desc, query_w=query_w, key_w=key_w, v=v, bias=bias, g=g, context=context)
    return operator(query, keys, values=values, key_lengths=key_lengths, mask=mask, out=out,
                    returns=("weights",) if return_weights else ())


def multi_head_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: str = "none",
                         window: tuple[int, int] = (-1, -1), scale: float | None = None,
                         softcap: float | None = None, key_lengths: Tensor | None = None,
                         mask: Tensor | None = None, bias: Tensor | None = None,
                         alibi_slopes: Tensor | None = None, layout: str = "bshd", return_lse: bool = False,
                         return_weights: bool = False, out: Tensor | None = None,
                         context: Context | None = None) -> Any:
    """Scaled dot-product attention, per head: o[i] = sum over j of softmax_j(scale * q[i] . k[j] + ..)[j] * v[j].

    q: [batch, seqlen_q, num_heads, head_dim], k and v: [batch, seqlen_kv, num_kv_heads, head_dim or value_dim], or
    with layout="bhsd" [batch, heads, seqlen, dim]; any strides but the last. num_kv_heads divides num_heads.
    causal: "none", "top_left" or "bottom_right". window: keys kept left and right of the query's own, -1 = all.
    scale: None is 1 / sqrt(head_dim). softcap: c * tanh(score / c). key_lengths: int32 [batch].
    mask: bool [1 or batch, 1 or num_heads, seqlen_q, seqlen_kv], true = keep. bias: f32 of such a shape, added to the
    scores. alibi_slopes: [num_heads]. Gives o, then lse [batch, num_heads, seqlen_q] and weights [batch, num_heads,
    seqlen_q, seqlen_kv] where asked for. With projections, and decoding on a cache: lamina.MultiHeadAttention.
    Raises lamina.Error. Source: include/lamina/multi_head_attention.h (Vaswani et al. 2017).
    """
    queries, keys, values = _array("q", q, 4), _array("k", k, 4), _array("v", v, 4)
    keep, added, output = _given("mask", mask, 4), _given("bias", bias, 4), _given("out", out, 4)
    row, head = (1, 2) if layout == "bshd" else (2, 1)
    desc = dict(batch=queries.shape[0], num_heads=queries.shape[head], num_kv_heads=keys.shape[head],
                seqlen_q=queries.shape[row], seqlen_kv=keys.shape[row], head_dim=queries.shape[3],
                value_dim=values.shape[3], scale=scale, causal=causal, window_left=window[0], window_right=window[1],
                mask=keep is not None, mask_batch=keep and keep.shape[0], mask_heads=keep and keep.shape[1],
                bias=added is not None, bias_batch=added and added.shape[0], bias_heads=added and added.shape[1],
                alibi=alibi_slopes is not None, softcap=softcap, layout=layout, dtype=queries.dtype,
                q=_head_strides(queries, row, head), k=_head_strides(keys, row, head),
                v=_head_strides(values, row, head), o=_head_strides(output, row, head))
    returns = ("lse",) * return_lse + ("weights",) * return_weights
    return MultiHeadAttention(desc, context=context)(q, k, v, key_lengths=key_lengths, mask=mask, bias=bias,
                                                     alibi_slopes=alibi_slopes, out=out, returns=returns)


def _array(name: str, tensor: Tensor, ndim: int) -> Array:
    array = from_dlpack(tensor, name)
    if len(array.shape) != ndim:
        raise InvalidArgument(f"tensor {name}: must have {ndim} dimensions, got {len(array.shape)}")
    return array


def _given(name: str, tensor: Tensor | None, ndim: int) -> Array | None:
    return None if tensor is None else _array(name, tensor, ndim)


def _image(x: Array, layout: str) -> tuple[int, int, int, int]:
    """n, h, w and channels."""
    n, h, w, c = x.shape if layout == "nhwc" else (x.shape[i] for i in (0, 2, 3, 1))
    return n, h, w, c


def _window(size: dict[str, int], stride: Pair, padding: Padding, dilation: Pair) -> dict[str, int]:
    """The fields of a window: its size and the image's are given."""
    (stride_h, stride_w), (dilation_h, dilation_w) = _numbers(stride, 2), _numbers(dilation, 2)
    window = dict(**size, stride_h=stride_h, stride_w=stride_w, dilation_h=dilation_h, dilation_w=dilation_w)
    if isinstance(padding, str):
        pads: Sequence[int] = same_padding(describe("conv2d", **window), padding)
    else:
        pads = _numbers(padding, 4) if isinstance(padding, int) or len(padding) != 2 else (*padding, *padding)
    top, left, bottom, right = pads
    return dict(**window, pad_top=top, pad_left=left, pad_bottom=bottom, pad_right=right)


def _numbers(given: int | Sequence[int], count: int) -> Sequence[int]:
    """One for all, or one each."""
    return (given,) * count if isinstance(given, int) else given


def _residual(residual: Tensor | None, residual_at: str) -> dict[str, str]:
    return {} if residual is None else {"residual": residual_at}


def _image_strides(layout: str, x: Array, residual: Tensor | None, residual_at: str,
                   out: Tensor | None) -> dict[str, Any]:
    """dtype, residual and strides of an image operator's descriptor."""
    stride = _row_stride if layout == "nhwc" else _batch_stride
    return dict(dtype=x.dtype, **_residual(residual, residual_at), x_stride=stride(x),
                y_stride=stride(_given("out", out, 4)), residual_stride=stride(_given("residual", residual, 4)))


# Strides that a descriptor cannot say count as dense here: the library then refuses the tensor by its name.


def _row_stride(array: Array | None) -> int | None:
    """Elements from row to row of [.., row]; None where they are dense or there is only one."""
    if array is None:
        return None
    step = next((stride for size, stride in zip(array.shape[-2::-1], array.strides[-2::-1]) if size > 1), 0)
    return step if step > array.shape[-1] else None


def _batch_stride(array: Array | None) -> int | None:
    """Elements from image to image of [n, c, h, w]; None where they are dense or there is only one."""
    if array is None or array.shape[0] <= 1:
        return None
    _, c, h, w = array.shape
    return array.strides[0] if array.strides[0] > c * h * w else None


def _head_strides(array: Array | None, row: int, head: int) -> tuple[int, ...] | None:
    """batch,row,head of q, k, v or o; 0 where there is no second one to step to."""
    if array is None:
        return None
    return tuple(array.strides[i] if array.shape[i] > 1 else 0 for i in (0, row, head))
