"""The environment of a run: everything known to change the bits that training gives.

`capture()` returns `{"bits": {...}, "notes": {...}}`. A difference under `bits` can change the weights, so a replay
that differs there and gives another result is INCONCLUSIVE; a difference under `notes` cannot.

Shows: what the recording machine said about itself.
Does not show: that it was so. A false record can only turn MISMATCH into INCONCLUSIVE, and neither is a pass.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from pot.canonical import canonical_bytes, sha256_hex
from pot.errors import Refused

__all__ = [
    "VARIABLE_PREFIXES", "capture", "differences", "environment_sha256", "refuse_unrepeatable", "replay_obstacles",
    "variables",
]  # fmt: skip

VARIABLE_PREFIXES: Final = (
    "OMP_", "MKL_", "KMP_", "GOMP_", "ONEDNN_", "DNNL_", "ATEN_", "TORCH", "PYTORCH", "CUBLAS_", "CUDA_", "CUDNN_",
    "NCCL_", "GLOO_", "TRITON_",
)  # fmt: skip
"""Environment variables with these prefixes, and PYTHONHASHSEED, are recorded and set again for a replay."""

_LIBRARIES: Final = ("libtorch_cpu.so", "libc10.so", "libgomp*.so*")
_LOAD_DEPENDENT: Final = ("OMP_DYNAMIC", "MKL_DYNAMIC")
_ELASTIC: Final = ("TORCHELASTIC_", "TORCH_NCCL_ASYNC")  # set by launchers, with names of one start
_HARMLESS: Final = frozenset({"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"})  # set by libraries as they load
# where caches lie (PyTorch sets some of these by itself while it runs), and by which way processes talk
_PLACES: Final = ("_CACHE_DIR", "_HOME", "_SOCKET_IFNAME")
_OFF: Final = frozenset({"", "0", "false", "no", "off"})
_VALUE_LIMIT: Final = 4096  # characters of one variable's value; longer ones would fill the pre-commitment


def capture() -> dict[str, Any]:
    """The environment as a JSON value with string leaves. PyTorch is described only where the program imported it."""
    bits: dict[str, Any] = {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "cpu": _cpu(),
        "numpy": _version("numpy"),
        "variables": variables(),
    }
    if "torch" in sys.modules:
        bits["torch"] = _torch()
    notes = {"system": platform.system(), "kernel": platform.release(), "pot": _pot_version()}
    return {"bits": bits, "notes": notes}


def environment_sha256(environment: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical bytes of an environment record."""
    return sha256_hex(canonical_bytes(dict(environment)))


def differences(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """Sentences naming each difference that can change bits: "torch.threads: recorded '1', here '2'"."""
    ours = _leaves(recorded.get("bits", {}))
    theirs = _leaves(present.get("bits", {}))
    return [
        f"{key}: recorded {ours.get(key, 'nothing')!r}, here {theirs.get(key, 'nothing')!r}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]


def variables(source: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment variables that can change results, sorted by name."""
    chosen = os.environ if source is None else source
    return {
        name: chosen[name][:_VALUE_LIMIT].encode("utf-8", "replace").decode("utf-8")
        for name in sorted(chosen)
        if name == "PYTHONHASHSEED"
        or (
            name.startswith(VARIABLE_PREFIXES)
            and not (name.startswith(_ELASTIC) or name.endswith(_PLACES) or name in _HARMLESS)
        )
    }


def refuse_unrepeatable(source: Mapping[str, str] | None = None) -> None:
    """Raise `Refused` where a setting makes results depend on the machine's load, so that no replay can ever match."""
    chosen = os.environ if source is None else source
    for name in _LOAD_DEPENDENT:
        if chosen.get(name, "").strip().lower() not in _OFF:
            raise Refused(
                f"{name}={chosen[name]} lets the number of threads follow the load, so this run could not be replayed;"
                f" start it with {name}=FALSE"
            )


def replay_obstacles() -> list[str]:
    """What is set in this process so that a replay elsewhere, or even here, may give other bits; a sentence each.

    Only what can be seen before training: operations that have no deterministic kernel are found by PyTorch itself, if
    the program asks it to (`torch.use_deterministic_algorithms(True)`).
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    found = []
    threads, cores = torch.get_num_threads(), len(os.sched_getaffinity(0))
    if threads == cores > 1 and "OMP_NUM_THREADS" not in os.environ:
        found.append(
            f"PyTorch uses {threads} threads, as many as there are cores, and sums depend on their number; unless the"
            f" program sets it, call torch.set_num_threads({threads})"
        )
    if torch.cuda.is_available():
        if not torch.are_deterministic_algorithms_enabled():
            found.append("CUDA kernels may add in any order; call torch.use_deterministic_algorithms(True)")
        if torch.backends.cudnn.benchmark:
            found.append("cuDNN picks its kernels by timing them; set torch.backends.cudnn.benchmark = False")
    if torch.is_autocast_enabled("cpu") or torch.get_default_dtype() in (torch.bfloat16, torch.float16):
        found.append("16-bit arithmetic differs between processors; an audit elsewhere will be inconclusive")
    inductor = sys.modules.get("torch._inductor.config")
    if inductor is not None and not inductor.fallback_random and "torch._inductor.compile_fx" in sys.modules:
        found.append(
            "compiled dropout draws other numbers than eager; set torch._inductor.config.fallback_random = True"
        )
    return found


def _torch() -> dict[str, Any]:
    import torch

    mkldnn: Any = torch.backends.mkldnn
    cudnn: Any = torch.backends.cudnn
    described: dict[str, Any] = {
        "version": str(torch.__version__),
        "git": str(getattr(torch.version, "git_version", "")),
        "build_sha256": sha256_hex(torch.__config__.show().encode()),
        "threads": str(torch.get_num_threads()),
        "interop_threads": str(torch.get_num_interop_threads()),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "default_dtype": str(torch.get_default_dtype()),
        "mkldnn": str(mkldnn.is_available() and bool(mkldnn.enabled)),
        "autocast": str(torch.is_autocast_enabled("cpu")),
        "warn_only": str(torch.is_deterministic_algorithms_warn_only_enabled()),
        "flush_denormal": str(_flushes_denormals()),
        "fallback_random": str(bool(getattr(sys.modules.get("torch._inductor.config"), "fallback_random", False))),
        "libraries_blake3": _libraries(str(Path(torch.__file__).parent)),
    }
    if torch.cuda.is_available():
        described["cuda"] = {
            "version": str(torch.version.cuda),
            "devices": ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())),
            "cudnn": str(cudnn.version()),
            "cudnn_deterministic": str(cudnn.deterministic),
            "cudnn_benchmark": str(cudnn.benchmark),
            "tf32": str(torch.backends.cuda.matmul.allow_tf32),
            "cudnn_tf32": str(cudnn.allow_tf32),
            "fp16_reduced": str(torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction),
            "bf16_reduced": str(torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction),
            "attention": ", ".join(
                name
                for name in ("flash", "mem_efficient", "math", "cudnn")
                if getattr(torch.backends.cuda, f"{name}_sdp_enabled")()
            ),
            "driver": _driver(),
            "nccl": _nccl(),
        }
    return described


def _flushes_denormals() -> bool:
    import torch

    return float(torch.tensor([1e-310], dtype=torch.float64).mul(1.0)[0]) == 0.0


def _nccl() -> str:
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_nccl_available():
        return "absent"
    nccl: Any = sys.modules["torch.cuda.nccl"]
    return ".".join(map(str, nccl.version()))


def _driver() -> str:
    """The version of the kernel's NVIDIA module, which Linux tells in a file."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown"
    return text.splitlines()[0].strip() if text else "unknown"


@lru_cache(maxsize=1)
def _libraries(package: str) -> dict[str, str]:
    """BLAKE3 of the libraries that compute; they are mapped already, so reading them costs a tenth of a second."""
    folder = Path(package)
    places = [folder / "lib", folder.parent / "torch.libs"]
    found = sorted({path.name: path for place in places for name in _LIBRARIES for path in place.glob(name)}.items())
    return {name: blake3(max_threads=1).update_mmap(path).hexdigest() for name, path in found}


def _cpu() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {"model": platform.processor() or "unknown"}
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "flags", "Features"):
            found.setdefault(key.strip(), value.strip())
    flags = " ".join(sorted((found.get("flags") or found.get("Features") or "").split()))
    return {
        "model": found.get("model name", platform.processor() or "unknown"),
        "flags_sha256": sha256_hex(flags.encode()),
    }


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        leaves.update(_leaves(item, f"{prefix}.{key}" if prefix else str(key)))
    return leaves


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _pot_version() -> str:
    from pot import __version__

    return __version__
