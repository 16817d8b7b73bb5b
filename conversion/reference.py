"""The masked autoencoder and ResNet-50 in PyTorch, under the names of the published files.

The reference for comparisons, written from the papers and the shapes of the published tensors:
plain, slow, and independent of everything in `jist`. Masks are arguments here as well.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

VARIANCE_EPSILON = 1e-6


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens [B, T, D] to [B, T, D]."""
        return self.fc2(functional.gelu(self.fc1(x)))


class SelfAttention(nn.Module):
    """Multi-head attention with fused queries, keys and values."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens [B, T, D] to [B, T, D]."""
        batch, tokens, dim = x.shape
        heads = self.qkv(x).unflatten(2, (3, self.heads, dim // self.heads))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / (dim // self.heads) ** 0.5
        x = torch.softmax(scores, dim=-1) @ value
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, dim))


class LayerScale(nn.Module):
    """A learned factor for every channel (Touvron et al., arXiv 2103.17239, §2)."""

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens [B, T, D] to [B, T, D]."""
        return x * self.gamma


class TransformerBlock(nn.Module):
    """Attention and MLP, each behind a LayerNorm and beside a shortcut; DINOv2's are scaled."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, eps: float, scaled: bool = False):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = SelfAttention(dim, heads)
        self.ls1 = LayerScale(dim) if scaled else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, mlp_dim)
        self.ls2 = LayerScale(dim) if scaled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens [B, T, D] to [B, T, D]."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its size."""

    def __init__(self, dim: int, patch_size: int, channels: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images [B, 3, H, W] to patches [B, L, D], row by row."""
        return self.proj(images).flatten(2).transpose(1, 2)


class MaskedAutoencoder(nn.Module):
    """An encoder and, if its sizes are given, a decoder.

    Args:
        image_size: side of an image in pixels.
        patch_size: side of a patch in pixels.
        dim: width of the encoder.
        depth: its blocks.
        heads: its attention heads.
        mlp_dim: hidden width of its MLPs.
        eps: epsilon of every LayerNorm.
        decoder: (width, depth, heads, hidden width) of the decoder, or None.
        normalize_pixels: whether targets are standardised patch by patch.
        channels: channels C of an image.
        scaled: whether blocks have a LayerScale, as DINOv2's.
    """

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_dim: int = 3072,
        eps: float = 1e-6,
        decoder: tuple[int, int, int, int] | None = None,
        normalize_pixels: bool = True,
        channels: int = 3,
        scaled: bool = False,
    ):
        super().__init__()
        self.patch_size = patch_size
        self.normalize_pixels = normalize_pixels
        self.length = (image_size // patch_size) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.length, dim))
        self.patch_embed = PatchEmbedding(dim, patch_size, channels)
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, heads, mlp_dim, eps, scaled) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=eps)
        if decoder is not None:
            width, decoder_depth, decoder_heads, hidden = decoder
            self.decoder_embed = nn.Linear(dim, width)
            self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
            self.decoder_pos_embed = nn.Parameter(torch.zeros(1, 1 + self.length, width))
            self.decoder_blocks = nn.ModuleList(
                TransformerBlock(width, decoder_heads, hidden, eps) for _ in range(decoder_depth)
            )
            self.decoder_norm = nn.LayerNorm(width, eps=eps)
            self.decoder_pred = nn.Linear(width, channels * patch_size**2)

    def encode(self, images: Tensor, keep: Tensor) -> Tensor:
        """Tokens [B, 1 + K, D] of the kept patches [B, K] of images [B, 3, H, W], CLS first."""
        x = self.patch_embed(images)
        x = x + self.pos_embed[:, 1 : 1 + x.shape[1]]  # of a sequence, those of the first frame
        x = x.gather(1, keep[:, :, None].expand(-1, -1, x.shape[2]))
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([cls, x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def decode(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """Predictions [B, L, 3 p²] for every patch."""
        x = self.decoder_embed(tokens)
        full = self.mask_token.repeat(len(x), self.length, 1)
        full = full.scatter(1, keep[:, :, None].expand(-1, -1, x.shape[2]), x[:, 1:])
        x = torch.cat([x[:, :1], full], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]

    def loss(self, images: Tensor, predicted: Tensor, keep: Tensor) -> Tensor:
        """Mean squared error on the patches that are not kept."""
        p = self.patch_size
        # unfold gives (channel, row, column); the published order is (row, column, channel).
        target = functional.unfold(images, p, stride=p).transpose(1, 2)
        target = target.unflatten(2, (images.shape[1], p, p)).permute(0, 1, 3, 4, 2).flatten(2)
        if self.normalize_pixels:
            variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
            target = (target - mean) / (variance + VARIANCE_EPSILON).sqrt()
        missing = torch.ones_like(target[:, :, 0]).scatter(1, keep, 0.0)
        error = ((predicted - target) ** 2).mean(dim=-1)
        return (error * missing).sum() / missing.sum()


class ResidualBottleneck(nn.Module):
    """A bottleneck of ResNet v1.5."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride=stride, bias=False),
                nn.BatchNorm2d(4 * width),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C, H, W] to [B, 4 W, H / stride, W / stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return functional.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Module):
    """ResNet-50 v1.5 under torchvision's names.

    Args:
        classes: outputs of the classifier.
    """

    def __init__(self, classes: int = 1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for i, (width, depth) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
            blocks = []
            for j in range(depth):
                blocks.append(ResidualBottleneck(inputs, width, 2 if i > 1 and j == 0 else 1))
                inputs = 4 * width
            self.add_module(f"layer{i}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, classes)

    def features(self, images: Tensor) -> Tensor:
        """Averages [B, 2048] of the last feature maps of images [B, 3, H, W]."""
        x = functional.relu(self.bn1(self.conv1(images)))
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for i in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{i}")(x)
        return x.mean(dim=(2, 3))
