"""TensorRT as a backend: plans built ahead of time, and a runtime on NVIDIA GPUs. Importing this loads no library."""

from engines.tensorrt.backend import availability, create

__all__ = ["availability", "create"]
