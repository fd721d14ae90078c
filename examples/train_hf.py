"""Train a small byte model with Hugging Face's Trainer and leave a transcript of it.

    python train_hf.py --data train.jsonl --commitment train.json --run run --out model

The lines that record are `begin` and the `with` around `trainer.train()`. Start the same command again after a crash
and the run goes on from its latest checkpoint, to the same weights.

The data: lines of {"text": "..."}; train.json is their commitment, made with
`pot data commit train.jsonl --view text/1 --out train.json`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # set here, because a replay does not see the shell's

import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from pot import begin
from pot.data.readers import RecordDataset
from pot.recording.huggingface import record_trainer, trainer_options

LENGTH = 32
SIZES = {"vocab_size": 256, "n_positions": LENGTH, "n_embd": 32, "n_layer": 2, "n_head": 2}


class Bytes(torch.utils.data.Dataset):
    """The first 32 bytes of every text."""

    def __init__(self, path: str) -> None:
        self.records = RecordDataset(path)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        text = self.records[index]["text"].encode()[:LENGTH].ljust(LENGTH, b" ")
        ids = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
        return {"input_ids": ids, "labels": ids}


def main() -> None:
    options = argparse.ArgumentParser(description="Train a byte model with the Trainer and record it.")
    options.add_argument("--data", required=True, help="JSON lines with a field text to train on")
    options.add_argument("--commitment", required=True, help="their commitment, made by 'pot data commit'")
    options.add_argument("--run", required=True, help="run directory to write")
    options.add_argument("--out", required=True, help="folder for model.safetensors")
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--nonce", default="self", help="'self', or 'verifier' to wait for one")
    chosen = options.parse_args()

    torch.set_num_threads(1)
    args = TrainingArguments(
        output_dir=chosen.out,
        max_steps=chosen.steps,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        dataloader_drop_last=True,
        learning_rate=0.003,
        lr_scheduler_type="cosine",
        warmup_steps=10,
        weight_decay=0.01,
        save_strategy="no",
        report_to="none",
        logging_steps=50,
        disable_tqdm=True,
        use_cpu=True,
    )
    begun = begin(
        chosen.run, commitments=[chosen.commitment], inputs=[chosen.data], nonce=chosen.nonce, checkpoint_every=20,
        **trainer_options(args, {"model": "GPT-2", **SIZES}),
    )  # fmt: skip
    torch.manual_seed(begun.torch_seed("init"))
    model = GPT2LMHeadModel(GPT2Config(**SIZES, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0))
    trainer = Trainer(model=model, args=args, train_dataset=Bytes(chosen.data))

    with record_trainer(trainer, begun):
        trainer.train()

    Path(chosen.out).mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), str(Path(chosen.out) / "model.safetensors"))
    print(f"{trainer.state.global_step} steps, model in {chosen.out}/model.safetensors")


if __name__ == "__main__":
    main()
