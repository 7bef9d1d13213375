"""After a run: the weights of models that figures show, in half precision, into `book/weights/<chapter>/`.

`vaekit/notebook/weights.json` lists every file with its SHA-256; `vaekit.notebook.weights` reads them.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save

from vaekit.notebook import store, weights

LIMIT = 10 * 2**20  # bytes in all


def keep_weights(events: list[dict[str, Any]], profile: str) -> list[str]:
    """Write the weights that a run marked by `keep`, and list them; those of the smallest profile are left out.

    Returns:
        What was written, by name.

    Raises:
        ValueError: They would take more than 10 MiB in all.
    """
    marked = {e["keep"]: e for e in events if e.get("keep") and e.get("event") in ("end", "found")}
    if profile == "smoke" or not marked:
        return []
    index = weights.index()
    for name, event in marked.items():
        path = Path(event["path"])
        value, origin = store.read(path, store.origin_of(path)["key"]) or (None, {})
        if value is None:
            continue
        tensors = {f"{part}.{k}": v for part in ("model", "objective") for k, v in value[part].items()}
        tensors = {k: (v.half() if v.is_floating_point() else v).cpu().contiguous() for k, v in tensors.items()}
        history = {k: value[k] for k in ("train", "validation", "stopped", "seconds")}
        about = {k: origin[k] for k in ("name", "device", "date", "torch")} | {"profile": profile, "history": history}
        content = save(tensors, {"vaekit": json.dumps(about)})
        size = len(content) + sum(entry["bytes"] for other, entry in index.items() if other != name)
        if size > LIMIT:
            raise ValueError(f"{name}: expected at most {LIMIT:,} bytes of weights in all, got {size:,}")
        file = weights.FOLDER / f"{name}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        index[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    weights.INDEX.write_text(json.dumps(dict(sorted(index.items())), indent=1) + "\n", encoding="utf-8")
    return sorted(marked)
