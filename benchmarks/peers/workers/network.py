"""The float network as engines like it best, equal to the project's model but for rounding.

Position encoding, LayerScale and LayerNorm's affine are folded as the project itself folds them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgenext_tvm.model.edgenext import ConvEncoder, EdgeNeXt, SdtaEncoder, build_model
from edgenext_tvm.model.fold import fold_for_quantization

INPUT_SHAPE = (1, 3, 256, 256)


def load_network(case: Path, folded: bool = True) -> EdgeNeXt:
    """The case's model in eval mode."""
    saved = torch.load(case / "model.pt", weights_only=True)
    model = build_model(saved["variant"], num_classes=saved["weights"]["head.fc.weight"].shape[0])
    model.load_state_dict(saved["weights"])
    model.requires_grad_(False).eval()
    return fold_for_quantization(model) if folded else model


class PointwiseNetwork(nn.Module):
    """[1,3,S,S] to [1,classes] with every Linear as a 1x1 convolution, so that no tensor changes its layout but inside
    LayerNorm, and attention takes [d,T] as it lies.
    """

    def __init__(self, model: EdgeNeXt) -> None:
        super().__init__()
        self.stem = model.stem
        self.stages = nn.ModuleList()
        for stage in model.stages:
            blocks = [_SdtaBlock(b) if isinstance(b, SdtaEncoder) else _ConvBlock(b) for b in stage.blocks]
            self.stages.append(nn.Sequential(stage.downsample, *blocks))
        self.head = model.head

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head.fc(self.head.norm(x.mean((2, 3))))


def pointwise(linear: nn.Linear) -> nn.Conv2d:
    """The 1x1 convolution that does to each pixel what `linear` does to a vector."""
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
    conv.weight = nn.Parameter(linear.weight[:, :, None, None], requires_grad=False)
    if linear.bias is not None:
        conv.bias = linear.bias
    return conv


class _NormOverChannels(nn.Module):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _ConvBlock(nn.Module):
    def __init__(self, block: ConvEncoder) -> None:
        super().__init__()
        self.conv_dw, self.norm = block.conv_dw, _NormOverChannels(block.norm)
        self.fc1, self.act, self.fc2 = pointwise(block.mlp.fc1), block.mlp.act, pointwise(block.mlp.fc2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(self.act(self.fc1(self.norm(self.conv_dw(x)))))


class _SdtaBlock(nn.Module):
    def __init__(self, block: SdtaEncoder) -> None:
        super().__init__()
        self.split = _Split(block)
        self.norm_xca, self.norm = _NormOverChannels(block.norm_xca), _NormOverChannels(block.norm)
        self.qkv, self.proj = pointwise(block.xca.qkv), pointwise(block.xca.proj)
        self.heads, self.temperature = block.xca.heads, block.xca.temperature
        self.fc1, self.act, self.fc2 = pointwise(block.mlp.fc1), block.mlp.act, pointwise(block.mlp.fc2)
        self.has_position = block.pos_embd is not None
        if block.pos_embd is not None:
            constant = block.pos_embd
            encoding = constant.encoding.permute(0, 2, 1).reshape(1, -1, constant.height, constant.width)
            self.register_buffer("position", encoding.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        y = self.split(x)
        if self.has_position:
            y = y + self.position
        y = y + self._attention(self.norm_xca(y))
        return x + self.fc2(self.act(self.fc1(self.norm(y))))

    def _attention(self, x: Tensor) -> Tensor:
        _, c, h, w = x.shape
        q, k, v = (part.reshape(1, self.heads, c // self.heads, h * w) for part in self.qkv(x).chunk(3, dim=1))
        # the L2 norms commute with the product: two [d,T] divisions become one of [d,d]
        q_norm = torch.linalg.vector_norm(q, dim=-1, keepdim=True)
        k_norm = torch.linalg.vector_norm(k, dim=-1, keepdim=True)
        scores = torch.matmul(q, k.transpose(-2, -1)) / (q_norm * k_norm.transpose(-2, -1))
        weights = (scores * self.temperature).softmax(dim=-1)
        return self.proj(torch.matmul(weights, v).reshape(1, c, h, w))


class _Split(nn.Module):
    def __init__(self, block: SdtaEncoder) -> None:
        super().__init__()
        self.convs, self.widths = block.convs, block.widths

    def forward(self, x: Tensor) -> Tensor:
        groups = torch.split(x, self.widths, dim=1)
        y = self.convs[0](groups[0])
        outputs = [y]
        for i in range(1, len(self.convs)):
            y = self.convs[i](y + groups[i])
            outputs.append(y)
        return torch.cat([*outputs, groups[-1]], dim=1)


def export_onnx(network: nn.Module, file: Path) -> None:
    """Writes `network` at INPUT_SHAPE as ONNX opset 20 (the first with GELU), weights inside the file."""
    program = torch.onnx.export(
        network, (torch.zeros(INPUT_SHAPE),), dynamo=True, opset_version=20, input_names=["image"], verbose=False
    )
    program.save(str(file), external_data=False)
