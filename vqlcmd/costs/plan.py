"""What a run costs, before it starts: parameters, FLOPs, memory and disk, from params.yaml and the size of the data.

Shapes: N tokens, K codes, P parameters.
"""

from dataclasses import dataclass
from math import prod

import torch

from vqlcmd.costs import fitting
from vqlcmd.costs.flops import META, MethodCosts, Sizes, counting
from vqlcmd.costs.memory import FLOAT, TrainingMemory, method_costs, training_memory
from vqlcmd.diffusion.collapse import statistics_memory
from vqlcmd.evaluation.distances import CHUNK
from vqlcmd.evaluation.proxy_classifier import DIMENSIONS, ProxyClassifier
from vqlcmd.images.crops import Recipe
from vqlcmd.params import Params
from vqlcmd.precision import PRECISIONS
from vqlcmd.pretrained.described import without_weights
from vqlcmd.tokenizer import Tokenizer
from vqlcmd.tokens.streaming import BYTES_BESIDE_TOKENS

INCEPTION = (2048, 1008, 11_426_464_960)
"""Numbers of features and of logits, and FLOPs an image, which the network enlarges to 299 x 299 pixels."""
VGG16 = (4096, 0, 30_932_336_640)
"""The same at 224 x 224 pixels; its last layer, the logits, is not computed."""
EFFICIENTNET = (1280, 1000, 770_375_104)
"""The same for EfficientNet-Lite0 at 224 x 224 pixels."""
DINOV2 = (1024, 0, 24 * (24 * 257 * 1024**2 + 4 * 257**2 * 1024) + 2 * 256 * 3 * 14**2 * 1024)
"""The same for ViT-L/14 at 224 x 224 pixels: 24 blocks of width 1,024 over 257 tokens, and the patch embedding."""
CLIP = (512, 0, 12 * (24 * 50 * 768**2 + 4 * 50**2 * 768) + 2 * 49 * 3 * 32**2 * 768 + 2 * 768 * 512)
"""The same for ViT-B/32 at 224 x 224 pixels: 12 blocks of width 768 over 50 tokens, patch embedding, projection."""
LOOKS = {"inception": INCEPTION, "vgg16": VGG16, "efficientnet": EFFICIENTNET, "dinov2": DINOV2, "clip": CLIP}


@dataclass(frozen=True)
class Data:
    """The number of images in a data set, and of their classes."""

    images: int
    classes: int


@dataclass(frozen=True)
class Work:
    """FLOPs of a stage, their precision, and whether several processes share them."""

    flops: float
    precision: str = "float32"
    shared: bool = False


@dataclass(frozen=True)
class Plan:
    """A run: its parameters, its data, and the costs that follow from both."""

    params: Params
    data: Data
    costs: MethodCosts
    tokenizer_parameters: int
    encode: int
    decode: int
    """FLOPs an image of the tokenizer's encoder and decoder."""

    one = "an image"

    @property
    def sizes(self) -> Sizes:
        """The shape of the network."""
        return self.costs.sizes

    def rows(self) -> list[tuple[str, float, str]]:
        """Further rows of the plan: (name, FLOPs or number of parameters, note)."""
        return [
            ("tokenizer", self.tokenizer_parameters, "parameters, as the section vqgan describes it"),
            ("encoding", self.encode, f"{self.views} of them for each picture"),
            ("decoding", self.decode, ""),
        ]

    @property
    def views(self) -> int:
        """How many token sequences an image becomes: its crop views, and their mirror images."""
        images = self.params.images
        return Recipe.of(**images.model_dump()).views * (2 if images.flip else 1)

    @property
    def sequences(self) -> int:
        """The number of token sequences of all images."""
        return self.data.images * self.views

    @property
    def real(self) -> int:
        """The number of images that the reference uses."""
        return min(self.params.reference.limit or self.data.images, self.data.images)

    @property
    def kept(self) -> tuple[int, int]:
        """The numbers of generated and of real images for precision and recall."""
        most = self.params.evaluate.precision_images
        return min(self.params.sample.count, most), min(self.real, most)

    def look(self, name: str) -> tuple[int, int, int]:
        """For a network behind the metrics: numbers of features and of logits, and FLOPs an image."""
        if name == "proxy":
            return DIMENSIONS, self.data.classes, proxy_flops(self.params.images.size)
        return LOOKS[name]

    def memory(self, on_cpu: bool) -> TrainingMemory:
        """The memory of training in float32; in bf16 the activations take less."""
        return training_memory(self.costs, on_cpu)

    def disk(self) -> dict[str, int]:
        """Bytes of each file or folder that the run leaves."""
        sequence = 2 * self.sizes.tokens + BYTES_BESIDE_TOKENS
        codebook = FLOAT * self.params.vqgan.n_embed * self.params.vqgan.embed_dim
        dimensions, logits, _ = self.look(self.params.evaluate.features)
        near, _, _ = self.look(self.params.evaluate.precision_features)
        _, kept = self.kept
        statistics = 2 * 8 * dimensions * (dimensions + 1)
        models = self._averages + len(self.params.train.snapshots)
        return {
            "data/vqgan.safetensors": FLOAT * self.tokenizer_parameters,
            "data/tokens": self.sequences * sequence + codebook,
            "data/model": models * (FLOAT * self.costs.parameters + codebook),
            "data/samples": self.params.sample.count * sequence,
            "data/reference": statistics + FLOAT * kept * (2 * near + logits),
        }

    def state(self) -> int:
        """Bytes of an unfinished training's state: the model, its moving averages, and two moments of its gradients."""
        return (3 + self._averages) * FLOAT * self.costs.parameters

    @property
    def _averages(self) -> int:
        """The number of moving averages, and one more if the best state of the first is kept."""
        return len(self.params.train.ema) + self.params.train.keep_best

    def evaluation_memory(self) -> int:
        """Bytes that evaluate holds: the reference, as many features of samples, their logits, rows of distances."""
        _, logits, _ = self.look(self.params.evaluate.features)
        near, _, _ = self.look(self.params.evaluate.precision_features)
        generated, real = self.kept
        rows = 2 * FLOAT * CHUNK * max(generated, real)
        return self.disk()["data/reference"] + FLOAT * (generated * near + self.params.sample.count * logits) + rows

    def statistics_memory(self) -> int:
        """Bytes that the distances of all embeddings take, computed in blocks, at each row of the curves."""
        return statistics_memory(self.sizes.codes)

    def work(self) -> dict[str, Work]:
        """What each stage computes.

        Decoding picture files, and whatever is no matrix product or convolution, is left out.
        """
        params = self.params
        _, _, look = self.look(params.evaluate.features)
        near, _, extra = self.look(params.evaluate.precision_features)
        extra = 0 if params.evaluate.precision_features == params.evaluate.features else extra
        proxy = params.reference.proxy.steps * params.reference.proxy.batch_size * 3 * look
        count, held = params.sample.count, self.sequences * params.tokenize.holdout
        generated, kept = self.kept
        # Precision and recall of the samples against the real images, and of as many reconstructions as real images.
        pairs = generated**2 + generated * kept + 4 * kept**2
        return {
            "vqgan": Work(self._fit()),
            "tokenize": Work(self.sequences * self.encode, params.tokenize.precision, shared=True),
            "train": Work(
                params.train_steps * params.train.batch_size * self.costs.training,
                params.train.precision,
                shared=True,
            ),
            "sample": Work(count * self.costs.sampling, params.sample.precision, shared=True),
            "bound": Work(held * self.costs.bound),
            "reference": Work(
                self.real * (self.encode + self.decode + 2 * look)
                + 2 * kept * extra
                + (proxy if params.evaluate.features == "proxy" else 0),
                # Tokens and features may differ in precision: the more exact one counts.
                min(params.tokenize.precision, params.reference.precision, key=PRECISIONS.index),
                shared=True,
            ),
            "evaluate, images": Work(count * (self.decode + look) + generated * extra, params.evaluate.precision),
            "evaluate, distances": Work(2 * near * pairs),
        }

    def _fit(self) -> int:
        """FLOPs of training a tokenizer, three passes a step; 0 if a checkpoint is named."""
        fit = self.params.vqgan.fit
        return 0 if self.params.vqgan.checkpoint else 3 * fit.steps * fit.batch_size * (self.encode + self.decode)


def plan(params: Params, data: Data) -> Plan:
    """The plan of a run with the parameters `params` on `data`."""
    size, tokenizer = params.images.size, without_weights(params.vqgan, params.images.size)
    costs = method_costs(
        params.model_part(),
        params.sampling(),
        levels=params.bound.levels,
        tokens=prod(tokenizer.grid(size, size)),
        codes=tokenizer.codes,
        codebook_dim=tokenizer.codebook.shape[1],
        classes=data.classes if params.train.use_classes else 0,
    )
    weights = sum(parameter.numel() for parameter in tokenizer.parameters())
    return Plan(params, data, costs, weights, *tokenizer_flops(tokenizer, size))


def tokenizer_flops(tokenizer: Tokenizer, size: int) -> tuple[int, int]:
    """FLOPs to encode and to decode an image of `size` x `size` pixels, for a tokenizer on the device `meta`."""
    try:
        with META, counting() as counter:
            grid = tokenizer.grid(size, size)
            tokenizer.encode(torch.empty(1, 3, size, size))
            encode = counter.get_total_flops()
            tokenizer.decode(torch.zeros(1, prod(grid), dtype=torch.int64), grid)
    except RuntimeError as error:
        raise fitting.too_large(error) from None
    return encode, counter.get_total_flops() - encode


def proxy_flops(size: int) -> int:
    """FLOPs of the proxy classifier's features, for an image of `size` x `size` pixels."""
    with META, counting() as counter:
        ProxyClassifier(0).features(torch.empty(1, 3, size, size, dtype=torch.uint8))
    return counter.get_total_flops()
