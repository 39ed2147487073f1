"""Opens what training reads: images, validation images, the names of their classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgenext_tvm.errors import UserError
from edgenext_tvm.finetune.training_images import TrainingImages, count_turned, labels_of, split_off
from edgenext_tvm.quantize.images import ImageSet, open_images


@dataclass(frozen=True)
class Data:
    """source: the training images' name. classes: a name for each, numbers where the images have no names."""

    source: str
    training: TrainingImages
    validation: TrainingImages | None
    classes: tuple[str, ...]


def open_data(
    images: str | Path,
    validation: str | Path | None,
    hold_out: float,
    *,
    stored_size: int,
    validation_size: int,
    limit: int | None,
    seed: int,
    say: Callable[[str], None],
) -> Data:
    """Opens labelled images of at least two classes; `stored_size`, `validation_size`: network inputs they serve.

    validation: None holds out the share `hold_out` of the images, 0 for no validation.
    """
    source = open_images(images, limit=limit, seed=seed)
    classes = _classes(source)
    judged = None if validation is None else open_images(validation)
    if judged is not None:
        _check_same_classes(source, judged, len(classes))
    elif hold_out:
        source, judged = split_off(source, hold_out, seed)
    _say_oddities(source, classes, say)
    training = TrainingImages(source, stored_size)
    return Data(source.name, training, None if judged is None else TrainingImages(judged, validation_size), classes)


def _classes(source: ImageSet) -> tuple[str, ...]:
    found = labels_of(source)
    if len(np.unique(found)) < 2:
        raise UserError(f"{source.name} holds one class only; training needs images of at least two")
    return source.class_names or tuple(str(index) for index in range(int(found.max()) + 1))


def _check_same_classes(source: ImageSet, judged: ImageSet, num_classes: int) -> None:
    if judged.class_names != source.class_names:
        raise UserError(
            f"the validation images have the classes {_listed(judged.class_names)}, the training images "
            f"{_listed(source.class_names)}; give folders with the same class names"
        )
    highest = int(labels_of(judged).max())
    if highest >= num_classes:
        raise UserError(
            f"the validation images have the label {highest}, which no training image has; training knows "
            f"0 to {num_classes - 1}"
        )


def _say_oddities(source: ImageSet, classes: tuple[str, ...], say: Callable[[str], None]) -> None:
    shown = set(labels_of(source).tolist())
    unseen = tuple(name for index, name in enumerate(classes) if index not in shown)
    if unseen:
        say(f"warning: no training image shows {_listed(unseen)}; the network will not know them")
    turned = count_turned(source)
    if turned:
        say(
            f"warning: {turned} of the photos looked at are stored turned (EXIF), and are taken as stored, as "
            "everywhere here; turn them upright first, for example with `mogrify -auto-orient`"
        )


def _listed(names: tuple[str, ...] | None) -> str:
    if not names:
        return "without names"
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
