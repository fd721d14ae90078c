"""Train a LoRA adapter on a small byte model and leave a transcript of it.

    python train_lora.py --data train.jsonl --commitment train.json --base base.safetensors --run run --out adapter

The base is an input of the program, known by its SHA-256; with `frozen_apart` it is hashed at the start and the end,
never written, and the released weights are the adapter's alone. Where there is no base yet, a random one is made.

The data: lines of {"text": "..."}; train.json is their commitment, made with
`pot data commit train.jsonl --view text/1 --out train.json`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # set here, because a replay does not see the shell's

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from pot import begin, record
from pot.data.readers import RecordDataset

LENGTH = 32
SIZES = {"vocab_size": 256, "n_positions": LENGTH, "n_embd": 32, "n_layer": 2, "n_head": 2}
CONFIG = {
    "model": "GPT-2",
    **SIZES,
    "adapter": "lora, rank 4, alpha 8, on c_attn",
    "optimizer": "adamw",
    "learning_rate": 0.01,
    "batch_size": 8,
    "checkpoint_every": 20,
    "threads": 1,
}


class Bytes(torch.utils.data.Dataset):
    """The first 32 bytes of every text."""

    def __init__(self, path: str) -> None:
        self.records = RecordDataset(path)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> torch.Tensor:
        text = self.records[index]["text"].encode()[:LENGTH].ljust(LENGTH, b" ")
        return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()


def build_base() -> torch.nn.Module:
    return GPT2LMHeadModel(GPT2Config(**SIZES, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0))


def main() -> None:
    options = argparse.ArgumentParser(description="Train a LoRA adapter and record it.")
    options.add_argument("--data", required=True, help="JSON lines with a field text to train on")
    options.add_argument("--commitment", required=True, help="their commitment, made by 'pot data commit'")
    options.add_argument("--base", required=True, help="the base model's weights")
    options.add_argument("--run", required=True, help="run directory to write")
    options.add_argument("--out", required=True, help="folder for model.safetensors, the adapter")
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--nonce", default="self", help="'self', or 'verifier' to wait for one")
    chosen = options.parse_args()

    torch.set_num_threads(1)
    if not Path(chosen.base).exists():
        save_file(build_base().state_dict(), chosen.base)
    config = {**CONFIG, "steps": chosen.steps}
    inputs = [chosen.data, chosen.base]
    begun = begin(chosen.run, commitments=[chosen.commitment], config=config, inputs=inputs, nonce=chosen.nonce)
    torch.manual_seed(begun.torch_seed("init"))
    base = build_base()
    base.load_state_dict(load_file(chosen.base))
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=["c_attn"], fan_in_fan_out=True))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=CONFIG["learning_rate"])
    loader = torch.utils.data.DataLoader(Bytes(chosen.data), batch_size=CONFIG["batch_size"])

    with record(begun, model=model, optimizer=optimizer, data=loader, frozen_apart=True) as run:
        for ids in run.batches(loader):
            loss = model(input_ids=ids, labels=ids).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step(loss=loss)

    Path(chosen.out).mkdir(parents=True, exist_ok=True)
    adapter = {name: value for name, value in model.state_dict().items() if "lora_" in name}
    save_file(adapter, str(Path(chosen.out) / "model.safetensors"))
    print(f"{run.done} steps, adapter in {chosen.out}/model.safetensors")


if __name__ == "__main__":
    main()
