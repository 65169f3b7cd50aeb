"""cfg -> the server. Its parent process comes here before torch is imported, and never imports it."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from yacs.config import CfgNode

from engine import __version__
from engine.errors import InputError
from engine.log import get_logger, setup_logging
from engine.runtime.card_file import model_files
from engine.serve.limits import Limits

if TYPE_CHECKING:
    from engine.serve.model import ServedModel

KEY_VARIABLE = "ENGINE_API_KEY"
_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
_LOCAL = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class ModelLoader:
    """Reads the model of a configuration, in a worker.

    Attributes:
        cfg: with MODEL.DEVICE and TEST.IMS_PER_BATCH as the server needs them.
        weights: as `Predictor` takes them.
        num_threads: that it may compute with; 0: an equal share of the CPUs.
        num_workers: that share them.
    """

    cfg: CfgNode
    weights: str
    num_threads: int
    num_workers: int

    def __call__(self) -> ServedModel:
        import torch

        from engine.assembly.detector import DEFAULT_THRESHOLD, Predictor
        from engine.device import num_cpus
        from engine.serve.model import ServedModel, file_digest
        from engine.visualize.colors import class_color

        torch.set_num_threads(self.num_threads or max(num_cpus() // self.num_workers, 1))
        predictor = Predictor(self.cfg, self.weights, threshold=0.0)  # requests may ask for less than the stored ones
        stored, path = predictor.stored_thresholds, Path(self.weights)
        return ServedModel(
            predictor,
            tuple(stored.get(name, DEFAULT_THRESHOLD) for name in predictor.class_names),
            tuple(class_color(label) for label in range(len(predictor.class_names))),
            path.name,
            file_digest(path) if path.is_file() else "",
            {
                "min_size": self.cfg.INPUT.MIN_SIZE_TEST,
                "max_size": self.cfg.INPUT.MAX_SIZE_TEST,
                "channels": predictor.reading.channels,
                "max_detections": self.cfg.TEST.DETECTIONS_PER_IMG,
                "device": str(predictor.device),
                "engine_version": __version__,
            },
        )


def check_installed() -> None:
    """Refuse to start without the packages of a server.

    Raises:
        InputError: names those that are missing.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"the server needs {', '.join(missing)}, not installed here: pip install 'engine[serve]'")


def serve(cfg: CfgNode, weights: str, host: str, port: int, limits: Limits, num_workers: int, num_threads: int) -> int:
    """Answer requests until a signal; the exit code.

    Args:
        num_threads: of each worker; 0: an equal share of the CPUs.

    Raises:
        InputError: a package is missing, the port is taken, or the model cannot be loaded.
    """
    check_installed()
    key = os.environ.get(KEY_VARIABLE)
    if key is not None and not (key.strip() and key.isascii() and key.isprintable()):
        raise InputError(f"the variable {KEY_VARIABLE} must be letters, digits and signs of ASCII; set it, or unset it")
    from engine.serve.plan import WorkerPlan
    from engine.serve.supervisor import Supervisor, address_of, open_port

    setup_logging()
    loader = ModelLoader(cfg, weights, num_threads, num_workers)
    plan = WorkerPlan(loader, limits, model_files(weights), key or "")
    with open_port(host, port) as listening:
        if host not in _LOCAL and not key:
            get_logger(__name__).warning("%s is open to the network without a key: set %s", host, KEY_VARIABLE)
        get_logger(__name__).info("listening on %s", address_of(listening))
        return Supervisor(plan, listening, num_workers, limits.timeout).run()
