"""Losses to compare the penalty with: KL to a reference, importance-weighted SFT and DFT.

    loss = KLLoss(model, reference, strength=0.1)
    SFTTrainer(model, args, train_dataset=data, compute_loss_func=loss, callbacks=[anchor.callback()])

`KLLoss` and `ImportanceWeightedLoss` are made for `compute_loss_func` of `transformers.Trainer` and
TRL's `SFTTrainer`. A penalty on the weights acts on gradients, so it composes with them. Both stand
where TRL's DFT stands (`SFTConfig(loss_type="dft")`), so `SFTTrainer` refuses that together with one
of them. The functions are the same losses for a hand-written loop.

Everything is computed in float32. The reference is a second model in memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InputRefused, UsageError

IGNORED = -100  # the label of a token without a loss
MOST_WEIGHT = 16.0
_INPUTS = ("input_ids", "inputs_embeds", "attention_mask", "position_ids")


def label_log_probs(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The log probability of each label, and which labels count.

    Args:
        logits: (…, vocabulary).
        labels: (…), int64; −100 where a token has no loss.

    Returns:
        Two tensors of the shape of `labels`: float32, 0 where a label does not count; and bool.
    """
    counts = labels != IGNORED
    chosen = torch.where(counts, labels, 0).unsqueeze(-1)
    log_probs = logits.float().log_softmax(-1).gather(-1, chosen).squeeze(-1)
    return torch.where(counts, log_probs, 0.0), counts


def dft(log_probs: Tensor) -> Tensor:
    """The loss of dynamic fine-tuning per token: −p log p, with p as a constant.

    Source: Wu et al. 2025, arXiv 2508.05629. For `SFTTrainer` take TRL's own.
    """
    return -log_probs.exp().detach() * log_probs


def importance_weights(
    log_probs: Tensor, reference: Tensor, counts: Tensor, most: float = MOST_WEIGHT
) -> Tensor:
    """min(exp(mean over tokens of log p − log p of the reference), most) of each sequence.

    The weights are constants: no gradient flows through them.

    Args:
        log_probs, reference: (…, tokens), of the labels.
        counts: (…, tokens), bool: which tokens count.

    Returns:
        (…), float32; 1 for a sequence without a token that counts.

    Source: Qin and Springenberg 2025, arXiv 2507.12856, in the form of RPSFT's baselines (arXiv
        2605.10973): one weight a sequence, from the mean log ratio, with an upper bound.
    """
    ratio = torch.where(counts, log_probs.detach() - reference.detach(), 0.0).sum(-1)
    return (ratio / counts.sum(-1).clamp(min=1)).exp().clamp(max=most)


def kl_divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """Σ p (log p − log q) over the vocabulary, with q of the reference.

    Args:
        logits, reference: (…, vocabulary).

    Returns:
        (…), float32, in nats.
    """
    log_p, log_q = logits.float().log_softmax(-1), reference.float().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


class ReferenceLoss:
    """A `compute_loss_func` that also runs a reference model on the inputs of the last forward pass.

    `compute_loss_func` is given outputs and labels and no inputs, so a hook on the decoder of the
    model keeps them. `remove` takes the hook away.

    Args:
        model: the model that is trained, before or after PEFT has wrapped it.
        reference: a causal language model with the same vocabulary, such as the one at the start.
            It is put into evaluation mode, is never trained, and shares no weight with `model`.

    Raises:
        UsageError: `reference` shares weights with `model`, so that it would move too.
    """

    def __init__(self, model: Any, reference: Any) -> None:
        weights = {id(parameter) for parameter in model.parameters()}
        if any(id(parameter) in weights for parameter in reference.parameters()):
            what = "shares weights with the model that is trained"
            raise UsageError("reference", what, "Load it a second time.")
        self.reference = reference.eval()
        self._inputs: dict[str, Any] = {}
        self._hook = model.get_decoder().register_forward_pre_hook(self._keep, with_kwargs=True)

    def __call__(
        self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """The loss: the sum over label tokens, divided by their number.

        Args:
            outputs: of the model, with `logits` (sequences, tokens, vocabulary).
            labels: (sequences, tokens), not shifted; −100 where a token has no loss.
            num_items_in_batch: label tokens of the whole accumulated batch; by default of this one.

        Raises:
            UsageError: there are no labels, or no forward pass has been seen.
            InputRefused: the reference has another vocabulary.
        """
        if labels is None:
            raise UsageError(self._name, "is given no labels", "Train on data with labels.")
        logits, targets = outputs.logits[:, :-1], labels[:, 1:]
        losses, counts = self.token_losses(logits, self._reference_logits(logits), targets)
        items = counts.sum() if num_items_in_batch is None else num_items_in_batch
        return torch.where(counts, losses, 0.0).sum() / items

    def token_losses(self, logits: Tensor, reference: Tensor, labels: Tensor) -> Any:
        """The loss of each token, and which count: two tensors of the shape of `labels`."""
        raise NotImplementedError

    def remove(self) -> None:
        """Take the hook off the model."""
        self._hook.remove()

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _keep(self, _module: Any, places: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = dict(zip(_INPUTS, places[:1])) | named
        self._inputs = {name: given[name] for name in _INPUTS if given.get(name) is not None}

    def _reference_logits(self, logits: Tensor) -> Tensor:
        if not self._inputs:
            do = "Make it with the model that the trainer gets."
            raise UsageError(self._name, "has seen no forward pass of its model", do)
        inputs, self._inputs = self._inputs, {}
        device = next(self.reference.parameters()).device
        moved = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in inputs.items()}
        with torch.no_grad():
            found = self.reference(**moved, use_cache=False).logits[:, :-1].to(logits.device)
        if found.shape != logits.shape:
            what = f"gives logits of shape {list(found.shape)}, the model {list(logits.shape)}"
            raise InputRefused("reference", what, "Take a reference with the same vocabulary.")
        return found


class KLLoss(ReferenceLoss):
    """Cross-entropy + strength · KL(model ‖ reference), both over the label tokens.

    Args:
        strength: factor of the divergence.
    """

    def __init__(self, model: Any, reference: Any, *, strength: float = 0.1) -> None:
        super().__init__(model, reference)
        self.strength = strength

    def token_losses(self, logits: Tensor, reference: Tensor, labels: Tensor) -> Any:
        """−log p + strength · KL of each token, and which tokens count."""
        log_probs, counts = label_log_probs(logits, labels)
        return self.strength * kl_divergence(logits, reference) - log_probs, counts


class ImportanceWeightedLoss(ReferenceLoss):
    """IW-SFT: the cross-entropy of each sequence times its `importance_weights`.

    Args:
        most: upper bound of the weights.
    """

    def __init__(self, model: Any, reference: Any, *, most: float = MOST_WEIGHT) -> None:
        super().__init__(model, reference)
        self.most = most

    def token_losses(self, logits: Tensor, reference: Tensor, labels: Tensor) -> Any:
        """−weight · log p of each token, and which tokens count."""
        log_probs, counts = label_log_probs(logits, labels)
        before, _ = label_log_probs(reference, labels)
        weights = importance_weights(log_probs, before, counts, self.most)
        return -weights.unsqueeze(-1) * log_probs, counts
