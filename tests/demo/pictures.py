"""Pictures, read back."""

from pathlib import Path

from matplotlib.image import imread


def assert_drawn(path: Path) -> None:
    """A PNG that decodes, of a sensible size, with more than one colour on it."""
    assert path.read_bytes().startswith(b"\x89PNG")
    image = imread(path)
    height, width = image.shape[:2]
    assert min(height, width) > 300
    assert image[..., :3].std() > 0.01
