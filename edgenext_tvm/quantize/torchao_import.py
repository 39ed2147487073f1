"""Imports torchao without its warnings about GPU libraries and torch internals, which mean nothing to a user here."""

from __future__ import annotations

import logging

_loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
_levels = [logger.level for logger in _loggers]
for _logger in _loggers:
    _logger.setLevel(logging.ERROR)
try:
    import torchao.quantization.pt2e.quantize_pt2e
    import torchao.quantization.pt2e.quantizer  # noqa: F401
finally:
    for _logger, _level in zip(_loggers, _levels, strict=True):
        _logger.setLevel(_level)
