"""Known published files, and a warning about weights that are easily confused.

The encoders of the paper are `mae_pretrain_vit_{base,large,huge}.pth`: trained to predict
normalised pixels, published without their decoder. `mae_visualize_vit_*` are other weights, trained
on plain pixels for pictures, published with their decoder. According to the script that converted
them, Hugging Face's `facebook/vit-mae-*` are made from these. The former are recognised by the
beginning of their MD5 sum, which is all that facebookresearch's README gives; the latter by their
name, or suspected by their decoder, since their sums are not published.
"""

import hashlib
import pathlib

from conversion.plan import Plan

# README.md of facebookresearch/mae, "pre-trained checkpoint", row "md5".
PRETRAINED_MD5 = {
    "8cad7c": "mae_pretrain_vit_base",
    "b8b06e": "mae_pretrain_vit_large",
    "9bdbb0": "mae_pretrain_vit_huge",
}
PUBLISHED_WIDTHS = (768, 1024, 1280)
BLOCK = 1 << 20


def digests(files: tuple[pathlib.Path, ...]) -> tuple[str, str]:
    """SHA-256 and MD5, in hex, of some files one after the other."""
    sha, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    for path in files:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                sha.update(block)
                md5.update(block)
    return sha.hexdigest(), md5.hexdigest()


def remarks(name: str, plan: Plan, md5: str) -> list[str]:
    """Remarks on a source that looks like a published one.

    Args:
        name: the source as the user named it.
        plan: its naming, model and sizes.
        md5: its MD5 sum in hex.
    """
    if plan.encoder is None:
        return []
    known = PRETRAINED_MD5.get(md5[:6])
    if known and plan.decoder is None and plan.encoder.dim in PUBLISHED_WIDTHS:
        return [f"this is facebookresearch's {known}.pth (its MD5 begins with {md5[:6]})"]
    if "visualize" in pathlib.Path(name).name:
        return [
            "warning: mae_visualize_* is the variant for pictures, trained on plain pixels; the "
            "encoder of the paper is mae_pretrain_*"
        ]
    if name.startswith("facebook/vit-mae-"):
        return [
            "warning: facebook/vit-mae-* seem to be made from mae_visualize_* (the default of the "
            "script that converted them), the variant for pictures; the paper uses mae_pretrain_*"
        ]
    published_size = plan.encoder.dim in PUBLISHED_WIDTHS and plan.encoder.grid == (
        16 if plan.encoder.patch_size == 14 else 14
    )
    if plan.decoder and published_size and plan.decoder["dim"] == 512:
        return [
            "warning: a published size with its decoder may be mae_visualize_*, the variant for "
            "pictures (mae_pretrain_* has none); no tensor distinguishes the two"
        ]
    return []
