"""TensorRT as a backend: plans built ahead of time, and a runtime on NVIDIA GPUs. Importing this loads no library."""

from engines.tensorrt.runtime import availability, obstacle, open_engine

__all__ = ["availability", "obstacle", "open_engine"]
