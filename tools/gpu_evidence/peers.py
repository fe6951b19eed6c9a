"""What PyTorch and the libraries behind it (cuBLAS, cuDNN, FlashAttention) do for a problem. Each function takes the
problem's fields and its tensors by name, in Lamina's layouts, and returns {peer: callable}."""

import torch
import torch.nn.functional as F


def _number(fields, name, default=0):
    return int(fields.get(name, default))


def _activate(fields, y, name="activation"):
    kinds = {"relu": torch.relu_, "relu6": lambda v: v.clamp_(0, 6), "none": lambda v: v}
    return kinds[fields.get(name, "none")](y)


def _with_tf32(allowed, call):
    def run():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
        return call()
    return run


def _float32_too(t, call, library):
    """f32 problems once with and once without TF32."""
    if t["x"].dtype != torch.float32:
        return {library: call}
    return {f"{library} f32": _with_tf32(False, call), f"{library} TF32": _with_tf32(True, call)}


def fully_connected(fields, t):
    return _float32_too(t, lambda: _activate(fields, F.linear(t["x"], t["w"], t.get("bias"))), "cuBLAS")


def _image(x):
    return x.permute(0, 3, 1, 2)  # a channels-last view


def _convolve(fields, x, w, bias, groups=1, pointwise=False):
    stride = 1 if pointwise else (_number(fields, "stride_h", 1), _number(fields, "stride_w", 1))
    padding = 0 if pointwise else (_number(fields, "pad_top"), _number(fields, "pad_left"))
    return F.conv2d(x, w, bias, stride, padding, 1, groups)


def conv2d(fields, t):
    groups, w = _number(fields, "groups", 1), _image(t["w"])
    call = lambda: _activate(fields, _convolve(fields, _image(t["x"]), w, t.get("bias"), groups))
    return _float32_too(t, call, "cuDNN")


def separable_conv2d(fields, t):
    depthwise, project = t["depthwise_w"].unsqueeze(1), t["project_w"][:, :, None, None]
    channels = depthwise.shape[0]
    depthwise, project = (w.contiguous(memory_format=torch.channels_last) for w in (depthwise, project))

    def pair():
        y = _convolve(fields, _image(t["x"]), depthwise, t.get("depthwise_bias"), channels)
        y = _activate(fields, y, "depthwise_activation")
        y = _convolve(fields, y, project, t.get("project_bias"), pointwise=True)
        return _activate(fields, y, "project_activation")
    return _float32_too(t, pair, "cuDNN pair")


def multi_head_attention(fields, t):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    q, k, v = (t[name].transpose(1, 2) for name in "qkv")
    causal = fields.get("causal", "none") != "none" and q.shape[2] > 1
    grouped = k.shape[1] != q.shape[1]

    def by(backend):
        def run():
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)
        return run
    peers = {"cuDNN attention": by(SDPBackend.CUDNN_ATTENTION), "FlashAttention": by(SDPBackend.FLASH_ATTENTION),
             "PyTorch math": by(SDPBackend.MATH)}
    if q.dtype == torch.float32:
        peers = {"PyTorch efficient": by(SDPBackend.EFFICIENT_ATTENTION), "PyTorch math": peers["PyTorch math"]}
    return peers


def additive_attention(fields, t):
    def attend(query, keys, query_w, key_w, v):
        hidden = torch.tanh(F.linear(query, query_w)[:, :, None] + F.linear(keys, key_w)[:, None])
        return torch.bmm(torch.softmax(hidden @ v, dim=-1), keys)
    arguments = [t[name] for name in ("query", "keys", "query_w", "key_w", "v")]
    compiled = torch.compile(attend)
    return {"PyTorch eager": lambda: attend(*arguments), "torch.compile": lambda: compiled(*arguments)}
